"""Counts of long-tailed problems."""

import dataclasses
import itertools

import numpy as np
import pytest

import ufm
from ufm.targets import long_tail


def test_ends_and_ratio():
    for kind in ("exp", "step"):
        counts = np.array(long_tail(10, 5000, 100, kind))
        assert (counts[0], counts[-1]) == (5000, 50)
        assert (np.diff(counts) <= 0).all()
    assert long_tail(5, 7, 1) == (7,) * 5
    # The images of long-tailed MNIST: a ratio of 100 from 5400, each class a factor 100^(1/9) below the one before.
    steps = np.array(long_tail(10, 5400, 100))
    np.testing.assert_allclose(steps[:-1] / steps[1:], 100 ** (1 / 9), rtol=0.02)
    assert long_tail(5, 12, 4, "step") == (12, 12, 12, 3, 3)
    assert min(long_tail(3, 2, 1000)) == 1


def test_a_ratio_is_an_axis_of_a_sweep():
    """Each lane is the problem with the counts of its ratio."""
    problem = ufm.Problem(4, 5, 1, ufm.losses.CE(), ufm.Decay(1e-3, 1e-3, 1e-2))
    tails = [long_tail(4, 40, ratio) for ratio in (1, 10)]
    found = ufm.sweep(problem, {"per_class": tails})
    assert (found["gap"] < 1e-10).all()
    for value, counts in zip(found["value"], tails, strict=True):
        alone = ufm.solve(ufm.Problem(4, 5, counts, ufm.losses.CE(), ufm.Decay(1e-3, 1e-3, 1e-2)))
        assert value == pytest.approx(float(alone.value), rel=1e-11)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, 10, 2), ["classes", "1", ">= 2"]),
        ((3, 0, 2), ["n_max", "0", ">= 1"]),
        ((3, 2.5, 2), ["n_max", "2.5", "whole"]),
        ((3, 10, 0.5), ["ratio", "0.5", ">= 1"]),
        ((3, 10, np.nan), ["ratio", "nan"]),
        ((3, 10, 2, "steps"), ["kind", "steps", "did you mean 'step'"]),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ufm.InputError) as caught:
        long_tail(*arguments)
    for word in words:
        assert word in str(caught.value)


def test_counts_weights_and_offsets_are_axes():
    """One entry each: a lane is the problem with that entry, and a sweep over it compiles nothing new."""
    D = ufm.Decay(1e-2, 1e-2, 1e-2)
    base = {"classes": 3, "dim": 4, "loss": ufm.losses.BCE(), "decay": D}
    problem = ufm.Problem(**base, per_class=(4, 4, 4), weights=(0.2, 0.3, 0.5), offset=0.1)
    found = ufm.sweep(problem, {"counts.2": [1, 6], "weights.0": [0.2, 0.9], "offset.1": [-1.0]})
    assert found["value"].shape == (2, 2, 1)
    for (i, n), (j, w) in itertools.product(enumerate([1, 6]), enumerate([0.2, 0.9])):
        alone = ufm.Problem(**base, per_class=(4, 4, n), weights=(w, 0.3, 0.5), offset=(0.1, -1.0, 0.1))
        assert found.problem_at(**{"counts.2": n, "weights.0": w, "offset.1": -1.0}) == alone
        assert found["value"][i, j, 0] == pytest.approx(float(ufm.solve(alone).value), rel=1e-11)
    assert (found["gap"] < 1e-10).all()


def test_tied_entries_have_one_value():
    problem = ufm.Problem(3, 4, (4, 4, 4), weights=(0.2, 0.3, 0.5), features="per_class")
    found = ufm.sweep(problem, {"weights.0,weights.1": [0.1, 0.4]})
    assert found.problem_at(**{"weights.0,weights.1": 0.4}).weights.tolist() == [0.4, 0.4, 0.5]
    assert found["value"][1] == pytest.approx(
        float(ufm.solve(dataclasses.replace(problem, weights=(0.4, 0.4, 0.5))).value), rel=1e-11
    )


def test_the_ratio_of_a_long_tail_is_a_leaf():
    problem = ufm.Problem(4, 5, long_tail(4, 40, 10), ufm.losses.CE(), ufm.Decay(1e-3, 1e-3, 1e-2))
    assert ufm.statement.from_data(ufm.statement.to_data(problem)) == problem
    found = ufm.sweep(problem, {"per_class.ratio": [1.0, 10.0]})
    for ratio, value in zip([1, 10], found["value"], strict=True):
        counts = tuple(long_tail(4, 40, ratio))
        alone = ufm.solve(ufm.Problem(4, 5, counts, ufm.losses.CE(), ufm.Decay(1e-3, 1e-3, 1e-2)))
        assert value == pytest.approx(float(alone.value), rel=1e-11)


@pytest.mark.parametrize(
    ("problem", "axis", "words"),
    [
        (ufm.Problem(3, 4, 2), {"counts.3": [1]}, ["counts.3", "3", "0 to 2"]),
        (ufm.Problem(3, 4, 2), {"counts.0": [0]}, ["per_class[0]", "0", ">= 1"]),
        (ufm.Problem(3, 4, 2), {"counts.0": [1.5]}, ["per_class[0]", "1.5", "whole"]),
        (ufm.Problem(3, 4, 2), {"weights.0": [1.0]}, ["weights", "if given"]),
        (ufm.Problem(3, 4, 2, weights=(1, 2, 3)), {"weights.0": [-1.0]}, ["weights", ">= 0"]),
        (ufm.Problem(3, 4, 2, ufm.losses.Focal()), {"counts.0": [1]}, ["counts.0", "features='per_class'"]),
        (ufm.Problem(3, 4, 2), {"counts.0": [1], "per_class": [3]}, ["apart"]),
    ],
)
def test_axes_that_are_refused(problem, axis, words):
    with pytest.raises(ufm.InputError) as caught:
        ufm.sweep(problem, axis)
    for word in words:
        assert word in str(caught.value)


def test_problems_are_equal_where_their_numbers_are():
    counts, weights = (4, 4, 1), np.array([0.2, 0.3, 0.5])
    problem = ufm.Problem(3, 4, counts, weights=weights)
    assert problem == ufm.Problem(3, 4, np.array(counts), weights=weights.copy())
    assert problem != dataclasses.replace(problem, weights=weights[::-1])
    assert problem != dataclasses.replace(problem, per_class=(4, 4, 2))
    assert dataclasses.replace(problem, dim=5).per_class == counts
    names = {"Problem": ufm.Problem, "Decay": ufm.Decay, "BCE": ufm.losses.BCE, "Linear": ufm.models.Linear}
    plain = ufm.Problem(3, 4, counts)
    assert eval(repr(plain), names) == plain

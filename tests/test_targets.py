"""Counts of long-tailed problems."""

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

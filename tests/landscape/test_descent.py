"""Saddle to saddle: what a small start visits, and that a label means what it says."""

import dataclasses

import numpy as np
import pytest

import ufm
from ufm.landscape import saddle_to_saddle
from ufm.landscape.descent import near_rung

PROBLEM = ufm.Problem(4, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(5e-3, 5e-3, 5e-2))


@pytest.fixture(scope="module")
def nested():
    return saddle_to_saddle(PROBLEM, 1, through=[(2, 2)])


def test_a_start_that_prefers_a_grouping_visits_its_rung(nested):
    assert [groups for groups, _, _ in nested.plateaus] == [(4,), (2, 2), (1, 1, 1, 1)]
    values = {rung.groups: rung.value for rung in nested.rungs}
    visited = [values[groups] for groups, _, _ in nested.plateaus]
    assert visited == sorted(visited, reverse=True)
    assert np.all(np.diff(nested.values) < 1e-12)
    # At the plateau the curve is flat: slower by far than on the way there.
    _, start, end = nested.plateaus[1]
    stay = (nested.times >= start) & (nested.times <= end)
    assert nested.grad_norms[stay].min() < 0.1 * nested.grad_norms.max()
    assert nested.values[stay].min() < values[2, 2] + 1e-2 < nested.values[stay].max() + 1e-2


def test_a_random_start_passes_the_rungs_by():
    # All K - 1 directions of collapse grow at one rate from the origin: no plateau on the way.
    run = saddle_to_saddle(PROBLEM, 0, time=200.0)
    assert [groups for groups, _, _ in run.plateaus] == [(4,), (1, 1, 1, 1)]


def test_a_wrong_rung_is_not_matched(nested):
    """Mutation: a rung of another value, and one of another grouping with the right value."""
    middle = next(rung for rung in nested.rungs if rung.groups == (2, 2))
    others = [rung for rung in nested.rungs if rung is not middle]
    assert near_rung(middle.value, middle.scores, nested.rungs) == (2, 2)
    height = nested.rungs[0].value - nested.rungs[-1].value
    shifted = dataclasses.replace(middle, value=middle.value + 0.05 * height)
    assert near_rung(middle.value, middle.scores, [*others, shifted]) is None
    regrouped = dataclasses.replace(middle, groups=(3, 1))
    assert near_rung(middle.value, middle.scores, [*others, regrouped]) is None


def test_bad_input_is_named():
    with pytest.raises(ufm.InputError, match=r"through = \(3, 2\): must be sizes that sum to classes = 4"):
        saddle_to_saddle(PROBLEM, through=[(3, 2)])
    with pytest.raises(ufm.InputError, match="per_class"):
        saddle_to_saddle(dataclasses.replace(PROBLEM, per_class=(4, 2, 1, 1)))
    with pytest.raises(ufm.InputError, match="origin is a saddle"):
        saddle_to_saddle(dataclasses.replace(PROBLEM, decay=ufm.Decay(0.5, 0.5, 0.5)))

"""Merging of classes with equal counts: the threshold against the solver just below and just above it."""

import dataclasses

import numpy as np
import pytest

from ufm import Decay, InputError, Problem, losses, models, solve, theory
from ufm.theory import merging

COUNTS = (6, 6, 2, 2)
LOSSES = [losses.CE(), losses.BCE(), losses.LabelSmoothing(0.2), losses.MSE(1.0, 1.5)]
APART = 1e-5
"""Distance of rows, relative to the largest, from which on they differ; 2 % away from the threshold it is 0.01."""


def problem_of(loss, bias="per_class", price=0.05):
    return Problem(4, 4, COUNTS, loss, Decay(2 * price, price / 2, 0.03), bias, "per_class")


def disagreements(loss, bias):
    """Groups whose rows the solver merges and the formula does not, or the other way round."""
    wrong = []
    for group in theory.merging_threshold(problem_of(loss, bias)):
        for side in (0.98, 1.02):
            problem = problem_of(loss, bias, side * group.threshold)
            predicted = {m.count: m.merged for m in theory.merging_threshold(problem)}[group.count]
            solution = solve(problem, 0)
            assert theory.certify(problem, solution.params).gap < 1e-10
            rows = np.asarray(solution.params.W)[list(group.classes)]
            spread = np.abs(rows - rows[0]).max() / max(np.abs(np.asarray(solution.params.W)).max(), 1e-3)
            if (spread < APART) != predicted:
                wrong.append((group.count, side, spread))
    return wrong


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_solver_merges_where_the_threshold_says(loss):
    assert not disagreements(loss, "per_class")


@pytest.mark.slow
@pytest.mark.parametrize("bias", ["unified", "none"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_solver_merges_where_the_threshold_says_whatever_the_bias(loss, bias):
    assert not disagreements(loss, bias)


def test_a_wrong_pull_is_seen(monkeypatch):
    monkeypatch.setattr(merging, "pull_apart", lambda loss: 1.1)
    assert disagreements(losses.CE(), "per_class")


def test_groups():
    found = theory.merging_threshold(problem_of(losses.CE()))
    assert [(m.count, m.classes) for m in found] == [(2, (2, 3)), (6, (0, 1))]
    assert found[0].threshold == pytest.approx(np.sqrt(2) / 16, rel=1e-15)
    assert theory.merging_threshold(Problem(3, 3, (3, 2, 1), losses.CE())) == ()
    # Balanced: K mu = 1.
    (group,) = theory.merging_threshold(Problem(5, 5, 4, losses.CE(), Decay(0.1, 0.1)))
    assert (group.threshold, group.merged) == (pytest.approx(0.1), True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": losses.Focal(2.0)}, "loss = 'focal"),
        ({"loss": losses.MSE(2.0, 1.0)}, "loss = 'mse"),
        ({"loss": losses.BCE(), "dim": 3}, "dim = 3: must be at least 4"),
        ({"dim": 2}, "dim = 2: must be at least 3"),
        ({"model": models.Nonnegative()}, "model = "),
        ({"weights": np.ones(4)}, "weights = "),
        ({"offset": 1.0}, "offset = "),
    ],
)
def test_what_is_not_known_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        theory.merging_threshold(dataclasses.replace(problem_of(losses.CE()), **change))

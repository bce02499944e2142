"""Closed forms of targets that are no labels, against the solver, and at fifty digits."""

import dataclasses
import math

import mpmath
import numpy as np
import pytest

import ufm
from ufm import Decay, Problem, losses
from ufm.atlas.papers.li2024 import all_sets
from ufm.atlas.papers.schur import off_symmetric
from ufm.theory.columns import pair_symmetry, pick_all_label, regression


@pytest.mark.parametrize("counts", [{1: 3, 2: 2}, {2: 1}, {1: 1, 2: 1, 3: 1}])
def test_pick_all_label_is_the_certified_minimum(counts):
    amplitudes, value = pick_all_label(4, counts, 0.02)
    problem = Problem(4, 4, targets=all_sets(4, counts), loss=losses.CE(), decay=Decay(0.01, 0.04, 0.1))
    found = ufm.solve(problem)
    assert ufm.theory.certify(problem, found.params).gap < 1e-11
    assert value == pytest.approx(float(found.value), rel=1e-12)
    assert all(a > 0 for a in amplitudes.values())


def test_pick_all_label_at_fifty_digits():
    """The stationary amplitudes solve the equation of theory2.md, Sec. 13, and the value is its left side there."""
    mpmath.mp.dps = 50
    K, counts, s = 5, {1: 4, 2: 1, 3: 2}, mpmath.mpf(0.01)
    amplitudes, value = pick_all_label(K, counts, 0.01)
    N = sum(n * math.comb(K, m) for m, n in counts.items())

    def objective(*a):
        pairs = list(zip(counts.items(), a, strict=True))
        risk = sum(
            n * math.comb(K, m) * (m * mpmath.log(m * mpmath.exp(x) + K - m) - m * x) for (m, n), x in pairs
        )  # fmt: skip
        return risk / N + s * (K - 1) * mpmath.sqrt(sum(n * math.comb(K - 2, m - 1) * x**2 for (m, n), x in pairs))

    at = [mpmath.mpf(amplitudes[m]) for m in counts]
    best = mpmath.findroot(
        lambda *a: [mpmath.diff(objective, a, tuple(int(i == j) for j in range(3))) for i in range(3)], at
    )
    assert max(abs(x - y) for x, y in zip(at, best, strict=True)) < 1e-12
    assert abs(objective(*best) - value) < 1e-14


def test_offsets_that_tell_classes_apart_are_outside():
    problem = Problem(4, 4, targets=all_sets(4, {1: 3, 2: 2}), loss=losses.CE(), decay=Decay(0.01, 0.04, 0.1))
    theorem = ufm.atlas.THEOREMS["li2024/pick-all-label"]
    assert theorem.applies(problem)
    assert theorem.applies(dataclasses.replace(problem, offset=0.3))
    assert not theorem.applies(dataclasses.replace(problem, offset=(0.3, 0.0, 0.0, 0.0)))


def test_label_sets_vanish_at_their_threshold():
    counts, K = {1: 2, 2: 1}, 4
    N = sum(n * math.comb(K, m) for m, n in counts.items())
    least = math.sqrt(sum(n * math.comb(K - 2, m - 1) for m, n in counts.items())) / N
    assert max(pick_all_label(K, counts, 0.999 * least)[0].values()) > 0
    zero, value = pick_all_label(K, counts, 1.001 * least)
    assert set(zero.values()) == {0.0}
    assert value == pytest.approx(sum(n * math.comb(K, m) * m for m, n in counts.items()) / N * math.log(K), rel=1e-14)
    decay = Decay(1.001 * least, 1.001 * least, 0.1)
    problem = Problem(K, K, targets=all_sets(K, counts), loss=losses.CE(), decay=decay)
    assert float(np.abs(ufm.solve(problem).params.W).max()) < 1e-6


@pytest.mark.parametrize("bias", ["per_class", "unified", "none"])
@pytest.mark.parametrize(("dim", "decay_b"), [(4, 0.0), (4, 0.3), (2, 0.3)])
def test_regression_is_the_minimum(bias, dim, decay_b):
    rng = np.random.default_rng(3)
    targets = ufm.targets.values(rng.normal(size=(3, 5)) + 1.0, (3, 1, 2, 2, 4))
    problem = Problem(3, dim, targets=targets, loss=losses.MSE(), decay=Decay(0.03, 0.1, decay_b), bias=bias)
    X, b, value = regression(problem)
    found = ufm.solve(problem)
    assert value == pytest.approx(float(found.value), rel=1e-12)
    np.testing.assert_allclose(problem.logits(found.params), (X + b[:, None])[:, problem.labels], atol=1e-7)


def test_symmetry_of_pairs_makes_an_etf_and_less_does_not():
    """A pentagon with noise between neighbors: its symmetries keep neighbors neighbors, and W is no ETF."""
    near = np.eye(5) * 0.8 + 0.1 * (np.roll(np.eye(5), 1, axis=0) + np.roll(np.eye(5), -1, axis=0))
    everywhere = np.eye(5) * 0.8 + 0.05 * (1.0 - np.eye(5))
    apart = []
    for Y in (near, everywhere):
        targets = ufm.targets.soft(Y, 3)
        found = ufm.solve(Problem(5, 5, targets=targets, loss=losses.CE(), decay=Decay(0.01, 0.01, 0.1)))
        W = np.asarray(found.params.W)
        apart.append((pair_symmetry(targets), off_symmetric(W @ W.T)))
    assert apart[0][0] is False and apart[0][1] > 1e-2  # noqa: PT018
    assert apart[1][0] is True and apart[1][1] < 1e-9  # noqa: PT018


def test_counts_take_part_in_symmetry():
    labels = ufm.targets.sets(np.eye(3), (2, 2, 2))
    assert pair_symmetry(labels)
    assert not pair_symmetry(dataclasses.replace(labels, each=(2, 2, 3)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pick_all_label(4, {4: 1}, 0.1), ["counts", "1 to 3"]),
        (lambda: regression(Problem(3, 4, 2, losses.MSE())), ["squared error on columns"]),
        (lambda: pair_symmetry(ufm.targets.mixup(9)), ["classes", "9", "at most 8"]),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ufm.InputError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)

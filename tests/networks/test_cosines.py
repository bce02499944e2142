from __future__ import annotations

import numpy as np
import pytest

import ufm
from ufm.geometry import random_rotation, simplex_etf
from ufm.networks.cosines import class_sums, compactness, distinctiveness, unit_sums


def brute(H: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Both from the definitions, one pair at a time."""

    def cos(i: int, j: int) -> float:
        sizes = np.linalg.norm(H[:, i]) * np.linalg.norm(H[:, j])
        return H[:, i] @ H[:, j] / sizes if sizes else 0.0

    members = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    within = [np.mean([cos(i, j) for i in m for j in m if i != j]) for m in members if len(m) > 1]
    across = [np.mean([1 - cos(i, j) for i in a for j in b]) for a in members for b in members if a is not b]
    return float(np.mean(within)), float(np.mean(across))


@pytest.mark.parametrize("seed", range(3))
def test_against_pairs_and_invariant(seed):
    rng = np.random.default_rng(seed)
    H, labels = rng.normal(size=(4, 23)) + 1.0, rng.integers(0, 5, 23)
    labels[0] = 7  # a class of one sample; classes 5 and 6 are missing
    counts = np.bincount(labels, minlength=8)
    sums = unit_sums(H, labels, 8)
    mine = compactness(sums, counts), distinctiveness(sums, counts)
    np.testing.assert_allclose(mine, brute(H, labels), atol=1e-12)

    import jax

    Q = np.asarray(random_rotation(jax.random.key(seed), 4))
    permuted = rng.permutation(23)
    sums = unit_sums((Q @ H * rng.uniform(0.1, 9, 23))[:, permuted], labels[permuted], 8)
    np.testing.assert_allclose((compactness(sums, counts), distinctiveness(sums, counts)), mine, atol=1e-12)


def test_perfect_collapse_and_identical_features():
    U, labels = np.asarray(simplex_etf(5, 5)), np.repeat(np.arange(5), 2)
    sums = unit_sums(U[labels].T, labels, 5)
    assert compactness(sums, [2] * 5) == pytest.approx(1.0)
    assert distinctiveness(sums, [2] * 5) == pytest.approx(1.25)
    sums = unit_sums(np.ones((3, 10)), labels, 5)
    assert compactness(sums, [2] * 5) == pytest.approx(1.0)
    assert distinctiveness(sums, [2] * 5) == pytest.approx(0.0, abs=1e-12)


def test_undefined_is_nan():
    assert np.isnan(compactness(np.ones((3, 2)), [1, 1, 1]))
    assert np.isnan(distinctiveness(np.ones((3, 2)), [4, 0, 0]))


def test_zero_features_have_no_direction():
    assert unit_sums(np.zeros((2, 3)), [0, 1, 1], 2).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_half_precision_sums_in_more():
    H = np.full((1, 5000), 1.0, np.float16)
    assert class_sums(H, np.zeros(5000, int), 2).tolist() == [[5000.0], [0.0]]


def test_features_that_are_zero_have_cosine_zero():
    """A class of zeros beside one of equal vectors: 0 and 1."""
    H, labels = np.concatenate([np.zeros((2, 3)), np.ones((2, 3))], axis=1), np.repeat([0, 1], 3)
    assert ufm.measure(H.T, labels, np.eye(2)).compactness == pytest.approx(0.5)

"""Collapse metrics against NumPy written from the definitions, known cases and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ufm
from ufm import geometry, metrics

K, D, N = 4, 6, 20


def by_definition(W, H, labels, b):
    """NC1-NC4 with explicit covariances and a pseudo-inverse."""
    classes = W.shape[0]
    means = np.stack([H[:, labels == k].mean(axis=1) for k in range(classes)], axis=1)
    centre = H.mean(axis=1, keepdims=True)
    within = sum(np.outer(h - means[:, k], h - means[:, k]) for h, k in zip(H.T, labels, strict=True)) / H.shape[1]
    between = (means - centre) @ (means - centre).T / classes
    etf = (np.eye(classes) - 1 / classes) / np.sqrt(classes - 1)

    def to_etf(rows):
        gram = rows @ rows.T
        return np.linalg.norm(gram / np.linalg.norm(gram) - etf)

    product = W @ (means - centre)
    logits = W @ H + b[:, None]
    nearest = np.argmin(((H[:, :, None] - means[:, None, :]) ** 2).sum(axis=0), axis=1)
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between)) / classes,
        "nc2": to_etf(W - W.mean(axis=0)),
        "nc2_uncentred": to_etf(W),
        "nc2_means": to_etf((means - centre).T),
        "nc2_means_uncentred": to_etf(means.T),
        "nc3": np.linalg.norm(product / np.linalg.norm(product) - etf),
        "nc4": np.mean(np.argmax(logits, axis=0) != nearest),
        "equinorm_classifier": np.linalg.norm(W, axis=1).std() / np.linalg.norm(W, axis=1).mean(),
    }


def random_data(seed, counts=(5, 5, 5, 5)):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(K), counts)
    return rng.normal(size=(K, D)), rng.normal(size=(D, labels.size)), labels, rng.normal(size=K)


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (9, 6, 4, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_definitions(seed, counts):
    W, H, labels, b = random_data(seed, counts)
    found = metrics.collapse(W, H, labels, b)
    for name, expected in by_definition(W, H, labels, b).items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9, err_msg=name)


def test_perfect_collapse_is_zero():
    U = np.asarray(geometry.simplex_etf(K, D, jax.random.key(1)))
    labels = np.repeat(np.arange(K), 5)
    found = metrics.collapse(2.0 * U, 3.0 * U.T[:, labels], labels)
    assert all(float(value) < 1e-12 for value in vars(found).values())


def test_square_is_not_a_simplex():
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    labels = np.arange(K)
    found = metrics.collapse(square, square.T, labels)
    # W W' has eigenvalues 2, 2, 0, 0 against M's 1, 1, 1, 0: unit norms give <., .> = 2/sqrt(6).
    np.testing.assert_allclose(found.nc2, np.sqrt(2.0 - 2.0 * 2.0 / np.sqrt(6.0)), rtol=1e-12)
    assert float(found.equiangular_classifier) > 0.4
    assert float(found.equinorm_classifier) < 1e-15


def test_nc1_is_never_negative_and_survives_degenerate_features():
    labels = np.repeat(np.arange(K), 5)
    constant = np.ones((D, 20))
    assert float(metrics.collapse(np.eye(K, D), constant, labels).nc1) >= 0.0
    assert np.isfinite(float(metrics.collapse(np.zeros((K, D)), np.zeros((D, 20)), labels).nc2))
    flat = np.zeros((D, 20))
    flat[0] = np.arange(20.0)  # a singular between-class covariance
    assert float(metrics.collapse(np.eye(K, D), flat, labels).nc1) > 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_invariant_under_rotation_and_relabelling(seed):
    W, H, labels, b = random_data(seed)
    rng = np.random.default_rng(seed + 1)
    Q, _ = np.linalg.qr(rng.normal(size=(D, D)))
    classes, samples = rng.permutation(K), rng.permutation(N)
    inverse = np.argsort(classes)
    before = metrics.collapse(W, H, labels, b)
    after = metrics.collapse((W @ Q)[classes], (Q.T @ H)[:, samples], inverse[labels][samples], b[classes])
    for name, value in vars(before).items():
        np.testing.assert_allclose(getattr(after, name), value, rtol=1e-7, atol=1e-9, err_msg=name)


def test_scores_by_hand():
    W = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    H = jnp.array([[1.0, 3.0, 0.5], [0.0, 1.0, 4.0]])
    found = metrics.scores(W, H, np.array([0, 0, 1]))
    assert {k: float(v) for k, v in found["positive"].items()} == {"mean": 4.0, "min": 1.0, "max": 8.0}
    assert {k: float(v) for k, v in found["negative"].items()} == {"mean": 2.5 / 3.0, "min": 0.0, "max": 2.0}


@pytest.mark.parametrize("offset", [20.0, 1e4])
@pytest.mark.parametrize("shape", [(4, 10, 20), (20, 32, 5)])
def test_a_common_offset_of_the_features_changes_no_distance(shape, offset):
    classes, dim, per_class = shape
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    H = rng.normal(size=(dim, classes))[:, labels] + 0.5 * rng.normal(size=(dim, labels.size))
    W = rng.normal(size=(classes, dim))
    moved = H + offset
    found = metrics.collapse(W, H, labels), metrics.collapse(W, moved, labels, -offset * W.sum(axis=1))
    measured = ufm.measure(moved.T, labels, W, -offset * W.sum(axis=1)).collapse
    for name in ("nc1", "nc2_means", "nc3", "nc4"):
        np.testing.assert_allclose(getattr(found[1], name), getattr(found[0], name), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(getattr(measured, name), getattr(found[0], name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_many_samples_in_float32(offset):
    """A plain float32 sum of 200,000 features is off in its third digit."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 200_000)
    means = np.eye(6, 3).astype(np.float32)
    H = means[:, labels] + 0.125 * rng.integers(-2, 3, size=(6, labels.size)).astype(np.float32) + np.float32(offset)
    W = np.eye(3, 6, dtype=np.float32)
    single = metrics.collapse(W, H, labels)
    double = metrics.collapse(W.astype(float), H.astype(float), labels)
    for name in ("nc1", "nc2_means", "nc3", "equinorm_means"):
        np.testing.assert_allclose(getattr(single, name), getattr(double, name), rtol=1e-3, atol=1e-4)
    if not offset:  # beyond, logits in float32 are rounded to thousandths
        np.testing.assert_allclose(single.nc4, double.nc4, atol=1e-4)

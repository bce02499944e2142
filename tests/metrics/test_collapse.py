"""Collapse metrics against NumPy written from the definitions, known cases and invariances."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ufm
from ufm import geometry, metrics
from ufm.metrics import configuration

K, D, N = 4, 6, 20


def by_definition(W, H, labels, b):
    """NC1-NC4 with explicit covariances and a pseudo-inverse."""
    classes = W.shape[0]
    means = np.stack([H[:, labels == k].mean(axis=1) for k in range(classes)], axis=1)
    center = H.mean(axis=1, keepdims=True)
    within = sum(np.outer(h - means[:, k], h - means[:, k]) for h, k in zip(H.T, labels, strict=True)) / H.shape[1]
    between = (means - center) @ (means - center).T / classes
    etf = (np.eye(classes) - 1 / classes) / np.sqrt(classes - 1)

    def to_etf(rows):
        gram = rows @ rows.T
        return np.linalg.norm(gram / np.linalg.norm(gram) - etf)

    product = W @ (means - center)
    logits = W @ H + b[:, None]
    nearest = np.argmin(((H[:, :, None] - means[:, None, :]) ** 2).sum(axis=0), axis=1)
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between)) / classes,
        "nc2": to_etf(W - W.mean(axis=0)),
        "nc2_uncentred": to_etf(W),
        "nc2_means": to_etf((means - center).T),
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
    assert np.isfinite(float(metrics.collapse(np.zeros((K, D)), np.zeros((D, 20)), labels).nc2))
    flat = np.zeros((D, 20))
    flat[0] = np.arange(20.0)  # a singular between-class covariance
    assert float(metrics.collapse(np.eye(K, D), flat, labels).nc1) > 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_invariant_under_rotation_and_relabeling(seed):
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


def old_configuration(W, centered, center):
    """As the metrics were first written: K x K Gram matrices as they stand. Arrays (K, d), (K, d), (d,)."""
    classes = len(W)
    etf = (np.eye(classes) - 1 / classes) / np.sqrt(classes - 1)
    rows, means = W - W.mean(axis=0), centered + center

    def unit(x):
        return x / (np.linalg.norm(x) or 1.0)

    def cosines(x):
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        x = x / np.where(norms > 0, norms, 1.0)
        return (x @ x.T)[~np.eye(classes, dtype=bool)]

    def variation(x):
        norms = np.linalg.norm(x, axis=1)
        return norms.std() / (norms.mean() or 1.0)

    return {
        "nc2": np.linalg.norm(unit(rows @ rows.T) - etf),
        "nc2_uncentred": np.linalg.norm(unit(W @ W.T) - etf),
        "nc2_means": np.linalg.norm(unit(centered @ centered.T) - etf),
        "nc2_means_uncentred": np.linalg.norm(unit(means @ means.T) - etf),
        "nc3": np.linalg.norm(unit(W @ centered.T) - etf),
        "equinorm_classifier": variation(W),
        "equinorm_means": variation(centered),
        "equiangular_classifier": cosines(rows).std(),
        "equiangular_means": cosines(centered).std(),
        "maximal_angle_classifier": np.abs(cosines(rows) + 1 / (classes - 1)).mean(),
        "maximal_angle_means": np.abs(cosines(centered) + 1 / (classes - 1)).mean(),
    }


@pytest.mark.parametrize("block", [2**23, 60])
@pytest.mark.parametrize(
    "shape", [(2, 1), (2, 5), (3, 1), (5, 3), (5, 4), (5, 5), (6, 4), (30, 8), (30, 28), (30, 29), (30, 40), (90, 20)]
)
def test_narrow_and_blocked_formulas_are_those_of_whole_gram_matrices(shape, block, monkeypatch):
    """Random, imbalanced (rows that do not sum to zero), equal, and zero rows."""
    monkeypatch.setattr(configuration, "BLOCK", block)
    rng = np.random.default_rng(0)
    W, means, center = rng.normal(size=shape), rng.normal(size=shape) + 0.2, rng.normal(size=shape[1])
    partly = np.where(np.arange(shape[0])[:, None] < 2, W, 0.0)
    for classifier, features in ((W, means), (W, W), (1e-80 * W, 1e80 * means), (partly, means), (0 * W, means)):
        size = abs(features).max()
        found = configuration.configuration(classifier, features, size * center)
        scale = abs(classifier).max() or 1.0
        expected = old_configuration(classifier / scale, features / size, center)
        for name, value in expected.items():
            # Differences of numbers of the size of one, and of K of them where d < K - 1.
            np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=2e-15 * shape[0], err_msg=name)


def test_no_table_of_pairs_is_in_the_program_or_in_memory(monkeypatch):
    """K x K literals made XLA fold constants for seconds; K x K arrays took 120 bytes a pair."""
    classes, dim = 600, 3
    arrays = jnp.zeros((classes, dim)), jnp.zeros((dim, classes)), jnp.zeros(classes, int)
    assert len(metrics.collapse.lower(*arrays).as_text()) < classes**2
    monkeypatch.setattr(configuration, "BLOCK", 2**12)
    W = np.random.default_rng(0).normal(size=(classes, dim))
    tracemalloc.start()
    configuration.configuration(W, W, W[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < classes**2  # an eighth of one K x K array


def test_nc1_without_variance_between_classes():
    """Undefined where nothing varies, infinite where samples vary about one mean; also off zero and by rounding."""
    labels = np.repeat(np.arange(K), 4)
    signs = np.where(np.arange(16) % 2 == 0, 1.0, -1.0)
    W = np.random.default_rng(0).normal(size=(K, D))
    for offset in (0.0, 0.1, 1e4):
        for spread, expected in ((0.0, np.nan), (1.0, np.inf), (1e-3, np.inf)):
            H = offset + spread * np.outer(np.arange(1.0, D + 1) / 3, signs)
            for dtype in (np.float64, np.float32):
                if dtype == np.float32 and spread == 1e-3 and offset == 1e4:
                    continue  # is rounding there
                direct = metrics.collapse(W.astype(dtype), H.astype(dtype), labels).nc1
                measured = ufm.measure(H.T.astype(dtype), labels, W.astype(dtype))
                np.testing.assert_array_equal([float(direct), measured.collapse.nc1], expected)
                word = "undefined" if np.isnan(expected) else "infinite"
                assert measured.to_dict()["notes"]["collapse.nc1"].startswith(word)
    assert "collapse.nc1" not in ufm.measure(W[labels], labels, W).to_dict()["notes"]


def both(W, H, labels, b=None):
    """NC4 by both ways, and the accuracy of the logits."""
    measured = ufm.measure(H.T, labels, W, b)
    direct = float(metrics.collapse(W, H, labels, b).nc4)
    return direct, measured.collapse.nc4, measured.with_bias


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ties_share_by_one_rule(dtype):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(K), 5)
    W, H = rng.normal(size=(K, D)).astype(dtype), rng.normal(size=(D, 20)).astype(dtype)
    one = np.ones((D, 20), dtype) / 3
    # Everything tied: decisions agree by chance, and one in K is right.
    for classifier, features in ((0 * W, 0 * H), (0 * W, one), (W[[0] * K], one)):
        np.testing.assert_allclose(both(classifier, features, labels), [1 - 1 / K, 1 - 1 / K, 1 / K])
    # Logits decide, the class means are one: a draw of K.
    np.testing.assert_allclose(both(W, one, labels), [1 - 1 / K, 1 - 1 / K, 1 / K])
    # Two classes of one row and one mean: a tie of two on each side, elsewhere no doubt.
    W = np.eye(K, D, dtype=dtype)[[0, 1, 2, 2]]
    H = W[labels].T
    np.testing.assert_allclose(both(W, H, labels), [0.25, 0.25, 0.75])
    # The logits alone are tied there.
    H = np.eye(K, D, dtype=dtype)[[0, 1, 2, 3]][labels].T
    H[2, -5:] = 1.0
    np.testing.assert_allclose(both(W, H, labels, np.zeros(K, dtype)), [0.25, 0.25, 0.75])


def test_equal_rows_are_tied_wherever_rounding_leaves_them():
    """Merged classes (minority collapse): products of equal rows may differ in their last digit."""
    rng = np.random.default_rng(0)
    for classes, dim, dtype in ((37, 65, np.float32), (37, 65, np.float64)):
        labels = np.repeat(np.arange(classes), 3)
        W = rng.normal(size=(classes, dim)).astype(dtype)
        W[20:] = W[20]
        H = (W[labels] + 0.01).T
        direct, measured, accuracy = both(W, H, labels)
        merged = 17 / 37
        np.testing.assert_allclose([direct, measured], merged * (1 - 1 / 17))
        np.testing.assert_allclose(accuracy, 1 - merged * (1 - 1 / 17))
        found = ufm.measure(H.T, labels, W)
        assert found.sample_wise == accuracy
        assert found.uniform <= found.class_wise <= found.sample_wise

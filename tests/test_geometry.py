import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm import geometry

EPS = np.finfo(float).eps
SIZES = [2, 3, 10, 101]


@pytest.mark.parametrize("K", SIZES)
def test_helmert_is_an_orthonormal_basis_of_the_centered_vectors(K):
    Q, M = geometry.helmert(K), geometry.centering(K)
    assert Q.shape == (K - 1, K)
    np.testing.assert_allclose(Q @ Q.T, np.eye(K - 1), atol=8 * K * EPS)
    np.testing.assert_allclose(Q.T @ Q, M, atol=8 * K * EPS)
    np.testing.assert_allclose(M @ M, M, atol=8 * K * EPS)


@pytest.mark.parametrize("key", [None, jax.random.key(3)], ids=["axes", "rotated"])
@pytest.mark.parametrize("extra", [-1, 0, 5])
@pytest.mark.parametrize("K", [2, 3, 10])
def test_simplex_etf(K, extra, key):
    U = geometry.simplex_etf(K, K + extra, key)
    assert U.shape == (K, K + extra)
    np.testing.assert_allclose(U @ U.T, K / (K - 1) * geometry.centering(K), atol=16 * K * EPS)
    np.testing.assert_allclose(jnp.sum(U, axis=0), 0, atol=16 * K * EPS)
    cosines = np.asarray(U @ U.T)[~np.eye(K, dtype=bool)]
    np.testing.assert_allclose(cosines, -1 / (K - 1), atol=16 * K * EPS)


def test_keys_rotate_and_repeat():
    a, b = (geometry.simplex_etf(4, 6, jax.random.key(s)) for s in (0, 1))
    assert np.array_equal(a, geometry.simplex_etf(4, 6, jax.random.key(0)))
    assert np.max(np.abs(a - b)) > 0.1
    rotation, distance = geometry.procrustes(a, b)
    assert float(distance) < 1e-13
    np.testing.assert_allclose(a @ rotation, b, atol=1e-13)


@pytest.mark.parametrize("K", [1, 2, 7])
def test_orthogonal_frame_and_rotation(K):
    for frame in (geometry.orthogonal_frame(K, K + 2), geometry.orthogonal_frame(K, K + 2, jax.random.key(K))):
        np.testing.assert_allclose(frame @ frame.T, np.eye(K), atol=16 * K * EPS)
    R = geometry.random_rotation(jax.random.key(K), K)
    np.testing.assert_allclose(R.T @ R, np.eye(K), atol=16 * K * EPS)


def test_random_rotations_are_uniform():
    """Haar measure: the first entry of a uniform rotation of R^3 is uniform on [-1, 1] (Archimedes)."""
    keys = jax.random.split(jax.random.key(0), 2000)
    entry = np.sort(jax.jit(jax.vmap(lambda k: geometry.random_rotation(k, 3)[0, 0]))(keys))
    distance = np.max(np.abs((entry + 1) / 2 - (np.arange(2000) + 0.5) / 2000))
    assert distance < 1.95 / np.sqrt(2000)  # Kolmogorov-Smirnov at 1e-3


def test_gram_distance():
    U = geometry.simplex_etf(5, 8, jax.random.key(0))
    M = geometry.centering(5)
    assert float(geometry.gram_distance(3.7 * U, M)) < 64 * EPS
    # ||I/sqrt 5 - M/2||^2 = 2 - 2 tr(M)/(2 sqrt 5)
    frame = geometry.orthogonal_frame(5, 8)
    assert float(geometry.gram_distance(frame, M)) == pytest.approx(np.sqrt(2 - 4 / np.sqrt(5)), rel=1e-14)
    assert float(geometry.gram_distance(jnp.zeros((5, 8)), M)) == pytest.approx(1.0, rel=1e-14)


def test_procrustes_is_optimal_and_measures_shape():
    rng = np.random.default_rng(0)
    A, B = jnp.asarray(rng.normal(size=(6, 4))), jnp.asarray(rng.normal(size=(6, 4)))
    Q, distance = geometry.procrustes(A, B)
    np.testing.assert_allclose(Q.T @ Q, np.eye(4), atol=1e-14)
    assert float(distance) == pytest.approx(float(jnp.linalg.norm(A @ Q - B)), rel=1e-13)
    for seed in range(20):
        R = geometry.random_rotation(jax.random.key(seed), 4)
        assert float(jnp.linalg.norm(A @ R - B)) >= float(distance)
    assert float(distance) > 0.1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: geometry.simplex_etf(1, 3), ["classes = 1", "at least 2"]),
        (lambda: geometry.simplex_etf(5, 3), ["dim = 3", "classes - 1 = 4"]),
        (lambda: geometry.orthogonal_frame(5, 4), ["dim = 4", "classes = 5"]),
        (lambda: geometry.orthonormal(jax.random.key(0), 5, 4), ["rows = 5", "dim = 4"]),
        (lambda: geometry.procrustes(jnp.ones((2, 3)), jnp.ones((3, 2))), ["target.shape", "(2, 3)"]),
    ],
)
def test_bad_sizes_are_refused(call, words):
    with pytest.raises(ufm.InputError) as error:
        call()
    for word in words:
        assert word in str(error.value)

"""Simplex equiangular tight frames, Gram matrices and the rotations between configurations.

A configuration of K vectors in R^d is a (K, d) array of rows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import as_key, matmul, require

__all__ = [
    "centering",
    "gram_distance",
    "helmert",
    "orthogonal_frame",
    "orthonormal",
    "procrustes",
    "random_rotation",
    "simplex_etf",
    "unit",
]


def centering(classes: int) -> np.ndarray:
    """Centering matrix ``M = I - J/K`` (K, K).

    >>> centering(2)
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])
    """
    return np.eye(classes) - 1.0 / classes


def helmert(classes: int) -> np.ndarray:
    """Orthonormal basis (K-1, K) of the vectors that sum to zero: ``Q Q' = I``, ``Q' Q = M``.

    >>> np.round(helmert(3), 3).tolist()
    [[0.707, -0.707, 0.0], [0.408, 0.408, -0.816]]
    """
    j = np.arange(1.0, classes)
    below = np.tril(np.ones((classes - 1, classes)))
    rows = below - np.eye(classes - 1, classes, 1) * j[:, None]
    return rows / np.sqrt(j * (j + 1.0))[:, None]


def orthonormal(key: Array | int, rows: int, dim: int) -> Array:
    """Haar-random ``rows`` orthonormal vectors in R^dim, as (rows, dim); needs ``rows <= dim``.

    >>> rows = orthonormal(jax.random.key(0), 2, 5)
    >>> bool(jnp.allclose(rows @ rows.T, jnp.eye(2), atol=1e-6))
    True
    """
    require(1 <= rows <= dim, "rows", rows, f"between 1 and dim = {dim}")
    q, r = jnp.linalg.qr(jax.random.normal(as_key(key), (dim, rows)))
    return (q * jnp.sign(jnp.diagonal(r))[None, :]).T


def simplex_etf(classes: int, dim: int, key: Array | int | None = None) -> Array:
    """Simplex equiangular tight frame: K unit rows in R^dim with cosines ``-1/(K-1)``.

    Args:
        classes: K >= 2.
        dim: at least K - 1.
        key: a seed or JAX key that rotates the frame at random; without it the first K - 1 coordinates hold it.

    Returns:
        (K, dim) array with ``U U' = K/(K-1) (I - J/K)``.

    >>> import numpy as np
    >>> np.round(simplex_etf(3, 2) @ simplex_etf(3, 2).T, 3).tolist()[0]
    [1.0, -0.5, -0.5]
    """
    require(classes >= 2, "classes", classes, "at least 2")
    require(dim >= classes - 1, "dim", dim, f"at least classes - 1 = {classes - 1}")
    basis = jnp.eye(classes - 1, dim) if key is None else orthonormal(key, classes - 1, dim)
    scale = np.sqrt(classes / (classes - 1.0))
    return matmul(jnp.asarray(scale * helmert(classes).T, basis.dtype), basis)


def orthogonal_frame(classes: int, dim: int, key: Array | int | None = None) -> Array:
    """K orthonormal rows in R^dim; ``dim >= K``. The geometry of MSE without bias.

    >>> orthogonal_frame(2, 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    require(dim >= classes, "dim", dim, f"at least classes = {classes}")
    return jnp.eye(classes, dim) if key is None else orthonormal(key, classes, dim)


def gram_distance(rows: Array, gram: Array | np.ndarray) -> Array:
    """Distance ``|| R R'/||R R'||_F - G/||G||_F ||_F`` of a configuration from a Gram matrix, up to scale.

    >>> round(float(gram_distance(5.0 * jnp.eye(2), np.eye(2))), 6)
    0.0
    """
    mine = matmul(rows, rows.T)
    return jnp.linalg.norm(unit(mine) - unit(jnp.asarray(gram, rows.dtype)))


def unit(x: Array) -> Array:
    """``x`` over its Frobenius norm; zero stays zero.

    >>> unit(jnp.array([3.0, 4.0])).round(3).tolist()
    [0.6, 0.8]
    """
    norm = jnp.linalg.norm(x)
    return x / jnp.where(norm > 0, norm, 1.0)


def procrustes(source: Array, target: Array) -> tuple[Array, Array]:
    """Orthogonal Q (d, d) that minimizes ``||source Q - target||_F``, and that distance.

    Schoenemann 1966. Two configurations are equal up to rotation iff the distance is zero.

    >>> turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> float(procrustes(jnp.eye(2), turn)[1])
    0.0
    """
    require(source.shape == target.shape, "target.shape", target.shape, f"source.shape = {source.shape}")
    u, _, vt = jnp.linalg.svd(matmul(source.T, target))
    q = matmul(u, vt)
    return q, jnp.linalg.norm(matmul(source, q) - target)


def random_rotation(key: Array | int, dim: int) -> Array:
    """Haar-random orthogonal matrix (dim, dim).

    >>> random_rotation(jax.random.key(0), 3).shape
    (3, 3)
    """
    return orthonormal(key, dim, dim)

"""How large ``h'A h`` can be over non-negative unit vectors h: an upper bound by the best entrywise larger matrix.

For ``h >= 0`` and a symmetric ``S >= A`` entrywise, ``h'A h <= h'S h <= lambda_max(S)``; the best S makes that exact up
to K = 4, where copositive matrices are sums of a positive semidefinite and a non-negative one (Diananda 1962), and
almost always beyond. The first S to try is ``max(A, 0)``.

Where it does not reach the level wanted, the features F say more. At a minimizer their rows r reach the maximum t, so
that ``t r'r = r A r' <= r S r' <= t r'r``: hence ``S r' = t r'``, and ``S_ij = A_ij`` where a row has both entries.
With Q the projection off the rows, what is wanted is a point common to the two convex sets

    { t (I - Q) + Q Y Q :  Q Y Q <= t },      { S >= A, with equality where (F'F)_ij > 0 },

found by projecting on one and the other; on what the rows fix, the sets meet without touching tangentially, so
that the distance falls by a factor per round (Bauschke & Borwein 1996, Thm 5.7).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import matmul

ROUNDS = 400
"""Projections on each of the two sets, at most."""
LIVING = 1e-6
"""Size relative to the largest from which on a feature, or a product of two, is not zero: a root of the rounding that
a solve ends with, as a dead feature counts by its square."""


@functools.partial(jax.jit, static_argnames="rounds")
def dominating(A: Array, level: Array, F: Array, rounds: int = ROUNDS) -> Array:
    """A symmetric S (K, K) with ``S >= A`` entrywise and a small largest eigenvalue, at most ``level`` if possible.

    ``F`` (d, K) holds the features of a minimizer, columns scaled by the roots of their multiplicities; other
    features make the search less successful and nothing wrong.

    >>> import jax.numpy as jnp
    >>> A = jnp.array([[1.0, -2.0], [-2.0, 1.0]])
    >>> dominating(A, jnp.array(1.0), jnp.eye(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    A, level, F = jax.lax.stop_gradient((A, level, F))
    eps = jnp.finfo(A.dtype).eps
    gram = matmul(F.T, F)
    sizes, axes = jnp.linalg.eigh(gram)
    spanned = (sizes > LIVING**2 * jnp.maximum(sizes[-1], jnp.finfo(A.dtype).tiny)).astype(A.dtype)
    face = matmul(axes * spanned[None, :], axes.T)
    off = jnp.eye(A.shape[0], dtype=A.dtype) - face
    roots = jnp.sqrt(jnp.diagonal(gram))
    shared = gram > LIVING * jnp.maximum(roots[:, None] * roots[None, :], jnp.finfo(A.dtype).tiny)

    def top(S: Array) -> Array:
        return jnp.linalg.eigvalsh(S)[-1]

    def unfinished(c: dict[str, Any]) -> Array:
        return (c["least"] > level * (1.0 + 8.0 * eps)) & (c["round"] < rounds)

    def project(c: dict[str, Any]) -> dict[str, Any]:
        values, vectors = jnp.linalg.eigh(_symmetric(matmul(off, matmul(c["S"], off))))
        inside = level * face + matmul(vectors * jnp.minimum(values, INSIDE * level)[None, :], vectors.T)
        S = jnp.where(shared, A, jnp.maximum(A, _symmetric(inside)))
        least = top(S)
        better = least < c["least"]
        return {
            "S": S,
            "best": jnp.where(better, S, c["best"]),
            "least": jnp.where(better, least, c["least"]),
            "round": c["round"] + 1,
        }

    first = jnp.maximum(A, 0.0)
    plain, positive = top(A), top(first)
    # The spectral norm itself may do, too: no entry is raised then.
    best = jnp.where(plain < positive, A, first)
    start = {"S": first, "best": best, "least": jnp.minimum(plain, positive), "round": jnp.zeros((), jnp.int32)}
    return jax.lax.while_loop(unfinished, project, start)["best"]


INSIDE = 0.999
"""Share of the level below which eigenvalues off the rows are held: inside the set, rounds end."""


def _symmetric(S: Array) -> Array:
    return 0.5 * (S + S.T)

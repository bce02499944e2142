"""The collapse metrics that need no samples: of a classifier and class means, in memory of the order K d.

Gram matrices (K, K) enter through their d x d side once ``K > d``; the cosines of pairs are taken in blocks. One
code serves JAX arrays (traced in `ufm.metrics.collapse`) and NumPy arrays (`ufm.measure`, which compiles nothing).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ufm._base import matmul

BLOCK = 2**23
"""Entries of a block of cosines (64 MiB in float64)."""


def configuration(W: Any, centered: Any, center: Any, pairs: Any = None) -> dict[str, Any]:
    """The metrics of `Collapse` that need no samples, of JAX arrays or, without compiling, of NumPy arrays.

    Args:
        W: classifier (K, d).
        centered: class means minus the global mean (K, d); computed in its dtype.
        center: global mean (d,).
        pairs: dtype of the K^2 cosines, if another.
    """
    (W,), (centered, center) = _scaled(W.astype(centered.dtype)), _scaled(centered, center)
    equinorm, equinorm_means = _norm_variation(W), _norm_variation(centered)
    equiangular_means, maximal_angle_means = _angles(centered, pairs)
    row, offset = W.mean(axis=0), centered.mean(axis=0)
    W, centered = W - row[None, :], centered - offset[None, :]
    equiangular, maximal_angle = _angles(W, pairs)
    classifier, features = _gram(W), _gram(centered)
    return {
        "nc2": _to_etf(W, classifier, 0.0 * row),
        "nc2_uncentred": _to_etf(W, classifier, row),
        "nc2_means": _to_etf(centered, features, offset),
        "nc2_means_uncentred": _to_etf(centered, features, offset + center),
        "nc3": _to_duality((W, classifier, row), (centered, features, offset)),
        "equinorm_classifier": equinorm,
        "equinorm_means": equinorm_means,
        "equiangular_classifier": equiangular,
        "equiangular_means": equiangular_means,
        "maximal_angle_classifier": maximal_angle,
        "maximal_angle_means": maximal_angle_means,
    }


def room(x: Any) -> Any:
    """The module whose functions take x: NumPy, or JAX's."""
    return np if isinstance(x, (np.ndarray, np.generic)) else jnp


def row_norms(rows: Any) -> Any:
    """Norm of every row (K,)."""
    return room(rows).linalg.norm(rows, axis=1)


def _product(a: Any, b: Any) -> Any:
    return np.matmul(a, b) if room(a) is np else matmul(a, b)


def _positive(x: Any) -> Any:
    """A divisor: x, or 1 where it is 0."""
    return room(x).where(x > 0, x, 1.0)


def _scaled(*arrays: Any) -> list[Any]:
    """Arrays over their largest entry: fourth powers of what is left neither overflow nor vanish."""
    xp = room(arrays[0])
    size = _positive(xp.max(xp.stack([xp.max(xp.abs(x)) for x in arrays])))
    return [x / size for x in arrays]


def _gram(rows: Any) -> Any:
    """Gram matrix of centered rows (K, d), or ``R'R`` where that is smaller: both have the same eigenvalues."""
    return _product(rows.T, rows) if rows.shape[1] < rows.shape[0] else _product(rows, rows.T)


def _to_etf(rows: Any, gram: Any, common: Any) -> Any:
    """NC2 of the rows ``r_k + common``, where the ``r_k`` sum to zero: no term cancels another.

    ``M`` and ``R R'`` vanish on the vector of ones, so that ``common`` meets M nowhere. On the rest M is the identity,
    and what of ``G/|G| - M/sqrt(K-1)`` the d x d side of the Gram matrix does not see is ``M`` alone.
    """
    xp, (K, d) = room(rows), rows.shape
    cross, level = xp.sum(_product(rows, common) ** 2), K * xp.sum(common**2)
    beside = 2.0 * K * cross + level**2
    size = _positive(xp.sqrt(xp.sum(gram**2) + beside))
    apart = gram / size - _frame(xp, gram, K)
    return xp.sqrt(xp.sum(apart**2) + max(K - 1 - d, 0) / (K - 1.0) + beside / size / size)


def _frame(xp: Any, like: Any, K: int) -> Any:
    """``M/sqrt(K-1)``, or what it is on ``d < K`` centered directions."""
    identity = xp.eye(len(like), dtype=like.dtype)
    return (identity - 1.0 / K if len(like) == K else identity) / float(np.sqrt(K - 1.0))


def _to_duality(classifier: tuple[Any, Any, Any], features: tuple[Any, Any, Any]) -> Any:
    """NC3, ``||P/||P|| - M/sqrt(K-1)||`` for the product ``P = W C'`` of classifier and centered means.

    Each is given as centered rows (K, d), their `_gram`, and the common row (d,) that was taken from them. More than
    d + 1 classes are never dual: ``2 - 2 <P, M>/(||P|| sqrt(K-1))`` is then at least 1/(K-1), and may be computed
    as a difference.
    """
    (W, gram_W, row), (C, gram_C, offset) = classifier, features
    xp, (K, d) = room(W), W.shape
    if d + 1 >= K:
        product = _product(W + row[None, :], (C + offset[None, :]).T)
        return xp.linalg.norm(product / _positive(xp.linalg.norm(product)) - _frame(xp, product, K))
    whole_W, whole_C = gram_W + K * xp.outer(row, row), gram_C + K * xp.outer(offset, offset)
    size = xp.sqrt(xp.maximum(xp.sum(whole_W * whole_C), 0.0))
    trace = np.einsum("kd,kd->", W, C) if xp is np else xp.sum(W * C)  # without a third array of this size
    overlap = trace / _positive(size) / float(np.sqrt(K - 1.0))
    return xp.where(size > 0, xp.sqrt(xp.maximum(2.0 - 2.0 * overlap, 0.0)), 1.0)


def _norm_variation(rows: Any) -> Any:
    """Std over mean of the norms of rows."""
    norms = row_norms(rows)
    return norms.std() / _positive(norms.mean())


def _angles(rows: Any, dtype: Any = None) -> tuple[Any, Any]:
    """Std of the cosines of all pairs of different rows, and their mean distance from ``-1/(K-1)``."""
    xp, K = room(rows), len(rows)
    rows = rows / _positive(row_norms(rows))[:, None]
    pairs, total = K * (K - 1.0), rows.sum(axis=0)
    mean = (xp.sum(total**2) - xp.sum(rows**2)) / pairs
    rows = rows.astype(rows.dtype if dtype is None else dtype)
    step, spread, distance = max(1, BLOCK // K), 0.0 * mean, 0.0 * mean
    for start in range(0, K, step):  # of the symmetric table the blocks on and right of the diagonal
        here = min(step, K - start)
        cosines = _product(rows[start : start + here], rows[start:].T)
        own = xp.arange(here)[:, None] == xp.arange(K - start)[None, :]  # no K x K literal in the program
        for block, same, times in ((cosines[:, :here], own[:, :here], 1.0), (cosines[:, here:], own[:, here:], 2.0)):
            if block.size:
                off = xp.where(same, 0.0, block - mean.astype(block.dtype))
                spread += times * xp.sum(off**2, dtype=mean.dtype)
                off = xp.where(same, 0.0, xp.abs(block + 1.0 / (K - 1.0)))
                distance += times * xp.sum(off, dtype=mean.dtype)
    return xp.sqrt(spread / pairs), distance / pairs

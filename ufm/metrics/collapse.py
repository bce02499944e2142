"""Neural-collapse metrics NC1-NC4 of Papyan, Han & Donoho 2020, in the forms of Zhu et al. 2021.

Arrays in the papers' shapes: classifier W (K, d), features H (d, N), labels (N,), bias b (K,) or None.

A tie is several classes whose logits, or distances, rounding cannot tell apart (`tied`). They share the decision
equally: two decisions agree as often as two draws from them would, and a tie of all K classes is right with a
share of 1/K. `ufm.measure` follows the same rule.

What needs no samples is computed in `ufm.metrics.configuration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import matmul, pytree
from ufm.metrics.configuration import configuration, room, row_norms


@pytree()
@dataclass(frozen=True)
class Collapse:
    """Collapse metrics; all are zero at a simplex-ETF collapse. Scalars.

    None depends on the scales of W and H. A zero matrix has distance 1 from every configuration.

    Attributes:
        nc1: within-class over between-class variability, ``tr(S_W S_B^+)/K``. Infinite for features that vary
            within classes only; NaN, since 0/0 is undefined, for features that do not vary.
        nc2: distance of the row-centered classifier's Gram matrix from that of a simplex ETF, both of
            unit norm: ``|| W W'/||W W'|| - M/sqrt(K-1) ||``, in [0, 2].
        nc2_uncentred: the same without centering the rows of W.
        nc2_means: the same for the globally centered class means.
        nc2_means_uncentred: the same for the class means themselves.
        nc3: distance of ``W Hbar_c`` from ``M``, both of unit norm (self-duality).
        nc4: fraction of samples whose largest logit is not that of the nearest class mean; ties share.
        equinorm_classifier: std over mean of ``||w_k||``.
        equinorm_means: std over mean of the norms of the centered class means.
        equiangular_classifier: std over pairs of ``cos(w_j, w_k)``, rows centered.
        equiangular_means: the same for the centered class means.
        maximal_angle_classifier: mean over pairs of ``|cos(w_j, w_k) + 1/(K-1)|``, rows centered.
        maximal_angle_means: the same for the centered class means.
    """

    nc1: Any
    nc2: Any
    nc2_uncentred: Any
    nc2_means: Any
    nc2_means_uncentred: Any
    nc3: Any
    nc4: Any
    equinorm_classifier: Any
    equinorm_means: Any
    equiangular_classifier: Any
    equiangular_means: Any
    maximal_angle_classifier: Any
    maximal_angle_means: Any


def class_means(H: Array, labels: Array, classes: int, counts: Any = 1.0) -> Array:
    """Mean feature of each class, as columns (d, K). A class without samples gets zero.

    ``counts`` says how many samples a column of H stands for, () or (N,).

    >>> class_means(jnp.array([[1.0, 3.0, 5.0]]), jnp.array([0, 0, 1]), 2).tolist()
    [[2.0, 5.0]]
    """
    each = jnp.broadcast_to(jnp.asarray(counts, H.dtype), (H.shape[1],))
    sizes = jnp.maximum(jax.ops.segment_sum(each, labels, num_segments=classes), 1.0)

    def mean(columns: Array) -> Array:
        return jax.ops.segment_sum((columns * each[None, :]).T, labels, num_segments=classes).T / sizes[None, :]

    # Sums of many samples lose digits in float32; the mean of what is left over returns them.
    means = mean(H)
    return means + mean(H - means[:, labels])


@jax.jit
def collapse(W: Array, H: Array, labels: Array, b: Array | None = None, counts: Any = 1.0) -> Collapse:
    """All collapse metrics of a classifier and features; jit-able.

    ``counts`` says how many samples a column of H stands for, () or (N,): one feature may stand for a class.

    >>> import jax.numpy as jnp, ufm
    >>> U = ufm.geometry.simplex_etf(3, 4)
    >>> metrics = collapse(U, jnp.repeat(U.T, 5, axis=1), jnp.repeat(jnp.arange(3), 5))
    >>> round(float(metrics.nc1), 6), round(float(metrics.nc2), 4), float(metrics.nc4)
    (0.0, 0.0, 0.0)
    """
    labels, eps = jnp.asarray(labels, jnp.int32), rounding(H.shape[0], H.dtype)
    logits, size = matmul(W, H), row_norms(H.T) * jnp.max(row_norms(W))
    if b is not None:
        logits, size = logits + jnp.broadcast_to(b, (W.shape[0],))[:, None], size + jnp.max(jnp.abs(b))
    decided = tied(logits, eps * size)
    # All but the logits is a matter of differences, which a common offset of the features must not drown.
    each = jnp.broadcast_to(jnp.asarray(counts, H.dtype), (H.shape[1],))
    center, largest = jnp.average(H, axis=1, weights=each), jnp.max(row_norms(H.T))
    H = H - center[:, None]
    means = class_means(H, labels, W.shape[0], each)
    # What rounding of the mean has left, of many samples in float32.
    shares = jax.ops.segment_sum(each, labels, W.shape[0]) / jnp.sum(each)
    rest = matmul(means, shares)
    centered, center = means - rest[:, None], center + rest
    closeness = matmul(means.T, H) - 0.5 * jnp.sum(means**2, axis=0)[:, None]
    near = tied(closeness, closeness_rounding(row_norms(H.T), jnp.max(row_norms(means.T)), largest, eps))
    apart = 1.0 - agreement(decided, near)
    return Collapse(
        nc1=_within_over_between(H - means[:, labels], centered.T, largest, each),
        nc4=jnp.average(apart, weights=each.astype(apart.dtype)).astype(W.dtype),
        **configuration(W, centered.T, center),
    )


def rounding(dim: int, dtype: Any) -> float:
    """What rounding moves a product of ``dim`` terms by, relative to the norms of its factors: ``sqrt(dim) eps``.

    Twice the probabilistic bound of Higham & Mary 2019 (SIAM J. Sci. Comput. 41(5), Thm 2.4) for an inner product,
    since two of them are compared.
    """
    return float(np.sqrt(dim) * np.finfo(np.dtype(dtype)).eps)


def closeness_rounding(features: Any, means: Any, largest: Any, eps: float) -> Any:
    """`rounding` of ``m'h - |m|^2/2``, where centering has moved h and m by ``eps largest``.

    Args:
        features: ``|h|`` of the centered features (N,).
        means: the largest ``|m|``.
        largest: largest norm of a feature before it was centered.
        eps: `rounding` of the dimension.
    """
    return eps * (features * means + largest * (features + means + eps * largest))


def tied(columns: Any, width: Any) -> Any:
    """Which entries share the largest place of their column (K, N): those within ``width`` (N,) of it.

    >>> tied(np.array([[1.0, 2.0], [1.0, 0.0]]), np.zeros(2)).tolist()
    [[True, True], [True, False]]
    """
    return columns >= (columns.max(axis=0) - width)[None, :]


def agreement(first: Any, second: Any) -> Any:
    """Chance that draws from each column of ``first`` and of ``second`` are equal: ``|A n B|/(|A| |B|)`` (N,).

    >>> agreement(np.array([[True], [True]]), np.array([[True], [False]])).tolist()
    [0.5]
    """
    both, one, other = (room(x).asarray(x.sum(axis=0), float) for x in (first & second, first, second))
    return both / (one * other)


def between_inverse(centered: Any, largest: Any) -> tuple[Any, Any]:
    """``A`` with ``|A x|^2 = x' S_B^+ x / K``, and below what a singular value or deviation is rounding.

    ``S_B = C'C/K`` with the centered means C (K, d), of rank K-1 at most; its pseudo-inverse drops singular values
    below the rounding of the means, which ``largest``, the norm of the largest feature, may dwarf.
    """
    xp, (K, d) = room(centered), centered.shape
    # The squares of the singular values would lose half of the digits; those of a triangular factor do not.
    narrow = np.linalg.qr(centered, mode="r") if xp is np and d < K else centered
    _, sizes, right = xp.linalg.svd(narrow, full_matrices=False)
    least = max(K, d) * float(np.finfo(np.dtype(centered.dtype)).eps) * xp.maximum(xp.linalg.norm(centered), largest)
    # The weighted sum of the means is zero.
    kept = (sizes > least) & (xp.arange(sizes.size, dtype=np.int32) < K - 1)
    return xp.where(kept, 1.0 / xp.where(kept, sizes, 1.0), 0.0)[:, None] * right, least


def ratio_of_variances(value: Any, inverse: Any, furthest: Any, least: Any) -> Any:
    """NC1: ``value`` where the means differ; else infinite if a sample deviates from its mean, or 0/0, NaN.

    Args:
        value: ``(1/N) sum_i |A dev_i|^2``.
        inverse: A.
        furthest: largest ``|dev_i|``.
        least: below what a deviation is rounding.
    """
    xp = room(inverse)
    return xp.where(xp.any(inverse != 0), value, xp.where(furthest > least, np.inf, np.nan))


def _within_over_between(deviations: Array, centered: Array, largest: Array, each: Array) -> Array:
    """NC1, ``tr(S_W S_B^+)/K``, as a sum of squares (never negative); deviations (d, N), centered means (K, d)."""
    inverse, least = between_inverse(centered, largest)
    # tr(S_W S_B^+)/K = (1/N) sum_i dev_i' (K C^+' C^+) dev_i / K: the two K cancel.
    value = jnp.average(jnp.sum(matmul(inverse, deviations) ** 2, axis=0), weights=each)
    return ratio_of_variances(value, inverse, jnp.max(row_norms(deviations.T)), least)


@jax.jit
def scores(W: Array, H: Array, labels: Array, counts: Any = 1.0) -> dict[str, dict[str, Array]]:
    """Unbiased scores ``w_j'h``: mean, min and max over true classes (positive) and others (negative).

    ``counts`` says how many samples a column of H stands for, () or (N,).

    >>> found = scores(jnp.eye(2), 3.0 * jnp.eye(2), jnp.array([0, 1]))
    >>> float(found["positive"]["mean"]), float(found["negative"]["max"])
    (3.0, 0.0)
    """
    table = matmul(W, H)
    true = jnp.arange(W.shape[0], dtype=jnp.int32)[:, None] == jnp.asarray(labels, jnp.int32)[None, :]

    each = jnp.broadcast_to(jnp.asarray(counts, table.dtype), (H.shape[1],))[None, :]

    def summary(mask: Array) -> dict[str, Array]:
        weights = jnp.where(mask, each, 0.0)
        return {
            "mean": jnp.sum(table * weights) / jnp.sum(weights),
            "min": jnp.min(jnp.where(mask, table, jnp.inf)),
            "max": jnp.max(jnp.where(mask, table, -jnp.inf)),
        }

    return {"positive": summary(true), "negative": summary(~true)}

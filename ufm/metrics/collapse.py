"""Neural-collapse metrics NC1-NC4 of Papyan, Han & Donoho 2020, in the forms of Zhu et al. 2021.

Arrays in the papers' shapes: classifier W (K, d), features H (d, N), labels (N,), bias b (K,) or None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import matmul, pytree
from ufm.geometry import centering, gram_distance, unit


@pytree()
@dataclass(frozen=True)
class Collapse:
    """Collapse metrics; all are zero at a simplex-ETF collapse. Scalars.

    Attributes:
        nc1: within-class over between-class variability, ``tr(S_W S_B^+)/K``.
        nc2: distance of the row-centred classifier's Gram matrix from that of a simplex ETF, both of
            unit norm: ``|| W W'/||W W'|| - M/sqrt(K-1) ||``, in [0, 2].
        nc2_uncentred: the same without centring the rows of W.
        nc2_means: the same for the globally centred class means.
        nc2_means_uncentred: the same for the class means themselves.
        nc3: distance of ``W Hbar_c`` from ``M``, both of unit norm (self-duality).
        nc4: fraction of samples whose largest logit is not the nearest class mean.
        equinorm_classifier: std over mean of ``||w_k||``.
        equinorm_means: std over mean of the norms of the centred class means.
        equiangular_classifier: std over pairs of ``cos(w_j, w_k)``, rows centred.
        equiangular_means: the same for the centred class means.
        maximal_angle_classifier: mean over pairs of ``|cos(w_j, w_k) + 1/(K-1)|``, rows centred.
        maximal_angle_means: the same for the centred class means.
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


def class_means(H: Array, labels: Array, classes: int) -> Array:
    """Mean feature of each class, as columns (d, K). A class without samples gets zero.

    >>> class_means(jnp.array([[1.0, 3.0, 5.0]]), jnp.array([0, 0, 1]), 2).tolist()
    [[2.0, 5.0]]
    """
    counts = jnp.maximum(jax.ops.segment_sum(jnp.ones(H.shape[1], H.dtype), labels, num_segments=classes), 1.0)

    def mean(columns: Array) -> Array:
        return jax.ops.segment_sum(columns.T, labels, num_segments=classes).T / counts[None, :]

    # Sums of many samples lose digits in float32; the mean of what is left over returns them.
    means = mean(H)
    return means + mean(H - means[:, labels])


@jax.jit
def collapse(W: Array, H: Array, labels: Array, b: Array | None = None) -> Collapse:
    """All collapse metrics of a classifier and features; jit-able.

    >>> import jax.numpy as jnp, ufm
    >>> U = ufm.geometry.simplex_etf(3, 4)
    >>> metrics = collapse(U, jnp.repeat(U.T, 5, axis=1), jnp.repeat(jnp.arange(3), 5))
    >>> round(float(metrics.nc1), 6), round(float(metrics.nc2), 4), float(metrics.nc4)
    (0.0, 0.0, 0.0)
    """
    labels = jnp.asarray(labels, jnp.int32)
    predicted = predicted_class(W, H, b)
    # All but the logits is a matter of differences, which a common offset of the features must not drown.
    centre = jnp.mean(H, axis=1)
    H = H - centre[:, None]
    means = class_means(H, labels, W.shape[0])
    # What rounding of the mean has left, of many samples in float32.
    shares = jax.ops.segment_sum(jnp.ones(H.shape[1], H.dtype), labels, W.shape[0]) / H.shape[1]
    rest = matmul(means, shares)
    centred, centre = means - rest[:, None], centre + rest
    return Collapse(
        nc1=within_over_between(H, labels, means, centred),
        nc4=jnp.mean((predicted != nearest_mean(H, means)).astype(W.dtype)),
        **configuration(W, centred, centre),
    )


def configuration(W: Array, centred: Array, centre: Array) -> dict[str, Array]:
    """The metrics of `Collapse` that need no samples: of W (K, d), centred class means (d, K), global mean (d,)."""
    classes, means = W.shape[0], centred + centre[:, None]
    rows = W - jnp.mean(W, axis=0, keepdims=True)
    etf = jnp.asarray(centering(classes), W.dtype)
    nc2, nc2_means, nc2_uncentred, nc2_means_uncentred = jax.vmap(lambda x: gram_distance(x, etf))(
        jnp.stack([rows, centred.T, W, means.T])
    )
    equinorm = jax.vmap(_norm_variation)(jnp.stack([W, centred.T]))
    equiangular, maximal_angle = jax.vmap(_angles)(jnp.stack([rows, centred.T]))
    return {
        "nc2": nc2,
        "nc2_uncentred": nc2_uncentred,
        "nc2_means": nc2_means,
        "nc2_means_uncentred": nc2_means_uncentred,
        "nc3": jnp.linalg.norm(unit(matmul(W, centred)) - unit(etf)),
        "equinorm_classifier": equinorm[0],
        "equinorm_means": equinorm[1],
        "equiangular_classifier": equiangular[0],
        "equiangular_means": equiangular[1],
        "maximal_angle_classifier": maximal_angle[0],
        "maximal_angle_means": maximal_angle[1],
    }


def within_over_between(H: Array, labels: Array, means: Array, centred: Array) -> Array:
    """NC1, ``tr(S_W S_B^+)/K``, as a sum of squares (never negative).

    ``S_B = C C'/K`` with the centred means C (d, K), of rank K-1 at most; its pseudo-inverse drops singular values
    below the rounding of the means.
    """
    left, sizes, _ = jnp.linalg.svd(centred, full_matrices=False)
    eps = jnp.finfo(H.dtype).eps
    # Centring leaves rounding of the size of the means themselves, which may dwarf the centred ones.
    kept = sizes > max(centred.shape) * eps * jnp.linalg.norm(means)
    kept &= jnp.arange(kept.size, dtype=jnp.int32) < centred.shape[1] - 1  # their weighted sum is zero
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, sizes, 1.0), 0.0)
    deviations = matmul(left.T, H - means[:, labels]) * inverse[:, None]
    # tr(S_W S_B^+)/K = (1/N) sum_i dev_i' (K C^+' C^+) dev_i / K: the two K cancel.
    return jnp.sum(deviations**2) / H.shape[1]


def predicted_class(W: Array, H: Array, b: Array | None = None) -> Array:
    """Class of the largest logit (N,)."""
    logits = matmul(W, H)
    if b is not None:
        logits = logits + jnp.broadcast_to(b, (W.shape[0],))[:, None]
    return jnp.argmax(logits, axis=0)


def nearest_mean(H: Array, means: Array) -> Array:
    """Class whose mean is nearest (N,)."""
    distances = jnp.sum(means**2, axis=0)[:, None] - 2.0 * matmul(means.T, H)
    return jnp.argmin(distances, axis=0)


@jax.jit
def scores(W: Array, H: Array, labels: Array) -> dict[str, dict[str, Array]]:
    """Unbiased scores ``w_j'h``: mean, min and max over true classes (positive) and others (negative).

    >>> found = scores(jnp.eye(2), 3.0 * jnp.eye(2), jnp.array([0, 1]))
    >>> float(found["positive"]["mean"]), float(found["negative"]["max"])
    (3.0, 0.0)
    """
    table = matmul(W, H)
    true = jnp.arange(W.shape[0], dtype=jnp.int32)[:, None] == jnp.asarray(labels, jnp.int32)[None, :]

    def summary(mask: Array) -> dict[str, Array]:
        return {
            "mean": jnp.mean(table, where=mask),
            "min": jnp.min(jnp.where(mask, table, jnp.inf)),
            "max": jnp.max(jnp.where(mask, table, -jnp.inf)),
        }

    return {"positive": summary(true), "negative": summary(~true)}


def _norm_variation(rows: Array) -> Array:
    """Std over mean of the norms of rows."""
    norms = jnp.linalg.norm(rows, axis=1)
    mean = jnp.mean(norms)
    return jnp.std(norms) / jnp.where(mean > 0, mean, 1.0)


def _angles(rows: Array) -> tuple[Array, Array]:
    """Std of the cosines of all pairs of different rows, and their mean distance from ``-1/(K-1)``."""
    classes = rows.shape[0]
    norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
    cosines = matmul(rows, rows.T) / jnp.where(norms > 0, norms, 1.0) / jnp.where(norms > 0, norms, 1.0).T
    off_diagonal = ~np.eye(classes, dtype=bool)
    pairs = classes * (classes - 1.0)
    mean = jnp.sum(cosines, where=off_diagonal) / pairs
    spread = jnp.sqrt(jnp.sum((cosines - mean) ** 2, where=off_diagonal) / pairs)
    distance = jnp.sum(jnp.abs(cosines + 1.0 / (classes - 1.0)), where=off_diagonal) / pairs
    return spread, distance

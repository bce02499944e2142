"""Intra-class compactness and inter-class distinctiveness of features.

The seeds define both in equations that are lost (Li et al. 2024, Eqs. 47-48). These are the field's
standard cosine forms, means over pairs of samples ``cos(h, h')``:

    compactness     = mean over classes of the mean over pairs of different samples of the class,
    distinctiveness = mean over pairs of classes of the mean of ``1 - cos`` over pairs across them.

Both follow from the sum of the unit vectors ``h/|h|`` of each class, so one pass over the features is
enough. Perfect collapse onto a simplex ETF gives 1 and K/(K-1), independent random features 0 and 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array64 = npt.NDArray[np.float64]


def unit_sums(features: npt.ArrayLike, labels: npt.ArrayLike, classes: int, out: Array64 | None = None) -> Array64:
    """Sum of the unit features of each class, (K, d); sums of blocks add up.

    Args:
        features: (d, N); zero vectors have cosine 0 with everything.
        labels: (N,) in 0..K-1.
        classes: K.
        out: sums (K, d) of other blocks, to add to in place.
    """
    H = np.asarray(features)
    H = H.astype(np.promote_types(H.dtype, np.float32), copy=False)
    norm = np.sqrt(np.sum(np.square(H, dtype=np.float64), axis=0))
    return class_sums(H / np.where(norm > 0, norm, 1.0).astype(H.dtype), labels, classes, out)


def class_sums(features: npt.ArrayLike, labels: npt.ArrayLike, classes: int, out: Array64 | None = None) -> Array64:
    """Sum of the features (d, N) of each class, (K, d), in float64; added to ``out`` if given."""
    H, labels = np.asarray(features), np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((classes, H.shape[0])) if out is None else out
    if labels.size:
        sums[present] += np.add.reduceat(H[:, order], starts, axis=1, dtype=np.float64).T
    return sums


def compactness(sums: npt.ArrayLike, counts: npt.ArrayLike, nonzero: npt.ArrayLike | None = None) -> float:
    """Mean cosine between different samples of a class, averaged over classes of two samples or more.

    Args:
        sums: of unit features, (K, d), from `unit_sums`.
        counts: samples per class (K,).
        nonzero: those of them whose feature is not zero, if some are.

    Returns:
        At most 1; NaN if no class has two samples.

    >>> H = [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]
    >>> compactness(unit_sums(H, [0, 0, 1, 1], 2), [2, 2])   # (1 - 1)/2
    0.0
    """
    sums, n = np.asarray(sums, float), np.asarray(counts, float)
    own = n if nonzero is None else np.asarray(nonzero, float)  # cosines of a feature with itself
    several = n > 1
    if not several.any():
        return float("nan")
    s, own, n = sums[several], own[several], n[several]
    return float(np.mean((np.sum(s * s, axis=1) - own) / (n * (n - 1.0))))


def distinctiveness(sums: npt.ArrayLike, counts: npt.ArrayLike) -> float:
    """Mean of ``1 - cos`` between samples of different classes, averaged over pairs of classes.

    Args:
        sums: of unit features, (K, d), from `unit_sums`.
        counts: samples per class (K,); classes without samples are left out.

    Returns:
        In [0, 2], at most K/(K-1) for the K classes present; NaN with fewer than two of them.

    >>> distinctiveness(unit_sums([[1.0, -1.0]], [0, 1], 2), [1, 1])
    2.0
    """
    sums, n = np.asarray(sums, float), np.asarray(counts, float)
    present = n > 0
    K = int(present.sum())
    if K < 2:
        return float("nan")
    means = sums[present] / n[present, None]
    total = means.sum(axis=0)
    return float(1.0 - (total @ total - np.sum(means * means)) / (K * (K - 1.0)))


def mean_cosine(rows: npt.ArrayLike) -> float:
    """Mean cosine of two different rows (K, d), K >= 2; a zero row has cosine 0 with every other.

    >>> mean_cosine([[2.0, 0.0], [-1.0, 0.0]])
    -1.0
    """
    rows = np.asarray(rows)
    K = len(rows)
    return 1.0 - distinctiveness(unit_sums(rows.T, np.arange(K), K), np.ones(K))

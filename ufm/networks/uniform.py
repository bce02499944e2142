"""Uniform classification: one threshold for every sample (Li et al. 2024, "Rediscovering BCE Loss").

A sample of class k with class metrics ``c`` (unbiased scores, logits or cosines) is classified

    sample-wise    if  c_k > t > max_{j != k} c_j  for some t of its own,  that is  c_k > max_{j != k} c_j,
    class-wise     if the same holds for the threshold t_k of its class,
    uniformly      if it holds for the one threshold t of all samples.

So every sample is the open interval ``(max_{j != k} c_j, c_k)``, and each accuracy is the largest fraction
of intervals that one point lies in: per sample, per class, overall. It follows that
``uniform <= class_wise <= sample_wise``.

A tie of the own score with the largest others is an empty interval: no threshold parts what is equal. The
sample-wise decision alone, the largest score, is shared by the classes that are tied: 1/K where all are.

Host code in NumPy: what matters is a sort, and arrays too large for a device arrive in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ufm._base import require

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Extremes:
    """What uniform classification needs of the scores: two numbers per sample.

    Attributes:
        positive: c_k of each sample's own class k, (N,).
        negative: the largest other, ``max_{j != k} c_j``, (N,).
        credit: the own class's share of the largest score, (N,): 1, 0, or 1/t of a tie of t classes. Without it a
            tie is taken for one with one other class.
    """

    positive: Floats
    negative: Floats
    credit: Floats | None = None


@dataclass(frozen=True)
class Threshold:
    """The best single threshold of a set of samples.

    Attributes:
        accuracy: largest fraction of samples with ``positive > t > negative``.
        value: t*, the middle of the widest interval of best thresholds; NaN where no sample has any.
        low: left end of that open interval.
        high: its right end.
    """

    accuracy: float
    value: float
    low: float
    high: float


def extremes(scores: npt.ArrayLike, labels: npt.ArrayLike, width: npt.ArrayLike = 0.0) -> Extremes:
    """Own and largest other score of each sample, in the scores' precision (float32 at least).

    Args:
        scores: (K, N), K >= 2; finite. Call it on blocks of columns when they do not fit in memory.
        labels: (N,) in 0..K-1.
        width: scores of a sample that differ by no more are tied, () or (N,); such a largest other score is given
            as equal to the own one.

    >>> e = extremes([[3.0, 1.0], [2.0, 0.0], [1.0, 5.0]], [0, 2])
    >>> e.positive.tolist(), e.negative.tolist()
    ([3.0, 5.0], [2.0, 1.0])
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    require(scores.ndim == 2 and scores.shape[0] >= 2, "scores.shape", scores.shape, "(K, N) with K >= 2")
    require(labels.shape == scores.shape[1:], "labels.shape", labels.shape, f"(N,) = {scores.shape[1:]}")
    scores = scores.astype(np.promote_types(scores.dtype, np.float32))  # a copy: its true entries are masked below
    own = labels.astype(np.intp)[None, :]
    positive = np.take_along_axis(scores, own, axis=0)[0]
    np.put_along_axis(scores, own, -np.inf, axis=0)
    negative = scores.max(axis=0)
    credit, width = (positive > negative).astype(float), np.broadcast_to(width, positive.shape)
    ties = np.flatnonzero(np.abs(positive - negative) <= width)
    if ties.size:
        least = np.maximum(positive, negative)[ties] - width[ties]
        credit[ties] = 1.0 / (1 + np.sum(scores[:, ties] >= least[None, :], axis=0))
        negative[ties] = positive[ties]
    return Extremes(positive, negative, credit)


def sample_wise_accuracy(e: Extremes) -> float:
    """Fraction with ``c_k > max_{j != k} c_j``; a tie of t classes counts 1/t.

    >>> sample_wise_accuracy(extremes([[1.0, 2.0], [1.0, 0.0]], [0, 0]))
    0.75
    """
    if e.credit is None:
        return float(np.mean((np.sign(e.positive - e.negative) + 1.0) / 2.0))
    return float(np.mean(e.credit))


def uniform_accuracy(e: Extremes) -> Threshold:
    """``A_uni = max_t fraction{c_k > t > max_{j != k} c_j}`` with its argmax, exact with ties; O(N log N).

    The count of open intervals over t is constant between end points and can only rise just after a
    left one, so the best t lies between a left end and the next right end. t is a real number: where
    both ends are neighboring floats no float lies between, and ``value`` is one of the ends.

    >>> import numpy as np
    >>> t = uniform_accuracy(Extremes(np.array([3.0, 5.0, 0.5]), np.array([0.0, 2.0, -1.0])))
    >>> round(t.accuracy, 3), t.value
    (0.667, 2.5)
    """
    positive, negative = np.asarray(e.positive, np.float64), np.asarray(e.negative, np.float64)
    require(bool(np.isfinite(positive).all() and np.isfinite(negative).all()), "scores", "NaN or inf", "finite")
    valid = positive > negative
    if not valid.any():
        return Threshold(0.0, np.nan, np.nan, np.nan)
    high = np.sort(positive[valid])
    left = np.sort(negative[valid])
    starts = np.flatnonzero(np.append(left[1:] > left[:-1], True))  # last of each run of equal left ends
    low = left[starts]
    closed = np.searchsorted(high, low, side="right")
    inside = starts + 1 - closed
    best = np.flatnonzero(inside == inside.max())
    right = high[closed[best]]
    widest = int(np.argmax(right - low[best]))
    a, b = float(low[best][widest]), float(right[widest])
    return Threshold(float(inside.max()) / positive.size, a + 0.5 * (b - a), a, b)


def class_wise_accuracy(e: Extremes, labels: npt.ArrayLike, classes: int) -> tuple[float, npt.NDArray[np.float64]]:
    """Fraction classified with one threshold per class, and the thresholds (K,); NaN where a class has none.

    >>> import numpy as np
    >>> e = Extremes(np.array([3.0, 9.0]), np.array([0.0, 8.0]))
    >>> accuracy, thresholds = class_wise_accuracy(e, [0, 1], 2)
    >>> accuracy, thresholds.tolist()
    (1.0, [1.5, 8.5])
    """
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(classes + 1))
    hits, thresholds = 0.0, np.full(classes, np.nan)
    for k in range(classes):
        members = order[ends[k] : ends[k + 1]]
        if members.size:
            best = uniform_accuracy(Extremes(e.positive[members], e.negative[members]))
            hits += best.accuracy * members.size
            thresholds[k] = best.value
    return hits / max(labels.size, 1), thresholds


def accuracy_at(e: Extremes, threshold: float) -> float:
    """Fraction with ``c_k > t > max_{j != k} c_j`` at a given ``threshold`` t, such as minus a unified bias."""
    return float(np.mean((e.positive > threshold) & (threshold > e.negative)))


def bias_to_threshold(bias: npt.ArrayLike, threshold: float) -> dict[str, float]:
    """How far a learned bias is from t*: ``z_j = c_j + b_j > 0`` iff ``c_j > -b_j``, so ``-b`` is the threshold.

    Args:
        bias: () or (K,), of our sign (``Wh + b``).
        threshold: t* of the unbiased scores.

    Returns:
        ``mean`` = |mean(-b) - t*| and ``max`` = max_j |-b_j - t*|.

    >>> bias_to_threshold([-1.0, -3.0], 2.5)
    {'mean': 0.5, 'max': 1.5}
    """
    learned = -np.asarray(bias, np.float64)
    return {"mean": float(abs(learned.mean() - threshold)), "max": float(np.abs(learned - threshold).max())}


def overlap(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Overlap of two samples of scores: ``min_t P(positive <= t) + P(negative > t)``, in [0, 1].

    One minus the one-sided Kolmogorov-Smirnov distance: free of bins, 0 iff every positive is above
    every negative, 1 when the positives are not above the negatives anywhere.

    >>> overlap([1.0, 2.0], [0.0, 1.5])
    0.5
    """
    p, n = np.sort(np.asarray(positive, float).ravel()), np.sort(np.asarray(negative, float).ravel())
    below = np.searchsorted(p, n, side="right") / p.size
    above = 1.0 - np.searchsorted(n, n, side="right") / n.size
    return float(min(1.0, np.min(below + above)))

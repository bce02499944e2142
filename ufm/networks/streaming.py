"""Everything `ufm measure` needs of a network's features, in two passes over blocks of rows.

The first pass takes class sums, the extremes and the moments of the scores; the second, knowing means and
ranges, the within-class deviations (no cancellation), the nearest means and the histograms. Products run
in float32 or better, sums in float64. Memory: a block, its scores, a few (K, d), and six numbers a sample.
Ties are shared as in `ufm.metrics.collapse`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ufm._base import require
from ufm.metrics.collapse import (
    agreement,
    between_inverse,
    closeness_rounding,
    ratio_of_variances,
    rounding,
    tied,
)
from ufm.networks import cosines
from ufm.networks.cosines import class_sums, unit_sums
from ufm.networks.uniform import Extremes, extremes

Array64 = npt.NDArray[np.float64]
Blocks = Callable[[], Iterable[npt.NDArray[Any]]]
BINS = 4096


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation, least and largest of one kind of score."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class Histograms:
    """Counts of the positive and the negative scores in common bins: ``edges`` has one entry more."""

    edges: Array64
    positive: npt.NDArray[np.int64]
    negative: npt.NDArray[np.int64]

    def overlap(self) -> float:
        """`ufm.networks.uniform.overlap` at the edges of the bins: at most one bin's mass above the exact value."""
        below = np.concatenate([[0], np.cumsum(self.positive)]) / self.positive.sum()
        above = 1.0 - np.concatenate([[0], np.cumsum(self.negative)]) / self.negative.sum()
        return float(np.min(below + above))


@dataclass(frozen=True)
class Statistics:
    """What two passes leave behind.

    Attributes:
        counts: samples per class (K,).
        centered: class means minus the mean of all features (K, d).
        center: mean of all features (d,).
        compactness: of the classes, as in `ufm.networks.cosines`.
        distinctiveness: between them.
        energy: ``||H||_F^2``.
        scores: `Extremes` of the unbiased scores.
        logits: `Extremes` with the bias added.
        positive: `Moments` of the unbiased scores of true classes.
        negative: `Moments` of the others.
        histograms: of both.
        nc1: ``tr(S_W S_B^+)/K``; inf or NaN where the class means do not differ, as in `Collapse`.
        nc4: fraction of samples whose largest logit is not that of the nearest class mean; ties share.
    """

    counts: npt.NDArray[np.int64]
    centered: Array64
    center: Array64
    compactness: float
    distinctiveness: float
    energy: float
    scores: Extremes
    logits: Extremes
    positive: Moments
    negative: Moments
    histograms: Histograms
    nc1: float
    nc4: float


def statistics(
    blocks: Blocks,
    labels: npt.NDArray[np.integer],
    weight: npt.NDArray[Any],
    bias: npt.NDArray[Any] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Statistics:
    """Two passes over the features.

    Args:
        blocks: called once per pass; yields the features (N, d) in order, as blocks of rows.
        labels: (N,), every class 0..K-1 present.
        weight: (K, d); products run in its precision, float32 at least.
        bias: (K,), a scalar, or None.
        progress: told the rows of each block done, 2 N in all.

    Raises:
        InputError: for NaN or inf, or if the blocks do not add up to N rows of d numbers.
    """
    K, d = weight.shape
    N = labels.size
    W = weight.astype(np.promote_types(weight.dtype, np.float32))
    offset = np.broadcast_to(np.asarray(0.0 if bias is None else bias, W.dtype), (K,))[:, None]
    counts = np.bincount(labels.astype(np.intp), minlength=K)

    sums, units, nonzero, energy = np.zeros((K, d)), np.zeros((K, d)), np.zeros(K, np.int64), 0.0
    score_ends, logit_ends, least, largest = [], [], np.inf, 0.0
    # Rounding of a product of a row with a feature, relative to the norm of the feature; of a bias.
    eps = rounding(d, W.dtype)
    steepest, shifted = eps * float(_norms(W).max()), eps * float(np.abs(offset).max())
    for H, k in _columns(blocks, labels, W):
        sizes = _norms(H.T)
        with np.errstate(over="ignore", invalid="ignore"):
            scores = W @ H
            least_here, ends = float(scores.min()), extremes(scores, k, steepest * sizes)
        finite = np.isfinite(least_here) and np.isfinite(ends.positive).all() and np.isfinite(ends.negative).all()
        require(bool(finite), "scores", "overflow in weight @ features", f"finite in {W.dtype}")
        class_sums(H, k, K, sums)
        unit_sums(H, k, K, units)
        largest = max(largest, float(sizes.max()))
        nonzero += np.bincount(k[H.any(axis=0)], minlength=K)
        energy += float(np.sum(np.square(H, dtype=np.float64)))
        score_ends.append(ends)
        np.put_along_axis(scores, k[None, :], np.inf, axis=0)
        least = min(least, float(scores.min()))
        np.put_along_axis(scores, k[None, :], ends.positive[None, :], axis=0)
        scores += offset
        logit_ends.append(ends if bias is None else extremes(scores, k, steepest * sizes + shifted))
        progress(H.shape[1])

    ends, logits = _joined(score_ends), _joined(logit_ends)
    compactness = cosines.compactness(units, counts, nonzero)
    distinctiveness = cosines.distinctiveness(units, counts)
    del units  # of the size of the means
    positive, total = np.asarray(ends.positive, float), sums.sum(axis=0)
    center = total / N
    sums /= counts[:, None]
    size = max(largest, float(np.linalg.norm(sums)))
    means = np.subtract(sums, center, out=sums)  # centered from here on
    others_mean = float(W.sum(axis=0, dtype=float) @ total - positive.sum()) / (N * (K - 1))
    low = min(least, float(positive.min()))
    high = max(float(np.max(ends.negative)), float(positive.max()))
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    within, small = between_inverse(means, size)
    within = within.astype(W.dtype)
    small = max(float(small), rounding(d, W.dtype) * largest)  # deviations are taken in the precision of W
    half_norms = 0.5 * np.square(_norms(means))[:, None].astype(W.dtype)
    centered, middle = means.astype(W.dtype), center[:, None].astype(W.dtype)
    far = float(_norms(centered).max())
    deviation, furthest, spread, misplaced = 0.0, 0.0, 0.0, 0.0
    own, everything = np.zeros((2, BINS), np.int64)
    for H, k in _columns(blocks, labels, W):
        scores = W @ H
        width = steepest * _norms(H.T) + (shifted if bias is not None else 0.0)
        H = H - middle
        away = H - centered[k].T
        deviation += float(np.sum(np.square(within @ away, dtype=np.float64)))
        furthest = max(furthest, float(_norms(away.T).max()))
        closeness = centered @ H
        closeness -= half_norms
        near = tied(closeness, closeness_rounding(_norms(H.T), far, largest, eps).astype(W.dtype))
        np.add(scores, offset, out=closeness)
        misplaced += float(np.sum(1.0 - agreement(tied(closeness, width.astype(W.dtype)), near)))
        bins = _bins(scores, edges)
        everything += np.bincount(bins.ravel(), minlength=BINS)
        own += np.bincount(np.take_along_axis(bins, k[None, :], axis=0)[0], minlength=BINS)
        scores -= W.dtype.type(others_mean)
        np.put_along_axis(scores, k[None, :], 0.0, axis=0)
        spread += float(np.sum(np.einsum("ji,ji->j", scores, scores), dtype=np.float64))
        progress(len(k))
    return Statistics(
        counts=counts,
        centered=means,
        center=center,
        compactness=compactness,
        distinctiveness=distinctiveness,
        energy=energy,
        scores=ends,
        logits=logits,
        positive=Moments(float(positive.mean()), float(positive.std()), float(positive.min()), float(positive.max())),
        negative=Moments(
            mean=others_mean,
            std=float(np.sqrt(spread / (N * (K - 1)))),
            min=least,
            max=float(np.max(ends.negative)),
        ),
        histograms=Histograms(edges, own, everything - own),
        nc1=float(ratio_of_variances(deviation / N, within, furthest, small)),
        nc4=misplaced / N,
    )


def _columns(blocks: Blocks, labels: npt.NDArray[np.integer], W: npt.NDArray[Any]) -> Iterator[tuple[Any, Any]]:
    """Each block as (d, rows) in the precision of W and finite, with its labels."""
    row, d = 0, W.shape[1]
    for block in blocks():
        rows = len(block)
        fits = block.ndim == 2 and block.shape[1] == d and row + rows <= labels.size
        require(
            fits, "features", f"a block {block.shape} after {row} rows", f"{labels.size} rows of {d} numbers in all"
        )
        H = block.astype(W.dtype, copy=False).T
        if not np.isfinite(H).all():
            bad = row + np.flatnonzero(~np.isfinite(H).all(axis=0))
            several = f", the first of {bad.size} among rows {row}..{row + rows - 1}" if bad.size > 1 else ""
            require(False, "features", f"NaN or inf in row {bad[0]}{several}", "finite")
        yield H, labels[row : row + rows].astype(np.intp)
        row += rows
    require(row == labels.size, "features", f"{row} rows", f"{labels.size} rows, one per label")


def _joined(parts: list[Extremes]) -> Extremes:
    return Extremes(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("positive", "negative", "credit")))


def _norms(rows: npt.NDArray[Any]) -> Array64:
    """Norm of every row, summed in float64."""
    return np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def _bins(values: npt.NDArray[Any], edges: Array64) -> npt.NDArray[np.uint16]:
    """Index of each value's bin; all bins have one width, which makes this several times faster than a search."""
    scaled = values - values.dtype.type(edges[0])
    scaled *= values.dtype.type(BINS / (edges[-1] - edges[0]))
    return np.clip(scaled, 0, BINS - 1, out=scaled).astype(np.uint16)

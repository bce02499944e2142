"""Closed forms for targets that are no labels: label sets, values, and targets with symmetry.

All rest on the lift ``R(X) = s ||X diag(sqrt n)||_*``, ``s = sqrt(decay_W decay_H)``, with n_g samples in group g.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import brentq, root

from ufm._base import require
from ufm.bias import Bias
from ufm.losses import MSE
from ufm.problem import Problem
from ufm.targets import Columns

SYMMETRIC = 8
"""Most classes for which all K! permutations are tried."""


def pick_all_label(classes: int, counts: Mapping[int, int], price: float) -> tuple[dict[int, float], float]:
    """The pick-all-label minimum of Li, Li, Wang & Qu 2024: ``counts[m]`` samples of every set S of m labels.

    The logits are ``a_m (1_S - m/K)``, W is a simplex ETF, and with N samples in all the amplitudes minimize the convex

        (1/N) sum_m n_m C(K, m) [m log(m e^{a_m} + K - m) - m a_m] + s (K-1) sqrt(sum_m n_m C(K-2, m-1) a_m^2).

    All are zero iff ``sqrt(sum_m n_m C(K-2, m-1)) <= N s``.

    Args:
        classes: K.
        counts: n_m by m, 1 <= m < K.
        price: s, ``Decay.price``.

    Returns:
        a_m by m, and the minimum.

    >>> amplitudes, value = pick_all_label(4, {1: 3, 2: 2}, 0.02)
    >>> {m: round(a, 4) for m, a in amplitudes.items()}, round(value, 6)
    ({1: 2.8412, 2: 2.3935}, 1.273107)
    """
    K = classes
    for m, n in counts.items():
        require(0 < m < K and n > 0, "counts", dict(counts), f"positive counts of sets of 1 to {K - 1} labels")
    N = sum(n * math.comb(K, m) for m, n in counts.items())
    pairs = {m: n * math.comb(K - 2, m - 1) for m, n in counts.items()}

    def amplitude(m: int, stretch: float) -> float:
        """Where ``(K-1) pairs_m`` times ``s a/r - K/(N (m e^a + K - m))`` vanishes, r the root of the sum."""
        slope = lambda a: price * a * stretch - K / (N * (m * math.exp(a) + K - m))  # noqa: E731
        return float(brentq(slope, 0.0, 700.0, xtol=1e-300, rtol=1e-15))

    def found(stretch: float) -> dict[int, float]:
        return {m: amplitude(m, stretch) for m in counts}

    def excess(log_stretch: float) -> float:
        """``r - 1/stretch``, with the amplitudes for that stretch."""
        a = found(math.exp(log_stretch))
        return math.sqrt(sum(pairs[m] * a[m] ** 2 for m in a)) * math.exp(log_stretch) - 1.0

    if math.sqrt(sum(pairs.values())) <= N * price:
        best = dict.fromkeys(counts, 0.0)
    else:
        best = found(math.exp(brentq(excess, -300.0, 300.0, xtol=1e-300, rtol=1e-15)))
    size = math.sqrt(sum(pairs[m] * best[m] ** 2 for m in best))
    losses = sum(
        n * math.comb(K, m) * m * (math.log(m) + math.log1p((K - m) / m * math.exp(-best[m])))
        for m, n in counts.items()
    )
    return best, losses / N + price * (K - 1) * size


def regression(problem: Problem) -> tuple[np.ndarray, np.ndarray, float]:
    """The minimizing logits of squared error on any columns: singular values soft-thresholded, truncated to rank d.

    At a given bias, ``X diag(sqrt n)`` has the singular vectors of ``Y_b diag(sqrt n)``, ``Y_b = Y - b 1'``, and its
    values ``(sigma - N s/2)_+`` (Andriopoulos et al. 2024 without decay of the bias, where b is the mean of Y; Massion
    et al. 2026 with it). The bias solves ``decay_b b = 2/N sum_g n_g (y_g - b - x_g)``, row by row.

    Returns:
        X (K, G) without bias, b (K,), and the minimum; with d below the rank of X and a decayed bias, a critical point.

    Raises:
        InputError: for another loss than squared error with kappa = beta = 1, weights, or an offset.

    >>> import ufm
    >>> targets = ufm.targets.values([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    >>> problem = ufm.Problem(2, 2, targets=targets, loss=ufm.losses.MSE(), decay=ufm.Decay(0.1, 0.1, 0.0))
    >>> X, b, value = regression(problem)
    >>> b.round(4).tolist(), round(value, 6)
    ([1.0, 1.3333], 0.320939)
    """
    fits = isinstance(problem.loss, MSE) and not problem.labeled
    require(fits, "problem", str(problem.loss), "squared error on columns: mse with targets")
    require(problem.weights is None and problem.offset is None, "problem", "weights or an offset", "without them")
    n, N = np.asarray(problem.counts, float), problem.samples
    Y, decay_b = np.asarray(problem.grouping.Y), float(problem.decay.b)  # type: ignore[attr-defined]
    threshold = 0.5 * N * float(problem.decay.price)

    def shrunk(b: np.ndarray) -> tuple[np.ndarray, float]:
        U, sizes, V = np.linalg.svd((Y - b[:, None]) * np.sqrt(n), full_matrices=False)
        kept = np.maximum(sizes - threshold, 0.0) * (np.arange(len(sizes)) < problem.dim)
        return (U * kept) @ V / np.sqrt(n), float(kept.sum())

    def averaged(b: np.ndarray) -> np.ndarray:
        """The next bias, for the logits that are best at ``b``."""
        rest = (Y - shrunk(b)[0]) @ n / N
        if problem.bias == Bias.NONE:
            return np.zeros_like(rest)
        if problem.bias == Bias.UNIFIED:
            return np.full_like(rest, 2.0 * rest.sum() / (2.0 * len(rest) + decay_b))
        return 2.0 * rest / (2.0 + decay_b)

    mean = Y @ n / N  # exact without decay of a bias per class: centered logits balance
    b = mean if problem.bias == Bias.PER_CLASS else np.zeros(len(Y))
    b = _fixed_point(averaged, b)
    X, nuclear = shrunk(b)
    of_bias = 0.5 * decay_b * (b @ b if problem.bias == Bias.PER_CLASS else b[0] ** 2)
    risk = float(np.sum(n * np.sum((X + b[:, None] - Y) ** 2, axis=0)) / N)
    return X, b, float(risk + float(problem.decay.price) * nuclear + of_bias)


def _fixed_point(step: Callable[[np.ndarray], np.ndarray], b: np.ndarray) -> np.ndarray:
    """Where ``step`` stays, from ``b``: Powell's hybrid method, and steps of the contraction to the last digit."""
    b = root(lambda x: step(x) - x, b, method="hybr", options={"xtol": 1e-15}).x
    for _ in range(20):
        b = step(b)
    return b


def pair_symmetry(targets: Columns) -> bool:
    """Whether class permutations that leave the targets as they are take every pair of classes to every other.

    A permutation leaves them as they are if it permutes groups of equal counts. By Schur's lemma, a minimizer of a
    convex loss that treats classes alike then has ``W W' = x M + y J``, an ETF where the loss is shift-invariant.

    Raises:
        InputError: for more than 8 classes, where the permutations are too many.

    >>> import ufm
    >>> cycle = [[0.7, 0.25, 0.05], [0.05, 0.7, 0.25], [0.25, 0.05, 0.7]]
    >>> pair_symmetry(ufm.targets.soft(cycle)), pair_symmetry(ufm.targets.mixup(4))
    (True, True)
    """
    Y = np.asarray(targets.Y)
    K = Y.shape[0]
    require(K <= SYMMETRIC, "classes", K, f"at most {SYMMETRIC}: all permutations are tried")
    counts = np.broadcast_to(np.asarray(targets.each), Y.shape[1:])
    columns = np.vstack([Y, counts[None, :]]).round(12)

    def sorted_columns(rows: np.ndarray) -> np.ndarray:
        return rows[:, np.lexsort(rows)]

    given, reached = sorted_columns(columns), {frozenset((0, 1))}
    for order in itertools.permutations(range(K)):
        if np.array_equal(sorted_columns(columns[[*order, K]]), given):
            reached.add(frozenset(order[:2]))
    return len(reached) == math.comb(K, 2)

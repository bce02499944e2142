"""The formulas of the theorems, as their papers and `reduction` state them; NumPy, one function a theorem.

``mu = sqrt(n decay_W decay_H)``. Papers differ in factors 1/2 and 1/N; every formula here is for the
objective of `ufm.Problem`. ``decay_b`` is that of a bias per class: a unified bias with decay L has the
minimiser of a bias per class with decay L/K.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit


class Logits(NamedTuple):
    """Class logits at a symmetric minimiser: gap a = p - q, mean mode c, bias beta, and (p, q)."""

    gap: float
    shift: float
    bias: float
    p: float
    q: float


def _centred(gap: float, bias: float, classes: int) -> Logits:
    return Logits(gap, 0.0, bias, gap * (classes - 1) / classes + bias, -gap / classes + bias)


def ce(mu: float, classes: int) -> Logits:
    """Cross-entropy: ``a = log(1/mu - K + 1)``; zero iff ``K mu >= 1`` (Zhu et al. 2021, Thm 3.1; Li et al. Thm 1)."""
    return _centred(np.log(1.0 / mu - classes + 1.0) if classes * mu < 1.0 else 0.0, 0.0, classes)


def label_smoothing(mu: float, classes: int, alpha: float) -> Logits:
    """Label smoothing: ``a = log(1/(alpha/K + mu) - K + 1)``; zero iff ``alpha + K mu >= 1`` (Zhou et al. 2022)."""
    smoothed = alpha / classes + mu
    return _centred(np.log(1.0 / smoothed - classes + 1.0) if classes * smoothed < 1.0 else 0.0, 0.0, classes)


def focal_stationarity(gap: float, mu: float, classes: int, gamma: float) -> float:
    """Residual of ``(1-pi)^gamma [(1-pi) - gamma pi log pi] = (K-1) mu``, ``pi = 1/(1 + (K-1) e^-a)``."""
    pi = 1.0 / (1.0 + (classes - 1) * np.exp(-gap))
    return (1.0 - pi) ** gamma * ((1.0 - pi) - gamma * pi * np.log(pi)) - (classes - 1) * mu


def bce_bias_excess(beta: float, mu: float, classes: int, decay_b: float) -> float:
    """``-logit((K-1) mu + decay_b beta) + (K-1) logit(mu - decay_b beta) - K beta``, decreasing in beta."""
    t = decay_b * beta
    return float(-logit((classes - 1) * mu + t) + (classes - 1) * logit(mu - t) - classes * beta)


def bce_bias(mu: float, classes: int, decay_b: float) -> float:
    """Bias of the centred BCE minimiser: the root of Li et al. 2025, Thm 2.

    With sigma(q) = mu - decay_b beta and sigma(-p) = (K-1) mu + decay_b beta it is the root of `bce_bias_excess`.
    """
    K = classes
    if decay_b == 0:
        return (-logit((K - 1) * mu) + (K - 1) * logit(mu)) / K
    low = max(-(K - 1) * mu, mu - 1.0) / decay_b
    high = min(mu, 1.0 - (K - 1) * mu) / decay_b
    margin = 1e-14 * (high - low)
    ends = low + margin, high - margin
    return float(brentq(bce_bias_excess, *ends, (mu, K, decay_b), xtol=1e-15, rtol=4 * np.finfo(float).eps))


def bce_centred(mu: float, classes: int, decay_b: float) -> Logits:
    """Li et al. 2025, Thm 2 as stated there: centred simplex ETF; zero iff ``K mu >= 1``."""
    beta = bce_bias(mu, classes, decay_b) if classes * mu < 1.0 else np.nan
    if np.isnan(beta):
        # a = 0: only the bias is left, K sigma(beta) - 1 + K decay_b beta = 0.
        beta = brentq(lambda x: classes * expit(x) - 1.0 + classes * decay_b * x, -50.0, 50.0, xtol=1e-15)
        return _centred(0.0, beta, classes)
    p, q = -logit((classes - 1) * mu + decay_b * beta), logit(mu - decay_b * beta)
    return Logits(p - q, 0.0, beta, p, q)


def bce_mean_shifted(mu: float, classes: int, decay_b: float) -> Logits:
    """Beyond ``decay_b |beta| = mu``: ``beta = -mu/decay_b``, ``sigma(q) = 2 mu``, ``sigma(-p) = (K-2) mu``.

    ``decay_b = inf`` is the problem without bias. Needs ``K > 2`` and ``K mu < 1``.
    """
    p, q, beta = -logit((classes - 2) * mu), logit(2.0 * mu), -mu / decay_b
    return Logits(p - q, p + (classes - 1) * q - classes * beta, beta, p, q)


def bce(mu: float, classes: int, decay_b: float) -> Logits:
    """BCE's minimiser for ``K mu < 1``: the centred one iff its ``decay_b |beta| <= mu``, else the mean-shifted."""
    if np.isfinite(decay_b):
        # The centred bias is the root of a decreasing function: its sign at the border tells the regime, also
        # where the root itself lies within rounding of the end of its range.
        border = -mu / decay_b if decay_b > 0 else -np.inf
        if classes == 2 or decay_b == 0 or bce_bias_excess(border, mu, classes, decay_b) >= 0:
            return bce_centred(mu, classes, decay_b)
    elif classes == 2:
        # No bias and two classes: sigma(-p) + sigma(q) = 2 mu with p = -q, nothing to shift.
        p = -float(logit(mu))
        return Logits(2.0 * p, 0.0, 0.0, p, -p)
    return bce_mean_shifted(mu, classes, decay_b)


def mse(mu: float, classes: int, decay_b: float, kappa: float = 1.0, beta: float = 1.0) -> Logits:
    """Rescaled MSE: linear equations for (p, q) in each regime (Zhou et al. 2022 MSE; Tirer & Bruna 2022).

    With p' = d phi/dp = 2 kappa (p - beta) and q' = d phi/dq = 2 (K-1) q, the gap is stationary when
    ``(K-1) p' - q' = -K (K-1) mu`` and the shift when ``p' + q' + K decay_b b = 0``, ``|decay_b b| <= mu``;
    a shift at its limit has ``p' + q' = -K mu`` (it is always upward: targets are positive).
    """
    K = classes

    def logits(pq: np.ndarray, b: float) -> Logits:
        p, q = float(pq[0]), float(pq[1])
        return Logits(p - q, p + (K - 1) * q - K * b, b, p, q)

    gap_row = np.array([(K - 1) * 2.0 * kappa, -2.0 * (K - 1)])
    gap_side = (K - 1) * 2.0 * kappa * beta - K * (K - 1) * mu
    shift_row = np.array([2.0 * kappa, 2.0 * (K - 1)])
    if np.isfinite(decay_b):
        # c = 0 makes the bias the mean logit (p + (K-1) q)/K.
        rows = np.array([gap_row, shift_row + decay_b * np.array([1.0, K - 1])])
        p, q = np.linalg.solve(rows, [gap_side, 2.0 * kappa * beta])
        b = (p + (K - 1) * q) / K
        if p - q <= 0:  # collapse: a = 0, p = q = b
            b = 2.0 * kappa * beta / (2.0 * kappa + 2.0 * (K - 1) + K * decay_b)
            p = q = b
        if decay_b * abs(b) <= mu:
            return Logits(p - q, 0.0, b, p, q)
    b = mu / decay_b if np.isfinite(decay_b) else 0.0
    p, q = np.linalg.solve([gap_row, shift_row], [gap_side, 2.0 * kappa * beta - K * mu])
    if p - q <= 0:
        p = q = (2.0 * kappa * beta - K * mu) / (2.0 * kappa + 2.0 * (K - 1))
    if p + (K - 1) * q - K * b <= 0:  # without bias: everything is zero
        p = q = b
    return logits(np.array([p, q]), b)

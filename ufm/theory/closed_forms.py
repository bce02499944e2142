"""The formulas of the theorems, as their papers and `reduction` state them; NumPy, one function a theorem.

``mu = sqrt(n decay_W decay_H)``. Papers differ in factors 1/2 and 1/N; every formula here is for the
objective of `ufm.Problem`. ``decay_b`` is that of a bias per class: a unified bias with decay L has the
minimizer of a bias per class with decay L/K.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit


class Logits(NamedTuple):
    """Class logits at a symmetric minimizer: gap a = p - q, mean mode c, bias beta, and (p, q)."""

    gap: float
    shift: float
    bias: float
    p: float
    q: float


def _centered(gap: float, bias: float, classes: int) -> Logits:
    return Logits(gap, 0.0, bias, gap * (classes - 1) / classes + bias, -gap / classes + bias)


def ce(mu: float, classes: int) -> Logits:
    """Cross-entropy: ``a = log(1/mu - K + 1)``; zero iff ``K mu >= 1`` (Zhu et al. 2021, Thm 3.1; Li et al. Thm 1)."""
    return _centered(np.log(1.0 / mu - classes + 1.0) if classes * mu < 1.0 else 0.0, 0.0, classes)


def label_smoothing(mu: float, classes: int, alpha: float) -> Logits:
    """Label smoothing: ``a = log(1/(alpha/K + mu) - K + 1)``; zero iff ``alpha + K mu >= 1`` (Zhou et al. 2022)."""
    smoothed = alpha / classes + mu
    return _centered(np.log(1.0 / smoothed - classes + 1.0) if classes * smoothed < 1.0 else 0.0, 0.0, classes)


def focal_stationarity(gap: float, mu: float, classes: int, gamma: float) -> float:
    """Residual of ``(1-pi)^gamma [(1-pi) - gamma pi log pi] = (K-1) mu``, ``pi = 1/(1 + (K-1) e^-a)``."""
    odds = (classes - 1) * np.exp(-gap)  # (1 - pi)/pi, which has its digits where 1 - pi has none
    pi, rest = 1.0 / (1.0 + odds), odds / (1.0 + odds)
    return rest**gamma * (rest + gamma * pi * np.log1p(odds)) - (classes - 1) * mu


def _bce_true_logit(mu: float, classes: int, decay_b: float) -> float:
    """Logit p of the true class at the centered BCE minimizer, ``K mu < 1``.

    With ``sigma(-p) + sigma(q) = K mu`` and ``decay_b beta = sigma(-p) - (K-1) mu``, Li et al. 2025, Thm 2
    reads ``p + (K-1) q = K beta``: increasing in p. In p, because sigma(-p) may be far below rounding.
    """
    K = classes
    if K == 2:  # p = -q and no bias: the end of the bracket below, where rounding hides the sign
        return -float(logit(mu))

    def other(p: float) -> float:
        return float(logit(max(K * mu - expit(-p), np.finfo(float).tiny)))

    def excess(p: float) -> float:
        return float(p + (K - 1) * other(p) - K * (expit(-p) - (K - 1) * mu) / decay_b)

    low, high = -logit(K * mu), -(K - 1) * logit(K * mu / 2.0)
    return float(brentq(excess, low, high, xtol=1e-15, rtol=4 * np.finfo(float).eps))


def bce_centered(mu: float, classes: int, decay_b: float) -> Logits:
    """Li et al. 2025, Thm 2 as stated there: centered simplex ETF; zero iff ``K mu >= 1``.

    Its bias is the root of their equation, ``-logit((K-1) mu + decay_b beta) + (K-1) logit(mu - decay_b beta)
    = K beta``. ``decay_b = inf`` is the problem without bias: ``sigma(-(K-1)a/K) + sigma(-a/K) = K mu``.
    """
    K = classes
    if K * mu >= 1.0:
        # a = 0: only the bias is left, K sigma(beta) - 1 + K decay_b beta = 0.
        if np.isinf(decay_b):
            return _centered(0.0, 0.0, K)
        return _centered(0.0, brentq(lambda x: K * expit(x) - 1.0 + K * decay_b * x, -50.0, 50.0, xtol=1e-15), K)
    if decay_b == 0:
        p, q = -float(logit((K - 1) * mu)), float(logit(mu))
    else:
        p = _bce_true_logit(mu, K, decay_b)
        q = float(logit(K * mu - expit(-p)))
    by_force = decay_b > mu
    beta = 0.0 + (float(expit(-p)) - (K - 1) * mu) / decay_b if by_force else (p + (K - 1) * q) / K
    return Logits(p - q, 0.0, beta, p, q)


def bce_mean_shifted(mu: float, classes: int, decay_b: float) -> Logits:
    """Beyond ``decay_b |beta| = mu``: ``beta = -mu/decay_b``, ``sigma(q) = 2 mu``, ``sigma(-p) = (K-2) mu``.

    ``decay_b = inf`` is the problem without bias. Needs ``K > 2`` and ``K mu < 1``.
    """
    p, q, beta = -logit((classes - 2) * mu), logit(2.0 * mu), 0.0 - mu / decay_b
    return Logits(p - q, p + (classes - 1) * q - classes * beta, beta, p, q)


def bce(mu: float, classes: int, decay_b: float) -> Logits:
    """BCE's minimizer: the centered one iff the loss pulls its mean logit down by at most K mu.

    The pull is ``(K-1) sigma(q) - sigma(-p)``: with a bias it is ``K decay_b |beta|``, and below the threshold
    ``K mu = 1`` it is at most K mu iff ``sigma(q) <= 2 mu``. Beyond it a mean mode c < 0 takes over what the bias
    may not. An upward one, c > 0, would need ``sigma(q) = 0`` (``K mu < 1``) or ``sigma(q) <= 0`` (above).

    ``K mu >= 1`` merges the classes (gap 0), not always at zero: where the pull at W = H = 0 exceeds K mu, they
    share one feature with ``sigma(m) = 1/K + mu``. Without bias that is so up to ``K mu = (K-2)/2``. Two classes
    are never pulled. Three without bias have c = 0 for ``3 (8 - sqrt 32)/16 <= K mu < 1``, more never below 1.
    """
    K = classes
    centered = bce_centered(mu, K, decay_b)
    if (K - 1) * expit(centered.q) - expit(-centered.p) <= K * mu:
        return centered
    if K * mu < 1.0:
        return bce_mean_shifted(mu, K, decay_b)
    m, beta = float(logit(1.0 / K + mu)), 0.0 - mu / decay_b
    return Logits(0.0, K * (m - beta), beta, m, m)


def mse(mu: float, classes: int, decay_b: float, kappa: float = 1.0, beta: float = 1.0) -> Logits:
    """Rescaled MSE: linear equations for (p, q) in each regime (Zhou et al. 2022 MSE; Tirer & Bruna 2022).

    With p' = d phi/dp = 2 kappa (p - beta) and q' = d phi/dq = 2 (K-1) q, the gap is stationary when
    ``(K-1) p' - q' = -K (K-1) mu`` and the shift when ``p' + q' + K decay_b b = 0``, ``|decay_b b| <= mu``.
    A shift at its limit has ``p' + q' = -K mu`` (it is always upward: targets are positive), so that
    ``p' = -K mu`` and ``q' = 0``. ``decay_b = inf`` is the problem without bias.
    """
    K = classes
    if np.isfinite(decay_b):
        # c = 0 makes the bias the mean logit (p + (K-1) q)/K.
        rows = [[2.0 * kappa, -2.0], [2.0 * kappa + decay_b, (K - 1) * (2.0 + decay_b)]]
        p, q = np.linalg.solve(rows, [2.0 * kappa * beta - K * mu, 2.0 * kappa * beta]).tolist()
        b = (p + (K - 1) * q) / K
        if p <= q:  # collapse: a = 0, p = q = b
            p = q = b = 2.0 * kappa * beta / (2.0 * kappa + 2.0 * (K - 1) + K * decay_b)
        # One number twice: rounding spoils the first for a stiff bias and the second for a free one.
        if min(K * decay_b * abs(b), abs(2.0 * kappa * (p - beta) + 2.0 * (K - 1) * q)) <= K * mu:
            return Logits(p - q, 0.0, b, p, q)
    b = mu / decay_b
    p = max(beta - K * mu / (2.0 * kappa), 0.0)
    return Logits(p, p - K * b, b, p, 0.0)

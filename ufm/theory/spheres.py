"""Normalized models in closed form: what unit norms, a scale gamma and a bias lead to (balanced, d >= K).

By symmetry and convexity (as for the factors of `reduction`) a minimizer has the cosines

    X = x (K/(K-1)) M - y J,      x >= 0,  x + |y| <= 1,

a simplex ETF of weight x and a mean mode y, common to all classes and opposite in W and H: unit rows and
columns give ``||X||_* <= K``, symmetric X have ``||X||_* = K (x + |y|)``, and all of these are attained,
by ``w_k = sqrt(x) u_k + sqrt(|y|) m``, ``h_k = sqrt(x) u_k - sign(y) sqrt(|y|) m``. The logits are

    p = gamma (x - y) + b,      q = gamma (-x/(K-1) - y) + b.

A loss that falls with p and rises with q wants x + |y| = 1. For CE the mean mode does nothing: x = 1.

For BCE with ``s+ = sigma(-p)``, ``s- = sigma(q)`` and a bias that costs ``L b^2/2`` (L = K decay_b for a
bias per class, decay_b for a unified one) the bias equation is ``(K-1) s- - s+ + L b = 0``, and the ETF is
optimal **iff L |b| <= s+ + s- at the ETF**, that is ``(K-2) s- <= 2 s+``, which is the condition without
bias too. Beyond it, for K > 2, the mean mode takes over what the bias may not:
``(K-2) s- = 2 s+``. This is the normalized twin of the condition ``decay_b |b| <= mu``. Without decay the
ETF is always optimal, and the bias is that of Corollary 1 of Li et al. 2024 ("Rediscovering BCE Loss").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from ufm._base import require

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Cosines:
    """A minimizer on the spheres, up to rotation.

    Attributes:
        etf: x, the weight of the simplex ETF.
        mean: y, the weight of the mean mode.
        bias: b, the same for all classes (0 without one; CE leaves it free, and 0 is the decayed one).
        p: logit of the true class.
        q: logit of the others.
        value: minimum.
    """

    etf: float
    mean: float
    bias: float
    p: float
    q: float
    value: float

    @property
    def regime(self) -> str:
        """``"etf"`` or ``"mean-shifted"``."""
        return "mean-shifted" if self.mean else "etf"


def ce(gamma: float, classes: int) -> Cosines:
    """CE (L_soft-nu, L_soft-nd): ``log(1 + (K-1) exp(-K gamma/(K-1)))`` (Yaras et al. 2022)."""
    q = -gamma / (classes - 1.0)
    return Cosines(1.0, 0.0, 0.0, gamma, q, float(np.log1p((classes - 1.0) * np.exp(q - gamma))))


def naive(gamma: float, classes: int) -> Cosines:
    """L_naive: ``-gamma K/(K-1)``, attained by *every* W whose unit rows sum to zero, not only by an ETF.

    ``h_k`` along ``w_k - mean(W)`` gives ``-gamma/(K-1) * sum_k ||w_k - mean(W)||``, and
    ``sum_k ||w_k - mean(W)|| <= K sqrt(1 - ||mean(W)||^2)``.
    """
    return Cosines(1.0, 0.0, 0.0, gamma, -gamma / (classes - 1.0), -gamma * classes / (classes - 1.0))


def corollary_1(low: float, high: float, classes: int) -> float:
    """The BCE-optimal unified threshold of metrics that all equal ``high`` (positives) or ``low`` (negatives).

    ``e^t = [(K-2) e^low + sqrt((K-2)^2 e^(2 low) + 4 (K-1) e^(low+high))]/2`` (Li et al. 2024, Cor. 1); our
    bias is -t. It separates, ``low < t < high``, iff ``e^(high-low) > 2K - 3``. UniTSFace's formula is the
    case low = -gamma, high = gamma.

    >>> round(corollary_1(-1.0, 1.0, 2), 12)
    0.0
    """
    K, half_gap = classes, 0.5 * (high - low)
    # Everything is divided by e^((low+high)/2), so that nothing overflows.
    a = (K - 2.0) * np.exp(-half_gap)
    return float(0.5 * (low + high) + np.log(0.5 * (a + np.sqrt(a * a + 4.0 * (K - 1.0)))))


def bias_equation(bias: float, p: float, q: float, classes: int, stiffness: float) -> float:
    """``(K-1) sigma(q + b) - sigma(-p - b) + L b``: zero at BCE's bias for metrics (p, q), increasing in b."""
    return float((classes - 1.0) * expit(q + bias) - expit(-p - bias) + stiffness * bias)


def optimal_bias(p: float, q: float, classes: int, stiffness: float) -> float:
    """Root of `bias_equation`: Corollary 1 with decay; 0 for an infinite stiffness (no bias)."""
    if np.isinf(stiffness):
        return 0.0
    free = -corollary_1(q, p, classes)
    if stiffness == 0 or free == 0:
        return free
    ends = sorted((0.0, free))  # decay pulls the free bias toward zero
    return float(brentq(bias_equation, *ends, (p, q, classes, stiffness), xtol=1e-15, rtol=4 * EPS))


def bce(gamma: float, classes: int, stiffness: float) -> Cosines:
    """BCE (L_bce-nu, L_bce-nd): the ETF iff ``L |b| <= s+ + s-``, else mean-shifted.

    Args:
        gamma: scale of the cosines.
        classes: K.
        stiffness: L, `ufm.theory.bias_stiffness` of the problem: 0 for a free bias, inf for none.
    """
    require(gamma > 0, "gamma", gamma, "a number > 0")
    K = classes

    def at(x: float) -> Cosines:
        y = 1.0 - x
        p, q = gamma * (x - y), gamma * (-x / (K - 1.0) - y)
        b = optimal_bias(p, q, K, stiffness)
        p, q = p + b, q + b
        cost = 0.0 if b == 0 else 0.5 * stiffness * b * b
        return Cosines(x, y, b, p, q, float(np.logaddexp(0.0, -p) + (K - 1.0) * np.logaddexp(0.0, q) + cost))

    def slope(x: float) -> float:
        """Derivative of the value in x, over gamma, with the mean mode at 1 - x and the bias at its best."""
        here = at(x)
        return float((K - 2.0) * expit(here.q) - 2.0 * expit(-here.p))

    # A downward mean mode only: BCE's bias is negative, or zero for K = 2, because negatives outnumber.
    if slope(1.0) <= 0:
        return at(1.0)
    return at(0.0 if slope(0.0) >= 0 else float(brentq(slope, 0.0, 1.0, xtol=1e-15, rtol=4 * EPS)))

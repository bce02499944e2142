"""A classifier fixed to a simplex ETF: what a zero or badly placed bias costs (balanced, any rotation).

With rows of norm s fixed along an ETF U, the best features are ``h_k = t u_k``: the problem in (H, b) is
convex, and u_k and multiples are all that the symmetry of U leaves in its span. There is no mean mode, as
``sum_k u_k = 0`` lets no feature shift all logits. With ``x = s t`` what remains is convex in (x, b):

    phi(x + b, -x/(K-1) + b) + rho x^2/2 + L b^2/2,      rho = decay_H N/s^2,

plus the constant decay of W. For CE the bias drops out, wherever it is placed the same for all classes.
For BCE ``sigma(-p) + sigma(q) = rho x``, and b is free (the bias equation of `spheres`) or held.

As rho -> 0 the loss at x is ``(K-1) e^{-K x/(K-1)}`` for CE, ``2 sqrt(K-1) e^{-K x/(2(K-1))}`` for BCE with
its best bias and ``(K-1) e^{b - x/(K-1)}`` for BCE with b held: for one and the same small loss, BCE with a
held bias, zero or not, needs features **K/2 times** as long as with a free one, and CE half as long as that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from ufm._base import require
from ufm.problem import Problem
from ufm.theory.reduction import bias_stiffness
from ufm.theory.spheres import EPS, optimal_bias


@dataclass(frozen=True)
class Held:
    """The minimizer with a fixed simplex-ETF classifier.

    Attributes:
        score: x, the positive score ``w_k'h_k``; the negative ones are ``-x/(K-1)``.
        bias: b, held or best.
        p: logit of the true class.
        q: logit of the others.
        risk: mean loss.
        value: objective without the constant decay of W; a held bias costs nothing.
    """

    score: float
    bias: float
    p: float
    q: float
    risk: float
    value: float


def ce(classes: int, rho: float) -> Held:
    """CE, whatever the common bias: ``K/(K-1) / (1 + e^{K x/(K-1)}/(K-1)) = rho x``."""
    K, r, rho = classes, classes / (classes - 1.0), float(rho)

    def slope(x: float) -> float:
        return float(rho * x - r * expit(np.log(K - 1.0) - r * x))

    x = _root(slope, rho)
    risk = float(np.logaddexp(0.0, np.log(K - 1.0) - r * x))
    return Held(x, 0.0, x, -x / (K - 1.0), risk, risk + 0.5 * rho * x * x)


def bce(classes: int, rho: float, stiffness: float = 0.0, bias: float | None = None) -> Held:
    """BCE with the bias held at ``bias``, or free at the cost ``stiffness b^2/2`` when None.

    >>> free, zero = bce(10, 1e-4), bce(10, 1e-4, bias=0.0)
    >>> zero.risk > free.risk, zero.score > free.score
    (True, True)
    """
    K, rho = classes, float(rho)

    def best(x: float) -> float:
        return optimal_bias(x, -x / (K - 1.0), K, stiffness) if bias is None else bias

    def slope(x: float) -> float:
        b = best(x)
        return float(rho * x - expit(-x - b) - expit(b - x / (K - 1.0)))

    x = _root(slope, rho)
    b = best(x)
    p, q = x + b, -x / (K - 1.0) + b
    risk = float(np.logaddexp(0.0, -p) + (K - 1.0) * np.logaddexp(0.0, q))
    decay = 0.5 * stiffness * b * b if bias is None and b != 0 else 0.0
    return Held(x, b, p, q, risk, risk + 0.5 * rho * x * x + decay)


def bias_cost(problem: Problem, row_norm: float, bias: float = 0.0) -> float:
    """How much the minimum rises when BCE's bias is held at ``bias`` instead of learned, W a fixed ETF.

    Both minima are without a penalty on the bias, so the cost is that of the place alone. CE's cost is 0.

    >>> import ufm
    >>> problem = ufm.Problem(10, 20, 5, decay=ufm.Decay(H=1e-4, b=0.0))
    >>> round(bias_cost(problem, row_norm=2.0), 3)
    0.791
    """
    rho = feature_cost(problem, row_norm)
    return bce(problem.classes, rho, bias=bias).value - bce(problem.classes, rho).value


def feature_cost(problem: Problem, row_norm: float) -> float:
    """``rho = decay_H N/s^2``, the cost of the score x = s t."""
    require(problem.balanced, "per_class", problem.per_class, "one number: the closed form needs balanced classes")
    require(row_norm > 0, "row_norm", row_norm, "a number > 0")
    return float(problem.decay.H) * problem.samples / row_norm**2


def minimum(problem: Problem, row_norm: float, bias: float | None = None) -> Held:
    """`ce` or `bce` for the loss and the bias of ``problem``, its classifier an ETF with rows of ``row_norm``."""
    rho, name = feature_cost(problem, row_norm), problem.loss.name
    require(name in ("ce", "bce"), "loss", str(problem.loss), "ce or bce")
    if name == "ce":
        return ce(problem.classes, rho)
    held = 0.0 if bias is None and problem.bias == "none" else bias
    return bce(problem.classes, rho, float(bias_stiffness(problem)), held)


def _root(slope: Callable[[float], float], rho: float) -> float:
    """Where an increasing ``slope`` vanishes; the loss's part of it is at most 2 in size."""
    return float(brentq(slope, 0.0, 2.0 / rho, xtol=1e-14, rtol=4 * EPS))

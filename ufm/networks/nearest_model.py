"""The unconstrained feature model nearest to a measured network.

A network gives the mean positive score P, the mean negative score Q (unbiased, ``w'h``), a mean bias b
and the norms of W and H. A balanced model with K classes and n = N/K samples each gives the same numbers
as functions of two: ``mu = sqrt(n decay_W decay_H)`` and ``decay_b``. The nearest model minimizes

    [(P - P^)^2 + (K-1)(Q - Q^)^2]/K + (b - b^)^2,

with (P^, Q^, b^) of the model's minimizer. The ratio of the two decays follows from a law of every
critical point, ``decay_W ||W||^2 = decay_H ||H||^2``.

CE leaves the bias to its initial mean, so only the scores count: the nearest gap is the mean of P - Q and
what remains, ``P + (K-1) Q``, is the mean mode that CE's minimizer does not have.

BCE's minimizers form four families, each searched for its own nearest member. With logits (p, q) of the
true and the other classes, bias beta and mean mode c, stationarity (theory of `closed_forms`) reads

    sigma(-p) = mu (K-1+s),  sigma(q) = mu (1-s),  p + (K-1) q = c + K beta,  decay_b beta = s mu,

where ``s`` in [-1, 1] is the sign of c wherever c is not zero; for K > 2 it is negative or zero. So

    zero          P = Q = 0,  beta in [logit(1/K), 0]                  any mu from a threshold on
    etf           c = 0:      every (gap, beta <= 0) whose s lies in [-1, 0]
    mean-shifted  s = -1:     c < 0, a curve over mu with beta free between the mean logit and 0
    the same with K mu >= 1   p = q = logit(1/K + mu), beta free between that and 0: the mean alone is left

The searches run over log mu, which has no floor: a gap of 12,090 is a model with ``log mu = -12090``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logit

from ufm._base import require
from ufm.theory.closed_forms import Logits

Floats = npt.NDArray[np.float64]
SAME = float(np.finfo(float).eps)
"""Squared distances this close are equal, and the simpler regime is taken: a gap of sqrt(eps) lowers the objective
by a square of it, which is below the rounding of any value that a solver compares."""
TINY = float(np.finfo(float).tiny)
BELOW = "mu and the decays are below the smallest floats: take log_mu"
LEAST = "mu and the decays of W and H are the least: every stronger decay has the same minimizer, zero"


@dataclass(frozen=True)
class Observed:
    """What is measured of a network.

    Attributes:
        classes: K.
        samples: N.
        positive: mean unbiased score of the true class.
        negative: mean unbiased score of the other classes.
        bias: mean bias, in our sign (``Wh + b``); None for a network without.
        weight_norm: ``||W||_F``.
        feature_norm: ``||H||_F``.
        spread: root mean square deviation of all N K scores from their two means.
        unified: whether the bias is one number for all classes.
    """

    classes: int
    samples: int
    positive: float
    negative: float
    bias: float | None
    weight_norm: float
    feature_norm: float
    spread: float = 0.0
    unified: bool = False


@dataclass(frozen=True)
class Nearest:
    """The nearest model under one loss, and how far it is.

    Attributes:
        loss: ``"ce"`` or ``"bce"``.
        regime: ``"zero"``, ``"etf"`` or ``"mean-shifted"`` (with equal scores: the mean alone is left).
        mu: effective ``sqrt(n decay_W decay_H)``; 0 where it is below the smallest float, which ``log_mu`` is not.
        log_mu: its natural logarithm.
        decay_W: effective decay of the classifier, for an objective with a mean loss and halves.
        decay_H: of the features.
        decay_b: of the bias, as `ufm.Problem` counts it for a bias per class or, if observed so, a unified one.
            NaN where nothing depends on it (CE; BCE with two classes), inf without a bias or where it is zero.
        positive: the model's positive score.
        negative: its negative score.
        bias: its bias; NaN for CE.
        residual: root mean square distance of all scores from the model's, over their root mean square.
        misfit: the part of it due to the two means alone.
        bias_residual: distance of the mean bias from the model's; NaN for CE and without a bias.
        alignment: ``||W|| ||H||`` the model needs for its scores, over that of the network; at most 1 up to
            misfit, and 1 when no norm is spent on anything but the scores.
        note: what the numbers do not determine, in words; empty if nothing.
    """

    loss: str
    regime: str
    mu: float
    log_mu: float
    decay_W: float  # noqa: N815 - W and H are the papers' names
    decay_H: float  # noqa: N815
    decay_b: float
    positive: float
    negative: float
    bias: float
    residual: float
    misfit: float
    bias_residual: float
    alignment: float
    note: str


class _Model(NamedTuple):
    """A minimizer: its regime, ``log mu`` (the least for zero), ``decay_b`` per class, and logits."""

    regime: str
    log_mu: float
    decay_b: float
    logits: Logits


def nearest(observed: Observed, loss: str) -> Nearest:
    """The nearest model of ``loss`` "ce" or "bce".

    >>> seen = Observed(10, 1000, 5.679, -0.631, 0.0, weight_norm=10.0, feature_norm=100.0)
    >>> found = nearest(seen, "ce")
    >>> found.regime, round(found.mu, 5)
    ('etf', 0.00179)

    Margins beyond the range of floats are answered by the logarithm:

    >>> round(nearest(Observed(10, 1000, 9000.0, -3090.0, 0.0, 10.0, 100.0), "ce").log_mu)
    -12090
    """
    require(loss in ("ce", "bce"), "loss", loss, "'ce' or 'bce'")
    K, n, b = observed.classes, observed.samples / observed.classes, observed.bias
    known = loss == "bce" and b is not None

    def misfit(m: Logits) -> float:
        scores = (observed.positive - m.p + m.bias) ** 2 + (K - 1) * (observed.negative - m.q + m.bias) ** 2
        return float(scores / K)

    def distance(m: Logits) -> float:
        return misfit(m) + ((b - m.bias) ** 2 if known and b is not None else 0.0)

    # From the simplest regime on; a later one must be nearer.
    best: _Model | None = None
    for candidate in (_ce if loss == "ce" else _bce)(observed):
        if best is None or distance(candidate.logits) < distance(best.logits) - SAME:
            best = candidate
    assert best is not None  # zero is always a candidate
    model = best.logits
    apart = float(np.sqrt(misfit(model)))
    size = np.sqrt((observed.positive**2 + (K - 1) * observed.negative**2) / K + observed.spread**2)
    norms = observed.weight_norm * observed.feature_norm
    log_ratio = np.log(observed.feature_norm) - np.log(observed.weight_norm) if norms > 0 else np.nan
    log_mean = best.log_mu - 0.5 * np.log(n)
    return Nearest(
        loss=loss,
        regime=best.regime,
        mu=float(np.exp(best.log_mu)),
        log_mu=best.log_mu,
        decay_W=float(np.exp(log_mean + log_ratio)),
        decay_H=float(np.exp(log_mean - log_ratio)),
        decay_b=best.decay_b * (K if observed.unified else 1),
        positive=model.p - model.bias,
        negative=model.q - model.bias,
        bias=model.bias if known else np.nan,
        residual=float(np.hypot(apart, observed.spread) / size) if size > 0 else 0.0,
        misfit=float(apart / size) if size > 0 else 0.0,
        bias_residual=abs(b - model.bias) if known and b is not None else np.nan,
        alignment=float(np.sqrt(n) * ((K - 1) * model.gap + abs(model.shift)) / norms) if norms > 0 else np.nan,
        note=LEAST if best.regime == "zero" else BELOW if np.exp(best.log_mu) < TINY else "",
    )


def _logits(p: float, q: float, bias: float, classes: int, *, centered: bool) -> Logits:
    return Logits(p - q, 0.0 if centered else p + (classes - 1) * q - classes * bias, bias, p, q)


def _ce(observed: Observed) -> Iterator[_Model]:
    """Least squares over the gap a is ``a = P - Q`` (the mean mode is orthogonal to it); ``1/mu = e^a + K - 1``."""
    K, gap = observed.classes, observed.positive - observed.negative
    yield _Model("zero", -float(np.log(K)), np.nan, Logits(0.0, 0.0, 0.0, 0.0, 0.0))
    if gap > 0:
        log_mu = -float(np.logaddexp(gap, np.log(K - 1.0)))
        yield _Model("etf", log_mu, np.nan, Logits(gap, 0.0, 0.0, gap * (K - 1) / K, -gap / K))


def _bce(observed: Observed) -> Iterator[_Model]:
    """The nearest member of each family, from the simplest on; see the module's docstring."""
    K, b = observed.classes, observed.bias
    even = float(logit(1.0 / K))  # the bias of zero without decay
    yield _bce_zero(0.0 if b is None else min(max(b, even), 0.0), K)

    gap = observed.positive - observed.negative
    # beta = 0: sigma(q) <= 2 mu, which reads x^2 <= 2 x + 1 in x = e^(a/3) for K = 3 and fails for every K > 3.
    most = {2: np.inf, 3: 3.0 * np.log(1.0 + np.sqrt(2.0))}.get(K, 0.0)
    if min(gap, most) > 0:
        yield from _bce_etf(min(gap, most), 0.0, K)
    if gap > 0 and b is not None and b < 0:
        yield from _bce_etf(gap, b, K)
    if K == 2:
        return
    if b is not None:  # decay_b = 0, that is s = 0, bounds the ETFs
        for log_mu, p, q, bias in _curve(observed, (K - 1, 1), -np.log(K), free=False):
            yield _Model("etf", log_mu, 0.0, _logits(p, q, bias, K, centered=True))

    low = float(logit(2.0 / K))
    if K > 4:  # p = q: the mean score nearest to both, projected onto the triangle score <= 0, beta <= 0, sum >= low
        score = min((observed.positive + (K - 1) * observed.negative) / K, 0.0)
        beta = 0.0 if b is None else min(b, 0.0)
        excess = low - score - beta
        if excess > 0:
            beta = 0.0 if b is None else min(max(beta + 0.5 * excess, low), 0.0)
            score = low - beta
        log_mu = float(np.log(max(expit(score + beta) - 1.0 / K, 1.0 / K)))
        decay_b = float(np.exp(log_mu) / -beta) if beta < 0 else np.inf
        yield _Model("mean-shifted", log_mu, decay_b, Logits(0.0, K * score, beta, score + beta, score + beta))
    # c < 0 needs a mean logit below beta = 0: so K = 3 ends where 8 mu^2 - 8 mu + 1 = 0.
    end = np.log((8.0 - np.sqrt(32.0)) / 16.0) if K == 3 else -np.log(K)
    for log_mu, p, q, bias in _curve(observed, (K - 2, 2), end, free=True):
        decay_b = float(np.exp(log_mu - np.log(-bias))) if bias < 0 else np.inf
        yield _Model("mean-shifted", log_mu, decay_b, _logits(p, q, bias, K, centered=False))


def _bce_zero(beta: float, K: int) -> _Model:
    """Zero with bias beta: ``decay_b beta = 1/K - sigma(beta)``, and ``mu >= |1/K - sigma(beta)|`` keeps c at 0."""
    pull = float(expit(beta)) - 1.0 / K
    decay_b = pull / -beta if beta < 0 else np.nan if K == 2 else np.inf
    return _Model("zero", float(np.log(max(1.0 / K, pull))), decay_b, Logits(0.0, 0.0, beta, beta, beta))


def _bce_etf(gap: float, beta: float, K: int) -> Iterator[_Model]:
    """The centered ETF with this gap and bias, if some decays have it as their minimizer."""
    p, q = gap * (K - 1) / K + beta, -gap / K + beta
    log_mu = float(np.logaddexp(log_expit(-p), log_expit(q)) - np.log(K))
    s = 1.0 - float(np.exp(log_expit(q) - log_mu))
    if beta == 0:
        yield _Model("etf", log_mu, np.nan if K == 2 else np.inf, Logits(gap, 0.0, 0.0, p, q))
    elif -1.0 <= s <= 0.0:
        decay_b = float(np.exp(np.log(-s) + log_mu - np.log(-beta))) if s < 0 else 0.0
        yield _Model("etf", log_mu, decay_b, Logits(gap, 0.0, beta, p, q))


def _curve(
    observed: Observed, shares: tuple[int, int], end: float, *, free: bool
) -> Iterator[tuple[float, float, float, float]]:
    """Local minima of the distance over ``sigma(-p), sigma(q) = shares * mu``, as (log mu, p, q, beta).

    The bias is ``free`` between the mean logit and 0, or the mean logit. Below ``end`` the distance has a
    derivative: the roots of it are bracketed on a grid over ``end - log mu`` and polished.
    """
    K, b, logs = observed.classes, observed.bias, np.log(shares)

    def point(depth: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """p, q, beta and the derivative of half the distance by depth."""
        u, v = logs[0] + end - depth, logs[1] + end - depth
        log_rest_u, log_rest_v = np.log(-np.expm1(u)), np.log(-np.expm1(v))
        p, q = log_rest_u - u, v - log_rest_v
        dp, dq = np.exp(-log_rest_u), -np.exp(-log_rest_v)
        mean, d_mean = (p + (K - 1) * q) / K, (dp + (K - 1) * dq) / K
        P, Q = observed.positive, observed.negative
        if b is None:
            beta, d_beta = np.zeros_like(mean), np.zeros_like(mean)
        elif free:  # least squares in beta, held between its ends
            best = (p - P + (K - 1) * (q - Q) + K * b) / (2 * K)
            beta = np.minimum(np.maximum(best, mean), 0.0)
            d_beta = np.where(best > mean, 0.0, d_mean)
        else:
            beta, d_beta = mean, d_mean
        off_p, off_q = p - beta - P, q - beta - Q
        slope = (off_p * (dp - d_beta) + (K - 1) * off_q * (dq - d_beta)) / K
        return p, q, beta, slope + (0.0 if b is None else (beta - b) * d_beta)

    # Gaps grow by at least the depth, so none beyond the sum of all sizes is nearer.
    far = 100.0 + 4.0 * (abs(observed.positive) + abs(observed.negative) + abs(b or 0.0) + np.log(K))
    depths = np.geomspace(1e-9, far, 512)
    slopes = point(depths)[3]
    for i in np.flatnonzero((slopes[:-1] < 0) & (slopes[1:] >= 0)):
        root = brentq(lambda x: float(point(np.asarray(x))[3]), depths[i], depths[i + 1], xtol=1e-300, rtol=1e-15)
        p, q, beta, _ = (float(x) for x in point(np.asarray(root)))
        yield float(end - root), p, q, beta

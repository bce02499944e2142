"""The unconstrained feature model nearest to a measured network.

A network gives the mean positive score P, the mean negative score Q (unbiased, ``w'h``), a mean bias b
and the norms of W and H. A balanced model with K classes and n = N/K samples each gives the same numbers
as functions of two: ``mu = sqrt(n decay_W decay_H)`` and ``decay_b``. The nearest model minimises

    [(P - P^)^2 + (K-1)(Q - Q^)^2]/K + (b - b^)^2,

with (P^, Q^, b^) of the closed-form minimiser. The ratio of the two decays follows from a law of every
critical point, ``decay_W ||W||^2 = decay_H ||H||^2``.

CE leaves the bias to its initial mean, so only the scores count: the nearest gap is the mean of P - Q and
what remains, ``P + (K-1) Q``, is the mean mode that CE's minimiser does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from ufm._base import require
from ufm.theory.closed_forms import Logits, bce, ce


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
    """

    classes: int
    samples: int
    positive: float
    negative: float
    bias: float | None
    weight_norm: float
    feature_norm: float
    spread: float = 0.0


@dataclass(frozen=True)
class Nearest:
    """The nearest model under one loss, and how far it is.

    Attributes:
        loss: ``"ce"`` or ``"bce"``.
        regime: ``"zero"``, ``"etf"`` or ``"mean-shifted"``.
        mu: effective ``sqrt(n decay_W decay_H)``.
        decay_W: effective decay of the classifier, for an objective with a mean loss and halves.
        decay_H: of the features.
        decay_b: of the bias; NaN for CE, which says nothing of it, inf without a bias.
        positive: the model's positive score.
        negative: its negative score.
        bias: its bias; NaN for CE.
        residual: root mean square distance of all scores from the model's, over their root mean square.
        misfit: the part of it due to the two means alone.
        bias_residual: distance of the mean bias from the model's; NaN for CE and without a bias.
        alignment: ``||W|| ||H||`` the model needs for its scores, over that of the network; at most 1 up to
            misfit, and 1 when no norm is spent on anything but the scores.
    """

    loss: str
    regime: str
    mu: float
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


def nearest(observed: Observed, loss: str) -> Nearest:
    """The nearest model of ``loss`` "ce" or "bce".

    >>> seen = Observed(10, 1000, 5.679, -0.631, 0.0, weight_norm=10.0, feature_norm=100.0)
    >>> found = nearest(seen, "ce")
    >>> found.regime, round(found.mu, 5)
    ('etf', 0.00179)
    """
    require(loss in ("ce", "bce"), "loss", loss, "'ce' or 'bce'")
    mu, decay_b, model = (_nearest_ce if loss == "ce" else _nearest_bce)(observed)
    K, n = observed.classes, observed.samples / observed.classes
    p, q = model.p - model.bias, model.q - model.bias
    misfit = np.sqrt(((observed.positive - p) ** 2 + (K - 1) * (observed.negative - q) ** 2) / K)
    size = np.sqrt((observed.positive**2 + (K - 1) * observed.negative**2) / K + observed.spread**2)
    known = loss == "bce" and observed.bias is not None
    norms = observed.weight_norm * observed.feature_norm
    ratio = observed.feature_norm / observed.weight_norm if norms > 0 else np.nan
    regime = "mean-shifted" if model.shift else "etf" if model.gap > 0 else "zero"
    return Nearest(
        loss=loss,
        regime=regime,
        mu=mu,
        decay_W=mu / np.sqrt(n) * ratio,
        decay_H=mu / np.sqrt(n) / ratio,
        decay_b=decay_b,
        positive=p,
        negative=q,
        bias=model.bias if known else np.nan,
        residual=float(np.hypot(misfit, observed.spread) / size) if size > 0 else 0.0,
        misfit=float(misfit / size) if size > 0 else 0.0,
        bias_residual=abs(observed.bias - model.bias) if known and observed.bias is not None else np.nan,
        alignment=np.sqrt(n) * ((K - 1) * model.gap + abs(model.shift)) / norms if norms > 0 else np.nan,
    )


def _nearest_ce(observed: Observed) -> tuple[float, float, Logits]:
    """Least squares over the gap a is ``a = P - Q`` (the mean mode is orthogonal to it); ``1/mu = e^a + K - 1``."""
    gap = max(observed.positive - observed.negative, 0.0)
    mu = np.exp(-np.logaddexp(gap, np.log(observed.classes - 1.0)))
    return float(mu), np.nan, ce(float(mu), observed.classes)


def _nearest_bce(observed: Observed) -> tuple[float, float, Logits]:
    """A smooth problem in (logit(K mu), log decay_b), from starts on both sides of the border of the regimes."""
    K, b = observed.classes, observed.bias

    def model(x: np.ndarray) -> tuple[float, float, Logits]:
        mu = float(expit(np.clip(x[0], -30.0, 30.0)) / K)
        decay_b = float(np.exp(np.clip(x[1], -30.0, 12.0))) if b is not None else np.inf
        return mu, decay_b, bce(mu, K, decay_b)

    def distance(x: np.ndarray) -> float:
        m = model(x)[2]
        scores = (m.p - m.bias - observed.positive) ** 2 + (K - 1) * (m.q - m.bias - observed.negative) ** 2
        return scores / K + (0.0 if b is None else (b - m.bias) ** 2)

    offset = 0.0 if b is None else b
    wrong = expit(-observed.positive - offset) + expit(observed.negative + offset)
    x0 = float(np.clip(logit(np.clip(wrong, 1e-12, 1 - 1e-6)), -28.0, 12.0))
    # At the border decay_b |b| = mu: one start there, one well inside each regime.
    border = np.log(expit(x0) / K / max(abs(offset), 1e-3))
    starts = [np.array([x0, border + shift]) for shift in ((-4.0, 0.0, 4.0) if b is not None else (0.0,))]
    options = {"xatol": 1e-10, "fatol": 1e-16, "maxiter": 2000, "maxfev": 4000}
    best = min((minimize(distance, x, method="Nelder-Mead", options=options) for x in starts), key=lambda r: r.fun)
    return model(best.x)

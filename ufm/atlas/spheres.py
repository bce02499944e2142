"""Normalised classifier and features: Yaras et al. 2022 (CE), and "Rediscovering BCE" (BCE, and where its ETF ends)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ufm.atlas._claims import lowest
from ufm.atlas._core import Evidence, Quantity, Theorem, Verdict, quantity
from ufm.atlas._draw import WIDE, SphereFamily
from ufm.atlas.hypotheses import balanced, decayed_bias, dim_at_least, free_bias, loss, no_bias, on_spheres, with_bias
from ufm.losses import BCE, CE
from ufm.problem import Problem
from ufm.theory import bias_stiffness
from ufm.theory import spheres as theory
from ufm.theory.spheres import Cosines

NORMALISED = on_spheres & balanced & dim_at_least(0)


def collapsed(problem: Problem, evidence: Evidence, predicted: Cosines) -> list[Quantity]:
    """Value, cosines and bias of a minimiser with class logits (p, q) = gamma cos + b, and its within-class spread."""
    gamma, scores = float(problem.model.gamma), evidence.scores
    W = np.asarray(evidence.solution.params.W)
    quantities = [
        lowest(evidence, predicted.value),
        quantity("norm of the mean of the w_k, squared", predicted.mean, float(np.sum(W.mean(axis=0) ** 2)), 1e-6),
    ]
    for side, logit in (("positive", predicted.p), ("negative", predicted.q)):
        found = {k: v / gamma for k, v in scores[side].items()}
        quantities.append(quantity(f"{side} cosine", (logit - predicted.bias) / gamma, found["mean"], 1e-6))
        quantities.append(quantity(f"spread of {side} cosines", 0.0, found["max"] - found["min"], 1e-6))
    if predicted.etf > 0:  # with one feature for all classes NC1 is 0/0
        quantities.append(quantity("NC1", 0.0, float(evidence.collapse.nc1), 1e-6))
    if problem.bias != "none":
        quantities.append(quantity("bias", predicted.bias, float(evidence.bias.mean()), 1e-6))
        quantities.append(quantity("spread of biases", 0.0, float(np.ptp(evidence.bias)), 1e-6))
    return quantities


def _ce(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return collapsed(problem, evidence, theory.ce(float(problem.model.gamma), problem.classes))


NORMALISED_CE = Theorem(
    id="yaras2022/ce",
    source="Yaras et al. 2022, Thm 1; with a decayed bias: this package",
    statement="Global minimisers of CE over unit norms collapse to a simplex ETF for every temperature.",
    formula="minimum log(1 + (K-1) exp(-K gamma/(K-1)))",
    hypotheses=loss(CE) & NORMALISED & (no_bias | decayed_bias),
    claim=_ce,
    draw=SphereFamily(lambda rng: CE(), WIDE, ("none", "per_class")),
)


def etf(problem: Problem) -> Cosines:
    """The simplex ETF, cosines 1 and -1/(K-1), with the bias that suits it best under normalised BCE."""
    gamma, K, stiffness = float(problem.model.gamma), problem.classes, float(bias_stiffness(problem))
    b = theory.optimal_bias(gamma, -gamma / (K - 1), K, stiffness)
    p, q = gamma + b, -gamma / (K - 1) + b
    cost = 0.0 if b == 0 else 0.5 * stiffness * b * b
    return Cosines(1.0, 0.0, b, p, q, float(np.logaddexp(0.0, -p) + (K - 1) * np.logaddexp(0.0, q) + cost))


def _bce(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    stiffness = float(bias_stiffness(problem))
    return collapsed(problem, evidence, theory.bce(float(problem.model.gamma), problem.classes, stiffness))


def _regime(problem: Problem) -> tuple[bool, bool]:
    """Whether the classes are apart, and whether the classifier has a mean."""
    found = theory.bce(float(problem.model.gamma), problem.classes, float(bias_stiffness(problem)))
    return found.etf > 0, found.mean != 0


NORMALISED_BCE = Theorem(
    id="rediscovering/normalised",
    source="Rediscovering BCE, L_bce-nu and L_bce-nd, read with a decayed bias",
    statement="Global minimisers of BCE over unit norms are a simplex ETF, the bias being the best one for it.",
    formula="cosines 1 and -1/(K-1), (K-1) sigma(q) - sigma(-p) + L b = 0",
    hypotheses=loss(BCE) & NORMALISED & with_bias,
    claim=lambda p, e: collapsed(p, e, etf(p)),
    recorded=Verdict.REFUTED,
    draw=SphereFamily(lambda rng: BCE(), WIDE, ("per_class", "unified")),
)
NORMALISED_BCE_CORRECTED = Theorem(
    id="rediscovering/normalised-corrected",
    source="Rediscovering BCE, normalised losses, corrected (this package)",
    statement="Normalised BCE is minimised by the ETF iff the bias is cheap enough; beyond, all w_k share a mean.",
    formula="ETF iff (K-2) sigma(q) <= 2 sigma(-p) there, with a bias: L|b| <= sigma(-p) + sigma(q), L = K decay_b "
    "(unified: decay_b); beyond, (K-2) sigma(q) = 2 sigma(-p)",
    hypotheses=loss(BCE) & NORMALISED,
    claim=_bce,
    case=lambda p: _regime(p),
    draw=SphereFamily(lambda rng: BCE(), WIDE, ("per_class", "unified", "none")),
)
NORMALISED_FREE_BIAS = Theorem(
    id="rediscovering/normalised-1",
    source="Rediscovering BCE, Cor. 1 for normalised losses",
    statement="With a free bias normalised BCE is minimised by the ETF, and the bias is the best unified threshold.",
    formula="e^-b = [(K-2) e^A + sqrt((K-2)^2 e^2A + 4 (K-1) e^(A+B))]/2, B = gamma, A = -gamma/(K-1)",
    hypotheses=loss(BCE) & NORMALISED & free_bias,
    claim=lambda p, e: collapsed(p, e, etf(p)),
    draw=SphereFamily(lambda rng: BCE(), WIDE, ("per_class", "unified"), decay_b=(0.0, 0.0)),
)

THEOREMS = (NORMALISED_CE,)
REDISCOVERING = (NORMALISED_BCE, NORMALISED_BCE_CORRECTED, NORMALISED_FREE_BIAS)

"""Rediscovering BCE for uniform classification: the unified threshold and the naive loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from ufm.atlas._claims import centered, collapsed_cosines, random_for, yes
from ufm.atlas._core import Evidence, Quantity, Theorem, Verdict, quantity
from ufm.atlas._draw import SHAPES, WIDE, Family, SphereFamily
from ufm.atlas.hypotheses import (
    any_classifier,
    away_from,
    balanced,
    dim_at_least,
    free_bias,
    free_classifier,
    loss,
    on_spheres,
    separating,
    strength,
    unified_bias,
    with_bias,
)
from ufm.losses import BCE, CE
from ufm.problem import Problem
from ufm.theory import bias_stiffness, closed_forms, spheres
from ufm.theory.spheres import Cosines

PAPER = "Rediscovering BCE"


def unified_threshold(positive: float, negative: float, classes: int) -> float:
    """Corollary 1: ``e^b = [(K-2) e^A + sqrt((K-2)^2 e^2A + 4 (K-1) e^(A+B))]/2``, B positive and A negative score."""
    # In logarithms: exponentials of large scores overflow.
    K = classes
    lead = np.log(K - 2.0) if K > 2 else -np.inf
    root = 0.5 * np.logaddexp(2.0 * lead, np.log(4.0 * (K - 1.0)) + positive - negative)
    return float(negative + np.logaddexp(lead, root) - np.log(2.0))


def least_gap(classes: int) -> float:
    """``log(2K - 3)``: the best threshold lies between negative and positive scores if these differ by more."""
    return float(np.log(2 * classes - 3))


def _threshold(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """From measured scores to the threshold that was learned, in the paper's sign z = w'h - b."""
    K, scores = problem.classes, evidence.scores
    B, A = scores["positive"]["mean"], scores["negative"]["mean"]
    b = -float(evidence.bias[0])
    return [
        quantity("learned threshold", unified_threshold(B, A, K), b, 1e-6),
        yes("A < b < B", least_gap(K) < B - A, A < b < B),
    ]


def _excess(problem: Problem) -> float:
    """``e^(B-A)/(2K - 3)`` at the minimum."""
    gap = closed_forms.bce_centered(strength(problem), problem.classes, 0.0).gap
    return float(np.exp(gap - least_gap(problem.classes)))


BALANCED_BCE = loss(BCE) & free_classifier & balanced & dim_at_least(-1)
decided = away_from("equality", _excess)


COROLLARY_1 = Theorem(
    id="rediscovering/1",
    source=f"{PAPER}, Cor. 1",
    statement="Equal positive scores B and negative scores A: the best unified threshold, and when it separates them.",
    formula="e^b = [(K-2) e^A + sqrt((K-2)^2 e^2A + 4 (K-1) e^(A+B))]/2; A < b < B iff e^(B-A) > 2K - 3",
    hypotheses=loss(BCE)
    & free_classifier
    & balanced
    & dim_at_least(-1)
    & unified_bias
    & free_bias
    & separating
    & decided,
    claim=_threshold,
    draw=Family(lambda rng: BCE(), SHAPES, ("unified",), decay_b=(0.0, 0.0), strength=(0.01, 1.3)),
)


def bound_factor(classes: int) -> float:
    """``K/(K-1)``."""
    return classes / (classes - 1.0)


def _naive(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Least of ``K/(K-1) (L_soft - log K) - L_naive`` over all logits, by SciPy: 0, at equal logits."""
    K = problem.classes

    def slack(z: np.ndarray) -> tuple[float, np.ndarray]:
        soft = np.logaddexp.reduce(z) - z[0]
        naive = -z[0] + z[1:].sum() / (K - 1)
        probability = np.exp(z - np.logaddexp.reduce(z))
        first = np.arange(K) == 0
        slope = bound_factor(K) * (probability - first) - np.where(first, -1.0, 1.0 / (K - 1))
        return bound_factor(K) * (soft - np.log(K)) - naive, slope

    start = random_for(problem, evidence.seed).normal(size=K)
    end = minimize(slack, start, jac=True, method="BFGS", options={"gtol": 1e-10})
    return [
        quantity("least slack of the bound", 0.0, end.fun, 1e-12),
        quantity("spread of the logits where it is reached", 0.0, np.ptp(end.x), 1e-5),
    ]


NAIVE = Theorem(
    id="rediscovering/naive",
    source=f"{PAPER}, bound on the naive loss",
    statement="The naive loss is at most K/(K-1) times what CE has above log K, with equality at equal logits.",
    formula="L_naive <= (K/(K-1)) (L_soft - log K)",
    hypotheses=loss(CE) & any_classifier,
    claim=_naive,
    minimum=False,
    draw=Family(lambda rng: CE(), SHAPES),
)

# On spheres: the published claim for normalized losses, and where its ETF ends ---------------------

NORMALIZED_LOSS = loss(BCE) & on_spheres & balanced & dim_at_least(0)


def etf(problem: Problem) -> Cosines:
    """The simplex ETF, cosines 1 and -1/(K-1), with the bias that suits it best under normalized BCE."""
    gamma, K, stiffness = float(problem.model.gamma), problem.classes, float(bias_stiffness(problem))
    b = spheres.optimal_bias(gamma, -gamma / (K - 1), K, stiffness)
    p, q = gamma + b, -gamma / (K - 1) + b
    cost = 0.0 if b == 0 else 0.5 * stiffness * b * b
    return Cosines(1.0, 0.0, b, p, q, float(np.logaddexp(0.0, -p) + (K - 1) * np.logaddexp(0.0, q) + cost))


def _bce(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    stiffness = float(bias_stiffness(problem))
    return collapsed_cosines(problem, evidence, spheres.bce(float(problem.model.gamma), problem.classes, stiffness))


def _regime(problem: Problem) -> tuple[bool, bool]:
    """Whether the classes are apart, and whether the classifier has a mean."""
    found = spheres.bce(float(problem.model.gamma), problem.classes, float(bias_stiffness(problem)))
    return found.etf > 0, found.mean != 0


NORMALIZED_BCE = Theorem(
    id="rediscovering/normalised",
    source="Rediscovering BCE, L_bce-nu and L_bce-nd, read with a decayed bias",
    statement="Global minimizers of BCE over unit norms are a simplex ETF, the bias being the best one for it.",
    formula="cosines 1 and -1/(K-1), (K-1) sigma(q) - sigma(-p) + L b = 0",
    hypotheses=NORMALIZED_LOSS & with_bias,
    claim=lambda p, e: collapsed_cosines(p, e, etf(p)),
    recorded=Verdict.REFUTED,
    refutation=lambda p: centered("rediscovering/normalised", p, etf(p)),
    draw=SphereFamily(lambda rng: BCE(), WIDE, ("per_class", "unified")),
)
NORMALIZED_BCE_CORRECTED = Theorem(
    id="rediscovering/normalised-corrected",
    source="Rediscovering BCE, normalized losses, corrected (this package)",
    statement="Normalized BCE is minimized by the ETF iff the bias is cheap enough; beyond, all w_k share a mean.",
    formula="ETF iff (K-2) sigma(q) <= 2 sigma(-p) there, with a bias: L|b| <= sigma(-p) + sigma(q), L = K decay_b "
    "(unified: decay_b); beyond, (K-2) sigma(q) = 2 sigma(-p)",
    hypotheses=NORMALIZED_LOSS,
    claim=_bce,
    case=lambda p: _regime(p),
    draw=SphereFamily(lambda rng: BCE(), WIDE, ("per_class", "unified", "none")),
)
NORMALIZED_FREE_BIAS = Theorem(
    id="rediscovering/normalised-1",
    source="Rediscovering BCE, Cor. 1 for normalized losses",
    statement="With a free bias normalized BCE is minimized by the ETF, and the bias is the best unified threshold.",
    formula="e^-b = [(K-2) e^A + sqrt((K-2)^2 e^2A + 4 (K-1) e^(A+B))]/2, B = gamma, A = -gamma/(K-1)",
    hypotheses=NORMALIZED_LOSS & free_bias,
    claim=lambda p, e: collapsed_cosines(p, e, etf(p)),
    draw=SphereFamily(lambda rng: BCE(), WIDE, ("per_class", "unified"), decay_b=(0.0, 0.0)),
)

THEOREMS = (COROLLARY_1, NAIVE, NORMALIZED_BCE, NORMALIZED_BCE_CORRECTED, NORMALIZED_FREE_BIAS)

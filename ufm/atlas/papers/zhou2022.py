"""Zhou, You, Li, Liu, Liu, Qu & Zhu 2022, "Are All Losses Created Equal: A Neural Collapse Perspective"."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq

from ufm.atlas._claims import all_zero, etf_geometry, minimum, symmetric_logits, yes
from ufm.atlas._core import Evidence, Quantity, Theorem, Verdict
from ufm.atlas._draw import SHAPES, Family, Shape
from ufm.atlas.hypotheses import (
    K_mu,
    any_classifier,
    balanced,
    classes_above,
    dim_at_least,
    free_classifier,
    loss,
    number,
    strength,
)
from ufm.losses import BCE, CE, MSE, Focal, LabelSmoothing, Loss
from ufm.problem import Problem
from ufm.proof.claims import Refutation
from ufm.theory import closed_forms
from ufm.theory.closed_forms import Logits
from ufm.theory.contrastive import contrastive

PAPER = "Zhou et al. 2022 (all losses)"
SMOOTHED = Family(lambda rng: LabelSmoothing(float(rng.uniform(0.02, 0.9))), SHAPES)


def random_focal(rng: np.random.Generator) -> Focal:
    """Focal loss with a random exponent."""
    return Focal(float(rng.uniform(0.2, 4.0)))


def smoothed_strength(problem: Problem) -> float:
    """``alpha + K mu``: below 1 the classes separate."""
    return float(problem.loss.hyper["alpha"]) + K_mu(problem)


SMOOTHING = loss(LabelSmoothing) & free_classifier & balanced & dim_at_least(-1)
smoothed_separating = number("alpha + K mu", smoothed_strength, "<", 1)
smoothed_not_separating = number("alpha + K mu", smoothed_strength, ">=", 1)
FOCAL_LOSS = loss(Focal) & free_classifier & balanced


def _ls(problem: Problem) -> Logits:
    return closed_forms.label_smoothing(strength(problem), problem.classes, float(problem.loss.hyper["alpha"]))


def _ls_minimizer(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return symmetric_logits(problem, evidence, _ls(problem)) + etf_geometry(problem, evidence)


def _ls_threshold(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return symmetric_logits(problem, evidence, _ls(problem)) + all_zero(problem, evidence)


LABEL_SMOOTHING = Theorem(
    id="zhou2022/ls",
    source=f"{PAPER}, Thm 1 for label smoothing",
    statement="Global minimizers of label smoothing collapse to a centered simplex ETF.",
    formula="a = log(1/(alpha/K + mu) - K + 1)",
    hypotheses=SMOOTHING & smoothed_separating,
    claim=_ls_minimizer,
    draw=SMOOTHED,
)
LABEL_SMOOTHING_ZERO = Theorem(
    id="zhou2022/ls-zero",
    source=f"{PAPER}, from Thm 1",
    statement="Above a threshold the minimizer of label smoothing is W = H = 0.",
    formula="zero iff alpha + K mu >= 1",
    hypotheses=SMOOTHING & smoothed_not_separating,
    claim=_ls_threshold,
    draw=SMOOTHED,
)


def focal_gaps(mu: float, classes: int, gamma: float) -> list[float]:
    """All stationary gaps a > 0 of focal loss, and 0: roots of the stationarity equation on a fine grid."""
    # A gap is at most about log((K-1)/mu), where pi = 1.
    furthest = max(60.0, 10.0 + np.log(classes) - np.log(mu)) if mu > 0 else 60.0
    grid = np.concatenate([np.linspace(1e-9, 60.0, 6001), np.arange(61.0, furthest + 1.0)])
    values = np.asarray(closed_forms.focal_stationarity(grid, mu, classes, gamma))  # type: ignore[arg-type]
    cells = np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) < 0)
    arguments = (mu, classes, gamma)
    return [0.0] + [
        brentq(closed_forms.focal_stationarity, grid[i], grid[i + 1], args=arguments, xtol=1e-14) for i in cells
    ]


def best_focal(problem: Problem) -> Logits:
    """The best of its stationary gaps."""
    gamma, K = float(problem.loss.hyper["gamma"]), problem.classes
    points = [Logits(a, 0.0, 0.0, a * (K - 1) / K, -a / K) for a in focal_gaps(strength(problem), K, gamma)]
    return min(points, key=lambda point: minimum(problem, point))


def _focal_minimizer(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = best_focal(problem)
    shape = etf_geometry(problem, evidence) if predicted.gap > 0 else all_zero(problem, evidence)
    return symmetric_logits(problem, evidence, predicted) + shape


FOCAL = Theorem(
    id="zhou2022/focal",
    source=f"{PAPER}, Thm 1 for focal loss",
    statement="Global minimizers of focal loss collapse to a centered simplex ETF.",
    formula="(1-pi)^gamma [(1-pi) - gamma pi log pi] = (K-1) mu, pi = 1/(1 + (K-1) e^-a); the best root or a = 0",
    hypotheses=FOCAL_LOSS & dim_at_least(-1),
    claim=_focal_minimizer,
    case=lambda p: best_focal(p).gap > 0,
    draw=Family(random_focal, SHAPES, strength=(0.01, 0.9)),
)

# The contrastive property ------------------------------------------------------------------------

MANY_CLASSES: tuple[Shape, ...] = ((4, 5, 3), (10, 12, 2), (40, 40, 1))


def reached_by_all(loss: Loss) -> bool:
    """Whether every point with equal negatives reaches the bound: only where a common shift costs nothing."""
    return bool(loss.shift_invariant)


def _contrastive(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    found = contrastive(problem.loss, problem.classes, evidence.seed)
    return [
        yes("equality only at equal negatives", True, found.excess > 0),
        yes("one minimizer of phi + c |t| for every c", True, found.tie is None),
        yes("no positive minimizer", True, found.rising),
        yes("equality at all equal negatives", reached_by_all(problem.loss), found.shift < 1e-9),
    ]


def _any_loss(rng: np.random.Generator) -> Loss:
    alpha, kappa, beta = float(rng.uniform(0.0, 0.9)), float(rng.uniform(0.3, 5.0)), float(rng.uniform(0.5, 8.0))
    return (CE(), LabelSmoothing(alpha), BCE(), MSE(kappa, beta))[rng.integers(4)]


CONTRASTIVE = Theorem(
    id="zhou2022/contrastive",
    source=f"{PAPER}, Def. 1; BCE and MSE: this package",
    statement="CE and LS have the contrastive property in both readings; BCE and MSE only as written, not 'iff'.",
    formula="l(z) >= phi(sum_j (z_j - z_k)), equality only at equal negatives; argmin phi(t) + c|t| unique, <= 0",
    hypotheses=loss(CE, LabelSmoothing, BCE, MSE) & any_classifier & classes_above(2),
    claim=_contrastive,
    minimum=False,
    draw=Family(_any_loss, MANY_CLASSES),
)
CONTRASTIVE_FOCAL = Theorem(
    id="zhou2022/contrastive-focal",
    source=f"{PAPER}, Def. 1 for focal loss, uniqueness read for every c > 0",
    statement="Focal loss has the contrastive property, for every gamma and K.",
    formula="argmin phi(t) + c|t| unique for every c > 0, phi(t) = F(log(K-1) + t/(K-1))",
    hypotheses=loss(Focal) & any_classifier & classes_above(2),
    claim=_contrastive,
    minimum=False,
    recorded=Verdict.REFUTED,
    # Where F turns concave just below log(K-1), its middle lies above a chord; half a unit of y each way shows it.
    refutation=lambda p: Refutation(
        "zhou2022/contrastive-focal",
        "phi(t) + c|t| has one minimizer for every c > 0, phi(t) = F(log(K-1) + t/(K-1))",
        "chord",
        ends=(0.5 - 0.5 * p.classes, 0.0),
    ),
    draw=Family(random_focal, MANY_CLASSES[::-1]),
)


def _convex_up_to_equality(problem: Problem) -> bool:
    """Whether F is convex on ``y <= log(K-1)``: F'' at log(K-1) decides, because F turns concave once and for good."""
    with jax.enable_x64(True):
        curve = jax.grad(jax.grad(problem.loss.of_log_odds))  # type: ignore[attr-defined]
        return float(curve(jnp.asarray(np.log(problem.classes - 1.0)))) > 0


CONTRASTIVE_FOCAL_CORRECTED = Theorem(
    id="zhou2022/contrastive-focal-corrected",
    source=f"{PAPER}, Def. 1 for focal loss, corrected (this package)",
    statement="Focal loss has the property iff F is convex up to log(K-1): for few classes.",
    formula="phi + c|t| has two minimizers for some c iff F''(log(K-1)) < 0, F(y) = sigmoid(y)^gamma softplus(y)",
    hypotheses=loss(Focal) & any_classifier & classes_above(2),
    claim=lambda p, e: [
        yes(
            "one minimizer of phi + c |t| for every c",
            _convex_up_to_equality(p),
            contrastive(p.loss, p.classes, e.seed).tie is None,
        )
    ],
    minimum=False,
    case=_convex_up_to_equality,
    draw=Family(random_focal, MANY_CLASSES[::-1]),
)

THEOREMS = (
    LABEL_SMOOTHING,
    LABEL_SMOOTHING_ZERO,
    FOCAL,
    CONTRASTIVE,
    CONTRASTIVE_FOCAL,
    CONTRASTIVE_FOCAL_CORRECTED,
)

"""Li et al. 2025, "BCE vs. CE in Deep Feature Learning": what they say of the bias, and where the mean mode begins.

They write z = Wh - b; our b is their -b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logit

from ufm import geometry
from ufm.atlas._claims import (
    ZERO,
    equivalent_decay_b,
    gradient,
    lowest,
    minimum,
    random_for,
    size_of_factors,
    symmetric_logits,
    yes,
)
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import SHAPES, WIDE, Family
from ufm.atlas.hypotheses import (
    away_from,
    balanced,
    bias_per_class,
    classes_above,
    decayed_bias,
    dim_at_least,
    free_classifier,
    loss,
    not_separating,
    separating,
    strength,
)
from ufm.atlas.papers.li2025 import BALANCED_BCE, PAPER, weak_force
from ufm.losses import BCE, CE
from ufm.problem import Params, Problem
from ufm.theory import closed_forms

# Equation 3: when the bias separates ---------------------------------------------------------


def separation(gap: float, decay_b: float, classes: int) -> float:
    """Left over right side of Eq. 3 at gap ``a = s rho/(K-1)``: the bias separates the scores above 1."""
    return float((decay_b * gap + 1.0 / (2 * (classes - 1))) * (1.0 + np.exp(gap)))


def _eq_3(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Both sides from the measured solution: rho = ||W||^2 on the left, the scores and the bias on the right."""
    K = problem.classes
    rho = float(np.sum(np.asarray(evidence.solution.params.W) ** 2))
    s = float(1.0 / (np.sqrt(problem.counts[0]) * float(problem.decay.ratio)))
    separates = separation(s * rho / (K - 1), float(problem.decay.b), K) > 1.0
    # z = w'h + b: a positive is recognized when z > 0, a negative when z < 0.
    bias, scores = evidence.bias, evidence.scores
    measured = scores["positive"]["min"] + bias.min() > 0 > scores["negative"]["max"] + bias.max()
    return [yes("the bias separates positive from negative scores", separates, measured)]


def _sides_of_eq_3(problem: Problem) -> float:
    a = closed_forms.bce_centered(strength(problem), problem.classes, float(problem.decay.b)).gap
    return separation(a, float(problem.decay.b), problem.classes)


eq_3_decided = away_from("equality", _sides_of_eq_3)


EQ_3 = Theorem(
    id="li2025/eq3",
    source=f"{PAPER}, Eq. 3",
    statement="The bias of BCE separates positive from negative scores iff an inequality in ||W||^2 holds.",
    formula="decay_b s rho/(K-1) + 1/(2(K-1)) > 1/(1 + exp(s rho/(K-1))), s = sqrt(decay_W/(n decay_H))",
    hypotheses=BALANCED_BCE & dim_at_least(-1) & bias_per_class & decayed_bias & separating & weak_force & eq_3_decided,
    claim=_eq_3,
    draw=Family(lambda rng: BCE(), SHAPES, decay_b=(1e-3, 1.0), strength=(0.01, 1.5)),
)


# Equations 20 and 21: the gradient in the bias ---------------------------------------------------


def _collapsed(problem: Problem, rng: np.random.Generator) -> Params:
    """A collapsed point of random size and bias: W W' and W H multiples of the simplex ETF's Gram matrix."""
    frame = np.zeros((problem.classes, problem.dim))
    frame[:, : problem.classes - 1] = geometry.helmert(problem.classes).T
    W, H = rng.uniform(0.3, 3.0) * frame, rng.uniform(0.3, 3.0) * frame[problem.labels].T
    return Params(W, H, np.full(problem.classes, rng.normal()))


def bias_gradient(problem: Problem, point: Params) -> np.ndarray:
    """Eqs. 20-21 at any point: ``mean(output_j - 1[y = j]) + decay_b b_j`` (K,), softmax for CE, sigmoids for BCE."""
    Z = point.W @ point.H + point.b[:, None]
    output = expit(Z) if isinstance(problem.loss, BCE) else np.exp(Z - np.logaddexp.reduce(Z, axis=0))
    target = np.arange(problem.classes)[:, None] == problem.labels[None, :]
    return np.asarray((output - target).mean(axis=1) + float(problem.decay.b) * point.b)


def bias_slope(p: float, q: float, classes: int) -> float:
    """Eq. 21 at collapse, without the decay: ``((K-1) sigma(q) - sigma(-p))/K``."""
    return float(((classes - 1) * expit(q) - expit(-p)) / classes)


def _bias_gradients(problem: Problem, evidence: Evidence) -> tuple[Params, np.ndarray, list[Quantity]]:
    """A collapsed point, the gradient of the loss in its biases, and Eqs. 20-21 at a point without structure."""
    rng = random_for(problem, evidence.seed)
    point = _collapsed(problem, rng)
    W, H = rng.normal(size=(problem.classes, problem.dim)), rng.normal(size=(problem.dim, problem.columns))
    anywhere = Params(W, H, rng.normal(size=problem.classes))
    formula = bias_gradient(problem, anywhere)
    points = [jax.tree.map(jnp.asarray, p) for p in (point, anywhere)]
    collapsed, general = (np.asarray(gradient(problem, p).b) for p in points)
    distance, size = np.abs(general - formula).max(), _size_of_bias_force(problem, anywhere)
    general_case = quantity("bias gradient at a random point: distance", 0.0, distance, 1e-12, size)
    return point, collapsed - float(problem.decay.b) * point.b, [general_case]


def _size_of_bias_force(problem: Problem, point: Params) -> float:
    """Of the terms of the bias gradient: probabilities and ``decay_b b``."""
    return max(1.0, float(problem.decay.b) * float(np.abs(point.b).max()))


def _eq_20(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    point, found, general = _bias_gradients(problem, evidence)
    size = _size_of_bias_force(problem, point)
    return [quantity("largest bias gradient of the loss at collapse", 0.0, np.abs(found).max(), 1e-12, size), *general]


def _eq_21(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    point, found, general = _bias_gradients(problem, evidence)
    logits = point.W @ point.H + point.b[:, None]
    predicted = bias_slope(logits[0, 0], logits[1, 0], problem.classes)
    size = _size_of_bias_force(problem, point)
    return [
        quantity("mean bias gradient of the loss at collapse", predicted, found.mean(), 1e-12, size),
        quantity("its spread over classes", 0.0, np.ptp(found), 1e-12, size),
        *general,
    ]


EQ_20 = Theorem(
    id="li2025/eq20",
    source=f"{PAPER}, Eq. 20",
    statement="At any collapsed point with equal biases the gradient of CE in the bias vanishes: its bias stays put.",
    formula="df/db_j = mean(softmax_j - 1[y = j]) + decay_b b_j, its first part 0 at collapse",
    hypotheses=loss(CE) & free_classifier & balanced & dim_at_least(-1) & bias_per_class,
    claim=_eq_20,
    minimum=False,
    draw=Family(lambda rng: CE(), SHAPES),
)
EQ_21 = Theorem(
    id="li2025/eq21",
    source=f"{PAPER}, Eq. 21",
    statement="At a collapsed point the gradient of BCE in the bias is the same for all and in general not zero.",
    formula="df/db_j = mean(sigma_j - 1[y = j]) + decay_b b_j, at collapse ((K-1) sigma(q) - sigma(-p))/K + decay_b b",
    hypotheses=BALANCED_BCE & dim_at_least(-1) & bias_per_class,
    claim=_eq_21,
    minimum=False,
    draw=Family(lambda rng: BCE(), SHAPES),
)


# The mean mode ---------------------------------------------------------------------------------


def boundary_decay_b(mu: float, classes: int) -> float:
    """decay_b at which the mean mode begins; inf where it never does. Needs K > 2, K mu < 1.

    There both descriptions meet: ``b = -mu/decay_b``, ``sigma(q) = 2 mu``, ``sigma(-p) = (K-2) mu`` and, as c = 0,
    ``p + (K-1) q = K b``.
    """
    if classes == 2:
        return np.inf
    mean_logit = -logit((classes - 2) * mu) + (classes - 1) * logit(2.0 * mu)
    return float(-classes * mu / mean_logit) if mean_logit < 0 else np.inf


def _mean_mode(evidence: Evidence) -> float:
    """``c = 1'Xbar 1/K`` of the measured class scores."""
    x, problem = evidence.solution.params, evidence.problem
    return float(np.sum(np.asarray(x.W) @ (np.asarray(x.H) * problem.multiplicity)) / problem.samples)


def _boundary(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    mu, K, decay_b = strength(problem), problem.classes, equivalent_decay_b(problem)
    edge = boundary_decay_b(mu, K)
    c = _mean_mode(evidence)
    quantities = [yes("the features share a mean", decay_b > edge, abs(c) > 1e-6)]
    if decay_b > edge:
        predicted = closed_forms.bce_mean_shifted(mu, K, decay_b).shift
        quantities.append(quantity("mean mode c", predicted, c))
    return quantities


@dataclass(frozen=True)
class _AtTheEdge(Family):
    """Half of the draws within 5 % of the boundary in decay_b, where a formula that is a little wrong shows."""

    def __call__(self, rng: np.random.Generator) -> Problem:
        problem = super().__call__(rng)
        far = rng.random() < 0.5
        distance = rng.choice([-1.0, 1.0]) * rng.uniform(0.012, 0.05)
        edge = boundary_decay_b(strength(problem), problem.classes) if separating(problem) else np.inf
        if far or not np.isfinite(edge):
            return problem
        factor = edge * np.exp(distance) / equivalent_decay_b(problem)
        return replace(problem, decay=replace(problem.decay, b=float(problem.decay.b * factor)))


off_the_boundary = away_from("the boundary", lambda p: equivalent_decay_b(p) / boundary_decay_b(strength(p), p.classes))
BOUNDARY = Theorem(
    id="li2025/boundary",
    source=f"{PAPER}, Thm 2: exact end of its validity (this package)",
    statement="The minimizer of BCE leaves the centered ETF exactly where decay_b |b| = sqrt(n decay_W decay_H).",
    formula="decay_b = K mu / [logit((K-2) mu) - (K-1) logit(2 mu)], both regimes meeting there",
    hypotheses=BALANCED_BCE & dim_at_least(0) & classes_above(2) & decayed_bias & separating & off_the_boundary,
    claim=_boundary,
    draw=_AtTheEdge(lambda rng: BCE(), WIDE, ("per_class", "unified"), decay_b=(1e-3, 1.0), strength=(0.01, 1.5)),
)


def _merged(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    K, mu = problem.classes, strength(problem)
    predicted = closed_forms.bce(mu, K, equivalent_decay_b(problem))
    return [
        lowest(evidence, minimum(problem, predicted)),
        quantity("mean mode c", predicted.shift, _mean_mode(evidence), 1e-6),
        yes("W and H are zero", predicted.shift == 0, size_of_factors(problem, evidence) < ZERO),
        *symmetric_logits(problem, evidence, predicted)[1:],
    ]


MERGED = Theorem(
    id="li2025/merged",
    source=f"{PAPER}, beyond Thm 2 (this package)",
    statement="K mu >= 1 merges all classes of BCE: at zero, or at one shared nonzero feature where decay_b |b| > mu.",
    formula="a = 0; c = K (logit(1/K + mu) + mu/decay_b) where decay_b |b0| > mu at the bias b0 of W = H = 0; "
    "without bias c = K logit(1/K + mu) where K mu < (K-2)/2",
    hypotheses=BALANCED_BCE & dim_at_least(0) & classes_above(2) & not_separating,
    claim=_merged,
    case=lambda p: closed_forms.bce(strength(p), p.classes, equivalent_decay_b(p)).shift == 0,
    draw=Family(lambda rng: BCE(), WIDE, ("per_class", "unified", "none"), decay_b=(1e-2, 10.0), strength=(0.8, 4.0)),
)

THEOREMS = (EQ_3, EQ_20, EQ_21, BOUNDARY, MERGED)

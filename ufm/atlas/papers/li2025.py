"""Li et al. 2025, "BCE vs. CE in Deep Feature Learning". They write z = Wh - b; our b is their -b."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from ufm.atlas._claims import (
    all_zero,
    balanced_factors,
    centered,
    equivalent_decay_b,
    etf_geometry,
    full_norm,
    symmetric_logits,
    value,
)
from ufm.atlas._core import (
    Evidence,
    Quantity,
    Theorem,
    Undecided,
    Verdict,
    converged,
    free_solve,
    quantity,
)
from ufm.atlas._draw import SHAPES, WIDE, Family
from ufm.atlas.hypotheses import (
    Hypothesis,
    any_classifier,
    balanced,
    bias_per_class,
    dim_at_least,
    free_classifier,
    loss,
    not_separating,
    number,
    separating,
    strength,
    with_bias,
)
from ufm.losses import BCE, CE
from ufm.problem import Params, Problem
from ufm.theory import closed_forms

PAPER = "Li et al. 2025"
PUBLISHED = Family(lambda rng: BCE(), SHAPES)
ANY_BIAS = Family(lambda rng: BCE(), (*WIDE, (2, 3, 2), (3, 4, 4)), ("per_class", "unified", "none"))
CROSS_ENTROPY = Family(lambda rng: CE(), SHAPES)


BALANCED_BCE = loss(BCE) & free_classifier & balanced


def bias_force(problem: Problem) -> float:
    """``decay_b |b|/mu`` at the published minimizer: up to 1 it is the minimizer."""
    mu, decay_b = strength(problem), equivalent_decay_b(problem)
    return decay_b * abs(closed_forms.bce_centered(mu, problem.classes, decay_b).bias) / mu


weak_force = number("decay_b |b|/mu", lambda p: bias_force(p), "<=", 1)
shift_invariant = Hypothesis("shift-invariant loss", lambda p: bool(p.loss.shift_invariant), lambda p: str(p.loss))


def _as_published(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.bce_centered(strength(problem), problem.classes, equivalent_decay_b(problem))
    return symmetric_logits(problem, evidence, predicted) + etf_geometry(problem, evidence)


THEOREM_1 = Theorem(
    id="li2025/1",
    source=f"{PAPER}, Thm 1",
    statement="CE: unbiased scores are equal within positives and within negatives, whatever the common bias.",
    formula="positive sqrt(decay_W/(n decay_H)) rho/K, negative -that/(K-1), rho = ||W||^2",
    hypotheses=loss(CE) & free_classifier & balanced & dim_at_least(-1),
    claim=lambda p, e: _scores_from_norm(p, e),
    draw=CROSS_ENTROPY,
)

THEOREM_2 = Theorem(
    id="li2025/2",
    source=f"{PAPER}, Thm 2, as stated in its poster and replies",
    statement="Global minimizers of BCE collapse to a centered simplex ETF; the bias solves their equation.",
    formula="-logit((K-1)mu + decay_b b) + (K-1) logit(mu - decay_b b) = K b",
    hypotheses=BALANCED_BCE & dim_at_least(-1) & bias_per_class & separating,
    claim=_as_published,
    recorded=Verdict.REFUTED,
    draw=PUBLISHED,
    refutation=lambda p: centered(
        "li2025/2", p, closed_forms.bce_centered(strength(p), p.classes, equivalent_decay_b(p))
    ),
)


def _corrected(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.bce(strength(problem), problem.classes, equivalent_decay_b(problem))
    centered = predicted.shift == 0
    quantities = symmetric_logits(problem, evidence, predicted) + etf_geometry(problem, evidence, centered=centered)
    W, _ = balanced_factors(problem, evidence.solution.params)
    mean = W.sum(axis=0)
    # The mean mode c puts sqrt(|c| sqrt(n) / K) into every row of W/sqrt(r): ||sum w_k||^2 = K sqrt(n) |c|.
    squared = problem.classes * np.sqrt(problem.counts[0]) * abs(predicted.shift)
    shared = quantity("||sum of w_k||^2 / r", squared, float(mean @ mean), 1e-6, max(1.0, float(np.sum(W**2))))
    return [*quantities, shared]


THEOREM_2_CORRECTED = Theorem(
    id="li2025/2-corrected",
    source=f"{PAPER}, Thm 2, corrected (this package)",
    statement="BCE's minimizer is the centered ETF iff sigma(q) <= 2 mu there; beyond, all w_k share a mean vector.",
    formula="with a bias: iff decay_b |b| <= mu, and beyond b = -mu/decay_b; sigma(q) = 2 mu, sigma(-p) = (K-2) mu",
    hypotheses=BALANCED_BCE & dim_at_least(0) & separating,
    claim=_corrected,
    case=lambda p: closed_forms.bce(strength(p), p.classes, equivalent_decay_b(p)).shift == 0,
    draw=ANY_BIAS,
)


def _bce_threshold(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.bce_centered(strength(problem), problem.classes, equivalent_decay_b(problem))
    return symmetric_logits(problem, evidence, predicted) + all_zero(problem, evidence)


BCE_ZERO = Theorem(
    id="li2025/bce-zero",
    source=f"{PAPER}, from Thm 2",
    statement="Above the threshold of cross-entropy the minimizer of BCE too is W = H = 0.",
    formula="zero if K mu >= 1 and decay_b |b| <= mu for the bias of W = H = 0",
    hypotheses=BALANCED_BCE & dim_at_least(-1) & with_bias & not_separating & weak_force,
    claim=_bce_threshold,
    draw=Family(lambda rng: BCE(), SHAPES, strength=(0.3, 5.0)),
)


def scores_of_norm(problem: Problem, rho: float) -> tuple[float, float]:
    """Positive and negative score from ``rho = ||W||^2`` alone, as the papers write them."""
    positive = rho / (np.sqrt(problem.counts[0]) * float(problem.decay.ratio))
    positive /= problem.classes
    return positive, -positive / (problem.classes - 1)


def _scores_from_norm(problem: Problem, evidence: Evidence) -> list[Quantity]:
    """Scores from the measured rho = ||W||^2 alone, as the papers write them."""
    positive, negative = scores_of_norm(problem, float(np.sum(np.asarray(evidence.solution.params.W) ** 2)))
    found, size = evidence.scores, max(1.0, positive)
    return [
        quantity("positive score", positive, found["positive"]["mean"]),
        quantity("negative score", negative, found["negative"]["mean"]),
        quantity("spread of positive scores", 0.0, found["positive"]["max"] - found["positive"]["min"], size=size),
        quantity("spread of negative scores", 0.0, found["negative"]["max"] - found["negative"]["min"], size=size),
    ]


STEP, STEPS, HALVINGS = 0.5, 400, 60
"""Longest step of gradient descent, number of steps, and how often the step may be halved."""


@jax.jit
def gradient_descent(problem: Problem, params: Params, step: float) -> Params:
    """`STEPS` steps of gradient descent of length ``step``."""

    def advance(_: int, x: Params) -> Params:
        return jax.tree.map(lambda a, g: a - step * g, x, jax.grad(problem.objective)(x))

    return jax.lax.fori_loop(0, STEPS, advance, params)


def stable_descent(problem: Problem, start: Params) -> tuple[Params, float]:
    """The end of `gradient_descent` and its step: below 2 over the largest decay, halved until the objective falls.

    A step of at most one over the Lipschitz constant of the gradient lowers the objective (Nesterov 2004, 1.2.3);
    halving finds it without the constant, which a loss need not know.

    Raises:
        Undecided: if no step lowers it.
    """
    decays = [float(v) * float(np.max(m)) for v, m in ((problem.decay.W, 1), (problem.decay.H, problem.multiplicity))]
    step, before = STEP / (1.0 + max(*decays, float(problem.decay.b))), float(value(problem, start))
    for _ in range(HALVINGS):
        end = gradient_descent(problem, start, step)
        if np.isfinite(full_norm(end)) and float(value(problem, end)) <= before:
            return end, step
        step *= 0.5
    raise Undecided(f"gradient descent diverges, also with a step of {step:.1e}")


def mean_bias_after(mean: float, decay_b: float, step: float) -> float:
    """Mean bias after `STEPS` steps of length ``step`` from ``mean``."""
    return float(mean * (1.0 - step * decay_b) ** STEPS)


def _bias_law(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Gradient descent from biases of mean 0 and 5: only the decay moves the mean."""
    quantities = []
    for mean in (5.0, 0.0):
        start = problem.init(jax.random.key(evidence.seed), bias_mean=mean)
        end, step = stable_descent(problem, start)
        predicted = mean_bias_after(float(np.mean(start.b)), float(problem.decay.b), step)
        name = f"mean bias after {STEPS} steps from {mean:g}"
        quantities.append(quantity(name, predicted, float(np.mean(end.b)), 1e-10))
    return quantities


CE_BIAS_LAW = Theorem(
    id="li2025/ce-bias-law",
    source=f"{PAPER}, Fig. 3 and Eq. 20 as an exact law (this package)",
    statement="Under CE gradient descent keeps the initial mean bias, up to decay, whatever the features do.",
    formula="mean b(t) = mean b(0) (1 - eta decay_b)^t",
    hypotheses=shift_invariant & any_classifier & bias_per_class,
    claim=_bias_law,
    minimum=False,
    draw=CROSS_ENTROPY,
)


def _bce_forgets(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.bce(strength(problem), problem.classes, equivalent_decay_b(problem)).bias
    quantities = []
    for mean in (0.0, 5.0, 10.0):
        end = converged(free_solve(problem, evidence.seed, bias_mean=mean), f"the solve from a bias of mean {mean:g}")
        found = float(np.mean(end.params.b))
        quantities.append(quantity(f"final bias from mean {mean:g}", predicted, found))
    return quantities


BCE_FORGETS = Theorem(
    id="li2025/bce-forgets",
    source=f"{PAPER}, Fig. 3 and Eq. 21",
    statement="BCE forgets its initial bias: every start ends at the bias of the theorem.",
    formula="final b independent of b(0)",
    hypotheses=BALANCED_BCE & dim_at_least(0) & separating & with_bias,
    claim=_bce_forgets,
    draw=Family(lambda rng: BCE(), WIDE, ("per_class", "unified")),
)

THEOREMS = (THEOREM_1, THEOREM_2, THEOREM_2_CORRECTED, BCE_ZERO, CE_BIAS_LAW, BCE_FORGETS)

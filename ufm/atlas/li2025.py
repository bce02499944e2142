"""Li et al. 2025, "BCE vs. CE in Deep Feature Learning". They write z = Wh - b; our b is their -b."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import optax

from ufm.atlas._claims import all_zero, equivalent_decay_b, etf_geometry, strength, symmetric_logits
from ufm.atlas._core import Evidence, Quantity, Theorem, Verdict, free_solve, quantity
from ufm.atlas._draw import SHAPES, WIDE, Family
from ufm.atlas.zhu2021 import is_balanced
from ufm.losses import BCE, CE
from ufm.problem import Problem
from ufm.solvers import Gradient
from ufm.theory import closed_forms

PAPER = "Li et al. 2025"
PUBLISHED = Family(lambda rng: BCE(), SHAPES)
ANY_BIAS = Family(lambda rng: BCE(), (*WIDE, (2, 3, 2), (3, 4, 4)), ("per_class", "unified", "none"))
CROSS_ENTROPY = Family(lambda rng: CE(), SHAPES)


def is_bce(problem: Problem, least_dim: int = -1) -> bool:
    """Whether the problem is a balanced one of BCE with ``d >= K + least_dim``."""
    return isinstance(problem.loss, BCE) and is_balanced(problem, least_dim)


def separates(problem: Problem) -> bool:
    """Whether ``K mu < 1``: the decays leave the classes apart."""
    return problem.classes * strength(problem) < 1


def _as_published(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.bce_centred(strength(problem), problem.classes, equivalent_decay_b(problem))
    return symmetric_logits(problem, evidence, predicted) + etf_geometry(problem, evidence)


THEOREM_1 = Theorem(
    id="li2025/1",
    source=f"{PAPER}, Thm 1",
    statement="CE: unbiased scores are equal within positives and within negatives, whatever the common bias.",
    formula="positive sqrt(decay_W/(n decay_H)) rho/K, negative -that/(K-1), rho = ||W||^2",
    hypotheses="CE, balanced, d >= K-1",
    inside=lambda p: isinstance(p.loss, CE) and is_balanced(p),
    claim=lambda p, e: _scores_from_norm(p, e),
    draw=CROSS_ENTROPY,
)

THEOREM_2 = Theorem(
    id="li2025/2",
    source=f"{PAPER}, Thm 2, as stated in its poster and replies",
    statement="Global minimisers of BCE collapse to a centred simplex ETF; the bias solves their equation.",
    formula="-logit((K-1)mu + decay_b b) + (K-1) logit(mu - decay_b b) = K b",
    hypotheses="BCE with decayed bias per class, balanced, d >= K-1, K mu < 1",
    inside=lambda p: is_bce(p) and p.bias == "per_class" and separates(p),
    claim=_as_published,
    recorded=Verdict.REFUTED,
    draw=PUBLISHED,
)


def _corrected(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.bce(strength(problem), problem.classes, equivalent_decay_b(problem))
    centred = predicted.shift == 0
    quantities = symmetric_logits(problem, evidence, predicted) + etf_geometry(problem, evidence, centred=centred)
    mean = np.asarray(evidence.solution.params.W).sum(axis=0)
    r = np.sqrt(problem.counts[0]) * float(problem.decay.ratio)
    # The mean mode c puts sqrt(|c| r / K) into every row: ||sum w_k||^2 = K r |c|.
    size = problem.classes * r * abs(predicted.shift)
    return [*quantities, quantity("||sum of w_k||^2", size, float(mean @ mean), 1e-6)]


THEOREM_2_CORRECTED = Theorem(
    id="li2025/2-corrected",
    source=f"{PAPER}, Thm 2, corrected (this package)",
    statement="BCE's minimiser is the centred ETF iff sigma(q) <= 2 mu there; beyond, all w_k share a mean vector.",
    formula="with a bias: iff decay_b |b| <= mu, and beyond b = -mu/decay_b; sigma(q) = 2 mu, sigma(-p) = (K-2) mu",
    hypotheses="BCE, balanced, d >= K, K mu < 1, any bias mode",
    inside=lambda p: is_bce(p, 0) and separates(p),
    claim=_corrected,
    draw=ANY_BIAS,
)


def _bce_threshold(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.bce_centred(strength(problem), problem.classes, equivalent_decay_b(problem))
    return symmetric_logits(problem, evidence, predicted) + all_zero(problem, evidence)


BCE_ZERO = Theorem(
    id="li2025/bce-zero",
    source=f"{PAPER}, from Thm 2",
    statement="Above the threshold of cross-entropy the minimiser of BCE too is W = H = 0.",
    formula="zero if K mu >= 1 and decay_b |b| <= mu for the bias of W = H = 0",
    hypotheses="BCE, balanced, d >= K-1, K mu >= 1, decay_b |b| <= mu",
    inside=lambda p: is_bce(p) and p.bias != "none" and not separates(p) and _bias_force_at_zero(p) <= strength(p),
    claim=_bce_threshold,
    draw=Family(lambda rng: BCE(), SHAPES, strength=(0.3, 5.0)),
)


def _bias_force_at_zero(problem: Problem) -> float:
    decay = equivalent_decay_b(problem)
    return decay * abs(closed_forms.bce_centred(strength(problem), problem.classes, decay).bias)


def scores_of_norm(problem: Problem, rho: float) -> tuple[float, float]:
    """Positive and negative score from ``rho = ||W||^2`` alone, as the papers write them."""
    positive = rho / (np.sqrt(problem.counts[0]) * float(problem.decay.ratio))
    positive /= problem.classes
    return positive, -positive / (problem.classes - 1)


def _scores_from_norm(problem: Problem, evidence: Evidence) -> list[Quantity]:
    positive, negative = scores_of_norm(problem, float(np.sum(np.asarray(evidence.solution.params.W) ** 2)))
    found = evidence.scores
    return [
        quantity("positive score", positive, found["positive"]["mean"]),
        quantity("negative score", negative, found["negative"]["mean"]),
        quantity("spread of positive scores", 0.0, found["positive"]["max"] - found["positive"]["min"]),
        quantity("spread of negative scores", 0.0, found["negative"]["max"] - found["negative"]["min"]),
    ]


STEP, STEPS = 0.5, 400
# One object for all calls: its hash names the compiled program.
DESCENT = Gradient(optax.sgd(STEP), tol=0.0, max_steps=STEPS)


def mean_bias_after(mean: float, decay_b: float, step: float) -> float:
    """Mean bias after `STEPS` steps of length ``step`` from ``mean``."""
    return float(mean * (1.0 - step * decay_b) ** STEPS)


def _bias_law(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Gradient descent from biases of mean 0 and 5: only the decay moves the mean."""
    quantities = []
    for mean in (5.0, 0.0):
        start = problem.init(jax.random.key(evidence.seed), bias_mean=mean)
        end = free_solve(problem, init=start, solver=DESCENT)
        predicted = mean_bias_after(float(np.mean(start.b)), float(problem.decay.b), STEP)
        quantities.append(
            quantity(f"mean bias after {STEPS} steps from {mean:g}", predicted, float(np.mean(end.params.b)), 1e-10)
        )
    return quantities


CE_BIAS_LAW = Theorem(
    id="li2025/ce-bias-law",
    source=f"{PAPER}, Fig. 3 and Eq. 20 as an exact law (this package)",
    statement="Under CE gradient descent keeps the initial mean bias, up to decay, whatever the features do.",
    formula="mean b(t) = mean b(0) (1 - eta decay_b)^t",
    hypotheses="shift-invariant loss with a bias per class",
    inside=lambda p: bool(p.loss.shift_invariant) and p.bias == "per_class",
    claim=_bias_law,
    minimum=False,
    draw=CROSS_ENTROPY,
)


def _bce_forgets(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.bce(strength(problem), problem.classes, equivalent_decay_b(problem)).bias
    ends = [free_solve(problem, evidence.seed, bias_mean=mean) for mean in (0.0, 5.0, 10.0)]
    names = ("final bias from mean 0", "from mean 5", "from mean 10")
    return [quantity(name, predicted, float(np.mean(end.params.b))) for name, end in zip(names, ends, strict=True)]


BCE_FORGETS = Theorem(
    id="li2025/bce-forgets",
    source=f"{PAPER}, Fig. 3 and Eq. 21",
    statement="BCE forgets its initial bias: every start ends at the bias of the theorem.",
    formula="final b independent of b(0)",
    hypotheses="BCE, balanced, d >= K, K mu < 1, with bias",
    inside=lambda p: is_bce(p, 0) and separates(p) and p.bias != "none",
    claim=_bce_forgets,
    draw=Family(lambda rng: BCE(), WIDE, ("per_class", "unified")),
)

THEOREMS = (THEOREM_1, THEOREM_2, THEOREM_2_CORRECTED, BCE_ZERO, CE_BIAS_LAW, BCE_FORGETS)

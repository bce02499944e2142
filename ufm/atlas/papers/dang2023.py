"""Dang, Tran, Osher, Tran-The, Ho & Nguyen 2023, "Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced
Data": several weight matrices without ReLU. Their loss has 1/(2N), ours 1/N.
"""

from __future__ import annotations

from collections.abc import Sequence

from ufm.atlas._claims import lowest
from ufm.atlas._core import Evidence, Quantity, Theorem, Verdict, quantity
from ufm.atlas._deep import DeepFamily, deep_linear, layers, living, over_threshold, wide
from ufm.atlas.hypotheses import away_from, balanced, bias_per_class, free_bias, loss, no_bias
from ufm.atlas.papers.mse import plain
from ufm.losses import CE, MSE
from ufm.problem import Problem
from ufm.theory import depth, group_codes

PAPER = "Dang et al. 2023"


def shrunk_score(problem: Problem) -> float:
    """x, which minimizes ``(1 - x)^2/K + kappa n^{1/M} x^{2/M}``: the larger root of its derivative, by bisection."""
    K, M = problem.classes, layers(problem) + 1
    t = depth.strength(problem)
    low, high = (M - 2.0) / M if M > 2 else 0.0, 1.0  # the slope has its minimum below (L-1)/(L+1)

    def slope(x: float) -> float:
        return -2.0 * (1.0 - x) / K + t * x ** (2.0 / M - 1.0)

    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 0.5 * (low + high)


def squares_value(problem: Problem) -> float:
    """K times, or with a free bias K - 1 times, ``(1 - x)^2/K + kappa n^{1/M} x^{2/M}``."""
    K, M, x = problem.classes, layers(problem) + 1, shrunk_score(problem)
    each = (1.0 - x) ** 2 / K + 0.5 * M * depth.strength(problem) * x ** (2.0 / M)
    return (K if problem.bias == "none" else K - 1) * each


SQUARES = loss(MSE) & plain & deep_linear & balanced & wide
away = away_from("the threshold of zero", over_threshold)


def _squares(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    K, x = problem.classes, shrunk_score(problem)
    centered = 0.0 if problem.bias == "none" else 1.0 / K
    found = evidence.scores
    return [
        lowest(evidence, squares_value(problem)),
        quantity("positive score", x * (1.0 - centered), found["positive"]["mean"], 1e-6),
        quantity("negative score", -x * centered, found["negative"]["mean"], 1e-6),
        quantity("spread of negative scores", 0.0, found["negative"]["max"] - found["negative"]["min"], 1e-6),
        quantity("NC1", 0.0, float(evidence.collapse.nc1), 1e-6),
    ]


NO_BIAS = Theorem(
    id="dang2023/mse",
    source=f"{PAPER}, bias-free MSE",
    statement="Without bias the last features and classifier of deep linear MSE are orthogonal frames, W H = x I.",
    formula="x minimizes (1-x)^2/K + M/2 (n decay_H decay_W^L)^{1/M} x^{2/M}, M = L+1",
    hypotheses=SQUARES & no_bias & living & away,
    claim=_squares,
    draw=DeepFamily(lambda rng: MSE(1.0, 1.0), ((4, 5, 3),), ("none",), strength=(0.02, 2.0)),
)

FREE_BIAS = Theorem(
    id="dang2023/mse-bias",
    source=f"{PAPER}, MSE with a last-layer bias",
    statement="With a free bias the last features and classifier of deep linear MSE are simplex ETFs.",
    formula="W H = x (I - J/K), x as without bias",
    hypotheses=SQUARES & bias_per_class & free_bias & living & away,
    claim=_squares,
    draw=DeepFamily(lambda rng: MSE(1.0, 1.0), ((4, 5, 3),), decay_b=(0.0, 0.0), strength=(0.02, 2.0)),
)


def collapsed_value(problem: Problem) -> float:
    """The value of collapse: all classes a simplex, or zero."""
    return group_codes.value_of(str(problem.classes), problem.classes, layers(problem), depth.strength(problem)).value


def _cross_entropy(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return [lowest(evidence, collapsed_value(problem))]


CROSS_ENTROPY = Theorem(
    id="dang2023/ce",
    source=f"{PAPER}, cross-entropy",
    statement="Without bias the global minimizers of deep linear cross-entropy collapse to a simplex ETF.",
    formula="min f = log(1 + (K-1) e^-a) + kappa n^{1/M} (K-1) a^{2/M}, least over a",
    hypotheses=loss(CE) & deep_linear & balanced & no_bias & wide,
    claim=_cross_entropy,
    recorded=Verdict.REFUTED,
    draw=DeepFamily(lambda rng: CE(), ((6, 6, 2),), ("none",), strength=(0.02, 0.5)),
)

THEOREMS = (NO_BIAS, FREE_BIAS, CROSS_ENTROPY)

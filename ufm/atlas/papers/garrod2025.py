"""Garrod & Keating 2025, as summarised in abstracts: low-rank bias makes collapse suboptimal in deep linear models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ufm import codes
from ufm.atlas._claims import yes
from ufm.atlas._core import Evidence, Quantity, Theorem, converged, free_solve, quantity
from ufm.atlas._deep import DeepFamily, deep_linear, layers, wide
from ufm.atlas.hypotheses import Hypothesis, balanced, loss, no_bias, number
from ufm.losses import CE
from ufm.problem import Problem
from ufm.theory import depth, group_codes

PAPER = "Garrod & Keating 2025"
ALIVE = 0.9
"""Share of the decay of death up to which the low-rank codes are compared."""

DEEP = loss(CE) & deep_linear & balanced & no_bias & wide
enough = Hypothesis(
    "L >= 3 and K >= 4, or L = 2 and K >= 6",
    lambda p: (layers(p) >= 3 and p.classes >= 4) or (layers(p) == 2 and p.classes >= 6),
    lambda p: f"L = {layers(p)}, K = {p.classes}",
)


def low_rank_code(classes: int) -> str:
    """Antipodal pairs, with one group of three where K is odd."""
    return "+".join(["3"] * (classes % 2) + ["2"] * ((classes - 3 * (classes % 2)) // 2))


def pairs_over_zero(problem: Problem) -> float:
    """Value of the pairs over log K, that of zero."""
    code = low_rank_code(problem.classes)
    value = group_codes.value_of(code, problem.classes, layers(problem), depth.strength(problem)).value
    return value / float(np.log(problem.classes))


def value_from(problem: Problem, code: str) -> float:
    """Where a solve from a code ends."""
    return float(converged(free_solve(problem, init=codes.PREFIX + code), f"the solve from {code}").value)


def _lower(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    K = problem.classes
    low, simplex = value_from(problem, low_rank_code(K)), value_from(problem, str(K))
    return [yes(f"{low_rank_code(K)} is lower than collapse", True, low < simplex * (1.0 - 1e-9))]


LOWER = Theorem(
    id="garrod2025/low-rank",
    source=f"{PAPER}, as summarised in its abstract",
    statement="Collapse of deep linear cross-entropy is not optimal for L >= 3 and K >= 4, or L = 2 and K >= 6.",
    formula="the value of pairs (K/2 groups of 2) is below that of one simplex",
    hypotheses=DEEP & enough & number("value of the pairs over log K", pairs_over_zero, "<", ALIVE),
    claim=_lower,
    minimum=False,
    draw=DeepFamily(lambda rng: CE(), ((6, 6, 2),), ("none",), strength=(0.01, 0.6)),
)


def best_code(problem: Problem) -> group_codes.Coded:
    """The best code and its value."""
    K, L, t = problem.classes, layers(problem), depth.strength(problem)
    _, (code,) = group_codes.best_codes(K, L, [t])
    return group_codes.value_of(code, K, L, t)


def _code(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    best = best_code(problem)
    name = "+".join(str(part) for part in best.code)
    return [quantity(f"value of {name}", best.value, value_from(problem, name), 1e-9, size=best.value)]


CODES = Theorem(
    id="garrod2025/codes",
    source="group codes (this package)",
    statement="Parts of a code do not see each other, so its value is a sum of scalar minima, at a critical point.",
    formula="theory.group_codes; that no other point is lower is not proven",
    hypotheses=DEEP & number("value of the pairs over log K", pairs_over_zero, "<", ALIVE),
    claim=_code,
    minimum=False,
    draw=DeepFamily(lambda rng: CE(), ((6, 6, 2),), ("none",), strength=(0.01, 0.6)),
)

THEOREMS = (LOWER, CODES)

"""Súkeník, Mondelli & Lampert 2023, "Deep Neural Collapse Is Provably Optimal for the Deep Unconstrained Features
Model": two classes, a ReLU after each inner product. Their loss has 1/(2N), ours 1/N.
"""

from __future__ import annotations

from collections.abc import Sequence

from ufm.atlas._claims import lowest
from ufm.atlas._core import Evidence, Quantity, Theorem
from ufm.atlas._deep import DeepFamily, deep, layers, over_threshold, wide
from ufm.atlas.hypotheses import balanced, loss, no_bias, number
from ufm.atlas.papers import dang2023
from ufm.atlas.papers.mse import plain
from ufm.losses import MSE
from ufm.problem import Problem
from ufm.theory import depth

PAPER = "Súkeník et al. 2023"


def zero_threshold(problem: Problem) -> float:
    """``2^{L+1} (L-1)^{L-1}/(2^{L+1} L^{2L})`` for K = 2; without the first factor for the loss with 1/2."""
    L = layers(problem)
    return float(float(L - 1) ** (L - 1) / L ** (2 * L))


def _binary(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    zero = depth.strength(problem) ** (layers(problem) + 1) > zero_threshold(problem)
    return [lowest(evidence, 1.0 if zero else dang2023.squares_value(problem))]


BINARY = Theorem(
    id="sukenik2023/binary",
    source=f"{PAPER}, main theorem",
    statement="For two classes deep collapse is optimal, or everything is zero, with a ReLU and without.",
    formula="zero iff n decay_H decay_W^L > (L-1)^{L-1}/L^{2L}; else the value of x I",
    hypotheses=loss(MSE)
    & plain
    & deep
    & balanced
    & no_bias
    & wide
    & number("K", lambda p: p.classes, "=", 2)
    & number("L", layers, ">=", 2)
    & dang2023.away,
    claim=_binary,
    draw=DeepFamily(lambda rng: MSE(1.0, 1.0), ((2, 3, 3),), ("none",), strength=(0.02, 2.0)),
    case=lambda p: over_threshold(p) > 1,
)

THEOREMS = (BINARY,)

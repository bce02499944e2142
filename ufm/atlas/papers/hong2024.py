"""Hong & Ling 2024, cross-entropy with imbalanced classes: which classes merge, and when all features vanish."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ufm.atlas._claims import ZERO, balanced_factors, lowest, size_of_factors, weight, yes
from ufm.atlas._core import Evidence, Quantity, Theorem, converged, free_solve, quantity
from ufm.atlas._draw import Family, Shape
from ufm.atlas.hypotheses import (
    Hypothesis,
    away_from,
    bias_per_class,
    decayed_bias,
    dim_at_least,
    free_classifier,
    imbalanced,
    loss,
    no_bias,
)
from ufm.losses import CE
from ufm.problem import Params, Problem
from ufm.theory import certify

PAPER = "Hong & Ling 2024"
COUNTS: tuple[Shape, ...] = ((4, 5, (6, 6, 2, 2)), (5, 6, (7, 4, 2, 2, 2)))
MERGED = 1e-5
"""Distance of two classifier rows, relative to the largest row, that counts as one row."""


IMBALANCED = loss(CE) & free_classifier & imbalanced & dim_at_least(0)


def merging(problem: Problem) -> dict[int, float]:
    """For each count that several classes share, ``sqrt(n_c)/N`` over ``sqrt(decay_W decay_H)``: merged up to 1."""
    sizes, repeats = np.unique(problem.counts, return_counts=True)
    return {int(n): float(np.sqrt(n)) / problem.samples / weight(problem) for n in sizes[repeats > 1]}


some_shared = Hypothesis("two classes of equal count", lambda p: bool(merging(p)), lambda p: f"n = {p.per_class}")


def bias_alone(problem: Problem) -> np.ndarray:
    """b° (K,), the minimizer of ``mean CE + decay_b/2 ||b||^2`` at W = H = 0: softmax(b) + decay_b b = n_k/N."""
    share, decay_b = problem.counts / problem.samples, float(problem.decay.b)
    if problem.bias != "per_class":
        return np.zeros(problem.classes)
    if decay_b == 0:
        return np.log(share) - np.log(share).mean()
    b = np.zeros(problem.classes)
    for _ in range(100):
        p = np.exp(b - np.logaddexp.reduce(b))
        move = np.linalg.solve(np.diag(p + decay_b) - np.outer(p, p), p + decay_b * b - share)
        b = b - move / max(1.0, np.abs(move).max())
        if np.abs(move).max() < 1e-15:
            break
    return b


def gradient_at_zero(problem: Problem) -> np.ndarray:
    """``grad_Z`` of the mean loss at W = H = 0, b = b° (K, N)."""
    b = bias_alone(problem)
    p = np.exp(b - np.logaddexp.reduce(b))
    labels = np.repeat(np.arange(problem.classes), problem.counts)
    return (p[:, None] - np.eye(problem.classes)[:, labels]) / problem.samples


def collapse_ratio(problem: Problem) -> float:
    """``||grad_Z(0, b°)|| / sqrt(decay_W decay_H)``: everything is zero up to 1."""
    return float(np.linalg.norm(gradient_at_zero(problem), 2)) / weight(problem)


def _row_distance(problem: Problem, evidence: Evidence, count: int) -> float:
    W, _ = balanced_factors(problem, evidence.solution.params)
    rows = W[problem.counts == count]
    return float(np.linalg.norm(rows - rows[0], axis=1).max()) / max(float(np.linalg.norm(W, axis=1).max()), 1.0)


def _merges(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return [
        yes(f"classes of {n} samples share one w", ratio <= 1, _row_distance(problem, evidence, n) < MERGED)
        for n, ratio in merging(problem).items()
    ]


MERGING = Theorem(
    id="hong2024/merging",
    source=f"{PAPER}, minority collapse",
    statement="Two or more classes of n_c samples have the same classifier row iff the decays exceed a threshold.",
    formula="w_i = w_j iff sqrt(n_c)/N <= sqrt(decay_W decay_H)",
    hypotheses=IMBALANCED & some_shared & away_from("the threshold", lambda p: list(merging(p).values())),
    claim=_merges,
    draw=Family(lambda rng: CE(), COUNTS, ("per_class", "none"), strength=(0.05, 2.0)),
)


def _vanishes(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    zero = size_of_factors(problem, evidence) < ZERO
    quantities = [yes("W and H are zero", collapse_ratio(problem) <= 1, zero)]
    sizes, repeats = np.unique(problem.counts, return_counts=True)
    if repeats[-1] > 1:
        norm = float(np.linalg.norm(gradient_at_zero(problem), 2))
        quantities.append(quantity("||grad_Z(0, b°)||", np.sqrt(sizes[-1]) / problem.samples, norm))
    return quantities


TOTAL = Theorem(
    id="hong2024/zero",
    source=f"{PAPER}, total collapse",
    statement="Everything is zero iff the logit gradient at the bias-only minimizer is small.",
    formula="||grad_Z(0, b°)|| <= sqrt(decay_W decay_H); the norm is sqrt(n_A)/N if n_A is shared by two classes",
    hypotheses=IMBALANCED & (bias_per_class | no_bias) & away_from("the threshold", lambda p: collapse_ratio(p)),
    claim=_vanishes,
    draw=Family(lambda rng: CE(), COUNTS, ("per_class", "none"), strength=(0.2, 4.0)),
)


def convex_value(problem: Problem, params: Params) -> float:
    """``1/N sum CE(x_i + b) + sqrt(decay_W decay_H) ||X diag(sqrt m)||_* + decay_b/2 ||b||^2`` at ``X = W H``."""
    Y = np.asarray(params.W) @ np.asarray(params.H) * np.sqrt(problem.multiplicity)
    bias = 0.0 if params.b is None else 0.5 * float(problem.decay.b) * float(np.sum(np.asarray(params.b) ** 2))
    return float(problem.risk(problem.logits(params))) + weight(problem) * float(np.linalg.norm(Y, "nuc")) + bias


def _witness(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    lifted = converged(free_solve(problem, solver="lifted"), "the convex solver")
    logits = np.asarray(problem.logits(evidence.solution.params))
    distance = np.abs(np.asarray(problem.logits(lifted.params)) - logits).max()
    return [
        lowest(evidence, convex_value(problem, lifted.params)),
        quantity("distance of the logits of both solvers", 0.0, distance, 1e-4),
        quantity("certified gap of the convex solver", 0.0, float(certify(problem, lifted.params).gap), 1e-8),
    ]


CONVEX = Theorem(
    id="hong2024/convex",
    source=f"{PAPER}; Zhu et al. 2021 (nuclear-norm lift)",
    statement="Imbalanced, too, the factored problem has the minimum of the convex one in X = W H.",
    formula="min f = min 1/N sum CE(x_i + b) + sqrt(decay_W decay_H) ||X||_* + decay_b/2 ||b||^2",
    hypotheses=IMBALANCED & (no_bias | decayed_bias),
    claim=_witness,
    draw=Family(lambda rng: CE(), COUNTS[:1], ("none",), strength=(0.1, 2.0)),
)

THEOREMS = (MERGING, TOTAL, CONVEX)

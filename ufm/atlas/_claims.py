"""Claims that several theorems share, each a list of predicted and measured quantities."""

from __future__ import annotations

import numpy as np

from ufm.atlas._core import Evidence, Quantity, quantity
from ufm.problem import Problem
from ufm.theory.closed_forms import Logits


def strength(problem: Problem) -> float:
    """``mu = sqrt(n decay_W decay_H)`` of a balanced problem."""
    return float(np.sqrt(problem.counts[0] * float(problem.decay.W) * float(problem.decay.H)))


def equivalent_decay_b(problem: Problem) -> float:
    """Decay of a bias per class with the same symmetric minimiser; inf without a bias."""
    if problem.bias == "none":
        return np.inf
    decay = float(problem.decay.b)
    return decay if problem.bias == "per_class" else decay / problem.classes


def minimum(problem: Problem, predicted: Logits) -> float:
    """Objective at symmetric class logits: ``phi(p, q) + mu ((K-1)|a| + |c|) + K decay_b beta^2/2``."""
    K, mu, decay = problem.classes, strength(problem), equivalent_decay_b(problem)
    bias = 0.5 * K * decay * predicted.bias**2 if np.isfinite(decay) else 0.0
    modes = (K - 1) * abs(predicted.gap) + abs(predicted.shift)
    return float(problem.loss.at(predicted.p, predicted.q, K)) + mu * modes + bias


def symmetric_logits(problem: Problem, evidence: Evidence, predicted: Logits) -> list[Quantity]:
    """Value, scores and bias of a minimiser whose class logits are (p, q)."""
    bias = evidence.bias
    positive, negative = predicted.p - predicted.bias, predicted.q - predicted.bias
    found = evidence.scores
    quantities = [
        quantity("minimum", minimum(problem, predicted), evidence.value, 1e-9),
        quantity("positive score", positive, found["positive"]["mean"]),
        quantity("negative score", negative, found["negative"]["mean"]),
        quantity("spread of positive scores", 0.0, found["positive"]["max"] - found["positive"]["min"]),
        quantity("spread of negative scores", 0.0, found["negative"]["max"] - found["negative"]["min"]),
    ]
    if problem.bias != "none" and not (problem.loss.shift_invariant and float(problem.decay.b) == 0):
        quantities.append(quantity("bias", predicted.bias, float(bias.mean())))
        quantities.append(quantity("spread of biases", 0.0, float(np.ptp(bias))))
    return quantities


def etf_geometry(problem: Problem, evidence: Evidence, *, centred: bool = True) -> list[Quantity]:
    """Collapse to a simplex ETF; ``centred`` claims too that classifier and means have no common part."""
    names = (
        ["nc1", "nc2", "nc2_means", "nc3"] if not centred else ["nc1", "nc2_uncentred", "nc2_means_uncentred", "nc3"]
    )
    return [quantity(name.upper(), 0.0, float(getattr(evidence.collapse, name)), 1e-6) for name in names]


def all_zero(problem: Problem, evidence: Evidence) -> list[Quantity]:
    """W = 0 and H = 0 at the minimum."""
    x = evidence.solution.params
    sizes = float(np.linalg.norm(x.W)) + float(np.linalg.norm(x.H))
    return [quantity("norm of W and H", 0.0, sizes, 1e-4)]

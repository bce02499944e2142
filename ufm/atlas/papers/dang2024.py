"""Dang, Tran, Nguyen & Ho 2024: cross-entropy, non-negative features and unequal classes; and where a bias ends it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ufm.atlas._claims import lowest, weight, yes
from ufm.atlas._core import Evidence, Quantity, Theorem, Verdict, quantity
from ufm.atlas._draw import NonnegativeFamily, Shape
from ufm.atlas.hypotheses import away_from, bias_per_class, decayed_bias, dim_at_least, loss, no_bias, nonnegative
from ufm.losses import CE
from ufm.problem import Params, Problem
from ufm.theory.nonnegative import unbiased_ce

COUNTS: tuple[Shape, ...] = ((4, 5, (60, 20, 5, 5)), (3, 3, (30, 10, 10)))
LIVING = 1e-5
"""Norm of a feature, times the root of its count and relative to the largest, above which the class lives."""

CROSS_ENTROPY = loss(CE) & nonnegative & dim_at_least(0)


def class_features(problem: Problem, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Class means of H (d, K) and whether each class lives (K,)."""
    H, labels = np.asarray(params.H), problem.labels
    means = np.stack([H[:, labels == k].mean(axis=1) for k in range(problem.classes)], axis=1)
    sizes = np.sqrt(problem.counts) * np.linalg.norm(means, axis=0)
    return means, sizes > LIVING * max(float(sizes.max()), 1e-300)


def cosines(problem: Problem, params: Params) -> np.ndarray:
    """Cosines between the features of living classes, one per pair."""
    means, alive = class_features(problem, params)
    units = means[:, alive] / np.linalg.norm(means[:, alive], axis=0)
    return (units.T @ units)[np.triu_indices(int(alive.sum()), 1)]


def death_ratio(problem: Problem) -> np.ndarray:
    """``n_k`` over ``N^2 decay_W decay_H K/(K-1)`` (K,): a class dies at 1."""
    K = problem.classes
    return problem.counts / ((problem.samples * weight(problem)) ** 2 * K / (K - 1))


def _unbiased(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    gaps, value = unbiased_ce(problem.counts, weight(problem))
    logits, labels = np.asarray(problem.logits(evidence.solution.params)), problem.labels
    true = logits[labels, np.arange(len(labels))]
    found = true - (logits.sum(axis=0) - true) / (problem.classes - 1)
    _, alive = class_features(problem, evidence.solution.params)
    living = death_ratio(problem) > 1
    quantities = [lowest(evidence, value)]
    quantities += [quantity("distance of the gaps a_k", 0.0, float(np.abs(found - gaps[labels]).max()), 1e-5)]
    alive &= living.any()  # where all is zero, sizes relative to the largest say nothing
    quantities += [yes(f"class {k} lives", bool(living[k]), bool(alive[k])) for k in range(problem.classes)]
    pairs = cosines(problem, evidence.solution.params) if living.sum() > 1 else np.zeros(1)
    return [*quantities, quantity("largest cosine of two living classes", 0.0, float(pairs.max()), 1e-6)]


UNBIASED = Theorem(
    id="dang2024/ce",
    source="Dang et al. 2024, as summarised; re-derived",
    statement="Without bias, class means of non-negative features are orthogonal, and small classes vanish.",
    formula="1 - p_k = N s sqrt((K-1)/(K n_k)), s^2 = decay_W decay_H; h_k = 0 iff n_k <= N^2 s^2 K/(K-1)",
    hypotheses=CROSS_ENTROPY & no_bias & away_from("the death of a class", death_ratio),
    claim=_unbiased,
    case=lambda p: tuple(death_ratio(p) > 1),
    draw=NonnegativeFamily(lambda rng: CE(), COUNTS, ("none",), strength=(0.02, 1.5)),
)


def largest_cosine() -> float:
    """What orthogonality says."""
    return 0.0


def _biased(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    pairs = cosines(problem, evidence.solution.params)
    found = float(pairs.max()) if len(pairs) else largest_cosine()
    return [quantity("largest cosine of two living classes", largest_cosine(), found, 1e-6)]


BIASED = Theorem(
    id="dang2024/ce-bias",
    source="Dang et al. 2024, carried over to a decayed bias",
    statement="With a decayed bias, too, the class means of non-negative features are orthogonal.",
    formula="h_j'h_k = 0; false where sum p^2 > p_j + p_k, as then the classes gain by sharing features",
    hypotheses=CROSS_ENTROPY & bias_per_class & decayed_bias,
    claim=_biased,
    recorded=Verdict.REFUTED,
    draw=NonnegativeFamily(lambda rng: CE(), ((4, 5, (100, 100, 4, 4)),), strength=(0.02, 1.0), decay_b=(1e-4, 1.0)),
)

THEOREMS = (UNBIASED, BIASED)

"""Li, Li, Wang & Qu 2024, "Neural Collapse in Multi-label Learning with Pick-all-label Loss"."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ufm.atlas._claims import lowest, nonzero, weight
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import Family
from ufm.atlas.hypotheses import Hypothesis, away_from, dim_at_least, free_classifier, loss
from ufm.losses import CE
from ufm.problem import Problem
from ufm.targets import Columns, sets
from ufm.theory.columns import pick_all_label


def all_sets(classes: int, counts: Mapping[int, int]) -> Columns:
    """Every set of m labels, with ``counts[m]`` samples each."""
    members = [(S, n) for m, n in counts.items() for S in itertools.combinations(range(classes), m)]
    S = np.zeros((classes, len(members)))
    for g, (labels, _) in enumerate(members):
        S[list(labels), g] = 1.0
    return sets(S, tuple(n for _, n in members))


def counts_by_size(problem: Problem) -> dict[int, int] | None:
    """``n_m`` of every set of m labels; None where some set of that size is missing or has another count."""
    if problem.labeled or problem.targets.kind != "sets":
        return None
    Y, counts = np.asarray(problem.targets.Y), problem.counts
    found = {}
    for m in sorted({int(x) for x in Y.sum(axis=0)}):
        of_size = Y.sum(axis=0) == m
        sizes, columns = set(counts[of_size].tolist()), np.unique(Y[:, of_size], axis=1)
        if len(sizes) > 1 or not columns.shape[1] == of_size.sum() == math.comb(problem.classes, m):
            return None
        found[m] = sizes.pop()
    return found


def balanced_by_size(problem: Problem) -> bool:
    """Whether all sets of a size have one count, and nothing else tells classes apart."""
    return counts_by_size(problem) is not None and problem.classes_alike


def zero_ratio(problem: Problem) -> float:
    """``N s`` over ``sqrt(sum_m n_m C(K-2, m-1))``: all is zero from 1 on."""
    sizes = counts_by_size(problem) or {}
    return (
        problem.samples
        * weight(problem)
        / np.sqrt(sum(n * math.comb(problem.classes - 2, m - 1) for m, n in sizes.items()))
    )


BALANCED = Hypothesis("all label sets of a size, equally often", balanced_by_size, lambda p: str(p.targets or "labels"))


def _claim(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    K = problem.classes
    amplitudes, value = pick_all_label(K, counts_by_size(problem) or {}, weight(problem))
    x, Y = evidence.solution.params, np.asarray(problem.targets.Y)[:, problem.labels]
    Z = np.asarray(problem.logits(x))
    sizes = Y.sum(axis=0)
    wanted = np.array([amplitudes[int(m)] for m in sizes]) * (Y - sizes / K)
    quantities = [
        lowest(evidence, value),
        quantity("distance of the logits", 0.0, float(np.abs(Z - wanted).max()), 1e-5),
    ]
    if all(a == 0 for a in amplitudes.values()):
        return quantities
    W = np.asarray(x.W)
    gram = (W @ W.T) / np.linalg.norm(W @ W.T)
    etf = (np.eye(K) - 1.0 / K) / np.sqrt(K - 1.0)
    tags = (W.T @ Y) / np.linalg.norm(W.T @ Y, axis=0)
    H = np.asarray(x.H)
    cosines = np.sum(tags * H, axis=0) / np.linalg.norm(H, axis=0)
    return [
        *quantities,
        nonzero(problem, evidence),
        quantity("distance of W W' from an ETF", 0.0, float(np.linalg.norm(gram - etf)), 1e-5),
        quantity("least cosine of a feature and the sum of its tags' rows", 1.0, float(cosines.min()), 1e-6),
    ]


@dataclass(frozen=True)
class SetFamily(Family):
    """Draws multi-label problems in which all sets of a size are equally frequent."""

    sizes: tuple[tuple[int, ...], ...] = ((1, 2),)

    def __call__(self, rng: np.random.Generator) -> Problem:
        """One problem."""
        plain = super().__call__(rng)
        sizes = self.sizes[rng.integers(len(self.sizes))]
        targets = all_sets(plain.classes, {m: int(rng.integers(1, 4)) for m in sizes})
        return replace(plain, per_class=None, targets=targets)


PICK_ALL = Theorem(
    id="li2024/pick-all-label",
    source="Li, Li, Wang & Qu 2024, Thm 1, as summarised; amplitudes and threshold derived here",
    statement="With the pick-all-label loss W is a simplex ETF; a set's feature is the scaled sum of its rows.",
    formula="X_S = a_m (1_S - m/K); zero iff sqrt(sum_m n_m C(K-2, m-1)) <= N s",
    hypotheses=loss(CE) & free_classifier & BALANCED & dim_at_least(-1) & away_from("zero", zero_ratio),
    claim=_claim,
    case=lambda p: zero_ratio(p) < 1,
    draw=SetFamily(
        lambda rng: CE(), ((4, 4, 1), (3, 2, 1)), ("per_class", "none"), strength=(0.01, 2.0), sizes=((1, 2), (2,))
    ),
    covers=("targets",),
)

THEOREMS = (PICK_ALL,)

"""Schur's lemma on targets: symmetry alone makes the classifier a simplex ETF (derived here; Fisher et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ufm.atlas._claims import ZERO, size_of_factors
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import Family
from ufm.atlas.hypotheses import Hypothesis, dim_at_least, free_classifier, loss
from ufm.losses import BCE, CE, LabelSmoothing
from ufm.problem import Problem
from ufm.targets import Columns, mixup, soft
from ufm.theory.columns import SYMMETRIC, pair_symmetry


def symmetric_pairs(problem: Problem) -> bool:
    """Whether the targets' symmetries take every pair of classes to every other, and nothing else tells them apart."""
    few = not problem.labeled and problem.classes <= SYMMETRIC
    return few and problem.classes_alike and pair_symmetry(problem.targets)


SYMMETRY = Hypothesis(
    f"targets whose symmetries are transitive on pairs of at most {SYMMETRIC} classes",
    symmetric_pairs,
    lambda p: "class labels" if p.labeled else p.targets.words,
)


def off_symmetric(gram: np.ndarray) -> float:
    """Distance of ``W W'`` from the matrices ``x M + y J``, relative to its norm."""
    K = len(gram)
    diagonal, other = np.trace(gram) / K, (gram.sum() - np.trace(gram)) / (K * (K - 1))
    return float(np.linalg.norm(gram - np.where(np.eye(K, dtype=bool), diagonal, other)) / np.linalg.norm(gram))


def _claim(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    W = np.asarray(evidence.solution.params.W)
    if size_of_factors(problem, evidence) <= ZERO:  # zero is symmetric
        return [quantity("norm of W and H", 0.0, size_of_factors(problem, evidence), ZERO)]
    quantities = [quantity("distance of W W' from x M + y J", 0.0, off_symmetric(W @ W.T), 1e-5)]
    if problem.loss.shift_invariant:
        mean = float(np.linalg.norm(W.sum(axis=0)) / np.linalg.norm(W))
        quantities.append(quantity("sum of the rows of W", 0.0, mean, 1e-5))
    return quantities


def orbit(column: np.ndarray) -> Columns:
    """A column and all its images under ``x -> a x + b`` mod K, K a prime: a group transitive on ordered pairs."""
    K = len(column)
    places = np.arange(K)
    images = np.stack([column[(a * places + b) % K] for a in range(1, K) for b in range(K)], axis=1)
    return soft(np.unique(images.round(12), axis=1))


@dataclass(frozen=True)
class SymmetricFamily(Family):
    """Draws soft targets with symmetry: cycles of three classes, orbits of five, mixup of four."""

    def __call__(self, rng: np.random.Generator) -> Problem:
        """One problem."""
        plain = super().__call__(rng)
        kind = {3: 0, 4: 1, 5: 2}[plain.classes]
        column = rng.dirichlet(np.full(plain.classes, 0.7)).round(3)
        column[0] += 1.0 - column.sum()
        if kind == 0:
            targets = soft(np.stack([np.roll(column, i) for i in range(3)], axis=1))
        else:
            targets = mixup(4, float(rng.uniform(0.2, 0.8)), 2, 1) if kind == 1 else orbit(column)
        return replace(plain, per_class=None, targets=targets)


LEMMA = Theorem(
    id="schur/pairs",
    source="derived here (Schur's lemma); mixup: Fisher, Meng & Papyan 2024, as summarised",
    statement="Where the symmetries of the targets take every pair of classes to every other, W is a simplex ETF for "
    "shift-invariant losses, and equiangular with equal norms for BCE: a consequence, not an assumption.",
    formula="W W' = x M + y J; y = 0 for shift-invariant losses",
    hypotheses=loss(CE, LabelSmoothing, BCE) & free_classifier & SYMMETRY & dim_at_least(0),
    claim=_claim,
    draw=SymmetricFamily(
        lambda rng: [CE(), BCE(), LabelSmoothing(0.1)][rng.integers(3)],
        ((3, 3, 1), (4, 5, 1), (5, 5, 1)),
        ("per_class", "none"),
        strength=(0.01, 0.5),
    ),
    covers=("targets",),
)

THEOREMS = (LEMMA,)

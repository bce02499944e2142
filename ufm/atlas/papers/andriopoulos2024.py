"""Andriopoulos, Dong, Guo, Zhao & Ross 2024, "The Prevalence of Neural Collapse in Neural Multivariate Regression"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ufm.atlas._claims import lowest, weight
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import Family
from ufm.atlas.hypotheses import Hypothesis, away_from, free_bias, free_classifier, loss
from ufm.losses import MSE
from ufm.problem import Problem
from ufm.targets import values
from ufm.theory.columns import regression


def spectrum(problem: Problem) -> np.ndarray:
    """Singular values of ``(Y - mean) diag(sqrt n)`` over ``N s/2``: one is kept where it exceeds 1."""
    n = np.asarray(problem.counts, float)
    Y = np.asarray(problem.targets.Y)
    centered = (Y - (Y @ n / n.sum())[:, None]) * np.sqrt(n)
    sizes = np.linalg.svd(centered, compute_uv=False)
    return sizes[sizes > 1e-9 * max(sizes.max(initial=0.0), 1e-300)] / (0.5 * problem.samples * weight(problem))


REGRESSION = Hypothesis(
    "squared error of values, no weights or offset",
    lambda p: not p.labeled and p.weights is None and p.offset is None,
    lambda p: p.targets.words if not p.labeled else "class labels",
)


def gram(problem: Problem) -> np.ndarray:
    """``W W' = sqrt(decay_H/decay_W) ((Y_c diag(n) Y_c')^(1/2) - (N s/2) I)_+``, the largest d parts of it."""
    n = np.asarray(problem.counts, float)
    Y = np.asarray(problem.targets.Y)
    U, sizes, _ = np.linalg.svd((Y - (Y @ n / n.sum())[:, None]) * np.sqrt(n), full_matrices=False)
    kept = np.maximum(sizes - 0.5 * problem.samples * weight(problem), 0.0) * (np.arange(len(sizes)) < problem.dim)
    return float(problem.decay.ratio) * (U * kept) @ U.T


def _claim(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    X, b, value = regression(problem)
    x, wanted = evidence.solution.params, gram(problem)
    W, Z = np.asarray(x.W), np.asarray(problem.logits(x))
    size = max(1.0, float(np.abs(X).max()))
    return [
        lowest(evidence, value),
        quantity("distance of the fit", 0.0, float(np.abs(Z - (X + b[:, None])[:, problem.labels]).max()), size=size),
        quantity("distance of W W'", 0.0, float(np.abs(W @ W.T - wanted).max()), size=max(1.0, np.abs(wanted).max())),
    ]


@dataclass(frozen=True)
class ValueFamily(Family):
    """Draws regression problems: normal values with a mean, and random counts."""

    groups: int = 5

    def __call__(self, rng: np.random.Generator) -> Problem:
        """One problem."""
        plain = super().__call__(rng)
        counts = tuple(int(n) for n in rng.integers(1, 5, self.groups))
        Y = rng.normal(size=(plain.classes, self.groups)) + rng.normal(size=(plain.classes, 1))
        return replace(plain, per_class=None, targets=values(Y, counts))


REGRESSION_COLLAPSE = Theorem(
    id="andriopoulos2024/collapse",
    source="Andriopoulos et al. 2024, Thm 4.1, as summarised; any d and counts derived here",
    statement="Regression with a free bias collapses to the principal parts of the centered targets that exceed a "
    "threshold.",
    formula="W W' = sqrt(decay_H/decay_W) ((Y_c diag(n) Y_c')^(1/2) - (N s/2) I)_+",
    hypotheses=loss(MSE) & free_classifier & REGRESSION & free_bias & away_from("a part's threshold", spectrum),
    claim=_claim,
    case=lambda p: tuple(spectrum(p) > 1),
    draw=ValueFamily(lambda rng: MSE(), ((3, 4, 1), (4, 5, 1)), decay_b=(0.0, 0.0), strength=(0.02, 2.0)),
    covers=("targets",),
)

THEOREMS = (REGRESSION_COLLAPSE,)

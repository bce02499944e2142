"""Zhou, You, Li, Liu, Liu, Qu & Zhu 2022, "Are All Losses Created Equal: A Neural Collapse Perspective"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from ufm.atlas._claims import all_zero, etf_geometry, minimum, strength, symmetric_logits
from ufm.atlas._core import Evidence, Quantity, Theorem
from ufm.atlas.zhu2021 import is_balanced
from ufm.losses import Focal, LabelSmoothing
from ufm.problem import Problem
from ufm.theory import closed_forms
from ufm.theory.closed_forms import Logits

PAPER = "Zhou et al. 2022 (all losses)"


def _smoothing(problem: Problem) -> bool:
    return isinstance(problem.loss, LabelSmoothing) and is_balanced(problem)


def _smoothed_strength(problem: Problem) -> float:
    """``alpha + K mu``: below 1 the classes separate."""
    return float(problem.loss.hyper["alpha"]) + problem.classes * strength(problem)


def _ls(problem: Problem) -> Logits:
    return closed_forms.label_smoothing(strength(problem), problem.classes, float(problem.loss.hyper["alpha"]))


def _ls_minimiser(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return symmetric_logits(problem, evidence, _ls(problem)) + etf_geometry(problem, evidence)


def _ls_threshold(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return symmetric_logits(problem, evidence, _ls(problem)) + all_zero(problem, evidence)


LABEL_SMOOTHING = Theorem(
    id="zhou2022/ls",
    source=f"{PAPER}, Thm 1 for label smoothing",
    statement="Global minimisers of label smoothing collapse to a centred simplex ETF.",
    formula="a = log(1/(alpha/K + mu) - K + 1)",
    hypotheses="label smoothing, balanced, d >= K-1, alpha + K mu < 1",
    inside=lambda p: _smoothing(p) and _smoothed_strength(p) < 1,
    claim=_ls_minimiser,
)
LABEL_SMOOTHING_ZERO = Theorem(
    id="zhou2022/ls-zero",
    source=f"{PAPER}, from Thm 1",
    statement="Above a threshold the minimiser of label smoothing is W = H = 0.",
    formula="zero iff alpha + K mu >= 1",
    hypotheses="label smoothing, balanced, d >= K-1, alpha + K mu >= 1",
    inside=lambda p: _smoothing(p) and _smoothed_strength(p) >= 1,
    claim=_ls_threshold,
)


def focal_gaps(mu: float, classes: int, gamma: float) -> list[float]:
    """All stationary gaps a > 0 of focal loss, and 0: roots of the stationarity equation on a fine grid."""
    grid = np.linspace(1e-9, 60.0, 6001)
    values = np.array([closed_forms.focal_stationarity(a, mu, classes, gamma) for a in grid])
    cells = np.flatnonzero(values[:-1] * values[1:] < 0)
    arguments = (mu, classes, gamma)
    return [0.0] + [
        brentq(closed_forms.focal_stationarity, grid[i], grid[i + 1], args=arguments, xtol=1e-14) for i in cells
    ]


def _focal(problem: Problem) -> Logits:
    gamma, K = float(problem.loss.hyper["gamma"]), problem.classes
    points = [Logits(a, 0.0, 0.0, a * (K - 1) / K, -a / K) for a in focal_gaps(strength(problem), K, gamma)]
    return min(points, key=lambda point: minimum(problem, point))


def _focal_minimiser(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = _focal(problem)
    shape = etf_geometry(problem, evidence) if predicted.gap > 0 else all_zero(problem, evidence)
    return symmetric_logits(problem, evidence, predicted) + shape


FOCAL = Theorem(
    id="zhou2022/focal",
    source=f"{PAPER}, Thm 1 for focal loss",
    statement="Global minimisers of focal loss collapse to a centred simplex ETF.",
    formula="(1-pi)^gamma [(1-pi) - gamma pi log pi] = (K-1) mu, pi = 1/(1 + (K-1) e^-a); the best root or a = 0",
    hypotheses="focal, balanced, d >= K-1",
    inside=lambda p: isinstance(p.loss, Focal) and is_balanced(p),
    claim=_focal_minimiser,
)

THEOREMS = (LABEL_SMOOTHING, LABEL_SMOOTHING_ZERO, FOCAL)

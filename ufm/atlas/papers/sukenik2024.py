"""Súkeník et al. 2024, "Neural Collapse versus Low-rank Bias: Is Deep Neural Collapse Really Optimal?".

For K = r(r-1)/2 classes, the pairs of r points, let B (r, K) say which points a pair has. B'B - J has 1 on its diagonal
and 0 or -1 off it, so ``relu(B'B - J) = I``: layers of rank r below the last two do the work of rank K. Each of the M
factors costs the same at its best scale, so at equal scores x the point's penalty is

    kappa n^{1/M} (K * K r/4 * r^{L-2} * 2K)^{1/M} x^{2/M}

and collapse has K in place of the root: the decays play no part (`penalty_ratio`). Balanced, no bias, ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import jax.numpy as jnp
import numpy as np

from ufm.atlas._claims import yes
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._deep import DeepFamily, deep, layers, living, wide
from ufm.atlas.hypotheses import Hypothesis, balanced, loss, no_bias, number
from ufm.atlas.papers import dang2023
from ufm.atlas.papers.mse import plain
from ufm.losses import MSE
from ufm.models import Deep
from ufm.problem import Params, Problem

PAPER = "Súkeník et al. 2024"


def points_of(classes: int) -> int:
    """R with ``K = r(r-1)/2``; 0 if there is none."""
    r = (1 + isqrt(1 + 8 * classes)) // 2
    return r if r * (r - 1) // 2 == classes else 0


def penalty_ratio(classes: int, layers: int) -> float:
    """Penalty of the low-rank point over that of collapse, at equal scores."""
    K, r, M = float(classes), points_of(classes), layers + 1
    return float((K * (K * r / 4.0) * r ** (layers - 2) * 2.0 * K) ** (1.0 / M) / K)


def low_rank_point(problem: Problem, score: float) -> Params:
    """The point with logits ``score I`` whose features are the triangular graph's below the last two layers."""
    K, L, r = problem.classes, layers(problem), points_of(problem.classes)
    pairs = [(i, j) for i in range(r) for j in range(i)]
    B = np.zeros((r, K))
    for k, pair in enumerate(pairs):
        B[list(pair), k] = 1.0
    parts = [score * np.eye(K), B.T - 0.5, *[np.eye(r)] * (L - 2)]
    shapes = zip((K, *problem.model.inner(problem)), problem.model.inner(problem), strict=False)
    W = tuple(
        jnp.zeros(shape).at[: part.shape[0], : part.shape[1]].set(part)
        for part, shape in zip(parts, shapes, strict=True)
    )
    H = jnp.zeros((problem.dim, problem.columns)).at[:r].set(B[:, problem.labels])
    return problem.model.equalized(problem, Params(W, H))


relu = Hypothesis(
    "a ReLU", lambda p: isinstance(p.model, Deep) and p.model.activation == "relu", lambda p: str(p.model)
)
graph = Hypothesis("K = r(r-1)/2, r >= 4", lambda p: points_of(p.classes) >= 4, lambda p: f"K = {p.classes}")
cheaper = number("penalty of the low-rank point over collapse", lambda p: penalty_ratio(p.classes, layers(p)), "<", 1)


def _lower(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    x, collapse = dang2023.shrunk_score(problem), dang2023.squares_value(problem)
    point = low_rank_point(problem, x)
    K = problem.classes
    fit = (1.0 - x) ** 2
    ratio = (float(problem.objective(point)) - fit) / (collapse - fit)
    logits = np.asarray(problem.scores(point)) - x * np.eye(K)[:, problem.labels]
    return [
        yes("a point lies below collapse", True, float(problem.objective(point)) < collapse),
        quantity("penalty over that of collapse", penalty_ratio(K, layers(problem)), ratio, 1e-9),
        quantity("distance of the logits from x I", 0.0, float(np.abs(logits).max()), 1e-9),
    ]


LOW_RANK = Theorem(
    id="sukenik2024/low-rank",
    source=f"{PAPER}, as summarised in its abstract; construction and ratio: this package",
    statement="With a ReLU and enough layers and classes, collapse of MSE is not optimal: rank r ~ sqrt(2K) is lower.",
    formula="(K * K r/4 * r^{L-2} * 2K)^{1/M} < K",
    hypotheses=loss(MSE)
    & plain
    & deep
    & relu
    & balanced
    & no_bias
    & wide
    & number("L", layers, ">=", 3)
    & graph
    & cheaper
    & living,
    claim=_lower,
    minimum=False,
    draw=DeepFamily(lambda rng: MSE(1.0, 1.0), ((6, 6, 1),), ("none",), strength=(0.02, 0.5), model=Deep(4, "relu")),
)

THEOREMS = (LOW_RANK,)

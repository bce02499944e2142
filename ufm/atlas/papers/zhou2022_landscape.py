"""Zhou et al. 2022 (all losses): which critical points are strict saddles, and where focal loss has other ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ufm.atlas._claims import minimum, value, yes
from ufm.atlas._core import Evidence, Quantity, Theorem, Undecided, Verdict, quantity
from ufm.atlas._draw import SHAPES, Family
from ufm.atlas.hypotheses import dim_at_least, number, strength
from ufm.atlas.papers.zhou2022 import (
    FOCAL_LOSS,
    PAPER,
    SMOOTHED,
    SMOOTHING,
    best_focal,
    random_focal,
    smoothed_separating,
)
from ufm.atlas.papers.zhu2021 import coarse_point, escape, saddles
from ufm.landscape.critical import CriticalPoint, Escape
from ufm.landscape.finder import LIMIT, find_critical_points, structured_starts
from ufm.landscape.hvp import Hessian
from ufm.losses import Focal
from ufm.problem import Params, Problem
from ufm.proof.claims import Refutation
from ufm.theory import closed_forms, minimizer

STARTS = 12
"""Of the search for critical points: it finds two to eight of them, the origin among them or not."""

LS_SADDLES = Theorem(
    id="zhou2022/ls-strict-saddle",
    source=f"{PAPER}, benign landscape of label smoothing",
    statement="Critical points of label smoothing that are not global are strict saddles.",
    formula="curvature -2 (||grad_Z|| - sqrt(decay_W decay_H)) ||a||^2 < 0 at the origin and the coarse-label points",
    hypotheses=SMOOTHING & smoothed_separating,
    claim=lambda p, e: saddles(p, float(p.loss.hyper["alpha"])),
    minimum=False,
    draw=SMOOTHED,
)


def focal_origin_slope(problem: Problem) -> float:
    """``||grad_Z|| / sqrt(decay_W decay_H)`` of focal loss at the origin: pi = 1/K in its stationarity equation."""
    K, gamma = problem.classes, float(problem.loss.hyper["gamma"])
    slope = closed_forms.focal_stationarity(0.0, 0.0, K, gamma)
    return float(slope / ((K - 1) * strength(problem)))


steep_origin = number("||grad_Z||/sqrt(decay_W decay_H) at the origin", lambda p: focal_origin_slope(p), ">", 1)


FOCAL_SADDLE = Theorem(
    id="zhou2022/focal-strict-saddle",
    source=f"{PAPER}, locally benign landscape of focal loss, at the origin",
    statement="The origin is a strict saddle of focal loss where its logit gradient exceeds the decays.",
    formula="(1-1/K)^gamma [(1-1/K) + (gamma/K) log K] > (K-1) mu, curvature as in Zhu et al. 2021",
    hypotheses=FOCAL_LOSS & dim_at_least(-1) & steep_origin,
    claim=lambda p, e: escape(p, coarse_point(p, 1), "origin"),
    minimum=False,
    draw=Family(random_focal, SHAPES),
)


# Critical points anywhere -------------------------------------------------------------------------


def _found_points(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Critical points from random and structured starts; the minimum from the scalar equation."""
    variables = Hessian(problem, problem.init(jax.random.key(0))).size
    if variables > LIMIT:
        raise Undecided(f"{variables} variables: the search for critical points takes at most {LIMIT}")
    found = find_critical_points(problem, structured_starts(problem, STARTS, evidence.seed))
    least = minimum(problem, best_focal(problem))
    found = [c for c in found if _balances(problem, c)]
    if not found:
        raise Undecided("the search found no critical point")
    others = [c for c in found if c.value > least * (1.0 + 1e-9)]
    safe = Focal(problem.loss.hyper["gamma"]).convex_probability
    steep = [c.escape for c in others if c.escape.promised < 0]
    size = max((abs(e.promised) for e in steep), default=1.0)
    trapped = [c for c in others if c.escape.promised >= 0 and _least_probability(problem, c.params) >= safe]
    return [
        quantity("curvature of the escape directions minus its formula", 0.0, _worst(steep), 1e-9, size),
        quantity("strict saddles among them", len(steep), sum(e.measured < 0 for e in steep)),
        quantity("points where focal loss is convex that do not escape", 0, len(trapped)),
        quantity("depth below the predicted minimum", 0.0, max(0.0, least - min(c.value for c in found)), 1e-9, least),
    ]


def _balances(problem: Problem, point: CriticalPoint) -> bool:
    """Whether the gradient vanishes beside the forces of the decays, to the tolerance of geometry, or at the origin.

    The search takes a gradient for zero by its size alone, which says nothing where the decays are as small.
    """
    W, H = (float(np.linalg.norm(np.asarray(x))) for x in (point.params.W, point.params.H))
    forces = float(problem.decay.W) * W + float(problem.decay.H) * H
    return point.grad_norm <= 1e-6 * forces or W + H <= 1e-9


def _worst(directions: list[Escape]) -> float:
    return max((abs(e.measured - e.promised) for e in directions), default=0.0)


def _least_probability(problem: Problem, params: Params) -> float:
    """Least softmax probability of a true class."""
    Z = np.asarray(problem.logits(params))
    true = Z[problem.labels, np.arange(problem.columns)]
    return float(np.exp(true - np.logaddexp.reduce(Z, axis=0)).min())


FOCAL_LANDSCAPE = Theorem(
    id="zhou2022/focal-landscape",
    source=f"{PAPER}, locally benign landscape of focal loss",
    statement="Where focal loss is convex, every critical point that is not global is a strict saddle.",
    formula="p_k >= p* (F'' = 0 there): f = f* or curvature -2 (||grad_Z|| - sqrt(decay_W decay_H)) ||a||^2 < 0",
    hypotheses=FOCAL_LOSS & dim_at_least(1),
    claim=_found_points,
    minimum=False,
    draw=Family(random_focal, ((3, 4, 1), (4, 5, 1)), strength=(0.02, 1.2)),
)


def _origin(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Objective at the origin and at the best ETF, a point that anyone can evaluate: no solve is needed to refute."""
    point = minimizer(problem).params
    best, at_zero = (
        float(value(problem, jax.tree.map(lambda x, s=size: s * jnp.asarray(x), point))) for size in (1, 0)
    )
    escapes = focal_origin_slope(problem) > 1
    return [
        yes("the origin is global or a strict saddle", True, escapes or at_zero <= best + 1e-12),
        quantity("objective at the best ETF", minimum(problem, best_focal(problem)), best, 1e-11),
    ]


def _just_flat_at_the_origin(rng: np.random.Generator) -> Problem:
    """Decays up to 2 % beyond those at which the origin stops being a strict saddle: ETFs still lie below it there."""
    problem = Family(random_focal, ((40, 41, 1),))(rng)
    factor = float(focal_origin_slope(problem)) * float(rng.uniform(1.0, 1.02))
    decay = dataclasses.replace(problem.decay, W=problem.decay.W * factor, H=problem.decay.H * factor)
    return dataclasses.replace(problem, decay=decay)


FOCAL_GLOBAL = Theorem(
    id="zhou2022/focal-landscape-global",
    source=f"{PAPER}, landscape of focal loss without its restriction to where the loss is convex",
    statement="Every critical point of focal loss that is not global is a strict saddle, the origin for one.",
    formula="f(0) = f* or (1-1/K)^gamma [(1-1/K) + (gamma/K) log K] > (K-1) mu",
    hypotheses=FOCAL_LOSS & dim_at_least(1),
    claim=_origin,
    minimum=False,
    recorded=Verdict.REFUTED,
    refutation=lambda p: Refutation(
        "zhou2022/focal-landscape-global",
        "the origin, a critical point, is a global minimizer or has negative curvature",
        "origin",
    ),
    draw=_just_flat_at_the_origin,
)

THEOREMS = (LS_SADDLES, FOCAL_SADDLE, FOCAL_LANDSCAPE, FOCAL_GLOBAL)

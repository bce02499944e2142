"""Non-negative features (this package): BCE's law, minorities that merge, and the landscape."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ufm.atlas._claims import logit_gradient, lowest, random_for, value, weight, yes
from ufm.atlas._core import Evidence, Quantity, Theorem, Undecided, converged, quantity
from ufm.atlas._draw import SHAPES, NonnegativeFamily
from ufm.atlas.hypotheses import (
    Hypothesis,
    away_from,
    balanced,
    bias_per_class,
    decayed_bias,
    dim_at_least,
    loss,
    nonnegative,
)
from ufm.atlas.papers.dang2024 import class_features, cosines
from ufm.losses import BCE, CE, MSE, LabelSmoothing
from ufm.models import Linear
from ufm.problem import Params, Problem
from ufm.solvers import solve
from ufm.theory import certify, minimizer
from ufm.theory.minimizer import Minimizer, symmetric_minimizer

SOURCE = "this package"


# The law of balanced problems ----------------------------------------------------------------------


def closed(problem: Problem) -> Minimizer:
    """The closed form."""
    return minimizer(problem)


def _law(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    best, x = closed(problem), evidence.solution.params
    found = evidence.scores
    a = found["positive"]["mean"] - found["negative"]["mean"]
    c = found["positive"]["mean"] + (problem.classes - 1) * found["negative"]["mean"]
    size = max(1.0, abs(best.gap))
    quantities = [lowest(evidence, best.value), quantity("gap a", best.gap, a, size=size)]
    quantities += [quantity("mean mode c", best.shift, c, size=size)]
    if best.regime != "zero" and best.gap > 0:
        # The Gram matrix of the features is |a| I + (|c| - |a|)/K J beyond |c| = |a|.
        beyond = max(abs(best.shift) - best.gap, 0.0) / problem.classes
        cosine = beyond / (best.gap + beyond)
        quantities.append(quantity("cosine of two class means", cosine, float(cosines(problem, x).mean()), 1e-5))
    return quantities


def _side(problem: Problem) -> tuple[bool, bool]:
    """Whether all is zero, and whether the minimizer with free features fits into the orthant."""
    free = symmetric_minimizer(dataclasses.replace(problem, model=Linear())).reduction
    return free.gap == 0, abs(free.shift) >= free.gap


LAW = Theorem(
    id="nonnegative/bce",
    source=SOURCE,
    statement="Balanced BCE with ReLU features has an orthogonal frame, or, past |c| = |a|, what free features have.",
    formula="min phi(p,q) + mu sqrt(K(K-1)a^2 + K c^2) + K decay_b beta^2/2 while |c| <= |a|",
    hypotheses=loss(BCE) & nonnegative & balanced & dim_at_least(0),
    claim=_law,
    case=_side,
    draw=NonnegativeFamily(lambda rng: BCE(), SHAPES, ("per_class", "none"), strength=(0.02, 0.8)),
)


# Merging -------------------------------------------------------------------------------------------


def merging_ratio(problem: Problem) -> float:
    """``sqrt(n_c)/N`` of the smallest classes over ``sqrt(decay_W decay_H)``: merged up to 1."""
    return float(np.sqrt(problem.counts.min())) / problem.samples / weight(problem)


def _merges(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    x, small = evidence.solution.params, np.flatnonzero(problem.counts == problem.counts.min())
    means, alive = class_features(problem, x)
    if not alive[small].all():
        raise Undecided("the smallest classes have no features")
    p = np.asarray(jax.nn.softmax(problem.logits(x), axis=0))[:, problem.labels == small[0]][:, 0]
    if np.sum(p**2) <= 2 * p[small[1]]:
        raise Undecided("the smallest classes push each other apart: sum p^2 <= 2 p_m")
    units = means[:, small] / np.linalg.norm(means[:, small], axis=0)
    return [
        yes("the smallest classes share one feature", merging_ratio(problem) <= 1, (units.T @ units).min() > 1 - 1e-7)
    ]


pairs = Hypothesis(
    "two smallest classes of one count",
    lambda p: int((p.counts == p.counts.min()).sum()) > 1 and not p.balanced,
    lambda p: f"n = {p.per_class}",
)
MERGING = Theorem(
    id="nonnegative/merging",
    source=SOURCE,
    statement="With a decayed bias, minorities of n_c samples share one ReLU feature beyond a threshold.",
    formula="h_i = h_j iff sqrt(n_c)/N <= sqrt(decay_W decay_H), while they live and sum p^2 > 2 p_m",
    hypotheses=loss(CE)
    & nonnegative
    & dim_at_least(0)
    & bias_per_class
    & decayed_bias
    & pairs
    & away_from("the threshold", merging_ratio),
    claim=_merges,
    draw=NonnegativeFamily(lambda rng: CE(), ((4, 5, (100, 100, 4, 4)),), strength=(0.2, 0.36), decay_b=(5e-4, 2e-3)),
)


# Landscape -----------------------------------------------------------------------------------------


STARTS = 6
"""Starts from which a point with one class dead is looked for: on its way a solve may find the class alive again."""


def one_dead(problem: Problem, *, spare: bool) -> Params:
    """A stationary point whose first class alone has no feature; with ``spare``, its last axis is not in use.

    Other classes share the axes between them, so that along each axis the dead class meets a slope upward.

    Raises:
        Undecided: if no start ends there.
    """
    for seed in range(STARTS):
        found = _near_one_dead(problem, seed, spare=spare)
        _, alive = class_features(problem, found)
        if not alive[0] and alive[1:].all():
            return found
    raise Undecided("not the first class alone is dead")


def _near_one_dead(problem: Problem, seed: int, *, spare: bool) -> Params:
    """Where a solve ends that begins with the first class dead."""
    rng, K = random_for(problem, seed), problem.classes
    axes = problem.dim - spare
    owners = 1 + np.arange(axes) % (K - 1)
    H = np.zeros((problem.dim, problem.columns))
    H[:axes] = (problem.labels[None, :] == owners[:, None]) * rng.uniform(0.5, 1.5, (axes, 1))
    W = np.zeros((K, problem.dim))
    W[:, :axes] = -0.2
    W[owners, np.arange(axes)] = 1.0
    shape = np.shape(problem.init(0).b) if problem.bias != "none" else None
    start = Params(jnp.asarray(W), jnp.asarray(H), None if shape is None else jnp.zeros(shape))
    return converged(solve(problem, init=start, saddles="keep"), "the point with a dead class").params


def steepness(problem: Problem, params: Params) -> float:
    """``||V e_1||/sqrt(decay_W decay_H)``, V the gradient in the first class's logits over the root of its count."""
    G = np.asarray(logit_gradient(problem, params))[:, problem.labels == 0]
    return float(np.linalg.norm(G.sum(axis=1))) / np.sqrt(problem.counts[0]) / weight(problem)


def _unused(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    x, t = one_dead(problem, spare=True), 1e-3
    V = np.asarray(logit_gradient(problem, x))[:, problem.labels == 0].sum(axis=1)
    W, H = np.array(x.W), np.array(x.H)
    W[:, -1] = -t * V / np.linalg.norm(V) / np.sqrt(float(problem.decay.W))
    H[-1, problem.labels == 0] = t / np.sqrt(float(problem.decay.H) * problem.counts[0])
    moved = (float(value(problem, Params(W, H, x.b))) - float(value(problem, x))) / t**2
    ratio = steepness(problem, x)
    tight = certify(problem, x).gap <= 1e-9
    found = [quantity("curvature along the unused axis", 1.0 - ratio, moved, 1e-3 * max(1.0, ratio))]
    return [*found, yes("the certificate closes", ratio <= 1.0, bool(tight))]


UNUSED = Theorem(
    id="nonnegative/unused-axis",
    source=SOURCE,
    statement="Where an axis is unused, a stationary point that no second-order step leaves is a global minimum.",
    formula="f(t)/t^2 = 1 - ||V h||/s along (w, h) on the axis: >= 0 for all h >= 0 iff s^2 I - V'V is copositive",
    hypotheses=loss(CE, BCE, LabelSmoothing, MSE) & nonnegative & dim_at_least(0),
    claim=_unused,
    minimum=False,
    draw=NonnegativeFamily(lambda rng: CE(), ((4, 5, 3), (4, 4, (6, 4, 3, 3))), strength=(0.05, 0.9)),
)


def pushed(problem: Problem, params: Params, size: float) -> Params:
    """A random point near ``params``, ``size`` relative to it, features kept non-negative."""
    rng = random_for(problem, 1)
    move = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=np.shape(x))), params)
    scale = {name: size * float(jnp.sqrt(jnp.mean(jnp.square(getattr(params, name))))) for name in ("W", "H")}
    return Params(params.W + scale["W"] * move.W, jnp.maximum(params.H + scale["H"] * move.H, 0.0), params.b)


PUSH = 1e-2
"""Size of the push relative to the point."""


def _blocked(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    x = one_dead(problem, spare=False)
    gap = certify(problem, x).gap
    if gap <= 1e-6:
        raise Undecided("the first class is dead at the global minimum")
    before = float(value(problem, x))
    back = converged(solve(problem, init=pushed(problem, x, PUSH), saddles="keep"), "from the push")
    return [
        quantity("value after a push", before, float(back.value), 1e-9 * before),
        yes("a gap is left", True, gap > 0),
    ]


BLOCKED = Theorem(
    id="nonnegative/blocked",
    source=SOURCE,
    statement="Where living classes use all axes, a dead class is blocked on each: a spurious local minimum.",
    formula="along an axis of class j the dead class k meets the slope p^k_j > 0",
    hypotheses=loss(CE, BCE, LabelSmoothing, MSE) & nonnegative & balanced & dim_at_least(0),
    claim=_blocked,
    minimum=False,
    draw=NonnegativeFamily(lambda rng: CE(), ((4, 5, 3), (4, 8, 3)), strength=(0.02, 0.4)),
)

THEOREMS = (LAW, MERGING, UNUSED, BLOCKED)

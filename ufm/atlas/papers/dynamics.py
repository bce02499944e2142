"""Exact laws of training: what gradient descent and gradient flow keep, whatever else they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ufm.atlas._claims import gradient, logit_gradient
from ufm.atlas._core import Evidence, Quantity, Theorem, Undecided, quantity
from ufm.atlas._draw import Family, Shape
from ufm.atlas.hypotheses import Hypothesis, free_classifier
from ufm.losses import BCE, CE, Focal, Loss
from ufm.problem import Params, Problem

SOURCE = "classical (Arora et al. 2018; Du et al. 2018), with decay"
SHAPES: tuple[Shape, ...] = ((4, 5, 3), (4, 3, (5, 3, 3, 1)))
TIME, STEPS = 5.0, 400
"""Length of the gradient flow, in the time scale of the decay where that is short, and number of Runge-Kutta steps."""


def imbalance(params: Params) -> np.ndarray:
    """``W'W - H H'`` (d, d)."""
    W, H = np.asarray(params.W), np.asarray(params.H)
    return W.T @ W - H @ H.T


def size_of(params: Params) -> float:
    """``||W||^2 + ||H||^2``: what the imbalance is a difference of."""
    return float(np.sum(np.asarray(params.W) ** 2) + np.sum(np.asarray(params.H) ** 2))


@jax.jit
def flow(problem: Problem, params: Params, steps: int = STEPS) -> Params:
    """Gradient flow for ``TIME/(1 + decay_W)``, by the classical Runge-Kutta method of order 4."""
    step = jnp.asarray(TIME, params.H.dtype) / (1.0 + jnp.asarray(problem.decay.W, params.H.dtype)) / steps

    def velocity(x: Params) -> Params:
        return jax.tree.map(lambda g: -g, jax.grad(problem.objective)(x))

    def move(x: Params, v: Params, t: Any) -> Params:
        return jax.tree.map(lambda a, b: a + t * b, x, v)

    def advance(_: int, x: Params) -> Params:
        k1 = velocity(x)
        k2 = velocity(move(x, k1, 0.5 * step))
        k3 = velocity(move(x, k2, 0.5 * step))
        k4 = velocity(move(x, k3, step))
        return jax.tree.map(lambda a, b, c, d, e: a + step / 6.0 * (b + 2.0 * c + 2.0 * d + e), x, k1, k2, k3, k4)

    return jax.lax.fori_loop(0, steps, advance, params)


def _start(problem: Problem, seed: int) -> Params:
    return problem.init(jax.random.key(seed))


def _equal_decays(problem: Problem) -> bool:
    """A feature that stands for m samples has m times the decay."""
    decay = float(problem.decay.H) * problem.multiplicity
    return bool(np.allclose(decay, float(problem.decay.W), rtol=1e-12, atol=0.0))


equal_decays = Hypothesis(
    "decay_W = m decay_H for features of m samples",
    _equal_decays,
    lambda p: f"decay_W = {float(p.decay.W):.4g}, m decay_H = {np.max(float(p.decay.H) * p.multiplicity):.4g}",
)


def kept(decay: float) -> float:
    """``e^(-2 lambda t)``, the part of the imbalance that a flow for ``t = TIME/(1 + lambda)`` leaves."""
    return float(np.exp(-2.0 * decay * TIME / (1.0 + decay)))


def _flow_law(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    start = _start(problem, evidence.seed)
    ends = [flow(problem, start, steps) for steps in (STEPS, 2 * STEPS)]
    before, coarse, after = map(imbalance, (start, *ends))
    size, error = size_of(start), np.abs(coarse - after).max()
    if not error <= 1e-8 * size:
        raise Undecided(f"the flow is not resolved in {2 * STEPS} steps: halving them moves it by {error:.1e}")
    left = kept(float(problem.decay.W))
    return [
        quantity("size of W'W - HH' after the flow", left * np.linalg.norm(before), np.linalg.norm(after), 1e-8, size),
        quantity("its distance from the law", 0.0, np.abs(after - left * before).max(), 1e-8, size),
    ]


def imbalance_after(x: Params, G: np.ndarray, step: float, decay: float) -> np.ndarray:
    """``(1 - eta lambda)^2 D + eta^2 (H G'G H' - W'G G'W)``, D the imbalance of ``x``, G the gradient in Z."""
    W, H = np.asarray(x.W), np.asarray(x.H)
    return (1.0 - step * decay) ** 2 * imbalance(x) + step**2 * (H @ G.T @ G @ H.T - W.T @ G @ G.T @ W)


def _descent_law(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """One step of gradient descent, the gradient in (W, H) by autodiff and in Z by autodiff of the loss alone."""
    x, decay = _start(problem, evidence.seed), float(problem.decay.W)
    step = 0.5 / (1.0 + decay)  # a longer one only magnifies the start
    g = gradient(problem, x)
    moved = Params(*(np.asarray(a) - step * np.asarray(b) for a, b in ((x.W, g.W), (x.H, g.H))))
    predicted = imbalance_after(x, np.asarray(logit_gradient(problem, x)), step, decay)
    found, size = imbalance(moved), size_of(x) + size_of(moved)
    return [
        quantity("size of W'W - HH' after a step", np.linalg.norm(predicted), np.linalg.norm(found), 1e-12, size),
        quantity("its distance from the law", 0.0, np.abs(found - predicted).max(), 1e-12, size),
    ]


def _loss(rng: np.random.Generator) -> Loss:
    return (CE(), BCE(), Focal(2.0))[rng.integers(3)]


FLOW = Theorem(
    id="dynamics/flow",
    source=SOURCE,
    statement="With equal decays the imbalance of the layers decays exactly under gradient flow, for every loss.",
    formula="W'W - HH' (t) = e^(-2 lambda t) (W'W - HH')(0)",
    hypotheses=free_classifier & equal_decays,
    claim=_flow_law,
    minimum=False,
    draw=Family(_loss, SHAPES, balance=(1.0, 1.0), strength=(0.01, 5.0)),
)
DESCENT = Theorem(
    id="dynamics/descent",
    source=f"{SOURCE}; discrete form (this package)",
    statement="Gradient descent adds to that law a term of second order in the step.",
    formula="D+ = (1 - eta lambda)^2 D + eta^2 (H G'G H' - W'G G'W), G the gradient of the mean loss in Z",
    hypotheses=free_classifier & equal_decays,
    claim=_descent_law,
    minimum=False,
    draw=Family(_loss, SHAPES, balance=(1.0, 1.0)),
)


def balance(problem: Problem, x: Params) -> tuple[np.ndarray, np.ndarray]:
    """``decay_W W'W`` and ``decay_H sum_i m_i h_i h_i'`` (d, d)."""
    W, H = np.asarray(x.W), np.asarray(x.H)
    return float(problem.decay.W) * W.T @ W, float(problem.decay.H) * (H * problem.multiplicity) @ H.T


def _balance(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    left, right = balance(problem, evidence.critical.params)
    size = abs(float(evidence.solution.value))  # twice the value bounds both traces: their scale, also at zero
    return [
        quantity("decay_W ||W||^2", np.trace(right), np.trace(left), 1e-9, size),
        quantity("decay_W W'W - decay_H sum_i m_i h_i h_i'", 0.0, np.abs(left - right).max(), 1e-9, size),
    ]


CRITICAL = Theorem(
    id="dynamics/critical",
    source="Zhu et al. 2021, balance at critical points",
    statement="At every critical point the layers are balanced.",
    formula="decay_W W'W = decay_H HH'",
    hypotheses=free_classifier,
    claim=_balance,
    minimum=False,
    draw=Family(_loss, SHAPES),
)

THEOREMS = (FLOW, DESCENT, CRITICAL)

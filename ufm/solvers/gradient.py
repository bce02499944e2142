"""Any optax optimizer on the plain variables, as the papers' experiments train: SGD, Adam, AdamW, ..."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ufm._base import norm, pytree
from ufm.models import Scaled
from ufm.problem import Params, Problem
from ufm.solvers._core import TOLERANCES, Solution, Status, choose, reached, require_products, residual


def bias_and_scores(problem: Problem, params: Params) -> dict[str, Array]:
    """Default record: mean bias, and mean unbiased scores ``w'h`` of the true class and of the others.

    Scores are NaN where targets are no labels.
    """
    scores = problem.scores(params)
    bias = jnp.zeros((), scores.dtype) if params.b is None else params.b
    if not problem.labeled:  # no class is the true one
        nothing = jnp.full((), jnp.nan, scores.dtype)
        return {"bias": jnp.mean(bias), "positive": nothing, "negative": nothing}
    positive = problem.weighted_sum(problem.true_class_of(scores)) / problem.samples
    total = problem.weighted_sum(jnp.sum(scores, axis=0)) / problem.samples
    negative = (total - positive) / (problem.classes - 1)
    return {"bias": jnp.mean(bias), "positive": positive, "negative": negative}


@pytree()
@dataclass(frozen=True)
class GradientState:
    """The point with its value and gradient, the optimizer's state and what was recorded."""

    point: Params
    value: Any
    gradient: Params
    memory: Any
    residual: Any
    trajectory: Any
    status: Any
    steps: Any


@dataclass(frozen=True)
class Gradient:
    """First-order training with an optax optimizer.

    Args:
        optimizer: any `optax.GradientTransformation` (decays are in the objective already).
        tol: bound on the residual (`Solution`); None takes the default of the dtype, 0 never stops early.
        max_steps: iterations allowed.
        record_every: record every so many steps, 0 for never. Trajectories hold
            ``1 + max_steps // record_every`` entries; those after the end are NaN.
        record: ``(problem, params) -> {name: scalar}``, recorded beside ``value`` and ``grad_norm``.

    >>> import optax
    >>> Gradient(optax.sgd(0.1, momentum=0.9), max_steps=1000, record_every=10).tol is None
    True
    """

    optimizer: optax.GradientTransformation
    tol: float | None = None
    max_steps: int = 10_000
    record_every: int = 0
    record: Callable[[Problem, Params], dict[str, Array]] = bias_and_scores
    tolerances = TOLERANCES

    def _measure(self, problem: Problem, point: Params, value: Array, gradient: Params) -> dict[str, Array]:
        return {"value": value, "grad_norm": problem.gradient_norm(gradient), **self.record(problem, point)}

    def start(self, problem: Problem, params: Params) -> GradientState:
        """State at ``params``, recorded as step 0."""
        require_products(problem, "a gradient method")
        value, gradient = jax.value_and_grad(problem.objective)(params)
        finite = jnp.isfinite(value)
        trajectory = {}
        if self.record_every:
            rows = 1 + self.max_steps // self.record_every
            measured = self._measure(problem, params, value, gradient)
            trajectory = {k: jnp.full((rows, *v.shape), jnp.nan, v.dtype).at[0].set(v) for k, v in measured.items()}
        return GradientState(
            point=params,
            value=value,
            gradient=gradient,
            memory=self.optimizer.init(params),
            residual=jnp.full_like(value, jnp.inf),
            trajectory=trajectory,
            status=jnp.where(finite, Status.RUNNING, Status.NONFINITE).astype(jnp.int32),
            steps=jnp.zeros((), jnp.int32),
        )

    def step(self, problem: Problem, state: GradientState) -> GradientState:
        """One update."""
        updates, memory = self.optimizer.update(state.gradient, state.memory, state.point)
        point = optax.apply_updates(state.point, updates)
        value, gradient = jax.value_and_grad(problem.objective)(point)
        gradient_norm = norm(Scaled.of(problem, point).gradient(gradient))
        finite = jnp.isfinite(value) & jnp.isfinite(gradient_norm)
        steps = state.steps + 1
        relative = residual(gradient_norm, value)
        status = jnp.where(reached(relative, self.tol), Status.CONVERGED, Status.RUNNING)
        status = jnp.where(finite, status, Status.NONFINITE).astype(jnp.int32)
        trajectory = state.trajectory
        if self.record_every:

            def write(trajectory: dict[str, Array]) -> dict[str, Array]:
                row = steps // self.record_every
                measured = self._measure(problem, point, value, gradient)
                return {k: trajectory[k].at[row].set(v) for k, v in measured.items()}

            trajectory = jax.lax.cond(steps % self.record_every == 0, write, lambda t: t, trajectory)
        keep = (point, value, gradient)
        last = (state.point, state.value, state.gradient)
        point, value, gradient = choose(finite, keep, last)
        return GradientState(point, value, gradient, memory, relative, trajectory, status, steps)

    def finish(self, problem: Problem, state: GradientState) -> Solution:
        """The last finite point."""
        scaled = Scaled.of(problem, state.point).gradient(state.gradient)
        running = state.status == Status.RUNNING
        return Solution(
            params=state.point,
            value=state.value,
            grad_norm=problem.gradient_norm(state.gradient),
            residual=residual(norm(scaled), state.value),
            status=jnp.where(running, Status.MAX_STEPS, state.status).astype(jnp.int32),
            steps=state.steps,
            evaluations=state.steps + 1,
            trajectory=state.trajectory,
        )

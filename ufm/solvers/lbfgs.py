"""Limited-memory BFGS with a zoom line search: `optax.lbfgs` in the scaled variables.

Liu & Nocedal 1989; the line search is Nocedal & Wright 2006, Alg. 3.5-3.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ufm._base import norm, pytree
from ufm.models import Scaled
from ufm.problem import Params, Problem
from ufm.solvers._core import TOLERANCES, Solution, Status, choose, reached, require_products, residual

PATIENCE = 30
"""Steps without a smaller gradient before the solve counts as stalled in rounding."""


@pytree()
@dataclass(frozen=True)
class LBFGSState:
    """Point, optimizer state (which stores value and gradient) and the best gradient so far."""

    point: Params
    memory: Any
    best: Any
    best_step: Any
    status: Any
    steps: Any
    evaluations: Any

    @property
    def residual(self) -> Any:
        """See `Solution`."""
        return residual(self.best, optax.tree.get(self.memory, "value"))


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS.

    Args:
        tol: bound on the residual (`Solution`); None takes the default of the dtype.
        max_steps: iterations allowed.
        memory: past steps kept.

    Liu & Nocedal 1989, with the strong Wolfe line search of Nocedal & Wright 2006, in the scaled variables and with
    the stopping rule of `Newton`; it needs values and gradients alone.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(classes=3, dim=4, per_class=5, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> solution = ufm.solve(problem, solver=ufm.solvers.LBFGS(memory=5))
    >>> solution.status_name, round(float(solution.value), 6)
    ('converged', 0.213667)
    """

    tol: float | None = None
    max_steps: int = 5000
    memory: int = 20
    tolerances = TOLERANCES

    @property
    def _optimizer(self) -> optax.GradientTransformationExtraArgs:
        return optax.lbfgs(memory_size=self.memory)

    def start(self, problem: Problem, params: Params) -> LBFGSState:
        """State before ``params`` is evaluated: optax stores an infinite value at first."""
        require_products(problem, "lbfgs")
        point = Scaled.of(problem, params).inward(params)
        count = jnp.zeros((), jnp.int32)
        infinite = jnp.asarray(jnp.inf, params.H.dtype)
        running = jnp.asarray(Status.RUNNING, jnp.int32)
        return LBFGSState(point, self._optimizer.init(point), infinite, count, running, count, count)

    def step(self, problem: Problem, state: LBFGSState) -> LBFGSState:
        """One quasi-Newton iteration."""
        function = Scaled.of(problem, state.point).objective
        value, gradient = optax.value_and_grad_from_state(function)(state.point, state=state.memory)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer types in its memory
            updates, memory = self._optimizer.update(
                gradient, state.memory, state.point, value=value, grad=gradient, value_fn=function
            )
        trial = optax.apply_updates(state.point, updates)
        new_value, new_norm = optax.tree.get(memory, "value"), norm(optax.tree.get(memory, "grad"))
        finite = jnp.isfinite(new_value) & jnp.isfinite(new_norm)
        steps = state.steps + 1
        better = new_norm < state.best
        best_step = jnp.where(better, steps, state.best_step)
        status = jnp.where(steps - best_step >= PATIENCE, Status.STALLED, Status.RUNNING)
        status = jnp.where(reached(residual(new_norm, new_value), self.tol), Status.CONVERGED, status)
        status = jnp.where(finite, status, Status.NONFINITE)
        searches = optax.tree.get(memory, "num_linesearch_steps")
        return LBFGSState(
            point=choose(finite, trial, state.point),
            memory=memory,
            best=jnp.where(better, new_norm, state.best),
            best_step=best_step,
            status=status.astype(jnp.int32),
            steps=steps,
            evaluations=state.evaluations + searches.astype(jnp.int32),
        )

    def finish(self, problem: Problem, state: LBFGSState) -> Solution:
        """Evaluate the last point in plain variables."""
        scaled = Scaled.of(problem, state.point)
        value, gradient = jax.value_and_grad(scaled.objective)(state.point)
        running = state.status == Status.RUNNING
        return Solution(
            params=scaled.outward(state.point),
            value=value,
            grad_norm=scaled.plain_norm(gradient),
            residual=residual(norm(gradient), value),
            status=jnp.where(running, Status.MAX_STEPS, state.status).astype(jnp.int32),
            steps=state.steps,
            evaluations=state.evaluations + 1,
            trajectory={},
        )

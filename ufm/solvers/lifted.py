"""Convex reference: the lifted problem over X = W H by accelerated proximal gradient.

For ``d >= rank X`` the decays on W and H are a nuclear norm (Srebro, Rennie & Jaakkola 2004, Lemma 1),
so with a convex loss the whole problem is

    min over X, b of  1/N sum_i m_i loss(x_i + b) + sqrt(decay_W decay_H) ||X diag(sqrt m)||_* + decay_b/2 ||b||^2,

``m`` the multiplicity of each column. It is solved in ``Y = X diag(sqrt m)`` and ``sqrt(N) b`` with
FISTA (Beck & Teboulle 2009), backtracking, and the gradient restart of O'Donoghue & Candes 2015. No
saddles, no factors, and nothing shared with the solvers of the factored problem: a second witness
for small problems, imbalanced ones above all.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm import bias as biases
from ufm._base import pytree, require
from ufm.problem import Params, Problem
from ufm.solvers._core import Solution, Status, reached, require_products


@pytree()
@dataclass(frozen=True)
class LiftedState:
    """Iterate, extrapolated point, momentum, curvature estimate and the length of the last step."""

    point: Any
    ahead: Any
    momentum: Any
    curvature: Any
    residual: Any
    status: Any
    steps: Any


@dataclass(frozen=True)
class Lifted:
    """Proximal gradient on the lifted convex problem; needs ``dim >= min(classes, columns)``.

    Args:
        tol: bound on the norm of the proximal gradient relative to ``sqrt(decay_W decay_H)``;
            None takes 1e-9 in float64, 1e-4 in float32. The value is off by the order of its square, a certified
            gap of the order of ``tol`` itself.
        max_steps: iterations allowed.

    The start is X = 0, b = 0 whatever initial point is given: the problem is convex.

    Raises:
        InputError: from the solve, for a fixed classifier, a loss that is not convex or too small a ``dim``.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 4, (4, 2, 1), loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> solution = ufm.solve(problem, solver=ufm.solvers.Lifted())
    >>> solution.status_name, float(ufm.theory.certify(problem, solution.params).gap) < 1e-10
    ('converged', True)
    """

    tol: float | None = None
    max_steps: int = 100_000
    tolerances = {"float64": 1e-9, "float32": 1e-4}  # noqa: RUF012 - a constant, not a field

    def start(self, problem: Problem, params: Params) -> LiftedState:
        """State at X = 0."""
        require_products(problem, "lifted", free=True)
        require(bool(problem.loss.convex), "loss", problem.loss.name, "convex for the lifted solver")
        least = min(problem.classes, problem.columns)
        require(
            problem.dim >= least, "dim", problem.dim, f"at least min(classes, columns) = {least} for the lifted solver"
        )
        dtype = params.H.dtype
        zero = (jnp.zeros((problem.classes, problem.columns), dtype), jax.tree.map(jnp.zeros_like, params.b))
        curvature = jnp.asarray(0.25 / problem.samples, dtype)
        running = jnp.asarray(Status.RUNNING, jnp.int32)
        one = jnp.ones((), dtype)
        return LiftedState(zero, zero, one, curvature, one, running, jnp.zeros((), jnp.int32))

    def step(self, problem: Problem, state: LiftedState) -> LiftedState:
        """One proximal step with backtracking on the curvature."""
        weight = jnp.asarray(problem.decay.price, state.curvature.dtype)
        smooth = _smooth_part(problem, state.curvature.dtype)
        value, (gY, gb) = jax.value_and_grad(smooth)(state.ahead)
        Y, b = state.ahead

        def forward_backward(curvature: Array) -> tuple[Any, Any]:
            moved = _shrink(Y - gY / curvature, weight / curvature)
            new = (moved, None if b is None else b - gb / curvature)
            return new, jax.tree.map(jnp.subtract, new, state.ahead)

        def too_long(curvature: Array) -> Array:
            new, move = forward_backward(curvature)
            model = value + _inner((gY, gb), move) + 0.5 * curvature * _inner(move, move)
            there, slope = jax.value_and_grad(smooth)(new)
            # Values cannot tell short moves apart; the change of the gradient can.
            bent = _inner(jax.tree.map(jnp.subtract, slope, (gY, gb)), move)
            return (there > model) & (bent > curvature * _inner(move, move))

        curvature = jax.lax.while_loop(too_long, lambda c: 2.0 * c, 0.95 * state.curvature)
        new, move = forward_backward(curvature)
        progress = jax.tree.map(jnp.subtract, new, state.point)
        uphill = _inner(move, progress) < 0
        momentum = jnp.where(uphill, 1.0, state.momentum)
        following = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2))
        push = jnp.where(uphill, 0.0, (momentum - 1.0) / following)
        ahead = jax.tree.map(lambda x, p: x + push * p, new, progress)
        gradient_map = curvature * jnp.sqrt(_inner(move, move)) / weight
        finite = jnp.isfinite(gradient_map)
        status = jnp.where(reached(gradient_map, self.tol), Status.CONVERGED, Status.RUNNING)
        status = jnp.where(finite, status, Status.NONFINITE).astype(jnp.int32)
        return LiftedState(new, ahead, following, curvature, gradient_map, status, state.steps + 1)

    def finish(self, problem: Problem, state: LiftedState) -> Solution:
        """The cheapest factors of the logits."""
        Y, b = state.point
        point = problem.model.factored(problem, Y / jnp.sqrt(problem.copies(Y.dtype))[None, :])
        params = dataclasses.replace(point, b=None if b is None else b / jnp.sqrt(1.0 * problem.samples))
        value, gradient = jax.value_and_grad(problem.objective)(params)
        running = state.status == Status.RUNNING
        return Solution(
            params=params,
            value=value,
            grad_norm=problem.gradient_norm(gradient),
            residual=state.residual,
            status=jnp.where(running, Status.MAX_STEPS, state.status).astype(jnp.int32),
            steps=state.steps,
            evaluations=2 * state.steps,
            trajectory={},
        )


def _smooth_part(problem: Problem, dtype: Any) -> Any:
    m = problem.copies(dtype)

    def smooth(point: tuple[Array, Array | None]) -> Array:
        Y, b = point
        X = Y / jnp.sqrt(m)[None, :]
        bias = None if b is None else b / jnp.sqrt(1.0 * problem.samples)
        return problem.risk(problem.added(X, bias)) + biases.penalty(problem.decay.b, bias)

    return smooth


def _shrink(Y: Array, threshold: Array) -> Array:
    """Proximal operator of ``threshold ||.||_*``: soft thresholding of the singular values."""
    left, sizes, right = jnp.linalg.svd(Y, full_matrices=False)
    return jnp.matmul(left * jnp.maximum(sizes - threshold, 0.0)[None, :], right, precision="highest")


def _inner(a: Any, b: Any) -> Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return functools.reduce(jnp.add, (jnp.sum(x * y) for x, y in pairs))

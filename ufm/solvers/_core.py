"""What every solver shares: `Solution`, `Status`, the loop and the scaling of the variables.

Scaling. In the variables ``(sqrt(decay_W) W, sqrt(decay_H m) H, sqrt(decay_b + 1/K) b)``, ``m`` the
multiplicity of a column, the decays become ``1/2 ||.||^2`` and the Hessian is the identity plus the
loss's part, so one trust radius and one stopping rule suit all decays and sizes. At a critical point
the squared norm of the scaled (W, H) is at most twice the value, which makes the stopping rule

    || scaled gradient || <= tol * sqrt(2 |f|)

invariant under rescaling the loss together with its decays; the distance to the optimum that a dual
certificate then sees is of the order of ``tol * 2 |f|``.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import pytree
from ufm.problem import Params, Problem


class Status(enum.IntEnum):
    """Why a solve ended."""

    RUNNING = 0
    CONVERGED = 1
    MAX_STEPS = 2
    STALLED = 3
    """No further progress is possible in this precision; the tolerance was not reached."""
    NONFINITE = 4
    """The value or gradient became NaN or infinite; ``params`` are the last finite ones."""

    @property
    def label(self) -> str:
        """Readable name, such as ``"converged"``."""
        return self.name.lower().replace("_", " ")


@pytree()
@dataclass(frozen=True)
class Solution:
    """Result of a solve; every field is an array, so solutions batch.

    Attributes:
        params: the point reached.
        value: objective there.
        grad_norm: Euclidean norm of the plain gradient over (W, H, b).
        residual: norm of the scaled gradient over ``sqrt(2 |value|)``, which ``tol`` bounds.
        status: a `Status` as an integer; see `status_name`.
        steps: outer iterations.
        evaluations: gradients plus Hessian-vector products, the unit of cost.
        trajectory: arrays recorded along the way, by name (empty unless asked for).
    """

    params: Params
    value: Any
    grad_norm: Any
    residual: Any
    status: Any
    steps: Any
    evaluations: Any
    trajectory: Any

    @property
    def status_name(self) -> str:
        """Readable status of a single (unbatched) solution."""
        return Status(int(self.status)).label

    @property
    def converged(self) -> Any:
        """Whether the stopping rule was met."""
        return self.status == Status.CONVERGED


S = TypeVar("S", bound="State")


class State(Protocol):
    """What the loop reads of a solver's state."""

    @property
    def status(self) -> Array: ...
    @property
    def steps(self) -> Array: ...


class Solver(Protocol):
    """A hashable set of options with the three functions of an iteration, all pure JAX."""

    @property
    def tol(self) -> float | None: ...
    @property
    def max_steps(self) -> int: ...
    @property
    def tolerances(self) -> dict[str, float]: ...

    def start(self, problem: Problem, params: Params) -> Any: ...
    def step(self, problem: Problem, state: Any) -> Any: ...
    def finish(self, problem: Problem, state: Any) -> Solution: ...


def advance(solver: Solver, problem: Problem, state: Any, until: Array | int) -> Any:
    """Iterate until the solver stops or ``until`` steps are done."""

    def running(state: State) -> Array:
        return (state.status == Status.RUNNING) & (state.steps < until)

    return jax.lax.while_loop(running, lambda s: solver.step(problem, s), state)


def run(solver: Solver, problem: Problem, params: Params) -> Solution:
    """The whole solve as one traceable function: jit it, vmap it over problems or starts."""
    solver = with_tolerance(solver, params.H.dtype)
    problem = problem.astype(params.H.dtype)
    state = advance(solver, problem, solver.start(problem, params), solver.max_steps)
    return solver.finish(problem, state)


@dataclass(frozen=True)
class Scaled:
    """The objective in scaled variables (see the module's docstring)."""

    problem: Problem
    scale: Params

    @staticmethod
    def of(problem: Problem, params: Params) -> Scaled:
        """Scaling for points shaped like ``params``."""
        dtype = params.H.dtype
        decay = problem.decay
        columns = jnp.asarray(problem.multiplicity, dtype)
        bias = None if params.b is None else jnp.sqrt(jnp.asarray(decay.b + 1.0 / problem.classes, dtype))
        features = jnp.sqrt(decay.H * columns)
        return Scaled(
            problem,
            Params(
                jnp.sqrt(jnp.asarray(decay.W, dtype)),
                features[None, :] if features.ndim else features,
                bias,
            ),
        )

    def inward(self, params: Params) -> Params:
        """Plain to scaled variables."""
        return jax.tree.map(lambda x, s: x * s, params, self.scale)

    def outward(self, scaled: Params) -> Params:
        """Scaled to plain variables (a point, not a gradient)."""
        return jax.tree.map(lambda x, s: x / s, scaled, self.scale)

    def objective(self, scaled: Params) -> Array:
        """The objective as a function of the scaled variables."""
        return self.problem.objective(self.outward(scaled))

    def gradient(self, gradient: Params) -> Params:
        """Gradient in scaled variables, given the plain one."""
        return jax.tree.map(lambda g, s: g / s, gradient, self.scale)

    def plain_norm(self, gradient: Params) -> Array:
        """Norm of the plain gradient, given the gradient in scaled variables."""
        return norm(jax.tree.map(lambda g, s: g * s, gradient, self.scale))


def dot(a: Params, b: Params) -> Array:
    """Inner product over all leaves."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return functools.reduce(jnp.add, (jnp.vdot(x, y, precision=jax.lax.Precision.HIGHEST) for x, y in pairs))


def norm(a: Params) -> Array:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(dot(a, a))


def axpy(alpha: Array | float, x: Params, y: Params) -> Params:
    """``alpha x + y``, leaf by leaf."""
    return jax.tree.map(lambda u, v: alpha * u + v, x, y)


def choose(condition: Array, yes: Any, no: Any) -> Any:
    """``yes`` where the scalar ``condition`` holds, else ``no``, for whole trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def residual(gradient_norm: Array, value: Array) -> Array:
    """Scaled gradient relative to ``sqrt(2 |f|)``; zero gradients are zero whatever the value."""
    size = jnp.sqrt(2.0 * jnp.abs(value))
    return jnp.where(gradient_norm > 0, gradient_norm / jnp.maximum(size, jnp.finfo(size.dtype).tiny), 0.0)


def least_tolerance(dtype: Any) -> float:
    """Smallest tolerance that a solve in ``dtype`` may ask for: 40 units of rounding."""
    return 40.0 * float(jnp.finfo(dtype).eps)


TOLERANCES = {"float64": 1e-12, "float32": 5e-5}
"""Tolerances of the stopping rule where none is given, by dtype."""


def with_tolerance(solver: Any, dtype: Any) -> Any:
    """``solver`` with the tolerance of ``dtype`` where it has none."""
    if solver.tol is not None:
        return solver
    return dataclasses.replace(solver, tol=solver.tolerances[jnp.dtype(dtype).name])


def reached(relative: Array, tol: float | None) -> Array:
    """Whether the stopping rule holds."""
    return relative <= (0.0 if tol is None else tol)

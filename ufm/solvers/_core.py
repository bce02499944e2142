"""What every solver shares: `Solution`, `Status`, the loop and the stopping rule.

In the scaled variables of `ufm.models` the squared norm of (W, H) at a critical point is at most twice the value,
which makes the stopping rule

    || scaled gradient || <= tol * sqrt(2 |f|)

invariant under rescaling the loss together with its decays; the distance to the optimum that a dual
certificate then sees is of the order of ``tol * 2 |f|``.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import importlib
import os
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import is_single, pytree, require, shapes
from ufm.models import Deep, Linear
from ufm.problem import Params, Problem


class Status(enum.IntEnum):
    """Why a solve ended, with a readable name and, unless it converged, what to do about it.

    >>> import ufm
    >>> [status.label for status in ufm.Status]
    ['running', 'converged', 'max steps', 'stalled', 'nonfinite', 'saddle', 'local minimum']
    >>> ufm.Status.MAX_STEPS.remedy
    'allow more steps (max_steps), or a larger tolerance (tol)'
    """

    RUNNING = 0
    CONVERGED = 1
    MAX_STEPS = 2
    STALLED = 3
    """No further progress is possible in this precision; the tolerance was not reached."""
    NONFINITE = 4
    """The value or gradient became NaN or infinite; ``params`` are the last finite ones."""
    SADDLE = 5
    """The stopping rule was met at a strict saddle, which is no minimum; see `ufm.solvers.saddles`."""

    LOCAL_MINIMUM = 6
    """The stopping rule was met where a wider problem would have a way down and this one has none: with non-negative
    features, a new axis would lower the objective, but none is free (`ufm.solvers.axes`)."""

    @property
    def label(self) -> str:
        """Readable name, such as ``"converged"``."""
        return self.name.lower().replace("_", " ")

    @property
    def remedy(self) -> str:
        """What to do about it, in words; empty where nothing is to be done."""
        return REMEDIES.get(self, "")


REMEDIES = {
    Status.RUNNING: "let the solve go on",
    Status.MAX_STEPS: "allow more steps (max_steps), or a larger tolerance (tol)",
    Status.STALLED: "solve in float64, or allow a larger tolerance (tol)",
    Status.NONFINITE: "start nearer to zero (scale), take shorter steps (lr), or check that the loss is finite",
    Status.LOCAL_MINIMUM: "start elsewhere (key, starts), or allow more feature dimensions (dim)",
    Status.SADDLE: "start elsewhere (key, scale > 0), or say saddles='keep' if critical points are wanted",
}
"""`Status.remedy`, in the words of `ufm.solve`."""

PROVEN = 1e-10
"""A certified gap within this share of the value proves a minimum, as it does in `ufm.atlas`."""


def answered(status: Any, value: Any, gap: Any, rounding: Any) -> Any:
    """Whether a solve gave what was asked for: it converged, or stalled at a point that a certificate proves minimal.

    Args:
        status: a `Status` as an integer; this and the rest may be arrays, traced or not.
        value: objective.
        gap: certified gap.
        rounding: of the certificate; a smaller gap is no less proof.

    >>> import ufm
    >>> bool(answered(ufm.Status.STALLED, 2.0, 1e-15, 1e-14)), bool(answered(ufm.Status.STALLED, 2.0, 1e-3, 1e-14))
    (True, False)
    """
    proven = (gap <= rounding) | (gap <= PROVEN * abs(value))
    return (status == Status.CONVERGED) | ((status == Status.STALLED) & proven)


@pytree()
@dataclass(frozen=True, repr=False)
class Solution:
    """Result of a solve; every field is an array, so solutions batch.

    ``problem`` is what `ufm.solve` was given. It is no field, and transformations (jit, vmap) and
    `dataclasses.replace` drop it: of their results it is None.

    Attributes:
        params: the point reached.
        value: objective there.
        grad_norm: Euclidean norm of the plain gradient over (W, H, b), the features of all samples counted
            (`Problem.gradient_norm`).
        residual: norm of the scaled gradient over ``sqrt(2 |value|)``, which ``tol`` bounds.
        status: a `Status` as an integer; see `status_name`.
        steps: outer iterations.
        evaluations: gradients plus Hessian-vector products of full size, the unit of cost; those of the
            problem with one feature per class count for K/N.
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
    problem: ClassVar[Problem | None] = None

    def of(self, problem: Problem) -> Solution:
        """The same solution, which knows its ``problem``."""
        known = copy.copy(self)
        object.__setattr__(known, "problem", problem)
        return known

    def save(self, file: str | os.PathLike[str], problem: Problem | None = None) -> None:
        """Write problem, point, certificate and versions to one file, which `ufm.load` reads.

        The file (.npz, without pickles) is written whole or not at all, and replaces one of the same name.

        Args:
            file: its name, as it is.
            problem: what was solved, where the solution does not know it: `ufm.solve` tells it.

        Raises:
            InputError: for a problem with a loss or a model of one's own, which are code; for a batch of solutions;
                for an unknown problem; for a file in no folder.

        >>> import tempfile, ufm
        >>> solution = ufm.solve(ufm.Problem(3, 4, 5, ufm.losses.CE()))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     solution.save(f"{folder}/found.npz")
        ...     found = ufm.load(f"{folder}/found.npz")
        >>> found.problem == solution.problem, bool((found.params.W == solution.params.W).all())
        (True, True)
        """
        problem = self.problem if problem is None else problem
        require(isinstance(problem, Problem), "problem", problem, "given: save(FILE, problem), if not from ufm.solve")
        assert problem is not None
        # By name: a file's certificate comes from theory, of which solvers know nothing.
        importlib.import_module("ufm.saved").write(file, problem, self)

    def __repr__(self) -> str:
        if not is_single(self.value):
            return f"Solution(traced or several: values of shape {getattr(self.value, 'shape', None)})"
        return (
            f"Solution: {self.status_name} after {int(self.steps)} steps ({float(self.evaluations):g} evaluations)\n"
            f"  value {float(self.value):.12g}, gradient norm {float(self.grad_norm):.1e}, "
            f"relative residual {float(self.residual):.1e}\n"
            f"  {shapes(vars(self.params))}, {self.params.H.dtype}"
        )

    @property
    def status_name(self) -> str:
        """Readable status of a single (unbatched) solution."""
        return Status(int(self.status)).label

    @property
    def remedy(self) -> str:
        """What to do about the status of a single (unbatched) solution; empty where it converged."""
        return Status(int(self.status)).remedy

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
    """The whole solve as one traceable function: jit it, vmap it over problems or starts.

    Args:
        solver: of `ufm.solvers`, static; without a tolerance it takes that of the dtype.
        problem: any of its leaves may be traced.
        params: the start, W (K, d), H (d, columns) and b; its dtype is that of the solve.

    Returns:
        A `Solution` of arrays; nothing is raised, the ``status`` says how it ended. Strict saddles count as
        converged here: `judged` tells them apart, as `solve` and `sweep` do.

    >>> import dataclasses, jax, ufm
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE())
    >>> start, sgd = problem.init(jax.random.key(0)), ufm.solvers.parse("sgd:lr=0.5", max_steps=300)
    >>> def least(decay):
    ...     decayed = dataclasses.replace(problem, decay=ufm.Decay(decay, decay, decay))
    ...     return ufm.solvers.run(sgd, decayed, start).value
    >>> values = jax.jit(jax.vmap(least))(jax.numpy.array([0.01, 0.1, 1.0]))
    >>> [round(float(value), 2) for value in values]       # log 3 = 1.10: all is zero from K mu = 1 on
    [0.15, 0.79, 1.1]
    """
    solver = with_tolerance(solver, params.H.dtype)
    problem = problem.astype(params.H.dtype)
    state = advance(solver, problem, solver.start(problem, params), solver.max_steps)
    return solver.finish(problem, state)


def choose(condition: Array, yes: Any, no: Any) -> Any:
    """``yes`` where the scalar ``condition`` holds, else ``no``, for whole trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def residual(gradient_norm: Array, value: Array) -> Array:
    """Scaled gradient relative to ``sqrt(2 |f|)``; zero gradients are zero whatever the value."""
    size = jnp.sqrt(2.0 * jnp.abs(value))
    return jnp.where(gradient_norm > 0, gradient_norm / jnp.maximum(size, jnp.finfo(size.dtype).tiny), 0.0)


def least_tolerance(dtype: Any) -> float:
    """Smallest tolerance that a solve in ``dtype`` may ask for: 40 units of rounding.

    >>> round(least_tolerance("float64"), 17)
    8.88e-15
    """
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


def require_products(problem: Problem, solver: str, *, free: bool = False) -> None:
    """Raise `InputError` unless points are plain arrays with quadratic decays (a free W and H, if ``free``)."""
    model = problem.model
    fits = (model.multiplicative if free else isinstance(model, Linear | Deep)) and not model.bounded
    require(fits, "model", str(model), f"linear {'' if free else 'or deep '}for the solver {solver}")

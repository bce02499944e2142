"""The door to the solvers: checks at the host, one jitted program, several starts, progress."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ufm._base import as_key, read_call, require, suggestion
from ufm.problem import Params, Problem, require_single
from ufm.solvers import classwise
from ufm.solvers import saddles as points
from ufm.solvers._core import TOLERANCES, Solution, Solver, Status, advance, least_tolerance, run, with_tolerance
from ufm.solvers.gradient import Gradient
from ufm.solvers.lbfgs import LBFGS
from ufm.solvers.lifted import Lifted
from ufm.solvers.newton import Newton

NAMED: dict[str, Callable[..., Any]] = {
    "newton": Newton,
    "lbfgs": LBFGS,
    "lifted": Lifted,
    "sgd": lambda lr=0.1, momentum=0.9, **options: Gradient(optax.sgd(lr, momentum), **options),
    "adam": lambda lr=1e-3, **options: Gradient(optax.adam(lr), **options),
    "adamw": lambda lr=1e-3, decay=1e-4, **options: Gradient(optax.adamw(lr, weight_decay=decay), **options),
}
"""Solvers that a command line or a spec can name; ``lr`` and ``momentum`` go after a colon."""

OPTIONS: dict[str, tuple[str, ...]] = dict.fromkeys(NAMED, ()) | {
    "sgd": ("lr", "momentum"),
    "adam": ("lr",),
    "adamw": ("lr", "decay"),
}

SADDLES = ("leave", "keep")
ESCAPES = 3
"""Saddles that a solve leaves: the first one by symmetry, and others that lie on the way down from it. Where features
are non-negative, each class may have died once."""

_eliminated = jax.jit(classwise.eliminated)
_expanded = jax.jit(classwise.expanded)


def _screened(solve: Callable[..., Solution], solver: Solver, problem: Any, params: Params) -> tuple[Solution, Array]:
    """A solve, and whether its end needs a look for negative curvature: one program."""
    found = solve(solver, problem, params)
    return found, points.suspect(problem, found)


_run = jax.jit(functools.partial(_screened, run), static_argnums=0)
_run_eliminated = jax.jit(functools.partial(_screened, classwise.run_eliminated), static_argnums=0)
_suspect = jax.jit(points.suspect)
_way_down = jax.jit(points.way_down)
_start = jax.jit(lambda solver, problem, params: solver.start(problem.astype(params.H.dtype), params), static_argnums=0)
_advance = jax.jit(advance, static_argnums=0)
_finish = jax.jit(lambda solver, problem, state: solver.finish(problem, state), static_argnums=0)


def parse(text: str, **options: Any) -> Solver:
    """Read a solver from ``name`` or ``name:lr=...``; ``options`` (tol, max_steps) that are None are left out.

    >>> parse("newton", tol=1e-10)
    Newton(tol=1e-10, max_steps=5000, max_cg=200, anneal=True)
    """
    name, values = read_call(text, "solver", OPTIONS)
    for key, value in values.items():
        inside = 0 < value < np.inf if key == "lr" else 0 <= value < 1
        require(inside, key, value, "a finite number > 0" if key == "lr" else "in [0, 1)")
    options |= values
    return NAMED[name](**{k: v for k, v in options.items() if v is not None})


def solve(
    problem: Problem,
    key: Array | int = 0,
    solver: Solver | str | None = None,
    init: Params | None = None,
    *,
    seed: int | None = None,
    eliminate: bool = True,
    saddles: str = "leave",
    starts: int = 1,
    scale: float = 1.0,
    bias_mean: float = 0.0,
    dtype: Any = None,
    progress: Callable[[int, float], None] | None = None,
) -> Solution:
    """Minimize the objective of ``problem``.

    Args:
        problem: what to minimize.
        key: seed or JAX key of the random start; the same key gives the same result.
        seed: another name for a ``key`` that is a number.
        solver: from `ufm.solvers`, or its name; trust-region Newton by default.
        init: starting point instead of a random one.
        eliminate: let Newton and L-BFGS minimize over the features exactly where the loss is convex: for
            any (W, b) the best features of a class coincide, so the problem with one feature per class has
            the same minimum at a cost that does not depend on n. Value and gradient are those of the full
            problem. False keeps every feature free at every step: the run that *shows* collapse.
        saddles: a solve that converges to a strict saddle leaves it along a direction of negative curvature and
            goes on (Newton and L-BFGS; from the third saddle, and with other solvers, the status is ``saddle``).
            ``"keep"`` returns any critical point as converged, for those who look for them.
        starts: number of random starts; the solution of lowest value is returned (`multistart`
            returns them all).
        scale: of the random start (`Problem.init`).
        bias_mean: mean of the random start's bias.
        dtype: of the solve; JAX's default float if not given.
        progress: called from the host with (steps, residual) between chunks of the solve.

    Raises:
        InputError: for a start of the wrong shape, a tolerance that the dtype cannot reach, or a batch of problems.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(classes=3, dim=4, per_class=5, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> solution = ufm.solve(problem)
    >>> solution.status_name, round(float(solution.value), 6)
    ('converged', 0.213667)
    """
    found = multistart(
        problem,
        key,
        solver,
        init,
        seed=seed,
        eliminate=eliminate,
        saddles=saddles,
        starts=starts,
        scale=scale,
        bias_mean=bias_mean,
        dtype=dtype,
        progress=progress,
    )
    return best_of(found)


def best_of(solutions: Sequence[Solution]) -> Solution:
    """The solution of lowest value; a value that is not finite counts as infinite.

    >>> import ufm
    >>> found = multistart(ufm.Problem(2, 2, 1, ufm.losses.CE()), starts=3)
    >>> best_of(found).value == min(s.value for s in found)
    Array(True, dtype=bool)
    """
    return min(solutions, key=lambda s: float(s.value) if np.isfinite(s.value) else np.inf)


def multistart(
    problem: Problem,
    key: Array | int = 0,
    solver: Solver | str | None = None,
    init: Params | None = None,
    *,
    seed: int | None = None,
    eliminate: bool = True,
    saddles: str = "leave",
    starts: int = 1,
    scale: float = 1.0,
    bias_mean: float = 0.0,
    dtype: Any = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[Solution]:
    """All solutions of `solve` from ``starts`` random starts, in order; arguments and errors are those of `solve`.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(classes=3, dim=4, per_class=5, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> solutions = ufm.solvers.multistart(problem, key=1, starts=3)
    >>> [round(float(s.value), 6) for s in solutions]       # strict saddles only: every start ends at the minimum
    [0.213667, 0.213667, 0.213667]
    """
    require(isinstance(problem, Problem), "problem", type(problem).__name__, "a ufm.Problem")
    require_single(problem)
    problem.loss.check(problem.classes)
    require(saddles in SADDLES, "saddles", saddles, suggestion(str(saddles), SADDLES))
    require(isinstance(starts, (int, np.integer)) and starts >= 1, "starts", starts, "a whole number >= 1")
    require(np.isfinite(scale) and scale >= 0, "scale", scale, "a finite number >= 0")
    require(bool(np.isfinite(bias_mean)), "bias_mean", bias_mean, "a finite number")
    key = as_key(key, seed)
    dtype = float_dtype(dtype)
    solver = resolve(solver, dtype)
    if init is not None:
        require(starts == 1, "starts", starts, "1 when an initial point is given")
        begun = [_checked(problem, init, dtype)]
    else:
        keys = [key] if starts == 1 else jax.random.split(key, starts)
        begun = [problem.init(k, scale, bias_mean, dtype) for k in keys]
    eliminate = eliminate and eliminates(solver, problem)
    return [_solve_one(solver, problem, start, progress, eliminate, saddles == "leave") for start in begun]


def eliminates(solver: Solver | str | None, problem: Problem) -> bool:
    """Whether `solve` minimizes over the features exactly unless told not to.

    >>> import ufm
    >>> eliminates("newton", ufm.Problem()), eliminates("sgd", ufm.Problem())
    (True, False)
    """
    if solver is None or isinstance(solver, str):
        solver = parse(solver or "newton")
    return isinstance(solver, (Newton, LBFGS)) and classwise.collapses(problem)


def resolve(solver: Solver | str | None, dtype: Any) -> Solver:
    """A solver with its tolerance filled in for ``dtype`` and checked against its rounding.

    Raises:
        InputError: for what is no solver, a tolerance below the rounding of ``dtype`` or steps that are no number.

    >>> resolve("newton", "float32").tol
    5e-05
    """
    if solver is None or isinstance(solver, str):
        solver = parse(solver or "newton")
    require(hasattr(solver, "step"), "solver", solver, "a solver of ufm.solvers or its name")
    whole = isinstance(solver.max_steps, (int, np.integer)) and solver.max_steps >= 0
    require(whole, "max_steps", solver.max_steps, "a whole number >= 0")
    if solver.tol is None:
        return with_tolerance(solver, dtype)
    least = least_tolerance(dtype)
    never_stop = isinstance(solver, Gradient) and solver.tol == 0
    remedy = (
        ""
        if jnp.dtype(dtype) == jnp.float64
        else ("; for less, run jax.config.update('jax_enable_x64', True) before any JAX work")
    )
    allowed = f"at least {least:.1e} in {jnp.dtype(dtype).name}{remedy}"
    require(never_stop or (np.isfinite(solver.tol) and solver.tol >= least), "tol", solver.tol, allowed)
    return solver


def float_dtype(dtype: Any) -> Any:
    """The dtype of a solve: JAX's default where none is given, an `InputError` for one that is not enabled.

    >>> float_dtype("float32").name
    'float32'
    """
    default = jnp.zeros(()).dtype
    if dtype is None:
        return default
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    require(name in TOLERANCES, "dtype", name, suggestion(name, TOLERANCES))
    dtype = jnp.dtype(name)
    enabled = dtype == jnp.float32 or default == jnp.float64
    require(enabled, "dtype", dtype.name, "float32 unless jax.config.update('jax_enable_x64', True) was run")
    return dtype


def _checked(problem: Problem, init: Params, dtype: Any) -> Params:
    expected = jax.eval_shape(lambda: problem.init(jax.random.key(0)))
    for field in ("W", "H", "b"):
        given, wanted = getattr(init, field), getattr(expected, field)
        absent = wanted is None
        require((given is None) == absent, f"init.{field}", given, "None" if absent else f"an array {wanted.shape}")
        if not absent:
            require(np.shape(given) == wanted.shape, f"init.{field}.shape", np.shape(given), f"{wanted.shape}")
    model = problem.model
    inside = not model.bounded or bool(np.all(np.asarray(model.onto(init).H) == np.asarray(init.H)))
    require(inside, "init.H", float(np.min(init.H)), f"within the bounds of the model: {model.words}")
    fixed = problem.classifier
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), Params(init.W if fixed is None else fixed, init.H, init.b))


def _solve_one(
    solver: Solver,
    problem: Problem,
    params: Params,
    progress: Callable[[int, float], None] | None,
    eliminate: bool,
    leave: bool,
) -> Solution:
    found, suspect = _attempt(solver, problem, params, progress, eliminate)
    spent = [found]
    while leave and bool(suspect):
        below, status = _way_down(problem, found.params, found.residual)
        if int(status) != Status.SADDLE:
            return dataclasses.replace(_totalled(spent), status=status.astype(jnp.int32))
        if len(spent) > ESCAPES + problem.classes * problem.model.bounded or not isinstance(solver, (Newton, LBFGS)):
            return dataclasses.replace(_totalled(spent), status=jnp.asarray(Status.SADDLE, jnp.int32))
        found, suspect = _attempt(solver, problem, below, progress, eliminate)
        spent.append(found)
    return _totalled(spent)


def _totalled(spent: Sequence[Solution]) -> Solution:
    """The last solution, with the steps and evaluations of all."""
    if len(spent) == 1:
        return spent[0]
    steps, evaluations = (sum(getattr(s, name) for s in spent) for name in ("steps", "evaluations"))
    return dataclasses.replace(spent[-1], steps=steps, evaluations=evaluations)


def _attempt(
    solver: Solver,
    problem: Problem,
    params: Params,
    progress: Callable[[int, float], None] | None,
    eliminate: bool,
) -> tuple[Solution, Array]:
    if progress is None:
        return (_run_eliminated if eliminate else _run)(solver, problem, params)
    solved, start = _eliminated(problem, params) if eliminate else (problem, params)
    state = _start(solver, solved, start)
    solved = solved.astype(params.H.dtype)
    chunk, until = 8, 0
    while int(state.status) == Status.RUNNING and until < solver.max_steps:
        until = min(until + chunk, solver.max_steps)
        began = time.perf_counter()
        state = jax.block_until_ready(_advance(solver, solved, state, until))
        if time.perf_counter() - began < 0.25:
            chunk *= 2
        progress(int(state.steps), float(state.residual))
    found = _finish(solver, problem, _expanded(problem, state) if eliminate else state)
    return found, _suspect(problem, found)

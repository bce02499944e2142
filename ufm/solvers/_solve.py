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

from ufm import codes, symmetry
from ufm._base import as_key, read_call, require, require_known, require_whole
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
AMPLITUDES = tuple(map(float, np.geomspace(0.5, 50.0, 12)))
"""Amplitudes of a code's logits that are tried: Newton's method does the rest."""
Start = Params | str
ESCAPES = 3
"""Saddles that a solve leaves: the first one by symmetry, and others that lie on the way down from it. Where features
are non-negative, each class may have died once."""

_means = jax.jit(symmetry.means)


@functools.partial(jax.jit, static_argnums=0)
def _run(solver: Solver, problem: Any, params: Params) -> tuple[Solution, Array]:
    """A solve, and whether its end needs a look for negative curvature: one program."""
    found = run(solver, problem, params)
    return found, points.suspect(problem, found)


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
    init: Start | Sequence[Start] | None = None,
    *,
    seed: int | None = None,
    eliminate: bool = True,
    saddles: str = "leave",
    starts: int | None = None,
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
        init: starting point instead of a random one: `Params`, or the name of a group code as `ufm.codes` reads it,
            such as ``"code:2+2+2"``, ``"code:pyramid"`` or ``"code:polygon5+2"``; or several of them.
        eliminate: let Newton and L-BFGS minimize over the features exactly where the loss is convex: for
            any (W, b) the best features of a class coincide, so the problem with one feature per class has
            the same minimum at a cost that does not depend on n, and its random start is that of
            ``features="per_class"``. False keeps every feature free at every step: the run that *shows* collapse.
        saddles: a solve that converges to a strict saddle leaves it along a direction of negative curvature and
            goes on (Newton and L-BFGS; from the third saddle, and with other solvers, the status is ``saddle``).
            ``"keep"`` returns any critical point as converged, for those who look for them.
        starts: number of random starts (1, or none if ``init`` is given), beside what ``init`` names; the solution
            of lowest value is returned (`multistart` returns them all).
        scale: of the random start (`Problem.init`).
        bias_mean: mean of the random start's bias.
        dtype: of the solve; JAX's default float if not given.
        progress: called from the host with (steps, residual) between chunks of the solve.

    Raises:
        InputError: for a start of the wrong shape, a code that does not add up to K or does not fit into the
            dimensions, a tolerance that the dtype cannot reach, or a batch of problems.

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
    init: Start | Sequence[Start] | None = None,
    *,
    seed: int | None = None,
    eliminate: bool = True,
    saddles: str = "leave",
    starts: int | None = None,
    scale: float = 1.0,
    bias_mean: float = 0.0,
    dtype: Any = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[Solution]:
    """All solutions of `solve`, those of random starts first and then those of ``init``, each in order.

    Arguments and errors are those of `solve`.

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
    require_known("saddles", saddles, SADDLES)
    named = [] if init is None else [init] if isinstance(init, (Params, str)) else list(init)
    if isinstance(init, Params):
        require(starts in (None, 1), "starts", starts, "1 when an initial point is given (or name it in a list)")
    starts = 0 if isinstance(init, Params) else (0 if named else 1) if starts is None else starts
    require_whole("starts", starts, 0 if named else 1)
    require(np.isfinite(scale) and scale >= 0, "scale", scale, "a finite number >= 0")
    require(bool(np.isfinite(bias_mean)), "bias_mean", bias_mean, "a finite number")
    key = as_key(key, seed)
    dtype = float_dtype(dtype)
    solver = resolve(solver, dtype)
    eliminate = eliminate and eliminates(solver, problem)
    solved = symmetry.shared(problem) if eliminate else problem
    keys = [key] if starts == 1 else jax.random.split(key, starts)
    begun = [solved.init(k, scale, bias_mean, dtype) for k in keys]
    for x in named:
        if isinstance(x, str):
            begun.append(coded(solved, x, dtype))
        else:
            start = _checked(problem, x, dtype)
            begun.append(dataclasses.replace(start, H=_means(problem, start.H)) if eliminate else start)
    found = [_solve_one(solver, solved, start, progress, saddles == "leave") for start in begun]
    return [(classwise.expanded(problem, s) if eliminate else s).of(problem) for s in found]


def coded(problem: Problem, name: str, dtype: Any = None) -> Params:
    """A start at a group code: its logits, of the amplitude that costs least, as factors of the model.

    Args:
        problem: linear or deep, of any counts.
        name: as `ufm.codes` reads it.
        dtype: of the start.

    Raises:
        InputError: for a name that is no code of K classes, a code of a rank that the dimensions do not allow, or a
            model that does not start from logits.

    >>> import ufm
    >>> problem = ufm.Problem(5, 2, 1, ufm.losses.CE(), model=ufm.models.Deep(2))
    >>> coded(problem, "code:polygon").H.shape
    (2, 5)
    """
    code = codes.parse(name, problem.classes)
    dtype = float_dtype(dtype)
    X = jnp.asarray(codes.pattern(code)[:, problem.labels], dtype)
    b = jax.tree.map(jnp.zeros_like, problem.init(0, dtype=dtype).b)
    at = [dataclasses.replace(problem.model.factored(problem, t * X), b=b) for t in AMPLITUDES]
    error = jnp.max(jnp.abs(problem.scores(at[0]) - AMPLITUDES[0] * X))
    rank = sum(part.rank for part in code)
    fits = bool(error <= 1e-3 * AMPLITUDES[0])
    require(fits, "init", name, f"a code whose rank fits into all dimensions (this one has rank {rank})")
    return min(at, key=lambda x: float(problem.objective(x)))


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
    require_known("dtype", name, TOLERANCES)
    dtype = jnp.dtype(name)
    enabled = dtype == jnp.float32 or default == jnp.float64
    require(enabled, "dtype", dtype.name, "float32 unless jax.config.update('jax_enable_x64', True) was run")
    return dtype


def _checked(problem: Problem, init: Params, dtype: Any) -> Params:
    expected = problem.shapes()
    if isinstance(expected.W, tuple):
        fits = isinstance(init.W, (tuple, list)) and len(init.W) == len(expected.W)
        require(fits, "init.W", type(init.W).__name__, f"a tuple of {len(expected.W)} matrices")
        init = dataclasses.replace(init, W=tuple(init.W))
    pairs = [("H", init.H, expected.H), ("b", init.b, expected.b)]
    if isinstance(expected.W, tuple):
        pairs += [(f"W[{i}]", *pair) for i, pair in enumerate(zip(init.W, expected.W, strict=True))]
    else:
        pairs += [("W", init.W, expected.W)]
    for field, given, wanted in pairs:
        absent = wanted is None
        require((given is None) == absent, f"init.{field}", given, "None" if absent else f"an array {wanted.shape}")
        if not absent:
            require(np.shape(given) == wanted.shape, f"init.{field}.shape", np.shape(given), f"{wanted.shape}")
    model = problem.model
    if model.bounded:
        inside = bool(np.all(np.asarray(model.onto(init).H) == np.asarray(init.H)))
        require(inside, "init.H", float(np.min(init.H)), f"within the bounds of the model: {model.words}")
    fixed = problem.classifier
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), Params(init.W if fixed is None else fixed, init.H, init.b))


def _solve_one(
    solver: Solver,
    problem: Problem,
    params: Params,
    progress: Callable[[int, float], None] | None,
    leave: bool,
) -> Solution:
    found, suspect = _attempt(solver, problem, params, progress)
    spent = [found]
    while leave and bool(suspect):
        below, status = _way_down(problem, found.params, found.residual)
        if int(status) != Status.SADDLE:
            return dataclasses.replace(_totalled(spent), status=status.astype(jnp.int32))
        if len(spent) > ESCAPES + problem.classes * problem.model.bounded or not isinstance(solver, (Newton, LBFGS)):
            return dataclasses.replace(_totalled(spent), status=jnp.asarray(Status.SADDLE, jnp.int32))
        found, suspect = _attempt(solver, problem, below, progress)
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
) -> tuple[Solution, Array]:
    if progress is None:
        return _run(solver, problem, params)
    state = _start(solver, problem, params)
    solved = problem.astype(params.H.dtype)
    chunk, until = 8, 0
    while int(state.status) == Status.RUNNING and until < solver.max_steps:
        until = min(until + chunk, solver.max_steps)
        began = time.perf_counter()
        state = jax.block_until_ready(_advance(solver, solved, state, until))
        if time.perf_counter() - began < 0.25:
            chunk *= 2
        progress(int(state.steps), float(state.residual))
    found = _finish(solver, problem, state)
    return found, _suspect(problem, found)

"""Finding critical points: Newton on ``||grad||^2`` from random, structured and half-descended starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from ufm import bias as biases
from ufm import theory
from ufm._base import cast, float64_scope, matmul, require, widened
from ufm._parallel import BATCHED_EIGH
from ufm.landscape.critical import CriticalPoint, examine
from ufm.landscape.hvp import Hessian
from ufm.problem import Params, Problem
from ufm.theory import NoClosedForm


def _refine(problem: Problem, start: Params, descend: Array, steps: int) -> tuple[Params, Array]:
    """``descend`` steps down, then Levenberg-Marquardt on ``||grad||^2``, both in an eigenbasis of the Hessian.

    With ``m^2 = mu^2 + damping ||g||`` for the eigenvalue mu, the step is ``-g/m`` on the way down (saddle-free
    Newton, Dauphin et al. 2014) and ``-mu g/m^2`` after, each kept only if the objective or the gradient falls.
    """
    x0, unravel = ravel_pytree(start)
    both = jax.value_and_grad(lambda x: problem.objective(unravel(x)))
    hessian = jax.jacfwd(lambda x: both(x)[1])

    def step(carry: Any) -> Any:
        x, value, g, damping, count = carry
        down, size = count < descend, jnp.linalg.norm(g)
        damping = jnp.where(count == descend, 1.0, damping)
        mu, Q = jnp.linalg.eigh(hessian(x))
        m = jnp.sqrt(mu**2 + damping * size)
        move = matmul(Q, jnp.where(down, 1.0, mu / m) / m * matmul(Q.T, g))
        value_there, g_there = both(x - move)
        better = jnp.where(down, value_there < value, jnp.linalg.norm(g_there) < size)
        damping = jnp.where(better, jnp.maximum(0.2 * damping, 1e-8), 4.0 * damping)
        x, value, g = (jnp.where(better, a, b) for a, b in ((x - move, x), (value_there, value), (g_there, g)))
        return x, value, g, damping, count + 1

    def unfinished(carry: Any) -> Array:
        _, _, g, damping, count = carry
        return (count < steps) & (jnp.linalg.norm(g) > 1e-13) & ((damping < 1e12) | (count <= descend))

    state = (x0, *both(x0), jnp.ones((), x0.dtype), jnp.zeros((), jnp.int32))
    x, _, g, _, _ = jax.lax.while_loop(unfinished, step, state)
    return unravel(x), jnp.linalg.norm(g)


LIMIT = 600
"""Variables of a search: each of its steps solves a dense eigenproblem of that size."""
_refine_all = jax.jit(jax.vmap(_refine, (None, 0, 0, None)), static_argnums=3)


def structured_starts(problem: Problem, starts: int, seed: int = 0) -> list[Params]:
    """Random starts of many sizes, half of them with classes merged in random groups and a little noise."""
    require(problem.model.multiplicative, "model", str(problem.model), "linear: a free classifier")
    rng = np.random.default_rng(seed)
    K, d = problem.classes, problem.dim
    points = []
    for i in range(starts):
        scale = 10.0 ** rng.uniform(-1.0, 1.0)
        params = problem.init(jax.random.key(seed * 100003 + i), scale)
        if i % 2:
            m = int(rng.integers(1, K + 1))
            member = rng.integers(0, m, K)
            rows = scale * rng.normal(size=(m, d))[member] / np.sqrt(d)
            noise = 0.02 * scale * np.asarray(params.W)
            ratio = 1.0 / (float(problem.decay.ratio) * np.sqrt(max(problem.samples / K, 1.0)))
            H = ratio * (rows + noise)[problem.labels].T
            params = Params(jnp.asarray(rows + noise, params.H.dtype), jnp.asarray(H, params.H.dtype), params.b)
        points.append(params)
    return points


def _ladder_points(problem: Problem) -> list[Params]:
    """The equal groups of the closed-form ladder, where there is one."""
    try:
        rungs = theory.ladder(problem)
    except NoClosedForm:
        return []
    return [jax.tree.map(jnp.asarray, rung.params()) for rung in rungs]


def find_critical_points(
    problem: Problem,
    starts: int | Iterable[Params] = 64,
    *,
    seed: int = 0,
    tol: float = 1e-9,
    steps: int = 200,
    limit: int = LIMIT,
) -> list[CriticalPoint]:
    """Critical points of a small problem, distinct up to rotation and class permutation, ascending in value.

    Newton steps on ``||grad||^2`` from random and structured starts, some of them after a walk down, find saddles
    and minima alike. Ends that are not critical are dropped; the list need not be complete. The search runs in
    float64, whatever JAX's default: in float32 next to no end meets the tolerance. Where that default is float32,
    the points are NumPy arrays, as those of `theory.minimizer`.

    Args:
        problem: of at most ``limit`` variables (each step solves a dense eigenproblem).
        starts: how many random ones, beside the equal groups of `theory.ladder`, or the points themselves.
        seed: of the starts.
        tol: gradient norm at which an end counts as critical.
        steps: Newton steps a start.
        limit: variables allowed.

    Raises:
        InputError: without a start, or beyond ``limit`` variables.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 2, 1, loss=ufm.losses.BCE(), decay=ufm.Decay(0.1, 0.1, 0.2))
    >>> points = ufm.landscape.find_critical_points(problem, starts=24)
    >>> points[0].kind, {p.kind for p in points[1:]}, points[-1].groups
    ('global minimum', {'strict saddle'}, (3,))
    """
    wide = jax.config.read("jax_enable_x64")
    with float64_scope():
        found = _search(widened(problem), starts, seed, tol, steps, limit)
    return found if wide else [replace(c, params=jax.tree.map(np.asarray, c.params)) for c in found]


def _search(
    problem: Problem, starts: int | Iterable[Params], seed: int, tol: float, steps: int, limit: int
) -> list[CriticalPoint]:
    if isinstance(starts, int):
        # Least squares alone is drawn to saddles: some starts walk down first, part of the way or all of it.
        points = structured_starts(problem, starts, seed) + _ladder_points(problem)
        descend = np.resize(np.repeat([0, 60, 0, 4, 0, 12], 2), starts)
        descend = np.append(descend, np.zeros(len(points) - starts, int))
    else:
        points = [cast(point, jnp.float64) for point in starts]
        descend = np.zeros(len(points), int)
    require(len(points) > 0, "starts", starts, "at least one")
    size = Hessian(problem, points[0]).size
    require(size <= limit, "size", size, f"at most {limit}; use ufm.solve for minima, or raise limit")
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *points)
    with BATCHED_EIGH:
        ends, norms = jax.block_until_ready(
            _refine_all(problem.astype(points[0].H.dtype), stacked, jnp.asarray(descend, jnp.int32), steps)
        )
    found: list[tuple[np.ndarray, Params]] = []
    for i, size in enumerate(np.asarray(norms)):
        if not size <= tol:
            continue
        end = jax.tree.map(lambda x, i=i: x[i], ends)
        mark = invariants(problem, end)
        if not any(np.allclose(mark, other, rtol=0.0, atol=1e-5 * max(1.0, np.abs(other).max())) for other, _ in found):
            found.append((mark, end))
    return sorted((examine(problem, end) for _, end in found), key=lambda c: (c.value, c.index))


def minima_not_global(points: Iterable[CriticalPoint]) -> list[CriticalPoint]:
    """Local minima that another of the ``points`` undercuts, which is the proof that they are not global.

    Each has index 0 and a kernel of rotations alone, so it is a strict minimum up to rotation.

    Args:
        points: of one problem, as `find_critical_points` returns them; those that are not critical are left out.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 2, 1, loss=ufm.losses.BCE(), decay=ufm.Decay(0.005, 0.01, 0.5))   # d = K - 1
    >>> points = ufm.landscape.find_critical_points(problem, starts=24)
    >>> round(points[0].value, 4), [round(p.value, 4) for p in ufm.landscape.minima_not_global(points)]
    (0.2053, [0.7494])
    """
    points = [p for p in points if p.critical]
    least = min((p.value for p in points), default=np.inf)
    isolated = [p for p in points if p.complete and p.index == 0 and p.kernel == p.rotations]
    return [p for p in isolated if p.value > least + 1e-8 * max(1.0, abs(least))]


def invariants(problem: Problem, params: Params) -> np.ndarray:
    """Numbers that no rotation, class permutation or sample permutation changes: value and sorted Gram spectra."""
    W, H = np.asarray(params.W), np.asarray(params.H)
    b = biases.per_class(params.b, problem.classes)
    rows = [np.sort(np.sum(W**2, axis=1)), np.sort(np.sum(H**2, axis=0)), np.sort(b)]
    spectra = [np.linalg.svd(W, compute_uv=False), np.linalg.svd(H, compute_uv=False)]
    return np.concatenate([[float(problem.objective(params))], *rows, *spectra])


def partitions(total: int, most: int | None = None) -> list[tuple[int, ...]]:
    """Ways to write ``total`` as a sum of whole numbers, descending.

    >>> partitions(4)
    [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]
    """
    if total == 0:
        return [()]
    top = min(total, most or total)
    return [(k, *rest) for k in range(top, 0, -1) for rest in partitions(total - k, k)]


def all_rungs(problem: Problem) -> list[theory.Rung]:
    """`theory.ladder` and the unequal groupings of `theory.merged`: one rung for each partition of K.

    Descending in value, from the origin (one group) to the minimizer (K groups); equal groups that do not fit
    the dimension are left out.

    Raises:
        NoClosedForm: for imbalanced counts, a fixed classifier or a loss that tells classes apart.

    >>> import ufm
    >>> problem = ufm.Problem(3, 4, 1, loss=ufm.losses.BCE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> [(rung.groups, round(rung.value, 4), rung.spectrum.index) for rung in ufm.landscape.all_rungs(problem)]
    [((3,), 1.9164, 8), ((2, 1), 1.0586, 4), ((1, 1, 1), 0.2371, 0)]
    """
    equal = theory.ladder(problem)
    known = {rung.groups for rung in equal}
    rest = [p for p in partitions(problem.classes) if p not in known and len(set(p)) > 1]
    return sorted([*equal, *(theory.merged(problem, p) for p in rest)], key=lambda rung: -rung.value)

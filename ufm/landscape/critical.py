"""Critical points: what one is, how to find them all, and the way down from those that are not minima."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from ufm import theory
from ufm._base import matmul, require
from ufm.landscape.eigen import extreme_eigenpairs
from ufm.landscape.hvp import DENSE_LIMIT, Hessian, hvp
from ufm.problem import Params, Problem
from ufm.theory import NoClosedForm, certify


@dataclass(frozen=True)
class Escape:
    """The explicit direction of negative curvature of Zhu et al. 2021 at a non-global critical point.

    Attributes:
        direction: unit norm, in (W, H, b); None when ``null(W)`` is trivial.
        promised: curvature ``-2 (||grad_Z|| - sqrt(decay_W decay_H)) / (rho + 1/rho)``, with
            ``rho = sqrt(decay_H/decay_W)``.
        measured: ``direction' Hessian direction``.
    """

    direction: Params | None
    promised: float
    measured: float


@dataclass(frozen=True)
class CriticalPoint:
    """What is known of a point.

    Attributes:
        params: the point.
        value: objective.
        grad_norm: plain gradient norm.
        critical: whether ``grad_norm`` is within the tolerance; if not, index and kernel describe no critical point.
        index: negative eigenvalues of the Hessian; a lower bound if ``complete`` is False.
        kernel: eigenvalues that count as zero; likewise.
        rotations: dimension of the orbit under O(d), the least kernel that a critical point has.
        smallest: least eigenvalue.
        largest: greatest eigenvalue.
        complete: whether the whole spectrum was computed.
        gap: value minus the certified lower bound on the global minimum.
        escape: where the point is not global.
        groups: sizes of the groups of classes that share a classifier row, descending.
        spectrum: measured, what counts as zero set to zero; None unless ``complete``.
    """

    params: Params
    value: float
    grad_norm: float
    critical: bool
    index: int
    kernel: int
    rotations: int
    smallest: float
    largest: float
    complete: bool
    gap: float
    escape: Escape
    groups: tuple[int, ...]
    spectrum: theory.Spectrum | None

    @property
    def certified_global(self) -> bool:
        """Whether the dual certificate closes to 1e-8 of the value."""
        return self.gap <= 1e-8 * max(1.0, abs(self.value))

    @property
    def kind(self) -> str:
        """``"not critical"``, ``"global minimum"``, ``"strict saddle"``, ``"local minimum"`` or ``"degenerate"``."""
        if not self.critical:
            return "not critical"
        if self.certified_global:
            return "global minimum"
        if self.index:
            return "strict saddle"
        return "local minimum, not certified" if self.kernel == self.rotations else "degenerate, not certified"


def escape_direction(problem: Problem, params: Params) -> Escape:
    """Direction ``((dH/dW)^1/4 u a', -(dH/dW)^-1/4 a v', 0)``, ``a`` in null(W), (u, v) the top pair of grad_Z.

    Zhu et al. 2021, Thm 3.2: at a critical point with d > K it descends unless the point is global. The
    curvature equals the promise exactly; where the promise is positive nothing is said.
    """
    require(problem.classifier is None, "classifier", "fixed", "free: None")
    logits = problem.logits(params)
    labels = jnp.asarray(problem.labels)
    weights = np.broadcast_to(problem.multiplicity, (problem.columns,))
    G = np.asarray(jax.vmap(jax.grad(problem.loss), (1, 0), 1)(logits, labels)) * np.sqrt(weights) / problem.samples
    u, sizes, vt = np.linalg.svd(G, full_matrices=False)
    decay_W, decay_H = float(problem.decay.W), float(problem.decay.H)
    rho = np.sqrt(decay_H / decay_W)
    promised = -2.0 * (float(sizes[0]) - np.sqrt(decay_W * decay_H)) / (rho + 1.0 / rho)
    _, spans, basis = np.linalg.svd(np.asarray(params.W), full_matrices=True)
    rank = int(np.sum(spans > 1e-8 * max(float(spans[0]), 1e-8)))
    if rank == problem.dim:
        return Escape(None, float("nan"), float("nan"))
    a = basis[-1]
    length = np.sqrt(rho + 1.0 / rho)
    W = np.sqrt(rho) * np.outer(u[:, 0], a) / length
    H = -np.outer(a, vt[0] / np.sqrt(weights)) / np.sqrt(rho) / length
    dtype = params.H.dtype
    b = None if params.b is None else jnp.zeros_like(params.b)
    direction = Params(jnp.asarray(W, dtype), jnp.asarray(H, dtype), b)
    if problem.multiplicity.ndim or problem.multiplicity != 1:  # unit norm in the plain variables
        size = float(np.sqrt(np.sum(W**2) + np.sum(H**2)))
        direction, promised = jax.tree.map(lambda x: x / size, direction), promised / size**2
    curved = hvp(problem, params, direction)
    measured = sum(float(jnp.vdot(x, y)) for x, y in zip(*map(jax.tree.leaves, (direction, curved)), strict=True))
    return Escape(direction, promised, measured)


def groups_of(rows: Any, near: float) -> tuple[int, ...]:
    """Sizes, descending, of the groups of ``rows`` that agree with the group's first to ``near``."""
    rows = np.asarray(rows)
    left, sizes = list(range(len(rows))), []
    while left:
        same = [i for i in left if np.linalg.norm(rows[i] - rows[left[0]]) <= near]
        sizes.append(len(same))
        left = [i for i in left if i not in same]
    return tuple(sorted(sizes, reverse=True))


def shared_rows(W: Any, rtol: float = 1e-5) -> tuple[int, ...]:
    """`groups_of` the rows of ``W``, near meaning ``rtol`` times the largest row."""
    return groups_of(W, rtol * max(float(np.linalg.norm(W, axis=1).max()), 1e-6))


def examine(problem: Problem, params: Params, tol: float = 1e-8, limit: int = DENSE_LIMIT) -> CriticalPoint:
    """Index, kernel, extreme eigenvalues, certificate and escape direction of a point.

    Up to ``limit`` variables the whole spectrum is computed; beyond, the extreme eigenvalues alone, and index and
    kernel are lower bounds. ``tol`` bounds the plain gradient norm, relative to ``1 + |value|``, of a critical
    point: others are reported as such.

    >>> import jax, ufm
    >>> problem = ufm.Problem(3, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> origin = jax.tree.map(jax.numpy.zeros_like, problem.init(jax.random.key(0)))
    >>> point = examine(problem, origin)
    >>> point.kind, point.index, point.kernel
    ('strict saddle', 10, 0)
    """
    params = jax.tree.map(jnp.asarray, params)
    hessian = Hessian(problem, params)
    value, grad_norm = float(problem.objective(params)), float(np.linalg.norm(hessian.gradient()))
    complete = hessian.size <= limit
    eps = float(jnp.finfo(params.H.dtype).eps)
    if complete:
        values = np.linalg.eigvalsh(hessian.dense(limit))
        smallest, largest = float(values[0]), float(values[-1])
    else:
        low = extreme_eigenpairs(hessian.operator, k=8)
        largest = float(extreme_eigenpairs(hessian.operator, k=1, which="largest").values[0])
        values, smallest = low.values, float(low.values[0])
    # A gradient of size g leaves the zero modes uncertain by about g over the size of the point.
    size = float(jnp.linalg.norm(ravel_pytree(params)[0]))
    critical = grad_norm <= tol * (1.0 + abs(value))
    zero = max(1e4 * eps * max(abs(smallest), abs(largest)), 10.0 * grad_norm / max(size, 1.0) if critical else 0.0)
    stacked = np.vstack([np.asarray(params.W), np.asarray(params.H).T])
    spread = np.linalg.svd(stacked, compute_uv=False)
    rank = int(np.sum(spread > 1e-6 * max(float(spread[0]), 1e-6)))
    rotations = rank * problem.dim - rank * (rank + 1) // 2
    snapped = [("measured", 0.0 if abs(v) <= zero else float(v), 1) for v in values]
    return CriticalPoint(
        params=params,
        value=value,
        grad_norm=grad_norm,
        critical=critical,
        index=int(np.sum(values < -zero)),
        kernel=int(np.sum(np.abs(values) <= zero)),
        rotations=rotations,
        smallest=smallest,
        largest=largest,
        complete=complete,
        gap=float(certify(problem, params).gap),
        escape=escape_direction(problem, params),
        groups=shared_rows(params.W),
        spectrum=theory.Spectrum.of(snapped, rotations) if complete else None,
    )


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


_refine_all = jax.jit(jax.vmap(_refine, (None, 0, 0, None)), static_argnums=3)


def structured_starts(problem: Problem, starts: int, seed: int = 0) -> list[Params]:
    """Random starts of many sizes, half of them with classes merged in random groups and a little noise."""
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
            ratio = np.sqrt(float(problem.decay.W) / float(problem.decay.H) / max(problem.samples / K, 1.0))
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
    limit: int = 600,
) -> list[CriticalPoint]:
    """Critical points of a small problem, distinct up to rotation and class permutation, ascending in value.

    Newton steps on ``||grad||^2`` from random and structured starts, some of them after a walk down, find saddles
    and minima alike. Ends that are not critical are dropped; the list need not be complete.

    Args:
        problem: of at most ``limit`` variables (each step solves a dense eigenproblem).
        starts: how many random ones, beside the equal groups of `theory.ladder`, or the points themselves.
        seed: of the starts.
        tol: gradient norm at which an end counts as critical.
        steps: Newton steps a start.
        limit: variables allowed.
    """
    if isinstance(starts, int):
        # Least squares alone is drawn to saddles: some starts walk down first, part of the way or all of it.
        points = structured_starts(problem, starts, seed) + _ladder_points(problem)
        descend = np.resize(np.repeat([0, 60, 0, 4, 0, 12], 2), starts)
        descend = np.append(descend, np.zeros(len(points) - starts, int))
    else:
        points = list(starts)
        descend = np.zeros(len(points), int)
    require(len(points) > 0, "starts", starts, "at least one")
    size = Hessian(problem, points[0]).size
    require(size <= limit, "size", size, f"at most {limit}; use ufm.solve for minima, or raise limit")
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *points)
    ends, norms = _refine_all(problem.astype(points[0].H.dtype), stacked, jnp.asarray(descend, jnp.int32), steps)
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
    """
    points = [p for p in points if p.critical]
    least = min((p.value for p in points), default=np.inf)
    isolated = [p for p in points if p.complete and p.index == 0 and p.kernel == p.rotations]
    return [p for p in isolated if p.value > least + 1e-8 * max(1.0, abs(least))]


def invariants(problem: Problem, params: Params) -> np.ndarray:
    """Numbers that no rotation, class permutation or sample permutation changes: value and sorted Gram spectra."""
    W, H = np.asarray(params.W), np.asarray(params.H)
    b = np.zeros(problem.classes) if params.b is None else np.broadcast_to(np.asarray(params.b), (problem.classes,))
    rows = [np.sort(np.sum(W**2, axis=1)), np.sort(np.sum(H**2, axis=0)), np.sort(b)]
    spectra = [np.linalg.svd(W, compute_uv=False), np.linalg.svd(H, compute_uv=False)]
    return np.concatenate([[float(problem.objective(params))], *rows, *spectra])


def rung_of(point: CriticalPoint, rungs: Iterable[theory.Rung] = ()) -> str:
    """Name of the rung with the same value, such as ``"2+2+2"``, or ``""``."""
    for rung in rungs:
        if abs(rung.value - point.value) <= 1e-7 * max(1.0, abs(rung.value)):
            return "+".join(map(str, sorted(rung.groups, reverse=True)))
    return ""


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
    """`theory.ladder` and the unequal groupings of `theory.merged`: one rung for each partition of K."""
    equal = theory.ladder(problem)
    known = {rung.groups for rung in equal}
    rest = [p for p in partitions(problem.classes) if p not in known and len(set(p)) > 1]
    return sorted([*equal, *(theory.merged(problem, p) for p in rest)], key=lambda rung: -rung.value)

"""What is known of a point: index, kernel, certificate, and the way down from those that are not minima."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ufm import theory
from ufm._base import cast, float64_scope, require, widened
from ufm.landscape.eigen import extreme_eigenpairs
from ufm.landscape.hvp import DENSE_LIMIT, Hessian, hvp
from ufm.problem import Params, Problem
from ufm.solvers import least_tolerance
from ufm.theory import certify


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


@jax.jit
def _gradient_in_Z(problem: Problem, params: Params) -> jax.Array:
    return jax.grad(problem.astype(params.H.dtype).risk)(problem.logits(params))


def escape_direction(problem: Problem, params: Params) -> Escape:
    """Direction ``((dH/dW)^1/4 u a', -(dH/dW)^-1/4 a v', 0)``, ``a`` in null(W), (u, v) the top pair of grad_Z.

    Zhu et al. 2021, Thm 3.2: at a critical point with d > K it descends unless the point is global. The
    curvature equals the promise exactly; where the promise is positive nothing is said.

    Args:
        problem: with a free classifier.
        params: any point; the promise is the curvature at critical ones.

    Returns:
        An `Escape`; without a direction where W has rank d.

    Raises:
        InputError: for a fixed classifier.

    >>> import jax, ufm
    >>> problem = ufm.Problem(3, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> origin = jax.tree.map(jax.numpy.zeros_like, problem.init(jax.random.key(0)))
    >>> escape = ufm.landscape.escape_direction(problem, origin)
    >>> round(float(escape.promised), 4), round(escape.measured, 4)
    (-0.2257, -0.2257)
    """
    free = problem.model.multiplicative and not problem.model.bounded
    require(free, "model", str(problem.model), "linear: a free classifier")
    weights = np.broadcast_to(problem.multiplicity, (problem.columns,))
    G = np.asarray(_gradient_in_Z(problem, params)) / np.sqrt(weights)
    u, sizes, vt = np.linalg.svd(G, full_matrices=False)
    rho = float(problem.decay.ratio)
    promised = -2.0 * (float(sizes[0]) - float(problem.decay.price)) / (rho + 1.0 / rho)
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
    point: others are reported as such. All is computed in float64, whatever JAX's default.

    Raises:
        InputError: for a point in float32, which no gradient norm of ``tol`` can be asked of, unless ``tol`` is larger.

    >>> import jax, ufm
    >>> problem = ufm.Problem(3, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> origin = jax.tree.map(jax.numpy.zeros_like, problem.init(jax.random.key(0)))
    >>> point = examine(problem, origin)
    >>> point.kind, point.index, point.kernel
    ('strict saddle', 10, 0)
    """
    dtype = np.dtype(params.H.dtype)
    least = least_tolerance(dtype)
    remedy = "" if dtype == np.float64 else "; for less, run jax.config.update('jax_enable_x64', True) and solve again"
    require(problem.model.multiplicative, "model", str(problem.model), "linear: a free classifier")
    require(tol >= least, "tol", tol, f"at least {least:.1e} for a point in {dtype.name}{remedy}")
    with float64_scope():
        return _examine(widened(problem), cast(params, jnp.float64), tol, limit)


def _examine(problem: Problem, params: Params, tol: float, limit: int) -> CriticalPoint:
    hessian = Hessian(problem, params)
    value, gradient = hessian.value_and_gradient()
    grad_norm = float(np.linalg.norm(gradient))
    complete = hessian.size <= limit
    eps = float(np.finfo(float).eps)
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

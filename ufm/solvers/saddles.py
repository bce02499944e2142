"""Whether a critical point is a strict saddle, and the way down from one.

Screen. With a convex loss and a free classifier a critical point is global iff ``||G||_op <= sqrt(decay_W decay_H)``,
``G = grad_Z diag(1/sqrt m)`` the gradient in the logits, ``m`` the multiplicity of each column: "if" in every dimension
by duality, "only if" wherever W has a null vector a, for then ``(u a', -a v')`` in scaled variables, (u, v) the top
singular pair of G, has curvature ``1 - ||G||_op/sqrt(decay_W decay_H)`` (Zhu et al. 2021, Thm 3.2). Only what fails
the screen, and every critical point of a loss that is not convex or of a normalized problem, is looked at further.

Look. Lanczos with full reorthogonalization from a random vector gives a direction of the least curvature; a random
one, because the directions in which such a point is left come in whole eigenspaces, and one symmetric direction leads
to the next saddle. The point is a strict saddle where that curvature is negative beyond rounding *and* the
objective is seen to be lower along the direction. Nothing is said of saddles that are degenerate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ufm import symmetry
from ufm._base import matmul, norm, operator_norm
from ufm.models import Linear
from ufm.problem import Params
from ufm.solvers import axes, classwise
from ufm.solvers._core import Solution, Status

LANCZOS = 40
"""Steps: curvature 1 below zero is found in a spectrum that reaches to 1e3 (Kaniel-Paige: error e^(-4 m/sqrt(1e3)))."""
LENGTHS = 8
"""Lengths tried on the way down, each a quarter of the last: the shortest moves 1e-5 of the point's size."""


def screened(problem: Any, params: Params, residual: Any) -> Array:
    """Whether a critical point is global by the spectral norm of its gradient; see the module's docstring."""
    if not (isinstance(problem.model, Linear) and problem.loss.convex):
        return jnp.zeros((), bool)
    if not problem.model.multiplicative:  # W is given: convex in the features and the bias
        return jnp.ones((), bool)
    problem, params = _shared(problem.astype(params.H.dtype), params)
    G, allowed = problem.model.spectral(problem, jax.grad(problem.risk)(problem.logits(params)))
    if problem.model.bounded:  # max(G'G, 0) bounds ||G h|| over non-negative h
        top = jnp.linalg.eigvalsh(jnp.maximum(matmul(G.T, G), 0.0))[-1]
        return top <= allowed**2 * (1.0 + 2.0 * _slack(params.H.dtype, residual))
    return operator_norm(G) <= allowed * (1.0 + _slack(params.H.dtype, residual))


def suspect(problem: Any, solution: Solution) -> Array:
    """Whether a solve ended at a critical point that the screen does not prove global."""
    return (solution.status == Status.CONVERGED) & ~screened(problem, solution.params, solution.residual)


def way_down(problem: Any, params: Params, residual: Any) -> tuple[Params, Array]:
    """A point below a critical point along the direction of least curvature, and the `Status` that it shows.

    ``SADDLE`` where the point found is lower, ``LOCAL_MINIMUM`` where only a wider problem has a way down, else
    ``CONVERGED``.
    """
    whole = problem
    problem, params = _shared(problem.astype(params.H.dtype), params)
    space = problem.model.coordinates(problem, params)
    point = space.inward(params)
    if problem.model.bounded:
        return _along_axis(whole, problem, space, point, residual)
    flat, unravel = ravel_pytree(point)
    product, eps = space.hessian(point), jnp.finfo(flat.dtype).eps
    value, gradient = space.value_and_gradient(point)
    # The origin has no size: sqrt(2 f) is that of a solution (`_core`).
    size = jnp.maximum(norm(point), jnp.sqrt(2.0 * jnp.abs(value)))

    direction, least, largest = _least(lambda v: ravel_pytree(product(unravel(v)))[0], flat, space, unravel)
    # Downhill to first order too.
    direction = jnp.where(jnp.vdot(direction, ravel_pytree(gradient)[0]) > 0, -direction, direction)
    lengths = 0.25 ** jnp.arange(1, LENGTHS + 1, dtype=flat.dtype) * size
    values = jax.lax.map(lambda t: space.objective(space.retract(point, unravel(t * direction))), lengths)
    values = jnp.where(jnp.isfinite(values), values, jnp.inf)
    best = jnp.argmin(values)
    curved = least < -_slack(flat.dtype, residual) * jnp.maximum(1.0, largest)
    lower = values[best] < value - 10.0 * eps * jnp.abs(value)
    below = space.outward(space.retract(point, unravel(lengths[best] * direction)))
    return _spread(whole, below), jnp.where(curved & lower, Status.SADDLE, Status.CONVERGED)


def _along_axis(whole: Any, problem: Any, space: Any, point: Params, residual: Any) -> tuple[Params, Array]:
    """`way_down` where features are non-negative: see `axes`."""
    dtype, eps = point.H.dtype, jnp.finfo(point.H.dtype).eps
    value = space.objective(point)
    size = jnp.sqrt(2.0 * jnp.abs(value))
    lengths = 0.25 ** jnp.arange(0, LENGTHS, dtype=dtype) * size
    best, low, steep = axes.way_down(problem, space, point, lengths)
    curved = steep > 1.0 + 2.0 * _slack(dtype, residual)
    status = jnp.where(low < value - 10.0 * eps * jnp.abs(value), Status.SADDLE, Status.LOCAL_MINIMUM)
    return _spread(whole, space.outward(best)), jnp.where(curved, status, Status.CONVERGED)


def _spread(problem: Any, params: Params) -> Params:
    """The point with a feature for each column of ``problem``, where it has one per class."""
    if params.H.shape[1] == problem.columns:
        return params
    return dataclasses.replace(params, H=symmetry.spread(problem, params.H))


def _slack(dtype: Any, residual: Any) -> Array:
    """Negative curvature that an inexact critical point may show near a minimum: root of rounding or residual."""
    return jnp.sqrt(jnp.maximum(jnp.asarray(residual, dtype), jnp.finfo(dtype).eps))


def _shared(problem: Any, params: Params) -> tuple[Any, Params]:
    """One feature per class where a convex loss makes them agree: deviations from it have positive curvature only."""
    if not classwise.collapses(problem):
        return problem, params
    return symmetry.shared(problem), dataclasses.replace(params, H=symmetry.means(problem, params.H))


def _least(product: Any, flat: Array, space: Any, unravel: Any) -> tuple[Array, Array, Array]:
    """Ritz vector of the least Ritz value, that value, and the largest one in size."""
    steps = min(LANCZOS, flat.size)
    start = jax.random.normal(jax.random.key(0), flat.shape, flat.dtype)
    if hasattr(space, "tangent"):
        start = ravel_pytree(space.tangent(unravel(flat), unravel(start)))[0]

    def iterate(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        basis, images, v = carry
        image = product(v)
        basis, images = basis.at[j].set(v), images.at[j].set(image)
        rest = image
        for _ in range(2):  # twice is enough (Parlett 1998, Sec. 6.9)
            rest = rest - matmul(basis.T, matmul(basis, rest[:, None]))[:, 0]
        length = jnp.linalg.norm(rest)
        # An invariant subspace ends it: zero vectors add Ritz values of zero, which are no news.
        fresh = length > 1e3 * jnp.finfo(v.dtype).eps * jnp.linalg.norm(image)
        return basis, images, jnp.where(fresh, rest / jnp.where(fresh, length, 1.0), 0.0)

    blank = jnp.zeros((steps, flat.size), flat.dtype)
    basis, images, _ = jax.lax.fori_loop(0, steps, iterate, (blank, blank, start / jnp.linalg.norm(start)))
    small = matmul(basis, images.T)
    values, vectors = jnp.linalg.eigh(0.5 * (small + small.T))
    direction = matmul(basis.T, vectors[:, :1])[:, 0]
    direction = direction / jnp.maximum(jnp.linalg.norm(direction), jnp.finfo(flat.dtype).tiny)
    return direction, values[0], jnp.max(jnp.abs(values))


def judged(problem: Any, solution: Solution) -> Solution:
    """The ``solution`` with the status that `way_down` gives it where it converged; traceable.

    >>> import jax, ufm
    >>> problem = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01))
    >>> origin = jax.tree.map(jax.numpy.zeros_like, problem.init(jax.random.key(0)))
    >>> found = ufm.solvers.run(ufm.solvers.Newton(), problem, origin)
    >>> found.status_name, ufm.solvers.judged(problem, found).status_name
    ('converged', 'saddle')
    """
    status = jax.lax.cond(
        suspect(problem, solution),
        lambda x: way_down(problem, x, solution.residual)[1].astype(jnp.int32),
        lambda _: jnp.asarray(solution.status, jnp.int32),
        solution.params,
    )
    return dataclasses.replace(solution, status=status)

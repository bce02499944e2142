"""Unit features and unit classifier rows: class metrics ``gamma cos(w_j, h)`` instead of ``w_j'h``.

Duality. For unit rows and columns and any positive r (K,) and c (columns,) that each sum to one,

    <V, W H> = <R^-1/2 V C^-1/2, R^1/2 W H C^1/2> <= ||R^-1/2 V C^-1/2||_op,

because ``||R^1/2 W||_F = ||H C^1/2||_F = 1``: so ``R*(V) <= gamma ||R^-1/2 V C^-1/2||_op``. At a minimizer the
multipliers of the unit norms, normalized, are the best r and c. The bound holds for every d; it is tight where the
convex problem over ``{X : gamma_2(X) <= gamma}`` (which unit vectors of R^(K+columns) reach) has a solution of rank d.

Solving. Absil, Mahony & Sepulchre, "Optimization Algorithms on Matrix Manifolds" (2008), Sec. 7.1 for the
Riemannian trust region; Absil, Mahony & Trumpf 2013 for the Hessian of a sphere: with P the projection
onto the tangent space at x, ``|x| = r``,

    grad f = P g,      Hess f[xi] = P (D g)[xi] - (<x, g>/r^2) xi,      retraction  r (x + xi)/|x + xi|.

Scaling: w_k runs on a sphere of radius ``K^-1/2`` and h_i of ``(m_i/N)^1/2``, m_i the multiplicity of the
column, so that W, H and b have comparable curvature.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import axpy, matmul, norm, operator_norm, pytree, require_range
from ufm.models._base import Model
from ufm.models._params import Params

if TYPE_CHECKING:
    from ufm.problem import Problem


@pytree()
@dataclass(frozen=True)
class Spheres(Model):
    """Logits ``gamma W H + b`` with unit rows of W and unit columns of H; only the bias is decayed.

    Args:
        gamma: scale of the cosines, > 0.

    ``features="per_class"`` is exact here too, for any loss: at fixed (W, b) the samples of a class minimize one
    and the same function.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE(), model=Spheres(2.0))
    >>> round(float(ufm.solve(problem).value), 9) == round(ufm.theory.spheres.ce(2.0, 3).value, 9)
    True
    """

    gamma: Any
    name = "spheres"
    kind = "unit features and classifier rows"
    decays = ()

    def __post_init__(self) -> None:
        require_range("gamma", self.gamma, "a finite number > 0", lambda g: (g > 0) & (g < np.inf))

    def layers(self, params: Params) -> tuple[Array, Array]:
        return jnp.asarray(self.gamma, params.W.dtype) * params.W, params.H

    def penalty(self, problem: Problem, params: Params) -> Array:
        """0: the norms are fixed."""
        return jnp.zeros((), params.H.dtype)

    def onto(self, params: Params) -> Params:
        """Unit rows of W and unit columns of H."""
        return Params(_unit(params.W, 1), _unit(params.H, 0), params.b)

    def coordinates(self, problem: Problem, params: Params) -> OnSpheres:
        dtype = params.H.dtype
        share = jnp.asarray(problem.multiplicity, dtype) / problem.samples
        columns = jnp.broadcast_to(jnp.sqrt(share), (1, problem.columns))
        return OnSpheres(problem, jnp.asarray(problem.classes**-0.5, dtype), columns)

    def dual_scale(self, problem: Problem, V: Array) -> Array:
        return jnp.ones((), V.dtype)

    def conjugate(self, problem: Problem, V: Array, params: Params) -> tuple[Array, Array]:
        """See the module; uniform weights are tried as well and the better bound kept."""
        norms = [
            operator_norm(V / jnp.sqrt(r)[:, None] / jnp.sqrt(c)[None, :]) for r, c in self.weights(problem, V, params)
        ]
        support = self.gamma * functools.reduce(jnp.minimum, norms)
        return support, support

    def weights(self, problem: Problem, V: Array, params: Params) -> list[tuple[Array, Array]]:
        """Positive r (K,) and c (columns,) of sum one: uniform ones, and those along the multipliers at ``params``."""
        m = problem.copies(V.dtype)
        pull = -V * matmul(params.W, params.H)
        uniform = jnp.full((problem.classes,), 1.0 / problem.classes, V.dtype), m / problem.samples
        return [uniform, (_shares(jnp.sum(pull, axis=1)), _shares(jnp.sum(pull, axis=0)))]

    @property
    def words(self) -> str:
        return f"on spheres, gamma={float(self.gamma):g}"

    @property
    def hyper(self) -> dict[str, Any]:
        return {"gamma": self.gamma}


def _unit(x: Array, axis: int) -> Array:
    return x / jnp.linalg.norm(x, axis=axis, keepdims=True)


def _shares(pull: Array) -> Array:
    """Positive weights that sum to one, along the multipliers where these are positive."""
    kept = jnp.maximum(pull, 1e-6 * jnp.max(jnp.abs(pull)) + jnp.finfo(pull.dtype).tiny)
    return kept / jnp.sum(kept)


@dataclass(frozen=True)
class OnSpheres:
    """Coordinates on the product of spheres: value, gradient, Hessian, retraction.

    W (K, d) has rows of norm ``rows``, H (d, columns) columns of norm ``columns``; see the module's docstring for
    the formulas and their source (Absil, Mahony & Sepulchre 2008). `ufm.solvers.Newton` works in them; so may a
    method of one's own.

    >>> import jax, ufm
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE(), model=ufm.models.Spheres(gamma=2.0))
    >>> spheres = problem.model.coordinates(problem, problem.init(jax.random.key(0)))
    >>> value_and_gradient = jax.jit(spheres.value_and_gradient)
    >>> point = spheres.inward(problem.init(jax.random.key(0)))
    >>> value, gradient = value_and_gradient(point)
    >>> bool(abs((point.W * gradient.W).sum(axis=1)).max() < 1e-6)          # tangent to the spheres
    True
    >>> lower, _ = value_and_gradient(spheres.retract(point, jax.tree.map(lambda g: -0.1 * g, gradient)))
    >>> bool(lower < value)
    True
    """

    problem: Problem
    rows: Array
    """Radius of the rows of W: ()."""
    columns: Array
    """Radii of the columns of H: (1, columns)."""

    def inward(self, params: Params) -> Params:
        """Onto the spheres."""
        return self._normalized(params)

    def outward(self, point: Params) -> Params:
        """Unit rows and columns."""
        return Params(point.W / self.rows, point.H / self.columns, point.b)

    def inflated(self, factor: Array) -> OnSpheres:
        """Norms are fixed here: there is no decay to inflate."""
        return self

    def first_inflation(self) -> Array:
        """One; see `inflated`."""
        return jnp.ones((), self.rows.dtype)

    def objective(self, point: Params) -> Array:
        """The objective as a function of the point."""
        return self.problem.objective(self.outward(point))

    def value_and_gradient(self, point: Params) -> tuple[Array, Params]:
        """Value and Riemannian gradient."""
        value, gradient = jax.value_and_grad(self.objective)(point)
        return value, self.tangent(point, gradient)

    def hessian(self, point: Params) -> Callable[[Params], Params]:
        """Riemannian Hessian, as a map of tangent vectors."""
        gradient, hvp = jax.linearize(jax.grad(self.objective), point)
        bend_w, bend_h = self._normal_parts(point, gradient)

        def product(xi: Params) -> Params:
            euclidean = self.tangent(point, hvp(xi))
            return Params(euclidean.W - bend_w * xi.W, euclidean.H - bend_h * xi.H, euclidean.b)

        return product

    def retract(self, point: Params, move: Params) -> Params:
        """Along ``move``, then back onto the spheres."""
        return self._normalized(axpy(1.0, move, point))

    def plain_norm(self, gradient: Params) -> Array:
        """Norm of the Riemannian gradient on unit spheres."""
        return norm(Params(gradient.W * self.rows, gradient.H * self.columns, gradient.b))

    def _normalized(self, params: Params) -> Params:
        W = self.rows * params.W / jnp.linalg.norm(params.W, axis=1, keepdims=True)
        H = self.columns * params.H / jnp.linalg.norm(params.H, axis=0, keepdims=True)
        return Params(W, H, params.b)

    def _normal_parts(self, point: Params, g: Params) -> tuple[Array, Array]:
        """``<x, g>/r^2`` of every row of W, (K, 1), and column of H, (1, columns)."""
        of_w = jnp.sum(point.W * g.W, axis=1, keepdims=True) / self.rows**2
        of_h = jnp.sum(point.H * g.H, axis=0, keepdims=True) / self.columns**2
        return of_w, of_h

    def tangent(self, point: Params, g: Params) -> Params:
        """The part of ``g`` that is tangent to the spheres."""
        of_w, of_h = self._normal_parts(point, g)
        return Params(g.W - of_w * point.W, g.H - of_h * point.H, g.b)

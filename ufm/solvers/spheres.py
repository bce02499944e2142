"""Coordinates for `Newton` on the product of spheres of a normalised problem.

Absil, Mahony & Sepulchre, "Optimization Algorithms on Matrix Manifolds" (2008), Sec. 7.1 for the
Riemannian trust region; Absil, Mahony & Trumpf 2013 for the Hessian of a sphere: with P the projection
onto the tangent space at x, ``|x| = r``,

    grad f = P g,      Hess f[xi] = P (D g)[xi] - (<x, g>/r^2) xi,      retraction  r (x + xi)/|x + xi|.

Scaling: w_k runs on a sphere of radius ``K^-1/2`` and h_i of ``(m_i/N)^1/2``, m_i the multiplicity of the
column, so that W, H and b have comparable curvature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from ufm.problem import Params
from ufm.solvers._core import axpy, coordinates, norm
from ufm.spheres import NormalizedProblem


@dataclass(frozen=True)
class Spheres:
    """Coordinates on the product of spheres on which a normalised problem lives: value, gradient, Hessian, retraction.

    W (K, d) has rows of norm ``rows``, H (d, columns) columns of norm ``columns``; see the module's docstring for
    the formulas and their source (Absil, Mahony & Sepulchre 2008). `Newton` works in them; so may a method of
    one's own.

    >>> import jax, ufm
    >>> problem = ufm.NormalizedProblem(ufm.Problem(3, 4, 2, loss=ufm.losses.CE()), gamma=2.0)
    >>> spheres = ufm.solvers.Spheres(problem, rows=jax.numpy.array(3**-0.5), columns=jax.numpy.full((1, 6), 6**-0.5))
    >>> value_and_gradient = jax.jit(spheres.value_and_gradient)
    >>> point = spheres.inward(problem.init(jax.random.key(0)))
    >>> value, gradient = value_and_gradient(point)
    >>> bool(abs((point.W * gradient.W).sum(axis=1)).max() < 1e-6)          # tangent to the spheres
    True
    >>> lower, _ = value_and_gradient(spheres.retract(point, jax.tree.map(lambda g: -0.1 * g, gradient)))
    >>> bool(lower < value)
    True
    """

    problem: NormalizedProblem
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

    def inflated(self, factor: Array) -> Spheres:
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
        """Projection of ``g`` onto the directions that keep all norms at ``point``."""
        of_w, of_h = self._normal_parts(point, g)
        return Params(g.W - of_w * point.W, g.H - of_h * point.H, g.b)


@coordinates.register
def _(problem: NormalizedProblem, params: Params) -> Spheres:
    inner, dtype = problem.problem, params.H.dtype
    share = jnp.asarray(inner.multiplicity, dtype) / inner.samples
    columns = jnp.broadcast_to(jnp.sqrt(share), (1, inner.columns))
    return Spheres(problem, jnp.asarray(inner.classes**-0.5, dtype), columns)

"""Scaled variables: what solvers work in wherever every array is allowed.

In the variables ``(sqrt(decay_W) W, sqrt(decay_H m) H, sqrt(decay_b + 1/K) b)``, ``m`` the multiplicity of a
column, the decays become ``1/2 ||.||^2`` and the Hessian is the identity plus the loss's part, so one trust radius
and one stopping rule suit all decays and sizes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import axpy
from ufm.models._params import Params

if TYPE_CHECKING:
    from ufm.problem import Problem


@dataclass(frozen=True)
class Scaled:
    """The objective in scaled variables (see the module's docstring)."""

    problem: Problem
    scale: Params
    inflation: Any = None
    """Factor on the decays of W and H, if any."""

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
                jax.tree.map(lambda _: jnp.sqrt(jnp.asarray(decay.W, dtype)), params.W),
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
        """The objective as a function of the scaled variables, with the decays of W and H inflated."""
        value = self.problem.objective(self.outward(scaled))
        return value if self.inflation is None else value + (self.inflation - 1.0) * half_square(scaled)

    def inflated(self, factor: Array) -> Scaled:
        """The same with the decays of W and H times ``factor``."""
        return dataclasses.replace(self, inflation=factor)

    def first_inflation(self) -> Array:
        """Factor that brings the decays to a twentieth of where everything collapses to zero, at least 1.

        They do so when ``sqrt(decay_W decay_H)`` is the norm of the logit gradient at zero, about
        ``||grad loss(0)|| / sqrt(N (K - 1))``.
        """
        problem, dtype = self.problem, self.scale.H.dtype
        if not problem.model.multiplicative:  # no products, no valley; and W must stay where it is
            return jnp.ones((), dtype)
        slope = jnp.linalg.norm(jax.grad(problem.loss)(jnp.zeros(problem.classes, dtype), 0))
        threshold = slope / (problem.samples * (problem.classes - 1.0)) ** 0.5
        return jnp.maximum(1.0, 0.05 * threshold / jnp.asarray(problem.decay.price, dtype))

    def value_and_gradient(self, scaled: Params) -> tuple[Array, Params]:
        """The objective and its gradient in the scaled variables."""
        return jax.value_and_grad(self.objective)(scaled)

    def hessian(self, scaled: Params) -> Callable[[Params], Params]:
        """The Hessian there, as a map of directions."""
        plain = self.problem.hessian(self.outward(scaled))

        def product(direction: Params) -> Params:
            image = self.gradient(plain(self.outward(direction)))
            if self.inflation is None:
                return image
            W, H = axpy(self.inflation - 1.0, (direction.W, direction.H), (image.W, image.H))
            return Params(W, H, image.b)

        return product

    def retract(self, scaled: Params, move: Params) -> Params:
        """The point a ``move`` away."""
        return axpy(1.0, move, scaled)

    def gradient(self, gradient: Params) -> Params:
        """Gradient in scaled variables, given the plain one."""
        return jax.tree.map(lambda g, s: g / s, gradient, self.scale)

    def plain_norm(self, gradient: Params) -> Array:
        """Norm of the plain gradient, given the gradient in scaled variables."""
        return self.problem.gradient_norm(jax.tree.map(lambda g, s: g * s, gradient, self.scale))


def half_square(point: Params) -> Array:
    """``(||W||^2 + ||H||^2)/2``: in scaled variables, what the decays of W and H cost."""
    return 0.5 * functools.reduce(jnp.add, (jnp.sum(x**2) for x in jax.tree.leaves((point.W, point.H))))

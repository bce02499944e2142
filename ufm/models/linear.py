"""The unconstrained feature model itself: free W and H, ``Z = W H + b``.

Its penalty lifts to a nuclear norm (Srebro, Rennie & Jaakkola 2004, Lemma 1), ``m_i`` the multiplicity of column i:

    R(X) = sqrt(decay_W decay_H) ||X diag(sqrt m)||_*   for d >= rank X,
    R*(V) = 0 if ||V diag(1/sqrt m)||_op <= sqrt(decay_W decay_H), else infinite.

Scaling of the solvers. In the variables ``(sqrt(decay_W) W, sqrt(decay_H m) H, sqrt(decay_b + 1/K) b)`` the decays
become ``1/2 ||.||^2`` and the Hessian is the identity plus the loss's part, so one trust radius and one stopping
rule suit all decays and sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm import blocks
from ufm._base import axpy, matmul, norm, operator_norm, pytree
from ufm.models._base import Model, Params

if TYPE_CHECKING:
    from ufm.problem import Problem


@pytree()
@dataclass(frozen=True)
class Linear(Model):
    """Free classifier and free features: the model of theorems unless they say otherwise.

    >>> import ufm
    >>> ufm.Problem(3, 4, 5, model=ufm.models.Linear()) == ufm.Problem(3, 4, 5)
    True
    """

    name = "linear"
    multiplicative = True

    def layers(self, params: Params) -> tuple[Array, Array]:
        return params.W, params.H

    def penalty(self, problem: Problem, params: Params) -> Array:
        """``decay_W/2 ||W||^2 + decay_H/2 sum m_i ||h_i||^2``."""
        C, F = self.layers(params)
        decay = problem.decay
        return 0.5 * (decay.W * jnp.sum(C**2) + decay.H * problem.weighted_sum(jnp.sum(F**2, axis=0)))

    def coordinates(self, problem: Problem, params: Params) -> Scaled:
        return Scaled.of(problem, params)

    def hessian(self, problem: Problem, params: Params) -> Callable[[Params], Params]:
        """``direction -> Hessian direction`` at ``params``, with all that depends on the point alone computed once.

        Forward over reverse through the loss, with G the gradient in Z and dG its change along dZ; the product rule
        through ``Z = W H + b``, and the penalty is quadratic:

            dZ = dW H + W dH + db,   (dG H' + G dH',  W' dG + dW' G,  dG 1) + decays times (dW, dH, db).

        Autodiff of the whole objective gives the same products, but compiled for CPU it fuses them with the penalty
        into loops that cost twice as much at a million variables.
        """
        if problem.classes * problem.columns > blocks.HELD:  # no room to keep what depends on the point
            return super().hessian(problem, params)
        problem = problem.astype(params.H.dtype)
        W, H = problem.model.layers(params)
        G, curvature = jax.linearize(jax.grad(problem.risk), problem.logits(params))

        def product(direction: Params) -> Params:
            dW, dH, db = direction.W, direction.H, direction.b
            dZ = matmul(W, dH)
            if self.multiplicative:
                dZ += matmul(dW, H)
            if db is not None:
                dZ += db[:, None] if jnp.ndim(db) else db
            dG = curvature(dZ)
            of_W, of_H = jnp.zeros_like(dW), matmul(W.T, dG)
            if self.multiplicative:
                of_W = matmul(dG, H.T) + matmul(G, dH.T)
                of_H += matmul(dW.T, G)
            of_b = None if db is None else jnp.sum(dG, axis=1 if jnp.ndim(db) else None)
            return jax.tree.map(jnp.add, Params(of_W, of_H, of_b), jax.grad(problem.penalty)(direction))

        return product

    def dual_scale(self, problem: Problem, V: Array) -> Array:
        roots = jnp.sqrt(jnp.asarray(problem.multiplicity, V.dtype))
        allowed = jnp.sqrt(problem.decay.W) * jnp.sqrt(problem.decay.H)
        return jnp.minimum(1.0, allowed / operator_norm(V / (roots[None, :] if roots.ndim else roots)))

    def conjugate(self, problem: Problem, V: Array, params: Params) -> tuple[Array, Array]:
        """0 wherever it is finite: `dual_scale` sees to that."""
        zero = jnp.zeros((), V.dtype)
        return zero, zero


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
                jnp.sqrt(jnp.asarray(decay.W, dtype)),
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
        problem, dtype = self.problem, self.scale.W.dtype
        if not problem.model.multiplicative:  # no products, no valley; and W must stay where it is
            return jnp.ones((), dtype)
        slope = jnp.linalg.norm(jax.grad(problem.loss)(jnp.zeros(problem.classes, dtype), 0))
        threshold = slope / (problem.samples * (problem.classes - 1.0)) ** 0.5
        return jnp.maximum(1.0, 0.05 * threshold / jnp.sqrt(jnp.asarray(problem.decay.W * problem.decay.H, dtype)))

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
            excess = self.inflation - 1.0
            return Params(image.W + excess * direction.W, image.H + excess * direction.H, image.b)

        return product

    def retract(self, scaled: Params, move: Params) -> Params:
        """The point a ``move`` away."""
        return axpy(1.0, move, scaled)

    def gradient(self, gradient: Params) -> Params:
        """Gradient in scaled variables, given the plain one."""
        return jax.tree.map(lambda g, s: g / s, gradient, self.scale)

    def plain_norm(self, gradient: Params) -> Array:
        """Norm of the plain gradient, given the gradient in scaled variables."""
        return norm(jax.tree.map(lambda g, s: g * s, gradient, self.scale))


def half_square(point: Params) -> Array:
    """``(||W||^2 + ||H||^2)/2``: in scaled variables, what the decays of W and H cost."""
    return 0.5 * (jnp.sum(point.W**2) + jnp.sum(point.H**2))

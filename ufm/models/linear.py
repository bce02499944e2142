"""The unconstrained feature model itself: free W and H, ``Z = W H + b``.

Its penalty lifts to a nuclear norm (Srebro, Rennie & Jaakkola 2004, Lemma 1), ``m_i`` the multiplicity of column i:

    R(X) = sqrt(decay_W decay_H) ||X diag(sqrt m)||_*   for d >= rank X,
    R*(V) = 0 if ||V diag(1/sqrt m)||_op <= sqrt(decay_W decay_H), else infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from ufm import blocks
from ufm._base import matmul, operator_norm, pytree
from ufm.models._base import Model
from ufm.models._factors import balanced_factors
from ufm.models._params import Params

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
    kind = "a free classifier"
    multiplicative = True
    decayed = True
    collapses = True

    def layers(self, params: Params) -> tuple[Array, Array]:
        return params.W, params.H

    def penalty(self, problem: Problem, params: Params) -> Array:
        """``decay_W/2 ||W||^2 + decay_H/2 sum m_i ||h_i||^2``."""
        C, F = self.layers(params)
        decay = problem.decay
        return 0.5 * (decay.W * jnp.sum(C**2) + decay.H * problem.weighted_sum(jnp.sum(F**2, axis=0)))

    def factored(self, problem: Problem, X: Array) -> Params:
        if not self.multiplicative:
            return super().factored(problem, X)
        (W,), H = balanced_factors(problem, X, (problem.dim,))
        return Params(W, H)

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

    def spectral(self, problem: Problem, V: Array) -> tuple[Array, Array]:
        """A matrix and the spectral norm that it may have for R* to be finite: ``V diag(1/sqrt m)``, and s."""
        roots = jnp.sqrt(jnp.asarray(problem.multiplicity, V.dtype))
        return V / (roots[None, :] if roots.ndim else roots), jnp.asarray(problem.decay.price, V.dtype)

    def dual_scale(self, problem: Problem, V: Array) -> Array:
        A, allowed = self.spectral(problem, V)
        return jnp.minimum(1.0, allowed / operator_norm(A))

    def conjugate(self, problem: Problem, V: Array, params: Params) -> tuple[Array, Array]:
        """0 wherever it is finite: `dual_scale` sees to that."""
        zero = jnp.zeros((), V.dtype)
        return zero, zero

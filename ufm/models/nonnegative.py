"""Non-negative features, as a ReLU leaves them: ``Z = W H + b`` with ``H >= 0``.

Duality. Let V (K, columns) be a dual matrix with columns scaled by ``1/sqrt m`` and ``A = V'V``. Its penalty is
``s = sqrt(decay_W decay_H)`` times the gauge of ``{w h' : h >= 0}``, so R* is 0 where

    max over h >= 0, ||h|| = 1 of ||V h|| <= s,   that is, where s^2 I - A is copositive,

and infinite elsewhere. Copositivity is hard to decide; ``h'A h <= h'(A + P)h`` for every symmetric ``P >= 0`` gives
what can be computed: ``lambda_max(A + P) <= s^2`` suffices, and `ufm.models._copositive` looks for the best P.

Solving. Where entries of H are at zero and their slopes positive, nothing is to be gained: the gradient of `Orthant` is
that on the tangent cone, and its norm measures stationarity. A step of Newton's method sets the entries to zero whose
scaled value is at most the scaled slope (the active set of Hintermuller, Ito & Kunisch 2002, Eq. 2.9, for a Hessian
near the identity, as it is in scaled variables), solves for the others, and is projected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import axpy, matmul, pytree
from ufm.models._copositive import dominating
from ufm.models._params import Params
from ufm.models._scaled import Scaled
from ufm.models.linear import Linear

if TYPE_CHECKING:
    from ufm.problem import Problem


@pytree()
@dataclass(frozen=True)
class Nonnegative(Linear):
    """Free classifier and features that are never negative.

    >>> import ufm
    >>> problem = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01), model=Nonnegative())
    >>> solution = ufm.solve(problem)
    >>> bool(solution.params.H.min() >= 0)
    True
    """

    name = "nonnegative"
    kind = "non-negative features"
    bounded = True
    shared_dual = True  # what is looked for is then a matrix (K, K)

    def onto(self, params: Params) -> Params:
        """Negative features set to zero."""
        return Params(params.W, jnp.maximum(params.H, 0.0), params.b)

    def coordinates(self, problem: Problem, params: Params) -> Orthant:
        return Orthant(*vars(Scaled.of(problem, params)).values())

    def dominated(self, problem: Problem, V: Array, params: Params) -> tuple[Array, Array, Array]:
        """The scaled V, s, and a matrix S >= V'V whose largest eigenvalue bounds ``max ||V h||^2``; per class."""
        A, allowed = self.spectral(problem, V)
        gram = matmul(A.T, A)
        m = problem.copies(V.dtype)
        features = params.H * jnp.sqrt(m)[None, :]
        return A, allowed, dominating(0.5 * (gram + gram.T), allowed**2, features)

    def dual_scale(self, problem: Problem, V: Array) -> Array:
        _, allowed, S = self.dominated(problem, V, Params(V, jnp.eye(problem.columns, dtype=V.dtype)))
        return jnp.minimum(1.0, allowed / jnp.sqrt(jnp.linalg.eigvalsh(S)[-1]))

    @property
    def words(self) -> str:
        return "features >= 0"


@dataclass(frozen=True)
class Orthant(Scaled):
    """Scaled variables with ``H >= 0``; see the module."""

    def value_and_gradient(self, scaled: Params) -> tuple[Array, Params]:
        """The objective and its gradient on the tangent cone: zero where an entry at zero would have to fall."""
        value, gradient = super().value_and_gradient(scaled)
        return value, self.tangent(scaled, gradient)

    def tangent(self, scaled: Params, gradient: Params) -> Params:
        """The part of ``gradient`` along which the point may move against it."""
        return Params(gradient.W, jnp.where((scaled.H > 0) | (gradient.H < 0), gradient.H, 0.0), gradient.b)

    def retract(self, scaled: Params, move: Params) -> Params:
        """The point a ``move`` away, negative features set to zero."""
        moved = axpy(1.0, move, scaled)
        return Params(moved.W, jnp.maximum(moved.H, 0.0), moved.b)

    def free(self, scaled: Params, gradient: Params) -> Params:
        """Ones where entries are free, zeros where they are active: at zero, or to be set to zero."""
        ones = jax.tree.map(jnp.ones_like, scaled)
        return Params(ones.W, jnp.where(scaled.H <= gradient.H, 0.0, 1.0), ones.b)

    def beyond(self, scaled: Params, move: Params, free: Params) -> Params:
        """Which free entries a ``move`` takes below zero."""
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), scaled)
        return Params(none.W, (scaled.H + move.H < 0) & (free.H > 0), none.b)

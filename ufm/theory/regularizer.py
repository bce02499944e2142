"""What a certificate needs of each model: R*, its value and error, and how far the dual point is from feasible.

The formulas are the models' own (`ufm.models`); added here are bounds on the rounding of their evaluation. Of a user's
model nothing is known but its functions: its errors are assumed to be at most those of a sum of K + columns + d terms
of the size that `Model.conjugate` gives, `USER` times over.

Notation of `certificate`: V = s U diag(omega); ``defect``, the 1-norms (columns,) by which the columns ``s u_i`` miss
the domain of l*; T, the balanced matrix that is mixed in where the bias has no decay. The columns of T are at most
sqrt(5) long, and 3 in the 1-norm.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import matmul
from ufm.losses import MSE
from ufm.models import Deep, FixedClassifier, Linear, Model, Nonnegative, Params, Spheres
from ufm.problem import Problem
from ufm.theory import rounding as errors
from ufm.theory import shrinkage
from ufm.theory.rounding import Part, depth, gamma, total

USER = 16
"""Factor on the assumed error of a user's model."""


class Dual(NamedTuple):
    """A dual point: gradients u (K, columns) at logits of that shape, each column's target, shares omega (columns,)."""

    logits: Array
    u: Array
    targets: Array
    shares: Array


class Regularizer:
    """Of a user's model; see the module's docstring."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.model = problem, problem.model

    @property
    def terms(self) -> int:
        """Units of rounding that an entry of the logits may miss `sizes` by: products of d terms."""
        return self.problem.dim

    def sizes(self, params: Params) -> Array:
        """Bound on the sums of absolute products that the entries of each column of the logits are: (columns,)."""
        C, F = self.model.layers(params)
        return jnp.sqrt(jnp.max(jnp.sum(C**2, axis=1)) * jnp.sum(F**2, axis=0))

    def floor(self, dual: Dual) -> Part | None:
        """A lower bound on the minimum that needs no dual point, where the model has one."""
        return None

    def penalty(self, params: Params) -> Part:
        """R at a point: ``penalty`` and its error."""
        problem, value = self.problem, self.model.penalty(self.problem, params)
        return Part(value, gamma(problem.dim + depth(max(problem.columns, problem.classes)) + 8, value.dtype) * value)

    def scale(self, dual: Dual, params: Params, least: Array) -> tuple[Array, Any]:
        """The factor s on U, at most ``least``, and what `excess` needs to judge it."""
        return least * self.model.dual_scale(self.problem, least * dual.u * dual.shares[None, :]), None

    def conjugate(self, dual: Dual, params: Params, scale: Array, defect: Array) -> tuple[Part, Any]:
        """R* at ``-V``, and a bound on that of T."""
        value, size = self.model.conjugate(self.problem, scale * dual.u * dual.shares[None, :], params)
        terms = sum(dual.u.shape) + self.problem.dim
        return Part(value, USER * gamma(terms, value.dtype) * size), jnp.inf

    def excess(self, dual: Dual, scale: Array, known: Any, defect: Array, tilt: Array) -> tuple[Array, Array]:
        """x, by how much s may exceed what is feasible, and what T adds: zero where it certainly does not."""
        return jnp.zeros_like(tilt), jnp.zeros_like(tilt)


class OfProducts(Regularizer):
    """Free factors: R* is the indicator of a spectral norm."""

    def penalty(self, params: Params) -> Part:
        """Summed by `total`: sums over N d squares in any order would cost N d u."""
        problem, decay, dtype = self.problem, self.problem.decay, params.H.dtype
        W, H = self.model.layers(params)
        m = problem.copies(dtype)
        value = decay.W * total(jnp.sum(W**2, axis=1)) + decay.H * total(m * jnp.sum(H**2, axis=0))
        longest = problem.dim + depth(max(problem.columns, problem.classes)) + 8
        return Part(0.5 * value, gamma(longest, dtype) * value)

    def scale(self, dual: Dual, params: Params, least: Array) -> tuple[Array, Any]:
        A, allowed = self.model.spectral(self.problem, dual.u * dual.shares[None, :])  # type: ignore[attr-defined]
        norm, known = errors.operator_norm(A, units=6)
        return jnp.minimum(least, allowed / norm), (norm, known, allowed)

    def conjugate(self, dual: Dual, params: Params, scale: Array, defect: Array) -> tuple[Part, Any]:
        return Part(0.0, 0.0), 0.0

    def excess(self, dual: Dual, scale: Array, known: Any, defect: Array, tilt: Array) -> tuple[Array, Array]:
        norm, relative, allowed = known
        m = self.problem.copies(tilt.dtype)
        lengths = dual.shares**2 / m
        moved = jnp.sqrt(total(lengths * defect**2)) / allowed
        ratio = scale * norm / allowed
        over = (ratio - 1.0) + ratio * (relative + 16.0 * errors.unit(tilt.dtype)) + moved
        rounded = jnp.maximum(over, 0.0)
        return rounded, jnp.maximum(over + tilt * jnp.sqrt(5.0 * total(lengths)) / allowed, 0.0) - rounded


class OfNonnegative(OfProducts):
    """Non-negative features: the spectral norm gives way to the root of the largest eigenvalue of some S >= A.

    With the computed Gram matrix G of A's columns and the exact one G*, ``S - G >= 0`` exactly, and
    ``G* + (S - G)`` is off S by ``||G* - G||``, at most gamma times ``||A||_1 ||A||_inf``.
    """

    def scale(self, dual: Dual, params: Params, least: Array) -> tuple[Array, Any]:
        V = dual.u * dual.shares[None, :]
        A, allowed, S = self.model.dominated(self.problem, V, params)  # type: ignore[attr-defined]
        top, known = errors.largest_eigenvalue(S, matmul(A.T, A))
        size = jnp.abs(jax.lax.stop_gradient(A))
        spread = jnp.max(jnp.sum(size, axis=0)) * jnp.max(jnp.sum(size, axis=1)) / jax.lax.stop_gradient(top)
        known += gamma(2 * 6 + self.problem.classes + 4, V.dtype) * spread
        norm = jnp.sqrt(top)
        return jnp.minimum(least, allowed / norm), (norm, 0.5 * known, allowed)


class OfFixed(OfProducts):
    """A given classifier: R* is a sum of squares minus a constant, finite everywhere."""

    def scale(self, dual: Dual, params: Params, least: Array) -> tuple[Array, Any]:
        return least, None

    def conjugate(self, dual: Dual, params: Params, scale: Array, defect: Array) -> tuple[Part, Any]:
        problem, dtype = self.problem, dual.u.dtype
        K, d, decay = problem.classes, problem.dim, problem.decay
        W = jnp.asarray(problem.classifier, dtype)
        V, rows = scale * dual.u * dual.shares[None, :], jnp.sqrt(jnp.sum(W**2, axis=1))
        m = problem.copies(dtype)
        value, _ = self.model.conjugate(problem, V, params)
        pulled = jnp.sum(matmul(W.T, V) ** 2, axis=0)
        off = gamma(K + d + 8, dtype) * matmul(rows[None, :], jnp.abs(V))[0] + jnp.max(rows) * dual.shares * defect
        known = off * (2.0 * jnp.sqrt(pulled) + off) + gamma(d + 6 + depth(problem.columns), dtype) * pulled
        double, size = 2.0 * decay.H, total(rows**2)
        # A product and a sum in any order of d K squares, and one over the columns.
        sums = gamma(d + K + 8, dtype) * decay.W * size + gamma(problem.columns + 4, dtype) * total(pulled / m) / double
        return Part(value, total(known / m) / double + sums), 5.0 * size * total(dual.shares**2 / m) / double

    def excess(self, dual: Dual, scale: Array, known: Any, defect: Array, tilt: Array) -> tuple[Array, Array]:
        return Regularizer.excess(self, dual, scale, known, defect, tilt)


class OfSpheres(Regularizer):
    """Unit rows and columns: R* is gamma times a weighted spectral norm, for any positive shares of trace one."""

    @property
    def terms(self) -> int:
        return 3 * self.problem.dim + 16  # and of the norms that were made one, and gamma

    def penalty(self, params: Params) -> Part:
        zero = jnp.zeros((), params.H.dtype)
        return Part(zero, zero)

    def scale(self, dual: Dual, params: Params, least: Array) -> tuple[Array, Any]:
        return jnp.ones_like(least), None  # R* is finite everywhere, and so is l* at a gradient, or it is not known

    def conjugate(self, dual: Dual, params: Params, scale: Array, defect: Array) -> tuple[Part, Any]:
        problem, dtype = self.problem, dual.u.dtype
        V = dual.u * dual.shares[None, :]
        weights = self.model.weights(problem, V, params)  # type: ignore[attr-defined]
        # Each a root of two sums that are one to rounding, and gamma.
        lost = 0.5 * gamma(depth(problem.classes) + depth(problem.columns) + 24, dtype)

        def norm(r: Array, c: Array) -> Array:
            top, known = errors.operator_norm(V / jnp.sqrt(r)[:, None] / jnp.sqrt(c)[None, :], units=10)
            moved = jnp.sqrt(total((dual.shares * defect) ** 2 / c) / jnp.min(r))
            return jnp.stack([top, jax.lax.stop_gradient(top * (known + lost) + moved)])

        r, c = (jnp.stack(side) for side in zip(*weights, strict=True))
        found = jax.vmap(norm)(r, c)  # one program for both
        best = found[jnp.argmin(found[:, 0])] * self.model.gamma  # type: ignore[attr-defined]
        return Part(best[0], best[1]), 3.0 * self.model.gamma * total(dual.shares)  # type: ignore[attr-defined]


class OfDeep(Regularizer):
    """Several matrices: R* of those points alone that can be minimizers, and a floor for MSE without a ReLU."""

    @property
    def terms(self) -> int:
        return sum(self.model.inner(self.problem)) + self.problem.dim  # type: ignore[attr-defined]

    def sizes(self, params: Params) -> Array:
        norms = functools.reduce(jnp.multiply, (jnp.sqrt(jnp.sum(W**2)) for W in params.W))
        return norms * jnp.sqrt(jnp.sum(params.H**2, axis=0))

    def penalty(self, params: Params) -> Part:
        problem, decay, dtype = self.problem, self.problem.decay, params.H.dtype
        m = problem.copies(dtype)
        value = decay.H * total(m * jnp.sum(params.H**2, axis=0))
        for W in params.W:
            value += decay.W * total(jnp.sum(W**2, axis=1))
        longest = max(self.model.inner(problem))  # type: ignore[attr-defined]
        longest += depth(max(problem.columns, problem.classes, longest)) + len(params.W) + 8
        return Part(0.5 * value, gamma(longest, dtype) * value)

    def _room(self, params: Params) -> tuple[Array, Array]:
        room = self.model.room(self.problem, params)  # type: ignore[attr-defined]
        return room, self.model.reach(self.problem, room)  # type: ignore[attr-defined]

    def _norm(self, V: Array) -> tuple[Array, Array]:
        m = self.problem.copies(V.dtype)
        return errors.operator_norm(V / jnp.sqrt(m)[None, :], units=6)

    def scale(self, dual: Dual, params: Params, least: Array) -> tuple[Array, Any]:
        """As far as R* is zero."""
        room, reach = self._room(params)
        norm, _ = self._norm(dual.u * dual.shares[None, :])
        finite = jnp.isfinite(room)
        return jnp.where(finite, jnp.minimum(least, jnp.where(finite, room / (norm * reach), 1.0)), least), None

    def conjugate(self, dual: Dual, params: Params, scale: Array, defect: Array) -> tuple[Part, Any]:
        room, reach = self._room(params)
        norm, known = self._norm(scale * dual.u * dual.shares[None, :])
        m = self.problem.copies(norm.dtype)
        lengths = dual.shares**2 / m
        off = known * norm + jnp.sqrt(total(lengths * defect**2))
        balanced = jnp.maximum(jnp.sqrt(5.0 * total(lengths)) * reach - room, 0.0)
        finite = jnp.isfinite(room)
        value = jnp.where(finite, jnp.maximum(norm * reach - jnp.where(finite, room, 0.0), 0.0), jnp.inf)
        return Part(value, off * reach + 8.0 * errors.unit(norm.dtype) * room), jnp.where(finite, balanced, jnp.inf)

    def floor(self, dual: Dual) -> Part | None:
        problem = self.problem
        if not isinstance(problem.loss, MSE) or self.model.activation != "linear":  # type: ignore[attr-defined]
            return None
        return shrinkage.floor(problem, dual.shares)


@functools.singledispatch
def _kind(model: Model) -> type[Regularizer]:
    return Regularizer


_kind.register(Linear)(lambda model: OfProducts)
_kind.register(FixedClassifier)(lambda model: OfFixed)
_kind.register(Nonnegative)(lambda model: OfNonnegative)
_kind.register(Spheres)(lambda model: OfSpheres)
_kind.register(Deep)(lambda model: OfDeep)


def regularizer(problem: Problem) -> Regularizer:
    """What is known of the penalty of ``problem``."""
    return _kind(problem.model)(problem)

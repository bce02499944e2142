"""The loss that uniform classification starts from."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from ufm._base import pytree
from ufm.losses._base import Loss, on_domain, one_hot, true_class


@pytree()
@dataclass(frozen=True)
class Naive(Loss):
    """``-z_k + (1/(K-1)) sum_{j != k} z_j`` (Li et al. 2024, "Rediscovering BCE Loss").

    Linear, so without norm constraints it is unbounded below: with decays, iff ``(K-1) mu < 1``, and the
    minimum is otherwise 0, at zero. It belongs on spheres (`ufm.NormalizedProblem`), where every
    classifier whose unit rows sum to zero is optimal, a simplex ETF or not.

    >>> import jax.numpy as jnp
    >>> float(Naive()(jnp.array([3.0, 1.0, 0.0]), 0))
    -2.5
    """

    name = "naive"
    convex = True
    shift_invariant = True
    symmetric = True

    def __call__(self, logits: Array, label: Array | int) -> Array:
        return jnp.sum(logits * self._slope(logits, label))

    def conjugate(self, u: Array, label: Array | int) -> Array:
        """0 at the slope, +inf elsewhere."""
        return on_domain(jnp.zeros((), u.dtype), jnp.max(jnp.abs(u - self._slope(u, label))), u.shape[0])

    def at(self, p: Array, q: Array, classes: int) -> Array:
        return q - p

    @staticmethod
    def _slope(logits: Array, label: Array | int) -> Array:
        others = jnp.where(true_class(logits, label), 0.0, 1.0).astype(logits.dtype)
        return others / (logits.shape[0] - 1.0) - one_hot(logits, label)

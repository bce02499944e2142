"""Binary cross-entropy: one sigmoid per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from ufm._base import pytree, require_range
from ufm.losses._base import Loss, complement_log, is_column, on_domain, softplus, true_class, xlogx


@pytree()
@dataclass(frozen=True)
class BCE(Loss):
    """Binary cross-entropy ``softplus(-z_k) + sum_{j != k} softplus(z_j)``, summed over classes.

    For a column y of targets in [0, 1], ``sum_j y_j softplus(-z_j) + (1 - y_j) softplus(z_j)``.

    Li et al. 2025, "BCE vs. CE in Deep Feature Learning". Not shift invariant.

    >>> import jax.numpy as jnp
    >>> round(float(BCE()(jnp.zeros(3), 0)), 4)   # 3 log 2
    2.0794
    """

    name = "bce"
    convex = True
    infimum = 0.0
    shift_invariant = False
    symmetric = True
    takes_columns = True

    def __call__(self, logits: Array, label: Array | int) -> Array:
        if is_column(label):
            return jnp.sum(label * softplus(-logits) + (1.0 - label) * softplus(logits))
        return jnp.sum(softplus(jnp.where(true_class(logits, label), -logits, logits)))

    def check_columns(self, targets: Any) -> None:
        require_range("targets", targets.Y, "in [0, 1], for binary cross-entropy", lambda y: (y >= 0) & (y <= 1))

    def conjugate(self, u: Array, label: Array | int) -> Array:
        """``sum v log v + (1 - v) log(1 - v)`` with ``v = |u|``, the probability put on the wrong side."""
        if is_column(label):
            v = u + label
            violation = jnp.maximum(-jnp.min(v), jnp.max(v) - 1.0)
            return on_domain(jnp.sum(xlogx(v) + complement_log(v)), violation, u.shape[0])
        v = jnp.where(true_class(u, label), -u, u)
        violation = jnp.maximum(-jnp.min(v), jnp.max(v) - 1.0)
        return on_domain(jnp.sum(xlogx(v) + complement_log(v)), violation, u.shape[0])

    def at(self, p: Any, q: Any, classes: Any) -> Array:
        return softplus(-p) + (classes - 1.0) * softplus(q)

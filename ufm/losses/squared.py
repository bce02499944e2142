"""Rescaled squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import pytree, require_range
from ufm.losses._base import Loss, is_column, true_class


@pytree()
@dataclass(frozen=True)
class MSE(Loss):
    """Rescaled squared error ``kappa (z_k - beta)^2 + sum_{j != k} z_j^2`` (Zhou et al. 2022, Eq. 6).

    ``kappa`` weighs the true class and ``beta`` is its target; both positive and finite. There is no
    factor 1/2: papers that use ``||z - e_k||^2 / 2`` have half this loss. For a column y it is ``||z - y||^2``, with
    ``kappa = beta = 1``.

    >>> import jax.numpy as jnp
    >>> float(MSE(kappa=2.0, beta=3.0)(jnp.array([1.0, 1.0]), 0))   # 2 (1 - 3)^2 + 1
    9.0
    """

    kappa: Any = 1.0
    beta: Any = 1.0
    name = "mse"
    convex = True
    infimum = 0.0
    shift_invariant = False
    symmetric = True
    takes_columns = True

    def __post_init__(self) -> None:
        for field in ("kappa", "beta"):
            value = getattr(self, field)
            require_range(field, value, "a finite number > 0", lambda x: (x > 0) & (x < np.inf))

    def __call__(self, logits: Array, label: Array | int) -> Array:
        if is_column(label):
            return jnp.sum((logits - label) ** 2)
        true = true_class(logits, label)
        return jnp.sum(jnp.where(true, self.kappa * (logits - self.beta) ** 2, logits**2))

    def check_columns(self, targets: Any) -> None:
        for field in ("kappa", "beta"):
            require_range(field, getattr(self, field), "1 where targets are columns", lambda x: x == 1)

    def conjugate(self, u: Array, label: Array | int) -> Array:
        """``beta u_k + u_k^2/(4 kappa) + sum_{j != k} u_j^2/4``."""
        if is_column(label):
            return jnp.sum(label * u + u**2 / 4.0)
        true = true_class(u, label)
        return jnp.sum(jnp.where(true, self.beta * u + u**2 / (4.0 * self.kappa), u**2 / 4.0))

    def at(self, p: Any, q: Any, classes: Any) -> Array:
        return self.kappa * (p - self.beta) ** 2 + (classes - 1.0) * q**2

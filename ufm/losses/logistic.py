"""The logistic loss of one neuron: two classes told apart by one sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from ufm._base import InputError, pytree, require
from ufm.losses._base import Loss, complement_log, on_domain, softplus, xlogx


@pytree()
@dataclass(frozen=True)
class Logistic(Loss):
    """Binary logistic loss ``softplus(-y z_0)``, y = +1 for class 0 and -1 for class 1.

    The neuron is the first row of W, with the first bias; the second row is idle and decays to zero. Two-neuron CE
    with decays (W, H, b) has the minimum of this one with (W/2, H, b/2), w = w_0 - w_1 and b = b_0 - b_1.

    >>> import jax.numpy as jnp
    >>> from ufm.losses import CE
    >>> one, two = Logistic()(jnp.array([2.0, 9.0]), 0), CE()(jnp.array([1.5, -0.5]), 0)
    >>> round(float(one), 4) == round(float(two), 4) == 0.1269
    True
    """

    name = "logistic"
    convex = True
    infimum = 0.0
    shift_invariant = False

    def __call__(self, logits: Array, label: Array | int) -> Array:
        return softplus(_wrong(logits, label) * logits[0])

    def conjugate(self, u: Array, label: Array | int) -> Array:
        """``v log v + (1 - v) log(1 - v)``, v the probability of the wrong class; ``u_1 = 0``."""
        v = _wrong(u, label) * u[0]
        violation = jnp.maximum(jnp.maximum(-v, v - 1.0), jnp.abs(u[1]))
        return on_domain(xlogx(v) + complement_log(v), violation, u.shape[0])

    def at(self, p: Any, q: Any, classes: Any) -> Array:
        """There is none: one logit cannot be p for its own class and q for the other, whichever is true."""
        raise InputError("loss = logistic: must be a loss that treats classes alike to have a value at (p, q)")


def _wrong(logits: Array, label: Array | int) -> Array:
    """-1 where the neuron should be on, +1 where it should be off."""
    require(logits.shape[0] == 2, "classes", logits.shape[0], "2 for the logistic loss of one neuron")
    return jnp.where(jnp.asarray(label) == 0, -1.0, 1.0).astype(logits.dtype)

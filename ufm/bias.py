"""The bias of a problem: its modes, and all that depends on them.

A bias per class b (K,) costs ``decay_b/2 ||b||^2``, a unified one b () ``decay_b/2 b^2``, and ``"none"`` is no bias.
A constant ``offset`` may be added to the logits besides; it is no variable and costs nothing (`ufm.Problem`).
"""

from __future__ import annotations

import enum
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array


class Bias(enum.StrEnum):
    """Mode of the bias; equal to its name, so ``problem.bias == "none"`` reads as it should.

    >>> Bias("unified").shape(10), Bias.PER_CLASS.shape(10), Bias.NONE.shape(10)
    ((), (10,), None)
    """

    PER_CLASS = "per_class"
    UNIFIED = "unified"
    NONE = "none"

    def shape(self, classes: int) -> tuple[int, ...] | None:
        """Shape of b for K = ``classes``; None without a bias."""
        return {Bias.PER_CLASS: (classes,), Bias.UNIFIED: (), Bias.NONE: None}[self]

    def constant(self, beta: Any, classes: int) -> np.ndarray | None:
        """The bias beta 1: (K,), (), or None.

        >>> Bias.PER_CLASS.constant(0.5, 3)
        array([0.5, 0.5, 0.5])
        """
        shape = self.shape(classes)
        return None if shape is None else np.full(shape, beta)

    def stiffness(self, decay: Any, classes: Any) -> Any:
        """``L``: the bias beta 1 costs ``L beta^2/2``. ``K decay_b``, ``decay_b``, or infinite without a bias.

        >>> Bias.PER_CLASS.stiffness(0.5, 3), Bias.NONE.stiffness(0.5, 3)
        (1.5, inf)
        """
        if self is Bias.NONE:
            return np.inf + 0.0 * decay
        return classes * decay if self is Bias.PER_CLASS else decay


def added(scores: Array, b: Any) -> Array:
    """``scores + b 1'`` for scores (K, n) and b (K,), () or None.

    >>> added(jnp.zeros((2, 1)), jnp.array([1.0, 2.0])).tolist()
    [[1.0], [2.0]]
    """
    if b is None:
        return scores
    return scores + (b[:, None] if jnp.ndim(b) else b)


def per_class(b: Any, classes: int) -> np.ndarray:
    """The bias as (K,): zeros without one.

    >>> per_class(None, 2), per_class(0.5, 2)
    (array([0., 0.]), array([0.5, 0.5]))
    """
    return np.zeros(classes) if b is None else np.broadcast_to(np.asarray(b), (classes,))


def penalty(decay: Any, b: Any) -> Any:
    """``decay_b/2 ||b||^2``; 0 without a bias."""
    return 0.0 if b is None else 0.5 * decay * jnp.sum(b**2)

"""Roots of increasing functions, with the derivative that the implicit function theorem gives them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

HALVINGS = 90
"""Enough for full accuracy: 2^-90 of a bracket of 100 is 8e-26, the spacing of float64 at a root of 4e-10."""


def increasing_root(function: Callable[[Array], Array], low: Array, high: Array, halvings: int = HALVINGS) -> Array:
    """Where an increasing ``function`` changes sign in [``low``, ``high``], by bisection; the nearer end if nowhere.

    Halving an interval carries no derivative of its own. Here ``f(x(t), t) = 0`` gives ``x' = -f_t/f_x``, in
    forward and reverse mode and to any order, with respect to everything that ``function`` closes over. The
    ends are no part of it. Where ``f_x = 0`` (a jump, a plateau, no change of sign) the derivative returned is 0.

    Args:
        function: of one number; array code, so that roots batch under `vmap`.
        low: an end (), whose dtype is that of the root.
        high: the other end ().
        halvings: how often the bracket is halved.

    >>> import jax.numpy as jnp
    >>> def square_root(t):
    ...     return increasing_root(lambda x: x**2 - t, jnp.zeros(()), jnp.full((), 9.0))
    >>> round(float(square_root(4.0)), 5), round(float(jax.grad(square_root)(4.0)), 5)   # 2, and 1/(2 sqrt 4)
    (2.0, 0.25)
    """

    def bisect(function: Callable[[Array], Array], low: Array) -> Array:
        def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = 0.5 * (low + high)
            below = function(middle) < 0
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        ends = jax.lax.fori_loop(0, halvings, halve, (low, high))
        return 0.5 * (ends[0] + ends[1])

    def divide(linear: Callable[[Array], Array], y: Array) -> Array:
        slope = linear(jnp.ones_like(y))
        return jnp.where(slope == 0, 0.0, y / jnp.where(slope == 0, 1.0, slope))

    return jax.lax.custom_root(function, low, bisect, divide)

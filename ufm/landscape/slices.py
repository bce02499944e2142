"""The objective on planes and along paths between points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ufm._base import require
from ufm.landscape.critical import escape_direction
from ufm.problem import Params, Problem


@jax.jit
def _plane(problem: Problem, origin: Params, first: Params, second: Params, s: Any, t: Any) -> Any:
    def value(a: Any, b: Any) -> Any:
        return problem.objective(jax.tree.map(lambda x, u, v: x + a * u + b * v, origin, first, second))

    return jax.vmap(lambda a: jax.vmap(lambda b: value(a, b))(t))(s)


@dataclass(frozen=True)
class Slice:
    """Values (len(s), len(t)) of the objective at ``origin + s first + t second``."""

    s: np.ndarray
    t: np.ndarray
    values: np.ndarray


def plane(
    problem: Problem, origin: Params, first: Params, second: Params, reach: float = 1.5, points: int = 41
) -> Slice:
    """The objective on the plane through ``origin`` spanned by two directions, over ``[-reach, reach]^2``."""
    grid = np.linspace(-reach, reach, points)
    origin, first, second = (jax.tree.map(jnp.asarray, p) for p in (origin, first, second))
    axis = jnp.asarray(grid, origin.H.dtype)
    return Slice(grid, grid, np.asarray(_plane(problem, origin, first, second, axis, axis)))


def aligned(source: Params, target: Params) -> Params:
    """``target`` with its features rotated as near to ``source`` as O(d) allows (Procrustes on W and H together)."""
    stack = [np.vstack([np.asarray(p.W), np.asarray(p.H).T]) for p in (target, source)]
    u, _, vt = np.linalg.svd(stack[0].T @ stack[1])
    Q = u @ vt
    return Params(jnp.asarray(np.asarray(target.W) @ Q), jnp.asarray(Q.T @ np.asarray(target.H)), target.b)


def path(problem: Problem, start: Params, end: Params, points: int = 101) -> tuple[np.ndarray, np.ndarray]:
    """Fractions (points,) and objective along the straight line from ``start`` to ``end``, best rotated first.

    A barrier on it says nothing of other paths; its absence shows that the two are connected below the higher.
    """
    start = jax.tree.map(jnp.asarray, start)
    move = jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype) - x, start, aligned(start, end))
    fractions = np.linspace(0.0, 1.0, points)
    still = jax.tree.map(jnp.zeros_like, move)
    axis, zero = jnp.asarray(fractions, start.H.dtype), jnp.zeros(1, start.H.dtype)
    return fractions, np.asarray(_plane(problem, start, move, still, axis, zero))[:, 0]


def way_down(problem: Problem, saddle: Params, bottom: Params, points: int = 61) -> Slice:
    """The plane through a ``saddle`` spanned by the way to ``bottom``, at s = 1, and the escape direction made as long.

    Raises:
        InputError: where W has full rank at the saddle, so that there is no escape direction.
    """
    saddle = jax.tree.map(jnp.asarray, saddle)
    move = jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype) - x, saddle, aligned(saddle, bottom))
    escape = escape_direction(problem, saddle).direction
    require(escape is not None, "saddle", "W of full rank", "a point at which W has a null space")
    length = jnp.sqrt(sum((jnp.sum(x**2) for x in jax.tree.leaves(move)), start=jnp.zeros(())))
    return plane(problem, saddle, move, jax.tree.map(lambda x: length * x, escape), points=points)

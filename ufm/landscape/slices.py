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
    """The objective on the plane through ``origin`` spanned by two directions, over ``[-reach, reach]^2``.

    Args:
        problem: whose objective is evaluated.
        origin: the point in the middle.
        first: direction of s, in units of its own length.
        second: direction of t, likewise.
        reach: largest coefficient of either direction.
        points: values a side; an odd number has the origin among them.

    Returns:
        A `Slice` with ``values`` (points, points), s first.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> bottom = ufm.theory.minimizer(problem).params
    >>> origin = jax.tree.map(jax.numpy.zeros_like, bottom)
    >>> W, H = ufm.Params(bottom.W, origin.H, origin.b), ufm.Params(origin.W, bottom.H, origin.b)
    >>> ufm.landscape.plane(problem, origin, W, H, reach=1.0, points=3).values.round(2).tolist()
    [[0.15, 1.16, 5.05], [1.16, 1.1, 1.16], [5.05, 1.16, 0.15]]
    """
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

    Args:
        problem: whose objective is evaluated.
        start: at fraction 0.
        end: at fraction 1, rotated by O(d) to be as near to ``start`` as can be, which leaves its value alone.
        points: how many, both ends among them.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> ends = (ufm.theory.minimizer(problem, jax.random.key(seed)).params for seed in range(2))
    >>> fractions, values = ufm.landscape.path(problem, *ends, points=3)   # minimizers differ by a rotation alone
    >>> fractions.tolist(), values.round(4).tolist()
    ([0.0, 0.5, 1.0], [0.1483, 0.1483, 0.1483])
    """
    start = jax.tree.map(jnp.asarray, start)
    move = jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype) - x, start, aligned(start, end))
    fractions = np.linspace(0.0, 1.0, points)
    still = jax.tree.map(jnp.zeros_like, move)
    axis, zero = jnp.asarray(fractions, start.H.dtype), jnp.zeros(1, start.H.dtype)
    return fractions, np.asarray(_plane(problem, start, move, still, axis, zero))[:, 0]


def way_down(problem: Problem, saddle: Params, bottom: Params, points: int = 61) -> Slice:
    """The plane through a ``saddle`` spanned by the way to ``bottom``, at s = 1, and the escape direction made as long.

    Args:
        problem: with a free classifier.
        saddle: at s = t = 0.
        bottom: at s = 1, rotated by O(d) to be as near to ``saddle`` as can be.
        points: values a side, over [-1.5, 1.5].

    Returns:
        A `Slice` with ``values`` (points, points), s first.

    Raises:
        InputError: where W has full rank at the saddle, so that there is no escape direction.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> bottom = ufm.theory.minimizer(problem).params
    >>> origin = jax.tree.map(jax.numpy.zeros_like, bottom)
    >>> down = ufm.landscape.way_down(problem, origin, bottom, points=7)
    >>> down.s.tolist()
    [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    >>> down.values[3:, 3].round(4).tolist()      # from the saddle to the minimum, and beyond
    [1.0986, 0.5574, 0.1483, 0.2693]
    """
    saddle = jax.tree.map(jnp.asarray, saddle)
    move = jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype) - x, saddle, aligned(saddle, bottom))
    escape = escape_direction(problem, saddle).direction
    require(escape is not None, "saddle", "W of full rank", "a point at which W has a null space")
    length = jnp.sqrt(sum((jnp.sum(x**2) for x in jax.tree.leaves(move)), start=jnp.zeros(())))
    return plane(problem, saddle, move, jax.tree.map(lambda x: length * x, escape), points=points)

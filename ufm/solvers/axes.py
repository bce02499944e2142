"""The way down where features are non-negative: a new axis, and how one is freed.

An axis is a row of H with its column of W. With V the gradient in the logits, columns scaled by ``1/sqrt m``, a new
axis ``(w, h)`` of scaled length t changes the objective by ``t^2 (1 - ||V h||/s)`` for the best w, ``s = sqrt(decay_W
decay_H)``, h a non-negative unit vector. So a stationary point with an unused axis is left wherever some h has
``||V h|| > s``; where none has, it is global if the loss is convex (``s^2 I - V'V`` is copositive, the condition of the
certificate).

At a stationary point ``decay_W w = -V h``, so that logits and penalty depend on H through H'H alone. Axes with parallel
h have parallel w, and one can take the place of two, as where a class has two or classes have merged. And the square
root of H'H, where it has no negative entries, leaves as many axes free as classes are dead.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import matmul
from ufm.problem import Params

ASCENTS = 60
"""Steps toward the largest ``||V h||``: each solves a linearization, so none goes down."""
ABSENT = 1e-7
"""Size, relative to the largest, below which an axis is not in use."""


def steepest_axis(A: Array) -> tuple[Array, Array]:
    """A non-negative unit h with a large ``h'A h``, A (K, K) positive semidefinite, and that number.

    From every class alone and from the positive parts of A's top eigenvector: ``h <- (A h)_+`` maximizes the
    linearization of a convex function over the ball in the orthant, and so never goes down.
    """
    top = jnp.linalg.eigh(A)[1][:, -1:]
    starts = jnp.concatenate(
        [jnp.eye(A.shape[0], dtype=A.dtype), jnp.abs(top), jnp.maximum(top, 0), jnp.maximum(-top, 0)], 1
    )

    def ascend(_: Array, h: Array) -> Array:
        up = jnp.maximum(matmul(A, h), 0.0)
        size = jnp.linalg.norm(up, axis=0, keepdims=True)
        return jnp.where(size > 0, up / jnp.where(size > 0, size, 1.0), h)

    found = jax.lax.fori_loop(0, ASCENTS, ascend, starts)
    values = jnp.sum(found * matmul(A, found), axis=0)
    best = jnp.argmax(values)
    return found[:, best], values[best]


def freed(point: Params) -> tuple[Params, Array]:
    """The point in scaled variables with an unused axis, and its index: one that is there, or freed by a union.

    The two axes whose features are most nearly parallel are united; at a stationary point, if they are parallel,
    nothing else changes.
    """
    W, H = point.W, point.H
    lengths = jnp.linalg.norm(H, axis=1)
    least = ABSENT * jnp.maximum(jnp.max(lengths), jnp.finfo(H.dtype).tiny)
    used = lengths > least
    units = H / jnp.where(used, lengths, 1.0)[:, None]
    cosines = jnp.where(used[:, None] & used[None, :], matmul(units, units.T), -1.0)
    cosines = cosines - 3.0 * jnp.eye(H.shape[0], dtype=H.dtype)
    first, second = jnp.unravel_index(jnp.argmax(cosines), cosines.shape)
    both = lengths[first] * H[first] + lengths[second] * H[second]
    size = jnp.sqrt(lengths[first] ** 2 + lengths[second] ** 2)
    row = size * both / jnp.maximum(jnp.linalg.norm(both), jnp.finfo(H.dtype).tiny)
    column = (lengths[first] * W[:, first] + lengths[second] * W[:, second]) / jnp.where(size > 0, size, 1.0)
    united = Params(
        W.at[:, first].set(column).at[:, second].set(0.0), H.at[first].set(row).at[second].set(0.0), point.b
    )
    free = jnp.argmin(lengths)
    idle = Params(W.at[:, free].set(0.0), H.at[free].set(0.0), point.b)
    spare = ~used[free]
    one_axis = H.shape[0] == 1
    return jax.tree.map(lambda a, b: jnp.where(spare | one_axis, a, b), idle, united), jnp.where(spare, free, second)


def rooted(point: Params, V: Array) -> tuple[Params, Array]:
    """The point with the square root of H'H for H, and its least used axis; V (K, K) over s gives its W."""
    d, K = point.H.shape
    sizes, axes = jnp.linalg.eigh(matmul(point.H.T, point.H))
    root = jnp.maximum(matmul(axes * jnp.sqrt(jnp.maximum(sizes, 0.0))[None, :], axes.T), 0.0)
    H = jnp.zeros((d, K), root.dtype).at[:K].set(0.5 * (root + root.T))
    return Params(-matmul(V, H.T), H, point.b), jnp.argmin(jnp.linalg.norm(H, axis=1))


def way_down(problem: Any, space: Any, point: Params, lengths: Array) -> tuple[Params, Array, Array]:
    """The best point along a new axis (scaled variables), its value, and ``max ||V h||^2 / s^2`` as far as found.

    ``lengths`` are tried for the axis, one feature per class.
    """
    gradient = jax.grad(problem.risk)(problem.logits(space.outward(point)))
    A, allowed = problem.model.spectral(problem, gradient)
    h, steep = steepest_axis(matmul(A.T, A) / allowed**2)
    w = -matmul(A, h[:, None])[:, 0]
    w = w / jnp.maximum(jnp.linalg.norm(w), jnp.finfo(w.dtype).tiny)

    def best_from(roomy: Params, axis: Array) -> tuple[Params, Array]:
        def along(t: Array) -> Params:
            return Params(roomy.W.at[:, axis].set(t * w), roomy.H.at[axis].set(t * h), roomy.b)

        values = jax.lax.map(lambda t: space.objective(along(t)), lengths)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        best = jnp.argmin(values)
        return along(lengths[best]), values[best]

    found, low = best_from(*freed(point))
    if point.H.shape[0] >= point.H.shape[1]:
        other, lower = best_from(*rooted(point, A / allowed))
        found = jax.tree.map(lambda x, y: jnp.where(lower < low, y, x), found, other)
        low = jnp.minimum(low, lower)
    return found, low, steep

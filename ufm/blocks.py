"""The loss over blocks of samples, for logits too many to hold at once.

Autodiff of the plain objective keeps several arrays of K x N numbers. Here a block of columns of H is
carried to its loss and gradient before the next one starts: the largest array is K x block, and the three
matrix products are those of a value and gradient, none repeated.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import matmul

HELD = 2**24
"""Logits up to which they are held whole."""
BLOCK = 3 * 2**18
"""Logits of a block beyond that."""


def _block_loss(loss: Any, W: Array, b: Array, H: Array, labels: Array, weights: Array) -> Array:
    return jnp.sum(weights * jax.vmap(loss, (1, 0))(matmul(W, H) + b[:, None], labels))


def _fold(visit: Any, total: Any, classes: int, columns: int) -> Any:
    """``visit(start, size, total) -> total`` over blocks of equal size, then over what is left."""
    size = max(1, min(columns, BLOCK // classes))
    total = jax.lax.fori_loop(0, columns // size, lambda i, t: visit(i * size, size, t), total)
    rest = columns % size
    return visit(columns - rest, rest, total) if rest else total


def _slice(start: Any, size: int, H: Array, labels: Array, weights: Array) -> tuple[Array, Array, Array]:
    cut = jax.lax.dynamic_slice_in_dim
    return cut(H, start, size, 1), cut(labels, start, size), cut(weights, start, size)


@jax.custom_vjp
def blocked_loss(loss: Any, W: Array, b: Array, H: Array, labels: Array, weights: Array) -> Array:
    """``sum_i weights_i loss(W h_i + b, labels_i)``: a scalar, differentiable in all but labels and weights.

    Shapes: W (K, d), b (K,), H (d, N), labels and weights (N,).

    >>> import jax.numpy as jnp, ufm
    >>> W, b, H = jnp.eye(3), jnp.zeros(3), jnp.zeros((3, 7))
    >>> round(float(blocked_loss(ufm.losses.CE(), W, b, H, jnp.zeros(7, int), jnp.ones(7))), 3)   # 7 log 3
    7.69
    """

    def visit(start: Any, size: int, total: Array) -> Array:
        return total + _block_loss(loss, W, b, *_slice(start, size, H, labels, weights))

    return _fold(visit, jnp.zeros((), H.dtype), W.shape[0], H.shape[1])


def _forward(loss: Any, W: Array, b: Array, H: Array, labels: Array, weights: Array) -> tuple[Array, Any]:
    gradient = jax.value_and_grad(_block_loss, argnums=(0, 1, 2, 3))

    def visit(start: Any, size: int, total: Any) -> Any:
        value, shared, features = total
        v, (*of_shared, of_features) = gradient(loss, W, b, *_slice(start, size, H, labels, weights))
        features = jax.lax.dynamic_update_slice_in_dim(features, of_features, start, 1)
        return value + v, jax.tree.map(jnp.add, shared, tuple(of_shared)), features

    zeros = jax.tree.map(jnp.zeros_like, ((loss, W, b), H))
    value, shared, features = _fold(visit, (jnp.zeros((), H.dtype), *zeros), W.shape[0], H.shape[1])
    return value, (*shared, features)


def _backward(gradient: Any, cotangent: Array) -> tuple[Any, ...]:
    return (*jax.tree.map(lambda g: cotangent * g, gradient), None, None)


blocked_loss.defvjp(_forward, _backward)

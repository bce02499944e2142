"""Hessian-vector products as operators, and the dense Hessian where it fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from ufm._base import require
from ufm.problem import Params, Problem

DENSE_LIMIT = 4000
"""Variables up to which a dense Hessian is formed by default (128 MB in float64)."""


@jax.jit
def hvp(problem: Problem, params: Params, direction: Params) -> Params:
    """Hessian of ``problem.objective`` at ``params`` times ``direction``; costs about two gradients.

    >>> import jax, ufm
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE())
    >>> params = problem.init(jax.random.key(0))
    >>> hvp(problem, params, params).W.shape
    (3, 4)
    """
    return problem.hessian(params)(direction)


@jax.jit
def _products(problem: Problem, params: Params, directions: Array) -> Array:
    """Hessian times each row of ``directions`` (k, size)."""
    _, unravel = ravel_pytree(params)
    product = problem.hessian(params)
    # One direction after another: vmap would transpose every product, three times the cost on CPU.
    return jax.lax.map(lambda row: ravel_pytree(product(unravel(row)))[0], directions)


@jax.jit
def _dense(problem: Problem, params: Params) -> Array:
    flat, unravel = ravel_pytree(params)
    return jax.hessian(lambda x: problem.objective(unravel(x)))(flat)


@jax.jit
def _value_and_gradient(problem: Problem, params: Params) -> tuple[Array, Array]:
    value, gradient = jax.value_and_grad(problem.objective)(params)
    return value, ravel_pytree(gradient)[0]


@dataclass(frozen=True)
class Operator:
    """A symmetric matrix known through its products: what the eigensolvers take.

    Attributes:
        size: number of rows.
        dtype: of the products.
        apply: maps rows (k, size) to rows (k, size).

    The Laplacian of a ring, never formed, with eigenvalues ``2 - 2 cos(2 pi j/n)``:

    >>> import numpy as np, ufm
    >>> ring = ufm.landscape.Operator(6, np.dtype(float), lambda x: 2 * x - np.roll(x, 1, 1) - np.roll(x, -1, 1))
    >>> ufm.landscape.extreme_eigenpairs(ring, k=3, which="largest").values.round(9).tolist()
    [4.0, 3.0, 3.0]
    """

    size: int
    dtype: Any
    apply: Callable[[Any], Any]

    def rows(self, vectors: np.ndarray) -> np.ndarray:
        """Products with the rows of ``vectors`` (k, size), on the host."""
        return np.asarray(self.apply(vectors.astype(self.dtype, copy=False)))

    @staticmethod
    def of_matrix(matrix: np.ndarray) -> Operator:
        """The operator of a symmetric ``matrix`` (size, size).

        >>> import numpy as np, ufm
        >>> ufm.landscape.Operator.of_matrix(np.diag([1.0, 2.0])).rows(np.ones((1, 2))).tolist()
        [[1.0, 2.0]]
        """
        A = np.asarray(matrix)
        return Operator(len(A), A.dtype, lambda rows: np.asarray(rows) @ A)


@dataclass(frozen=True)
class Hessian:
    """Hessian of ``problem.objective`` at ``params``, in the plain variables (W, H, b) laid out flat.

    >>> import jax, ufm
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE())
    >>> hessian = Hessian(problem, problem.init(jax.random.key(0)))
    >>> hessian.size, hessian.dense().shape
    (39, (39, 39))
    """

    problem: Problem
    params: Params

    @property
    def size(self) -> int:
        """Number of variables."""
        return sum(int(np.size(x)) for x in jax.tree.leaves(self.params))

    @property
    def operator(self) -> Operator:
        """The products, batched."""
        point = jax.tree.map(jnp.asarray, self.params)
        return Operator(self.size, point.H.dtype, lambda rows: _products(self.problem, point, rows))

    def unravel(self, vector: np.ndarray) -> Params:
        """A flat vector as a direction in (W, H, b)."""
        return ravel_pytree(self.params)[1](jnp.asarray(vector, self.params.H.dtype))

    def value_and_gradient(self) -> tuple[float, np.ndarray]:
        """Objective and flat gradient (size,)."""
        value, gradient = _value_and_gradient(self.problem, jax.tree.map(jnp.asarray, self.params))
        return float(value), np.asarray(gradient)

    def dense(self, limit: int = DENSE_LIMIT) -> np.ndarray:
        """The matrix (size, size).

        Raises:
            InputError: beyond ``limit`` variables, naming the alternatives.
        """
        allowed = f"at most {limit} for a dense Hessian; use extreme_eigenpairs or spectral_density, or raise limit"
        require(self.size <= limit, "size", self.size, allowed)
        H = np.asarray(_dense(self.problem, jax.tree.map(jnp.asarray, self.params)))
        return 0.5 * (H + H.T)

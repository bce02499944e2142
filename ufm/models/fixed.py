"""A given classifier: H and b are the only variables, and the problem is convex where the loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import is_traced, matmul, pytree, require
from ufm.models._params import Params
from ufm.models.linear import Linear

if TYPE_CHECKING:
    from ufm.problem import Problem


@pytree()
@dataclass(frozen=True)
class FixedClassifier(Linear):
    """Logits ``W H + b`` with W (K, d) given; ``R*(V) = sum ||W'v_i||^2/(2 decay_H m_i) - decay_W/2 ||W||^2``.

    The decay of W counts as a constant. `ufm.Problem(classifier=W)` is short for ``model=FixedClassifier(W)``.

    >>> import numpy as np, ufm
    >>> problem = ufm.Problem(3, 4, 5, model=FixedClassifier(np.eye(3, 4)))
    >>> problem.classifier.shape
    (3, 4)
    """

    W: Any
    name = "fixed"
    kind = "a given classifier"
    multiplicative = False
    decayed = False

    def check(self, problem: Problem) -> None:
        shape, expected = np.shape(self.W), (problem.classes, problem.dim)
        require(shape[-2:] == expected, "classifier.shape", shape, f"(classes, dim) = {expected}")
        if not is_traced(self.W):
            finite = bool(np.all(np.isfinite(np.asarray(self.W, float))))
            require(finite, "classifier", "an array with NaN or inf", "finite")

    def layers(self, params: Params) -> tuple[Array, Array]:
        return jnp.asarray(self.W, params.H.dtype), params.H

    def onto(self, params: Params) -> Params:
        """The given W in place of that of ``params``."""
        return Params(jnp.asarray(self.W, params.H.dtype), params.H, params.b)

    def dual_scale(self, problem: Problem, V: Array) -> Array:
        return jnp.ones((), V.dtype)

    def conjugate(self, problem: Problem, V: Array, params: Params) -> tuple[Array, Array]:
        """See the class."""
        W, decay = jnp.asarray(self.W, V.dtype), problem.decay
        reach = jnp.sum(matmul(W.T, V) ** 2, axis=0) / jnp.asarray(problem.multiplicity, V.dtype)
        fixed, moving = 0.5 * decay.W * jnp.sum(W**2), jnp.sum(reach) / (2.0 * decay.H)
        return moving - fixed, moving + fixed

    @property
    def words(self) -> str:
        return "fixed classifier"

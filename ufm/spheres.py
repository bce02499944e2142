"""Normalised models: class metrics ``c_j = gamma cos(w_j, h)`` instead of ``w_j'h``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import cast, nearest, pytree, require, require_range
from ufm.losses import BCE, CE, Loss
from ufm.problem import Decay, Params, Problem


@pytree()
@dataclass(frozen=True)
class NormalizedProblem:
    """Minimise ``1/N sum loss(gamma W h_i + b, y_i) + b/2 ||b||^2`` over unit rows of W, unit columns of H and b.

    Args:
        problem: sizes, loss, bias and its decay. The decays of W and H play no part, as their norms
            are fixed. ``features="per_class"`` is exact here too, for any loss: at fixed (W, b) the
            samples of a class minimise one and the same function.
        gamma: scale of the cosines, > 0.

    `ufm.solve` minimises it by trust-region Newton on the product of spheres.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> normalized = ufm.NormalizedProblem(ufm.Problem(3, 4, 2, loss=ufm.losses.CE()), gamma=2.0)
    >>> solution = ufm.solve(normalized)
    >>> round(float(solution.value), 9) == round(ufm.theory.spheres.ce(2.0, 3).value, 9)
    True
    """

    problem: Problem
    gamma: Any = 8.0

    def __post_init__(self) -> None:
        require(isinstance(self.problem, Problem), "problem", type(self.problem).__name__, "a ufm.Problem")
        require(self.problem.classifier is None, "problem.classifier", "fixed", "free (None) in a normalised problem")
        require_range("gamma", self.gamma, "a finite number > 0", lambda g: (g > 0) & (g < np.inf))

    def scaled(self, params: Params) -> Params:
        """Parameters of ``problem`` with the same logits: gamma in the rows of W."""
        return Params(jnp.asarray(self.gamma, params.W.dtype) * params.W, params.H, params.b)

    def logits(self, params: Params) -> Array:
        """``gamma W H + b`` (K, columns)."""
        return self.problem.logits(self.scaled(params))

    def objective(self, params: Params) -> Array:
        """The value that is minimised; W and H are taken as they are, so give them unit rows and columns."""
        problem = self.problem.astype(params.H.dtype)
        value = problem.risk(problem.logits(self.scaled(params)))
        return value if params.b is None else value + 0.5 * problem.decay.b * jnp.sum(params.b**2)

    def astype(self, dtype: Any) -> NormalizedProblem:
        """The same problem with every leaf in ``dtype``."""
        return cast(self, dtype)

    def init(self, key: Array, scale: float = 1.0, bias_mean: float = 0.0, dtype: Any = None) -> Params:
        """Uniform on the spheres; the bias as in `Problem.init`."""
        return normalize(self.problem.init(key, scale or 1.0, bias_mean, dtype))


def normalize(params: Params) -> Params:
    """The point with unit rows of W and unit columns of H."""
    W = params.W / jnp.linalg.norm(params.W, axis=1, keepdims=True)
    H = params.H / jnp.linalg.norm(params.H, axis=0, keepdims=True)
    return Params(W, H, params.b)


FAMILY: dict[str, tuple[Loss, str, bool]] = {
    f"{loss}-{normal}{kind}": (function, bias, bool(normal))
    for loss, function in (("soft", CE()), ("bce", BCE()))
    for normal in ("", "n")
    for kind, bias in (("u", "unified"), ("d", "per_class"))
}
"""Loss, bias and whether normalised, of L_soft-u, L_soft-d, L_bce-u, L_bce-d and L_soft-nu, ..., L_bce-nd."""


def uniform_family(
    name: str, classes: int, dim: int, per_class: int, gamma: float = 8.0, decay: Decay | None = None
) -> Problem | NormalizedProblem:
    """A member of the family of "Rediscovering BCE Loss" (Li et al. 2024) by its name there.

    Their metrics enter as ``c_j - b_j``; our bias is the negative of theirs.

    Args:
        name: ``soft`` or ``bce``, then ``-``, ``n`` if normalised, and ``u`` (one bias) or ``d`` (one per class).
        classes: K.
        dim: d.
        per_class: samples per class.
        gamma: scale of the cosines; for the normalised ones only.
        decay: weight decays.

    >>> uniform_family("bce-nd", 3, 4, 2, gamma=16.0).problem.bias
    'per_class'
    """
    require(name in FAMILY, "name", name, nearest(name, FAMILY))
    loss, bias, normalized = FAMILY[name]
    problem = Problem(classes, dim, per_class, loss, decay or Decay(), bias)
    return NormalizedProblem(problem, gamma) if normalized else problem

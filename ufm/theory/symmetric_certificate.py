"""The dual certificate of a symmetric point of a balanced problem: `certificate`, in two numbers.

At class logits ``a (I - J/K) + m J`` the gradient of each column is ``g`` at the true class and ``h`` elsewhere, so
that the matrix of class gradients has the singular values ``|g - h|`` and ``|g + (K-1) h|``. With ``mu = sqrt(n
decay_W decay_H)`` and L the stiffness of the bias (`reduction`) the dual point ``s (g, h)`` is feasible iff ``s max(|g
- h|, |g + (K-1) h|) <= K mu``, and the bound is

    f* >= D = -l*(s u) - (s (g + (K-1) h))^2 / (2 L).

One column of K numbers is evaluated, whatever n and d, by the loss itself and by its conjugate: neither the formula
for (p, q) that `reduction` minimizes nor a claim about convexity enters.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import in_float64
from ufm.losses import Loss
from ufm.problem import Problem
from ufm.theory.reduction import bias_stiffness, collapse_strength


class Closing(NamedTuple):
    """Whether value, objective and certificate of a symmetric point agree.

    Attributes:
        reason: why they do not, in a few words; empty where they do.
        lower_bound: on the minimum, whatever the dimension; -inf where nothing is known of the loss.
    """

    reason: str
    lower_bound: float


def _dual(loss: Loss, logits: Array, mu: Array, stiffness: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Loss at one column of ``logits`` (K,) of class 0, the bound D, and the rounding of both."""
    K, eps = logits.shape[0], jnp.finfo(logits.dtype).eps
    value, u = jax.value_and_grad(loss)(logits, 0)
    own, other = u[0], jnp.mean(u[1:])
    # Zero for a shift-invariant loss; computed, it is rounding, which a small decay of the bias would magnify.
    along = jnp.zeros_like(own) if loss.shift_invariant else own + (K - 1) * other
    norm = jnp.maximum(jnp.abs(own - other), jnp.abs(along))
    scale = jnp.minimum(loss.feasible_scale(u, 0), K * mu / jnp.maximum(norm, jnp.finfo(logits.dtype).tiny))
    conjugate = loss.conjugate_along(logits, 0, jnp.minimum(scale, 1.0))

    # As in `certificate`: sums of K numbers, gradients of logits known to eps |z|, and a bias that must balance.
    units = eps * (16.0 + np.sqrt(2.0 * K))
    _, curved = jax.jvp(lambda z: jax.grad(loss)(z, 0), (logits,), (jnp.abs(logits),))
    noise = units * (jnp.sum(jnp.abs(u)) + jnp.sum(jnp.abs(curved)))
    decayed = stiffness > 0
    double = 2.0 * jnp.where(decayed, stiffness, 1.0)
    force = (scale * along) ** 2
    balanced = jnp.abs(scale * along) <= noise
    cost = jnp.where(decayed, force / double, jnp.where(balanced, 0.0, jnp.inf))
    slack = jnp.where(decayed, noise * (2.0 * jnp.sqrt(force) + noise) / double, jnp.inf)
    slack = jnp.minimum(slack, jnp.where(balanced, noise * (1.0 + jnp.abs(bias)), jnp.inf))
    cost = jnp.where(balanced & (cost > slack), 0.0, cost)
    magnitude = jnp.abs(value) + jnp.abs(conjugate) + jnp.sum(jnp.abs(logits) * (jnp.abs(u) + jnp.abs(curved)))
    return value, -conjugate - cost, units * magnitude + slack


_dual_in_float64 = in_float64(_dual, effort=0)


def closing(problem: Problem, logits: np.ndarray, bias: float, penalty: float, value: float) -> Closing:
    """Compare ``value`` with the objective and the dual bound at a symmetric point.

    Args:
        problem: balanced, with a free classifier and a loss that treats classes alike.
        logits: of a sample of class 0 (K,).
        bias: the common bias, part of the logits.
        penalty: of the point.
        value: that is claimed to be the minimum.
    """
    mu, stiffness = float(collapse_strength(problem)), float(bias_stiffness(problem))
    loss, bound, rounding = map(float, _dual_in_float64(problem.loss, logits, mu, stiffness, bias))
    objective = loss + penalty
    allowed = rounding + 16.0 * np.finfo(float).eps * (abs(value) + penalty)
    bound = bound if np.isfinite(bound) else -np.inf
    if not abs(objective - value) <= allowed:
        return Closing(f"the objective at the point is {objective:.12g}, not {value:.12g}", bound)
    if bound == -np.inf:
        return Closing(f"no lower bound is known for {problem.loss} here, and another point may lie lower", bound)
    if value - bound > allowed:
        return Closing(f"the certificate leaves a gap of {value - bound:.1e}: another point may lie lower", bound)
    if not bound - value <= allowed:  # no bound lies above a value: loss and conjugate do not belong together
        return Closing(f"the dual bound {bound:.12g} lies above the value {value:.12g}: one of them is wrong", -np.inf)
    return Closing("", bound)

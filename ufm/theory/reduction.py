"""A balanced problem as a scalar one.

By symmetry (and convexity, through the lift) a minimizer has class logits

    Z = a (I - J/K) + (c/K) J + beta 1 1',

so that the true class has ``p = a (K-1)/K + m`` and the others ``q = -a/K + m``, ``m = c/K + beta``.
With ``mu = sqrt(n decay_W decay_H)`` what remains is

    min over a, c, beta of  phi(p, q) + mu ((K-1) |a| + |c|) + L beta^2/2,

``phi`` the loss at (p, q), ``L = K decay_b`` for a bias per class and ``decay_b`` for a unified one.
Only the shift ``m`` matters to the loss, and splitting it is a Huber problem: the bias carries it up to
``|beta| = mu K/L``, the mean mode ``c`` of the features the rest. Hence ``c = 0`` iff
``decay_b |beta| <= mu`` (per class), and the three regimes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import is_traced, pytree
from ufm.bias import Bias
from ufm.losses import Loss
from ufm.problem import Problem
from ufm.roots import increasing_root

GRID = 256
CANDIDATES = 3
FURTHEST_SHIFT = 40.0
"""A common shift of all logits is searched up to sinh of this, about 1e17."""


class Regime(enum.IntEnum):
    """What the minimizer of a balanced problem looks like."""

    ZERO = 0
    ETF = 1
    MEAN_SHIFTED = 2

    @property
    def label(self) -> str:
        """``"zero"``, ``"etf"`` or ``"mean-shifted"``."""
        return self.name.lower().replace("_", "-")


@pytree()
@dataclass(frozen=True)
class Reduction:
    """Minimizer of the scalar problem; arrays, so reductions batch.

    Attributes:
        gap: a, the difference between the logit of the true class and of any other; negative for a loss that
            wants the true class to lose (complementary labels).
        shift: c, the weight of the mean mode: ``Z`` without bias has mean ``c/K``.
        bias: beta.
        value: minimum; -inf where the loss falls faster than the decays rise, for all that was searched.
        regime: a `Regime` as an integer. ``mean-shifted`` with ``gap = 0`` is possible too: all
            classes share one nonzero feature.
    """

    gap: Any
    shift: Any
    bias: Any
    value: Any
    regime: Any


def collapse_strength(problem: Problem) -> Any:
    """``mu = sqrt(n decay_W decay_H)``, the one number that controls collapse in a balanced problem.

    In float64 from numbers, whatever JAX's default; in the dtype of the leaves under a transformation.

    >>> import ufm
    >>> round(float(collapse_strength(ufm.Problem(3, 4, 4, decay=ufm.Decay(0.01, 0.04, 0.0)))), 9)
    0.04
    """
    decay = problem.decay if is_traced(problem.decay) else jax.tree.map(lambda x: np.asarray(x, float), problem.decay)
    return float(problem.counts[0]) ** 0.5 * decay.price


def bias_stiffness(problem: Problem) -> Any:
    """``L``: the bias beta 1 costs ``L beta^2/2``. Infinite without a bias.

    >>> import ufm
    >>> float(bias_stiffness(ufm.Problem(3, 4, 4, decay=ufm.Decay(0.01, 0.01, 0.5))))
    1.5
    """
    return Bias(problem.bias).stiffness(problem.decay.b, float(problem.classes))


def reduce(problem: Problem, *, centered: bool = False) -> Reduction:
    """Solve the scalar problem of a balanced ``problem``, for any loss that treats classes alike.

    Args:
        problem: balanced, with a free classifier; leaves may be traced, so reductions batch.
        centered: forbid the mean mode (c = 0), as dimension ``K - 1`` does.

    Returns:
        A `Reduction`, in JAX's default float; `minimizer` computes in float64 whatever the default.

    Every entry but the regime has exact derivatives of any order, forward and reverse, in the decays and the
    loss's hyper-parameters. At a threshold there are two one-sided ones: returned is that of the gap at 0 where
    the gap vanishes (``K mu = 1`` for CE and BCE), that of c = 0 where the mean mode does. Where two gaps tie
    (focal) it is that of the gap returned.

    From ``decay_b |bias| = mu`` on (here 0.005) the bias stays at ``-mu/decay_b`` and the features gain a mean:

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> def reduced(decay_b):
    ...     return ufm.theory.reduce(ufm.Problem(10, 20, 5, ufm.losses.BCE(), ufm.Decay(5e-3, 1e-3, decay_b)))
    >>> found = jax.jit(jax.vmap(reduced))(jax.numpy.array([5e-4, 0.5]))
    >>> [ufm.theory.Regime(r).label for r in found.regime.tolist()], found.bias.round(2).tolist()
    (['etf', 'mean-shifted'], [-4.14, -0.01])
    """
    loss, *numbers = scalar_problem(problem)
    return reduce_scalar(loss, *map(jnp.asarray, numbers), **static_part(problem, centered))


def scalar_problem(problem: Problem) -> tuple[Loss, float, Any, Any]:
    """The leaves of the scalar problem: loss, K, mu and L."""
    return problem.loss, 1.0 * problem.classes, collapse_strength(problem), bias_stiffness(problem)


def static_part(problem: Problem, centered: bool) -> dict[str, Any]:
    """The static part. A loss with a formula for (p, q) takes K as a value: one program serves all K."""
    formula = type(problem.loss).at is not Loss.at
    return {"centered": centered, "size": None if formula else problem.classes}


def reduce_scalar(
    loss: Loss,
    classes: Array,
    mu: Array,
    stiffness: Array,
    *,
    centered: bool = False,
    merged: bool = False,
    size: int | None = None,
) -> Reduction:
    """Minimize ``phi(p, q) + mu ((K-1) |a| + |c|) + L beta^2/2`` over a, c and beta.

    The gap is scanned to both sides of zero on a geometric grid and every promising cell bisected, so that a loss with
    several stationary gaps (focal) gets its global minimizer; for each gap the shift is a monotone root,
    which assumes that the loss is convex along a common shift of all logits.

    Args:
        loss: treats all classes alike and is bounded below.
        classes: K, as a number.
        mu: weight of the gap and the mean mode.
        stiffness: ``L``, inf without a bias.
        centered: whether c = 0 is imposed.
        merged: whether a = 0 is imposed.
        size: K again, as a static integer, for a loss without a formula for (p, q).
    """
    K = classes
    no_bias = jnp.isinf(stiffness)
    # No bias is one that may not move: no infinity meets a product, and none a derivative.
    stiffness = jnp.where(no_bias, 0.0, stiffness)
    limit = jnp.where(stiffness > 0, mu * K / jnp.where(stiffness > 0, stiffness, 1.0), jnp.inf)
    limit = jnp.where(no_bias, 0.0, limit)
    frozen = no_bias & centered
    if centered:
        limit = jnp.where(no_bias, limit, jnp.inf)

    def phi(a: Array, m: Array) -> Array:
        return loss.at(a * (K - 1.0) / K + m, -a / K + m, size or K)

    def carried(m: Array) -> Array:
        """What the bias carries of the shift. At the limit the derivative is that of c = 0."""
        return jnp.where(jnp.abs(m) <= limit, m, jnp.where(m > 0, limit, -limit))

    def cost(m: Array) -> Array:
        beta = carried(m)
        quadratic = jnp.where(beta == 0, 0.0, 0.5 * stiffness * beta**2)
        return quadratic + mu * K * jnp.abs(m - beta)

    def pull(m: Array) -> Array:
        """Derivative of the cost of the shift."""
        inside = jnp.where(m == 0, 0.0, stiffness * m)
        return jnp.where(jnp.abs(m) <= limit, inside, mu * K * jnp.sign(m))

    @jax.jit  # traced once, however often it is called below
    def best_shift(a: Array) -> Array:
        if loss.shift_invariant:
            return jnp.zeros_like(a)
        slope = jax.grad(phi, argnums=1)
        # The kink of |m| at 0 holds the shift there unless the loss pulls harder.
        kink = jnp.where(frozen, jnp.inf, jnp.where(no_bias, mu * K, 0.0))
        force = jnp.abs(slope(a, jnp.zeros_like(a)))
        # A slope that increases from 0 meets a spring at most force/L from there: a scale for stiff ones.
        spring = (stiffness > 0) & (force <= stiffness * limit)
        unit = jnp.where(spring, jnp.minimum(1.0, force / jnp.where(spring, stiffness, 1.0)), 1.0)
        unit = jax.lax.stop_gradient(unit)

        def along(x: Array) -> Array:
            m = unit * jnp.sinh(x)
            total = slope(a, m) + pull(m)
            return jnp.where(jnp.isnan(total), x, total)  # a loss that overflows does so far out, where it rises

        root = increasing_root(along, -FURTHEST_SHIFT + 0 * a, FURTHEST_SHIFT + 0 * a)
        return jnp.where(force <= kink, 0.0, unit * jnp.sinh(root))

    def at(a: Array) -> tuple[Array, Array, Array]:
        """Value, derivative in a (at zero, whose sign counts, that to its own side) and best shift."""
        m = best_shift(a)
        loss_at, rise = jax.value_and_grad(phi)(a, m)
        return loss_at + mu * (K - 1.0) * jnp.abs(a) + cost(m), rise + jnp.copysign(mu * (K - 1.0), a), m

    def split(gap: Array, falls: Array) -> Reduction:
        """The point of a ``gap``; ``falls`` says that the value still falls at the end of the search."""
        value, _, shift = at(gap)
        bias = carried(shift)
        mean_mode = K * (shift - bias)
        regime = jnp.where(mean_mode != 0, Regime.MEAN_SHIFTED, jnp.where(gap != 0, Regime.ETF, Regime.ZERO))
        unbounded = falls | (jnp.abs(shift) >= 0.5 * jnp.exp(FURTHEST_SHIFT - 1.0))
        least = jnp.where(unbounded, -jnp.inf, value)
        return Reduction(gap, mean_mode, bias, least, regime.astype(jnp.int32))

    # A loss >= 0 falls by at most its value at a = 0, so the gap is bounded. One that is not (a user's, less a
    # constant) gets its infimum where it is known, and in any case the size of its slope.
    zero = jnp.zeros_like(mu)
    value_at_zero, slope_at_zero, _ = at(zero)
    fall = jnp.abs(value_at_zero) + jnp.abs(slope_at_zero) + abs(getattr(loss, "infimum", None) or 0.0)
    furthest = 1.0 + 10.0 * fall / (mu * (K - 1.0))
    distances = jnp.concatenate([zero[None], jnp.geomspace(1e-5, furthest, GRID, dtype=mu.dtype)])

    def valleys(side: Array) -> tuple[Array, Array, Array, Array]:
        """On one side of zero: the most promising stationary gaps, their values, whether zero descends, and the end."""
        values, slopes, _ = jax.vmap(at)(side * distances)
        slopes = jnp.where(jnp.isnan(slopes), 1.0, side * slopes)
        valley = (slopes[:-1] < 0) & (slopes[1:] >= 0)
        promise = jnp.where(valley, jnp.minimum(values[:-1], values[1:]), jnp.inf)
        _, cells = jax.lax.top_k(-promise, CANDIDATES)
        rise = lambda t: side * at(side * t)[1]  # noqa: E731
        gaps = side * jax.vmap(lambda i: increasing_root(rise, distances[i], distances[i + 1]))(cells)
        heights = jnp.where(valley[cells], jax.vmap(at)(gaps)[0], jnp.inf)
        end = jnp.where(slopes[-1] < 0, values[-1], jnp.inf)
        return gaps, heights, (slopes[0] < 0) & jnp.any(valley), end

    if merged:
        return split(zero, jnp.zeros((), bool))
    gaps, heights, descends, ends = jax.vmap(valleys)(jnp.asarray([1.0, -1.0], mu.dtype))
    # Just below the threshold values cannot tell the gap from 0, but the slope at 0 can.
    at_zero = jnp.where(jnp.any(descends), jnp.inf, value_at_zero)
    candidates, heights = jnp.append(gaps, zero), jnp.append(heights, at_zero)
    lowest = jnp.argmin(jnp.where(jnp.isnan(heights), jnp.inf, heights))
    return split(candidates[lowest], jnp.any(ends < heights[lowest]))

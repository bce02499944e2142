"""Losses of the softmax probabilities: cross-entropy, label smoothing and focal.

All three are written in ``y = log sum_{j != k} exp(z_j - z_k)``, the log-odds against the true class
(``p_k = 1/(1 + e^y)``). Autodiff then forms ``dl/dz_k`` as minus the sum of the other entries, which
keeps full relative accuracy when ``p_k`` rounds to one; ``p_k - 1`` would lose it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import brentq

from ufm._base import pytree, require_range
from ufm.losses._base import Loss, complement_log, is_column, on_domain, softplus, true_class, xlogx
from ufm.roots import increasing_root


def log_odds_against(logits: Array, label: Array | int) -> Array:
    """``y = log sum_{j != k} exp(z_j - z_k)``; a scalar."""
    true = true_class(logits, label)
    margins = logits - jnp.sum(jnp.where(true, logits, 0.0))
    top = jax.lax.stop_gradient(jnp.max(jnp.where(true, -jnp.inf, margins)))
    # The true entry is masked before exp as well: exp(0 - top) may overflow, and 0 * inf is NaN.
    shifted = jnp.where(true, 0.0, margins - top)
    return top + jnp.log(jnp.sum(jnp.where(true, 0.0, jnp.exp(shifted))))


@jax.custom_jvp
def against(logits: Array, target: Array) -> Array:
    """``sum_j y_j (log sum_i e^{z_i} - z_j)`` for a column y >= 0 of targets: a sum of terms that are not negative.

    >>> round(float(against(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]))), 4)   # log(1 + e) - 1/2
    0.8133
    """
    below, rest, _ = _exponentials(logits)
    return jnp.sum(target * below) + jnp.sum(target) * jnp.log1p(rest)


@against.defjvp
def _against_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (logits, target), (dz, dy) = primals, tangents
    below, rest, e = _exponentials(logits)
    slope = jnp.sum(target) * (e / jnp.sum(e)) - target
    return against(logits, target), jnp.sum(slope * dz) + jnp.sum(dy * (below + jnp.log1p(rest)))


def _exponentials(logits: Array) -> tuple[Array, Array, Array]:
    """``max z - z_j``, the sum of all but the largest of ``e^(z_j - max z)``, and these themselves."""
    top = jax.lax.stop_gradient(jnp.max(logits))
    largest = jnp.arange(logits.shape[0], dtype=jnp.int32) == jnp.argmax(logits).astype(jnp.int32)
    e = jnp.exp(logits - top)
    return top - logits, jnp.sum(jnp.where(largest, 0.0, e)), e


def _require_masses(targets: Any) -> None:
    allowed = "numbers >= 0 with a positive sum in every column, for cross-entropy"
    require_range("targets", targets.Y, allowed, lambda Y: (Y >= 0) & (Y.sum(axis=-2, keepdims=True) > 0))


def smoothed(target: Array, alpha: Any) -> Array:
    """``(1 - alpha) y + alpha (sum y)/K``, label smoothing of a column.

    >>> smoothed(jnp.array([1.0, 0.0]), 0.2).tolist()
    [0.9, 0.1]
    """
    return (1.0 - alpha) * target + alpha * jnp.mean(target)


def _entropy_of_column(u: Array, target: Array) -> Array:
    """``T sum v log v``, ``T v = u + y`` on the simplex, T the sum of y; +inf off it."""
    mass, v = jnp.sum(target), u + target
    violation = jnp.maximum(jnp.abs(jnp.sum(u)), -jnp.min(v)) / mass
    return on_domain(mass * jnp.sum(xlogx(v / mass)), violation, u.shape[0])


def _entropy(u: Array, label: Array | int, alpha: Any) -> Array:
    """``sum v log v`` with ``v = u + (1 - alpha) e_k + alpha/K`` on the simplex; +inf off it.

    The true entry enters as ``1 - v_k``, which keeps relative accuracy when it is small.
    """
    true, classes = true_class(u, label), u.shape[0]
    others = jnp.where(true, 0.0, u + alpha / classes)
    wrong = alpha * (classes - 1.0) / classes - jnp.sum(jnp.where(true, u, 0.0))
    violation = jnp.maximum(jnp.maximum(jnp.abs(jnp.sum(u)), -jnp.min(others)), wrong - 1.0)
    return on_domain(jnp.sum(xlogx(others)) + complement_log(wrong), violation, classes)


@pytree()
@dataclass(frozen=True)
class CE(Loss):
    """Cross-entropy ``log sum_j e^{z_j} - z_k``, or ``sum_j y_j (log sum_i e^{z_i} - z_j)`` for a column y >= 0.

    >>> import jax.numpy as jnp
    >>> round(float(CE()(jnp.zeros(4), 0)), 4)   # log 4
    1.3863
    """

    name = "ce"
    convex = True
    infimum = 0.0
    shift_invariant = True
    symmetric = True
    takes_columns = True

    def __call__(self, logits: Array, label: Array | int) -> Array:
        if is_column(label):
            return against(logits, jnp.asarray(label))
        return softplus(log_odds_against(logits, label))

    def check_columns(self, targets: Any) -> None:
        _require_masses(targets)

    def conjugate(self, u: Array, label: Array | int) -> Array:
        """``sum v log v`` with ``v = u + e_k`` on the simplex, the true entry as ``1 + u_k``."""
        if is_column(label):
            return _entropy_of_column(u, jnp.asarray(label))
        return _entropy(u, label, 0.0)

    def at(self, p: Any, q: Any, classes: Any) -> Array:
        return softplus(jnp.log(classes - 1.0) + q - p)


@pytree()
@dataclass(frozen=True)
class LabelSmoothing(Loss):
    """Label smoothing: cross-entropy against ``(1 - alpha) e_k + alpha/K`` (Zhou et al. 2022, Eq. 5).

    ``alpha`` in [0, 1); 0 is cross-entropy.

    >>> import jax.numpy as jnp
    >>> round(float(LabelSmoothing(0.5)(jnp.array([2.0, 0.0]), 0)), 4)   # log(1 + e^-2) + 0.5 (2 - 0) / 2
    0.6269
    """

    alpha: Any = 0.1
    name = "ls"
    convex = True
    infimum = 0.0
    shift_invariant = True
    symmetric = True
    takes_columns = True

    def __post_init__(self) -> None:
        require_range("alpha", self.alpha, "in [0, 1)", lambda a: (a >= 0) & (a < 1))

    def __call__(self, logits: Array, label: Array | int) -> Array:
        if is_column(label):
            return against(logits, smoothed(jnp.asarray(label), self.alpha))
        true_logit = jnp.sum(jnp.where(true_class(logits, label), logits, 0.0))
        return softplus(log_odds_against(logits, label)) + self.alpha * jnp.mean(true_logit - logits)

    def check_columns(self, targets: Any) -> None:
        _require_masses(targets)

    def conjugate(self, u: Array, label: Array | int) -> Array:
        """``sum v log v`` with ``v = u + y`` on the simplex, ``y`` the smoothed target."""
        if is_column(label):
            return _entropy_of_column(u, smoothed(jnp.asarray(label), self.alpha))
        return _entropy(u, label, self.alpha)

    def at(self, p: Any, q: Any, classes: Any) -> Array:
        return softplus(jnp.log(classes - 1.0) + q - p) + self.alpha * (p - q) * (classes - 1.0) / classes


@pytree()
@dataclass(frozen=True)
class Focal(Loss):
    """Focal loss ``(1 - p_k)^gamma (-log p_k)`` (Lin et al. 2017; Zhou et al. 2022, Eq. 4).

    ``gamma >= 0``; 0 is cross-entropy. Not convex for ``gamma > 0``, but its conjugate is known: with
    ``F(y) = sigmoid(y)^gamma softplus(y)`` and ``a = -u_k``,

        l*(u) = sum_{j != k} u_j log(u_j / a) + sup_y [a y - F(y)],   u_j >= 0,  sum u = 0,  a <= 1,

    because for fixed ``y`` the supremum of ``<u, z>`` is that of log-sum-exp. Fenchel's inequality
    needs no convexity, so the dual bound is rigorous, and tight wherever ``F`` touches its convex
    envelope (slope ``a <= 1`` on the first, convex branch of ``F``).

    >>> import jax.numpy as jnp
    >>> round(float(Focal(1.0)(jnp.zeros(2), 0)), 4)   # (1 - 1/2) log 2
    0.3466
    """

    gamma: Any = 2.0
    name = "focal"
    convex = False
    infimum = 0.0
    shift_invariant = True
    symmetric = True

    def __post_init__(self) -> None:
        require_range("gamma", self.gamma, "a finite number >= 0", lambda g: (g >= 0) & (g < np.inf))

    @property
    def convex_probability(self) -> float:
        """Least true-class probability from which the loss's Hessian is positive semidefinite; free of K.

        The loss is ``F(y)`` of the log-odds y against the true class. Its Hessian ``F'' grad y grad y' + F' Hess y``,
        with ``F' > 0`` and ``Hess y`` a covariance that vanishes where the other logits move together, is positive
        semidefinite iff ``F''(y) >= 0``, that is ``p_k >= convex_probability``. Along the gap of K classes:
        ``a >= log(K - 1) + logit(p)``.

        >>> Focal(0.0).convex_probability, round(Focal(2.0).convex_probability, 4)
        (0.0, 0.0578)
        """
        gamma = float(self.gamma)

        def curvature(p: float) -> float:
            """``F''/(p (1-p)^(g+1))`` with ``F' = (1-p)^g [(1-p) - g p log p]``, ``dp/dy = -p (1-p)``."""
            slope = 1.0 - p - gamma * p * np.log(p)
            return float(gamma * slope / (1.0 - p) + 1.0 + gamma * (np.log(p) + 1.0))

        return float(brentq(curvature, 1e-300, 0.999, xtol=1e-15)) if gamma > 0 else 0.0

    def of_log_odds(self, y: Array) -> Array:
        """``F(y) = sigmoid(y)^gamma softplus(y)``."""
        return jnp.exp(-self.gamma * softplus(-y)) * softplus(y)

    def __call__(self, logits: Array, label: Array | int) -> Array:
        return self.of_log_odds(log_odds_against(logits, label))

    def conjugate(self, u: Array, label: Array | int) -> Array:
        """See the class: an entropy plus a one-dimensional supremum."""
        return self.conjugate_and_log_odds(u, label)[0]

    def conjugate_and_log_odds(self, u: Array, label: Array | int) -> tuple[Array, Array]:
        """The conjugate, and the log-odds against the true class where the supremum is taken."""
        others = jnp.where(true_class(u, label), 0.0, u)
        a = jnp.sum(others)
        violation = jnp.maximum(jnp.maximum(jnp.abs(jnp.sum(u)), -jnp.min(others)), a - 1.0)
        mixing = jnp.sum(xlogx(others)) - xlogx(a)
        envelope, y = self._envelope_conjugate(jnp.clip(a, 0.0, 1.0))
        return on_domain(mixing + envelope, violation, u.shape[0]), y

    def feasible_scale(self, u: Array, label: Array | int) -> Array:
        """``1/a`` where the slope ``a = -u_k`` of F exceeds 1: such points lie above the convex envelope."""
        return 1.0 / jnp.maximum(1.0, -jnp.sum(jnp.where(true_class(u, label), u, 0.0)))

    def _envelope_conjugate(self, a: Array) -> tuple[Array, Array]:
        # F' rises from 0 through its first crossing of a <= 1 and never returns below 1 after it has
        # passed 1, so bisection on the sign of F' - a finds the only maximizer of a y - F(y).
        slope = jax.grad(self.of_log_odds)
        y = increasing_root(lambda y: slope(y) - a, jnp.full_like(a, -800.0), jnp.full_like(a, 800.0), halvings=64)
        return a * y - self.of_log_odds(y), y

    def at(self, p: Any, q: Any, classes: Any) -> Array:
        return self.of_log_odds(jnp.log(classes - 1.0) + q - p)

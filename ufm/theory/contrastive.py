"""The contrastive property of a loss (Zhou et al. 2022, "Are All Losses Created Equal", Def. 1), decided numerically.

A loss has it when ``l(z, k) >= phi(t)``, ``t = sum_{j != k} (z_j - z_k)``, with equality only where all
``z_j``, j != k, agree, and ``argmin_t phi(t) + c |t|`` is unique and not positive for every c > 0. The best
phi is the infimum of the loss at given t; for a loss that treats classes alike and is convex along a common
shift the candidate is ``phi(t) = min_s l(z(t) + s 1)``, ``z(t)`` the point with equal negatives.

Two readings differ for losses that feel a common shift (BCE, MSE). As written, equality implies equal
negatives. Read as "if and only if", every point with equal negatives must reach the bound, which only a
shift-invariant loss does.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm.losses import Loss
from ufm.roots import increasing_root

REACH = 30.0
"""Half-width of the range of ``t/(K-1)`` that is searched."""
POINTS = 6001


@dataclass(frozen=True)
class Contrastive:
    """What was found.

    Attributes:
        t: grid of t (m,), up to 0 the part that decides.
        phi: the bound there (m,).
        excess: least ``(l(z) - phi(t)) / min(1, spread^2)`` over random z with unequal negatives,
            minimized over a common shift; positive where equality forces equal negatives.
        tie: a c > 0 with two minimizers of ``phi + c |t|``, or None when all are unique.
        tied: those two minimizers, or None.
        rising: whether ``phi(t) >= phi(0)`` for t > 0, so that no minimizer is positive.
        shift: largest ``l(z) - phi(t)`` over points with equal negatives: 0 iff "if and only if" holds.
    """

    t: np.ndarray
    phi: np.ndarray
    excess: float
    tie: float | None
    tied: tuple[float, float] | None
    rising: bool
    shift: float

    @property
    def as_written(self) -> bool:
        """Def. 1 with "equality only when"."""
        return self.excess > 0 and self.tie is None and self.rising

    @property
    def if_and_only_if(self) -> bool:
        """Def. 1 with "equality if and only if"."""
        return self.as_written and self.shift <= 1e-9


def contrastive(loss: Loss, classes: int, seed: int = 0) -> Contrastive:
    """Decide the contrastive property of a loss that treats all classes alike.

    Args:
        loss: convex along a common shift of all logits, or invariant under it.
        classes: K >= 3 (for two classes there is one negative, and nothing to compare).
        seed: of the random logits.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> found = contrastive(ufm.losses.BCE(), 4)
    >>> found.as_written, found.if_and_only_if
    (True, False)
    """
    K = classes
    tau = np.linspace(-REACH, REACH, POINTS)
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(400, K)) * rng.choice([0.1, 1.0, 2.0], size=(400, 1))
    negatives = z[:, 1:]
    spread = ((negatives - negatives.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    means = negatives.mean(axis=1) - z[:, 0]
    phi, phi_z, least, shifted = (np.asarray(x) for x in _values(loss, K, tau, means, z))
    excess = float(np.min((least - phi_z) / np.minimum(1.0, spread)))
    past = tau <= 0
    tie, tied = _tie((K - 1) * tau[past], phi[past])
    rising = bool(np.all(phi[~past] >= phi[past][-1] - 1e-12))
    return Contrastive((K - 1) * tau, phi, excess, tie, tied, rising, float(np.max(shifted - phi)))


@functools.partial(jax.jit, static_argnums=1)
def _values(loss: Loss, classes: int, tau: Any, means: Any, z: Any) -> tuple[Array, Array, Array, Array]:
    def least(z: Array) -> Array:
        """``min_s l(z + s 1, 0)``."""
        if loss.shift_invariant:
            return loss(z, 0)
        slope = jax.grad(lambda s: loss(z + s, 0))
        size = jnp.max(jnp.abs(z)) + 100.0
        return loss(z + increasing_root(slope, -size, size, halvings=70), 0)

    def equal_negatives(tau: Array) -> Array:
        return jnp.where(jnp.arange(classes) == 0, 0.0, tau)

    def bound(tau: Array) -> Array:
        return least(equal_negatives(tau))

    phi = jax.vmap(bound)
    return phi(tau), phi(means), jax.vmap(least)(z), jax.vmap(lambda x: loss(equal_negatives(x) + 1.0, 0))(tau)


def _tie(t: np.ndarray, phi: np.ndarray) -> tuple[float | None, tuple[float, float] | None]:
    """A rising edge of the lower convex hull that leaves phi below it by more than rounding: two minimizers."""
    hull: list[int] = []
    for i in range(t.size):
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (phi[b] - phi[a]) * (t[i] - t[a]) < (phi[i] - phi[a]) * (t[b] - t[a]):
                break
            hull.pop()
        hull.append(i)
    scale = np.finfo(float).eps * 1e3 * np.max(np.abs(phi))
    best: tuple[float, int, int, float] | None = None
    for a, b in itertools.pairwise(hull):
        c = (phi[b] - phi[a]) / (t[b] - t[a])
        if b - a > 2 and c > 0:
            depth = float(np.max(phi[a : b + 1] - phi[a] - c * (t[a : b + 1] - t[a])))
            if depth > scale and (best is None or depth > best[0]):
                best = depth, a, b, float(c)
    if best is None:
        return None, None
    return best[3], (float(t[best[1]]), float(t[best[2]]))

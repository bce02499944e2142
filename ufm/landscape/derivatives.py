"""Are a loss's derivatives right? Taylor slopes, for users who write their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ufm._base import in_float64
from ufm.losses import Loss

STEPS = np.geomspace(1.0, 1e-5, 31)


@dataclass(frozen=True)
class DerivativeCheck:
    """Taylor remainders of ``l(z + t v)`` against the step t.

    Attributes:
        steps: t (steps,).
        first: ``|l(z + t v) - l(z) - t <g, v>|`` (probes, steps), of slope 2 where the gradient is right.
        second: with ``t^2 <v, C v>/2`` taken off too, of slope 3 where the Hessian is right.
        slopes: median measured slopes; inf where the remainder is nothing but rounding (a polynomial).
        symmetry: largest ``|<u, C v> - <v, C u>|`` relative to ``|<u, C v>|``'s size.
        finite: whether every value was finite.
    """

    steps: np.ndarray
    first: np.ndarray
    second: np.ndarray
    slopes: tuple[float, float]
    symmetry: float
    finite: bool

    @property
    def verdict(self) -> str:
        """``"ok"`` or what is wrong, in one line."""
        if not self.finite:
            return "values or derivatives are not finite"
        if not self.slopes[0] > 1.8:
            return f"gradient is wrong: remainder falls as t^{self.slopes[0]:.2f}, expected t^2"
        if not self.slopes[1] > 2.8:
            return f"Hessian is wrong: remainder falls as t^{self.slopes[1]:.2f}, expected t^3"
        return "ok" if self.symmetry < 1e-8 else "Hessian is not symmetric"


def check_derivatives(
    loss: Loss | Callable[..., Any], classes: int = 5, *, probes: int = 8, scale: float = 1.0, seed: int = 0
) -> DerivativeCheck:
    """Compare a loss's autodiff gradient and Hessian with its values along random lines, in float64.

    Autodiff is wrong where a function hides a dependence (``stop_gradient``, a custom rule, an integer cast) or
    has a kink. Pymanopt's ``check_gradient`` and ``check_hessian`` are the model.

    Args:
        loss: ``loss(logits (K,), label) -> scalar``.
        classes: K.
        probes: random points and directions.
        scale: of the random logits.
        seed: of both.

    >>> import ufm
    >>> check_derivatives(ufm.losses.BCE()).verdict
    'ok'
    """
    rng = np.random.default_rng(seed)
    z, v, u = scale * rng.normal(size=(3, probes, classes))
    labels = np.arange(probes) % classes

    def measure(z: Any, v: Any, u: Any, steps: Any) -> Any:
        def one(z: Any, v: Any, u: Any, label: Any) -> Any:
            gradient = jax.grad(lambda x: loss(x, label))
            g, Cv = jax.jvp(gradient, (z,), (v,))
            _, Cu = jax.jvp(gradient, (z,), (u,))
            values = jax.vmap(lambda t: loss(z + t * v, label))(steps)
            return loss(z, label), jnp.vdot(g, v), jnp.vdot(v, Cv), values, jnp.vdot(u, Cv), jnp.vdot(v, Cu)

        return jax.vmap(one)(z, v, u, jnp.asarray(labels, jnp.int32))

    value, first, second, values, uCv, vCu = (np.asarray(x) for x in in_float64(measure)(z, v, u, STEPS))
    t = STEPS[None, :]
    one = np.abs(values - value[:, None] - t * first[:, None])
    two = np.abs(values - value[:, None] - t * first[:, None] - 0.5 * t**2 * second[:, None])
    floor = 64 * np.finfo(float).eps * (1.0 + np.abs(value))
    skew = float(np.max(np.abs(uCv - vCu)) / (1e-12 + np.max(np.abs(uCv) + np.abs(vCu))))
    finite = bool(all(np.all(np.isfinite(x)) for x in (value, first, second, values)))
    slopes = (_slope(one, floor, finite), _slope(two, floor, finite))
    return DerivativeCheck(STEPS, one, two, slopes, skew, finite)


def _slope(remainders: np.ndarray, floor: np.ndarray, finite: bool) -> float:
    """Median over probes of the log-log slope at the smallest steps whose remainder is above rounding."""
    if not finite:
        return float("nan")
    slopes = []
    for row, least in zip(remainders, floor, strict=True):
        above = np.flatnonzero(row > 30 * least)
        # Below the first step lost in rounding nothing is read.
        lost = np.flatnonzero(row <= 30 * least)
        above = above[above < lost[0]] if len(lost) else above
        if len(above) >= 4:
            use = above[-4:]
            slopes.append(float(np.polyfit(np.log(STEPS[use]), np.log(row[use]), 1)[0]))
    return float(np.median(slopes)) if slopes else float("inf")

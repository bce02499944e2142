"""A user's own loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import InputError, pytree, require
from ufm.losses._base import Loss

PROBES = 64
"""Random pairs of logits on which the promises of a loss are tried."""
SHIFT = 3.0


@jax.jit
def _probe(loss: Loss, points: Array, labels: Array) -> tuple[Array, ...]:
    """Loss at two ends, in their middle, at the first with all logits shifted; and what its rounding goes by."""
    first, second = points
    each, slope = jax.vmap(loss), jax.vmap(jax.grad(loss))
    pairings = [jnp.sum(jnp.abs(z * slope(z, labels)), axis=1) for z in (first, second, first + SHIFT)]
    values = [each(z, labels) for z in (first, second, 0.5 * (first + second), first + SHIFT)]
    return *values, jnp.sum(jnp.abs(jnp.stack(pairings + values)), axis=0)


@pytree(static=("function", "convex", "shift_invariant", "infimum", "name"))
@dataclass(frozen=True)
class Custom(Loss):
    """A loss given as a function; make one with `custom`."""

    function: Callable[..., Array]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    convex: bool = False
    shift_invariant: bool = False
    infimum: float | None = None
    name: str = "custom"  # type: ignore[misc]

    def __call__(self, logits: Array, label: Array | int) -> Array:
        return self.function(logits, label, **self.parameters)

    def check(self, classes: int) -> None:
        logits = jax.ShapeDtypeStruct((classes,), jnp.zeros(()).dtype)
        try:
            found = jax.eval_shape(self, logits, jax.ShapeDtypeStruct((), jnp.int32))
        except Exception as error:  # whatever the function of a user may raise
            reason = str(error).partition("\n")[0]
            allowed = f"fn(logits ({classes},), label) written in JAX ({type(error).__name__}: {reason})"
            raise InputError(f"loss = {self.name}: must be {allowed}") from error
        shape = getattr(found, "shape", type(found).__name__)
        require(shape == (), f"loss {self.name}: value.shape", shape, f"() for logits ({classes},)")
        if self.convex or self.shift_invariant or self.infimum is not None:
            self._check_promises(classes)

    def _check_promises(self, classes: int) -> None:
        """Try the promises on random logits: a certificate is worth no more than they are."""
        rng = np.random.default_rng(0)
        points = 10.0 ** rng.uniform(-1.0, 1.3, (2, PROBES, 1)) * rng.normal(size=(2, PROBES, classes))
        labels = np.arange(PROBES, dtype=np.int32) % classes
        found = _probe(self, jnp.asarray(points, jnp.zeros(()).dtype), labels)
        first, second, middle, shifted, size = map(np.asarray, found)
        # Where the loss overflows nothing is compared: that breaks no promise.
        fine = np.all(np.isfinite([first, second, middle, shifted, size]), axis=0)
        first, second, middle, shifted, size = (x[fine] for x in (first, second, middle, shifted, size))
        slack = 64 * np.finfo(size.dtype).eps * (1.0 + size)
        name, low = f"loss {self.name}", -np.inf if self.infimum is None else self.infimum
        bent = self.convex & (middle > 0.5 * (first + second) + slack)
        require(not bent.any(), f"{name}: convex", True, "False: a chord between random logits runs below the loss")
        allowed = f"at most {first.min(initial=np.inf):g}, a value of the loss"
        require(not (first < low - slack).any(), f"{name}: infimum", low, allowed)
        moved = self.shift_invariant & (np.abs(shifted - first) > slack)
        require(not moved.any(), f"{name}: shift_invariant", True, "False: a constant added to random logits counts")

    def conjugate_along(self, logits: Array, label: Array | int, scale: Array) -> Array:
        """Chord bound ``l*(s u) <= s l*(u) + (1 - s) l*(0)`` with ``l*(0) = -infimum``.

        For convex ``l`` and ``u = grad l(z)``, ``l*(u) = <u, z> - l(z)`` exactly, so the bound is
        tight at ``s = 1``. Without a convex loss and its infimum nothing is known: +inf.
        """
        if not self.convex or self.infimum is None:
            return jnp.full((), jnp.inf, logits.dtype)
        value, u = jax.value_and_grad(self)(logits, label)
        return scale * (jnp.sum(u * logits) - value) - (1.0 - scale) * self.infimum

    @property
    def hyper(self) -> dict[str, Any]:
        return dict(self.parameters)


def custom(
    fn: Callable[..., Array],
    parameters: Mapping[str, Any] | None = None,
    *,
    convex: bool = False,
    shift_invariant: bool = False,
    infimum: float | None = None,
    name: str | None = None,
) -> Custom:
    """Make a loss from ``fn(logits (K,), label) -> scalar``.

    Args:
        fn: written in JAX, twice differentiable, and the same function for every class.
        parameters: hyper-parameters, passed by name; they become leaves, so they can be swept.
        convex: promise that ``fn`` is convex in the logits. Together with ``infimum`` it buys a dual
            certificate of global optimality.
        infimum: a number that ``fn`` never goes below.
        shift_invariant: promise that adding a constant to all logits changes nothing.
        name: shown in tables; the function's own name by default.

    Raises:
        InputError: without a function; from `solve`, `sweep` and `certify`, if it fails, gives no scalar for logits
            (K,), or breaks a promise on random logits.

    >>> import jax, jax.numpy as jnp
    >>> def hinge2(z, k, margin=1.0):
    ...     gap = margin - z[k] + z
    ...     return jnp.sum(jnp.where(jnp.arange(z.size) == k, 0.0, jax.nn.softplus(gap)))
    >>> str(custom(hinge2, {"margin": 2.0}, convex=True, infimum=0.0))
    'hinge2:margin=2'
    """
    require(callable(fn), "fn", fn, "a function fn(logits, label) -> scalar")
    label = name or getattr(fn, "__name__", "custom").strip("<>")
    return Custom(fn, dict(parameters or {}), convex, shift_invariant, infimum, label)

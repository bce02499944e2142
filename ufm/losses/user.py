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
LARGE = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Sizes of a logit at which a loss must be a number: exp overflows at 89 in float32 and at 710 in float64."""


@jax.jit
def _probe(loss: Loss, points: Array, labels: Array) -> tuple[Array, ...]:
    """Loss at two ends, in their middle, at the first with all logits shifted; and what its rounding goes by."""
    first, second = points
    each, slope = jax.vmap(loss), jax.vmap(jax.grad(loss))
    pairings = [jnp.sum(jnp.abs(z * slope(z, labels)), axis=1) for z in (first, second, first + SHIFT)]
    values = [each(z, labels) for z in (first, second, 0.5 * (first + second), first + SHIFT)]
    return *values, jnp.sum(jnp.abs(jnp.stack(pairings + values)), axis=0)


@jax.jit
def _each(loss: Loss, points: Array) -> Array:
    """Loss of class 0 at each row of logits."""
    return jax.vmap(loss, (0, None))(points, 0)


@jax.jit
def _relabel(loss: Loss, points: Array, labels: Array, orders: Array, one: Array) -> tuple[Array, Array, Array]:
    """Loss at random logits and, classes permuted, again; and at ``one`` of them, turned so that each class is true."""
    each = jax.vmap(loss)
    permuted = each(jnp.take_along_axis(points, orders, axis=1), jnp.argmax(orders == labels[:, None], axis=1))
    classes = jnp.arange(points.shape[1], dtype=labels.dtype)
    turned = jax.lax.map(lambda k: loss(jnp.roll(points[one], k - labels[one]), k), classes)
    return each(points, labels), permuted, turned


@pytree(static=("function", "convex", "shift_invariant", "infimum", "symmetric", "name"))
@dataclass(frozen=True)
class Custom(Loss):
    """A loss given as a function; make one with `custom`."""

    function: Callable[..., Array]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    convex: bool = False
    shift_invariant: bool = False
    infimum: float | None = None
    symmetric: bool = False
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
        if self.convex or self.shift_invariant or self.symmetric or self.infimum is not None:
            self._check_promises(classes)
            self._check_large(classes)

    def _check_promises(self, classes: int) -> None:
        """Try the promises on random logits: a certificate is worth no more than they are."""
        rng = np.random.default_rng(0)
        drawn = 10.0 ** rng.uniform(-1.0, 1.3, (2, PROBES, 1)) * rng.normal(size=(2, PROBES, classes))
        labels = np.arange(PROBES, dtype=np.int32) % classes
        points = jnp.asarray(drawn, jnp.zeros(()).dtype)
        found = _probe(self, points, labels)
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
        if self.symmetric:
            orders = np.argsort(rng.random((PROBES, classes)), axis=1).astype(np.int32)
            plain, permuted, turned = map(np.asarray, _relabel(self, points[0], labels, orders, np.argmax(fine)))
            told = "False: random logits with the classes permuted have another loss"
            apart = (np.abs(permuted - plain)[fine] > slack).any() or np.ptp(turned) > slack[:1].sum()
            require(not apart, f"{name}: symmetric", True, told)

    def _check_large(self, classes: int) -> None:
        """Refuse a loss that is no number at large logits. One that overflows to +inf breaks no promise there."""
        pairs = np.array([pair for s in LARGE for t in (s, -s) for pair in ((t, 0.0), (0.0, t))])
        points = np.where(np.arange(classes) == 0, pairs[:, :1], pairs[:, 1:])
        values = np.asarray(_each(self, jnp.asarray(points, jnp.zeros(()).dtype)))
        for (true, others), value in zip(pairs, values, strict=True):
            place = f"loss {self.name}: value at true logit {true:g} and other logits {others:g}"
            require(value > -np.inf, place, float(value), "a number: write it with log_softmax, logsumexp or softplus")

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
    symmetric: bool = False,
    name: str | None = None,
) -> Custom:
    """Make a loss from ``fn(logits (K,), label) -> scalar``.

    Args:
        fn: written in JAX and twice differentiable.
        parameters: hyper-parameters, passed by name; they become leaves, so they can be swept.
        convex: promise that ``fn`` is convex in the logits. Together with ``infimum`` it buys a dual
            certificate of global optimality.
        infimum: a number that ``fn`` never goes below.
        shift_invariant: promise that adding a constant to all logits changes nothing.
        symmetric: promise that permuting the classes, logits and label alike, changes nothing. Closed forms need it;
            a loss with a weight for each class does not keep it.
        name: shown in tables; the function's own name by default.

    Raises:
        InputError: without a function; from `solve`, `sweep` and `certify`, if it fails, gives no scalar for logits
            (K,), or breaks a promise on random logits; with a promise, also if it is NaN or -inf at logits up to
            1000.

    >>> import jax, jax.numpy as jnp
    >>> def hinge2(z, k, margin=1.0):
    ...     gap = margin - z[k] + z
    ...     return jnp.sum(jnp.where(jnp.arange(z.size) == k, 0.0, jax.nn.softplus(gap)))
    >>> str(custom(hinge2, {"margin": 2.0}, convex=True, infimum=0.0))
    'hinge2:margin=2'
    """
    require(callable(fn), "fn", fn, "a function fn(logits, label) -> scalar")
    label = name or getattr(fn, "__name__", "custom").strip("<>")
    return Custom(fn, dict(parameters or {}), convex, shift_invariant, infimum, symmetric, label)

"""What every loss is: a small pytree that maps logits and a label to a number."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import write_call


class Loss:
    """A loss ``l(z, k)`` of logits ``z`` (K,) and a label ``k`` in 0..K-1; hyper-parameters are its leaves.

    Where `takes_columns` is true the target may also be a column ``y`` (K,) instead of a label: see `ufm.targets`.

    A subclass defines `__call__` and, where they are known, `conjugate` and `at`; what is not known raises
    NotImplementedError. `custom` makes a loss of a plain function. Fenchel's ``l(z) + l*(u) >= <u, z>``, an
    equality at ``u = grad l(z)`` where l is convex, is what certificates rest on.

    >>> import jax, ufm
    >>> loss, z = ufm.losses.BCE(), jax.numpy.array([2.0, -1.0, 0.5])
    >>> value, u = jax.jit(jax.value_and_grad(loss))(z, 0)
    >>> abs(float(value + loss.conjugate(u, 0) - u @ z)) < 1e-6
    True
    >>> loss.convex, loss.shift_invariant, ufm.losses.Focal(3.0).hyper
    (True, False, {'gamma': 3.0})
    """

    name: ClassVar[str]
    convex: bool
    """Whether ``l(., k)`` is convex, so that the lifted problem is convex too."""
    shift_invariant: bool
    """Whether ``l(z + c 1, k) = l(z, k)`` for every ``c``."""
    infimum: float | None = None
    """A number that the loss never goes below; None where none is known."""
    symmetric: bool = False
    """Whether permuting the classes changes nothing: what every closed form rests on."""
    takes_columns: ClassVar[bool] = False
    """Whether the target may be a column (K,) of numbers instead of a label."""

    def __call__(self, logits: Array, label: Array | int) -> Array:
        """Loss at ``logits`` (K,) for the true class ``label``, or a column; a scalar."""
        raise NotImplementedError

    def conjugate(self, u: Array, label: Array | int) -> Array:
        """Convex conjugate ``l*(u, k) = sup_z <u, z> - l(z, k)`` at ``u`` (K,); +inf off its domain.

        Its derivative is exact inside the domain; at the edge, where an entropy's is infinite, that term counts 0.
        """
        raise NotImplementedError

    def conjugate_along(self, logits: Array, label: Array | int, scale: Array) -> Array:
        """Upper bound on ``l*(scale * grad l(logits))``: what a dual certificate needs."""
        return self.conjugate(scale * jax.grad(self)(logits, label), label)

    def feasible_scale(self, u: Array, label: Array | int) -> Array:
        """Largest ``s <= 1`` for which ``s u``, ``u`` a gradient, lies where the conjugate is finite."""
        return jnp.ones((), u.dtype)

    def at(self, p: Any, q: Any, classes: Any) -> Array:
        """Loss when the true class has logit ``p`` and the ``classes - 1`` others have ``q``."""
        return self(jnp.where(jnp.arange(classes) == 0, p, q), 0)

    def check(self, classes: int) -> None:
        """Raise `InputError` unless the loss is a number for logits of K = ``classes``."""

    def check_columns(self, targets: Any) -> None:
        """Raise `InputError` unless the loss takes the columns ``targets.Y`` (K, G)."""

    @property
    def hyper(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        return write_call(self.name, self.hyper)


@jax.custom_jvp
def sigmoid(x: Array) -> Array:
    """``1/(1 + e^-x)``, with full relative accuracy for very negative ``x``."""
    e = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0, 1.0, e) / (1.0 + e)


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """``log(1 + e^x)``, with full relative accuracy for very negative ``x``."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


# The exponential of -|x| serves value and derivative alike; its own derivative at 0 would be wrong.
sigmoid.defjvps(lambda dx, _, x: dx * sigmoid(x) * sigmoid(-x))
softplus.defjvps(lambda dx, _, x: dx * sigmoid(x))


def is_column(target: Any) -> bool:
    """Whether a target is a column of numbers, not a label.

    >>> is_column(2), is_column(jnp.ones(3))
    (False, True)
    """
    return bool(jnp.ndim(target) == 1)


def true_class(logits: Array, label: Array | int) -> Array:
    """Mask (K,) that is true at ``label``.

    >>> true_class(jnp.zeros(3), 1).tolist()
    [False, True, False]
    """
    return jnp.arange(logits.shape[0], dtype=jnp.int32) == jnp.asarray(label, jnp.int32)


def one_hot(logits: Array, label: Array | int) -> Array:
    """Unit vector ``e_label`` shaped and typed like ``logits`` (K,)."""
    return true_class(logits, label).astype(logits.dtype)


def on_domain(value: Array, violation: Array, size: int) -> Array:
    """``value`` where ``violation`` is within rounding of zero, +inf elsewhere."""
    return jnp.where(violation <= 8 * size * jnp.finfo(value.dtype).eps, value, jnp.inf)


def complement_log(v: Array) -> Array:
    """``(1 - v) log(1 - v)`` with full relative accuracy for small ``v``; zero for ``v >= 1``.

    XLA's log1p in float64 is off by up to 120 ulp between -0.42 and -0.34, where the plain logarithm is not.

    >>> round(float(complement_log(jnp.asarray(0.5))), 4)
    -0.3466
    """
    safe = jnp.where(v < 1, v, 0.0)
    small = safe < 0.25
    return (1.0 - safe) * jnp.where(small, jnp.log1p(-jnp.where(small, safe, 0.0)), jnp.log(1.0 - safe))


def xlogx(v: Array) -> Array:
    """``v log v`` with ``0 log 0 = 0``; negative rounding errors count as zero.

    >>> xlogx(jnp.asarray([-1e-9, 0.0, 1.0])).tolist()
    [0.0, 0.0, 0.0]
    """
    safe = jnp.where(v > 0, v, 1.0)
    return safe * jnp.log(safe)

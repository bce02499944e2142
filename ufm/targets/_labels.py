"""Groups of samples, class labels and their counts."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ufm._base import (
    InputError,
    alike,
    is_traced,
    pytree,
    read_call,
    require,
    require_known,
    require_range,
    require_whole,
    write_call,
)

KINDS = ("exp", "step")
MOST = 2**53
"""Samples allowed in all: float64 holds every whole number up to it."""


class Targets:
    """Groups of samples, in order: the samples of a group have one target, and the weight of the group is theirs.

    A subclass is a pytree with a static field ``total``: N where each sample has a feature of its own, None where only
    groups have.
    """

    total: int | None

    def sizes(self, classes: int) -> Any:
        """Samples per group: one number () where all groups are equal, else (G,)."""
        raise NotImplementedError

    def groups(self, classes: int) -> int:
        """G, how many groups there are."""
        raise NotImplementedError

    def of(self, groups: Any) -> Any:
        """What the loss takes as the targets of samples of ``groups`` (n,): n rows."""
        raise NotImplementedError

    def check(self, classes: int) -> None:
        """Raise `InputError` where the targets do not fit K = ``classes``."""

    def counts(self, classes: int) -> Any:
        """Samples per group (G,): whole numbers, or traced."""
        sizes = self.sizes(classes)
        if is_traced(sizes):
            return jnp.broadcast_to(sizes, (self.groups(classes),))
        return np.broadcast_to(np.asarray(sizes).astype(np.int64), (self.groups(classes),))

    def samples(self, classes: int) -> Any:
        """N: a whole number, or traced."""
        if self.total is not None:
            return self.total
        sizes = self.sizes(classes)
        if is_traced(sizes):
            return jnp.sum(jnp.broadcast_to(sizes, (self.groups(classes),)))
        # In float64, exact up to the most that is allowed; whole numbers of 64 bits would overflow in silence.
        return int(np.sum(np.broadcast_to(np.asarray(sizes, float), (self.groups(classes),))))

    def per_sample(self, wanted: bool, classes: int) -> Targets:
        """The same targets for features per sample or, unless ``wanted``, per group."""
        if wanted == (self.total is not None):  # counts may be traced here
            return self
        other = copy.copy(self)
        object.__setattr__(other, "total", None)
        if wanted:
            N = other.samples(classes)
            known = not is_traced(N)
            require(known, "features", "per_sample", "per_class where counts are traced: N is part of the program")
            object.__setattr__(other, "total", N)
        return other

    def group_of_columns(self, classes: int) -> Any:
        """Group of every column of H: of all N samples, or 0..G-1 with a feature per group."""
        G, N = self.groups(classes), self.total
        groups = np.arange(G, dtype=np.int32)
        if N is None:
            return groups
        sizes = self.sizes(classes)
        if np.ndim(sizes) == 0:
            return np.repeat(groups, N // G)
        counts = self.counts(classes)
        if is_traced(counts):
            return jnp.repeat(groups, counts.astype(jnp.int32), total_repeat_length=N)
        return np.repeat(groups, counts)

    def __eq__(self, other: object) -> bool:
        return alike(self, other)

    __hash__ = object.__hash__


class OfClasses(Targets):
    """Labels: group k are the samples of class k."""

    def groups(self, classes: int) -> int:
        return classes

    def of(self, groups: Any) -> Any:
        return jnp.asarray(groups)

    @property
    def written(self) -> Any:
        """As ``per_class`` of a problem takes it."""
        raise NotImplementedError


@pytree(static=("total",))
@dataclass(frozen=True, eq=False, repr=False)
class Labels(OfClasses):
    """A class label each, for so many samples of every class.

    Args:
        each: samples per class, one number for all classes or K of them.

    Raises:
        InputError: naming the class whose count is no whole number >= 1.

    >>> Labels((5, 5, 1)), Labels((5, 5, 5))
    (Labels([5, 5, 1]), Labels(5))
    """

    each: Any = 100
    total: int | None = None

    def __post_init__(self) -> None:
        if not is_traced(self.each):
            object.__setattr__(self, "each", as_counts("per_class", self.each))

    def check(self, classes: int) -> None:
        shape = np.shape(self.each)
        allowed = f"one number, or classes = {classes} of them (got {shape[-1] if shape else 1})"
        require(shape[-1:] in ((), (classes,)), "per_class", self.written, allowed)

    def sizes(self, classes: int) -> Any:
        return self.each

    @property
    def written(self) -> Any:
        if is_traced(self.each) or np.ndim(self.each) > 1:
            return self
        return int(self.each) if np.ndim(self.each) == 0 else tuple(int(n) for n in np.asarray(self.each))

    def __repr__(self) -> str:
        return f"Labels({np.asarray(self.each).astype(int).tolist()})" if not is_traced(self.each) else "Labels(traced)"


@pytree(static=("classes", "kind", "total"))
@dataclass(frozen=True, eq=False, repr=False)
class LongTail(OfClasses):
    """Counts that fall from the first class to the last; see `long_tail`, which makes one. A sequence of K counts."""

    classes: int
    n_max: Any
    ratio: Any
    kind: str = "exp"
    total: int | None = None

    def __post_init__(self) -> None:
        require_whole("classes", self.classes, 2)
        require_range("n_max", self.n_max, "a whole number >= 1", lambda n: (n >= 1) & (n <= MOST) & (n == np.round(n)))
        require_range("ratio", self.ratio, "a finite number >= 1", lambda x: (x >= 1) & (x < np.inf))
        require_known("kind", self.kind, KINDS)

    def check(self, classes: int) -> None:
        require(classes == self.classes, "per_class", self.written, f"for classes = {classes} (got {self.classes})")

    def sizes(self, classes: int) -> Any:
        xp = jnp if is_traced(self.n_max, self.ratio) else np
        k = np.arange(self.classes)
        place = k / (self.classes - 1) if self.kind == "exp" else np.asarray(k >= (self.classes + 1) // 2, float)
        return xp.maximum(1.0, xp.round(self.n_max * self.ratio ** xp.asarray(-place)))

    @property
    def written(self) -> Any:
        return self

    def __str__(self) -> str:
        return write_call(self.kind, {"n_max": self.n_max, "ratio": self.ratio}, "{:.17g}".format)

    def __repr__(self) -> str:
        return f"LongTail({self.classes}, {self.n_max!r}, {self.ratio!r}, {self.kind!r})"

    def __len__(self) -> int:
        return self.classes

    def __getitem__(self, k: int) -> int:
        return int(self.counts(self.classes)[k])

    def __eq__(self, other: object) -> bool:
        return tuple(self.counts(self.classes).tolist()) == other if isinstance(other, tuple) else alike(self, other)

    __hash__ = object.__hash__


def long_tail(classes: int, n_max: int, ratio: float, kind: str = "exp") -> LongTail:
    """Counts of a long-tailed problem, the largest class first: ``per_class`` of a `ufm.Problem`.

    ``"exp"`` falls geometrically, ``n_k = n_max ratio^(-k/(K-1))`` (Cui et al. 2019); ``"step"`` gives the first half
    of the classes ``n_max`` and the others ``n_max/ratio`` (Buda et al. 2018). Counts are rounded, and at least 1.
    Command lines and files write ``exp:n_max=1000,ratio=100``, and a sweep may vary ``"per_class.ratio"``.

    Args:
        classes: K >= 2.
        n_max: samples of the largest class, >= 1.
        ratio: the largest count over the smallest, >= 1.
        kind: ``"exp"`` or ``"step"``.

    Raises:
        InputError: naming the argument, its value and what is allowed.

    >>> tuple(long_tail(4, 1000, 100)), tuple(long_tail(4, 1000, 10, "step"))
    ((1000, 215, 46, 10), (1000, 1000, 100, 100))
    """
    require_whole("n_max", n_max, 1)
    return LongTail(classes, n_max, ratio, kind)


def as_targets(given: Any, classes: int) -> OfClasses:
    """The labels that ``per_class`` of a problem means: a count, K of them, `long_tail`; or either in words.

    >>> tuple(as_targets("step:n_max=8,ratio=2", 3)), as_targets("5,5,1", 3)
    ((8, 8, 4), Labels([5, 5, 1]))
    """
    if not isinstance(given, str):
        return given if isinstance(given, OfClasses) else Labels(given)
    allowed = "a whole number, classes of them, or one of exp:n_max=...,ratio=... and step:n_max=...,ratio=..."
    if given.partition(":")[0] not in KINDS:
        try:
            counts = [int(n) for n in given.split(",")]
        except ValueError:
            raise InputError(f"per_class = {given!r}: must be {allowed}") from None
        return Labels(counts[0] if len(counts) == 1 else counts)
    kind, values = read_call(given, "per_class", dict.fromkeys(KINDS, ("n_max", "ratio")))
    require(len(values) == 2, "per_class", given, allowed)
    return LongTail(classes, values["n_max"], values["ratio"], kind)


def as_counts(field: str, given: Any) -> Any:
    """Counts as a leaf: a float where all are equal, else an array of floats."""
    rows = [given] if not isinstance(given, (list, tuple, np.ndarray)) else given
    require(all(np.size(n) == 1 for n in rows), field, given, "a whole number, or a list of them")
    if np.ndim(given) == 0:
        _require_count(field, given)
        return float(given)
    for k, n in enumerate(given):
        _require_count(f"{field}[{k}]", n)
    # An array of floats comes from a sweep, where one program serves equal counts and others.
    swept = isinstance(given, np.ndarray) and given.dtype.kind == "f"
    return float(given[0]) if len(set(given)) == 1 and not swept else np.asarray(given, float)


def _require_count(field: str, n: Any) -> None:
    """A count is a whole number >= 1; arrays of floats and leaves hold it as a float."""
    require_whole(field, int(n) if isinstance(n, (float, np.floating)) and float(n).is_integer() else n, 1)

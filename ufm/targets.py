"""Targets of the samples: groups of samples with one target each, and how many samples each group has.

A target is a label, or a column y (K,) of numbers: `soft` labels and `mixup` (probabilities), `sets` of labels (0 or
1), `values` to be fitted. With a column, cross-entropy is ``sum_j y_j (log sum_i e^{z_i} - z_j)``, PyTorch's
CrossEntropyLoss with probabilities; BCE is ``sum_j y_j softplus(-z_j) + (1 - y_j) softplus(z_j)``, K times PyTorch's
BCEWithLogitsLoss; MSE is ``||z - y||^2``, K times PyTorch's MSELoss. All three stay convex, so the lift stays a nuclear
norm and certificates are tight for d >= min(K, G).

Counts are leaves: problems that differ in counts alone share one compiled program, and a sweep may vary them. Only
where every sample has a feature of its own is their sum N, `Targets.total`, part of the program.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
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
            object.__setattr__(self, "each", _as_counts("per_class", self.each))

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


@pytree(static=("kind", "total"))
@dataclass(frozen=True, eq=False, repr=False)
class Columns(Targets):
    """A column of numbers for each group; made by `soft`, `sets`, `values` and those that build on them.

    Args:
        Y: targets (K, G), one column per group.
        each: samples per group, one number for all or G of them.
        kind: ``"soft"``, ``"sets"`` or ``"values"``.
    """

    Y: Any
    each: Any = 1
    kind: str = "soft"
    total: int | None = None

    def __post_init__(self) -> None:
        require_known("kind", self.kind, CHECKS)
        if is_traced(self.Y, self.each):
            return
        Y = _numbers("targets", self.Y)
        require(Y.ndim == 2 and Y.shape[0] >= 2 and Y.shape[1] >= 1, "targets.shape", Y.shape, "(K, G), K >= 2")
        allowed, inside = CHECKS[self.kind]
        for g in np.flatnonzero(~np.isfinite(Y).all(axis=0) | ~inside(Y)):
            raise InputError(f"targets[:, {g}] = {_head(Y[:, g])}: must be {allowed}")
        each = _as_counts("counts", self.each)
        require(np.shape(each) in ((), Y.shape[1:]), "counts.shape", np.shape(each), f"() or (groups,) = {Y.shape[1:]}")
        object.__setattr__(self, "Y", Y)
        object.__setattr__(self, "each", each)

    def check(self, classes: int) -> None:
        shape = np.shape(self.Y)
        require(shape[-2] == classes, "targets.shape", shape, f"(classes, G), classes = {classes}")

    def sizes(self, classes: int) -> Any:
        return self.each

    def groups(self, classes: int) -> int:
        return int(np.shape(self.Y)[-1])

    def of(self, groups: Any) -> Any:
        return jnp.take(jnp.asarray(self.Y), jnp.asarray(groups), axis=1).T

    @property
    def words(self) -> str:
        """The targets in a line of words about a problem."""
        return f"{KINDS_OF_COLUMNS[self.kind]}, {np.shape(self.Y)[-1]} groups"

    def __repr__(self) -> str:
        if is_traced(self.Y, self.each):
            return f"Columns(kind={self.kind!r}, traced)"
        return f"Columns({np.asarray(self.Y).tolist()}, {np.asarray(self.each).astype(int).tolist()}, {self.kind!r})"


def soft(Y: Any, counts: Any = 1) -> Columns:
    """Soft labels: every column of Y (K, G) is a distribution over the classes; ``counts`` samples have it.

    Raises:
        InputError: naming the first column with a negative entry, or whose sum is not 1 to 1e-6; nothing is normalized.

    >>> import ufm
    >>> targets = soft([[0.9, 0.1], [0.1, 0.9]], counts=(5, 3))
    >>> problem = ufm.Problem(2, 3, targets=targets, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> problem.samples, ufm.solve(problem).status_name
    (8, 'converged')
    """
    return Columns(Y, counts, "soft")


def sets(S: Any, counts: Any = 1) -> Columns:
    """Label sets: column g of S (K, G) is 1 at the labels of its samples, else 0.

    With CE this is the pick-all-label loss (Li, Li, Wang & Qu 2024), with BCE the multi-label loss.

    Raises:
        InputError: naming the first column that is no set, the empty set or the set of all classes.

    >>> sets([[1, 0, 1], [0, 1, 1], [0, 0, 0]], 4).groups(3)
    3
    """
    return Columns(S, counts, "sets")


def values(Y: Any, counts: Any = 1) -> Columns:
    """Values to be fitted, for squared error: any finite Y (K, G), multivariate regression.

    >>> values([[0.5, -1.0], [2.0, 0.0]]).groups(2)
    2
    """
    return Columns(Y, counts, "values")


def mixup(classes: int, mixing: float = 0.5, per_class: int = 1, per_pair: int = 1) -> Columns:
    """Mixup (Zhang et al. 2018): plain labels, and ``mixing e_i + (1 - mixing) e_j`` for every ordered pair i != j.

    Args:
        classes: K >= 2.
        mixing: in (0, 1).
        per_class: samples of each plain label; 0 leaves them out.
        per_pair: samples of each ordered pair.

    >>> targets = mixup(3, 0.7)
    >>> targets.groups(3), [round(float(y), 1) for y in targets.Y[:, 3]]
    (9, [0.7, 0.3, 0.0])
    """
    require_whole("classes", classes, 2)
    require_range("mixing", mixing, "in (0, 1)", lambda x: (x > 0) & (x < 1))
    require_whole("per_class", per_class, 0)
    require_whole("per_pair", per_pair, 1)
    unit = np.eye(classes)
    plain = unit if per_class else unit[:, :0]
    i, j = (~np.eye(classes, dtype=bool)).nonzero()
    mixed = mixing * unit[:, i] + (1.0 - mixing) * unit[:, j]
    counts = [per_class] * plain.shape[1] + [per_pair] * len(i)
    return soft(np.concatenate([plain, mixed], axis=1), counts)


def distillation(logits: Any, temperature: float = 1.0, counts: Any = 1) -> Columns:
    """Soft labels of a teacher (Hinton et al. 2015): ``softmax(logits/temperature)``, logits (K, G).

    >>> distillation([[2.0, 0.0], [0.0, 2.0]], 2.0).Y.round(3).tolist()
    [[0.731, 0.269], [0.269, 0.731]]
    """
    require_range("temperature", temperature, "a finite number > 0", lambda t: (t > 0) & (t < np.inf))
    z = _numbers("logits", logits) / temperature
    require(bool(np.isfinite(z).all()) and z.ndim == 2, "logits", _head(z), "finite numbers (K, G)")
    e = np.exp(z - z.max(axis=0))
    return soft(e / e.sum(axis=0), counts)


def next_token(counts: Any) -> Columns:
    """Soft labels of next-token prediction (Zhao et al. 2024): ``counts[v, c]`` is how often token v follows context c.

    Args:
        counts: whole numbers (V, C), each context followed at least once. The vocabulary are the classes.

    >>> targets = next_token([[3, 0], [1, 2]])
    >>> targets.Y.tolist(), targets.each.tolist()
    ([[0.75, 0.0], [0.25, 1.0]], [4.0, 2.0])
    """
    table = _numbers("counts", counts)
    whole = (table >= 0) & (table == np.round(table)) & np.isfinite(table)
    require(table.ndim == 2 and bool(whole.all()), "counts", _head(table), "whole numbers >= 0 (V, C)")
    for c in np.flatnonzero(table.sum(axis=0) == 0):
        raise InputError(f"counts[:, {c}] = {_head(table[:, c])}: must be a context that some token follows")
    followed = table.sum(axis=0)
    return soft(table / followed, followed.astype(int))


KINDS_OF_COLUMNS = {"soft": "soft labels", "sets": "label sets", "values": "values"}
CHECKS: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "soft": (
        "a distribution: entries >= 0 whose sum is 1 (it is not normalized in silence)",
        lambda Y: (Y >= 0).all(axis=0) & (np.abs(Y.sum(axis=0) - 1.0) <= 1e-6),
    ),
    "sets": (
        "a set of labels: 0 and 1 only, not all 0 and not all 1",
        lambda Y: ((Y == 0) | (Y == 1)).all(axis=0) & (Y.sum(axis=0) > 0) & (Y.sum(axis=0) < Y.shape[0]),
    ),
    "values": ("finite numbers", lambda Y: np.ones(Y.shape[1], bool)),
}


def _numbers(name: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given, float)
    except (TypeError, ValueError):
        raise InputError(f"{name} = {str(given)[:60]}: must be numbers") from None


def _head(x: np.ndarray) -> str:
    shown = [f"{v:.6g}" for v in np.ravel(x)[:6]]
    return f"[{', '.join(shown)}{', ...' if x.size > 6 else ''}]"


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


def _as_counts(field: str, given: Any) -> Any:
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

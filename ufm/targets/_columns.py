"""Targets that are columns of numbers: soft labels, label sets, values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ufm._base import InputError, is_traced, pytree, require, require_known, require_range, require_whole
from ufm.targets._labels import Targets, as_counts


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
        each = as_counts("counts", self.each)
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

"""Hypotheses as values: they test a problem, print themselves, and name the one that fails.

    hypotheses = loss(BCE) & balanced & dim_at_least(-1) & bias_per_class & separating

reads as "BCE, balanced, d >= K-1, bias per class, K mu < 1", and on a problem with d = 2 and K = 4 says
"needs d >= K-1, got d = 2, K = 4". What a theorem says in words and what it tests cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ufm.losses import Loss
from ufm.models import Linear, Model
from ufm.problem import Problem


def strength(problem: Problem) -> float:
    """``mu = sqrt(n decay_W decay_H)`` of a balanced problem.

    >>> import ufm
    >>> round(strength(Problem(3, 4, 4, decay=ufm.Decay(0.01, 0.04, 0.0))), 9)
    0.04
    """
    return float(np.sqrt(problem.counts[0]) * np.sqrt(float(problem.decay.W)) * np.sqrt(float(problem.decay.H)))


@dataclass(frozen=True)
class Hypothesis:
    """One condition on a problem; ``a & b`` is both, ``a | b`` is either.

    Args:
        words: the condition, as a table shows it.
        test: whether a problem satisfies it; asked only where all conditions before it in a conjunction hold.
        got: what a problem has instead.

    >>> even = Hypothesis("an even number of classes", lambda p: p.classes % 2 == 0, lambda p: f"K = {p.classes}")
    >>> both = balanced & even
    >>> str(both), both(Problem(4, 4, 2)), both.fails(Problem(3, 4, 2))
    ('balanced, an even number of classes', True, 'needs an even number of classes, got K = 3')
    """

    words: str
    test: Callable[[Problem], bool]
    got: Callable[[Problem], str] | None = None
    parts: tuple[Hypothesis, ...] = ()

    def __call__(self, problem: Problem) -> bool:
        return bool(self.test(problem))

    def __and__(self, other: Hypothesis) -> Hypothesis:
        parts = (self.parts or (self,)) + (other.parts or (other,))
        return Hypothesis(", ".join(p.words for p in parts), lambda p: all(part(p) for part in parts), None, parts)

    def __or__(self, other: Hypothesis) -> Hypothesis:
        return Hypothesis(f"{self.words} or {other.words}", lambda p: self(p) or other(p), self.got or other.got)

    def __str__(self) -> str:
        return self.words

    def fails(self, problem: Problem) -> str:
        """The first condition that ``problem`` does not satisfy, in words; empty where it satisfies all."""
        for part in self.parts or (self,):
            if not part(problem):
                return f"needs {part.words}" + (f", got {part.got(problem)}" if part.got else "")
        return ""


def loss(*kinds: type[Loss]) -> Hypothesis:
    """The loss is one of ``kinds``."""
    names = " or ".join(kind.name.upper() if len(kind.name) < 4 else kind.name for kind in kinds)
    return Hypothesis(names, lambda p: isinstance(p.loss, kinds), lambda p: str(p.loss))


def model(kind: type[Model], words: str) -> Hypothesis:
    """The model of the features is of a ``kind``."""
    return Hypothesis(words, lambda p: isinstance(p.model, kind), lambda p: p.model.words)


def dim_at_least(more: int) -> Hypothesis:
    """``d >= K + more``."""
    words = "d >= K" + (f"{more:+d}" if more else "")
    return Hypothesis(words, lambda p: p.dim >= p.classes + more, lambda p: f"d = {p.dim}, K = {p.classes}")


def classes_above(least: int) -> Hypothesis:
    """``K > least``."""
    return Hypothesis(f"K > {least}", lambda p: p.classes > least, lambda p: f"K = {p.classes}")


def away_from(words: str, ratio: Callable[[Problem], Any], margin: float = 0.01) -> Hypothesis:
    """No number that ``ratio`` gives is within ``margin`` of 1: there both sides of a threshold look alike."""

    def far(problem: Problem) -> bool:
        return bool(np.all(np.abs(np.atleast_1d(ratio(problem)) - 1.0) > margin))

    return Hypothesis(f"not within {100 * margin:g} % of {words}", far)


free_classifier = Hypothesis(
    "free classifier", lambda p: isinstance(p.model, Linear) and p.model.multiplicative, lambda p: p.model.words
)
"""The model of the theorems: W and H free."""
balanced = Hypothesis("balanced", lambda p: p.balanced, lambda p: f"n = {p.per_class}")
imbalanced = Hypothesis("imbalanced", lambda p: not p.balanced, lambda p: f"n = {p.per_class}")
bias_per_class = Hypothesis("bias per class", lambda p: p.bias == "per_class", lambda p: f"bias {p.bias}")
with_bias = Hypothesis("with bias", lambda p: p.bias != "none", lambda p: "none")
no_bias = Hypothesis("no bias", lambda p: p.bias == "none", lambda p: f"bias {p.bias}")
decayed_bias = Hypothesis("decayed bias", lambda p: p.bias != "none" and float(p.decay.b) > 0)
free_bias = Hypothesis("bias without decay", lambda p: p.bias != "none" and float(p.decay.b) == 0)
separating = Hypothesis(
    "K mu < 1", lambda p: p.classes * strength(p) < 1, lambda p: f"K mu = {p.classes * strength(p):.4g}"
)
"""The decays leave the classes apart."""

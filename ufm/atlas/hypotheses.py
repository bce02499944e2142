"""Hypotheses as values: they test a problem, print themselves, and name the one that fails.

    hypotheses = loss(BCE) & free_classifier & balanced & dim_at_least(-1) & separating

reads as "BCE, a free classifier, balanced, d >= K-1, K mu < 1", and on a problem with d = 2 and K = 4 says
"needs d >= K-1, got d = 2, K = 4". What a theorem says in words and what it tests cannot drift apart.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ufm.losses import Loss
from ufm.models import FixedClassifier, Linear, Model, Nonnegative, Spheres
from ufm.problem import Problem
from ufm.theory import collapse_strength

MARGIN = 0.01
"""How near a threshold, in the logarithm of the ratio to it, `away_from` keeps: no run can tell the sides apart."""
SIGNS = {"<": operator.lt, "<=": operator.le, "=": operator.eq, ">=": operator.ge, ">": operator.gt}


def strength(problem: Problem) -> float:
    """``mu = sqrt(n decay_W decay_H)`` of a balanced problem.

    >>> import ufm
    >>> round(strength(Problem(3, 4, 4, decay=ufm.Decay(0.01, 0.04, 0.0))), 9)
    0.04
    """
    return float(collapse_strength(problem))


@dataclass(frozen=True)
class Hypothesis:
    """One condition on a problem; ``a & b`` is both, ``a | b`` is either.

    Args:
        words: the condition, as a table shows it.
        test: whether a problem satisfies it; asked only where all conditions before it in a conjunction hold.
        got: what a problem has instead.
        parts: of a conjunction.

    >>> even = Hypothesis("an even number of classes", lambda p: p.classes % 2 == 0, lambda p: f"K = {p.classes}")
    >>> both = balanced & even
    >>> str(both), both(Problem(4, 4, 2)), both.fails(Problem(3, 4, 2))
    ('balanced, an even number of classes', True, 'needs an even number of classes, got K = 3')
    """

    words: str
    test: Callable[[Problem], bool]
    got: Callable[[Problem], str] = lambda problem: ""
    parts: tuple[Hypothesis, ...] = ()

    def __call__(self, problem: Problem) -> bool:
        return bool(self.test(problem))

    def __and__(self, other: Hypothesis) -> Hypothesis:
        parts = (self.parts or (self,)) + (other.parts or (other,))
        return Hypothesis(", ".join(p.words for p in parts), lambda p: all(part(p) for part in parts), parts=parts)

    def __or__(self, other: Hypothesis) -> Hypothesis:
        sides = (self, other)
        words = " or ".join(f"({side.words})" if side.parts else side.words for side in sides)

        def got(problem: Problem) -> str:
            failing = [part.got(problem) for side in sides if (part := side.first_failing(problem))]
            return ", ".join(dict.fromkeys(filter(None, failing)))

        return Hypothesis(words, lambda p: self(p) or other(p), got)

    def __str__(self) -> str:
        return self.words

    def first_failing(self, problem: Problem) -> Hypothesis | None:
        """The first condition that ``problem`` does not satisfy, if there is one."""
        return next((part for part in self.parts or (self,) if not part(problem)), None)

    def fails(self, problem: Problem) -> str:
        """The first condition that ``problem`` does not satisfy, in words; empty where it satisfies all."""
        part = self.first_failing(problem)
        if part is None:
            return ""
        got = part.got(problem)
        return f"needs {part.words}" + (f", got {got}" if got else "")


# Conditions with a parameter -----------------------------------------------------------------------


def loss(*kinds: type[Loss]) -> Hypothesis:
    """The loss is one of ``kinds``.

    >>> import ufm
    >>> str(loss(ufm.losses.MSE, ufm.losses.LabelSmoothing))
    'MSE or label smoothing'
    """
    names = [k.__name__ if k.__name__.isupper() else re.sub("(?<!^)([A-Z])", r" \1", k.__name__).lower() for k in kinds]
    return Hypothesis(" or ".join(names), lambda p: isinstance(p.loss, kinds), lambda p: str(p.loss))


def model(kind: type[Model]) -> Hypothesis:
    """The model is of this ``kind``, and not one derived from it: that may have other logits."""
    return Hypothesis(kind.kind, lambda p: type(p.model) is kind, lambda p: p.model.words)


def dim_at_least(more: int) -> Hypothesis:
    """``d >= K + more``."""
    words = "d >= K" + (f"{more:+d}" if more else "")
    return Hypothesis(words, lambda p: p.dim >= p.classes + more, lambda p: f"d = {p.dim}, K = {p.classes}")


def number(name: str, value: Callable[[Problem], float], sign: str, limit: float) -> Hypothesis:
    """A ``value`` of the problem beside a ``limit``; ``sign`` is one of ``<``, ``<=``, ``=``, ``>=`` and ``>``.

    >>> number("n", lambda p: p.per_class, "<=", 3).fails(Problem(3, 4, 5))
    'needs n <= 3, got n = 5'
    """
    compare = SIGNS[sign]
    return Hypothesis(
        f"{name} {sign} {limit:g}", lambda p: compare(value(p), limit), lambda p: f"{name} = {value(p):.4g}"
    )


def classes_above(least: int) -> Hypothesis:
    """``K > least``."""
    return number("K", lambda p: p.classes, ">", least)


def away_from(words: str, ratio: Callable[[Problem], Any]) -> Hypothesis:
    """No number that ``ratio`` gives is within `MARGIN` of 1: there both sides of a threshold look alike."""

    def far(problem: Problem) -> bool:
        ratios = np.atleast_1d(ratio(problem))
        return not np.any((np.exp(-MARGIN) < ratios) & (ratios < np.exp(MARGIN)))

    return Hypothesis(f"not within {100 * MARGIN:g} % of {words}", far)


# Conditions without one ----------------------------------------------------------------------------


def _counts(problem: Problem) -> str:
    return f"n = {problem.per_class}"


def _bias(problem: Problem) -> str:
    if problem.bias == "none":
        return "no bias"
    return f"bias {problem.bias.replace('_', ' ')}, decay_b = {float(problem.decay.b):.4g}"


def K_mu(problem: Problem) -> float:
    """``K mu``: the classes of CE and BCE stay apart below 1."""
    return problem.classes * strength(problem)


anything = Hypothesis("any problem", lambda p: True)
"""No condition at all."""
free_classifier = model(Linear)
"""The model of the theorems: W and H free."""
any_classifier = free_classifier | model(FixedClassifier)
"""The model of theorems that a given classifier does not touch."""
on_spheres = model(Spheres)
"""Normalized features and classifier rows."""
nonnegative = model(Nonnegative)
"""A free classifier and non-negative features."""
balanced = Hypothesis("balanced", lambda p: p.balanced, _counts)
imbalanced = Hypothesis("imbalanced", lambda p: not p.balanced, _counts)
no_bias = Hypothesis("no bias", lambda p: p.bias == "none", _bias)
with_bias = Hypothesis("with bias", lambda p: p.bias != "none", _bias)
bias_per_class = Hypothesis("bias per class", lambda p: p.bias == "per_class", _bias)
unified_bias = Hypothesis("unified bias", lambda p: p.bias == "unified", _bias)
decayed_bias = Hypothesis("decayed bias", lambda p: p.bias != "none" and float(p.decay.b) > 0, _bias)
free_bias = Hypothesis("bias without decay", lambda p: p.bias != "none" and float(p.decay.b) == 0, _bias)
separating = number("K mu", K_mu, "<", 1)
"""The decays leave the classes apart, mu as in `strength`."""
not_separating = number("K mu", K_mu, ">=", 1)

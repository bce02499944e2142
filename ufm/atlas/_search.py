"""On which problems a claim is tried: small ones of all kinds, the boundary of its hypotheses, and adversarial ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ufm._base import require
from ufm.atlas._core import Finding, Theorem, Verdict
from ufm.atlas._draw import Family, Shape, draw, log_uniform, structure_of
from ufm.atlas._shrink import MODES, size_of
from ufm.losses import Loss
from ufm.problem import Decay, Problem

PROGRAMS = 16
"""Static shapes of one search: each costs seconds of compilation, a problem milliseconds."""
SPARE = 4
"""Problems drawn for each one that is solved, to choose shapes from."""
STEP = 1.5
"""Deviation of the first adversarial step in the logarithm of a decay; it halves where a step gains nothing."""
CHILDREN = 4
"""Adversarial steps from one problem before the search looks which led further."""


def _shapes() -> tuple[Shape, ...]:
    found: list[Shape] = []
    for K in range(2, 7):
        for d in sorted({1, K - 1, K, K + 1}):
            found += [(K, d, 1), (K, d, 2), (K, d, (2, *[1] * (K - 1))), (K, d, (*[3] * (K - 1), 1))]
    return tuple(found)


def small(*losses: Loss) -> Callable[[np.random.Generator], Problem]:
    """A family of small problems: K from 2 to 6, d from 1 to K+1, equal and unequal counts, every bias mode.

    One feature per class, where the losses are convex: the minimum is the same, and counts compile nothing. A fourth
    of them have a bias without decay.

    >>> import numpy as np, ufm
    >>> problem = small(ufm.losses.CE())(np.random.default_rng(0))
    >>> 2 <= problem.classes <= 6, problem.features
    (True, 'per_class')
    """
    features = "per_class" if all(loss.convex for loss in losses) else "per_sample"
    family = Family(lambda rng: losses[rng.integers(len(losses))], _shapes(), MODES, decay_b=(1e-3, 10.0))

    def one(rng: np.random.Generator) -> Problem:
        problem = family(rng)
        decay = dataclasses.replace(problem.decay, b=0.0) if rng.random() < 0.25 else problem.decay
        return dataclasses.replace(problem, decay=decay, features=features)

    return one


def as_family(family: Any) -> Callable[[np.random.Generator], Problem]:
    """What draws problems: a function of a generator as it is; a loss, or several, as `small` problems of them.

    Raises:
        InputError: for anything else.
    """
    losses = family if isinstance(family, (list, tuple)) else [family]
    if losses and all(isinstance(loss, Loss) for loss in losses):
        return small(*losses)
    require(callable(family), "family", family, "a ufm.atlas.Family, a function of a generator, or losses")
    return family  # type: ignore[no-any-return]


def plan(theorem: Theorem, family: Any, budget: int, rng: np.random.Generator) -> list[list[Problem]]:
    """Half of the budget in problems inside the hypotheses, by static shape, the smallest first."""

    def drawn(rng: np.random.Generator) -> Problem:
        problem = family(rng)
        require(isinstance(problem, Problem), "family", problem, "a function that draws a ufm.Problem")
        return problem

    found = draw(drawn, lambda p: theorem.applies(p) and not theorem.too_near(p), SPARE * budget, rng)
    inside = found.boundary + found.inside
    words = theorem.hypotheses.words
    require(bool(inside), "family", theorem.draw or family, f"one that draws problems inside the hypotheses ({words})")
    by_shape: dict[Any, list[Problem]] = {}
    for problem in inside:
        by_shape.setdefault(structure_of(problem), []).append(problem)
    half = max(1, budget // 2)
    chosen = _covering(list(by_shape.values()), min(PROGRAMS, half))
    each = max(1, half // len(chosen))
    return sorted((group[:each] for group in chosen), key=lambda group: size_of(group[0]))


def _covering(groups: list[list[Problem]], most: int) -> list[list[Problem]]:
    """Up to ``most`` groups, each time the one that adds most pairs of traits that no other has shown together."""

    def pairs(problem: Problem) -> set[Any]:
        traits = (problem.classes, problem.dim - problem.classes, problem.bias, problem.balanced, type(problem.loss))
        return set(itertools.combinations(enumerate(traits), 2))

    left, seen, chosen = [(pairs(group[0]), group) for group in groups], set[Any](), list[list[Problem]]()
    while left and len(chosen) < most:
        best = max(range(len(left)), key=lambda i: len(left[i][0] - seen))
        new, group = left.pop(best)
        seen |= new
        chosen.append(group)
    return chosen


def violation(finding: Finding) -> float:
    """How far a claim was from failing: its largest residual over tolerance; -inf where it said nothing."""
    return finding.worst.residual if finding.worst is not None else -np.inf


def adversarial(
    groups: list[list[Problem]], findings: Sequence[Finding], left: int, steps: int, rng: np.random.Generator
) -> list[Problem]:
    """Steps away from the problem that came nearest, and from one of the shape whose turn it is; at most ``left``."""
    survived = [f for f in findings if f.verdict == Verdict.HOLDS]
    group = groups[steps % len(groups)]
    start = max(survived, key=violation).problem if survived else group[0]
    width = STEP * 0.5 ** (steps // 4 % 4)
    children = [_moved(start, width, rng) for _ in range(CHILDREN)]
    children += [_moved(group[rng.integers(len(group))], 2 * STEP, rng) for _ in range(CHILDREN)]
    return children[:left]


def _moved(problem: Problem, width: float, rng: np.random.Generator) -> Problem:
    """``problem`` with other decays; one time in four without a decay of the bias, or with one again."""
    W, H, b = (float(x) for x in vars(problem.decay).values())
    if rng.random() < 0.25:
        b = 0.0 if b > 0 else log_uniform(rng, 1e-3, 10.0)
    moved = (float(np.clip(x * np.exp(width * rng.normal()), 1e-12, 1e12)) if x > 0 else x for x in (W, H, b))
    return dataclasses.replace(problem, decay=Decay(*moved))

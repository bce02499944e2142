"""The smallest problem on which a claim fails: fewest classes, then dimensions, then samples, then roundest numbers."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from ufm._base import InputError
from ufm._parallel import in_parallel
from ufm.atlas._core import Finding, Theorem, Verdict
from ufm.atlas._draw import structure_of
from ufm.atlas._trials import try_once
from ufm.bias import Bias
from ufm.losses import NAMED
from ufm.models import FixedClassifier
from ufm.problem import Decay, Problem

MODES = ("none", "unified", "per_class")
"""Bias modes, the simplest first."""
DIGITS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.2, 1.5, 1.7, 2.5, 3.5)
"""Round decays tried on each smaller shape, times powers of ten: at most a fifth or so apart, one digit first."""
REGIMES = (0.05, 3.0)
"""Range of ``K mu`` for these: from a loss near its infimum to beyond the thresholds of zero, as in `Family`."""
ROUNDS = 3
"""How often all steps are repeated at most: a simpler bias can make fewer classes enough."""

Refuted = Callable[[Iterable[Problem]], Finding | None]
"""The first of some problems on which the claim is refuted."""


def first_refuted(theorem: Theorem, problems: Iterable[Problem], seed: int, log: list[Finding]) -> Finding | None:
    """The first of ``problems`` on which ``theorem`` is refuted, or None; what was tried up to it is added to ``log``.

    Problems that follow one another and share a compiled program are one task; what is found does not depend on how
    many tasks run at once.
    """
    tasks = [list(group) for _, group in groupby(problems, key=structure_of)]
    refuted: dict[int, Finding] = {}

    def work(task: tuple[int, list[Problem]]) -> list[Finding]:
        place, group = task
        tried: list[Finding] = []
        for problem in group:
            if any(earlier < place for earlier in list(refuted)):
                break
            tried.append(try_once(theorem, problem, seed))
            if tried[-1].verdict == Verdict.REFUTED:
                refuted[place] = tried[-1]
                break
        return tried

    outcomes = in_parallel(work, enumerate(tasks))
    first = min(refuted, default=len(tasks))
    for tried in outcomes[: first + 1]:
        log.extend(tried)
    return refuted.get(first)


def size_of(problem: Problem) -> tuple[int, int, int, int]:
    """What is made small, in this order: classes, dimension, samples, bias mode."""
    return problem.classes, problem.dim, int(problem.samples), MODES.index(str(problem.bias))


def shrink(finding: Finding, refuted: Refuted) -> Finding:
    """The smallest counterexample found from ``finding`` on."""
    for _ in range(ROUNDS):
        before = finding.problem
        for step in (_fewer_classes, _simpler_bias, _fewer_samples):
            finding = refuted(step(finding.problem)) or finding
        if finding.problem == before:
            break
    for candidates in (_round_decays, _round_numbers):
        finding = refuted(candidates(finding.problem)) or finding
    if finding.problem.features == "per_class":  # the statement with a feature per sample is the simpler one
        finding = refuted([dataclasses.replace(finding.problem, features="per_sample")]) or finding
    return finding


def _patterns(problem: Problem, classes: int) -> list[Any]:
    """Counts of ``classes`` classes no larger than those of ``problem``, the fewest samples first."""
    counts = np.asarray(problem.counts)
    if problem.balanced:
        return sorted({1, 2, int(counts[0])} & set(range(1, int(counts[0]) + 1)))
    plain = [(2, *[1] * (classes - 1)), (*[2] * (classes - 1), 1)]
    ordered = tuple(sorted((int(n) for n in counts), reverse=True))
    ends = [ordered[:classes], ordered[-classes:], (ordered[0], *ordered[len(ordered) - classes + 1 :])]
    return sorted({n for n in plain + ends if len(set(n)) > 1 and max(n) <= ordered[0]}, key=lambda n: (sum(n), n))


def _decays(problem: Problem, like: Problem) -> Iterator[Problem]:
    """``problem`` with its decays, with those of the same K mu as ``like``, and with round ones of all regimes."""
    W, H, b = (float(x) for x in vars(problem.decay).values())
    size = math.sqrt(problem.samples * problem.classes)
    pull = math.sqrt(like.samples * like.classes) / size
    low, high = (x / size for x in REGIMES)
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    grid = [v for digit in DIGITS for k in reversed(powers) if low <= (v := float(f"{digit}e{k}")) <= high]
    biases = [b] if b == 0 or problem.bias == "none" else [b, 1.0]
    found = [(W, H, b), (W * pull, H * pull, b)] + [(v, v, of_bias) for of_bias in biases for v in grid]
    yield from (dataclasses.replace(problem, decay=Decay(*numbers)) for numbers in found)


def _fewer_classes(problem: Problem) -> Iterator[Problem]:
    K, d = problem.classes, problem.dim
    # Weights, offsets and a given classifier are numbers of K classes each.
    if not problem.classes_alike or not problem.labeled or isinstance(problem.model, FixedClassifier):
        return
    for classes in range(2, K + 1):
        dims = {1, classes - 1, classes, d - (K - classes)} - {0}
        for dim in sorted(m for m in dims if m >= 1 and (classes, m) < (K, d)):
            for counts in _patterns(problem, classes):
                smaller = dataclasses.replace(problem, classes=classes, dim=dim, per_class=counts)
                yield from _decays(smaller, problem)


def _simpler_bias(problem: Problem) -> Iterator[Problem]:
    for mode in MODES[: MODES.index(str(problem.bias))]:
        simpler = dataclasses.replace(problem, bias=Bias(mode))
        yield from _decays(simpler, problem)


def _fewer_samples(problem: Problem) -> Iterator[Problem]:
    if not problem.labeled:
        return
    for counts in _patterns(problem, problem.classes):
        if np.sum(np.broadcast_to(counts, problem.classes)) < problem.samples:
            yield from _decays(dataclasses.replace(problem, per_class=counts), problem)


def rounded(x: float, digits: int) -> float:
    """``x`` to so many significant digits.

    >>> rounded(0.01234, 1), rounded(96.0, 1)
    (0.01, 100.0)
    """
    return float(f"{x:.{digits - 1}e}")


def _near(x: float) -> list[float]:
    """Round numbers around ``x``, the roundest first: powers of ten, then its own first digit and the next ones."""
    power = 10.0 ** round(math.log10(x))
    return list(
        dict.fromkeys(float(f"{y:.2g}") for y in (power, 0.1 * power, 10 * power, rounded(x, 1), rounded(x, 2)))
    )


def _round_decays(problem: Problem) -> Iterator[Problem]:
    """All decays round, those of W and H equal; the roundest first, and the more alike before the rest."""
    W, H, b = (float(x) for x in vars(problem.decay).values())
    price = math.sqrt(W) * math.sqrt(H)
    biases = [0.0] if problem.bias == "none" else [0.0, 1.0, *(_near(b) if b > 0 else [])]
    digits = [rounded(price, 1), rounded(0.8 * price, 1), rounded(1.25 * price, 1), rounded(price, 2)]
    for both in dict.fromkeys([*_near(price), *digits]):
        for of_bias in dict.fromkeys(biases):
            yield dataclasses.replace(problem, decay=Decay(both, both, of_bias))
    for figures in (1, 2, 3):
        yield dataclasses.replace(problem, decay=Decay(*(rounded(x, figures) for x in (W, H, b))))


def _round_numbers(problem: Problem) -> Iterator[Problem]:
    """Every number of the loss to one digit, to two, to three."""
    for figures in (1, 2, 3):
        if problem.loss.name not in NAMED:
            return
        hyper = {name: rounded(float(x), figures) for name, x in problem.loss.hyper.items()}
        with contextlib.suppress(InputError):  # rounded out of its range
            if hyper != problem.loss.hyper:
                yield dataclasses.replace(problem, loss=type(problem.loss)(**hyper))

"""A theorem as an object: hypotheses and claim as predicates, a verdict with its evidence."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ufm import bias as biases
from ufm.metrics import Collapse, collapse, scores
from ufm.models import Linear
from ufm.solvers import Solution, solve
from ufm.theory import Certificate, certify

CERTIFIED = 1e-10
"""A gap below this, relative to ``max(1, f)``, certifies a global minimiser."""


class Verdict(enum.StrEnum):
    """What a check found."""

    HOLDS = "holds"
    REFUTED = "refuted"
    OUTSIDE = "outside hypotheses"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Quantity:
    """One number that a theorem predicts, beside the one that was measured.

    ``tolerance`` is absolute; the residual is the difference in units of it.
    """

    name: str
    predicted: float
    measured: float
    tolerance: float

    @property
    def residual(self) -> float:
        """``|measured - predicted| / tolerance``; not finite counts as infinitely wrong."""
        difference = abs(self.measured - self.predicted)
        return difference / self.tolerance if np.isfinite(difference) else np.inf


def quantity(name: str, predicted: Any, measured: Any, scale: float = 1e-7) -> Quantity:
    """A `Quantity` whose tolerance is ``scale * max(1, |predicted|)``.

    >>> import ufm
    >>> found = ufm.atlas.quantity("minimum", predicted=4.0, measured=4.0 + 8e-7)
    >>> found.tolerance, round(found.residual, 6)      # above 1: not what was predicted
    (4e-07, 2.0)
    """
    predicted, measured = float(predicted), float(measured)
    return Quantity(name, predicted, measured, scale * max(1.0, abs(predicted)))


def free_solve(problem: Any, *arguments: Any, **options: Any) -> Solution:
    """`ufm.solve` as every theorem uses it: all features free, for none may be given the collapse that it claims."""
    return solve(problem, *arguments, eliminate=False, **options)


class Evidence:
    """What is measured of one problem, each part computed when first asked for.

    The solution comes from the solvers and the certificate from duality; no closed form enters.
    """

    def __init__(self, problem: Any, seed: int = 0, starts: int = 1) -> None:
        self.problem, self.seed, self.starts = problem, seed, starts

    @functools.cached_property
    def solution(self) -> Solution:
        """Best solution of the starts."""
        return free_solve(self.problem, self.seed, starts=self.starts)

    @functools.cached_property
    def certificate(self) -> Certificate:
        """Lower bound and gap of the solution."""
        return certify(self.problem, self.solution.params)

    @property
    def value(self) -> float:
        """Objective at the solution, in float64."""
        return float(self.certificate.value)

    @property
    def gap(self) -> float:
        """Certified gap; infinite when there is no bound."""
        return float(self.certificate.gap)

    @functools.cached_property
    def collapse(self) -> Collapse:
        """Collapse metrics of the solution."""
        x = self.solution.params
        return collapse(x.W, x.H, self.problem.labels, x.b)

    @functools.cached_property
    def bias(self) -> np.ndarray:
        """Bias per class (K,); zeros without one."""
        return biases.per_class(self.solution.params.b, self.problem.classes)

    @functools.cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """Unbiased scores, logits minus bias: mean, min and max of positives and negatives."""
        found = scores(*self.problem.model.layers(self.solution.params), self.problem.labels)
        return {side: {k: float(v) for k, v in values.items()} for side, values in found.items()}


Claim = Callable[[Any, Evidence], Sequence[Quantity]]


@dataclass(frozen=True)
class Theorem:
    """A published statement (or its correction) that can be checked on a problem.

    Attributes:
        id: short name, ``paper/number``.
        source: paper and number.
        statement: in words.
        formula: for the objective of `ufm.Problem`.
        hypotheses: in words.
        inside: whether a problem of type ``about`` satisfies the hypotheses; see `applies`.
        claim: quantities predicted and measured; the first one is the headline.
        minimum: whether the claim speaks of the global minimum, so that a verdict needs a certificate.
        recorded: the verdict known for the theorem as a whole.
        draw: a random problem, inside the hypotheses or not (see `_draw.Family`).
        most: bound on the instances of a run, where one of them takes long.
        about: what kind of model.
    """

    id: str
    source: str
    statement: str
    formula: str
    hypotheses: str
    inside: Callable[[Any], bool]
    claim: Claim
    minimum: bool = True
    recorded: Verdict = Verdict.HOLDS
    draw: Callable[[np.random.Generator], Any] | None = None
    most: int | None = None
    about: type = Linear

    def applies(self, problem: Any) -> bool:
        """Whether ``problem`` satisfies the hypotheses."""
        return isinstance(problem.model, self.about) and self.inside(problem)


@dataclass(frozen=True)
class Case:
    """A theorem on one problem, with the verdict recorded for it."""

    theorem: Theorem
    problem: Any
    recorded: Verdict
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        theorem: what was checked.
        problem: on what.
        quantities: predicted and measured, the headline first.
        gap: certified gap of the solution, or None where the claim is not about a minimum.
        verdict: what was found.
        recorded: the verdict on record, or None where there is none.
        reason: why, when it does not simply hold.
    """

    theorem: Theorem
    problem: Any
    quantities: Sequence[Quantity]
    gap: float | None
    verdict: Verdict
    recorded: Verdict | None
    reason: str = ""
    note: str = ""

    @property
    def worst(self) -> Quantity | None:
        """The quantity with the largest residual."""
        return max(self.quantities, key=lambda q: q.residual, default=None)

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the recorded one; where none is, a theorem on record as true must not fail."""
        if self.recorded is None:
            return self.verdict != Verdict.REFUTED or self.theorem.recorded == Verdict.REFUTED
        return self.verdict == self.recorded


def check(
    theorem: Theorem,
    problem: Any,
    evidence: Evidence | None = None,
    recorded: Verdict | None = None,
    note: str = "",
) -> Finding:
    """Judge a theorem on a problem.

    A claim about the global minimum *holds* when every quantity agrees at a certified minimiser. It is
    *refuted* when one disagrees at a certified minimiser, or when the solver found a value below the
    claimed minimum, which needs no certificate. Otherwise the run is inconclusive.

    Args:
        theorem: one of `ufm.atlas.THEOREMS`, or one's own.
        problem: of the theorem's kind; outside its hypotheses nothing is computed.
        evidence: what is measured of the problem, to share among theorems; computed if not given.
        recorded: the verdict to compare with (`Finding.as_recorded`).
        note: kept in the finding.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(4, 5, 2, loss=ufm.losses.BCE(), decay=ufm.Decay(5e-3, 1e-3, 0.5))
    >>> evidence, theorems = ufm.atlas.Evidence(problem), ufm.atlas.THEOREMS
    >>> [ufm.atlas.check(theorems[t], problem, evidence).verdict.value for t in ("li2025/2", "li2025/2-corrected")]
    ['refuted', 'holds']
    """
    finding = functools.partial(Finding, theorem, problem, recorded=recorded, note=note)
    if not theorem.applies(problem):
        return finding([], None, Verdict.OUTSIDE, reason=f"needs {theorem.hypotheses}")
    evidence = evidence or Evidence(problem)
    quantities = list(theorem.claim(problem, evidence))
    wrong = [q for q in quantities if q.residual > 1.0]
    named = ", ".join(f"{q.name} {q.measured:.6g} instead of {q.predicted:.6g}" for q in wrong[:3])
    if not theorem.minimum:
        return finding(quantities, None, Verdict.REFUTED if wrong else Verdict.HOLDS, reason=named)
    gap = evidence.gap
    if gap <= CERTIFIED * max(1.0, abs(evidence.value)):
        return finding(quantities, gap, Verdict.REFUTED if wrong else Verdict.HOLDS, reason=named)
    lower = [q for q in wrong if q.name == "minimum" and q.measured < q.predicted]
    if lower:
        return finding(quantities, gap, Verdict.REFUTED, reason=f"a point lies below the claimed minimum: {named}")
    return finding(
        quantities, gap, Verdict.INCONCLUSIVE, reason=f"certified gap {gap:.1e} only" + (f"; {named}" if wrong else "")
    )


@dataclass(frozen=True)
class Report:
    """Findings of a run of checks, and in ``meta`` what they were made with."""

    findings: Sequence[Finding]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every verdict is the recorded one."""
        return all(f.as_recorded for f in self.findings)

    @property
    def summary(self) -> str:
        """One line: how many verdicts of each kind, and how many differ from the record."""
        counts = {v: sum(f.verdict == v for f in self.findings) for v in Verdict}
        parts = [f"{n} {verdict}" for verdict, n in counts.items() if n]
        differing = sum(not f.as_recorded for f in self.findings)
        record = "all as recorded" if not differing else f"{differing} NOT as recorded"
        n = len(self.findings)
        return f"{n} check{'s' * (n != 1)}: {', '.join(parts)}; {record}"

    def __str__(self) -> str:
        lines = [f"{f.verdict:<20} {f.theorem.id:<24} {f.reason}".rstrip() for f in self.findings]
        return "\n".join([*lines, self.summary])

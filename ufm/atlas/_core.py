"""A theorem as an object: hypotheses as a value, a claim with numbers, a verdict with its evidence."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ufm import bias as biases
from ufm._base import float64_scope, require, widened
from ufm.atlas._near import distance_to_threshold
from ufm.atlas._quantity import Quantity as Quantity  # every paper takes both from here
from ufm.atlas._quantity import quantity as quantity
from ufm.atlas.hypotheses import Hypothesis
from ufm.metrics import Collapse, collapse, scores
from ufm.problem import Params, Problem, require_single
from ufm.proof.claims import Refutation
from ufm.solvers import Newton, Solution, Status, solve
from ufm.theory import Certificate, certify

CERTIFIED = 1e-10
"""A gap below this, relative to the value f and beyond its rounding, certifies a global minimizer."""
HIDDEN = 1e-6
"""Rounding relative to f, from which on a certificate is too blunt for claims whose own tolerance is 1e-6."""
SHARPEST = Newton(tol=1e-14)
"""A solve to the last digits: 40 units of rounding are the least tolerance that a solve may ask for."""
REPEATED = 0.1
"""Share of a disagreement that two solves may differ by for it to be the same one: theirs are errors of rounding."""


class Undecided(Exception):  # noqa: N818 - a verdict, not a mishap
    """Raised by a claim that cannot be judged on a problem; the message says why, and the verdict is inconclusive."""


class Verdict(enum.StrEnum):
    """What a check found."""

    HOLDS = "holds"
    REFUTED = "refuted"
    OUTSIDE = "outside hypotheses"
    INCONCLUSIVE = "inconclusive"


def free_solve(problem: Any, *arguments: Any, **options: Any) -> Solution:
    """`ufm.solve` as every theorem uses it: all features free, for none may be given the collapse that it claims."""
    return solve(problem, *arguments, eliminate=False, **options)


def converged(solution: Solution, what: str = "the solve") -> Solution:
    """``solution``, if its solve converged; a claim about critical points reads no other.

    Raises:
        Undecided: if it did not.
    """
    if int(solution.status) != Status.CONVERGED:
        raise Undecided(f"{what} did not converge: {solution.status_name}, residual {float(solution.residual):.1e}")
    return solution


class Evidence:
    """What is measured of one problem, each part computed when first asked for.

    The solution comes from the solvers and the certificate from duality; no closed form enters.
    """

    def __init__(self, problem: Any, seed: int = 0, starts: int = 1) -> None:
        self.problem, self.seed, self.starts = widened(problem), seed, starts

    @functools.cached_property
    def solution(self) -> Solution:
        """Best solution of the starts, in float64 whatever JAX's default."""
        with float64_scope():
            codes = self.problem.model.codes(self.problem)
            return free_solve(self.problem, self.seed, starts=self.starts, init=list(codes) or None)

    @property
    def critical(self) -> Solution:
        """The solution, for claims that hold at every critical point.

        Raises:
            Undecided: if the solve did not converge.
        """
        return converged(self.solution)

    def again(self) -> Evidence:
        """The evidence of another random start, solved to the last digits."""
        other = Evidence(self.problem, self.seed + 1)
        with float64_scope():
            codes = self.problem.model.codes(self.problem)
            other.solution = free_solve(
                self.problem, other.seed, SHARPEST, starts=self.starts, init=list(codes) or None
            )
        return other

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

    @property
    def rounding(self) -> float:
        """What rounding may add to the gap and to the value."""
        return float(self.certificate.rounding)

    @property
    def doubt(self) -> str:
        """Why the solution is not certified as a global minimizer; empty where it is."""
        if not self.gap <= CERTIFIED * abs(self.value) + self.rounding:
            return f"certified gap {self.gap:.1e} only, the value being {self.value:.1e}"
        if not self.rounding <= HIDDEN * abs(self.value):
            return f"rounding of {self.rounding:.1e} hides a value of {self.value:.1e}"
        return ""

    def certified(self, what: str) -> Evidence:
        """This evidence, if its solution is certified: for the second problem of a claim, ``what`` in words.

        Raises:
            Undecided: if it is not.
        """
        if self.doubt:
            raise Undecided(f"{what}: {self.doubt}")
        return self

    @functools.cached_property
    def samples(self) -> Params:
        """The solution with the feature of every sample (d, N), shared by the samples of a class or not."""
        x = self.solution.params
        if self.problem.features == "per_sample":
            return x
        return Params(x.W, np.repeat(np.asarray(x.H), self.problem.counts, axis=1), x.b)

    @functools.cached_property
    def collapse(self) -> Collapse:
        """Collapse metrics of the solution."""
        x = self.solution.params
        return collapse(*self.problem.model.head(x), self.problem.labels, x.b)

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
        hypotheses: what it asks of a problem, its model included (see `ufm.atlas.hypotheses`).
        case: which of its cases the theorem predicts for a problem; where that or `applies` changes is a threshold.
        claim: quantities predicted and measured; the first one is the headline.
        minimum: whether the claim speaks of the global minimum, so that a verdict needs a certificate. If not, the
            claim itself reads only what has converged (`Evidence.critical`).
        recorded: the verdict known for the theorem as a whole.
        draw: a random problem, inside the hypotheses or not (see `_draw.Family`).
        most: bound on the instances of a run, where one of them takes long.
        covers: what it speaks of beyond class labels: ``("targets",)`` for targets that are columns.
        refutation: what it claims of a problem, in a form that `ufm.proof` can refute.

    Raises:
        InputError: for hypotheses that are words or a bare function.
    """

    id: str
    source: str
    statement: str
    formula: str
    hypotheses: Hypothesis
    claim: Claim
    minimum: bool = True
    recorded: Verdict = Verdict.HOLDS
    draw: Callable[[np.random.Generator], Any] | None = None
    most: int | None = None
    case: Callable[[Any], Any] = lambda problem: None
    covers: tuple[str, ...] = ()
    refutation: Callable[[Any], Refutation] | None = None

    def __post_init__(self) -> None:
        given = type(self.hypotheses).__name__
        require(isinstance(self.hypotheses, Hypothesis), "hypotheses", given, "a Hypothesis of ufm.atlas.hypotheses")

    def applies(self, problem: Any) -> bool:
        """Whether ``problem`` satisfies the hypotheses."""
        return (problem.labeled or "targets" in self.covers) and self.hypotheses(problem)

    def fails(self, problem: Any) -> str:
        """Which hypothesis ``problem`` fails, with what it has; empty where it satisfies all."""
        if not problem.labeled and "targets" not in self.covers:
            return f"needs class labels, got {problem.targets.words}"
        return self.hypotheses.fails(problem)

    def too_near(self, problem: Any) -> str:
        """Which number of ``problem`` is too near a threshold of the theorem to tell, and how near; empty for none."""
        return distance_to_threshold(problem, lambda p: (inside := self.applies(p), self.case(p) if inside else None))


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
        certified: whether the solution is certified as a global minimizer.
    """

    theorem: Theorem
    problem: Any
    quantities: Sequence[Quantity]
    gap: float | None
    verdict: Verdict
    recorded: Verdict | None
    reason: str = ""
    note: str = ""
    certified: bool = False

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

    A claim about the global minimum *holds* when every quantity agrees at a certified minimizer. It is
    *refuted* when the minimum disagrees with the certified one, when another quantity disagrees at a certified
    minimizer and by the same number at that of another random start, or when the solver found a value below the
    claimed minimum, which needs no certificate. Otherwise the run is inconclusive, and so is one on a problem that
    lies too near a threshold of the theorem. Everything is computed in float64, whatever JAX's default.

    Args:
        theorem: one of `ufm.atlas.THEOREMS`, or one's own.
        problem: of the theorem's kind; outside its hypotheses nothing is computed.
        evidence: what is measured of the problem, to share among theorems; computed if not given.
        recorded: the verdict to compare with (`Finding.as_recorded`).
        note: kept in the finding.

    Raises:
        InputError: for what is no single problem, or a loss that breaks its promises.

    >>> import ufm
    >>> problem = ufm.Problem(4, 5, 2, loss=ufm.losses.BCE(), decay=ufm.Decay(5e-3, 1e-3, 0.5))
    >>> evidence, theorems = ufm.atlas.Evidence(problem), ufm.atlas.THEOREMS
    >>> [ufm.atlas.check(theorems[t], problem, evidence).verdict.value for t in ("li2025/2", "li2025/2-corrected")]
    ['refuted', 'holds']
    """
    require_one(problem)
    finding = functools.partial(Finding, theorem, problem, recorded=recorded, note=note)
    with float64_scope():
        problem = widened(problem)
        if outside := theorem.fails(problem):
            return finding([], None, Verdict.OUTSIDE, reason=outside)
        if near := theorem.too_near(problem):
            return finding([], None, Verdict.INCONCLUSIVE, reason=near)
        evidence = evidence or Evidence(problem)
        try:
            quantities, gap, verdict, reason = _judge(theorem, problem, evidence)
        except Undecided as undecided:
            return finding([], None, Verdict.INCONCLUSIVE, reason=str(undecided))
    return finding(quantities, gap, verdict, reason=reason, certified=gap is not None and not evidence.doubt)


def require_one(problem: Any) -> None:
    """Raise `InputError` unless ``problem`` is one problem, not a batch of them.

    >>> import numpy as np, ufm
    >>> ufm.verify(ufm.Problem(3, 4, 1, decay=ufm.Decay(np.array([0.1, 0.2]))))
    Traceback (most recent call last):
        ...
    ufm._base.InputError: decay.W.shape = (2,): must be that of one problem; for many at once use ufm.sweep
    """
    require(isinstance(problem, Problem), "problem", type(problem).__name__, "a ufm.Problem")
    require_single(problem)


def _judge(theorem: Theorem, problem: Any, evidence: Evidence) -> tuple[Sequence[Quantity], float | None, Verdict, str]:
    """Quantities, gap, verdict and reason of a theorem inside its hypotheses; see `check`."""
    problem.loss.check(problem.classes)
    quantities = list(theorem.claim(problem, evidence))
    wrong = [q for q in quantities if q.residual > 1.0]
    if not theorem.minimum:
        return quantities, None, Verdict.REFUTED if wrong else Verdict.HOLDS, _named(wrong)
    gap, doubt = evidence.gap, evidence.doubt
    if any(q.name == "minimum" and q.measured < q.predicted for q in wrong):
        below = "" if not doubt else "a point lies below the claimed minimum: "
        return quantities, gap, Verdict.REFUTED, below + _named(wrong)
    if doubt:
        return quantities, gap, Verdict.INCONCLUSIVE, doubt + (f"; {_named(wrong)}" if wrong else "")
    if not wrong or any(q.name == "minimum" for q in wrong):
        return quantities, gap, Verdict.REFUTED if wrong else Verdict.HOLDS, _named(wrong)
    # The gap certifies the value alone: in a flat direction the point may lie far from the minimizer all the same, by
    # an error that another solve does not repeat.
    other = evidence.again().certified("another solve")
    second = list(theorem.claim(problem, other))
    if all(q.residual <= 1.0 for q in second):
        return second, other.gap, Verdict.HOLDS, ""
    found = {q.name: q.measured for q in second}
    same = [q for q in wrong if abs(q.measured - found.get(q.name, np.inf)) <= REPEATED * abs(q.measured - q.predicted)]
    if same:
        return quantities, gap, Verdict.REFUTED, _named(same)
    return quantities, gap, Verdict.INCONCLUSIVE, f"a flat minimum: another solve does not repeat {_named(wrong)}"


def _named(wrong: Sequence[Quantity]) -> str:
    return ", ".join(f"{q.name} {q.measured:.6g} instead of {q.claimed}" for q in wrong[:3])


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

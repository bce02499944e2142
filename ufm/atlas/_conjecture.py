"""Refute your own claim: try it on random, boundary and adversarial problems, and shrink what refutes it.

It never says that a claim holds. A search that finds nothing says on how many certified problems it found nothing, and
which of them came nearest.
"""

from __future__ import annotations

import inspect
import itertools
import runpy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufm._base import InputError, require, require_whole
from ufm.atlas._claims import lowest
from ufm.atlas._core import Evidence, Finding, Theorem, Undecided, Verdict
from ufm.atlas._quantity import Quantity
from ufm.atlas._search import adversarial, as_family, plan, violation
from ufm.atlas._shrink import first_refuted, shrink
from ufm.atlas._trials import write_finding
from ufm.atlas.hypotheses import Hypothesis, anything
from ufm.problem import Problem
from ufm.statement import describe

NOT_A_VALUE = (ArithmeticError, ValueError, np.linalg.LinAlgError)
"""Errors of a formula that has no value on a problem, such as the logarithm of a negative number."""


@dataclass(frozen=True)
class Conjecture:
    """What a search for a counterexample found.

    Attributes:
        claim: what was tried, as a `Theorem`.
        finding: the shrunk counterexample with its numbers and certificate, or None.
        found: the counterexample as it was first met, or None.
        findings: of all problems tried before any shrinking.
        shrinking: how many more problems shrinking tried.
        seed: of problems and starts.
    """

    claim: Theorem
    finding: Finding | None
    found: Finding | None
    findings: Sequence[Finding]
    shrinking: int
    seed: int

    @property
    def counterexample(self) -> Problem | None:
        """The smallest problem found on which the claim is false."""
        return None if self.finding is None else self.finding.problem

    @property
    def tried(self) -> int:
        """Problems on which the claim was decided: certified ones, if it speaks of the minimum."""
        return sum(f.verdict in (Verdict.HOLDS, Verdict.REFUTED) for f in self.findings)

    @property
    def undecided(self) -> int:
        """Problems without a certificate, or too near a threshold."""
        return len(self.findings) - self.tried

    @property
    def nearest(self) -> Finding | None:
        """Of those on which the claim survived, the one with the largest residual."""
        return max((f for f in self.findings if f.verdict == Verdict.HOLDS), key=violation, default=None)

    @property
    def words(self) -> str:
        """The outcome in a few lines."""
        kind = "certified" if self.claim.minimum else "solved"
        if self.finding is not None:
            f = self.finding
            bound = "" if f.gap is None else f"\n  certified gap {f.gap:.1e}" if f.certified else ", which refutes"
            return f"{self.claim.id} is false on {describe(f.problem)}: {f.reason}{bound}\n  {f.problem!r}"
        why = next((f.reason for f in self.findings if f.verdict == Verdict.INCONCLUSIVE), "")
        beside = f", {self.undecided} more undecided ({why})" if self.undecided else ""
        line = f"{self.claim.id}: no counterexample in {self.tried} {kind} problems{beside}"
        if self.nearest is None or self.nearest.worst is None:
            return line
        q = self.nearest.worst
        where = f"the nearest was {describe(self.nearest.problem)} at distance {abs(q.measured - q.predicted):.1e}"
        return f"{line}; {where} in {q.name}, {q.residual:.1e} of its tolerance"

    def __str__(self) -> str:
        return self.words

    def save(self, path: str | Path) -> Path:
        """Write the counterexample as JSON, for `ufm.atlas.rerun` and ``ufm conjecture FILE.py --rerun``.

        Raises:
            InputError: where there is none, or its loss has no name.
        """
        if self.finding is None:
            raise InputError(f"counterexample = None: must be there to be saved ({self.words})")
        return write_finding(self.finding, Path(path), self.seed)


def conjecture(
    claim: Any,
    family: Any,
    budget: int = 96,
    seed: int = 0,
    hypotheses: Hypothesis = anything,
    progress: Callable[[int, int], None] | None = None,
) -> Conjecture:
    """Look for a problem on which a claim is false, and for the smallest one.

    Half of the budget goes to random problems and to those just inside the boundary of the hypotheses, over static
    shapes that cover all pairs of (classes, room, bias, balance, loss) as far as they go; the rest to adversarial
    ones: from the problem that came nearest, and from each shape in turn, steps in the logarithms of the decays that
    are kept where they increase the violation. A counterexample is then shrunk, to whatever the hypotheses allow: the
    family says where to begin, and what a claim needs stands in its hypotheses.

    Args:
        claim: ``problem -> value`` predicts the minimum; ``problem, evidence -> quantities`` whatever else (see
            `ufm.atlas.quantity`, `at_most`, `at_least` and `Evidence`); or a `Theorem`, with its own hypotheses.
        family: draws a problem from a NumPy generator, such as `ufm.atlas.Family`; or a loss, or several: `small`.
        budget: how many problems to try before shrinking.
        seed: of problems and starts.
        hypotheses: of ``claim``, where it is a function.
        progress: called with (done, budget).

    Raises:
        InputError: for what is no claim or no family, and where no problem drawn satisfies the hypotheses.

    >>> import ufm
    >>> from ufm.atlas.hypotheses import balanced, dim_at_least, no_bias, number
    >>> def squares(problem):    # forgets that there are n samples of each class, and is right for n = 1
    ...     mu = problem.classes * float(problem.decay.price)
    ...     return mu * (1 - mu / 4) if mu < 2 else 1.0
    >>> family = ufm.atlas.Family(lambda rng: ufm.losses.MSE(), ((2, 2, 3),), ("none",), (0.1, 0.5))
    >>> found = ufm.conjecture(squares, family, budget=4, hypotheses=balanced & no_bias & dim_at_least(0))
    >>> found.counterexample.classes, found.counterexample.dim, found.counterexample.per_class
    (2, 2, 2)
    """
    theorem = as_theorem(claim, hypotheses)
    require_whole("budget", budget, 1)
    require_whole("seed", seed, 0)
    family = as_family(family)
    rng = np.random.default_rng(seed)
    groups = plan(theorem, family, budget, rng)
    findings: list[Finding] = []

    def refuted(problems: Iterable[Problem], log: list[Finding]) -> Finding | None:
        found = first_refuted(theorem, filter(theorem.applies, problems), seed, log)
        if progress:
            progress(min(len(findings), budget), budget)
        return found

    found = refuted(itertools.chain(*groups), findings)
    steps = 0
    while found is None and len(findings) < budget and steps < budget:
        steps += 1
        found = refuted(adversarial(groups, findings, budget - len(findings), steps, rng), findings)
    if found is None:
        return Conjecture(theorem, None, None, findings, 0, seed)
    log: list[Finding] = []
    return Conjecture(theorem, shrink(found, lambda p: refuted(p, log)), found, findings, len(log), seed)


def as_theorem(claim: Any, hypotheses: Hypothesis = anything) -> Theorem:
    """A claim as `conjecture` takes it, as a `Theorem`.

    Raises:
        InputError: for what is neither a theorem nor a function of one or two arguments.
    """
    if isinstance(claim, Theorem):
        require(hypotheses is anything, "hypotheses", str(hypotheses), "absent where the claim is a Theorem")
        return claim
    allowed = "a Theorem, or a function of a problem, or of a problem and its evidence"
    require(callable(claim), "claim", claim, allowed)
    given = inspect.signature(claim).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    arguments = sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in given)
    require(arguments in (1, 2), "claim", claim, allowed)
    name = getattr(claim, "__name__", "claim").replace("<lambda>", "claim")

    def judged(problem: Any, evidence: Evidence) -> Sequence[Quantity]:
        try:
            said = claim(problem) if arguments == 1 else claim(problem, evidence)
        except InputError as error:
            raise Undecided(f"the claim is silent: {error}") from None
        except NOT_A_VALUE as error:
            raise Undecided(f"the claim has no value: {error}") from None
        except (Undecided, MemoryError):
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise InputError(
                f"claim = {name}: must have a value, not end in {said} (on {describe(problem)})"
            ) from error
        if arguments == 1:
            number = isinstance(said, (int, float)) or (hasattr(said, "dtype") and np.ndim(said) == 0)
            require(number, "claim", said, "a number: the minimum that is predicted")
            said = lowest(evidence, float(said))
        said = [said] if isinstance(said, Quantity) else said
        is_list = isinstance(said, (list, tuple)) and all(isinstance(q, Quantity) for q in said)
        require(is_list, "claim", said, "quantities, as of ufm.atlas.quantity")
        if not all(np.isfinite(q.predicted) for q in said):
            raise Undecided("the claim predicts no finite number")
        return list(said)

    return Theorem(name, "a conjecture", (inspect.getdoc(claim) or "").partition("\n")[0], "", hypotheses, judged)


def read_claim(path: str | Path) -> tuple[Theorem, Any]:
    """The ``claim`` and ``family`` that a Python file defines, with its ``hypotheses`` if it has any.

    Raises:
        InputError: if the file does not run, or lacks one of them.

    >>> import pathlib, tempfile, ufm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "mine.py"
    ...     _ = path.write_text("import ufm; family = ufm.losses.CE(); claim = lambda problem: 0.0")
    ...     theorem, family = ufm.atlas.read_claim(path)
    >>> theorem.id, family
    ('claim', CE())
    """
    try:
        names = runpy.run_path(str(path), run_name="conjecture")
    except InputError as error:
        raise InputError(f"file = {str(path)!r}: {error}") from None
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        raise InputError(f"file = {str(path)!r}: must run, not end in {type(error).__name__}: {said}") from None
    for name in ("claim", "family"):
        require(name in names, "file", str(path), f"one that defines {name}")
    return as_theorem(names["claim"], names.get("hypotheses", anything)), names["family"]

"""Each theorem on many random problems: the run behind ``ufm verify --instances``."""

from __future__ import annotations

import collections
import dataclasses
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ufm._base import InputError, require, require_whole
from ufm._parallel import in_parallel
from ufm.atlas._core import Evidence, Finding, Theorem, Verdict, check
from ufm.atlas._draw import Family, draw, structure_of
from ufm.atlas.hypotheses import anything
from ufm.statement import from_data, known_keys, to_data

RETRIES = 6
"""Random starts of a second attempt, where the first solution was not certified."""
SAVED = ("theorem", "problem", "seed", "verdict", "gap", "reason", "quantities")
"""Keys of a saved counterexample."""


@dataclass(frozen=True)
class Trial:
    """One theorem on random instances.

    Attributes:
        theorem: what was tried.
        findings: those inside the hypotheses, boundary included.
        boundary: how many of them lie just inside the boundary.
        outside: how many lie outside.
        broken: on how many of those the claim is false: what the hypotheses are good for.
    """

    theorem: Theorem
    findings: Sequence[Finding]
    boundary: int
    outside: int
    broken: int

    @property
    def verdict(self) -> Verdict:
        """Refuted by one counterexample, else inconclusive for one undecided instance, else it holds."""
        found = {f.verdict for f in self.findings}
        if Verdict.REFUTED in found:
            return Verdict.REFUTED
        return Verdict.HOLDS if found == {Verdict.HOLDS} else Verdict.INCONCLUSIVE

    @property
    def undecided(self) -> int:
        """Instances without a certificate."""
        return sum(f.verdict == Verdict.INCONCLUSIVE for f in self.findings)

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the one on record."""
        return self.verdict == self.theorem.recorded

    @property
    def residual(self) -> float:
        """Worst residual of the instances that hold, in units of the tolerance."""
        kept = [f.worst.residual for f in self.findings if f.verdict == Verdict.HOLDS and f.worst is not None]
        return max(kept, default=0.0)

    @property
    def gap(self) -> float | None:
        """Worst certified gap of the instances that hold; None for a claim that is not about a minimum."""
        kept = [f.gap for f in self.findings if f.verdict == Verdict.HOLDS and f.gap is not None]
        return max(kept, default=None)

    @property
    def counterexample(self) -> Finding | None:
        """The refuted instance of least size, and among those the plainest."""
        refuted = [f for f in self.findings if f.verdict == Verdict.REFUTED]
        return min(refuted, key=_size, default=None)


def _size(finding: Finding) -> tuple[int, int, int, float]:
    problem, worst = finding.problem, finding.worst
    return problem.classes, problem.dim, problem.samples, -(worst.residual if worst else 0.0)


@dataclass(frozen=True)
class Trials:
    """All theorems of a run, and in ``meta`` what they were made with."""

    trials: Sequence[Trial]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every verdict is the recorded one."""
        return all(t.as_recorded for t in self.trials)

    @property
    def summary(self) -> str:
        """One line: verdicts, instances, and how many differ from the record."""
        counts = collections.Counter(t.verdict for t in self.trials)
        differing = sum(not t.as_recorded for t in self.trials)
        record = "all as recorded" if not differing else f"{differing} NOT as recorded"
        verdicts = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        instances = sum(len(t.findings) for t in self.trials)
        n = len(self.trials)
        return f"{n} theorem{'s' * (n != 1)} on {instances} instances: {verdicts}; {record}"


def run_trials(
    theorems: Iterable[Theorem],
    instances: int = 200,
    *,
    seed: int = 0,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Trial]:
    """Try each theorem on ``instances`` random problems inside its hypotheses, and on some outside.

    Args:
        theorems: those without a way to draw problems are left out.
        instances: for each; a theorem may ask for fewer (`Theorem.most`).
        seed: of problems and starts.
        quick: one static shape for each theorem.
        progress: called with (done, total).
    """
    require(isinstance(instances, (int, np.integer)) and instances >= 1, "instances", instances, "a whole number >= 1")
    chosen = [t for t in theorems if t.draw is not None]
    # One task for all the problems that share a compiled program.
    tasks: dict[Any, list[tuple[int, str, Any]]] = {}
    for i, theorem in enumerate(chosen):
        family = theorem.draw.quick() if quick and isinstance(theorem.draw, Family) else theorem.draw
        rng = np.random.default_rng([seed, zlib.crc32(theorem.id.encode())])

        def decidable(problem: Any, theorem: Theorem = theorem) -> bool:
            return theorem.applies(problem) and not theorem.too_near(problem)

        found = draw(family, decidable, min(instances, theorem.most or instances), rng)  # type: ignore[arg-type]
        for kind in ("inside", "boundary", "outside"):
            for problem in getattr(found, kind):
                tasks.setdefault(structure_of(problem), []).append((i, kind, problem))
    total, done = sum(map(len, tasks.values())), 0
    outcomes: dict[tuple[int, str], list[Finding]] = collections.defaultdict(list)

    def work(task: list[tuple[int, str, Any]]) -> None:
        nonlocal done
        for i, kind, problem in task:
            outcomes[i, kind].append(try_once(chosen[i], problem, seed, outside=kind == "outside"))
            done += 1
            if progress:
                progress(done, total)

    in_parallel(work, sorted(tasks.values(), key=len, reverse=True))
    return [
        Trial(
            theorem,
            outcomes[i, "inside"] + outcomes[i, "boundary"],
            len(outcomes[i, "boundary"]),
            len(outcomes[i, "outside"]),
            sum(f.verdict != Verdict.HOLDS for f in outcomes[i, "outside"]),
        )
        for i, theorem in enumerate(chosen)
    ]


def try_once(theorem: Theorem, problem: Any, seed: int = 0, *, outside: bool = False) -> Finding:
    """One check, with more starts where the first one is not certified.

    ``outside`` judges the claim although the hypotheses fail; where its formula has no value there
    (the logarithm of a negative number), it is false.
    """
    if not outside:
        finding = check(theorem, problem, Evidence(problem, seed))
        if finding.verdict == Verdict.INCONCLUSIVE:
            finding = check(theorem, problem, Evidence(problem, seed, RETRIES))
        return finding
    try:
        with np.errstate(all="ignore"):
            return check(dataclasses.replace(theorem, hypotheses=anything), problem, Evidence(problem, seed))
    except (ValueError, ZeroDivisionError, FloatingPointError, np.linalg.LinAlgError) as error:
        return Finding(theorem, problem, [], None, Verdict.REFUTED, None, f"the formula has no value: {error}")


def save_counterexample(finding: Finding, folder: Path, seed: int) -> Path:
    """Write a refuted instance as JSON; `rerun` reads it.

    Args:
        finding: of a problem with a loss of `ufm.losses` that has a name.
        folder: made if it is not there.
        seed: of the random start, to be used again.

    Returns:
        The path of the file, named after the theorem.

    >>> import json, pathlib, tempfile, ufm
    >>> theorem = ufm.atlas.THEOREMS["zhou2022/contrastive-focal"]
    >>> finding = ufm.atlas.check(theorem, ufm.Problem(40, 40, 1, loss=ufm.losses.Focal(2.0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = ufm.atlas.save_counterexample(finding, pathlib.Path(folder), seed=0)
    ...     path.name, json.loads(path.read_text())["verdict"]
    ('zhou2022-contrastive-focal.json', 'refuted')
    """
    folder.mkdir(parents=True, exist_ok=True)
    return write_finding(finding, folder / f"{finding.theorem.id.replace('/', '-')}.json", seed)


def write_finding(finding: Finding, path: Path, seed: int) -> Path:
    """Write an instance as JSON that `rerun` reads, to ``path``, which is returned."""
    content = {
        "theorem": finding.theorem.id,
        "problem": to_data(finding.problem),
        "seed": seed,
        "verdict": finding.verdict,
        "gap": finding.gap,
        "reason": finding.reason,
        "quantities": [vars(q) for q in finding.quantities],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def rerun(path: str | Path, theorems: dict[str, Theorem]) -> Finding:
    """Check a saved instance again; its ``recorded`` verdict is the saved one.

    Args:
        path: of the file that `save_counterexample` wrote.
        theorems: by id, such as `ufm.atlas.THEOREMS`.

    Raises:
        InputError: if the file does not hold one.

    >>> import pathlib, tempfile, ufm
    >>> theorem = ufm.atlas.THEOREMS["zhou2022/contrastive-focal"]
    >>> finding = ufm.atlas.check(theorem, ufm.Problem(40, 40, 1, loss=ufm.losses.Focal(2.0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = ufm.atlas.save_counterexample(finding, pathlib.Path(folder), seed=0)
    ...     again = ufm.atlas.rerun(path, ufm.atlas.THEOREMS)
    >>> again.verdict.value, again.as_recorded
    ('refuted', True)
    """
    try:
        saved = json.loads(Path(path).read_bytes())
        if isinstance(saved, dict):
            known_keys(saved, SAVED, "key of a saved counterexample")
        require_whole("seed", saved["seed"], 0)
        theorem, problem, seed = theorems[saved["theorem"]], from_data(saved["problem"]), saved["seed"]
        recorded = Verdict(saved["verdict"])
    except InputError as error:
        raise InputError(f"rerun = {str(path)!r}: {error}") from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"rerun = {str(path)!r}: must be a counterexample saved by ufm verify ({reason})") from None
    return dataclasses.replace(try_once(theorem, problem, seed), recorded=recorded)

"""What a report says: the parts of its pages, and the files to check each line again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ufm.atlas import CERTIFIED, Finding, Report, Trials, save_counterexample
from ufm.report.notation import CHECKED, SYMBOLS, TRIED
from ufm.report.page import Page
from ufm.report.tables import COLUMNS, TRIAL_COLUMNS, rows, trial_rows
from ufm.statement import describe, stated


def write(found: Report, folder: str | Path) -> Path:
    """Write ``report.html``, ``report.md``, its figures, and in ``specs/`` a file to check each line again.

    Args:
        found: what `ufm.verify` returned.
        folder: made where it does not exist; files of an earlier report are replaced.

    Returns:
        The path of the page.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import tempfile, ufm, ufm.report
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = ufm.report.write(ufm.verify(problem, theorem="rediscovering/naive"), folder).read_text()
    >>> "ufm verify --rerun specs/01-rediscovering-naive.json" in page
    True
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    seed = int(found.meta.get("seed", 0))
    again = [_spec(f, i, folder, seed) for i, f in enumerate(found.findings, 1)]
    parts = [
        _part(i, f, line, reads=_reads(f, found.findings))
        for i, (f, line) in enumerate(zip(found.findings, again, strict=True), 1)
    ]
    page = Page(
        "Theorems, checked", found.summary, found.meta, COLUMNS, rows(found), _figures(found), parts, SYMBOLS | CHECKED
    )
    return page.save(folder)


def write_trials(found: Trials, saved: dict[str, str], folder: str | Path) -> Path:
    """The same for a run over random problems.

    Args:
        found: what `ufm.atlas.verify_random` returned.
        saved: the file of each theorem's counterexample in ``folder`` (`ufm.atlas.save_counterexample`), by id.
        folder: made where it does not exist.

    Returns:
        The path of the page.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import tempfile, ufm, ufm.report
    >>> found = ufm.atlas.verify_random(2, theorem="rediscovering/naive")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = ufm.report.write_trials(found, {}, folder).read_text()
    >>> "1 theorem on" in page, "worst residual / tolerance" in page
    (True, True)
    """
    from ufm.plotting.verdicts import bounded

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for i, t in enumerate(found.trials, 1):
        if t.counterexample is not None and t.theorem.id in saved:
            line = f"ufm verify --rerun {shlex.quote(Path(saved[t.theorem.id]).name)}"
            parts.append(_part(i, t.counterexample, line, "Smallest counterexample"))
    names, verdicts = [t.theorem.id for t in found.trials], [str(t.verdict) for t in found.trials]
    label = "worst residual / tolerance where it holds"
    alt = "One line per theorem: the worst residual among the instances where it holds, all left of 1, the tolerance."
    figures = [(bounded(names, [t.residual for t in found.trials], verdicts, 1.0, label), alt)]
    table, notation = trial_rows(found), SYMBOLS | CHECKED | TRIED
    page = Page(
        "Theorems on random problems", found.summary, found.meta, TRIAL_COLUMNS, table, figures, parts, notation
    )
    return page.save(folder)


def _spec(finding: Finding, number: int, folder: Path, seed: int) -> str:
    """Save what `ufm verify --rerun` reads, and say how to call it in ``folder``."""
    if not stated(finding.problem):
        return "(a loss of your own: state the problem in Python)"
    path = save_counterexample(finding, folder / "specs", seed)
    path = path.rename(path.with_name(f"{number:02d}-{path.name}"))
    return f"ufm verify --rerun {path.relative_to(folder)}"


def _reads(finding: Finding, findings: Sequence[Finding]) -> bool:
    """Whether a part is open at first: what went wrong, and what holds in place of a refuted claim.

    A correction's name begins with that of what it corrects, or the other way round, in every paper of the atlas.
    """
    if finding.verdict in ("refuted", "inconclusive") or not finding.as_recorded:
        return True
    if finding.verdict != "holds":
        return False
    name, problem = finding.theorem.id, describe(finding.problem)
    refuted = [f.theorem.id for f in findings if f.verdict == "refuted" and describe(f.problem) == problem]
    return any(name.startswith(other) or other.startswith(name) for other in refuted)


def _part(number: int, finding: Finding, again: str, lead: str = "", reads: bool = True) -> dict[str, Any]:
    """One check in full: what the page and the Markdown both say; ``reads`` opens it."""
    f, theorem = finding, finding.theorem
    if f.gap is None:
        certificate = "none needed: the claim does not speak of the global minimum" if f.quantities else ""
    else:
        certificate = f"gap {f.gap:.1e} to a lower bound over every (W, H, b)" + ("" if f.certified else "; not tight")
        for q in f.quantities:
            if q.name == "minimum":
                certificate += f"; value {q.measured:.12g}, lower bound {q.measured - f.gap:.12g}"
    facts = {
        lead or "Problem": describe(f.problem) + (f"  [{f.note}]" if f.note else ""),
        "Claim": theorem.statement,
        "Formula": theorem.formula,
        "Hypotheses": str(theorem.hypotheses),
        "Certificate": certificate,
        "Why": f.reason,
        "Again": again,
    }
    numbers = [
        [q.name, f"{q.predicted:.10g}", f"{q.measured:.10g}", f"{q.tolerance:.0e}", f"{q.residual:.1e}"]
        for q in f.quantities
    ]
    verdict = f"{f.verdict}" + ("" if f.as_recorded else f", recorded: {f.recorded or theorem.recorded}")
    return {
        "title": f"{number}. {theorem.id} ({theorem.source}): {verdict}",
        "open": reads,
        "facts": {k: v for k, v in facts.items() if v},
        "numbers": numbers,
    }


def _figures(found: Report) -> list[tuple[Any, str]]:
    from ufm.plotting.verdicts import agreement, bounded

    judged = [(i, f) for i, f in enumerate(found.findings, 1) if f.worst is not None]
    if not judged:
        return []
    names, verdicts = [f"{i}. {f.theorem.id}" for i, f in judged], [str(f.verdict) for _, f in judged]
    residuals = [f.worst.residual for _, f in judged if f.worst is not None]
    figures = [
        (
            bounded(names, residuals, verdicts, 1.0, "worst |measured - predicted| / tolerance"),
            "One line per check: its worst residual in units of the tolerance. "
            + f"{sum(r <= 1 for r in residuals)} of {len(residuals)} checks lie within it.",
        )
    ]
    points = [(q.predicted, q.measured, str(f.verdict)) for _, f in judged for q in f.quantities]
    points = [p for p in points if np.isfinite(p[0]) and np.isfinite(p[1])]
    if points:
        alt = f"{len(points)} measured quantities against their predictions, with the line of equality on top."
        figures.append((agreement(*zip(*points, strict=True)), alt))  # type: ignore[arg-type]
    if any(f.gap is not None for _, f in judged):
        gaps = [None if f.gap is None else max(f.gap, 1e-17) for _, f in judged]
        worst = max(g for g in gaps if g is not None)
        alt = f"One line per check: the certified gap of its solution, at most {worst:.0e}; line at {CERTIFIED:.0e}."
        if None in gaps:
            alt += " No dot: the claim does not speak of the global minimum and needs no certificate."
        figures.append((bounded(names, gaps, verdicts, CERTIFIED, "certified gap to the global minimum"), alt))
    return figures

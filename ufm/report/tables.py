"""Findings as rows of text: what the command prints, and both kinds of page show."""

from __future__ import annotations

from collections.abc import Sequence

from ufm.atlas import Report, Trials
from ufm.statement import describe

COLUMNS = [
    "theorem",
    "source",
    "problem (decays W, H, b)",
    "quantity",
    "predicted",
    "measured",
    "certified gap",
    "verdict",
]
TRIAL_COLUMNS = [
    "theorem",
    "source",
    "inside",
    "at boundary",
    "outside: claim false",
    "undecided",
    "worst residual / tolerance",
    "worst gap",
    "verdict",
]
QUANTITIES = ["quantity", "predicted", "measured", "tolerance", "residual / tolerance"]


def rows(report: Report) -> list[list[str]]:
    """The findings as rows of `COLUMNS`: the headline, or the worst quantity where one disagrees."""
    found = []
    for f in report.findings:
        headline = f.worst if f.worst is not None and f.worst.residual > 1 else next(iter(f.quantities), None)
        numbers = ["", "", ""]
        if headline is not None:
            numbers = [headline.name, f"{headline.predicted:.10g}", f"{headline.measured:.10g}"]
        gap = "" if f.gap is None else f"{f.gap:.0e}"
        mark = "" if f.as_recorded else f"  (recorded: {f.recorded or f.theorem.recorded})"
        found.append([f.theorem.id, f.theorem.source, describe(f.problem), *numbers, gap, f.verdict + mark])
    return found


def trial_rows(found: Trials) -> list[list[str]]:
    """The trials as rows of `TRIAL_COLUMNS`."""
    rows = []
    for t in found.trials:
        gap = "" if t.gap is None else f"{t.gap:.0e}"
        mark = "" if t.as_recorded else f"  (recorded: {t.theorem.recorded})"
        numbers = [str(len(t.findings)), str(t.boundary), f"{t.outside}: {t.broken}" if t.outside else "", ""]
        numbers[-1] = str(t.undecided) if t.undecided else ""
        rows.append([t.theorem.id, t.theorem.source, *numbers, f"{t.residual:.0e}", gap, t.verdict + mark])
    return rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows]


def escaped(text: str) -> str:
    """A cell or heading of Markdown that says what it says."""
    return text.replace("<", "&lt;").replace("|", "\\|")

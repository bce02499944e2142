"""``ufm verify``: the theorems, checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ufm.cli._common import (
    JSON_OPTION,
    PROBLEM_OPTIONS,
    options,
    plain,
    print_json,
    problem_from,
    problem_json,
    progress_bar,
    table,
    use_jax,
)

VERIFY_OPTIONS = [
    click.option("--paper", help="only the theorems of one paper: zhu2021, zhou2022, mse, li2025, binary"),
    click.option("--theorem", help="only one theorem, by its id in `ufm atlas`"),
    click.option("--seed", type=int, default=0, show_default=True, help="of the random starts"),
    click.option("--starts", type=int, default=1, show_default=True, help="random starts per problem"),
    click.option(
        "--report", type=click.Path(file_okay=False), metavar="DIR", help="write report.md and report.json there"
    ),
]


@click.command("verify")
@options(PROBLEM_OPTIONS, VERIFY_OPTIONS, [JSON_OPTION])
@click.pass_context
def command(
    context: click.Context,
    /,
    paper: str | None,
    theorem: str | None,
    seed: int,
    starts: int,
    report: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Check the theorems: a standard suite, or all that speak of the problem given by options.

    Exit status 1 if a verdict differs from the one on record.
    """
    use_jax()
    from ufm.atlas import verify

    stated = any(context.get_parameter_source(name) == ParameterSource.COMMANDLINE for name in given)
    problem = problem_from(given) if stated else None
    with progress_bar("verify", None, "check") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = verify(problem, paper=paper, theorem=theorem, seed=seed, starts=starts, progress=progress)
    if report is not None:
        write(found, Path(report))
    if as_json:
        print_json(report_json(found))
    else:
        show(found)
    return 0 if found.ok else 1


def finding_json(finding: Any) -> dict[str, Any]:
    """One finding as JSON."""
    return {
        "theorem": finding.theorem.id,
        "source": finding.theorem.source,
        "statement": finding.theorem.statement,
        "problem": problem_json(finding.problem),
        "note": finding.note,
        "quantities": [{**vars(q), "residual": q.residual} for q in finding.quantities],
        "gap": finding.gap,
        "verdict": finding.verdict,
        "recorded": finding.recorded,
        "as_recorded": finding.as_recorded,
        "reason": finding.reason,
    }


def report_json(report: Any) -> dict[str, Any]:
    """A report as JSON."""
    return {
        "ok": report.ok,
        "summary": report.summary,
        "meta": report.meta,
        "findings": [finding_json(f) for f in report.findings],
    }


def _problem_text(problem: Any) -> str:
    d = problem.decay
    bias = {"per_class": "", "unified": ", unified b", "none": ", no b"}[problem.bias]
    return (
        f"{problem.loss} K={problem.classes} d={problem.dim} n={problem.per_class}"
        f" ({float(d.W):g}, {float(d.H):g}, {float(d.b):g}){bias}"
    )


COLUMNS = ["theorem", "source", "problem (decays W, H, b)", "quantity", "predicted", "measured", "gap", "verdict"]


def rows(report: Any) -> list[list[str]]:
    """The findings as rows of `COLUMNS`: the headline, or the worst quantity where one disagrees."""
    found = []
    for f in report.findings:
        headline = f.worst if f.worst is not None and f.worst.residual > 1 else (f.quantities or [None])[0]
        numbers = ["", "", ""]
        if headline is not None:
            numbers = [headline.name, f"{headline.predicted:.10g}", f"{headline.measured:.10g}"]
        gap = "" if f.gap is None else f"{f.gap:.0e}"
        mark = "" if f.as_recorded else f"  (recorded: {f.recorded or f.theorem.recorded})"
        found.append([f.theorem.id, f.theorem.source, _problem_text(f.problem), *numbers, gap, f.verdict + mark])
    return found


def show(report: Any) -> None:
    """Table, the reasons of whatever does not simply hold, and the summary."""
    table("", COLUMNS, rows(report))
    for f in report.findings:
        if f.verdict == "inconclusive" or not f.as_recorded or (f.verdict == "refuted" and f.recorded is not None):
            click.echo(f"{f.theorem.id} {f.verdict} on {_problem_text(f.problem)}: {f.reason}")
    click.echo(report.summary)


def write(report: Any, folder: Path) -> None:
    """``report.md`` and ``report.json`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(plain(report_json(report)), indent=2) + "\n")
    lines = ["# Theorems, checked", "", report.summary, ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows(report)]
    lines += ["", "Made with " + ", ".join(f"{k} {v}" for k, v in report.meta.items()) + ".", ""]
    (folder / "report.md").write_text("\n".join(lines))

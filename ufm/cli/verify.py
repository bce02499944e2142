"""``ufm verify``: the theorems, checked."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ufm.cli._common import (
    JSON_OPTION,
    PROBLEM_OPTIONS,
    options,
    plain,
    print_json,
    problem_from,
    problem_json,
    progress_bar,
    stated_options,
    table,
    use_jax,
)

QUICK = 12
"""Random problems for each theorem where a user names no number."""


def theorems(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """What a shell completes; the atlas is loaded for it, which takes a second."""
    from ufm.atlas import THEOREMS

    return [name for name in THEOREMS if name.startswith(typed)]


def papers(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """The first halves of the names of theorems."""
    return sorted({name.split("/")[0] for name in theorems(context, parameter, typed)})


VERIFY_OPTIONS = [
    click.option("--paper", shell_complete=papers, help="only the theorems of one paper, by its name in `ufm atlas`"),
    click.option("--theorem", shell_complete=theorems, help="only one theorem, by its id in `ufm atlas`"),
    click.option("--seed", type=int, default=0, show_default=True, help="of the random starts"),
    click.option("--starts", type=int, default=1, show_default=True, help="random starts per problem"),
    click.option("--instances", type=int, metavar="N", help="try each theorem on N random problems instead"),
    click.option(
        "--quick", is_flag=True, help=f"fewer problems and sizes: --instances {QUICK}, one size for each theorem"
    ),
    click.option(
        "--rerun",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="check a saved line again: a file of DIR/specs",
    ),
    click.option(
        "--report",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="write report.html, report.md and report.json there, and what --rerun reads",
    ),
    click.option(
        "--prove",
        "to_prove",
        is_flag=True,
        help="prove in ball arithmetic what is refuted, without rounding; with --report DIR into DIR/proofs",
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
    instances: int | None,
    quick: bool,
    rerun: str | None,
    report: str | None,
    to_prove: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Check the theorems: a standard suite, all that speak of the problem given by options, or random problems.

    Exit status 1 if a verdict differs from the one on record.
    """
    stated = stated_options(context, given)
    use_jax(many_programs=not stated)
    from ufm.atlas import THEOREMS, Report, standard_suite, verify
    from ufm.atlas import rerun as check_again

    if to_prove:
        if instances is not None or quick or rerun:
            raise click.UsageError(
                "--prove takes the standard suite or a stated problem: leave out --instances, --quick and --rerun"
            )
        import ufm.proof.balls  # noqa: F401 - before any work: it says so where python-flint is not installed
    if instances is not None or quick:
        if stated or starts != 1 or rerun:
            raise click.UsageError("--instances and --quick draw their own problems: no problem, --starts or --rerun")
        return verify_random_command(
            QUICK if instances is None else instances, quick, paper, theorem, seed, report, as_json
        )
    if rerun is not None:
        if stated or paper or theorem or report or starts != 1:
            raise click.UsageError("--rerun FILE holds its own problem and theorem: give it alone, or with --json")
        return answer(Report([check_again(rerun, THEOREMS)]), as_json)
    problem = problem_from(given) if stated else None
    if problem is None:
        covered = {case.theorem.id for case in standard_suite()}
        chosen = {t for t in THEOREMS if paper in (None, t.split("/")[0]) and theorem in (None, t)}
        if chosen and not chosen & covered:
            return verify_random_command(QUICK, False, paper, theorem, seed, report, as_json)
        if (paper or theorem) and chosen - covered:
            missing = ", ".join(sorted(chosen - covered))
            click.echo(f"not in the standard suite, see --instances: {missing}", err=True)
    with progress_bar("verify", "check") as advance:
        found = verify(problem, paper=paper, theorem=theorem, seed=seed, starts=starts, progress=advance)
    found.meta["command"] = shlex.join(["ufm", *sys.argv[1:]])
    if report is not None:
        from ufm.report import write

        save_json(report_json(found), report)
        click.echo(f"report: {write(found, report)}", err=True)
    proofs = proofs_of(found, report) if to_prove else {}
    if as_json and to_prove:
        print_json({**report_json(found), "proofs": list(proofs.values())})
        return 0 if found.ok else 1
    status = answer(found, as_json)
    for proof in proofs.values():
        click.echo(f"{proof['theorem']}: " + (f"proved: {proof['proved']}" if proof["proved"] else proof["reason"]))
    return status


def proofs_of(report: Any, folder: str | None) -> dict[int, dict[str, Any]]:
    """For each refuted finding that `ufm.proof` can refute: what is proved, or why it is not."""
    from ufm.atlas import refute
    from ufm.proof.balls import Unproved

    found: dict[int, dict[str, Any]] = {}
    for i, f in enumerate(report.findings):
        if f.verdict == "refuted" and f.theorem.refutation is not None:
            entry: dict[str, Any] = {"theorem": f.theorem.id, "proved": None, "reason": "", "file": None}
            try:
                proof = refute(f.theorem, f.problem)
                entry["proved"] = (
                    f"false, by {(proof.document or {})['refutes']['by']}; {proof.lower} < f* < {proof.upper}"
                )
                if folder is not None:
                    place = Path(folder) / "proofs"
                    place.mkdir(parents=True, exist_ok=True)
                    entry["file"] = str(proof.save(place / f"{f.theorem.id.replace('/', '-')}-{i}.json"))
            except Unproved as unproved:
                entry["reason"] = f"not proved: {unproved}"
            found[i] = entry
    return found


def answer(found: Any, as_json: bool) -> int:
    """Print the report; the exit status says whether every verdict is the recorded one."""
    if as_json:
        print_json(report_json(found))
    else:
        show(found)
    return 0 if found.ok else 1


def verify_random_command(
    instances: int, quick: bool, paper: str | None, theorem: str | None, seed: int, folder: str | None, as_json: bool
) -> int:
    """The run over random problems, its table and its files."""
    from ufm.atlas import save_counterexample, verify_random
    from ufm.report import write_trials
    from ufm.report.tables import TRIAL_COLUMNS, trial_rows
    from ufm.statement import describe

    with progress_bar("verify", "instance") as advance:
        found = verify_random(instances, paper=paper, theorem=theorem, seed=seed, quick=quick, progress=advance)
    found.meta["command"] = shlex.join(["ufm", *sys.argv[1:]])
    saved: dict[str, str] = {}
    if folder is not None:
        for trial in found.trials:
            if trial.counterexample is not None:
                saved[trial.theorem.id] = str(save_counterexample(trial.counterexample, Path(folder), seed))
        save_json(trials_json(found, saved), folder)
        click.echo(f"report: {write_trials(found, saved, folder)}", err=True)
    if as_json:
        print_json(trials_json(found, saved))
    else:
        table("", TRIAL_COLUMNS, trial_rows(found))
        for trial in found.trials:
            shown = trial.counterexample or next((f for f in trial.findings if f.verdict == "inconclusive"), None)
            if shown is not None:
                click.echo(f"{trial.theorem.id} {shown.verdict} on {describe(shown.problem)}: {shown.reason}")
            if trial.theorem.id in saved:
                click.echo(f"  again: ufm verify --rerun {saved[trial.theorem.id]}")
        click.echo(found.summary)
    return 0 if found.ok else 1


def save_json(content: dict[str, Any], folder: str) -> None:
    """``report.json`` in ``folder``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "report.json").write_text(json.dumps(plain(content), indent=2) + "\n")


def trials_json(found: Any, saved: dict[str, str]) -> dict[str, Any]:
    """A run over random problems as JSON."""
    return {
        "ok": found.ok,
        "summary": found.summary,
        "meta": found.meta,
        "theorems": [
            {
                "theorem": t.theorem.id,
                "source": t.theorem.source,
                "inside": len(t.findings),
                "boundary": t.boundary,
                "outside": t.outside,
                "outside_false": t.broken,
                "undecided": t.undecided,
                "worst_residual": t.residual,
                "worst_gap": t.gap,
                "verdict": t.verdict,
                "recorded": t.theorem.recorded,
                "as_recorded": t.as_recorded,
                "counterexample": None if t.counterexample is None else finding_json(t.counterexample),
                "saved": saved.get(t.theorem.id),
            }
            for t in found.trials
        ],
    }


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


def show(report: Any) -> None:
    """Table, the reasons of whatever does not simply hold, and the summary."""
    from ufm.report.tables import COLUMNS, rows
    from ufm.statement import describe

    table("", [name.removeprefix("certified ") for name in COLUMNS], rows(report))  # a terminal is narrow
    for f in report.findings:
        if f.verdict == "inconclusive" or not f.as_recorded or (f.verdict == "refuted" and f.recorded is not None):
            click.echo(f"{f.theorem.id} {f.verdict} on {describe(f.problem)}: {f.reason}")
    click.echo(report.summary)

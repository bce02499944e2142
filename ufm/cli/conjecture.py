"""``ufm conjecture``: look for a counterexample to a claim of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from ufm.cli._common import JSON_OPTION, options, print_json, problem_json, progress_bar, use_jax


@click.command("conjecture")
@click.argument("file", type=click.Path(exists=True, dir_okay=False), metavar="FILE.py")
@click.option("--budget", type=click.IntRange(1), default=96, show_default=True, help="problems before shrinking")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of problems and random starts")
@click.option("--out", type=click.Path(dir_okay=False), metavar="JSON", help="write the counterexample there")
@click.option(
    "--rerun",
    type=click.Path(exists=True, dir_okay=False),
    metavar="JSON",
    help="check a counterexample that was written with --out again",
)
@options([JSON_OPTION])
def command(file: str, budget: int, seed: int, out: str | None, rerun: str | None, as_json: bool) -> int:
    """Try a claim on random, boundary and adversarial problems, and shrink the counterexample.

    FILE.py defines `claim`, a function problem -> predicted minimum or (problem, evidence) -> quantities, or a Theorem;
    `family`, which draws problems, or a loss; and, if there are any, `hypotheses`. Exit status 1 for a counterexample.
    """
    use_jax(many_programs=True)
    from ufm._base import require
    from ufm.atlas import Conjecture, Verdict, conjecture, read_claim
    from ufm.atlas import rerun as check_again

    if out is not None:  # said before the search, not after it
        require(Path(out).resolve().parent.is_dir(), "out", out, "a file in a directory that is there")
    theorem, family = read_claim(file)
    if rerun is not None:
        if out is not None:
            raise click.UsageError("--rerun JSON holds its own problem: no --out")
        finding = check_again(rerun, {theorem.id: theorem})
        again = finding if finding.verdict == Verdict.REFUTED else None
        found = Conjecture(theorem, again, again, [finding], 0, seed)
    else:
        with progress_bar("conjecture", "problem") as advance:
            found = conjecture(theorem, family, budget, seed, progress=advance)
    if not as_json:
        click.echo(found.words)
    place = None if out is None or found.finding is None else str(found.save(out))
    if as_json:
        problem = None if found.counterexample is None else problem_json(found.counterexample)
        quantities = [] if found.finding is None else [vars(q) for q in found.finding.quantities]
        numbers = {"tried": found.tried, "undecided": found.undecided, "shrinking": found.shrinking, "file": place}
        gap = None if found.finding is None else found.finding.gap
        print_json({"counterexample": problem, "quantities": quantities, "gap": gap, **numbers, "words": found.words})
    elif place is not None:
        click.echo(f"  again: ufm conjecture {file} --rerun {place}")
    return 0 if found.finding is None else 1

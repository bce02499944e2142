"""``ufm prove``: the minimum between two decimals, in ball arithmetic; and the check of such a proof."""

from __future__ import annotations

from typing import Any

import click

from ufm.cli._common import (
    JSON_OPTION,
    PROBLEM_OPTIONS,
    SOLVER_OPTIONS,
    options,
    print_json,
    problem_from,
    problem_json,
    solutions,
    stated_options,
    use_jax,
)

PROVE_OPTIONS = [
    click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="write the proof there, as JSON"),
    click.option(
        "--check",
        "checked",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="check a proof that was written, by a program that shares nothing with the prover",
    ),
]


@click.command("prove")
@options(PROBLEM_OPTIONS, SOLVER_OPTIONS, PROVE_OPTIONS, [JSON_OPTION])
@click.pass_context
def command(context: click.Context, /, out: str | None, checked: str | None, as_json: bool, **given: Any) -> int:
    """Solve a problem and prove, without an allowance for rounding, between which decimals its minimum lies.

    Needs python-flint: pip install 'ufm[proof]'. Exit status 1 if the enclosure is wider than 1e-10, with the reason on
    standard error; 2 if a file does not prove what it says.
    """
    if checked is not None:
        if out or stated_options(context, given):
            raise click.UsageError("--check FILE holds its own problem: give it alone, or with --json")
        from ufm.proof import check

        said = check(checked)
        if as_json:
            print_json({"file": checked, "proved": said})
        else:
            click.echo(f"proved: {said}")
        return 0
    use_jax()
    from ufm.proof import prove
    from ufm.solvers import best_of

    problem = problem_from(given)
    proof = prove(problem, best_of(solutions(problem, given)).params)
    if out is not None:
        click.echo(f"proof: {proof.save(out)}; check it with ufm prove --check {out}", err=True)
    if as_json:
        named = ("lower", "upper", "width", "precision", "reason")
        print_json({"problem": problem_json(problem), **{name: getattr(proof, name) for name in named}})
    else:
        click.echo(f"proved: {proof.lower} < f* < {proof.upper}")
    if proof.reason:
        click.echo(f"ufm: the enclosure is {proof.width:.1e} wide: {proof.reason}", err=True)
    return 1 if proof.reason else 0

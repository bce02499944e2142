"""``ufm phase``: regime maps over two hyper-parameters, predicted and solved."""

from __future__ import annotations

from pathlib import Path

import click

from ufm.cli._common import JSON_OPTION, check_figure, options, print_json, progress_bar, use_jax


@click.command("phase")
@click.argument("name", metavar="{bce|mse|merging}")
@click.option("--points", type=int, default=12, show_default=True, help="solved points along each axis")
@click.option(
    "--lattice", type=click.IntRange(2), default=160, show_default=True, help="predicted points along each axis"
)
@click.option("--seed", type=int, default=0, show_default=True, help="of the random starts")
@click.option("--out", type=click.Path(dir_okay=False), metavar="PNG", help="figure  [default: phase_NAME.png]")
@options([JSON_OPTION])
def command(name: str, points: int, lattice: int, seed: int, out: str | None, as_json: bool) -> int:
    """Draw a phase diagram: predicted regions, solved and certified points on top.

    bce, mse: regimes zero, etf (a centered simplex), mean-shifted (the rows of W share a mean too) and mean only (all
    rows equal) over (decay_b, decay_W). merging: minority classes of imbalanced
    cross-entropy over (ratio, decay). A certified point farther than a margin of 2 % on the wrong side of a
    predicted line is red; exit status 1 if there is one. A solve that did not converge has no regime: it is hollow, and
    counted.
    """
    use_jax()
    from ufm.atlas import MARGIN, diagram
    from ufm.plotting import phase

    chosen = diagram(name)
    path = Path(out or f"phase_{name}.png")
    check_figure(path, "out")
    with progress_bar("phase", "point") as advance:
        found = chosen.solve(points, seed, advance)
    phase(chosen, found, lattice).savefig(path)
    wrong = [p for p in found if p.wrong]
    certified = [p for p in found if p.certified]
    unconverged = sum(not p.ended for p in found)
    counts = {r: sum(p.measured == r for p in certified) for r in chosen.regimes}
    worst = max((p.gap for p in certified), default=None)
    if as_json:
        entries = [{**vars(p), "certified": p.certified, "wrong": p.wrong} for p in found]
        summary = {"regimes": counts, "certified": len(certified), "unconverged": unconverged}
        summary |= {"wrong": len(wrong), "worst_gap": worst}
        print_json({"diagram": name, "margin": MARGIN, "figure": str(path), **summary, "points": entries})
    else:
        regimes = ", ".join(f"{n} {r}" for r, n in counts.items())
        gap = "" if worst is None else f" (worst gap {worst:.0e})"
        ended = f"; {unconverged} did not converge" if unconverged else ""
        line = f"{len(found)} points, {len(certified)} certified{gap}: {regimes}; {len(wrong)} on the wrong side"
        click.echo(line + ended)
        click.echo(f"figure: {path}")
        for p in wrong:
            click.echo(f"wrong: ({p.x:g}, {p.y:g}) is {p.measured}, predicted {' or '.join(p.predicted)}")
    return 1 if wrong else 0

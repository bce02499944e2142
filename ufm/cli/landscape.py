"""``ufm landscape``: spectrum, rates, ladder, critical points and descents of one problem."""

from __future__ import annotations

from pathlib import Path
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
    table,
    use_jax,
)

LANDSCAPE_OPTIONS = [
    click.option("--eigs", type=click.IntRange(0), default=0, show_default=True, help="extreme eigenpairs, solved"),
    click.option("--saddles", is_flag=True, help="search for critical points (small problems)"),
    click.option("--search", type=click.IntRange(1), default=64, show_default=True, help="starts of --saddles"),
    click.option("--descend", is_flag=True, help="gradient descent from a small start, past which rungs"),
    click.option("--through", multiple=True, help="grouping that the small start prefers, such as 2+2; repeat"),
    click.option("--out", type=click.Path(file_okay=False), help="directory for the figures"),
]
DRAW_LIMIT = 100_000
"""Variables up to which the density is measured and points are laid out for figures."""


@click.command("landscape")
@options(PROBLEM_OPTIONS, SOLVER_OPTIONS, LANDSCAPE_OPTIONS, [JSON_OPTION])
def command(as_json: bool, **given: Any) -> None:
    """Exact Hessian spectrum and rates at collapse, the ladder of saddles, and numerical probes of both.

    Where the minimizer has no closed form (imbalanced counts, d < K-1) the problem is solved and the spectrum
    measured there.
    """
    use_jax()
    problem = problem_from(given)
    report = landscape_report(problem, given)
    if as_json:
        print_json(report)
    else:
        show(report)


def landscape_report(problem: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The answer of ``ufm landscape`` as one dictionary; draws the figures where asked to."""
    from ufm import landscape, solvers, theory
    from ufm._base import require

    require(problem.model.multiplicative, "model", str(problem.model), "linear: a free classifier")
    known = landscape.what_is_known(problem)
    report: dict[str, Any] = {"problem": problem_json(problem), "known": known, "spectrum": None, "rates": None}
    exact, rungs, points, solved, run = None, [], [], None, None
    try:
        rungs = [] if problem.model.bounded else theory.ladder(problem)
        exact = theory.hessian_spectrum(problem)
    except theory.NoClosedForm as reason:
        report["no_closed_form"] = str(reason)
    if exact is not None:
        report["spectrum"] = spectrum_json(exact)
        if exact.index == 0:
            report["rates"] = {name: vars(r) for name, r in landscape.best_rates(exact).items()}
    report["ladder"] = [
        {"groups": r.groups, "value": r.value, "index": r.spectrum.index, "kernel": r.spectrum.kernel} for r in rungs
    ]
    if given["eigs"] or exact is None:
        solution = solvers.best_of(solutions(problem, given))
        solved = landscape.examine(problem, solution.params)
        report["solved"] = {"status": solution.status_name, **point_json(solved)}
        if solved.spectrum is not None:
            entries = solved.spectrum.distinct(1e-9)
            report["solved"]["spectrum"] = [{"eigenvalue": v, "multiplicity": t} for v, t in entries]
        if given["eigs"]:
            report["eigs"] = eigs_json(landscape.Hessian(problem, solution.params).operator, given["eigs"])
    if given["saddles"]:
        points = landscape.find_critical_points(problem, given["search"], seed=given["seed"])
        report["critical_points"] = [point_json(p) for p in points]
        report["minima_not_global"] = [p.value for p in landscape.minima_not_global(points)]
    if given["descend"] or given["through"]:
        groups = [sizes(text) for text in given["through"]]
        run = landscape.saddle_to_saddle(problem, given["seed"], through=groups)
        report["descent"] = {
            "through": groups,
            "plateaus": [{"groups": g, "from": a, "until": b} for g, a, b in run.plateaus],
            "time": run.times[-1],
            "value": run.values[-1],
            "grad_norm": run.grad_norms[-1],
        }
    if given["out"] is not None:
        report["figures"] = draw(Path(given["out"]), problem, exact, rungs, points, solved, run)
    return report


def sizes(text: str) -> tuple[int, ...]:
    """Group sizes written ``2+2``."""
    from ufm._base import InputError

    try:
        return tuple(int(item) for item in text.split("+"))
    except ValueError:
        raise InputError(f"through = {text!r}: must be group sizes such as 2+2") from None


def spectrum_json(exact: Any) -> dict[str, Any]:
    """Every block of an exact spectrum."""
    entries = zip(exact.eigenvalues, exact.multiplicities, exact.blocks, strict=True)
    return {
        "entries": [{"eigenvalue": v, "multiplicity": t, "block": b} for v, t, b in entries],
        "index": exact.index,
        "kernel": exact.kernel,
        "rotations": exact.rotations,
        "zero": exact.zero,
        "condition": exact.condition,
        "reason": exact.reason,
    }


def point_json(point: Any) -> dict[str, Any]:
    """What is known of a critical point, without the point."""
    names = ("value", "grad_norm", "kind", "index", "kernel", "rotations", "smallest", "largest", "complete", "gap")
    found = {name: getattr(point, name) for name in names}
    return {**found, "groups": point.groups, "promised": point.escape.promised}


def eigs_json(operator: Any, k: int) -> dict[str, Any]:
    """Both ends of a measured spectrum."""
    from ufm.landscape import extreme_eigenpairs

    report = {}
    for which in ("smallest", "largest"):
        pairs = extreme_eigenpairs(operator, k, which)
        report[which] = {
            "values": pairs.values,
            "residuals": pairs.residuals,
            "converged": pairs.converged,
            "clusters": [{"value": v, "copies": c, "resolved": ok} for v, c, ok in pairs.clusters],
            "negative": pairs.negative,
        }
    return report


def draw(out: Path, problem: Any, exact: Any, rungs: Any, points: Any, solved: Any, run: Any) -> list[str]:
    """Write the figures that there is something to draw in; their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from ufm import landscape, theory
    from ufm.plotting import landscape as pictures
    from ufm.statement import describe

    out.mkdir(parents=True, exist_ok=True)
    fits = (problem.columns + problem.classes) * problem.dim <= DRAW_LIMIT
    best = theory.predict(problem)
    doubt = "" if best is None else best.reason
    end = "best symmetric point" if doubt else "minimizer"
    figures: dict[str, Any] = {}
    if exact is not None and best is not None:
        density = landscape.spectral_density(landscape.Hessian(problem, best.params).operator) if fits else None
        figures["spectrum.png"] = pictures.spectrum(exact, density)
    elif solved is not None and solved.spectrum is not None:
        figures["spectrum.png"] = pictures.spectrum(solved.spectrum)
    points = points or ([solved] if solved is not None else [])
    if rungs or points:
        figures["ladder.png"] = pictures.ladder(points, rungs)
    bottom = best.params if best is not None else solved.params if solved is not None else None
    saddles = [("+".join(map(str, r.groups)), r.params()) for r in rungs if r.spectrum.index] if fits else []
    if saddles and bottom is not None:
        ax = None
        for name, params in saddles:
            ax = pictures.path(*landscape.path(problem, params, bottom), ax=ax, label=f"from the rung {name}")
        figures["path.png"] = ax
        name, saddle = saddles[-1]
        if landscape.escape_direction(problem, saddle).direction is not None:
            axes = (f"toward the {end}", "escape direction")
            slices = landscape.way_down(problem, saddle, bottom)
            figures["plane.png"] = pictures.plane(slices, axes, name, end=end)
    if run is not None:
        figures["descent.png"] = pictures.descent(run)
    title = describe(problem)
    title += f"\nat the best symmetric point, not proven global: {doubt}" if doubt else ""
    for name, ax in figures.items():
        ax.set_title(title)
        ax.figure.savefig(out / name, dpi=150)
    return [str(out / name) for name in figures]


def show(report: dict[str, Any]) -> None:
    """The report as tables."""
    click.echo(report["problem"]["words"])
    for statement in report["known"]:
        click.echo(statement)
    click.echo()
    if report["spectrum"] is None:
        click.echo(report["no_closed_form"] + "\n")
    else:
        s = report["spectrum"]
        rows = [
            [f"{e['eigenvalue'] if abs(e['eigenvalue']) > s['zero'] else 0.0:.9g}", str(e["multiplicity"]), e["block"]]
            for e in s["entries"]
        ]
        title = "Hessian, best symmetric point (not proven)" if s["reason"] else "Hessian at the minimizer, exact"
        table(title, ["eigenvalue", "multiplicity", "block"], rows)
        click.echo(
            f"index {s['index']}, kernel {s['kernel']} (rotations {s['rotations']}), condition {s['condition']:.6g}\n"
        )
    if report["rates"]:
        rows = [[n, f"{r['lr']:.6g}", f"{r['momentum']:.6g}", f"{r['rate']:.9g}"] for n, r in report["rates"].items()]
        table("Best asymptotic rates", ["method", "step", "momentum", "rate"], rows)
    if report["ladder"]:
        rows = [[plus(r["groups"]), f"{r['value']:.9g}", str(r["index"]), str(r["kernel"])] for r in report["ladder"]]
        table("Ladder of merged classes, exact", ["groups", "value", "index", "kernel"], rows)
    if "solved" in report:
        s = report["solved"]
        click.echo(f"Solver: {s['status']}, gradient norm {s['grad_norm']:.1e}")
        point_table("The solved point", [s])
        if s["kind"] == "not critical":
            click.echo("Not a critical point: index and kernel are those of the Hessian at a point of descent.\n")
        if "spectrum" in s and report["spectrum"] is None:
            rows = [[f"{e['eigenvalue']:.9g}", str(e["multiplicity"])] for e in s["spectrum"]]
            table("Hessian at the solved point, measured", ["eigenvalue", "copies"], rows)
    for which in ("smallest", "largest") if "eigs" in report else ():
        measured = report["eigs"][which]
        rows = [
            [f"{c['value']:.9g}", f"{'' if c['resolved'] else 'at least '}{c['copies']}"] for c in measured["clusters"]
        ]
        table(f"Measured, {which}", ["eigenvalue", "copies"], rows)
        click.echo(f"residuals at most {max(measured['residuals']):.1e}\n")
    if "critical_points" in report:
        point_table("Critical points found (the list need not be complete)", report["critical_points"])
        for value in report["minima_not_global"]:
            click.echo(f"Local minimum that is not global: value {value:.9g}, index 0, kernel of rotations alone.")
    if "descent" in report:
        d = report["descent"]
        rows = [[plus(x["groups"]), f"{x['from']:.1f}", f"{x['until']:.1f}"] for x in d["plateaus"]]
        table("Gradient descent, small start", ["near the rung", "from time", "until"], rows)
        click.echo(f"at time {d['time']:.1f}: value {d['value']:.6g}, gradient norm {d['grad_norm']:.1e}\n")
    for path in report.get("figures", []):
        click.echo(path)


def plus(groups: Any) -> str:
    """Group sizes as ``2+2``."""
    return "+".join(map(str, groups))


def point_table(title: str, points: list[dict[str, Any]]) -> None:
    """One row for each point."""
    rows = [
        [
            f"{c['value']:.9g}",
            c["kind"],
            f"{'' if c['complete'] else '>= '}{c['index']}",
            f"{'' if c['complete'] else '>= '}{c['kernel']}",
            f"{c['smallest']:.4g}",
            f"{c['promised']:.4g}" if c["promised"] == c["promised"] else "W has full rank",
            f"{c['gap']:.1e}",
            plus(c["groups"]),
        ]
        for c in points
    ]
    columns = ["value", "kind", "index", "kernel", "least eigenvalue", "escape promised", "certified gap", "equal rows"]
    table(title, columns, rows)
    click.echo("escape promised: curvature along the direction of Zhu et al. 2021; the point is left where it is < 0\n")

"""``ufm landscape``: spectrum, rates and critical points of one problem."""

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
    table,
    use_jax,
)

LANDSCAPE_OPTIONS = [
    click.option("--eigs", type=int, default=0, show_default=True, help="extreme eigenpairs at the solved point"),
    click.option("--saddles", is_flag=True, help="search for critical points (small problems)"),
    click.option("--out", type=click.Path(file_okay=False), help="directory for the figures"),
]


@click.command("landscape")
@options(PROBLEM_OPTIONS, SOLVER_OPTIONS, LANDSCAPE_OPTIONS, [JSON_OPTION])
def command(as_json: bool, **given: Any) -> None:
    """Exact Hessian spectrum and rates at collapse, the ladder of saddles, and numerical probes of both."""
    use_jax()
    problem = problem_from(given)
    report = landscape_report(problem, given)
    if as_json:
        print_json(report)
    else:
        show(report)


def landscape_report(problem: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The answer of ``ufm landscape`` as one dictionary; draws the figures where asked to."""
    from ufm import solvers, theory
    from ufm.landscape import Hessian, best_rates, extreme_eigenpairs, find_critical_points

    report: dict[str, Any] = {"problem": problem_json(problem), "spectrum": None, "rates": None, "ladder": None}
    try:
        exact, rungs = theory.hessian_spectrum(problem), theory.ladder(problem)
    except theory.NoClosedForm as reason:
        exact, rungs = None, []
        report["no_closed_form"] = str(reason)
    if exact is not None:
        entries = zip(exact.eigenvalues, exact.multiplicities, exact.blocks, strict=True)
        report["spectrum"] = {
            "entries": [{"eigenvalue": v, "multiplicity": t, "block": b} for v, t, b in entries],
            "index": exact.index,
            "kernel": exact.kernel,
            "rotations": exact.rotations,
            "condition": exact.condition,
        }
        if exact.index == 0:
            report["rates"] = {name: vars(r) for name, r in best_rates(exact).items()}
        report["ladder"] = [
            {"groups": r.groups, "value": r.value, "index": r.spectrum.index, "kernel": r.spectrum.kernel}
            for r in rungs
        ]
    if given["eigs"]:
        solver = solvers.parse(given["solver"], tol=given["tol"], max_steps=given["max_steps"])
        solution = solvers.solve(
            problem,
            given["seed"],
            solver,
            starts=given["starts"],
            scale=given["init_scale"],
            bias_mean=given["init_bias"],
            dtype=given["dtype"],
        )
        operator = Hessian(problem, solution.params).operator
        report["eigs"] = {"grad_norm": solution.grad_norm, "status": solution.status_name}
        for which in ("smallest", "largest"):
            pairs = extreme_eigenpairs(operator, given["eigs"], which)
            report["eigs"][which] = {
                "values": pairs.values,
                "residuals": pairs.residuals,
                "converged": pairs.converged,
                "clusters": [{"value": v, "copies": c, "resolved": ok} for v, c, ok in pairs.clusters],
                "negative": pairs.negative,
            }
    points = find_critical_points(problem, seed=given["seed"]) if given["saddles"] else []
    if given["saddles"]:
        report["critical_points"] = [
            {
                "value": p.value,
                "kind": p.kind,
                "index": p.index,
                "kernel": p.kernel,
                "smallest": p.smallest,
                "promised": p.escape.promised,
                "gap": p.gap,
                "groups": p.groups,
            }
            for p in points
        ]
    if given["out"] is not None:
        report["figures"] = draw(Path(given["out"]), exact, rungs, points)
    return report


def draw(out: Path, exact: Any, rungs: Any, points: Any) -> list[str]:
    """Write the figures that there is something to draw in; their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from ufm.plotting import landscape as pictures

    out.mkdir(parents=True, exist_ok=True)
    figures = {}
    if exact is not None:
        figures["spectrum.png"] = pictures.spectrum(exact)
    if rungs or points:
        figures["ladder.png"] = pictures.ladder(points, rungs)
    for name, ax in figures.items():
        ax.figure.savefig(out / name, dpi=150)
    return [str(out / name) for name in figures]


def show(report: dict[str, Any]) -> None:
    """The report as tables."""
    p = report["problem"]
    title = f"{p['loss']}  K={p['classes']} d={p['dim']} n={p['per_class']}  bias {p['bias']}, features {p['features']}"
    if report["spectrum"] is None:
        click.echo(report["no_closed_form"])
    else:
        s = report["spectrum"]
        rows = [[f"{e['eigenvalue']:.9g}", str(e["multiplicity"]), e["block"]] for e in s["entries"]]
        table(f"{title}\nHessian at the minimiser, exact", ["eigenvalue", "multiplicity", "block"], rows)
        click.echo(
            f"index {s['index']}, kernel {s['kernel']} (rotations {s['rotations']}), condition {s['condition']:.6g}\n"
        )
        if report["rates"]:
            rows = [
                [n, f"{r['lr']:.6g}", f"{r['momentum']:.6g}", f"{r['rate']:.9g}"] for n, r in report["rates"].items()
            ]
            table("Best asymptotic rates", ["method", "step", "momentum", "rate"], rows)
        rows = [
            ["+".join(map(str, r["groups"])), f"{r['value']:.9g}", str(r["index"]), str(r["kernel"])]
            for r in report["ladder"]
        ]
        table("Ladder of merged classes, exact", ["groups", "value", "index", "kernel"], rows)
    for which in ("smallest", "largest") if "eigs" in report else ():
        clusters = report["eigs"][which]["clusters"]
        rows = [[f"{c['value']:.9g}", f"{'' if c['resolved'] else 'at least '}{c['copies']}"] for c in clusters]
        table(f"Measured at the solved point: {which}", ["eigenvalue", "copies"], rows)
    if "critical_points" in report:
        rows = [
            [
                f"{c['value']:.9g}",
                c["kind"],
                str(c["index"]),
                str(c["kernel"]),
                f"{c['smallest']:.4g}",
                f"{c['promised']:.4g}",
                f"{c['gap']:.1e}",
                "+".join(map(str, c["groups"])),
            ]
            for c in report["critical_points"]
        ]
        columns = ["value", "kind", "index", "kernel", "smallest eigenvalue", "promised", "certified gap", "equal rows"]
        table("Critical points found", columns, rows)
    for path in report.get("figures", []):
        click.echo(path)

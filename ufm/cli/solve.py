"""``ufm solve``: one problem, solved, certified and set beside its closed form."""

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
    solver_from,
    table,
    use_jax,
)

METRICS = {
    "nc1": "NC1",
    "nc2": "NC2, rows of W centered",
    "nc2_uncentred": "NC2, rows as they are",
    "nc3": "NC3",
    "nc4": "NC4",
}
"""Where the minimizer is mean-shifted the rows of W share a mean, and only the centered ones form a simplex ETF."""
ELIMINATE = click.option(
    "--eliminate/--no-eliminate",
    default=True,
    show_default=True,
    help="minimize over the features exactly, where the loss is convex; without, every feature is free at every step",
)

SADDLES = click.option(
    "--saddles",
    "at_saddles",
    type=click.Choice(["leave", "keep"]),
    default="leave",
    show_default=True,
    help="at a strict saddle: leave it along negative curvature, or keep it, where critical points are wanted",
)

OUT = click.option(
    "--out",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="save problem, point, certificate and versions (.npz) for --init FILE, ufm show, ufm measure and ufm.load",
)


@click.command("solve")
@options(PROBLEM_OPTIONS, SOLVER_OPTIONS, [ELIMINATE, SADDLES, OUT, JSON_OPTION])
def command(as_json: bool, out: str | None, **given: Any) -> int:
    """Solve a problem, certify the result and compare it with the closed-form minimizer.

    Exit status 0 if the solve converged, or stalled at a point that the certificate proves minimal; 1 otherwise, with
    the status and what to do about it on standard error.
    """
    use_jax()
    from ufm import saved

    if out is not None:
        saved.checked_place(out)
    problem = problem_from(given)
    report = solve_report(problem, given, out)
    if as_json:
        print_json(report)
    else:
        show(report)
    if report["solved"]:
        return 0
    gap = report["certificate"]["gap"]
    click.echo(f"ufm: not solved: {report['status']}, certified gap {gap:.1e}; {report['remedy']}", err=True)
    return 1


def solve_report(problem: Any, given: dict[str, Any], out: str | None = None) -> dict[str, Any]:
    """The answer of ``ufm solve`` as one dictionary; the best solution is saved to ``out``."""
    from ufm import saved, solvers, theory

    found = solutions(problem, given)
    best = solvers.best_of(found)
    certificate = theory.certify(problem, best.params)
    if out is not None:
        saved.write(out, problem, best, certificate)
    report = report_of(problem, best, certificate)
    report["eliminated"] = given["eliminate"] and solvers.eliminates(solver_from(given), problem)
    if len(found) > 1:
        report["starts"] = [float(s.value) for s in found]
        random = len(found) - len(given["init"])
        names = [f"random {i}" for i in range(random)] + list(given["init"])
        report["tried"] = [
            {"start": name, "value": float(s.value), "status": s.status_name}
            for name, s in zip(names, found, strict=True)
        ]
    return report


def report_of(problem: Any, best: Any, certificate: Any) -> dict[str, Any]:
    """A solution beside its certificate and closed form, as one dictionary."""
    from ufm import bias as biases
    from ufm import metrics, solvers, theory

    params, labels = best.params, problem.labels
    b = biases.per_class(params.b, problem.classes)
    closed = theory.predict(problem)
    scores = collapse = None
    if problem.labeled:
        scores = metrics.scores(*problem.model.layers(params), labels)
        collapse = vars(metrics.collapse(*problem.model.head(params), labels, params.b))
    return {
        "problem": problem_json(problem),
        "value": float(best.value),
        "grad_norm": best.grad_norm,
        "residual": best.residual,
        "status": best.status_name,
        "solved": bool(
            solvers.answered(int(best.status), float(best.value), float(certificate.gap), float(certificate.rounding))
        ),
        "remedy": best.remedy,
        "eliminated": None,
        "steps": best.steps,
        "evaluations": best.evaluations,
        "certificate": {
            "lower_bound": certificate.lower_bound,
            "gap": certificate.gap,
            "rounding": certificate.rounding,
        },
        "theory": None
        if closed is None
        else {
            "value": closed.value,
            "regime": closed.regime,
            "gap": closed.gap,
            "logit_gap": closed.logit_gap,
            "bias": closed.bias,
            "shift": closed.shift,
            "exact": closed.exact,
            "reason": closed.reason,
        },
        "bias": {"mean": b.mean(), "std": b.std()},
        "scores": scores,
        "collapse": collapse,
    }


def show(report: dict[str, Any]) -> None:
    """The report as a table."""
    closed, certificate, title = report["theory"], report["certificate"], report["problem"]["words"]

    def number(x: Any, form: str = ".12g") -> str:
        return format(float(x), form)

    regime = "no closed form" if closed is None else closed["regime"]
    proven = closed is None or closed["exact"]
    heading = "closed form" if proven else "best symmetric point (not proven)"
    rows = [
        ["value", number(report["value"]), "" if closed is None else number(closed["value"])],
        ["regime", "", regime],
        ["bias", number(report["bias"]["mean"], ".6g"), "" if closed is None else number(closed["bias"], ".6g")],
        ["bias, std over classes", number(report["bias"]["std"], ".1e"), ""],
    ]
    for side in ("positive", "negative") if report["scores"] else ():
        score = report["scores"][side]
        spread = f"{number(score['mean'], '.6g')}  [{number(score['min'], '.6g')}, {number(score['max'], '.6g')}]"
        rows.append([f"{side} score  [min, max]", spread, ""])
    if report["collapse"]:
        rows += [[label, number(report["collapse"][name], ".1e"), ""] for name, label in METRICS.items()]
    if report["collapse"] and report["eliminated"]:
        rows[-len(METRICS)][2] = "by elimination; --no-eliminate shows it happen"
    rows += [
        ["gradient norm", number(report["grad_norm"], ".1e"), ""],
        ["status", f"{report['status']} after {int(report['steps'])} steps", ""],
        ["certified lower bound", number(certificate["lower_bound"]), ""],
        [
            "certified gap",
            number(certificate["gap"], ".1e"),
            f"rounding allowance {number(certificate['rounding'], '.0e')}",
        ],
    ]
    if "starts" in report:
        values = report["starts"]
        rows.append(["values of the starts", f"{min(values):.12g} ... {max(values):.12g}", f"{len(values)} starts"])
        rows += [[x["start"], number(x["value"]), x["status"]] for x in report["tried"] if "code" in x["start"]]
    table(title, ["", "solved", heading], rows)
    if not proven:
        click.echo(f"The best symmetric point is not proven to be the minimum: {closed['reason']}.")

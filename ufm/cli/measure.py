"""``ufm measure``: the features of a real network."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from ufm.cli._common import JSON_OPTION, check_figure, options, print_json, progress_bar, table, use_jax


@click.command("measure")
@click.argument("paths", nargs=-1, required=True, metavar="FEATURES...")
@click.option("--compare", is_flag=True, help="two or more networks, side by side")
@click.option("--figure", type=click.Path(dir_okay=False), help="save the sheet of histograms here (.png, .pdf, .svg)")
@options([JSON_OPTION])
def command(paths: tuple[str, ...], compare: bool, figure: str | None, as_json: bool) -> None:
    """Measure collapse, uniform accuracy and the nearest model of a network's features.

    FEATURES is an .npz or .safetensors file, or a folder of .npy files, that holds features (N, d), labels (N,),
    weight (K, d) and perhaps bias (K,); fc.weight and fc.bias, or W and b, are understood. It may be larger than
    memory. Or it is a file of ufm solve --out or Solution.save, whose point is measured as if it were a network's.
    """
    from ufm._base import require

    several = "one file, or --compare A B" if not compare else "two files or more with --compare"
    require((len(paths) > 1) == compare, "FEATURES", " ".join(paths), several)
    if figure is not None:
        check_figure(figure)
    use_jax()
    networks = [_measured(path) for path in paths]
    reports = [{"path": path, **network.to_dict()} for path, network in zip(paths, networks, strict=True)]
    if as_json:
        print_json({"compare": reports} if compare else reports[0])
    else:
        show(reports)
    if figure is not None:
        _save(figure, paths, networks)


def _measured(path: str) -> Any:
    from ufm import saved
    from ufm.networks import measure_file

    if saved.recognized(path):
        return _measured_solution(path)

    def told(source: Any) -> None:
        click.echo(f"ufm: {path}: {source}", err=True)

    with progress_bar(path, "row") as advance:
        return measure_file(path, advance, told=told)


def _measured_solution(path: str) -> Any:
    """A saved solution, as the network that it stands for: a feature for each sample, and the offset in the bias."""
    import numpy as np

    from ufm import bias as biases
    from ufm._base import require
    from ufm.networks import measure
    from ufm.saved import load

    found = load(path)
    problem, params = found.problem, found.params
    require(problem.labeled, path, f"{problem.groups} columns of targets", "class labels")
    # In deep models the last matrix; elsewhere factors of the logits, a constant factor with the classifier.
    model = problem.model
    W, H = (model.head if isinstance(params.W, tuple) else model.layers)(params)
    labels = np.repeat(np.arange(problem.classes), problem.counts)
    H = np.asarray(H) if problem.features == "per_sample" else np.asarray(H)[:, labels]
    b = None
    if params.b is not None or problem.offset is not None:
        b = biases.per_class(params.b, problem.classes) + (0.0 if problem.offset is None else problem.offset)
    return measure(H.T, labels, W, b)


def _save(figure: str, paths: tuple[str, ...], networks: list[Any]) -> None:
    from ufm.plotting.measure import sheet

    titles = [f"{path} ({i})" if path in paths[: i - 1] else path for i, path in enumerate(paths, start=1)]
    sheet(dict(zip(titles, networks, strict=True))).savefig(figure, dpi=150)


def show(reports: list[dict[str, Any]]) -> None:
    """The reports as a table, one column each."""

    def row(name: str, *keys: str, form: str = ".6g") -> list[str]:
        cells = []
        for report in reports:
            value: Any = report
            for key in keys:
                value = None if value is None else value[key]
            cells.append(value if isinstance(value, str) else shown(value, ".".join(keys), report["notes"], form))
        return [name, *cells]

    def shown(value: Any, path: str, notes: dict[str, str], form: str) -> str:
        """A number; "undefined" or "infinite" where it is one of these, and a dash where there is none."""
        if value is None or value != value or math.isinf(value):
            word = re.split(r"\W", notes.get(path, ""))[0]
            return word if word in ("undefined", "infinite") else "-"
        return format(value, form)

    rows = [
        row("samples N", "samples", form="d"),
        row("classes K", "classes", form="d"),
        row("dimension d", "dim", form="d"),
        row("sample-wise accuracy", "accuracy", "sample_wise"),
        row("class-wise uniform accuracy", "accuracy", "class_wise"),
        row("uniform accuracy", "accuracy", "uniform"),
        row("  at the learned bias", "accuracy", "at_bias"),
        row("best threshold t*", "threshold"),
        row("bias, mean", "bias", "mean"),
        row("bias, std over classes", "bias", "std"),
        row("|mean(-b) - t*|", "bias", "to_threshold", "mean"),
    ]
    for side in ("positive", "negative"):
        rows += [row(f"{side} scores, {key}", "scores", side, key) for key in ("mean", "std", "min", "max")]
    rows += [
        row("overlap of the scores", "scores", "overlap"),
        row("compactness", "compactness"),
        row("distinctiveness", "distinctiveness"),
    ]
    rows += [row(name.upper(), "collapse", name, form=".2e") for name in ("nc1", "nc2", "nc2_means", "nc3", "nc4")]
    for loss in ("ce", "bce"):
        keys = [
            "regime",
            "log_mu",
            "mu",
            "decay_W",
            "decay_H",
            "residual",
            *(["decay_b", "bias_residual"] if loss == "bce" else []),
        ]
        rows += [row(f"nearest {loss.upper()} model, {key}", "nearest", loss, key, form=".4g") for key in keys]
    table("ufm measure", ["", *(report["path"] for report in reports)], rows)
    for report in reports:
        for path, words in _notes(report).items():
            click.echo(f"{report['path']}, {path}: {words}")


def _notes(report: dict[str, Any]) -> dict[str, str]:
    """What the table cannot show: numbers that are none in a notable way, and what a nearest model leaves open."""
    notable = {path: words for path, words in report["notes"].items() if path in ("collapse.nc1", "threshold")}
    models = {f"nearest.{loss}": model["note"] for loss, model in report["nearest"].items() if model["note"]}
    return notable | models

"""Pictures of a sweep: scores and bias, or any quantity, over one axis, and heat maps over two."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ufm._base import require
from ufm.plotting.scores import SERIES
from ufm.plotting.style import BLUE, VERMILION, style

if TYPE_CHECKING:
    from ufm.sweeps import Sweep

NOTES = {True: "lines: closed form", False: "dashed lines: best symmetric point, not proven to be the minimum"}
"""What a line of predictions is, by whether every one of them is exact."""
PANELS = 12
"""Panels of a figure at most; the title of a larger sweep says that it is drawn in part."""
LOGARITHMIC = ("gap", "residual", "grad_norm", "nc1", "nc2", "nc3")
"""Quantities drawn as log10 of their size."""
SYMBOLS = {
    "decay.b": "$\\lambda_b$, decay of the bias",
    "decay.W": "$\\lambda_W$, decay of the classifier",
    "decay.H": "$\\lambda_H$, decay of the features",
    "decay.W,decay.H": "$\\lambda_W = \\lambda_H$",
    "bias_mean": "mean of the initial bias",
    "scale": "scale of the random start",
    "classes": "classes $K$",
    "dim": "dimension $d$",
    "per_class": "samples per class $n$",
}


def pictures(sweep: Sweep) -> dict[str, Figure]:
    """Every figure that there is something to draw in, by name."""
    numeric = numeric_axes(sweep)
    found: dict[str, Figure] = {}
    if sweep.dims == ("lane",) or not numeric:
        return found
    if len(numeric) == 1 or "bias_mean" in numeric:
        found["scores"] = scores_and_bias(sweep, numeric[0])
    if len(numeric) >= 2:
        found |= {f"map_{name}": heat_map(sweep, name) for name in ("value", "gap", "regime", "bias")}
    if any(name.startswith("trajectory.") for name in sweep.data):
        found["trajectories"] = trajectories(sweep)
    return found


def scores_and_bias(sweep: Sweep, x: str | None = None) -> Figure:
    """Final scores and bias (points, every seed) over axis ``x``, one panel for every other choice.

    Lines are the closed-form minimizer, where there is one, dashed where it is not proven to be the minimum; see
    `ufm.Sweep.predicted`.
    """
    x = _axis(sweep, x)
    panels, left_out = _panels(sweep, [x, "seed"])
    with style():
        figure, grid = _grid_of(len(panels), (4.6, 3.5))
        closed = [panel.predicted(x) for _, panel in panels]
        for axes, (name, panel), lines in zip(grid, panels, closed, strict=False):
            values = panel.coords[x]
            for key, (color, text) in SERIES.items():
                first, *_ = _dots(axes, panel, key, x, color)
                first.set_label(text)
                if lines is not None:
                    line = "-" if lines["exact"].all() else "--"
                    axes.plot(lines["x"], lines[key], line, color=color, zorder=3)
            if _logarithmic(values):
                axes.set_xscale("log")
            axes.set(xlabel=SYMBOLS.get(x, x), ylabel="score or bias", title=name)
        handles, labels = grid[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3)
        proven = {bool(lines["exact"].all()) for lines in closed if lines is not None}
        note = ", ".join(["points: solved", *(NOTES[kind] for kind in sorted(proven, reverse=True))])
        figure.suptitle(_title(sweep, left_out, note))
    return figure


def line_plot(sweep: Sweep, quantity: str, x: str | None = None) -> Figure:
    """One quantity over axis ``x`` (points for every seed, a line through medians), a panel for every other choice.

    Medians are of the lanes that are solved; the points of the others are hollow.
    """
    require(sweep[quantity].ndim == len(sweep.dims), "quantity", quantity, "a number per lane")
    x = _axis(sweep, x)
    panels, left_out = _panels(sweep, [x, "seed"])
    color, label = SERIES.get(quantity, (BLUE, quantity))
    label = f"log10 {label}" if quantity in LOGARITHMIC else label
    words = sweep.labels(quantity)
    with style():
        figure, grid = _grid_of(len(panels), (4.6, 3.5))
        for axes, (name, panel) in zip(grid, panels, strict=False):
            values, order = panel.coords[x], np.argsort(panel.coords[x])
            points = _spread(panel, quantity, [x])
            if words:  # nothing lies between two of them
                axes.set_yticks(list(words), labels=words.values())
                axes.set_ylim(-0.5, len(words) - 0.5)
            else:
                solved = np.where(_where_solved(panel, [x]), points, np.nan)
                axes.plot(values[order], _median(solved)[order], "-", color=color, linewidth=1)
            _dots(axes, panel, quantity, x, color)
            if _logarithmic(values):
                axes.set_xscale("log")
            axes.set(xlabel=SYMBOLS.get(x, x), ylabel=label, title=name)
        figure.suptitle(_title(sweep, left_out))
    return figure


def heat_map(sweep: Sweep, quantity: str) -> Figure:
    """One quantity over the first two numeric axes (the median over seeds), one panel for every other choice.

    The median is of the lanes that are solved, where there are any; a hollow circle marks cells with others.
    """
    require(sweep[quantity].ndim == len(sweep.dims), "quantity", quantity, "a number per lane")
    numeric = numeric_axes(sweep)
    require(len(numeric) >= 2, "axes", list(sweep.dims), "two numeric ones or more for a heat map")
    y, x = numeric[:2]
    panels, left_out = _panels(sweep, [x, y, "seed"])
    tables = [_median_of_solved(panel, quantity, [y, x]) for _, panel in panels]
    limits = (0.0, 2.0) if quantity == "regime" else (np.nanmin(tables), np.nanmax(tables))
    with style():
        figure, grid = _grid_of(len(panels), (4.8, 3.8))
        for axes, (name, panel), shown in zip(grid, panels, tables, strict=False):
            colors = plt.get_cmap("cividis", 3) if quantity == "regime" else "cividis"
            edges = (_edges(panel.coords[x]), _edges(panel.coords[y]))
            mesh = axes.pcolormesh(*edges, shown, vmin=limits[0], vmax=limits[1], cmap=colors)
            doubtful = np.argwhere(~_where_solved(panel, [y, x]).all(axis=-1))
            at = [panel.coords[axis][doubtful[:, i]] for axis, i in ((x, 1), (y, 0))]
            axes.plot(*at, "o", markerfacecolor="none", color=VERMILION)
            for axis, which in ((x, "x"), (y, "y")):
                if _logarithmic(panel.coords[axis]):
                    getattr(axes, f"set_{which}scale")("log")
            axes.set(xlabel=SYMBOLS.get(x, x), ylabel=SYMBOLS.get(y, y), title=name)
            axes.grid(visible=False)
        bar = figure.colorbar(mesh, ax=grid, label=f"log10 {quantity}" if quantity in LOGARITHMIC else quantity)
        if quantity == "regime":
            bar.set_ticks([1 / 3, 1, 5 / 3], labels=["zero", "etf", "mean-shifted"])
        figure.suptitle(_title(sweep, left_out))
    return figure


def trajectories(sweep: Sweep) -> Figure:
    """What the gradient methods recorded, every lane, one panel for every quantity and static choice."""
    names = [name for name in sweep.data if name.startswith("trajectory.")]
    panels, left_out = _panels(sweep, [d for d in sweep.dims if d in numeric_axes(sweep) or d == "seed"])
    shown = list(itertools.product(names, panels))[:PANELS]
    with style():
        figure, grid = _grid_of(len(shown), (4.2, 3.0))
        for axes, (name, (title, panel)) in zip(grid, shown, strict=False):
            rows = panel[name].reshape(-1, panel[name].shape[-1])
            colors = plt.get_cmap("cividis")(np.linspace(0, 0.95, len(rows)))
            steps = sweep.info["options"].get("record_every", 1) * np.arange(rows.shape[1])
            for row, color in zip(rows, colors, strict=True):
                axes.plot(steps, row, color=color, linewidth=1)
            axes.set(
                xlabel="gradient step" if "record_every" in sweep.info["options"] else "record",
                ylabel=name.partition(".")[2],
                title=title,
            )
        figure.suptitle(_title(sweep, left_out or len(shown) < len(names) * len(panels), hollow=False))
    return figure


def _spread(panel: Sweep, quantity: str, kept: list[str]) -> Any:
    """A quantity with the axes ``kept`` in front and all others (seeds) flat behind them, as it is drawn."""
    values = np.moveaxis(panel[quantity].astype(float), [panel.dims.index(k) for k in kept], range(len(kept)))
    values = values.reshape(*values.shape[: len(kept)], -1)
    if quantity in LOGARITHMIC:
        return np.log10(np.maximum(np.abs(values), 1e-16))
    return np.where(values < 0, np.nan, values) if quantity == "regime" else values


def _where_solved(panel: Sweep, kept: list[str]) -> Any:
    """Which lanes are solved, laid out as `_spread` lays out a quantity."""
    values = np.moveaxis(panel.solved, [panel.dims.index(k) for k in kept], range(len(kept)))
    return values.reshape(*values.shape[: len(kept)], -1)


def _dots(axes: Any, panel: Sweep, quantity: str, x: str, color: str) -> list[Any]:
    """Every lane as a point: filled where it is solved, hollow where the solve did not end at a solution."""
    values, points, solved = panel.coords[x], _spread(panel, quantity, [x]), _where_solved(panel, [x])
    filled = axes.plot(values, np.where(solved, points, np.nan), "o", color=color, alpha=0.6)
    hollow = np.where(solved, np.nan, points)
    if np.isfinite(hollow).any():
        axes.plot(values, hollow, "o", color=color, markerfacecolor="none")
    return filled


def _median_of_solved(panel: Sweep, quantity: str, kept: list[str]) -> Any:
    """Median over the lanes of each cell that are solved, over all of them where none is."""
    points, solved = _spread(panel, quantity, kept), _where_solved(panel, kept)
    return _median(np.where(solved | ~solved.any(axis=-1, keepdims=True), points, np.nan))


def _median(values: Any) -> Any:
    """Median over the last axis; NaN, which is not drawn, where every lane failed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.nanmedian(values, axis=-1)


def numeric_axes(sweep: Sweep) -> list[str]:
    """Names of the axes with two numbers or more, the seed aside."""
    coords = {d: sweep.coords[d] for d in sweep.dims if d in sweep.coords and d != "seed"}
    return [d for d, values in coords.items() if values.dtype.kind in "if" and len(values) > 1]


def _logarithmic(values: Any) -> bool:
    return bool(values.min() > 0 and values.max() >= 50 * values.min())


def _edges(values: Any) -> Any:
    """Cells around the values: halfway to the neighbors, on the axis's own scale."""
    at = np.log(values) if _logarithmic(values) else values.astype(float)
    middle = 0.5 * (at[1:] + at[:-1])
    edges = np.concatenate([[1.5 * at[0] - 0.5 * at[1]], middle, [1.5 * at[-1] - 0.5 * at[-2]]])
    return np.exp(edges) if _logarithmic(values) else edges


def _axis(sweep: Sweep, x: str | None) -> str:
    numeric = numeric_axes(sweep)
    require(x in numeric if x else bool(numeric), "x", x, f"a numeric axis of the grid: {numeric}")
    return x or numeric[0]


def _panels(sweep: Sweep, kept: list[str]) -> tuple[list[tuple[str, Sweep]], bool]:
    """The sweep at every combination of the axes that are not ``kept``, named by it."""
    others = [d for d in sweep.dims if d not in kept]
    panels = []
    for combination in itertools.islice(itertools.product(*(sweep.coords[d] for d in others)), PANELS):
        choice = dict(zip(others, combination, strict=True))
        words = [
            str(v) if isinstance(v, str) else f"{SYMBOLS.get(k, k).partition(',')[0]} = {v:g}"
            for k, v in choice.items()
        ]
        panels.append((", ".join(words), sweep.select(**choice)))
    total = int(np.prod([len(sweep.coords[d]) for d in others]))
    return panels, total > len(panels)


def _grid_of(panels: int, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    columns = min(panels, 4 if panels > 4 else 2)
    if columns == 1:
        size = (6.4, 4.2)  # room for the legend
    rows = -(-panels // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(size[0] * columns, size[1] * rows + 0.6), squeeze=False)
    for axes in grid.flat[panels:]:
        axes.set_axis_off()
    return figure, list(grid.flat)


def _title(sweep: Sweep, left_out: bool, note: str = "", *, hollow: bool = True) -> str:
    lost = int(np.sum(~sweep.solved))
    count = f"{lost} of {sweep.solved.size} did not converge{' (hollow)' if hollow else ''}" if lost else ""
    words = [sweep.info.get("title", ""), note, count, f"the first {PANELS} panels only" if left_out else ""]
    return "; ".join(w for w in words if w)

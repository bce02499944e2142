"""Figures of a report: what the checks measured beside what they allow, and SVG that takes a page's own colors."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ufm.plotting.style import BLUE, GRAY, ORANGE, VERMILION, style

MARKS = {
    "holds": ("o", BLUE),
    "refuted": ("X", VERMILION),
    "inconclusive": ("D", ORANGE),
    "outside hypotheses": (".", GRAY),
}
"""Marker and color of each verdict: either says which."""
INK = "#010203"
"""Stands for the text color of the page; `inline_svg` writes it as the browser's own name for it."""
_INK: Any = {
    f"{part}color": INK
    for part in ("text.", "axes.edge", "axes.label", "xtick.", "ytick.", "xtick.label", "ytick.label")
}


def bounded(
    names: Sequence[str], values: Sequence[float | None], verdicts: Sequence[str], limit: float, label: str
) -> Figure:
    """One line per check: a number that must stay left of ``limit`` for the claim to hold.

    Args:
        names: of the checks (m,).
        values: (m,); None leaves the line empty, infinity is drawn at the edge.
        verdicts: (m,), as in `MARKS`.
        limit: where the dashed line goes.
        label: of the horizontal axis.
    """
    finite = [v for v in values if v is not None and np.isfinite(v) and v > 0]
    low = 10.0 ** np.floor(np.log10(min([limit, *finite])))
    high = 10.0 ** np.ceil(np.log10(max([limit, *finite])) + 0.5)
    with style(), mpl.rc_context(_INK):
        figure = Figure(figsize=(5.6, 1.1 + 0.22 * len(names)))
        axes = figure.subplots()
        for row, (value, verdict) in enumerate(zip(values, verdicts, strict=True)):
            if value is not None:
                marker, color = MARKS[verdict]
                x = min(max(value, low), high) if value == value else high
                axes.plot(x, row, marker, color=color, markersize=6, clip_on=False, zorder=3)
        axes.axvline(limit, color=INK, linestyle="--", linewidth=1)
        axes.set(xscale="log", xlim=(low, high), ylim=(len(names) - 0.5, -0.5), xlabel=label)
        axes.set_yticks(range(len(names)), names)
        _legend(figure, verdicts)
    return figure


def agreement(predicted: Sequence[float], measured: Sequence[float], verdicts: Sequence[str]) -> Figure:
    """Measured against predicted, with the line of equality on top; symmetric logarithmic axes."""
    with style(), mpl.rc_context(_INK):
        figure = Figure(figsize=(5.6, 4.6))
        axes = figure.subplots()
        for verdict, (marker, color) in MARKS.items():
            own = [(p, m) for p, m, v in zip(predicted, measured, verdicts, strict=True) if v == verdict]
            if own:
                axes.plot(*zip(*own, strict=True), marker, color=color, alpha=0.6)
        ends = [min([0.0, *predicted, *measured]), max([1.0, *predicted, *measured])]
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_yscale("symlog", linthresh=0.1)
        curve = np.concatenate([-np.geomspace(1e-3 - min(ends[0], 0.0), 1e-3, 40), np.geomspace(1e-3, ends[1], 40)])
        axes.plot(curve, curve, color=INK, linewidth=1, zorder=3, label="measured = predicted")
        axes.set(xlabel="predicted", ylabel="measured")
        _legend(figure, verdicts, "measured = predicted")
    return figure


def _legend(figure: Figure, verdicts: Sequence[str], line: str = "") -> None:
    handles = [
        Line2D([], [], marker=marker, color=color, linestyle="", label=verdict)
        for verdict, (marker, color) in MARKS.items()
        if verdict in verdicts
    ]
    if line:
        handles.append(Line2D([], [], color=INK, linewidth=1, label=line))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element for a page: a described image, in the page's colors, that loads nothing.

    ``name`` keeps its identifiers apart from those of other figures; ``description`` is read aloud instead of it.
    """
    from html import escape

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    # Matplotlib leaves black text without a color; INK and black are both the page's.
    svg = svg.replace(INK, "currentColor").replace("#000000", "currentColor")
    label = f'role="img" fill="currentColor" aria-label="{escape(description)}"'
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" {label}>', svg, count=1)

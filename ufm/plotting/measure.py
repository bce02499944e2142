"""The sheet of `ufm measure`: scores with bias and threshold, collapse metrics, and the nearest model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ufm.plotting.style import BIAS, GRAY, NEGATIVE, POSITIVE, style

if TYPE_CHECKING:
    from ufm.networks import Measurement

DRAWN_BINS = 128
FILLED = 0.69
"""Part of the histograms' axes that bars and lines fill; the legend stands above."""
LEGEND: Any = {"fontsize": "small", "loc": "upper left", "frameon": False, "columnspacing": 1.2, "handlelength": 1.5}


def sheet(networks: Mapping[str, Measurement]) -> Figure:
    """One row per network; the two histograms are each normalized, as in the papers' figures.

    Args:
        networks: measurements (`ufm.measure`) by the name that the row is to have.

    Returns:
        A figure of its own, unknown to pyplot, of three panels a row: scores, collapse metrics, nearest models.

    >>> import ufm, ufm.plotting
    >>> problem = ufm.Problem(3, 4, 5, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> collapsed = ufm.theory.minimizer(problem).params
    >>> network = ufm.measure(collapsed.H.T, problem.labels, collapsed.W, collapsed.b)
    >>> figure = ufm.plotting.sheet({"collapsed": network})
    >>> figure.axes[0].get_title(loc="center")
    'collapsed: uniform accuracy 1.000, sample-wise 1.000'
    """
    with style():
        figure = Figure(figsize=(13.0, 3.4 * len(networks)))
        rows = figure.subplots(len(networks), 3, squeeze=False, width_ratios=(2.0, 1.2, 1.2))
        for axes, (name, network) in zip(rows, networks.items(), strict=True):
            score_histograms(axes[0], network)
            accuracies = f"uniform accuracy {network.uniform:.3f}, sample-wise {network.sample_wise:.3f}"
            axes[0].set_title(f"{name}: {accuracies}")
            collapse_bars(axes[1], network)
            nearest_models(axes[2], network)
    return figure


def score_histograms(axes: Axes, network: Measurement) -> None:
    """Positive and negative scores, with minus the learned bias (the threshold it implies) and t*."""
    histograms = network.histograms
    edges = histograms.edges[:: (len(histograms.edges) - 1) // DRAWN_BINS]
    for counts, color, label in (
        (histograms.negative, NEGATIVE, "negative scores"),
        (histograms.positive, POSITIVE, "positive scores"),
    ):
        coarse = counts.reshape(DRAWN_BINS, -1).sum(axis=1)
        axes.stairs(coarse / (coarse.sum() * np.diff(edges)), edges, fill=True, alpha=0.55, color=color, label=label)
    if network.bias is not None:
        learned = -network.bias
        axes.axvline(float(learned.mean()), ymax=FILLED, color=BIAS, linewidth=2, label="minus bias (mean, range)")
        axes.axvspan(float(learned.min()), float(learned.max()), ymax=FILLED, color=BIAS, alpha=0.15, linewidth=0)
    if np.isfinite(network.threshold.value):
        axes.axvline(network.threshold.value, ymax=FILLED, color="black", linestyle="--", label="best threshold t*")
    axes.set_xlabel("unbiased score  $w_j^\\top h$")
    axes.set_ylabel("density")
    axes.set_ylim(top=axes.get_ylim()[1] / FILLED)
    axes.legend(ncols=2, **LEGEND)


def collapse_bars(axes: Axes, network: Measurement) -> None:
    """NC1-NC4 on a logarithmic axis, each value over its bar; a zero, or what is no number, has no bar."""
    names = ("nc1", "nc2", "nc2_means", "nc3", "nc4")
    values = [float(getattr(network.collapse, name)) for name in names]
    shown = [v for v in values if 1e-16 < v < np.inf]
    floor = min(shown, default=1e-2) / 10.0
    axes.set_yscale("log")
    axes.set_ylim(floor, 10.0 * max(shown, default=1.0))
    heights = [max(v, floor) if np.isfinite(v) else floor for v in values]
    bars = axes.bar([name.upper().replace("_", "\n") for name in names], heights, color=GRAY)
    words = [f"{v:.2g}" if np.isfinite(v) else "infinite" if v > 0 else "undefined" for v in values]
    axes.bar_label(bars, words, padding=2, fontsize="small")
    axes.set_title("collapse (0 = simplex ETF)")


def nearest_models(axes: Axes, network: Measurement) -> None:
    """Measured mean scores and threshold implied by the bias beside those of the nearest models."""

    def point(x: int, positive: float, negative: float, bias: Any) -> None:
        axes.plot(x, positive, "o", color=POSITIVE, label="positive")
        axes.plot(x, negative, "o", color=NEGATIVE, label="negative")
        if bias is not None and np.isfinite(bias):
            axes.plot(x, -bias, "_", color=BIAS, markersize=18, label="minus bias")

    bias = None if network.bias is None else float(network.bias.mean())
    point(0, network.positive.mean, network.negative.mean, bias)
    names = ["measured"]
    for x, (loss, model) in enumerate(network.nearest.items(), start=1):
        point(x, model.positive, model.negative, model.bias)
        names.append(f"{loss.upper()}\n{model.regime}\noff by {model.residual:.0%}")
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel("mean score")
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.margins(y=0.3)
    axes.legend(entries.values(), entries, ncols=3, **LEGEND)
    axes.set_title("nearest unconstrained feature model")

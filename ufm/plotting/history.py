"""Training as `ufm.networks.History` saw it, with the predicted end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ufm.plotting.style import BIAS, BLUE, GRAY, GREEN, NEGATIVE, ORANGE, POSITIVE, PURPLE, VERMILION, style

ERROR, LEFT = "error = 1 - accuracy", "distance from the prediction"
LOGARITHMIC = ("collapse", "norms", ERROR, LEFT)
DASHES = ("-", "--", "-.", ":") * 2
"""Of lines that may coincide: one shows in the gaps of another."""
PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "collapse": {
        "nc1": (BLUE, "NC1"),
        "nc2": (ORANGE, "NC2, classifier"),
        "nc2_means": (VERMILION, "NC2, means"),
        "nc3": (GREEN, "NC3"),
        "nc4": (PURPLE, "NC4"),
    },
    "unbiased mean scores, mean bias": {
        "positive": (POSITIVE, "positive score"),
        "negative": (NEGATIVE, "negative score"),
        "bias": (BIAS, "bias"),
    },
    "norms": {"weight_norm": (BLUE, "$\\|W\\|_F$"), "feature_norm": (ORANGE, "feature, root mean square")},
    "mean cosine between classes": {
        "classifier_cosine": (BLUE, "rows of $W$"),
        "feature_cosine": (ORANGE, "class means"),
    },
    ERROR: {
        "uniform": (VERMILION, "uniform"),
        "class_wise": (ORANGE, "class-wise"),
        "sample_wise": (BLUE, "sample-wise"),
        "with_bias": (GRAY, "usual, with bias"),
    },
}
"""Title of every panel; column, color and label of its lines."""
LEAST = 1e-12
"""What is drawn on a logarithmic axis is larger: below there is only rounding of float64."""


def history(columns: Mapping[str, Any], predicted: Mapping[str, float]) -> Figure:
    """Five panels over steps, and what is left between measured and predicted.

    Args:
        columns: of a `ufm.networks.History`, each (rows,).
        predicted: ends of some of them, drawn as dashed lines.

    Returns:
        A figure of its own, unknown to pyplot.

    >>> import numpy as np
    >>> names = ["step", *(name for lines in PANELS.values() for name in lines)]
    >>> figure = history({name: np.array([1.0, 0.5]) for name in names}, {"positive": 0.4})
    >>> [len(axes.lines) for axes in figure.axes], figure.axes[0].get_yscale()
    ([5, 4, 2, 2, 4, 1], 'log')
    """
    steps = np.asarray(columns["step"])
    known = {n: line for lines in PANELS.values() for n, line in lines.items() if n in predicted}
    left = {n: (np.abs(columns[n] - predicted[n]), *line) for n, line in known.items() if not n.startswith("nc")}
    with style():
        figure = Figure(figsize=(13.0, 7.0))
        panels = list(figure.subplots(2, 3).flat)
        for axes, (title, lines) in zip(panels, PANELS.items(), strict=False):
            values = {name: (columns[name], *line) for name, line in lines.items()}
            if title == ERROR:
                values = {name: (1.0 - accuracy, *line) for name, (accuracy, *line) in values.items()}
            _panel(axes, title, steps, values, predicted)
        _panel(panels[-1], LEFT, steps, left, {})
        panels[-1].set_visible(bool(left))
    return figure


def _panel(axes: Any, title: str, steps: Any, lines: Mapping[str, Any], predicted: Mapping[str, float]) -> None:
    logarithmic = title in LOGARITHMIC
    for (name, (values, color, label)), dashes in zip(lines.items(), DASHES, strict=False):
        shown = np.where(values > LEAST, values, np.nan) if logarithmic else values
        dashes = dashes if title in (ERROR, LEFT) else "-"
        axes.plot(steps, shown, dashes, marker="o", markersize=3, color=color, label=label)
        if name in predicted and not (logarithmic and predicted[name] <= LEAST):
            axes.axhline(predicted[name], color=color, linestyle="--", linewidth=1)
    positive = steps[steps > 0]
    if len(positive) > 1:  # linear up to the first step where some are not positive
        axes.set_xscale("log") if len(positive) == len(steps) else axes.set_xscale("symlog", linthresh=positive[0])
    if len(steps) > 1:
        axes.set_xlim(steps[0], steps[-1])
    if logarithmic:
        axes.set_yscale("log")
    axes.set(title=title, xlabel="step")
    if lines:
        axes.legend(fontsize="small")

"""Scores and bias: against a hyper-parameter, and along training, with the prediction on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ufm.plotting.style import BIAS, GRAY, NEGATIVE, POSITIVE, style

SERIES = {
    "positive": (POSITIVE, "positive score  $w_k^\\top h_k$"),
    "negative": (NEGATIVE, "negative score  $w_j^\\top h_k$"),
    "bias": (BIAS, "bias  $b$"),
}


def scores_against(
    x: Any,
    measured: Mapping[str, Any],
    predicted: Mapping[str, Any] | None = None,
    *,
    label: str,
    predicted_x: Any = None,
    boundary: float | None = None,
    title: str = "",
) -> Figure:
    """Measured scores and bias (points) over a hyper-parameter, predicted ones (lines) on top.

    Args:
        x: values of the hyper-parameter (m,).
        measured: ``positive``, ``negative`` and ``bias``, each (m,).
        predicted: the same keys over ``predicted_x`` (``x`` if not given).
        label: symbol and meaning of the hyper-parameter.
        predicted_x: finer values of the hyper-parameter for the lines.
        boundary: marks where the regime changes.
        title: of the figure.

    Returns:
        A figure of pyplot, to be saved and closed by the caller.

    >>> import matplotlib.pyplot as plt, ufm, ufm.plotting
    >>> decays = [0.01, 0.1, 1.0]
    >>> best = [ufm.theory.minimizer(ufm.Problem(3, 4, 5, decay=ufm.Decay(0.01, 0.01, b))) for b in decays]
    >>> scores = {"positive": [(m.shift + 2 * m.gap) / 3 for m in best], "bias": [m.bias for m in best]}
    >>> scores["negative"] = [(m.shift - m.gap) / 3 for m in best]
    >>> figure = ufm.plotting.scores_against(decays, scores, scores, label="decay of the bias")
    >>> axes = figure.axes[0]
    >>> axes.get_xlabel(), axes.get_xscale(), len(axes.lines)
    ('decay of the bias', 'log', 6)
    >>> plt.close(figure)
    """
    x = np.asarray(x)
    with style():
        figure, axes = plt.subplots(figsize=(6, 4))
        for name, (color, text) in SERIES.items():
            axes.plot(x, measured[name], "o", color=color, alpha=0.6, label=text)
            if predicted is not None:
                axes.plot(x if predicted_x is None else predicted_x, predicted[name], "-", color=color, zorder=3)
        if boundary is not None:
            axes.axvline(boundary, color=GRAY, linestyle=":", label="regime boundary")
        if np.all(x > 0):
            axes.set_xscale("log")
        axes.set(xlabel=label, ylabel="score or bias", title=title)
        axes.legend()
    return figure


def training(trajectory: Mapping[str, Any], every: int, predicted: Mapping[str, float], title: str = "") -> Figure:
    """Scores and bias along a recorded trajectory, with the predicted limits as dashed lines.

    Args:
        trajectory: `Solution.trajectory` of a `Gradient` run.
        every: steps between records.
        predicted: limit of ``positive``, ``negative`` and ``bias``.
        title: of the figure.

    Returns:
        A figure of pyplot, to be saved and closed by the caller.

    >>> import matplotlib.pyplot as plt, ufm, ufm.plotting
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> sgd = ufm.solvers.parse("sgd:lr=0.5", max_steps=200, record_every=20)
    >>> run, a = ufm.solve(problem, solver=sgd), ufm.theory.minimizer(problem).gap
    >>> limits = {"positive": a * 2 / 3, "negative": -a / 3, "bias": 0.0}
    >>> figure = ufm.plotting.training(run.trajectory, 20, limits)
    >>> axes = figure.axes[0]
    >>> axes.get_xlabel(), axes.lines[0].get_xdata().tolist()[-1], len(axes.lines)
    ('gradient step', 200, 6)
    >>> plt.close(figure)
    """
    with style():
        figure, axes = plt.subplots(figsize=(6, 4))
        for name, (color, text) in SERIES.items():
            values = np.asarray(trajectory[name])
            axes.plot(every * np.arange(values.size), values, color=color, label=text)
            axes.axhline(predicted[name], color=color, linestyle="--", linewidth=1)
        axes.set(xlabel="gradient step", ylabel="score or bias", title=title)
        axes.legend()
    return figure

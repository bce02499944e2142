"""What theory says of the lanes along one axis."""

from __future__ import annotations

import numpy as np

from ufm import theory
from ufm.sweeps._axes import START, leaf_names
from ufm.sweeps._result import Sweep

NOTES = {True: "lines: closed form", False: "dashed lines: best symmetric point, not proven to be the minimum"}
"""What a line of predictions is, by whether every one of them is exact."""
FINE = 60
"""Points of a line over a continuous axis."""


def predicted(sweep: Sweep, x: str) -> dict[str, np.ndarray] | None:
    """Scores and bias of the closed-form minimiser along axis ``x`` of a one-panel sweep; None without one.

    A shift-invariant loss without a decay of the bias leaves the mean bias free. Gradient descent then keeps that
    of the start (sum of the bias gradients = decay_b times sum of b), which is what is predicted.

    Returns:
        ``x`` (m,) and ``positive``, ``negative``, ``bias`` (m,); ``exact`` (m,) is 1 where the point is proven to be
        the minimizer and 0 where it is the best symmetric point only.
    """
    if sweep.problem is None:
        return None
    values = sweep.coords[x]
    places = values
    if x not in START and x.split(",")[0] in leaf_names(sweep.problem) and values.size > 1:
        spaced = np.geomspace if values.min() > 0 and values.max() >= 50 * values.min() else np.linspace
        places = spaced(values.min(), values.max(), FINE)
    rows = []
    closed = None
    for place in places:
        problem = sweep.problem_at(**{x: place})
        if closed is None or x not in START:
            closed = theory.predict(problem)
        if closed is None:
            return None
        free = problem.loss.shift_invariant and (problem.bias != "none") and float(problem.decay.b) == 0.0
        bias = closed.bias
        if free:
            bias = place if x == "bias_mean" else float(sweep.info["start"]["bias_mean"])
        K = problem.classes
        mean = closed.shift / K
        rows.append((place, closed.gap * (K - 1) / K + mean, -closed.gap / K + mean, bias, closed.exact))
    return dict(zip(("x", "positive", "negative", "bias", "exact"), np.array(rows, float).T, strict=True))

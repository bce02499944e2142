"""One style for every figure: color-blind safe (Okabe & Ito 2008), vector fonts, quiet axes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, GRAY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#666666",
)
POSITIVE, NEGATIVE, BIAS = BLUE, VERMILION, GREEN
"""Colors of positive scores, negative scores and bias in every figure."""

_SETTINGS: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "lines.markersize": 5,
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """Settings of the figures drawn inside the context; the caller's settings are left alone."""
    with mpl.rc_context(_SETTINGS):
        yield

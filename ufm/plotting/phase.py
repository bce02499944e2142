"""Phase diagrams: the predicted regions, the solved points on top, and in red those on the wrong side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ufm.plotting.style import BLUE, GREEN, GREY, ORANGE, style

COLOURS = (GREY, BLUE, ORANGE, GREEN)
RED = "#E00000"


def phase(
    axes_of: tuple[Any, Any],
    lattice: Any,
    points: Sequence[Any],
    regimes: Sequence[str],
    *,
    labels: tuple[str, str],
    title: str = "",
) -> Figure:
    """Regions and boundary of ``lattice`` with the solved ``points`` on top.

    Args:
        axes_of: x (m,) and y (m,) of the lattice.
        lattice: index of the predicted regime (m, m), y first.
        points: each with ``x``, ``y``, ``measured``, ``certified`` and ``wrong``.
        regimes: their names, in the order of the indices.
        labels: of the two axes.
        title: of the figure.

    Returns:
        A figure of pyplot, to be saved and closed by the caller.

    >>> from types import SimpleNamespace
    >>> import matplotlib.pyplot as plt, ufm, ufm.plotting
    >>> diagram = ufm.atlas.diagram("merging")
    >>> solved = SimpleNamespace(x=3.0, y=0.2, measured="merged", certified=True, wrong=False)   # or diagram.solve()
    >>> labels = (diagram.x_label, diagram.y_label)
    >>> figure = ufm.plotting.phase(diagram.axes(8), diagram.lattice(8), [solved], diagram.regimes, labels=labels)
    >>> figure.axes[0].get_xlabel(), [text.get_text() for text in figure.legends[0].get_texts()]
    ('ratio of the counts', ['merged'])
    >>> plt.close(figure)
    """
    x, y = axes_of
    colours = dict(zip(regimes, COLOURS, strict=False))
    with style():
        figure, axes = plt.subplots(figsize=(6.4, 4.8))
        last = len(regimes) - 1
        faint = ListedColormap([colours[r] for r in regimes])
        axes.pcolormesh(x, y, lattice, cmap=faint, vmin=-0.5, vmax=last + 0.5, alpha=0.18, shading="nearest")
        for i in range(len(regimes)):
            member = np.asarray(lattice) == i
            if member.any() and not member.all():
                axes.contour(x, y, member.astype(float), levels=[0.5], colors="black", linewidths=0.8)

        def dots(own: list[Any], marker: str, colour: str, label: str) -> None:
            if own:
                x, y = [p.x for p in own], [p.y for p in own]
                axes.plot(x, y, marker, color=colour, label=label, clip_on=False)

        for r in regimes:
            dots([p for p in points if p.measured == r and p.certified and not p.wrong], "o", colours[r], r)
        dots([p for p in points if not p.certified], "x", "black", "not certified")
        dots([p for p in points if p.wrong], "s", RED, "wrong side")
        axes.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1], title=title)
        axes.grid(visible=False)
        figure.legend(loc="outside lower center", ncols=5)
    return figure

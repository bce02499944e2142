"""Phase diagrams: the predicted regions, the solved points on top, and in red those on the wrong side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ufm._base import require
from ufm.plotting.style import BLUE, GRAY, GREEN, ORANGE, style

if TYPE_CHECKING:
    from ufm.atlas import Diagram, Point

COLORS = (GRAY, BLUE, ORANGE, GREEN)
RED = "#E00000"


def phase(diagram: Diagram, points: Sequence[Point], lattice: int = 160) -> Figure:
    """Predicted regions and boundaries of a ``diagram`` with the solved ``points`` on top.

    Args:
        diagram: from `ufm.atlas.diagram`.
        points: what its ``solve`` returned.
        lattice: predictions along each axis, >= 2.

    Returns:
        A figure of pyplot, to be saved and closed by the caller.

    Raises:
        InputError: on a lattice of fewer.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import matplotlib.pyplot as plt, ufm, ufm.plotting
    >>> diagram = ufm.atlas.diagram("merging")
    >>> figure = ufm.plotting.phase(diagram, diagram.solve(2), lattice=8)
    >>> figure.axes[0].get_xlabel(), [text.get_text() for text in figure.legends[0].get_texts()]
    ('$n_1/n_5$, samples, a large class over a small one', ['zero', 'merged', 'apart'])
    >>> plt.close(figure)
    """
    require(isinstance(lattice, int) and lattice >= 2, "lattice", lattice, "a whole number >= 2")
    regimes, regions = diagram.regimes, diagram.lattice(lattice)
    x, y = diagram.axes(lattice)
    colors = dict(zip(regimes, COLORS, strict=False))
    with style():
        figure, axes = plt.subplots(figsize=(6.4, 4.8))
        last = len(regimes) - 1
        faint = ListedColormap([colors[r] for r in regimes])
        axes.pcolormesh(x, y, regions, cmap=faint, vmin=-0.5, vmax=last + 0.5, alpha=0.18, shading="nearest")
        for i in range(len(regimes)):
            member = regions == i
            if member.any() and not member.all():
                axes.contour(x, y, member.astype(float), levels=[0.5], colors="black", linewidths=0.8, zorder=3)

        def dots(own: list[Point], marker: str, color: str, label: str, **options: Any) -> None:
            if own:
                x, y = [p.x for p in own], [p.y for p in own]
                axes.plot(x, y, marker, color=color, label=label, clip_on=False, **options)

        for i, r in enumerate(regimes):
            if (regions == i).any() and not any(p.measured == r and p.certified and not p.wrong for p in points):
                axes.fill([], [], color=colors[r], alpha=0.18, label=r)
            dots([p for p in points if p.measured == r and p.certified and not p.wrong], "o", colors[r], r)
        unconverged = [p for p in points if not p.ended]
        dots([p for p in points if not p.certified and p not in unconverged], "x", "black", "not certified")
        dots(unconverged, "o", "black", "unconverged", markerfacecolor="none")
        dots([p for p in points if p.wrong], "s", RED, "wrong side")
        note = f"\n{len(unconverged)} of {len(points)} solves did not converge (hollow)" if unconverged else ""
        title = diagram.title + note
        axes.set(xscale="log", yscale="log", xlabel=diagram.x_label, ylabel=diagram.y_label, title=title)
        axes.grid(visible=False)
        for axis, values in ((axes.xaxis, x), (axes.yaxis, y)):
            if values[-1] < 100 * values[0]:  # too few powers of ten to read by
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        figure.legend(loc="outside lower center", ncols=5)
    return figure

"""Pictures of the landscape: spectra, the ladder, slices, paths and derivative checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

if TYPE_CHECKING:
    from ufm.landscape.critical import CriticalPoint
    from ufm.landscape.derivatives import DerivativeCheck
    from ufm.landscape.descent import Descent
    from ufm.landscape.eigen import Density
    from ufm.landscape.slices import Slice
    from ufm.theory import Rung, Spectrum

BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"  # Okabe & Ito 2008


def _axes(ax: Any) -> Any:
    return ax if ax is not None else plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1]


def spectrum(exact: Spectrum, density: Density | None = None, ax: Any = None) -> Any:
    """Eigenvalues with their multiplicities as stems, over a measured density scaled to counts."""
    ax = _axes(ax)
    merged = exact.distinct(1e-9)
    if density is not None:
        # Each distinct eigenvalue owns the cell halfway to its neighbors: counts compare like with like.
        values = np.array([v for v, _ in merged])
        edges = np.concatenate([[-np.inf], 0.5 * (values[1:] + values[:-1]), [np.inf]])
        counts = [density.count(a, b) for a, b in itertools.pairwise(edges)]
        mean, error = np.array(counts).T
        low = np.minimum(error, 0.95 * mean)
        ax.errorbar(values, mean, [low, error], fmt="o", color=ORANGE, ms=8, mfc="none", label="measured (quadrature)")
    for value, times in merged:
        kernel = abs(value) <= exact.zero
        ax.vlines(value, 0.5, times, color=GREEN if kernel else BLUE, lw=1.5)
        ax.plot(value, times, "x" if kernel else ".", color=GREEN if kernel else BLUE, ms=7)
    name = "eigenvalue, measured" if set(exact.blocks) == {"measured"} else "eigenvalue, exact"
    ax.plot([], [], ".-", color=BLUE, label=name)
    if exact.kernel:
        ax.plot([], [], "x-", color=GREEN, label=f"kernel, dimension {exact.kernel}")
    ax.set(xlabel=r"Hessian eigenvalue $\lambda$", ylabel="multiplicity", yscale="log", ylim=(0.5, None))
    smallest = float(np.min(np.abs(exact.eigenvalues[np.abs(exact.eigenvalues) > exact.zero]), initial=exact.largest))
    linear = 10.0 ** np.floor(np.log10(max(smallest, 1e-12)))
    ax.set_xscale("symlog", linthresh=linear)
    ax.set_xlim(-0.5 * linear if not exact.index else None, 1.5 * exact.largest)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend()
    return ax


def ladder(points: Sequence[CriticalPoint], rungs: Iterable[Rung] = (), ax: Any = None) -> Any:
    """Index against value: critical points found, and the exact rungs over them."""
    ax = _axes(ax)
    if points:
        ax.plot(
            [p.value for p in points], [p.index for p in points], "o", color=ORANGE, ms=9, mfc="none", label="found"
        )
    for i, rung in enumerate(rungs):
        ax.plot(
            rung.value, rung.spectrum.index, "+", color=BLUE, ms=9, label="merged classes, exact" if not i else None
        )
        name = "+".join(map(str, rung.groups))
        ax.annotate(name, (rung.value, rung.spectrum.index), (6, -11), textcoords="offset points", fontsize=8)
    ax.set(xlabel="objective $f$", ylabel="index (negative eigenvalues)")
    ax.margins(x=0.12, y=0.1)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def plane(
    values: Slice, labels: tuple[str, str] = ("$s$", "$t$"), origin: str = "origin", ax: Any = None, end: str = ""
) -> Any:
    """Contours of the objective on a plane, evenly spaced in rank so that flat parts show; the ``origin`` marked.

    ``end``, if named, marks the point s = 1, t = 0.
    """
    ax = _axes(ax)
    levels = np.unique(np.quantile(values.values, np.linspace(0.0, 1.0, 25)))
    norm = BoundaryNorm(levels, 256)
    filled = ax.contourf(values.s, values.t, values.values.T, levels=levels, cmap="cividis", norm=norm)
    ax.contour(values.s, values.t, values.values.T, levels=levels, colors="k", linewidths=0.3)
    ax.figure.colorbar(filled, ax=ax, label="objective $f$, even in rank", ticks=levels[::4], format="%.3g")
    for name, s in ((origin, 0.0), (end, 1.0)):
        if name:
            ax.plot(s, 0.0, "o", color="white", mec="black", ms=6)
            text = ax.annotate(name, (s, 0.0), (0, 8), textcoords="offset points", color="white", ha="center")
            text.set_path_effects([withStroke(linewidth=2, foreground="black")])
    ax.set(xlabel=labels[0], ylabel=labels[1])
    return ax


def path(fractions: np.ndarray, values: np.ndarray, ax: Any = None, label: str | None = None) -> Any:
    """The objective along a straight path."""
    ax = _axes(ax)
    styles = itertools.cycle(itertools.product(("-", "--", ":"), (BLUE, ORANGE, GREEN)))
    style, color = next(itertools.islice(styles, len(ax.lines), None))
    ax.plot(fractions, values, style, color=color, label=label)
    ax.set(xlabel="fraction of the way $s$", ylabel="objective $f$")
    if label is not None:
        ax.legend()
    return ax


def descent(run: Descent, ax: Any = None, label: str | None = None, color: str = BLUE) -> Any:
    """Objective against time, thick where near a rung, whose exact values are the horizontal lines."""
    ax = _axes(ax)
    drawn = {line.get_gid() for line in ax.lines}
    for rung in run.rungs:
        name = "+".join(map(str, rung.groups))
        if name not in drawn:
            ax.axhline(rung.value, color="0.6", lw=0.8, ls="--", gid=name, zorder=1)
            ax.annotate(name, (0.99, rung.value), (0, 2), ("axes fraction", "data"), "offset points", ha="right")
    ax.plot(run.times, run.values, color=color, lw=1, label=label)
    for _, start, end in run.plateaus:
        stay = (run.times >= start) & (run.times <= end)
        ax.plot(run.times[stay], run.values[stay], color=color, lw=3.5, solid_capstyle="round")
    ax.set(xlabel="time (steps times step size)", ylabel="objective $f$")
    ax.set_xlim(0, max(run.times[-1], ax.get_xlim()[1] if drawn else 0.0))
    if label is not None:
        ax.legend()
    return ax


def derivatives(check: DerivativeCheck, ax: Any = None) -> Any:
    """Taylor remainders against the step, with the slopes they should have."""
    ax = _axes(ax)
    for rows, order, color in ((check.first, 2, BLUE), (check.second, 3, ORANGE)):
        middle = np.median(rows, axis=0)
        ax.loglog(check.steps, np.maximum(middle, 1e-18), "o", ms=3, color=color, label=f"order {order - 1} remainder")
        ax.loglog(check.steps, middle[0] * check.steps**order, "--", color=BLACK, lw=1)
    ax.set(xlabel="step $t$", ylabel="Taylor remainder", ylim=(1e-18, None))
    ax.set_title(check.verdict.replace(": ", ":\n"), fontsize=9)
    ax.legend()
    return ax

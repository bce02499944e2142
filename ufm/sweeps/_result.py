"""The result of a sweep: named axes and one NumPy array per quantity."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufm._base import require, require_known
from ufm.problem import Problem
from ufm.solvers import Status, answered
from ufm.sweeps._axes import START, STATIC, canonical, entry, leaf_names, with_static, with_value
from ufm.theory import Regime, predict

_LABELS: dict[str, Any] = {"status": Status, "regime": Regime}
"""Quantities that are one of a few."""
_FINE = 60
"""Points of a predicted line over a continuous axis: a figure of 500 pixels shows no corner."""


@dataclass(frozen=True)
class Sweep:
    """Results of a sweep, labeled.

    Attributes:
        coords: value of every axis by name.
        dims: names of the dimensions: the axes of a grid, or ``("lane",)`` for a list, along which every
            entry of ``coords`` then runs.
        data: arrays (dims...) by name: ``value``, ``lower_bound``, ``gap`` and its ``rounding``; ``regime`` (a
            `ufm.theory.Regime`); ``bias``, ``bias_std``, ``bias_start``; unbiased scores ``positive`` and
            ``negative`` with ``_min`` and ``_max``; ``nc1`` to ``nc4``; ``grad_norm``, ``residual``, ``steps``,
            ``evaluations``; ``status`` (a `ufm.Status`). A failed lane is NaN, with its status. A lane that is not
            ``solved`` has no regime: -1, "unconverged" in words.
            Trajectories have one dimension more, and names that begin with ``trajectory.``. Where several versions
            solved lanes of a directory, ``origin`` is a lane's place in ``info["solved_with"]``.
        problem: what was varied; None where it was not stored (a user's own loss).
        info: lanes, chunks, engine, devices, ``useful`` (share of the evaluations made that some lane
            needed) and the rest of the manifest; from a directory also ``progress`` and ``solved_with``.
    """

    coords: dict[str, np.ndarray]
    dims: tuple[str, ...]
    data: dict[str, np.ndarray]
    problem: Problem | None
    info: dict[str, Any]

    def __getitem__(self, name: str) -> np.ndarray:
        require_known("quantity", name, self.data)
        return self.data[name]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {size}" for name, size in zip(self.dims, self["status"].shape, strict=True))
        return f"Sweep({sizes}; {self.statuses})"

    @property
    def statuses(self) -> dict[str, int]:
        """How many lanes ended how."""
        return self._counted("status")

    @property
    def solved(self) -> np.ndarray:
        """Which lanes (dims...) ended at a solution: see `ufm.solvers.answered`."""
        return np.asarray(answered(*(self[name] for name in ("status", "value", "gap", "rounding"))))

    @property
    def regimes(self) -> dict[str, int]:
        """How many lanes have which minimizer; ``"unconverged"`` where a lane is not solved."""
        return self._counted("regime")

    @staticmethod
    def labels(quantity: str) -> dict[int, str]:
        """Words of a quantity that is one of a few, by its number; empty for one that is measured.

        >>> Sweep.labels("regime")
        {0: 'zero', 1: 'etf', 2: 'mean-shifted'}
        """
        return {int(one): one.label for one in _LABELS.get(quantity, ())}

    def _counted(self, name: str) -> dict[str, int]:
        values = self.data.get(name, np.empty(0))
        if name == "regime":  # a lane that is still to be solved is neither here nor there
            values = values[self["status"] != Status.RUNNING]
        values, counts = np.unique(values, return_counts=True)
        return {_label(name, v): int(n) for v, n in zip(values, counts, strict=True)}

    def select(self, **choice: Any) -> Sweep:
        """The part of a grid at one value of each axis given, by value: ``select(loss="ce", **{"decay.b": 0.1})``."""
        data, dims, coords = self.data, self.dims, dict(self.coords)
        problem = self.problem
        for name, value in choice.items():
            require_known("axis", name, dims)
            where = np.flatnonzero(coords[name] == value)
            require(len(where) == 1, name, value, f"one of {coords[name].tolist()}")
            axis, place = dims.index(name), int(where[0])
            data = {key: np.take(x, place, axis=axis) for key, x in data.items()}
            coord = coords.pop(name)[place]
            dims = dims[:axis] + dims[axis + 1 :]
            problem = None if problem is None else at(problem, {name: coord})
        return Sweep(coords, dims, data, problem, self.info)

    def problem_at(self, **choice: Any) -> Problem:
        """The problem of the lane at the given values of the axes; those not given keep the template's."""
        require(self.problem is not None, "problem", None, "stored, and a user's own loss is not")
        return at(self.problem, choice)  # type: ignore[arg-type]

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` (``pip install xarray``)."""
        try:
            import xarray
        except ImportError:
            raise ImportError("to_xarray needs `pip install xarray`") from None

        steps = {name: (*self.dims, "record") for name in self.data if name.startswith("trajectory.")}
        data = {name: (steps.get(name, self.dims), x) for name, x in self.data.items()}
        grid = self.dims != ("lane",)
        coords = {name: (name if grid else "lane", x) for name, x in self.coords.items()}
        flat = {k: v for k, v in self.info.items() if isinstance(v, (str, int, float))}
        return xarray.Dataset(data, coords, attrs=flat)

    def plot(self, quantity: str | None = None, x: str | None = None) -> Any:
        """Scores and bias over an axis with the closed form on top, or one quantity over one axis or two.

        Args:
            quantity: a name in ``data`` with a number per lane. With two numeric axes it becomes a heat map (the
                median over seeds), with one, or one that is named, a line.
            x: the numeric axis of a line; the first one if not given.

        Returns:
            A `matplotlib.figure.Figure` with a panel for every other choice; ``.savefig("own.png")`` writes it.

        Raises:
            InputError: for a quantity or an axis that this sweep does not have.

        >>> import jax; jax.config.update("jax_enable_x64", True)
        >>> import ufm
        >>> problem = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01), features="per_class")
        >>> found = ufm.sweep(problem, {"decay.W": [0.01, 0.1, 10.0], "seed": range(2)})
        >>> found.plot("value").axes[0].get_ylabel()
        'value'
        """
        from ufm.plotting.sweep import heat_map, line_plot, numeric_axes, scores_and_bias

        if quantity is None:
            return scores_and_bias(self, x)
        return heat_map(self, quantity) if x is None and len(numeric_axes(self)) > 1 else line_plot(self, quantity, x)

    def predicted(self, x: str) -> dict[str, np.ndarray] | None:
        """Scores and bias of the closed-form minimizer along axis ``x``, the only one; None without one.

        A shift-invariant loss without a decay of the bias leaves the mean bias free. Gradient descent then keeps that
        of the start (sum of the bias gradients = decay_b times sum of b), which is what is predicted.

        Returns:
            ``x`` (m,) and ``positive``, ``negative``, ``bias`` (m,); ``exact`` (m,) is 1 where the point is proven to
            be the minimizer and 0 where it is the best symmetric point only.
        """
        if self.problem is None:
            return None
        values = self.coords[x]
        places = values
        first = canonical(x).split(",")[0]  # counts are whole numbers: nothing lies between them
        if first in leaf_names(self.problem) and not first.startswith("per_class") and values.size > 1:
            spaced = np.geomspace if values.min() > 0 and values.max() >= 50 * values.min() else np.linspace
            places = spaced(values.min(), values.max(), _FINE)
        rows = []
        closed = None
        for place in places:
            problem = self.problem_at(**{x: place})
            if closed is None or x not in START:
                closed = predict(problem)
            if closed is None:
                return None
            free = problem.loss.shift_invariant and (problem.bias != "none") and float(problem.decay.b) == 0.0
            bias = closed.bias
            if free:
                bias = place if x == "bias_mean" else float(self.info["start"]["bias_mean"])
            K = problem.classes
            mean = closed.shift / K
            rows.append((place, closed.gap * (K - 1) / K + mean, -closed.gap / K + mean, bias, closed.exact))
        return dict(zip(("x", "positive", "negative", "bias", "exact"), np.array(rows, float).T, strict=True))

    def summary(self) -> dict[str, Any]:
        """Counts and ranges, for a table or JSON."""
        ranges = {}
        ended = self["status"] != Status.RUNNING
        for name, values in self.data.items():
            if values.ndim != len(self.dims) or name in (*_LABELS, "origin"):
                continue
            finite = values[np.isfinite(values) & ended]
            if finite.size:
                ranges[name] = {"min": finite.min(), "median": np.median(finite), "max": finite.max()}
        return {
            "lanes": int(self["status"].size),
            "axes": {name: coord.tolist() for name, coord in self.coords.items() if self.dims != ("lane",)},
            "status": self.statuses,
            "regime": self.regimes,
            "ranges": ranges,
            **self.info,
        }

    def save_table(self, path: str | Path) -> None:
        """All lanes as comma-separated values, one line each, trajectories left out."""
        columns = self.table()
        with Path(path).open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([list(columns), *zip(*columns.values(), strict=True)])

    def table(self) -> dict[str, list]:
        """Axes and quantities of every lane, flat, by name; statuses and regimes in words."""
        shape = self["status"].shape
        if self.dims == ("lane",):
            places: tuple = tuple(np.arange(shape[0]) for _ in self.coords)
        else:
            places = np.unravel_index(np.arange(int(np.prod(shape))), shape) if shape else ()
        axes = {name: coord[i].tolist() for (name, coord), i in zip(self.coords.items(), places, strict=True)}
        flat = {k: x.ravel().tolist() for k, x in self.data.items() if x.ndim == len(shape)}
        return axes | flat | {k: [_label(k, v) for v in flat[k]] for k in _LABELS if k in flat}


def _label(name: str, value: int) -> str:
    return "unconverged" if value < 0 else _LABELS[name](int(value)).label


def at(problem: Problem, choice: Mapping[str, Any]) -> Problem:
    """``problem`` with static choices and leaves from ``choice``; the start and the solver are left out."""
    static = {k: v.item() if isinstance(v, np.generic) else v for k, v in choice.items() if k in STATIC}
    problem = with_static(problem, static)
    for name, value in choice.items():
        for part in canonical(name).split(","):
            leaf, place = entry(part)
            if leaf in leaf_names(problem) and (leaf not in STATIC or place is not None):
                problem = with_value(problem, part, value)
    return problem

"""Phase diagrams: certified points against a predicted boundary, over two hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ufm._base import require, require_known
from ufm._parallel import in_parallel
from ufm.atlas._claims import weight
from ufm.atlas._core import CERTIFIED, Evidence
from ufm.atlas.papers.hong2024 import MERGED
from ufm.losses import BCE, CE, MSE
from ufm.problem import Decay, Problem
from ufm.solvers import answered
from ufm.sweeps.lane import parts, smallest
from ufm.theory import Regime
from ufm.theory.minimizer import symmetric_minimizer

COARSE = 8
"""Steps of a lattice between predictions that are always made: a region narrower than that may be missed."""
UNCONVERGED = "unconverged"
"""In place of a regime where a solve did not end at a solution (`ufm.solvers.answered`)."""
MARGIN = 0.02
"""A point may lie on the wrong side of a predicted line by this much in the logarithm of either axis."""


@dataclass(frozen=True)
class Point:
    """One solved problem of a diagram.

    Attributes:
        x: first hyper-parameter.
        y: second one.
        measured: regime of the solution, `UNCONVERGED` where the solve did not end at one.
        predicted: regimes that the theory gives within `MARGIN` of the point.
        gap: certified gap over ``max(1, f)``.
    """

    x: float
    y: float
    measured: str
    predicted: tuple[str, ...]
    gap: float

    @property
    def ended(self) -> bool:
        """Whether the solve ended at a solution."""
        return self.measured != UNCONVERGED

    @property
    def certified(self) -> bool:
        """Whether the solve ended at a solution that is known to be global."""
        return self.ended and self.gap <= CERTIFIED

    @property
    def wrong(self) -> bool:
        """Certified, and in a regime that is predicted nowhere near."""
        return self.certified and self.measured not in self.predicted


@dataclass(frozen=True)
class Diagram:
    """A family of problems over two hyper-parameters.

    Attributes:
        name: for the command line.
        title: for the figure.
        x_label: of the first axis.
        y_label: of the second axis.
        x_range: of the first axis.
        y_range: of the second axis.
        regimes: their names.
        problem: the problem at (x, y).
        predicted: the regime at (x, y), by a formula.
        measured: the regime of a solution.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    regimes: tuple[str, ...]
    problem: Callable[[float, float], Problem]
    predicted: Callable[[Problem], str]
    measured: Callable[[Evidence], str]

    def axes(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Logarithmic grids of both hyper-parameters."""
        return np.geomspace(*self.x_range, points), np.geomspace(*self.y_range, points)

    def lattice(self, points: int) -> np.ndarray:
        """Index of the predicted regime on a grid (points, points), y first: for the boundary's line.

        A square of `COARSE` steps whose corners agree is taken to be of one regime; others are halved.
        """
        xs, ys = self.axes(points)
        known: dict[tuple[int, int], int] = {}

        def regime(j: int, i: int) -> int:
            if (j, i) not in known:
                known[j, i] = self.regimes.index(self.predicted(self.problem(float(xs[i]), float(ys[j]))))
            return known[j, i]

        found = np.empty((points, points), int)

        def fill(j: int, i: int, size: int) -> None:
            bottom, right = min(j + size, points - 1), min(i + size, points - 1)
            corners = {regime(y, x) for y in (j, bottom) for x in (i, right)}
            if len(corners) == 1:
                found[j : bottom + 1, i : right + 1] = corners.pop()
            elif size > 1:
                half = size // 2
                for y in range(j, bottom, half):
                    for x in range(i, right, half):
                        fill(y, x, half)

        for j in range(0, points - 1, COARSE):
            for i in range(0, points - 1, COARSE):
                fill(j, i, COARSE)
        for at, index in known.items():
            found[at] = index
        return found

    def solve(self, points: int = 12, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> list[Point]:
        """Solve and certify a grid of ``points`` by ``points`` problems."""
        require(isinstance(points, int) and points >= 2, "points", points, "a whole number >= 2")
        xs, ys = self.axes(points)
        grid = [(float(x), float(y)) for y in ys for x in xs]
        done: list[Point] = []

        def one(at: tuple[float, float]) -> Point:
            evidence = Evidence(self.problem(*at), seed)
            steps = np.exp([-MARGIN, 0.0, MARGIN])
            near = tuple(
                dict.fromkeys(self.predicted(self.problem(at[0] * s, at[1] * t)) for s in steps for t in steps)
            )
            certificate = evidence.certificate
            ended = answered(int(evidence.solution.status), evidence.value, evidence.gap, float(certificate.rounding))
            measured = self.measured(evidence) if ended else UNCONVERGED
            point = Point(*at, measured, near, evidence.gap / max(1.0, abs(evidence.value)))
            done.append(point)
            if progress:
                progress(len(done), len(grid))
            return point

        # The first one compiles; the rest run that program.
        return [one(grid[0]), *in_parallel(one, grid[1:])]


# Balanced problems: zero, etf, mean-shifted over (decay_b, decay_W) --------------------------------


def _parts(evidence: Evidence) -> tuple[bool, bool]:
    """Whether the rows of the measured classifier share a mean, and whether they differ."""
    solution = evidence.solution
    shifted, split = parts(evidence.problem, solution.params.W, evidence.value, smallest(solution))
    return bool(shifted), bool(split)


def _regime(evidence: Evidence) -> str:
    shifted, split = _parts(evidence)
    if shifted:
        return "mean-shifted" if split else "mean only"
    return "etf" if split else "zero"


def _predicted_regime(problem: Problem) -> str:
    found = symmetric_minimizer(problem).reduction
    return "mean only" if found.regime == Regime.MEAN_SHIFTED and found.gap == 0 else Regime(int(found.regime)).label


def _balanced(loss: BCE | MSE, decay_h: float) -> Callable[[float, float], Problem]:
    return lambda x, y: Problem(5, 6, 2, loss, Decay(float(y), decay_h, float(x)))


def _bias_diagram(name: str, loss: BCE | MSE, decay_w: tuple[float, float], decay_b: tuple[float, float]) -> Diagram:
    return Diagram(
        name,
        f"{name.upper()}, K = 5, n = 2, $\\lambda_H$ = 0.02: the minimizer's regime",
        "$\\lambda_b$, decay of the bias",
        "$\\lambda_W$, decay of the classifier",
        decay_b,
        decay_w,
        ("zero", "etf", "mean-shifted", "mean only"),
        _balanced(loss, 0.02),
        _predicted_regime,
        _regime,
    )


# Imbalanced cross-entropy: merging over (ratio, decay) ---------------------------------------------

LARGE = 2
"""Classes with many samples; three others have few."""

SMALL = 1000
"""Samples of a small class: ratios are then right to a thousandth. Features count n times, so their decay is 1/n."""


def _step_problem(ratio: float, decay: float) -> Problem:
    counts = tuple(round(ratio * SMALL) if k < LARGE else SMALL for k in range(5))
    return Problem(5, 6, counts, CE(), Decay(decay, decay / SMALL, 0.0), "none", "per_class")


def _merging_regime(problem: Problem) -> str:
    """Hong & Ling's thresholds: ``||grad_Z(0)||`` for zero, ``sqrt(n_c)/N`` for the merging of the small classes."""
    n, allowed = problem.counts, weight(problem)
    at_zero = (1.0 / n.size - np.eye(n.size)) * np.sqrt(n)[None, :] / n.sum()
    if np.linalg.norm(at_zero, 2) <= allowed:
        return "zero"
    return "merged" if np.sqrt(n[-1]) / n.sum() <= allowed else "apart"


def _merging_measured(evidence: Evidence) -> str:
    if not any(_parts(evidence)):
        return "zero"
    rows = np.asarray(evidence.solution.params.W)[LARGE:]
    return "merged" if np.linalg.norm(rows - rows[0], axis=1).max() < MERGED else "apart"


DIAGRAMS: Sequence[Diagram] = (
    _bias_diagram("bce", BCE(), (2e-4, 3.0), (1e-3, 3.0)),
    _bias_diagram("mse", MSE(), (1e-3, 30.0), (1e-3, 10.0)),
    Diagram(
        "merging",
        "CE without bias, K = 5: do the three small classes merge?",
        "$n_1/n_5$, samples, a large class over a small one",
        "$\\lambda_W = \\lambda_H$, decay",
        (1.1, 30.0),
        (0.01, 0.6),
        ("zero", "merged", "apart"),
        _step_problem,
        _merging_regime,
        _merging_measured,
    ),
)


def diagram(name: str) -> Diagram:
    """A diagram by its name.

    Raises:
        InputError: for an unknown name; those that are known are the names of `DIAGRAMS`.

    >>> import ufm
    >>> merging = ufm.atlas.diagram("merging")
    >>> [[merging.regimes[i] for i in row] for row in merging.lattice(3)]    # decay by row, ratio by column
    [['apart', 'apart', 'apart'], ['apart', 'merged', 'merged'], ['zero', 'zero', 'zero']]
    """
    known = {d.name: d for d in DIAGRAMS}
    require_known("diagram", name, known)
    return known[name]

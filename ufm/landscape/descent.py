"""Saddle to saddle: what gradient descent visits on its way from the origin to collapse.

At the origin of a balanced problem the gradient with respect to Z has K - 1 *equal* singular values, so all
directions of collapse grow at one rate and a generic small start leaves for the minimizer at once, past the
rungs of the ladder. A rung is visited only when the start prefers its grouping: the gap between the sizes of
the coarse and the fine components, kept by the common growth rate, is how long the plateau lasts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ufm import symmetry, theory
from ufm._base import as_key, matmul, require
from ufm.landscape.critical import groups_of
from ufm.problem import Params, Problem
from ufm.solvers import Gradient, solve


@dataclass(frozen=True)
class Descent:
    """A run of gradient descent, each moment labeled by the rung of the ladder that it is near.

    Attributes:
        times: steps times the step size, the time of the gradient flow (T,).
        values: objective (T,).
        grad_norms: plain gradient norms (T,).
        labels: group sizes of the rung that is near, such as ``(2, 2)``; None where none is (T entries).
        rungs: the ladder that was looked for, descending in value.
    """

    times: np.ndarray
    values: np.ndarray
    grad_norms: np.ndarray
    labels: tuple[tuple[int, ...] | None, ...]
    rungs: tuple[theory.Rung, ...]

    @property
    def plateaus(self) -> list[tuple[tuple[int, ...], float, float]]:
        """``(groups, from, until)`` of every stay near a rung, in order of time."""
        stays = []
        for label, stay in itertools.groupby(range(len(self.times)), lambda i: self.labels[i]):
            moments = list(stay)
            if label is not None:
                stays.append((label, float(self.times[moments[0]]), float(self.times[moments[-1]])))
        return stays


def class_scores(problem: Problem, params: Params) -> dict[str, Array]:
    """``W h_k`` at the mean feature of each class (K, K), column k for class k."""
    H = params.H if problem.features == "per_class" else symmetry.means(problem, params.H)
    return {"scores": matmul(params.W, H)}


def near_rung(
    value: float, scores: np.ndarray, rungs: Sequence[theory.Rung], rtol: float = 0.02
) -> tuple[int, ...] | None:
    """Groups of the rung that a point is near, by its value and by the classes that it merges, or None.

    Args:
        value: objective at the point.
        scores: its class scores (K, K), whose equal rows are the merged classes.
        rungs: the candidates.
        rtol: allowed distance in value relative to the height of the ladder and, five times that, between rows
            that count as equal, relative to the largest scores on the ladder.
    """
    values = [rung.value for rung in rungs]
    height = max(values) - min(values)
    groups = groups_of(scores, 5 * rtol * max(float(np.linalg.norm(rung.scores, 2)) for rung in rungs))
    for rung in rungs:
        if groups == tuple(sorted(rung.groups, reverse=True)) and abs(value - rung.value) <= rtol * height:
            return groups
    return None


def nested_start(
    problem: Problem,
    key: Array | int,
    scale: float,
    through: Sequence[tuple[int, ...]] = (),
    separation: float = 1e-4,
    dtype: Any = jnp.float64,
) -> Params:
    """A random start of size ``scale`` that prefers the groupings ``through``, in that order.

    It sums a random point whose rows and features agree inside the groups of the first grouping, one of
    ``separation`` times the size for the next, and last a random point without any symmetry.
    """
    total = None
    for level, key_here in enumerate(jax.random.split(as_key(key), len(through) + 1)):
        part = problem.init(key_here, scale * separation**level, dtype=dtype)
        if level < len(through):
            # Every class, and every one of its samples, takes the values of the first class of its group.
            sizes = through[level]
            first = np.repeat(np.cumsum((0, *sizes[:-1])), sizes)
            column = np.searchsorted(problem.labels, first)[problem.labels]
            part = Params(part.W[first], part.H[:, column], part.b)
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    assert total is not None
    return total


def saddle_to_saddle(
    problem: Problem,
    key: Array | int = 0,
    scale: float = 1e-3,
    through: Sequence[tuple[int, ...]] = (),
    *,
    seed: int | None = None,
    separation: float = 1e-4,
    time: float | None = None,
    points: int = 400,
    rtol: float = 0.02,
) -> Descent:
    """Gradient descent from a small start, with the rungs of the coarse-label ladder that it comes near.

    Args:
        problem: balanced, free classifier.
        key: seed or JAX key of the start.
        seed: another name for a ``key`` that is a number.
        scale: of the start, `Problem.init`.
        through: groupings that the start prefers, coarse to fine, each sizes in class order that sum to K, such
            as ``[(2, 2)]``. Empty is the generic start, which goes to the minimizer at once (see the module).
        separation: how much smaller the components are that break each grouping.
        time: of the gradient flow; by default enough for every stage to grow and settle.
        points: moments recorded, at most.
        rtol: what counts as near, `near_rung`.

    Raises:
        NoClosedForm: for imbalanced counts or a fixed classifier, which have no ladder.

    >>> import ufm
    >>> problem = ufm.Problem(4, 6, 2, loss=ufm.losses.CE(), decay=ufm.Decay(5e-3, 5e-3, 5e-2))
    >>> [groups for groups, _, _ in saddle_to_saddle(problem, through=[(2, 2)]).plateaus]
    [(4,), (2, 2), (1, 1, 1, 1)]
    """
    require(bool(np.isfinite(scale)) and scale > 0, "scale", scale, "a finite number > 0")
    require(0 < separation < 1, "separation", separation, "between 0 and 1")
    through = [tuple(int(s) for s in groups) for groups in through]
    for groups in through:
        right = min(groups, default=0) >= 1 and sum(groups) == problem.classes
        require(right, "through", groups, f"sizes that sum to classes = {problem.classes}")
    equal = theory.ladder(problem)
    known = {rung.groups for rung in equal}
    rungs = equal + [theory.merged(problem, groups) for groups in through if groups not in known]
    rungs = sorted(rungs, key=lambda rung: -rung.value)
    largest = max(rung.spectrum.largest for rung in rungs)
    fall = [-rung.spectrum.eigenvalues[0] for rung in rungs if rung.spectrum.index]
    require(bool(fall), "problem", str(problem.loss), "one whose origin is a saddle: smaller decays")
    if time is None:
        time = 3.0 * -np.log(scale * separation ** len(through) * 1e-1) / min(fall)
    # Half the bound of stability at the rungs: between them the curvature can be a little larger.
    lr = 0.5 / largest
    every = max(int(np.ceil(time / lr / points)), 1)
    with jax.enable_x64(True):
        solver = Gradient(optax.sgd(lr), tol=0.0, max_steps=points * every, record_every=every, record=class_scores)
        start = nested_start(problem, as_key(key, seed), scale, through, separation)
        if start.b is not None:  # the bias of the top rung: its own relaxation is no part of the way
            start = Params(start.W, start.H, jnp.full_like(start.b, rungs[0].bias[0]))
        record = {k: np.asarray(v) for k, v in solve(problem, 0, solver, start).trajectory.items()}
    kept = np.isfinite(record["value"])
    values, scores = record["value"][kept], record["scores"][kept]
    labels = tuple(near_rung(v, s, rungs, rtol) for v, s in zip(values, scores, strict=True))
    times = lr * every * np.flatnonzero(kept)
    return Descent(times, values, record["grad_norm"][kept], labels, tuple(rungs))

"""The ladder of exact critical points at which classes share one prototype.

Merge the K classes into groups. By the principle of symmetric criticality (Palais 1979) a minimizer
among the points that are symmetric inside each group is a critical point of the whole problem. With m
equal groups of s = K/m it has class logits ``a (B B' - J/m) + (c/K) J + beta``, where (a, c, beta) solve
the scalar problem of `reduction` for m classes, ``mu s`` for mu and the loss ``z -> loss(B z)``. m = 1 is
the origin (up to bias and mean mode), m = K the minimizer. For cross-entropy

    a = log((m-1)(1-P)/P),   P = mu s (m-1),   value = log s + log(1 + (m-1) e^-a) + P a,

and the group collapses (a = 0) when P >= (m-1)/m, that is K mu >= 1: all rungs exist or none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from ufm import geometry
from ufm._base import InputError, in_float64, pytree, require
from ufm.losses import Loss
from ufm.problem import Params, Problem
from ufm.theory.collapsed import collapsed_spectrum
from ufm.theory.eigenvalues import Spectrum
from ufm.theory.minimizer import refuse_asymmetric
from ufm.theory.reduction import bias_stiffness, collapse_strength, reduce_scalar
from ufm.theory.spectrum import symmetric_spectrum


@pytree(static=("classes",))
@dataclass(frozen=True)
class Merged(Loss):
    """``loss`` of K ``classes`` as a function of (p, q): p in the true group of ``size``, q elsewhere.

    One group has no elsewhere: it sees the mean of p and q, so that its scalar problem has no gap.
    """

    loss: Loss
    size: Any
    classes: int
    name = "merged"

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """As the loss it wraps."""
        return self.loss.shift_invariant

    def at(self, p: Array, q: Array, classes: int) -> Array:
        # The size is a leaf: one compiled program serves every rung.
        logits = jnp.where(jnp.arange(self.classes, dtype=p.dtype) < self.size, p, q)
        return self.loss(jnp.where(self.size == self.classes, 0.5 * (p + q), logits), 0)


@dataclass(frozen=True)
class Rung:
    """A critical point at which groups of classes share one classifier row and one feature.

    Attributes:
        groups: sizes of the groups, in class order.
        value: objective.
        spectrum: of the Hessian, with its ``index`` and ``kernel``.
        scores: ``W h`` (K, K), column k at the feature of class k.
        bias: (K,).
        problem: of which this is a critical point.
    """

    groups: tuple[int, ...]
    value: float
    spectrum: Spectrum
    scores: np.ndarray
    bias: np.ndarray
    problem: Problem

    @property
    def prototypes(self) -> int:
        """m, the number of groups."""
        return len(self.groups)

    def params(self, key: Array | int | None = None) -> Params:
        """The point itself in float64, rotated at random by ``key``."""
        problem = self.problem
        U, sizes, Vt = np.linalg.svd(self.scores)
        rank = int(np.sum(sizes > 1e-12 * max(sizes[0], 1e-300)))
        n = float(problem.per_class)  # type: ignore[arg-type]
        r = np.sqrt(n) * float(problem.decay.ratio)
        frame = np.eye(rank, problem.dim)
        if key is not None and rank:
            frame = np.asarray(geometry.orthonormal(key, rank, problem.dim), float)
        root = np.sqrt(sizes[:rank])[:, None]
        W = np.sqrt(r) * (U[:, :rank].T * root).T @ frame
        means = (Vt[:rank] * root).T @ frame / np.sqrt(r)
        b = {"per_class": self.bias, "unified": self.bias[0], "none": None}[problem.bias]
        return Params(W, means[problem.labels].T, b)


def divisors(classes: int) -> list[int]:
    """Numbers of equal groups that ``classes`` can form.

    >>> divisors(6)
    [1, 2, 3, 6]
    """
    return [m for m in range(1, classes + 1) if classes % m == 0]


def coarse_ce(mu: float, classes: int, groups: int) -> tuple[float, float]:
    """Gap and value of cross-entropy on ``groups`` equal groups: the formula of the module's docstring.

    >>> tuple(round(x, 6) for x in coarse_ce(0.01, 6, 3))
    (3.871201, 0.888817)
    """
    m, s = groups, classes // groups
    P = mu * s * (m - 1)
    if m == 1 or (m - 1) / m <= P:
        return 0.0, float(np.log(classes))
    a = np.log((m - 1) * (1 - P) / P)
    return float(a), float(np.log(s) + np.log1p((m - 1) * np.exp(-a)) + P * a)


def ladder(problem: Problem) -> list[Rung]:
    """The rung of every divisor m of K, from m = 1 to m = K, for any loss that treats classes alike.

    A loss with several stationary gaps (focal) shows the best of them. Rungs that do not fit the dimension
    (m - 1 > d, or m > d with a mean mode) are left out.

    Raises:
        NoClosedForm: for imbalanced counts or a fixed classifier.

    >>> import ufm
    >>> problem = ufm.Problem(6, 8, 2, loss=ufm.losses.CE(), decay=ufm.Decay(5e-3, 5e-3, 5e-3))
    >>> [(r.prototypes, round(r.value, 4), r.spectrum.index, r.spectrum.kernel) for r in ladder(problem)]
    [(1, 1.7918, 40, 0), (2, 1.2013, 32, 7), (3, 0.8415, 24, 13), (6, 0.2098, 0, 25)]
    """
    refuse_asymmetric(problem)
    with jax.enable_x64(True):
        rungs = [_rung(problem, m) for m in divisors(problem.classes)]
    return [rung for rung in rungs if rung is not None]


_reduce = in_float64(reduce_scalar, static=("centered", "size"), effort=1)


def _rung(problem: Problem, m: int) -> Rung | None:
    K, s = problem.classes, problem.classes // m
    seen = max(m, 2)  # one group is solved as two that may not differ
    mu, stiffness = float(collapse_strength(problem)), float(bias_stiffness(problem))
    found = _reduce(Merged(problem.loss, s, K), float(seen), mu * K / seen, stiffness, centered=False, size=None)
    gap, shift = float(found.gap), float(found.shift) * K / seen
    rank = (m - 1) * (gap != 0) + (shift != 0)
    if rank > problem.dim or not np.isfinite(float(found.value)):  # the second: unbounded below
        return None
    scores = gap * (np.kron(np.eye(m), np.ones((s, s))) - 1 / m) + shift / K
    spectrum = symmetric_spectrum(problem, m, gap, shift, float(found.bias))
    return Rung((s,) * m, float(found.value), spectrum, scores, np.full(K, float(found.bias)), problem)


def merged(problem: Problem, groups: Sequence[int], seed: int = 0) -> Rung:
    """The critical point at which the classes form ``groups`` of unequal sizes, and its exact spectrum.

    No closed form is known: the problem restricted to points that are equal inside each group (it has no
    saddles inside that set other than mergers of groups) is minimized by SciPy and polished by Newton.

    Args:
        problem: balanced.
        groups: sizes that sum to K, in class order.
        seed: of the start.

    >>> import ufm
    >>> problem = ufm.Problem(4, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(5e-3, 5e-3, 5e-3))
    >>> rung = merged(problem, (3, 1))
    >>> rung.spectrum.index, rung.spectrum.kernel
    (10, 4)
    """
    refuse_asymmetric(problem)
    groups = tuple(int(s) for s in groups)
    K, m = problem.classes, len(groups)
    require(min(groups) >= 1 and sum(groups) == K, "groups", groups, f"sizes that sum to classes = {K}")
    B = np.repeat(np.eye(m), groups, axis=0)
    rank = min(m, problem.dim)
    shapes = {"per_class": (m,), "unified": ()}
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        small = dataclasses.replace(problem, dim=rank, features="per_class").astype(jnp.float64)
        b = None if problem.bias == "none" else jnp.zeros(shapes[problem.bias])
        start = Params(jnp.asarray(rng.normal(size=(m, rank))), jnp.asarray(rng.normal(size=(rank, m))), b)
        x, unravel = ravel_pytree(start)
        spread = jnp.asarray(B)

        def expand(x: Array) -> Params:
            point = unravel(x)
            b = spread @ point.b if jnp.ndim(point.b) == 1 else point.b
            return Params(spread @ point.W, point.H @ spread.T, b)

        objective = jax.jit(lambda x: small.objective(expand(x)))
        gradient = jax.jit(jax.grad(objective))
        hessian = jax.jit(jax.hessian(objective))
        x = minimize(objective, np.asarray(x), jac=gradient, method="L-BFGS-B", options={"maxiter": 5000}).x
        for _ in range(8):
            # The kernel (rotations) is left alone: its eigenvalues are rounding.
            x = x - np.linalg.lstsq(np.asarray(hessian(x)), np.asarray(gradient(x)), rcond=1e-10)[0]
        point = jax.tree.map(np.asarray, expand(jnp.asarray(x)))
        value, slope = float(objective(x)), float(np.linalg.norm(gradient(x)))
    if slope > 1e-10 * max(1.0, abs(value)):
        raise InputError(f"groups = {groups}: no critical point reached, gradient {slope:.1e}; try another seed")
    frame = np.eye(rank, problem.dim)
    spectrum = collapsed_spectrum(problem, Params(point.W @ frame, frame.T @ point.H, point.b))
    bias = np.zeros(K) if point.b is None else np.broadcast_to(point.b, (K,))
    return Rung(groups, value, spectrum, point.W @ point.H, bias, problem)

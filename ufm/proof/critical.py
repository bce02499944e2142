"""Critical points that are proved to exist: interval Newton in a gauge without rotations, and the inertia there.

*Krawczyk.* For a box X around c and any matrix Y (Krawczyk 1969; Moore 1977): if
``K(X) = c - Y F(c) + (I - Y F'(X))(X - c)`` lies inside X, then X contains exactly one zero of F.

*Index.* The Hessian at a critical point vanishes along rotations, so that its inertia is that on a complement: in r
dimensions the kept variables (`ufm.proof.gauge`); in each further dimension, by Schur complement over the features,
that of ``decay_W decay_H I - V diag(1/n) V'`` over the rows outside of R, because the columns of W lie in its kernel.
Features of a class apart from their mean add n_k - 1 times the inertia of ``omega_k/n_k W' C_k W + decay_H I``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufm._base import require
from ufm.models import Linear
from ufm.problem import Params, Problem
from ufm.proof.balls import Unproved, arb, arb_mat, ctx, inertia, midpoints, outward
from ufm.proof.gauge import Reduced, in_gauge
from ufm.proof.losses import Form
from ufm.proof.statement import Statement

RADII = tuple(2.0**-k for k in (44, 40, 36, 30, 24, 18, 14, 12, 10, 9, 8, 7, 6, 5, 4))
"""Radii of boxes, tried upward. The first is that of a float64 point of size one."""
PRECISION = 160
"""Bits: 53 of the point, and as many again for the products of a Hessian and its inverse of condition 1e16."""
DIGITS = 12


@dataclass(frozen=True)
class CriticalBall:
    """A critical point that exists, and what is certain of it.

    Attributes:
        params: the center, in the shapes of the problem: the given point up to a rotation of its features.
        radius: the critical point is within this of the center, in every entry.
        unique: within this of the center, in every entry, there is no other of this rank in the same gauge (r rows of W
            lower triangular). One of another rank is none of its neighbors, because nothing else lies in the kernel.
        rank: of W and H there.
        index: how many eigenvalues of the Hessian are negative.
        kernel: how many are zero: the dimensions of the orbit under rotations of the features, and one for the shift of
            an undecayed bias that the loss does not see. All others are positive.
        lower: a decimal below its value.
        upper: a decimal above its value.
    """

    params: Params
    radius: float
    unique: float
    rank: int
    index: int
    kernel: int
    lower: str
    upper: str

    @property
    def minimum(self) -> bool:
        """Whether it is a strict local minimum, up to what does not change the objective."""
        return self.index == 0

    def __str__(self) -> str:
        kind = "local minimum" if self.minimum else f"strict saddle of index {self.index}"
        return f"{kind}, {self.lower} < f < {self.upper}, kernel {self.kernel}, within {self.radius:.1e} of the point"


def critical_point(problem: Problem, params: Params, *, loss: Form | None = None) -> CriticalBall:
    """Prove that a critical point exists near ``params``, that it is the only one there, and which index it has.

    Args:
        problem: one with a free classifier (`ufm.models.Linear`); any loss with a ball form, any bias, counts, d.
        params: a point near the critical point; each sample's feature is replaced by the mean of its class.
        loss: the ball form of a loss of your own, with its curvature.

    Raises:
        InputError: for another model, a loss without a ball form, or a point that does not fit.
        Unproved: if nothing is proved: the point is not close to a critical point, or that is degenerate (at a
            threshold, or in a family of critical points other than by rotations).

    >>> import jax, ufm
    >>> jax.config.update("jax_enable_x64", True)
    >>> problem = ufm.Problem(3, 4, 2, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01))
    >>> found = critical_point(problem, ufm.theory.minimizer(problem).params)
    >>> found.minimum, found.rank, found.kernel, found.radius < 1e-12 < 1e-6 < found.unique
    (True, 2, 5, True)
    """
    allowed = "Linear(), whose rotations are understood"
    require(isinstance(problem, Problem) and type(problem.model) is Linear, "model", str(problem), allowed)
    statement = Statement(problem, loss)
    with ctx.workprec(PRECISION):
        x, rows = in_gauge(statement.point(params))
        reduced = Reduced(statement, x, rows)
        center = reduced.refined()
        first = _krawczyk(reduced, center)
        box, radius, unique = first
        W, _, _ = reduced.unpack(box)
        if any(W[row][i].contains(0) for i, row in enumerate(rows)):
            raise Unproved("the gauge is degenerate: the rows of W that fix it are not certain to be independent")
        index = inertia(reduced.hessian(box))[1] + reduced.within(box)
        extra = problem.dim - len(rows)
        index += extra * reduced.off_span(box) if extra else 0
        value = reduced.objective([arb(v) for v in center])
        for slope in reduced.slopes(box):
            value += slope * arb(0, radius)
        r = len(rows)
        kernel = r * problem.dim - r * (r + 1) // 2 + reduced.shift
        where = _outward(reduced, center, params)
        low, high = (outward(value, DIGITS, up=up) for up in (False, True))
    return CriticalBall(where, radius, unique, r, index, kernel, low, high)


def _krawczyk(reduced: Reduced, center: np.ndarray) -> tuple[list[arb], float, float]:
    """A box with exactly one critical point, its radius, and the largest radius tried at which that is so."""
    exact_center = [arb(v) for v in center]
    A = midpoints(reduced.hessian(exact_center))
    Y = arb_mat(np.linalg.inv(A).tolist()) if len(center) else arb_mat(0, 0)
    step = (Y * arb_mat([[v] for v in reduced.slopes(exact_center)])).entries() if len(center) else []
    found: tuple[list[arb], float] | None = None
    unique = 0.0
    for radius in RADII:
        box = [arb(v, radius) for v in center]
        rest = Y * reduced.hessian(box)
        inside = True
        for i in range(len(center)):
            spread = sum((abs((i == j) - rest[i, j]) for j in range(len(center))), arb(0)) * radius
            inside = inside and bool(abs(step[i]) + spread < radius)
        if inside:
            found, unique = found or (box, radius), radius
        elif found:
            break
    if found is None:
        raise Unproved(
            "interval Newton does not contract: the point is not close enough to a critical point, or degenerate"
        )
    return (*found, unique)


def _outward(reduced: Reduced, center: np.ndarray, params: Params) -> Params:
    """The center in the shapes of ``params``."""
    problem, r = reduced.statement.problem, reduced.rank
    W, H, b = reduced.unpack([arb(v) for v in center])
    full_W, full_H = np.zeros((problem.classes, problem.dim)), np.zeros((problem.dim, problem.classes))
    full_W[:, :r] = np.array([[float(v) for v in row] for row in W]).reshape(problem.classes, r)
    full_H[:r] = np.array([[float(v) for v in row] for row in H]).reshape(r, problem.classes)
    bias = None if params.b is None else np.array([float(v) for v in b]).reshape(np.shape(params.b))
    return Params(full_W, full_H[:, problem.labels], bias)

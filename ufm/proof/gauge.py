"""A problem in the rank of its classifier, and in a gauge that holds rotations fast.

*Rank.* Let W have rank r. The points whose last d - r dimensions are zero are those fixed by rotations of these
dimensions, so that a critical point in r dimensions is one in d (symmetric criticality, Palais 1979).

*Gauge.* In r dimensions r rows R of W are made lower triangular, and their r(r-1)/2 entries above the diagonal are
dropped, as variables and as equations. At a solution F = 0 of the other equations the dropped slopes G vanish too: f
does not change under rotations, so that ``sum_(i<j) G_ij (W A)_ij = 0`` for every antisymmetric A, and
``A -> (W A)_(i<j)`` is regular where the diagonal of ``W_R`` has no zero. If the bias has no decay, and the loss
does not see a common shift, then one variable of the bias is dropped for the same reason.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from ufm.problem import Params
from ufm.proof.balls import Unproved, arb, arb_mat, exact, fmpq, inertia
from ufm.proof.statement import Statement

RANK = 1e-6
"""Singular values of W below this share of the largest count as zero: a converged point has them at 1e-8 or less."""
STEPS = 12
"""Newton's steps to refine the given point, each doubling its digits: from 1e-3 to 1e-16 it takes four."""
NEAR = 0.1
"""How far Newton may move a point, relative to its largest entry, for the result to be the one near it."""


class Reduced:
    """The problem in r dimensions and in the gauge: variables, slopes, Hessian, each in balls."""

    def __init__(self, statement: Statement, x: Params, rows: list[int]) -> None:
        self.statement, self.rows, self.rank = statement, rows, len(rows)
        self.K, self.counts, problem = statement.K, statement.model.counts, statement.problem
        above = {(row, a) for i, row in enumerate(rows) for a in range(i + 1, self.rank)}
        self.of_W = [(j, a) for j in range(self.K) for a in range(self.rank) if (j, a) not in above]
        self.of_H = [(a, k) for a in range(self.rank) for k in range(self.K)]
        size = {"per_class": self.K, "unified": 1, "none": 0}[str(problem.bias)]
        self.shift = bool(size and statement.loss.zero_sum and not statement.decay_b)
        self.size, self.of_b = size, list(range(size - self.shift))
        b: Any = [] if x.b is None else np.ravel(x.b)
        self.dropped = exact(b[-1]) if self.shift else fmpq(0)
        entries = [x.W[i] for i in self.of_W] + [x.H[i] for i in self.of_H] + [b[i] for i in self.of_b]
        self.start = np.array(entries, float)

    def unpack(self, y: list[Any]) -> tuple[list[list[Any]], list[list[Any]], list[Any]]:
        """W (K, r), H (r, K) and the bias of a vector of variables."""
        W = [[arb(0)] * self.rank for _ in range(self.K)]
        H = [[arb(0)] * self.K for _ in range(self.rank)]
        for place, value in zip(self.of_W, y, strict=False):
            W[place[0]][place[1]] = value
        for place, value in zip(self.of_H, y[len(self.of_W) :], strict=False):
            H[place[0]][place[1]] = value
        b = [*y[len(y) - len(self.of_b) :], *([arb(self.dropped)] * self.shift)] if self.size else []
        return W, H, b

    def logits(self, W: Any, H: Any, b: Any) -> list[list[arb]]:
        """Logits of each class."""
        b = b * self.K if self.size == 1 else b or [arb(0)] * self.K
        offset = self.statement.offset
        return [
            [sum((W[j][a] * H[a][k] for a in range(self.rank)), b[j] + offset[j]) for j in range(self.K)]
            for k in range(self.K)
        ]

    def weighted_slopes(self, logits: list[list[arb]]) -> list[list[arb]]:
        """``omega_k`` times the slopes in the logits, class by class."""
        pairs = enumerate(zip(self.statement.shares, logits, strict=True))
        return [[w * x for x in self.statement.loss.slopes(z, k)] for k, (w, z) in pairs]

    def objective(self, y: list[arb]) -> arb:
        """The objective."""
        W, H, b = self.unpack(y)
        s = self.statement
        risk = sum(
            (w * s.loss.value(z, k) for k, (w, z) in enumerate(zip(s.shares, self.logits(W, H, b), strict=True))),
            arb(0),
        )
        of_W = sum((x * x for row in W for x in row), arb(0))
        of_H = sum((n * row[k] ** 2 for row in H for k, n in enumerate(self.counts)), arb(0))
        return risk + (s.model.W * of_W + s.model.H * of_H + s.decay_b * sum((x * x for x in b), arb(0))) / 2

    def slopes(self, y: list[arb]) -> list[arb]:
        """The gradient in the kept variables."""
        W, H, b = self.unpack(y)
        G, s = self.weighted_slopes(self.logits(W, H, b)), self.statement
        classes = range(self.K)
        found = [sum((G[k][j] * H[a][k] for k in classes), s.model.W * W[j][a]) for j, a in self.of_W]
        found += [sum((G[k][j] * W[j][a] for j in classes), s.model.H * self.counts[k] * H[a][k]) for a, k in self.of_H]
        forces = [sum((G[k][j] for k in classes), arb(0)) for j in classes]
        forces = forces if self.size == self.K else [sum(forces, arb(0))]
        return found + [forces[i] + s.decay_b * b[i] for i in self.of_b]

    def hessian(self, y: list[arb]) -> arb_mat:
        """The Hessian: ``sum omega_k J_k' C_k J_k``, the slopes where W meets H, and the decays."""
        W, H, b = self.unpack(y)
        logits, s = self.logits(W, H, b), self.statement
        G, size = self.weighted_slopes(logits), len(self.start)
        total = arb_mat(size, size)
        first, last = len(self.of_W), size - len(self.of_b)
        for k, share in enumerate(s.shares):
            J = arb_mat(self.K, size)
            for i, (j, a) in enumerate(self.of_W):
                J[j, i] = H[a][k]
            for i, (a, of) in enumerate(self.of_H, first):
                if of == k:
                    for j in range(self.K):
                        J[j, i] = W[j][a]
            for i in self.of_b:
                for j in range(self.K) if self.size == 1 else [i]:
                    J[j, last + i] = arb(1)
            curvature = arb_mat([[share * x for x in row] for row in s.loss.curvature(logits[k], k)])
            total += J.transpose() * (curvature * J)
        at = {place: i for i, place in enumerate(self.of_H, first)}
        for i, (j, a) in enumerate(self.of_W):
            total[i, i] += s.model.W
            for k in range(self.K):
                total[i, at[a, k]] += G[k][j]
                total[at[a, k], i] += G[k][j]
        for (_, k), i in at.items():
            total[i, i] += s.model.H * self.counts[k]
        for i in range(last, size):
            total[i, i] += s.decay_b
        return total

    def refined(self) -> np.ndarray:
        """The variables after Newton's steps in balls' centers, rounded to floats.

        Raises:
            Unproved: if they do not settle near the start.
        """
        y, moved = [arb(x) for x in self.start], np.inf
        for _ in range(STEPS):
            A = arb_mat([[x.mid() for x in row] for row in self.hessian(y).tolist()])
            try:
                step = A.solve(arb_mat([[x.mid()] for x in self.slopes(y)]))
            except ZeroDivisionError:
                raise Unproved("the Hessian is singular in more directions than the rotations") from None
            y = [(v - d).mid() for v, d in zip(y, step.entries(), strict=True)]
            moved = max((abs(float(d.mid())) for d in step.entries()), default=0.0)
            if moved < 2.0**-60:
                break
        found = np.array([float(v) for v in y])
        away, size = (float(np.max(np.abs(v), initial=0.0)) for v in (found - self.start, self.start))
        if not (moved < 2.0**-60 and away <= NEAR * (1.0 + size)):
            raise Unproved("Newton's method does not settle near the given point: it is not close to a critical point")
        return found

    def off_span(self, y: list[arb]) -> int:
        """Negative eigenvalues in each dimension beyond the r."""
        W, H, b = self.unpack(y)
        G, s = self.weighted_slopes(self.logits(W, H, b)), self.statement
        rest = [j for j in range(self.K) if j not in self.rows]
        price = arb(s.model.W * s.model.H)
        S = [
            [
                sum((-G[k][i] * G[k][j] / n for k, n in enumerate(self.counts)), price if i == j else arb(0))
                for j in rest
            ]
            for i in rest
        ]
        return inertia(arb_mat(S))[1] if rest else 0

    def within(self, y: list[arb]) -> int:
        """Negative eigenvalues along features of a class apart from their mean."""
        W, H, b = self.unpack(y)
        logits, s, found = self.logits(W, H, b), self.statement, 0
        for k, n in enumerate(self.counts):
            if n > 1 and self.rank and s.problem.features == "per_sample":
                A = arb_mat(W)
                inner = A.transpose() * arb_mat(s.loss.curvature(logits[k], k)) * A * arb(s.shares[k] / n)
                for a in range(self.rank):
                    inner[a, a] += s.model.H
                found += (n - 1) * inertia(inner)[1]
        return found


def in_gauge(x: Params) -> tuple[Params, list[int]]:
    """The point in as many dimensions as W has rank, r of its rows lower triangular with a positive diagonal."""
    _, sizes, right = np.linalg.svd(x.W, full_matrices=False)
    r = int(np.sum(sizes > RANK * max(sizes[0], np.finfo(float).tiny)))
    W, H = x.W @ right[:r].T, right[:r] @ x.H
    rows = [int(i) for i in scipy.linalg.qr(W.T, pivoting=True, mode="r")[1][:r]] if r else []
    Q, R = np.linalg.qr(W[rows].T)  # W_R Q = R'
    Q = Q * np.sign(np.diag(R))
    return Params(W @ Q, Q.T @ H, x.b), rows

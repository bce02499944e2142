"""A problem in exact numbers, its bounds in balls, and a dual matrix that lies in the conjugates' domain exactly.

One column stands for the samples of a class: in a point the mean of their features, which any point may be replaced by,
and in the dual matrix V (K, K) a column that they share, which the bound allows.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ufm import bias as biases
from ufm._base import require
from ufm.problem import Params, Problem, require_single
from ufm.proof import losses, models
from ufm.proof.balls import Unproved, arb, arb_mat, exact, exact_matrix, fmpq, hexadecimal
from ufm.statement import describe


class Statement:
    """A problem in exact numbers, with the ball forms of its loss and its model."""

    def __init__(self, problem: Problem, loss: losses.Form | None = None) -> None:
        require(isinstance(problem, Problem), "problem", type(problem).__name__, "a ufm.Problem")
        require_single(problem)
        require(problem.labeled, "targets", str(problem.targets), "absent: proofs are of problems with class labels")
        self.problem, self.K, self.own = problem, problem.classes, loss is not None
        self.loss, self.model = loss or losses.form(problem.loss), models.form(problem)
        self.decay_b, total = exact(problem.decay.b), problem.samples
        given = problem.weights
        self.shares = [fmpq(int(n), total) for n in problem.counts] if given is None else [exact(x) for x in given]
        offset = 0.0 if problem.offset is None else np.asarray(problem.offset, float)
        self.offset = [exact(x) for x in np.broadcast_to(offset, (self.K,))]

    def point(self, params: Params) -> Params:
        """W (K, d), the mean features of the classes (d, K) and the bias, as float64 arrays."""
        problem, K = self.problem, self.K
        W, H = (np.asarray(x, float) for x in (params.W, params.H))
        allowed = f"{(K, problem.dim)} and {(problem.dim, problem.columns)}"
        require((W.shape, H.shape) == ((K, problem.dim), (problem.dim, problem.columns)), "params", "other", allowed)
        if problem.columns != K:
            ends = np.cumsum([0, *problem.counts])
            H = np.stack([H[:, i:j].mean(axis=1) for i, j in itertools.pairwise(ends)], axis=1)
        b = None if problem.bias == "none" else np.asarray(params.b, float)
        finite = all(np.all(np.isfinite(x)) for x in (W, H, 0.0 if b is None else b))
        require(finite, "params", "NaN or inf", "finite numbers")
        return Params(W, H, b)

    def logits(self, x: Params) -> list[list[arb]]:
        """Logits of each class's column, class by class."""
        b = [exact(v) for v in biases.per_class(x.b, self.K)]
        scores = self.model.scores(arb_mat(exact_matrix(x.W)), arb_mat(exact_matrix(x.H))).transpose().tolist()
        return [[z + b[j] + self.offset[j] for j, z in enumerate(column)] for column in scores]

    def objective(self, x: Params) -> arb:
        """F at a point of `point`."""
        risk = sum(
            (w * self.loss.value(z, k) for k, (w, z) in enumerate(zip(self.shares, self.logits(x), strict=True))),
            arb(0),
        )
        of_bias = sum((exact(v) ** 2 for v in np.atleast_1d([] if x.b is None else x.b)), fmpq(0)) * self.decay_b / 2
        return risk + self.model.penalty(arb_mat(exact_matrix(x.W)), arb_mat(exact_matrix(x.H))) + of_bias

    def slopes(self, logits: list[list[arb]]) -> np.ndarray:
        """``omega_k`` times the gradient of the loss in the logits of class k (K, K), rounded to floats."""
        columns = [self.loss.slopes(z, k) for k, z in enumerate(logits)]
        return np.array([[float((w * x).mid()) for x in c] for w, c in zip(self.shares, columns, strict=True)]).T

    def bound(self, V: list[list[fmpq]], witness: dict[str, np.ndarray], keep: arb_mat | None = None) -> arb:
        """The Fenchel bound at an exact V; with a projector ``keep``, on the points with ``W = keep W``."""
        value = arb(0)
        for k, share in enumerate(self.shares):
            column = [row[k] for row in V]
            if share:
                value -= share * self.loss.conjugate([x / share for x in column], k)
            elif any(column):
                raise Unproved("a class without weight has no place in the bound")
            value += sum(x * y for x, y in zip(column, self.offset, strict=True))
        if self.problem.bias != "none":
            force = [sum(row) for row in V]
            force = force if self.problem.bias == "per_class" else [sum(force)]
            if not self.decay_b and any(force):
                raise Unproved("the bias has no decay and the dual matrix does not balance")
            value -= sum(x * x for x in force) / (2 * self.decay_b) if self.decay_b else 0
        balls = arb_mat(V)
        return value - self.model.support(balls if keep is None else keep * balls, witness)

    def balanced(self, V: np.ndarray) -> list[list[fmpq]]:
        """V in exact numbers, moved by rounding to where the sums that must be zero are zero.

        Entries off the diagonal are kept, up to those of one class: where columns and rows must both balance, what is
        missing flows through that class, which adds to entries and makes none negative.
        """
        A, K = exact_matrix(V), self.K
        undecayed = not self.decay_b
        each = undecayed and self.problem.bias == "per_class"
        if self.loss.zero_sum and each:
            hub = int(np.argmax([float_of(w) for w in self.shares]))
            for j in range(K):
                lack = sum(A[j][k] for k in range(K) if k != j) - sum(A[k][j] for k in range(K) if k != j)
                if j != hub and lack > 0:
                    A[hub][j] += lack
                elif j != hub:
                    A[j][hub] -= lack
        if self.loss.zero_sum:
            for k in range(K):
                A[k][k] = -sum((A[j][k] for j in range(K) if j != k), fmpq(0))
        elif each:
            for j in range(K):
                A[j][j] = -sum((A[j][k] for k in range(K) if k != j), fmpq(0))
        elif undecayed and self.problem.bias == "unified":
            A[0][0] -= sum(sum(row) for row in A)
        return A

    def dual(
        self, logits: list[list[arb]], scores: np.ndarray | None, margin: float, keep: np.ndarray | None = None
    ) -> tuple[list[list[fmpq]], dict[str, np.ndarray]]:
        """An exact V near the gradient at ``logits`` and its witness; ``margin`` is what V keeps from the edge."""
        V = floats(self.balanced(self.slopes(logits)))  # first, for far from a minimum it moves V
        steepest = float(np.max(-np.diag(V) / np.maximum([float_of(w) for w in self.shares], 1e-300)))
        V = V * min(1.0, self.loss.steepest / max(steepest, 1e-300))
        kept = V if keep is None else keep @ V
        V, kept = (x * (self.model.scale(kept) * (1.0 - margin)) for x in (V, kept))
        return self.balanced(V), self.model.witness(kept, scores, margin)

    def data(self) -> dict[str, Any]:
        """The problem, as the file states it."""
        problem = self.problem
        return {
            "words": describe(problem),
            "loss": {"name": problem.loss.name, **hexadecimals(problem.loss.hyper)},
            "model": {"name": problem.model.name, **hexadecimals(self.model.data())},
            "classes": self.K,
            "dim": problem.dim,
            "counts": self.model.counts,
            "decay": hexadecimals(vars(problem.decay)),
            "bias": str(problem.bias),
            "weights": None if problem.weights is None else hexadecimals(problem.weights),
            "offset": [hexadecimal(x) for x in self.offset],
        }


def hexadecimals(x: Any) -> Any:
    """Floats, in dictionaries and arrays, as hexadecimal text."""
    if isinstance(x, dict):
        return {name: hexadecimals(value) for name, value in x.items()}
    if np.ndim(x):
        return [hexadecimals(value) for value in np.asarray(x, float)]
    return hexadecimal(exact(x))


def floats(A: list[list[fmpq]]) -> np.ndarray:
    """Exact numbers, rounded."""
    return np.array([[float_of(x) for x in row] for row in A])


def float_of(x: fmpq) -> float:
    """The nearest float."""
    return int(x.p) / int(x.q)

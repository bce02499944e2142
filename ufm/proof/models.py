"""Models in ball arithmetic: scores, penalty, and an upper bound on the conjugate R* of the penalty at ``-V``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ufm import models
from ufm._base import require
from ufm.problem import Problem
from ufm.proof.balls import Unproved, arb, arb_mat, exact, exact_matrix, positive_definite


class ModelForm:
    """One column of features stands for the ``counts`` samples of its class.

    Point and dual matrix V (K, K) are given twice, as floats to choose by and as balls to prove with. ``keep`` is a
    projector (K, K) where only points with ``W = keep W`` count: V may then be replaced by ``keep V``.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.K, self.counts = problem, problem.classes, [int(n) for n in problem.counts]
        self.W, self.H = exact(problem.decay.W), exact(problem.decay.H)

    def data(self) -> dict[str, Any]:
        """The hyper-parameters, for the file; arrays of floats."""
        return {}

    def scores(self, W: arb_mat, H: arb_mat) -> arb_mat:
        """Logits without bias and offset (K, K)."""
        return W * H

    def penalty(self, W: arb_mat, H: arb_mat) -> arb:
        """R at the point."""
        squares = [sum((x * x for x in column), arb(0)) for column in H.transpose().tolist()]
        features = sum((n * x for n, x in zip(self.counts, squares, strict=True)), arb(0))
        return (self.W * sum((x * x for x in W.entries()), arb(0)) + self.H * features) / 2

    def witness(self, V: np.ndarray, scores: np.ndarray | None, margin: float) -> dict[str, np.ndarray]:
        """What the bound takes beside V; ``scores`` are those of the point that V comes from, if there is one."""
        return {}

    def scale(self, V: np.ndarray) -> float:
        """The largest factor up to 1, at which R* is finite."""
        return 1.0

    def support(self, V: arb_mat, witness: dict[str, np.ndarray]) -> arb:
        """An upper bound on R* at ``-V``.

        Raises:
            Unproved: if it is not proved to be finite.
        """
        raise NotImplementedError

    def columns_over(self, V: arb_mat, squares: Sequence[Any]) -> arb_mat:
        """``V diag(1/sqrt squares)``."""
        roots = [1 / arb(x).sqrt() for x in squares]
        return arb_mat([[x * root for x, root in zip(row, roots, strict=True)] for row in V.tolist()])


class OfProducts(ModelForm):
    """Free W and H: R* is 0 where ``||V diag(1/sqrt n)||_op <= sqrt(decay_W decay_H)``."""

    def scale(self, V: np.ndarray) -> float:
        norm = float(np.linalg.norm(V / np.sqrt(self.counts), 2))
        return min(1.0, float(self.problem.decay.price) / norm) if norm > 0 else 1.0

    def support(self, V: arb_mat, witness: dict[str, np.ndarray]) -> arb:
        A = self.columns_over(V, self.counts)
        below(arb(self.W * self.H), [arb(1)] * self.K, A * A.transpose())
        return arb(0)


def below(bound: arb, weights: Sequence[arb], S: arb_mat) -> None:
    """Prove ``S < bound diag(weights)`` by Cholesky."""
    rest = (-S).tolist()
    for i, weight in enumerate(weights):
        rest[i][i] += bound * weight
    if not positive_definite(rest):
        raise Unproved("the norm of the dual matrix exceeds what the decays allow")


class OfFixed(ModelForm):
    """A given classifier: ``R* = sum ||W'v_k||^2/(2 decay_H n_k) - decay_W/2 ||W||^2``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.classifier = np.asarray(problem.classifier, float)
        self.balls = arb_mat(exact_matrix(self.classifier))

    def data(self) -> dict[str, Any]:
        return {"W": self.classifier}

    def scores(self, W: arb_mat, H: arb_mat) -> arb_mat:
        return self.balls * H

    def penalty(self, W: arb_mat, H: arb_mat) -> arb:
        return super().penalty(self.balls, H)

    def support(self, V: arb_mat, witness: dict[str, np.ndarray]) -> arb:
        pulled = self.columns_over(self.balls.transpose() * V, self.counts)
        fixed = self.W * sum((x * x for x in self.balls.entries()), arb(0))
        return (sum((x * x for x in pulled.entries()), arb(0)) / self.H - fixed) / 2


class OfSpheres(ModelForm):
    """Unit rows and columns: ``R* <= gamma ||R^-1/2 V C^-1/2||_op``, R and C positive, diagonal and of trace one."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.gamma = exact(problem.model.gamma)

    def data(self) -> dict[str, Any]:
        return {"gamma": float(self.gamma)}

    def scores(self, W: arb_mat, H: arb_mat) -> arb_mat:
        """Norms are made one in ball arithmetic: no float64 vector has norm one."""

        def unit(rows: arb_mat) -> list[list[arb]]:
            lengths = [sum((x * x for x in row), arb(0)).sqrt() for row in rows.tolist()]
            return [[x / length for x in row] for row, length in zip(rows.tolist(), lengths, strict=True)]

        return self.gamma * (arb_mat(unit(W)) * arb_mat(unit(H.transpose())).transpose())

    def penalty(self, W: arb_mat, H: arb_mat) -> arb:
        return arb(0)

    def witness(self, V: np.ndarray, scores: np.ndarray | None, margin: float) -> dict[str, np.ndarray]:
        """The multipliers of the unit norms at a minimizer, or uniform weights, whichever give the smaller norm."""
        choices = [(np.ones(self.K), np.asarray(self.counts, float))]
        if scores is not None and np.any(V * scores):
            pull = -V * scores
            choices.append((positive(pull.sum(axis=1)), positive(pull.sum(axis=0))))
        found = [(self.norm(V, r, c), r, c) for r, c in choices]
        norm, r, c = min(found, key=lambda x: x[0])
        return {"rows": r, "columns": c, "norm": np.asarray(norm * (1.0 + margin))}

    def norm(self, V: np.ndarray, r: np.ndarray, c: np.ndarray) -> float:
        """Of V between weights that need not sum to one."""
        inner = V / np.sqrt(r / r.sum())[:, None] / np.sqrt(c / c.sum())[None, :]
        return float(np.linalg.norm(inner, 2))

    def support(self, V: arb_mat, witness: dict[str, np.ndarray]) -> arb:
        rows, columns = ([exact(x) for x in witness[name]] for name in ("rows", "columns"))
        norm, of_columns, of_rows = exact(witness["norm"]), sum(columns), sum(rows)
        A = self.columns_over(V, [x / of_columns for x in columns])
        below(arb(norm * norm), [arb(x / of_rows) for x in rows], A * A.transpose())
        return arb(self.gamma * norm)


def positive(pull: np.ndarray) -> np.ndarray:
    """Multipliers as weights: those that are not positive count a millionth of the largest."""
    return np.maximum(pull, 1e-6 * np.abs(pull).max() + np.finfo(float).tiny)


class OfNonnegative(OfProducts):
    """Features >= 0: it suffices that ``A + P <= decay_W decay_H I``, A the Gram matrix of V, for some P >= 0."""

    def witness(self, V: np.ndarray, scores: np.ndarray | None, margin: float) -> dict[str, np.ndarray]:
        """P takes away what of A is negative."""
        return {"P": np.maximum(-self.gram(V), 0.0)}

    def gram(self, V: np.ndarray) -> np.ndarray:
        """A (K, K)."""
        inner = V / np.sqrt(self.counts)
        return inner.T @ inner

    def scale(self, V: np.ndarray) -> float:
        largest = float(np.linalg.eigvalsh(np.maximum(self.gram(V), 0.0))[-1])
        return min(1.0, float(self.problem.decay.price) / largest**0.5) if largest > 0 else 1.0

    def support(self, V: arb_mat, witness: dict[str, np.ndarray]) -> arb:
        A = self.columns_over(V, self.counts)
        below(arb(self.W * self.H), [arb(1)] * self.K, A.transpose() * A + arb_mat(exact_matrix(witness["P"])))
        return arb(0)


FORMS: dict[type, Callable[[Problem], ModelForm]] = {
    models.Linear: OfProducts,
    models.FixedClassifier: OfFixed,
    models.Spheres: OfSpheres,
    models.Nonnegative: OfNonnegative,
}
"""By exact type: what inherits from a model may cost something else."""


def form(problem: Problem) -> ModelForm:
    """The ball form of the model of ``problem``.

    Raises:
        InputError: for a model without.
    """
    known = ", ".join(kind.name for kind in FORMS)  # type: ignore[attr-defined]
    require(type(problem.model) in FORMS, "model", str(problem.model), f"one with a ball form: {known}")
    return FORMS[type(problem.model)](problem)

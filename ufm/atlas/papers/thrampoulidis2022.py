"""Thrampoulidis, Kini, Vakilian & Behnia 2022, "Imbalance trouble": the SELI geometry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ufm.atlas._claims import balanced_factors, weight
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import Family
from ufm.atlas.hypotheses import dim_at_least, free_classifier, loss, no_bias, number
from ufm.losses import CE
from ufm.problem import Decay, Problem

PAPER = "Thrampoulidis et al. 2022"
STEP = 10.0**0.5
"""Factor between each of the three decays that are compared and the next."""
ROUNDING = 1e-6
"""What a slope of two solutions may be off by: logits agree to 1e-7 (`quantity`), over log(STEP)."""


def sel_matrix(problem: Problem) -> np.ndarray:
    """Simplex-encoded labels ``Y - 1 1'/K`` (K, N)."""
    labels = np.repeat(np.arange(problem.classes), problem.counts)
    return np.eye(problem.classes)[:, labels] - 1.0 / problem.classes


UNBIASED = loss(CE) & free_classifier & no_bias & dim_at_least(-1)
nearly_free = number("N sqrt(decay_W decay_H)", lambda p: p.samples * weight(p), "<=", 1e-3)


def _svm(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Primal and dual of ``min ||Z||_* : z_k - z_j >= 1`` at SELI, from its singular value decomposition alone.

    The dual maximizes ``sum alpha`` over alpha >= 0 with ``|| sum_ij alpha_ij (e_k - e_j) e_i' ||_op <= 1``; the
    polar factor of the SEL matrix is such a matrix when its entries off the true class are not positive.
    """
    Z = sel_matrix(problem)
    V, sizes, Ut = np.linalg.svd(Z, full_matrices=False)
    kept = sizes > 1e-12 * sizes[0]
    polar = V[:, kept] @ Ut[kept]
    labels = np.repeat(np.arange(problem.classes), problem.counts)
    others = np.arange(problem.classes)[:, None] != labels[None, :]
    return [
        quantity("dual value (sum of alpha)", sizes.sum(), -polar[others].sum(), 1e-12),
        quantity(
            "least margin of Z", 1.0, float((Z[labels, np.arange(labels.size)][None, :] - Z)[others].min()), 1e-12
        ),
        quantity("largest violation of alpha >= 0", 0.0, max(float(polar[others].max()), 0.0), 1e-12),
        quantity("columns that do not sum to zero", 0.0, float(np.abs(polar.sum(axis=0)).max()), 1e-12),
    ]


SVM = Theorem(
    id="thrampoulidis2022/svm",
    source=f"{PAPER}, UF-SVM",
    statement="The SEL matrix solves the max-margin problem of the model, whatever the imbalance.",
    formula="argmin ||Z||_* : z_k - z_j >= 1 is Y - 1 1'/K",
    hypotheses=UNBIASED,
    claim=_svm,
    minimum=False,
    draw=Family(lambda rng: CE(), ((4, 5, (6, 6, 2, 2)), (5, 6, (9, 9, 1, 1, 1)), (3, 4, (20, 3, 1))), ("none",)),
)


def _geometry(problem: Problem, evidence: Evidence) -> tuple[np.ndarray, ...]:
    """Z (K, N), and the Gram matrices (K, K) of W and of the class means, both as large as Z.

    A class of n samples enters the latter as a column ``sqrt(n) h``: the Gram matrix of all N features has its nonzero
    eigenvalues, and an N x N matrix is never formed.
    """
    x = evidence.certified("the path").samples
    W, H = balanced_factors(problem, x)
    labels = np.repeat(np.arange(problem.classes), problem.counts)
    means = np.stack([H[:, labels == k].mean(axis=1) for k in range(problem.classes)], axis=1)
    means = means * np.sqrt(problem.counts)
    Z = np.asarray(x.W) @ np.asarray(x.H)
    return Z, W @ W.T, means.T @ means


def _limit(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """The path is ``Z = L Z_SEL + C + D/L + O(1/L^2)``, L = -log sqrt(decay_W decay_H).

    C depends on the polar factor of Z, which feels C in turn: hence powers of 1/L and not of the decay. The slope
    between L_1 and L_2 is ``Z_SEL - D/(L_1 L_2) + O(1/L^3)``. Two slopes determine D: their extrapolation (Richardson)
    is of higher order, so it must be nearer to Z_SEL than its own correction, whatever D is.
    """
    scales = [STEP**i for i in range(3)]
    problems = [
        dataclasses.replace(problem, decay=Decay(problem.decay.W / s, problem.decay.H / s, problem.decay.b))
        for s in scales
    ]
    path = [evidence, *(Evidence(p, evidence.seed) for p in problems[1:])]
    L = [-np.log(weight(p)) for p in problems]
    labels = np.repeat(np.arange(problem.classes), problem.counts)
    sel = sel_matrix(problem)
    first = np.searchsorted(labels, np.arange(problem.classes))  # one sample of each class stands for all
    V, sizes, Ut = np.linalg.svd(sel[:, first] * np.sqrt(problem.counts))
    limits = {"Z": sel, "W W'": (V * sizes) @ V.T, "H' H": (Ut.T * sizes) @ Ut}
    points = [_geometry(p, e) for p, e in zip(problems, path, strict=True)]
    quantities = []
    for (name, limit), (a, b, c) in zip(limits.items(), zip(*points, strict=True), strict=True):
        slopes = (b - a) / (L[1] - L[0]), (c - b) / (L[2] - L[1])
        correction = L[0] / (L[2] - L[0]) * (slopes[1] - slopes[0])
        distance = np.abs(slopes[1] + correction - limit).max()
        tolerance = np.abs(correction).max() + ROUNDING * np.abs(limit).max()
        quantities.append(Quantity(f"slope of {name}: distance from SELI, extrapolated", 0.0, distance, tolerance))
    return quantities


LIMIT = Theorem(
    id="thrampoulidis2022/limit",
    source=f"{PAPER}, regularization path; its rate: this package",
    statement="As the decays vanish the minimizers tend to the SELI geometry, at the rate 1/log(1/decay).",
    formula="d Z/d log(1/lambda) = Y - 1 1'/K + O(1/log^2), W W' and H' H likewise with V L V' and U L U'",
    hypotheses=UNBIASED & nearly_free,
    claim=_limit,
    draw=Family(
        lambda rng: CE(),
        ((4, 5, (6, 6, 2, 2)), (3, 4, (5, 2, 1))),
        ("none",),
        strength=(1e-6, 1e-3),
        balance=(0.5, 2.0),
    ),
)

THEOREMS = (SVM, LIMIT)

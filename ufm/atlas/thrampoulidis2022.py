"""Thrampoulidis, Kini, Vakilian & Behnia 2022, "Imbalance trouble": the SELI geometry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import Family
from ufm.losses import CE
from ufm.problem import Decay, Problem

PAPER = "Thrampoulidis et al. 2022"
STEP = 10.0
"""Factor between the two decays that are compared."""


def sel_matrix(problem: Problem) -> np.ndarray:
    """Simplex-encoded labels ``Y - 1 1'/K`` (K, N)."""
    labels = np.repeat(np.arange(problem.classes), problem.counts)
    return np.eye(problem.classes)[:, labels] - 1.0 / problem.classes


def _inside(problem: Problem) -> bool:
    return (
        isinstance(problem.loss, CE)
        and problem.classifier is None
        and problem.bias == "none"
        and problem.dim >= problem.classes - 1
    )


def _svm(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Primal and dual of ``min ||Z||_* : z_k - z_j >= 1`` at SELI, from its singular value decomposition alone.

    The dual maximises ``sum alpha`` over alpha >= 0 with ``|| sum_ij alpha_ij (e_k - e_j) e_i' ||_op <= 1``; the
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
    hypotheses="any counts, no bias, d >= K-1",
    inside=_inside,
    claim=_svm,
    minimum=False,
    draw=Family(lambda rng: CE(), ((4, 5, (6, 6, 2, 2)), (5, 6, (9, 9, 1, 1, 1)), (3, 4, (20, 3, 1))), ("none",)),
)


def _limit(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """The path is ``Z = L Z_SEL + C + O(1/L)``, L = log(1/decay), so its slope is off by O(1/L^2) only.

    C depends on the polar factor of Z, which feels C in turn: hence powers of 1/L and not of the decay.
    """
    decay = Decay(problem.decay.W / STEP, problem.decay.H / STEP, problem.decay.b)
    lower = Evidence(dataclasses.replace(problem, decay=decay), evidence.seed)
    first, second = (np.asarray(e.problem.logits(e.solution.params)) for e in (evidence, lower))
    # Both decays fall by STEP, so sqrt(decay_W decay_H) does.
    slope = (second - first) / np.log(STEP)
    V, sizes, Ut = np.linalg.svd(sel_matrix(problem), full_matrices=False)
    W, H = (np.asarray(x) for x in (lower.solution.params.W, lower.solution.params.H))
    W1, H1 = (np.asarray(x) for x in (evidence.solution.params.W, evidence.solution.params.H))
    r = float(problem.decay.ratio)
    classifier = (W @ W.T - W1 @ W1.T) / np.log(STEP) / r
    features = (H.T @ H - H1.T @ H1) / np.log(STEP) * r
    scale = float(np.log(float(problem.decay.price)) ** -2)
    return [
        quantity("slope of Z: distance from the SEL matrix", 0.0, np.abs(slope - (V * sizes) @ Ut).max(), scale),
        quantity("slope of W W': distance from V L V'", 0.0, np.abs(classifier - (V * sizes) @ V.T).max(), scale),
        quantity("slope of H' H: distance from U L U'", 0.0, np.abs(features - (Ut.T * sizes) @ Ut).max(), scale),
        quantity("gap over minimum", 0.0, max(evidence.gap / evidence.value, lower.gap / lower.value, 0.0), 1e-7),
    ]


LIMIT = Theorem(
    id="thrampoulidis2022/limit",
    source=f"{PAPER}, regularisation path; its rate: this package",
    statement="As the decays vanish the minimisers tend to the SELI geometry, at the rate 1/log(1/decay).",
    formula="d Z/d log(1/lambda) = Y - 1 1'/K + O(1/log^2), W W' and H' H likewise with V L V' and U L U'",
    hypotheses="CE without bias, d >= K-1, N sqrt(decay_W decay_H) <= 1e-3",
    inside=lambda p: _inside(p) and p.samples * float(p.decay.price) <= 1e-3,
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

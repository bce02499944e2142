"""Zhu, Ding, Zhou, Li, You, Sulam & Qu 2021, "A Geometric Analysis of Neural Collapse with Unconstrained Features"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ufm.atlas._claims import all_zero, etf_geometry, strength, symmetric_logits
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.losses import CE
from ufm.problem import Problem
from ufm.theory import closed_forms

PAPER = "Zhu et al. 2021"


def is_balanced(problem: Problem, least_dim: int = -1) -> bool:
    """Balanced, classifier free, ``dim >= K + least_dim``."""
    return problem.balanced and problem.classifier is None and problem.dim >= problem.classes + least_dim


def _ce(problem: Problem) -> bool:
    return isinstance(problem.loss, CE) and is_balanced(problem)


def _minimiser(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.ce(strength(problem), problem.classes)
    return symmetric_logits(problem, evidence, predicted) + etf_geometry(problem, evidence)


def _threshold(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.ce(strength(problem), problem.classes)
    return symmetric_logits(problem, evidence, predicted) + all_zero(problem, evidence)


MINIMISER = Theorem(
    id="zhu2021/3.1",
    source=f"{PAPER}, Thm 3.1",
    statement="Global minimisers of cross-entropy collapse to a centred simplex ETF with equal biases.",
    formula="a = log(1/mu - K + 1), mu = sqrt(n decay_W decay_H)",
    hypotheses="CE, balanced, d >= K-1, K mu < 1",
    inside=lambda p: _ce(p) and p.classes * strength(p) < 1,
    claim=_minimiser,
)

THRESHOLD = Theorem(
    id="zhu2021/zero",
    source=f"{PAPER}, from Thm 3.1",
    statement="Above a threshold of the decays the minimiser of cross-entropy is W = H = 0.",
    formula="zero iff K mu >= 1",
    hypotheses="CE, balanced, d >= K-1, K mu >= 1",
    inside=lambda p: _ce(p) and p.classes * strength(p) >= 1,
    claim=_threshold,
)


def _certificate(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """The norm of the gradient in the logits is computed here from its definition, by NumPy."""
    import jax
    import jax.numpy as jnp

    logits = problem.logits(evidence.solution.params)
    U = np.asarray(jax.vmap(jax.grad(problem.loss), (1, 0), 1)(logits, jnp.asarray(problem.labels)))
    weighted = U * np.sqrt(np.broadcast_to(problem.multiplicity, (problem.columns,)))[None, :]
    norm = np.linalg.norm(weighted, 2) / problem.samples
    bound = float(np.sqrt(float(problem.decay.W) * float(problem.decay.H)))
    return [quantity("||grad_Z|| / sqrt(decay_W decay_H), at most 1", 1.0, max(1.0, norm / bound), 1e-8)]


CERTIFICATE = Theorem(
    id="zhu2021/3.2",
    source=f"{PAPER}, Thm 3.2",
    statement="A critical point is global iff its logit gradient has norm at most sqrt(decay_W decay_H).",
    formula="|| grad_Z f ||_op <= sqrt(decay_W decay_H)",
    hypotheses="convex loss, d > K",
    inside=lambda p: bool(p.loss.convex) and p.classifier is None and p.dim > p.classes,
    claim=_certificate,
)

THEOREMS = (MINIMISER, THRESHOLD, CERTIFICATE)

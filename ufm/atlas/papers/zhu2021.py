"""Zhu, Ding, Zhou, Li, You, Sulam & Qu 2021, "A Geometric Analysis of Neural Collapse with Unconstrained Features"."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from ufm import geometry
from ufm.atlas._claims import (
    all_zero,
    curvature,
    etf_geometry,
    full_norm,
    logit_gradient,
    random_for,
    symmetric_logits,
    weight,
    yes,
)
from ufm.atlas._core import HIDDEN, Evidence, Quantity, Theorem, Undecided, quantity
from ufm.atlas._draw import SHAPES, WIDE, Family
from ufm.atlas.hypotheses import (
    Hypothesis,
    any_classifier,
    balanced,
    dim_at_least,
    free_classifier,
    loss,
    not_separating,
    separating,
    strength,
)
from ufm.bias import Bias
from ufm.losses import CE
from ufm.problem import Params, Problem
from ufm.theory import closed_forms

PAPER = "Zhu et al. 2021"
FAMILY = Family(lambda rng: CE(), SHAPES)


CROSS_ENTROPY = loss(CE) & free_classifier & balanced & dim_at_least(-1)
convex_loss = Hypothesis("convex loss", lambda p: bool(p.loss.convex), lambda p: str(p.loss))


def _minimizer(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.ce(strength(problem), problem.classes)
    return symmetric_logits(problem, evidence, predicted) + etf_geometry(problem, evidence)


def _threshold(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    predicted = closed_forms.ce(strength(problem), problem.classes)
    return symmetric_logits(problem, evidence, predicted) + all_zero(problem, evidence)


MINIMIZER = Theorem(
    id="zhu2021/3.1",
    source=f"{PAPER}, Thm 3.1",
    statement="Global minimizers of cross-entropy collapse to a centered simplex ETF with equal biases.",
    formula="a = log(1/mu - K + 1), mu = sqrt(n decay_W decay_H)",
    hypotheses=CROSS_ENTROPY & separating,
    claim=_minimizer,
    draw=FAMILY,
)

THRESHOLD = Theorem(
    id="zhu2021/zero",
    source=f"{PAPER}, from Thm 3.1",
    statement="Above a threshold of the decays the minimizer of cross-entropy is W = H = 0.",
    formula="zero iff K mu >= 1",
    hypotheses=CROSS_ENTROPY & not_separating,
    claim=_threshold,
    draw=FAMILY,
)


def _certificate(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """The norm of the gradient in the logits is computed here from its definition, by NumPy."""
    logits = problem.logits(evidence.solution.params)
    U = np.asarray(jax.vmap(jax.grad(problem.loss), (1, 0), 1)(logits, jnp.asarray(problem.labels)))
    weighted = U * np.sqrt(np.broadcast_to(problem.multiplicity, (problem.columns,)))[None, :]
    norm = np.linalg.norm(weighted, 2) / problem.samples  # its Gram matrix would halve the digits
    # Probabilities are known to rounding, and so is the norm; the decays may be as small as that.
    noise = np.finfo(float).eps * np.sqrt(U.size) / problem.samples / weight(problem)
    if noise > HIDDEN:
        raise Undecided(f"decays this small lie in the rounding of the gradient: {noise:.1e} of them")
    ratio = max(1.0, float(norm) / weight(problem))
    return [Quantity("||grad_Z|| / sqrt(decay_W decay_H), at most 1", 1.0, ratio, 1e-8 + noise)]


CERTIFICATE = Theorem(
    id="zhu2021/3.2",
    source=f"{PAPER}, Thm 3.2",
    statement="A critical point is global iff its logit gradient has norm at most sqrt(decay_W decay_H).",
    formula="|| grad_Z f ||_op <= sqrt(decay_W decay_H)",
    hypotheses=convex_loss & free_classifier & dim_at_least(1),
    claim=_certificate,
    draw=Family(lambda rng: CE(), (*WIDE, (4, 6, (5, 3, 3, 1)))),
)


# Strict saddles ----------------------------------------------------------------------------------


def coarse_groups(problem: Problem) -> list[int]:
    """Proper divisors of K: into how many equal groups the classes can be merged."""
    return [m for m in range(1, problem.classes) if problem.classes % m == 0]


def coarse_gap(mu: float, classes: int, groups: int, alpha: float = 0.0) -> float:
    """Gap of the best point of ``groups`` equal groups: ``log((m-1)(1-P)/P)``, ``P = mu s (m-1) + alpha (m-1)/m``."""
    m = groups
    P = mu * (classes // m) * (m - 1) + alpha * (m - 1) / m
    return max(0.0, float(np.log((m - 1) * (1.0 - P) / P))) if 0 < P < 1 else 0.0


def coarse_point(problem: Problem, groups: int, alpha: float = 0.0) -> Params:
    """The minimizer among points that merge the classes into ``groups`` equal groups; critical in the full problem.

    CE and label smoothing: ``Zbar = a (B B' - J/m)``, B = I_m (x) 1_s, with the a of `coarse_gap`.
    """
    K, m = problem.classes, groups
    a = coarse_gap(strength(problem), K, m, alpha)
    r = np.sqrt(problem.counts[0]) * float(problem.decay.ratio)
    rows = np.zeros((K, problem.dim))
    if m > 1:
        # B B' - J/m = s (B Q'/sqrt s)(B Q'/sqrt s)', Q the orthonormal basis of centered vectors.
        rows[:, : m - 1] = np.repeat(geometry.helmert(m).T, K // m, axis=0)
    W = np.sqrt(a * r) * rows
    bias = Bias(problem.bias).constant(0.0, K)
    return jax.tree.map(jnp.asarray, Params(W, (W / r)[problem.labels].T, bias))


def escape_curvature(problem: Problem, norm: float) -> float:
    """``-2 (||grad_Z|| - sqrt(decay_W decay_H))``, for a direction of unit a."""
    return -2.0 * (float(norm) - weight(problem))


def escape(problem: Problem, point: Params, name: str) -> list[Quantity]:
    """``point`` is critical, and the direction of Thm 3.2 has the curvature that it says.

    With a in null(W) and (u, v) the top singular pair of ``grad_Z``, the direction ``((H/W)^(1/4) u a',
    -(H/W)^(-1/4) a v', 0)`` (H, W the decays) has curvature ``-2 (||grad_Z|| - sqrt(decay_W decay_H)) ||a||^2``.
    """
    # A column that stands for m samples counts m-fold in the decay of H: sqrt(m) h is what the theorem calls h.
    roots = np.sqrt(np.broadcast_to(problem.multiplicity, (problem.columns,)))
    left, sizes, right = np.linalg.svd(np.asarray(logit_gradient(problem, point)) / roots, full_matrices=False)
    # The rank of W is below both of its sizes: the last of its right singular vectors is in null(W).
    a = np.linalg.svd(np.asarray(point.W), full_matrices=False)[2][-1]
    ratio = float(problem.decay.ratio) ** 0.5
    still = None if point.b is None else jnp.zeros_like(point.b)
    features = -np.outer(a, right[0] / roots) / ratio
    direction = Params(jnp.asarray(ratio * np.outer(left[:, 0], a)), jnp.asarray(features), still)
    bent, slope = curvature(problem, point, direction)
    measured = float(bent)
    return [
        quantity(f"curvature of the escape direction, {name}", escape_curvature(problem, sizes[0]), measured, 1e-10),
        quantity(f"gradient, {name}", 0.0, full_norm(slope), 1e-10),
        yes(f"the direction escapes, {name}", True, measured < 0),
    ]


def saddles(problem: Problem, alpha: float = 0.0) -> list[Quantity]:
    """Every coarse-label point of ``problem`` is a strict saddle."""
    points = [(m, coarse_point(problem, m, alpha)) for m in coarse_groups(problem)]
    return [q for m, point in points for q in escape(problem, point, f"{m} of {problem.classes} classes apart")]


STRICT_SADDLE = Theorem(
    id="zhu2021/strict-saddle",
    source=f"{PAPER}, Thm 3.2 (strict saddles)",
    statement="Every critical point of CE that is not global has a direction of negative curvature, and which.",
    formula="curvature -2 (||grad_Z|| - sqrt(decay_W decay_H)) ||a||^2 < 0 at the origin and the coarse-label points",
    hypotheses=CROSS_ENTROPY & separating,
    claim=lambda p, e: saddles(p),
    minimum=False,
    draw=FAMILY,
)


# The lower bound ---------------------------------------------------------------------------------


def lower_bound(c1: float, classes: int) -> float:
    """``c2 = log((1+c1)(K-1))/(1+c1) + c1/(1+c1) log((1+c1)/c1)``."""
    return float((np.log((1.0 + c1) * (classes - 1)) + c1 * np.log((1.0 + c1) / c1)) / (1.0 + c1))


def _lemma(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """The infimum of CE less the linear part, by SciPy over all logits."""
    K, rng = problem.classes, random_for(problem, evidence.seed)
    c1 = float(np.exp(rng.uniform(-4.0, 4.0)))
    linear = np.where(np.arange(K) == 0, -(K - 1.0), 1.0) / ((1.0 + c1) * (K - 1))

    def excess(z: np.ndarray) -> tuple[float, np.ndarray]:
        probability = np.exp(z - np.logaddexp.reduce(z))
        first = np.arange(K) == 0
        return np.logaddexp.reduce(z) - z[0] - linear @ z, probability - first - linear

    end = minimize(excess, rng.normal(size=K), jac=True, method="BFGS", options={"gtol": 1e-10})
    negatives = end.x[1:]
    return [
        quantity("infimum of the loss minus its linear bound: c2", lower_bound(c1, K), end.fun, 1e-11),
        quantity("spread of the negatives there", 0.0, np.ptp(negatives), 1e-5),
        quantity("c1 there", c1, 1.0 / ((K - 1) * np.exp(negatives.mean() - end.x[0])), 1e-5),
    ]


LEMMA = Theorem(
    id="zhu2021/lemma",
    source=f"{PAPER}, lower-bound lemma",
    statement="CE lies above a linear function of the margins, and touches it at equal negatives.",
    formula="l(z) >= (sum_j z_j - K z_k)/((1+c1)(K-1)) + c2, equality iff negatives agree and c1 = e^(-t/(K-1))/(K-1)",
    hypotheses=loss(CE) & any_classifier,
    claim=_lemma,
    minimum=False,
    draw=FAMILY,
)

THEOREMS = (MINIMIZER, THRESHOLD, CERTIFICATE, STRICT_SADDLE, LEMMA)

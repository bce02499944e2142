"""Fang, He, Long & Su 2021, "Exploring deep neural networks via layer-peeled model": minority collapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm.atlas._claims import near, yes
from ufm.atlas._core import CERTIFIED, Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import Family, Shape
from ufm.atlas.hong2024 import MERGED, weight
from ufm.losses import CE, Custom
from ufm.problem import Problem

COUNTS: tuple[Shape, ...] = ((4, 5, (6, 6, 2, 2)), (5, 6, (9, 9, 1, 1, 1)))


def weighted(logits: Array, label: Array, weights: Any) -> Array:
    """Cross-entropy times the weight of its class."""
    return jnp.asarray(weights, logits.dtype)[label] * CE()(logits, label)


def layer_peeled(problem: Problem) -> Problem:
    """The layer-peeled model in its Lagrangian form: one feature per class, weights ``K n_k/N``, no bias.

    The paper bounds ``sum ||w_k||^2/K`` and ``sum ||h_k||^2/K``. A minimiser of the Lagrangian minimises
    that problem, too, with its own norms as the bounds: lower loss within them would lower the Lagrangian.
    """
    weights = problem.classes * problem.counts / problem.samples
    loss = Custom(weighted, {"weights": weights}, convex=True, shift_invariant=True, infimum=0.0)
    return Problem(problem.classes, problem.dim, 1, loss, problem.decay, "none")


def merging_ratio(problem: Problem) -> float:
    """``n_B/N`` over ``sqrt(decay_W decay_H)``, n_B the smallest count: minority classes merge up to 1."""
    return float(problem.counts.min()) / problem.samples / weight(problem)


def _minority(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    peeled = Evidence(layer_peeled(problem), evidence.seed)
    W = np.asarray(peeled.solution.params.W)
    rows = W[problem.counts == problem.counts.min()]
    distance = np.linalg.norm(rows - rows[0], axis=1).max() / max(np.linalg.norm(W, axis=1).max(), 1.0)
    certified = quantity("certified gap of the layer-peeled model", 0.0, max(peeled.gap, 0.0), CERTIFIED)
    return [yes("minority classes share one w", merging_ratio(problem) <= 1, distance < MERGED), certified]


MINORITY = Theorem(
    id="fang2021/minority",
    source="Fang et al. 2021, minority collapse; exact threshold: this package",
    statement="Norm-constrained: minority classifiers become identical at a finite ratio, set by the multiplier.",
    formula="w_i = w_j for minority i, j iff n_B/N <= Lambda, Lambda = sqrt(decay_W decay_H) the price of the norms",
    hypotheses="CE without bias, two or more smallest classes, d >= K; not within 1 % of the threshold",
    inside=lambda p: (
        isinstance(p.loss, CE)
        and p.bias == "none"
        and p.dim >= p.classes
        and not p.balanced
        and int(np.sum(p.counts == p.counts.min())) > 1
        and not near(merging_ratio(p))
    ),
    claim=_minority,
    minimum=False,
    draw=Family(lambda rng: CE(), COUNTS, ("none",), strength=(0.05, 3.0)),
)

THEOREMS = (MINORITY,)

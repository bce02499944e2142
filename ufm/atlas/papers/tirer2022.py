"""Tirer & Bruna 2022, "Extended Unconstrained Features Model for Exploring Deep Neural Collapse": two weight matrices.

Their loss has 1/(2N), ours 1/N.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ufm import geometry
from ufm.atlas._claims import lowest
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._deep import DeepFamily, layers, living
from ufm.atlas.hypotheses import no_bias, number
from ufm.atlas.papers import dang2023
from ufm.losses import MSE
from ufm.problem import Problem

__all__ = ["EXTENDED", "THEOREMS"]


def frame_gram(problem: Problem) -> np.ndarray:
    """What the Gram matrices are multiples of: I (K, K)."""
    return np.eye(problem.classes)


def _extended(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    x = evidence.samples
    W, F = problem.model.head(x)
    H = np.asarray(x.H)
    first = np.searchsorted(problem.labels, np.arange(problem.classes))
    frame, means, features = frame_gram(problem), jnp.asarray(H[:, first]).T, jnp.asarray(F)[:, first].T
    return [
        lowest(evidence, dang2023.squares_value(problem)),
        quantity("distance of W_1 W_1' from a multiple of I", 0.0, geometry.gram_distance(jnp.asarray(W), frame), 1e-6),
        quantity("distance of features' Gram matrix after W_2", 0.0, geometry.gram_distance(features, frame), 1e-6),
        quantity("distance of features' Gram matrix", 0.0, geometry.gram_distance(means, frame), 1e-6),
        quantity("NC1 of the features", 0.0, float(np.abs(H - H[:, first][:, problem.labels]).max()), 1e-6),
    ]


EXTENDED = Theorem(
    id="tirer2022/extended",
    source="Tirer & Bruna 2022, Thm 4.1",
    statement="With two weight matrices features collapse to orthogonal frames at both levels, and so does W_1.",
    formula="W_1 W_1' ~ I, (W_2 H)'(W_2 H) ~ I, H'H ~ I over class means",
    hypotheses=dang2023.SQUARES & no_bias & number("L", layers, "=", 2) & living & dang2023.away,
    claim=_extended,
    draw=DeepFamily(lambda rng: MSE(1.0, 1.0), ((4, 5, 3),), ("none",), strength=(0.02, 2.0)),
)

THEOREMS = (EXTENDED,)

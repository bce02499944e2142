"""Problems that several tests of the atlas share, so that a process compiles and solves each of them once."""

import dataclasses
from typing import Any

import numpy as np

import ufm
from ufm.atlas.papers.li2024 import all_sets

CE = ufm.Problem(4, 5, 3, ufm.losses.CE(), ufm.Decay(0.02, 0.01, 0.05))
BCE = dataclasses.replace(CE, loss=ufm.losses.BCE())
FOCAL = dataclasses.replace(CE, loss=ufm.losses.Focal(2.0))
SMOOTH = dataclasses.replace(CE, loss=ufm.losses.LabelSmoothing(0.1))
# decay_b |b| > mu: beyond the published theorem.
SHIFTED = dataclasses.replace(BCE, decay=ufm.Decay(0.005, 0.001, 0.5))
# decay_b |b| < mu: within it.
CENTERED = dataclasses.replace(BCE, decay=ufm.Decay(0.02, 0.01, 1e-3))
UNEVEN = ufm.Problem(4, 5, (4, 4, 1, 1), ufm.losses.CE(), ufm.Decay(0.05, 0.05, 0.05))


def decays(problem: ufm.Problem, *values: float, **changes: Any) -> ufm.Problem:
    """``problem`` with other decays (W, H, b), and with other fields."""
    return dataclasses.replace(problem, decay=ufm.Decay(*values), **changes)


def sphere(decay_b: float, gamma: float = 4.0, loss: ufm.losses.Loss | None = None) -> ufm.NormalizedProblem:
    """A normalized problem with a bias per class, of BCE unless another loss is given."""
    return ufm.NormalizedProblem(ufm.Problem(4, 6, 3, loss or ufm.losses.BCE(), ufm.Decay(b=decay_b)), gamma)


# L|b| > sigma(-p) + sigma(q): the normalized counterexample, and the same under CE.
SPHERE_BCE, SPHERE_CE = sphere(0.5), sphere(0.5, loss=ufm.losses.CE())
DEEP_SQUARES = decays(CE, 0.02, 0.01, loss=ufm.losses.MSE(), bias="none", model=ufm.models.Deep(2))
DEEP_FREE = decays(DEEP_SQUARES, 0.02, 0.01, 0.0, bias="per_class")
DEEP_PAIRS = ufm.Problem(6, 6, 2, ufm.losses.CE(), ufm.Decay(0.01, 0.005), bias="none", model=ufm.models.Deep(2))
DEEP_TWO = dataclasses.replace(DEEP_SQUARES, classes=2, dim=3, decay=ufm.Decay(0.25, 0.16))
DEEP_RELU = ufm.Problem(6, 6, 1, ufm.losses.MSE(), ufm.Decay(1e-3, 1e-3), bias="none", model=ufm.models.Deep(4, "relu"))
TAGS = decays(CE, 0.02, 0.01, per_class=None, targets=all_sets(4, {1: 3, 2: 2}))
VALUES = ufm.Problem(
    3,
    4,
    None,
    ufm.losses.MSE(),
    ufm.Decay(0.1, 0.05, 0.0),
    targets=ufm.targets.values(np.arange(15.0).reshape(3, 5) % 7),
)
# Labels that are noisy between neighbors on a ring: a pentagon, whose symmetries keep neighbors neighbors.
PENTAGON = ufm.targets.soft(np.eye(5) * 0.8 + 0.1 * (np.roll(np.eye(5), 1, axis=0) + np.roll(np.eye(5), -1, axis=0)), 3)

"""Problems that several tests of the atlas share, so that a process compiles and solves each of them once."""

import dataclasses
from typing import Any

import ufm

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

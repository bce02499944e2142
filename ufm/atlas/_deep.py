"""What the theorems about several weight matrices share: hypotheses, random problems and the numbers they speak of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ufm.atlas._draw import Family, log_uniform
from ufm.atlas.hypotheses import Hypothesis, number
from ufm.models import Deep
from ufm.problem import Decay, Problem
from ufm.theory import depth


def layers(problem: Problem) -> int:
    """L, the number of weight matrices."""
    return int(problem.model.depth)


def _model(problem: Problem) -> str:
    return str(problem.model)


deep = Hypothesis("several weight matrices", lambda p: isinstance(p.model, Deep), _model)
"""The deep model, linear or with a ReLU."""
deep_linear = Hypothesis(
    "several weight matrices without ReLU",
    lambda p: isinstance(p.model, Deep) and p.model.activation == "linear",
    _model,
)
wide = Hypothesis(
    "all widths >= K",
    lambda p: min(p.model.inner(p)) >= p.classes,
    lambda p: f"widths {p.model.inner(p)}, K = {p.classes}",
)


def over_threshold(problem: Problem) -> float:
    """``n decay_H decay_W^L`` over where deep linear MSE of the loss without 1/2 becomes zero."""
    L = layers(problem)
    return float(depth.strength(problem) ** (L + 1) / depth.zero_threshold(problem.classes, L))


living = number("decays over the threshold of zero", over_threshold, "<", 1)


@dataclass(frozen=True)
class DeepFamily(Family):
    """Draws balanced deep problems: a `Family` whose ``strength`` is the range of ``K (n decay_H decay_W^L)^{1/M}``.

    Attributes:
        model: of every problem.
    """

    model: Deep = dataclasses.field(default_factory=Deep)

    def __call__(self, rng: np.random.Generator) -> Problem:
        """One problem."""
        problem = dataclasses.replace(super().__call__(rng), model=self.model)
        L, n = self.model.depth, int(problem.per_class)  # type: ignore[arg-type]
        size, ratio = log_uniform(rng, *self.strength) / problem.classes, log_uniform(rng, *self.balance)
        of_W = size * (ratio / n) ** (1.0 / (L + 1))
        return dataclasses.replace(problem, decay=Decay(of_W, of_W / ratio, float(problem.decay.b)))

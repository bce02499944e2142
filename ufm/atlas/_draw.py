"""Random problems for a theorem: inside its hypotheses, just across their boundary, and outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ufm.losses import Loss
from ufm.models import Nonnegative, Spheres
from ufm.problem import Decay, Problem

Shape = tuple[int, int, int | tuple[int, ...]]
"""Classes, dimension, samples per class."""
SHAPES: tuple[Shape, ...] = ((4, 5, 3), (6, 5, 2))
"""What most theorems are tried on; the same for all, so that they share compiled programs."""
WIDE: tuple[Shape, ...] = ((4, 5, 3), (6, 8, 2))
"""Those with ``dim > classes``."""
BOUNDARY = 0.02
"""How far from the boundary of the hypotheses, in the logarithm of every decay, its instances lie."""


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@dataclass(frozen=True)
class Family:
    """Draws problems of few static shapes and many decays: a shape costs a compilation, a decay does not.

    Attributes:
        loss: draws a loss; only its hyper-parameters may vary, or one more program is compiled.
        shapes: (classes, dim, per_class) to choose from.
        bias: bias modes to choose from.
        strength: range of ``K mu`` (``N sqrt(decay_W decay_H)`` when imbalanced, scaled the same way).
        decay_b: range of the bias decay; (0, 0) for none.
        balance: range of ``decay_W/decay_H``.

    Ranges are of a number with a uniform logarithm. Calling it with a generator draws one `Problem`.

    >>> import numpy as np, ufm
    >>> family = ufm.atlas.Family(lambda rng: ufm.losses.CE(), shapes=((3, 4, 2),), strength=(0.1, 0.5))
    >>> rng = np.random.default_rng(0)
    >>> strengths = [3 * float(ufm.theory.collapse_strength(family(rng))) for _ in range(100)]
    >>> 0.1 <= min(strengths) < 0.12 < 0.45 < max(strengths) <= 0.5
    True
    """

    loss: Callable[[np.random.Generator], Loss]
    shapes: tuple[Shape, ...]
    bias: tuple[str, ...] = ("per_class",)
    strength: tuple[float, float] = (0.01, 3.0)
    decay_b: tuple[float, float] = (1e-4, 1.0)
    balance: tuple[float, float] = (0.05, 20.0)

    def __call__(self, rng: np.random.Generator) -> Problem:
        """One problem."""
        K, d, n = self.shapes[rng.integers(len(self.shapes))]
        bias = self.bias[rng.integers(len(self.bias))]
        size = np.sqrt(np.mean(n))
        # K mu = K sqrt(n decay_W decay_H): the product of the decays from the strength, their ratio at random.
        product, ratio = log_uniform(rng, *self.strength) / (K * size), log_uniform(rng, *self.balance)
        decay_b = log_uniform(rng, *self.decay_b) if self.decay_b[1] > 0 else 0.0
        decay = Decay(float(product * np.sqrt(ratio)), float(product / np.sqrt(ratio)), decay_b)
        return Problem(K, d, n, self.loss(rng), decay, bias)

    def quick(self) -> Family:
        """The first shape and bias mode and one loss: one program."""
        loss = self.loss(np.random.default_rng(0))
        return dataclasses.replace(self, loss=lambda rng: loss, shapes=self.shapes[:1], bias=self.bias[:1])


@dataclass(frozen=True)
class SphereFamily(Family):
    """Draws problems on spheres: as a `Family`, with ``gamma`` for the range of their scale."""

    gamma: tuple[float, float] = (0.3, 6.0)

    def __call__(self, rng: np.random.Generator) -> Problem:
        """One problem."""
        return dataclasses.replace(super().__call__(rng), model=Spheres(log_uniform(rng, *self.gamma)))


@dataclass(frozen=True)
class NonnegativeFamily(Family):
    """Draws problems with non-negative features: as a `Family`."""

    def __call__(self, rng: np.random.Generator) -> Problem:
        """One problem."""
        return dataclasses.replace(super().__call__(rng), model=Nonnegative())


def structure_of(problem: Any) -> Any:
    """What decides which compiled program a problem needs: everything but its numbers."""
    return jax.tree.structure(problem)


def _kin(problem: Any) -> Any:
    """What problems that differ in scalars alone have in common: structure, counts and targets."""
    return structure_of(problem), tuple(np.asarray(x).tobytes() for x in jax.tree.leaves(problem.grouping))


@dataclass(frozen=True)
class Instances:
    """Problems drawn for one theorem."""

    inside: list[Any]
    boundary: list[Any]
    """Just inside."""
    outside: list[Any]
    """Outside, those just outside first."""


def draw(
    family: Callable[[np.random.Generator], Any],
    inside: Callable[[Any], bool],
    instances: int,
    rng: np.random.Generator,
) -> Instances:
    """``instances`` problems inside, a tenth of them at the boundary, and up to a tenth more outside.

    The boundary is found by bisection between one problem inside and one outside of the same shape, so
    a theorem needs no more than its hypotheses to be tested there.
    """
    share = max(1, instances // 10)
    within: list[Any] = []
    beyond: list[Any] = []
    for _ in range(100 * instances):
        if len(within) >= instances:
            break
        problem = family(rng)
        if inside(problem):
            within.append(problem)
        elif len(beyond) < 2 * share:
            beyond.append(problem)
    near: list[Any] = []
    across: list[Any] = []
    for far in beyond:
        same = [p for p in within if _kin(p) == _kin(far)]
        if same and len(near) < share:
            pair = _straddle(same[rng.integers(len(same))], far, inside)
            if pair is not None:
                near.append(pair[0])
                across.append(pair[1])
    return Instances(within[: max(0, instances - len(near))], near, (across + beyond)[: max(share, len(across))])


def _straddle(within: Any, beyond: Any, inside: Callable[[Any], bool]) -> tuple[Any, Any] | None:
    """Two problems `BOUNDARY` to either side of the hypotheses' boundary on the way between two others."""
    a = jax.tree.leaves(within)
    b = jax.tree.leaves(beyond)
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if np.ndim(x) == 0]
    furthest = max((abs(np.log(y / x)) for x, y in pairs if x > 0 and y > 0), default=0.0)
    if furthest == 0:
        return None

    def between(t: float) -> Any:
        # Plain floats, as everywhere: another type of number is another compiled program.
        def mean(x: Any, y: Any) -> Any:
            if np.ndim(x) or x == y:
                return x
            return float(x ** (1 - t) * y**t if x > 0 and y > 0 else x + t * (y - x))

        return jax.tree.map(mean, within, beyond)

    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if inside(between(middle)) else (low, middle)
    step = BOUNDARY / furthest
    pair = between(max(low - step, 0.0)), between(min(high + step, 1.0))
    return pair if inside(pair[0]) and not inside(pair[1]) else None

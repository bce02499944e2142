"""What a theorem predicts beside what was measured: equal numbers, and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST = float(np.finfo(float).tiny / np.finfo(float).eps)
"""What lies below has no full digits left: the underflow of a solution that is zero, such as that of `Naive`."""


@dataclass(frozen=True)
class Quantity:
    """One number that a theorem predicts, beside the one that was measured.

    ``tolerance`` is absolute; the residual is the difference in units of it.
    """

    name: str
    predicted: float
    measured: float
    tolerance: float

    @property
    def residual(self) -> float:
        """``|measured - predicted| / tolerance``; not finite counts as infinitely wrong."""
        difference = abs(self.measured - self.predicted)
        return difference / self.tolerance if np.isfinite(difference) else np.inf

    @property
    def claimed(self) -> str:
        """What is predicted, in words."""
        return f"{self.predicted:.6g}"


@dataclass(frozen=True)
class Bound(Quantity):
    """A number that a theorem bounds by ``predicted``: from above where ``sign`` is 1, from below where it is -1.

    The residual is negative where the bound holds with room to spare.
    """

    sign: int = 1

    @property
    def residual(self) -> float:
        """How far beyond the bound, in units of the tolerance."""
        beyond = self.sign * (self.measured - self.predicted)
        return np.inf if np.isnan(beyond) else beyond / self.tolerance

    @property
    def claimed(self) -> str:
        return f"at {'most' if self.sign > 0 else 'least'} {self.predicted:.6g}"


def at_most(name: str, bound: Any, measured: Any, scale: float = 1e-7, size: float = 1.0) -> Bound:
    """The claim ``measured <= bound``, with the tolerance of `quantity`.

    >>> import ufm
    >>> found = ufm.atlas.at_most("positive score", 4.0, 3.0)
    >>> found.claimed, found.residual < 0     # with room to spare
    ('at most 4', True)
    """
    return Bound(**vars(quantity(name, bound, measured, scale, size)))


def at_least(name: str, bound: Any, measured: Any, scale: float = 1e-7, size: float = 1.0) -> Bound:
    """The claim ``measured >= bound``; see `at_most`.

    >>> import ufm
    >>> found = ufm.atlas.at_least("positive score", 4.0, 3.0)
    >>> found.claimed, found.residual > 1     # refuted
    ('at least 4', True)
    """
    return Bound(**vars(quantity(name, bound, measured, scale, size)), sign=-1)


def quantity(name: str, predicted: Any, measured: Any, scale: float = 1e-7, size: float = 1.0) -> Quantity:
    """A `Quantity` whose tolerance is ``scale * max(size, |predicted|)``.

    ``size`` is that of the numbers which the measured one is a difference of: 1 for logits, norms and angles.

    >>> import ufm
    >>> found = ufm.atlas.quantity("minimum", predicted=4.0, measured=4.0 + 8e-7)
    >>> found.tolerance, round(found.residual, 6)      # above 1: not what was predicted
    (4e-07, 2.0)
    """
    predicted, measured = float(predicted), float(measured)
    return Quantity(name, predicted, measured, max(scale * max(size, abs(predicted)), LEAST))

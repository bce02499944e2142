"""Weight decays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ufm._base import pytree, require_range

DECAYS = (1e-300, 1e300)
"""Decays allowed. Beyond, numbers of the size of a decay are not normal in float64, and XLA takes them for zero."""


@pytree()
@dataclass(frozen=True)
class Decay:
    """Weight decays: the objective adds ``lambda_W/2 ||W||^2 + lambda_H/2 ||H||^2 + lambda_b/2 ||b||^2``.

    ``Decay.W`` is lambda_W, ``Decay.H`` lambda_H and ``Decay.b`` lambda_b; formulas in words call them decay_W,
    decay_H and decay_b. The first two must be positive (the infimum is not attained otherwise), the last at least zero.
    A positive one lies between 1e-300 and 1e300.
    """

    W: Any = 5e-4
    H: Any = 5e-4
    b: Any = 5e-4

    def __post_init__(self) -> None:
        low, high = DECAYS
        for name in ("W", "H"):
            value, allowed = getattr(self, name), f"a finite number > 0 (from {low:g} to {high:g})"
            require_range(f"decay.{name}", value, allowed, lambda x: (x >= low) & (x <= high))
        allowed = f"a finite number >= 0 (0, or from {low:g} to {high:g})"
        require_range("decay.b", self.b, allowed, lambda x: (x == 0) | ((x >= low) & (x <= high)))

    @property
    def price(self) -> Any:
        """``sqrt(lambda_W lambda_H)``, what the nuclear norm of ``W H`` costs: the product of roots does not underflow.

        >>> Decay(1e-300, 1e-300).price
        1e-300
        """
        return self.W**0.5 * self.H**0.5

    @property
    def ratio(self) -> Any:
        """``sqrt(lambda_H/lambda_W)``, size of W over that of H at every critical point."""
        return self.H**0.5 / self.W**0.5

"""Where the focal loss is convex."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from ufm._base import require


def convex_probability(gamma: float) -> float:
    """Least true-class probability from which the focal loss's Hessian is positive semidefinite; free of K.

    The loss is ``F(y)`` of the log-odds y against the true class. Its Hessian ``F'' grad y grad y' + F' Hess y``,
    with ``F' > 0`` and ``Hess y`` a covariance that vanishes where the other logits move together, is positive
    semidefinite iff ``F''(y) >= 0``, that is ``p_k >= convex_probability(gamma)``. Along the gap of K classes:
    ``a >= log(K - 1) + logit(p)``.

    >>> convex_probability(0.0), round(convex_probability(2.0), 4)
    (0.0, 0.0578)
    """
    require(bool(np.isfinite(gamma)) and gamma >= 0, "gamma", gamma, "a finite number >= 0")
    if gamma == 0:
        return 0.0

    def curvature(p: float) -> float:
        """``F''/(p (1-p)^(g+1))`` with ``F' = (1-p)^g [(1-p) - g p log p]``, ``dp/dy = -p (1-p)``."""
        s, g = 1.0 - p, gamma
        slope = s - g * p * np.log(p)
        return float(g * slope / s + 1.0 + g * (np.log(p) + 1.0))

    return float(brentq(curvature, 1e-300, 0.999, xtol=1e-15))

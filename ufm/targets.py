"""Targets of the samples: how many there are of each class."""

from __future__ import annotations

import numpy as np

from ufm._base import require, require_range, require_whole, suggestion

KINDS = ("exp", "step")


def long_tail(classes: int, n_max: int, ratio: float, kind: str = "exp") -> tuple[int, ...]:
    """Counts of a long-tailed problem, the largest class first: ``per_class`` of a `ufm.Problem`.

    ``"exp"`` falls geometrically, ``n_k = n_max ratio^(-k/(K-1))`` (Cui et al. 2019); ``"step"`` gives the first half
    of the classes ``n_max`` and the others ``n_max/ratio`` (Buda et al. 2018). Counts are rounded, and at least 1.

    Args:
        classes: K >= 2.
        n_max: samples of the largest class, >= 1.
        ratio: the largest count over the smallest, >= 1.
        kind: ``"exp"`` or ``"step"``.

    Raises:
        InputError: naming the argument, its value and what is allowed.

    >>> long_tail(4, 1000, 100), long_tail(4, 1000, 10, "step")
    ((1000, 215, 46, 10), (1000, 1000, 100, 100))
    """
    require_whole("classes", classes, 2)
    require_whole("n_max", n_max, 1)
    require_range("ratio", ratio, "a finite number >= 1", lambda x: (x >= 1) & (x < np.inf))
    require(kind in KINDS, "kind", kind, suggestion(str(kind), KINDS))
    k = np.arange(classes)
    place = k / (classes - 1) if kind == "exp" else (k >= (classes + 1) // 2).astype(float)
    return tuple(int(n) for n in np.maximum(1, np.round(n_max * float(ratio) ** -place)))

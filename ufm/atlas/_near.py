"""How near a problem lies to a threshold of a theorem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

NEAR = 1e-4
"""Relative distance from which on the sides of a threshold can be told apart.

At distance t of a threshold the minimum differs from that of the other side by about t^2 of itself, which a gap
certified to 1e-10 resolves from t = 1e-5 on; the tolerances of the claims want ten times that.
"""


def distance_to_threshold(problem: Any, case: Callable[[Any], Any]) -> str:
    """In words, which number of ``problem`` times 1 + t, ``|t| < NEAR``, changes what ``case`` says; empty for none.

    Where a step to either side changes it the case is that of an equality, such as two equal decays, and no
    threshold.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(problem)
    leaves = [leaf for _, leaf in paths]
    here = case(problem)
    for i, (path, leaf) in enumerate(paths):
        counts = getattr(path[0], "name", "") == "grouping"  # whole numbers: there are none beside them
        number = not np.ndim(leaf) and np.issubdtype(np.result_type(leaf), np.floating)
        if counts or not number or not 0 < abs(float(leaf)) < np.inf:
            continue

        def changed(t: float, i: int = i, number: float = float(leaf)) -> bool:
            moved = jax.tree.unflatten(structure, [*leaves[:i], number * (1.0 + t), *leaves[i + 1 :]])
            return bool(case(moved) != here)

        sides = [side for side in (-1.0, 1.0) if changed(side * NEAR)]
        if len(sides) == 1:
            low, high = 0.0, NEAR
            while high - low > 0.01 * high and high > np.finfo(float).eps:
                middle = 0.5 * (low + high)
                low, high = (low, middle) if changed(sides[0] * middle) else (middle, high)
            name = jax.tree_util.keystr(path).lstrip(".")
            return f"too near to tell: a threshold lies {sides[0] * high:+.1e} of itself away in {name}"
    return ""

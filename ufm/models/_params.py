"""A point of a problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ufm._base import pytree


@pytree()
@dataclass(frozen=True)
class Params:
    """A point: classifier ``W`` (K, d), features ``H`` (d, columns) and bias ``b``.

    In deep models ``W`` is a tuple of matrices from the classifier down: ``W[0] @ ... @ W[-1] @ H`` are the logits.
    ``b`` has shape (K,) for a bias per class, () for a unified one, and is None without a bias.
    """

    W: Any
    H: Any
    b: Any = None

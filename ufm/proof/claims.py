"""What theorems claim of a minimum, in a form that ball arithmetic can refute; needs no python-flint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Refutation:
    """What a theorem claims of the minimum, and what to hold against it.

    Attributes:
        theorem: its id in `ufm.atlas`.
        words: the claim in words.
        claim: ``"centered"`` (at a minimizer the rows of W sum to zero), ``"origin"`` (the origin is a minimizer or has
            negative curvature) or ``"chord"`` (focal loss's phi + c|t| has one minimizer for every c).
        logits: for ``"centered"``, logits (K, K) of the best such point, from which the dual matrix is made.
        ends: for ``"chord"``, two t <= 0, with phi above its chord in their middle.

    >>> import jax, ufm
    >>> jax.config.update("jax_enable_x64", True)
    >>> problem = ufm.Problem(4, 5, 2, ufm.losses.BCE(), ufm.Decay(5e-3, 1e-3, 0.5))
    >>> claim = ufm.atlas.THEOREMS["li2025/2"].refutation(problem)
    >>> proof = ufm.proof.prove(problem, ufm.theory.minimizer(problem).params, refutes=claim)
    >>> proof.document["refutes"]["by"][:6]
    '0.0499'
    """

    theorem: str
    words: str
    claim: str
    logits: Any = None
    ends: tuple[float, float] | None = None

"""Proofs in ball arithmetic: an enclosure of the minimum, and critical points, without an allowance for rounding.

    proof = ufm.proof.prove(problem, solution.params)      # lower < f* <= upper, decimals rounded outward
    proof.save("proof.json")
    ufm.proof.check("proof.json")                          # by a program that shares nothing with the prover

float64 numbers are exact rationals, so a point and a dual matrix are a proof (theory of the bound: `ufm.theory`). Balls
are Arb's, through python-flint: ``pip install 'ufm[proof]'``. Names load on first use, so that
``python -m ufm.proof.checker`` loads the checker alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ufm.proof.claims import Refutation
    from ufm.proof.critical import CriticalBall, critical_point
    from ufm.proof.enclosure import Proof, check, prove
    from ufm.proof.losses import Form
    from ufm.proof.thresholds import Bracket, exceeds, rank_of_minimizer, threshold

_HOMES = {
    "Bracket": "thresholds",
    "CriticalBall": "critical",
    "Form": "losses",
    "Proof": "enclosure",
    "Refutation": "claims",
    "check": "enclosure",
    "critical_point": "critical",
    "exceeds": "thresholds",
    "prove": "enclosure",
    "rank_of_minimizer": "thresholds",
    "threshold": "thresholds",
}
__all__ = [
    "Bracket",
    "CriticalBall",
    "Form",
    "Proof",
    "Refutation",
    "check",
    "critical_point",
    "exceeds",
    "prove",
    "rank_of_minimizer",
    "threshold",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ufm.proof.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ufm.proof' has no attribute {name!r}")

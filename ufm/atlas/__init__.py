"""The theorems as executable, certified checks; one file per paper in `ufm.atlas.papers`."""

from __future__ import annotations

from ufm.atlas._conjecture import Conjecture, conjecture, read_claim
from ufm.atlas._core import (
    CERTIFIED,
    Evidence,
    Finding,
    Report,
    Theorem,
    Verdict,
    check,
)
from ufm.atlas._draw import Family
from ufm.atlas._exhibits import proof_file, refute
from ufm.atlas._phase import DIAGRAMS, MARGIN, Diagram, Point, diagram
from ufm.atlas._quantity import Bound, Quantity, at_least, at_most, quantity
from ufm.atlas._search import small
from ufm.atlas._trials import Trial, Trials, rerun, save_counterexample
from ufm.atlas._verify import THEOREMS, Case, standard_suite, verify, verify_random
from ufm.atlas.papers import PAPERS

__all__ = [
    "CERTIFIED",
    "DIAGRAMS",
    "MARGIN",
    "PAPERS",
    "THEOREMS",
    "Bound",
    "Case",
    "Conjecture",
    "Diagram",
    "Evidence",
    "Family",
    "Finding",
    "Point",
    "Quantity",
    "Report",
    "Theorem",
    "Trial",
    "Trials",
    "Verdict",
    "at_least",
    "at_most",
    "check",
    "conjecture",
    "diagram",
    "proof_file",
    "quantity",
    "read_claim",
    "refute",
    "rerun",
    "save_counterexample",
    "small",
    "standard_suite",
    "verify",
    "verify_random",
]

"""The theorems as executable, certified checks; one file per paper in `ufm.atlas.papers`."""

from __future__ import annotations

from ufm.atlas._core import CERTIFIED, Evidence, Finding, Quantity, Report, Theorem, Verdict, check, quantity
from ufm.atlas._draw import Family
from ufm.atlas._exhibits import proof_file, refute
from ufm.atlas._phase import DIAGRAMS, MARGIN, Diagram, Point, diagram
from ufm.atlas._trials import Trial, Trials, rerun, save_counterexample
from ufm.atlas._verify import THEOREMS, Case, standard_suite, verify, verify_random
from ufm.atlas.papers import PAPERS

__all__ = [
    "CERTIFIED",
    "DIAGRAMS",
    "MARGIN",
    "PAPERS",
    "THEOREMS",
    "Case",
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
    "check",
    "diagram",
    "proof_file",
    "quantity",
    "refute",
    "rerun",
    "save_counterexample",
    "standard_suite",
    "verify",
    "verify_random",
]

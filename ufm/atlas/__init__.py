"""The theorems as executable, certified checks; one file per paper."""

from __future__ import annotations

from ufm.atlas._core import Case, Evidence, Finding, Quantity, Report, Theorem, Verdict, check, quantity
from ufm.atlas._verify import PAPERS, THEOREMS, standard_suite, verify

__all__ = [
    "PAPERS",
    "THEOREMS",
    "Case",
    "Evidence",
    "Finding",
    "Quantity",
    "Report",
    "Theorem",
    "Verdict",
    "check",
    "quantity",
    "standard_suite",
    "verify",
]

"""Figures; they draw what the other rooms computed and hold no mathematics."""

from __future__ import annotations

from ufm.plotting.history import history
from ufm.plotting.measure import sheet
from ufm.plotting.phase import phase
from ufm.plotting.scores import scores_against, training

__all__ = ["history", "phase", "scores_against", "sheet", "training"]

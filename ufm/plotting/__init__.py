"""Figures; they draw what the other rooms computed and hold no mathematics."""

from __future__ import annotations

from ufm.plotting.scores import scores_against, training

__all__ = ["scores_against", "training"]

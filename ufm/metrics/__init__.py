"""Collapse metrics; they act on arrays, so on any network's features too."""

from __future__ import annotations

from ufm.metrics.collapse import Collapse, class_means, collapse, scores

__all__ = ["Collapse", "class_means", "collapse", "scores"]

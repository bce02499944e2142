"""A report as pages: Markdown, and one HTML file that opens from disk, loads nothing and follows light and dark."""

from __future__ import annotations

from ufm.report._write import write, write_trials

__all__ = ["write", "write_trials"]

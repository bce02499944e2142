"""Everything about a real network: its files, statistics of its features, and the model nearest to it."""

from __future__ import annotations

from ufm.networks import cosines, uniform
from ufm.networks.measurement import Measurement, measure, measure_file
from ufm.networks.nearest_model import Nearest, Observed, nearest

__all__ = ["Measurement", "Nearest", "Observed", "cosines", "measure", "measure_file", "nearest", "uniform"]

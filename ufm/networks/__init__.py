"""Everything about a real network: its files, statistics of its features, and the model nearest to it."""

from __future__ import annotations

from ufm.networks import cosines, uniform
from ufm.networks.history import History
from ufm.networks.measurement import Measurement, measure, measure_file
from ufm.networks.nearest_model import Nearest, Observed, nearest
from ufm.networks.prediction import NoPrediction, Prediction, predict

__all__ = [
    "History",
    "Measurement",
    "Nearest",
    "NoPrediction",
    "Observed",
    "Prediction",
    "cosines",
    "measure",
    "measure_file",
    "nearest",
    "predict",
    "uniform",
]

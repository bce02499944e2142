"""Targets of the samples: groups of samples with one target each, and how many samples each group has.

A target is a label, or a column y (K,) of numbers: `soft` labels and `mixup` (probabilities), `sets` of labels (0 or
1), `values` to be fitted. With a column, cross-entropy is ``sum_j y_j (log sum_i e^{z_i} - z_j)``, PyTorch's
CrossEntropyLoss with probabilities; BCE is ``sum_j y_j softplus(-z_j) + (1 - y_j) softplus(z_j)``, K times PyTorch's
BCEWithLogitsLoss; MSE is ``||z - y||^2``, K times PyTorch's MSELoss. All three stay convex, so the lift stays a nuclear
norm and certificates are tight for d >= min(K, G).

Counts are leaves: problems that differ in counts alone share one compiled program, and a sweep may vary them. Only
where every sample has a feature of its own is their sum N, `Targets.total`, part of the program.
"""

from __future__ import annotations

from ufm.targets._columns import Columns, distillation, mixup, next_token, sets, soft, values
from ufm.targets._labels import MOST, Labels, LongTail, OfClasses, Targets, as_targets, long_tail

__all__ = [
    "MOST",
    "Columns",
    "Labels",
    "LongTail",
    "OfClasses",
    "Targets",
    "as_targets",
    "distillation",
    "long_tail",
    "mixup",
    "next_token",
    "sets",
    "soft",
    "values",
]

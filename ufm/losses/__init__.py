"""Losses of logits ``z`` (K,) and a true class: value, convex conjugate, value at ``(p, q)``."""

from __future__ import annotations

from ufm._base import read_call
from ufm.losses._base import Loss, complement_log, is_column, true_class, xlogx
from ufm.losses.binary import BCE
from ufm.losses.logistic import Logistic
from ufm.losses.naive import Naive
from ufm.losses.softmax import CE, Focal, LabelSmoothing, smoothed
from ufm.losses.squared import MSE
from ufm.losses.user import Custom, custom

__all__ = [
    "BCE",
    "CE",
    "MSE",
    "Custom",
    "Focal",
    "LabelSmoothing",
    "Logistic",
    "Loss",
    "Naive",
    "complement_log",
    "custom",
    "is_column",
    "parse",
    "smoothed",
    "true_class",
    "xlogx",
]

NAMED: dict[str, type[Loss]] = {loss.name: loss for loss in (CE, BCE, Focal, LabelSmoothing, MSE, Logistic)}
"""The losses that a command line or a spec can name."""


def parse(text: str) -> Loss:
    """Read ``name`` or ``name:key=value,...``, as written on the command line.

    >>> parse("focal:gamma=3")
    Focal(gamma=3.0)

    Raises:
        InputError: naming the unknown loss or hyper-parameter and those that are known.
    """
    known = {name: loss.__dataclass_fields__ for name, loss in NAMED.items()}  # type: ignore[attr-defined]
    name, hyper = read_call(text, "loss", known)
    return NAMED[name](**hyper)

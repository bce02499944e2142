"""Losses of logits ``z`` (K,) and a true class: value, convex conjugate, value at ``(p, q)``."""

from __future__ import annotations

from ufm._base import InputError, nearest, require
from ufm.losses._base import Loss
from ufm.losses.binary import BCE
from ufm.losses.naive import Naive
from ufm.losses.softmax import CE, Focal, LabelSmoothing
from ufm.losses.squared import MSE
from ufm.losses.user import Custom, custom

__all__ = ["BCE", "CE", "MSE", "Custom", "Focal", "LabelSmoothing", "Loss", "Naive", "custom", "parse"]

NAMED: dict[str, type[Loss]] = {loss.name: loss for loss in (CE, BCE, Focal, LabelSmoothing, MSE)}
"""The losses that a command line or a spec can name."""


def parse(text: str) -> Loss:
    """Read ``name`` or ``name:key=value,...``, as written on the command line.

    >>> parse("focal:gamma=3")
    Focal(gamma=3.0)

    Raises:
        InputError: naming the unknown loss or hyper-parameter and those that are known.
    """
    name, _, rest = text.partition(":")
    require(name in NAMED, "loss", name, nearest(name, NAMED))
    known = NAMED[name].__dataclass_fields__  # type: ignore[attr-defined]
    hyper = {}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        allowed = nearest(key, known) if known else f"absent: {name} has no hyper-parameters"
        require(key in known, f"hyper-parameter of loss {name}", key, allowed)
        try:
            hyper[key] = float(value)
        except ValueError:
            raise InputError(f"{key} = {value!r}: must be a number") from None
    return NAMED[name](**hyper)

"""Models of the features: how a point becomes logits, what it costs, and what is known of that cost."""

from __future__ import annotations

import dataclasses

from ufm._base import pytree, read_call, require
from ufm.models._base import Coordinates, Model
from ufm.models._params import Params
from ufm.models._scaled import Scaled, half_square
from ufm.models.fixed import FixedClassifier
from ufm.models.linear import Linear
from ufm.models.nonnegative import Nonnegative
from ufm.models.spheres import Spheres

__all__ = [
    "Coordinates",
    "FixedClassifier",
    "Linear",
    "Model",
    "Nonnegative",
    "Params",
    "Scaled",
    "Spheres",
    "half_square",
    "parse",
    "pytree",
]

NAMED: dict[str, type[Model]] = {model.name: model for model in (Linear, Nonnegative, Spheres)}
"""The models that a command line or a spec can name."""


def parse(text: str) -> Model:
    """Read ``name`` or ``name:key=value,...``, as written on the command line.

    >>> parse("spheres:gamma=2")
    Spheres(gamma=2.0)

    Raises:
        InputError: naming the unknown model or hyper-parameter and those that are known.
    """
    known = {name: model.__dataclass_fields__ for name, model in NAMED.items()}  # type: ignore[attr-defined]
    name, hyper = read_call(text, "model", known)
    for field in dataclasses.fields(NAMED[name]):  # type: ignore[arg-type]
        given = field.name in hyper or field.default is not dataclasses.MISSING
        require(given, f"model {name}, {field.name}", None, f"given, as in {name}:{field.name}=8")
    return NAMED[name](**hyper)

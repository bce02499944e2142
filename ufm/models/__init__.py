"""Models of the features: how a point becomes logits, what it costs, and what is known of that cost."""

from __future__ import annotations

import inspect

from ufm._base import pytree, read_call, require
from ufm.models._base import Coordinates, Model
from ufm.models._params import Params
from ufm.models._scaled import Scaled, half_square
from ufm.models.deep import Deep
from ufm.models.fixed import FixedClassifier
from ufm.models.linear import Linear
from ufm.models.nonnegative import Nonnegative
from ufm.models.spheres import Spheres

__all__ = [
    "Coordinates",
    "Deep",
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

NAMED: dict[str, type[Model]] = {model.name: model for model in (Linear, Nonnegative, Spheres, Deep)}
"""The models that a command line or a spec can name."""


def parse(text: str) -> Model:
    """Read ``name`` or ``name:key=value,...``, as written on the command line.

    >>> parse("spheres:gamma=2")
    Spheres(gamma=2.0)
    >>> parse("deep:layers=3,activation=relu")
    Deep(layers=3, activation='relu')

    Raises:
        InputError: naming the unknown model or hyper-parameter and those that are known.
    """
    known = {name: inspect.signature(model).parameters for name, model in NAMED.items()}
    words = {key for taken in known.values() for key, field in taken.items() if "str" in str(field.annotation)}
    name, hyper = read_call(text, "model", known, words)
    for key, field in known[name].items():
        given = key in hyper or field.default is not field.empty
        require(given, f"model {name}, {key}", None, f"given, as in {name}:{key}=8")
    return NAMED[name](**hyper)

"""One problem as data (JSON, TOML, command-line options) and as one line of words; and back.

The data of a problem are what its constructor takes, the loss and the model as the command line writes them:

    {"loss": "focal:gamma=3", "classes": 4, "dim": 5, "per_class": 2, "decay": {"W": 0.01, "H": 0.01, "b": 0.01},
     "bias": "per_class", "features": "per_sample", "model": "linear"}

with ``classifier`` (K rows), ``weights`` (K numbers) and ``offset`` (a number, or K of them) where there are any.
Numbers are written so that they are read back to the last digit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from ufm import losses, models
from ufm._base import InputError, require, require_known, require_whole, shown, write_call
from ufm.bias import Bias
from ufm.models import FixedClassifier, Linear
from ufm.problem import Decay, Problem
from ufm.targets import Columns

KEYS = (
    "loss",
    "classes",
    "dim",
    "per_class",
    "targets",
    "decay",
    "bias",
    "features",
    "model",
    "classifier",
    "weights",
    "offset",
)
SIZES = ("classes", "dim", "per_class")


def stated(problem: Problem) -> bool:
    """Whether data can state the problem: not with a user's own loss or model, which are code.

    >>> stated(Problem(3, 4, 5))
    True
    """
    named_loss = type(problem.loss) is losses.NAMED.get(problem.loss.name)
    named_model = type(problem.model) is models.NAMED.get(problem.model.name)
    return named_loss and (named_model or type(problem.model) is FixedClassifier)


def to_data(problem: Problem) -> dict[str, Any]:
    """The problem as plain data.

    Raises:
        InputError: for a loss or a model of one's own.

    >>> to_data(Problem(3, 4, (5, 5, 1), losses.Focal(3.0)))["loss"]
    'focal:gamma=3'
    """
    require(stated(problem), "problem", str(problem), "one with a named loss and model: others are stated in Python")
    data = {
        "loss": write_call(problem.loss.name, problem.loss.hyper, exact),
        "classes": problem.classes,
        "dim": problem.dim,
        **_samples(problem),
        "decay": {k: float(v) for k, v in vars(problem.decay).items()},
        "bias": str(problem.bias),
        "features": problem.features,
    }
    if isinstance(problem.model, FixedClassifier):
        data["classifier"] = np.asarray(problem.model.W, float).tolist()
    else:
        data["model"] = write_call(problem.model.name, problem.model.hyper, exact)
    for name in ("weights", "offset"):
        value = getattr(problem, name)
        if value is not None:
            data[name] = np.asarray(value, float).tolist()
    return data


def from_data(data: Mapping[str, Any]) -> Problem:
    """The problem that ``data`` state; what is not given is the default of `Problem`.

    Raises:
        InputError: naming an unknown key, or a value that `Problem` refuses.

    >>> problem = Problem(3, 4, 5, losses.BCE(), Decay(1 / 3, 0.1, 0.0), "unified", model=models.Spheres(2.5))
    >>> from_data(to_data(problem)) == problem
    True
    """
    require(isinstance(data, Mapping), "problem", data, "a table")
    fields = dict(data)
    # Files of version 0.1 kept a loss's hyper-parameters and the scale of the spheres by themselves.
    hyper, gamma = fields.pop("hyper", None), fields.pop("gamma", None)
    known_keys(fields, KEYS, "key of [problem]")
    if "loss" in fields:
        if hyper is not None:
            require(isinstance(hyper, Mapping), "hyper", hyper, "a table of numbers")
            hyper = {name: number(f"hyper.{name}", value) for name, value in hyper.items()}
        fields["loss"] = _named(fields["loss"], "loss", losses, hyper)
    if gamma is not None:
        fields["model"] = models.Spheres(number("gamma", gamma))
    elif "model" in fields:
        fields["model"] = _named(fields["model"], "model", models)
    if fields.get("targets") is not None:
        known_keys(fields["targets"], ("kind", "columns", "counts"), "key of targets")
        given = {"counts": 1, **fields["targets"]}
        for key in ("kind", "columns"):
            require(key in given, "targets", sorted(given), f"a table with the key {key!r}")
        fields["targets"] = Columns(given["columns"], given["counts"], given["kind"])
    if "decay" in fields:
        known_keys(fields["decay"], ("W", "H", "b"), "decay")
        fields["decay"] = Decay(**{name: number(f"decay.{name}", value) for name, value in fields["decay"].items()})
    for name in set(SIZES) & set(fields):
        require_size(name, fields[name])
    for name in ("classifier", "weights", "offset"):
        if fields.get(name) is not None:
            fields[name] = numbers(name, fields[name])
    return Problem(**fields)


def describe(problem: Problem, varied: Collection[str] = ()) -> str:
    """The problem in one line of words, defaults left out; and what ``varied`` names, leaves or fields.

    >>> describe(Problem(10, 20, 5, losses.BCE(), Decay(5e-3, 1e-3, 0.5), "unified"))
    'bce K=10 d=20 n=5, decay W=0.005 H=0.001 b=0.5, unified bias'
    >>> describe(Problem(3, 4, 5, losses.Focal()), ["decay.W,decay.H", "loss.gamma", "classes"])
    'focal d=4 n=5, decay b=0.0005'
    """
    names = {part for name in varied for part in name.split(",")}
    fixed = {name for name in KEYS if name not in names}
    loss = problem.loss.name if any(name.startswith("loss.") for name in names) else str(problem.loss)
    sizes = {"classes": f"K={problem.classes}", "dim": f"d={problem.dim}", "per_class": f"n={problem.per_class!s}"}
    if not problem.labeled:
        sizes["per_class"] = f"{problem.targets.words} of {problem.samples} samples"
    head = ([loss] if "loss" in fixed else []) + [text for name, text in sizes.items() if name in fixed]
    used = {"W", "H", "b"} - ({"b"} if problem.bias == "none" else set())
    used -= {"W", "H"} - set(problem.model.decays)
    decays = [
        f"{k}={float(v):g}" for k, v in vars(problem.decay).items() if k in used and not names & {"decay", f"decay.{k}"}
    ]
    words = {
        "sizes": " ".join(head),
        "decay": "decay " + " ".join(decays) if decays else "",
        "bias": {Bias.PER_CLASS: "", Bias.UNIFIED: "unified bias", Bias.NONE: "no bias"}[Bias(problem.bias)],
        "features": "one feature per class" if problem.features == "per_class" else "",
        "model": "" if type(problem.model) is Linear else problem.model.words,
        "weights": "" if problem.weights is None else f"weights {_short(problem.weights)}",
        "offset": "" if problem.offset is None else f"offset {_short(problem.offset)}",
    }
    return ", ".join(text for name, text in words.items() if text and name not in names)


def known_keys(table: Any, known: Iterable[str], what: str) -> None:
    """Raise `InputError` unless ``table`` is one whose keys are all ``known``."""
    require(isinstance(table, Mapping), what, table, "a table")
    known = list(known)
    for key in table:
        require_known(what, key, known)


def exact(x: Any) -> str:
    """A number in as few digits as give it back.

    >>> exact(0.1), exact(3.0), exact(1 / 3)
    ('0.1', '3', '0.3333333333333333')
    """
    value = float(x)
    short = format(value, "g")
    return short if float(short) == value else repr(value)


def _samples(problem: Problem) -> dict[str, Any]:
    """Counts as ``per_class`` takes them, or targets that are no labels."""
    counts, targets = problem.per_class, problem.targets
    if targets is None:
        if not isinstance(counts, int):
            counts = list(counts) if isinstance(counts, tuple) else str(counts)
        return {"per_class": counts}
    each = np.asarray(targets.each).astype(int).tolist()
    return {"targets": {"kind": targets.kind, "columns": np.asarray(targets.Y).tolist(), "counts": each}}


def _named(given: Any, field: str, room: Any, hyper: Mapping[str, float] | None = None) -> Any:
    require(isinstance(given, str), field, given, f"a name, one of {', '.join(room.NAMED)}")
    if hyper is None:
        return room.parse(given)
    require_known(field, given, room.NAMED)
    known_keys(hyper, room.NAMED[given].__dataclass_fields__, f"hyper-parameter of {field} {given}")
    return room.NAMED[given](**hyper)


def require_size(name: str, value: Any) -> None:
    """Refuse what is no size, or one that no array has: XLA counts in 32 bits along a dimension."""
    if name == "per_class" and isinstance(value, str):  # in words: `ufm.targets.as_targets` reads it
        return
    for size in value if name == "per_class" and isinstance(value, (list, tuple)) else (value,):
        require_whole(name, size, 1)
        require(name == "per_class" or size < 2**31, name, size, "below 2^31")


def number(name: str, given: Any) -> Any:
    """A real number; a truth value or a string is none, nor an integer of more than 64 bits.

    Raises:
        InputError: for anything else.
    """
    value = numbers(name, given)
    require(np.ndim(value) == 0, name, given, "a number")
    return value


def numbers(name: str, given: Any) -> np.ndarray | float:
    """A number, or an array of numbers, in float64; see `number`."""
    rows = given if isinstance(given, (list, tuple)) else [given]
    entries = [x for row in rows for x in (row if isinstance(row, (list, tuple)) else [row])]
    try:
        real = not any(isinstance(x, (bool, str)) for x in entries) and np.asarray(given).dtype.kind in "iuf"
        array = np.asarray(given, float) if real else None
    except (TypeError, ValueError, OverflowError, RecursionError):
        array = None
    if array is None:
        raise InputError(f"{name} = {shown(given)}: must be {'numbers' if rows is given else 'a number'}")
    return array if array.ndim else float(array)


def _short(value: Any) -> str:
    numbers = [f"{x:g}" for x in np.ravel(np.asarray(value, float))]
    return ",".join(numbers if len(numbers) <= 6 else [*numbers[:3], "...", numbers[-1]])

"""Specs: a sweep written down as TOML, and the ones that ship with the package.

title = "Final bias against lambda_b"

[problem]                      # the options of `ufm solve`
loss = "bce"
classes = 10
decay = {W = 5e-4, H = 5e-4, b = 5e-4}

[solver]                       # optional
name = "sgd:lr=0.5,momentum=0.9"
max_steps = 20_000
record_every = 100             # trajectories of a gradient method
record = ["bias", "positive"]  # all that it records, if not given

[start]                        # optional: where these are no axes
seed = 0

[axes]                         # a grid; or [[lanes]], one table for each
"decay.b" = {log = [1e-6, 1.0, 25]}
loss = ["ce", "bce"]
seed = {range = [0, 8]}
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ufm._base import InputError, require, require_known, require_whole, shown, suggestion
from ufm.statement import SIZES, from_data, known_keys, number, numbers, require_size
from ufm.sweeps._axes import START, STATIC
from ufm.sweeps._run import require_room

SECTIONS = ("title", "problem", "solver", "start", "axes", "lanes", "dtype")
SOLVER = ("name", "tol", "max_steps", "record_every", "record")
RECORDED = ("value", "grad_norm", "bias", "positive", "negative")
RANGES: dict[str, Any] = {"log": np.geomspace, "linear": np.linspace}


def spec_names() -> list[str]:
    """The specs that ship with the package, by name, sorted: what `read_spec` and ``ufm sweep`` take beside a path.

    >>> import ufm
    >>> ufm.sweeps.spec_names()
    ['bias-decay', 'initial-bias']
    """
    folder = importlib.resources.files("ufm.sweeps") / "specs"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def read_spec(source: str | Path) -> dict[str, Any]:
    """Arguments of `ufm.sweep` from a TOML file, or from a shipped spec by its name.

    Raises:
        InputError: naming the line, or the key and those that are allowed.

    >>> sorted(read_spec("bias-decay")["axes"])
    ['decay.b', 'loss']
    """
    if str(source) in spec_names():
        text = (importlib.resources.files("ufm.sweeps") / "specs" / f"{source}.toml").read_text()
    else:
        require("\0" not in str(source), "spec", str(source), "the name of a file")
        path = Path(source)
        allowed = f"a TOML file, or {suggestion(str(source), spec_names())}"
        require(path.is_file(), "spec", str(source), allowed)
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return _arguments(tomllib.loads(text))
    except RecursionError:
        raise InputError(f"{source}: must not be nested so deep") from None
    except ValueError as error:  # of TOML's grammar, an integer of thousands of digits, or one of ours
        raise InputError(f"{source}: {error}") from None


def _arguments(table: dict[str, Any]) -> dict[str, Any]:
    known_keys(table, SECTIONS, "key")
    require(("axes" in table) != ("lanes" in table), "axes", sorted(table), "one of [axes] and [[lanes]]")
    parts = {name: table.get(name, {}) for name in ("problem", "solver", "start")}
    for name, part in parts.items():
        require(isinstance(part, Mapping), name, part, f"a table: [{name}]")
    solver, start = parts["solver"], parts["start"]
    known_keys(solver, SOLVER, "key of [solver]")
    known_keys(start, START, "key of [start]")
    for key, value in start.items():
        number(key, value)
    title = table.get("title", "")
    require(isinstance(title, str), "title", title, "a text in quotes")
    axes: Any = table.get("lanes")
    if axes is None:
        require(isinstance(table["axes"], Mapping), "axes", table["axes"], "a table: [axes]")
        require(len(table["axes"]) > 0, "axes", {}, "at least one axis, such as seed = [0]")
        axes = {name: _values(name, given) for name, given in table["axes"].items()}
    else:
        tables = isinstance(axes, list) and all(isinstance(row, Mapping) for row in axes)
        require(tables, "lanes", axes, "an array of tables: [[lanes]]")
        for row in axes:
            for name, value in row.items():
                _check(name, value)
    require_room(axes)
    dtype, tol, record = table.get("dtype"), solver.get("tol"), solver.get("record")
    require(dtype in (None, "float32", "float64"), "dtype", dtype, "'float32' or 'float64'")
    chosen, tol = solver.get("name"), None if tol is None else number("tol", tol)
    require(chosen is None or isinstance(chosen, str), "solver.name", chosen, "a name in quotes, such as 'newton'")
    require(record is None or isinstance(record, list), "record", record, f"a list of {', '.join(RECORDED)}")
    for name in record or ():
        require_known("record", name, RECORDED)
    for whole in ("max_steps", "record_every"):
        if whole in solver:
            require_whole(whole, solver[whole], 1)
            require(solver[whole] < 2**31, whole, solver[whole], "below 2^31")
    return {
        "problem": from_data(parts["problem"]),
        "axes": axes,
        "solver": chosen,
        "options": {k: v for k, v in solver.items() if k in ("tol", "max_steps", "record_every")},
        "dtype": dtype,
        "title": title,
        "keep": record,
        **start,
    }


def _values(name: str, given: Any) -> Any:
    """The values of an axis: a list, or a range."""
    if not isinstance(given, Mapping):
        for value in given if isinstance(given, list) else ():
            _check(name, value)
        return given
    kinds = [*RANGES, "range"]
    require(len(given) == 1, f"axis {name}", dict(given), f"one of {', '.join(kinds)}")
    kind, ends = next(iter(given.items()))
    require_known(f"axis {name}", kind, kinds)
    allowed = "[start, stop]" if kind == "range" else "[first, last, points]"
    try:
        if kind == "range":
            values: Any = range(*ends)
            require_room({name: values})
            return values
        low, high, points = ends
        require_whole(f"axis {name}, points", points, 1)
        require_room({name: range(points)})
        low, high = (number(f"axis {name}", end) for end in (low, high))
        with np.errstate(all="ignore"):
            values = RANGES[kind](low, high, points)
        require(
            bool(np.isfinite(values).all()), f"axis {name}", dict(given), "between ends with finite numbers between"
        )
        return values
    except InputError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"axis {name} = {shown(dict(given))}: must be {allowed} ({error})") from None


def _check(name: str, value: Any) -> None:
    """A value of a leaf or of the start must be made of numbers; those of static choices are checked where used."""
    if name in SIZES:
        require_size(name, value)
    if not set(name.split(",")) <= set(STATIC):
        numbers(f"axis {name}", value)

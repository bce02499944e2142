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

from ufm._base import InputError, require, suggestion
from ufm.statement import from_data, known_keys
from ufm.sweeps._axes import START

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
        path = Path(source)
        allowed = f"a TOML file, or {suggestion(str(source), spec_names())}"
        require(path.is_file(), "spec", str(source), allowed)
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: {error}") from None
    try:
        return _arguments(table)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _arguments(table: dict[str, Any]) -> dict[str, Any]:
    known_keys(table, SECTIONS, "key")
    require(("axes" in table) != ("lanes" in table), "axes", sorted(table), "one of [axes] and [[lanes]]")
    solver = dict(table.get("solver", {}))
    known_keys(solver, SOLVER, "key of [solver]")
    start = dict(table.get("start", {}))
    known_keys(start, START, "key of [start]")
    axes: Any = table.get("lanes")
    if axes is None:
        require(isinstance(table["axes"], Mapping), "axes", table["axes"], "a table: [axes]")
        axes = {name: _values(name, given) for name, given in table["axes"].items()}
    else:
        tables = isinstance(axes, list) and all(isinstance(row, Mapping) for row in axes)
        require(tables, "lanes", axes, "an array of tables: [[lanes]]")
    dtype, tol, record = table.get("dtype"), solver.get("tol"), solver.get("record")
    require(dtype in (None, "float32", "float64"), "dtype", dtype, "'float32' or 'float64'")
    require(tol is None or isinstance(tol, (int, float)), "tol", tol, "a number")
    require(record is None or isinstance(record, list), "record", record, f"a list of {', '.join(RECORDED)}")
    for name in record or ():
        require(name in RECORDED, "record", name, suggestion(str(name), RECORDED))
    return {
        "problem": from_data(table.get("problem", {})),
        "axes": axes,
        "solver": solver.get("name"),
        "options": {k: v for k, v in solver.items() if k in ("tol", "max_steps", "record_every")},
        "dtype": dtype,
        "title": table.get("title", ""),
        "keep": record,
        **start,
    }


def _values(name: str, given: Any) -> Any:
    """The values of an axis: a list, or a range."""
    if not isinstance(given, Mapping):
        return given
    kinds = [*RANGES, "range"]
    require(len(given) == 1, f"axis {name}", dict(given), f"one of {', '.join(kinds)}")
    kind, numbers = next(iter(given.items()))
    require(kind in kinds, f"axis {name}", kind, suggestion(kind, kinds))
    try:
        if kind == "range":
            return list(range(*numbers))
        low, high, points = numbers
        return RANGES[kind](float(low), float(high), points)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"axis {name} = {dict(given)!r}: must be [first, last, points], or [start, stop] ({error})"
        ) from None

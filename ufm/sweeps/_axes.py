"""From axes to lanes: every combination of values, split into groups that share one compiled program.

An axis names a leaf of the problem (``"decay.b"``, ``"loss.gamma"``; ``"decay.W,decay.H"`` sets both to the
same value), a property of the random start (``"seed"``, ``"scale"``, ``"bias_mean"``) or a static choice. Leaves
and starts are arrays of one program; each combination of static choices is a group.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ufm import losses, models
from ufm._base import InputError, require, suggestion
from ufm.problem import Problem, require_single
from ufm.solvers import Gradient, Lifted, parse, resolve

STATIC = ("loss", "classes", "dim", "per_class", "bias", "features", "model", "solver")
START = {"seed": 0, "scale": 1.0, "bias_mean": 0.0}
"""The random start and its defaults."""
ALLOWED = {"seed": "a whole number in [0, 2^63)", "scale": "a finite number >= 0", "bias_mean": "a finite number"}


@dataclass(frozen=True)
class Group:
    """Lanes that share every static choice.

    Attributes:
        problem: template; ``lanes`` replaces some of its leaves.
        solver: of all lanes.
        lanes: arrays (lanes, ...) by name: the scalar leaves, any other that varies, and the whole of `START`.
        index: place of each lane among all lanes of the sweep, hardest first.
    """

    problem: Problem
    solver: Any
    lanes: dict[str, np.ndarray]
    index: np.ndarray


@dataclass(frozen=True)
class Plan:
    """All lanes of a sweep.

    Attributes:
        coords: value of every axis, by name: one per position of its dimension.
        dims: names of the dimensions; those of ``coords`` for a grid, ``("lane",)`` for a list.
        shape: size of each dimension.
        groups: the lanes.
        fingerprint: digest of everything above and of dtype and solver: equal sweeps have equal ones.
    """

    coords: dict[str, np.ndarray]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    groups: list[Group]
    fingerprint: str

    @property
    def lanes(self) -> int:
        """How many problems there are."""
        return int(np.prod(self.shape))


def leaf_names(problem: Problem) -> dict[str, Any]:
    """Every leaf of ``problem`` by its path.

    >>> import ufm
    >>> sorted(leaf_names(ufm.Problem(loss=ufm.losses.Focal())))
    ['decay.H', 'decay.W', 'decay.b', 'loss.gamma']
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(problem)
    return {".".join(str(getattr(k, "name", getattr(k, "key", k))) for k in path): leaf for path, leaf in paths}


def with_leaf(tree: Any, path: str, value: Any) -> Any:
    """``tree`` with the leaf at ``path`` replaced; its constructors check the value."""
    head, _, rest = path.partition(".")
    mapping = isinstance(tree, Mapping)
    inner = with_leaf(tree[head] if mapping else getattr(tree, head), rest, value) if rest else value
    return {**tree, head: inner} if mapping else dataclasses.replace(tree, **{head: inner})


def with_leaves(problem: Problem, lane: Mapping[str, Any]) -> Problem:
    """``problem`` with traced leaves from ``lane``; the names that are no leaves are left out."""
    names, (leaves, structure) = leaf_names(problem), jax.tree.flatten(problem)
    return jax.tree.unflatten(structure, [lane.get(n, leaf) for n, leaf in zip(names, leaves, strict=True)])


def with_static(problem: Problem, choices: Mapping[str, Any]) -> Problem:
    """``problem`` with static choices other than the solver; a loss may be named."""
    fields = {k: v for k, v in choices.items() if k != "solver"}
    for name, room in (("loss", losses), ("model", models)):
        if isinstance(fields.get(name), str):
            fields[name] = room.parse(fields[name])
    if isinstance(fields.get("per_class"), list):
        fields["per_class"] = tuple(fields["per_class"])
    return dataclasses.replace(problem, **fields)


def plan(
    problem: Problem,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    solver: Any,
    start: Mapping[str, Any],
    dtype: Any,
    options: Mapping[str, Any] | None = None,
    keep: Sequence[str] | None = None,
    eliminate: bool = True,
) -> Plan:
    """Lay out the lanes: a grid over a mapping of axes, or one lane for each of a sequence of mappings.

    The rest holds where it is no axis; see `ufm.sweep`.
    """
    allowed = "a ufm.Problem; solve other kinds one by one with ufm.solve"
    require(isinstance(problem, Problem), "problem", type(problem).__name__, allowed)
    require_single(problem)
    grid = isinstance(axes, Mapping)
    values, pointers, shape = _grid(axes) if isinstance(axes, Mapping) else _listed(axes)
    require(int(np.prod(shape)) > 0, "axes", dict.fromkeys(values), "axes of at least one value each")
    _refuse_overlaps(list(values))
    static = [name for name in values if name in STATIC]
    dynamic = [name for name in values if name not in STATIC]
    for name, default in START.items():
        _check_start(name, [start.get(name, default)])
    groups = []
    for combination in itertools.product(*(range(len(values[name])) for name in static)):
        chosen = {name: values[name][i] for name, i in zip(static, combination, strict=True)}
        index = np.arange(int(np.prod(shape)))
        for name, i in zip(static, combination, strict=True):
            index = index[pointers[name][index] == i]
        if not index.size:
            continue
        template = with_static(problem, chosen)
        # Scalar leaves that do not vary are lanes too: one program serves any choice of axes.
        constant = {**START, **start, **{k: float(v) for k, v in leaf_names(template).items() if np.ndim(v) == 0}}
        columns = {name: np.full(len(index), value) for name, value in constant.items()}
        for name in dynamic:
            for part, column in _columns(template, name, values[name]).items():
                columns[part] = column[pointers[name][index]]
        order = _hardest_first(columns)
        lanes = {name: column[order] for name, column in columns.items()}
        groups.append(Group(template, _solver(chosen.get("solver", solver), dtype, options or {}), lanes, index[order]))
    coords = {name: _coordinates(name, listed) for name, listed in values.items()}
    if not grid:
        coords = {name: coord[pointers[name]] for name, coord in coords.items()}
    dims = tuple(values) if grid else ("lane",)
    described = (dims, shape, np.dtype(dtype).name, solver, sorted((options or {}).items()), keep, eliminate)
    return Plan(coords, dims, shape, groups, _fingerprint(groups, coords, *described))


def _refuse_overlaps(axes: Sequence[str]) -> None:
    """Two axes that set the same leaf, or a whole and a part of it, leave open which of them a lane has."""
    parts = [(axis, part) for axis in axes for part in axis.split(",")]
    for (axis, part), (other, another) in itertools.combinations(parts, 2):
        apart = part != another and not part.startswith(f"{another}.") and not another.startswith(f"{part}.")
        require(apart, "axes", (axis, other), f"apart: {part!r} and {another!r} set the same")


def _grid(axes: Mapping[str, Any]) -> tuple[dict[str, list], dict[str, np.ndarray], tuple[int, ...]]:
    for name, given in axes.items():
        require(not isinstance(given, str) and hasattr(given, "__len__"), f"axis {name}", given, "a list of values")
    values = {name: list(given) for name, given in axes.items()}
    shape = tuple(len(v) for v in values.values())
    places = np.unravel_index(np.arange(int(np.prod(shape))), shape) if shape else ()
    return values, dict(zip(values, places, strict=True)), shape


def _listed(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list], dict[str, np.ndarray], tuple[int, ...]]:
    require(len(rows) > 0, "lanes", list(rows), "at least one")
    names = list(rows[0])
    for i, row in enumerate(rows):
        require(list(row) == names or set(row) == set(names), f"lane {i}", list(row), f"the keys of lane 0: {names}")
    values: dict[str, list] = {}
    pointers = {}
    for name in names:
        column = [row[name] for row in rows]
        if name in STATIC:  # lanes with the same choice share a group
            distinct = {repr(v): v for v in column}
            values[name], where = list(distinct.values()), {r: i for i, r in enumerate(distinct)}
            pointers[name] = np.array([where[repr(v)] for v in column])
        else:
            values[name], pointers[name] = column, np.arange(len(rows))
    return values, pointers, (len(rows),)


def _columns(template: Problem, axis: str, values: list) -> dict[str, np.ndarray]:
    """The values of a leaf or start axis as an array, checked one by one, under each name that ``axis`` ties."""
    leaves = leaf_names(template)
    columns = {}
    for name in axis.split(","):
        if name in START:
            columns[name] = _check_start(name, values)
            continue
        require(name in leaves, "axis", name, suggestion(name, [*STATIC, *START, *leaves]))
        try:
            column = np.asarray([np.asarray(v, float) for v in values])
        except (TypeError, ValueError):
            raise InputError(f"axis {name} = {values!r}: must be numbers") from None
        expected = np.shape(leaves[name])
        require(column.shape[1:] == expected, f"axis {name}, shape of a value", column.shape[1:], f"{expected}")
        for value in column:
            with_leaf(template, name, value if value.ndim else float(value))
        columns[name] = column
    return columns


def _check_start(name: str, values: list) -> np.ndarray:
    whole = name == "seed"
    for v in values:
        number: Any = np.asarray(v).item() if np.ndim(v) == 0 else None
        known = isinstance(number, int if whole else (int, float)) and not isinstance(number, bool)
        require(known, name, v, ALLOWED[name])
        inside = 0 <= number < 2**63 if whole else np.isfinite(number) and (name != "scale" or number >= 0)
        require(bool(inside), name, v, ALLOWED[name])
    return np.asarray(values, np.int64) if whole else np.asarray(values, float)


def _solver(given: Any, dtype: Any, options: Mapping[str, Any]) -> Any:
    """A solver, checked; one given by name takes ``options``."""
    if given is None or isinstance(given, str):
        given = _named_solver(given or "newton", **options)
    solver = resolve(given, dtype)
    require(not isinstance(solver, Lifted), "solver", "lifted", "a solver of the factored problem: newton, lbfgs, sgd")
    return solver


@functools.cache
def _named_solver(
    name: str, tol: float | None = None, max_steps: int | None = None, record_every: int | None = None
) -> Any:
    """One object per name: optax's optimizers compare by identity, and another one would be compiled again."""
    solver: Any = parse(name, tol=tol, max_steps=max_steps)
    if record_every is None:
        return solver
    allowed = "absent: only gradient methods record trajectories"
    require(isinstance(solver, Gradient), "record_every", record_every, allowed)
    require(isinstance(record_every, int) and record_every >= 1, "record_every", record_every, "a whole number >= 1")
    return dataclasses.replace(solver, record_every=record_every)


def _hardest_first(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Order of the lanes by expected difficulty: the weaker the decays, the longer the solve."""
    return np.lexsort((columns["decay.b"], columns["decay.W"] * columns["decay.H"]))


def _coordinates(name: str, values: list) -> np.ndarray:
    if name in ("loss", "model"):
        return np.array([v if isinstance(v, str) else str(v) for v in values])
    if name in STATIC:
        numbers = all(isinstance(v, (int, np.integer)) for v in values)
        return np.array(values) if numbers else np.array([v if isinstance(v, str) else bare_repr(v) for v in values])
    column = np.asarray(values)
    return column if column.ndim == 1 else np.arange(len(values))


def bare_repr(thing: Any) -> str:
    """``repr`` without addresses, which differ between runs."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _fingerprint(groups: list[Group], coords: Mapping[str, np.ndarray], *described: Any) -> str:
    """Digest of all lanes, and of what their solvers were called: optax's optimizers hide their step sizes."""
    names = [(name, coord.tolist()) for name, coord in coords.items() if name in STATIC]
    digest = hashlib.sha256(bare_repr([*described, names]).encode())
    for group in groups:
        leaves, structure = jax.tree.flatten(group.problem)
        digest.update(f"{bare_repr(structure)} {bare_repr(group.solver)}".encode())
        for array in (*leaves, group.index):
            digest.update(np.ascontiguousarray(array).tobytes())
        for name, array in group.lanes.items():
            digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()

"""From axes to lanes: every combination of values, split into groups that share one compiled program.

An axis names a leaf of the problem (``"decay.b"``, ``"loss.gamma"``; ``"decay.W,decay.H"`` sets both to the
same value), one entry of an array (``"weights.0"``, ``"counts.2"``), a property of the random start (``"seed"``,
``"scale"``, ``"bias_mean"``) or a static choice. Leaves and starts are arrays of one program; each combination of
static choices is a group. Counts are leaves where features are shared by the samples of a class.
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
from ufm.solvers import Gradient, Lifted, eliminates, parse, resolve
from ufm.symmetry import shared

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
        eliminated: whether ``problem`` has one feature per class because `ufm.solve` would eliminate the others.
    """

    problem: Problem
    solver: Any
    lanes: dict[str, np.ndarray]
    index: np.ndarray
    eliminated: bool = False


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
    """Every leaf of ``problem`` by its path, as the constructors of its parts call it.

    >>> import ufm
    >>> sorted(leaf_names(ufm.Problem(loss=ufm.losses.Focal())))
    ['decay.H', 'decay.W', 'decay.b', 'loss.gamma', 'per_class']
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(problem)
    known = {"grouping.each": "per_class"}
    names = [".".join(str(getattr(k, "name", getattr(k, "key", k))) for k in path) for path, _ in paths]
    grouped = "per_class" if problem.labeled else "targets"
    leaves = zip(names, (leaf for _, leaf in paths), strict=True)
    return {known.get(name, name.replace("grouping.", f"{grouped}.")): leaf for name, leaf in leaves}


def canonical(name: str) -> str:
    """``"counts"`` is another name of ``"per_class"``, also where one of them is meant.

    >>> canonical("counts.2"), canonical("decay.W,decay.H")
    ('per_class.2', 'decay.W,decay.H')
    """
    return ",".join(re.sub(r"^counts\b", "per_class", part) for part in name.split(","))


def entry(name: str) -> tuple[str, int | None]:
    """A leaf's name and the entry of it that is meant, if only one.

    >>> entry("weights.3"), entry("decay.W")
    (('weights', 3), ('decay.W', None))
    """
    head, _, last = name.rpartition(".")
    return (head, int(last)) if head and last.isdecimal() else (name, None)


def as_array(problem: Problem, name: str) -> Problem:
    """``problem`` with the leaf ``name`` as an array whose entries can be set."""
    if name == "per_class":
        return dataclasses.replace(problem, per_class=np.asarray(problem.counts, float))
    if name == "offset" and problem.offset is not None:
        return dataclasses.replace(problem, offset=np.broadcast_to(np.asarray(problem.offset, float), problem.classes))
    leaf = leaf_names(problem).get(name)
    require(
        leaf is not None and np.ndim(leaf) == 1,
        f"axis {name}.*",
        leaf,
        "an entry of per_class (counts), weights or offset, if given",
    )
    return problem


def with_leaf(tree: Any, path: str, value: Any) -> Any:
    """``tree`` with the leaf at ``path`` replaced; its constructors check the value."""
    head, _, rest = path.partition(".")
    mapping = isinstance(tree, Mapping)
    inner = with_leaf(tree[head] if mapping else getattr(tree, head), rest, value) if rest else value
    return {**tree, head: inner} if mapping else dataclasses.replace(tree, **{head: inner})


def with_value(problem: Problem, name: str, value: Any) -> Problem:
    """``problem`` with the leaf ``name``, or one entry of it, set; its constructors check the value.

    >>> import ufm
    >>> with_value(ufm.Problem(3, 4, 5), "per_class.1", 2).per_class
    (5, 2, 5)
    """
    leaf, place = entry(name)
    if place is not None:
        problem = as_array(problem, leaf)
        array = np.array(leaf_names(problem)[leaf], float)
        array[place] = value
        value = array
    return with_leaf(problem, leaf, value)


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
    choices = [tuple(values[name]) for name in static]
    for name, default in START.items():
        _check_start(name, [start.get(name, default)])
    groups = []
    for combination in itertools.product(*(range(len(c)) for c in choices)):
        chosen = {name: values[name][i] for name, i in zip(static, combination, strict=True)}
        index = np.arange(int(np.prod(shape)))
        for name, i in zip(static, combination, strict=True):
            index = index[pointers[name][index] == i]
        if not index.size:
            continue
        template, solver_of = with_static(problem, chosen), _solver(chosen.get("solver", solver), dtype, options or {})
        shorter = eliminate and eliminates(solver_of, template)
        if shorter:
            template = shared(template)
        # Scalar leaves that do not vary are lanes too: one program serves any choice of axes.
        columns = {name: np.full(len(index), value) for name, value in {**START, **start}.items()}
        for name in (name for name in values if name not in STATIC):
            template = _set_axis(template, columns, name, values[name], pointers[name][index])
        scalars = {k: float(v) for k, v in leaf_names(template).items() if np.ndim(v) == 0}
        columns = {name: np.full(len(index), value) for name, value in scalars.items()} | columns
        order = _hardest_first(columns)
        lanes = {name: column[order] for name, column in columns.items()}
        groups.append(Group(template, solver_of, lanes, index[order], shorter))
    coords = {name: _coordinates(name, listed) for name, listed in values.items()}
    if not grid:
        coords = {name: coord[pointers[name]] for name, coord in coords.items()}
    dims = tuple(values) if grid else ("lane",)
    described = (dims, shape, np.dtype(dtype).name, solver, sorted((options or {}).items()), keep, eliminate)
    return Plan(coords, dims, shape, groups, _fingerprint(groups, coords, *described))


def _refuse_overlaps(axes: Sequence[str]) -> None:
    """Two axes that set the same leaf, or a whole and a part of it, leave open which of them a lane has."""
    parts = [(axis, part) for axis in axes for part in canonical(axis).split(",")]
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


def _set_axis(
    template: Problem, columns: dict[str, np.ndarray], axis: str, values: list, pointers: np.ndarray
) -> Problem:
    """Write the values of a leaf or start axis into the ``columns`` of lanes, checked, under each name it ties.

    Returns:
        The template, whose leaf has become an array where one entry of it is set.
    """
    for name in canonical(axis).split(","):
        if name in START:
            columns[name] = _check_start(name, values)[pointers]
            continue
        leaf, place = entry(name)
        if leaf == "per_class" or leaf.startswith("per_class."):
            allowed = (
                "fixed where every sample has a feature of its own: it takes features='per_class', or a convex loss"
            )
            require(template.grouping.total is None, f"axis {axis}", values, allowed)
        if place is not None:
            template = as_array(template, leaf)
        leaves = leaf_names(template)
        require(leaf in leaves, "axis", name, suggestion(name, [*STATIC, *START, *leaves]))
        expected = np.shape(leaves[leaf]) if place is None else ()
        try:
            column = np.asarray([np.asarray(v, float) for v in values])
        except (TypeError, ValueError):
            raise InputError(f"axis {axis} = {values!r}: must be numbers") from None
        require(column.shape[1:] == expected, f"axis {axis}, shape of a value", column.shape[1:], f"{expected}")
        rows = column[pointers]
        if place is not None:
            size = np.size(leaves[leaf])
            require(place < size, f"axis {axis}", place, f"an entry from 0 to {size - 1}")
            rows = columns.get(leaf, np.tile(np.asarray(leaves[leaf], float), (len(pointers), 1)))
            rows[:, place] = column[pointers]
        for value in np.unique(rows, axis=0):
            with_leaf(template, leaf, value if value.ndim else float(value))
        columns[leaf] = rows
    return template


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
        if name == "per_class" and not numbers:
            return np.array([",".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for v in values])
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

"""Two ways to solve many lanes, chosen by the device.

``scan``, for CPUs: lanes are dealt to the devices, and each device solves its own one after another, every lane
a while-loop of its own that stops when it is done. A vmapped loop is several times slower there, because all
lanes wait for the slowest one and products of small batches are slow.

``batch``, for accelerators: every device holds a pool of lanes and advances a wide batch of them by a few steps
at a time; between rounds the host replaces the lanes that have finished by waiting ones.

Both run inside `jax.shard_map` over the devices of this process, without any communication: nothing waits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, PartitionSpec

from ufm._base import require, suggestion
from ufm.problem import Params, Problem
from ufm.solvers import Status, run
from ufm.sweeps._axes import Group, with_leaves
from ufm.sweeps.lane import begin, mean_bias, measure

ENGINES = ("scan", "batch")
SCAN_LANES = 128
"""Problems per checkpoint and device, at most."""
WIDTH = {"cpu": 32, "gpu": 8192, "tpu": 4096}
"""Lanes that a device advances together."""
POOL = 8
"""Lanes waiting per lane advancing, at most."""
NARROWER = 8
"""The last lanes of a pool run in a batch narrower by this factor, and so on."""
NUMBERS = 8 * 32
"""Bytes that a lane's results take, trajectories apart."""
ROUND = 4
"""Steps between two looks of the host at a batch."""
WORKING = 8
"""Arrays of the size of a solver's state that a step keeps at once: products, residuals, trial points."""

Lanes = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is the same for all lanes of a group, and static: the solver, the dtype, what to keep, and whether features
    were eliminated, so that an evaluation of full size is the unit of cost.
    """

    solver: Any
    dtype: Any
    keep: tuple[str, ...] | None = None
    eliminate: bool = False

    def start(self, problem: Problem, lane: Lanes) -> Params:
        """Where the solve of a lane begins."""
        return begin(problem, lane, self.dtype)

    def result(self, problem: Problem, solution: Any, bias_start: Array) -> Lanes:
        """What is kept of a lane."""
        found = measure(problem, solution, bias_start)
        if self.eliminate:
            found["evaluations"] = found["evaluations"] * (problem.groups / problem.samples)
        wanted = self.keep
        return {
            name: x
            for name, x in found.items()
            if wanted is None or not name.startswith("trajectory.") or name.partition(".")[2] in wanted
        }

    @functools.partial(jax.jit, static_argnums=0)
    def solve(self, template: Problem, lane: Lanes) -> Lanes:
        """One lane from start to end."""
        problem = with_leaves(template, lane)
        start = self.start(problem, lane)
        return self.result(problem, run(self.solver, problem, start), mean_bias(start, self.dtype))


def devices_mesh() -> jax.sharding.Mesh:
    """The devices of this process in a row."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("lanes",), axis_types=(AxisType.Auto,), devices=devices)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sharded(function: Any, task: Task, mesh: Any, template: Problem, *lanes: Any) -> Any:
    """``function(task, template, *lanes)`` on every device's share of ``lanes``."""
    shared, split = PartitionSpec(), PartitionSpec("lanes")
    local = functools.partial(function, task)
    specs = (shared, *(split for _ in lanes))
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(template, *lanes)


# scan ------------------------------------------------------------------------------------------


def _one_by_one(task: Task, template: Problem, lanes: Lanes, count: Array) -> Lanes:
    """The first ``count`` lanes in turn; the rest is padding and costs nothing."""

    def lane_at(i: Any) -> Lanes:
        return {name: x[i] for name, x in lanes.items()}

    size = lanes["seed"].shape[0]
    shapes = jax.eval_shape(task.solve, template, lane_at(0))
    blank = {name: jnp.zeros((size, *x.shape), x.dtype) for name, x in shapes.items()}

    def body(i: Array, out: Lanes) -> Lanes:
        found = task.solve(template, lane_at(i))
        return {name: out[name].at[i].set(found[name]) for name in out}

    return jax.lax.fori_loop(0, count[0], body, blank)


# batch -----------------------------------------------------------------------------------------


def _pool(task: Task, template: Problem, lanes: Lanes) -> Any:
    """States of all lanes before their first step, with the mean bias of each start."""

    def one(lane: Lanes) -> Any:
        problem = with_leaves(template, lane).astype(task.dtype)
        start = task.start(problem, lane)
        return task.solver.start(problem, start), mean_bias(start, task.dtype)

    return jax.vmap(one)(lanes)


def _running(task: Task, state: Any) -> Array:
    return (state.status == Status.RUNNING) & (state.steps < task.solver.max_steps)


def _cost(state: Any) -> Array:
    return jnp.asarray(state.evaluations if hasattr(state, "evaluations") else state.steps, jnp.float32)


def _advance(task: Task, template: Problem, lanes: Lanes, pool: Any, slots: Array) -> Any:
    """`ROUND` steps of the lanes at ``slots``; an index beyond the pool is an empty slot.

    Returns:
        The pool, which lanes still run, and the evaluations made per slot, used or not.
    """
    states, bias_start = pool
    size = lanes["seed"].shape[0]
    at = jnp.minimum(slots, size - 1)
    present = slots < size
    problems = jax.vmap(lambda lane: with_leaves(template, lane).astype(task.dtype))(
        {k: x[at] for k, x in lanes.items()}
    )

    def step(carry: Any) -> Any:
        count, batch, spent = carry
        running = present & jax.vmap(functools.partial(_running, task))(batch)
        moved = jax.vmap(task.solver.step)(problems, batch)
        keep = lambda new, old: jnp.where(running.reshape(-1, *[1] * (new.ndim - 1)), new, old)  # noqa: E731
        moved = jax.tree.map(keep, moved, batch)
        return count + 1, moved, spent + jnp.max(_cost(moved) - _cost(batch))

    def unfinished(carry: Any) -> Array:
        count, batch, _ = carry
        return (count < ROUND) & jnp.any(present & jax.vmap(functools.partial(_running, task))(batch))

    start = (jnp.zeros((), jnp.int32), jax.tree.map(lambda x: x[at], states), jnp.zeros((), jnp.float32))
    _, batch, spent = jax.lax.while_loop(unfinished, step, start)
    states = jax.tree.map(lambda x, new: x.at[slots].set(new, mode="drop"), states, batch)
    running = jax.vmap(functools.partial(_running, task))(states)
    return (states, bias_start), running, spent[None]


def _finish(width: int | None, task: Task, template: Problem, lanes: Lanes, pool: Any) -> Lanes:
    """What is kept of every lane of the pool, ``width`` at a time."""

    def one(x: Any) -> Lanes:
        lane, (state, bias_start) = x
        problem = with_leaves(template, lane)
        finished = task.solver.finish(problem.astype(task.dtype), state)
        return task.result(problem, finished, bias_start)

    return jax.lax.map(one, (lanes, pool), batch_size=width)


# both ------------------------------------------------------------------------------------------


class Engine:
    """Solves chunks of lanes of one group on the devices of this process.

    Args:
        name: ``"scan"``, ``"batch"`` or None for the one that suits the device.
    """

    def __init__(self, name: str | None = None) -> None:
        require(name is None or name in ENGINES, "engine", name, suggestion(str(name), ENGINES))
        self.mesh = devices_mesh()
        self.platform = self.mesh.devices.flat[0].platform
        self.name = name or ("scan" if self.platform == "cpu" else "batch")
        self.size = self.mesh.devices.size

    def capacity(self, group: Group, task: Task, memory: float, lanes: int | None = None) -> int:
        """How many lanes of ``group`` go through at once with ``memory`` bytes for them, a multiple of the devices.

        No wide batch is made for more than ``lanes``, if given: empty places cost time there.

        The compiled program is for so many, used or not, so that sweeps of any size share it.
        """
        one = {name: x[:1] for name, x in group.lanes.items()}
        state, _ = jax.eval_shape(functools.partial(_pool, task), group.problem, one)
        kept = NUMBERS + _bytes(one) + _bytes(getattr(state, "trajectory", {}))
        held = _bytes(state)
        # Results lie on the device, on the host and in the file being written; states come and go.
        each, working = 3 * kept, WORKING * held
        width, most = 1, SCAN_LANES
        if self.name == "batch":
            each += 2 * held
            width = WIDTH[self.platform]
            fewest = min(len(group.index), lanes or len(group.index))
            most = min(POOL * width, 1 << (-(-fewest // self.size) - 1).bit_length())
        share = memory / self.size if self.platform == "cpu" else memory
        # Up to ``width`` lanes advance at once and need room to work; the others only wait.
        fits = int(share // (each + working))
        if fits > width:
            fits = int((share - width * working) // each)
        allowed = f"at least {self.size * (each + working) / 1e9:.3g} GB, for one lane a device"
        require(fits >= 1, "memory", f"{memory / 1e9:.3g} GB for lanes", allowed)
        return self.size * min(fits, most)

    def solve(self, group: Group, task: Task, chunk: slice, capacity: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Solve one chunk, padded to ``capacity``.

        Returns:
            The results (lanes, ...) by name, and the evaluations (useful, made).
        """
        count = len(group.index[chunk])
        # Lanes come hardest first: dealing them in turn gives every device an equal share of the hard ones.
        each = max(capacity // self.size, -(-count // self.size))
        deal = np.arange(each * self.size).reshape(-1, self.size).T
        place = np.minimum(deal, count - 1).ravel()
        lanes = {name: x[chunk][place] for name, x in group.lanes.items()}
        counts = np.sum(deal < count, axis=1)
        template = jax.tree.map(np.asarray, group.problem)
        if self.name == "scan":
            out = _sharded(_one_by_one, task, self.mesh, template, lanes, counts)
        else:
            out, made = self._batch(task, template, lanes, counts)
        found = {name: np.asarray(x) for name, x in out.items()}
        used = (deal < count).ravel()
        evaluations = np.where(used, found["evaluations"], 0).reshape(self.size, -1).sum(axis=1)
        if self.name == "scan":
            made = self.size * evaluations.max()
        back = np.argsort(deal.ravel(), kind="stable")[:count]
        return {name: x[back] for name, x in found.items()}, np.array([evaluations.sum(), made], float)

    def _batch(self, task: Task, template: Problem, lanes: Lanes, counts: np.ndarray) -> tuple[Lanes, float]:
        size = len(lanes["seed"]) // self.size
        pool = _sharded(_pool, task, self.mesh, template, lanes)
        running = np.arange(size)[None, :] < counts[:, None]
        widths, made = _widths(min(WIDTH[self.platform], size)), 0.0
        while running.any():
            width = next(w for w in widths if w >= min(int(running.sum(axis=1).max()), widths[-1]))
            slots = np.full((self.size, width), size, np.int32)
            for row, alive in zip(slots, running, strict=True):
                waiting = np.flatnonzero(alive)[:width]
                row[: len(waiting)] = waiting
            pool, alive, spent = _sharded(_advance, task, self.mesh, template, lanes, pool, slots.ravel())
            running &= np.asarray(alive).reshape(running.shape)
            made += width * float(np.asarray(spent).sum())
        # On a CPU one at a time: batched LAPACK calls wait for threads that other devices of the process hold.
        finish = _finish_of(None if self.platform == "cpu" else widths[-1])
        return _sharded(finish, task, self.mesh, template, lanes, pool), made


@functools.cache
def _finish_of(width: int | None) -> Any:
    return functools.partial(_finish, width)


def _widths(widest: int) -> list[int]:
    """Batch widths, narrow to wide: each is a compiled program, so they are few."""
    widths = [widest]
    while widths[0] >= 2 * NARROWER:
        widths.insert(0, widths[0] // NARROWER)
    return widths


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))

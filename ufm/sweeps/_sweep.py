"""The sweep itself: plan, solve chunk after chunk, keep, collect."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ufm._base import InputError, require, suggestion
from ufm.problem import Problem
from ufm.solvers import Status, float_dtype
from ufm.statement import describe, from_data, stated, to_data
from ufm.sweeps._axes import Plan, bare_repr, plan
from ufm.sweeps._engine import Engine, Task
from ufm.sweeps._result import Sweep
from ufm.sweeps._store import Store, chunk_name, provenance

OPTIONS = ("tol", "max_steps", "record_every")
RESERVED = 0.7e9
"""Bytes of a byte budget that Python, JAX and its compiler take on the host."""


def sweep(
    problem: Problem,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    solver: Any = None,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    scale: float = 1.0,
    bias_mean: float = 0.0,
    dtype: Any = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    memory: float | None = None,
    chunk: int | None = None,
    engine: str | None = None,
    keep: Sequence[str] | None = None,
    eliminate: bool = True,
    progress: Callable[[int, int, int], None] | None = None,
    title: str = "",
) -> Sweep:
    """Solve and certify a problem for every combination of values on ``axes``.

    Args:
        problem: template.
        axes: a mapping from names to values makes a grid; a sequence of mappings, one lane each, a list. A name is
            a leaf of the problem (``"decay.b"``, ``"loss.gamma"``; ``"decay.W,decay.H"`` ties two), ``"seed"``,
            ``"scale"``, ``"bias_mean"``; an entry of one (``"counts.2"``, ``"weights.0"``, ``"offset.1"``); or a static
            choice, each combination a group of its own: ``"loss"``, ``"classes"``, ``"dim"``, ``"per_class"``,
            ``"bias"``, ``"features"``, ``"model"``, ``"solver"``.
        solver: from `ufm.solvers`, or its name; Newton by default. A `Gradient` that records gives trajectories.
        options: ``tol``, ``max_steps`` and ``record_every`` of solvers given by name.
        seed: of the random starts where it is no axis: the start is that of `ufm.solve`.
        scale: of the random starts.
        bias_mean: of the random starts.
        dtype: of the solves; JAX's default float if not given. Certificates are evaluated in float64 (on a TPU,
            and only there, in float32).
        out: directory that keeps finished chunks. A loss or solver given as an object is known there by its
            ``repr`` only.
        resume: go on with what ``out`` holds; damaged chunks are computed again.
        memory: bytes to stay within: of the host on a CPU, of each device elsewhere; a quarter by default.
        chunk: problems (lanes) per checkpoint, if fewer than ``memory`` allows.
        engine: ``"scan"`` or ``"batch"`` instead of the one that suits the device.
        keep: names of the trajectories to keep, all by default.
        eliminate: minimize over the features exactly where `ufm.solve` would: a lane then costs the same whatever n,
            and its ``grad_norm`` is that of the problem with one feature per class. False keeps every feature free.
        progress: called from the host with lanes done, lanes failed and lanes in all, after every chunk. What it
            raises ends the sweep, with that chunk kept.
        title: of the figures.

    Under `jax.distributed` every process takes its share of the chunks, on its own devices; all need the
    directory ``out``, and all return the whole result.

    Raises:
        InputError: for an unknown axis, two that set the same leaf, a value that the problem refuses, a problem
            of another kind, or a directory in use or of another sweep.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01), features="per_class")
    >>> found = ufm.sweep(problem, {"decay.W": [0.01, 0.1, 10.0], "seed": range(2)})
    >>> found["value"].shape, bool((found["gap"] < 1e-10).all()), found["regime"][:, 0].tolist()
    ((3, 2), True, [1, 1, 0])
    """
    dtype = float_dtype(dtype)
    for key in options or {}:
        require(key in OPTIONS, "key of options", key, suggestion(key, OPTIONS))
    start = {"seed": seed, "scale": scale, "bias_mean": bias_mean}
    layout = plan(problem, axes, solver, start, dtype, options, keep, eliminate)
    problem.loss.check(problem.classes)
    require(chunk is None or chunk >= 1, "chunk", chunk, "a whole number >= 1")
    store = None if out is None else Store(out)
    require(
        store is not None or jax.process_count() == 1, "out", None, "a directory when several processes share a sweep"
    )
    with jax.enable_x64(jax.default_backend() != "tpu"):
        work = Engine(engine)
        budget = _budget(memory, work.platform)
        kept = None if keep is None else tuple(keep)
        tasks = [Task(g.solver, np.dtype(dtype), kept, g.eliminated) for g in layout.groups]
        room = [work.capacity(g, t, budget) for g, t in zip(layout.groups, tasks, strict=True)]
        manifest = {
            "title": title,
            "fingerprint": layout.fingerprint,
            "problem": to_data(problem) if stated(problem) else None,
            "statement": describe(problem, list(layout.coords)),
            "solver": None if solver is None else solver if isinstance(solver, str) else bare_repr(solver),
            "options": dict(options or {}),
            "start": start,
            "dims": list(layout.dims),
            "shape": list(layout.shape),
            "lanes": layout.lanes,
            "chunk_lanes": [min(size, chunk or size) for size in room],
            "dtype": np.dtype(dtype).name,
            "engine": work.name,
            "device": work.mesh.devices.flat[0].device_kind,
            "devices": jax.device_count(),
            "processes": jax.process_count(),
            **provenance(),
        }
        if store is None:
            return _collect(_solve_all(layout, tasks, room, manifest, work, None, progress), layout, problem, manifest)
        with _opened(store, manifest, layout, resume) as manifest:
            chunks = _solve_all(layout, tasks, room, manifest, work, store, progress)
            return _collect(chunks, layout, problem, manifest)


def load(directory: str | os.PathLike[str]) -> Sweep:
    """The sweep that ``directory`` holds; lanes of chunks that are missing or damaged have status ``running`` and NaN.

    Raises:
        InputError: if there is none.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import tempfile, ufm
    >>> problem = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01), features="per_class")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = ufm.sweep(problem, {"decay.W": [0.01, 0.1, 10.0], "seed": range(2)}, out=folder)
    ...     kept = ufm.sweeps.load(folder)
    >>> kept, bool((kept["value"] == found["value"]).all())
    (Sweep(decay.W: 3, seed: 2; {'converged': 6}), True)
    """
    store = Store(directory)
    manifest = store.manifest()
    coords = store.read_arrays("axes.npz")
    require(coords is not None, "axes.npz", str(directory), "undamaged; sweep again with --resume to mend it")
    problem = None if manifest["problem"] is None else from_data(manifest["problem"])
    chunks = []
    for number in range(manifest["chunks"]):
        arrays = store.read_arrays(chunk_name(number))
        if arrays is not None and str(arrays.pop("fingerprint")) == manifest["fingerprint"]:
            chunks.append((arrays.pop("lanes"), arrays))
    layout = Plan(coords or {}, tuple(manifest["dims"]), tuple(manifest["shape"]), [], manifest["fingerprint"])
    return _collect(iter(chunks), layout, problem, manifest)


def _solve_all(
    layout: Plan,
    tasks: list[Task],
    room: list[int],
    manifest: Mapping[str, Any],
    work: Engine,
    store: Store | None,
    progress: Any,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Lanes and results of every chunk, from the store where it has them."""
    chunks = [
        (group, task, slice(i, min(i + size, len(group.index))), capacity)
        for group, task, capacity, size in zip(layout.groups, tasks, room, manifest["chunk_lanes"], strict=True)
        for i in range(0, len(group.index), size)
    ]
    done = failed = 0
    processes, mine = jax.process_count(), jax.process_index()
    for number, (group, task, piece, capacity) in enumerate(chunks):
        lanes = group.index[piece]
        found = None if store is None else store.chunk(number, layout.fingerprint, lanes)
        if found is None:
            if number % processes != mine:
                continue  # another process computes it; it is read back at the end
            found, cost = work.solve(group, task, piece, capacity)
            found["cost"] = cost
            if store is not None:
                tagged = {**found, "lanes": lanes, "fingerprint": np.array(layout.fingerprint)}
                store.write_arrays(chunk_name(number), tagged)
        done += len(lanes)
        failed += int(np.sum(found["status"] == Status.NONFINITE))
        if progress is not None:
            progress(done, failed, layout.lanes)
        if processes == 1:
            yield lanes, found
    if processes > 1 and store is not None:
        _barrier("chunks")
        for number, (group, _, piece, _) in enumerate(chunks):
            found = store.chunk(number, layout.fingerprint, group.index[piece])
            if found is None:
                allowed = f"one directory that all processes see (chunk {number} is missing)"
                raise InputError(f"out = '{store.directory}': must be {allowed}")
            yield group.index[piece], found


def _collect(chunks: Iterator[Any], layout: Plan, problem: Problem | None, manifest: dict[str, Any]) -> Sweep:
    """Put the lanes of all chunks in their places."""
    flat: dict[str, np.ndarray] = {}
    cost = np.zeros(2)
    for lanes, found in chunks:
        cost += found.pop("cost")
        for name, values in found.items():
            if name not in flat:
                blank = {"status": int(Status.RUNNING), "regime": -1}.get(
                    name, 0 if values.dtype.kind == "i" else np.nan
                )
                flat[name] = np.full((layout.lanes, *values.shape[1:]), blank, values.dtype)
            flat[name][lanes] = values
    if not flat:
        flat["status"] = np.full(layout.lanes, int(Status.RUNNING), np.int32)
    data = {name: values.reshape(*layout.shape, *values.shape[1:]) for name, values in flat.items()}
    info = {**manifest, "useful": float(cost[0] / cost[1]) if cost[1] else 1.0}
    return Sweep(layout.coords, layout.dims, data, problem, info)


@contextlib.contextmanager
def _opened(store: Store, manifest: dict[str, Any], layout: Plan, resume: bool) -> Iterator[dict[str, Any]]:
    """Hold the directory, with its manifest written or, on resuming, checked and taken."""
    alone = jax.process_count() == 1
    first = jax.process_index() == 0
    error: Exception | None = None
    with contextlib.ExitStack() as held:
        if first:
            try:
                with contextlib.ExitStack() as preparing:
                    preparing.enter_context(store.locked())
                    manifest = _prepare(store, manifest, layout, resume)
                    if alone:
                        held.push(preparing.pop_all())
            except (OSError, InputError) as problem:
                error = problem
        if not alone:
            _agree(error is None)
        if error is not None:
            raise error
        if not alone:
            held.enter_context(store.locked(shared=True))
            manifest = store.manifest()
        yield manifest


def _prepare(store: Store, manifest: dict[str, Any], layout: Plan, resume: bool) -> dict[str, Any]:
    store.clear()
    if store.exists:
        allowed = "a new directory, or one to go on with (--resume, resume=True)"
        require(resume, "out", str(store.directory), allowed)
        old = store.manifest()
        same = old["fingerprint"] == manifest["fingerprint"]
        require(same, "out", str(store.directory), "the directory of this very sweep: the one there has other values")
        manifest = {**manifest, "chunk_lanes": old["chunk_lanes"], "resumed": [*old.get("resumed", []), provenance()]}
        manifest |= {key: old[key] for key in provenance()}
    sizes = zip(layout.groups, manifest["chunk_lanes"], strict=True)
    manifest["chunks"] = sum(-(-len(group.index) // size) for group, size in sizes)
    store.write_arrays("axes.npz", layout.coords)
    store.write_manifest(manifest)
    return store.manifest()


def _budget(memory: float | None, platform_name: str) -> float:
    """Bytes for lanes, of the host on a CPU or of one device elsewhere."""
    require(memory is None or (np.isfinite(memory) and memory > 0), "memory", memory, "a number of bytes > 0")
    if platform_name == "cpu":
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        total = max(0.25 * whole, 2e9) if memory is None else memory
        allowed = f"more than {RESERVED / 1e9:g} GB, which Python and JAX take"
        require(total > RESERVED, "memory", f"{total / 1e9:.3g} GB", allowed)
        return total - RESERVED
    statistics = jax.local_devices()[0].memory_stats() or {}
    return 0.25 * statistics.get("bytes_limit", 8e9) if memory is None else memory


def _barrier(name: str) -> None:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def _agree(ok: bool) -> None:
    """Raise in every process if the first one could not take the directory."""
    from jax.experimental import multihost_utils

    fine = multihost_utils.broadcast_one_to_all(np.array(ok))
    if jax.process_index() != 0 and not bool(fine):
        raise InputError("out: must be a directory that the first process can use (its message says why it cannot)")

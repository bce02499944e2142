"""The sweep itself: plan, solve chunk after chunk, keep, collect."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ufm._base import require, require_known
from ufm._provenance import provenance, solved_with
from ufm.problem import Problem
from ufm.solvers import Status, float_dtype
from ufm.statement import describe, from_data, stated, to_data
from ufm.sweeps._axes import Plan, bare_repr, plan
from ufm.sweeps._engine import Engine, Task
from ufm.sweeps._result import Sweep
from ufm.sweeps._run import Run, bytes_for_lanes, most_lanes, require_room, share
from ufm.sweeps._state import state
from ufm.sweeps._store import Store

OPTIONS = ("tol", "max_steps", "record_every")


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
    shard: tuple[int, int] | None = None,
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
        shard: ``(i, n)`` solves every n-th chunk from the i-th on, into a directory that all shards share, at once
            or one after another. Shards do not talk to each other; one that died is run again, and any other number
            of shards may finish the rest. The result holds this shard's lanes, the others are ``running``: `load`
            has them all.
        memory: bytes to stay within: of the host on a CPU, of each device elsewhere; a quarter by default.
        chunk: problems (lanes) per checkpoint, if fewer than ``memory`` allows.
        engine: ``"scan"`` or ``"batch"`` instead of the one that suits the device.
        keep: names of the trajectories to keep, all by default.
        eliminate: minimize over the features exactly where `ufm.solve` would: a lane then costs the same whatever n,
            and its ``grad_norm`` is that of the problem with one feature per class. False keeps every feature free.
        progress: called from the host with lanes done, lanes failed and lanes in all, after every chunk. What it
            raises ends the sweep, with that chunk kept.
        title: of the figures.

    Raises:
        InputError: for an unknown axis, two that set the same leaf, a value that the problem refuses, a problem
            of another kind, or a directory in use, of another sweep or damaged.

    Warns:
        UserWarning: on resuming what other versions of the package or of JAX began, and where damaged files were
            made again.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01), features="per_class")
    >>> found = ufm.sweep(problem, {"decay.W": [0.01, 0.1, 10.0], "seed": range(2)})
    >>> found["value"].shape, bool((found["gap"] < 1e-10).all()), found["regime"][:, 0].tolist()
    ((3, 2), True, [1, 1, 0])
    """
    dtype = float_dtype(dtype)
    for key in options or {}:
        require_known("key of options", key, OPTIONS)
    start = {"seed": seed, "scale": scale, "bias_mean": bias_mean}
    require_room(axes)
    layout = plan(problem, axes, solver, start, dtype, options, keep, eliminate)
    problem.loss.check(problem.classes)
    require(chunk is None or chunk >= 1, "chunk", chunk, "a whole number >= 1")
    part = share(shard)
    require(out is not None or shard is None, "out", None, "a directory where a sweep is shared (shard)")
    store = None if out is None else Store(out)
    with jax.enable_x64(jax.default_backend() != "tpu"):
        work = Engine(engine)
        budget = bytes_for_lanes(memory, work.platform)
        kept = None if keep is None else tuple(keep)
        tasks = [Task(g.solver, np.dtype(dtype), kept, g.eliminated) for g in layout.groups]
        versions = solved_with(work.mesh.devices.flat[0].device_kind)
        run = Run(layout, tasks, work, budget, store, part, versions)
        most = layout.lanes if shard is None else most_lanes(layout.lanes, part[1], work.size)
        run.manifest = {
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
            "group_lanes": [len(group.index) for group in layout.groups],
            "chunk_lanes": run.sizes(min(chunk or most, most)),
            "dtype": np.dtype(dtype).name,
            "engine": work.name,
            "devices": work.size,
            "device": versions["device"],
            "versions": versions,
            **provenance(),
        }
        if store is None:
            return _collect(run.chunks(progress), layout, problem, run.manifest)
        with store.held(shard is not None, lambda: run.prepare(resume or shard is not None)):
            try:
                return _collect(run.chunks(progress), layout, problem, run.manifest)
            finally:
                run.tell()


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
    coords = store.axes(manifest)
    allowed = "undamaged and of this sweep; sweep again with --resume to mend it"
    require(coords is not None, "axes.npz", str(directory), allowed)
    problem = None if manifest["problem"] is None else from_data(manifest["problem"])
    chunks = {number: store.chunk(number, manifest["fingerprint"]) for number in store.numbers()}
    layout = Plan(coords or {}, tuple(manifest["dims"]), tuple(manifest["shape"]), [], manifest["fingerprint"])
    whole = [chunk for chunk in chunks.values() if chunk is not None]
    info = manifest | state(manifest, whole, [number for number, chunk in chunks.items() if chunk is None])
    return _collect(((chunk.lanes, chunk.arrays) for chunk in whole), layout, problem, info)


def _collect(chunks: Iterator[Any], layout: Plan, problem: Problem | None, manifest: dict[str, Any]) -> Sweep:
    """Put the lanes of all chunks in their places."""
    flat: dict[str, np.ndarray] = {}
    cost = np.zeros(2)
    for lanes, found in chunks:
        cost += found.pop("cost")
        for name, values in found.items():
            if name not in flat:
                kind = 0 if values.dtype.kind == "i" else np.nan
                blank = {"status": int(Status.RUNNING), "regime": -1, "origin": -1}.get(name, kind)
                flat[name] = np.full((layout.lanes, *values.shape[1:]), blank, values.dtype)
            flat[name][lanes] = values
    if not flat:
        flat["status"] = np.full(layout.lanes, int(Status.RUNNING), np.int32)
    data = {name: values.reshape(*layout.shape, *values.shape[1:]) for name, values in flat.items()}
    info = {**manifest, "useful": float(cost[0] / cost[1]) if cost[1] else 1.0}
    return Sweep(layout.coords, layout.dims, data, problem, info)

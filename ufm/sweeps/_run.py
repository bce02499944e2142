"""The chunks of a sweep: laid out, dealt to shards, read back or solved, and kept."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ufm._base import InputError, require, require_whole
from ufm._provenance import host
from ufm.solvers import Status
from ufm.sweeps._axes import Plan
from ufm.sweeps._engine import Engine, Task
from ufm.sweeps._store import Store, chunk_name, content_digest

RESERVED = 0.7e9
"""Bytes of a byte budget that Python, JAX and its compiler take on the host."""
SHARE = 8
"""Chunks of a shard, at least: the death of one loses an eighth of its work at most, and no node is left idle for
longer than the last chunk of another."""
LANE = 700
"""Bytes that a lane takes on the host: 165 in the plan (measured with a million), 256 of results, and both copied."""

Progress = Callable[[int, int, int], None]


@dataclass
class Run:
    """One process's work on a sweep.

    Args:
        layout: all lanes.
        tasks: one for each group of ``layout``.
        work: the engine.
        budget: bytes for lanes.
        store: where finished chunks are kept, if anywhere.
        shard: ``(i, n)``: every n-th chunk, from the i-th on.
        versions: what this process solves with.
        manifest: what the sweep is; the store's own once it is prepared.
    """

    layout: Plan
    tasks: list[Task]
    work: Engine
    budget: float
    store: Store | None
    shard: tuple[int, int]
    versions: dict[str, str]
    manifest: dict[str, Any] = field(default_factory=dict)
    mended: list[str] = field(default_factory=list)

    def sizes(self, most: int) -> list[int]:
        """Problems per chunk of each group: as many as fit in memory, and ``most`` at most."""
        pairs = zip(self.layout.groups, self.tasks, strict=True)
        return [min(self.work.capacity(group, task, self.budget, most), most) for group, task in pairs]

    def prepare(self, resume: bool) -> None:
        """Take the manifest of the store, or write it; called by whoever holds the directory.

        Raises:
            InputError: for a directory of another sweep, or of this one where it is not to be gone on with.
        """
        store, mine = self.store, self.manifest
        assert store is not None
        store.clear()
        begun = store.exists
        found = None if begun else store.any_chunk()
        if begun or found:
            allowed = "a new directory, or one to go on with (--resume, resume=True)"
            require(resume, "out", str(store.directory), allowed)
        if found:  # the manifest was deleted: the chunks know how they were cut
            _same_sweep(store, found[0], mine)
            mine = mine | {"chunk_lanes": found[1]["chunk_lanes"]}
        if not begun:
            store.write_arrays("axes.npz", self.layout.coords)
            sizes = zip(self.layout.groups, mine["chunk_lanes"], strict=True)
            chunks = sum(-(-len(group.index) // size) for group, size in sizes)
            store.begin(mine | {"chunks": chunks, "axes_sha256": content_digest(self.layout.coords)})
        self.manifest = store.manifest()
        _same_sweep(store, self.manifest["fingerprint"], mine)
        old, new = self.manifest["versions"], self.versions
        changed = [f"{name} {old.get(name)} (now {new[name]})" for name in new if new[name] != old.get(name)]
        if changed:
            warnings.warn(f"{store.directory} was begun with {', '.join(changed)}; digits may differ", stacklevel=2)
        if store.axes(self.manifest) is None:
            store.write_arrays("axes.npz", self.layout.coords)
            self.mended.append("axes.npz")

    def chunks(self, progress: Progress | None) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Lanes and results of every chunk of this shard, from the store where it has them."""
        fingerprint, sizes = self.layout.fingerprint, self.manifest["chunk_lanes"]
        pieces = []
        for group, task, size in zip(self.layout.groups, self.tasks, sizes, strict=True):
            capacity = self.work.capacity(group, task, self.budget, size)
            starts = range(0, len(group.index), size)
            pieces += [(group, task, slice(i, min(i + size, len(group.index))), capacity) for i in starts]
        done = failed = 0
        index, count = self.shard
        total = sum(len(group.index[piece]) for group, _, piece, _ in pieces[index::count])
        made = {"with": self.versions, "host": host(), "shard": f"{index}/{count}", "chunk_lanes": sizes}
        for number, (group, task, piece, capacity) in list(enumerate(pieces))[index::count]:
            lanes = group.index[piece]
            kept = None if self.store is None else self.store.chunk(number, fingerprint, lanes)
            if kept is not None:
                found = kept.arrays
            else:
                found, cost = self.work.solve(group, task, piece, capacity)
                found["cost"] = cost
                if self.store is not None:
                    self._keep(number, {**found, "lanes": lanes}, made)
            done += len(lanes)
            failed += int(np.sum(found["status"] == Status.NONFINITE))
            if progress is not None:
                progress(done, failed, total)
            yield lanes, found

    def _keep(self, number: int, arrays: dict[str, np.ndarray], made: dict[str, Any]) -> None:
        store = self.store
        assert store is not None
        if store.path(number).exists():
            self.mended.append(chunk_name(number))
        tags = {"fingerprint": np.array(self.layout.fingerprint), "made": np.array(json.dumps(made))}
        store.write_arrays(chunk_name(number), arrays | tags)

    def tell(self) -> None:
        """Say which damaged files were made again."""
        names = ", ".join(self.mended[:5]) + ", ..." * (len(self.mended) > 5)
        if self.mended:
            several = f"{len(self.mended)} damaged files were" if len(self.mended) > 1 else "a damaged file was"
            warnings.warn(f"{several} made again: {names}", stacklevel=2)


def most_lanes(lanes: int, shards: int, devices: int) -> int:
    """Problems per chunk of a sweep of ``lanes`` that ``shards`` share, at most; whole rounds of the devices.

    >>> most_lanes(1_000_000, 32, 4), most_lanes(100, 8, 4)
    (3904, 1)
    """
    most = max(1, lanes // (SHARE * shards))
    return most - most % devices if most > devices else most


def share(shard: Any) -> tuple[int, int]:
    """``(i, n)`` of a share, checked; the whole where there is none."""
    if shard is None:
        return 0, 1
    pair = isinstance(shard, (tuple, list)) and len(shard) == 2
    require(pair, "shard", shard, "two whole numbers (i, n): the i-th of n shares, from 0 on")
    require_whole("number of shards", shard[1], 1)
    require_whole("shard", shard[0], 0)
    require(shard[0] < shard[1], "shard", f"{shard[0]}/{shard[1]}", f"0/{shard[1]} to {shard[1] - 1}/{shard[1]}")
    return int(shard[0]), int(shard[1])


def require_room(axes: Any) -> None:
    """Refuse more lanes than the host can lay out, before any array is made.

    Raises:
        InputError: naming how many fit.
    """
    rows = axes.values() if isinstance(axes, Mapping) else (axes,)
    if all(hasattr(row, "__len__") for row in rows):  # others are refused by name where they are read
        lanes = math.prod(len(row) for row in rows)
        most = int(0.5 * host_memory() / LANE)
        require(lanes <= most, "lanes", lanes, f"at most {most:.2g}, which this machine has memory to lay out")


def bytes_for_lanes(memory: float | None, platform_name: str) -> float:
    """Bytes for lanes, of the host on a CPU or of one device elsewhere."""
    require(memory is None or (np.isfinite(memory) and memory > 0), "memory", memory, "a number of bytes > 0")
    if platform_name == "cpu":
        total = max(0.25 * host_memory(), 2e9) if memory is None else memory
        allowed = f"more than {RESERVED / 1e9:g} GB, which Python and JAX take"
        require(total > RESERVED, "memory", f"{total / 1e9:.3g} GB", allowed)
        return total - RESERVED
    statistics = jax.local_devices()[0].memory_stats() or {}
    return 0.25 * statistics.get("bytes_limit", 8e9) if memory is None else memory


def host_memory() -> float:
    """Bytes of memory that the machine has."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _same_sweep(store: Store, fingerprint: str, manifest: dict[str, Any]) -> None:
    if fingerprint != manifest["fingerprint"]:
        raise InputError(
            f"out = {str(store.directory)!r}: must be the directory of this very sweep: the one there has other values"
        )

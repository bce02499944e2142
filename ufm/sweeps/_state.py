"""How far a sweep has come: by shard, how fast, how long still, and which versions solved what."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ufm.solvers import Status
from ufm.sweeps._store import Chunk

RECENT = 8
"""Chunks over which a rate is taken: enough for an average, few enough to forget an outage."""


def chunk_sizes(group_lanes: Sequence[int], chunk_lanes: Sequence[int]) -> np.ndarray:
    """Lanes of every chunk, by its number.

    >>> chunk_sizes([5, 2], [2, 2]).tolist()
    [2, 2, 1, 2]
    """
    pairs = zip(group_lanes, chunk_lanes, strict=True)
    return np.concatenate([np.minimum(size, lanes - np.arange(0, lanes, size)) for lanes, size in pairs])


def state(manifest: Mapping[str, Any], chunks: Sequence[Chunk], damaged: Sequence[int]) -> dict[str, Any]:
    """What a sweep's directory says of the run: ``progress`` and ``solved_with``.

    Args:
        manifest: of the sweep.
        chunks: the finished ones.
        damaged: numbers of those that have to be solved again.

    Returns:
        ``progress``: lanes ``done``, ``failed``, ``rate`` (lanes a second of the shards that have some left, None
        where it is not known), ``left`` (seconds until the slowest shard is done), the numbers of ``damaged``
        chunks, and the same for each of ``shards``, by the newest chunk's number of them. ``solved_with``:
        versions, with how many lanes they solved and in which chunks; of several, the quantity ``origin`` says
        which one a lane has.
    """
    sizes = chunk_sizes(manifest["group_lanes"], manifest["chunk_lanes"])
    newest = max(chunks, key=lambda chunk: chunk.time, default=None)
    count = 1 if newest is None else int(newest.made["shard"].split("/")[1])
    shares: list[list[Chunk]] = [[] for _ in range(count)]
    for chunk in chunks:
        shares[chunk.number % count].append(chunk)
    shards = [_shard(i, count, sizes, share) for i, share in enumerate(shares)]
    done = sum(shard["done"] for shard in shards)
    rates = [shard["rate"] for shard in shards if shard["rate"]]
    usual = float(np.mean(rates)) if rates else None  # of a shard that has not shown its own yet
    for shard in shards:
        missing = shard["lanes"] - shard["done"]
        speed = shard["rate"] or usual
        shard["left"] = 0.0 if missing == 0 else missing / speed if speed else None
    left = [shard["left"] for shard in shards]
    rate = sum(shard["rate"] or 0.0 for shard in shards if shard["left"] != 0.0) or None
    unknown = None in left or (rate is None and done < sizes.sum())
    progress = {
        "done": done,
        "failed": sum(shard["failed"] for shard in shards),
        "rate": rate,
        "left": None if unknown else max(left),
        "damaged": list(damaged),
        "shards": shards,
    }
    origins = _origins(chunks)
    if len(origins) > 1:
        for chunk in chunks:
            place = next(i for i, origin in enumerate(origins) if chunk.made["with"].items() <= origin.items())
            chunk.arrays["origin"] = np.full(len(chunk.lanes), place, np.int32)
    return {"progress": progress, "solved_with": origins}


def _shard(index: int, count: int, sizes: np.ndarray, chunks: Sequence[Chunk]) -> dict[str, Any]:
    """One shard's part; its rate is that of its newest chunks."""
    newest = sorted(chunks, key=lambda chunk: chunk.time)[-RECENT - 1 :]
    seconds = newest[-1].time - newest[0].time if newest else 0.0
    return {
        "shard": f"{index}/{count}",
        "host": newest[-1].made.get("host") if newest else None,
        "chunks": len(range(index, len(sizes), count)),
        "chunks_done": len(chunks),
        "lanes": int(sizes[index::count].sum()),
        "done": sum(len(chunk.lanes) for chunk in chunks),
        "failed": sum(int(np.sum(chunk.arrays["status"] == Status.NONFINITE)) for chunk in chunks),
        "rate": sum(len(chunk.lanes) for chunk in newest[1:]) / seconds if seconds > 0 else None,
        "since_last": time.time() - newest[-1].time if newest else None,
    }


def _origins(chunks: Iterable[Chunk]) -> list[dict[str, Any]]:
    """Versions and device that solved chunks, with which chunks and how many lanes, the first chunk's first."""
    found: dict[tuple, dict[str, Any]] = {}
    for chunk in chunks:
        versions = chunk.made["with"]
        origin = found.setdefault(tuple(sorted(versions.items())), {**versions, "lanes": 0, "chunks": []})
        origin["lanes"] += len(chunk.lanes)
        origin["chunks"].append(chunk.number)
    return [{**origin, "chunks": ranges(origin["chunks"])} for origin in found.values()]


def ranges(numbers: Iterable[int]) -> str:
    """Numbers that ascend, in words.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)

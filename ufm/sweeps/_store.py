"""A sweep on disk: nothing that was finished is lost, nothing damaged is believed.

``DIR/manifest.json`` says what is computed, ``DIR/axes.npz`` over which values, ``DIR/chunks/NNNNN.npz`` holds the
results of some lanes and what they were solved with. Each file carries its own SHA-256, the manifest as its last
key, an .npz file as the comment of its zip archive; the manifest holds one of the axes, too.

Every file is written under another name, flushed and renamed; the manifest is never written again. Its name is
given by a hard link, which one process of many gets, on network file systems too. The lock on ``DIR/lock`` keeps a
sweep that wants the directory for itself apart from others; where a file system has no locks nothing rests on it:
two processes that solve the same chunk write the same lanes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufm._base import InputError, require
from ufm._files import opened_arrays, sealed_arrays, write_whole
from ufm._provenance import host

FORMAT = 2
STALE = 86_400.0
"""Seconds after which another host's half-written file counts as dead: no write lasts a day, and no two clocks of a
cluster differ by one."""
JOINING = 60.0
"""Seconds that a shard waits for the process that writes the manifest: two small files on a slow network."""
REMEDY = "delete it and sweep again with --resume: the chunks are all kept"


@dataclass(frozen=True)
class Chunk:
    """A finished chunk: its lanes, their results by name, what it was ``made`` with, and when (Unix seconds)."""

    number: int
    lanes: np.ndarray
    arrays: dict[str, np.ndarray]
    made: dict[str, Any]
    time: float


class Store:
    """The directory of a sweep."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        require("\0" not in os.fspath(directory), "out", os.fspath(directory), "the name of a directory")
        self.directory = Path(directory)

    # Writing -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self, shared: bool = False, prepare: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the directory and ``prepare`` it: alone, or ``shared`` with the other shards of the same sweep.

        Raises:
            InputError: where another process holds it and will not share it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("a+") as handle:  # NFS shares a lock on what can be read only
            mine = _lock(handle, fcntl.LOCK_EX)
            if mine:
                prepare()
            until = time.monotonic() + (JOINING if shared else 0.0)
            while not (_lock(handle, fcntl.LOCK_SH) if shared else mine):
                allowed = "a directory that no other sweep is writing to (shards of one sweep share it: --shard I/N)"
                require(time.monotonic() < until, "out", str(self.directory), allowed)
                time.sleep(0.1)
            if not mine:
                prepare()
            yield

    def clear(self) -> None:
        """Remove what killed runs left half written; what a live process is writing is spared."""
        for path in (*self.directory.glob("*.partial"), *self.directory.glob("chunks/*.partial")):
            with contextlib.suppress(OSError):
                if _abandoned(path):
                    path.unlink()

    def write(self, name: str, content: bytes, new: bool = False) -> None:
        """Write a file that is there whole or not at all; a ``new`` one only if there is none."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(path, content, new)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                kept = len(self.numbers())
                text = f"no space left; {kept} finished chunks are kept, --resume goes on from there"
                raise OSError(error.errno, text, str(self.directory)) from None
            raise

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write an .npz file with its digest."""
        self.write(name, sealed_arrays(arrays))

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write ``manifest.json``, unless another process was first."""
        content = {"format": FORMAT, **manifest}
        text = json.dumps({**content, "sha256": _digest_of(content)}, indent=2)
        self.write("manifest.json", text.encode() + b"\n", new=True)

    # Reading -----------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether a sweep was begun here."""
        return (self.directory / "manifest.json").exists()

    def manifest(self) -> dict[str, Any]:
        """What the sweep is.

        Raises:
            InputError: if there is none, if it is damaged, or of another format.
        """
        path = self.directory / "manifest.json"
        require(path.is_file(), "DIR", str(self.directory), "the directory of a sweep (no manifest.json there)")
        damaged = f"{path}: must be the manifest of a sweep, and is damaged; {REMEDY}"
        try:
            found = json.loads(path.read_bytes())
            version, digest = found["format"], found.pop("sha256", None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(damaged) from None
        if isinstance(version, int) and version != FORMAT:
            raise InputError(f"{path}: format = {version}: must be {FORMAT}: another version of ufm wrote it")
        try:
            if digest == _digest_of(found):
                return found
        except (ValueError, RecursionError):
            pass
        raise InputError(damaged)

    def read_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of an .npz file, or None where it is missing, torn or not what its digest says."""
        path = self.directory / name
        try:
            return opened_arrays(path.read_bytes()) if path.is_file() else None
        except FileNotFoundError:
            return None

    def axes(self, manifest: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """Values of the axes, or None where they are damaged or those of another sweep."""
        arrays = self.read_arrays("axes.npz")
        return arrays if arrays is not None and content_digest(arrays) == manifest["axes_sha256"] else None

    def numbers(self) -> list[int]:
        """Numbers of the chunks that have a file, whole or not."""
        names = (path.name for path in self.directory.glob("chunks/*.npz"))
        return sorted(int(name[:-4]) for name in names if re.fullmatch(r"\d{5,12}\.npz", name))

    def chunk(self, number: int, fingerprint: str, lanes: np.ndarray | None = None) -> Chunk | None:
        """A chunk, or None where it has to be computed (again): missing, damaged, of another sweep or other lanes."""
        arrays = self.read_arrays(chunk_name(number)) or {}
        try:
            same = str(arrays.pop("fingerprint")) == fingerprint
            own, made = arrays.pop("lanes"), json.loads(str(arrays.pop("made")))
            same = same and (lanes is None or np.array_equal(own, lanes))
            return Chunk(number, own, arrays, made, self.path(number).stat().st_mtime) if same else None
        except (KeyError, ValueError, FileNotFoundError):
            return None

    def any_chunk(self) -> tuple[str, dict[str, Any]] | None:
        """Fingerprint of a chunk that can be read, and what it was made with; None where there is none."""
        for number in self.numbers():
            arrays = self.read_arrays(chunk_name(number))
            if arrays is not None and {"fingerprint", "made"} <= set(arrays):
                return str(arrays["fingerprint"]), json.loads(str(arrays["made"]))
        return None

    def path(self, number: int) -> Path:
        """Where a chunk lies."""
        return self.directory / chunk_name(number)


def chunk_name(number: int) -> str:
    """File of a chunk."""
    return f"chunks/{number:05d}.npz"


def content_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays, however a version of NumPy or Python writes their file."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, however it is indented."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _lock(handle: Any, kind: int) -> bool:
    """Take a lock of a ``kind`` now: False where another process holds it, True where there are no locks at all."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
    return True


def _abandoned(path: Path) -> bool:
    """Whether the process that was writing a partial file is gone, or was on another host and is a day late."""
    owner = re.search(rf"\.{re.escape(host())}\.(\d+)\.partial$", path.name)
    if owner is None:
        return time.time() - path.stat().st_mtime > STALE
    try:
        os.kill(int(owner[1]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False

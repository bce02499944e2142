"""A sweep on disk: nothing that was finished is lost, nothing damaged is believed.

``DIR/manifest.json`` says what is computed, ``DIR/axes.npz`` over which values, ``DIR/chunks/NNNNN.npz`` holds
the results of some lanes and ``NNNNN.npz.sha256`` its digest, in the format of ``sha256sum -c``. Every file is
written under another name, flushed and renamed. Whoever writes holds a lock on ``DIR/lock``.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import hashlib
import io
import json
import os
import platform
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from ufm._base import InputError, require
from ufm._version import __version__

FORMAT = 1


class Store:
    """The directory of a sweep."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)

    # Writing -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, shared: bool = False) -> Iterator[None]:
        """Hold the directory; processes of one run may share it, a second run may not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("a") as handle:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"out = '{self.directory}': must be a directory that no other sweep is writing to"
                ) from None
            yield

    def clear(self) -> None:
        """Remove what killed runs left half written; only for the holder of the lock."""
        for path in (*self.directory.glob("*.partial"), *self.directory.glob("chunks/*.partial")):
            path.unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Write a file that is there whole or not at all."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                kept = len(list(self.directory.glob("chunks/*.sha256")))
                text = f"no space left; {kept} finished chunks are kept, --resume goes on from there"
                raise OSError(error.errno, text, str(self.directory)) from None
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write an .npz file and its digest."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        content = buffer.getvalue()
        self.write(name, content)
        line = f"{hashlib.sha256(content).hexdigest()}  {Path(name).name}\n"
        self.write(f"{name}.sha256", line.encode())

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write ``manifest.json``."""
        self.write("manifest.json", json.dumps({"format": FORMAT, **manifest}, indent=2).encode() + b"\n")

    # Reading -----------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether a sweep was begun here."""
        return (self.directory / "manifest.json").exists()

    def manifest(self) -> dict[str, Any]:
        """What the sweep is."""
        path = self.directory / "manifest.json"
        require(path.exists(), "DIR", str(self.directory), "the directory of a sweep (no manifest.json there)")
        try:
            found = json.loads(path.read_text())
            known = found["format"] == FORMAT
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: must be the manifest of a sweep ({error})") from None
        require(known, "format", found["format"], str(FORMAT))
        return found

    def read_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of an .npz file, or None where it is missing, torn or not what its digest says."""
        path = self.directory / name
        try:
            content = path.read_bytes()
            digest = path.with_name(f"{path.name}.sha256").read_text().split()[:1]
            if digest != [hashlib.sha256(content).hexdigest()]:
                return None
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
        except (FileNotFoundError, ValueError, UnicodeDecodeError, zipfile.BadZipFile, EOFError):
            return None

    def chunk(self, number: int, fingerprint: str, lanes: np.ndarray) -> dict[str, np.ndarray] | None:
        """Results of a chunk, or None where it has to be computed (again)."""
        arrays = self.read_arrays(chunk_name(number))
        if arrays is None or str(arrays.pop("fingerprint", "")) != fingerprint:
            return None
        stored = arrays.pop("lanes", np.empty(0))
        return arrays if np.array_equal(stored, lanes) else None


def chunk_name(number: int) -> str:
    """File of a chunk."""
    return f"chunks/{number:05d}.npz"


def provenance() -> dict[str, Any]:
    """What computed this, and when."""
    return {
        "versions": {
            "ufm": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "optax": optax.__version__,
            "python": platform.python_version(),
        },
        "revision": _revision(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _revision() -> str | None:
    """Git revision of the package's source, with a mark where it was changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match", ""]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None

"""Files that are there whole or not at all, and arrays that carry their own digest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ufm._provenance import host

DIGITS = 64
"""Of a SHA-256 in hexadecimal."""


def write_whole(path: Path, content: bytes, new: bool = False) -> None:
    """Write a file under another name, flush and rename it; a ``new`` one only if there is none.

    Raises:
        OSError: where that cannot be done; nothing is left behind.
    """
    partial = path.with_name(f"{path.name}.{host()}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        _name(partial, path, new)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sealed_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file whose comment is the digest of all before it; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        archive.comment = bytes(DIGITS)
    body = buffer.getvalue()[:-DIGITS]
    return body + hashlib.sha256(body).hexdigest().encode()


def opened_arrays(content: bytes) -> dict[str, np.ndarray] | None:
    """The arrays of `sealed_arrays`, or None where the digest is another; nothing is parsed before it is right."""
    body, digest = content[:-DIGITS], content[-DIGITS:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, zipfile.BadZipFile, EOFError):
        return None


def _name(partial: Path, path: Path, new: bool) -> None:
    """Give a finished file its name; a ``new`` one leaves a file that has the name in its place."""
    if not new:
        partial.replace(path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if not path.exists():  # no hard links here: the lock has to do
            partial.replace(path)
    partial.unlink(missing_ok=True)

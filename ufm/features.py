"""Reading a network's features, weight and bias: arrays of any framework, and files larger than memory.

A file holds ``features`` (N, d), ``labels`` (N,), ``weight`` (K, d) and perhaps ``bias`` (K,): an .npz, a
folder of .npy files, or .safetensors. Features are read in blocks of rows, never as a whole, and what the
file claims of itself is checked before memory is taken for it. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ufm._base import InputError, require

Array = npt.NDArray[Any]
NAMES = ("features", "labels", "weight", "bias")
BLOCK_BYTES = 2**25
"""Size of a block of features, and of its scores, in memory (32 MiB)."""


@dataclass(frozen=True)
class Table:
    """An array read by blocks of rows.

    Attributes:
        shape: of the whole.
        dtype: of the whole.
        read: called with a number of rows, yields the array in blocks of that many.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int], Iterator[Array]]

    def whole(self) -> Array:
        """All of it."""
        return next(self.read(max(self.shape[0], 1) if self.shape else 1), np.empty(self.shape, self.dtype))


def as_numpy(field: str, value: Any) -> Array:
    """A NumPy array from anything that speaks an array protocol (``__array__``, DLPack), without a copy if it can.

    PyTorch tensors may require gradients, live on a GPU or be bfloat16; JAX arrays and memory maps work too.
    """
    if isinstance(value, np.ndarray):
        return _plain(field, value)
    for step in ("detach", "cpu"):  # a PyTorch tensor leaves its graph and its device first
        value = getattr(value, step, lambda value=value: value)()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        require(hasattr(value, "__dlpack__"), field, type(value).__name__, "an array of numbers")
        import jax

        array = np.asarray(jax.dlpack.from_dlpack(value))  # NumPy itself knows no bfloat16
    return _plain(field, array)


def _plain(field: str, array: Array) -> Array:
    if array.dtype == np.dtype("V2"):  # how .npy stores bfloat16
        array = array.view(ml_dtypes.bfloat16)
    numeric = array.dtype.kind in "fiu" or array.dtype == ml_dtypes.bfloat16
    require(numeric, f"{field}.dtype", str(array.dtype), "real numbers (no objects, strings, booleans or complex)")
    return array


def table(field: str, value: Any) -> Table:
    """An array in memory, or memory-mapped, as a `Table`."""
    array = as_numpy(field, value)

    def read(rows: int) -> Iterator[Array]:
        if array.ndim == 0:
            yield array
        for start in range(0, len(array) if array.ndim else 0, rows):
            yield array[start : start + rows]

    return Table(array.shape, array.dtype, read)


Stored = dict[str, Callable[[], Table]]


@contextlib.contextmanager
def open_features(path: str | Path, ignored: Callable[[str], None] = lambda names: None) -> Iterator[dict[str, Table]]:
    """The arrays of a file or folder, by name; see the module's docstring.

    Args:
        path: of the file or folder.
        ignored: called with the names of other arrays, in one line, if there are any.

    Raises:
        InputError: for a file that is missing, truncated, not what it claims, or holds objects; for an array
            that is missing, or has a name so close to a missing one that it may be meant for it.
    """
    path = Path(path)
    require(path.exists(), "path", str(path), "an existing .npz or .safetensors file, or a folder of .npy files")
    try:
        with _opener(path) as arrays:
            others = _others(path, list(arrays))
            if others:
                ignored(_few(others))
            yield {name: arrays[name]() for name in NAMES if name in arrays}
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, OSError) as error:
        raise InputError(f"path = {str(path)!r}: must be a whole, readable file ({error})") from None


def _others(path: Path, stored: list[str]) -> set[str]:
    """What is stored besides the arrays wanted, unless one of these is missing or may be misspelt."""
    others, missing = set(stored) - set(NAMES), [name for name in NAMES if name not in stored]
    lower = {other.lower(): other for other in sorted(others)}
    close = {name: difflib.get_close_matches(name, lower, n=1) for name in missing}
    meant = ", ".join(f"{name!r} by {lower[names[0]]!r}" for name, names in close.items() if names)
    whole = not meant and missing in ([], ["bias"])  # a bias may be left out, not overlooked
    hint = f"; did you mean {meant}?" if meant else ""
    allowed = f"features, labels, weight and perhaps bias (no {', '.join(missing)}{hint})"
    require(whole, f"arrays of {path.name}", _few(stored), allowed)
    return others


def _few(names: Collection[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more


def _opener(path: Path) -> AbstractContextManager[Stored]:
    """What is stored, by name, each to be opened by a call."""
    if path.is_dir():
        return contextlib.nullcontext(_npy_folder(path))
    if path.suffix == ".safetensors":
        return _safetensors(path)
    zipped = zipfile.is_zipfile(path)
    require(zipped or path.suffix != ".npz", "path", str(path), "a whole .npz file (not a zip archive: cut short?)")
    # PyTorch's own files are zip archives too, but reading them runs what they hold.
    known = zipped and path.suffix not in (".pt", ".pth")
    saved = "; from PyTorch: safetensors.torch.save_file" if path.suffix in (".pt", ".pth") else ""
    require(known, "path", str(path), f"a .npz or .safetensors file, or a folder of .npy files{saved}")
    return _npz(path)


def _npy_folder(folder: Path) -> Stored:
    return {file.stem: functools.partial(_npy, file) for file in folder.glob("*.npy")}


def _npy(file: Path) -> Table:
    try:
        return table(file.stem, np.load(file, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise InputError(f"path = {str(file)!r}: must be a whole .npy file of numbers ({error})") from None


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[Stored]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        yield {name: functools.partial(_member, archive, name, info) for name, info in members.items()}


def _member(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Table:
    """An array inside an .npz, compressed or not, read as a stream."""
    with archive.open(info) as stream:
        shape, fortran, dtype = _header(stream, name)
        promised = stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    kind = _plain(name, np.empty(0, dtype)).dtype
    claim = f"{shape} of {dtype}"
    require(promised == info.file_size, name, claim, f"what its {info.file_size} bytes hold (the file is damaged)")

    def read(rows: int) -> Iterator[Array]:
        with archive.open(info) as stream:
            _header(stream, name)
            if fortran or not shape:  # columns first: no way to take rows from a stream
                flat = np.frombuffer(_exactly(stream, promised - stream.tell(), name), dtype)
                yield from table(name, flat.reshape(shape, order="F")).read(rows)
                return
            for start in range(0, shape[0], rows):
                part = (min(rows, shape[0] - start), *shape[1:])
                data = _exactly(stream, int(np.prod(part)) * dtype.itemsize, name)
                yield _plain(name, np.frombuffer(data, dtype).reshape(part))

    return Table(shape, kind, read)


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        require(version in readers, f"{name}: .npy version", version, "1.0 or 2.0")
        shape, fortran, dtype = readers[version](stream)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{name}: must be an array in .npy format ({error})") from None
    require(not dtype.hasobject, f"{name}.dtype", str(dtype), "real numbers (objects and pickles are refused)")
    return shape, fortran, dtype


def _exactly(stream: IO[bytes], size: int, name: str) -> bytes:
    data = stream.read(size)
    require(len(data) == size, name, f"{len(data)} bytes", f"{size} bytes, as its header says (the file is cut short)")
    return data


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Stored]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise InputError(f"path = {str(path)!r}: .safetensors needs `pip install safetensors`") from None
    try:
        with safe_open(path, framework="numpy") as file:
            yield {name: functools.partial(_tensor, file, name) for name in set(file.keys())}
    except SafetensorError as error:
        raise InputError(f"path = {str(path)!r}: must be a whole .safetensors file ({error})") from None


def _tensor(file: Any, name: str) -> Table:
    part = file.get_slice(name)
    shape = tuple(part.get_shape())

    def read(rows: int) -> Iterator[Array]:
        if not shape:
            yield _plain(name, file.get_tensor(name))
        for start in range(0, shape[0] if shape else 0, rows):
            yield _plain(name, part[start : min(start + rows, shape[0])])

    first = next(read(1), np.empty(0, np.float32))
    return Table(shape, first.dtype, read)

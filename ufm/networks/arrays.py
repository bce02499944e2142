"""Reading a network's features, weight and bias: arrays of any framework, and files larger than memory.

A file holds ``features`` (N, d), ``labels`` (N,), ``weight`` (K, d) and perhaps ``bias`` (K,): an .npz, a
folder of .npy files, or .safetensors. The last layer may go by its usual names (`open_features`). Features are
read in blocks of rows, never as a whole, and what the file claims of itself is checked before memory is taken for
it. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import re
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
    remedy = "an array without them: leave out those samples, or fill them"
    require(not np.ma.is_masked(value), field, "an array with masked entries", remedy)
    if isinstance(value, np.ndarray):
        return _plain(field, np.asarray(value))  # without its (empty) mask
    for step in ("detach", "cpu"):  # a PyTorch tensor leaves its graph and its device first
        value = getattr(value, step, lambda value=value: value)()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        require(hasattr(value, "__dlpack__"), field, type(value).__name__, "an array of numbers")
        import jax

        try:
            array = np.asarray(jax.dlpack.from_dlpack(value))  # NumPy itself knows no bfloat16
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise InputError(f"{field}: must be numbers that NumPy or JAX can read ({error})".split("\n")[0]) from None
    return _plain(field, array)


def _plain(field: str, array: Array) -> Array:
    if array.dtype == np.dtype("V2"):  # how .npy stores bfloat16
        array = array.view(ml_dtypes.bfloat16)
    # The floats of ml_dtypes (bfloat16, float8_e4m3fn, ...) are of kind "V", as structures are.
    numeric = array.dtype.kind in "fiu" or array.dtype.name.startswith(("bfloat", "float"))
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


@dataclass(frozen=True)
class Source:
    """Which arrays of a file are measured.

    Attributes:
        path: of the file or folder.
        read: name in the file of ``features``, ``labels``, ``weight`` and perhaps ``bias``.
        left: names of the other arrays, sorted.
    """

    path: str
    read: dict[str, str]
    left: tuple[str, ...]

    def __str__(self) -> str:
        read = ", ".join(name if name == role else f"{name!r} as {role}" for role, name in self.read.items())
        free = "" if "bias" in self.read else "; no bias"
        return f"read: {read}{free}" + (f"; left: {_few(self.left)}" if self.left else "")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"read": self.read, "left": list(self.left)}


@contextlib.contextmanager
def open_features(path: str | Path) -> Iterator[tuple[dict[str, Table], Source]]:
    """The arrays of a file or folder by role, and what they are called there; see the module's docstring.

    The last layer may have the name that a framework gives it: ``W``, ``fc.weight``, ``head.weight``; ``b``,
    ``fc.bias``. The bias of ``fc.weight`` is ``fc.bias``, no other layer's.

    Raises:
        InputError: for a file that is missing, truncated, not what it claims, or holds objects; for an array
            that is missing, or that several may be meant for; for one that may be a misspelt bias.
    """
    path = Path(path)
    require(path.exists(), "path", str(path), "an existing .npz or .safetensors file, or a folder of .npy files")
    try:
        with _opener(path) as stored:
            read = _roles(path, stored)
            left = tuple(sorted(set(stored) - set(read.values())))
            yield {role: stored[name]() for role, name in read.items()}, Source(str(path), read, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, OSError) as error:
        raise InputError(f"path = {str(path)!r}: must be a whole, readable file ({error})") from None


def _roles(path: Path, stored: Stored) -> dict[str, str]:
    """Name of each array wanted, of which only the bias may be missing."""
    read = {role: role for role in NAMES if role in stored}
    dim = stored["features"]().shape[1:] if "features" in stored else ()
    if "weight" not in read:
        named = [name for name in stored if _last_layer(name) == "weight"]
        fitting = named if len(named) < 2 else [name for name in named if _shape(stored, name)[1:] == dim]
        require(len(fitting) < 2, f"weight in {path.name}", _few(fitting), "one array: call the last layer's 'weight'")
        read |= dict(zip(["weight"], fitting, strict=False))
    missing = [role for role in ("features", "labels", "weight") if role not in read]
    lower = {name.lower(): name for name in sorted(set(stored) - set(read.values()))}
    close = {role: difflib.get_close_matches(role, lower, n=1) for role in missing}
    meant = ", ".join(f"{role!r} by {lower[names[0]]!r}" for role, names in close.items() if names)
    hint = f"; did you mean {meant}?" if meant else ""
    allowed = f"features, labels, weight and perhaps bias (no {', '.join(missing)}{hint})"
    require(not missing, f"arrays of {path.name}", _few(list(stored)), allowed)
    if "bias" not in read:
        read |= _bias(path, stored, read["weight"])
    return {role: read[role] for role in NAMES if role in read}


def _bias(path: Path, stored: Stored, weight: str) -> dict[str, str]:
    """The bias under another name, if there is one: that of the weight's layer, or the only one of K numbers."""
    layer = weight.lower().removesuffix("weight") if weight.lower().endswith("weight") else ""
    shapes = ((), (1,), _shape(stored, weight)[:1])
    fits = [name for name in stored if name not in NAMES and _shape(stored, name) in shapes]
    same_layer = [name for name in stored if layer and name.lower() == layer + "bias"]
    plain = [name for name in stored if name.lower() in ("b", "bias")]
    other = [] if layer else [name for name in fits if _last_layer(name) == "bias"]
    found = same_layer or plain or other
    require(len(found) < 2, f"bias in {path.name}", _few(found), "one array: call the last layer's 'bias'")
    if found:
        return {"bias": found[0]}
    # A bias may be left out, not overlooked; an array of another shape ("basis") is none.
    misspelt = [n for n in fits if ("bias" in n.lower() or sorted(n.lower()) == sorted("bias")) and not _last_layer(n)]
    hint = f"features, labels, weight and perhaps bias (no bias; did you mean 'bias' by {_few(misspelt)!r}?)"
    require(not misspelt, f"arrays of {path.name}", _few(list(stored)), hint)
    return {}


def _last_layer(name: str) -> str | None:
    """``"weight"`` or ``"bias"`` if that is what frameworks call by this name: ``w``, ``fc.weight``, ``head/bias``."""
    last = re.split(r"[./_]", name.lower())[-1]
    return {"w": "weight", "b": "bias"}.get(name.lower(), last if last in ("weight", "bias") else None)


def _shape(stored: Stored, name: str) -> tuple[int, ...]:
    """Shape of an array; of one that cannot be measured, one that fits nothing."""
    try:
        return stored[name]().shape
    except InputError:
        return (-1,)


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
            yield {name: functools.partial(_tensor, path, file, name) for name in set(file.keys())}
    except SafetensorError as error:
        raise InputError(f"path = {str(path)!r}: must be a whole .safetensors file ({error})") from None


EIGHT_BITS = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
"""Types of .safetensors that its reader for NumPy lacks."""
READ = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", *EIGHT_BITS)


def _tensor(path: Path, file: Any, name: str) -> Table:
    part = file.get_slice(name)
    shape, kind = tuple(part.get_shape()), part.get_dtype()
    require(kind in READ, f"{name}.dtype", kind, f"one of {', '.join(READ)}")
    if kind in EIGHT_BITS:
        with path.open("rb") as stream:  # its header has been checked by `safe_open`
            (length,) = struct.unpack("<Q", stream.read(8))
            start, _ = json.loads(stream.read(length))[name]["data_offsets"]
        count = int(np.prod(shape))
        bits = np.memmap(path, np.uint8, "r", 8 + length + start, (count,)) if count else np.empty(0, np.uint8)
        return table(name, np.asarray(bits).view(EIGHT_BITS[kind]).reshape(shape))

    def read(rows: int) -> Iterator[Array]:
        if not shape:
            yield _plain(name, file.get_tensor(name))
        for start in range(0, shape[0] if shape else 0, rows):
            yield _plain(name, part[start : min(start + rows, shape[0])])

    first = next(read(1), np.empty(0, np.float32))
    return Table(shape, first.dtype, read)

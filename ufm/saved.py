"""A solution in a file: the problem, the point, its certificate, and what computed them.

The file is an .npz archive (arrays alone, nothing is unpickled) that carries its own SHA-256, so that a damaged one is
refused. The digest guards against damage, not against a forger: `ufm.theory.certify` checks a point anew.

    about          JSON: the format, the problem as `ufm.statement` writes it, and the versions
    solution.*     fields of a `ufm.Solution`: solution.params.W, solution.value, solution.trajectory.NAME, ...
    certificate.*  fields of a `ufm.theory.Certificate`
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ufm._base import InputError, require
from ufm._files import opened_arrays, sealed_arrays, write_whole
from ufm._provenance import solved_with
from ufm.problem import Params, Problem
from ufm.solvers import Solution
from ufm.statement import describe, from_data, to_data
from ufm.theory import Certificate, certify

FORMAT = 1
ALLOWED = "a whole file that Solution.save or ufm solve --out wrote (this is another one, or damaged)"


@dataclass(frozen=True, repr=False)
class Saved:
    """What a file holds; arrays are NumPy's and equal those that were saved to the last bit.

    Attributes:
        problem: what was solved.
        solution: a `ufm.Solution` that knows its problem.
        certificate: of the point, as it was when the file was written.
        made: versions of ufm, JAX, NumPy, optax and Python, the device, and a digest of ufm's source.
    """

    problem: Problem
    solution: Solution
    certificate: Certificate
    made: dict[str, str]

    @property
    def params(self) -> Params:
        """The point: the params of the solution."""
        params: Params = self.solution.params
        return params

    def __repr__(self) -> str:
        lines = [
            f"Saved: {describe(self.problem)}",
            *str(self.solution).split("\n"),
            *str(self.certificate).split("\n"),
        ]
        return "\n  ".join([*lines, f"ufm {self.made['ufm']}, JAX {self.made['jax']} on {self.made['device']}"])


def write(
    path: str | os.PathLike[str], problem: Problem, solution: Any, certificate: Certificate | None = None
) -> None:
    """Write a file, whole or not at all; see `ufm.Solution.save`. The ``certificate`` is computed if not given."""
    place = checked_place(path)
    require(np.ndim(solution.value) == 0, "value.shape", np.shape(solution.value), "that of one solution, not a batch")
    data = to_data(problem)
    certificate = certify(problem, solution.params) if certificate is None else certificate
    about = {"format": FORMAT, "problem": data, "made": solved_with(jax.devices()[0].device_kind)}
    arrays = {"about": np.asarray(json.dumps(about).encode())}
    arrays |= _named("solution", solution) | _named("certificate", certificate)
    write_whole(place, sealed_arrays(arrays))


def load(file: str | os.PathLike[str]) -> Saved:
    """What `Solution.save` or ``ufm solve --out`` wrote: ``.problem``, ``.solution``, ``.params``, ``.certificate``.

    Arrays are NumPy's, in the precision that they were saved in whatever JAX is set to. To go on from the point, with
    more steps or another decay, say ``ufm.solve(problem, init=found.params)``.

    Raises:
        InputError: naming the file: missing, damaged, cut short, of another kind or another version's.

    >>> load("missing.npz")
    Traceback (most recent call last):
        ...
    ufm._base.InputError: file = 'missing.npz': must be a file that can be read (No such file or directory)
    """
    name = os.fspath(file)
    try:
        arrays = opened_arrays(Path(file).read_bytes())
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"file = {name!r}: must be a file that can be read ({reason})") from None
    require(arrays is not None and "about" in arrays, "file", name, ALLOWED)
    assert arrays is not None
    try:
        about = json.loads(arrays["about"].item())
        version = about["format"]
        require(version == FORMAT, "format", version, f"{FORMAT}: another version of ufm wrote it")
        problem = from_data(about["problem"])
        solution = Solution(
            params=_params(problem, arrays),
            trajectory={key.split(".", 2)[2]: x for key, x in arrays.items() if key.startswith("solution.trajectory.")},
            **_numbers("solution", Solution, arrays),
        )
        certificate = Certificate(**_numbers("certificate", Certificate, arrays))
        return Saved(problem, solution.of(problem), certificate, dict(about["made"]))
    except KeyError as error:
        raise InputError(f"file = {name!r}: must be {ALLOWED}: it lacks {error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"file = {name!r}: must be {ALLOWED}: {error}") from None


def recognized(path: str | os.PathLike[str]) -> bool:
    """Whether a file is laid out as those of `write`, whole or not; nothing but its table of contents is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"about.npy", "solution.value.npy"} <= set(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def checked_place(path: str | os.PathLike[str]) -> Path:
    """Where a file is to be written, before any work.

    Raises:
        InputError: for a directory, or a place in a folder that does not exist.
    """
    place = Path(path)
    fits = "\0" not in str(place) and place.parent.is_dir() and not place.is_dir()
    require(fits, "file", str(place), "the name of a file in a folder that exists")
    return place


def _named(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by their path in it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {f"{prefix}.{jax.tree_util.keystr(path, simple=True, separator='.')}": np.asarray(x) for path, x in leaves}


def _params(problem: Problem, arrays: dict[str, np.ndarray]) -> Params:
    """The point, of the shapes that the problem has."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(problem.shapes())
    found = []
    for path, wanted in leaves:
        name = f"solution.params.{jax.tree_util.keystr(path, simple=True, separator='.')}"
        require(arrays[name].shape == wanted.shape, f"{name}.shape", arrays[name].shape, f"{wanted.shape}")
        found.append(arrays[name])
    params: Params = jax.tree_util.tree_unflatten(structure, found)
    return params


def _numbers(prefix: str, kind: type[Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of ``kind`` that are one number each."""
    names = [field.name for field in dataclasses.fields(kind) if field.name not in ("params", "trajectory")]
    return {name: arrays[f"{prefix}.{name}"][()] for name in names}

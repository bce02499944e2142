"""`History`: how a network approaches collapse, one row of numbers for each step of training that is measured."""

from __future__ import annotations

import csv
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ufm._base import InputError, require, require_range
from ufm._files import sealed_arrays, write_whole
from ufm.networks.arrays import as_numpy, table
from ufm.networks.measurement import Measurement, measure_tables
from ufm.networks.prediction import Prediction

NCS = ("nc1", "nc2", "nc2_means", "nc3", "nc4")
SHAPE = ("weight_norm", "feature_norm", "classifier_cosine", "feature_cosine")
ACCURACIES = ("uniform", "class_wise", "sample_wise", "with_bias")
COLUMNS = ("step", *NCS, "positive", "negative", "bias", *SHAPE, *ACCURACIES, "threshold", "samples")
"""What every row holds, named as in `ufm.measure`: scores are means, ``bias`` is the mean, NaN without one."""


class History:
    """Measurements along training.

    ``history["nc1"]`` is a column (rows,), one of `COLUMNS`; ``len(history)`` counts rows.

    >>> import numpy as np, ufm
    >>> U = np.asarray(ufm.geometry.simplex_etf(3, 4))
    >>> labels, noise = np.repeat(np.arange(3), 5), np.random.default_rng(0).normal(size=(15, 4))
    >>> history = History()
    >>> for step in (1, 10, 100):
    ...     _ = history.add(step, U[labels] + noise / step, labels, U)
    >>> history["step"].tolist(), bool(np.all(np.diff(history["nc1"]) < 0)), float(history["uniform"][-1])
    ([1.0, 10.0, 100.0], True, 1.0)
    """

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, name: str) -> npt.NDArray[np.float64]:
        if name not in COLUMNS:
            raise KeyError(f"{name!r}: must be one of {', '.join(COLUMNS)}")
        return np.array([row[COLUMNS.index(name)] for row in self._rows])

    def add(self, step: float, features: Any, labels: Any, weight: Any, bias: Any = None) -> Measurement:
        """Measure the network after ``step`` steps, or epochs; arrays as in `ufm.measure`.

        Raises:
            InputError: for a step that is not after the last one; for the arrays as `ufm.measure`, the step named.
        """
        self._after(step)
        given = {"features": features, "labels": labels, "weight": weight, "bias": bias}
        try:
            found = measure_tables({name: table(name, value) for name, value in given.items() if value is not None})
        except InputError as error:
            raise InputError(f"step {step:g}: {error}") from None
        values = vars(found) | vars(found.collapse) | {"step": step}
        values |= {"positive": found.positive.mean, "negative": found.negative.mean, "threshold": found.threshold.value}
        values["bias"] = np.nan if found.bias is None else found.bias.mean()
        self._rows.append(tuple(float(values[name]) for name in COLUMNS))
        return found

    def add_from(
        self, step: float, apply: Callable[[Any], Any], loader: Iterable[Any], weight: Any, bias: Any = None
    ) -> Measurement:
        """`add` the features that ``apply`` gives of the inputs of a loader, in any order and read once.

        They are kept in a temporary file, not in memory.

        Args:
            step: as in `add`.
            apply: inputs of a batch to features (n, d); a PyTorch module without its last layer, say.
            loader: batches ``(inputs, labels)``: a DataLoader, a generator, a list.
            weight: (K, d).
            bias: (K,), one number, or None.

        Raises:
            InputError: as `add`; for a batch that is none, or has NaN or infinity, named with the step; for no batches.

        >>> import numpy as np
        >>> batches = [(2 * np.eye(3), [0, 1, 2]), (np.eye(3)[:2], [0, 1])]
        >>> float(History().add_from(1, np.sqrt, batches, np.eye(3)).positive.max)
        1.4142135623730951
        """
        self._after(step)
        labels: list[npt.NDArray[Any]] = []
        with tempfile.TemporaryFile() as file:
            dim, dtype = 0, np.dtype(np.float32)
            for number, batch in enumerate(loader):
                where = f"batch {number} at step {step:g}"
                H, y = _of_batch(apply, batch, where)
                if not labels:
                    dim, dtype = H.shape[1], np.promote_types(H.dtype, np.float32)
                require(H.shape[1] == dim, f"{where}: features.shape", H.shape, f"(n, {dim}), as in batch 0")
                file.write(np.ascontiguousarray(H, dtype).tobytes())
                labels.append(y)
            samples = sum(len(y) for y in labels)
            require(samples > 0, f"loader at step {step:g}", f"{len(labels)} batches", "one that yields samples")
            file.flush()
            features = np.memmap(file, dtype, "r", shape=(samples, dim))
            return self.add(step, features, np.concatenate(labels), weight, bias)

    def _after(self, step: float) -> None:
        require_range("step", step, "one finite number", lambda x: np.isfinite(x) & (x.ndim == 0))
        if self._rows:
            last = self._rows[-1][0]
            require(step > last, "step", step, f"more than {last:g}, the last one")

    # Storage ---------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write an .npz file of the columns, whole or not at all: what was there stays until the new one is complete.

        >>> with tempfile.TemporaryDirectory() as folder:
        ...     History().save(f"{folder}/run.npz")
        ...     len(History.load(f"{folder}/run.npz"))
        0
        """
        write_whole(Path(path), sealed_arrays({name: self[name] for name in COLUMNS}))

    @staticmethod
    def load(path: str | Path) -> History:
        """The history that `save` wrote; more steps may be added to it.

        Raises:
            InputError: for a file that is none.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                columns = [np.asarray(stored[name], float) for name in COLUMNS]
        except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"path = {str(path)!r}: must be a file of History.save ({reason})") from None
        same = {column.shape for column in columns} == {columns[0].shape} and columns[0].ndim == 1
        require(same, "path", str(path), "a file of History.save (its columns differ in length)")
        history = History()
        history._rows = [tuple(map(float, row)) for row in zip(*columns, strict=True)]
        return history

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as text, with all digits."""
        with Path(path).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(self._rows)

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over ``step`` (``pip install xarray``)."""
        try:
            import xarray
        except ImportError:
            raise ImportError("to_xarray needs `pip install xarray`") from None
        data = {name: ("step", self[name]) for name in COLUMNS if name != "step"}
        return xarray.Dataset(data, {"step": self["step"]})

    def plot(self, predicted: Prediction | Mapping[str, float] | None = None) -> Any:
        """Collapse, scores, norms, cosines and accuracies over steps; a `Prediction`'s values as dashed lines.

        Returns:
            A Matplotlib figure, unknown to pyplot: ``history.plot().savefig("run.png")``.

        Raises:
            InputError: for a history without rows.
        """
        from ufm.plotting import history

        require(len(self) > 0, "history", "no rows", "one with a step at least")
        limits = predicted.row if isinstance(predicted, Prediction) else predicted
        return history({name: self[name] for name in COLUMNS}, limits or {})


def _of_batch(apply: Callable[[Any], Any], batch: Any, where: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Features (n, d), finite, and labels (n,) of a batch."""
    try:
        inputs, given = batch
    except (TypeError, ValueError):
        raise InputError(f"{where} = {type(batch).__name__}: must be a pair (inputs, labels)") from None
    H, labels = as_numpy(f"{where}: features", apply(inputs)), as_numpy(f"{where}: labels", given)
    require(H.ndim == 2 and H.shape[1] >= 1, f"{where}: features.shape", H.shape, "(n, d) with d >= 1")
    require(labels.shape == H.shape[:1], f"{where}: labels.shape", labels.shape, f"({len(H)},), one per row")
    require(bool(np.isfinite(H).all()), f"{where}: features", "NaN or inf", "finite")
    return H, labels

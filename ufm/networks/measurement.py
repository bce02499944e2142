"""`measure`: how collapsed, how uniform and how far from an unconstrained feature model a network is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ufm._base import require
from ufm.metrics.collapse import Collapse
from ufm.metrics.configuration import configuration
from ufm.networks import uniform
from ufm.networks.arrays import BLOCK_BYTES, Source, Table, open_features, table
from ufm.networks.cosines import mean_cosine
from ufm.networks.nearest_model import Nearest, Observed, nearest
from ufm.networks.streaming import Histograms, Moments, Statistics, statistics
from ufm.networks.uniform import Threshold


@dataclass(frozen=True, repr=False)
class Measurement:
    """All metrics of a network's features under its classifier; scores are unbiased, ``w_j'h``.

    Attributes:
        classes: K.
        dim: d.
        samples: N.
        collapse: NC1-NC4 and their relatives.
        sample_wise: fraction with ``c_k > max_{j != k} c_j``; a tie of t classes counts 1/t.
        class_wise: largest fraction that one threshold per class classifies.
        uniform: largest fraction that one threshold classifies.
        at_bias: fraction with ``c_k + b_k > 0 > max_{j != k} (c_j + b_j)``: the learned bias as threshold.
        with_bias: fraction whose largest logit is the true class: the usual accuracy; a tie of t classes counts 1/t.
        threshold: the best single threshold t*.
        class_thresholds: the best threshold of each class (K,).
        bias: learned bias (K,), or None.
        bias_to_threshold: |mean(-b) - t*| and max_j |-b_j - t*|, or None.
        positive: moments of the true classes' scores.
        negative: moments of the other classes' scores.
        histograms: of both.
        compactness: mean cosine within classes.
        distinctiveness: mean of 1 - cosine across classes.
        weight_norm: ||W||_F.
        feature_norm: root mean square of ||h||.
        classifier_cosine: mean cosine of two rows of W, as they are.
        feature_cosine: mean cosine of two class means, not centered.
        nearest: the nearest unconstrained feature model under CE and under BCE.
        source: under which names a file held the arrays, and what else it held; None for arrays given directly.
    """

    classes: int
    dim: int
    samples: int
    collapse: Collapse
    sample_wise: float
    class_wise: float
    uniform: float
    at_bias: float | None
    with_bias: float
    threshold: Threshold
    class_thresholds: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | None
    bias_to_threshold: dict[str, float] | None
    positive: Moments
    negative: Moments
    histograms: Histograms
    compactness: float
    distinctiveness: float
    weight_norm: float
    feature_norm: float
    classifier_cosine: float
    feature_cosine: float
    nearest: dict[str, Nearest]
    source: Source | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        nc = ", ".join(
            f"{name.upper()} {float(getattr(self.collapse, name)):.2e}" for name in ("nc1", "nc2", "nc3", "nc4")
        )
        return (
            f"Measurement: {self.samples} samples, {self.classes} classes, dimension {self.dim}\n"
            f"  accuracy {self.with_bias:.6g}, uniform accuracy {self.uniform:.6g}\n"
            f"  {nc}"
        )

    def to_dict(self) -> dict[str, Any]:
        """What ``ufm measure --json`` prints: numbers, words, lists and None; ``notes`` says why a number is none."""
        b, away = self.bias, self.bias_to_threshold
        found = {
            "classes": self.classes,
            "dim": self.dim,
            "samples": self.samples,
            "collapse": {k: float(v) for k, v in vars(self.collapse).items()},
            "accuracy": {
                "sample_wise": self.sample_wise,
                "class_wise": self.class_wise,
                "uniform": self.uniform,
                "at_bias": self.at_bias,
                "with_bias": self.with_bias,
            },
            "threshold": self.threshold.value,
            "threshold_interval": [self.threshold.low, self.threshold.high],
            "bias": None if b is None else {"mean": float(b.mean()), "std": float(b.std()), "to_threshold": away},
            "scores": {
                "positive": dataclasses.asdict(self.positive),
                "negative": dataclasses.asdict(self.negative),
                "overlap": self.histograms.overlap(),
            },
            "compactness": self.compactness,
            "distinctiveness": self.distinctiveness,
            "nearest": {loss: dataclasses.asdict(model) for loss, model in self.nearest.items()},
            "source": None if self.source is None else self.source.to_dict(),
        }
        return found | {"notes": self._notes(found)}

    def _notes(self, found: dict[str, Any]) -> dict[str, str]:
        """Why the entries of ``found`` that are None, NaN or infinite are no numbers, by their path."""
        no_bias, norms = "the network has no bias", "classifier or features are zero: their norms have no ratio"
        no_threshold = "undefined: no sample has an own score above all others"
        infinite = "infinite: features vary within classes, not between them"
        undefined = "undefined (0/0): features vary neither within classes nor between them"
        why = {
            "source": "the arrays were given directly, not in a file",
            "collapse.nc1": infinite if np.isinf(self.collapse.nc1) else undefined,
            "accuracy.at_bias": no_bias,
            "threshold": no_threshold,
            "threshold_interval": no_threshold,
            "bias": no_bias,
            "bias.to_threshold": no_threshold,
            "compactness": "undefined: no class has two samples",
        }
        for loss, model in self.nearest.items():
            for name in ("decay_W", "decay_H", "alignment"):
                why[f"nearest.{loss}.{name}"] = norms
            for name in ("bias", "bias_residual", "decay_b"):
                why[f"nearest.{loss}.{name}"] = "CE determines no bias" if loss == "ce" else no_bias
            if self.bias is not None and loss == "bce":
                two = "undefined: for two classes the bias is zero, whatever its decay"
                why[f"nearest.{loss}.decay_b"] = two if np.isnan(model.decay_b) else "infinite: the model has no bias"
        return {path: why[path] for path in why if _undefined(found, path)}


def measure(
    features: Any,
    labels: Any,
    weight: Any,
    bias: Any = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Measure last-layer features and classifier of any network.

    Args:
        features: (N, d), one row per sample, as frameworks store them: NumPy (memory-mapped too), JAX or
            PyTorch. float16 and bfloat16 are computed with in float32.
        labels: (N,) integers in 0..K-1, every class present.
        weight: (K, d), K >= 2.
        bias: (K,), one number, or None; logits are ``weight @ h + bias``.
        progress: called with (rows done, rows to do) after each block; two passes are made.

    Raises:
        InputError: naming the field, its value and what is allowed.

    >>> import numpy as np, ufm
    >>> U = np.asarray(ufm.geometry.simplex_etf(3, 4))
    >>> found = ufm.measure(np.repeat(U, 5, axis=0), np.repeat(np.arange(3), 5), U)
    >>> found.uniform, round(found.threshold.value, 3), round(found.distinctiveness, 3)
    (1.0, 0.25, 1.5)
    """
    given = {"features": features, "labels": labels, "weight": weight, "bias": bias}
    return measure_tables({k: table(k, v) for k, v in given.items() if v is not None}, progress)


def measure_file(
    path: str | Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    told: Callable[[Source], None] = lambda source: None,
) -> Measurement:
    """`measure` of an .npz or .safetensors file or a folder of .npy files, which may be larger than memory.

    ``told`` is called before the work with what is read and what is left, which `Measurement.source` keeps.

    Raises:
        InputError: naming the file or the array in it, and what is allowed.

    >>> import tempfile, numpy as np, ufm
    >>> U = np.asarray(ufm.geometry.simplex_etf(3, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/net.npz", features=np.repeat(U, 5, axis=0), labels=np.repeat(np.arange(3), 5), weight=U)
    ...     found = ufm.networks.measure_file(f"{folder}/net.npz")
    >>> found.uniform, str(found.source)
    (1.0, 'read: features, labels, weight; no bias')
    """
    with open_features(path) as (arrays, source):
        told(source)
        return dataclasses.replace(measure_tables(arrays, progress), source=source)


def measure_tables(arrays: dict[str, Table], progress: Callable[[int, int], None] | None = None) -> Measurement:
    """`measure` of tables that are read by blocks."""
    features = arrays["features"]
    labels, weight, given = _checked(arrays)
    bias = None if given is None else np.broadcast_to(given, (len(weight),))
    (K, d), N = weight.shape, labels.size
    rows = max(1, BLOCK_BYTES // (weight.dtype.itemsize * max(K, d)))
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, 2 * N)

    stats = statistics(lambda: features.read(rows), labels, weight, bias, report)
    threshold = uniform.uniform_accuracy(stats.scores)
    class_wise, class_thresholds = uniform.class_wise_accuracy(stats.scores, labels, K)
    # No ETF has more than d + 1 classes: then cosines differ from its by far more than rounding in float32.
    pairs = weight.dtype if d + 1 < K else None
    shape = configuration(weight, stats.centered, stats.center, pairs)
    return Measurement(
        classes=K,
        dim=d,
        samples=N,
        collapse=Collapse(nc1=stats.nc1, nc4=stats.nc4, **{k: float(v) for k, v in shape.items()}),
        sample_wise=uniform.sample_wise_accuracy(stats.scores),
        class_wise=class_wise,
        uniform=threshold.accuracy,
        at_bias=None if bias is None else uniform.accuracy_at(stats.logits, 0.0),
        with_bias=uniform.sample_wise_accuracy(stats.logits),
        threshold=threshold,
        class_thresholds=class_thresholds,
        bias=bias,
        bias_to_threshold=None if bias is None else uniform.bias_to_threshold(bias, threshold.value),
        positive=stats.positive,
        negative=stats.negative,
        histograms=stats.histograms,
        compactness=stats.compactness,
        distinctiveness=stats.distinctiveness,
        weight_norm=_norm(weight),
        feature_norm=float(np.sqrt(stats.energy / N)),
        classifier_cosine=mean_cosine(weight),
        feature_cosine=mean_cosine(stats.centered + stats.center),
        nearest=_nearest(stats, weight, given),
    )


def _checked(arrays: dict[str, Table]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float64] | None]:
    """Labels, weight (in the precision of the work) and bias, () if it is one number, each against the others."""
    F, L, W = arrays["features"], arrays["labels"], arrays["weight"]
    require(len(F.shape) == 2 and min(F.shape) >= 1, "features.shape", F.shape, "(N, d) with N, d >= 1")
    N, d = F.shape
    require(L.shape == (N,), "labels.shape", L.shape, f"({N},), one per row of features")
    require(len(W.shape) == 2 and W.shape[0] >= 2, "weight.shape", W.shape, "(K, d) with K >= 2")
    K = W.shape[0]
    transposed = " (is features transposed?)" if W.shape[1] == N else ""
    require(W.shape[1] == d, "weight.shape", W.shape, f"(K, {d}), like features {F.shape}{transposed}")
    require(L.dtype.kind in "iu", "labels.dtype", str(L.dtype), "integers")
    labels = L.whole()
    require(labels.min() >= 0 and labels.max() < K, "labels", f"{labels.min()}..{labels.max()}", f"in 0..{K - 1}")
    labels = labels.astype(np.int64)
    counts = np.bincount(labels, minlength=K)
    empty = np.flatnonzero(counts == 0)
    several = f" and {empty.size - 1} more" if empty.size > 1 else ""
    require(not empty.size, "labels", f"no sample of class {empty[:1].sum()}{several}", "at least one of each class")

    weight = W.whole()
    precision = np.result_type(*(np.promote_types(t.dtype, np.float32) for t in (F, W)))
    weight = weight.astype(precision)
    require(bool(np.isfinite(weight).all()), "weight", "NaN or inf", "finite")
    if "bias" not in arrays:
        return labels, weight, None
    bias = arrays["bias"].whole().astype(np.float64)
    require(bias.shape in ((), (1,), (K,)), "bias.shape", bias.shape, f"({K},), () or (1,)")
    require(bool(np.isfinite(bias).all()), "bias", "NaN or inf", "finite")
    return labels, weight, bias if bias.shape == (K,) else bias.reshape(())


def _nearest(stats: Statistics, weight: npt.NDArray[Any], bias: npt.NDArray[np.float64] | None) -> dict[str, Nearest]:
    K, N = len(stats.counts), int(stats.counts.sum())
    variance = (stats.positive.std**2 + (K - 1) * stats.negative.std**2) / K
    observed = Observed(
        classes=K,
        samples=N,
        positive=stats.positive.mean,
        negative=stats.negative.mean,
        bias=None if bias is None else float(bias.mean()),
        weight_norm=_norm(weight),
        feature_norm=float(np.sqrt(stats.energy)),
        spread=float(np.sqrt(variance)),
        unified=bias is not None and bias.ndim == 0,
    )
    return {loss: nearest(observed, loss) for loss in ("ce", "bce")}


def _norm(weight: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.einsum("kd,kd->", weight, weight, dtype=np.float64)))


def _undefined(found: dict[str, Any], path: str) -> bool:
    """Whether the entry at ``path`` is, or holds, None, NaN or infinity; False for none at all."""
    value: Any = found
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    numbers = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return any(x is None or (isinstance(x, float) and not np.isfinite(x)) for x in numbers)

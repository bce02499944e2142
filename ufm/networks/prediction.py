"""`predict`: the unconstrained feature model that a way of training stands for, and where it says training ends.

A step of training sees a batch of B of the N samples and follows the gradient of

    c/B sum_batch loss(z_i) + weight_decay/2 ||W||^2 + bias_decay/2 ||b||^2 + r feature_decay/(2 B) sum_batch ||h_i||^2,

with c = 1 for a loss that is averaged over samples, 1/K where it is averaged over classes as well (PyTorch's
BCEWithLogitsLoss and MSELoss) and B where it is summed; r = B for features summed over the batch and 1 for their mean.
A decay lambda of PyTorch's SGD and Adam adds ``lambda W`` to the gradient, hence the halves. The mean over batches,
divided by c, is the objective of a `ufm.Problem` with

    decay_W = weight_decay/c,    decay_b = bias_decay/c,    decay_H = r feature_decay/(c N),

so that n decay_H = feature_decay B/K for balanced classes, a mean loss and sums over the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from ufm import bias as biases
from ufm import losses, solvers, theory
from ufm._base import InputError, require, require_range, require_whole, suggestion
from ufm.losses import BCE, CE, MSE, Loss
from ufm.metrics.configuration import configuration, row_norms
from ufm.models import Linear, Nonnegative
from ufm.networks.cosines import mean_cosine
from ufm.problem import Decay, Params, Problem

FEATURE_REDUCTIONS = ("batch_sum", "batch_mean")
LOSS_REDUCTIONS = ("mean", "mean_over_classes", "sum")
OPTIMIZERS = ("sgd", "adam", "adamw")
STARTS = 4
"""Random starts of a solve where no closed form is proven."""


class NoPrediction(InputError):  # noqa: N818 - a verdict, not a mishap
    """Training does not follow the gradient of one objective; the message says why."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Where training ends if the model is right; scores are unbiased, ``w_j'h``, and means as in `ufm.measure`.

    Attributes:
        problem: the `ufm.Problem`, one feature per class.
        params: its best point known: W (K, d), H (d, K) and b, up to a rotation of the features.
        value: objective of ``problem`` there; training's own is ``scale`` times it.
        gap: how much lower the minimum can be at most, rounding included; a certificate.
        scale: c, what training's objective is divided by to be that of ``problem``.
        source: ``"closed form"``, or how a solve ended.
        assumptions: what must be true of the network and its training, in sentences.
    """

    problem: Problem
    params: Params
    value: float
    gap: float
    scale: float
    source: str
    assumptions: tuple[str, ...]

    @cached_property
    def _table(self) -> npt.NDArray[np.float64]:
        """Scores (K, K): those of a sample of class k in column k."""
        return np.asarray(self.params.W) @ np.asarray(self.params.H)

    @property
    def positive_by_class(self) -> npt.NDArray[np.float64]:
        """Score of the true class, for samples of every class (K,)."""
        return np.diag(self._table)

    @property
    def negative_by_class(self) -> npt.NDArray[np.float64]:
        """Mean score of the other classes, for samples of every class (K,)."""
        return (self._table.sum(axis=0) - self.positive_by_class) / (self.problem.classes - 1)

    @property
    def bias_by_class(self) -> npt.NDArray[np.float64]:
        """Bias of every class (K,); zeros without one."""
        return biases.per_class(self.params.b, self.problem.classes)

    def _mean(self, values: Any) -> float:
        return float(np.average(values, weights=self.problem.counts))

    @property
    def positive(self) -> float:
        """Mean score of the true class over all samples."""
        return self._mean(self.positive_by_class)

    @property
    def negative(self) -> float:
        """Mean score of the other classes over all samples."""
        return self._mean(self.negative_by_class)

    @property
    def bias(self) -> float:
        """Mean bias over classes."""
        return float(self.bias_by_class.mean())

    @property
    def classifier_cosine(self) -> float:
        """Mean cosine of two rows of W; a zero row has cosine 0 with every other."""
        return mean_cosine(self.params.W)

    @property
    def feature_cosine(self) -> float:
        """Mean cosine of two class features; a dead class has cosine 0 with every other."""
        return mean_cosine(np.asarray(self.params.H).T)

    @property
    def norms(self) -> dict[str, float]:
        """``weight``, ||W||_F; ``feature``, root mean square of ||h|| over samples; ``weight_sum``, ||sum_k w_k||."""
        W = np.asarray(self.params.W)
        rms = np.sqrt(self._mean(row_norms(np.asarray(self.params.H).T) ** 2))
        sizes = {"weight": np.linalg.norm(W), "feature": rms, "weight_sum": np.linalg.norm(W.sum(axis=0))}
        return {name: float(size) for name, size in sizes.items()}

    @property
    def row(self) -> Mapping[str, float]:
        """What `ufm.networks.History` records of a network and the model predicts, by the names of its columns."""
        means, norms = np.asarray(self.params.H).T, self.norms
        center = np.average(means, axis=0, weights=self.problem.counts)
        shape = configuration(np.asarray(self.params.W), means - center, center)
        return {
            **{name: float(shape[name]) for name in ("nc2", "nc2_means", "nc3")},
            "positive": self.positive,
            "negative": self.negative,
            "bias": self.bias,
            "weight_norm": norms["weight"],
            "feature_norm": norms["feature"],
            "classifier_cosine": self.classifier_cosine,
            "feature_cosine": self.feature_cosine,
        }


def predict(
    *,
    classes: int,
    dim: int,
    counts: Any,
    loss: str | Loss,
    weight_decay: float,
    feature_decay: float | None,
    batch: int,
    bias_decay: float | None = None,
    bias: str = "per_class",
    feature_decay_reduction: str = "batch_sum",
    loss_reduction: str = "mean",
    relu: bool = True,
    optimizer: str = "sgd",
    norms: tuple[float, float] | None = None,
) -> Prediction:
    """Where training ends, by the unconstrained feature model; see the module for the factors.

    Args:
        classes: K.
        dim: d, width of the layer before the last.
        counts: training images per class: one number, K of them, or `ufm.targets.long_tail`.
        loss: a name such as ``"ce"`` or ``"focal:gamma=2"``, or one of `ufm.losses`. BCE and MSE are sums over classes.
        weight_decay: of the optimizer, ``weight_decay/2 ||W||^2``.
        feature_decay: lambda in ``lambda/2 sum ||h||^2`` over the batch, or half the mean. None for training without:
            then ``norms`` must be given.
        batch: B, samples of a batch.
        bias_decay: of the last layer's bias; that of the weights if not given, as PyTorch's optimizers decay both.
        bias: ``"per_class"``, ``"unified"`` or ``"none"``.
        feature_decay_reduction: ``"batch_sum"`` or ``"batch_mean"``.
        loss_reduction: over the batch ``"mean"``, ``"mean_over_classes"`` (and over the batch) or ``"sum"``.
        relu: whether the features are outputs of a ReLU, never negative.
        optimizer: ``"sgd"`` (any momentum), ``"adam"`` (decay in the gradient) or ``"adamw"``, which is refused.
        norms: measured ``(||W||_F, ||H||_F)``, H of all training samples, in place of a ``feature_decay``.

    Raises:
        NoPrediction: for AdamW.
        InputError: naming what is not allowed.

    A ReLU network on MNIST was trained to 5.652 and -.629 (batch 128, all decays 5e-4; benchmarks/networks):

    >>> found = predict(classes=10, dim=64, counts=6000, loss="ce", weight_decay=5e-4, feature_decay=5e-4, batch=128)
    >>> round(found.positive, 4), round(found.negative, 4), found.bias
    (5.6307, -0.6256, 0.0)
    >>> print(found.assumptions[0])
    n decay_H = 0.0064 with decay_H = 1.06667e-06: feature_decay times 128, the batch, over all 60000 samples.
    """
    if isinstance(loss, str):
        loss = losses.parse(loss)
    choices = {
        "feature_decay_reduction": (feature_decay_reduction, FEATURE_REDUCTIONS),
        "loss_reduction": (loss_reduction, LOSS_REDUCTIONS),
        "optimizer": (optimizer, OPTIMIZERS),
    }
    for name, (value, known) in choices.items():
        require(value in known, name, value, suggestion(str(value), known))
    require_whole("batch", batch, 1)
    if loss_reduction == "mean_over_classes":
        allowed = "mean or sum: only bce and mse are sums over classes, of which PyTorch takes the mean"
        require(isinstance(loss, BCE | MSE), "loss_reduction", f"mean_over_classes of {loss}", allowed)
    if optimizer == "adamw":
        raise NoPrediction(
            "optimizer = 'adamw': no prediction, as its decay is no part of the gradient: where it stops, the mean of "
            "gradients over their sizes is minus the decay times the weight, which is no objective's stationary point"
        )
    problem = Problem(
        classes, dim, counts, loss, bias=bias, features="per_class", model=Nonnegative() if relu else Linear()
    )
    N = problem.samples
    require(batch <= N, "batch", batch, f"at most {N}, all samples")
    scale = {"mean": 1.0, "mean_over_classes": 1.0 / classes, "sum": float(batch)}[loss_reduction]
    require_range("weight_decay", weight_decay, "a number > 0", lambda x: (x > 0) & (x < np.inf))
    bias_decay = weight_decay if bias_decay is None else bias_decay
    words, decay_H = _feature_decay(
        feature_decay, norms, weight_decay / scale, batch if feature_decay_reduction == "batch_sum" else 1, N, scale
    )
    decay = Decay(weight_decay / scale, decay_H, bias_decay / scale)
    problem = Problem(classes, dim, counts, loss, decay, bias, "per_class", model=problem.model)
    share = f"n decay_H = {N / classes * decay_H:g} with " if problem.balanced else ""
    params, source = _best(problem)
    found = theory.certify(problem, params)
    gap = float(np.maximum(found.gap, 0.0) + found.rounding)
    sentences = (share + words, *_assumptions(problem, params, gap, float(found.value), optimizer, source))
    return Prediction(problem, params, float(found.value), gap, scale, source, sentences)


def _feature_decay(
    feature_decay: float | None, norms: Any, decay_W: float, factor: int, N: int, scale: float
) -> tuple[str, float]:
    """Where decay_H comes from, in words, and decay_H."""
    if feature_decay is None:
        require(norms is not None, "feature_decay", None, "a number > 0, or norms = (||W||, ||H||) measured")
        require_range("norms", norms, "two numbers > 0", lambda x: (x > 0) & (x < np.inf) & (x.shape == (2,)))
        decay_H = decay_W * float(norms[0] / norms[1]) ** 2
        return f"decay_H = {decay_H:g}, the effective one: decay_W ||W||^2 = decay_H ||H||^2.", decay_H
    require(norms is None, "norms", norms, "None where a feature_decay is given")
    require_range("feature_decay", feature_decay, "a number > 0", lambda x: (x > 0) & (x < np.inf))
    decay_H = factor * feature_decay / (scale * N)
    times = f" times {factor}, the batch," if factor > 1 else ""
    over = f", and over {scale:g}, the loss's own factor" if scale != 1 else ""
    return f"decay_H = {decay_H:g}: feature_decay{times} over all {N} samples{over}.", decay_H


def _best(problem: Problem) -> tuple[Params, str]:
    """The closed form where it is proven; else the lowest of it and of a few solves."""
    closed = theory.predict(problem)
    if closed is not None and closed.exact:
        return closed.params, "closed form"
    with jax.enable_x64(True):
        solution = solvers.solve(problem.astype(jnp.float64), starts=STARTS, dtype=jnp.float64)
        value, params = float(solution.value), jax.tree.map(np.asarray, solution.params)
    if closed is not None and not value < closed.value:
        return closed.params, "closed form"
    return params, f"solve: {solution.status_name}"


def _assumptions(
    problem: Problem, params: Params, gap: float, value: float, optimizer: str, source: str
) -> tuple[str, ...]:
    said = [
        "The layers before the last can give every image any feature, and their own decays cost nothing.",
        "Training goes on until nothing moves: rate to zero, training accuracy 1, no augmentation, no dropout.",
        "All batches have as many samples: a smaller last one counts its samples for more.",
    ]
    if optimizer == "adam":
        said.append("Adam with its decay in the gradient: it has the objective's stationary points, not its path.")
    if isinstance(problem.model, Nonnegative):
        said.append(
            "The network is in no spurious local minimum: with features >= 0 there are some, where features of a class "
            "are 0 and its bias alone carries it."
        )
    else:
        said.append("Features may be negative: no ReLU acts on them.")
    if isinstance(problem.loss, CE) and float(problem.decay.b) == 0 and problem.bias != "none":
        said.append("Without a decay of the bias cross-entropy keeps the initial mean of the bias: add it to all.")
    dead = np.flatnonzero(row_norms(np.asarray(params.H).T) == 0)
    if dead.size:
        named = ", ".join(map(str, dead))
        said.append(f"At these decays the features of class {named} are 0.")
    if gap > 1e-6 * abs(value):
        said.append(f"Not proven ({source}): the minimum may be lower by up to {gap:.2g} of {value:.6g}.")
    elif source not in ("closed form", "solve: converged"):
        said.append(f"The best point known is not exactly stationary ({source}).")
    return tuple(said)

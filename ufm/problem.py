"""The unconstrained feature model: a problem, its parameters and its objective."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm import blocks
from ufm._base import cast, is_traced, matmul, nearest, pytree, require, require_range
from ufm.losses import BCE, Loss

DECAYS = (1e-300, 1e300)
"""Decays allowed. Beyond, numbers of the size of a decay are not normal in float64, and XLA takes them for zero."""
MOST = 2**53
"""Samples allowed in all: float64 holds every whole number up to it."""
BIAS_MODES = ("per_class", "unified", "none")
FEATURE_MODES = ("per_sample", "per_class")


@pytree()
@dataclass(frozen=True)
class Decay:
    """Weight decays: the objective adds ``lambda_W/2 ||W||^2 + lambda_H/2 ||H||^2 + lambda_b/2 ||b||^2``.

    ``Decay.W`` is lambda_W, ``Decay.H`` lambda_H and ``Decay.b`` lambda_b; formulas in words call them decay_W,
    decay_H and decay_b. The first two must be positive (the infimum is not attained otherwise), the last at least zero.
    A positive one lies between 1e-300 and 1e300.
    """

    W: Any = 5e-4
    H: Any = 5e-4
    b: Any = 5e-4

    def __post_init__(self) -> None:
        low, high = DECAYS
        for name in ("W", "H"):
            value, allowed = getattr(self, name), f"a finite number > 0 (from {low:g} to {high:g})"
            require_range(f"decay.{name}", value, allowed, lambda x: (x >= low) & (x <= high))
        allowed = f"a finite number >= 0 (0, or from {low:g} to {high:g})"
        require_range("decay.b", self.b, allowed, lambda x: (x == 0) | ((x >= low) & (x <= high)))

    @property
    def price(self) -> Any:
        """``sqrt(lambda_W lambda_H)``, what the nuclear norm of ``W H`` costs: the product of roots does not underflow.

        >>> Decay(1e-300, 1e-300).price
        1e-300
        """
        return self.W**0.5 * self.H**0.5

    @property
    def ratio(self) -> Any:
        """``sqrt(lambda_H/lambda_W)``, size of W over that of H at every critical point."""
        return self.H**0.5 / self.W**0.5


@pytree()
@dataclass(frozen=True)
class Params:
    """A point: classifier ``W`` (K, d), features ``H`` (d, columns) and bias ``b``.

    ``b`` has shape (K,) for a bias per class, () for a unified one, and is None without a bias.
    """

    W: Any
    H: Any
    b: Any = None


@pytree(static=("classes", "dim", "per_class", "bias", "features"))
@dataclass(frozen=True)
class Problem:
    """Minimise ``1/N sum loss(W h_i + b, y_i) + lambda_W/2 ||W||^2 + lambda_H/2 ||H||^2 + lambda_b/2 ||b||^2``.

    Over the classifier W (K, d), the features H (d, N) and the bias b; z_i = W h_i + b are the logits of sample i.

    Args:
        classes: K >= 2.
        dim: feature dimension d >= 1.
        per_class: samples per class, one number or K of them. Samples are ordered by class.
        loss: from `ufm.losses`; the same function for every class.
        decay: the three weight decays lambda_W, lambda_H and lambda_b.
        bias: ``"per_class"`` (K numbers), ``"unified"`` (one) or ``"none"``.
        features: ``"per_sample"`` gives each of the N samples its own feature. ``"per_class"`` gives
            each class one feature with the weight of its samples: the same minimum when the loss is
            convex in the logits, because the minimiser over H at fixed (W, b) is unique per class, at
            a cost that does not depend on N. Never use it to *show* collapse.
        classifier: a fixed W (K, d); H and b are then the only variables.

    Sizes and modes are static, the loss's hyper-parameters, decays and classifier are leaves: they
    may be traced, batched with vmap and swept.

    >>> problem = Problem(classes=3, dim=4, per_class=(5, 5, 1))
    >>> problem.samples, problem.columns
    (11, 11)
    """

    classes: int = 10
    dim: int = 64
    per_class: int | tuple[int, ...] = 100
    loss: Loss = field(default_factory=BCE)
    decay: Decay = field(default_factory=Decay)
    bias: str = "per_class"
    features: str = "per_sample"
    classifier: Any = None

    def __post_init__(self) -> None:
        _require_whole("classes", self.classes, 2)
        _require_whole("dim", self.dim, 1)
        object.__setattr__(self, "classes", int(self.classes))
        object.__setattr__(self, "dim", int(self.dim))
        counts = self.per_class
        if np.ndim(counts) == 0:
            _require_whole("per_class", counts, 1)
            object.__setattr__(self, "per_class", int(counts))  # type: ignore[arg-type]
        else:
            sizes = list(counts)  # type: ignore[arg-type]
            allowed = f"one number, or classes = {self.classes} of them (got {len(sizes)})"
            require(len(sizes) == self.classes, "per_class", counts, allowed)
            for k, n in enumerate(sizes):
                _require_whole(f"per_class[{k}]", n, 1)
            same = len(set(sizes)) == 1
            object.__setattr__(self, "per_class", int(sizes[0]) if same else tuple(int(n) for n in sizes))
        total = self.classes * self.per_class if isinstance(self.per_class, int) else sum(self.per_class)
        require(total <= MOST, "per_class", counts, f"at most 2**53 samples in all, not {float(total):.3g}")
        require(isinstance(self.loss, Loss), "loss", self.loss, "a loss such as ufm.losses.BCE(), or custom(fn)")
        require(isinstance(self.decay, Decay), "decay", self.decay, "a ufm.Decay")
        require(self.bias in BIAS_MODES, "bias", self.bias, nearest(str(self.bias), BIAS_MODES))
        require(self.features in FEATURE_MODES, "features", self.features, nearest(str(self.features), FEATURE_MODES))
        if self.classifier is not None:
            shape, expected = np.shape(self.classifier), (self.classes, self.dim)
            require(shape[-2:] == expected, "classifier.shape", shape, f"(classes, dim) = {expected}")
            if not is_traced(self.classifier):
                finite = bool(np.all(np.isfinite(np.asarray(self.classifier, float))))
                require(finite, "classifier", "an array with NaN or inf", "finite")

    # Sizes -----------------------------------------------------------------------------------

    @property
    def balanced(self) -> bool:
        """Whether every class has the same number of samples."""
        return isinstance(self.per_class, int)

    @property
    def counts(self) -> np.ndarray:
        """Samples per class (K,)."""
        return np.broadcast_to(np.asarray(self.per_class, np.int64), (self.classes,))

    @property
    def samples(self) -> int:
        """N, the number of samples."""
        return int(self.counts.sum())

    @property
    def columns(self) -> int:
        """Columns of H: N with a feature per sample, K with one per class."""
        return self.samples if self.features == "per_sample" else self.classes

    @property
    def labels(self) -> np.ndarray:
        """True class of each column of H (columns,)."""
        classes = np.arange(self.classes, dtype=np.int32)
        return np.repeat(classes, self.counts) if self.features == "per_sample" else classes

    @property
    def multiplicity(self) -> np.ndarray:
        """How many samples each column of H stands for: (columns,), or () when all are equal."""
        return np.asarray(1 if self.features == "per_sample" else self.per_class, float)

    # Values ----------------------------------------------------------------------------------

    def classifier_of(self, params: Params) -> Array:
        """W (K, d): that of ``params``, or the fixed one in its place."""
        return params.W if self.classifier is None else jnp.asarray(self.classifier, params.H.dtype)

    def logits(self, params: Params) -> Array:
        """``Z = W H + b`` (K, columns)."""
        scores = matmul(self.classifier_of(params), params.H)
        if params.b is None:
            return scores
        return scores + (params.b[:, None] if jnp.ndim(params.b) else params.b)

    def losses(self, logits: Array) -> Array:
        """Loss of each column of ``logits`` (K, columns)."""
        return jax.vmap(self.loss, in_axes=(1, 0))(logits, jnp.asarray(self.labels))

    def true_class_of(self, scores: Array) -> Array:
        """The true class's entry of each column of ``scores`` (K, columns)."""
        return jnp.take_along_axis(scores, jnp.asarray(self.labels)[None, :], axis=0)[0]

    def weighted_sum(self, values: Array) -> Array:
        """Sum over samples of ``values`` (..., columns)."""
        weights = jnp.broadcast_to(jnp.asarray(self.multiplicity, values.dtype), values.shape)
        return jnp.sum(values * weights, axis=-1)

    def risk(self, logits: Array) -> Array:
        """Mean loss over the N samples."""
        return self.weighted_sum(self.losses(logits)) / self.samples

    def penalty(self, params: Params) -> Array:
        """``lambda_W/2 ||W||^2 + lambda_H/2 ||H||^2 + lambda_b/2 ||b||^2``, columns of H counted by multiplicity."""
        decay = cast(self.decay, params.H.dtype)
        total = decay.W * jnp.sum(self.classifier_of(params) ** 2)
        total += decay.H * self.weighted_sum(jnp.sum(params.H**2, axis=0))
        if params.b is not None:
            total += decay.b * jnp.sum(params.b**2)
        return 0.5 * total

    def objective(self, params: Params) -> Array:
        """The value that is minimised; a scalar in the dtype of ``params``.

        A fixed ``classifier`` stands in for ``params.W``, whose gradient is then zero.
        """
        problem = self.astype(params.H.dtype)
        if self.classes * self.columns <= blocks.HELD:
            return problem.risk(problem.logits(params)) + problem.penalty(params)
        W = self.classifier_of(params)
        bias = jnp.zeros((), W.dtype) if params.b is None else params.b
        weights = jnp.broadcast_to(jnp.asarray(self.multiplicity, W.dtype) / self.samples, (self.columns,))
        total = blocks.blocked_loss(
            problem.loss, W, jnp.broadcast_to(bias, (self.classes,)), params.H, jnp.asarray(self.labels), weights
        )
        return total + problem.penalty(params)

    def hessian(self, params: Params) -> Callable[[Params], Params]:
        """``direction -> Hessian direction`` at ``params``, with all that depends on the point alone computed once.

        Forward over reverse through the loss, with G the gradient in Z and dG its change along dZ; the product rule
        through ``Z = W H + b``, and the penalty is quadratic:

            dZ = dW H + W dH + db,   (dG H' + G dH',  W' dG + dW' G,  dG 1) + decays times (dW, dH, db).

        Autodiff of the whole objective gives the same products, but compiled for CPU it fuses them with the penalty
        into loops that cost twice as much at a million variables.
        """
        if self.classes * self.columns > blocks.HELD:  # no room to keep what depends on the point
            return lambda direction: jax.jvp(jax.grad(self.objective), (params,), (direction,))[1]
        problem = self.astype(params.H.dtype)
        W, H = self.classifier_of(params), params.H
        G, curvature = jax.linearize(jax.grad(problem.risk), problem.logits(params))

        free = self.classifier is None

        def product(direction: Params) -> Params:
            dW, dH, db = direction.W, direction.H, direction.b
            dZ = matmul(W, dH)
            if free:
                dZ += matmul(dW, H)
            if db is not None:
                dZ += db[:, None] if jnp.ndim(db) else db
            dG = curvature(dZ)
            of_W, of_H = jnp.zeros_like(dW), matmul(W.T, dG)
            if free:
                of_W = matmul(dG, H.T) + matmul(G, dH.T)
                of_H += matmul(dW.T, G)
            of_b = None if db is None else jnp.sum(dG, axis=1 if jnp.ndim(db) else None)
            return jax.tree.map(jnp.add, Params(of_W, of_H, of_b), jax.grad(problem.penalty)(direction))

        return product

    def astype(self, dtype: Any) -> Problem:
        """The same problem with every leaf in ``dtype``."""
        return cast(self, dtype)

    def init(self, key: Array, scale: float = 1.0, bias_mean: float = 0.0, dtype: Any = None) -> Params:
        """Random start: entries of W and H normal with deviation ``scale / sqrt(d)``, of b with ``scale / 10``.

        ``bias_mean`` shifts the bias. ``dtype`` defaults to JAX's own default float.
        """
        dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
        biases = {"per_class": (self.classes,), "unified": (), "none": None}[self.bias]
        W, H, b = _random_start(key, scale, bias_mean, (self.classes, self.dim, self.columns, biases), dtype)
        return Params(W if self.classifier is None else jnp.asarray(self.classifier, dtype), H, b)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _random_start(
    key: Array, scale: Array, bias_mean: Array, sizes: tuple[int, int, int, tuple[int, ...] | None], dtype: Any
) -> tuple[Array, Array, Array | None]:
    K, d, columns, biases = sizes
    # One draw for all: a random program per array would triple the compilation.
    draw = jax.random.normal(key, (K * d + d * columns + K,), dtype)
    W, H, b = jnp.split(draw, [K * d, K * d + d * columns])
    spread = jnp.asarray(scale / d**0.5, dtype)
    bias = None
    if biases is not None:
        bias = jnp.asarray(bias_mean, dtype) + jnp.asarray(0.1 * scale, dtype) * b[: math.prod(biases)].reshape(biases)
    return spread * W.reshape(K, d), spread * H.reshape(d, columns), bias


def _require_whole(field: str, value: Any, least: int) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    require(whole and value >= least, field, value, f"a whole number >= {least}")

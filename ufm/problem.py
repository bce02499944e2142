"""The unconstrained feature model: a problem, its parameters and its objective."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm import bias as biases
from ufm import blocks
from ufm._base import (
    alike,
    as_key,
    cast,
    is_traced,
    matmul,
    norm,
    pytree,
    require,
    require_known,
    require_range,
    require_whole,
)
from ufm.bias import Bias
from ufm.decay import Decay
from ufm.losses import BCE, Custom, Loss
from ufm.models import FixedClassifier, Linear, Model, Params, Spheres
from ufm.targets import MOST, OfClasses, Targets, as_targets

__all__ = ["Decay", "NormalizedProblem", "Params", "Problem"]

BIAS_MODES = tuple(map(str, Bias))
FEATURE_MODES = ("per_sample", "per_class")
FREE = Linear()
"""The model of a problem that names none."""


@pytree(static=("classes", "dim", "bias", "features"))
@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """Minimize ``1/N sum loss(W h_i + b, y_i) + lambda_W/2 ||W||^2 + lambda_H/2 ||H||^2 + lambda_b/2 ||b||^2``.

    Over the classifier W (K, d), the features H (d, N) and the bias b; z_i = W h_i + b are the logits of sample i.

    Args:
        classes: K >= 2.
        dim: feature dimension d >= 1.
        per_class: samples per class: one number, K of them, or `ufm.targets.long_tail`; 100 if not given. Samples
            are ordered by class. Short for ``targets``.
        loss: from `ufm.losses`; the same function for every class.
        decay: the three weight decays lambda_W, lambda_H and lambda_b.
        bias: ``"per_class"`` (K numbers), ``"unified"`` (one) or ``"none"``.
        features: ``"per_sample"`` gives each of the N samples its own feature. ``"per_class"`` gives
            each class one feature with the weight of its samples: the same minimum when the loss is
            convex in the logits, because the minimizer over H at fixed (W, b) is unique per class, at
            a cost that does not depend on N. Never use it to *show* collapse.
        classifier: a fixed W (K, d), short for ``model=ufm.models.FixedClassifier(W)``; H and b are then the only
            variables.
        model: from `ufm.models`: what maps a point to logits and what it costs; `Linear` if not given.
        targets: from `ufm.targets`, in place of ``per_class``.
        weights: share of every class in the loss (K,), ``n_k/N`` if not given: a sample of class k counts
            ``weights[k]/n_k``. They need not sum to one.
        offset: constants (K,), or one number, added to the logits; no variables (logit adjustment, SigLIP's bias).

    Sizes and modes are static; the hyper-parameters of loss and model, decays, counts, weights and offset are leaves:
    they may be traced, batched with vmap and swept, and changing them compiles nothing. Where every sample has a
    feature of its own their number N is a size.

    >>> problem = Problem(classes=3, dim=4, per_class=(5, 5, 1))
    >>> problem.samples, problem.columns
    (11, 11)
    """

    classes: int = 10
    dim: int = 64
    if TYPE_CHECKING:
        per_class: Any = None
    else:
        per_class: InitVar[Any] = None
    loss: Loss = field(default_factory=BCE)
    decay: Decay = field(default_factory=Decay)
    bias: str = "per_class"
    features: str = "per_sample"
    if TYPE_CHECKING:
        classifier: Any = None
    else:
        classifier: InitVar[Any] = None
    model: Any = None
    if TYPE_CHECKING:
        targets: Any = None
    else:
        targets: InitVar[Any] = None
    weights: Any = None
    offset: Any = None
    grouping: Targets = field(init=False)
    """The samples in groups of one target each: what ``per_class`` or ``targets`` say."""

    def __post_init__(self, per_class: Any, classifier: Any, targets: Any) -> None:  # type: ignore[override]
        require_whole("classes", self.classes, 2)
        require_whole("dim", self.dim, 1)
        object.__setattr__(self, "classes", int(self.classes))
        object.__setattr__(self, "dim", int(self.dim))
        require(isinstance(self.loss, Loss), "loss", self.loss, "a loss such as ufm.losses.BCE(), or custom(fn)")
        require(isinstance(self.decay, Decay), "decay", self.decay, "a ufm.Decay")
        require_known("bias", self.bias, BIAS_MODES)
        object.__setattr__(self, "bias", Bias(self.bias))
        require_known("features", self.features, FEATURE_MODES)
        self._group(per_class, targets)
        if classifier is not None:
            free = self.model is None or self.model is FREE or isinstance(self.model, FixedClassifier)
            require(free, "model", str(self.model), "absent where a classifier is given (classifier=None frees it)")
            object.__setattr__(self, "model", FixedClassifier(classifier))
        elif self.model is None:
            object.__setattr__(self, "model", FREE)
        require(isinstance(self.model, Model), "model", self.model, "a model such as ufm.models.Linear()")
        self.model.check(self)
        for name in ("weights", "offset"):  # one leaf each, not one per number
            if isinstance(getattr(self, name), (list, tuple)) and not is_traced(getattr(self, name)):
                object.__setattr__(self, name, np.asarray(getattr(self, name)))
        self._check_weights()
        self._check_offset()

    def _group(self, per_class: Any, targets: Any) -> None:
        if targets is None:
            targets = as_targets(100 if per_class is None else per_class, self.classes)
        else:
            require(per_class is None, "per_class", per_class, "None where targets are given: they have their counts")
        require(isinstance(targets, Targets), "targets", targets, "of ufm.targets")
        targets.check(self.classes)
        if not isinstance(targets, OfClasses):
            require(self.loss.takes_columns, "loss", self.loss.name, "ce, bce, ls or mse where targets are no labels")
            self.loss.check_columns(targets)
        object.__setattr__(self, "grouping", targets.per_sample(self.features == "per_sample", self.classes))
        N = self.samples
        if not is_traced(N):
            require(N <= MOST, "per_class", self.per_class, f"at most 2**53 samples in all, not {float(N):.3g}")

    def _check_weights(self) -> None:
        if self.weights is not None:
            shape, expected = np.shape(self.weights), (self.groups,)
            name = "classes" if self.labeled else "groups of samples"
            require(shape[-1:] == expected, "weights.shape", shape, f"({name},) = {expected}")
            require_range("weights", self.weights, "finite numbers >= 0", lambda w: (w >= 0) & (w < np.inf))
            require_range("weights", self.weights, "not all zero", lambda w: w.sum(axis=-1) > 0)

    def _check_offset(self) -> None:
        if self.offset is not None:
            shape, expected = np.shape(self.offset), (self.classes,)
            require(shape[-1:] in ((), expected), "offset.shape", shape, f"() or (classes,) = {expected}")
            require_range("offset", self.offset, "finite numbers", np.isfinite)

    # Sizes -----------------------------------------------------------------------------------

    @property
    def labeled(self) -> bool:
        """Whether the targets are class labels: group k are the samples of class k."""
        return isinstance(self.grouping, OfClasses)

    @property
    def classes_alike(self) -> bool:
        """Whether neither weights nor offsets tell classes apart."""
        return self.weights is None and np.ndim(0.0 if self.offset is None else self.offset) == 0

    @property
    def balanced(self) -> bool:
        """Whether classes are alike but for the loss: equal counts, and no weights or offsets of their own."""
        return self.labeled and np.ndim(self.grouping.sizes(self.classes)) == 0 and self.classes_alike

    @property
    def groups(self) -> int:
        """G, groups of samples with one target each: the K classes, where targets are labels."""
        return self.grouping.groups(self.classes)

    @property
    def counts(self) -> Any:
        """Samples per class, or per group (G,): whole numbers, or traced."""
        return self.grouping.counts(self.classes)

    @property
    def samples(self) -> Any:
        """N, the number of samples: whole, or traced."""
        return self.grouping.samples(self.classes)

    @property
    def columns(self) -> int:
        """Columns of H: N with a feature per sample, G with one per class or group."""
        return self.groups if self.grouping.total is None else self.grouping.total

    @property
    def labels(self) -> Any:
        """Class, or group, of each column of H (columns,)."""
        return self.grouping.group_of_columns(self.classes)

    @property
    def multiplicity(self) -> Any:
        """How many samples each column of H stands for: (columns,), or () when all are equal."""
        if self.features == "per_sample":
            return np.asarray(1.0)
        sizes = self.grouping.sizes(self.classes)
        return sizes if is_traced(sizes) else np.asarray(sizes, float)

    def copies(self, dtype: Any) -> Array:
        """`multiplicity` of every column, as an array (columns,) of ``dtype``."""
        return jnp.broadcast_to(jnp.asarray(self.multiplicity, dtype), (self.columns,))

    # Values ----------------------------------------------------------------------------------

    @property
    def shares(self) -> Any:
        """Weight of each column's loss (columns,): ``m_i/N`` unless ``weights`` say otherwise."""
        if self.weights is None:
            xp = jnp if is_traced(self.multiplicity, self.samples) else np
            return xp.broadcast_to(self.multiplicity / self.samples, (self.columns,))
        weights = jnp.asarray(self.weights)
        if self.features == "per_class":
            return weights
        return (weights / jnp.asarray(self.counts, weights.dtype))[..., self.labels]

    def scores(self, params: Params) -> Array:
        """Logits without bias and offset (K, columns)."""
        return matmul(*self.model.layers(params))

    def logits(self, params: Params) -> Array:
        """``Z = W H + b`` (K, columns), with the offset if there is one."""
        return self.added(self.scores(params), params.b)

    def added(self, scores: Array, b: Any) -> Array:
        """``scores`` (K, columns) with the bias ``b``, (K,), () or None, and the offset."""
        offset = None if self.offset is None else jnp.asarray(self.offset, scores.dtype)
        return biases.added(biases.added(scores, b), offset)

    def losses(self, logits: Array) -> Array:
        """Loss of each column of ``logits`` (K, columns)."""
        return jax.vmap(self.loss, in_axes=(1, 0))(logits, self.grouping.of(self.labels))

    def true_class_of(self, scores: Array) -> Array:
        """The true class's entry of each column of ``scores`` (K, columns)."""
        return jnp.take_along_axis(scores, jnp.asarray(self.labels)[None, :], axis=0)[0]

    def weighted_sum(self, values: Array) -> Array:
        """Sum over samples of ``values`` (..., columns)."""
        return jnp.sum(values * jnp.broadcast_to(self.copies(values.dtype), values.shape), axis=-1)

    def risk(self, logits: Array) -> Array:
        """Loss over all samples, each with its share: the mean unless there are ``weights``."""
        return jnp.sum(self.losses(logits) * jnp.asarray(self.shares, logits.dtype))

    def penalty(self, params: Params) -> Array:
        """What the decays cost: that of the model, and ``lambda_b/2 ||b||^2``."""
        problem = self.astype(params.H.dtype)
        return problem.model.penalty(problem, params) + biases.penalty(problem.decay.b, params.b)

    def objective(self, params: Params) -> Array:
        """The value that is minimized; a scalar in the dtype of ``params``."""
        problem = self.astype(params.H.dtype)
        if self.classes * self.columns <= blocks.HELD:
            return problem.risk(problem.logits(params)) + problem.penalty(params)
        W, H = problem.model.layers(params)
        b = problem.added(jnp.zeros((self.classes, 1), W.dtype), params.b)[:, 0]
        total = blocks.blocked_loss(
            problem.loss, W, b, H, problem.grouping.of(problem.labels), jnp.asarray(problem.shares, W.dtype)
        )
        return total + problem.penalty(params)

    def gradient_norm(self, gradient: Params) -> Array:
        """Euclidean norm of a gradient. A feature that stands for m samples counts as m features of 1/m of it each."""
        roots = jnp.sqrt(jnp.asarray(self.multiplicity, gradient.H.dtype))
        return norm(dataclasses.replace(gradient, H=gradient.H / (roots[None, :] if roots.ndim else roots)))

    def hessian(self, params: Params) -> Callable[[Params], Params]:
        """``direction -> Hessian direction`` at ``params``, with all that depends on the point alone computed once."""
        return self.model.hessian(self, params)

    def astype(self, dtype: Any) -> Problem:
        """The same problem with every leaf in ``dtype``."""
        return cast(self, dtype)

    def init(self, key: Array | int, scale: float = 1.0, bias_mean: float = 0.0, dtype: Any = None) -> Params:
        """Random start: entries of W and H normal with deviation ``scale / sqrt(d)``, of b with ``scale / 10``.

        ``bias_mean`` shifts the bias. ``dtype`` defaults to JAX's own default float.
        """
        dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
        sizes = (self.classes, self.dim, self.columns, Bias(self.bias).shape(self.classes))
        key = as_key(key)
        return self.model.start(self, Params(*_random_start(key, scale, bias_mean, sizes, dtype)), key)

    def shapes(self) -> Params:
        """A point in which shapes stand for arrays.

        >>> Problem(3, 4, (5, 5, 1)).shapes().H.shape
        (4, 11)
        """
        structure = jax.tree.structure(self)
        if structure not in _SHAPES:
            _SHAPES[structure] = jax.eval_shape(lambda: self.init(jax.random.key(0)))
        return _SHAPES[structure]

    def __eq__(self, other: object) -> bool:
        return alike(self, other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        names = ("classes", "dim", "per_class", *(f.name for f in dataclasses.fields(self)[2:-1]), "targets")
        given = {name: getattr(self, name) for name in names} | {"bias": str(self.bias)}
        return f"Problem({', '.join(f'{k}={v!r}' for k, v in given.items() if v is not None)})"


_SHAPES: dict[Any, Params] = {}
"""Shapes of points by all that decides them: tracing them takes as long as a small solve."""


@functools.partial(jax.jit, static_argnums=(3, 4))
def _random_start(
    key: Array, scale: Array, bias_mean: Array, sizes: tuple[int, int, int, tuple[int, ...] | None], dtype: Any
) -> tuple[Array, Array, Array | None]:
    K, d, columns, of_bias = sizes
    # One draw for all: a random program per array would triple the compilation.
    draw = jax.random.normal(key, (K * d + d * columns + K,), dtype)
    W, H, b = jnp.split(draw, [K * d, K * d + d * columns])
    spread = jnp.asarray(scale / d**0.5, dtype)
    bias = None
    if of_bias is not None:
        noise = b[: math.prod(of_bias)].reshape(of_bias)
        bias = jnp.asarray(bias_mean, dtype) + jnp.asarray(0.1 * scale, dtype) * noise
    return spread * W.reshape(K, d), spread * H.reshape(d, columns), bias


def require_single(problem: Problem) -> None:
    """Refuse a batch of problems: leaves with one axis more than a problem's own have.

    >>> import numpy as np
    >>> require_single(Problem(3, 4, 2, decay=Decay(W=np.array([0.1, 0.2]))))
    Traceback (most recent call last):
        ...
    ufm._base.InputError: decay.W.shape = (2,): must be that of one problem; for many at once use ufm.sweep
    """
    ranks: dict[str, tuple[Any, tuple[int, ...]]] = {f"decay.{k}": (v, (0,)) for k, v in vars(problem.decay).items()}
    ranks |= {"weights": (problem.weights, (1,)), "offset": (problem.offset, (0, 1))}
    ranks |= {"per_class": (problem.grouping.sizes(problem.classes), (0, 1))}
    ranks |= {f"model.{k}": (v, (0,)) for k, v in problem.model.hyper.items()}
    ranks["classifier"] = (problem.classifier, (2,))
    if not isinstance(problem.loss, Custom):  # the parameters of a user's own loss may be arrays
        ranks |= {f"loss.{k}": (v, (0,)) for k, v in problem.loss.hyper.items()}
    for name, (value, allowed) in ranks.items():
        fits = value is None or np.ndim(value) in allowed
        require(fits, f"{name}.shape", np.shape(value), "that of one problem; for many at once use ufm.sweep")


# The constructor takes ``per_class``, ``targets`` and ``classifier``; afterwards grouping and model hold them.
Problem.per_class = property(
    lambda self: self.grouping.written if self.labeled else None,
    doc="Samples per class as the constructor takes them; None where there are other targets than labels.",
)
Problem.targets = property(lambda self: None if self.labeled else self.grouping, doc="Targets other than labels.")
Problem.classifier = property(
    lambda self: self.model.W if isinstance(self.model, FixedClassifier) else None, doc="The fixed W (K, d), or None."
)


def NormalizedProblem(problem: Problem, gamma: Any = 8.0) -> Problem:
    """``problem`` on spheres: short for ``dataclasses.replace(problem, model=ufm.models.Spheres(gamma))``.

    >>> import ufm
    >>> NormalizedProblem(ufm.Problem(3, 4, 2), gamma=2.0).model
    Spheres(gamma=2.0)
    """
    require(isinstance(problem, Problem), "problem", type(problem).__name__, "a ufm.Problem")
    require(problem.classifier is None, "problem.classifier", "fixed", "free (None) in a normalized problem")
    return dataclasses.replace(problem, model=Spheres(gamma))

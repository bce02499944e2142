"""Several weight matrices above the features: ``Z = W_1 W_2 ... W_L H + b``, or with a ReLU after each inner product.

The linear one (Dang et al. 2023; the extended model of Tirer & Bruna 2022 is L = 2) lifts to a quasi-norm: over the
factors of X, with M = L + 1 and m_i the multiplicity of column i,

    R(X) = kappa ||X diag(sqrt m)||_{2/M}^{2/M},   kappa = M/2 (decay_W^L decay_H)^{1/M},   widths >= rank X.

That is not convex for L > 1, and R* is infinite. Below an attained value f, with loss and bias that cost at least
``low``, only X with ``R(X) <= f - low`` matter, and ``R(X) >= kappa t^{2/M}``, t the nuclear norm of X diag(sqrt m). So

    <V, X> - R(X) <= max(0, v T - (f - low)),   T = ((f - low)/kappa)^{M/2},   v = ||V diag(1/sqrt m)||_op,

as ``v t - kappa t^{2/M}`` is convex in t. The bound is valid with a ReLU too, which shrinks Frobenius norms, hence
``t <= ||W_1|| ... ||W_L|| ||H diag(sqrt m)||`` there as well. It is tight for L = 1 only.

The ReLU convention is that of Súkeník, Mondelli & Lampert 2023 (deep UFM) and 2024: ``W_1 s(W_2 s(... s(W_L H)))``,
free features H of any sign below, no ReLU after the last product. They count matrices from the features up, we from
the classifier down.

Zero is a strict local minimum for L >= 2: the loss has no part of second order in the factors there, and the decays
have one. A random start is therefore balanced, with logits of size ``scale``, away from where the decays win.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import matmul, operator_norm, pytree, require, require_known, require_whole
from ufm.models._base import Model
from ufm.models._factors import balanced_factors
from ufm.models._params import Params

if TYPE_CHECKING:
    from ufm.problem import Problem

ACTIVATIONS = ("linear", "relu")
NOISE = 0.1
"""Distance of a sample's logits from those of its class in a random start, relative to these."""


@pytree(static=("depth", "activation", "widths"))
@dataclass(frozen=True, init=False)
class Deep(Model):
    """L = ``layers`` weight matrices above the features; a point's ``W`` is a tuple of them, from the classifier down.

    Args:
        layers: L >= 1; 1 is the linear model.
        activation: ``"linear"``, or ``"relu"`` after each inner product (see the module for the convention).
        widths: of the L - 1 middle layers from the classifier down: one number for all, a tuple, or a text such as
            ``"8x4"``; d if not given.

    Attributes:
        depth: L; `Model.layers` is another thing.

    Raises:
        InputError: for layers < 1, an unknown activation, or widths that are not L - 1 whole numbers >= 1.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(3, 4, 2, ufm.losses.MSE(), ufm.Decay(1e-3, 1e-3), bias="none", model=Deep(layers=2))
    >>> solution = ufm.solve(problem)
    >>> [w.shape for w in solution.params.W], bool(ufm.theory.certify(problem, solution.params).gap < 1e-12)
    ([(3, 4), (4, 4)], True)
    """

    depth: int
    activation: str
    widths: tuple[int, ...] | None
    name = "deep"
    kind = "several weight matrices"
    decayed = True

    def __init__(
        self, layers: int = 2, activation: str = "linear", widths: int | str | Sequence[int] | None = None
    ) -> None:
        layers = _whole(layers)
        require_whole("layers", layers, 1)
        require_known("activation", activation, ACTIVATIONS)
        if widths is not None:
            given = widths.split("x") if isinstance(widths, str) else widths
            sizes = [given] * (layers - 1) if isinstance(given, (int, float)) else list(given)
            allowed = f"one number, or layers - 1 = {layers - 1} of them"
            require(len(sizes) == layers - 1 or len(sizes) == 1, "widths", widths, allowed)
            whole: list[int] = [_whole(w) for w in sizes] * ((layers - 1) // len(sizes) if sizes else 1)
            for w in whole:
                require_whole("widths", w, 1)
            widths = tuple(whole)
        for name, value in (("depth", layers), ("activation", activation), ("widths", widths)):
            object.__setattr__(self, name, value)

    @property
    def collapses(self) -> bool:  # type: ignore[override]
        """Whether the best features at fixed matrices are unique per class where the loss is convex."""
        return self.activation == "linear"

    def inner(self, problem: Problem) -> tuple[int, ...]:
        """Widths from the classifier down to the features, d last (L,)."""
        return (*(self.widths or (problem.dim,) * (self.depth - 1)), problem.dim)

    def layers(self, params: Params) -> tuple[Array, Array]:
        """The product of all matrices and H; with a ReLU, the classifier and the last features."""
        if self.activation == "linear":
            return functools.reduce(matmul, params.W), params.H
        return self.head(params)

    def head(self, params: Params) -> tuple[Array, Array]:
        """The classifier W_1 (K, w_1) and the features below it (w_1, columns)."""
        F = params.H
        for W in reversed(params.W[1:]):
            F = matmul(W, F)
            F = jax.nn.relu(F) if self.activation == "relu" else F
        return params.W[0], F

    def penalty(self, problem: Problem, params: Params) -> Array:
        """``decay_W/2 sum ||W_l||^2 + decay_H/2 sum m_i ||h_i||^2``."""
        squares = sum(jnp.sum(W**2) for W in params.W)
        features = problem.weighted_sum(jnp.sum(params.H**2, axis=0))
        return 0.5 * (problem.decay.W * squares + problem.decay.H * features)

    def kappa(self, problem: Problem) -> Any:
        """``M/2 (decay_W^L decay_H)^{1/M}``, the price of a singular value to the power 2/M."""
        M = self.depth + 1.0
        return 0.5 * M * problem.decay.W ** (self.depth / M) * problem.decay.H ** (1.0 / M)

    # Starts ----------------------------------------------------------------------------------

    def start(self, problem: Problem, params: Params, key: Array) -> Params:
        """Balanced factors of random logits, sqrt(d) times those of ``params`` and nearly equal within a class.

        With a ReLU: normal matrices and features instead, all of one norm, with logits of that size.
        """
        first = jnp.searchsorted(problem.labels, problem.labels)
        size = jnp.asarray(problem.dim**0.5, params.H.dtype)

        def alike(x: Array) -> Array:
            shared = jnp.take(x, first, axis=1)
            return shared + jnp.asarray(NOISE, x.dtype) * (x - shared)

        X = size * alike(matmul(params.W, params.H))
        if self.activation == "linear":
            return Params(*balanced_factors(problem, X, self.inner(problem), key), params.b)
        shapes = itertools.pairwise((problem.classes, *self.inner(problem)))
        keys = jax.random.split(key, self.depth)
        W = tuple(jax.random.normal(k, shape, X.dtype) for k, shape in zip(keys, shapes, strict=True))
        found = self.equalized(problem, Params(W, alike(params.H)))
        ratio = jnp.linalg.norm(X) / jnp.maximum(jnp.linalg.norm(matmul(*self.layers(found))), 1e-30)
        factor = ratio ** (1.0 / (self.depth + 1))
        W, H = jax.tree.map(lambda x: factor * x, (found.W, found.H))
        return Params(W, H, params.b)

    def factored(self, problem: Problem, X: Array) -> Params:
        """A point with logits ``X`` (K, columns) and no bias, of the least penalty where all is linear.

        With a ReLU the columns of a class must agree. The features that all layers hand on are the positive and the
        negative parts of ``V'``, where ``X = U S V'``, or one axis per class, whichever are fewer.

        Raises:
            InputError: for layers that are too narrow for these, with a ReLU.
        """
        widths = self.inner(problem)
        if self.activation == "linear":
            return Params(*balanced_factors(problem, X, widths))
        K, labels = problem.classes, problem.labels
        U, s, Vt = np.linalg.svd(np.asarray(X)[:, np.searchsorted(labels, np.arange(K))])
        r = int(np.sum(s > 1e-12 * s[0]))
        split = 2 * r < K
        least = min((2 * r if split else K), K)
        narrow = min((*widths[:-1], 2 * widths[-1] if split else widths[-1]))
        require(narrow >= least, "widths", widths, f"at least {least} for these logits with a ReLU")
        if split:
            top, bottom, H = np.hstack([U[:, :r] * s[:r], -U[:, :r] * s[:r]]), np.vstack([np.eye(r)] * 2), Vt[:r]
            bottom[r:] *= -1.0
        else:
            top, bottom, H = (U * s) @ Vt, np.eye(K), np.eye(K)

        def padded(x: np.ndarray, *shape: int) -> Array:
            return jnp.zeros(shape, X.dtype).at[: x.shape[0], : x.shape[1]].set(x)

        middle = np.eye(least)
        shapes = list(itertools.pairwise((K, *widths)))
        parts = [top if self.depth > 1 else top @ bottom, *[middle] * (self.depth - 2), *[bottom][: self.depth - 1]]
        W = tuple(padded(part, *shape) for part, shape in zip(parts, shapes, strict=True))
        return self.equalized(problem, Params(W, padded(H[:, labels], problem.dim, problem.columns)))

    def equalized(self, problem: Problem, params: Params) -> Params:
        """The same logits with every factor's share of the penalty the same: a ReLU lets positive factors through."""
        decay, dtype = problem.decay, params.H.dtype
        squares = [decay.W * jnp.sum(W**2) for W in params.W]
        squares.append(decay.H * problem.weighted_sum(jnp.sum(params.H**2, axis=0)))
        sizes = jnp.sqrt(jnp.maximum(jnp.stack([jnp.asarray(x, dtype) for x in squares]), 1e-300))
        factors = jnp.exp(jnp.mean(jnp.log(sizes))) / sizes
        W = tuple(f * x for f, x in zip(factors, params.W, strict=False))
        return Params(W, factors[-1] * params.H, params.b)

    def codes(self, problem: Problem) -> tuple[str, ...]:
        """Collapse, to a simplex and to a frame, where the widths hold it."""
        K, widest = problem.classes, min(self.inner(problem))
        return (f"code:{K}", "code:frame") if widest >= K else ()

    # Duality ---------------------------------------------------------------------------------

    def reach(self, problem: Problem, room: Array) -> Array:
        """T: the largest nuclear norm of X diag(sqrt m) with ``R(X) <= room``."""
        return (room / jnp.asarray(self.kappa(problem), room.dtype)) ** (0.5 * (self.depth + 1))

    def room(self, problem: Problem, params: Params) -> Array:
        """What the penalty of a minimizer can be: the objective at ``params`` minus what the loss costs at least."""
        infimum = problem.loss.infimum
        if infimum is None:
            return jnp.full((), jnp.inf, params.H.dtype)
        low = infimum * jnp.sum(jnp.asarray(problem.shares, params.H.dtype))
        # A billionth more, which rounding of this and of `reach` cannot use up.
        return (problem.objective(params) - low) * (1.0 + 1e-9)

    def conjugate(self, problem: Problem, V: Array, params: Params) -> tuple[Array, Array]:
        """The bound of the module, for the minimizer's X alone; infinite where the loss has no known infimum."""
        room = self.room(problem, params)
        top = operator_norm(V / jnp.sqrt(problem.copies(V.dtype))[None, :]) * self.reach(problem, room)
        known = jnp.isfinite(room)
        return jnp.where(known, jnp.maximum(top - jnp.where(known, room, 0.0), 0.0), jnp.inf), room

    @property
    def words(self) -> str:
        return f"{self.depth} weight matrices" + (", ReLU" if self.activation == "relu" else "")

    @property
    def hyper(self) -> dict[str, Any]:
        given = {} if self.widths is None else {"widths": "x".join(map(str, self.widths))}
        return {"layers": self.depth, "activation": self.activation, **given}

    def __repr__(self) -> str:
        given = "" if self.widths is None else f", widths={self.widths}"
        return f"Deep(layers={self.depth}, activation={self.activation!r}{given})"


def _whole(x: Any) -> Any:
    """A number read from text, as a whole one where it is one."""
    try:
        return int(x) if float(x) == int(float(x)) else x
    except (TypeError, ValueError, OverflowError):
        return x

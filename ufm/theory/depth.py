"""Deep linear models in closed form: MSE exactly, collapse and group codes for other losses as candidates.

MSE (Dang et al. 2023; `shrinkage` has the bound): the singular values of the targets, weighted by the roots of the
shares and with the mean taken out as far as the bias does, are shrunk one by one. For balanced counts without bias, x
the scores of the true class over beta, they minimize ``(1 - x)^2/K + kappa n^{1/M} x^{2/M}`` (of the loss without 1/2,
beta = 1). All is zero iff

    n decay_H decay_W^L >= 2^{L+1} (L-1)^{L-1} / (K^{L+1} L^{2L}),

where x jumps to (L-1)/L: for K = 2 and the loss with its 1/2, without 2^{L+1}, Súkeník et al. 2023. A free bias takes
one singular value out and leaves the rest.

Collapse, for any loss that treats classes alike, at class logits ``a (I - J/K) + (c/K) J`` and a bias beta:

    min loss(p, q) + kappa n^{1/M} ((K-1) |a|^{2/M} + |c|^{2/M}) + L_b beta^2/2.

For M > 2 the slope of ``|c|^{2/M}`` at 0 is infinite: the mean sets in by a jump (`shift_onset`).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm import codes
from ufm._base import float64_scope, require, require_whole
from ufm.bias import Bias
from ufm.losses import CE, MSE, Loss
from ufm.problem import Params, Problem
from ufm.theory import group_codes, shrinkage
from ufm.theory.reduction import bias_stiffness


def zero_threshold(classes: int, layers: int) -> float:
    """``n decay_H decay_W^L`` from which on deep linear MSE is zero, balanced, no bias or a free one, target 1.

    >>> round(zero_threshold(10, 1), 12)        # sqrt(n decay_W decay_H) = 2/K
    0.04
    """
    require_whole("classes", classes, 2)
    require_whole("layers", layers, 1)
    L, K = layers, float(classes)
    return float(2.0 ** (L + 1) * float(L - 1) ** (L - 1) / (K ** (L + 1) * float(L) ** (2 * L)))


def strength(problem: Problem) -> float:
    """``(decay_W^L n decay_H)^{1/(L+1)}`` of a balanced deep problem: what codes and thresholds depend on."""
    L = problem.model.depth
    product = L * np.log(float(problem.decay.W)) + np.log(float(problem.decay.H) * float(problem.per_class))  # type: ignore[arg-type]
    return float(np.exp(product / (L + 1)))


def mse_point(problem: Problem) -> tuple[np.ndarray, np.ndarray | None]:
    """Class logits without bias (K, K) and bias (K,) of the minimizer for MSE: no bias, or a free one per class."""
    problem, K = dataclasses.replace(problem, features="per_class"), problem.classes
    share = np.asarray(problem.counts / problem.samples)
    v, free = np.sqrt(share), problem.bias != Bias.NONE
    offset = np.zeros(K) + (0.0 if problem.offset is None else np.asarray(problem.offset, float))
    T = float(problem.loss.beta) * np.eye(K) - offset[:, None]  # type: ignore[attr-defined]
    mean = T @ share if free else np.zeros(K)
    U, s, Vt = np.linalg.svd((T - mean[:, None]) * v)
    with float64_scope():
        c = shrinkage.price(problem, jnp.asarray(share), 1.0)
        x, _, _ = shrinkage.shrunk(jnp.asarray(s**2), c, 2.0 / (problem.model.depth + 1))
    return (U * np.asarray(x)) @ Vt / v, mean if free else None


@dataclass(frozen=True)
class Collapsed:
    """The best point with class logits ``a (I - J/K) + (c/K) J`` and bias beta: a candidate."""

    gap: float
    shift: float
    bias: float
    value: float


def collapse(loss: Loss, classes: int, layers: int, strength: float, stiffness: float = np.inf) -> Collapsed:
    """The best collapsed point of a balanced deep linear problem.

    Args:
        loss: one that treats classes alike.
        classes: K.
        layers: L.
        strength: see `strength`.
        stiffness: L_b, `ufm.theory.bias_stiffness`: 0 for a free bias, infinite without one.

    >>> import ufm
    >>> round(collapse(ufm.losses.CE(), 7, 2, 0.01).value, 10) == round(group_codes.value_of("7", 7, 2, 0.01).value, 10)
    True
    """
    bias = np.isfinite(stiffness)
    with float64_scope():
        signs = [(1.0, 0.0), (0.0, 0.0)] if loss.shift_invariant else [(1, 0), (0, 0), (1, -1), (1, 1), (0, -1), (0, 1)]
        best = None
        for sign in signs:
            v, value = _collapsed(
                loss,
                jnp.asarray(sign, float),
                float(classes),
                2.0 / (layers + 1),
                strength,
                stiffness if bias else 0.0,
                int(classes),
                bool(bias),
            )
            a, c = np.asarray(sign, float) * np.exp(np.asarray(v[:2]))
            found = Collapsed(float(a), float(c), float(v[2]) if bias else 0.0, float(value))
            if best is None or found.value < best.value - 1e-14 * abs(best.value):
                best = found
    assert best is not None
    return best


@functools.partial(jax.jit, static_argnums=(6, 7))
def _collapsed(
    loss: Loss, sign: Array, K: Any, power: Any, strength: Any, stiffness: Any, classes: int, bias: bool
) -> tuple[Array, Array]:
    def cost(v: Array) -> Array:
        a, c = sign * jnp.exp(v[:2])
        of_a, of_c = jnp.abs(sign) * jnp.exp(power * v[:2])  # a power of 0 has no derivative
        beta = v[2] if bias else 0.0
        q = (c - a) / K + beta
        # Amplitudes that a sign of 0 takes out, and a bias that is none, are held where they are.
        held = jnp.sum(jnp.where(sign == 0, v[:2] ** 2, 0.0)) + (0.0 if bias else v[2] ** 2)
        return (
            loss.at(a + q, q, classes) + strength / power * ((K - 1.0) * of_a + of_c) + 0.5 * stiffness * beta**2 + held
        )

    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-2.0, 4.0, 25)] * 2, jnp.linspace(-5.0, 1.0, 13), indexing="ij"), -1)
    points = grid.reshape(-1, 3) * jnp.append(jnp.abs(sign), 1.0 if bias else 0.0)[None, :]
    start = points[jnp.argmin(jax.vmap(cost)(points))]
    v = group_codes.descend(cost, start)
    return v, cost(v)


def shift_onset(loss: Loss, classes: int, layers: int, strength: float, bias: Bias | str = "per_class") -> float:
    """The decay of the bias from which on the best collapsed point is mean-shifted (jumps so, for L >= 2).

    >>> import ufm
    >>> round(shift_onset(ufm.losses.BCE(), 4, 1, 0.02), 4)
    0.0126
    """
    factor = float(Bias(bias).stiffness(1.0, classes))

    def shifted(log: float) -> bool:
        return collapse(loss, classes, layers, strength, factor * float(np.exp(log))).shift != 0.0

    low, high = np.log(1e-7), np.log(10.0)
    require(shifted(high) and not shifted(low), "strength", strength, "one at which the mean sets in")
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if shifted(middle) else (middle, high)
    return float(np.exp(high))


def candidate(problem: Problem) -> tuple[Params, str, float, float, float]:
    """The best point known of a deep problem, its regime in words, a, c and mean bias.

    Raises:
        LookupError: with the reason, where none is known.
    """
    K, model = problem.classes, problem.model
    if model.activation != "linear" and model.depth > 1:
        raise LookupError("no closed form with a ReLU")
    free = problem.bias == Bias.NONE or (problem.bias == Bias.PER_CLASS and float(problem.decay.b) == 0)
    if isinstance(problem.loss, MSE) and problem.weights is None and float(problem.loss.kappa) == 1 and free:
        X, b = mse_point(problem)
        regime = None
    elif not problem.balanced or problem.offset is not None or not problem.loss.symmetric:
        raise LookupError("no closed form but for balanced classes, or MSE with no bias or a free one")
    else:
        found = collapse(problem.loss, K, model.depth, strength(problem), float(bias_stiffness(problem)))
        X = found.gap * (np.eye(K) - 1.0 / K) + found.shift / K
        b, regime = Bias(problem.bias).constant(found.bias, K), None
        if isinstance(problem.loss, CE):
            value, (code,) = group_codes.best_codes(K, model.depth, [strength(problem)])
            # With a bias, parts that differ would move it.
            alike = len(set(code)) == 1 and code[0].kind != "pyramid"
            if value[0] < found.value * (1.0 - 1e-12) and (alike or problem.bias == Bias.NONE):
                X = group_codes.value_of(code, K, model.depth, strength(problem)).logits
                regime = codes.PREFIX + codes.name(code)
    with float64_scope():
        point = model.factored(problem, jnp.asarray(X[:, problem.labels]))
        if float(jnp.max(jnp.abs(problem.scores(point) - X[:, problem.labels]))) > 1e-8 * np.abs(X).max(initial=1e-300):
            raise LookupError(f"no closed form where the widths do not hold rank {np.linalg.matrix_rank(X)}")
        params = Params(point.W, point.H, None if b is None else jnp.asarray(b, float))
    a = float(np.mean(np.diag(X)) - np.sum(X - np.diag(np.diag(X))) / (K * (K - 1.0)))
    c = float(np.sum(X)) / K
    if abs(c) <= 1e-12 * abs(a):
        c = 0.0
    if regime is None:
        plain = "zero" if a == c == 0 else "etf" if c == 0 else "mean-shifted"
        regime = plain if problem.balanced else f"rank {np.linalg.matrix_rank(X)}"
    return params, regime, a, c, 0.0 if b is None else float(np.mean(b))

"""Non-negative features: closed forms, and where a ReLU costs nothing.

**Balanced.** With symmetric class logits ``a M + (c/K) J`` the features cost

    mu sqrt(K (K-1) a^2 + K c^2)  if |c| <= |a|,  features orthogonal: an *orthogonal frame*;
    mu ((K-1) |a| + |c|)          beyond, as without the constraint: there the mean-shifted minimizer of `reduction`
                                  rotates into the orthant, as its Gram matrix ``|a| I + (|c| - |a|)/K J`` is >= 0.

**Any counts, orthogonal features.** Classes then decouple but for the bias: column x_k of the logits costs
``s sqrt(n_k) ||x_k||``, ``s = sqrt(decay_W decay_H)``, and

    min over b, x_k of  sum_k [omega_k loss(x_k + b, k) + s sqrt(n_k) ||x_k||] + beta(b)

is convex; class k is dead (x_k = 0) iff ``omega_k ||grad loss(b, k)|| <= s sqrt(n_k)``. For CE without bias (Dang,
Tran, Nguyen & Ho 2024, as summarised; re-derived) the solution is a formula, `unbiased_ce`. With a bias, features need
not be orthogonal: where an entry of ``V'V`` between two living classes is positive, sharing features costs less.
`ufm.theory.minimizer` therefore certifies each of these points, and calls a point exact only if its certificate closes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from ufm._base import axpy, norm
from ufm.bias import Bias
from ufm.problem import Params, Problem
from ufm.theory.eigenvalues import Spectrum

FRAME, MERGED_MEAN, DECOUPLED, DEAD = "orthogonal frame", "mean-shifted", "orthogonal", "orthogonal, some dead"
PROXIMAL = 2000
"""Proximal steps that tell the dead classes from the living before Newton's method takes over."""
LIVING = 1e-7
"""Norm of a column, relative to the largest, above which its class lives."""


@dataclass(frozen=True)
class Candidate:
    """A point that may be the minimizer.

    Attributes:
        params: W (K, d), H (d, columns) and b.
        value: what the closed form says of the objective there.
        regime: ``"zero"``, ``"orthogonal frame"``, ``"mean-shifted"`` or ``"orthogonal"``, with dead classes named.
        gap: a, logit of the true class minus that of the others; for unequal counts the mean over samples.
        shift: c, weight of the mean mode of balanced logits.
        bias: beta, the mean bias.
    """

    params: Params
    value: float
    regime: str
    gap: float
    shift: float
    bias: float


def unbiased_ce(counts: Any, price: float) -> tuple[np.ndarray, float]:
    """Gaps a_k (K,) and minimum of CE without bias, ``price = sqrt(decay_W decay_H)`` (Dang et al. 2024).

        1 - p_k = N s sqrt((K-1)/(K n_k)),   a_k = log((K-1) p_k/(1 - p_k)),   logits a_k M e_k,
        f* = sum_k (n_k/N) log(1 + (K-1) e^{-a_k}) + s sqrt(n_k (K-1)/K) a_k;

    class k is dead, a_k = 0, iff ``n_k <= N^2 s^2 K/(K-1)``.

    >>> gaps, value = unbiased_ce([100, 10, 1], 0.01)
    >>> gaps.round(3).tolist(), round(value, 6)
    ([2.999, 1.605, 0.0], 0.412231)
    """
    n = np.asarray(counts, float)
    K, N = len(n), n.sum()
    wrong = np.minimum(N * price * np.sqrt((K - 1) / (K * n)), (K - 1) / K)
    gaps = np.log((K - 1) * (1 - wrong) / wrong)
    gaps = np.where(wrong < (K - 1) / K, gaps, 0.0)
    value = np.sum(n / N * np.log1p((K - 1) * np.exp(-gaps)) + price * np.sqrt(n * (K - 1) / K) * gaps)
    return gaps, float(value)


def dead(problem: Problem, b: Any) -> np.ndarray:
    """Whether each class (K,) has no feature at a minimizer with bias ``b`` (K,) and orthogonal features.

    >>> import ufm
    >>> dead(ufm.Problem(3, 4, (100, 10, 1), ufm.losses.CE(), ufm.Decay(0.01, 0.01)), np.zeros(3)).tolist()
    [False, False, True]
    """
    K = problem.classes
    with jax.enable_x64(True):
        z = jnp.broadcast_to(jnp.asarray(b, jnp.float64), (K,))
        slopes = jax.vmap(jax.grad(problem.loss), (None, 0))(z, jnp.arange(K))
        size = np.asarray(jnp.linalg.norm(slopes, axis=1))
    return size * _class_shares(problem) <= float(problem.decay.price) * np.sqrt(problem.counts)


def _class_shares(problem: Problem) -> np.ndarray:
    """Weight of every class in the loss (K,)."""
    shares = problem.counts / problem.samples if problem.weights is None else problem.weights
    return np.asarray(shares, float)


def frame_cost(a: Any, c: Any, classes: int) -> Any:
    """``sqrt(K (K-1) a^2 + K c^2)``: what logits ``a M + (c/K) J`` cost with orthogonal features, in units of mu.

    >>> round(float(frame_cost(1.0, 1.0, 4)), 12)       # where |c| = |a|, what they cost with free ones: K |a|
    4.0
    """
    return jnp.sqrt(classes * (classes - 1) * a**2 + classes * c**2)


def balanced(problem: Problem, free: Any) -> Candidate:
    """The best symmetric point of a balanced problem; ``free`` is the `Reduction` without the constraint."""
    K, dtype = problem.classes, jnp.float64
    mu = float(np.sqrt(problem.per_class) * problem.decay.price)
    gap, shift, beta, value = (float(x) for x in (free.gap, free.shift, free.bias, free.value))
    if abs(shift) >= abs(gap):  # costs nothing; zero is such a point
        return _symmetric(problem, gap, shift, beta, value, "zero" if shift == 0 else MERGED_MEAN)
    stiff = {"per_class": K, "unified": 1, "none": 0}[str(problem.bias)] * float(problem.decay.b)
    has_bias = problem.bias != "none"

    def objective(x: Array) -> Array:
        a, c, b = x[0], x[1], x[2] if has_bias else 0.0
        p, q = a * (K - 1) / K + c / K + b, -a / K + c / K + b
        return problem.loss.at(p, q, K) + mu * frame_cost(a, c, K) + 0.5 * stiff * b**2

    with jax.enable_x64(True):
        start = jnp.asarray([gap, shift if shift else -0.1 * gap, beta][: 2 + has_bias], dtype)
        x = np.asarray(_newton(objective, start))
        found = float(objective(jnp.asarray(x)))
        zero = _zero(problem)
    if zero.value <= found:
        return zero
    b = float(x[2]) if has_bias else 0.0
    return _symmetric(problem, float(x[0]), float(x[1]), b, found, FRAME)


def decoupled(problem: Problem) -> Candidate:
    """The best point with orthogonal features, whatever the counts and the convex loss; see the module.

    Needs as many dimensions as classes live.
    """
    K, s = problem.classes, float(problem.decay.price)
    roots, shares = np.sqrt(problem.counts), _class_shares(problem)
    labels = jnp.arange(K)
    with jax.enable_x64(True):
        offset = 0.0 if problem.offset is None else jnp.asarray(problem.offset, jnp.float64)[..., None]
        weight, price = jnp.asarray(shares), s * jnp.asarray(roots)

        def smooth(x: tuple[Array, Any]) -> Array:
            X, b = x
            logits = X + offset + (0.0 if b is None else b[:, None] if b.ndim else b)
            of_bias = 0.0 if b is None else 0.5 * problem.decay.b * jnp.sum(b**2)
            return jnp.sum(weight * jax.vmap(problem.loss, (1, 0))(logits, labels)) + of_bias

        shape = problem.bias.shape(K)  # type: ignore[attr-defined]
        b0 = None if shape is None else jnp.zeros(shape)
        X, b = _proximal(smooth, (jnp.zeros((K, K)), b0), price)
        lengths = jnp.linalg.norm(X, axis=0)
        alive = lengths > LIVING * jnp.maximum(jnp.max(lengths), 1e-300)
        flat, unravel = ravel_pytree((jnp.where(alive[None, :], X, 0.0), b))

        def objective(v: Array) -> Array:
            X, b = unravel(v)
            X = jnp.where(alive[None, :], X, 0.0)
            norms = jnp.where(alive, jnp.sqrt(jnp.sum(jnp.where(alive[None, :], X, 1.0) ** 2, axis=0)), 0.0)
            return smooth((X, b)) + jnp.sum(price * norms)

        X, b = unravel(_newton(objective, flat))
        value = float(objective(ravel_pytree((X, b))[0]))
        X, alive = np.asarray(jnp.where(alive[None, :], X, 0.0)), np.asarray(alive)
    living = np.flatnonzero(alive)
    # x_k = w h with decay_W |w|^2 = decay_H n_k h^2.
    root = (float(problem.decay.ratio) * roots) ** 0.5
    lengths = np.sqrt(np.linalg.norm(X, axis=0))
    W, H = np.zeros((K, problem.dim)), np.zeros((problem.dim, K))
    W[:, : len(living)] = (X / np.where(alive, lengths, 1.0) * root)[:, living]
    H[np.arange(len(living)), living] = (lengths / root)[living]
    b = None if b is None else np.asarray(b)
    gaps = np.diag(X) - (X.sum(axis=0) - np.diag(X)) / (K - 1)
    regime = "zero" if not len(living) else DECOUPLED if len(living) == K else DEAD
    mean = 0.0 if b is None else float(np.mean(b))
    return Candidate(Params(W, H[:, problem.labels], b), value, regime, float(gaps @ shares), 0.0, mean)


def face_spectrum(problem: Problem, params: Params, reason: str = "") -> Spectrum:
    """Eigenvalues of the Hessian at a collapsed point on its face: W, b and the entries of H that are positive.

    Entries at zero may only rise, and are held. The problem with one feature per class gives all but the deviations
    from class means: ``W_f' C_k W_f omega_k/n_k + decay_H`` on the positive entries f of class k, n_k - 1 times.
    """
    K, counts = problem.classes, problem.counts
    split = problem.features == "per_sample"
    with jax.enable_x64(True):
        short = dataclasses.replace(problem, features="per_class").astype(jnp.float64)
        H = np.asarray(params.H)[:, np.searchsorted(problem.labels, np.arange(K))]
        b = None if params.b is None else jnp.asarray(params.b, jnp.float64)
        point = Params(jnp.asarray(params.W, jnp.float64), jnp.asarray(H, jnp.float64), b)
        flat, unravel = ravel_pytree(point)
        hessian = np.asarray(jax.jit(jax.hessian(lambda v: short.objective(unravel(v))))(flat))
        curved = jax.vmap(jax.hessian(short.loss), (1, 0))(short.logits(point), jnp.arange(K))
        C = np.asarray(curved) * (_class_shares(problem) / counts)[:, None, None]
    inner, W = H > 0, np.asarray(params.W)
    # A mean of n_k equal deviations of norm 1 moves the class feature by 1/sqrt(n_k).
    unit = np.where(inner, 1.0 / np.sqrt(counts) if split else 1.0, 0.0)
    scale = np.concatenate([np.ones(W.size), unit.ravel(), np.ones(flat.size - W.size - H.size)])
    free = scale > 0
    level = (hessian * scale[:, None] * scale[None, :])[np.ix_(free, free)]
    entries = [("class: on the face", float(x), 1) for x in np.linalg.eigvalsh(level)]
    for k in range(K) if split else ():
        f = inner[:, k]
        block = W[:, f].T @ C[k] @ W[:, f] + float(problem.decay.H) * np.eye(int(f.sum()))
        entries += [(f"within class {k}", float(x), int(counts[k]) - 1) for x in np.linalg.eigvalsh(block)]
    used = H[inner.any(axis=1)]
    rank = len(used) if used.size and (used > 0).all() else 0  # elsewhere no rotation keeps the zeros
    return dataclasses.replace(Spectrum.of(entries, rank * (rank - 1) // 2), reason=reason)


def _symmetric(problem: Problem, a: float, c: float, beta: float, value: float, regime: str) -> Candidate:
    """The point with logits ``a M + (c/K) J + beta``: features ``x I + y J``, or orthogonal ones.

    ``H = f_1 M + f_2 J/K`` and ``W = g_1 M + g_2 J/K`` with ``f g = (a, c)``: orthogonal rows for ``f_1 = f_2``.
    """
    K, d = problem.classes, problem.dim
    root = np.sqrt(np.sqrt(problem.per_class) * float(problem.decay.ratio))
    if a == 0 and c == 0:
        W, H = np.zeros((K, d)), np.zeros((d, K))
    else:
        J = np.full((K, K), 1.0 / K)
        M = np.eye(K) - J
        if abs(c) >= abs(a):
            f = np.sqrt(np.abs([a, c]))
            core, head = f[0] * M + f[1] * J, np.sign(a) * f[0] * M + np.sign(c) * f[1] * J
        else:
            f = (a * a * (K - 1) / K + c * c / K) ** 0.25
            core, head = f * np.eye(K), (a * M + c * J) / f
        W, H = np.zeros((K, d)), np.zeros((d, K))
        if np.ptp(core) < 1e-15 * np.max(core):  # one feature for all
            H[0], W[:, 0] = np.sqrt(abs(c) / K), np.sign(c) * np.sqrt(abs(c) / K)
        else:
            W[:, :K], H[:K] = head, np.maximum(core, 0.0)
        W, H = W * root, H / root
    b = Bias(problem.bias).constant(beta, K)
    return Candidate(Params(W, H[:, problem.labels], b), value, regime, a, c, beta)


def _zero(problem: Problem) -> Candidate:
    """W = H = 0 with the best common bias."""
    K = problem.classes
    stiff = {"per_class": K, "unified": 1, "none": 0}[str(problem.bias)] * float(problem.decay.b)
    if problem.bias == "none":
        b = 0.0
    else:
        b = float(_newton(lambda x: problem.loss.at(x[0], x[0], K) + 0.5 * stiff * x[0] ** 2, jnp.zeros(1))[0])
    value = float(problem.loss.at(jnp.asarray(b), jnp.asarray(b), K)) + 0.5 * stiff * b * b
    return _symmetric(problem, 0.0, 0.0, b, value, "zero")


def _newton(objective: Callable[[Array], Array], x: Array, steps: int = 60) -> Array:
    """Newton's method with halving for a convex function of a few variables; flat directions stay where they are."""

    @jax.jit
    def improve(x: Array) -> tuple[Array, Array]:
        g, B = jax.grad(objective)(x), jax.hessian(objective)(x)
        values, axes = jnp.linalg.eigh(B)
        large = jnp.abs(values) > 1e-13 * jnp.max(jnp.abs(values))
        move = -axes @ (jnp.where(large, 1.0 / jnp.where(large, jnp.abs(values), 1.0), 0.0) * (axes.T @ g))
        lengths = 0.5 ** jnp.arange(30, dtype=x.dtype)
        values = jax.vmap(lambda t: objective(x + t * move))(lengths)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        first = objective(x)
        # Inside the rounding of f the whole step is as good as any, and better for the gradient.
        fits = values <= first + 4.0 * jnp.finfo(x.dtype).eps * jnp.abs(first)
        best = jnp.where(fits[0] & (values[0] >= jnp.min(values) - 1e-3 * jnp.abs(first)), 0, jnp.argmin(values))
        t = jnp.where(jnp.any(fits), lengths[best], 0.0)
        return x + t * move, t * jnp.linalg.norm(move)

    for _ in range(steps):
        x, moved = improve(x)
        if float(moved) <= 4e-16 * (1.0 + float(jnp.linalg.norm(x))):
            break
    return x


def _proximal(smooth: Callable[..., Array], x: Any, price: Array) -> Any:
    """Accelerated proximal gradient with restart for ``smooth + sum price_k ||x_k||`` (Beck & Teboulle 2009)."""

    def shrink(X: Array, t: Array) -> Array:
        lengths = jnp.linalg.norm(X, axis=0)
        return X * jnp.maximum(1.0 - t * price / jnp.maximum(lengths, 1e-300), 0.0)[None, :]

    def step(_: Any, carry: Any) -> Any:
        x, y, momentum, t = carry
        value, g = jax.value_and_grad(smooth)(y)

        def forward(t: Array) -> Any:
            X, b = axpy(-t, g, y)
            return shrink(X, t), b

        def too_long(t: Array) -> Array:
            move = axpy(-1.0, y, forward(t))
            pairs = zip(jax.tree.leaves(g), jax.tree.leaves(move), strict=True)
            slope = sum((jnp.sum(a * b) for a, b in pairs), jnp.zeros(()))
            return smooth(forward(t)) > value + slope + 0.5 * norm(move) ** 2 / t + 1e-15 * jnp.abs(value)

        t = jax.lax.while_loop(too_long, lambda t: 0.5 * t, 1.2 * t)
        new = forward(t)
        progress, ahead = axpy(-1.0, x, new), axpy(-1.0, y, new)
        pairs = zip(jax.tree.leaves(ahead), jax.tree.leaves(progress), strict=True)
        uphill = sum((jnp.sum(a * b) for a, b in pairs), jnp.zeros(())) < 0
        momentum = jnp.where(uphill, 1.0, momentum)
        following = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2))
        return new, axpy((momentum - 1.0) / following, progress, new), following, t

    start = (x, x, jnp.ones(()), jnp.ones(()))
    return jax.jit(lambda s: jax.lax.fori_loop(0, PROXIMAL, step, s))(start)[0]

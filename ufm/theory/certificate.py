"""Rigorous lower bounds on the minimum, at any point, converged or not.

Weak duality of the lifted problem. Let ``u_i = s grad loss(z_i)`` at the logits of the point, ``m_i`` the
multiplicity of column i and ``s <= 1`` such that ``||U diag(sqrt m)||_op <= N sqrt(decay_W decay_H)``. Then

    f* >= D = -1/N sum m_i l*(u_i) - ||U m / N||^2 / (2 decay_b),

because ``loss(z) >= <u, z> - l*(u)`` for every z (Fenchel), ``<U/N, X>`` is at most the nuclear norm's
weight, and that weight bounds the decays of W and H from below. The bias term is ``(1'U m/N)^2/(2
decay_b)`` for a unified bias and absent without one. Convexity of the loss is what makes D reach f*, not
what makes it a bound: a focal solution is certified too where its convex envelope touches. For d below
the rank of the lifted solution D is valid but not tight. A critical point with d > K is global iff
``||U diag(sqrt m)||_op <= N sqrt(decay_W decay_H)`` at s = 1 (Zhu et al. 2021, Thm 3.2).

With a fixed classifier the problem over (H, b) is dual to
``-1/N sum m_i l*(u_i) - sum m_i ||W'u_i||^2/(2 decay_H N^2) + decay_W/2 ||W||^2 - (bias term)``, tight for
every W and d.

**Without decay of the bias** U must balance, ``r = U m / N = 0``, which no rounded U does. Mix it with a T that does
not: ``U' = (1 - t) U + t T``, ``T = Q - (1 - t)/t r 1'``, with Q balanced inside the domain by a margin c of each entry
(`rounding.mixture`). ``t = |r|_max / c`` makes U' balanced and feasible, and l* being convex it costs D no more than
``t (D + max l*(T))``, and its norm grows by at most ``t sqrt(5 N)``: U' is shrunk by as much.

**Rounding.** U is whatever numbers were computed: D bounds f* at any U, so that neither they nor the logits need be
right. Allowed for are (model and error factors in `rounding`): that of each conjugate, of U's distance from the domain
(it moves the norm and the resultant), and of each sum. The computed s may exceed the largest by a factor 1 + x. As D is
concave along U, ``D(s) - D(s/(1 + x)) <= x (D(s) - D(0))``, and D(0) is at least the loss's infimum. The error of the
objective is added, so that ``f - f* <= gap + rounding`` as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import in_float64, is_traced, matmul, pytree
from ufm.problem import Params, Problem
from ufm.theory import rounding as errors
from ufm.theory.rounding import depth, gamma, total

POLISH = 8
"""Newton steps on the bias before the dual point is formed."""
TIGHT = 1e-11
"""A relative gap that needs no polished bias."""


@pytree()
@dataclass(frozen=True)
class Certificate:
    """A bound on how far a point is from the global minimum.

    Attributes:
        lower_bound: D, at most the global minimum f*; -inf where nothing is known of the loss.
        gap: objective minus lower_bound.
        value: objective at the point, in float64.
        scale: s, the factor that made the dual point feasible; 1 at a certified minimiser.
        rounding: proved bound on the rounding of this evaluation: ``f* >= lower_bound - rounding``, and the exact
            objective at the point is at most ``f* + gap + rounding``. What it assumes of a user's loss, whose rounding
            nobody knows, `ufm.theory.rounding` says.
    """

    lower_bound: Any
    gap: Any
    value: Any
    scale: Any
    rounding: Any


class Part(NamedTuple):
    """A number and a bound on its error."""

    value: Any
    rounding: Any


class Dual(NamedTuple):
    """A dual point: gradients u (K, columns) at logits of that shape, labels and weights m (columns,)."""

    logits: Array
    u: Array
    labels: Array
    weights: Array


def certify(problem: Problem, params: Params) -> Certificate:
    """Lower bound on the global minimum and gap of ``params``, evaluated in float64.

    Args:
        problem: any problem: balanced or not, any dimension, any bias.
        params: any finite point of its shapes. Under a transformation (jit, vmap) its dtype is kept.

    Bound, gap and value have exact derivatives, forward and reverse, wherever the point is not yet optimal. At a
    minimizer the bound has a kink (s reaches 1, singular values coincide), and one of its slopes is returned.

    >>> import ufm
    >>> problem = ufm.Problem(4, 6, 3, loss=ufm.losses.CE(), decay=ufm.Decay(0.1, 0.1, 0.1))
    >>> ufm.theory.certify(problem, ufm.theory.minimizer(problem).params).gap < 1e-12
    True
    """
    if is_traced(problem, params):
        return _certify(problem, params, polish=True)
    problem.loss.check(problem.classes)
    certificate = _certify_in_float64(problem, params, polish=False)
    gap, value = np.asarray(certificate.gap), np.asarray(certificate.value)  # NumPy: x64 may be off here
    known = np.maximum(gap, np.asarray(certificate.rounding))
    if params.b is not None and not np.all(known <= TIGHT * np.maximum(1.0, np.abs(value))):
        certificate = _certify_in_float64(problem, params, polish=True)
    return jax.tree.map(lambda x: x if x.ndim else float(x), certificate)


def _certify(problem: Problem, params: Params, *, polish: bool) -> Certificate:
    dual = dual_point(problem, problem.logits(params))
    value, point = objective(problem, params, dual), params
    if polish and params.b is not None:
        point = polish_bias(problem, params)
        dual = dual_point(problem, problem.logits(point))
    scale, norm = _feasible_scale(problem, dual)
    conjugate, defect = mean_conjugate(problem, dual, scale)
    regularizer, strength = _regularizer(problem, dual, scale, defect)
    bias, tilt = bias_cost(problem, point.b, dual, scale, defect, -conjugate.value - regularizer.value, strength)
    bound = -conjugate.value - regularizer.value - bias.value

    over, unbalanced = _excess(problem, dual, scale * norm.value, norm.rounding, defect, tilt)
    slope = jnp.abs(bound) - errors.infimum(problem.loss)
    shrunk, moved = (jnp.where(x > 0, x * slope, 0.0) for x in (over, unbalanced))
    rounding = conjugate.rounding + regularizer.rounding + bias.rounding + shrunk
    return certificate(value, bound - moved, scale, rounding)


def certificate(value: Part, bound: Array, scale: Array, rounding: Array) -> Certificate:
    """The parts as a `Certificate`; a bound without a known error is -inf."""
    rounding = jax.lax.stop_gradient(rounding)
    known = jnp.isfinite(bound) & jnp.isfinite(rounding)
    bound = jnp.where(known, bound, -jnp.inf)
    # The sums of three parts and the gap; and a thousandth, as the errors' bounds are rounded themselves.
    sums = 4.0 * errors.unit(bound.dtype) * (jnp.abs(value.value) + jnp.where(known, jnp.abs(bound), 0.0))
    everything = 1.001 * (jnp.where(known, rounding, 0.0) + value.rounding + sums) + errors.UNDERFLOW
    return Certificate(bound, value.value - bound, value.value, scale, everything)


def dual_point(problem: Problem, logits: Array) -> Dual:
    """The gradient of the loss at ``logits`` (K, columns), one array that every part of the bound reads."""
    labels = jnp.asarray(problem.labels)
    weights = jnp.broadcast_to(jnp.asarray(problem.multiplicity, logits.dtype), (problem.columns,))
    u = jax.vmap(jax.grad(problem.loss), (1, 0), 1)(logits, labels)
    return Dual(logits, jax.lax.optimization_barrier(u), labels, weights)


def mean(problem: Problem, weights: Array, terms: Array, known: Array) -> Part:
    """``1/N sum m_i terms_i`` of terms (columns,) that are known to ``known``."""
    lost = gamma(depth(problem.columns) + 3, terms.dtype) * jnp.abs(terms)
    return Part(total(weights * terms) / problem.samples, total(weights * (known + lost)) / problem.samples)


def mean_loss(problem: Problem, params: Params, dual: Dual, units: int = 0) -> Part:
    """The risk at the exact logits of ``params``, whose W and H are known to ``units`` u each; ``dual`` is theirs."""
    values, K, dtype = problem.losses(dual.logits), problem.classes, dual.logits.dtype
    rows, columns = jnp.sum(problem.classifier_of(params) ** 2, axis=1), jnp.sum(params.H**2, axis=0)
    reach = 1.0 + jnp.sqrt(jnp.max(rows) * columns) + (0.0 if params.b is None else jnp.max(jnp.abs(params.b)))
    user = errors.user(problem.loss)
    change = gamma(problem.dim + K + 16 + user + 2 * units, dtype) * reach
    slopes, curvature = errors.sensitivity(problem.loss, dual.u, values)
    known = gamma(K + 8 + user, dtype) * jnp.abs(values) + change * slopes + curvature * K * change**2
    return mean(problem, dual.weights, values, known)


def objective(problem: Problem, params: Params, dual: Dual) -> Part:
    """``problem.objective``, summed by `total`: sums over N d squares in any order would cost N d u."""
    risk, decay, dtype = mean_loss(problem, params, dual), problem.decay, params.H.dtype
    penalty = decay.W * total(jnp.sum(problem.classifier_of(params) ** 2, axis=1))
    penalty += decay.H * total(dual.weights * jnp.sum(params.H**2, axis=0))
    if params.b is not None:
        penalty += decay.b * jnp.sum(params.b**2)
    longest = problem.dim + depth(max(problem.columns, problem.classes)) + problem.classes + 8
    return Part(risk.value + 0.5 * penalty, risk.rounding + gamma(longest, dtype) * penalty)


def mean_conjugate(problem: Problem, dual: Dual, scale: Array) -> tuple[Part, Array]:
    """``1/N sum m_i l*(s u_i)``, and the 1-norm (columns,) by which each ``s u_i`` misses the domain of l*."""
    over_columns = jax.vmap(errors.conjugate, (None, 1, 1, 0, None))
    found = over_columns(problem.loss, dual.logits, dual.u, dual.labels, scale)
    return mean(problem, dual.weights, found.value, found.error), jax.lax.stop_gradient(found.defect)


def _feasible_scale(problem: Problem, dual: Dual) -> tuple[Array, Part]:
    """s, and ``||U diag(sqrt m)||_op`` at s = 1 with its relative error; zero with a fixed classifier."""
    scale = jnp.min(jax.vmap(problem.loss.feasible_scale, (1, 0))(dual.u, dual.labels))
    if problem.classifier is not None:
        return scale, Part(0.0, 0.0)
    norm = Part(*errors.operator_norm(dual.u * jnp.sqrt(dual.weights)[None, :], units=3))
    return jnp.minimum(scale, _allowed(problem, scale.dtype) / norm.value), norm


def _allowed(problem: Problem, dtype: Any) -> Array:
    """``N sqrt(decay_W decay_H)``."""
    return jnp.asarray(problem.decay.price, dtype) * problem.samples


def _regularizer(problem: Problem, dual: Dual, scale: Array, defect: Array) -> tuple[Part, Any]:
    """The conjugate R* of the least decay that scores cost, zero where s made U feasible; and a bound on that of T/N.

    With a fixed classifier it is ``1/N sum m_i ||W'u_i||^2/(2 decay_H N) - decay_W/2 ||W||^2``.
    """
    if problem.classifier is None:
        return Part(0.0, 0.0), 0.0
    dtype, K, d, N = dual.u.dtype, problem.classes, problem.dim, problem.samples
    W, decay = jnp.asarray(problem.classifier, dtype), problem.decay
    rows, v = jnp.sqrt(jnp.sum(W**2, axis=1)), scale * dual.u
    pulled = jnp.sum(matmul(W.T, v) ** 2, axis=0)
    off = gamma(K + d + 6, dtype) * matmul(rows[None, :], jnp.abs(v))[0] + jnp.max(rows) * defect
    known = off * (2.0 * jnp.sqrt(pulled) + off) + gamma(d + 6, dtype) * pulled
    double = 2.0 * decay.H * N
    reach, size = mean(problem, dual.weights, pulled / double, known / double), total(rows**2)
    value, lost = reach.value - 0.5 * decay.W * size, gamma(d + K + 8, dtype) * decay.W * size
    return Part(value, reach.rounding + lost), 5.0 * size / double  # the columns of T are at most sqrt(5) long


def _excess(problem: Problem, dual: Dual, norm: Array, known: Array, defect: Array, tilt: Array) -> tuple[Array, Array]:
    """x, by how much the norm may exceed what is allowed, and what T adds: zero where it certainly does not exceed."""
    if problem.classifier is not None:
        return jnp.zeros_like(tilt), jnp.zeros_like(tilt)
    allowed = _allowed(problem, tilt.dtype)
    moved = jnp.sqrt(total(dual.weights * defect**2)) / allowed
    ratio = norm / allowed
    over = (ratio - 1.0) + ratio * (known + 16.0 * errors.unit(tilt.dtype)) + moved
    rounded = jnp.maximum(over, 0.0)
    return rounded, jnp.maximum(over + tilt * (5.0 * problem.samples) ** 0.5 / allowed, 0.0) - rounded


def bias_cost(
    problem: Problem, b: Array | None, dual: Dual, scale: Array, defect: Array, bound: Array, strength: Any
) -> tuple[Part, Array]:
    """What the bias costs the bound found so far, and the share t of T that balances U where it has no decay.

    ``strength`` bounds the conjugate of the regularizer at T.
    """
    dtype, N = dual.u.dtype, problem.samples
    zero = jnp.zeros((), dtype)
    if b is None:
        return Part(zero, zero), zero
    v = scale * dual.u * dual.weights[None, :]
    resultant = total(v) / N
    off = gamma(depth(problem.columns) + 5, dtype) * jnp.sum(total(jnp.abs(v))) / N + total(dual.weights * defect) / N
    if problem.bias == "unified":
        resultant = jnp.sum(resultant)[None]
        off += gamma(problem.classes, dtype) * jnp.sum(total(jnp.abs(v))) / N

    decay = jnp.asarray(problem.decay.b, dtype)
    decays = decay > 0
    force, double = jnp.sum(resultant**2), 2.0 * jnp.where(decays, decay, 1.0)
    slack = (off * (2.0 * jnp.sqrt(force) + off) + gamma(problem.classes + 6, dtype) * force) / double
    largest = jnp.max(jnp.abs(resultant))
    mixed = errors.mixture(problem.loss)
    if mixed is None:
        undecayed, tilt = _balanced(problem, b, dual, largest, off), zero
    else:
        tilt = (largest + off) / (mixed[0] * float(problem.counts.min()) / N)
        lost = jnp.where(tilt < 0.5, tilt * (jnp.abs(bound) + mixed[1] + strength), jnp.inf)
        undecayed, tilt = Part(lost, zero), jnp.where(decays, 0.0, tilt)
    return Part(jnp.where(decays, force / double, undecayed.value), jnp.where(decays, slack, undecayed.rounding)), tilt


def _balanced(problem: Problem, b: Array, dual: Dual, largest: Array, off: Array) -> Part:
    """The cost without decay for a loss of which no T is known: none if the resultant is within rounding of zero.

    The rest acts on a bias assumed to be no larger than one and the point's own.
    """
    # A logit known to eps |z| leaves its gradient uncertain by the curvature times that.
    slopes = jax.vmap(jax.grad(problem.loss), (1, 0), 1)
    curved = jax.jvp(lambda z: slopes(z, dual.labels), (dual.logits,), (jnp.abs(dual.logits),))[1]
    moved = total(dual.weights * jnp.sum(jnp.abs(curved), axis=0)) / problem.samples
    noise = off + errors.user(problem.loss, problem.classes) * errors.unit(off.dtype) * moved
    return Part(jnp.where(largest <= noise, 0.0, jnp.inf), noise * (1.0 + jnp.max(jnp.abs(b))))


def polish_bias(problem: Problem, params: Params) -> Params:
    """The point with its bias replaced by the minimiser at fixed scores (Newton-CG).

    A dual point may come from any primal one. Without decay it must balance exactly, ``U m = 0``, which
    holds at the minimising bias only; with a small decay the bound gains as much.
    """
    no_bias = Params(params.W, params.H, None)
    scores = problem.logits(no_bias)

    def partial(b: Array) -> Array:
        logits = scores + (b[:, None] if b.ndim else b)
        return problem.risk(logits) + 0.5 * problem.decay.b * jnp.sum(b**2)

    # A shift-invariant loss is flat along 1; stiffness added there leaves the Newton step off it as it is.
    stiff = 1.0 if problem.loss.shift_invariant else 0.0

    def solve(gradient: Callable[[Array], Array], b: Array) -> Array:
        def improve(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            b, size, count, _ = carry
            g, hvp = jax.linearize(gradient, b)
            move, _ = jax.scipy.sparse.linalg.cg(lambda v: hvp(v) + stiff * jnp.mean(v), g, tol=1e-8, maxiter=100)
            trial = b - move
            trial_size = jnp.linalg.norm(jnp.atleast_1d(gradient(trial)))
            better = trial_size < size
            return jnp.where(better, trial, b), jnp.where(better, trial_size, size), count + 1, better

        def unfinished(carry: tuple[Array, Array, Array, Array]) -> Array:
            _, size, count, better = carry
            return better & (count < POLISH) & (size > 0)

        size = jnp.linalg.norm(jnp.atleast_1d(gradient(b)))
        start = (b, size, jnp.zeros((), jnp.int32), jnp.ones((), bool))
        return jax.lax.while_loop(unfinished, improve, start)[0]

    def tangent(hvp: Callable[[Array], Array], y: Array) -> Array:
        basis = jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape)
        matrix = jax.vmap(hvp)(basis).reshape(y.size, y.size) + stiff / y.size
        return jnp.linalg.solve(matrix, y.reshape(-1)).reshape(y.shape)

    # The bias found is a root: its derivative is that of the implicit function, not of the steps that led there.
    b = jax.lax.custom_root(jax.grad(partial), params.b, solve, tangent)
    return Params(params.W, params.H, b)


_certify_in_float64 = in_float64(_certify, static=("polish",))

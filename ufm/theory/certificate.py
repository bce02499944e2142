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

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import in_float64, is_single, is_traced, pytree
from ufm.problem import Params, Problem
from ufm.symmetry import collapsed, means, shared
from ufm.theory import rounding as errors
from ufm.theory.regularizer import Dual, Regularizer, regularizer
from ufm.theory.rounding import Part, depth, gamma, total

POLISH = 8
"""Newton steps on the bias before the dual point is formed."""
TIGHT = 1e-11
"""A relative gap that needs no polished bias."""


@pytree()
@dataclass(frozen=True, repr=False)
class Certificate:
    """A bound on how far a point is from the global minimum.

    Attributes:
        lower_bound: D, at most the global minimum f*; -inf where nothing is known of the loss.
        gap: objective minus lower_bound.
        value: objective at the point, in float64.
        scale: s, the factor that made the dual point feasible; 1 at a certified minimizer.
        rounding: proved bound on the rounding of this evaluation: ``f* >= lower_bound - rounding``, and the exact
            objective at the point is at most ``f* + gap + rounding``. What it assumes of a user's loss, whose rounding
            nobody knows, `ufm.theory.rounding` says.
    """

    lower_bound: Any
    gap: Any
    value: Any
    scale: Any
    rounding: Any

    def __repr__(self) -> str:
        if not is_single(self.gap):
            return f"Certificate(traced or several: gaps of shape {getattr(self.gap, 'shape', None)})"
        value, bound, gap, rounding = (float(x) for x in (self.value, self.lower_bound, self.gap, self.rounding))
        return (
            f"Certificate: value {value:.12g}, at most {gap + rounding:.1e} above the global minimum\n"
            f"  lower bound {bound:.12g}, gap {gap:.1e}, rounding {rounding:.1e}, scale {float(self.scale):.6g}"
        )


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
    problem, params = collapsed(problem, params)
    certificate = _certify_in_float64(problem, params, polish=False)
    gap, value = np.asarray(certificate.gap), np.asarray(certificate.value)  # NumPy: x64 may be off here
    known = np.maximum(gap, np.asarray(certificate.rounding))
    if params.b is not None and not np.all(known <= TIGHT * np.maximum(1.0, np.abs(value))):
        certificate = _certify_in_float64(problem, params, polish=True)
    return jax.tree.map(lambda x: x if x.ndim else float(x), certificate)


def traced_certificate(problem: Problem, params: Params) -> Certificate:
    """What `certify` gives outside of a transformation: the bias is polished only where that can help."""
    plain = _certify(problem, params, polish=False)
    if params.b is None:
        return plain
    tight = plain.gap <= TIGHT * jnp.maximum(1.0, jnp.abs(plain.value))
    return jax.lax.cond(tight, lambda: plain, lambda: _certify(problem, params, polish=True))


def _certify(problem: Problem, params: Params, *, polish: bool) -> Certificate:
    params = problem.model.onto(params)  # norms that are one in float32 are not in float64
    penalty = regularizer(problem)
    dual = dual_point(problem, problem.logits(params))
    value = objective(problem, params, dual, penalty)
    if problem.model.shared_dual and problem.features == "per_sample":
        params = dataclasses.replace(params, H=means(problem, params.H))
        problem = shared(problem)
        penalty = regularizer(problem)
        dual = dual_point(problem, problem.logits(params))
    point = params
    if polish and params.b is not None:
        point = polish_bias(problem, params)
        dual = dual_point(problem, problem.logits(point))
    least = jnp.min(jax.vmap(problem.loss.feasible_scale, (1, 0))(dual.u, dual.targets))
    scale, known = penalty.scale(dual, params, least)
    conjugate, defect = mean_conjugate(problem, dual, scale)
    star, strength = penalty.conjugate(dual, params, scale, defect)
    constant = offset_part(problem, dual, scale, defect)
    found = constant.value - conjugate.value - star.value
    bias, tilt = bias_cost(problem, point.b, dual, scale, defect, found, strength)
    bound = found - bias.value

    over, unbalanced = penalty.excess(dual, scale, known, defect, tilt)
    slope = jnp.abs(bound) - errors.infimum(problem.loss) * total(dual.shares)
    shrunk, moved = (jnp.where(x > 0, x * slope, 0.0) for x in (over, unbalanced))
    rounding = constant.rounding + conjugate.rounding + star.rounding + bias.rounding + shrunk
    bound, known = bound - moved, jnp.isfinite(bound - moved) & jnp.isfinite(rounding)
    floor = penalty.floor(dual)
    if floor is not None:
        better = ~known | (floor.value > bound)
        bound, rounding = jnp.where(better, floor.value, bound), jnp.where(better, floor.rounding, rounding)
    return certificate(value, bound, scale, rounding)


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
    targets = problem.grouping.of(problem.labels)
    u = jax.vmap(jax.grad(problem.loss), (1, 0), 1)(logits, targets)
    return Dual(logits, jax.lax.optimization_barrier(u), targets, jnp.asarray(problem.shares, logits.dtype))


def mean(shares: Array, terms: Array, known: Array) -> Part:
    """``sum omega_i terms_i`` of terms (columns,) that are known to ``known``."""
    lost = gamma(depth(terms.shape[0]) + 5, terms.dtype) * jnp.abs(terms)
    return Part(total(shares * terms), total(shares * (known + lost)))


def mean_loss(problem: Problem, params: Params, dual: Dual, penalty: Regularizer) -> Part:
    """The risk at the exact logits of ``params``; ``dual`` is theirs."""
    values, K, dtype = problem.losses(dual.logits), problem.classes, dual.logits.dtype
    reach = 1.0 + penalty.sizes(params)
    for constant in (params.b, problem.offset):
        reach += 0.0 if constant is None else jnp.max(jnp.abs(jnp.asarray(constant, dtype)))
    user = errors.user(problem.loss)
    change = gamma(penalty.terms + K + 17 + user, dtype) * reach
    slopes, curvature = errors.sensitivity(problem.loss, dual.u, values, dual.targets)
    known = gamma(K + 8 + user, dtype) * jnp.abs(values) + change * slopes + curvature * K * change**2
    return mean(dual.shares, values, known)


def objective(problem: Problem, params: Params, dual: Dual, penalty: Regularizer) -> Part:
    """``problem.objective`` in three parts, each with its error."""
    risk, cost = mean_loss(problem, params, dual, penalty), penalty.penalty(params)
    if params.b is None:
        return Part(risk.value + cost.value, risk.rounding + cost.rounding)
    of_bias = 0.5 * problem.decay.b * jnp.sum(params.b**2)
    lost = gamma(problem.classes + 8, params.b.dtype) * of_bias
    return Part(risk.value + cost.value + of_bias, risk.rounding + cost.rounding + lost)


def offset_part(problem: Problem, dual: Dual, scale: Array, defect: Array) -> Part:
    """``<sum omega_i s u_i, offset>``: loss(x + b + offset) >= <u, x + b> + <u, offset> - l*(u)."""
    dtype = dual.u.dtype
    if problem.offset is None:
        return Part(jnp.zeros((), dtype), jnp.zeros((), dtype))
    offset = jnp.broadcast_to(jnp.asarray(problem.offset, dtype), (problem.classes,))
    along = jnp.sum(scale * dual.u * offset[:, None], axis=0)
    size = jnp.sum(jnp.abs(scale * dual.u * offset[:, None]), axis=0)
    return mean(dual.shares, along, gamma(problem.classes + 3, dtype) * size + jnp.max(jnp.abs(offset)) * defect)


def mean_conjugate(problem: Problem, dual: Dual, scale: Array) -> tuple[Part, Array]:
    """``sum omega_i l*(s u_i)``, and the 1-norm (columns,) by which each ``s u_i`` misses the domain of l*."""
    over_columns = jax.vmap(errors.conjugate, (None, 1, 1, 0, None))
    found = over_columns(problem.loss, dual.logits, dual.u, dual.targets, scale)
    return mean(dual.shares, found.value, found.error), jax.lax.stop_gradient(found.defect)


def bias_cost(
    problem: Problem, b: Array | None, dual: Dual, scale: Array, defect: Array, bound: Array, strength: Any
) -> tuple[Part, Array]:
    """What the bias costs the bound found so far, and the share t of T that balances U where it has no decay.

    ``strength`` bounds the conjugate of the regularizer at T.
    """
    dtype = dual.u.dtype
    zero = jnp.zeros((), dtype)
    if b is None:
        return Part(zero, zero), zero
    v = scale * dual.u * dual.shares[None, :]
    resultant = total(v)
    off = gamma(depth(problem.columns) + 7, dtype) * jnp.sum(total(jnp.abs(v))) + total(dual.shares * defect)
    if problem.bias == "unified":
        resultant = jnp.sum(resultant)[None]
        off += gamma(problem.classes, dtype) * jnp.sum(total(jnp.abs(v)))

    decay = jnp.asarray(problem.decay.b, dtype)
    decays = decay > 0
    force, double = jnp.sum(resultant**2), 2.0 * jnp.where(decays, decay, 1.0)
    slack = (off * (2.0 * jnp.sqrt(force) + off) + gamma(problem.classes + 6, dtype) * force) / double
    largest = jnp.max(jnp.abs(resultant))
    mixed = errors.mixture(problem.loss) if problem.labeled else None
    if mixed is None:
        undecayed, tilt = _balanced(problem, b, dual, largest, off), zero
    else:
        of_class = jax.ops.segment_sum(dual.shares, dual.targets, problem.classes)
        tilt = (largest + off) / (mixed[0] * jnp.min(of_class))
        lost = jnp.where(tilt < 0.5, tilt * (jnp.abs(bound) + mixed[1] * total(of_class) + strength), jnp.inf)
        # A resultant that rounding cannot tell from zero costs no more than rounding.
        nothing = largest <= off
        undecayed = Part(jnp.where(nothing, 0.0, lost), jnp.where(nothing, lost, 0.0))
        tilt = jnp.where(decays, 0.0, tilt)
    return Part(jnp.where(decays, force / double, undecayed.value), jnp.where(decays, slack, undecayed.rounding)), tilt


def _balanced(problem: Problem, b: Array, dual: Dual, largest: Array, off: Array) -> Part:
    """The cost without decay for a loss of which no T is known: none if the resultant is within rounding of zero.

    The rest acts on a bias assumed to be no larger than one and the point's own.
    """
    # A logit known to eps |z| leaves its gradient uncertain by the curvature times that.
    slopes = jax.vmap(jax.grad(problem.loss), (1, 0), 1)
    curved = jax.jvp(lambda z: slopes(z, dual.targets), (dual.logits,), (jnp.abs(dual.logits),))[1]
    moved = total(dual.shares * jnp.sum(jnp.abs(curved), axis=0))
    noise = off + errors.user(problem.loss, problem.classes) * errors.unit(off.dtype) * moved
    return Part(jnp.where(largest <= noise, 0.0, jnp.inf), noise * (1.0 + jnp.max(jnp.abs(b))))


def polish_bias(problem: Problem, params: Params) -> Params:
    """The point with its bias replaced by the minimizer at fixed scores (Newton-CG).

    A dual point may come from any primal one. Without decay it must balance exactly, ``U m = 0``, which
    holds at the minimizing bias only; with a small decay the bound gains as much.
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
certify_normalized = certify
"""The older name for a problem on spheres: one function serves all models."""

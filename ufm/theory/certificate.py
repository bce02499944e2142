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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import in_float64, is_traced, matmul, pytree
from ufm.problem import Params, Problem

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
        rounding: allowance for the rounding of this evaluation: ``f* >= lower_bound - rounding``.
    """

    lower_bound: Any
    gap: Any
    value: Any
    scale: Any
    rounding: Any


def certify(problem: Problem, params: Params) -> Certificate:
    """Lower bound on the global minimum and gap of ``params``, evaluated in float64.

    Args:
        problem: any problem: balanced or not, any dimension, any bias.
        params: any finite point of its shapes. Under a transformation (jit, vmap) its dtype is kept.

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
    value = problem.objective(params)
    point = polish_bias(problem, params) if polish and params.b is not None else params
    bound, scale, rounding = _dual_bound(problem, point, undecayed=polish)
    return Certificate(bound, value - bound, value, scale, rounding + jnp.finfo(value.dtype).eps * jnp.abs(value))


def _dual_bound(problem: Problem, params: Params, *, undecayed: bool) -> tuple[Array, Array, Array]:
    logits = problem.logits(params)
    labels, N = jnp.asarray(problem.labels), problem.samples
    dtype = logits.dtype
    eps = jnp.finfo(dtype).eps
    weights = jnp.broadcast_to(jnp.asarray(problem.multiplicity, dtype), (problem.columns,))
    U = jax.vmap(jax.grad(problem.loss), (1, 0), 1)(logits, labels)

    scale = jnp.min(jax.vmap(problem.loss.feasible_scale, (1, 0))(U, labels))
    fixed_part = jnp.zeros((), dtype)
    if problem.classifier is None:
        allowed = jnp.asarray(problem.decay.price, dtype) * N
        scale = jnp.minimum(scale, allowed / _operator_norm(U * jnp.sqrt(weights)[None, :]))
    else:
        W = jnp.asarray(problem.classifier, dtype)
        reach = jnp.sum(matmul(W.T, scale * U) ** 2, axis=0) / (2.0 * problem.decay.H * N**2)
        fixed_part = 0.5 * problem.decay.W * jnp.sum(W**2) - jnp.sum(weights * reach)

    conjugates = jax.vmap(problem.loss.conjugate_along, (1, 0, None))(logits, labels, scale)
    conjugate = jnp.sum(weights * conjugates) / N
    resultant = matmul(scale * U, weights[:, None])[:, 0] / N
    pairing = jnp.sum(jnp.abs(logits * U), axis=0)
    magnitude = jnp.sum(weights * (jnp.abs(conjugates) + pairing)) / N + jnp.abs(fixed_part)
    bias_part = slack = jnp.zeros((), dtype)
    if params.b is not None:
        bias_part, slack = _bias_part(problem, params.b, logits, U, resultant, undecayed)
    bound = fixed_part - conjugate - bias_part
    finite = jnp.isfinite(bound)
    return (
        jnp.where(finite, bound, -jnp.inf),
        scale,
        jnp.where(finite, eps * _terms(problem) * magnitude + slack, 0.0),
    )


def _bias_part(
    problem: Problem, b: Array, logits: Array, U: Array, resultant: Array, undecayed: bool
) -> tuple[Array, Array]:
    """What the bias costs the bound, and the rounding that it leaves.

    The cost is the square of a resultant that is known to ``noise``. Without decay the resultant must vanish. One of
    rounding size counts as zero (``undecayed``), and acts on a bias of the size of the point's own.
    """
    dtype = logits.dtype
    force = jnp.sum(resultant**2) if problem.bias == "per_class" else jnp.sum(resultant) ** 2
    decay = jnp.asarray(problem.decay.b, dtype)
    double = 2.0 * jnp.where(decay > 0, decay, 1.0)
    cost = jnp.where(decay > 0, force / double, jnp.inf)
    eps = jnp.finfo(dtype).eps
    noise = eps * _terms(problem) * problem.weighted_sum(jnp.sum(jnp.abs(U), axis=0)) / problem.samples
    slack = jnp.where(decay > 0, (noise * (2.0 * jnp.sqrt(force) + noise) + eps * force) / double, 0.0)
    if not undecayed:
        return cost, slack
    # A logit known to eps |z| leaves its gradient uncertain by the curvature times that.
    labels = jnp.asarray(problem.labels)
    _, curved = jax.vmap(lambda z, k: jax.jvp(lambda x: jax.grad(problem.loss)(x, k), (z,), (jnp.abs(z),)), (1, 0), 1)(
        logits, labels
    )
    noise += eps * _terms(problem) * problem.weighted_sum(jnp.sum(jnp.abs(curved), axis=0)) / problem.samples
    balanced = jnp.sqrt(force) <= noise
    return jnp.where(balanced, 0.0, cost), jnp.where(balanced, noise * (1.0 + jnp.max(jnp.abs(b))), slack)


def _terms(problem: Problem) -> float:
    """Units of rounding in sums over classes and columns, and in the operator norm."""
    return 16.0 + float(np.sqrt(problem.classes + problem.columns))


def _operator_norm(A: Array) -> Array:
    """Largest singular value, from the smaller Gram matrix: accurate to rounding for the largest one."""
    rows, columns = A.shape
    gram = matmul(A, A.T) if rows <= columns else matmul(A.T, A)
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], jnp.finfo(A.dtype).tiny))


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

    gradient = jax.grad(partial)

    def improve(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        b, size, count, _ = carry
        g, hvp = jax.linearize(gradient, b)
        # A shift-invariant loss is flat along 1; stiffness added there leaves the Newton step off it as it is.
        stiff = 1.0 if problem.loss.shift_invariant else 0.0
        move, _ = jax.scipy.sparse.linalg.cg(lambda v: hvp(v) + stiff * jnp.mean(v), g, tol=1e-8, maxiter=100)
        trial = b - move
        trial_size = jnp.linalg.norm(jnp.atleast_1d(gradient(trial)))
        better = trial_size < size
        return jnp.where(better, trial, b), jnp.where(better, trial_size, size), count + 1, better

    def unfinished(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, size, count, better = carry
        return better & (count < POLISH) & (size > 0)

    size = jnp.linalg.norm(jnp.atleast_1d(gradient(params.b)))
    start = (params.b, size, jnp.zeros((), jnp.int32), jnp.ones((), bool))
    b, _, _, _ = jax.lax.while_loop(unfinished, improve, start)
    return Params(params.W, params.H, b)


_certify_in_float64 = in_float64(_certify, static=("polish",))

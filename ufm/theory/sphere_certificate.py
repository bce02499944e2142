"""Rigorous lower bounds on the minimum of a normalised problem, at any point.

For unit rows and columns and any positive r (K,) and c (N,) that each sum to one,

    <U, W H> = <R^-1/2 U C^-1/2, R^1/2 W H C^1/2> >= -||R^-1/2 U C^-1/2||_op,

because ``||R^1/2 W||_F = ||H C^1/2||_F = 1``. With ``u_i = grad loss(z_i)`` and Fenchel's inequality

    f* >= -1/N [sum_i m_i l*(u_i) + gamma ||R^-1/2 U C^-1/2||_op] - (bias term of `certificate`).

r and c from the multipliers of the unit norms, ``r_k = -<w_k, grad_k>`` and ``c_i = -<h_i, grad_i>``
normalised, are the optimal ones at a minimiser; uniform ones are tried as well and the better bound kept.
The bound holds for every d, counts and loss with a known conjugate; it is tight where the convex problem
over ``{X : gamma_2(X) <= 1}`` (which unit vectors of R^(K+N) reach) has a solution of rank d.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import in_float64, is_traced, matmul
from ufm.problem import Params
from ufm.spheres import NormalizedProblem
from ufm.theory.certificate import Certificate, polish_bias


def certify_normalized(normalized: NormalizedProblem, params: Params) -> Certificate:
    """Lower bound on the global minimum and gap of ``params`` (unit rows and columns), evaluated in float64.

    >>> import ufm
    >>> normalized = ufm.NormalizedProblem(ufm.Problem(3, 3, 2, loss=ufm.losses.CE()), gamma=2.0)
    >>> U = ufm.geometry.simplex_etf(3, 3)
    >>> point = ufm.Params(U, U.T[:, normalized.problem.labels], 0.0 * U[:, 0])
    >>> abs(ufm.theory.certify_normalized(normalized, point).gap) < 1e-6
    True
    """
    if is_traced(normalized, params):
        return _certify(normalized, params)
    return Certificate(*(float(x) for x in jax.tree.leaves(_certify_in_float64(normalized, params))))


def _certify(normalized: NormalizedProblem, params: Params) -> Certificate:
    problem, N = normalized.problem, normalized.problem.samples
    params = Params(_unit(params.W, 1), _unit(params.H, 0), params.b)  # float32 norms are not one in float64
    value = normalized.objective(params)
    point = normalized.scaled(params)
    if point.b is not None:
        point = polish_bias(problem, point)
    logits, labels = problem.logits(point), jnp.asarray(problem.labels)
    dtype, eps = logits.dtype, jnp.finfo(logits.dtype).eps
    weights = jnp.broadcast_to(jnp.asarray(problem.multiplicity, dtype), (problem.columns,))
    u = jax.vmap(jax.grad(problem.loss), (1, 0), 1)(logits, labels)
    U = u * weights[None, :]

    pull = -U * matmul(params.W, params.H)
    uniform = jnp.full((problem.classes,), 1.0 / problem.classes, dtype), weights / N
    adapted = _shares(jnp.sum(pull, axis=1)), _shares(jnp.sum(pull, axis=0))
    support = jnp.minimum(_support(U, *uniform), _support(U, *adapted))
    conjugates = jax.vmap(problem.loss.conjugate_along, (1, 0, None))(logits, labels, jnp.ones((), dtype))
    bound = -(jnp.sum(weights * conjugates) + normalized.gamma * support) / N
    terms = 16.0 + jnp.sqrt(1.0 * (problem.classes + problem.columns))
    # One for the probabilities, whose complements a conjugate takes.
    size = 1.0 + jnp.sum(weights * (jnp.abs(conjugates) + jnp.sum(jnp.abs(u * logits), axis=0))) / N + jnp.abs(value)
    rounding = eps * terms * (size + normalized.gamma * support / N)

    if point.b is not None:
        resultant = jnp.sum(U, axis=1) / N
        force = resultant if problem.bias == "per_class" else jnp.sum(resultant)
        noise = eps * terms * jnp.sum(jnp.abs(U)) / N
        decay = jnp.asarray(problem.decay.b, dtype)
        # Without decay the force must vanish; one of rounding size acts on a bias of the size of the point's own.
        balanced = jnp.where(jnp.max(jnp.abs(force)) <= noise, 0.0, jnp.inf)
        square, double = jnp.sum(force**2), 2.0 * jnp.where(decay > 0, decay, 1.0)
        bound -= jnp.where(decay > 0, square / double, balanced)
        slack = (noise * (2.0 * jnp.sqrt(square) + noise) + eps * square) / double
        rounding += jnp.where(decay > 0, slack, noise * (1.0 + jnp.max(jnp.abs(point.b))))
    bound = jnp.where(jnp.isfinite(bound), bound, -jnp.inf)
    return Certificate(bound, value - bound, value, jnp.ones((), dtype), rounding)


def _unit(x: Array, axis: int) -> Array:
    return x / jnp.linalg.norm(x, axis=axis, keepdims=True)


def _shares(pull: Array) -> Array:
    """Positive weights that sum to one, along the multipliers where these are positive."""
    kept = jnp.maximum(pull, 1e-6 * jnp.max(jnp.abs(pull)) + jnp.finfo(pull.dtype).tiny)
    return kept / jnp.sum(kept)


def _support(U: Array, r: Array, c: Array) -> Array:
    """``||R^-1/2 U C^-1/2||_op``."""
    A = U / jnp.sqrt(r)[:, None] / jnp.sqrt(c)[None, :]
    return jnp.linalg.norm(A, 2)


_certify_in_float64 = in_float64(_certify)

"""Rigorous lower bounds on the minimum of a normalised problem, at any point.

For unit rows and columns and any positive r (K,) and c (N,) that each sum to one,

    <U, W H> = <R^-1/2 U C^-1/2, R^1/2 W H C^1/2> >= -||R^-1/2 U C^-1/2||_op,

because ``||R^1/2 W||_F = ||H C^1/2||_F = 1``. With ``u_i = grad loss(z_i)`` and Fenchel's inequality

    f* >= -1/N [sum_i m_i l*(u_i) + gamma ||R^-1/2 U C^-1/2||_op] - (bias term of `certificate`).

r and c from the multipliers of the unit norms, ``r_k = -<w_k, grad_k>`` and ``c_i = -<h_i, grad_i>``
normalised, are the optimal ones at a minimiser; uniform ones are tried as well and the better bound kept.
The bound holds for every d, counts and loss with a known conjugate; it is tight where the convex problem
over ``{X : gamma_2(X) <= 1}`` (which unit vectors of R^(K+N) reach) has a solution of rank d.

Rounding is bounded as in `certificate`, whose parts these are but for the norm: that of ``R^-1/2 U C^-1/2`` takes the
distance of U from the domain divided by ``sqrt(r c)``, and the rounding of the shares' sums. Any r and c serve, so
their own rounding does not count. T costs ``gamma 3``, as its columns' 1-norms are at most 3.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import in_float64, is_traced, matmul
from ufm.problem import Params
from ufm.spheres import NormalizedProblem
from ufm.theory import certificate
from ufm.theory.certificate import Certificate, Dual, Part, polish_bias
from ufm.theory.rounding import depth, gamma, operator_norm, total


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
    problem = normalized.problem
    params = Params(_unit(params.W, 1), _unit(params.H, 0), params.b)  # float32 norms are not one in float64
    start = normalized.scaled(params)
    point = start if start.b is None else polish_bias(problem, start)
    value = _objective(normalized, start)
    dual = certificate.dual_point(problem, problem.logits(point))

    one = jnp.ones((), dual.u.dtype)
    conjugate, defect = certificate.mean_conjugate(problem, dual, one)
    support = _support(normalized, params, dual, defect)
    bias, _ = certificate.bias_cost(
        problem, point.b, dual, one, defect, -conjugate.value - support.value, 3.0 * normalized.gamma
    )
    bound = -conjugate.value - support.value - bias.value
    return certificate.certificate(value, bound, one, conjugate.rounding + support.rounding + bias.rounding)


def _objective(normalized: NormalizedProblem, point: Params) -> Part:
    """`NormalizedProblem.objective` with its error, W times gamma and H scaled to unit norms to ``d + 8`` units."""
    problem, dtype = normalized.problem, point.H.dtype
    dual = certificate.dual_point(problem, problem.logits(point))
    risk = certificate.mean_loss(problem, point, dual, units=problem.dim + 8)
    if point.b is None:
        return risk
    cost = 0.5 * problem.decay.b * jnp.sum(point.b**2)
    return Part(risk.value + cost, risk.rounding + gamma(problem.classes + 6, dtype) * cost)


def _support(normalized: NormalizedProblem, params: Params, dual: Dual, defect: Array) -> Part:
    """``gamma/N ||R^-1/2 U C^-1/2||_op``, the least of those for uniform and adapted shares."""
    problem, dtype, K, N = normalized.problem, dual.u.dtype, normalized.problem.classes, normalized.problem.samples
    U = dual.u * dual.weights[None, :]
    pull = -U * matmul(params.W, params.H)
    shares = [
        (jnp.full((K,), 1.0 / K, dtype), dual.weights / N),
        (_shares(total(pull)), _shares(total(pull.T))),
    ]
    # Each a root of two sums that are one to rounding, and gamma/N.
    lost = 0.5 * gamma(depth(K) + depth(problem.columns) + 24, dtype)

    def norm(r: Array, c: Array) -> Array:
        top, known = operator_norm(U / jnp.sqrt(r)[:, None] / jnp.sqrt(c)[None, :], units=8)
        moved = jnp.sqrt(total((dual.weights * defect) ** 2 / c) / jnp.min(r))
        return jnp.stack([top, jax.lax.stop_gradient(top * (known + lost) + moved)])

    r, c = (jnp.stack(side) for side in zip(*shares, strict=True))
    found = jax.vmap(norm)(r, c)  # one program for both
    best = found[jnp.argmin(found[:, 0])] * normalized.gamma / N
    return Part(best[0], best[1])


def _unit(x: Array, axis: int) -> Array:
    return x / jnp.linalg.norm(x, axis=axis, keepdims=True)


def _shares(pull: Array) -> Array:
    """Positive weights that sum to one, along the multipliers where these are positive."""
    kept = jnp.maximum(pull, 1e-6 * jnp.max(jnp.abs(pull)) + jnp.finfo(pull.dtype).tiny)
    return kept / total(kept)


_certify_in_float64 = in_float64(_certify)

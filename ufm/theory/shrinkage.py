"""Deep linear MSE bounded below for any point: its singular values decouple, though the problem is not convex.

With t_i = beta e_{y_i} - offset, shares omega and Omega their sum, the loss is at least g times the squared error,
g = min(kappa, 1), and the best bias takes away all of the mean error but a part theta:

    sum omega_i ||t_i - x_i - b||^2 g + bias cost >= g ||(T - X) diag(sqrt omega) Q||_F^2,
    Q = I - (1 - sqrt theta) v v',   v = sqrt(omega/Omega),   theta = decay_b/(decay_b + 2 g Omega)

(1 without a bias; a unified one costs no less than one per class with ``decay_b/K``). As ``||Q|| <= 1``, the singular
values of ``Y = X diag(sqrt omega) Q`` are at most those of ``X diag(sqrt m)`` over ``r = min sqrt(m_i/omega_i)``. By
von Neumann's trace inequality (``||A - Y||_F^2 >= sum (sigma_j(A) - sigma_j(Y))^2``; Dang et al. 2023 use it so)

    f >= g sum_j psi(nu_j),   psi(nu) = min_x (sqrt(nu) - x)^2 + c x^{2/M},   c = kappa_M r^{2/M}/g,

nu_j the eigenvalues of ``G = sum omega_i t_i t_i' - (1 - theta)/Omega s s'``, ``s = sum omega_i t_i``. It is attained
where kappa = 1, the shares are those of the counts, and there is no bias, a free one per class, or a mean that is dead.

Rounding. psi is concave in nu with slope at most 1, so that errors of eigenvalues pass on undiminished at most. With
h(x) the function minimized: it is concave up to ``x_0 = (c p (1 - p)/2)^{1/(2 - p)}``, p = 2/M, and convex from there
on, where a tangent bounds it; so ``psi >= min(h(0), h(x) - max(h'(x) (x - x_0), -h'(x) (sqrt(nu) - x)))`` for any
``x >= x_0``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import matmul
from ufm.bias import Bias
from ufm.problem import Problem
from ufm.theory.rounding import LIBRARY, Part, depth, gamma, total, unit

STEPS = 60
"""Newton steps to the larger root of h', from the right and monotone."""


def shrunk(nu: Array, c: Any, power: float) -> tuple[Array, Array, Array]:
    """The x >= 0 that minimizes ``h(x) = (sqrt(nu) - x)^2 + c x^power``, h there, and a bound on the error of h.

    Args:
        nu: squares of the singular values, of any shape.
        c: price, >= 0.
        power: in (0, 1].

    >>> x, value, _ = shrunk(jnp.asarray([1.0, 0.01]), 0.2, 2 / 3)
    >>> [f"{float(y):.6f}" for y in (*x, *value)]
    ['0.931744', '0.000000', '0.195451', '0.010000']
    """
    present = nu > 0
    tau = jnp.where(present, jnp.sqrt(jnp.where(present, nu, 1.0)), 0.0)
    c = jnp.asarray(c, tau.dtype)
    turn = (0.5 * c * power * (1.0 - power)) ** (1.0 / (2.0 - power))

    def slope(x: Array) -> Array:
        return 2.0 * (x - tau) + c * power * x ** (power - 1.0)

    def newton(_: Array, x: Array) -> Array:
        bend = 2.0 - c * power * (1.0 - power) * x ** (power - 2.0)
        return jnp.maximum(x - slope(x) / jnp.where(bend > 0, bend, 2.0), turn)

    start = jnp.maximum(tau, jnp.maximum(turn, jnp.finfo(tau.dtype).tiny))
    x = jax.lax.stop_gradient(jax.lax.fori_loop(0, STEPS, newton, start))
    price = c * x**power
    inside = (tau - x) ** 2 + price
    alive = inside < nu
    # A power errs by a few units of its exponent's logarithm: 10 LIBRARY u are granted to each.
    loose = 10.0 * LIBRARY * unit(tau.dtype)
    off = loose * (2.0 * (tau + x) + c * power * x ** (power - 1.0))
    left, right = jnp.maximum(slope(x), 0.0) + off, jnp.maximum(-slope(x), 0.0) + off
    missed = jnp.maximum(left * (x - turn), jnp.maximum(right * (tau - x), 0.0))
    value = jnp.where(alive, inside, jnp.maximum(nu, 0.0))
    # min(h(0), inside - missed) is certain.
    lost = jnp.maximum(value - inside + missed, 0.0) + loose * value
    return jnp.where(alive, x, 0.0), value, jax.lax.stop_gradient(lost)


def gram(problem: Problem, shares: Array) -> tuple[Array, Array, Array]:
    """G (K, K), a bound on the rounding of its norm, and g, as in the module's docstring."""
    dtype, K = shares.dtype, problem.classes
    beta, g = problem.loss.beta, jnp.minimum(problem.loss.kappa, 1.0)  # type: ignore[attr-defined]
    w = jax.ops.segment_sum(shares, jnp.asarray(problem.labels), K)
    whole = total(w)
    offset = jnp.broadcast_to(jnp.asarray(0.0 if problem.offset is None else problem.offset, dtype), (K,))
    # A unified bias is one per class whose decay is spread over the classes.
    decay = problem.decay.b / (K if problem.bias == Bias.UNIFIED else 1)
    gone = 0.0 if problem.bias == Bias.NONE else 2.0 * g * whole / (decay + 2.0 * g * whole)  # 1 - theta
    s, size = beta * w - whole * offset, beta * w + whole * jnp.abs(offset)

    def of(cross: Array, mean: Array, sign: float) -> Array:
        both = beta * (w[:, None] * cross[None, :] + cross[:, None] * w[None, :])
        outer = whole * cross[:, None] * cross[None, :]
        return beta**2 * jnp.diag(w) + sign * both + outer + sign * (gone / whole) * mean[:, None] * mean[None, :]

    longest = depth(problem.columns) + 2 * K + 24
    lost = gamma(longest, dtype) * jnp.linalg.norm(of(jnp.abs(offset), size, 1.0))
    return of(offset, s, -1.0), jax.lax.stop_gradient(lost), g


def price(problem: Problem, shares: Array, g: Any) -> Any:
    """The price c of the module's docstring."""
    m = problem.copies(shares.dtype)
    used = shares > 0
    ratio = jnp.min(jnp.where(used, m / jnp.where(used, shares, 1.0), jnp.inf))
    return problem.model.kappa(problem) * ratio ** (1.0 / (problem.model.depth + 1)) / g


def spectrum(G: Array) -> tuple[Array, Array]:
    """Eigenvalues of a symmetric G, and a bound on the error of each: no eigenvalue routine is trusted.

    With computed pairs V, w and ``b = ||V'V - I|| < 1/4`` the polar factor of V is an orthonormal basis in which G is
    diag(w) up to ``(||G V - V diag(w)|| + 2 b max|w|)/(1 - b)`` (Weyl).
    """
    K, dtype = G.shape[0], G.dtype
    values, V = jnp.linalg.eigh(jax.lax.stop_gradient(G))
    moving = jnp.sum(V * matmul(G, V), axis=0)  # derivatives of simple eigenvalues: those of V are not needed
    few = gamma(2 * K + 8, dtype) * K
    b = jnp.linalg.norm(matmul(V.T, V) - jnp.eye(K, dtype=dtype)) + few
    largest = jnp.linalg.norm(values) + jnp.linalg.norm(jax.lax.stop_gradient(G))
    residual = jnp.linalg.norm(matmul(jax.lax.stop_gradient(G), V) - V * values[None, :]) + few * largest
    off = jnp.where(b < 0.25, (residual + 2.0 * b * largest) / (1.0 - b), jnp.inf)
    return values + (moving - jax.lax.stop_gradient(moving)), off


def floor(problem: Problem, shares: Array) -> Part:
    """The bound of the module's docstring for ``shares`` (columns,), with its error."""
    G, known, g = gram(problem, shares)
    nu, off = spectrum(G)
    _, values, missed = shrunk(nu, price(problem, shares, g), 2.0 / (problem.model.depth + 1))
    lost = jnp.sum(missed + 4.0 * unit(G.dtype) * jnp.abs(values)) + problem.classes * (off + known)
    return Part(g * jnp.sum(values), g * lost)

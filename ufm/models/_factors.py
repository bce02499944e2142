"""Balanced factors: the cheapest way to write given logits as a product of matrices with quadratic decays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import matmul

if TYPE_CHECKING:
    from ufm.problem import Problem


def balanced_factors(
    problem: Problem, X: Array, widths: Sequence[int], key: Array | None = None
) -> tuple[tuple[Array, ...], Array]:
    """Matrices W_1, ..., W_L and H whose product is ``X`` (K, columns), each with the same share of the penalty.

    With ``X diag(sqrt m) = U diag(s) V'`` every factor takes ``diag(s^{1/M})`` between orthonormal frames, M = L + 1,
    scaled so that ``decay_W ||W_l||^2 = decay_H ||H diag(sqrt m)||^2``: by the inequality of arithmetic and geometric
    means the penalty is the least, ``M/2 (decay_W^L decay_H)^{1/M} sum s^{2/M}`` (Dang et al. 2023).

    Args:
        problem: its decays and multiplicities count.
        X: logits without bias.
        widths: inner dimensions from the classifier down, ``(w_1, ..., w_{L-1}, d)``. Where one is below the rank of
            X, the smallest singular values are left out.
        key: of random frames; the axes themselves without one.
    """
    roots = jnp.sqrt(problem.copies(X.dtype))
    U, s, Vt = jnp.linalg.svd(X * roots[None, :], full_matrices=False)
    r, L = min(s.size, *widths), len(widths)
    # The M-th root of a singular value that is zero to rounding is not: 1e-17 would become 2e-6 for M = 3.
    noise = 8.0 * max(X.shape) ** 0.5 * jnp.finfo(X.dtype).eps * s[0]
    U, s, Vt = U[:, :r], jnp.where(s > noise, s, 0.0)[:r], Vt[:r]
    of_W, of_H = (jnp.sqrt(jnp.asarray(decay, X.dtype)) for decay in (problem.decay.W, problem.decay.H))
    share = (s * of_W**L * of_H) ** (1.0 / (L + 1))
    keys = [None] * L if key is None else jax.random.split(key, L)
    frames = [
        jnp.eye(w, r, dtype=X.dtype) if k is None else jnp.linalg.qr(jax.random.normal(k, (w, r), X.dtype))[0]
        for w, k in zip(widths, keys, strict=True)
    ]
    left = [U, *frames[:-1]]
    W = tuple(matmul(a * (share / of_W)[None, :], b.T) for a, b in zip(left, frames, strict=True))
    H = matmul(frames[-1] * (share / of_H)[None, :], Vt / roots[None, :])
    return W, H

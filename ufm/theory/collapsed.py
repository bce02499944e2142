"""The exact Hessian spectrum at any point whose features have collapsed, balanced or not.

Where every feature of class k equals ``h_k``, the Hessian splits into (theory of `spectrum`, without the
permutation symmetry): deviations inside class k, n_k - 1 copies of ``W' C_k W / N + decay_H``; directions
off the span of (W, h), d - rank copies of a 2K x 2K block made of the gradient alone; and the class means in
the span, a dense block of 2 K rank + K rows. The cost depends on neither n nor d.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ufm._base import require
from ufm.problem import Params, Problem
from ufm.theory.eigenvalues import Spectrum


@jax.jit
def _class_level(problem: Problem, point: Params) -> tuple[Any, Any, Any]:
    """Dense Hessian over (W, class means, b), loss gradients (K, K) by column and Hessians (K, K, K)."""
    flat, unravel = ravel_pytree(point)
    hessian = jax.hessian(lambda x: problem.objective(unravel(x)))(flat)
    logits, labels = problem.logits(point), jnp.asarray(problem.labels)
    gradients = jax.vmap(jax.grad(problem.loss), (1, 0), 1)(logits, labels)
    return hessian, gradients, jax.vmap(jax.hessian(problem.loss), (1, 0))(logits, labels)


def collapsed_spectrum(problem: Problem, params: Params, rtol: float = 1e-9) -> Spectrum:
    """Spectrum of the Hessian where each class has one feature, at any such point, critical or not.

    Args:
        problem: any counts, any loss, free classifier.
        params: ``H`` holds the K class features (d, K), whatever ``problem.features``.
        rtol: singular values of (W, h) below this part of the largest count as zero rank.

    >>> import ufm
    >>> problem = ufm.Problem(3, 5, (10**6, 10**6, 10**3), loss=ufm.losses.CE())
    >>> zero = ufm.Params(np.zeros((3, 5)), np.zeros((5, 3)), np.zeros(3))
    >>> collapsed_spectrum(problem, zero).size == 3 * 5 + 5 * problem.samples + 3
    True
    """
    K, d = problem.classes, problem.dim
    free = problem.model.multiplicative and not problem.model.bounded
    require(free, "model", str(problem.model), "linear: a free classifier")
    require(np.shape(params.H) == (d, K), "params.H.shape", np.shape(params.H), f"(dim, classes) = {(d, K)}")
    N, counts = problem.samples, problem.counts.astype(float)
    decay_W, decay_H = float(problem.decay.W), float(problem.decay.H)
    per_sample = problem.features == "per_sample"

    W, H = np.asarray(params.W, float), np.asarray(params.H, float)
    # Balance the two factors first: rank is a matter of directions, not of the decays.
    ratio = np.sqrt(max(float(np.linalg.norm(H)), 1e-300) / max(float(np.linalg.norm(W)), 1e-300))
    _, sizes, basis = np.linalg.svd(np.vstack([W * ratio, H.T / ratio]), full_matrices=False)
    rank = int(np.sum(sizes > rtol * max(sizes[0], 1e-150)))
    basis = basis[:rank].T
    off = d - rank
    with jax.enable_x64(True):
        small = dataclasses.replace(problem, dim=max(rank, 1), features="per_class").astype(jnp.float64)
        padded = basis if rank else np.zeros((d, 1))
        b = None if params.b is None else jnp.asarray(params.b, jnp.float64)
        point = Params(jnp.asarray(W @ padded), jnp.asarray(padded.T @ H), b)
        hessian, G, C = (np.asarray(x) for x in _class_level(small, point))

    # A mean of n_k equal deviations of norm 1 moves the class feature by 1/sqrt(n_k).
    unit = 1.0 / np.sqrt(counts) if per_sample else np.ones(K)
    in_span = hessian * 1.0
    if rank:
        scale = np.concatenate([np.ones(K * rank), np.tile(unit, rank), np.ones(len(hessian) - 2 * K * rank)])
        in_span *= scale[:, None] * scale[None, :]
    else:
        in_span = in_span[2 * K :, 2 * K :]
    entries = [("class: in span", float(x), 1) for x in np.linalg.eigvalsh(in_span)] if in_span.size else []

    coupling = G * (counts * unit / N)[None, :]
    decays = np.diag(decay_H * counts * unit**2)
    off_span = np.block([[decay_W * np.eye(K), coupling], [coupling.T, decays]])
    entries += [("class: off span", float(x), off) for x in np.linalg.eigvalsh(off_span)]
    if per_sample:
        Wb = W @ basis
        for k, n in enumerate(problem.counts.tolist()):
            inner = np.linalg.eigvalsh(Wb.T @ C[k] @ Wb / N + decay_H * np.eye(rank)) if rank else np.zeros(0)
            entries += [(f"within class {k}: in span", float(x), n - 1) for x in inner]
            entries.append((f"within class {k}: off span", decay_H, (n - 1) * off))
    return Spectrum.of(entries, rank * d - rank * (rank + 1) // 2)

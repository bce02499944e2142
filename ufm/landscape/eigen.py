"""Extreme eigenpairs and spectral density of operators with few distinct eigenvalues and large kernels.

Lanczos recurrences break down on such spectra: the Krylov space is exhausted after a few steps and what
follows is rounding. Here the basis is orthogonalized twice, every Ritz value comes from the projected
matrix ``V A V'`` itself and not from recurrence coefficients, a residual that is rounding is never
normalized into the basis, and copies of a repeated eigenvalue are found by deflation: converged vectors
are locked and a fresh random block is started orthogonal to them (Parlett 1998, ch. 6, 13; expansion by
residuals as in Davidson's method). Ritz values then lie inside the spectrum up to rounding, so there is no
false negative curvature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufm._base import require
from ufm.landscape.hvp import Operator


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenpairs.

    Attributes:
        values: ascending for the smallest, descending for the largest (k,).
        vectors: orthonormal rows (k, size), in the dtype of the operator.
        residuals: ``||A v - value v||``: an eigenvalue lies that close to ``value``.
        converged: which pairs met the tolerance.
        clusters: ``(value, copies, resolved)``: equal values together; ``resolved`` says that no further
            copy was found by a fresh random start, else there may be more than ``copies``.
        scale: largest ``|eigenvalue|`` seen.
        products: operator-vector products used.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    clusters: tuple[tuple[float, int, bool], ...]
    scale: float
    products: int

    @property
    def negative(self) -> int:
        """Values that are negative beyond their residual and the rounding of the products."""
        floor = 64 * np.finfo(self.vectors.dtype).eps * self.scale
        return int(np.sum(self.values + self.residuals < -floor))


def orthogonalize(block: np.ndarray, *bases: np.ndarray) -> np.ndarray:
    """Rows of ``block`` made orthogonal to the orthonormal rows of ``bases``, twice."""
    for _ in range(2):
        for basis in bases:
            if len(basis):
                block = block - (block @ basis.T) @ basis
    return block


def _orthonormal(block: np.ndarray, floor: float, *bases: np.ndarray) -> np.ndarray:
    """Orthonormal rows for what ``block`` adds to ``bases``; directions shorter than ``floor`` are dropped."""
    block = orthogonalize(block, *bases)
    gram = block @ block.T
    sizes, mix = np.linalg.eigh(gram)
    keep = sizes > floor**2
    if not keep.any():
        return block[:0]
    # Longest first. Where little is left to add, most of the block is rounding along the same few directions; taken
    # before the true one, it makes that one count as already there, and neither is kept.
    order = np.flatnonzero(keep)[::-1]
    block = (mix[:, order].T @ block) / np.sqrt(sizes[order])[:, None]
    # Squaring in the Gram matrix costs half the digits: a second pass restores them.
    block = orthogonalize(block, *bases)
    q, r = np.linalg.qr(block.T)
    return np.ascontiguousarray(q.T[np.abs(np.diag(r)) > 0.1])


def _in_blocks(operator: Operator, rows: np.ndarray, block: int) -> np.ndarray:
    """Products with ``rows``, always ``block`` at a time: one shape, one compiled program."""
    padded = np.zeros((-(-len(rows) // block) * block, operator.size), rows.dtype)
    padded[: len(rows)] = rows
    return np.concatenate([operator.rows(part) for part in np.split(padded, len(padded) // block)])[: len(rows)]


def extreme_eigenpairs(
    operator: Operator,
    k: int = 6,
    which: str = "smallest",
    *,
    tol: float | None = None,
    block: int | None = None,
    basis: int | None = None,
    max_products: int | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """The ``k`` smallest or largest eigenvalues with vectors, residuals and resolved multiplicities.

    Args:
        operator: symmetric; `Hessian.operator` or `Operator.of_matrix`.
        k: pairs wanted, fewer than the size.
        which: ``"smallest"`` or ``"largest"`` (algebraic).
        tol: residual allowed relative to the largest ``|eigenvalue|``; 1e-9 in float64, 3e-5 in float32.
        block: vectors per product; ``min(k + 2, 8)`` by default.
        basis: rows kept before a restart, ``3 k + 8 block`` by default; memory is twice that many vectors.
        max_products: budget, by default ``200 (k + block)``; pairs that have not converged by then are marked.
        seed: of the random starts.

    >>> import numpy as np
    >>> pairs = extreme_eigenpairs(Operator.of_matrix(np.diag([0.0] * 50 + [2.0, -1.0, -1.0])), k=3)
    >>> [(round(float(v), 6) + 0.0, copies, ok) for v, copies, ok in pairs.clusters]
    [(-1.0, 2, True), (0.0, 1, False)]
    """
    n = operator.size
    require(which in ("smallest", "largest"), "which", which, "smallest or largest")
    require(1 <= k <= n, "k", k, f"between 1 and the size, {n}")
    dtype = np.dtype(operator.dtype)
    eps = float(np.finfo(dtype).eps)
    tol = (1e-9 if dtype == np.float64 else 3e-5) if tol is None else tol
    require(tol >= 16 * eps, "tol", tol, f"at least {16 * eps:.1e} in {dtype.name}")
    p = min(block or min(k + 2, 8), n)
    rows = min(basis or 3 * k + 8 * p, n)
    budget = max_products or 200 * (k + p)
    sign = 1.0 if which == "smallest" else -1.0
    rng = np.random.default_rng(seed)

    def random_block() -> np.ndarray:
        return rng.normal(size=(p, n)).astype(dtype)

    none = np.zeros((0, n), dtype)
    locked, found, errors = none, np.zeros(0), np.zeros(0)
    V, AV, T, new = none, none, np.zeros((0, 0)), random_block()
    scale, used, fresh = 0.0, 0, True
    values, vectors, residuals = np.zeros(0), none, np.zeros(0)
    while True:
        new = _orthonormal(new, 1e-6 if fresh else 10 * eps * max(scale, 1e-300), locked, V)
        fresh = False
        if len(new):
            A_new = sign * _in_blocks(operator, new, p)
            used += len(new)
            scale = max(scale, float(np.max(np.linalg.norm(A_new, axis=1))))
            cross, within = V @ A_new.T, new @ A_new.T
            T = np.block([[T, cross], [cross.T, within]])
            V, AV = np.vstack([V, new]), np.vstack([AV, A_new])
        if not len(V):
            break  # the locked vectors span everything
        values, mix = np.linalg.eigh(0.5 * (T + T.T))
        want = min(p, len(values))
        vectors, images = mix.T[:want] @ V, mix.T[:want] @ AV
        defects = images - values[:want, None] * vectors
        # Against locked vectors the defect is their own error, not this block's.
        defects = orthogonalize(defects, locked)
        residuals = np.linalg.norm(defects, axis=1)
        good = residuals <= tol * max(scale, 1e-300)
        exhausted = not len(new) and not good.all()
        enough = len(found) >= k and good[0]
        if enough and values[0] >= np.sort(found)[k - 1] - 10 * tol * scale:
            break  # a fresh start brought nothing below the k-th
        if good.all() or exhausted or enough:
            take = good if not enough else np.arange(want) == 0
            take = take if not exhausted else np.ones(want, bool)
            locked = np.vstack([locked, _orthonormal(vectors[take], 1e-3, locked)])
            found, errors = np.append(found, values[:want][take]), np.append(errors, residuals[take])
            V, AV, T, new, fresh = none, none, np.zeros((0, 0)), random_block(), True
            if len(locked) >= n:
                break
        else:
            new = defects[~good]
            if len(V) + len(new) > rows:
                keep = min(max(rows - 3 * p, want), len(values))
                V, AV, T = mix.T[:keep] @ V, mix.T[:keep] @ AV, np.diag(values[:keep])
        if used >= budget:
            break
    missing = max(k - len(found), 0)
    extra = values[:missing] if missing and len(V) else np.zeros(0)
    if len(extra):
        locked = np.vstack([locked, vectors[: len(extra)]])
        found, errors = np.append(found, extra), np.append(errors, residuals[: len(extra)])
    # One Rayleigh-Ritz step on all that was found, from fresh products: nothing is taken on trust.
    images = sign * _in_blocks(operator, locked, p)
    T = locked @ images.T
    found, mix = np.linalg.eigh(0.5 * (T + T.T))
    locked, images = mix.T @ locked, mix.T @ images
    errors = np.linalg.norm(images - found[:, None] * locked, axis=1)
    order = np.argsort(found)[:k]
    scale = max(scale, float(np.max(np.abs(found), initial=0.0)))
    beyond = float(values[0]) if len(V) and used < budget else np.inf if used < budget else -np.inf
    remaining = np.append(np.sort(found)[k:], beyond)
    clusters = _clusters(found[order], float(remaining.min()), 100 * tol * scale, sign)
    return Eigenpairs(
        values=sign * found[order] + 0.0,
        vectors=locked[order].astype(dtype, copy=False),
        residuals=errors[order],
        converged=errors[order] <= 2 * tol * max(scale, 1e-300),
        clusters=clusters,
        scale=scale,
        products=used + len(locked),
    )


def _clusters(values: np.ndarray, beyond: float, width: float, sign: float) -> tuple[tuple[float, int, bool], ...]:
    groups: list[list[float]] = []
    for value in values.tolist():
        if groups and value - groups[-1][-1] <= width:
            groups[-1].append(value)
        else:
            groups.append([value])
    return tuple((sign * float(np.mean(g)), len(g), beyond > g[-1] + width) for g in groups)


@dataclass(frozen=True)
class Density:
    """Spectral density from stochastic Lanczos quadrature.

    Attributes:
        nodes: Ritz values (probes, steps); unused entries are NaN.
        weights: share of the spectrum at each node; every row sums to one, unused entries are 0.
        size: rows of the operator.
    """

    nodes: np.ndarray
    weights: np.ndarray
    size: int

    def count(self, low: float, high: float) -> tuple[float, float]:
        """Estimated number of eigenvalues in ``[low, high]`` and its standard error over probes."""
        inside = (self.nodes >= low) & (self.nodes <= high)
        shares = self.size * np.sum(np.where(inside, self.weights, 0.0), axis=1)
        return float(shares.mean()), float(shares.std(ddof=1) / np.sqrt(len(shares))) if len(shares) > 1 else np.inf

    def smooth(self, grid: np.ndarray, width: float) -> np.ndarray:
        """Density (integral 1) on ``grid``, each node a Gaussian of deviation ``width``."""
        nodes, weights = self.nodes[self.weights > 0], self.weights[self.weights > 0] / len(self.nodes)
        bumps = np.exp(-0.5 * ((grid[:, None] - nodes[None, :]) / width) ** 2)
        return bumps @ weights / (width * np.sqrt(2 * np.pi))


def spectral_density(operator: Operator, probes: int = 8, steps: int = 40, seed: int = 0) -> Density:
    """Stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017), orthogonalized twice and stopped at breakdown.

    Args:
        operator: symmetric, of up to millions of rows: memory is ``steps`` vectors.
        probes: random vectors; the error of a count falls as 1/sqrt(probes).
        steps: Lanczos steps a probe. Exact once ``steps`` reaches the number of distinct eigenvalues.
        seed: of the probes.

    >>> import numpy as np
    >>> density = spectral_density(Operator.of_matrix(np.diag([0.0] * 90 + [1.0] * 10)), probes=4)
    >>> int(np.sum(density.weights[0] > 0))       # two distinct eigenvalues: two nodes
    2
    """
    require(probes >= 1, "probes", probes, "at least 1")
    require(steps >= 1, "steps", steps, "at least 1")
    n, rng = operator.size, np.random.default_rng(seed)
    dtype = np.dtype(operator.dtype)
    steps = min(steps, n)
    nodes, weights = np.full((probes, steps), np.nan), np.zeros((probes, steps))
    for i in range(probes):
        V = np.zeros((steps, n), dtype)
        T = np.zeros((steps, steps))
        v = rng.choice(np.array([-1.0, 1.0], dtype), size=n) / np.sqrt(n).astype(dtype)
        for j in range(steps):
            V[j] = v
            w = operator.rows(v[None, :])[0]
            T[j, j] = w @ v
            w = orthogonalize(w[None, :], V[: j + 1])[0]
            beta = float(np.linalg.norm(w))
            scale = np.max(np.abs(T)) if j else abs(T[0, 0]) + beta
            if beta <= np.sqrt(n) * 8 * np.finfo(dtype).eps * scale or j + 1 == steps:
                break  # the Krylov space is invariant: going on would follow rounding
            T[j, j + 1] = T[j + 1, j] = beta
            v = (w / beta).astype(dtype)
        used = j + 1
        values, vectors = np.linalg.eigh(T[:used, :used])
        nodes[i, :used], weights[i, :used] = values, vectors[0] ** 2
    return Density(nodes, weights, n)

"""Deep linear cross-entropy: codes of low rank against collapse, and at which decays one overtakes the other.

Balanced data, no bias, L weight matrices, p = 2/M, M = L + 1. With ``strength`` = (decay_W^L n decay_H)^{1/M} the
objective at class logits X (K, K) is

    (1/K) sum_k CE(x_k, k) + (M/2) strength sum_j sigma_j(X)^p.

Parts of a code (`ufm.codes`) see of each other only that all other logits are zero, so each is minimized by itself:

    simplex of r classes, logits a (I - J/r):
        (r/K) log(1 + (r-1) e^-a + (K-r) e^{-a (r-1)/r}) + kappa (r-1) a^p
    polygon of r classes, logits S cos(2 pi (i-j)/r):
        (r/K) log(sum_j e^{-S (1 - cos 2 pi j/r)} + (K-r) e^-S) + 2 kappa (S r/2)^p
    icosahedron, r = 12, logits S times its corners' cosines 1, +-1/sqrt 5, -1: singular values 4 S, three times
    antiprism of an even number r of classes, logits A cos(2 pi (i-j)/r) + B (-1)^(i-j): rank 3, r = 8 is the first
    that wins (this package: found by random starts):
        (r/K) log(sum_j e^{-A (1 - cos 2 pi j/r) - B (1 - (-1)^j)} + (K-r) e^{-A-B}) + kappa (2 (A r/2)^p + (B r)^p)
    pyramid of r = 2m + 1 classes: m pairs of amplitude a, and the top on an axis u = (-1/(r-1), ..., 1), where its own
    sample has alpha and the others -beta:
        (1/K) log(1 + (r-1) e^{-alpha r/(r-1)} + (K-r) e^-alpha)
        + ((r-1)/K) log(1 + e^-a + (r-3) e^{-a/2} + e^{-a/2 - beta r/(r-1)} + (K-r) e^{-a/2 - beta/(r-1)})
        + kappa (m a^p + sigma^p),   sigma = (r/(r-1) (alpha^2 + (r-1) beta^2))^{1/2}
    a class by itself is dead: (1/K) log K.

That low-rank codes beat collapse is Garrod & Keating 2025 (as summarised: L >= 3 and K >= 4, or L = 2 and K >= 6) and
Súkeník et al. 2024. All values are attained, so each is an upper bound on the minimum; that no other point is lower
is not proven.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import brentq

from ufm import codes
from ufm._base import float64_scope, matmul, require, require_whole
from ufm.codes import Code, Part

NEWTON = 80
WIDEST = 64
"""Most classes of a polygon."""
TURN = 2.0 * np.pi
SAME = 1e-12
"""Relative difference of values up to which they count as the same: Newton's method leaves less."""


def _simplex(v: Array, r: Any, K: Any) -> tuple[Array, Array, Array]:
    """Risk of the part (its samples' share of the mean), singular values and how often each occurs."""
    (a,) = jnp.exp(v)
    risk = (r / K) * jnp.log1p((r - 1.0) * jnp.exp(-a) + (K - r) * jnp.exp(-a * (r - 1.0) / r))
    return risk, a[None], jnp.stack([r - 1.0])


def _polygon(v: Array, r: Any, K: Any) -> tuple[Array, Array, Array]:
    (S,) = jnp.exp(v)
    j = jnp.arange(1.0, WIDEST)
    others = jnp.where(j < r, jnp.exp(-S * (1.0 - jnp.cos(TURN * j / r))), 0.0)
    risk = (r / K) * jnp.log1p(jnp.sum(others) + (K - r) * jnp.exp(-S))
    return risk, (0.5 * S * r)[None], jnp.full((1,), 2.0)


def _icosahedron(v: Array, r: Any, K: Any) -> tuple[Array, Array, Array]:
    (S,), g = jnp.exp(v), 5.0**-0.5
    others = 5.0 * (jnp.exp(-S * (1.0 - g)) + jnp.exp(-S * (1.0 + g))) + jnp.exp(-2.0 * S)
    return (r / K) * jnp.log1p(others + (K - r) * jnp.exp(-S)), (4.0 * S)[None], jnp.full((1,), 3.0)


def _antiprism(v: Array, r: Any, K: Any) -> tuple[Array, Array, Array]:
    A, B = jnp.exp(v)
    j = jnp.arange(1.0, WIDEST)
    others = jnp.exp(-A * (1.0 - jnp.cos(TURN * j / r)) - B * (1.0 - (-1.0) ** j))
    risk = (r / K) * jnp.log1p(jnp.sum(jnp.where(j < r, others, 0.0)) + (K - r) * jnp.exp(-A - B))
    return risk, jnp.stack([0.5 * A * r, B * r]), jnp.array([2.0, 1.0])


def _pyramid(v: Array, r: Any, K: Any) -> tuple[Array, Array, Array]:
    a, alpha, beta = jnp.exp(v)
    top = jnp.log1p((r - 1.0) * jnp.exp(-alpha * r / (r - 1.0)) + (K - r) * jnp.exp(-alpha))
    off = (r - 3.0) + jnp.exp(-beta * r / (r - 1.0)) + (K - r) * jnp.exp(-beta / (r - 1.0))
    base = jnp.log1p(jnp.exp(-a) + jnp.exp(-0.5 * a) * off)
    sigma = jnp.sqrt(r / (r - 1.0) * (alpha**2 + (r - 1.0) * beta**2))
    return (top + (r - 1.0) * base) / K, jnp.stack([a, sigma]), jnp.stack([0.5 * (r - 1.0), 1.0])


RISKS = {
    "simplex": (_simplex, 1),
    "icosahedron": (_icosahedron, 1),
    "polygon": (_polygon, 1),
    "antiprism": (_antiprism, 2),
    "pyramid": (_pyramid, 3),
}
GRIDS = {
    1: np.linspace(-4.0, 6.0, 400)[:, None],
    2: np.stack(np.meshgrid(*[np.linspace(-4.0, 6.0, 80)] * 2, indexing="ij"), -1).reshape(-1, 2),
    3: np.stack(np.meshgrid(*[np.linspace(-3.0, 5.0, 17)] * 3, indexing="ij"), -1).reshape(-1, 3),
}
"""Logarithms of the amplitudes among which Newton's method starts at the best."""


def descend(cost: Callable[[Array], Array], v: Array) -> Array:
    """A minimizer of ``cost`` near ``v`` (1 to 3,): Newton's steps with curvatures made positive, 0.3 long at most."""

    def newton(_: Array, v: Array) -> Array:
        g, h = jax.grad(cost)(v), jax.hessian(cost)(v)
        values, basis = jnp.linalg.eigh(h)
        along = matmul(basis.T, g[:, None])[:, 0] / jnp.maximum(jnp.abs(values), 1e-12)
        move = -matmul(basis, along[:, None])[:, 0]
        move = move * jnp.minimum(1.0, 0.3 / jnp.maximum(jnp.linalg.norm(move), 1e-300))
        here = cost(v)
        return v + jnp.where(cost(v + move) <= here, 1.0, jnp.where(cost(v + 0.1 * move) < here, 0.1, 0.0)) * move

    return jax.lax.fori_loop(0, NEWTON, newton, v)


@functools.partial(jax.jit, static_argnums=0)
def _least(kind: str, r: Any, K: Any, power: Any, strength: Array) -> tuple[Array, Array]:
    """The least cost of a living part for each ``strength`` (n,), and its amplitudes (n, 1 or 3)."""
    risk_of, count = RISKS[kind]

    def cost(v: Array, t: Array) -> Array:
        risk, sizes, often = risk_of(v, r, K)
        return risk + t / power * jnp.sum(often * sizes**power)

    def one(t: Array) -> tuple[Array, Array]:
        grid = jnp.asarray(GRIDS[count])
        v = grid[jnp.argmin(jax.lax.map(lambda v: cost(v, t), grid, batch_size=len(grid)))]

        v = descend(lambda v: cost(v, t), v)
        return cost(v, t), jnp.exp(v)

    return jax.lax.map(one, strength)


def part_cost(
    part: Part, classes: int, layers: int, strength: Any, *, alive: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Least cost of a ``part`` among K ``classes`` at each ``strength`` (...), and its amplitudes (..., 1 or 3).

    Where the part is better dead, that cost, and amplitudes of zero; unless it must be ``alive``.

    >>> cost, amplitude = part_cost(Part("polygon", 6), 6, 2, 0.12)
    >>> round(float(cost), 9), round(float(amplitude[0]), 6) > 0
    (1.76864079, True)
    """
    require(part.kind in RISKS, "code", str(part), f"made of {', '.join(RISKS)}: no cost of others is known for CE")
    t = np.asarray(strength, float)
    dead = part.size * np.log(classes) / classes
    if part.size == 1:
        return np.full(t.shape, dead), np.zeros((*t.shape, 1))
    with float64_scope():
        sizes = float(part.size), float(classes), 2.0 / (layers + 1)
        found = _least(part.kind, *sizes, jnp.asarray(t.ravel()))
    cost, v = (np.asarray(x) for x in found)
    living = (cost < dead) | alive
    cost, v = np.where(living, cost, dead), np.where(living[:, None], v, 0.0)
    return cost.reshape(t.shape), v.reshape(*t.shape, -1)


@dataclass(frozen=True)
class Coded:
    """The best point of a code: an attained value, not proven to be the least.

    Attributes:
        code: the parts.
        value: objective.
        amplitudes: of each part; those of a dead one are zero.
    """

    code: Code
    value: float
    amplitudes: tuple[tuple[float, ...], ...]

    @property
    def name(self) -> str:
        """As `ufm.codes.parse` reads it."""
        return codes.name(self.code)

    @property
    def logits(self) -> np.ndarray:
        """Class logits (K, K)."""
        K = sum(part.size for part in self.code)
        Z, at = np.zeros((K, K)), 0
        for part, v in zip(self.code, self.amplitudes, strict=True):
            block, at = slice(at, at + part.size), at + part.size
            Z[block, block] = sum(x * mode for x, mode in zip(v, part.modes(), strict=True))
        return Z


def _checked(classes: int, layers: int) -> None:
    require_whole("classes", classes, 2)
    require(classes <= WIDEST, "classes", classes, f"at most {WIDEST} here")
    require_whole("layers", layers, 1)


def value_of(code: str | Code, classes: int, layers: int, strength: float) -> Coded:
    """The best point of a ``code`` for balanced deep linear CE without bias.

    Args:
        code: as `ufm.codes.parse` reads it, or its parts.
        classes: K.
        layers: L.
        strength: ``(decay_W^L n decay_H)^{1/(L+1)}``.

    Raises:
        InputError: for parts that do not add up to K.

    >>> [round(value_of(code, 7, 2, 0.01).value, 6) for code in ("7", "2+2+3", "pyramid")]
    [0.302583, 0.284533, 0.283152]
    """
    _checked(classes, layers)
    parts = codes.parse(code, classes) if isinstance(code, str) else code
    found = [part_cost(part, classes, layers, float(strength)) for part in parts]
    return Coded(parts, float(sum(c for c, _ in found)), tuple(tuple(map(float, np.ravel(v))) for _, v in found))


def parts_for(classes: int) -> list[Part]:
    """Every part of up to K classes; polygons from 5 on, as those of 3 and 4 are a simplex and two pairs.

    An antiprism of 4 is a tetrahedron and one of 6 an octahedron at best.
    """
    simplices = [Part("simplex", r) for r in range(1, classes + 1)]
    return [
        *simplices,
        *(Part("polygon", r) for r in range(5, classes + 1)),
        *(Part("icosahedron", 12) for _ in range(classes >= 12)),
        *(Part("antiprism", r) for r in range(6, classes + 1, 2)),
        *(Part("pyramid", r) for r in range(3, classes + 1, 2)),
    ]


def best_codes(classes: int, layers: int, strength: Any) -> tuple[np.ndarray, list[Code]]:
    """The least value of all codes at each ``strength`` (n,), and the code; every sum of parts is compared.

    Codes that agree to rounding count as the simpler one: dead classes first, then simplices.

    >>> values, found = best_codes(7, 2, [0.01, 0.05])
    >>> values.round(10).tolist(), [codes.name(code) for code in found]
    ([0.2831517273, 1.1022638331], ['pyramid7', 'polygon5+2'])
    """
    _checked(classes, layers)
    t = np.atleast_1d(np.asarray(strength, float))
    costs = {part: part_cost(part, classes, layers, t)[0] for part in parts_for(classes)}
    best: list[tuple[Any, list[Code]]] = [(np.zeros(len(t)), [()] * len(t))]
    for k in range(1, classes + 1):
        value, chosen = np.full(len(t), np.inf), list[Code]([()] * len(t))
        for part, cost in costs.items():
            if part.size <= k:
                rest, others = best[k - part.size]
                better = np.flatnonzero(rest + cost < value * (1.0 - SAME))
                value[better] = (rest + cost)[better]
                for i in better:
                    chosen[i] = (*others[i], part)
        best.append((value, chosen))
    return best[-1][0], [_ordered(code) for code in best[-1][1]]


def _ordered(code: Code) -> Code:
    kinds = {kind: i for i, kind in enumerate(("icosahedron", "antiprism", "polygon", "pyramid", "simplex"))}
    return tuple(sorted(code, key=lambda p: (kinds[p.kind], -p.size)))


@dataclass(frozen=True)
class Transition:
    """Where one code overtakes another as the decays grow: at ``strength`` both have ``value``."""

    strength: float
    below: Code
    above: Code
    value: float

    def __str__(self) -> str:
        return f"{codes.name(self.below)} -> {codes.name(self.above)} at {self.strength:.8g}"


def transitions(classes: int, layers: int, least: float = 1e-6, grid: int = 600) -> list[Transition]:
    """Every change of the best code from ``strength`` = ``least`` until all classes are dead, to ten digits or more.

    Args:
        classes: K.
        layers: L >= 2; for L = 1 collapse is optimal until it dies, at strength 1/K.
        least: where to begin.
        grid: strengths at which codes are compared first. Where two neighbors differ, the change is found by Brent's
            method; a third code that is better there is looked for on both sides in turn.

    >>> for change in transitions(3, 2, 1e-3):
    ...     print(change)
    3 -> 2+1 at 0.17348388
    2+1 -> 1+1+1 at 0.19418637
    """
    _checked(classes, layers)
    require_whole("layers", layers, 2)
    t = np.geomspace(least, 1.0, grid)
    _, found = best_codes(classes, layers, t)
    changes: list[Transition] = []

    def living(code: Code, x: float) -> float:
        return sum(float(part_cost(part, classes, layers, x, alive=True)[0]) for part in code)

    def between(x: float, y: float, a: Code, b: Code) -> None:
        if a == b:
            return
        at = float(brentq(lambda s: living(a, s) - living(b, s), x, y, xtol=1e-15, rtol=1e-13))
        (value,), (winner,) = best_codes(classes, layers, [at])
        here = living(a, at)
        if winner in (a, b) or value >= here * (1.0 - 2.0 * SAME):
            changes.append(Transition(at, a, b, here))
        else:
            between(x, at, a, winner)
            between(at, y, winner, b)

    for i in range(grid - 1):
        between(float(t[i]), float(t[i + 1]), found[i], found[i + 1])
    return changes

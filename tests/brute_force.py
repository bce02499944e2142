"""The scalar problem in NumPy, for many problems at once, and a search that knows nothing of regimes.

It imports nothing of `ufm`. A lattice around the best point so far moves to its best node, and shrinks where that is
its center. It also holds each coordinate at 0, where the kinks are: for a convex function with kinks along the axes
this ends at the minimum. Focal loss is not convex, and is scanned.
"""

import functools
import itertools

import numpy as np
from scipy.optimize import minimize_scalar

BIASES = ("per_class", "unified", "none")
VALUE = 1e-14  # relative: some 45 roundings; the largest of 50,000 differences was 2.4e-15
PLACE = 1e-6  # a minimum is flat: values that agree to 1e-15 leave the point known to 3e-8 and the curvature


def softplus(x):
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def phi(name, p, q, K, hyper):
    """The losses at (p, q), from their definitions."""
    if name == "bce":
        return softplus(-p) + (K - 1) * softplus(q)
    if name == "mse":
        return hyper["kappa"] * (p - hyper["beta"]) ** 2 + (K - 1) * q**2
    against = softplus(np.log(K - 1) + q - p)  # minus the logarithm of the true class's probability
    if name == "ce":
        return against
    if name == "ls":
        return against + hyper["alpha"] * (K - 1) / K * (p - q)
    return (-np.expm1(-against)) ** hyper["gamma"] * against


def draws(name, bias, count):
    """Random decays as a user states them; K in 2, 3, 4; mu around every threshold; a bias from free to stiff."""
    rng = np.random.default_rng([BIASES.index(bias), *map(ord, name)])
    K, n = rng.integers(2, 5, count).astype(float), rng.integers(1, 20, count)
    hyper, edge = {}, np.ones(count)  # K mu there is the threshold of the gap
    if name == "ls":
        hyper = {"alpha": rng.uniform(0.0, 0.9, count)}
        edge = 1 - hyper["alpha"]
    elif name == "mse":
        hyper = {"kappa": 10 ** rng.uniform(-1.0, 1.0, count), "beta": 10 ** rng.uniform(-0.5, 1.0, count)}
        edge = 2 * hyper["kappa"] * hyper["beta"]
    elif name == "focal":
        hyper = {"gamma": rng.uniform(0.0, 6.0, count)}
    near = rng.random(count) < 0.5
    mu = edge / K * np.exp(np.where(near, rng.uniform(-1.0, 1.0, count), rng.uniform(-7.0, 1.0, count)))
    W = np.exp(rng.uniform(-8.0, 0.0, count))
    H = mu**2 / (n * W)
    decay_b = np.exp(rng.uniform(-8.0, 5.0, count)) * (rng.random(count) > 0.05)
    stiffness = {"per_class": K * decay_b, "unified": decay_b, "none": np.full(count, np.inf)}[bias]
    return K, np.sqrt(n * W * H), stiffness, hyper


def bias_cost(stiffness, beta):
    return np.where(np.isinf(stiffness), 0.0, stiffness) * beta**2 / 2


def cost(name, K, mu, stiffness, hyper, a, c, beta):
    """``phi(p, q) + mu ((K-1)|a| + |c|) + L beta^2/2``."""
    m = c / K + beta
    modes = mu * ((K - 1) * np.abs(a) + np.abs(c))
    return phi(name, a * (K - 1) / K + m, m - a / K, K, hyper) + modes + bias_cost(stiffness, beta)


def search(objective, scale, feasible=lambda *x: x):
    """Minimum of ``objective(*coordinates)`` and where, over coordinates (count, nodes) of size ``scale`` (dim, count).

    ``feasible`` moves the nodes into the domain. A coordinate of scale 0 stays at 0.
    """
    dim, count = scale.shape
    moves = np.array(list(itertools.product(range(-2, 3), repeat=dim)), float).T[:, None, :]
    center = moves.shape[2] // 2
    best, step = np.zeros((dim, count)), np.full(count, 4.0)
    while np.max(step) > 1e-10:
        nodes = best[:, :, None] + (step * scale)[:, :, None] * moves
        held = [np.where(np.array(zero)[:, None, None], 0.0, nodes) for zero in itertools.product((0, 1), repeat=dim)]
        nodes = np.stack(feasible(*np.concatenate(held, axis=2)))
        values = objective(*nodes)
        pick = np.argmin(values, axis=1)[:, None]
        better = np.take_along_axis(values, pick, 1)[:, 0] < values[:, center]
        there = np.take_along_axis(nodes, np.broadcast_to(pick, (dim, count, 1)), 2)[:, :, 0]
        best, step = np.where(better, there, best), np.where(better, step, 0.5 * step)
    return objective(*best[:, :, None])[:, 0], best


def brute(name, K, mu, stiffness, hyper):
    """Least cost (count,) and (a, c, beta) (3, count)."""
    shared = {k: v[:, None] for k, v in hyper.items()}
    if name != "focal":
        # c acts through c/K: one lattice for all logits.
        scale = np.stack([np.ones_like(K), K, np.where(np.isinf(stiffness), 0.0, 1.0)])
        return search(functools.partial(cost, name, K[:, None], mu[:, None], stiffness[:, None], shared), scale)
    # No shift of all logits counts, so that any costs: only the gap is left, and may have several minima.
    grid = np.linspace(-20.0, 60.0, 4001)
    values = cost(name, K[:, None], mu[:, None], np.inf, shared, grid, 0.0, 0.0)
    least = []
    for i, row in enumerate(values):
        at = functools.partial(cost, name, K[i], mu[i], np.inf, {k: v[i] for k, v in hyper.items()}, c=0.0, beta=0.0)
        inner = np.flatnonzero((row[1:-1] <= row[:-2]) & (row[1:-1] <= row[2:])) + 1
        pieces = [
            pair for j in inner for pair in ((grid[j - 1], grid[j]), (grid[j], grid[j + 1]))
        ]  # 0, a kink, is a node
        found = [minimize_scalar(at, bounds=b, method="bounded", options={"xatol": 1e-11}) for b in pieces]
        ends = [(float(at(0.0)), 0.0), *((float(end.fun), float(end.x)) for end in found)]
        least.append(min(ends))
    value, gap = np.array(least).T
    return value, np.stack([gap, 0 * gap, 0 * gap])


def assert_minimum(found, at, value, place, decided):
    """The value at the point ``at`` of a formula is that of the search; and so is the point, where one is."""
    difference = (found - value) / np.maximum(np.abs(value), 1e-300)
    worst = np.argmax(np.abs(difference))
    assert abs(difference[worst]) < VALUE, (worst, difference[worst], at[:, worst], place[:, worst])
    distance = np.where(decided, np.max(np.abs(at - place) / (1 + np.abs(place)), axis=0), 0.0)
    assert np.max(distance) < PLACE, (np.argmax(distance), at[:, np.argmax(distance)], place[:, np.argmax(distance)])
    return float(np.max(np.abs(difference))), float(np.max(distance))

"""Independent references, written from the definitions: mpmath for losses, plain NumPy for the objective.

Nothing here imports `ufm`: a loss is named by its command-line name and a dict of hyper-parameters.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np

mp.mp.dps = 50


def _softplus(x):
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def _sigmoid(x):
    return 1 / (1 + mp.exp(-x)) if x > 0 else mp.exp(x) / (1 + mp.exp(x))


def loss_and_gradient(name, hyper, z, k):
    """Value and gradient (K,) of a loss at 50 digits, from the probabilities rather than from any log-odds."""
    z = [x if isinstance(x, mp.mpf) else mp.mpf(float(x)) for x in z]
    K = len(z)
    others = [j for j in range(K) if j != k]
    if name == "bce":
        value = _softplus(-z[k]) + mp.fsum(_softplus(z[j]) for j in others)
        return value, [-_sigmoid(-z[j]) if j == k else _sigmoid(z[j]) for j in range(K)]
    if name == "mse":
        kappa, beta = mp.mpf(float(hyper["kappa"])), mp.mpf(float(hyper["beta"]))
        value = kappa * (z[k] - beta) ** 2 + mp.fsum(z[j] ** 2 for j in others)
        return value, [2 * kappa * (z[k] - beta) if j == k else 2 * z[j] for j in range(K)]

    odds = mp.fsum(mp.exp(z[j] - z[k]) for j in others)  # (1 - p)/p
    nll = mp.log1p(odds)
    p = 1 / (1 + odds)
    wrong = odds / (1 + odds)
    probability = [p if j == k else mp.exp(z[j] - z[k]) / (1 + odds) for j in range(K)]
    # d nll / dz = prob - e_k, its true entry written without cancellation.
    slope = [-wrong if j == k else probability[j] for j in range(K)]
    if name == "ce":
        return nll, slope
    if name == "ls":
        alpha = mp.mpf(float(hyper["alpha"]))
        target = [(1 - alpha) * (j == k) + alpha / K for j in range(K)]
        value = nll + mp.fsum(target[j] * (z[k] - z[j]) for j in range(K))
        return value, [slope[j] + alpha * ((j == k) - mp.mpf(1) / K) for j in range(K)]
    assert name == "focal"
    gamma = mp.mpf(float(hyper["gamma"]))
    # (1-p)^gamma nll; d/dnll: p = e^-nll, dp/dnll = -p.
    factor = wrong**gamma + gamma * wrong ** (gamma - 1) * p * nll
    return wrong**gamma * nll, [factor * s for s in slope]


def loss(name, hyper, z, k):
    """The loss in plain float64, vectorized over nothing; for SciPy and the objective below."""
    z = np.asarray(z, float)
    others = np.delete(z, k)
    if name == "bce":
        return np.logaddexp(0, -z[k]) + np.logaddexp(0, others).sum()
    if name == "mse":
        return hyper["kappa"] * (z[k] - hyper["beta"]) ** 2 + (others**2).sum()
    nll = np.logaddexp.reduce(z) - z[k]
    if name == "ce":
        return nll
    if name == "ls":
        target = np.full(z.size, hyper["alpha"] / z.size)
        target[k] += 1 - hyper["alpha"]
        return np.logaddexp.reduce(z) - target @ z
    assert name == "focal"
    return (-np.expm1(-nll)) ** hyper["gamma"] * nll


def objective(name, hyper, counts, decays, W, H, b):
    """The definition: mean loss over samples plus decays, one sample at a time."""
    labels = np.repeat(np.arange(len(counts)), counts)
    Z = W @ H + (0.0 if b is None else np.broadcast_to(b, (len(counts),))[:, None])
    risk = sum(loss(name, hyper, Z[:, i], k) for i, k in enumerate(labels)) / len(labels)
    penalty = decays[0] * (W**2).sum() + decays[1] * (H**2).sum()
    if b is not None:
        penalty += decays[2] * (np.asarray(b) ** 2).sum()
    return risk + penalty / 2

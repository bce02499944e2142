"""Fang, He, Long & Su 2021, "Exploring deep neural networks via layer-peeled model": minority collapse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from ufm.atlas._claims import balanced_factors, random_for, weight, yes
from ufm.atlas._core import Evidence, Quantity, Theorem, Undecided, quantity
from ufm.atlas._draw import Family, Shape
from ufm.atlas.hypotheses import Hypothesis, away_from, no_bias
from ufm.atlas.papers.hong2024 import IMBALANCED, MERGED
from ufm.losses import CE
from ufm.problem import Problem

COUNTS: tuple[Shape, ...] = ((4, 5, (6, 6, 2, 2)), (5, 6, (9, 9, 1, 1, 1)))
SMALL = 1e-3
"""Norm below which everything has collapsed to zero and no bound is left to solve within."""
DIRECT = 1e-4
"""Distance of rows that counts as none after a quasi-Newton solve."""


def layer_peeled(problem: Problem) -> Problem:
    """The layer-peeled model in its Lagrangian form: one feature per class, which counts ``n_k/N``, no bias.

    The paper bounds ``sum ||w_k||^2/K <= E_W`` and ``sum ||h_k||^2/K <= E_H``. A minimizer of the Lagrangian
    minimizes that problem, too, with its own norms as the bounds: lower loss within them would lower the
    Lagrangian. `least_loss_within` solves the bounded problem itself.
    """
    shares = problem.counts / problem.samples
    return Problem(problem.classes, problem.dim, 1, CE(), problem.decay, "none", weights=shares)


def merging_ratio(problem: Problem) -> float:
    """``n_B/N`` over ``sqrt(decay_W decay_H)``, n_B the smallest count: minority classes merge up to 1."""
    return float(problem.counts.min()) / problem.samples / weight(problem)


def least_loss_within(
    problem: Problem, norm_W: float, norm_H: float, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """Least ``1/N sum_k n_k CE(W h_k, k)`` over ``||W||_F <= norm_W``, ``||H||_F <= norm_H``, and W there.

    By SciPy on both spheres: at a minimum ``<W, grad_W> = <H, grad_H>``, so with a slack bound both gradients would
    vanish, which CE has only at saddles.
    """
    K, d, share = problem.classes, problem.dim, problem.counts / problem.samples

    def on_sphere(v: np.ndarray, size: float) -> np.ndarray:
        return size * v / np.linalg.norm(v)

    def pull_back(g: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
        unit = v / np.linalg.norm(v)
        return size / np.linalg.norm(v) * (g - np.sum(g * unit) * unit)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        V, U = x[: K * d].reshape(K, d), x[K * d :].reshape(d, K)
        W, H = on_sphere(V, norm_W), on_sphere(U, norm_H)
        Z = W @ H
        total = np.logaddexp.reduce(Z, axis=0)
        G = (np.exp(Z - total) - np.eye(K)) * share
        slopes = pull_back(G @ H.T, V, norm_W), pull_back(W.T @ G, U, norm_H)
        return float(share @ (total - np.diag(Z))), np.concatenate([g.ravel() for g in slopes])

    end = minimize(loss, rng.normal(size=2 * K * d), jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 5000})
    if not np.linalg.norm(end.jac) <= DIRECT**2:
        raise Undecided(f"the solve within the norms stopped at a gradient of {np.linalg.norm(end.jac):.1e}")
    return float(end.fun), on_sphere(end.x[: K * d].reshape(K, d), norm_W)


def _spread(problem: Problem, W: np.ndarray) -> float:
    """Distance of the minority's rows, relative to the largest row."""
    rows = W[problem.counts == problem.counts.min()]
    return float(np.linalg.norm(rows - rows[0], axis=1).max() / max(np.linalg.norm(W, axis=1).max(), 1.0))


def _minority(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    model = layer_peeled(problem)
    peeled = Evidence(model, evidence.seed).certified("the layer-peeled model")
    x = peeled.critical.params
    factors = balanced_factors(model, x)
    norms = [float(np.linalg.norm(a)) for a in factors]
    merged = merging_ratio(problem) <= 1
    quantities = [
        yes("minority classes share one w", merged, _spread(problem, factors[0]) < MERGED),
    ]
    if min(norms) > SMALL:
        found, W = least_loss_within(problem, norms[0], norms[1], random_for(problem, evidence.seed))
        quantities += [
            quantity("least loss within the norms", float(model.risk(model.logits(x))), found, 1e-8),
            yes("minority classes share one w within the norms", merged, _spread(problem, W) < DIRECT),
        ]
    return quantities


minority = Hypothesis(
    "two or more smallest classes",
    lambda p: int(np.sum(p.counts == p.counts.min())) > 1,
    lambda p: f"n = {p.per_class}",
)
MINORITY = Theorem(
    id="fang2021/minority",
    source="Fang et al. 2021, minority collapse; exact threshold: this package",
    statement="Norm-constrained: minority classifiers become identical at a finite ratio, set by the multiplier.",
    formula="w_i = w_j for minority i, j iff n_B/N <= Lambda, Lambda = sqrt(decay_W decay_H) the price of the norms",
    hypotheses=IMBALANCED & no_bias & minority & away_from("the threshold", lambda p: merging_ratio(p)),
    claim=_minority,
    minimum=False,
    draw=Family(lambda rng: CE(), COUNTS, ("none",), strength=(0.05, 3.0)),
)

THEOREMS = (MINORITY,)

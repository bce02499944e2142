"""Claims that several theorems share, each a list of predicted and measured quantities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm.atlas._core import Evidence, Quantity, quantity
from ufm.atlas.hypotheses import strength
from ufm.problem import Params, Problem
from ufm.proof.claims import Refutation
from ufm.theory.closed_forms import Logits
from ufm.theory.spheres import Cosines


def weight(problem: Problem) -> float:
    """``sqrt(decay_W decay_H)``."""
    return float(problem.decay.price)


def balanced_factors(problem: Problem, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """``W/sqrt(r)`` and ``sqrt(r) H``, ``r = sqrt(decay_H/decay_W)``: of the size of logits whatever the decays.

    At a critical point the two have the same singular values, the roots of those of W H (`dynamics/critical`).
    """
    root = float(problem.decay.ratio) ** 0.5
    return np.asarray(params.W) / root, np.asarray(params.H) * root


def equivalent_decay_b(problem: Problem) -> float:
    """Decay of a bias per class with the same symmetric minimizer; inf without a bias."""
    if problem.bias == "none":
        return np.inf
    decay = float(problem.decay.b)
    return decay if problem.bias == "per_class" else decay / problem.classes


def minimum(problem: Problem, predicted: Logits) -> float:
    """Objective at symmetric class logits: ``phi(p, q) + mu ((K-1)|a| + |c|) + K decay_b beta^2/2``."""
    K, mu, decay = problem.classes, strength(problem), equivalent_decay_b(problem)
    bias = 0.5 * K * decay * predicted.bias**2 if np.isfinite(decay) else 0.0
    modes = (K - 1) * abs(predicted.gap) + abs(predicted.shift)
    return float(problem.loss.at(predicted.p, predicted.q, K)) + mu * modes + bias


def lowest(evidence: Evidence, predicted: float) -> Quantity:
    """The claimed minimum beside the value at the solution, to nine digits of it and what rounding adds."""
    return Quantity("minimum", float(predicted), evidence.value, 1e-9 * abs(float(predicted)) + evidence.rounding)


def symmetric_logits(problem: Problem, evidence: Evidence, predicted: Logits) -> list[Quantity]:
    """Value, scores and bias of a minimizer whose class logits are (p, q)."""
    bias = evidence.bias
    positive, negative = predicted.p - predicted.bias, predicted.q - predicted.bias
    size = max(1.0, abs(positive), abs(negative))
    found = evidence.scores
    quantities = [
        lowest(evidence, minimum(problem, predicted)),
        quantity("positive score", positive, found["positive"]["mean"]),
        quantity("negative score", negative, found["negative"]["mean"]),
        quantity("spread of positive scores", 0.0, found["positive"]["max"] - found["positive"]["min"], size=size),
        quantity("spread of negative scores", 0.0, found["negative"]["max"] - found["negative"]["min"], size=size),
    ]
    if problem.bias != "none" and not (problem.loss.shift_invariant and float(problem.decay.b) == 0):
        quantities.append(quantity("bias", predicted.bias, float(bias.mean())))
        quantities.append(quantity("spread of biases", 0.0, float(np.ptp(bias)), size=max(1.0, abs(predicted.bias))))
    return quantities


def centered(theorem: str, problem: Problem, best: Logits | Cosines) -> Refutation:
    """The claim that a minimizer has ``1'W = 0``, ``best`` being the logits of the best simplex ETF."""
    logits = np.where(np.eye(problem.classes, dtype=bool), best.p, best.q)
    return Refutation(
        theorem, "at a global minimizer the rows of W sum to zero: it is a simplex ETF", "centered", logits
    )


def etf_geometry(problem: Problem, evidence: Evidence, *, centered: bool = True) -> list[Quantity]:
    """Collapse to a simplex ETF; ``centered`` claims too that classifier and means have no common part."""
    names = (
        ["nc1", "nc2", "nc2_means", "nc3"] if not centered else ["nc1", "nc2_uncentred", "nc2_means_uncentred", "nc3"]
    )
    shape = [quantity(name.upper(), 0.0, float(getattr(evidence.collapse, name)), 1e-6) for name in names]
    return [*shape, nonzero(problem, evidence)]


def collapsed_cosines(problem: Problem, evidence: Evidence, predicted: Cosines) -> list[Quantity]:
    """Value, cosines and bias of a minimizer with class logits (p, q) = gamma cos + b, and its within-class spread."""
    gamma, scores = float(problem.model.gamma), evidence.scores
    W = np.asarray(evidence.solution.params.W)
    quantities = [
        lowest(evidence, predicted.value),
        quantity("norm of the mean of the w_k, squared", predicted.mean, float(np.sum(W.mean(axis=0) ** 2)), 1e-6),
    ]
    for side, logit in (("positive", predicted.p), ("negative", predicted.q)):
        found = {k: v / gamma for k, v in scores[side].items()}
        quantities.append(quantity(f"{side} cosine", (logit - predicted.bias) / gamma, found["mean"], 1e-6))
        quantities.append(quantity(f"spread of {side} cosines", 0.0, found["max"] - found["min"], 1e-6))
    if predicted.etf > 0:  # with one feature for all classes NC1 is 0/0
        quantities.append(quantity("NC1", 0.0, float(evidence.collapse.nc1), 1e-6))
    if problem.bias != "none":
        quantities.append(quantity("bias", predicted.bias, float(evidence.bias.mean()), 1e-6))
        quantities.append(quantity("spread of biases", 0.0, float(np.ptp(evidence.bias)), 1e-6))
    return quantities


ZERO = 1e-4
"""Norm of `balanced_factors` up to which a solution counts as zero: at `NEAR` a threshold it is some hundredths."""


def size_of_factors(problem: Problem, evidence: Evidence) -> float:
    """``||W|| + ||H||`` of the `balanced_factors`."""
    return float(sum(np.linalg.norm(x) for x in balanced_factors(problem, evidence.samples)))


def nonzero(problem: Problem, evidence: Evidence) -> Quantity:
    """W and H are not zero, or their geometry would be that of rounding."""
    return yes("W and H are nonzero", True, size_of_factors(problem, evidence) > ZERO)


def all_zero(problem: Problem, evidence: Evidence) -> list[Quantity]:
    """W = 0 and H = 0 at the minimum."""
    return [quantity("norm of W and H", 0.0, size_of_factors(problem, evidence), ZERO)]


def random_for(problem: Problem, seed: int) -> np.random.Generator:
    """Random numbers that belong to a problem: the same again when it is checked again."""
    decays = np.array([float(v) for v in vars(problem.decay).values()])
    return np.random.default_rng([seed, *decays.view(np.uint64).tolist()])


@jax.jit
def value(problem: Problem, params: Params) -> Array:
    """The objective."""
    return problem.objective(params)


@jax.jit
def gradient(problem: Problem, params: Params) -> Params:
    """Gradient of the objective by automatic differentiation."""
    return jax.grad(problem.objective)(params)


@jax.jit
def logit_gradient(problem: Problem, params: Params) -> Array:
    """``grad_Z`` of the mean loss (K, columns)."""
    return jax.grad(problem.risk)(problem.logits(params))


@jax.jit
def curvature(problem: Problem, params: Params, direction: Params) -> tuple[Array, Params]:
    """``<direction, Hessian direction>`` and the gradient, by automatic differentiation."""
    slope, product = jax.jvp(jax.grad(problem.objective), (params,), (direction,))
    pairs = zip(jax.tree.leaves(product), jax.tree.leaves(direction), strict=True)
    return sum((jnp.sum(x * y) for x, y in pairs), jnp.zeros(())), slope


def full_norm(tree: Params) -> float:
    """Euclidean norm over all leaves."""
    return float(np.sqrt(sum(np.sum(np.asarray(x) ** 2) for x in jax.tree.leaves(tree))))


def yes(name: str, predicted: bool, measured: bool) -> Quantity:
    """A statement that is true (1) or false (0)."""
    return quantity(name, float(predicted), float(measured))

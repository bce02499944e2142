"""One lane of a sweep as traceable functions: its start, and what is measured where the solve ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm import metrics
from ufm._base import cast
from ufm.problem import Params, Problem
from ufm.solvers import TOLERANCES, Solution, Status, answered, judged
from ufm.solvers.gradient import bias_and_scores
from ufm.theory import Regime
from ufm.theory.certificate import traced_certificate

FAILED = (Status.NONFINITE,)
"""Statuses of a lane that has no result: its numbers are NaN."""
UNCONVERGED = -1
"""In place of a `Regime` where the solve did not end at a solution (`ufm.solvers.answered`)."""


def begin(problem: Problem, lane: Mapping[str, Any], dtype: Any) -> Params:
    """The random start of a lane: that of `ufm.solve` with the same seed."""
    return problem.init(jax.random.key(lane["seed"]), lane["scale"], lane["bias_mean"], dtype)


def mean_bias(params: Params, dtype: Any) -> Array:
    """Mean bias of a point; zero without one."""
    return jnp.zeros((), dtype) if params.b is None else jnp.mean(params.b).astype(dtype)


def measure(problem: Problem, solution: Solution, bias_start: Array) -> dict[str, Array]:
    """Everything that a sweep keeps of a lane, evaluated in the widest float of the platform."""
    solution = judged(problem, solution)
    wide = jnp.zeros((), float).dtype
    problem, params = problem.astype(wide), cast(solution.params, wide)
    certificate = traced_certificate(problem, params)
    b = jnp.zeros((), wide) if params.b is None else params.b
    numbers = {
        "value": certificate.value,
        "lower_bound": certificate.lower_bound,
        "gap": certificate.gap,
        "rounding": certificate.rounding,
        **bias_and_scores(problem, params),
        "bias_std": jnp.std(b),
        "bias_start": bias_start.astype(wide),
        **class_numbers(problem, params),
        "grad_norm": solution.grad_norm.astype(wide),
        "residual": solution.residual.astype(wide),
        **{f"trajectory.{name}": rows.astype(wide) for name, rows in solution.trajectory.items()},
    }
    failed = jnp.isin(solution.status, jnp.asarray(FAILED, jnp.int32)) | ~jnp.isfinite(certificate.value)
    status = jnp.where(failed, Status.NONFINITE, solution.status)
    solved = answered(status, certificate.value, certificate.gap, certificate.rounding)
    found = regime(problem, params, certificate.value, smallest(solution))
    return {
        **{name: jnp.where(failed, jnp.nan, x) for name, x in numbers.items()},
        "regime": jnp.where(solved, found, UNCONVERGED).astype(jnp.int32),
        "status": status.astype(jnp.int32),
        "steps": solution.steps.astype(jnp.int32),
        "evaluations": jnp.asarray(solution.evaluations, wide),
    }


def class_numbers(problem: Problem, params: Params) -> dict[str, Array]:
    """Ranges of scores and collapse metrics; NaN where targets are no labels."""
    names = ("nc1", "nc2", "nc3", "nc4")
    if not problem.labeled:
        ends = [f"{side}_{end}" for side in ("positive", "negative") for end in ("min", "max")]
        return dict.fromkeys((*ends, *names), jnp.full((), jnp.nan, params.H.dtype))
    labels, counts = jnp.asarray(problem.labels), problem.multiplicity
    collapse = metrics.collapse(*problem.model.head(params), labels, params.b, counts)
    spread = metrics.scores(*problem.model.layers(params), labels, counts)
    ranges = {f"{side}_{end}": spread[side][end] for side in spread for end in ("min", "max")}
    return ranges | {name: getattr(collapse, name) for name in names}


def smallest(solution: Solution) -> Array:
    """Size, relative to that of a solution, below which a part of the classifier counts as absent.

    A solve ends within ``residual/curvature`` of a minimum. Curvatures down to the square root of the tolerance are
    told from zero, in the dtype of the solve; nearer than that to a threshold a regime may be called either way.
    """
    tol = TOLERANCES[solution.params.H.dtype.name]
    return jnp.sqrt(jnp.maximum(jnp.asarray(solution.residual, float), tol))


def parts(problem: Problem, W: Array, value: Any, least: Any) -> tuple[Array, Array]:
    """Whether the rows of ``W`` (K, d) share a mean, and whether they differ.

    Sizes count relative to ``sqrt(2 f / decay_W)``, which ``||W||`` cannot exceed at a minimum, from ``least`` on.
    """
    mean = jnp.mean(W, axis=0)
    # Where norms are fixed, the classifier is its own scale.
    bound = jnp.sqrt(2.0 * jnp.abs(value) / problem.decay.W) if problem.model.decayed else jnp.linalg.norm(W)
    size = least * bound
    return jnp.linalg.norm(mean) * problem.classes**0.5 > size, jnp.linalg.norm(W - mean[None, :]) > size


def regime(problem: Problem, params: Params, value: Array, least: Any) -> Array:
    """`Regime` of a point by its classifier alone; see `parts`.

    In an imbalanced problem ``ETF`` means no more than a centered classifier that is not zero.
    """
    shifted, split = parts(problem, problem.model.head(params)[0], value, least)
    return jnp.where(shifted, Regime.MEAN_SHIFTED, jnp.where(split, Regime.ETF, Regime.ZERO))

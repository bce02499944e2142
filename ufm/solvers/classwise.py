"""The Hessian split into class means and deviations from them: exact at collapse, a model before it.

At a point whose features coincide within each class the Hessian commutes with permutations of a class's
samples. It then couples (W, b) with the class means alone, where it is the Hessian of the problem with one
feature per class, and acts on deviations from the means as ``I + W^T C_k W / (N decay_H)``, ``C_k`` the
Hessian of the loss at class k's logits. Elsewhere these two blocks, taken at the class means, err by the
order of the deviations, so Newton's method with them still converges superlinearly, and costs less: a
product of the first does not depend on N, and the second is idle once the deviations are gone. No feature
is tied to another, and gradients are those of all N samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import matmul
from ufm.models import Scaled
from ufm.problem import Params, Problem
from ufm.solvers._core import Solution, Solver, advance, with_tolerance


def collapses(problem: Any) -> bool:
    """Whether features differ within classes at first and a convex loss makes them agree at every minimizer."""
    return (
        problem.model.collapses
        and problem.features == "per_sample"
        and problem.samples > problem.classes
        and problem.loss.convex
    )


def shared(problem: Problem) -> Problem:
    """The problem with one feature per class."""
    return dataclasses.replace(problem, features="per_class")


def eliminated(problem: Problem, params: Params) -> tuple[Problem, Params]:
    """The problem with one feature per class, which has the same minimum, and a start at the class means.

    At fixed (W, b) and a convex loss the minimizer over H is unique and the same for all samples of a class.
    """
    plain = Classwise(Scaled.of(problem, params))
    means = plain.means(params).H / plain.root_counts(params.H.dtype)
    return shared(problem), Params(params.W, means, params.b)


def expanded(problem: Problem, state: Any) -> Any:
    """The state of a solver on the `eliminated` problem, with its point and gradient given to all samples.

    Scaled variables keep their norms, and the gradient of the full ``problem`` is that of the class, spread.
    """
    split = Classwise(Scaled.of(problem, state.point))

    def spread(means: Params) -> Params:
        return Params(means.W, split.spread(means), means.b)

    fields = {name: spread(getattr(state, name)) for name in ("point", "gradient") if hasattr(state, name)}
    cost = jnp.asarray(state.evaluations, state.point.H.dtype) * (problem.classes / problem.samples)
    return dataclasses.replace(state, evaluations=cost, **fields)


def run_eliminated(solver: Solver, problem: Problem, params: Params) -> Solution:
    """`run` with the features eliminated: one traceable function."""
    solver = with_tolerance(solver, params.H.dtype)
    short, start = eliminated(problem.astype(params.H.dtype), params)
    state = advance(solver, short, solver.start(short, start), solver.max_steps)
    return solver.finish(problem, expanded(problem, state))


@dataclass(frozen=True)
class Classwise:
    """The two blocks in scaled variables. Means carry ``sqrt(n_k)``, so that embedding them keeps lengths."""

    space: Scaled

    def means(self, point: Params) -> Params:
        """Class means of a point, direction or gradient: its part that does not vary within classes."""
        problem = self.space.problem
        if problem.balanced:
            sums = jnp.sum(point.H.reshape(point.H.shape[0], problem.classes, -1), axis=2)
        else:
            labels = jnp.asarray(problem.labels)
            sums = jax.ops.segment_sum(point.H.T, labels, problem.classes, indices_are_sorted=True).T
        return Params(point.W, sums / self.root_counts(point.H.dtype), point.b)

    def spread(self, means: Params) -> Array:
        """Features (d, N) of class means (d, K)."""
        problem, columns = self.space.problem, means.H / self.root_counts(means.H.dtype)
        return jnp.repeat(columns, problem.counts, axis=1, total_repeat_length=problem.samples)

    def root_counts(self, dtype: Any) -> Array:
        """``sqrt(n_k)`` as a row (1, K)."""
        return jnp.sqrt(jnp.asarray(self.space.problem.counts, dtype))[None, :]

    def mean_hessian(self, means: Params) -> Callable[[Params], Params]:
        """Hessian of the problem with one feature per class."""
        problem = shared(self.space.problem)
        return Scaled.of(problem, means).inflated(self.space.inflation).hessian(means)

    def deviation_hessian(self, means: Params) -> Callable[[Array], Array]:
        """``v -> inflation v + W^T C_k W v / (N decay_H)`` on features (d, N) that sum to zero in each class."""
        space, problem = self.space, self.space.problem
        plain = space.outward(Params(means.W, self.spread(means), means.b))
        W, _ = problem.model.layers(plain)
        logits = problem.logits(plain)
        _, curve = jax.linearize(jax.grad(lambda z: jnp.sum(problem.losses(z))), logits)
        factor = 1.0 / (problem.samples * space.scale.H**2)
        return lambda v: self.space.inflation * v + factor * matmul(W.T, curve(matmul(W, v)))

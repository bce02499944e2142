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
import numpy as np
from jax import Array

from ufm import symmetry
from ufm._base import matmul
from ufm.models import Scaled
from ufm.problem import Params, Problem
from ufm.solvers._core import Solution


def collapses(problem: Any) -> bool:
    """Whether features differ within classes at first and a convex loss makes them agree at every minimizer."""
    return (
        problem.model.collapses
        and problem.features == "per_sample"
        and problem.samples > problem.groups
        and problem.loss.convex
    )


def expanded(problem: Problem, solution: Solution) -> Solution:
    """A solution of the shared problem (`ufm.symmetry`) as one of ``problem``: its features given to all samples.

    Nothing else changes but the unit of cost: the gradient of the full problem is that of the class, spread. The work
    is the host's, so that it compiles nothing.
    """
    H = jax.device_put(np.asarray(solution.params.H)[:, problem.labels])
    cost = jax.device_put(np.asarray(solution.evaluations, H.dtype) * (problem.groups / problem.samples))
    return dataclasses.replace(solution, params=dataclasses.replace(solution.params, H=H), evaluations=cost)


@dataclass(frozen=True)
class Classwise:
    """The two blocks in scaled variables. Means carry ``sqrt(n_k)``, so that embedding them keeps lengths."""

    space: Scaled

    def means(self, point: Params) -> Params:
        """Class means of a point, direction or gradient: its part that does not vary within classes."""
        H = symmetry.means(self.space.problem, point.H) * self.root_counts(point.H.dtype)
        return Params(point.W, H, point.b)

    def spread(self, means: Params) -> Array:
        """Features (d, N) of class means (d, K)."""
        return symmetry.spread(self.space.problem, means.H / self.root_counts(means.H.dtype))

    def root_counts(self, dtype: Any) -> Array:
        """``sqrt(n_k)`` as a row (1, K)."""
        return jnp.sqrt(jnp.asarray(self.space.problem.counts, dtype))[None, :]

    def mean_hessian(self, means: Params) -> Callable[[Params], Params]:
        """Hessian of the problem with one feature per class."""
        problem = symmetry.shared(self.space.problem)
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

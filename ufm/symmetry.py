"""Features shared by the samples of one target: one mechanism for all that rests on them.

The objective does not change when the samples of a group (`ufm.targets`) are permuted. Points that are left as they
are have one feature per group, and the objective there is that of the `shared` problem, ``features="per_class"``. With
a convex loss every minimizer is such a point: at fixed (W, b) the best features of a group are unique, so they agree.
`ufm.solve` eliminates the features by it, Newton's method splits its Hessian by it (`ufm.solvers.classwise`), and
certificates of collapsed points need no more than the shared problem.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm.problem import Params, Problem


def shared(problem: Problem) -> Problem:
    """The problem with one feature per group of samples with the same target.

    >>> shared(Problem(3, 4, (5, 5, 1))).columns
    3
    """
    return dataclasses.replace(problem, features="per_class")


def means(problem: Problem, H: Array) -> Array:
    """Group means (d, G) of features (d, N)."""
    sizes = problem.grouping.sizes(problem.classes)
    if np.ndim(sizes) == 0:
        return jnp.mean(H.reshape(H.shape[0], problem.groups, -1), axis=2)
    sums = jax.ops.segment_sum(H.T, jnp.asarray(problem.labels), problem.groups, indices_are_sorted=True)
    return sums.T / jnp.asarray(problem.counts, H.dtype)[None, :]


def spread(problem: Problem, H: Array) -> Array:
    """Features (d, N) of all samples, given one per group (d, G).

    >>> spread(Problem(2, 1, (2, 1)), jnp.array([[3.0, 4.0]])).tolist()
    [[3.0, 3.0, 4.0]]
    """
    return jnp.take(H, jnp.asarray(problem.labels), axis=1)


def collapsed(problem: Problem, params: Params) -> tuple[Problem, Params]:
    """The `shared` problem and point where the features of each group are equal to the last bit, else what was given.

    Value and dual bound are the same numbers there, at a cost that does not depend on N. For arrays, not traced ones.
    """
    known = problem.model.collapses and problem.grouping.total is not None and np.ndim(params.H) == 2
    if not known or problem.samples == problem.groups:
        return problem, params
    H, labels = np.asarray(params.H), np.asarray(problem.labels)
    first = H[:, np.searchsorted(labels, np.arange(problem.groups))]
    if not np.array_equal(first[:, labels], H):
        return problem, params
    return shared(problem), dataclasses.replace(params, H=first)

"""Features shared by the samples of a class."""

import dataclasses

import jax
import numpy as np
import pytest

from ufm import Decay, Problem, losses, models, symmetry
from ufm.theory.certificate import _certify_in_float64, certify

PROBLEMS = [
    Problem(3, 4, (4, 1, 2), losses.CE(), Decay(0.01, 0.02, 0.05), weights=(0.5, 0.2, 0.3)),
    Problem(3, 4, 5, losses.Focal(), Decay(0.01, 0.02, 0.05), "unified"),
    Problem(3, 3, (2, 3, 1), losses.MSE(), Decay(0.01, 0.02, 0.05), model=models.FixedClassifier(np.eye(3))),
]
each = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.loss.name)


def spread_point(problem):
    params = symmetry.shared(problem).init(jax.random.key(0))
    return params, dataclasses.replace(params, H=symmetry.spread(problem, params.H))


@each
def test_the_shared_problem_is_the_full_one_at_points_that_agree(problem):
    short, full = spread_point(problem)
    shared = symmetry.shared(problem)
    assert float(problem.objective(full)) == pytest.approx(float(shared.objective(short)), rel=1e-14)
    np.testing.assert_allclose(symmetry.means(problem, full.H), short.H, rtol=1e-14)
    gradient, small = jax.grad(problem.objective)(full), jax.grad(shared.objective)(short)
    assert float(problem.gradient_norm(gradient)) == pytest.approx(float(shared.gradient_norm(small)), rel=1e-13)


@each
def test_a_certificate_of_a_collapsed_point_is_that_of_the_full_problem(problem):
    _, full = spread_point(problem)
    short, plain = (
        _certify_in_float64(*given, polish=False) for given in (symmetry.collapsed(problem, full), (problem, full))
    )
    for found, wanted in ((short.value, plain.value), (short.lower_bound, plain.lower_bound)):
        assert abs(float(found) - float(wanted)) <= float(short.rounding) + float(plain.rounding)
    assert certify(problem, full).lower_bound <= float(plain.value)


def test_points_whose_features_differ_keep_all_of_them():
    problem = PROBLEMS[0]
    _, full = spread_point(problem)
    assert symmetry.collapsed(problem, full)[0].columns == 3
    whole = dataclasses.replace(full, H=full.H.at[:, :4].add(1e-3))  # a class moves as one
    assert symmetry.collapsed(problem, whole)[0].columns == 3
    moved = dataclasses.replace(full, H=full.H.at[0, 0].add(1e-15))
    assert symmetry.collapsed(problem, moved)[0].columns == problem.samples

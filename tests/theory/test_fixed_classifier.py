"""A fixed simplex-ETF classifier: closed forms against solves, and what a held bias costs."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import ufm
from ufm import Decay, InputError, Problem
from ufm.losses import BCE, CE, custom
from ufm.theory import fixed_classifier

K, D, n, NORM = 4, 6, 3, 1.7


def shifted_bce(z, label, shift):
    return BCE()(z + shift, label)


@pytest.mark.parametrize(
    ("loss", "bias", "decay_b", "held"),
    [
        (BCE(), "per_class", 0.0, None),
        (BCE(), "per_class", 0.3, None),
        pytest.param(BCE(), "unified", 0.3, None, marks=pytest.mark.slow),
        (BCE(), "none", 0.0, 0.0),
        (BCE(), "none", 0.0, -1.3),
        (BCE(), "none", 0.0, 2.0),
        (CE(), "per_class", 0.3, None),
    ],
)
def test_closed_form_is_the_minimum(loss, bias, decay_b, held):
    problem = Problem(K, D, n, loss, Decay(1e-3, 2e-3, decay_b), bias)
    exact = fixed_classifier.minimum(problem, NORM, held)
    W = NORM * ufm.geometry.simplex_etf(K, D, jax.random.key(3))
    solved = dataclasses.replace(problem, classifier=W)
    if held is not None:  # a bias that is held somewhere is a loss that is shifted
        solved = dataclasses.replace(solved, loss=custom(shifted_bce, {"shift": held}, convex=True, infimum=0.0))
    solution = ufm.solve(solved)
    assert solution.status_name == "converged"  # to the minimum: with W fixed the problem is convex
    constant = 0.5e-3 * K * NORM**2
    assert float(solution.value) - constant == pytest.approx(exact.value, rel=1e-11)
    scores = W @ solution.params.H
    np.testing.assert_allclose(np.asarray(scores)[problem.labels, np.arange(K * n)], exact.score, rtol=1e-6)
    if solution.params.b is not None:
        np.testing.assert_allclose(solution.params.b, exact.bias, atol=1e-8)


def test_what_a_held_bias_costs():
    """Nothing at the bias that BCE would learn, more the further from it."""
    problem = Problem(10, 20, 5, decay=Decay(H=1e-4, b=0.0))
    free = fixed_classifier.minimum(problem, 2.0)
    costs = [fixed_classifier.bias_cost(problem, 2.0, b) for b in (free.bias, -2.0, 0.0, 3.0)]
    assert costs[0] == pytest.approx(0.0, abs=1e-12)
    assert costs == sorted(costs)


@pytest.mark.parametrize("classes", [4, 10])
def test_held_bias_needs_features_half_k_times_as_long(classes):
    """At one and the same risk, as it goes to zero: x_held / x_free -> K/2 and x_free / x_CE -> 2."""

    def scores(risk):
        out = []
        for model in (
            lambda rho: fixed_classifier.bce(classes, rho, bias=0.0),
            lambda rho: fixed_classifier.bce(classes, rho),
            lambda rho: fixed_classifier.ce(classes, rho),
        ):
            low, high = -70.0, 0.0
            for _ in range(60):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if model(np.exp(middle)).risk < risk else (low, middle)
            out.append(model(np.exp(low)).score)
        return out

    held, free, ce = scores(1e-20)
    assert held / free == pytest.approx(classes / 2, rel=0.05)
    assert free / ce == pytest.approx(2.0, rel=0.05)


def test_refusals():
    with pytest.raises(InputError, match="row_norm = 0"):
        fixed_classifier.minimum(Problem(), 0.0)
    with pytest.raises(InputError, match="per_class"):
        fixed_classifier.minimum(Problem(2, 3, (1, 2)), 1.0)
    with pytest.raises(InputError, match="loss = 'mse"):
        fixed_classifier.minimum(Problem(loss=ufm.losses.MSE()), 1.0)

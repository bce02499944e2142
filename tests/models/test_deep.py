"""Several weight matrices: factors, starts, codes and what is refused."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm import Decay, Params, Problem, codes, losses
from ufm.models import Deep, Linear, parse
from ufm.solvers import coded, multistart

PAIRS = Problem(6, 6, 1, losses.CE(), Decay(1e-3, 1e-3), bias="none", model=Deep(5))


@pytest.mark.parametrize("model", [Linear(), Deep(1), Deep(2), Deep(4, widths=(6, 5, 6))])
def test_factors_give_the_logits_at_the_least_penalty(model):
    """kappa times the sum of sigma^{2/M} of X diag(sqrt m); and no rescaled factor costs less."""
    problem = Problem(4, 5, (3, 2, 1, 1), decay=Decay(0.02, 0.07), features="per_class", model=model)
    X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
    point = model.factored(problem, X)
    np.testing.assert_allclose(problem.scores(point), X, atol=1e-13)
    L = getattr(model, "depth", 1)
    sizes = np.linalg.svd(np.asarray(X) * np.sqrt(problem.counts), compute_uv=False)
    kappa = (L + 1) / 2 * (0.02**L * 0.07) ** (1 / (L + 1))
    assert float(model.penalty(problem, point)) == pytest.approx(kappa * np.sum(sizes ** (2 / (L + 1))), rel=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("code", ["3+3", "2+2+2", "polygon"])
def test_relu_factors_give_the_logits(depth, code):
    problem = dataclasses.replace(PAIRS, model=Deep(depth, "relu", widths=8), per_class=2)
    X = jnp.asarray(codes.pattern(codes.parse(code, 6))[:, problem.labels])
    point = problem.model.factored(problem, X)
    np.testing.assert_allclose(problem.scores(point), X, atol=1e-12)


def test_the_relu_network_is_its_definition():
    problem = dataclasses.replace(PAIRS, model=Deep(3, "relu", widths=(7, 8)))
    x = problem.init(0)
    W, H = [np.asarray(w) for w in x.W], np.asarray(x.H)
    assert [w.shape for w in W] == [(6, 7), (7, 8), (8, 6)]
    expected = W[0] @ np.maximum(W[1] @ np.maximum(W[2] @ H, 0.0), 0.0)
    np.testing.assert_allclose(problem.scores(x), expected, atol=1e-13)


def test_zero_is_left_by_the_starts():
    """Zero is a strict local minimum; a random start ends elsewhere, converged."""
    found = ufm.solve(PAIRS)
    assert found.converged
    assert float(found.grad_norm) < 1e-10
    assert float(found.value) < 0.1 * np.log(6)
    zero = jax.tree.map(jnp.zeros_like, found.params)
    assert float(ufm.solve(PAIRS, init=zero).value) == pytest.approx(np.log(6))


def test_random_starts_and_codes_together():
    """Three matrices of rank 2, 3 and 5, as theory says; the best of all is the polygon."""
    found = multistart(PAIRS, starts=1, init=["code:polygon", "code:2+2+2", "code:6"])
    values = [float(s.value) for s in found]
    assert len(values) == 4
    assert all(bool(s.converged) for s in found)
    np.testing.assert_allclose(values[1:3], [0.022434200605, 0.023949387699], rtol=1e-9)
    assert min(values) == values[1]
    best = ufm.solve(PAIRS, init="code:polygon")
    assert float(best.value) == values[1]


def test_problem_and_solution_as_data():
    model = Deep(3, "relu", (7, 8))
    assert parse(str(model)) == model
    assert parse("deep") == Deep(2)
    assert parse("deep:layers=4,widths=9") == Deep(4, widths=(9, 9, 9))
    assert eval(repr(model)) == model
    data = ufm.statement.to_data(dataclasses.replace(PAIRS, model=model))
    assert json.loads(json.dumps(data))["model"] == "deep:layers=3,activation=relu,widths=7x8"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, ["layers", "0", ">= 1"]),
        ({"layers": 2.5}, ["layers", "2.5", "whole"]),
        ({"activation": "tanh"}, ["activation", "'tanh'", "linear, relu"]),
        ({"layers": 3, "widths": (4,) * 3}, ["widths", "layers - 1 = 2"]),
        ({"layers": 3, "widths": "4xa"}, ["widths", "'a'", "whole"]),
        ({"layers": 2, "widths": 0}, ["widths", "0", ">= 1"]),
    ],
)
def test_refused_models(options, words):
    with pytest.raises(ufm.InputError) as caught:
        Deep(**options)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("code:2+2", ["code", "classes = 6", "not 4"]),
        ("code:pyramid", ["pyramid", "odd"]),
        ("code:polygon5+pyramid", ["pyramid", "size"]),
        ("code:hexagon", ["code", "'hexagon'", "2+2+2"]),
        ("code:polygon2+4", ["polygon", "at least 3"]),
        (Params(np.zeros((6, 6)), np.zeros((6, 6))), ["init.W", "tuple of 5"]),
        (Params((np.zeros((6, 6)),) * 4, np.zeros((6, 6))), ["init.W", "5"]),
        (Params((*[np.zeros((6, 6))] * 2, np.zeros((6, 5)), *[np.zeros((6, 6))] * 2), np.zeros((6, 6))),
         ["init.W[2].shape", "(6, 5)", "(6, 6)"]),
    ],
)  # fmt: skip
def test_refused_starts(init, words):
    with pytest.raises(ufm.InputError) as caught:
        ufm.solve(PAIRS, init=init)
    assert all(word in str(caught.value) for word in words)


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ufm.InputError, match="rank 5"):
        coded(dataclasses.replace(PAIRS, dim=3), "code:6")
    with pytest.raises(ufm.InputError, match="linear or deep"):
        coded(dataclasses.replace(PAIRS, model=ufm.models.Spheres(2.0)), "code:6")
    with pytest.raises(ufm.InputError, match="widths"):
        coded(dataclasses.replace(PAIRS, model=Deep(3, "relu", 3)), "code:6")
    point = PAIRS.init(0)
    for probe in (ufm.landscape.examine, lambda p, x: ufm.landscape.find_critical_points(p, 2)):
        with pytest.raises(ufm.InputError, match="linear: a free classifier"):
            probe(PAIRS, point)


def test_patterns_are_symmetric_with_the_rank_they_say():
    for code, sizes in itertools.product(["7", "pyramid", "polygon", "polygon5+2", "frame3+4", "2+2+3"], [7]):
        parts = codes.parse(code, sizes)
        Z = codes.pattern(parts)
        np.testing.assert_array_equal(Z, Z.T)
        assert np.linalg.matrix_rank(Z, tol=1e-9) == sum(part.rank for part in parts)
        assert codes.parse(codes.name(parts), 7) == parts

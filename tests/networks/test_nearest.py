"""The nearest model: itself for a model, the nearest of all for anything else, in logarithms where floats end."""

from __future__ import annotations

import importlib
import json
import math

import jax
import numpy as np
import pytest

import ufm
from ufm.networks.nearest_model import Observed, nearest
from ufm.theory.closed_forms import bce


def problem_of(classes, mu, decay_b, loss="bce", bias="per_class", per_class=5):
    """With ``decay_W = 4 decay_H``."""
    decay = mu / np.sqrt(per_class)
    decays = ufm.Decay(2 * decay, decay / 2, decay_b)
    return ufm.Problem(classes, classes + 1, per_class, loss=ufm.losses.parse(loss), decay=decays, bias=bias)


def measured(problem, params):
    return ufm.measure(np.asarray(params.H).T, problem.labels, params.W, params.b).nearest[str(problem.loss)]


@pytest.mark.parametrize(
    ("loss", "decay_b", "bias"),
    [
        ("ce", 5e-3, "per_class"),
        ("bce", 5e-4, "per_class"),
        ("bce", 0.5, "per_class"),
        ("bce", 5e-4, "unified"),
        ("bce", 0.5, "unified"),
        ("bce", 0.0, "per_class"),
        ("bce", 0.0, "none"),
    ],
)
def test_nearest_model_of_a_model_is_itself(loss, decay_b, bias):
    """The witness is the closed-form point: its decays, regime and scores must come back, with no residual."""
    decay = ufm.Decay(5e-3, 1e-3, decay_b)
    problem = ufm.Problem(6, 9, 5, loss=ufm.losses.parse(loss), decay=decay, bias=bias)
    exact = ufm.theory.minimizer(problem)
    found = measured(problem, exact.params)
    assert found.regime == exact.regime
    np.testing.assert_allclose([found.decay_W, found.decay_H], [5e-3, 1e-3], rtol=1e-6)
    assert found.mu == pytest.approx(math.exp(found.log_mu), rel=1e-15)
    if loss == "bce" and bias != "none":
        assert found.decay_b == pytest.approx(decay_b, rel=1e-5, abs=1e-12)
        assert found.bias_residual < 1e-8
    assert found.residual < 1e-8
    assert found.alignment == pytest.approx(1.0)


@pytest.mark.parametrize("classes", [2, 3, 5, 10])
@pytest.mark.parametrize("strength", [1.0 + 1e-12, 1.5, 40.0])
@pytest.mark.parametrize(
    ("loss", "decay_b", "bias"), [("ce", 0.1, "per_class"), ("bce", 0.1, "unified"), ("bce", 0.0, "none")]
)
def test_a_zero_solution_is_zero(classes, strength, loss, decay_b, bias):
    """``K mu >= 1``: W = H = 0 and the bias that the model has there; also with the noise that a solver leaves."""
    problem = problem_of(classes, strength / classes, decay_b, loss, bias)
    exact = ufm.theory.minimizer(problem)
    if exact.regime != "zero":  # the mean is left
        assert (loss, exact.regime, round(exact.gap, 9)) == ("bce", "mean-shifted", 0.0)
        return
    for noise in (0.0, 1e-9):
        rng = np.random.default_rng(0)
        params = jax.tree.map(lambda x, rng=rng, noise=noise: x + noise * rng.normal(size=x.shape), exact.params)
        found = measured(problem, params)
        assert found.regime == "zero"
        assert found.mu <= strength / classes * (1 + 1e-8)
        assert "the least" in found.note
        if loss == "bce" and classes > 2 and bias != "none":
            assert found.decay_b == pytest.approx(decay_b, rel=1e-6)
            assert found.bias_residual < 1e-8


def test_a_solved_zero_solution_is_zero():
    problem = problem_of(4, 0.5, 0.1)
    solved = ufm.solve(problem, key=jax.random.key(0))
    found = measured(problem, solved.params)
    assert found.regime == "zero"
    assert found.decay_b == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize(("classes", "decay_b"), [(6, 3.0), (10, 1.0), (40, 0.5), (10, math.inf)])
def test_where_the_mean_alone_is_left(classes, decay_b):
    """``K mu >= 1`` with a strong decay of the bias: one feature for all classes, equal scores."""
    mu = 1.2 / classes
    bias = "none" if math.isinf(decay_b) else "per_class"
    problem = problem_of(classes, mu, 0.0 if bias == "none" else decay_b, bias=bias)
    exact = ufm.theory.minimizer(problem)
    assert (exact.regime, round(exact.gap, 9)) == ("mean-shifted", 0.0)
    found = measured(problem, exact.params)
    assert found.regime == "mean-shifted"
    assert found.positive == pytest.approx(found.negative)
    assert found.mu == pytest.approx(mu, rel=1e-6)
    assert found.decay_b == pytest.approx(decay_b, rel=1e-5)
    assert found.residual < 1e-8


def test_a_centered_etf_of_three_classes_without_bias():
    """``sigma(-2a/3) + sigma(-a/3) = K mu`` where 3 (8 - sqrt(32))/16 < K mu < 1; mean-shifted below."""
    for gap, regime in ((0.5, "etf"), (2.6, "etf"), (2.7, "mean-shifted")):
        found = nearest(Observed(3, 12, 2 * gap / 3, -gap / 3, None, 1.0, 1.0), "bce")
        assert found.regime == regime
        if regime == "etf":
            assert 3 * found.mu == pytest.approx(1 / (1 + math.exp(gap / 3)) + 1 / (1 + math.exp(2 * gap / 3)))
            assert found.misfit < 1e-12


@pytest.mark.parametrize("margin", [708.0, 720.0, 744.0, 746.0, 12090.0, 1e6])
@pytest.mark.parametrize("bias", [None, 0.0, -3.0])
def test_margins_beyond_floats_have_a_logarithm(margin, bias):
    seen = Observed(10, 1000, 0.75 * margin, -0.25 * margin, bias, 10.0, 100.0)
    ce, two = nearest(seen, "ce"), nearest(seen, "bce")
    assert ce.log_mu == pytest.approx(-margin, rel=1e-15)
    assert math.isfinite(two.log_mu)
    for found in (ce, two):
        assert found.mu == math.exp(found.log_mu) < 1e-90
        assert ("log_mu" in found.note) == (found.log_mu < -708.4)
        assert math.isfinite(found.residual)
        json.dumps([found.mu, found.log_mu, found.positive, found.negative], allow_nan=False)


def test_no_floor_of_mu():
    """A model with ``K mu`` far below 1e-13 comes back."""
    for log_mu in (-35.0, -80.0, -300.0):
        mu = math.exp(log_mu)
        for decay_b in (0.0, 0.3 * mu, 0.5, math.inf):
            model = bce(mu, 10, decay_b)
            b = None if math.isinf(decay_b) else model.bias
            found = nearest(Observed(10, 50, model.p - model.bias, model.q - model.bias, b, 1.0, 1.0), "bce")
            assert found.log_mu == pytest.approx(log_mu, abs=1e-9)
            assert found.misfit < 1e-12


@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_random_models_come_back(classes):
    models_come_back(classes)


def models_come_back(classes):
    rng = np.random.default_rng(classes)
    for draw in range(80):
        mu, decay_b = np.exp(rng.uniform(*((-14.0, 0.0), (0.0, 0.5))[draw % 2])) / classes, 10.0 ** rng.uniform(-7, 1)
        model = bce(mu, classes, decay_b)
        scores = model.p - model.bias, model.q - model.bias
        found = nearest(Observed(classes, 5 * classes, *scores, model.bias, 1.0, 1.0), "bce")
        regime = "mean-shifted" if model.shift else "etf" if model.gap > 0 else "zero"
        assert found.regime == regime
        if regime == "zero":
            assert found.mu <= mu * (1 + 1e-12)
        else:
            assert found.mu == pytest.approx(mu, rel=1e-8)
            assert found.misfit < 1e-10
        # The bias is what is left of scores of size 10: where it is tiny, so are its digits.
        assert found.decay_b == pytest.approx(decay_b, rel=max(1e-7, 1e-13 / abs(model.bias)))


MUTATIONS = {
    "the bias of zero pulls with sigma(beta), not sigma(beta) - 1/K": (
        "_bce_zero",
        lambda old: lambda beta, K: old(beta, K)._replace(decay_b=float(1 / (1 + np.exp(-beta)) / -beta)),
    ),
    "an ETF's logits without its bias": (
        "_bce_etf",
        lambda old: lambda gap, beta, K: (m._replace(decay_b=2 * m.decay_b) for m in old(gap, beta, K)),
    ),
    "sigma(q) = mu where the mean is shifted": (
        "_curve",
        lambda old: lambda seen, shares, end, free: old(seen, (shares[0], 1), end, free=free),
    ),
    "the curves end at mu = 1/K^2": (
        "_curve",
        lambda old: lambda seen, shares, end, free: old(seen, shares, 2 * end, free=free),
    ),
    "only the centered models of BCE": ("_bce", lambda old: lambda seen: (m for m in old(seen) if m.regime == "etf")),
    "any distance is the same": ("SAME", lambda old: 1.0),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_formula_is_caught(name, monkeypatch):
    attribute, wrong = MUTATIONS[name]
    module = importlib.import_module("ufm.networks.nearest_model")
    monkeypatch.setattr(module, attribute, wrong(getattr(module, attribute)))
    with pytest.raises(AssertionError):
        models_come_back(10)


CASES = [(10, 4.0, -1.0, 0.5), (10, 2.0, -6.0, -1.0), (10, 30.0, -0.5, -14.0), (10, 0.5, 0.2, -2.0)]
CASES += [(1000, 1.0, 0.0, -3.0), (1000, 1.0, 0.0, -6.5), (10, -3.0, -2.0, -0.1), (10, -1.5, -1.4, -0.6)]
CASES += [(3, 1.0, -0.2, 0.3), (2, 1.0, -0.2, 0.3), (10, -2.0, 3.0, 1.0), (5, 2.0, -0.5, None), (10, -0.3, -0.3, None)]


@pytest.mark.parametrize(("classes", "positive", "negative", "b"), CASES)
def test_nearest_model_is_the_nearest(classes, positive, negative, b):
    """No model of a fine grid is nearer than the one found, for scores that no model has."""
    mine = nearest(Observed(classes, 100 * classes, positive, negative, b, 10.0, 100.0), "bce")

    def distance(p, q, bias):
        scores = ((p - positive) ** 2 + (classes - 1) * (q - negative) ** 2) / classes
        return scores + (0.0 if b is None else (bias - b) ** 2)

    best = distance(mine.positive, mine.negative, mine.bias)
    grid = np.concatenate([np.geomspace(1e-9, 0.99, 60), np.linspace(1.0, 2.0, 9)]) / classes
    for mu in grid:
        for decay_b in [math.inf] if b is None else [*np.geomspace(1e-9, 1e3, 40)]:
            if classes == 3 and math.isinf(decay_b):
                continue
            m = bce(mu, classes, decay_b)
            assert distance(m.p - m.bias, m.q - m.bias, m.bias) >= best - 1e-9


def test_a_thousand_classes_with_small_scores():
    """P = 1, Q = 0, b = -3: no model with classes apart is that near to the bias; the scores are all residual."""
    found = nearest(Observed(1000, 5000, 1.0, 0.0, -3.0, 10.0, 100.0), "bce")
    assert (found.regime, found.residual) == ("zero", pytest.approx(1.0))
    assert found.bias_residual == 0.0
    # decay_b beta = 1/K - sigma(beta)
    assert found.decay_b == pytest.approx((1 / (1 + math.exp(3.0)) - 1e-3) / 3.0)


def test_the_decay_of_a_unified_bias_is_counted_as_the_problem_does():
    """One number for the bias: its decay is K times that per class which has the same minimizer."""
    seen = Observed(10, 100, 4.0, -1.0, -2.0, 1.0, 1.0)
    per_class = nearest(seen, "bce").decay_b
    assert nearest(Observed(10, 100, 4.0, -1.0, -2.0, 1.0, 1.0, unified=True), "bce").decay_b == 10 * per_class
    rng = np.random.default_rng(0)
    H, W = rng.normal(size=(20, 4)), rng.normal(size=(5, 4))
    decays = [ufm.measure(H, np.arange(20) % 5, W, b).nearest["bce"].decay_b for b in (-2.0, [-2.0], 5 * [-2.0])]
    assert decays[0] == decays[1] == pytest.approx(5 * decays[2], rel=1e-12)

"""Normalized problems: geometry of the spheres, solves against closed forms, certificates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

import ufm
from ufm import NormalizedProblem, Problem
from ufm._base import axpy, dot
from ufm.losses import BCE, CE, Naive
from ufm.models.spheres import OnSpheres
from ufm.theory import bias_stiffness, certify_normalized, spheres

K, D, n = 4, 6, 3


def normalized(loss, bias="per_class", decay_b=0.1, gamma=2.0, **sizes):
    sizes = {"classes": K, "dim": D, "per_class": n} | sizes
    return NormalizedProblem(Problem(loss=loss, bias=bias, decay=ufm.Decay(b=decay_b), **sizes), gamma)


def point_and_direction(problem):
    keys = jax.random.split(jax.random.key(5), 2)
    space = problem.model.coordinates(problem, problem.init(keys[0]))
    point = space.inward(problem.init(keys[0]))
    return space, point, space.tangent(point, problem.init(keys[1]))


def test_gradient_and_hessian_against_differences_along_the_sphere():
    """f along the retraction: slope <grad, xi>, curvature <xi, Hess xi> (it is of second order)."""
    problem = normalized(BCE(), per_class=(4, 3, 2, 1), features="per_class")

    @jax.jit
    def everything():
        space, point, xi = point_and_direction(problem)

        def along(t):
            return space.objective(space.retract(point, axpy(t, xi, jax.tree.map(jnp.zeros_like, xi))))

        values = jax.vmap(along)(jnp.array([-1e-4, 0.0, 1e-4]))
        _, gradient = space.value_and_gradient(point)
        return values, point, xi, gradient, space.hessian(point)(xi), space.retract(point, xi)

    (left, middle, right), point, xi, gradient, product, moved = everything()
    assert isinstance(problem.model.coordinates(problem, point), OnSpheres)
    np.testing.assert_allclose(dot(gradient, xi), (right - left) / 2e-4, rtol=1e-7)
    curvature = (right - 2 * middle + left) / 1e-8
    np.testing.assert_allclose(dot(xi, product), curvature, rtol=1e-5)
    # Both stay in the tangent space, and the point on its spheres.
    for vector in (gradient, product):
        np.testing.assert_allclose(jnp.sum(vector.W * point.W, axis=1), 0.0, atol=1e-14)
        np.testing.assert_allclose(jnp.sum(vector.H * point.H, axis=0), 0.0, atol=1e-14)
    np.testing.assert_allclose(jnp.sum(moved.W**2), 1.0)


CASES = [
    pytest.param("bce", "unified", 0.0, 2.0, "etf", marks=pytest.mark.slow),
    pytest.param("bce", "unified", 0.5, 4.0, "mean-shifted", marks=pytest.mark.slow),
    ("bce", "per_class", 0.0, 4.0, "etf"),
    ("bce", "per_class", 0.1, 2.0, "etf"),
    ("bce", "per_class", 0.5, 4.0, "mean-shifted"),
    ("bce", "none", 0.0, 4.0, "mean-shifted"),
    ("ce", "per_class", 0.1, 8.0, "etf"),
]


@pytest.mark.parametrize(("loss", "bias", "decay_b", "gamma", "regime"), CASES)
def test_solves_reach_the_closed_form_and_are_certified(loss, bias, decay_b, gamma, regime):
    problem = normalized(ufm.losses.parse(loss), bias, decay_b, gamma)
    exact = spheres.bce(gamma, K, float(bias_stiffness(problem))) if loss == "bce" else spheres.ce(gamma, K)
    solution = ufm.solve(problem)
    assert solution.status_name == "converged"
    assert float(solution.value) == pytest.approx(exact.value, rel=1e-11)
    certificate = certify_normalized(problem, solution.params)
    assert -certificate.rounding <= certificate.gap < 1e-11
    assert exact.regime == regime
    if bias != "none" and loss == "bce":
        np.testing.assert_allclose(solution.params.b, exact.bias, atol=1e-7)

    # The point itself: logits p and q, and Sum w = 0 iff there is no mean mode.
    W, H = solution.params.W, solution.params.H
    np.testing.assert_allclose(jnp.linalg.norm(W, axis=1), 1.0)
    X = W @ H[:, ::n]
    shared = np.eye(K) * (exact.p - exact.q) + exact.q - exact.bias
    np.testing.assert_allclose(gamma * X, shared, atol=1e-5)
    assert (np.linalg.norm(W.sum(axis=0)) < 1e-5) == (regime == "etf")


@pytest.mark.parametrize(
    ("loss", "bias", "decay_b", "gamma", "regime"), [(*c.values,) if hasattr(c, "values") else c for c in CASES]
)
def test_the_minimizer_is_a_point_of_the_model(loss, bias, decay_b, gamma, regime):
    problem = normalized(ufm.losses.parse(loss), bias, decay_b, gamma)
    found = ufm.theory.minimizer(problem, jax.random.key(3))
    assert (found.exact, found.reason, found.regime) == (True, "", regime)
    assert float(problem.objective(found.params)) == pytest.approx(found.value, rel=1e-14)
    np.testing.assert_allclose(jnp.linalg.norm(found.params.W, axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(jnp.linalg.norm(found.params.H, axis=0), 1.0, rtol=1e-14)


def test_a_wrong_closed_form_on_spheres_is_not_exact(monkeypatch):
    problem = normalized(BCE(), "per_class", 0.1, 2.0)
    right = spheres.bce
    monkeypatch.setattr(spheres, "bce", lambda gamma, K, L: right(gamma, K, 1.01 * L))
    assert not ufm.theory.minimizer(problem).exact


def test_naive_is_flat_over_all_classifiers_that_sum_to_zero():
    problem = normalized(Naive(), "none", gamma=3.0)
    exact = spheres.naive(3.0, K).value
    U = ufm.geometry.simplex_etf(K, D)
    assert float(problem.objective(ufm.Params(U, U.T[:, problem.labels]))) == pytest.approx(exact, abs=1e-12)
    # Two pairs of opposite vectors: no ETF, and just as good.
    pairs = jnp.eye(2, D)[jnp.array([0, 0, 1, 1])] * jnp.array([1.0, -1.0, 1.0, -1.0])[:, None]
    flat = ufm.Params(pairs, pairs.T[:, problem.labels])
    assert float(problem.objective(flat)) == pytest.approx(exact, abs=1e-12)
    assert abs(certify_normalized(problem, flat).gap) < 1e-12


@pytest.mark.parametrize(("mu", "bounded"), [(0.5, True), (0.2, False)])
def test_naive_with_decays_is_bounded_iff_mu_is_large(mu, bounded):
    """Along the top singular pair of the gradient, W and H of size t, f = (mu - 1/(K-1)) t^2 times a constant."""
    problem = Problem(K, D, n, Naive(), ufm.Decay(mu / n**0.5, mu / n**0.5), "none")
    U = ufm.geometry.simplex_etf(K, D)
    far = [float(problem.objective(ufm.Params(n**0.25 * t * U, t / n**0.25 * U.T[:, problem.labels]))) for t in (1, 9)]
    assert (far[1] >= far[0]) == bounded
    assert ((K - 1) * mu >= 1) == bounded


def test_certificate_never_exceeds_the_minimum():
    """Any point, any counts, any dimension: a lower bound; and an error planted in it shows."""
    problem = normalized(BCE(), "per_class", 0.1, 2.0)
    exact = spheres.bce(2.0, K, K * 0.1).value
    for seed in range(3):
        bound = certify_normalized(problem, problem.init(jax.random.key(seed))).lower_bound
        assert bound <= exact + 1e-12
    best = ufm.solve(problem).params
    wrong = ufm.Params(best.W.at[0].set(best.W[1]), best.H, best.b)
    assert certify_normalized(problem, wrong).gap > 0.1


@pytest.mark.slow
def test_imbalanced_classes_are_certified_too():
    problem = normalized(CE(), "per_class", 0.1, 4.0, per_class=(5, 3, 1, 1))
    solution = ufm.solve(problem)
    assert abs(certify_normalized(problem, solution.params).gap) < 1e-11


@pytest.mark.slow
def test_naive_is_solved():
    problem = normalized(Naive(), "none", gamma=3.0)
    assert float(ufm.solve(problem).value) == pytest.approx(spheres.naive(3.0, K).value, abs=1e-10)


def test_a_unified_bias_is_k_biases_with_a_kth_of_the_decay():
    one, many = normalized(BCE(), "unified", 0.4), normalized(BCE(), "per_class", 0.4 / K)
    point = one.init(jax.random.key(0), bias_mean=-1.0)
    spread = ufm.Params(point.W, point.H, jnp.full(K, point.b))
    assert float(one.objective(point)) == pytest.approx(float(many.objective(spread)), rel=1e-14)
    assert float(bias_stiffness(one)) == pytest.approx(float(bias_stiffness(many)))


@pytest.mark.slow
def test_float32_solve_under_x64():
    problem = normalized(BCE(), "per_class", 0.1, 2.0)
    single = ufm.solve(problem, dtype="float32")
    assert single.params.W.dtype == np.float32
    assert float(single.value) == pytest.approx(spheres.bce(2.0, K, K * 0.1).value, rel=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-8.0, 64.0), (0.2, 0.3), (-300.0, 300.0)])
def test_corollary_1(classes, low, high):
    t = spheres.corollary_1(low, high, classes)
    root = brentq(lambda t: (classes - 1) * expit(low - t) - expit(t - high), -700, 700, xtol=1e-13)
    assert t == pytest.approx(root, abs=1e-9)
    assert (low < t < high) == (high - low > np.log(2 * classes - 3))
    if low == -high:  # UniTSFace
        gamma, k = high, classes
        e = np.exp(-gamma)
        naive = np.log(((k - 2) * e + np.sqrt((k - 2) ** 2 * e**2 + 4 * (k - 1))) / 2)
        assert t == pytest.approx(naive, abs=1e-9)


@pytest.mark.parametrize("stiffness", [0.0, 0.01, 1.0, 50.0, np.inf])
@pytest.mark.parametrize("gamma", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_bce_closed_form_minimizes_the_scalar_problem(classes, gamma, stiffness):
    """Against a brute-force minimum over (x, y, b), mean modes of either sign."""
    exact = spheres.bce(gamma, classes, stiffness)

    def value(x, y, b):
        p, q = gamma * (x - y) + b, gamma * (-x / (classes - 1) - y) + b
        cost = 0.0 if np.isinf(stiffness) else 0.5 * stiffness * b * b
        return np.logaddexp(0, -p) + (classes - 1) * np.logaddexp(0, q) + cost

    assert value(exact.etf, exact.mean, exact.bias) == pytest.approx(exact.value, rel=1e-12)
    biases = exact.bias + (np.linspace(-3, 3, 61) if np.isfinite(stiffness) else np.zeros(1))
    x, y, b = (a.ravel() for a in np.meshgrid(np.linspace(0, 1, 41), np.linspace(-1, 1, 81), biases))
    reached = x + np.abs(y) <= 1 + 1e-12
    assert np.min(value(x, y, b)[reached]) >= exact.value - 1e-12
    if np.isfinite(stiffness):  # the condition is one at the ETF, with the bias that is best there
        b = spheres.optimal_bias(gamma, -gamma / (classes - 1), classes, stiffness)
        room = expit(-gamma - b) + expit(b - gamma / (classes - 1))
        assert (stiffness * abs(b) <= room) == (exact.regime == "etf")


def test_learned_bias_is_the_uniform_threshold():
    """Corollary 1 on a solved problem: minus the learned bias lies where all scores are classified."""
    from ufm.networks import uniform

    problem = normalized(BCE(), "per_class", 0.0, 4.0)
    solution = ufm.solve(problem)
    scores = 4.0 * solution.params.W @ solution.params.H
    e = uniform.extremes(scores, problem.labels)
    best = uniform.uniform_accuracy(e)
    threshold = -float(jnp.mean(solution.params.b))
    assert best.accuracy == 1.0
    assert best.low < threshold < best.high
    assert threshold == pytest.approx(spheres.corollary_1(-4.0 / (K - 1), 4.0, K), abs=1e-7)
    assert uniform.accuracy_at(e, threshold) == 1.0


@pytest.mark.parametrize("logit", [1e4, -1e4, 100.0])
@pytest.mark.parametrize("loss", [CE(), BCE(), Naive()])
def test_losses_are_finite_in_float32(loss, logit):
    z = jnp.asarray([logit, 0.0, -logit], jnp.float32)
    for label in range(3):
        value, gradient = jax.value_and_grad(loss)(z, label)
        assert bool(jnp.all(jnp.isfinite(jnp.append(gradient, value))))


def test_naive_conjugate_and_value_at():
    z = jnp.array([1.0, -2.0, 0.5, 3.0])
    slope = jax.grad(Naive())(z, 2)
    assert float(Naive()(z, 2)) == pytest.approx(-0.5 + (1 - 2 + 3) / 3)
    assert float(Naive().conjugate(slope, 2)) == 0.0
    assert float(Naive().conjugate(0.9 * slope, 2)) == np.inf
    assert float(Naive()(jnp.array([1.5, 0.5, 0.5, 0.5]), 0)) == pytest.approx(Naive().at(1.5, 0.5, 4))

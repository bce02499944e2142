"""Non-negative features: bounds held exactly, dead classes brought back, copositive certificates, closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm import Decay, Params, Problem, Status, losses, models
from ufm.models._copositive import dominating
from ufm.solvers import axes
from ufm.theory import certify, minimizer, nonnegative

CE = Problem(4, 5, (60, 20, 5, 5), losses.CE(), Decay(0.01, 0.01, 0.01), "none", model=models.Nonnegative())

OWNED = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0.0]])
DEAD = Params(jnp.asarray(np.where(OWNED.T > 0, 1.0, -0.2)), jnp.asarray(OWNED))
"""The first class has no feature, and each of the four axes belongs to another."""


def with_mutation(monkeypatch, where, name, wrong):
    right = getattr(where, name)
    monkeypatch.setattr(where, name, lambda *given, **options: wrong(right, *given, **options))


# The solver ----------------------------------------------------------------------------------------


def test_no_feature_is_ever_negative_and_the_slopes_there_are_not():
    """Stationarity by its definition, on the plain gradient: zero where H > 0, at least zero where H = 0."""
    problem = Problem(3, 5, (6, 3, 1), losses.BCE(), Decay(0.02, 0.03, 0.1), model=models.Nonnegative())
    for eliminate in (True, False):
        solution = ufm.solve(problem, eliminate=eliminate)
        assert solution.converged
        slope, H = jax.grad(problem.objective)(solution.params), np.asarray(solution.params.H)
        assert H.min() == 0
        assert np.abs(np.asarray(slope.H))[H > 0].max() < 1e-10
        assert np.asarray(slope.H)[H == 0].min() > -1e-10
        assert max(float(jnp.abs(slope.W).max()), float(jnp.abs(slope.b).max())) < 1e-10


def test_a_dead_class_comes_back():
    """From a point where the first class has no feature and every axis belongs to others, at d = K."""
    problem = dataclasses.replace(CE, dim=4, features="per_class")
    kept = ufm.solve(problem, init=DEAD, saddles="keep")
    left = ufm.solve(problem, init=DEAD)
    assert np.all(np.asarray(kept.params.H)[:, 0] == 0)
    assert certify(problem, kept.params).gap > 1e-2
    assert left.converged
    assert certify(problem, left.params).gap < 1e-12


def test_freeing_an_axis_changes_no_value():
    """Both ways: two axes of one class united, and the root of the Gram matrix, at a stationary point."""
    problem = dataclasses.replace(CE, features="per_class", dim=6)
    solution = ufm.solve(problem, saddles="keep")
    space = problem.model.coordinates(problem, solution.params)
    point = space.inward(solution.params)
    G, s = problem.model.spectral(problem, jax.grad(problem.risk)(problem.logits(solution.params)))
    for other, axis in (axes.freed(point), axes.rooted(point, G / s)):
        np.testing.assert_allclose(space.objective(other), solution.value, rtol=1e-10)
        assert np.linalg.norm(other.H[axis]) < 1e-10


def test_what_no_free_axis_can_leave_is_a_local_minimum(monkeypatch):
    """Were no axis ever free: the status says so, of a solve and of a lane."""
    problem = dataclasses.replace(CE, dim=4, features="per_class")
    kept = ufm.solve(problem, init=DEAD, saddles="keep")

    def shut(problem, space, point, lengths):
        return point, space.objective(point), axes.way_down(problem, space, point, lengths)[2]

    monkeypatch.setattr(ufm.solvers.saddles, "axes", type("Shut", (), {"way_down": staticmethod(shut)}))
    assert ufm.solvers.judged(problem, kept).status == Status.LOCAL_MINIMUM


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: {"init": Params(x.W, x.H - 1.0, x.b)}, ["init.H", "features >= 0"]),
        (lambda x: {"solver": "lbfgs"}, ["model", "lbfgs"]),
        (lambda x: {"solver": "lifted"}, ["model", "lifted"]),
    ],
)
def test_refusals(change, words):
    with pytest.raises(ufm.InputError) as caught:
        ufm.solve(CE, **change(CE.init(0)))
    for word in words:
        assert word in str(caught.value)


# The certificate -----------------------------------------------------------------------------------


def test_the_positive_part_alone_leaves_a_gap():
    """n = (120, 30, 15, 1), N s = 3.4, decay_b = 1e-3: f = .6931798444, while max(A, 0) gives .6925033 (theory)."""
    problem = Problem(4, 6, (120, 30, 15, 1), losses.CE(), Decay(3.4 / 166, 3.4 / 166, 1e-3), features="per_class")
    problem = dataclasses.replace(problem, model=models.Nonnegative())
    solution = ufm.solve(problem)
    found = certify(problem, solution.params)
    np.testing.assert_allclose(found.value, 0.6931798444, atol=5e-11)
    assert found.gap < 1e-10
    assert np.all(np.asarray(solution.params.H)[:, 0] == 0)  # the majority is dead


def test_a_dominating_matrix_dominates():
    rng = np.random.default_rng(0)
    for K in (2, 4, 7):
        V = rng.normal(size=(K, K))
        A = jnp.asarray(V.T @ V)
        S = np.asarray(dominating(A, jnp.linalg.eigvalsh(A)[-1], jnp.asarray(rng.uniform(size=(K, K)))))
        assert np.all(np.asarray(A) <= S)
        np.testing.assert_array_equal(S, S.T)
        h = np.abs(rng.normal(size=(K, 200)))
        worst = (h * (np.asarray(A) @ h)).sum(axis=0) / (h**2).sum(axis=0)
        assert worst.max() <= np.linalg.eigvalsh(S)[-1]


def test_samples_and_classes_have_one_bound():
    problem = Problem(3, 4, (4, 2, 1), losses.BCE(), Decay(0.02, 0.03, 0.1), model=models.Nonnegative())
    short = dataclasses.replace(problem, features="per_class")
    x = ufm.solve(short).params
    full = Params(x.W, x.H[:, problem.labels], x.b)
    np.testing.assert_allclose(certify(problem, full).lower_bound, certify(short, x).lower_bound, rtol=1e-13)


# Closed forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", [0.001, 0.01, 0.03])
def test_dang(price):
    """Any counts, no bias: the formula is the value at the solution, to rounding, and dead classes are dead."""
    problem = dataclasses.replace(CE, decay=Decay(price, price, 0.0))
    gaps, value = nonnegative.unbiased_ce(problem.counts, price)
    solution = ufm.solve(problem)
    np.testing.assert_allclose(solution.value, value, rtol=1e-13)
    means = np.asarray(solution.params.H)[:, [0, 60, 80, 85]]
    np.testing.assert_array_equal(np.linalg.norm(means, axis=0) > 1e-6, gaps > 0)
    np.testing.assert_array_equal(nonnegative.dead(problem, np.zeros(4)), gaps == 0)


@pytest.mark.parametrize(
    ("loss", "bias", "regime"),
    [
        ("bce", "per_class", "orthogonal frame"),
        ("bce", "none", "mean-shifted"),
        ("mse", "per_class", "orthogonal frame"),
    ],
)
def test_balanced_closed_forms_are_exact(loss, bias, regime):
    classes = 4 if bias == "per_class" else 6  # without bias BCE has a frame up to four classes
    problem = Problem(classes, classes, 3, losses.parse(loss), Decay(0.01, 0.02, 0.05), bias)
    found = minimizer(dataclasses.replace(problem, model=models.Nonnegative()))
    assert (found.regime, found.exact, found.reason) == (regime, True, "")
    costs = found.value - minimizer(problem).value
    assert costs > 1e-6 if regime == "orthogonal frame" else abs(costs) < 1e-14
    assert np.asarray(found.params.H).min() >= 0


def test_orthogonality_ends_with_a_bias():
    """n = (100, 100, 4, 4), N s = 2.3, decay_b = 1e-3: .6013398175 with merged minorities, .6045308806 without."""
    decay = Decay(2.3 / 208, 2.3 / 208, 1e-3)
    problem = Problem(4, 5, (100, 100, 4, 4), losses.CE(), decay, features="per_class", model=models.Nonnegative())
    best, solution = minimizer(problem), ufm.solve(problem)
    np.testing.assert_allclose([best.value, solution.value], [0.6045308806, 0.6013398175], atol=5e-11)
    assert not best.exact
    assert "certificate" in best.reason
    assert best.lower_bound <= solution.value
    assert certify(problem, solution.params).gap < 1e-10
    H = np.asarray(solution.params.H)
    assert H[:, 2] @ H[:, 3] / np.linalg.norm(H[:, 2]) / np.linalg.norm(H[:, 3]) > 1 - 1e-9


def test_a_wrong_cost_of_a_frame_is_seen(monkeypatch):
    problem = Problem(4, 5, 3, losses.BCE(), Decay(0.01, 0.02, 0.05), model=models.Nonnegative())
    with_mutation(monkeypatch, nonnegative, "frame_cost", lambda f, a, c, K: f(a, c, K - 1))
    found = minimizer(problem)
    assert not found.exact
    assert "another" in found.reason


def test_the_spectrum_on_the_face_is_the_dense_one():
    """A feature per sample: W, b and the positive entries of H, at a point that all samples of a class share."""
    problem = Problem(3, 4, (3, 2, 1), losses.CE(), Decay(0.02, 0.03, 0.1), "none", model=models.Nonnegative())
    spectrum, x = ufm.theory.hessian_spectrum(problem), minimizer(problem).params
    point, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, x))
    free = np.concatenate([np.ones(x.W.size, bool), (x.H > 0).ravel()])
    dense = np.asarray(jax.hessian(lambda v: problem.objective(unravel(v)))(point))[np.ix_(free, free)]
    np.testing.assert_allclose(spectrum.expand(), np.linalg.eigvalsh(dense), atol=1e-14)
    assert (spectrum.index, spectrum.rotations, spectrum.size) == (0, 0, 12 + 6)

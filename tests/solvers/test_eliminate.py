"""Features eliminated, or free with a Hessian split by class: both against the plain Hessian and each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import ufm
from ufm import Decay, Params, Problem, losses
from ufm._base import norm
from ufm.models import Scaled
from ufm.solvers import Newton, classwise, eliminates, solve
from ufm.theory import certify

BALANCED = Problem(4, 6, 5, losses.BCE(), Decay(0.02, 0.03, 0.05))
UNEQUAL = Problem(4, 6, (1, 7, 2, 10), losses.CE(), Decay(0.01, 0.02, 0.03), bias="unified")
PROBLEMS = pytest.mark.parametrize("problem", [BALANCED, UNEQUAL], ids=["balanced", "unequal"])


def collapsed(problem, seed=0):
    """A random point whose features agree within classes, in scaled variables, with its split."""
    params = problem.init(jax.random.key(seed))
    H = jnp.take(params.H[:, : problem.classes], jnp.asarray(problem.labels), axis=1)
    space = Scaled.of(problem, params).inflated(jnp.asarray(1.7))
    return space, classwise.Classwise(space), space.inward(Params(params.W, H, params.b))


def assert_close(a, b, rtol=1e-12):
    a, b = ravel_pytree(a)[0], ravel_pytree(b)[0]
    np.testing.assert_allclose(a, b, atol=rtol * float(jnp.max(jnp.abs(b))))


@PROBLEMS
def test_at_collapse_the_two_blocks_are_the_hessian(problem):
    space, split, point = collapsed(problem)
    hessian, means = space.hessian(point), split.means(point)
    direction = space.problem.init(jax.random.key(1))
    along = split.means(direction)
    embedded = Params(along.W, split.spread(along), along.b)
    product = split.mean_hessian(means)(along)
    assert_close(hessian(embedded), Params(product.W, split.spread(product), product.b))
    within = direction.H - split.spread(along)
    still = Params(jnp.zeros_like(point.W), within, jnp.zeros_like(point.b))
    assert_close(hessian(still), Params(still.W, split.deviation_hessian(means)(within), still.b))


@PROBLEMS
def test_away_from_collapse_they_are_not(problem):
    """The comparison above can fail: features that differ within a class are told apart."""
    space, split, point = collapsed(problem)
    point = Params(point.W, point.H + jax.random.normal(jax.random.key(2), point.H.shape), point.b)
    along = split.means(space.problem.init(jax.random.key(1)))
    full = space.hessian(point)(Params(along.W, split.spread(along), along.b))
    assert float(norm(split.means(full)) / norm(split.mean_hessian(split.means(point))(along))) != pytest.approx(
        1, rel=1e-3
    )


@PROBLEMS
def test_means_and_spread_keep_lengths_and_are_adjoint(problem):
    _, split, point = collapsed(problem)
    means = split.means(point)
    np.testing.assert_allclose(norm(means), norm(point), rtol=1e-14)
    other = jax.random.normal(jax.random.key(3), point.H.shape)
    left = jnp.vdot(split.spread(means), other)
    right = jnp.vdot(means.H, split.means(Params(point.W, other, point.b)).H)
    np.testing.assert_allclose(left, right, rtol=1e-12)


@PROBLEMS
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_eliminated_equals_free(problem, solver):
    short, free = (solve(problem, 1, solver, eliminate=e) for e in (True, False))
    assert short.converged
    assert free.converged
    np.testing.assert_allclose(short.value, free.value, rtol=1e-12)
    gradient = jax.grad(problem.objective)(short.params)
    np.testing.assert_allclose(short.grad_norm, norm(gradient), atol=1e-14)
    np.testing.assert_allclose(short.value, problem.objective(short.params), rtol=1e-14)
    assert certify(problem, short.params).gap < 1e-11


def test_a_solve_cut_short_reports_the_full_problem():
    solution = solve(UNEQUAL, 0, Newton(max_steps=3))
    gradient = jax.grad(UNEQUAL.objective)(solution.params)
    assert solution.status_name == "max steps"
    np.testing.assert_allclose(solution.value, UNEQUAL.objective(solution.params), rtol=1e-13)
    np.testing.assert_allclose(solution.grad_norm, norm(gradient), rtol=1e-10)


def test_what_is_eliminated():
    focal = dataclasses.replace(BALANCED, loss=losses.Focal(gamma=2.0))
    assert eliminates(None, BALANCED)
    assert not eliminates(None, focal)
    assert not eliminates("sgd", BALANCED)
    assert not eliminates(None, dataclasses.replace(BALANCED, features="per_class"))
    assert not eliminates(None, dataclasses.replace(BALANCED, per_class=1))


def test_free_features_stay_free_until_they_collapse():
    early = solve(BALANCED, 0, Newton(max_steps=1), eliminate=False)
    late = solve(BALANCED, 0, eliminate=False)
    first, last = (ufm.metrics.collapse(s.params.W, s.params.H, BALANCED.labels, s.params.b).nc1 for s in (early, late))
    assert first > 1e-3
    assert last < 1e-15


@pytest.mark.parametrize("loss", [losses.CE(), losses.BCE()], ids=str)
def test_cost_in_full_size_gradients(loss):
    """Counts, not times: 60 with every feature free, 15 with the features eliminated."""
    problem = Problem(10, 64, 50, loss, Decay(5e-4, 5e-4, 5e-4))
    start = problem.init(jax.random.key(0))
    free, short = (solve(problem, init=start, eliminate=e) for e in (False, True))
    assert free.converged
    assert short.converged
    assert float(free.evaluations) <= 60
    assert float(short.evaluations) <= 15


def test_a_warm_start_is_kept():
    problem = Problem(4, 6, 3, losses.CE(), Decay(1e-6, 1e-6, 1e-6))
    found = solve(problem, 0, eliminate=False)
    nudged = jax.tree.map(lambda x: x * (1 + 1e-7), found.params)
    again = solve(problem, init=nudged, eliminate=False)
    assert int(again.steps) <= 4
    assert float(norm(jax.tree.map(jnp.subtract, again.params, found.params))) < 1e-4 * float(norm(found.params))


def test_numbers_do_not_recompile():
    """Decays, hyper-parameters, counts, weights and offsets of the same shape compile nothing, certificate included."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )

    def run(counts, decay, alpha, weights, offset, dim=5):
        loss, decays = losses.LabelSmoothing(alpha=alpha), Decay(decay, 0.01, 0.02)
        problem = Problem(3, dim, counts, loss, decays, weights=weights, offset=offset)
        found = solve(problem)
        certificate = certify(problem, found.params)
        assert certificate.gap <= 1e-11
        return float(certificate.value)

    values = [run((4, 1, 2), 0.01, 0.1, (0.5, 0.3, 0.2), (0.0, 1.0, 0.5))]
    before = len(compiled)
    values.append(run((9, 30, 1), 0.02, 0.2, (0.1, 0.3, 0.9), (2.0, 1.0, 0.0)))
    values.append(run((2, 2, 1), 0.02, 0.2, (0.1, 0.3, 0.9), (2.0, 1.0, 0.0)))
    assert len(compiled) == before
    assert len(set(values)) == 3
    run((9, 30, 1), 0.02, 0.2, (0.1, 0.3, 0.9), (2.0, 1.0, 0.0), dim=6)
    assert len(compiled) > before  # the counter counts

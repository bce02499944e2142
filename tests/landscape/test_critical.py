"""The finder, the escape direction, derivative checks, paths and rates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm.landscape import (
    check_derivatives,
    examine,
    find_critical_points,
    gradient_norms,
    hvp,
    measured_rate,
    minima_not_global,
    path,
    rate,
    what_is_known,
)
from ufm.landscape.rates import best_rates
from ufm.theory import hessian_spectrum, merged, minimizer

PROBLEM = ufm.Problem(3, 4, 1, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.02, 0.05))


def test_finder_sees_every_rung_and_the_promise():
    points = find_critical_points(PROBLEM, 24)
    # Besides the merged classes there is one that the ladder lacks: two classes collapse to opposite
    # features, the third stays at the origin and lives on its bias.
    assert [p.groups for p in points] == [(1, 1, 1), (1, 1, 1), (2, 1), (3,)]
    assert [p.index for p in points] == [0, 3, 4, 8]
    assert abs(float(jnp.linalg.norm(points[1].params.W, axis=1).min())) < 1e-8
    assert points[0].kind == "global minimum"
    assert abs(points[2].value - merged(PROBLEM, (2, 1)).value) < 1e-10
    assert all(p.kernel == p.rotations for p in points)
    assert_strict_saddles(points)
    # A straight way from the top rung to the minimum goes down only.
    _, values = path(PROBLEM, points[-1].params, points[0].params)
    assert np.all(np.diff(values) < 0)


def assert_strict_saddles(points):
    """Zhu et al. 2021: whatever is not global descends, at least as fast as the explicit direction."""
    for p in points:
        assert p.certified_global or p.kind == "strict saddle"
        assert p.smallest <= p.escape.promised + 1e-10
        assert abs(p.escape.measured - p.escape.promised) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "K", "least"),
    [(ufm.losses.CE(), 3, 4), (ufm.losses.CE(), 4, 9), (ufm.losses.BCE(), 4, 15)],
    ids=["ce3", "ce4", "bce4"],
)
def test_every_point_of_a_long_search_is_global_or_a_strict_saddle(loss, K, least):
    for decay in (ufm.Decay(0.01, 0.02, 0.05), ufm.Decay(0.005, 0.005, 0.5)):
        problem = ufm.Problem(K, K + 1, 1, loss=loss, decay=decay)
        points = find_critical_points(problem, 200)
        assert len(points) >= least
        assert_strict_saddles(points)
        assert sum(p.certified_global for p in points) == 1


def test_fewer_dimensions_than_classes():
    # d = K - 1 and BCE beyond the threshold of the mean mode: the ETF is a local minimum, and so is another
    # point, whose pairs of classes lie opposite each other. No theorem excludes either.
    problem = ufm.Problem(4, 3, 1, loss=ufm.losses.BCE(), decay=ufm.Decay(5e-3, 1e-2, 5e-2))
    points = find_critical_points(problem, 24)
    etf = minimizer(problem)
    assert not etf.exact
    assert abs(points[0].value - etf.value) < 1e-10
    assert [p.index for p in minima_not_global(points)] == [0]
    assert points[0].kind == "local minimum, not certified"
    assert points[0].spectrum.kernel == points[0].kernel == points[0].rotations == 3
    assert "not proven global" in what_is_known(problem)[1]
    low = [p for p in points if np.isfinite(p.escape.promised)]
    assert low
    assert all(p.smallest <= p.escape.promised + 1e-10 for p in low)


def test_what_is_known_names_the_dimension():
    for dim, said in ((9, "strict saddle (Zhu"), (4, "d = 4 = K"), (3, "d = 3 = K-1"), (2, "d = 2 < K-1 = 3")):
        assert said in " ".join(what_is_known(ufm.Problem(4, dim, 1, loss=ufm.losses.CE())))
    assert "needs a convex loss" in what_is_known(ufm.Problem(4, 9, 1, loss=ufm.losses.Focal(2.0)))[0]


@pytest.mark.parametrize("bias", ["per_class", "unified", "none"])
def test_products_are_those_of_autodiff(bias):
    problem = ufm.Problem(3, 4, (2, 1, 3), loss=ufm.losses.BCE(), bias=bias, features="per_class")
    point, direction = problem.init(jax.random.key(0)), problem.init(jax.random.key(1))
    true = jax.jvp(jax.grad(problem.objective), (point,), (direction,))[1]
    for mine, theirs in zip(*map(jax.tree.leaves, (hvp(problem, point, direction), true)), strict=True):
        assert float(jnp.max(jnp.abs(mine - theirs))) < 1e-14


def test_not_critical_is_said():
    point = examine(PROBLEM, PROBLEM.init(jax.random.key(0)))
    assert point.kind == "not critical"
    assert point.grad_norm > 1e-3


def test_escape_with_features_per_class():
    problem = dataclasses.replace(PROBLEM, per_class=7, features="per_class")
    origin = jax.tree.map(jnp.zeros_like, problem.init(jax.random.key(0)))
    point = examine(problem, origin)
    assert point.index > 0
    assert abs(point.escape.measured - point.escape.promised) < 1e-12
    assert point.smallest <= point.escape.promised < 0


@pytest.mark.parametrize("loss", [ufm.losses.CE(), ufm.losses.BCE()], ids=str)
def test_measured_rates_are_those_of_the_spectrum(loss):
    problem = ufm.Problem(3, 4, 1, loss=loss, decay=ufm.Decay(2e-2, 2e-2, 5e-2))
    spectrum = hessian_spectrum(problem)
    noise = problem.init(jax.random.key(3))
    start = jax.tree.map(lambda a, b: jnp.asarray(a) + 1e-3 * b, minimizer(problem).params, noise)
    best = best_rates(spectrum)
    for r in best.values():
        assert abs(rate(spectrum, r.method, r.lr, r.momentum).rate - r.rate) < 1e-6
    # Nesterov's best parameters mix t rate^t and (-rate)^t, which no run in float64 is long enough to
    # separate to 2 %; with less momentum its slowest mode is a simple real root.
    runs = [(best["gradient"], False), (best["heavy ball"], True)]
    runs += [(rate(spectrum, "nesterov", 1.0 / spectrum.largest, 0.2), False)]
    runs += [(rate(spectrum, "gradient", 0.5 / spectrum.largest), False)]
    for r, double_root in runs:
        measured = measured_rate(gradient_norms(problem, start, r, 3000), double_root=double_root)
        assert abs(np.log(measured) / np.log(r.rate) - 1) < 0.02
    # Mutation: a step size that is off by a tenth is another rate.
    wrong = rate(spectrum, "gradient", 0.55 / spectrum.largest).rate
    assert abs(np.log(measured) / np.log(wrong) - 1) > 0.05


@pytest.mark.parametrize("loss", [ufm.losses.CE(), ufm.losses.MSE(2.0, 3.0), ufm.losses.Focal(2.0)], ids=str)
def test_right_derivatives_pass(loss):
    assert check_derivatives(loss, 4).verdict == "ok"


def test_wrong_derivatives_are_caught():
    def hidden(z, k):
        return jnp.sum(jnp.exp(z) * jax.lax.stop_gradient(z))

    @jax.custom_jvp
    def bump(z):
        return jnp.sum(jnp.sin(z))

    bump.defjvp(lambda p, t: (bump(p[0]), jnp.sum(jax.lax.stop_gradient(jnp.cos(p[0])) * t[0])))
    assert check_derivatives(hidden).verdict.startswith("gradient is wrong")
    assert check_derivatives(lambda z, k: bump(z)).verdict.startswith("Hessian is wrong")
    assert check_derivatives(lambda z, k: jnp.log(z[0])).verdict == "values or derivatives are not finite"

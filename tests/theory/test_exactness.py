"""`minimizer(...).exact` is computed: value, objective at its params and certificate agree, or it says why not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm import Decay, Problem, losses
from ufm._base import in_float64
from ufm.theory import NoClosedForm, certify, hessian_spectrum, minimizer, predict, reduction, symmetric_certificate
from ufm.theory.collapsed import collapsed_spectrum

module = __import__("sys").modules["ufm.theory.minimizer"]  # the function has the module's name


def true_class(z, k):
    return jnp.arange(z.size, dtype=jnp.int32) == jnp.asarray(k, jnp.int32)


def sigmoids(z, k):
    """Smoothed errors, one against the rest: symmetric and not convex."""
    return jnp.sum(jax.nn.sigmoid(jnp.where(true_class(z, k), -z, z)))


def complementary(z, k):
    """Cross-entropy to the mean of all labels but the given one: every other class is right."""
    return jax.nn.logsumexp(z) - (jnp.sum(z) - z[k]) / (z.size - 1)


def unstable(z, k):
    return -jnp.log(jnp.exp(z) / jnp.exp(z).sum())[k]


# Symmetry is a promise -------------------------------------------------------------------------


def by_class(weights):
    return lambda z, k: jnp.asarray(weights, z.dtype)[k] * losses.CE()(z, k)


def by_distance(z, k):
    """Ordered classes: soft labels on the neighbors, on a circle, so that only rotations keep it."""
    soft = jnp.roll(jnp.asarray([0.8, 0.1] + [0.0] * (z.size - 3) + [0.1], z.dtype), k)
    return jax.nn.logsumexp(z) - soft @ z


def soft_labels(z, k):
    """Class 4 alone has a soft label."""
    return losses.CE()(z, k) + jnp.where(k == 4, 0.2, 0.0) * (z[k] - jnp.mean(z))


@pytest.mark.parametrize(
    ("function", "classes"),
    [
        (by_class((3.0, 0.1, 0.1)), 3),
        (by_class(np.where(np.arange(90) == 80, 2.0, 1.0)), 90),
        (by_distance, 6),
        (soft_labels, 7),
    ],
    ids=["weights", "one of 90", "ordered", "soft"],
)
def test_a_loss_that_tells_classes_apart_has_no_closed_form(function, classes):
    promises = {"convex": True, "infimum": 0.0, "name": "mine"}
    problem = Problem(classes, classes + 1, 3, losses.custom(function, **promises), Decay(10.0, 10.0, 10.0))
    with pytest.raises(NoClosedForm, match="loss = mine: no closed form for a loss that tells classes apart"):
        minimizer(problem)
    assert predict(problem) is None
    false = dataclasses.replace(problem, loss=losses.custom(function, symmetric=True, **promises))
    with pytest.raises(ufm.InputError, match="loss mine: symmetric = True: must be False"):
        minimizer(false)


@pytest.mark.parametrize("classes", [2, 3, 70])
def test_a_kept_promise_of_symmetry_passes(classes):
    for function in (complementary, sigmoids, losses.CE(), losses.MSE(2.0, 3.0), losses.Focal(2.0)):
        losses.custom(lambda z, k, f=function: f(z, k), symmetric=True).check(classes)


# What the search must not miss -----------------------------------------------------------------


def test_the_gap_may_be_negative():
    """Complementary labels: the features of a class point away from its own row of W."""
    loss = losses.custom(complementary, convex=True, shift_invariant=True, symmetric=True, infimum=0.0)
    problem = Problem(4, 6, 3, loss, Decay(0.01, 0.01, 0.01))
    found = minimizer(problem)
    assert (found.exact, found.regime, found.logit_gap) == (True, "etf", found.gap)
    # log(3 + e^a) + 3 mu |a| has its minimum at e^a = 9 mu/(1 - 3 mu).
    mu = 0.01 * np.sqrt(3)
    assert found.gap == pytest.approx(np.log(9 * mu / (1 - 3 * mu)), rel=1e-12)
    solution = ufm.solve(problem)
    assert solution.status_name == "converged"
    assert float(solution.value) == pytest.approx(found.value, abs=1e-13)
    certificate = certify(problem, found.params)
    assert abs(certificate.gap) < 1e-13
    assert float(problem.objective(jax.tree.map(jnp.asarray, found.params))) == pytest.approx(found.value, rel=1e-14)
    # The irreps of the spectrum know the sign, too.
    exact = hessian_spectrum(problem)
    W, H = found.params.W, found.params.H[:, ::3]
    np.testing.assert_allclose(
        exact.expand(), collapsed_spectrum(problem, ufm.Params(W, H, found.params.b)).expand(), atol=1e-14
    )
    assert (exact.index, exact.reason) == (0, "")


def test_a_symmetric_loss_that_is_not_convex_is_not_exact():
    """Eight sums of sigmoids: with two classes merged the objective is lower."""
    problem = Problem(8, 9, 1, losses.custom(sigmoids, symmetric=True), Decay(0.029, 0.029), "none")
    found = minimizer(problem)
    assert found.value == pytest.approx(1.977140, abs=1e-6)
    assert not found.exact
    assert found.lower_bound == -np.inf
    assert "no lower bound is known for sigmoids" in found.reason
    assert hessian_spectrum(problem).reason == found.reason


def test_focal_loss_is_exact_where_its_bound_is_tight():
    tight = minimizer(Problem(4, 6, 3, losses.Focal(2.0), Decay(0.004, 0.007, 0.3)))
    assert tight.exact
    loose = minimizer(Problem(10, 11, 1, losses.Focal(5.0), Decay(0.12, 0.12, 0.1)))
    assert not loose.exact
    assert "certificate leaves a gap" in loose.reason
    assert loose.lower_bound < loose.value


def test_unbounded_below():
    weak, strong = (Problem(4, 6, 3, losses.Naive(), Decay(decay, decay)) for decay in (0.01, 1.0))
    with pytest.raises(NoClosedForm, match=r"loss = naive: .*unbounded below"):
        minimizer(weak)
    assert predict(weak) is None
    assert (minimizer(strong).value, minimizer(strong).exact) == (0.0, True)
    shifted = losses.custom(lambda z, k: -z[k], convex=True, symmetric=True, name="mine")
    with pytest.raises(NoClosedForm, match=r"loss = mine: .*unbounded below"):
        minimizer(Problem(4, 6, 3, shifted, Decay(0.01, 0.01), "none"))


# Losses that are not numbers -------------------------------------------------------------------


def test_a_loss_that_is_no_number_at_large_logits_is_named_with_the_logit():
    loss = losses.custom(unstable, convex=True, shift_invariant=True, symmetric=True, infimum=0.0)
    with pytest.raises(ufm.InputError, match=r"loss unstable: value at true logit 1000 .* = nan: must be a number"):
        minimizer(Problem(4, 6, 3, loss, Decay(1e-3, 1e-3, 0.01)))


def test_overflow_far_out_does_not_lead_the_search_astray():
    """log(1 - sigmoid) is -inf from 37 on, and its slope NaN: the minimizer is within, and is found."""

    def by_log(z, k):
        p = jax.nn.sigmoid(z)
        return -jnp.sum(jnp.where(true_class(z, k), jnp.log(p), jnp.log(1 - p)))

    stable, problem = (
        Problem(4, 6, 3, loss, Decay(1e-3, 1e-3, 0.01))
        for loss in (losses.BCE(), losses.custom(by_log, convex=True, symmetric=True, infimum=0.0))
    )
    right, found = minimizer(stable), minimizer(problem)
    assert right.exact
    assert found.value == pytest.approx(right.value, rel=1e-12)
    assert found.exact or "certificate leaves a gap" in found.reason


# Sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [losses.CE(), losses.BCE(), losses.MSE()], ids=str)
def test_strong_decays_leave_the_loss_at_zero(loss):
    for decay in (1e100, 1e300):
        found = minimizer(Problem(3, 4, 3, loss, Decay(decay, decay, decay)))
        assert found.value == pytest.approx(float(loss(jnp.zeros(3), 0)), rel=1e-15)
        assert (found.regime, found.exact) == ("zero", True)


def test_weak_decays_leave_nothing():
    """The product of the decays is zero in float64, that of their roots is not: a = log(1/mu - K + 1)."""
    for decay in (1e-150, 1e-280, 1e-300):
        found = minimizer(Problem(3, 4, 4, losses.CE(), Decay(decay, decay)))
        # XLA takes numbers below 2e-308 for zero: 1e-8 of the slope at 1e-300.
        assert found.gap == pytest.approx(np.log(0.5) - np.log(decay), rel=1e-14 if decay > 1e-290 else 1e-10)
        assert 0 < found.value < 1e4 * decay
        assert found.exact


def test_sizes_that_float64_does_not_hold_are_refused():
    for field, make in (
        ("decay.W", lambda: Decay(1e-301, 1.0)),
        ("decay.H", lambda: Decay(1.0, 1e301)),
        ("decay.b", lambda: Decay(1.0, 1.0, 1e-320)),
        ("per_class", lambda: Problem(3, 4, 9 * 10**18, features="per_class")),
        ("per_class", lambda: Problem(3, 4, (2**62, 2**62, 1), features="per_class")),
    ):
        with pytest.raises(ufm.InputError, match=f"{field} = "):
            make()
    most = Problem(4, 6, 2**51, losses.CE(), features="per_class")
    assert most.samples == 2**53
    assert minimizer(most).value == pytest.approx(np.log(4), rel=1e-15)


# A wrong formula is not exact ------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch):
    """Programs compiled anew, so that they see what is patched."""
    dual = in_float64(lambda *arguments: symmetric_certificate._dual(*arguments), effort=0)

    def anew(*a, centered, merged, size):
        return reduction.reduce_scalar(*a, centered=centered, merged=merged, size=size)

    reduced = in_float64(anew, static=("centered", "merged", "size"), effort=0)
    monkeypatch.setattr(symmetric_certificate, "_dual_in_float64", dual)
    monkeypatch.setattr(module, "_reduce", reduced)
    return monkeypatch


def changed(**factors):
    """The reduction with these fields multiplied."""

    def wrong(right):
        def reduce(*arguments, **options):
            found = right(*arguments, **options)
            return dataclasses.replace(found, **{name: x * getattr(found, name) for name, x in factors.items()})

        return reduce

    return wrong


def scaled(of_W, of_H):
    """The factors multiplied."""

    def wrong(right):
        def factors(*arguments):
            W, means, b = right(*arguments)
            return of_W * W, of_H * means, b

        return factors

    return wrong


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (losses.BCE, "conjugate", lambda right: lambda *a: 1.01 * right(*a)),
        (losses.BCE, "at", lambda right: lambda *a: 1.01 * right(*a)),
        (losses.BCE, "__call__", lambda right: lambda *a: 1.01 * right(*a)),
        (losses.BCE, "feasible_scale", lambda right: lambda *a: 0.99 * right(*a)),
        (module, "_reduce", changed(gap=1.01)),
        (module, "_reduce", changed(bias=1.01)),
        (module, "_reduce", changed(value=1.01)),
        (module, "_factors", scaled(1.01, 1.0)),
        (module, "_factors", scaled(1.01, 1 / 1.01)),
        (symmetric_certificate, "collapse_strength", lambda right: lambda p: 0.99 * right(p)),
        (symmetric_certificate, "bias_stiffness", lambda right: lambda p: 0.99 * right(p)),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_planted_error_of_one_per_cent_is_seen(fresh, where, name, wrong):
    problem = Problem(5, 6, 2, losses.BCE(), Decay(0.01, 0.02, 0.05))
    fresh.setattr(where, name, wrong(getattr(where, name)))
    found = minimizer(problem)
    assert not found.exact
    assert found.reason


def test_unpatched_the_same_problem_is_exact(fresh):
    assert minimizer(Problem(5, 6, 2, losses.BCE(), Decay(0.01, 0.02, 0.05))).exact


@pytest.mark.parametrize(("bias", "decay_b", "value"), [("none", 0.0, 4.9339225487), ("per_class", 1.0, 4.8888045017)])
def test_one_dimension_short_the_classes_may_share_a_feature(bias, decay_b, value):
    """d = K - 1: the merged point of rank one, far below the best centered ETF (6.92697 and 6.28634)."""
    problem = ufm.Problem(10, 9, 1, ufm.losses.BCE(), ufm.Decay(0.095, 0.095, decay_b), bias)
    found = minimizer(problem)
    assert (found.exact, found.gap) == (False, 0.0)
    assert found.value == pytest.approx(value, abs=1e-4)
    assert found.value == pytest.approx(float(problem.objective(found.params)), rel=1e-13)
    assert found.lower_bound < float(ufm.solve(problem, starts=3).value) < found.value

"""Scalars of the theorems (gaps, biases, thresholds, bounds) against 50-digit arithmetic."""

import mpmath as mp
import numpy as np
import pytest

import ufm
from ufm.atlas._phase import diagram
from ufm.atlas.papers import hong2024, li2025_bias, rediscovering, zhu2021
from ufm.theory import closed_forms
from ufm.theory.contrastive import contrastive

mp.mp.dps = 50
CASES = [(3, 0.02), (4, 0.05), (10, 3e-3), (100, 1e-4)]


def logit(x):
    return mp.log(x / (1 - x))


@pytest.mark.parametrize(("K", "mu"), CASES)
def test_boundary_of_the_mean_mode(K, mu):
    """decay_b where the bias of Li et al.'s equation meets decay_b |b| = mu, found by root search at 50 digits."""
    m = mp.mpf(mu)

    def excess(decay_b):
        b = -m / decay_b
        return -logit((K - 1) * m + decay_b * b) + (K - 1) * logit(m - decay_b * b) - K * b

    found = li2025_bias.boundary_decay_b(mu, K)
    root = mp.findroot(excess, (found * 0.99, found * 1.01), solver="anderson", tol=1e-40)
    assert found == pytest.approx(float(root), rel=1e-13)
    below, above = (closed_forms.bce(mu, K, found * t) for t in (1 - 1e-6, 1 + 1e-6))
    assert below.shift == 0 < abs(above.shift)


def test_two_classes_have_no_boundary():
    assert li2025_bias.boundary_decay_b(0.1, 2) == np.inf


@pytest.mark.parametrize(("B", "A", "K"), [(2.0, -1.0, 4), (8.0, -6.0, 100), (0.1, 0.0, 3), (20.0, -20.0, 10)])
def test_unified_threshold(B, A, K):
    """The root of sigma(b - B) = (K-1) sigma(A - b)."""

    def slope(b):
        return 1 / (1 + mp.exp(B - b)) - (K - 1) / (1 + mp.exp(b - A))

    root = mp.findroot(slope, (A - 1, B + mp.log(K) + 1), solver="bisect", tol=1e-40, maxsteps=300)
    assert rediscovering.unified_threshold(B, A, K) == pytest.approx(float(root), rel=1e-12, abs=1e-12)
    assert (A < root < B) == (mp.log(2 * K - 3) < B - A)


@pytest.mark.parametrize("c1", [1e-3, 0.7, 50.0])
def test_lower_bound_touches(c1):
    """c2 at 50 digits: the loss less its slope where the negatives agree and c1 = e^(-t/(K-1))/(K-1)."""
    K, c = 5, mp.mpf(c1)
    tau = -mp.log(c * (K - 1))
    touching = mp.log(1 + (K - 1) * mp.exp(tau)) - tau / (1 + c)
    assert zhu2021.lower_bound(c1, K) == pytest.approx(float(touching), rel=1e-13)


@pytest.mark.parametrize("decay_b", [0.0, 1e-3, 0.3])
def test_bias_alone(decay_b):
    problem = ufm.Problem(3, 4, (7, 2, 1), ufm.losses.CE(), ufm.Decay(0.1, 0.1, decay_b))
    b = [mp.mpf(float(x)) for x in hong2024.bias_alone(problem)]
    total = mp.fsum(mp.exp(x) for x in b)
    residual = [mp.exp(x) / total + decay_b * x - mp.mpf(int(n)) / 10 for x, n in zip(b, problem.counts, strict=True)]
    assert max(abs(r) for r in residual) < 1e-15


@pytest.mark.parametrize(("m", "alpha"), [(2, 0.0), (3, 0.0), (2, 0.3)])
def test_coarse_point_is_stationary_within_its_symmetry(m, alpha):
    """log s + log(1 + (m-1) e^-a) + P a has slope zero at the gap of `coarse_point`."""
    problem = ufm.Problem(6, 7, 2, ufm.losses.CE(), ufm.Decay(0.01, 0.02, 0.1))
    point = zhu2021.coarse_point(problem, m, alpha)
    Z = np.asarray(point.W @ point.H)
    a = mp.mpf(float(Z[0, 0] - Z[-1, 0]))
    mu = mp.sqrt(mp.mpf(2) * mp.mpf(0.01) * mp.mpf(0.02))
    P = mu * (6 // m) * (m - 1) + mp.mpf(alpha) * (m - 1) / m
    assert abs((m - 1) * mp.exp(-a) / (1 + (m - 1) * mp.exp(-a)) - P) < 1e-14


def test_focal_has_two_minimizers_for_many_classes():
    """K = 40, gamma = 2: phi + c|t| takes the same value at two points, to 50 digits and the grid's accuracy."""
    found = contrastive(ufm.losses.Focal(2.0), 40)
    assert found.tie is not None

    def value(t):
        y = mp.log(39) + mp.mpf(t) / 39
        sp = mp.log1p(mp.exp(y))
        return (1 - mp.exp(-sp)) ** 2 * sp + mp.mpf(found.tie) * abs(mp.mpf(t))

    first, second = found.tied
    assert second - first > 10
    assert value(first) == pytest.approx(float(value(second)), rel=1e-12)
    middle = (first + second) / 2
    assert value(middle) > value(first) + 1e-3
    assert contrastive(ufm.losses.Focal(2.0), 10).tie is None


def test_contrastive_readings():
    assert contrastive(ufm.losses.CE(), 4).if_and_only_if
    found = contrastive(ufm.losses.BCE(), 4)
    assert found.as_written
    assert not found.if_and_only_if
    # phi_CE(t) = log(1 + (K-1) e^(t/(K-1))).
    ce = contrastive(ufm.losses.CE(), 4)
    np.testing.assert_allclose(ce.phi, np.log1p(3 * np.exp(ce.t / 3)), rtol=1e-13)


def test_a_loss_that_prefers_wrong_answers_is_not_contrastive():
    import jax.numpy as jnp

    wrong = ufm.losses.custom(lambda z, k: jnp.logaddexp(0.0, z[k] - z).sum(), convex=True, shift_invariant=True)
    assert not contrastive(wrong, 4).as_written


def test_phase_diagram_marks_a_wrong_line():
    """The BCE diagram with the published regime everywhere: shifted points are on the wrong side."""
    import dataclasses

    right = diagram("bce")
    points = right.solve(3)
    assert {p.measured for p in points} >= {"zero", "etf", "mean-shifted"}
    assert all(p.certified and not p.wrong for p in points)

    def published(problem):
        return "etf" if right.predicted(problem) in ("etf", "mean-shifted") else "zero"

    wrong = dataclasses.replace(right, predicted=published, x_range=(1.0, 3.0)).solve(2)
    assert any(p.wrong for p in wrong)
    assert set(np.unique(right.lattice(12))) >= {0, 1, 2}


def test_a_lattice_holds_the_regime_of_each_node():
    """Squares whose corners agree are not looked into, which must not move a line."""
    merging = diagram("merging")
    xs, ys = merging.axes(36)
    each = [[merging.regimes.index(merging.predicted(merging.problem(x, y))) for x in xs] for y in ys]
    np.testing.assert_array_equal(merging.lattice(36), each)


def test_unified_threshold_of_large_scores():
    """For B - A large, e^b = sqrt(K-1) e^((A+B)/2) to rounding."""
    assert rediscovering.unified_threshold(700.0, -700.0, 10) == pytest.approx(np.log(9) / 2, rel=1e-14)

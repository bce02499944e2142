"""Convex conjugates: Fenchel-Young, an independent supremum, the domain, and the focal loss's claims."""

import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import oracles
import pytest
from scipy.optimize import minimize

from ufm import losses

EPS = np.finfo(float).eps
CONVEX = [losses.CE(), losses.BCE(), losses.LabelSmoothing(0.15), losses.LabelSmoothing(0.0), losses.MSE(2.5, 3.0)]
FOCAL = [losses.Focal(g) for g in (0.0, 0.3, 1.0, 2.0, 5.0, 20.0)]
ALL = CONVEX + FOCAL


@jax.jit
def values_of(loss, z, k):
    return jax.vmap(loss)(z, k)


@jax.jit
def gradients_of(loss, z, k):
    return jax.vmap(jax.grad(loss))(z, k)


@jax.jit
def conjugates_of(loss, u, k):
    return jax.vmap(loss.conjugate)(u, k)


@jax.jit
def conjugates_along(loss, z, k, s):
    return jax.vmap(loss.conjugate_along, (0, 0, None))(z, k, s)


@jax.jit
def dual_points(loss, z, k):
    """Gradients, shrunk to where the conjugate is finite."""
    u = jax.vmap(jax.grad(loss))(z, k)
    return u * jax.vmap(loss.feasible_scale)(u, k)[:, None]


def points(classes=6, count=60, seed=0):
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(0.05, 40, count)[:, None]
    return jnp.asarray(sizes * rng.normal(size=(count, classes))), jnp.asarray(rng.integers(classes, size=count))


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_fenchel_young_equality(loss):
    z, k = points()
    u = gradients_of(loss, z, k)
    excess = values_of(loss, z, k) + conjugates_of(loss, u, k) - jnp.sum(u * z, axis=1)
    size = 1.0 + jnp.max(jnp.abs(z), axis=1) + jnp.sum(jnp.abs(u * z), axis=1)
    if isinstance(loss, losses.Focal):
        # Equality holds where F touches its convex envelope: slope at most one, before F' first passes one.
        slope = -jnp.take_along_axis(u, k[:, None], axis=1)[:, 0]
        touching = slope < 1.0 - 1e-9
        assert int(jnp.sum(touching)) >= 15
        assert np.all(np.isposinf(excess[slope > 1.0 + 1e-9]))
        excess, size = excess[touching], size[touching]
    assert np.max(np.abs(excess / size)) < 64 * EPS


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_fenchel_young_inequality_for_any_pair(loss):
    """``l(z) >= <u, z> - l*(u)`` for z unrelated to u, u scaled toward 0 and along segments of the domain."""
    z, k = points(seed=1)
    z, k = z[:30], jnp.zeros(30, k.dtype)
    u = dual_points(loss, points(seed=2)[0][:30], k)
    for s in (0.0, 1e-3, 0.3, 0.9, 1.0):
        for v in (s * u, s * u + (1 - s) * u[::-1]):
            conjugate = conjugates_of(loss, v, k)
            assert np.all(np.isfinite(conjugate))
            # Every z against every u.
            values = values_of(loss, z, k)
            excess = values[:, None] + conjugate[None, :] - z @ v.T
            assert np.min(excess) > -256 * EPS * (1 + float(jnp.max(jnp.abs(z))))


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("classes", [2, 5])
def test_conjugate_is_the_supremum(loss, classes):
    """An independent maximization of ``<u, z> - l(z)`` in NumPy reaches the conjugate and never passes it."""
    rng = np.random.default_rng(classes)
    hyper = {name: float(value) for name, value in loss.hyper.items()}
    z, k = points(classes, 60, seed=3)
    duals = np.asarray(dual_points(loss, z, k))
    where = rng.choice(np.arange(5, 40), 4, replace=False)
    for i in where:
        label = int(k[i])
        u = duals[i] * rng.uniform(0.5, 0.95)
        conjugate = float(conjugates_of(loss, jnp.asarray(u)[None], k[i : i + 1])[0])
        center = np.eye(classes)[label] - 1 / classes
        starts = [0 * u, *(t * center for t in (-6.0, 3.0, 6.0)), np.asarray(z[i])]

        def negative(x, u=u, label=label):
            return oracles.loss(loss.name, hyper, x, label) - u @ x

        found = max(-minimize(negative, x, method="BFGS", options={"gtol": 1e-9}).fun for x in starts)
        assert found <= conjugate + 1e-12 * (1 + abs(conjugate))
        assert found == pytest.approx(conjugate, abs=2e-7)


@pytest.mark.parametrize(
    ("loss", "u"),
    [
        (losses.CE(), [-0.5, 0.25, 0.26]),  # does not sum to zero
        (losses.CE(), [-1.1, 0.6, 0.5]),  # u + e_k negative
        (losses.CE(), [0.1, -0.1, 0.0]),
        (losses.LabelSmoothing(0.3), [-0.81, 0.4, 0.41]),
        (losses.LabelSmoothing(0.3), [-0.2, -0.11, 0.31]),
        (losses.BCE(), [-1.001, 0.5, 0.5]),
        (losses.BCE(), [0.001, 0.5, 0.5]),
        (losses.BCE(), [-0.5, -0.001, 0.5]),
        (losses.BCE(), [-0.5, 1.001, 0.5]),
        (losses.Focal(2.0), [-1.001, 0.5, 0.501]),
        (losses.Focal(2.0), [-0.5, 0.6, -0.1]),
        (losses.Focal(2.0), [-0.5, 0.25, 0.26]),
    ],
    ids=str,
)
def test_conjugate_is_infinite_off_its_domain(loss, u):
    u = jnp.asarray(u)
    assert np.isposinf(loss.conjugate(u, 0))
    # And rightly so: <u, z> - l(z) has no bound along some ray.
    directions = [*np.eye(3), *-np.eye(3), np.ones(3), -np.ones(3)]
    hyper = {name: float(value) for name, value in loss.hyper.items()}
    growth = [float(u @ (1e4 * t)) - oracles.loss(loss.name, hyper, 1e4 * t, 0) for t in directions]
    assert max(growth) > 5.0


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_conjugate_at_the_edges_of_its_domain(loss):
    at_zero = float(loss.conjugate(jnp.zeros(4), 1))
    target = np.full(4, float(loss.hyper.get("alpha", 0.0)) / 4) + np.eye(4)[1] * (1 - loss.hyper.get("alpha", 0.0))
    infimum = -sum(t * np.log(t) for t in target if t > 0) if loss.name == "ls" else 0.0
    assert at_zero == pytest.approx(-infimum, abs=1e-12)
    if loss.name in ("ce", "focal"):
        edge = float(loss.conjugate(jnp.asarray([0.0, -1.0, 1.0, 0.0]), 1))
        y = np.linspace(-40, 60, 200_001)
        F = np.exp(-float(loss.hyper.get("gamma", 0.0)) * np.logaddexp(0, -y)) * np.logaddexp(0, y)
        assert edge == pytest.approx(float(np.max(y - F)), abs=1e-8)
    if loss.name == "bce":
        assert float(loss.conjugate(jnp.asarray([1.0, -1.0, 0.0, 1.0]), 1)) == 0.0


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_conjugate_along_is_the_conjugate_of_the_scaled_gradient(loss):
    z, k = points(count=12)
    for s in (0.2, 1.0):
        s = jnp.asarray(s)
        a = conjugates_along(loss, z, k, s)
        b = conjugates_of(loss, s * gradients_of(loss, z, k), k)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


# The claims behind the focal conjugate --------------------------------------------------------

GAMMAS = [*np.geomspace(1e-2, 20, 12), 1.0]


def focal_slope(y, gamma):
    """``F'(y)`` at 50 digits."""
    sp, sm = mp.log1p(mp.exp(y)), mp.log1p(mp.exp(-y))
    return mp.exp(-gamma * sm) * (1 / (1 + mp.exp(-y)) + gamma * sp / (1 + mp.exp(y)))


@pytest.mark.parametrize("gamma", GAMMAS, ids=lambda g: f"{g:.3g}")
def test_focal_slope_rises_to_one_and_never_returns_below(gamma):
    """``F'`` increases until it passes 1, and stays above 1 ever after: for ``a <= 1`` one maximizer of ``ay - F``."""
    gamma = mp.mpf(float(gamma))
    # Beyond y = 1 + 1/gamma, F' - 1 ~ (gamma (y - 1) - 1) e^-y > 0; at gamma = 1e-3 that is e^-1000.
    top = 40 + 2 / gamma
    with mp.workdps(40 + int(top / 2)):
        grid = [mp.mpf(x) for x in np.linspace(-40, 40, 400)] + [40 + (top - 40) * i / 50 for i in range(1, 51)]
        slopes = [focal_slope(y, gamma) for y in grid]
        first = next(i for i, s in enumerate(slopes) if s > 1)
        assert all(a < b for a, b in itertools.pairwise(slopes[: first + 1]))
        assert all(s > 1 for s in slopes[first:])


@pytest.mark.parametrize("gamma", [0.0, 0.05, 1.0, 3.0, 20.0])
def test_focal_envelope_conjugate_at_high_precision(gamma):
    slopes = [1e-12, 1e-4, 0.1, 0.5, 0.99]
    got = jax.jit(jax.vmap(losses.Focal(gamma)._envelope_conjugate))(jnp.asarray(slopes))[0]
    for a, mine in zip(slopes, np.asarray(got), strict=True):
        # For gamma <= 1 the slope passes one by 1 + 1/gamma; for gamma <= 20 it peaks beyond 2.6.
        low, high = mp.mpf(-60), mp.mpf(2.6 if gamma > 1 else 21)
        for _ in range(120):
            middle = (low + high) / 2
            low, high = (middle, high) if focal_slope(middle, mp.mpf(gamma)) < a else (low, middle)
        F = mp.exp(-mp.mpf(gamma) * mp.log1p(mp.exp(-low))) * mp.log1p(mp.exp(low))
        exact = float(a * low - F)
        assert mine == pytest.approx(exact, rel=1e-12, abs=1e-15)


# Custom ---------------------------------------------------------------------------------------


def test_custom_chord_bound_is_tight_at_one_and_above_the_conjugate():
    ce = losses.CE()
    mine = losses.custom(lambda z, k: ce(z, k), convex=True, shift_invariant=True, infimum=0.0)
    z, k = points(count=20)
    for s in (0.0, 0.3, 0.9, 1.0):
        chord = conjugates_along(mine, z, k, jnp.asarray(s))
        exact = conjugates_along(ce, z, k, jnp.asarray(s))
        assert np.all(chord >= exact - 1e-12)
        if s in (0.0, 1.0):
            np.testing.assert_allclose(chord, exact, atol=64 * EPS * 100)


@pytest.mark.parametrize("options", [{}, {"convex": True}, {"infimum": 0.0}])
def test_nothing_is_certified_of_a_custom_loss_that_promises_too_little(options):
    mine = losses.custom(lambda z, k: jnp.sum(z**2), **options)
    assert np.isposinf(mine.conjugate_along(jnp.ones(3), 0, jnp.asarray(1.0)))

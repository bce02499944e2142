"""Every closed form against a search over gap, mean mode and bias, of either sign (`brute_force`)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute_force import BIASES, PLACE, VALUE, assert_minimum, bias_cost, brute, cost, draws, phi, search, softplus

from ufm import losses
from ufm.atlas.papers import li2025_bias, zhou2022
from ufm.theory import closed_forms, fixed_classifier, saddles, spheres
from ufm.theory.reduction import Regime, reduce_scalar

LOSSES = {"ce": losses.CE, "ls": losses.LabelSmoothing, "bce": losses.BCE, "mse": losses.MSE, "focal": losses.Focal}
QUICK = 60
# Each family with all its draws, and with enough of them for every run of the tests.
SIZES = [QUICK, pytest.param(2000, marks=pytest.mark.slow)]


def formula(name, K, mu, stiffness, hyper):
    """(a, c, beta) of the closed form of one problem."""
    K, mu, decay_b = int(K), float(mu), float(stiffness) / int(K)
    hyper = {k: float(v) for k, v in hyper.items()}
    if name == "focal":
        gaps = zhou2022.focal_gaps(mu, K, hyper["gamma"])
        return min(gaps, key=lambda a: cost(name, K, mu, np.inf, hyper, a, 0.0, 0.0)), 0.0, 0.0
    form = {
        "ce": lambda: closed_forms.ce(mu, K),
        "ls": lambda: closed_forms.label_smoothing(mu, K, **hyper),
        "bce": lambda: closed_forms.bce(mu, K, decay_b),
        "mse": lambda: closed_forms.mse(mu, K, decay_b, **hyper),
    }[name]()
    # p and q are what the gap, the mean mode and the bias make of them.
    m = form.shift / K + form.bias
    assert form.p == pytest.approx(form.gap * (K - 1) / K + m, rel=1e-12, abs=1e-12 * (1 + abs(form.q)))
    assert form.q == pytest.approx(m - form.gap / K, rel=1e-12, abs=1e-12 * (1 + abs(form.p)))
    return form.gap, form.shift, form.bias


@functools.cache
def instances(name, bias, count):
    problems = draws(name, bias, count)
    return problems, *brute(name, *problems)


def scan(name, bias, count):
    """Check all draws; return the largest differences of value and of place, and the regimes that came up."""
    (K, mu, stiffness, hyper), value, place = instances(name, bias, count)
    each = [(K[i], mu[i], stiffness[i], {k: v[i] for k, v in hyper.items()}) for i in range(count)]
    at = np.array([formula(name, *one) for one in each]).T
    if name in ("ce", "ls", "focal"):
        place = np.where(np.array([[0], [0], [1]]), 0.0, place)  # a bias without decay may be anything
    # Gaps that tie (focal), and gaps too small for a flat value to show, are decided by the formula alone.
    flat = name == "focal"
    worst = assert_minimum(cost(name, K, mu, stiffness, hyper, *at), at, value, place, not flat)
    return *worst, {Regime.MEAN_SHIFTED if c else Regime.ETF if a > 0 else Regime.ZERO for a, c, _ in at.T}


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", LOSSES)
def test_closed_forms_are_global_minima(name, bias, count, record_property):
    *worst, regimes = scan(name, bias, count)
    record_property("worst differences of value and place", worst)
    expected = set(Regime)
    if name not in ("bce", "mse"):
        expected -= {Regime.MEAN_SHIFTED}  # no loss that a common shift leaves alone has a mean mode
    elif (name, bias) == ("mse", "none"):
        expected -= {Regime.ETF}  # an orthogonal frame
    assert regimes == expected


@functools.partial(jax.jit, static_argnames="centered")
def reduction(loss, K, mu, stiffness, centered=False):
    return jax.vmap(functools.partial(reduce_scalar, centered=centered))(loss, K, mu, stiffness)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_reduction_is_the_global_minimum(name, count):
    for bias in BIASES:
        (K, mu, stiffness, hyper), value, place = instances(name, bias, count)
        found = reduction(LOSSES[name](**hyper), *map(jnp.asarray, (K, mu, stiffness)))
        at = np.stack([found.gap, found.shift, found.bias])
        here = cost(name, K, mu, stiffness, hyper, *at)
        np.testing.assert_allclose(found.value, here, rtol=VALUE)
        if name in ("ce", "ls", "focal"):
            place = np.where(np.array([[0], [0], [1]]), 0.0, place)
        assert_minimum(here, at, value, place, name != "focal")


@pytest.mark.parametrize("count", SIZES)
def test_where_the_mean_mode_begins(count):
    """`boundary_decay_b`, by the search alone: c = 0 just below it, and c != 0 just above."""
    K, mu, _, _ = draws("bce", "per_class", count)
    mu = np.where(K * mu < 1, mu, 0.1 / K)
    edge = np.array([li2025_bias.boundary_decay_b(float(m), int(k)) for m, k in zip(mu, K, strict=True)])
    factor = np.resize([0.97, 1.03], count)
    stiffness = K * np.where(np.isfinite(edge), edge * factor, 1e3)
    _, (_, c, _) = brute("bce", K, mu, stiffness, {})
    above = np.isfinite(edge) & (factor > 1)
    assert {(int(k), bool(a)) for k, a in zip(K, above, strict=True)} == {
        *((k, False) for k in (2, 3, 4)),
        (3, True),
        (4, True),
    }
    np.testing.assert_array_equal(np.abs(c) > PLACE, above)


def test_three_classes_without_bias():
    """3 (8 - sqrt 32)/16 < K mu < 1: the centered ETF, ``sigma(-2a/3) + sigma(-a/3) = K mu``, and no mean mode."""
    K, edge = 3.0, (8 - np.sqrt(32)) / 16
    mu = np.array([0.2, edge * (1 + 1e-3), edge * (1 - 1e-3)])
    problems = np.full(3, K), mu, np.full(3, np.inf), {}
    value, place = brute("bce", *problems)
    at = np.array([closed_forms.bce(m, 3, np.inf)[:3] for m in mu]).T
    assert_minimum(cost("bce", *problems, *at), at, value, place, True)
    assert value[0] == pytest.approx(1.857916452085, abs=1e-12)  # K = 3, n = 4, decays 0.1
    assert (at[1] == 0).tolist() == [True, True, False]
    sigmoids = 1 / (1 + np.exp(2 * at[0] / 3)) + 1 / (1 + np.exp(at[0] / 3))
    np.testing.assert_allclose(sigmoids[:2], K * mu[:2], rtol=1e-14)


# On spheres, and with a fixed classifier ------------------------------------------------------------


def on_spheres(name, bias, count):
    """x (K/(K-1)) M - y J with x >= 0, x + |y| <= 1, and the bias: see `ufm.theory.spheres`."""
    K, rho, stiffness, _ = draws("bce", bias, count)
    gamma = np.clip(10.0 * rho, 0.2, 9.0)
    if name == "ce":
        stiffness = np.maximum(stiffness, 1e-3)

    def objective(x, y, b, K=K[:, None], gamma=gamma[:, None], stiffness=stiffness[:, None]):
        p, q = gamma * (x - y) + b, gamma * (-x / (K - 1) - y) + b
        return phi(name, p, q, K, {}) + bias_cost(stiffness, b)

    def feasible(x, y, b):
        y = np.clip(y, -1.0, 1.0)
        return np.clip(x, 0.0, 1.0 - np.abs(y)), y, b

    scale = np.stack([np.ones_like(K), np.ones_like(K), np.where(np.isinf(stiffness), 0.0, 1.0)])
    value, place = search(objective, scale, feasible)
    forms = [
        spheres.ce(float(g), int(k)) if name == "ce" else spheres.bce(float(g), int(k), float(s))
        for g, k, s in zip(gamma, K, stiffness, strict=True)
    ]
    at = np.array([(f.etf, f.mean, f.bias) for f in forms]).T
    np.testing.assert_allclose([f.value for f in forms], objective(*at[:, :, None])[:, 0], rtol=VALUE)
    worst = assert_minimum(objective(*at[:, :, None])[:, 0], at, value, place, name == "bce")
    return *worst, {f.regime for f in forms}


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", ["ce", "bce"])
def test_normalized_closed_forms_are_global_minima(name, bias, count, record_property):
    *worst, regimes = on_spheres(name, bias, count)
    record_property("worst differences of value and place", worst)
    assert regimes == ({"etf", "mean-shifted"} if name == "bce" else {"etf"})


def fixed(name, bias, count, held=None):
    """phi(x + b, -x/(K-1) + b) + rho x^2/2 + L b^2/2 over x of either sign and b, or b held."""
    K, rho, stiffness, _ = draws("bce", bias, count)
    stiffness = np.where(np.isinf(stiffness), 0.0, stiffness)
    if name == "ce":
        stiffness = np.maximum(stiffness, 1e-3)

    def objective(x, b, K=K[:, None], rho=rho[:, None], stiffness=stiffness[:, None]):
        b, decay = (b, bias_cost(stiffness, b)) if held is None else (held + 0 * b, 0.0)
        return phi(name, x + b, b - x / (K - 1), K, {}) + rho * x**2 / 2 + decay

    value, place = search(objective, np.stack([np.ones_like(K), np.full_like(K, held is None)]))
    forms = [
        fixed_classifier.ce(int(k), float(r))
        if name == "ce"
        else fixed_classifier.bce(int(k), float(r), float(s), held)
        for k, r, s in zip(K, rho, stiffness, strict=True)
    ]
    at = np.array([(f.score, 0.0 if held is not None else f.bias) for f in forms]).T
    np.testing.assert_allclose([f.value for f in forms], objective(*at[:, :, None])[:, 0], rtol=VALUE)
    return assert_minimum(objective(*at[:, :, None])[:, 0], at, value, place, True)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize(
    ("name", "bias", "held"), [("ce", "per_class", None), ("bce", "per_class", None), ("bce", "none", -0.7)]
)
def test_fixed_classifier_closed_forms_are_global_minima(name, bias, held, count, record_property):
    worst = fixed(name, bias, count, held)
    record_property("worst differences of value and place", worst)


def coarse(count):
    """K classes in m equal groups under CE: log s + log(1 + (m-1) e^-a) + P |a|, a of either sign."""
    _, mu, _, _ = draws("ce", "none", count)
    K = np.random.default_rng(0).choice([4, 6, 12], count)
    m = np.array([np.random.default_rng(i).choice(saddles.divisors(int(k))[1:]) for i, k in enumerate(K)], float)

    def objective(a, K=K[:, None], m=m[:, None], mu=mu[:, None]):
        return np.log(K / m) + softplus(np.log(m - 1) - a) + mu * (K / m) * (m - 1) * np.abs(a)

    value, place = search(objective, np.ones((1, count)))
    found, gap = np.array([saddles.coarse_ce(*x) for x in zip(mu, K, m.astype(int), strict=True)]).T[::-1]
    np.testing.assert_allclose(found, objective(gap[:, None])[:, 0], rtol=VALUE)
    return assert_minimum(found, gap[None], value, place, True)


@pytest.mark.parametrize("count", SIZES)
def test_coarse_closed_forms_are_minima_within_their_symmetry(count, record_property):
    record_property("worst differences of value and place", coarse(count))


# Each check sees a formula that is a little wrong ----------------------------------------------------


def _always_shifted(right):
    """Without a bias mean-shifted wherever K mu < 1: false for three classes."""
    return lambda mu, K, b: (
        closed_forms.bce_mean_shifted(mu, K, b) if np.isinf(b) and K > 2 and K * mu < 1 else right(mu, K, b)
    )


WRONG = [
    (closed_forms, "ce", lambda f: lambda mu, K: f(1.001 * mu, K), lambda: scan("ce", "none", QUICK)),
    (closed_forms, "ce", lambda f: lambda mu, K: f(mu if K * mu < 0.9 else 1.0, K), lambda: scan("ce", "none", QUICK)),
    (
        closed_forms,
        "label_smoothing",
        lambda f: lambda mu, K, alpha: f(mu, K, alpha * (K - 1) / K),
        lambda: scan("ls", "none", QUICK),
    ),
    (closed_forms, "bce", _always_shifted, lambda: scan("bce", "none", QUICK)),
    (closed_forms, "bce", _always_shifted, test_three_classes_without_bias),
    (closed_forms, "bce", lambda f: closed_forms.bce_centered, lambda: scan("bce", "unified", QUICK)),
    (
        closed_forms,
        "bce_centered",
        lambda f: lambda mu, K, b: f(mu, K, 1.001 * b),
        lambda: scan("bce", "per_class", QUICK),
    ),
    (
        closed_forms,
        "bce_mean_shifted",
        lambda f: lambda mu, K, b: f(mu, K, 1.001 * b),
        lambda: scan("bce", "per_class", QUICK),
    ),
    (
        closed_forms,
        "mse",
        lambda f: lambda mu, K, b, kappa, beta: f(mu, K, b, 1.0, beta),
        lambda: scan("mse", "none", QUICK),
    ),
    (
        closed_forms,
        "mse",
        lambda f: lambda mu, K, b, kappa, beta: f(mu, K, 1.001 * b, kappa, beta),
        lambda: scan("mse", "per_class", QUICK),
    ),
    (
        closed_forms,
        "focal_stationarity",
        lambda f: lambda a, mu, K, gamma: f(a, 1.001 * mu, K, gamma),
        lambda: scan("focal", "none", QUICK),
    ),
    (
        li2025_bias,
        "boundary_decay_b",
        lambda f: lambda mu, K: 1.05 * f(mu, K),
        lambda: test_where_the_mean_mode_begins(QUICK),
    ),
    (
        spheres,
        "optimal_bias",
        lambda f: lambda p, q, K, L: f(p, q, K, 1.001 * L),
        lambda: on_spheres("bce", "per_class", QUICK),
    ),
    (
        spheres,
        "bce",
        lambda f: lambda gamma, K, L: f(gamma, K, 0.0),
        lambda: on_spheres("bce", "none", QUICK),
    ),
    (spheres, "ce", lambda f: lambda gamma, K: f(gamma, K + 1), lambda: on_spheres("ce", "none", QUICK)),
    (
        fixed_classifier,
        "optimal_bias",
        lambda f: lambda p, q, K, L: f(p, q, K, 1.001 * L),
        lambda: fixed("bce", "per_class", QUICK),
    ),
    (fixed_classifier, "ce", lambda f: lambda K, rho: f(K, 1.001 * rho), lambda: fixed("ce", "none", QUICK)),
    (saddles, "coarse_ce", lambda f: lambda mu, K, m: f(1.001 * mu, K, m), lambda: coarse(QUICK)),
]


@pytest.mark.parametrize(
    "case", range(len(WRONG)), ids=[f"{m.__name__}.{a}".removeprefix("ufm.") for m, a, *_ in WRONG]
)
def test_a_wrong_formula_is_caught(case, monkeypatch):
    module, name, wrong, check = WRONG[case]
    check()
    monkeypatch.setattr(module, name, wrong(getattr(module, name)))
    with pytest.raises(AssertionError):
        check()

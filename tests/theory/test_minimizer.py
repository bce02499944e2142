"""Closed forms, the scalar reduction and 50-digit stationarity equations must tell the same story."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from oracles import loss_and_gradient
from scipy.optimize import brentq

import ufm
from ufm import Decay, Params, Problem, losses
from ufm.theory import (
    NoClosedForm,
    bias_stiffness,
    certify,
    closed_forms,
    collapse_strength,
    minimizer,
    predict,
    reduce,
)

BIASES = ["per_class", "unified", "none"]


def random_problem(rng, name, wide=False):
    """Sizes, decays and hyper-parameters at random; ``wide`` goes to decays from 1e-10 to 1e3."""
    K = int(rng.integers(2, 41))
    low, high = (-10, 3) if wide else (-4, -0.5)
    loss = {
        "ce": losses.CE,
        "bce": losses.BCE,
        "focal": lambda: losses.Focal(rng.uniform(0, 5)),
        "ls": lambda: losses.LabelSmoothing(rng.uniform(0, 0.6)),
        "mse": lambda: losses.MSE(rng.uniform(0.2, 5), rng.uniform(0.2, 15)),
    }[name]()
    decay = Decay(*10 ** rng.uniform(low, high, 3))
    return Problem(K, K, int(rng.integers(1, 21)), loss, decay, BIASES[rng.integers(3)])


def stationarity(problem, found):
    """Largest violation, at 50 digits, of the optimality conditions of the scalar problem; and its value.

    min over a >= 0, c, beta of phi(p, q) + mu ((K-1) a + |c|) + L beta^2/2 (theory of `ufm.theory.reduction`,
    but phi, its slopes and the conditions are written out here from the definition of the loss).
    """
    K = problem.classes
    w, h, lb = (mp.mpf(float(x)) for x in (problem.decay.W, problem.decay.H, problem.decay.b))
    mu = mp.sqrt(problem.per_class * w * h)
    L = {"per_class": K * lb, "unified": lb, "none": None}[problem.bias]
    a, c, beta = mp.mpf(found.gap), mp.mpf(found.shift), mp.mpf(found.bias)
    m = c / K + beta
    z = [a * (K - 1) / K + m] + [-a / K + m] * (K - 1)
    value, slope = loss_and_gradient(problem.loss.name, problem.loss.hyper, z, 0)
    in_p, in_q = slope[0], mp.fsum(slope[1:])
    # What the slopes were added up from: label smoothing subtracts its target, squared error its own.
    size = abs(in_p) + abs(in_q) + mu + problem.loss.hyper.get("alpha", 0.0) + 2 * problem.loss.hyper.get("beta", 0.0)
    along_gap = (in_p * (K - 1) - in_q) / K + mu * (K - 1)
    violation = [abs(along_gap) if a > 0 else max(0, -along_gap)]
    along_mean = (in_p + in_q) / K
    violation.append(abs(along_mean + mu * mp.sign(c)) if c != 0 else max(0, abs(along_mean) - mu))
    if L is None:
        assert beta == 0
        L = mp.mpf(0)
    elif problem.loss.shift_invariant:
        assert beta == c == 0
    else:
        violation.append(abs(in_p + in_q + L * beta))
    total = value + mu * ((K - 1) * a + abs(c)) + L * beta**2 / 2
    return float(max(violation) / size), total


@pytest.mark.parametrize("wide", [False, True], ids=["usual", "extreme"])
@pytest.mark.parametrize("name", ["ce", "bce", "ls", "mse", "focal"])
def test_minimizer_satisfies_the_50_digit_optimality_conditions(name, wide):
    """For a convex loss these conditions prove the global minimum of the scalar problem."""
    rng = np.random.default_rng([ord(x) for x in name])
    regimes = set()
    for _ in range(25):
        problem = random_problem(rng, name, wide)
        found = minimizer(problem)
        violation, value = stationarity(problem, found)
        # A logit of size |z| is known to eps |z|.
        error = 1e-13 * (1 + abs(found.gap) + abs(found.shift / problem.classes + found.bias))
        assert violation < error, (problem, found)
        assert found.value == pytest.approx(float(value), rel=1e-12)
        regimes.add(found.regime)
        # The symmetric point of a loss that is not convex need not be the minimum, nor its bound tight.
        assert found.exact or not problem.loss.convex
        assert found.exact == (found.lower_bound == found.value) == (found.reason == "")
        assert (found.gap == found.shift == 0) == (found.regime == "zero")
        assert (found.shift != 0) == (found.regime == "mean-shifted")
    assert "etf" in regimes
    assert ("mean-shifted" in regimes) == (name in ("bce", "mse"))


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", ["ce", "bce", "ls", "mse"])
def test_closed_forms_equal_the_reduction(name, bias):
    rng = np.random.default_rng(7)
    for _ in range(25):
        problem = random_problem(rng, name)
        problem = Problem(problem.classes, problem.dim, problem.per_class, problem.loss, problem.decay, bias)
        K, mu = problem.classes, float(collapse_strength(problem))
        found = minimizer(problem)
        per_class = float(bias_stiffness(problem)) / K
        hyper = problem.loss.hyper
        form = {
            "ce": lambda mu, K, _: closed_forms.ce(mu, K),
            "ls": lambda mu, K, _, hyper=hyper: closed_forms.label_smoothing(mu, K, **hyper),
            "bce": closed_forms.bce,
            "mse": lambda mu, K, b, hyper=hyper: closed_forms.mse(mu, K, b, **hyper),
        }[name](mu, K, per_class)
        size = 1 + abs(form.p) + abs(form.q)
        assert found.gap == pytest.approx(form.gap, abs=1e-9 * size)
        assert found.shift / K == pytest.approx(form.shift / K, abs=1e-9 * size)
        assert found.bias == pytest.approx(form.bias, abs=1e-9 * size)
        shift = found.shift / K + found.bias
        assert found.gap * (K - 1) / K + shift == pytest.approx(form.p, abs=1e-9 * size)
        assert -found.gap / K + shift == pytest.approx(form.q, abs=1e-9 * size)


def test_bce_of_two_classes_has_no_bias():
    """For K = 2 the logits are mu and -mu through sigma: the end of the bracket that K > 2 is searched in."""
    rng = np.random.default_rng(3)
    for mu, decay_b in zip(10 ** rng.uniform(-6, -0.31, 400), 10 ** rng.uniform(-4, 1, 400), strict=True):
        form = closed_forms.bce(mu, 2, decay_b)
        assert (form.p, form.q) == (pytest.approx(np.log(1 / mu - 1)), pytest.approx(-np.log(1 / mu - 1)))
        assert abs(form.bias) < 1e-9 * abs(form.p)
    found = minimizer(Problem(2, 3, 1, losses.BCE(), Decay(0.01, 0.01, 0.05)))
    assert found.gap == pytest.approx(2 * np.log(99), rel=1e-12)


def test_li_et_al_bias_equation_at_50_digits():
    """Li et al. 2025, Thm 2 in their own variables: b = -beta, rho = ||W||^2, s = sqrt(decay_W/(n decay_H))."""
    K, n, decay = 10, 5, Decay(5e-3, 1e-3, 5e-4)
    found = minimizer(Problem(K, 20, n, losses.BCE(), decay))
    assert found.regime == "etf"
    rho, b = float(np.sum(found.params.W**2)), -found.bias
    s = np.sqrt(decay.W / (n * decay.H))
    right = (K - 1) / (K * (1 + np.exp(b + s * rho / (K * (K - 1))))) - 1 / (K * (1 + np.exp(s * rho / K - b)))
    assert decay.b * b == pytest.approx(right, rel=1e-11)

    mu, lb = mp.sqrt(mp.mpf(n) * mp.mpf(decay.W) * mp.mpf(decay.H)), mp.mpf(decay.b)

    def logit(x):
        return mp.log(x / (1 - x))

    root = mp.findroot(
        lambda x: -logit((K - 1) * mu + lb * x) + (K - 1) * logit(mu - lb * x) - K * x, mp.mpf(found.bias)
    )
    assert found.bias == pytest.approx(float(root), rel=1e-13)
    assert closed_forms.bce(float(mu), K, decay.b).bias == pytest.approx(float(root), rel=1e-12)
    # Their criterion for a bias that separates positives from negatives, (3).
    separates = -found.gap / K < b < found.gap * (K - 1) / K
    x = s * rho / (K - 1)
    assert separates == (decay.b * x + 1 / (2 * (K - 1)) > 1 / (1 + np.exp(x)))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_stationarity_equation(gamma):
    for mu in (1e-4, 1e-3, 1e-2):
        found = minimizer(Problem(10, 10, 1, losses.Focal(gamma), Decay(mu, mu, mu)))
        assert found.regime == "etf"
        assert closed_forms.focal_stationarity(found.gap, mu, 10, gamma) == pytest.approx(0, abs=1e-12)


def test_focal_takes_the_global_root():
    """The scalar focal problem has several stationary gaps; a fine scan finds none below the minimizer's value."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        K, gamma, mu = int(rng.integers(2, 30)), rng.uniform(0.5, 8), 10 ** rng.uniform(-3, 0)
        problem = Problem(K, K, 1, losses.Focal(gamma), Decay(mu, mu, 0.1))
        found = minimizer(problem)
        a = np.concatenate([[0], np.geomspace(1e-6, 60, 40_000)])
        y = np.log(K - 1) - a
        scan = np.exp(-gamma * np.logaddexp(0, -y)) * np.logaddexp(0, y) + mu * (K - 1) * a
        assert found.value <= scan.min() * (1 + 1e-14)
        assert found.value == pytest.approx(scan.min(), rel=1e-6)


# Regimes and their boundaries -------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3, 10, 50])
@pytest.mark.parametrize("loss", [losses.CE(), losses.LabelSmoothing(0.25), losses.BCE()], ids=str)
def test_zero_threshold(loss, K):
    """W = H = 0 from K mu = 1 (CE, BCE) or alpha + K mu = 1 (LS) on, exactly."""
    critical = (1 - float(loss.hyper.get("alpha", 0.0))) / K
    for factor, zero in ((1 - 1e-9, False), (1 + 1e-9, True), (0.5, False), (2.0, True)):
        # For BCE a bias without decay leaves no mean mode.
        found = minimizer(Problem(K, K, 1, loss, Decay(critical * factor, critical * factor, 0.0)))
        assert (found.regime == "zero") == zero, factor
        if zero:
            assert np.all(found.params.W == 0)
            assert np.all(found.params.H == 0)
    at = minimizer(Problem(K, K, 1, loss, Decay(critical, critical, 0.0)))
    assert at.gap < 1e-6  # one rounding error of K mu decides


def test_ce_at_exactly_K_mu_one():
    """K = 4, mu = 1/4: all numbers are exact in binary."""
    problem = Problem(4, 4, 1, losses.CE(), Decay(0.25, 0.25, 0.25))
    found = minimizer(problem)
    assert (found.regime, found.gap) == ("zero", 0.0)
    assert found.value == pytest.approx(np.log(4), rel=1e-15)
    assert certify(problem, found.params).gap < 1e-14


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize(("K", "mu"), [(10, 5e-3), (5, 0.05), (100, 1e-3)])
def test_mean_mode_appears_where_the_bias_force_reaches_mu(K, mu, unified):
    """c = 0 iff decay_b |beta*| <= mu, with beta* the centered bias."""
    critical = brentq(lambda lb: lb * abs(closed_forms.bce_centered(mu, K, lb).bias) - mu, 1e-6, 10, xtol=1e-15)
    bias, factor = ("unified", K) if unified else ("per_class", 1)
    before, after = (
        minimizer(Problem(K, K, 1, losses.BCE(), Decay(mu, mu, critical * factor * (1 + t)), bias))
        for t in (-1e-7, 1e-7)
    )
    assert (before.regime, after.regime) == ("etf", "mean-shifted")
    assert abs(after.shift) < 1e-3
    assert before.value == pytest.approx(after.value, rel=1e-6)
    form = closed_forms.bce_mean_shifted(mu, K, critical)
    assert before.bias == pytest.approx(form.bias, rel=1e-5)
    assert form.shift == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("bias", "decay_b"), [("none", 0.0), ("per_class", 1e3), ("unified", 1e4)])
@pytest.mark.parametrize("K_mu", [1.01, 1.5, 3.9])
def test_classes_may_merge_at_a_nonzero_feature(K_mu, bias, decay_b):
    """With K mu >= 1 but (K-2)/2 > K mu, BCE with no or a stiff bias is *not* zero: all classes share one feature.

    At W = H = 0 the gradient has singular value (K-2)/(2K) along the mean, more than mu. So the published
    "BCE is zero iff K mu >= 1" needs a bias that can move. The certificate proves it.
    """
    K = 10
    mu = K_mu / K
    problem = Problem(K, K, 1, losses.BCE(), Decay(mu, mu, decay_b), bias)
    found = minimizer(problem)
    assert found.regime == "mean-shifted"
    assert found.gap == 0.0
    assert found.shift < 0
    assert np.linalg.norm(found.params.W) > 0.1
    certificate = certify(problem, found.params)
    assert certificate.gap < 1e-12
    # Best point with W = H = 0: beta alone.
    L = float(bias_stiffness(problem))
    best_zero = K * np.log(2)
    if np.isfinite(L):
        grid = np.linspace(-1, 0, 100_001)
        best_zero = np.min(np.logaddexp(0, -grid) + (K - 1) * np.logaddexp(0, grid) + L * grid**2 / 2)
    assert best_zero > certificate.value + 1e-4
    if bias == "none":  # K sigma(m) - 1 = K mu
        assert found.shift / K == pytest.approx(np.log((1 + K_mu) / (K - 1 - K_mu)), abs=1e-12)
        form = closed_forms.bce(mu, K, np.inf)
        assert (form.gap, form.shift) == (0.0, pytest.approx(found.shift, abs=1e-11))


@pytest.mark.parametrize("K_mu", [4.0, 4.1, 20.0])
def test_bce_without_bias_is_zero_beyond_the_mean_threshold(K_mu):
    found = minimizer(Problem(10, 10, 1, losses.BCE(), Decay(K_mu / 10, K_mu / 10), "none"))
    assert found.regime == "zero"
    assert found.value == pytest.approx(10 * np.log(2), rel=1e-14)


def test_mse_without_bias_is_an_orthogonal_frame():
    """Half of kappa = beta = 1 with mu doubled is the textbook loss: X = (1 - K mu)_+ I there."""
    K, mu = 6, 0.05
    found = minimizer(Problem(K, K, 1, losses.MSE(1.0, 1.0), Decay(2 * mu, 2 * mu), "none"))
    # loss ||z - e||^2 with 2 mu is twice ||z - e||^2 / 2 with mu.
    X = found.params.W @ found.params.H
    np.testing.assert_allclose(X, (1 - K * mu) * np.eye(K), atol=1e-12)


def test_worked_example_of_the_mean_shifted_regime():
    """K=10, n=5, decays 5e-3, 1e-3, 0.5: f* = 0.671708; the best centered ETF has 1.766."""
    decay = Decay(5e-3, 1e-3, 0.5)
    for d in (10, 20):
        problem = Problem(10, d, 5, losses.BCE(), decay)
        found = minimizer(problem)
        assert found.regime == "mean-shifted"
        assert found.value == pytest.approx(0.671708, abs=5e-7)
        assert certify(problem, found.params).gap < 1e-12
    centered = reduce(problem, centered=True)
    assert float(centered.value) == pytest.approx(1.766, abs=5e-4)
    # Sum of the classifier's rows is not zero; and beyond the threshold sigma(q) = 2 mu, sigma(-p) = (K-2) mu.
    assert np.linalg.norm(found.params.W.sum(axis=0)) > 0.1
    mu = float(collapse_strength(problem))
    shift = found.shift / 10 + found.bias
    p, q = found.gap * 0.9 + shift, -found.gap / 10 + shift
    assert 1 / (1 + np.exp(-q)) == pytest.approx(2 * mu, rel=1e-12)
    assert 1 / (1 + np.exp(p)) == pytest.approx(8 * mu, rel=1e-12)
    assert found.bias == pytest.approx(-mu / decay.b, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "decay_b", "regime", "positive", "negative", "bias"),
    [
        (losses.CE(), 0.5, "etf", 5.679, -0.631, 0.0),
        (losses.BCE(), 0.5, "mean-shifted", 4.236, -5.626, 0.0036),
        (losses.BCE(), 0.05, "mean-shifted", 4.268, -5.594, 0.036),
    ],
    ids=str,
)
def test_predictions_for_the_authors_mnist_runs(loss, decay_b, regime, positive, negative, bias):
    """Their code decays a batch *sum* of features: n decay_H becomes decay B/K, B = 128; bias in their sign."""
    found = minimizer(Problem(10, 64, 1, loss, Decay(5e-4, 5e-4 * 12.8, decay_b)))
    assert found.regime == regime
    center = found.shift / 10
    assert found.gap * 0.9 + center == pytest.approx(positive, abs=6e-4)
    assert -found.gap / 10 + center == pytest.approx(negative, abs=6e-4)
    assert -found.bias == pytest.approx(bias, abs=6e-5 if bias < 0.01 else 6e-4)


def test_bce_without_bias_decay_at_the_limits_of_the_binary_section():
    """decay_b = 0: sigma(p) = 1 - (K-1) mu, sigma(q) = mu."""
    found = minimizer(Problem(10, 10, 5, losses.BCE(), Decay(1e-3, 1e-3, 0.0)))
    mu = np.sqrt(5) * 1e-3
    p, q = found.gap * 0.9 + found.bias, -found.gap / 10 + found.bias
    assert found.shift == 0
    assert 1 / (1 + np.exp(-p)) == pytest.approx(1 - 9 * mu, rel=1e-12)
    assert 1 / (1 + np.exp(-q)) == pytest.approx(mu, rel=1e-12)


# The point itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize(
    "loss", [losses.CE(), losses.BCE(), losses.LabelSmoothing(0.1), losses.MSE(2.0, 3.0), losses.Focal(2.0)], ids=str
)
def test_the_point_has_the_value_and_is_certified(loss, bias):
    problem = Problem(4, 6, 3, loss, Decay(0.004, 0.007, 0.3), bias)
    found = minimizer(problem, key=jax.random.key(5))
    certificate = certify(problem, found.params)
    assert certificate.value == pytest.approx(found.value, rel=1e-14)
    assert abs(certificate.gap) < 1e-13 * (1 + found.value)
    assert certificate.scale == pytest.approx(1.0, abs=1e-9)
    assert found.params.W.shape == (4, 6)
    assert found.params.H.shape == (6, 12)
    # Balance of every critical point: decay_W W'W = decay_H H H'.
    np.testing.assert_allclose(
        0.004 * found.params.W.T @ found.params.W, 0.007 * found.params.H @ found.params.H.T, atol=1e-14
    )
    unturned = minimizer(problem)
    assert unturned.value == found.value
    np.testing.assert_allclose(unturned.params.W @ unturned.params.H, found.params.W @ found.params.H, atol=1e-12)


def test_binary_problem_is_one_neuron():
    """K=2 CE with decays (w, h, b) has the minimum of one-neuron logistic with (w/2, h, b/2)."""
    n, w, h = 3, 0.02, 0.03
    found = minimizer(Problem(2, 1, n, losses.CE(), Decay(w, h, 0.1)))
    # One neuron by symmetry: z = +-s, cost sqrt(n' (w/2) h) s with 2n samples of one direction.
    s = np.linspace(0, 20, 400_001)
    one = np.logaddexp(0, -s) + np.sqrt(2 * n * h * w / 2) * s
    assert found.value == pytest.approx(one.min(), rel=1e-9)
    assert found.gap == pytest.approx(s[one.argmin()], abs=1e-4)
    assert found.exact


def test_dimension_one_less_than_classes():
    etf = minimizer(Problem(5, 4, 2, losses.CE(), Decay(0.01, 0.01, 0.01)))
    assert etf.exact
    shifted = Problem(10, 9, 5, losses.BCE(), Decay(5e-3, 1e-3, 0.5))
    found = minimizer(shifted)
    assert not found.exact
    assert found.shift == 0
    assert found.lower_bound == pytest.approx(0.671708, abs=5e-7)
    assert found.value > found.lower_bound + 1
    certificate = certify(shifted, found.params)
    assert certificate.lower_bound <= found.lower_bound
    assert certificate.value == pytest.approx(found.value, rel=1e-14)
    # Without bias the shift is frozen at zero too.
    frozen = minimizer(Problem(10, 9, 5, losses.BCE(), Decay(5e-3, 1e-3), "none"))
    assert (frozen.exact, frozen.shift, frozen.bias) == (False, 0.0, 0.0)


def test_one_dimension_suffices_when_all_classes_merge():
    found = minimizer(Problem(10, 1, 1, losses.BCE(), Decay(0.15, 0.15), "none"))
    assert found.exact
    assert found.regime == "mean-shifted"
    assert minimizer(Problem(10, 1, 1, losses.CE(), Decay(0.5, 0.5))).regime == "zero"


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (Problem(3, 4, (1, 2, 3), losses.CE()), ["per_class", "imbalanced"]),
        (Problem(5, 3, 2, losses.CE()), ["dim = 3", "classes - 1 = 4"]),
        (Problem(3, 3, 2, losses.CE(), classifier=np.eye(3)), ["classifier", "closed form"]),
    ],
)
def test_no_closed_form(problem, words):
    with pytest.raises(NoClosedForm) as error:
        minimizer(problem)
    for word in words:
        assert word in str(error.value)
    assert predict(problem) is None


def test_predict_is_minimizer_where_there_is_one():
    problem = Problem(3, 4, 2, losses.CE(), Decay(0.01, 0.01))
    assert predict(problem).value == minimizer(problem).value


# Any loss; batches; precision --------------------------------------------------------------------


def test_custom_loss_equals_its_twin():
    ce = losses.CE()
    for options in ({}, {"shift_invariant": True}):
        mine = losses.custom(lambda z, k: jax.nn.logsumexp(z) - z[k], symmetric=True, **options)
        found = minimizer(Problem(5, 6, 2, mine, Decay(0.01, 0.02, 0.1)))
        right = minimizer(Problem(5, 6, 2, ce, Decay(0.01, 0.02, 0.1)))
        assert found.value == pytest.approx(right.value, rel=1e-13)
        assert found.gap == pytest.approx(right.gap, rel=1e-7)
        assert found.regime == "etf"


def test_custom_loss_far_below_zero():
    """The search for the gap must not assume that losses are >= 0: here the loss is 0 at the origin."""
    shifted = losses.custom(lambda z, k: losses.CE()(z, k) - jnp.log(5.0), shift_invariant=True, symmetric=True)
    problem = Problem(5, 6, 2, shifted, Decay(1e-4, 2e-4, 0.1))
    right = minimizer(Problem(5, 6, 2, losses.CE(), Decay(1e-4, 2e-4, 0.1)))
    assert minimizer(problem).gap == pytest.approx(right.gap, rel=1e-7)
    assert minimizer(problem).value == pytest.approx(right.value - np.log(5), abs=1e-12)


@pytest.mark.parametrize("loss", [losses.BCE(), losses.Focal(2.0)], ids=str)
def test_reduce_under_jit_and_vmap(loss):
    decays = jnp.asarray([1e-3, 1e-2, 0.5])

    def one(w):
        return reduce(Problem(5, 6, 2, loss, Decay(w, 0.02, 0.5)))

    batch = jax.jit(jax.vmap(one))(decays)
    for i, w in enumerate(decays):
        single = minimizer(Problem(5, 6, 2, loss, Decay(float(w), 0.02, 0.5)))
        assert float(batch.gap[i]) == pytest.approx(single.gap, rel=1e-12)
        assert float(batch.value[i]) == pytest.approx(single.value, rel=1e-14)
        assert float(batch.shift[i]) == pytest.approx(single.shift, abs=1e-12)


def test_float32_leaves_are_reduced_in_float64():
    problem = Problem(5, 6, 2, losses.BCE(), Decay(0.25, 0.125, 0.5))
    low = problem.astype(jnp.float32)
    assert minimizer(low).value == minimizer(problem).value
    assert minimizer(low).params.W.dtype == np.float64


def test_params_are_a_point_of_the_problem():
    for bias in BIASES:
        for features in ("per_sample", "per_class"):
            problem = Problem(3, 4, 5, losses.BCE(), Decay(0.01, 0.01, 0.01), bias, features)
            point = minimizer(problem).params
            shapes = jax.tree.map(np.shape, problem.init(jax.random.key(0)))
            assert jax.tree.map(np.shape, point) == shapes
            assert isinstance(point, Params)
    with pytest.raises(ufm.InputError):
        minimizer(Problem(3, 1, 5, losses.BCE(), Decay(0.01, 0.01, 0.01)))

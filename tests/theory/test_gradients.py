"""Derivatives of every public quantity of `ufm.theory` and `ufm.losses`, against central differences.

What cannot be traced must say so: a derivative of a number that was cut out of the trace would be wrong in silence.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm import Decay, NormalizedProblem, Params, Problem, losses, theory
from ufm.losses import Loss
from ufm.roots import increasing_root

STEP = 1e-5  # central differences: rounding 1e-15/STEP and truncation STEP^2 meet near 1e-10 of a number of size 1
CLOSE = 1e-6


def assert_derivatives(function, point):
    """Forward, reverse and central differences of ``function`` (n,) -> (m,) at each row of ``point`` (count, n)."""
    point = jnp.atleast_2d(jnp.asarray(point, jnp.float64))
    both = jax.jit(jax.vmap(lambda t: (jax.jacfwd(function)(t), jax.jacrev(function)(t))))
    value = jax.jit(jax.vmap(function))
    steps = STEP * jnp.maximum(jnp.abs(point), 0.01)
    columns = []
    for i in range(point.shape[1]):
        up, down = point.at[:, i].add(steps[:, i]), point.at[:, i].add(-steps[:, i])
        columns.append((value(up) - value(down)) / (up - down)[:, [i]])
    expected = np.stack(columns, axis=2)
    size = np.maximum(np.max(np.abs(expected), axis=2, keepdims=True), np.abs(value(point))[:, :, None])
    for found in both(point):
        assert np.all(np.isfinite(found))
        assert np.max(np.abs(found - expected) / (size + 1e-3)) < CLOSE, (found, expected)


# The scalar reduction -------------------------------------------------------------------------------

HYPER = {"ls": [0.2], "mse": [2.0, 3.0], "focal": [1.5]}
NAMED = {"ce": losses.CE, "ls": losses.LabelSmoothing, "bce": losses.BCE, "mse": losses.MSE, "focal": losses.Focal}
# Decays of W, H and b that lead to each regime; K = 5, n = 2.
POINTS = {
    "etf": (0.01, 0.02, 0.003),
    "stiff bias": (0.01, 0.02, 0.7),
    "merged": (0.4, 0.3, 4.0),
    "zero": (40.0, 30.0, 0.2),
}


def reduced(name, bias):
    def function(t):
        problem = Problem(5, 6, 2, NAMED[name](*t[3:]), Decay(*t[:3]), bias)
        found = theory.reduce(problem)
        return jnp.stack([found.gap, found.shift, found.bias, found.value])

    return function


@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("ce", "per_class"),
        ("bce", "per_class"),
        ("bce", "none"),
        ("mse", "unified"),
        ("focal", "per_class"),
        pytest.param("ls", "per_class", marks=pytest.mark.slow),
        pytest.param("bce", "unified", marks=pytest.mark.slow),
        pytest.param("mse", "none", marks=pytest.mark.slow),
    ],
)
def test_reduction(name, bias):
    assert_derivatives(reduced(name, bias), [[*decays, *HYPER.get(name, [])] for decays in POINTS.values()])


@pytest.mark.slow
def test_reduction_of_a_custom_loss():
    """Without a formula for (p, q), and with a parameter; c = 0 imposed."""
    soft = losses.custom(lambda z, k, t: t * jax.nn.logsumexp(z / t) - z[k] + 0.1 * z @ z, {"t": 1.0}, convex=True)

    def function(t):
        loss = losses.Custom(soft.function, {"t": t[3]}, convex=True)
        found = theory.reduce(Problem(3, 4, 2, loss, Decay(*t[:3])), centered=True)
        return jnp.stack([found.gap, found.bias, found.value])

    assert_derivatives(function, [0.02, 0.03, 0.5, 0.7])


@pytest.mark.parametrize(("loss", "expected"), [(losses.CE(), -104.712042), (losses.BCE(), -205.176768)], ids=str)
def test_gap_by_its_formula(loss, expected):
    """K = 10, n = 5, decays 5e-3, 1e-3, 0.01. CE: a = log(1/mu - K + 1), da/dW = -1/(2 W (1 - (K-1) mu))."""

    def gap(w):
        return theory.reduce(Problem(10, 20, 5, loss, Decay(w, 1e-3, 0.01))).gap

    assert float(jax.jit(jax.grad(gap))(5e-3)) == pytest.approx(expected, rel=1e-8)
    with jax.enable_x64(False):
        assert float(jax.jit(jax.grad(gap))(jnp.float32(5e-3))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_second_derivative():
    def gap(w):
        return theory.reduce(Problem(10, 20, 5, losses.BCE(), Decay(w, 1e-3, 0.01))).gap

    first, second = jax.jit(jax.grad(gap)), jax.jit(jax.grad(jax.grad(gap)))
    h = 1e-8
    assert float(second(5e-3)) == pytest.approx(float(first(5e-3 + h) - first(5e-3 - h)) / (2 * h), rel=1e-6)


@pytest.mark.parametrize(("loss", "bias"), [(losses.CE(), "per_class"), (losses.BCE(), "none")], ids=str)
def test_at_a_threshold_the_side_of_zero_is_returned(loss, bias):
    """K = 4, mu = 1/4: K mu = 1, and without bias K mu = (K-2)/2 too; all numbers are exact in binary."""
    function = jax.jit(
        jax.jacrev(lambda w: tuple(vars(theory.reduce(Problem(4, 4, 1, loss, Decay(w, 0.25, 1.0), bias))).values())[:4])
    )
    gap, shift, beta, value = map(float, function(0.25))
    assert (gap, shift, beta, value) == (0.0, 0.0, 0.0, 0.0)
    if bias == "per_class":
        gap, _, _, value = map(float, function(0.25 * (1 - 1e-9)))
        # One side away it is -1/(2 W (1 - (K-1) mu)).
        assert gap == pytest.approx(-1 / (2 * 0.25 * 0.25), rel=1e-6)
        assert abs(value) < 1e-7


def test_beyond_the_mean_mode_each_side_has_its_own_derivative():
    """BCE, K = 10, mu = 5e-3: below the boundary dc = 0, above it ``c = p + (K-1) q + K mu/decay_b``."""
    from ufm.atlas.papers.li2025_bias import boundary_decay_b

    K, mu = 10, 5e-3
    edge = boundary_decay_b(mu, K)
    shift = jax.jit(jax.grad(lambda b: theory.reduce(Problem(K, K, 1, losses.BCE(), Decay(mu, mu, b))).shift))
    assert float(shift(edge * (1 - 1e-9))) == 0.0
    assert float(shift(edge * (1 + 1e-9))) == pytest.approx(-K * mu / edge**2, rel=1e-8)


# Roots ------------------------------------------------------------------------------------------------


def test_root_is_differentiable_in_all_that_its_function_closes_over():
    def function(t):
        return increasing_root(lambda x: jnp.sinh(x) * t[0] + x - t[1], jnp.float64(-5.0), jnp.float64(5.0))[None]

    assert_derivatives(function, [[1.0, 0.3], [0.2, -2.0]])
    assert_derivatives(lambda t: jax.grad(lambda s: function(s)[0])(t), [[1.0, 0.3], [0.2, -2.0]])


def test_root_without_a_slope():
    """At a jump, and where the sign does not change, the derivative is 0 and never a NaN."""

    def root(function):
        found = jax.value_and_grad(
            lambda t: increasing_root(lambda x: function(x, t), jnp.float64(-1.0), jnp.float64(1.0))
        )
        return [float(x) for x in found(jnp.float64(0.5))]

    assert root(lambda x, t: jnp.sign(x - t)) == [0.5, 0.0]
    assert root(lambda x, t: 0.0 * x - t) == [1.0, 0.0]


# Losses -----------------------------------------------------------------------------------------------

CASES = {
    "ce": (losses.CE, []),
    "bce": (losses.BCE, []),
    "focal": (losses.Focal, [1.5]),
    "ls": (losses.LabelSmoothing, [0.2]),
    "mse": (losses.MSE, [2.0, 3.0]),
    "naive": (losses.Naive, []),
    "logistic": (losses.Logistic, []),
}


@pytest.mark.parametrize("name", CASES)
def test_losses(name):
    """Value, value at (p, q), conjugate and its variants, in logits, scale and hyper-parameters."""
    kind, hyper = CASES[name]
    K = 2 if name == "logistic" else 3

    def function(t):
        z, scale, loss = t[:K], t[K], kind(*t[K + 1 :])
        values = [loss(z, 1), jnp.sum(loss.feasible_scale(jax.grad(loss)(z, 1), 1))]
        if name != "logistic":
            values.append(loss.at(z[0], z[1], K))
        # The slope of `naive` is one point, which the conjugate's domain is.
        values.append(loss.conjugate_along(z, 1, 1.0 if name == "naive" else scale))
        return jnp.stack(values)

    z = np.array([0.7, -0.4, 1.3])[:K]
    assert_derivatives(function, [[*z, 0.6, *hyper], [*(-2 * z), 0.9, *hyper]])


def test_curvature_of_the_focal_conjugate():
    """The maximizer y(a) moves with a: a conjugate that holds it fixed has no curvature."""
    focal, z = losses.Focal(2.0), jnp.asarray([0.7, -0.4, 1.3])

    def gradient(t):
        return jax.grad(lambda s: focal.conjugate(s * jax.grad(focal)(z, 1), 1))(t[0])[None]

    assert_derivatives(gradient, [[0.5], [0.8]])


def test_conjugate_at_the_edge_of_its_domain():
    """v log v has the slope -inf at v = 0; 0 is returned, on which no sum founders."""
    for loss in (losses.CE(), losses.BCE()):
        assert np.all(np.isfinite(jax.grad(loss.conjugate)(jnp.zeros(3), 1)))


@pytest.mark.parametrize("room", ["theory.reduction", "losses.softmax"])
def test_a_root_cut_out_of_the_trace_is_caught(room, monkeypatch):
    """What a bisection without the rule would give, or a stopped gradient: a root that does not move."""
    place = f"ufm.{room}.increasing_root"
    monkeypatch.setattr(place, lambda *args, **options: jax.lax.stop_gradient(increasing_root(*args, **options)))
    check = {
        "theory.reduction": lambda: assert_derivatives(reduced("ce", "per_class"), [POINTS["etf"]]),
        "losses.softmax": test_curvature_of_the_focal_conjugate,
    }[room]
    with pytest.raises(AssertionError):
        check()


# Certificates and objectives ----------------------------------------------------------------------------


def certified(loss, bias):
    rng = np.random.default_rng(1)
    K, d, n = 3, 3, 2
    b = {"per_class": rng.normal(size=K), "unified": rng.normal(size=()), "none": None}[bias]
    point = jax.tree.map(jnp.asarray, Params(rng.normal(size=(K, d)), rng.normal(size=(d, K * n)), b))
    along = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), point)

    def function(t):
        here = jax.tree.map(lambda x, y: x + t[3] * y, point, along)
        found = theory.certify(Problem(K, d, n, loss, Decay(*t[:3]), bias), here)
        return jnp.stack([found.lower_bound, found.gap, found.value, found.scale])

    return function


@pytest.mark.parametrize(
    ("loss", "bias"),
    [
        (losses.BCE(), "per_class"),
        pytest.param(losses.CE(), "unified", marks=pytest.mark.slow),
        pytest.param(losses.Focal(2.0), "none", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_certificate(loss, bias):
    """Where nothing is tight: the bias of the dual point is a root, and moves with the decays and the point."""
    assert_derivatives(certified(loss, bias), [0.1, 0.05, 0.3, 0.0])


def test_certificate_at_a_minimizer():
    """Equal singular values and a scale of 1: a kink, whose slope returned is finite; value and gap keep theirs."""
    problem = Problem(3, 3, 2, losses.CE(), Decay(0.1, 0.05, 0.3), "none")
    point = jax.tree.map(jnp.asarray, theory.minimizer(problem).params)

    def function(w):
        found = theory.certify(Problem(3, 3, 2, losses.CE(), Decay(w, 0.05, 0.3), "none"), point)
        return jnp.stack([found.lower_bound, found.value, found.scale])

    slopes = jax.jit(jax.jacrev(function))(0.1)
    assert np.all(np.isfinite(slopes))
    assert float(slopes[1]) == pytest.approx(float(jnp.sum(point.W**2)) / 2, rel=1e-12)


@pytest.mark.slow
def test_certificate_on_spheres():
    rng = np.random.default_rng(2)
    W, H, b = (jnp.asarray(rng.normal(size=s)) for s in ((3, 4), (4, 6), (3,)))
    turn = jnp.asarray(rng.normal(size=(3, 4)))

    def function(t):
        normalized = NormalizedProblem(Problem(3, 4, 2, losses.BCE(), Decay(b=t[1])), t[0])
        found = theory.certify_normalized(normalized, Params(W + t[2] * turn, H, b))
        return jnp.stack([found.lower_bound, found.gap, found.value])

    assert_derivatives(function, [2.0, 0.3, 0.0])


# What is computed on the host ---------------------------------------------------------------------------

PROBLEM = Problem(4, 5, 2, losses.BCE(), Decay(0.01, 0.02, 0.3))
ZERO = Params(np.zeros((4, 5)), np.zeros((5, 4)), np.zeros(4))


def with_decay(w):
    return Problem(4, 5, 2, losses.BCE(), Decay(w, 0.02, 0.3))


TRACED = {"bias_stiffness", "certify", "certify_normalized", "collapse_strength", "nonnegative.frame_cost", "reduce"}
"""Functions of `ufm.theory` with derivatives."""
HOST = {
    "coarse_ce": lambda w: theory.coarse_ce(w, 4, 2)[0],
    "collapsed_spectrum": lambda w: theory.collapsed_spectrum(with_decay(w), ZERO).largest,
    "hessian_spectrum": lambda w: theory.hessian_spectrum(with_decay(w)).largest,
    "ladder": lambda w: theory.ladder(with_decay(w))[1].value,
    "merged": lambda w: theory.merged(with_decay(w), (3, 1)).value,
    "merging_threshold": lambda w: theory.merging_threshold(with_decay(w))[0].threshold,
    "minimizer": lambda w: theory.minimizer(with_decay(w)).value,
    "networks.nearest": lambda w: ufm.networks.nearest(ufm.networks.Observed(4, 8, w, -0.6, 0.0, 1.0, 1.0), "ce").mu,
    "predict": lambda w: theory.predict(with_decay(w)).value,
    "closed_forms.ce": lambda w: theory.closed_forms.ce(w, 4).gap,
    "closed_forms.label_smoothing": lambda w: theory.closed_forms.label_smoothing(w, 4, 0.1).gap,
    "closed_forms.focal_stationarity": lambda w: theory.closed_forms.focal_stationarity(w, 0.1, 4, 2.0),
    "closed_forms.bce_centered": lambda w: theory.closed_forms.bce_centered(w, 4, 0.1).gap,
    "closed_forms.bce_mean_shifted": lambda w: theory.closed_forms.bce_mean_shifted(w, 4, 0.1).gap,
    "closed_forms.bce": lambda w: theory.closed_forms.bce(w, 4, 0.1).gap,
    "closed_forms.mse": lambda w: theory.closed_forms.mse(w, 4, 0.1).gap,
    "fixed_classifier.ce": lambda w: theory.fixed_classifier.ce(4, w).value,
    "fixed_classifier.bce": lambda w: theory.fixed_classifier.bce(4, w).value,
    "fixed_classifier.bias_cost": lambda w: theory.fixed_classifier.bias_cost(PROBLEM, w),
    "fixed_classifier.feature_cost": lambda w: theory.fixed_classifier.feature_cost(
        Problem(4, 5, 2, decay=Decay(0.01, w, 0.3)), 2.0
    ),
    "fixed_classifier.minimum": lambda w: theory.fixed_classifier.minimum(PROBLEM, w).value,
    "nonnegative.unbiased_ce": lambda w: theory.nonnegative.unbiased_ce((3, 2), w)[1],
    "nonnegative.dead": lambda w: theory.nonnegative.dead(with_decay(w), 0.0).sum(),
    "nonnegative.face_spectrum": lambda w: (
        theory.nonnegative.face_spectrum(with_decay(w), Params(ZERO.W, np.zeros((5, 8)), ZERO.b)).largest
    ),
    "nonnegative.balanced": lambda w: theory.nonnegative.balanced(with_decay(w), theory.reduce(with_decay(w))).value,
    "nonnegative.decoupled": lambda w: theory.nonnegative.decoupled(with_decay(w)).value,
    "spheres.ce": lambda w: theory.spheres.ce(w, 4).value,
    "spheres.bce": lambda w: theory.spheres.bce(w, 4, 0.1).value,
    "spheres.corollary_1": lambda w: theory.spheres.corollary_1(-w, w, 4),
    "spheres.bias_equation": lambda w: theory.spheres.bias_equation(w, 1.0, -1.0, 4, 0.1),
    "spheres.optimal_bias": lambda w: theory.spheres.optimal_bias(w, -1.0, 4, 0.1),
}
"""Functions, the nearest model of a network among them, that go through NumPy or SciPy: no tracer enters."""


@pytest.mark.parametrize("name", HOST)
def test_what_cannot_be_traced_refuses(name):
    float(HOST[name](0.05))
    # SciPy's minimizer, which `merged` calls, has words of its own for what is no number.
    error, words = (ValueError, "scalar") if name == "merged" else (TypeError, r"[Tt]race")
    with pytest.raises(error, match=words):
        jax.grad(HOST[name])(0.05)


def test_the_naive_loss_on_spheres_is_a_polynomial():
    assert float(jax.grad(lambda g: theory.spheres.naive(g, 4).value)(2.0)) == pytest.approx(-4 / 3)


def test_the_lists_are_complete():
    """Every public function of the theory is traced or refuses; every loss is differentiated."""
    found = {name for name in theory.__all__ if inspect.isfunction(getattr(theory, name))}
    for module in (theory.closed_forms, theory.fixed_classifier, theory.nonnegative, theory.spheres):
        own = inspect.getmembers(module, lambda x, m=module: inspect.isfunction(x) and x.__module__ == m.__name__)
        found |= {f"{module.__name__.rpartition('.')[2]}.{name}" for name, _ in own if not name.startswith("_")}
    assert found | {"networks.nearest"} == TRACED | set(HOST) | {"spheres.naive"}
    kinds = {kind for kind in vars(losses).values() if inspect.isclass(kind) and issubclass(kind, Loss)}
    assert kinds - {Loss, losses.Custom} == {kind for kind, _ in CASES.values()}


def test_strength_and_stiffness():
    def function(t):
        problem = Problem(4, 5, 2, losses.BCE(), Decay(*t))
        return jnp.stack([theory.collapse_strength(problem), theory.bias_stiffness(problem)])

    assert_derivatives(function, [0.01, 0.02, 0.3])


def test_objectives():
    rng = np.random.default_rng(0)
    point = Params(*(jnp.asarray(rng.normal(size=s)) for s in ((3, 4), (4, 6), (3,))))

    def function(t):
        problem = Problem(3, 4, 2, losses.Focal(t[3]), Decay(*t[:3]))
        unit = Params(point.W / 2.0, point.H / 2.0, point.b)
        return jnp.stack([problem.objective(point), NormalizedProblem(problem, t[4]).objective(unit)])

    assert ufm.theory is theory
    assert_derivatives(function, [0.1, 0.2, 0.3, 1.5, 4.0])

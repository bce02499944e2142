"""The dual certificate: never above the minimum, tight at it, and sensitive to every term of its formula."""

import dataclasses
import functools
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import mp

from ufm import Decay, Params, Problem, losses, models, solve
from ufm.theory import certificate as module
from ufm.theory import certify, minimizer, regularizer

CONVEX = [losses.CE(), losses.BCE(), losses.LabelSmoothing(0.1), losses.MSE(2.0, 3.0)]
BIASES = ["per_class", "unified", "none"]
IMBALANCED = Problem(3, 4, (1, 2, 4), losses.CE(), Decay(0.02, 0.03, 0.05))

many = jax.jit(jax.vmap(certify, (None, 0)))


def random_points(problem, count=24):
    """Points of many sizes, with biases far from their optimum."""
    points = [problem.init(jax.random.key(i), 10.0 ** (i % 4 - 2), float(i % 5) - 2) for i in range(count)]
    return jax.tree.map(lambda *x: jnp.stack(x), *points)


def with_mode(loss, bias, decay_b=0.05, **fields):
    decay = Decay(0.02, 0.03, decay_b)
    return dataclasses.replace(IMBALANCED, loss=loss, bias=bias, decay=decay, **fields)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("loss", CONVEX, ids=str)
def test_bound_holds_anywhere_and_is_tight_at_the_optimum(loss, bias):
    problem = with_mode(loss, bias)
    best = solve(problem, 0)
    at_best = certify(problem, best.params)
    assert at_best.gap <= 1e-11
    assert at_best.gap >= -at_best.rounding
    everywhere = many(problem, random_points(problem))
    bounds = np.asarray(everywhere.lower_bound - everywhere.rounding)
    assert np.all(bounds <= at_best.value)
    assert np.all(np.isfinite(bounds))
    assert np.all(np.asarray(everywhere.scale) <= 1.0)
    np.testing.assert_allclose(everywhere.gap, everywhere.value - everywhere.lower_bound, atol=1e-12)


@pytest.mark.parametrize("bias", ["per_class", "unified"])
@pytest.mark.parametrize("loss", CONVEX, ids=str)
def test_bias_without_decay(loss, bias):
    """The dual point must balance exactly; certify moves the bias to its optimum to get there."""
    problem = with_mode(loss, bias, decay_b=0.0)
    best = solve(problem, 0)
    at_best = certify(problem, best.params)
    assert at_best.gap <= 1e-11
    bounds = np.asarray(many(problem, random_points(problem)).lower_bound)
    assert np.all(bounds <= at_best.value + at_best.rounding)


@pytest.mark.parametrize("loss", CONVEX, ids=str)
def test_per_class_features_give_the_bound_of_per_sample_ones(loss):
    full, short = with_mode(loss, "per_class"), with_mode(loss, "per_class", features="per_class")
    point = short.init(jax.random.key(1))
    spread = Params(point.W, point.H[:, full.labels], point.b)
    a, b = certify(short, point), certify(full, spread)
    assert a.lower_bound == pytest.approx(b.lower_bound, rel=1e-12, abs=1e-12)
    assert a.scale == pytest.approx(b.scale, rel=1e-12)


@pytest.mark.parametrize("loss", [losses.CE(), losses.MSE(2.0, 3.0)], ids=str)
def test_fixed_classifier(loss):
    V = np.random.default_rng(0).normal(size=(3, 2))
    problem = with_mode(loss, "per_class", dim=2, classifier=V)
    best = solve(problem, 0)
    at_best = certify(problem, best.params)
    assert abs(at_best.gap) <= 1e-11
    bounds = np.asarray(many(problem, random_points(problem)).lower_bound)
    assert np.all(bounds <= at_best.value + at_best.rounding)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 10.0])
def test_focal_bound_holds_without_convexity(gamma):
    problem = Problem(3, 4, 2, losses.Focal(gamma), Decay(0.01, 0.01, 0.05))
    found = minimizer(problem)
    bounds = many(problem, random_points(problem))
    assert np.all(np.asarray(bounds.lower_bound - bounds.rounding) <= found.value)
    at = certify(problem, found.params)
    assert at.lower_bound - at.rounding <= found.value
    assert at.gap < 1e-12


@pytest.mark.parametrize("loss", [losses.BCE(), losses.CE(), losses.LabelSmoothing(0.0)], ids=str)
@pytest.mark.parametrize("decay", [1e-8, 1e-6, 1e-4])
def test_rounding_allowance_covers_tiny_minima(loss, decay):
    """At f* ~ 1e-6 a term like log(1 - 1e-8) must not cost eps: the bound stays below the exact minimum."""
    for n in (1, 3, 7):
        problem = Problem(5, 6, n, loss, Decay(decay, decay, decay))
        found = minimizer(problem)
        at = certify(problem, found.params)
        assert at.lower_bound - at.rounding <= found.value
        assert at.gap <= max(1e-9 * found.value, 10 * at.rounding)


@pytest.mark.parametrize("decay_b", [1e-12, 1e-6, 1e-2])
def test_rounding_allowance_covers_the_evaluation(decay_b):
    """The dual value at 50 digits from the same logit gradients: a small decay magnifies the bias's resultant."""
    K, N, decay = 3, 6, Decay(1e-3, 1e-2, decay_b)
    problem = Problem(K, 3, 2, losses.BCE(), decay)
    best = minimizer(problem).params
    for seed in range(8):
        noise = problem.init(jax.random.key(seed), 10.0 ** -(2 * seed))
        point = jax.tree.map(lambda x, y: jnp.asarray(x + y), best, noise)
        U = jax.vmap(jax.grad(problem.loss), (1, 0), 1)(problem.logits(point), jnp.asarray(problem.labels))
        found = module._certify_in_float64(problem, point, polish=False)
        with mp.workdps(50):
            exact = mp.matrix(np.asarray(U).tolist())
            norm = mp.sqrt(max(mp.eigsy(exact * exact.T, eigvals_only=True)[k] for k in range(K)))
            exact *= min(1, mp.sqrt(mp.mpf(decay.W) * mp.mpf(decay.H)) * N / norm)
            entropy = mp.mpf(0)
            for k in range(K):
                for i, label in enumerate(problem.labels):
                    v = -exact[k, i] if k == label else exact[k, i]
                    entropy += v * mp.log(v) + (1 - v) * mp.log(1 - v)
            resultant = [mp.fsum(exact[k, i] for i in range(N)) / N for k in range(K)]
            dual = -entropy / N - mp.fsum(r**2 for r in resultant) / (2 * mp.mpf(decay_b))
            assert abs(float(found.lower_bound) - dual) <= float(found.rounding)


def test_dimension_below_the_rank_gives_a_valid_bound_that_is_not_tight():
    problem = Problem(10, 9, 5, losses.BCE(), Decay(5e-3, 1e-3, 0.5))
    found = minimizer(problem)
    at = certify(problem, found.params)
    assert at.lower_bound <= found.lower_bound
    assert at.gap > 0.5


def test_custom_loss():
    ce = losses.CE()
    mine = losses.custom(lambda z, k: ce(z, k), convex=True, shift_invariant=True, infimum=0.0, symmetric=True)
    problem = Problem(4, 5, 3, mine, Decay(0.01, 0.02, 0.03))
    assert certify(problem, minimizer(problem).params).gap < 1e-9
    unknown = dataclasses.replace(problem, loss=losses.custom(lambda z, k: ce(z, k)))
    nothing = certify(unknown, minimizer(problem).params)
    assert nothing.lower_bound == -np.inf
    assert nothing.gap == np.inf


def test_nan_point_certifies_nothing():
    point = IMBALANCED.init(jax.random.key(0))
    at = certify(IMBALANCED, Params(point.W.at[0, 0].set(jnp.nan), point.H, point.b))
    assert at.lower_bound == -np.inf


# Precision ----------------------------------------------------------------------------------------


def test_float32_points_are_certified_in_float64():
    """MSE with tiny weights: float32 would lose everything, and a Python float keeps 53 bits."""
    low = solve(IMBALANCED, 0, dtype=jnp.float32).params
    high = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), low)
    a, b = certify(IMBALANCED, low), certify(IMBALANCED, high)
    assert (a.lower_bound, a.value, a.gap) == (b.lower_bound, b.value, b.gap)
    assert 0 < a.gap < 1e-5


def test_everything_without_x64():
    """A session that never touches the switch: float32 solve, float64 theory and certificate, switch left alone."""
    code = """
        import jax, jax.numpy as jnp, numpy as np
        import ufm
        assert not jax.config.jax_enable_x64
        problem = ufm.Problem(4, 6, 3, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.02, 0.03))
        solution = ufm.solve(problem, 0)
        assert solution.status_name == "converged", solution.status_name
        assert solution.params.W.dtype == jnp.float32
        found = ufm.theory.minimizer(problem)
        assert found.params.W.dtype == np.float64
        exact = ufm.theory.certify(problem, found.params)
        assert abs(exact.gap) < 1e-13, exact
        mine = ufm.theory.certify(problem, solution.params)
        assert exact.lower_bound - 1e-15 <= mine.value <= exact.value + 1e-5, (mine, exact)
        assert mine.gap < 1e-4, mine
        fine, wide = {"solver": ufm.solvers.Newton(tol=1e-10)}, {"dtype": "float64"}
        for options in (fine, wide):
            try:
                ufm.solve(problem, **options)
            except ufm.InputError as error:
                assert "jax_enable_x64" in str(error), error
            else:
                raise AssertionError("accepted")
        assert jnp.zeros(()).dtype == jnp.float32
        assert not jax.config.jax_enable_x64
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# An independent convex solver ------------------------------------------------------------------------


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("loss", CONVEX, ids=str)
@pytest.mark.filterwarnings("default")
def test_against_cvxpy(loss, bias):
    """The lifted problem, stated anew for a cone solver: nuclear norm, exponential cones."""
    cp = pytest.importorskip("cvxpy")
    problem = with_mode(loss, bias)
    K, N, labels, decay = 3, problem.samples, problem.labels, problem.decay
    X, b = cp.Variable((K, N)), cp.Variable((K, 1))
    Z = X if bias == "none" else X + b @ np.ones((1, N))
    terms = []
    for i, k in enumerate(labels):
        z, others = Z[:, i], [j for j in range(K) if j != k]
        if loss.name in ("ce", "ls"):
            alpha = loss.hyper.get("alpha", 0.0)
            terms.append(cp.log_sum_exp(z) - ((1 - alpha) * np.eye(K)[k] + alpha / K) @ z)
        elif loss.name == "bce":
            terms.append(cp.logistic(-z[k]) + cp.sum(cp.logistic(z[others])))
        else:
            terms.append(loss.kappa * cp.square(z[k] - loss.beta) + cp.sum_squares(z[others]))
    total = cp.sum(cp.hstack(terms)) / N + np.sqrt(decay.W * decay.H) * cp.normNuc(X)
    constraints = []
    if bias == "per_class":
        total += decay.b / 2 * cp.sum_squares(b)
    elif bias == "unified":
        total += decay.b / 2 * cp.square(b[0, 0])
        constraints = [b[1:, 0] == b[0, 0]]
    minimum = cp.Problem(cp.Minimize(total), constraints).solve(solver=cp.CLARABEL)
    at_best = certify(problem, solve(problem, 0).params)
    assert at_best.value == pytest.approx(minimum, abs=1e-6)
    bounds = np.asarray(many(problem, random_points(problem)).lower_bound)
    assert np.all(bounds <= minimum + 1e-6)


# Planted mistakes --------------------------------------------------------------------------------------

FIXED = dataclasses.replace(IMBALANCED, classifier=np.random.default_rng(0).normal(size=(3, 4)))
SHORT = dataclasses.replace(IMBALANCED, features="per_class")


def caught(problem, best, value):
    """Whether the checks above would notice: a bound above the minimum, or one that is not tight at it."""
    compiled = jax.jit(lambda point: module._certify(problem, point, polish=False))
    at_best = compiled(best)
    origin = Params(0.0 * best.W, 0.0 * best.H, best.b)  # critical but for b: s = 1 would put D above the minimum
    points = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), random_points(problem, 11), origin)
    bounds = jax.jit(jax.vmap(lambda point: module._certify(problem, point, polish=False)))(points)
    above = np.any(np.asarray(bounds.lower_bound) > value + 1e-9)
    return bool(above or not float(at_best.gap) < 1e-9 or float(at_best.gap) < -1e-9)


def _solved(problem):
    best = jax.tree.map(jnp.asarray, solve(problem, 0))
    return best.params, float(best.value)


# A Problem with an array is no key of a cache.
PROBLEMS = {"free": IMBALANCED, "fixed classifier": FIXED, "feature per class": SHORT}
solved = functools.cache(lambda name: _solved(PROBLEMS[name]))


@pytest.mark.parametrize("name", PROBLEMS)
def test_without_a_mutation_nothing_is_caught(name):
    assert not caught(PROBLEMS[name], *solved(name))


RIGHT = losses.CE.conjugate


@pytest.mark.parametrize(
    "mutant",
    [
        lambda self, u, k: -RIGHT(self, u, k),
        lambda self, u, k: 0.9 * RIGHT(self, u, k),
        lambda self, u, k: jnp.zeros((), u.dtype),
        lambda self, u, k: jnp.sum(losses._base.xlogx(jnp.abs(u))),
    ],
    ids=["sign", "factor", "dropped", "off the simplex"],
)
def test_a_wrong_conjugate_is_caught(monkeypatch, mutant):
    monkeypatch.setattr(losses.CE, "conjugate", mutant)
    assert caught(IMBALANCED, *solved("free"))


def times(factor, which=0):
    """A mutation: the part that a function returns, times ``factor``."""

    def mutate(right):
        def wrong(*args, **options):
            found = right(*args, **options)
            part = found[which] if isinstance(found[which], module.Part) else found
            part = module.Part(factor * part.value, part.rounding)
            return (part, *found[1:]) if isinstance(found[which], module.Part) else part

        return wrong

    return mutate


def same_weight(right):
    """Each column counted once, whatever its multiplicity."""
    return lambda *x: right(*x)._replace(shares=jnp.full_like(right(*x).shares, 1.0 / right(*x).shares.size))


def limit(factor):
    """A mutation: the norm that is allowed, times a ``factor`` of the problem."""

    def mutate(right):
        def wrong(self, problem, V):
            A, allowed = right(self, problem, V)
            return A, allowed * factor(problem)

        return wrong

    return mutate


LINEAR, OF_FIXED = models.Linear, regularizer.OfFixed
MUTATIONS = {
    "N in the norm's limit": ("free", LINEAR, "spectral", limit(lambda p: p.classes / p.samples)),
    "decay_H in the norm's limit": ("free", LINEAR, "spectral", limit(lambda p: p.decay.H**-0.5)),
    "no limit of the norm": ("free", LINEAR, "spectral", limit(lambda p: 1e9)),
    "sum for the mean of conjugates": ("free", module, "mean_conjugate", times(IMBALANCED.samples)),
    "sign of the conjugates": ("free", module, "mean_conjugate", times(-1.0)),
    "no bias": ("free", module, "bias_cost", times(0.0)),
    "twice the bias": ("free", module, "bias_cost", times(2.0)),
    "regularizer of a fixed classifier": ("fixed classifier", OF_FIXED, "conjugate", times(2.0)),
    "no regularizer": ("fixed classifier", OF_FIXED, "conjugate", times(0.0)),
    "no weights": ("feature per class", module, "dual_point", same_weight),
    "objective": ("free", module, "objective", lambda right: lambda *x: module.Part(2.0 * right(*x).value, 0.0)),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_part_of_the_bound_is_caught(monkeypatch, name):
    problem, where, function, mutate = MUTATIONS[name]
    monkeypatch.setattr(where, function, mutate(getattr(where, function)))
    assert caught(PROBLEMS[problem], *solved(problem))


def test_another_norm_is_caught(monkeypatch):
    def frobenius(A, units=0):
        return jnp.sqrt(jnp.sum(A**2)), jnp.zeros((), A.dtype)

    monkeypatch.setattr(module.errors, "operator_norm", frobenius)
    assert caught(IMBALANCED, *solved("free"))

"""The objective against its definition in plain NumPy, the invariances, and what a user may write."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import ufm
from ufm import Decay, Params, Problem, losses
from ufm.geometry import random_rotation

LOSSES = [losses.CE(), losses.BCE(), losses.Focal(1.5), losses.LabelSmoothing(0.2), losses.MSE(2.0, 3.0)]
BIASES = ["per_class", "unified", "none"]

objective = jax.jit(lambda problem, params: problem.objective(params))
gradient = jax.jit(lambda problem, params: jax.grad(problem.objective)(params))


def plain(problem, params):
    """The objective from its definition."""
    hyper = {k: float(v) for k, v in problem.loss.hyper.items()}
    decay = problem.decay
    b = None if params.b is None else np.asarray(params.b)
    return oracles.objective(
        problem.loss.name,
        hyper,
        problem.counts,
        (decay.W, decay.H, decay.b),
        np.asarray(params.W),
        np.asarray(params.H),
        b,
    )


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("counts", [3, (4, 1, 2, 6)], ids=["balanced", "imbalanced"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_objective_is_the_definition(loss, counts, bias):
    problem = Problem(4, 3, counts, loss, Decay(0.01, 0.02, 0.3), bias)
    params = problem.init(jax.random.key(1), scale=3.0, bias_mean=0.7)
    assert float(objective(problem, params)) == pytest.approx(plain(problem, params), rel=1e-13)


@pytest.mark.parametrize("bias", BIASES)
def test_fixed_classifier_stands_in_for_W(bias):
    V = np.random.default_rng(0).normal(size=(4, 3))
    problem = Problem(4, 3, (2, 1, 3, 2), losses.CE(), Decay(0.01, 0.02, 0.3), bias, classifier=V)
    params = problem.init(jax.random.key(0))
    np.testing.assert_array_equal(params.W, V)
    elsewhere = Params(params.W + 1.0, params.H, params.b)
    assert float(objective(problem, elsewhere)) == pytest.approx(plain(problem, params), rel=1e-13)
    assert float(jnp.max(jnp.abs(gradient(problem, elsewhere).W))) == 0.0


@pytest.mark.parametrize("counts", [5, (4, 1, 2)])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_per_class_features_are_repeated_per_sample_features(loss, counts):
    problem = Problem(3, 5, counts, loss, Decay(0.01, 0.02, 0.3))
    short = Problem(3, 5, counts, loss, Decay(0.01, 0.02, 0.3), features="per_class")
    assert short.columns == 3
    assert short.samples == problem.samples
    means = short.init(jax.random.key(2))
    full = Params(means.W, means.H[:, problem.labels], means.b)
    assert float(objective(short, means)) == pytest.approx(float(objective(problem, full)), rel=1e-14)
    summed = jax.ops.segment_sum(gradient(problem, full).H.T, jnp.asarray(problem.labels), 3).T
    np.testing.assert_allclose(gradient(short, means).H, summed, rtol=1e-12, atol=1e-15)


def test_gradient_against_finite_differences():
    problem = Problem(3, 2, (1, 2, 3), losses.BCE(), Decay(0.01, 0.02, 0.3))
    params = problem.init(jax.random.key(0))
    flat, unravel = ravel_pytree(params)
    step = 1e-6
    value = jax.jit(lambda x: problem.objective(unravel(x)))
    differences = [(value(flat + step * e) - value(flat - step * e)) / (2 * step) for e in np.eye(flat.size)]
    np.testing.assert_allclose(ravel_pytree(gradient(problem, params))[0], differences, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("fixed", [False, True], ids=["free", "fixed"])
def test_hessian_is_the_change_of_the_gradient(fixed, bias):
    classifier = np.random.default_rng(0).normal(size=(3, 2)) if fixed else None
    problem = Problem(3, 2, (1, 2, 3), losses.Focal(2.0), Decay(0.01, 0.02, 0.3), bias, classifier=classifier)
    params, direction = problem.init(jax.random.key(0)), problem.init(jax.random.key(1), scale=2.0)
    _, expected = jax.jvp(jax.grad(problem.objective), (params,), (direction,))
    found = jax.jit(lambda p, x, v: p.hessian(x)(v))(problem, params, direction)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), found, expected)


# Invariances ----------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), loss=st.sampled_from(LOSSES), bias=st.sampled_from(BIASES))
def test_rotation_of_the_features_changes_nothing(seed, loss, bias):
    problem = Problem(4, 3, (2, 1, 3, 2), loss, Decay(0.01, 0.02, 0.3), bias)
    key, other = jax.random.split(jax.random.key(seed))
    params = problem.init(key, scale=2.0)
    Q = random_rotation(other, 3)
    turned = Params(params.W @ Q, Q.T @ params.H, params.b)
    assert float(objective(problem, turned)) == pytest.approx(float(objective(problem, params)), rel=1e-12)


@given(seed=st.integers(0, 2**31), loss=st.sampled_from(LOSSES), order=st.permutations(range(4)))
def test_permuting_classes_and_counts_changes_nothing(seed, loss, order):
    counts = (2, 1, 3, 2)
    order = np.asarray(order)
    first = Problem(4, 3, counts, loss, Decay(0.01, 0.02, 0.3))
    params = first.init(jax.random.key(seed), scale=2.0)
    second = Problem(4, 3, tuple(counts[k] for k in order), loss, Decay(0.01, 0.02, 0.3))
    columns = np.concatenate([np.flatnonzero(first.labels == k) for k in order])
    moved = Params(params.W[order], params.H[:, columns], params.b[order])
    assert plain(second, moved) == pytest.approx(float(objective(first, params)), rel=1e-12)


@given(seed=st.integers(0, 2**31), loss=st.sampled_from(LOSSES))
def test_permuting_samples_of_a_class_changes_nothing(seed, loss):
    problem = Problem(3, 3, 5, loss, Decay(0.01, 0.02, 0.3))
    params = problem.init(jax.random.key(seed), scale=2.0)
    rng = np.random.default_rng(seed)
    columns = np.concatenate([5 * k + rng.permutation(5) for k in range(3)])
    moved = Params(params.W, params.H[:, columns], params.b)
    assert float(objective(problem, moved)) == pytest.approx(float(objective(problem, params)), rel=1e-13)


@given(seed=st.integers(0, 2**31), shift=st.floats(-20, 20))
def test_a_common_bias_costs_only_its_decay_for_shift_invariant_losses(seed, shift):
    problem = Problem(3, 3, 2, losses.CE(), Decay(0.01, 0.02, 0.0))
    params = problem.init(jax.random.key(seed))
    moved = Params(params.W, params.H, params.b + shift)
    assert float(objective(problem, moved)) == pytest.approx(float(objective(problem, params)), rel=1e-11)


# Leaves ---------------------------------------------------------------------------------------


def test_pytree_round_trip():
    problem = Problem(3, 4, (1, 2, 3), losses.Focal(2.0), Decay(0.1, 0.2, 0.3), "unified", "per_class")
    leaves, shape = jax.tree.flatten(problem)
    assert leaves[:4] == [2.0, 0.1, 0.2, 0.3]
    assert leaves[4].tolist() == [1.0, 2.0, 3.0]
    again = jax.tree.unflatten(shape, leaves)
    assert again == problem
    assert hash(jax.tree.structure(again)) == hash(shape)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(problem)]
    assert paths == [".loss.gamma", ".decay.W", ".decay.H", ".decay.b", ".grouping.each"]


def test_gradient_with_respect_to_decay_is_half_the_squared_norms():
    problem = Problem(3, 4, 2, losses.CE(), Decay(0.1, 0.2, 0.3))
    params = problem.init(jax.random.key(0))
    slope = jax.grad(lambda p: p.objective(params))(problem).decay
    for mine, x in zip((slope.W, slope.H, slope.b), (params.W, params.H, params.b), strict=True):
        assert float(mine) == pytest.approx(0.5 * float(jnp.sum(x**2)), rel=1e-13)


def test_vmap_over_decays_and_hyper_parameters():
    params = Problem(3, 4, 2).init(jax.random.key(0))
    W = jnp.asarray([0.1, 0.2, 0.4])
    gamma = jnp.asarray([0.5, 1.0, 3.0])

    def value(w, g):
        return Problem(3, 4, 2, losses.Focal(g), Decay(w, 0.2, 0.3)).objective(params)

    many = jax.jit(jax.vmap(value))(W, gamma)
    one = [value(float(w), float(g)) for w, g in zip(W, gamma, strict=True)]
    np.testing.assert_allclose(many, one, rtol=1e-14)
    stacked = Problem(3, 4, 2, losses.CE(), Decay(W, 0.2, 0.3))
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, stacked)
    assert jax.vmap(lambda p: p.objective(params), (axes,))(stacked).shape == (3,)


def test_float32_parameters_keep_their_dtype():
    problem = Problem(3, 4, (1, 2, 3), losses.LabelSmoothing(0.1), Decay(0.1, 0.2, 0.3), features="per_class")
    params = problem.init(jax.random.key(0), dtype=jnp.float32)
    value = problem.objective(params)
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(
        float(problem.objective(jax.tree.map(lambda x: x.astype(float), params))), rel=1e-5
    )


# What it says about itself ---------------------------------------------------------------------


def test_sizes():
    problem = Problem(3, 4, (5, 5, 1))
    assert (problem.samples, problem.columns, problem.balanced) == (11, 11, False)
    np.testing.assert_array_equal(problem.labels, [0] * 5 + [1] * 5 + [2])
    same = Problem(3, 4, (5, 5, 5))
    assert same.balanced
    assert same == Problem(3, 4, 5)
    assert Problem(3, 4, np.int64(5)) == Problem(3, 4, 5)
    assert Problem(3, 4, np.array([5, 5, 1])).per_class == (5, 5, 1)


def test_init_shapes_scale_and_keys():
    for bias, shape in (("per_class", (50,)), ("unified", ()), ("none", None)):
        params = Problem(50, 40, 30, bias=bias).init(jax.random.key(0), scale=2.0, bias_mean=3.0)
        assert params.W.shape == (50, 40)
        assert params.H.shape == (40, 1500)
        assert params.b is None if shape is None else params.b.shape == shape
        assert float(jnp.std(params.H)) == pytest.approx(2.0 / np.sqrt(40), rel=0.02)
        if shape is not None:
            # Normal of deviation scale/10 about bias_mean: five deviations of the mean.
            assert float(jnp.mean(params.b)) == pytest.approx(3.0, abs=5 * 0.2 / np.sqrt(params.b.size))
        if shape == (50,):
            assert float(jnp.std(params.b)) == pytest.approx(0.2, rel=0.3)
    again = Problem(50, 40, 30, bias="none").init(jax.random.key(0), scale=2.0)
    assert np.array_equal(again.H, params.H)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Problem(classes=1), ["classes", "1", ">= 2"]),
        (lambda: Problem(classes=0), ["classes", "0", ">= 2"]),
        (lambda: Problem(classes=2.5), ["classes", "2.5", "whole number"]),
        (lambda: Problem(classes=True), ["classes", "True", "whole number"]),
        (lambda: Problem(classes="ten"), ["classes", "'ten'", "whole number"]),
        (lambda: Problem(dim=0), ["dim", "0", ">= 1"]),
        (lambda: Problem(dim=None), ["dim", "None", "whole number"]),
        (lambda: Problem(per_class=0), ["per_class", "0", ">= 1"]),
        (lambda: Problem(per_class=-3), ["per_class", "-3", ">= 1"]),
        (lambda: Problem(per_class="many"), ["per_class", "'many'", "exp:n_max"]),
        (lambda: Problem(per_class="exp:n_max=3"), ["per_class", "exp:n_max=3", "ratio"]),
        (lambda: Problem(3, 4, targets=5), ["targets", "5", "ufm.targets"]),
        (lambda: Problem(classes=3, per_class=(1, 2)), ["per_class", "(1, 2)", "classes = 3", "got 2"]),
        (lambda: Problem(classes=3, per_class=(1, 0, 2)), ["per_class[1]", "0", ">= 1"]),
        (lambda: Problem(classes=3, per_class=(1, 1.5, 2)), ["per_class[1]", "1.5", "whole number"]),
        (lambda: Problem(loss="ce"), ["loss", "'ce'", "ufm.losses"]),
        (lambda: Problem(loss=losses.CE), ["loss", "CE", "ufm.losses"]),
        (lambda: Problem(decay=5e-4), ["decay", "0.0005", "Decay"]),
        (lambda: Problem(bias="per-class"), ["bias", "'per-class'", "did you mean 'per_class'"]),
        (lambda: Problem(bias=None), ["bias", "None", "per_class"]),
        (lambda: Problem(features="each"), ["features", "'each'", "per_sample"]),
        (lambda: Problem(classes=3, dim=2, classifier=np.ones((2, 3))), ["classifier.shape", "(2, 3)", "(3, 2)"]),
        (lambda: Problem(classes=3, dim=2, classifier=np.full((3, 2), np.nan)), ["classifier", "NaN", "finite"]),
        (lambda: Problem(classes=3, dim=2, classifier="eye"), ["classifier"]),
        (lambda: Decay(W=0), ["decay.W", "0", "> 0"]),
        (lambda: Decay(W=-1e-3), ["decay.W", "-0.001", "> 0"]),
        (lambda: Decay(H=np.nan), ["decay.H", "nan", "> 0"]),
        (lambda: Decay(H=np.inf), ["decay.H", "inf", "finite"]),
        (lambda: Decay(b=-1), ["decay.b", "-1", ">= 0"]),
        (lambda: Decay(b="none"), ["decay.b", "'none'", ">= 0"]),
        (lambda: Decay(W=np.array([0.1, -0.1])), ["decay.W", "> 0"]),
    ],
)
def test_bad_input_names_field_value_and_what_is_allowed(make, words):
    with pytest.raises(ufm.InputError, match="must be") as error:
        make()
    assert isinstance(error.value, ValueError)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_public_names():
    for name in ufm.__all__:
        assert getattr(ufm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'solver'"):
        _ = ufm.solver
    assert set(ufm.__all__) <= set(dir(ufm))


def test_a_seed_is_a_key_by_another_name():
    problem = ufm.Problem(3, 4, 1, ufm.losses.CE())
    key = jax.random.key(5)
    for a, b in (
        (problem.init(5).W, problem.init(key).W),
        (ufm.solve(problem, seed=5).params.W, ufm.solve(problem, key).params.W),
        (ufm.theory.minimizer(problem, 5).params.W, ufm.theory.minimizer(problem, key).params.W),
        (ufm.geometry.simplex_etf(3, 4, 5), ufm.geometry.simplex_etf(3, 4, key)),
    ):
        np.testing.assert_array_equal(a, b)
    for wrong, line in (
        ({"seed": -1}, r"^seed = -1: must be a whole number in \[0, 2\^63\)$"),
        ({"seed": 1.5}, r"^seed = 1.5: must be a whole number in \[0, 2\^63\), or a JAX key as key$"),
        ({"key": key, "seed": 1}, r"^seed = 1: must be absent where a key is given$"),
        ({"key": "five"}, r"^seed = 'five': must be a whole number"),
    ):
        with pytest.raises(ufm.InputError, match=line):
            ufm.solve(problem, **wrong)

"""Values and gradients of every loss against 50-digit arithmetic, in both precisions, for |logit| up to 1e4."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loss_and_gradient

import ufm
from ufm import losses

LOSSES = [
    losses.CE(),
    losses.BCE(),
    losses.Focal(0.0),
    losses.Focal(0.5),
    losses.Focal(3.0),
    losses.LabelSmoothing(0.1),
    losses.LabelSmoothing(0.0),
    losses.MSE(2.5, 15.0),
]
IDS = [str(x) for x in LOSSES]


@jax.jit
def values_and_gradients(loss, z, labels):
    return jax.vmap(jax.value_and_grad(loss))(z, labels)


@jax.jit
def at_and_full(loss, p, q):
    """`at` and the full evaluation with the true class in the second place."""
    return loss.at(p[0], q[0], p.shape[0]), loss(jnp.where(jnp.arange(p.shape[0]) == 1, p, q), 1)


def logits_and_labels(classes, dtype):
    """Random logits at five sizes, and very confident ones, right and wrong."""
    rng = np.random.default_rng(classes)
    rows = [size * rng.normal(size=classes) for size in (0.1, 3.0, 30.0, 300.0, 5e3) for _ in range(6)]
    rows = [np.clip(z, -1e4, 1e4) for z in rows]
    labels = list(rng.integers(classes, size=len(rows)))
    for size in (20.0, 60.0, 100.0, 1e4):
        for sign in (1.0, -1.0):
            z = -sign * size * np.ones(classes)
            z[0] = sign * size
            rows.append(z)
            labels.append(0)
    rows += [np.zeros(classes), np.full(classes, 1e4), np.full(classes, -1e4)]
    labels += [0, classes - 1, 0]
    return np.asarray(rows, dtype), np.asarray(labels, np.int32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
@pytest.mark.parametrize("classes", [2, 7])
def test_value_and_gradient_against_mpmath(loss, classes, dtype):
    z, labels = logits_and_labels(classes, dtype)
    typed = jax.tree.map(lambda x: jnp.asarray(x, dtype), loss)
    values, gradients = values_and_gradients(typed, z, labels)
    assert values.dtype == gradients.dtype == dtype
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(gradients))
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    hyper = {name: np.asarray(value, dtype) for name, value in typed.hyper.items()}
    power = 1.0 + float(hyper.get("gamma", 0.0))
    for row, k, value, gradient in zip(z, labels, np.asarray(values, float), np.asarray(gradients, float), strict=True):
        exact, slope = loss_and_gradient(loss.name, hyper, row, k)
        # exp(y) of a rounded margin y carries the relative error eps |y|: nothing in this dtype does better.
        relative = 8 * eps * (classes + power * (1.0 + np.ptp(row.astype(float))))
        if loss.name in ("mse", "bce"):
            relative = 8 * eps * classes
        smoothing = float(hyper.get("alpha", 0.0))
        size = float(exact) if not smoothing else float(exact) + 2 * smoothing * np.ptp(row.astype(float))
        assert abs(value - float(exact)) <= relative * size + tiny
        # Relative accuracy entry by entry, also where a probability is 1e-40 (label smoothing subtracts a target).
        floor = tiny + (relative * 1.0 if smoothing else 0.0)
        for mine, right in zip(gradient, slope, strict=True):
            assert abs(mine - float(right)) <= relative * abs(float(right)) + power * floor


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_second_derivatives_are_finite(loss, dtype):
    z, labels = logits_and_labels(5, dtype)
    typed = jax.tree.map(lambda x: jnp.asarray(x, dtype), loss)
    hessians = jax.jit(jax.vmap(jax.hessian(typed)))(jnp.asarray(z), jnp.asarray(labels))
    assert np.all(np.isfinite(hessians))


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_gradient_against_finite_differences(loss):
    rng = np.random.default_rng(1)
    z, k, step = rng.normal(size=6) * 2, 2, 1e-5
    value = jax.jit(loss)
    differences = [(value(z + step * e, k) - value(z - step * e, k)) / (2 * step) for e in np.eye(6)]
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.asarray(z), k), differences, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
@pytest.mark.parametrize("classes", [2, 3, 11])
def test_at_equals_the_full_evaluation(loss, classes):
    points = np.random.default_rng(classes).normal(size=(2, 20)) * np.geomspace(0.1, 500, 20)
    for p, q in points.T:
        quick, full = at_and_full(loss, jnp.full(classes, p), jnp.full(classes, q))
        assert float(quick) == pytest.approx(float(full), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_permutation_of_classes(loss):
    z = np.random.default_rng(2).normal(size=6)
    order = np.array([3, 0, 5, 1, 4, 2])
    assert loss(z[order], 2) == pytest.approx(float(loss(z, 5)), rel=1e-14)


@jax.jit
def _value(loss, z):
    return loss(z, 0)


@given(
    which=st.sampled_from([x for x in LOSSES if x.shift_invariant]),
    z=st.lists(st.floats(-50, 50), min_size=2, max_size=6),
    shift=st.floats(-1e3, 1e3),
)
def test_shift_invariance(which, z, shift):
    z = jnp.asarray(z)
    moved, still = float(_value(which, z + shift)), float(_value(which, z))
    # The shift rounds the logits themselves by eps (|shift| + |z|); the focal power multiplies that.
    error = 64 * np.finfo(float).eps * (abs(shift) + 50)
    assert moved == pytest.approx(still, rel=error, abs=error * min(1.0, still) + 1e-300)


@pytest.mark.parametrize("loss", [losses.BCE(), losses.MSE()], ids=str)
def test_losses_that_are_not_shift_invariant_say_so(loss):
    z = jnp.arange(4.0)
    assert not loss.shift_invariant
    assert abs(float(loss(z + 1.0, 0) - loss(z, 0))) > 0.1


@pytest.mark.parametrize(
    ("make", "name", "values"),
    [
        (losses.Focal, "gamma", [0.0, 0.5, 2.0, 7.0]),
        (losses.LabelSmoothing, "alpha", [0.0, 0.1, 0.9]),
        (lambda kappa: losses.MSE(kappa, 2.0), "kappa", [0.5, 1.0, 9.0]),
        (lambda beta: losses.MSE(2.0, beta), "beta", [0.5, 1.0, 15.0]),
    ],
)
def test_hyper_parameters_are_leaves(make, name, values):
    z = jnp.asarray([0.3, -0.7, 1.1])
    batched = jax.jit(jax.vmap(lambda value: make(value)(z, 0)))(jnp.asarray(values))
    np.testing.assert_allclose(batched, [make(v)(z, 0) for v in values], rtol=1e-14)
    inside, step = values[1], 1e-6
    slope = jax.grad(lambda loss: loss(z, 0))(make(inside))
    difference = (make(inside + step)(z, 0) - make(inside - step)(z, 0)) / (2 * step)
    assert float(getattr(slope, name)) == pytest.approx(float(difference), rel=1e-7)


def test_focal_zero_and_no_smoothing_are_cross_entropy():
    z = np.random.default_rng(3).normal(size=(20, 5)) * 20
    value = jax.vmap(losses.CE(), (0, None))(z, 1)
    np.testing.assert_allclose(jax.vmap(losses.Focal(0.0), (0, None))(z, 1), value, rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(losses.LabelSmoothing(0.0), (0, None))(z, 1), value, rtol=1e-14)


def test_the_published_bce_overflows_where_this_one_does_not():
    """The authors' code takes log(1 - sigmoid(z)): inf at logit 100 in float32."""
    z = jnp.asarray([-100.0, 100.0, 50.0], jnp.float32)
    naive = -jnp.log(jax.nn.sigmoid(z[0])) - jnp.sum(jnp.log(1.0 - jax.nn.sigmoid(z[1:])))
    assert not np.isfinite(naive)
    exact, _ = loss_and_gradient("bce", {}, np.asarray(z), 0)
    assert float(losses.BCE()(z, 0)) == pytest.approx(float(exact), rel=1e-6)
    assert exact > mp.mpf(200)


# Reading and checking ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("ce", losses.CE()),
        ("bce", losses.BCE()),
        ("focal", losses.Focal(2.0)),
        ("focal:gamma=3", losses.Focal(3.0)),
        ("ls:alpha=0.2", losses.LabelSmoothing(0.2)),
        ("mse:kappa=1,beta=15", losses.MSE(1.0, 15.0)),
        ("mse:beta=4", losses.MSE(1.0, 4.0)),
    ],
)
def test_parse(text, loss):
    assert losses.parse(text) == loss
    assert losses.parse(str(loss)) == loss


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cee", ["loss", "'cee'", "bce", "ce", "focal", "ls", "mse", "did you mean 'ce'"]),
        ("", ["loss", "''", "one of"]),
        ("focal:gama=3", ["focal", "'gama'", "did you mean 'gamma'"]),
        ("ce:gamma=1", ["ce", "'gamma'", "no hyper-parameters"]),
        ("focal:gamma=x", ["gamma", "'x'", "number"]),
        ("focal:gamma", ["gamma", "''", "number"]),
        ("focal:gamma=-1", ["gamma", "-1.0", ">= 0"]),
        ("focal:gamma=nan", ["gamma", "nan", ">= 0"]),
        ("ls:alpha=1", ["alpha", "1.0", "[0, 1)"]),
        ("mse:kappa=0", ["kappa", "0.0", "> 0"]),
        ("mse:beta=inf", ["beta", "inf", "finite"]),
    ],
)
def test_parse_errors_name_field_value_and_what_is_allowed(text, words):
    with pytest.raises(ufm.InputError) as error:
        losses.parse(text)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.Focal(-1),
        lambda: losses.Focal("two"),
        lambda: losses.LabelSmoothing(-0.1),
        lambda: losses.LabelSmoothing(np.nan),
        lambda: losses.MSE(kappa=-1),
        lambda: losses.MSE(beta=0),
        lambda: losses.Focal(np.array([1.0, -2.0])),
        lambda: losses.custom(3),
    ],
)
def test_bad_hyper_parameters_are_refused(make):
    with pytest.raises(ufm.InputError, match="must be"):
        make()


def test_a_gradient_of_any_sign_is_still_a_loss():
    """Rebuilding from leaves must not run the checks of the constructor."""
    negative = jax.tree.map(jnp.negative, losses.Focal(2.0))
    assert float(negative.gamma) == -2.0


# A user's own loss ---------------------------------------------------------------------------


def margin_loss(z, k, margin=1.0):
    true = jnp.arange(z.shape[0]) == k
    return jnp.sum(jnp.where(true, 0.0, jax.nn.softplus(margin - jnp.sum(jnp.where(true, z, 0.0)) + z)))


@pytest.mark.parametrize(
    ("function", "promise", "word"),
    [
        (lambda z, k: -(z[k] ** 3), {"convex": True}, "convex = True"),
        (lambda z, k: jnp.sum(jnp.abs(z)) - z[k] ** 2, {"convex": True}, "convex = True"),
        (lambda z, k: jnp.sum(z**2) - z[k], {"infimum": 0.0}, "infimum = 0.0: must be at most -0."),
        (lambda z, k: jnp.sum(z**2), {"shift_invariant": True}, "shift_invariant = True"),
        (lambda z, k: jax.nn.logsumexp(z) - z[k] + 1e-3 * z[0], {"shift_invariant": True}, "shift_invariant = True"),
    ],
)
def test_a_broken_promise_is_found_out(function, promise, word):
    """A false promise would buy a false certificate."""
    loss = losses.custom(function, name="mine", **promise)
    with pytest.raises(ufm.InputError, match=f"loss mine: {word}"):
        ufm.theory.certify(ufm.Problem(3, 4, 2, loss), ufm.Problem(3, 4, 2).init(jax.random.key(0)))
    losses.custom(function, name="mine").check(3)


@pytest.mark.parametrize("classes", [2, 10])
def test_promises_that_are_kept_pass(classes):
    for name in ("ce", "bce", "ls:alpha=0.1", "mse:kappa=2,beta=3"):
        kept = losses.parse(name)
        promises = {"convex": True, "shift_invariant": kept.shift_invariant, "infimum": 0.0}
        losses.custom(lambda z, k, kept=kept: kept(z, k), **promises).check(classes)


def test_overflow_is_no_broken_promise():
    def steep(z, k):
        return jnp.sum(jnp.log(1.0 + jnp.exp(100.0 * z))) - 100.0 * z[k]

    assert steep(jnp.array([8.0, 0.0, 0.0]), 1) == jnp.inf
    losses.custom(steep, convex=True, infimum=0.0).check(3)


def test_custom_loss():
    loss = losses.custom(margin_loss, {"margin": 2.0}, convex=True, shift_invariant=True, infimum=0.0)
    z = jnp.asarray([0.5, -1.0, 2.0])
    expected = sum(np.log1p(np.exp(2.0 - 0.5 + x)) for x in (-1.0, 2.0))
    assert float(loss(z, 0)) == pytest.approx(expected, rel=1e-14)
    assert float(loss.at(0.5, 2.0, 4)) == pytest.approx(3 * np.log1p(np.exp(3.5)), rel=1e-14)
    assert str(loss) == "margin_loss:margin=2"
    assert str(losses.custom(margin_loss, name="mine")) == "mine"
    slope = jax.grad(lambda loss: loss(z, 0))(loss).parameters["margin"]
    assert float(slope) == pytest.approx(float(jax.grad(lambda m: margin_loss(z, 0, m))(2.0)), rel=1e-14)
    many = jax.vmap(lambda m: losses.custom(margin_loss, {"margin": m})(z, 0))(jnp.asarray([1.0, 2.0]))
    assert float(many[1]) == pytest.approx(expected, rel=1e-14)

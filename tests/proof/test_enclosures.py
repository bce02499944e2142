"""Enclosures: rigorous, narrow, for every loss, bias and model; and refusals."""

import builtins
import dataclasses
import hashlib
import importlib
import json
import sys
from decimal import Decimal

import jax
import numpy as np
import pytest
from flint import arb, arb_mat, ctx, fmpq
from mpmath import mp

import ufm
from ufm.losses import BCE, CE, MSE, Focal, LabelSmoothing, Logistic
from ufm.problem import Params
from ufm.proof import checker
from ufm.proof import losses as forms
from ufm.proof.balls import Unproved, exact, hexadecimal, inertia, outward
from ufm.proof.statement import Statement

LOSSES = (CE(), BCE(), Focal(2.0), LabelSmoothing(0.1), MSE(2.0, 3.0))
ALL = (*LOSSES, Logistic())


def balanced(loss, bias="per_class", decay_b=0.02, **fields):
    return ufm.Problem(4, 5, 3, loss, ufm.Decay(0.01, 0.02, decay_b), bias, **fields)


@pytest.mark.parametrize("decay_b", [0.02, 0.0])
@pytest.mark.parametrize("bias", ["per_class", "unified", "none"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_closed_forms_are_enclosed(loss, bias, decay_b, tmp_path):
    """At the closed-form minimizer: between the decimals, which are as close as float64 data allow, and checked."""
    problem = balanced(loss, bias, decay_b)
    least = ufm.theory.minimizer(problem)
    proof = ufm.proof.prove(problem, least.params)
    assert proof.reason == ""
    assert 0 < proof.width < 1e-12
    slack = 4 * np.finfo(float).eps
    assert float(proof.lower) - slack <= least.value <= float(proof.upper) + slack
    assert ufm.proof.check(proof.save(tmp_path / "proof.json")) == f"{proof.lower} < f* < {proof.upper}"


@pytest.mark.parametrize("bias", ["per_class", "unified"])
@pytest.mark.parametrize("loss", ALL, ids=str)
def test_any_point_gives_a_true_enclosure(loss, bias, tmp_path):
    """Unequal counts, weights, an offset, an undecayed bias, and a random point: wide, true, and the reason is said."""
    K = 2 if isinstance(loss, Logistic) else 4
    fields = {"weights": np.linspace(0.2, 0.4, K), "offset": np.linspace(-0.3, 0.2, K)}
    problem = ufm.Problem(K, 5, (5, 3, 2, 2)[:K], loss, ufm.Decay(0.01, 0.02, 0.0), bias, **fields)
    point = problem.init(jax.random.key(3), 0.5)
    means = np.stack([np.asarray(point.H)[:, problem.labels == k].mean(axis=1) for k in range(K)], axis=1)
    mean = dataclasses.replace(problem, features="per_class")
    value = float(mean.objective(point.__class__(point.W, means, point.b)))
    proof = ufm.proof.prove(problem, point)
    assert float(proof.upper) == pytest.approx(value, abs=2e-12)
    assert float(proof.lower) < value
    assert proof.width > 1e-3
    assert "apart" in proof.reason
    ufm.proof.check(proof.save(tmp_path / "proof.json"))


def test_unequal_counts_and_an_undecayed_bias(tmp_path):
    """Columns and rows of the dual matrix balance exactly, although no float64 gradient does."""
    fields = {"weights": np.array([0.3, 0.2, 0.5]), "offset": np.array([0.1, -0.2, 0.0])}
    problem = ufm.Problem(3, 4, (4, 2, 1), CE(), ufm.Decay(0.01, 0.02, 0.0), **fields)
    proof = ufm.proof.prove(problem, ufm.solve(problem).params)
    assert proof.width < 1e-11
    V = [[fmpq(*_ratio(x)) for x in row] for row in proof.document["dual"]["V"]]
    assert [sum(row) for row in V] == [0, 0, 0]
    assert [sum(row) for row in zip(*V, strict=True)] == [0, 0, 0]
    ufm.proof.check(proof.save(tmp_path / "proof.json"))


def _ratio(text):
    """Numerator and denominator of a hexadecimal integer times a power of two, however long."""
    mantissa, power = text.split("p")
    whole = int(mantissa, 16)
    return (whole << int(power), 1) if int(power) >= 0 else (whole, 1 << -int(power))


def test_hub_class_takes_what_is_missing():
    """A matrix that balances neither way, its diagonal wrong too: sums become zero, no entry negative."""
    statement = Statement(balanced(CE(), decay_b=0.0))
    V = np.random.default_rng(0).uniform(0.0, 0.1, (4, 4))
    A = statement.balanced(V)
    assert all(sum(row) == 0 for row in A)
    assert all(sum(row) == 0 for row in zip(*A, strict=True))
    assert all(A[j][k] >= 0 for j in range(4) for k in range(4) if j != k)
    assert all(A[j][k] == exact(V[j, k]) for j in range(1, 4) for k in range(1, 4) if j != k)


@pytest.mark.parametrize("model", ["fixed", "spheres"])
@pytest.mark.parametrize("loss", [CE(), BCE(), MSE(1.0, 1.0)], ids=str)
def test_other_models(model, loss, tmp_path):
    models = {
        "fixed": ufm.models.FixedClassifier(np.random.default_rng(0).normal(size=(3, 4))),
        "spheres": ufm.models.Spheres(3.0),
    }
    problem = ufm.Problem(3, 4, (3, 2, 2), loss, ufm.Decay(0.02, 0.03, 0.05), features="per_class", model=models[model])
    proof = ufm.proof.prove(problem, ufm.solve(problem).params)
    assert proof.width < (1e-13 if model == "fixed" else 1e-10)
    ufm.proof.check(proof.save(tmp_path / "proof.json"))


@pytest.mark.parametrize("counts", [(3, 3, 3, 3), (6, 3, 2, 1)])
def test_nonnegative_features(counts, tmp_path):
    """An orthogonal frame is optimal for CE without bias (Dang et al. 2024): the bound with P >= 0 is tight there."""
    decay = ufm.Decay(0.01, 0.02, 0.0)
    problem = ufm.Problem(4, 5, counts, CE(), decay, "none", features="per_class", model=ufm.models.Nonnegative())
    K, n, N = 4, np.array(counts), sum(counts)
    wrong = N * decay.price * np.sqrt((K - 1) / (K * n))  # 1 - p_k; p_k = 1/K where a class is dead
    a = np.maximum(np.log((K - 1) * (1 - wrong) / wrong), 0.0)
    size = np.sqrt(a * np.sqrt((K - 1) / K) * np.sqrt(decay.W / (n * decay.H)))
    W, H = np.zeros((K, 5)), np.zeros((5, K))
    W[:, :K] = (np.eye(K) - 1 / K) * np.divide(a, size, out=np.zeros(K), where=size > 0)
    H[:K] = np.diag(size)
    least = np.sum(n / N * np.log1p((K - 1) * np.exp(-a)) + decay.price * np.sqrt(n * (K - 1) / K) * a)
    proof = ufm.proof.prove(problem, Params(W, H, None))
    assert proof.width < 1e-12
    assert float(proof.lower) - 1e-15 <= least <= float(proof.upper) + 1e-15
    document = proof.document
    assert ufm.proof.check(proof.save(tmp_path / "proof.json"))
    assert float(proof.lower) > float(
        ufm.proof.prove(dataclasses.replace(problem, model=ufm.models.Linear()), Params(W, H, None)).lower
    )
    document["point"]["H"][0][1] = "-0x1p-90"  # no feature may be negative, by however little
    with pytest.raises(checker.Refused):
        checker.check({**document, "digest": digest_of(document)})


def digest_of(document):
    rest = {key: x for key, x in document.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def test_value_against_fifty_digits():
    """The upper bound is the objective of the float64 data themselves: mpmath agrees to thirty digits."""
    problem = balanced(BCE())
    point = ufm.theory.minimizer(problem).params
    statement = Statement(problem)
    with ctx.workprec(256), mp.workdps(50):
        found = statement.objective(statement.point(point))
        W, H, b = (np.vectorize(mp.mpf, otypes=[object])(x) for x in jax.tree.leaves(statement.point(point)))
        Z = W @ H + b[:, None]
        risk = sum(mp.log1p(mp.exp(-z if j == k else z)) for (j, k), z in np.ndenumerate(Z)) / 4
        decays = mp.mpf(0.01) * (W**2).sum() + 3 * mp.mpf(0.02) * (H**2).sum() + mp.mpf(0.02) * (b**2).sum()
        assert abs(mp.mpf(str(found.mid().str(45, radius=False))) - risk - decays / 2) < mp.mpf(10) ** -30


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_forms_agree_with_the_losses(loss):
    """Value, slopes, curvature and conjugate of the ball form against JAX; Fenchel's equality at the slopes."""
    K = 2 if isinstance(loss, Logistic) else 4
    z, form = np.random.default_rng(1).normal(size=K), forms.form(loss)
    balls = [arb(x) for x in z]
    assert float(form.value(balls, 1)) == pytest.approx(float(loss(z, 1)), rel=1e-14)
    u = np.array([float(x) for x in form.slopes(balls, 1)])
    np.testing.assert_allclose(u, jax.grad(loss)(z, 1), rtol=1e-13, atol=1e-15)
    curvature = np.array([[float(x) for x in row] for row in form.curvature(balls, 1)])
    np.testing.assert_allclose(curvature, jax.hessian(loss)(z, 1), rtol=1e-10, atol=1e-14)
    steep = [exact(float(x)) for x in u]
    if form.zero_sum:
        steep[1] = -sum(x for j, x in enumerate(steep) if j != 1)
    if loss.convex:
        assert float(form.conjugate(steep, 1)) == pytest.approx(float(u @ z - loss(z, 1)), rel=1e-13, abs=1e-14)
    else:
        assert float(form.conjugate(steep, 1)) == pytest.approx(float(loss.conjugate(u, 1)), rel=1e-9)


@pytest.mark.parametrize("loss", [CE(), BCE(), LabelSmoothing(0.1), Focal(2.0), Logistic()], ids=str)
def test_conjugates_refuse_what_lies_outside(loss):
    K = 2 if isinstance(loss, Logistic) else 4
    outside = [fmpq(1, 2)] + [fmpq(0)] * (K - 1)
    outside[0], outside[1] = fmpq(3, 2), -fmpq(3, 2)
    with pytest.raises(Unproved, match="domain"):
        forms.form(loss).conjugate(outside, 1)


def test_numbers():
    assert hexadecimal(exact(-0.75)) == "-0x3p-2"
    assert [outward(arb(-2), 2, up=up) for up in (False, True)] == ["-2.01", "-1.99"]
    assert [outward(arb(1) / 3, 3, up=up) for up in (False, True)] == ["0.333", "0.334"]
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    A = Q @ np.diag([3.0, 1.0, 1e-9, -1e-9, -1.0, -2.0]) @ Q.T
    assert inertia(arb_mat((A + A.T).tolist())) == (3, 3)
    with pytest.raises(Unproved, match="sign"):
        inertia(arb_mat([[1, 1], [1, 1]]))


def test_a_value_that_is_a_decimal_lies_strictly_inside():
    """MSE at the zero solution: f* = beta^2 exactly, and both decimals differ from it."""
    problem = ufm.Problem(2, 3, 1, MSE(1.0, 0.5), ufm.Decay(8.0, 8.0, 1.0), "none")
    proof = ufm.proof.prove(problem, ufm.theory.minimizer(problem).params)
    assert Decimal(proof.lower) < Decimal("0.25") < Decimal(proof.upper)
    assert proof.width < 1e-10


def test_what_has_no_ball_form_is_refused():
    own = ufm.losses.custom(lambda z, k: jax.numpy.sum(z**2) - z[k], name="mine")
    problem = balanced(own)
    with pytest.raises(ufm.InputError, match=r"loss = 'mine': must be one with a ball form.*ufm\.proof\.Form"):
        ufm.proof.prove(problem, problem.init(0))

    class Other(ufm.models.Linear):
        name = "other"

    problem = balanced(CE(), model=Other())
    with pytest.raises(ufm.InputError, match="model = 'other': must be one with a ball form: linear, fixed, spheres"):
        ufm.proof.prove(problem, problem.init(0))

    class Mine(CE):
        name = "also-mine"

    with pytest.raises(ufm.InputError, match="loss = 'also-mine'"):  # what inherits may be another function
        forms.form(Mine())


def test_a_loss_of_ones_own_is_proved_but_not_saved(tmp_path):
    class Square(ufm.proof.Form):
        def value(self, z, k):
            return sum(x * x for x in z) - z[k]

        def slopes(self, z, k):
            return [2 * x - (j == k) for j, x in enumerate(z)]

        def conjugate(self, u, k):
            return arb(sum((x + (j == k)) ** 2 for j, x in enumerate(u)) / 4)

    own = ufm.losses.custom(lambda z, k: jax.numpy.sum(z**2) - z[k], convex=True, infimum=-0.25)
    problem = balanced(own)
    proof = ufm.proof.prove(problem, ufm.solve(problem).params, loss=Square())
    assert proof.width < 1e-11
    with pytest.raises(ufm.InputError, match="loss = 'one of your own'"):
        proof.save(tmp_path / "proof.json")


def test_points_that_do_not_fit_are_refused():
    problem = balanced(CE())
    point = problem.init(0)
    with pytest.raises(ufm.InputError, match="params = 'NaN or inf'"):
        ufm.proof.prove(problem, point.__class__(point.W * np.nan, point.H, point.b))
    with pytest.raises(ufm.InputError, match="params = "):
        ufm.proof.prove(problem, point.__class__(point.W, point.H[:, :3], point.b))


def test_without_python_flint_a_line_says_how_to_install_it(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "flint":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "ufm.proof.balls")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ufm.InputError, match=r"python-flint is not installed.*pip install 'ufm\[proof\]'"):
        importlib.import_module("ufm.proof.balls")

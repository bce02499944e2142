"""Targets that are columns of numbers: the losses on them, their certificates, and what is refused."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ufm
from ufm import Decay, Problem, losses, targets
from ufm.theory import certify
from ufm.theory import rounding as errors
from ufm.theory.minimizer import NoClosedForm

DECAY = Decay(0.01, 0.02, 0.05)
SETS = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]])


def random_targets(rng, K, loss):
    """Random columns that ``loss`` takes, with counts."""
    G = int(rng.integers(1, 8))
    counts = tuple(int(n) for n in rng.integers(1, 6, G))
    kind = "values" if loss == "mse" else rng.choice(["soft", "sets"])
    if kind == "values":
        return targets.values(rng.normal(size=(K, G)), counts)
    if kind == "soft":
        return targets.soft(rng.dirichlet(np.full(K, rng.uniform(0.1, 2.0)), G).T, counts)
    S = np.zeros((K, G))
    for g in range(G):
        S[rng.choice(K, int(rng.integers(1, K)), replace=False), g] = 1
    return targets.sets(S, counts)


def random_problem(seed):
    rng = np.random.default_rng(seed)
    K, loss = int(rng.integers(2, 6)), str(rng.choice(["ce", "bce", "ls", "mse"]))
    given = random_targets(rng, K, loss)
    W, H, b = 10.0 ** rng.uniform([-3, -3, -2], [-1, -1, 0.5])
    G = given.groups(K)
    extra = {"weights": rng.uniform(0.1, 1.0, G)} if rng.random() < 0.3 else {}
    if rng.random() < 0.3:
        extra["offset"] = rng.normal(size=K)
    return Problem(
        K, min(K, G) + int(rng.integers(0, 2)), targets=given, loss=losses.parse(loss), decay=Decay(W, H, b),
        bias=str(rng.choice(["per_class", "unified", "none"])), **extra,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_random_problems_are_certified(seed):
    problem = random_problem(seed)
    found = ufm.solve(problem)
    certificate = certify(problem, found.params)
    assert found.status_name in ("converged", "stalled")
    assert -certificate.rounding <= certificate.gap <= 1e-10 * max(1.0, float(found.value))
    assert certificate.rounding <= 1e-10
    assert ufm.statement.from_data(json.loads(json.dumps(ufm.statement.to_data(problem)))) == problem


@pytest.mark.slow
def test_three_hundred_random_problems_are_certified():
    for seed in range(100, 400):
        test_random_problems_are_certified(seed)


@pytest.mark.parametrize("seed", range(4))
def test_an_independent_solver_agrees(seed):
    """CVXPY on the lifted problem: the loss in cvxpy's own atoms, the penalty as a nuclear norm."""
    cp = pytest.importorskip("cvxpy")
    problem = random_problem(seed + 40)
    grouping, K = problem.grouping, problem.classes
    Y, n = np.asarray(grouping.Y), np.asarray(problem.counts, float)
    shares = n / n.sum() if problem.weights is None else np.asarray(problem.weights)
    X = cp.Variable(Y.shape)
    b = {"per_class": cp.Variable(K), "unified": cp.Variable(), "none": cp.Constant(0.0)}[problem.bias]
    offset = np.zeros(K) if problem.offset is None else np.broadcast_to(problem.offset, (K,))
    total = 0.0
    for g in range(Y.shape[1]):
        z, y = X[:, g] + b + offset, Y[:, g]
        if problem.loss.name == "ls":
            y = (1 - problem.loss.alpha) * y + problem.loss.alpha * y.mean()
        total += shares[g] * {
            "mse": lambda z, y: cp.sum_squares(z - y),
            "bce": lambda z, y: cp.sum(cp.logistic(z)) - y @ z,
        }.get(problem.loss.name, lambda z, y: y.sum() * cp.log_sum_exp(z) - y @ z)(z, y)
    d = problem.decay
    cost = np.sqrt(d.W * d.H) * cp.normNuc(X @ np.diag(np.sqrt(n))) + 0.5 * d.b * cp.sum_squares(b)
    value = cp.Problem(cp.Minimize(total + cost)).solve(solver=cp.CLARABEL)
    assert float(ufm.solve(problem).value) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("loss", [losses.CE(), losses.LabelSmoothing(0.2), losses.BCE(), losses.MSE()], ids=str)
def test_a_unit_column_is_the_label(loss):
    z = jnp.array([0.3, -1.2, 2.0, 40.0])
    for k in range(4):
        y = jnp.eye(4)[k]
        assert float(loss(z, y)) == pytest.approx(float(loss(z, k)), rel=1e-14)
        np.testing.assert_allclose(jax.grad(loss)(z, y), jax.grad(loss)(z, k), rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(jax.hessian(loss)(z, y), jax.hessian(loss)(z, k), rtol=1e-12, atol=1e-16)
        u = 0.7 * jax.grad(loss)(z, k)
        assert float(loss.conjugate(u, y)) == pytest.approx(float(loss.conjugate(u, k)), rel=1e-12, abs=1e-14)


def reference(loss, z, y):
    """The loss at 50 digits, as the definition says."""
    if loss.name == "mse":
        return sum((a - t) ** 2 for a, t in zip(z, y, strict=True))
    if loss.name == "bce":
        softplus = lambda a: mpmath.log1p(mpmath.exp(a))  # noqa: E731
        return sum(t * softplus(-a) + (1 - t) * softplus(a) for a, t in zip(z, y, strict=True))
    total, K = sum(y), len(y)
    alpha = mpmath.mpf(float(getattr(loss, "alpha", 0.0)))
    y = [(1 - alpha) * t + alpha * total / K for t in y]
    lse = mpmath.log(sum(mpmath.exp(a) for a in z))
    return sum(t * (lse - a) for a, t in zip(z, y, strict=True))


@given(st.integers(0, 2**31), st.sampled_from(["ce", "ls", "bce", "mse"]))
def test_values_conjugates_and_their_errors_at_fifty_digits(seed, name):
    """The value to a few units of rounding; l*(s u) within the error that `rounding.conjugate` states."""
    mpmath.mp.dps = 50
    rng, loss = np.random.default_rng(seed), losses.parse(name)
    K = int(rng.integers(2, 6))
    y = random_targets(rng, K, name).Y[:, 0]
    z = rng.normal(size=K) * 10.0 ** rng.uniform(-1, 1.3)
    exact = [mpmath.mpf(float(v)) for v in z], [mpmath.mpf(float(v)) for v in y]
    value = float(loss(jnp.asarray(z), jnp.asarray(y)))
    assert value == pytest.approx(float(reference(loss, *exact)), rel=1e-13, abs=1e-300)
    u, scale = jax.grad(loss)(jnp.asarray(z), jnp.asarray(y)), float(rng.uniform(0.3, 1.0))
    found = errors.conjugate(loss, jnp.asarray(z), u, jnp.asarray(y), jnp.asarray(scale))
    w = [mpmath.mpf(scale) * mpmath.mpf(float(v)) for v in u]
    wanted, moved = conjugate_reference(loss, w, exact[1])
    assert abs(mpmath.mpf(float(found.value)) - wanted) <= float(found.error)
    assert moved <= float(found.defect) + 1e-300
    assert float(found.error) <= 1e-11 * max(1.0, float(np.abs(y).sum()))


def conjugate_reference(loss, w, y):
    """l* at the point of its domain that is nearest by clipping and scaling, and the distance to it in the 1-norm."""
    if loss.name == "mse":
        return sum(t * a + a**2 / 4 for a, t in zip(w, y, strict=True)), 0
    xlogx = lambda v: v * mpmath.log(v) if v > 0 else mpmath.mpf(0)  # noqa: E731
    if loss.name == "bce":
        v = [a + t for a, t in zip(w, y, strict=True)]
        inside = [min(max(x, 0), 1) for x in v]
        return sum(xlogx(x) + xlogx(1 - x) for x in inside), sum(abs(a - c) for a, c in zip(v, inside, strict=True))
    total, K = sum(y), len(y)
    alpha = mpmath.mpf(float(getattr(loss, "alpha", 0.0)))
    v = [(a + (1 - alpha) * t + alpha * total / K) / total for a, t in zip(w, y, strict=True)]
    inside = [max(x, 0) for x in v]
    inside = [x / sum(inside) for x in inside]
    apart = total * sum(abs(a - c) for a, c in zip(v, inside, strict=True))
    return total * sum(xlogx(x) for x in inside), apart


def test_a_wrong_conjugate_is_caught(monkeypatch):
    """The check against fifty digits can fail."""
    right = errors._softmax_column
    monkeypatch.setattr(errors, "_softmax_column", lambda *a: right(*a)._replace(value=right(*a).value * (1 + 1e-9)))
    with pytest.raises(AssertionError):
        test_values_conjugates_and_their_errors_at_fifty_digits.hypothesis.inner_test(3, "ce")


def test_copies_of_a_group_cost_nothing_and_change_nothing():
    few = Problem(3, 4, targets=targets.sets(SETS, (1, 2, 3, 4)), loss=losses.CE(), decay=DECAY)
    scaled = Decay(DECAY.W, DECAY.H / 10, DECAY.b)
    many = Problem(3, 4, targets=targets.sets(SETS, (10, 20, 30, 40)), loss=losses.CE(), decay=scaled)
    assert float(ufm.solve(few).value) == pytest.approx(float(ufm.solve(many).value), rel=1e-12)
    free = ufm.solve(few, eliminate=False)
    assert float(free.value) == pytest.approx(float(ufm.solve(few).value), rel=1e-11)
    assert free.params.H.shape == (4, 10)


@pytest.mark.parametrize("loss", [losses.BCE(), losses.MSE(), losses.LabelSmoothing(0.1)], ids=str)
def test_every_feature_free_ends_where_shared_ones_do(loss):
    problem = Problem(3, 4, targets=targets.sets(SETS, 2), loss=loss, decay=DECAY)
    free, shared = ufm.solve(problem, eliminate=False), ufm.solve(problem)
    assert float(free.value) == pytest.approx(float(shared.value), rel=1e-11)
    assert not np.array_equal(free.params.H[:, 0], free.params.H[:, 1])


def test_targets_and_counts_are_leaves():
    problem = Problem(3, 4, targets=targets.sets(SETS, (1, 2, 3, 4)), loss=losses.CE(), decay=DECAY)
    compiled = []
    ufm.solve(problem)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    other = dataclasses.replace(problem, targets=targets.sets(SETS[:, ::-1], (7, 2, 1, 9)))
    assert float(ufm.solve(other).value) != float(ufm.solve(problem).value)
    assert not compiled


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: targets.soft([[0.5, 0.5], [0.5, 0.4]]), ["targets[:, 1]", "[0.5, 0.4]", "sum is 1"]),
        (lambda: targets.soft([[1.5], [-0.5]]), ["targets[:, 0]", "-0.5", ">= 0"]),
        (lambda: targets.sets([[0], [0]]), ["targets[:, 0]", "[0, 0]", "not all 0"]),
        (lambda: targets.sets([[1, 1], [0, 1]]), ["targets[:, 1]", "[1, 1]", "not all 1"]),
        (lambda: targets.sets([[2], [0]]), ["targets[:, 0]", "0 and 1"]),
        (lambda: targets.values([[np.nan], [0]]), ["targets[:, 0]", "nan", "finite"]),
        (lambda: targets.values([1.0, 2.0]), ["targets.shape", "(2,)", "(K, G)"]),
        (lambda: targets.soft("half"), ["targets", "half", "numbers"]),
        (lambda: targets.sets(SETS, (1, 2, 0, 4)), ["counts[2]", "0", ">= 1"]),
        (lambda: targets.sets(SETS, (1, 2, 3)), ["counts.shape", "(3,)", "(4,)"]),
        (lambda: targets.sets(SETS, 1.5), ["counts", "1.5", "whole"]),
        (lambda: targets.next_token([[0, 1], [0, 2]]), ["counts[:, 0]", "follows"]),
        (lambda: targets.mixup(3, 1.0), ["mixing", "1.0", "(0, 1)"]),
        (lambda: targets.distillation([[1.0], [2.0]], 0.0), ["temperature", "0.0", "> 0"]),
        (lambda: Problem(4, 5, targets=targets.sets(SETS)), ["targets.shape", "(3, 4)", "classes = 4"]),
        (lambda: Problem(3, 5, 7, targets=targets.sets(SETS)), ["per_class", "7", "counts"]),
        (lambda: Problem(3, 5, targets=targets.sets(SETS), loss=losses.Focal()), ["loss", "focal", "ce, bce"]),
        (lambda: Problem(3, 5, targets=targets.values(-SETS), loss=losses.BCE()), ["targets", "[0, 1]"]),
        (lambda: Problem(3, 5, targets=targets.values(-SETS), loss=losses.CE()), ["targets", ">= 0"]),
        (lambda: Problem(3, 5, targets=targets.sets(SETS), loss=losses.MSE(2.0)), ["kappa", "2.0", "1 where"]),
        (lambda: Problem(3, 5, targets=targets.sets(SETS), weights=(1, 2, 3)), ["weights.shape", "(3,)", "(4,)"]),
        (lambda: ufm.theory.minimizer(Problem(3, 5, targets=targets.sets(SETS))), ["label sets", "no closed form"]),
    ],
)
def test_refusals(make, words):
    with pytest.raises((ufm.InputError, NoClosedForm)) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 300


def test_theorems_about_labels_say_that_they_are(capsys):
    problem = Problem(3, 4, targets=targets.sets(SETS), loss=losses.CE(), decay=DECAY)
    finding = ufm.atlas.check(ufm.atlas.THEOREMS["zhu2021/3.1"], problem)
    assert (finding.verdict.value, finding.reason) == (
        "outside hypotheses",
        "needs class labels, got label sets, 4 groups",
    )


def test_the_command_line_takes_a_file(tmp_path):
    np.savez(tmp_path / "tags.npz", targets=SETS, counts=[1, 2, 3, 4])
    command = [sys.executable, "-m", "ufm", "solve", "--loss", "ce", "--classes", "3", "--dim", "4", "--json"]
    command += ["--decay-w", "0.01", "--decay-h", "0.02", "--decay-b", "0.05", "--targets", str(tmp_path / "tags.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    problem = Problem(3, 4, targets=targets.sets(SETS, (1, 2, 3, 4)), loss=losses.CE(), decay=DECAY)
    assert report["value"] == pytest.approx(float(ufm.solve(problem).value), rel=1e-12)
    assert (report["collapse"], report["scores"]) == (None, None)
    assert report["certificate"]["gap"] < 1e-11
    (tmp_path / "tags.npz").write_bytes(b"PK nonsense")
    refused = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "targets" in refused.stderr

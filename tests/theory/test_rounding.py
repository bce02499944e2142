"""The stated rounding of certificates covers their error against 50 digits, and is not absurd.

The dual value is evaluated with mpmath at the float64 gradients that the certificate used, moved into the domain of the
conjugate; the objective at the float64 point. Nothing of `ufm` enters either but those numbers.
"""

import dataclasses

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from oracles import loss_and_gradient

from ufm import Decay, NormalizedProblem, Params, Problem, geometry, losses
from ufm.models import spheres
from ufm.theory import certificate, rounding

EPS = 2.0**-52


def hinge(z, k):
    """A user's loss: ``sum_{j != k} softplus(1 + z_j - z_k)``."""
    return jnp.sum(jnp.where(jnp.arange(z.size, dtype=jnp.int32) == k, 0.0, jax.nn.softplus(1.0 + z - jnp.take(z, k))))


USERS = losses.custom(hinge, convex=True, infimum=0.0)
MAKE = {
    "ce": lambda x: losses.CE(),
    "bce": lambda x: losses.BCE(),
    "logistic": lambda x: losses.Logistic(),
    "ls": lambda x: losses.LabelSmoothing(x),
    "focal": lambda x: losses.Focal(4.0 * x),
    "mse": lambda x: losses.MSE(10.0 ** (4 * x - 2), 10.0 ** (2 - 4 * x)),
    "hinge": lambda x: USERS,
}
QUICK = [
    ("ce", "per_class", 3, (1, 2, 4), "free"),
    ("ce", "per_class", 3, (1, 2, 4), "undecayed"),
    ("ce", "none", 12, 3, "free"),
    ("bce", "unified", 5, 4, "undecayed"),
    ("bce", "per_class", 2, 1, "free"),
    ("ls", "per_class", 4, 3, "free"),
    ("focal", "per_class", 3, 2, "free"),
    ("mse", "per_class", 3, (5, 1, 2), "fixed"),
    ("logistic", "per_class", 2, (5, 2), "free"),
    ("hinge", "unified", 3, 2, "free"),
    ("ce", "per_class", 4, 2, "spheres"),
]
FULL = [
    *QUICK,
    ("ce", "none", 12, 20, "free"),
    *(("mse", bias, 6, 2, "free") for bias in ("per_class", "none")),
    *((name, "per_class", 4, (1, 2, 3, 7), "undecayed") for name in ("ls", "focal", "mse", "bce")),
    *((name, "unified", 4, 1, "fixed") for name in ("ce", "bce", "ls", "focal", "hinge")),
    *((name, "unified", 5, 3, "spheres") for name in ("bce", "mse", "focal", "ls")),
    ("logistic", "unified", 2, 20, "undecayed"),
    ("bce", "per_class", 10, 12, "free"),
    ("hinge", "per_class", 7, 3, "spheres"),
]


# At 50 digits -------------------------------------------------------------------------------------------


def exact(A):
    return np.vectorize(lambda x: mp.mpf(float(x)), otypes=[object])(np.asarray(A))


def norm2(A):
    gram = A @ A.T if A.shape[0] <= A.shape[1] else A.T @ A
    return mp.sqrt(max(mp.eigsy(mp.matrix(gram.tolist()), eigvals_only=True)))


def loss_at(name, hyper, z, k):
    if name == "logistic":
        return mp.log1p(mp.exp(-z[0] if k == 0 else z[0])), None
    if name == "hinge":
        slopes = [mp.mpf(0) if j == k else 1 / (1 + mp.exp(-(1 + z[j] - z[k]))) for j in range(len(z))]
        value = mp.fsum(mp.log1p(mp.exp(1 + z[j] - z[k])) for j in range(len(z)) if j != k)
        return value, [-mp.fsum(slopes) if j == k else slopes[j] for j in range(len(z))]
    return loss_and_gradient(name, hyper, z, k)


def xlogx(x):
    return x * mp.log(x) if x > 0 else mp.mpf(0)


def target(name, hyper, K, k):
    alpha = exact(hyper["alpha"]).item() if name == "ls" else mp.mpf(0)
    return np.array([(1 - alpha) * (j == k) + alpha / K for j in range(K)], object)


def moved_into_domain(name, hyper, u, k):
    if name in ("ce", "ls", "focal"):
        y = target(name, hyper, len(u), k)
        v = np.array([max(a, mp.mpf(0)) if j != k else mp.mpf(0) for j, a in enumerate(u + y)], object)
        v = v / max(mp.mpf(1), mp.fsum(v))
        v[k] = 1 - mp.fsum(v)
        return v - y
    if name in ("bce", "logistic"):
        return np.array([min(max(x, mp.mpf(-1)), mp.mpf(1)) for x in u], object)
    return u


def conjugate_at(name, hyper, u, k):
    """l* at a point of its domain."""
    others = [u[j] for j in range(len(u)) if j != k]
    if name in ("ce", "ls"):
        return mp.fsum(xlogx(v) for v in u + target(name, hyper, len(u), k))
    if name in ("bce", "logistic"):
        return mp.fsum(xlogx(abs(v)) + xlogx(1 - abs(v)) for v in u)
    if name == "mse":
        kappa, beta = exact(hyper["kappa"]).item(), exact(hyper["beta"]).item()
        return beta * u[k] + u[k] ** 2 / (4 * kappa) + mp.fsum(v**2 for v in others) / 4
    assert name == "focal"
    gamma, a = exact(hyper["gamma"]).item(), mp.fsum(others)

    def F(y):
        log = mp.log1p(mp.exp(-abs(y)))
        return mp.exp(-gamma * (log + max(-y, mp.mpf(0)))) * (log + max(y, mp.mpf(0)))

    def slope(y):
        p = 1 / (1 + mp.exp(-y))
        log = mp.log1p(mp.exp(-abs(y))) + max(y, mp.mpf(0))
        return p**gamma * (p + gamma * (1 - p) * log)

    low, high = mp.mpf(-800), mp.mpf(120)
    for _ in range(100):  # the value's error is the square of this one
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < a else (low, middle)
    return mp.fsum(xlogx(v) for v in others) - xlogx(a) + a * low - F(low)


def exact_certificate(kind, problem, name, params, dual, scale, gamma, shares):
    """Objective, D at the scale given and, shrunk until it is feasible, D there."""
    hyper = problem.loss.hyper
    K, N, labels, m = problem.classes, problem.samples, problem.labels, np.ones(problem.columns, int)
    W, H = exact(params.W), exact(params.H)
    b = None if params.b is None else exact(np.broadcast_to(params.b, (K,)))
    lW, lH, lb = (exact(x).item() for x in (problem.decay.W, problem.decay.H, problem.decay.b))
    if kind == "spheres":
        W = W / np.array([[mp.sqrt(mp.fsum(w * w))] for w in W])
        H = H / np.array([mp.sqrt(mp.fsum(h * h)) for h in H.T])[None, :]
        W, lW, lH = W * exact(gamma).item(), 0, 0
    Z = W @ H + (0 if b is None else b[:, None])
    f = mp.fsum(loss_at(name, hyper, list(Z[:, i]), k)[0] for i, k in enumerate(labels)) / N
    f += (lW * mp.fsum((W**2).ravel()) + lH * mp.fsum((H**2).ravel())) / 2
    if b is not None:
        f += lb * mp.fsum(x * x for x in (b if problem.bias == "per_class" else b[:1])) / 2

    s, u, logits = exact(scale).item(), exact(dual.u), exact(dual.logits)
    if name == "hinge":
        found = [loss_at(name, hyper, logits[:, i], k) for i, k in enumerate(labels)]
        V = s * np.array([g for _, g in found], object).T
        pairs = [np.dot(g, logits[:, i]) - value for i, (value, g) in enumerate(found)]
    else:
        V = np.array([moved_into_domain(name, hyper, s * u[:, i], k) for i, k in enumerate(labels)], object).T

    if kind == "undecayed":
        V = balance(problem, hyper, V)

    def D(t):
        if name == "hinge":
            total = -t * s * mp.fsum(pairs) / N
        else:
            total = -mp.fsum(conjugate_at(name, hyper, t * V[:, i], k) for i, k in enumerate(labels)) / N
        if kind == "fixed":
            total += lW * mp.fsum((W**2).ravel()) / 2 - mp.fsum(((W.T @ (t * V)) ** 2).ravel()) / (2 * lH * N**2)
        if kind == "spheres":
            sides = [(exact(r), exact(c)) for r, c in shares]
            sides = [(r / mp.fsum(r), c / mp.fsum(c)) for r, c in sides]
            roots = [(np.array([mp.sqrt(x) for x in r]), np.array([mp.sqrt(x) for x in c])) for r, c in sides]
            total -= exact(gamma).item() / N * min(norm2(V / r[:, None] / c[None, :]) for r, c in roots)
        if b is not None and kind != "undecayed":
            r = [mp.fsum(t * row) / N for row in V]
            total -= (mp.fsum(x * x for x in r) if problem.bias == "per_class" else mp.fsum(r) ** 2) / (2 * lb)
        return total

    t = mp.mpf(1)
    if kind in ("free", "undecayed"):
        size = norm2(V * np.array([mp.sqrt(int(x)) for x in m])[None, :])
        t = min(t, N * mp.sqrt(lW * lH) / size) if size else t
    here = D(mp.mpf(1))
    return f, here, here if t == 1 else D(t)


def balance(problem, hyper, V):
    """The mixture of the certificate's docstring, which must come out balanced and in the domain."""
    K, N, labels = problem.classes, problem.samples, problem.labels
    r = np.array([mp.fsum(row) / N for row in V])
    if problem.bias == "unified":
        r = np.full(K, mp.fsum(r) / K)
    share = np.array([mp.mpf(int(n)) / N for n in problem.counts])
    room = 1 - (exact(hyper["alpha"]).item() if problem.loss.name == "ls" else 0)
    Q = np.array([[room * (share[j] - (j == k)) for k in labels] for j in range(K)], object)
    if problem.loss.name == "logistic":
        Q[1], r = 0, np.array([mp.fsum(r), mp.mpf(0)], object)
    t = max(abs(x) for x in r) / (room * min(share))
    mixed = V if t == 0 else (1 - t) * V + t * Q - (1 - t) * r[:, None]
    for i, k in enumerate(labels):
        off = mixed[:, i] - moved_into_domain(problem.loss.name, hyper, mixed[:, i], k)
        assert max(abs(x) for x in off) < mp.mpf(10) ** -45
    left = [mp.fsum(row) for row in mixed]
    assert max(map(abs, left if problem.bias == "per_class" else [mp.fsum(left)])) < mp.mpf(10) ** -40
    return mixed


# Points ---------------------------------------------------------------------------------------------------


def watched(kind):
    """The certificate, compiled, with the dual point that it used and, on spheres, the shares."""

    def run(problem, params):
        seen, parts = [], []
        right, shares = certificate.dual_point, spheres._shares
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(certificate, "dual_point", lambda *x: seen.append(right(*x)) or seen[-1])
            patch.setattr(spheres, "_shares", lambda x: parts.append(shares(x)) or parts[-1])
            found = certificate._certify(problem, params, polish=kind in ("spheres", "undecayed"))
        return found, seen[-1], tuple(parts)

    return jax.jit(run)


def point(rng, problem, name):
    """A random point, or one near a collapsed solution, with logits of any size."""
    K, d = problem.classes, problem.dim
    size = 10.0 ** rng.uniform(-6, 4 if name != "mse" else 2)
    W, H = rng.normal(size=(K, d)), rng.normal(size=(d, problem.columns))
    if rng.random() < 0.6:
        M = np.asarray(geometry.simplex_etf(K, d))
        noise = 10.0 ** rng.uniform(-17, 0)
        W, H = M + noise * W, M.T[:, problem.labels] + noise * H
        size = min(size, 50.0) if rng.random() < 0.5 else size
    b = 10.0 ** rng.uniform(-8, 1.5) * rng.normal(size={"per_class": (K,), "unified": (), "none": ()}[problem.bias])
    if problem.classifier is not None:
        W = problem.classifier
    return Params(np.sqrt(size) * W, np.sqrt(size) * H, None if problem.bias == "none" else np.asarray(b))


def ratios(case, count, seed=0):
    """Errors over the rounding stated, one row a point: of the objective, of D, and of the two claims."""
    name, bias, K, counts, kind = case
    rng = np.random.default_rng([seed, FULL.index(case)])
    run = watched(kind)
    rows = []
    for _ in range(count):
        decay = Decay(*(10.0 ** rng.uniform(-8, 2, 2)), 10.0 ** rng.uniform(-12, 2) * (kind != "undecayed"))
        fixed = rng.normal(size=(K, K)) * 10.0 ** rng.uniform(-2, 2) if kind == "fixed" else None
        problem = Problem(K, K, counts, MAKE[name](float(rng.uniform(0, 0.99))), decay, bias, classifier=fixed)
        gamma = 10.0 ** rng.uniform(-3, 2)
        model = NormalizedProblem(problem, gamma) if kind == "spheres" else problem
        params = point(rng, problem, name)
        found, dual, shares = jax.device_get(run(model.astype(jnp.float64), jax.tree.map(jnp.asarray, params)))
        if not np.isfinite(found.lower_bound):
            continue
        pairs = [(np.full(K, 1 / K), np.full(problem.columns, 1 / problem.samples)), shares] if shares else []
        if kind == "fixed":
            params = dataclasses.replace(params, W=fixed)
        f, here, feasible = exact_certificate(kind, problem, name, params, dual, found.scale, gamma, pairs)
        value, bound, gap, rho = map(mp.mpf, map(float, (found.value, found.lower_bound, found.gap, found.rounding)))
        error = abs(bound - here) if kind != "undecayed" else mp.mpf(0)
        rows.append([abs(value - f), error, bound - feasible, f - gap - feasible])
        rows[-1] = [float(x / rho) for x in rows[-1]] + [float(rho) / (EPS * max(abs(float(value)), abs(float(bound))))]
    return np.array(rows)


@pytest.mark.parametrize("case", QUICK, ids=lambda c: "-".join(map(str, c)))
def test_the_rounding_stated_covers_the_error(case):
    found = ratios(case, 14)
    assert len(found) >= 7
    assert found[:, :4].max() <= 1.0, found.max(axis=0)


@pytest.mark.slow
def test_the_rounding_stated_covers_the_error_at_a_thousand_points():
    found = [ratios(case, 36, seed=1) for case in FULL]
    assert sum(map(len, found)) >= 750  # without decay of the bias, not every random point has a bound
    worst = {str(case): x.max(axis=0) for case, x in zip(FULL, found, strict=True) if x[:, :4].max() > 1.0}
    assert not worst


def test_a_hundredth_of_the_allowance_does_not_cover_it(monkeypatch):
    right = rounding.unit
    monkeypatch.setattr(rounding, "unit", lambda dtype: right(dtype) / 100.0)
    case = next(c for c in QUICK if c[0] == "bce" and c[4] == "free")
    assert ratios(case, 14)[:, :4].max() > 1.0


def test_a_point_that_one_multiplies_wrongly_is_seen():
    """The oracle is sensitive: D of doubled gradients is another number."""
    case = QUICK[0]
    right = certificate.dual_point
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate, "dual_point", lambda *x: right(*x)._replace(logits=2.0 * right(*x).logits))
        assert ratios(case, 4)[:, 0].max() > 1.0


# What the bounds rest on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exp", "log", "log1p", "complement_log"])
def test_library_functions_err_as_little_as_assumed(name):
    rng = np.random.default_rng(0)
    small = 10.0 ** rng.uniform(-200, 0, 800)
    x = {
        "exp": np.concatenate([-rng.uniform(0, 700, 400), -small]),
        "log": np.concatenate([small, 1 - rng.uniform(0, 0.5, 400), 1 + rng.uniform(0, 500, 400)]),
        "log1p": np.concatenate([small, rng.uniform(0, 1, 800)]),
        "complement_log": np.concatenate([small, rng.uniform(0, 1, 2000)]),
    }[name]
    function = losses._base.complement_log if name == "complement_log" else getattr(jnp, name)
    right = {"complement_log": lambda v: (1 - v) * mp.log1p(-v)}.get(name) or getattr(mp, name)
    found = np.asarray(jax.jit(function)(jnp.asarray(x)))
    worst = max(abs(mp.mpf(float(a)) / right(mp.mpf(float(b))) - 1) for a, b in zip(found, x, strict=True))
    assert worst <= rounding.LIBRARY * EPS / 2


@pytest.mark.parametrize("shape", [(3, 3), (4, 90), (7, 2)])
def test_operator_norm_lies_within_its_bound(shape):
    """Random matrices, repeated singular values, rank one and zero."""
    rng = np.random.default_rng(0)
    run = jax.jit(rounding.operator_norm)
    A = rng.normal(size=shape)
    left, _, right = np.linalg.svd(A, full_matrices=False)
    for B in (A, 1e-9 * A, left @ right, np.outer(A[:, 0], A[0]), 0 * A):
        norm, excess = map(float, run(jnp.asarray(B)))
        true = norm2(exact(B)) if B.any() else mp.mpf(0)
        assert true <= norm * (1 + mp.mpf(excess))
        assert excess < 1e-13
        assert abs(true - norm) <= norm * mp.mpf(excess) or not B.any()


@pytest.mark.parametrize("size", [1, 16, 17, 400, 4099])
def test_total_is_a_sum_within_its_depth(size):
    x = np.random.default_rng(0).normal(size=(2, size)) ** 3
    found = np.asarray(jax.jit(rounding.total)(jnp.asarray(x)))
    for row, sum_ in zip(x, found, strict=True):
        true = mp.fsum(map(mp.mpf, row.tolist()))
        assert abs(float(sum_) - true) <= rounding.gamma(rounding.depth(size), "float64") * np.abs(row).sum()

"""Deep linear models: closed forms against 50 digits and against numbers found by search from random starts."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import ufm
from ufm import Decay, Problem, codes, losses
from ufm.models import Deep
from ufm.theory import certify, depth, group_codes, minimizer, predict, shrinkage

# Found by search from random starts, not by these formulas (K, L, strength with n = 1, code, value).
FOUND = [
    (7, 2, 0.01, "pyramid", 0.2831517273),
    (6, 2, 0.12, "polygon", 1.7686407905),
    (6, 5, 1e-3, "polygon", 0.0224342006),
    (7, 2, 0.05, "polygon5+2", 1.1022638331),
    (6, 2, 0.12, "2+2+2", 1.7867716520),
]


@pytest.mark.parametrize(("K", "L", "t", "code", "value"), FOUND)
def test_codes_have_the_values_found_by_search(K, L, t, code, value):
    assert group_codes.value_of(code, K, L, t).value == pytest.approx(value, abs=6e-11)


@pytest.mark.parametrize("code", ["2+2+3", "4+3", "pyramid", "pyramid5+2", "polygon5+2", "polygon", "5+1+1"])
def test_a_code_is_a_point_with_its_value_at_50_digits(code):
    """Its logits, their singular values and the loss, written out; and no amplitude a little off is lower."""
    K, L, t = 7, 3, 0.02
    found = group_codes.value_of(code, K, L, t)

    def objective(Z):
        with mp.workdps(50):
            X = mp.matrix(Z.tolist())
            risk = mp.fsum(mp.log(mp.fsum(mp.exp(X[j, k] - X[k, k]) for j in range(K))) for k in range(K)) / K
            sizes = [s for s in mp.svd_r(X, compute_uv=False) if s > mp.mpf(10) ** -12]
            return risk + mp.mpf(L + 1) / 2 * mp.mpf(t) * mp.fsum(s ** (mp.mpf(2) / (L + 1)) for s in sizes)

    assert float(abs(objective(found.logits) - found.value)) < 1e-13
    for i, j in itertools.product(range(len(found.code)), (0.999, 1.001)):
        moved = [tuple(j * x for x in v) if k == i else v for k, v in enumerate(found.amplitudes)]
        if any(found.amplitudes[i]):
            assert objective(dataclasses.replace(found, amplitudes=tuple(moved)).logits) > found.value


@pytest.mark.parametrize("code", ["2+2+3", "pyramid", "polygon5+2", "7"])
def test_a_code_is_a_critical_point_of_the_problem(code):
    """The model's objective and gradient at the code's logits, counts and different decays included."""
    problem = Problem(7, 7, 3, losses.CE(), Decay(0.02, 0.01), bias="none", features="per_class", model=Deep(2))
    found = group_codes.value_of(code, 7, 2, depth.strength(problem))
    point = problem.model.factored(problem, jnp.asarray(found.logits))
    value, gradient = jax.jit(jax.value_and_grad(problem.objective))(point)
    assert float(value) == pytest.approx(found.value, rel=1e-13)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 1e-8


def test_costs_without_decay():
    """As the decays vanish the cost of a code over that of collapse is the sum of sigma^p at equal margins."""
    K, L = 6, 5
    p = 2 / (L + 1)
    limits = {"6": K - 1, "2+2+2": K / 2 * 2**p, "polygon": 2 * (K / (2 * (1 - np.cos(2 * np.pi / K)))) ** p}
    t = 1e-12
    values = {code: group_codes.value_of(code, K, L, t).value for code in limits}
    for code, limit in limits.items():
        assert values[code] / values["6"] == pytest.approx(limit / (K - 1), rel=0.05)


TRANSITIONS = [
    (3, 2, ["3 -> 2+1", "2+1 -> 1+1+1"]),
    (4, 2, ["4 -> 2+2", "2+2 -> 1+1+1+1"]),
    (5, 2, ["5 -> pyramid5", "pyramid5 -> 3+2", "3+2 -> polygon5", "polygon5 -> 1+1+1+1+1"]),
]


@pytest.mark.parametrize(("K", "L", "changes"), TRANSITIONS)
def test_transitions_separate_the_codes(K, L, changes):
    found = group_codes.transitions(K, L)
    assert [f"{codes.name(x.below)} -> {codes.name(x.above)}" for x in found] == changes
    for x in found:
        for factor, code in ((1 - 1e-8, x.below), (1 + 1e-8, x.above)):
            _, (winner,) = group_codes.best_codes(K, L, [factor * x.strength])
            assert winner == code
        here = [group_codes.value_of(code, K, L, x.strength).value for code in (x.below, x.above)]
        assert here[0] == pytest.approx(here[1], rel=1e-13)


def test_a_wrong_cost_moves_the_transition(monkeypatch):
    """Planted: the penalty of a pair counted twice."""
    right = group_codes.part_cost

    def wrong(part, classes, layers, strength, **options):
        cost, v = right(part, classes, layers, strength, **options)
        return cost + (1e-6 if part.size == 2 else 0.0), v

    before = group_codes.transitions(4, 2)[0].strength
    monkeypatch.setattr(group_codes, "part_cost", wrong)
    assert abs(group_codes.transitions(4, 2)[0].strength - before) > 1e-7


# MSE ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1.0, 2 / 3, 0.5, 1 / 3])
def test_shrinkage_against_a_fine_search(power):
    nu, c = jnp.asarray([1.7, 0.3, 1e-2, 0.0]), 0.21
    x, value, missed = shrinkage.shrunk(nu, c, power)
    for n, at, found, lost in zip(*map(np.asarray, (nu, x, value, missed)), strict=True):
        grid = np.concatenate([[0.0], np.geomspace(1e-9, 2.0, 400_001)])
        best = np.min((np.sqrt(n) - grid) ** 2 + c * grid**power)
        assert found <= best + 1e-12
        assert best - found < 1e-9
        assert (np.sqrt(n) - at) ** 2 + c * at**power == pytest.approx(found, abs=1e-15)
        assert 0 <= lost < 1e-12


def test_shrinkage_at_50_digits():
    x, value, missed = shrinkage.shrunk(jnp.asarray([0.9]), 0.15, 2 / 3)
    with mp.workdps(50):
        tau, c = mp.sqrt(mp.mpf(0.9)), mp.mpf(0.15)
        root = mp.findroot(lambda y: 2 * (y - tau) + c * mp.mpf(2) / 3 / mp.cbrt(y), mp.mpf(float(x[0])))
        exact = (tau - root) ** 2 + c * mp.cbrt(root) ** 2
    assert abs(float(value[0]) - exact) <= float(missed[0])
    assert abs(float(x[0]) - root) < 1e-14


MSE_CASES = [
    ((6, 3, 1), 3, "none", 0.1),
    (3, 3, "per_class", 0.2),
    pytest.param(3, 2, "none", None, marks=pytest.mark.slow),
    pytest.param((6, 3, 1), 2, "per_class", None, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("counts", "L", "bias", "offset"), MSE_CASES)
def test_deep_mse_is_certified_though_not_convex(counts, L, bias, offset):
    problem = Problem(
        3, 4, counts, losses.MSE(beta=1.2), Decay(2e-3, 4e-3, 0.0), bias=bias, model=Deep(L), offset=offset
    )
    closed = minimizer(problem)
    assert closed.exact, closed.reason
    gradient = jax.grad(problem.objective)(closed.params)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 1e-12
    found = ufm.solve(problem, init="code:frame" if bias == "none" else "code:3")
    assert found.converged
    assert float(found.grad_norm) < 1e-10
    assert float(found.value) == pytest.approx(closed.value, rel=1e-12)


def test_a_bound_of_deep_mse_is_below_every_value_and_a_wrong_price_is_seen(monkeypatch):
    """Weights, kappa, decayed bias, offset: valid where it is not tight. Planted: the price without its root of m."""
    problem = Problem(
        3, 4, (5, 2, 1), losses.MSE(0.7, 1.1), Decay(2e-3, 4e-3, 0.1), model=Deep(2),
        weights=np.array([0.5, 0.2, 0.4]), offset=np.array([0.1, 0.0, -0.2]), features="per_class",
    )  # fmt: skip
    found = ufm.solve(problem, init="code:3")
    objective = jax.jit(problem.objective)
    values = [float(found.value), *(float(objective(problem.init(seed))) for seed in range(20))]
    certificate = certify(problem, found.params)
    assert 0 < certificate.lower_bound - certificate.rounding <= min(values)
    plain = Problem(3, 4, 5, losses.MSE(), Decay(2e-3, 4e-3), bias="none", model=Deep(2))
    right = shrinkage.price
    monkeypatch.setattr(shrinkage, "price", lambda *a: 1.01 * right(*a))
    point = minimizer(plain).params
    wrong = jax.jit(lambda x: shrinkage.floor(plain, jnp.asarray(plain.shares)).value - plain.objective(x))(point)
    assert float(wrong) != pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("K", [2, 5])
@pytest.mark.parametrize("L", [1, 2, 3, 4])
def test_zero_threshold(K, L):
    """All is zero above it; just below, the scores jump to (L-1)/L."""
    for factor, alive in ((0.999, True), (1.001, False)):
        each = (factor * depth.zero_threshold(K, L)) ** (1 / (L + 1))
        problem = Problem(K, K, 1, losses.MSE(), Decay(each, each), bias="none", model=Deep(L))
        X, _ = depth.mse_point(problem)
        assert bool(np.any(X)) == alive
        if alive:
            assert X[0, 0] == pytest.approx((L - 1) / L, abs=1e-3)


# Collapse -------------------------------------------------------------------------------------------


def test_collapse_of_one_matrix_is_the_closed_form():
    for loss in (losses.CE(), losses.BCE(), losses.Focal(2.0)):
        plain = Problem(4, 5, 3, loss, Decay(0.005, 0.001, 0.5))
        deep = dataclasses.replace(plain, model=Deep(1))
        right, found = ufm.theory.minimizer(plain), minimizer(deep)
        assert found.value == pytest.approx(right.value, rel=1e-13)
        assert found.gap == pytest.approx(right.gap, rel=1e-6)
        assert found.shift == pytest.approx(right.shift, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("K", "t", "onsets"), [(4, 0.02, (0.01259, 0.01849, 0.03624)), (10, 0.005, (0.00131, 0.00082, 0.00057))]
)
def test_the_mean_of_bce_sets_in(K, t, onsets):
    for L, onset in enumerate(onsets, 1):
        assert depth.shift_onset(losses.BCE(), K, L, t) == pytest.approx(onset, abs=1.1e-5)


def test_what_is_not_proven_is_not_called_exact():
    problem = Problem(7, 8, 2, losses.CE(), Decay(0.01, 0.005), bias="none", model=Deep(2))
    found = minimizer(problem)
    assert not found.exact
    assert "no tight bound" in found.reason
    assert found.regime == "code:pyramid7"
    assert found.lower_bound < found.value
    for other in (
        dataclasses.replace(problem, model=Deep(2, "relu")),
        dataclasses.replace(problem, per_class=(3, 2, 2, 2, 2, 1, 1)),
        dataclasses.replace(problem, dim=2, loss=losses.MSE()),
    ):
        assert predict(other) is None

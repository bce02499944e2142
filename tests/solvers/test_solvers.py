"""Solvers: the reference problem, agreement between four of them, statuses, extremes, inputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ufm
from ufm import Decay, Params, Problem, Status, losses
from ufm.solvers import LBFGS, Gradient, Lifted, Newton, multistart, parse, run, solve
from ufm.theory import certify, minimizer

REFERENCE = Problem(10, 15, 10, losses.CE(), Decay(0.01, 0.01, 0.01))
SMALL = Problem(3, 4, 5, losses.CE(), Decay(0.01, 0.02, 0.03))
IMBALANCED = Problem(4, 5, (1, 3, 2, 6), losses.BCE(), Decay(0.02, 0.03, 0.05))


def test_reference_problem_from_20_starts():
    solutions = multistart(REFERENCE, 0, starts=20)
    assert len(solutions) == 20
    for solution in solutions:
        assert solution.converged
        assert float(solution.value) == pytest.approx(1.222591211077370, abs=1e-12)
        assert float(solution.grad_norm) <= 1e-10
        certificate = certify(REFERENCE, solution.params)
        # The scale of the dual point, and with it the gap, follows the residual, which the solver brings below 1e-12.
        assert certificate.gap <= 2.0 * float(solution.value) * float(solution.residual) + 1e-14
        assert certificate.gap >= -certificate.rounding
    # Different starts reach different rotations.
    gap = jnp.max(jnp.abs(solutions[0].params.W - solutions[1].params.W))
    assert float(gap) > 0.01


def test_the_best_of_the_starts_is_returned():
    solutions = multistart(SMALL, 3, Newton(max_steps=3), starts=5)
    best = solve(SMALL, 3, Newton(max_steps=3), starts=5)
    assert float(best.value) == min(float(s.value) for s in solutions)


def test_same_key_same_result():
    a, b, c = solve(SMALL, 1), solve(SMALL, jax.random.key(1)), solve(SMALL, 2)
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert not np.array_equal(a.params.W, c.params.W)


# Agreement ---------------------------------------------------------------------------------------

SOLVERS = [
    Newton(),
    LBFGS(tol=1e-10),
    Lifted(),
    Gradient(optax.sgd(0.5, momentum=0.9, nesterov=True), tol=1e-8, max_steps=50_000),
]


@pytest.mark.parametrize(
    "problem",
    [
        IMBALANCED,
        dataclasses.replace(IMBALANCED, loss=losses.CE(), bias="none"),
        dataclasses.replace(IMBALANCED, loss=losses.MSE(1.0, 2.0), bias="unified", features="per_class"),
        dataclasses.replace(IMBALANCED, loss=losses.LabelSmoothing(0.1), decay=Decay(0.02, 0.03, 0.0)),
    ],
    ids=["bce", "ce-none", "mse-unified-per_class", "ls-free-bias"],
)
def test_all_solvers_agree_on_imbalanced_problems(problem):
    values = []
    # The step of 0.5 diverges on squared error, whose curvature does not fade with the loss.
    gentle = Gradient(optax.sgd(0.02, momentum=0.9, nesterov=True), tol=1e-8, max_steps=50_000)
    for solver in [*SOLVERS[:3], gentle if problem.loss.name == "mse" else SOLVERS[3]]:
        solution = solve(problem, 0, solver)
        assert solution.status_name in ("converged", "stalled"), solver
        certificate = certify(problem, solution.params)
        assert certificate.value == pytest.approx(float(solution.value), rel=1e-13)
        assert certificate.gap <= 1e-7, solver
        assert certificate.lower_bound <= values[0] + certificate.rounding if values else True
        values.append(float(solution.value))
    assert certify(problem, solve(problem, 0).params).gap <= 1e-11
    np.testing.assert_allclose(values, values[0], rtol=1e-8)
    # Within-class collapse is exact: features of a class coincide at any minimum.
    H, labels = np.asarray(solve(problem, 0).params.H), problem.labels
    for k in range(4):
        assert np.ptp(H[:, labels == k], axis=1).max() < 1e-7


def test_every_solver_knows_weights_and_offsets():
    problem = dataclasses.replace(SMALL, per_class=(5, 2, 3), weights=(0.2, 0.5, 0.9), offset=(0.3, 0.0, -1.0))
    newton, lifted, lbfgs = (float(solve(problem, 0, name).value) for name in ("newton", "lifted", "lbfgs"))
    assert newton == pytest.approx(lifted, rel=1e-9)
    assert newton == pytest.approx(lbfgs, rel=1e-11)
    plain = dataclasses.replace(problem, weights=None, offset=None)
    assert abs(newton - float(solve(plain).value)) > 1e-3


def test_per_class_and_per_sample_features_have_the_same_minimum():
    full, short = (solve(dataclasses.replace(IMBALANCED, features=f), 0) for f in ("per_sample", "per_class"))
    assert float(full.value) == pytest.approx(float(short.value), rel=1e-13)
    np.testing.assert_allclose(
        full.params.W @ full.params.H, (short.params.W @ short.params.H)[:, IMBALANCED.labels], atol=1e-7
    )


def test_fixed_classifier_is_solved_and_certified():
    V = np.random.default_rng(0).normal(size=(4, 2))
    problem = dataclasses.replace(IMBALANCED, dim=2, classifier=V)
    for solver in (Newton(), LBFGS(tol=1e-10)):
        solution = solve(problem, 0, solver)
        assert solution.converged
        np.testing.assert_allclose(solution.params.W, V, rtol=1e-15)
        assert abs(certify(problem, solution.params).gap) <= 1e-9


@pytest.mark.parametrize("solver", [Newton(), LBFGS(tol=1e-10), Lifted(tol=1e-8)], ids=lambda s: type(s).__name__)
def test_vmap_over_decays_equals_the_loop(solver):
    decays = jnp.asarray([1e-3, 1e-2, 0.3])
    start = SMALL.init(jax.random.key(0))

    def one(w):
        return run(solver, dataclasses.replace(SMALL, decay=Decay(w, 0.02, 0.03)), start)

    solver = dataclasses.replace(solver, tol=solver.tol or 1e-12)
    batch = jax.jit(jax.vmap(one))(decays)
    single = jax.jit(one)
    for i, w in enumerate(decays):
        alone = single(w)
        assert int(batch.status[i]) == int(alone.status) == Status.CONVERGED
        assert float(batch.value[i]) == pytest.approx(float(alone.value), rel=1e-12)
        exact = minimizer(dataclasses.replace(SMALL, decay=Decay(float(w), 0.02, 0.03)))
        assert float(batch.value[i]) == pytest.approx(exact.value, rel=1e-11)
    assert batch.params.W.shape == (3, 3, 4)


def test_run_fills_in_the_default_tolerance():
    solution = jax.jit(lambda p, x: run(Newton(), p, x))(SMALL, SMALL.init(jax.random.key(0)))
    assert int(solution.status) == Status.CONVERGED
    assert float(solution.residual) <= 1e-12


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10)
def test_rotating_the_start_rotates_the_solution(seed):
    start = SMALL.init(jax.random.key(seed))
    Q = ufm.geometry.random_rotation(jax.random.key(seed + 1), 4)
    a = solve(SMALL, init=start)
    b = solve(SMALL, init=Params(start.W @ Q, Q.T @ start.H, start.b))
    assert float(a.value) == pytest.approx(float(b.value), rel=1e-12)
    np.testing.assert_allclose(a.params.W @ a.params.H, b.params.W @ b.params.H, atol=1e-6)


# Focal: not convex ----------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_best_of_starts_is_the_scalar_minimizer(gamma):
    problem = Problem(4, 5, 3, losses.Focal(gamma), Decay(0.01, 0.02, 0.03))
    best = solve(problem, 0, starts=6)
    found = minimizer(problem)
    # A better point would be a finding: keep its data, do not loosen this.
    assert float(best.value) == pytest.approx(found.value, rel=1e-11)
    certificate = certify(problem, best.params)
    assert certificate.lower_bound <= found.value + certificate.rounding


# Extremes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "tolerance"),
    [
        (Problem(2, 1, 1, losses.CE(), Decay(0.01, 0.02, 0.03)), 1e-12),
        (Problem(2, 1, 1, losses.BCE(), Decay(0.01, 0.02, 0.03), "unified"), 1e-12),
        (Problem(2, 1, 1, losses.MSE(), Decay(0.01, 0.02, 0.0)), 1e-12),
        (Problem(500, 520, 20, losses.CE(), Decay(5e-4, 5e-4, 5e-4), features="per_class"), 1e-10),
        (Problem(5, 6, 3, losses.CE(), Decay(0.01, 0.01, 0.0)), 1e-12),
        (Problem(5, 6, 3, losses.BCE(), Decay(0.01, 0.01, 0.0)), 1e-12),
        (Problem(5, 6, 3, losses.BCE(), Decay(0.01, 0.01, 0.0), "unified"), 1e-12),
        (Problem(5, 6, 3, losses.BCE(), Decay(1e-8, 1e-8, 1e-8)), 1e-12),
        (Problem(5, 6, 3, losses.CE(), Decay(1e-8, 1e-8, 1e-8)), 1e-12),
        (Problem(5, 6, 3, losses.MSE(), Decay(1e-4, 1e-4, 1e-4)), 1e-12),
        (Problem(5, 6, 3, losses.BCE(), Decay(10.0, 10.0, 10.0)), 1e-12),
        (Problem(5, 6, 3, losses.LabelSmoothing(0.2), Decay(10.0, 1e-8, 10.0)), 1e-12),
        (Problem(5, 6, 3, losses.CE(), Decay(1e-10, 1e3, 1e3)), 1e-12),
        (Problem(4, 4, 1, losses.CE(), Decay(0.25, 0.25, 0.25)), 1e-10),  # K mu = 1 exactly: a quartic minimum
    ],
)
def test_extremes(problem, tolerance):
    solution = solve(problem, 0)
    found, certificate = minimizer(problem), certify(problem, solution.params)
    assert solution.status_name == "converged"
    assert certificate.gap <= tolerance
    assert float(solution.value) == pytest.approx(found.value, rel=1e-9, abs=1e-14)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(solution.params))


def test_squared_error_with_tiny_decays_says_how_far_it_got():
    """A known limit: along the narrow valley of equal W H, 5000 steps do not suffice; nothing is hidden."""
    problem = Problem(5, 6, 3, losses.MSE(), Decay(1e-8, 1e-8, 1e-8))
    solution = solve(problem, 0)
    certificate = certify(problem, solution.params)
    assert solution.status_name == "max steps"
    assert float(solution.value) - minimizer(problem).value <= certificate.gap <= 1e-8


def test_one_sample_in_a_class_and_a_thousand_in_another():
    problem = Problem(4, 6, (1, 1000, 5, 30), losses.CE(), Decay(0.01, 0.001, 0.01), features="per_class")
    solution = solve(problem, 0)
    assert solution.converged
    assert certify(problem, solution.params).gap <= 1e-12


def test_imbalanced_classes_of_equal_size_merge_at_their_threshold():
    """w_i = w_j iff sqrt(n_c)/N <= sqrt(decay_W decay_H), and all is zero iff sqrt(n_A)/N <= the same."""
    counts, N = (20, 20, 5, 5, 5), 55
    for factor, merged in ((0.97, False), (1.03, True)):
        lam = factor * np.sqrt(5) / N
        problem = Problem(5, 5, counts, losses.CE(), Decay(lam, lam, lam), features="per_class")
        W = np.asarray(solve(problem, 0).params.W)
        assert (np.linalg.norm(W[2] - W[3]) < 1e-6) == merged
    lam = 1.03 * np.sqrt(20) / N
    problem = Problem(5, 5, counts, losses.CE(), Decay(lam, lam, lam), features="per_class")
    assert np.linalg.norm(solve(problem, 0).params.W) < 1e-8


# Status ----------------------------------------------------------------------------------------------

WITH_STATUS = [Newton(), LBFGS(), Gradient(optax.sgd(0.1), max_steps=100)]
by_name = pytest.mark.parametrize("solver", WITH_STATUS, ids=lambda s: type(s).__name__)


def without_nan(problem):
    start = problem.init(jax.random.key(0))
    return start, Params(start.W.at[0, 0].set(jnp.nan), start.H, start.b)


@by_name
def test_nan_start_is_nonfinite(solver):
    _, bad = without_nan(SMALL)
    assert solve(SMALL, solver=solver, init=bad).status_name == "nonfinite"


@by_name
def test_loss_that_becomes_nan_on_the_way_ends_with_a_status_and_a_finite_point(solver):
    """A square root whose argument is negative once the logits have grown."""

    def until(z, k):
        return jax.nn.logsumexp(z) - z[k] - jnp.sqrt(0.5 - jnp.sum(z**2))

    problem = Problem(3, 4, 2, losses.custom(until), Decay(0.01, 0.01, 0.01))
    start = problem.init(jax.random.key(0), scale=0.3)
    assert np.isfinite(float(problem.objective(start)))
    solution = solve(problem, solver=solver, init=start)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(solution.params))
    assert np.isfinite(float(solution.value))
    assert float(solution.value) <= float(problem.objective(start))


@by_name
def test_gradient_that_is_nan_where_the_value_is_not(solver):
    broken = losses.custom(lambda z, k: jax.nn.logsumexp(z) - z[k] + jnp.sqrt(jnp.sum((z - z) ** 2)))
    problem = Problem(3, 4, 2, broken, Decay(0.01, 0.01, 0.01))
    assert solve(problem, 0, solver).status_name == "nonfinite"


def test_hessian_that_is_nan_where_the_gradient_is_not():
    """|z|^(3/2) has a finite gradient at 0 and no Hessian there."""

    def kink(z, k):
        x = z[0] - z[0]
        return jax.nn.logsumexp(z) - z[k] + jnp.where(True, x * jnp.sqrt(jnp.abs(x) + 0.0), 0.0)

    problem = Problem(3, 4, 2, losses.custom(kink), Decay(0.01, 0.01, 0.01))
    solution = solve(problem, 0)
    assert solution.status_name in ("nonfinite", "stalled")
    assert int(solution.steps) < 100


@by_name
def test_max_steps(solver):
    # Small decays: Newton is still far from them after two steps, and must report the problem's own value.
    problem = dataclasses.replace(SMALL, decay=Decay(1e-5, 2e-5, 3e-5))
    solution = solve(problem, 0, dataclasses.replace(solver, max_steps=2))
    assert solution.status_name == "max steps"
    assert int(solution.steps) == 2
    assert float(solution.value) == pytest.approx(float(problem.objective(solution.params)), rel=1e-12)
    slope = jax.tree.leaves(jax.grad(problem.objective)(solution.params))
    assert float(solution.grad_norm) == pytest.approx(np.sqrt(sum(np.sum(g**2) for g in slope)), rel=1e-9)
    none = solve(SMALL, 0, dataclasses.replace(solver, max_steps=0))
    assert none.status_name == "max steps"
    assert np.isfinite(float(none.value))
    assert float(none.value) == pytest.approx(float(SMALL.objective(none.params)), rel=1e-13)


def test_stalled_when_the_tolerance_is_within_rounding():
    statuses = {solve(REFERENCE, k, Newton(tol=40 * np.finfo(float).eps)).status_name for k in range(5)}
    assert statuses <= {"converged", "stalled"}


@pytest.mark.parametrize("solver", [Newton(), LBFGS(tol=1e-10)], ids=["Newton", "LBFGS"])
def test_solving_from_a_solution(solver):
    """Started at a minimum, a solver must say converged, or at worst stalled, and not move away."""
    point = minimizer(SMALL).params
    solution = solve(SMALL, solver=solver, init=jax.tree.map(jnp.asarray, point))
    assert solution.status_name == "converged"
    assert float(solution.value) == pytest.approx(minimizer(SMALL).value, rel=1e-14)


@pytest.mark.parametrize("eliminate", [True, False])
def test_a_strict_saddle_is_left_unless_it_is_asked_for(eliminate):
    """At W = H = 0 the gradient vanishes: the point is critical, and the certificate says that it is not global."""
    zero = jax.tree.map(jnp.zeros_like, SMALL.init(jax.random.key(0)))
    kept = solve(SMALL, init=zero, eliminate=eliminate, saddles="keep")
    assert kept.status_name == "converged"
    assert certify(SMALL, kept.params).gap > 0.1
    left = solve(SMALL, init=zero, eliminate=eliminate)
    assert left.converged
    assert float(left.value) == pytest.approx(minimizer(SMALL).value, rel=1e-12)
    assert int(left.steps) > int(kept.steps)
    near = jax.tree.map(lambda x: 1e-6 * x, SMALL.init(jax.random.key(0)))
    assert float(solve(SMALL, init=near).value) == pytest.approx(minimizer(SMALL).value, rel=1e-12)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(4, 3, 2, losses.CE(), Decay(0.01, 0.01, 0.01)),  # W may have full rank: no explicit direction
        Problem(3, 4, 2, losses.Focal(2.0), Decay(0.01, 0.01, 0.01)),  # not convex: no screen
        Problem(4, 5, (1, 3, 2, 6), losses.BCE(), Decay(0.02, 0.03, 0.05), features="per_class"),
    ],
    ids=["low-dimension", "focal", "imbalanced"],
)
def test_saddles_of_every_kind_are_left(problem):
    from_zero, random = solve(problem, scale=0.0), solve(problem, 0)
    assert from_zero.converged
    assert float(from_zero.value) == pytest.approx(float(random.value), rel=1e-10)


def test_a_saddle_that_training_stays_at_is_called_one():
    """Gradient descent from an exact saddle is the user's experiment: it is not restarted, but not converged either."""
    solution = solve(SMALL, solver="sgd:lr=0.5", scale=0.0)
    assert solution.status_name == "saddle"
    assert "keep" in solution.remedy
    assert not solution.converged


def test_minima_are_not_called_saddles():
    """At K mu = 1 the least curvature is 0, beyond it the origin is the minimum."""
    for decay in (0.25, 0.3):
        problem = Problem(4, 4, 1, losses.CE(), Decay(decay, decay, decay))
        assert solve(problem, scale=0.0).converged
        assert float(solve(problem, scale=0.0).value) == pytest.approx(np.log(4), rel=1e-14)
    for dtype in (jnp.float32, jnp.float64):
        found = solve(SMALL, 0, dtype=dtype)
        assert ufm.solvers.judged(SMALL.astype(dtype), found).status_name == "converged"


def test_without_the_look_for_curvature_the_saddle_would_pass(monkeypatch):
    """The two tests above can fail: with the screen open, the origin is a solution."""
    from ufm.solvers import saddles

    origin = jax.tree.map(jnp.zeros_like, SMALL.init(jax.random.key(0)))
    found = run(Newton(), SMALL, origin)
    assert ufm.solvers.judged(SMALL, found).status_name == "saddle"
    monkeypatch.setattr(saddles, "screened", lambda *given: jnp.ones((), bool))
    assert ufm.solvers.judged(SMALL, found).status_name == "converged"


def test_a_free_solve_costs_at_most_three_times_the_eliminated_one():
    """decay_H = 10^4 decay_W: deviations from the class means once took 541 steps through the radius that W needs."""
    problem = Problem(10, 12, 20, losses.MSE(), Decay(2.6e-5, 0.24, 0.5), "unified")
    short, free = (solve(problem, 26, eliminate=e) for e in (True, False))
    assert short.converged
    assert free.converged
    assert float(free.value) == pytest.approx(float(short.value), rel=1e-12)
    assert int(free.steps) <= 3 * int(short.steps)
    # Each in gradients of its own size.
    assert float(free.evaluations) <= 3 * float(short.evaluations) * problem.samples / problem.classes


def test_status_codes_are_stable():
    assert [(s.name, int(s)) for s in Status] == [
        ("RUNNING", 0),
        ("CONVERGED", 1),
        ("MAX_STEPS", 2),
        ("STALLED", 3),
        ("NONFINITE", 4),
        ("SADDLE", 5),
        ("LOCAL_MINIMUM", 6),
    ]
    assert [s for s in Status if not s.remedy] == [Status.CONVERGED]


# Gradient methods: records and laws --------------------------------------------------------------------


def test_trajectory():
    solver = Gradient(optax.sgd(0.1), tol=0.0, max_steps=25, record_every=10)
    solution = solve(SMALL, 0, solver)
    assert set(solution.trajectory) == {"value", "grad_norm", "bias", "positive", "negative"}
    assert all(v.shape == (3,) for v in solution.trajectory.values())
    start = SMALL.init(jax.random.key(0))
    assert float(solution.trajectory["value"][0]) == pytest.approx(float(SMALL.objective(start)), rel=1e-14)
    point = start
    for _ in range(20):
        point = jax.tree.map(lambda x, g: x - 0.1 * g, point, jax.grad(SMALL.objective)(point))
    assert float(solution.trajectory["value"][2]) == pytest.approx(float(SMALL.objective(point)), rel=1e-12)
    scores = np.asarray(point.W @ point.H)
    true = scores[SMALL.labels, np.arange(15)]
    assert float(solution.trajectory["positive"][2]) == pytest.approx(true.mean(), rel=1e-10)
    assert float(solution.trajectory["negative"][2]) == pytest.approx((scores.sum() - true.sum()) / 30, rel=1e-10)
    assert solve(SMALL, 0, Gradient(optax.sgd(0.1), max_steps=5)).trajectory == {}


def test_trajectory_after_an_early_end_is_nan():
    solver = Gradient(optax.sgd(0.5), tol=1e-2, max_steps=2000, record_every=100)
    solution = solve(SMALL, 0, solver)
    assert solution.converged
    rows = int(solution.steps) // 100
    assert rows < 20
    assert np.all(np.isfinite(solution.trajectory["value"][: rows + 1]))
    assert np.all(np.isnan(solution.trajectory["value"][rows + 1 :]))


@pytest.mark.parametrize("loss", [losses.CE(), losses.LabelSmoothing(0.1), losses.Focal(2.0)], ids=str)
def test_mean_bias_law_of_shift_invariant_losses(loss):
    """b_mean(t) = b_mean(0) (1 - eta decay_b)^t under gradient descent, whatever the features do."""
    eta, decay_b = 0.2, 0.05
    problem = Problem(4, 5, (1, 3, 2, 6), loss, Decay(0.01, 0.02, decay_b))
    solver = Gradient(optax.sgd(eta), tol=0.0, max_steps=400, record_every=1)
    start = problem.init(jax.random.key(0), bias_mean=3.0)
    bias = solve(problem, solver=solver, init=start).trajectory["bias"]
    law = float(jnp.mean(start.b)) * (1 - eta * decay_b) ** np.arange(401)
    np.testing.assert_allclose(bias, law, rtol=1e-12)


def test_bce_forgets_its_initial_bias():
    problem = Problem(4, 5, 3, losses.BCE(), Decay(0.01, 0.02, 0.05))
    ends = [solve(problem, 0, "sgd:lr=0.3", bias_mean=m).params.b for m in (0.0, 5.0)]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


# Precision ---------------------------------------------------------------------------------------------


def test_float32_under_x64():
    solution = solve(SMALL, 0, dtype=jnp.float32)
    assert solution.converged
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(solution.params))
    assert float(solution.value) == pytest.approx(minimizer(SMALL).value, rel=1e-5)
    assert certify(SMALL, solution.params).gap < 1e-5


# What a caller may get wrong -----------------------------------------------------------------------------


def own(function):
    return Problem(3, 4, 2, losses.custom(function, name="mine"))


def start(**fields):
    point = {"W": jnp.ones((3, 4)), "H": jnp.ones((4, 15)), "b": jnp.ones(3)} | fields
    return solve(SMALL, init=Params(**point))


def lifted(**fields):
    return solve(dataclasses.replace(SMALL, **fields), solver=Lifted())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: solve(SMALL, solver=Newton(tol=1e-16)), ["tol", "1e-16", "at least", "float64"]),
        (lambda: solve(SMALL, solver=Newton(tol=np.nan)), ["tol", "nan"]),
        (lambda: solve(SMALL, solver=LBFGS(tol=-1.0)), ["tol", "-1.0"]),
        (lambda: solve(SMALL, solver=Newton(tol=1e-9), dtype=jnp.float32), ["tol", "float32", "jax_enable_x64"]),
        (lambda: solve(SMALL, solver="newtn"), ["solver", "'newtn'", "did you mean 'newton'"]),
        (lambda: solve(SMALL, solver="newton:lr=1"), ["newton", "'lr'", "no hyper-parameters"]),
        (lambda: solve(SMALL, solver="sgd:lr=fast"), ["lr", "'fast'", "number"]),
        (lambda: solve(SMALL, solver="sgd:rate=1"), ["sgd", "'rate'", "lr"]),
        (lambda: solve(SMALL, solver=3), ["solver", "3"]),
        (lambda: solve(SMALL, solver=Newton(max_steps=-1)), ["max_steps", "-1"]),
        (lambda: solve(SMALL, saddles="stay"), ["saddles", "'stay'", "keep, leave"]),
        (
            lambda: solve(dataclasses.replace(SMALL, decay=Decay(np.full(3, 0.1), 0.1, 0.1))),
            ["decay.W.shape", "(3,)", "ufm.sweep"],
        ),
        (lambda: solve(Problem(3, 4, 5, losses.Focal(np.ones(2)))), ["loss.gamma.shape", "(2,)", "ufm.sweep"]),
        (
            lambda: solve(dataclasses.replace(SMALL, classifier=np.ones((2, 3, 4)))),
            ["classifier.shape", "(2, 3, 4)", "ufm.sweep"],
        ),
        (lambda: solve(ufm.NormalizedProblem(SMALL, np.ones(2))), ["gamma.shape", "(2,)", "ufm.sweep"]),
        (lambda: solve(SMALL, starts=0), ["starts", "0", ">= 1"]),
        (lambda: solve(SMALL, -1), ["seed", "-1"]),
        (lambda: solve(SMALL, scale=np.nan), ["scale", "nan"]),
        (lambda: solve(SMALL, bias_mean=np.inf), ["bias_mean", "inf"]),
        (lambda: solve(SMALL, dtype=jnp.float16), ["dtype", "float16", "float32"]),
        (lambda: solve(SMALL, dtype="float46"), ["dtype", "float46", "did you mean 'float64'"]),
        (lambda: solve(own(lambda z: z.sum())), ["loss = mine", "fn(logits (3,), label)", "positional argument"]),
        (lambda: solve(own(lambda z, k: z)), ["loss mine: value.shape", "(3,)", "()"]),
        (lambda: solve("bce"), ["problem", "str", "ufm.Problem"]),
        (
            lambda: solve(SMALL, init=Params(jnp.ones((3, 4)), jnp.ones((4, 14)), jnp.ones(3))),
            ["init.H", "(4, 14)", "(4, 15)"],
        ),
        (
            lambda: solve(SMALL, init=Params(jnp.ones((4, 3)), jnp.ones((4, 15)), jnp.ones(3))),
            ["init.W", "(4, 3)", "(3, 4)"],
        ),
        (lambda: start(H=jnp.ones((4, 14))), ["init.H", "(4, 14)", "(4, 15)"]),
        (lambda: start(W=jnp.ones((4, 3))), ["init.W", "(4, 3)", "(3, 4)"]),
        (lambda: start(b=None), ["init.b", "None", "(3,)"]),
        (lambda: start(b=jnp.ones(())), ["init.b", "()", "(3,)"]),
        (lambda: solve(SMALL, init=SMALL.init(jax.random.key(0)), starts=2), ["starts", "2", "1"]),
        (lambda: lifted(dim=2), ["dim", "2", "3"]),
        (lambda: lifted(loss=losses.Focal(2.0)), ["loss", "focal", "convex"]),
        (lambda: lifted(classifier=np.ones((3, 4))), ["model", "fixed", "lifted"]),
    ],
)
def test_bad_input_names_field_value_and_what_is_allowed(call, words):
    with pytest.raises(ufm.InputError, match="must be") as error:
        call()
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_parse():
    assert parse("newton", tol=1e-10, max_steps=None) == Newton(tol=1e-10)
    assert parse("lbfgs", max_steps=7) == LBFGS(max_steps=7)
    assert isinstance(parse("sgd:lr=0.3,momentum=0"), Gradient)
    assert isinstance(parse("adamw:lr=0.01,decay=0.1", tol=1e-3), Gradient)


def test_progress_is_reported_and_changes_nothing():
    seen = []
    with_progress = solve(REFERENCE, 0, progress=lambda steps, residual: seen.append((steps, residual)))
    without = solve(REFERENCE, 0)
    assert seen
    assert seen[-1][0] == int(with_progress.steps) == int(without.steps)
    assert seen[-1][1] <= 1e-12
    assert float(with_progress.value) == pytest.approx(float(without.value), rel=1e-14)

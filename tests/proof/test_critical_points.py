"""Critical points that are proved to exist, their index, and thresholds between two proofs."""

import dataclasses

import jax
import numpy as np
import pytest
from flint import arb, ctx

import ufm
from ufm.losses import BCE, CE, MSE, Focal, LabelSmoothing, Logistic
from ufm.problem import Params
from ufm.proof import critical, critical_point, gauge
from ufm.proof.balls import Unproved
from ufm.proof.gauge import Reduced, in_gauge
from ufm.proof.statement import Statement
from ufm.proof.thresholds import exceeds

DECAY = ufm.Decay(0.01, 0.02, 0.03)


@pytest.fixture(scope="module")
def rungs():
    problem = ufm.Problem(4, 5, 2, CE(), ufm.Decay(5e-3, 5e-3, 0.1))
    return problem, ufm.theory.ladder(problem)


def test_ladder(rungs):
    """Every rung: index and kernel of the closed form, its value enclosed, and its dense Hessian."""
    problem, ladder = rungs
    indices = []
    for rung in ladder:
        found = critical_point(problem, rung.params())
        assert (found.index, found.kernel) == (rung.spectrum.index, rung.spectrum.kernel)
        assert float(found.lower) <= rung.value + 1e-15
        assert rung.value - 1e-15 <= float(found.upper)
        assert found.rank == rung.prototypes - 1
        indices.append(found.index)
    assert indices == sorted(indices, reverse=True)
    assert indices[-1] == 0 < indices[0]


CASES = {
    "within-class copies, no bias": (3, 4, 2, CE(), "none", 0.03),
    "shift of an undecayed bias": (3, 4, 1, CE(), "per_class", 0.0),
    "undecayed unified": (3, 3, 2, LabelSmoothing(0.1), "unified", 0.0),
    "d = K - 1": (3, 2, 2, BCE(), "per_class", 0.03),
    "mean-shifted": (4, 5, 1, BCE(), "per_class", 2.0),
    "focal": (3, 4, 2, Focal(2.0), "per_class", 0.03),
    "squares": (3, 5, 1, MSE(2.0, 3.0), "unified", 0.03),
}


@pytest.mark.parametrize("case", CASES)
def test_index_and_kernel_are_those_of_the_closed_form(case):
    K, d, n, loss, bias, decay_b = CASES[case]
    problem = ufm.Problem(K, d, n, loss, ufm.Decay(0.01, 0.02, decay_b), bias)
    least = ufm.theory.minimizer(problem)
    found = critical_point(problem, least.params)
    assert found.radius < 1e-12 < found.unique
    closed = ufm.theory.hessian_spectrum(problem)
    assert (found.index, found.kernel) == (0, closed.kernel) == (closed.index, closed.kernel)
    assert float(found.lower) - 1e-14 <= least.value <= float(found.upper) + 1e-14
    rows = [np.asarray(x.W @ x.W.T) for x in (found.params, least.params)]
    np.testing.assert_allclose(*rows, atol=1e-10)  # the given point, up to a rotation


def test_unequal_counts_weights_and_offset():
    fields = {"weights": np.array([0.3, 0.2, 0.5]), "offset": np.array([0.1, -0.2, 0.0])}
    problem = ufm.Problem(3, 4, (3, 2, 1), BCE(), DECAY, **fields)
    solution = ufm.solve(problem)
    found = critical_point(problem, solution.params)
    assert float(found.lower) - 1e-13 <= float(solution.value) <= float(found.upper) + 1e-13
    flat, unravel = jax.flatten_util.ravel_pytree(found.params)
    dense = jax.jit(jax.hessian(lambda v: problem.objective(unravel(v))))
    values = np.linalg.eigvalsh(dense(flat))
    assert int(np.sum(values < -1e-9)) == found.index == 0
    assert int(np.sum(np.abs(values) <= 1e-9)) == found.kernel


def test_origin_without_classifier_variables():
    """Rank 0: only the bias is left in the gauge, and every dimension beyond it is a saddle of K - 1 directions."""
    for bias in ("per_class", "none"):
        problem = ufm.Problem(4, 6, 3, CE(), ufm.Decay(5e-3, 1e-3, 0.1), bias)
        found = critical_point(problem, jax.tree.map(np.zeros_like, problem.init(0)))
        assert (found.rank, found.index, found.kernel) == (0, 18, 0)


def test_neuron():
    problem = ufm.Problem(2, 3, (2, 1), Logistic(), ufm.Decay(0.01, 0.02, 0.0))
    solution = ufm.solve(problem)
    with pytest.raises(Unproved, match="singular"):  # the idle bias has no decay: a line of minimizers
        critical_point(problem, solution.params)
    problem = dataclasses.replace(problem, decay=DECAY)
    assert critical_point(problem, ufm.solve(problem).params).rank == 1


def test_local_minima_of_bce_in_k_minus_one_dimensions():
    """K = 4, d = 3: two strict local minima; the ETF is one of them, the other lies higher by 0.1003."""
    problem = ufm.Problem(4, 3, 1, BCE(), ufm.Decay(0.013, 0.013, 0.02))
    etf = critical_point(problem, ufm.theory.minimizer(problem).params)
    other = critical_point(problem, spurious(problem))
    assert etf.minimum
    assert other.minimum
    assert etf.kernel == other.kernel == 3  # rotations in three dimensions alone
    assert float(other.lower) - float(etf.upper) > 0.1


def spurious(problem):
    """The local minimum that a start with a bias near zero leads to."""
    found = ufm.solvers.multistart(problem, 0, starts=16)
    return max((s for s in found if s.status_name == "converged"), key=lambda s: float(s.value)).params


def test_theorem_2_is_refuted_in_k_minus_one_dimensions(tmp_path):
    """K = 5, d = 4: a minimum with one class apart lies below every centered point, which the proof bounds below."""
    problem = ufm.Problem(5, 4, 1, BCE(), ufm.Decay(0.0015, 0.0015, 0.0035))
    assert ufm.atlas.THEOREMS["li2025/2"].applies(problem)
    found = ufm.solvers.best_of(ufm.solvers.multistart(problem, 0, starts=8))
    claim = ufm.atlas.THEOREMS["li2025/2"].refutation(problem)
    proof = ufm.proof.prove(problem, found.params, refutes=claim)
    assert float(proof.document["refutes"]["by"]) > 0.019
    assert "no dual matrix tight" in proof.reason  # d < rank of the lifted solution
    assert "refutes li2025/2 by 0.01925" in ufm.proof.check(proof.save(tmp_path / "proof.json"))
    ball = critical_point(problem, found.params)
    assert ball.minimum
    assert np.ptp(np.asarray(ball.params.b)) > 0.1


def test_a_point_that_is_not_critical_is_not_proved(rungs):
    problem, ladder = rungs
    with pytest.raises(Unproved, match=r"not close|does not contract|singular|degenerate"):
        critical_point(problem, problem.init(1))
    point = ladder[-1].params()
    near = Params(np.asarray(point.W) * 1.0001, point.H, point.b)
    assert critical_point(problem, near).minimum  # Newton brings it there, and the center is given back
    assert np.abs(np.asarray(critical_point(problem, near).params.H)).max() > 0


def test_a_threshold_is_not_proved_at_the_threshold():
    """At decay 1/(K sqrt n) the origin is degenerate: its index is not certain."""
    decay = 1.0 / (4 * np.sqrt(5.0))
    problem = ufm.Problem(4, 5, 5, CE(), ufm.Decay(decay, decay, 0.01))
    with pytest.raises(Unproved, match="sign of an eigenvalue"):
        critical_point(problem, jax.tree.map(np.zeros_like, problem.init(0)))


def test_other_models_are_refused():
    problem = ufm.Problem(3, 4, 2, CE(), DECAY, model=ufm.models.Spheres(2.0))
    with pytest.raises(ufm.InputError, match=r"must be Linear\(\)"):
        critical_point(problem, problem.init(0))


def derivative_errors():
    """Slopes against the objective, and the Hessian against the slopes, by differences in 300 bits."""
    problem = ufm.Problem(3, 3, (2, 1, 1), BCE(), DECAY, offset=np.array([0.1, 0.2, -0.1]))
    statement = Statement(problem)
    with ctx.workprec(300):
        reduced = Reduced(statement, *in_gauge(statement.point(problem.init(5))))
        y, h = [arb(v) for v in reduced.start], arb(2) ** -60
        slopes, hessian, errors = reduced.slopes(y), reduced.hessian(y), []
        for i in range(len(y)):
            up, down = ([v + s * h * (i == j) for j, v in enumerate(y)] for s in (1, -1))
            errors.append((reduced.objective(up) - reduced.objective(down)) / (2 * h) - slopes[i])
            change = [(a - b) / (2 * h) for a, b in zip(reduced.slopes(up), reduced.slopes(down), strict=True)]
            errors += [c - hessian[i, j] for j, c in enumerate(change)]
        return max(float(abs(x).upper()) for x in errors)


def test_slopes_and_hessian_are_derivatives():
    assert derivative_errors() < 1e-15


def more(function):
    """A thousandth more."""
    return lambda self, y: [x * 1001 / 1000 for x in function(self, y)]


def stiffer(function):
    return lambda self, y: function(self, y) * arb(1.001)


@pytest.mark.parametrize(("name", "mutation"), [("slopes", more), ("hessian", stiffer)])
def test_a_wrong_derivative_is_seen(name, mutation, monkeypatch):
    monkeypatch.setattr(Reduced, name, mutation(getattr(Reduced, name)))
    assert derivative_errors() > 1e-6


@pytest.mark.parametrize("name", ["off_span", "within"])
def test_a_wrong_index_is_seen(rungs, name, monkeypatch):
    problem, ladder = rungs
    right = getattr(Reduced, name)
    monkeypatch.setattr(Reduced, name, lambda self, y: right(self, y) + 1)
    found = critical_point(problem, ladder[1].params())
    assert found.index != ladder[1].spectrum.index


def test_boxes_are_tried_upward():
    assert list(critical.RADII) == sorted(critical.RADII)
    assert gauge.NEAR < 1


# Thresholds ----------------------------------------------------------------------------------------


def best(problem):
    return ufm.theory.minimizer(problem).params


@pytest.mark.parametrize(("K", "n", "W", "H"), [(3, 1, 0.02, 0.02), (4, 2, 5e-3, 1e-3), (5, 2, 0.02, 0.02)])
def test_phase_boundaries_of_bce(K, n, W, H):
    """ETF below, mean-shifted above, both proved; the closed form decay_b |b| = mu lies between."""
    found = ufm.proof.threshold(
        lambda x: ufm.Problem(K, K + 1, n, BCE(), ufm.Decay(W, H, x)), best, 1e-3, 0.1, width=3e-3
    )
    assert (found.low_rank, found.high_rank) == (K - 1, K)
    assert found.high - found.low <= 3e-3 * found.high
    mu = np.sqrt(n * W * H)
    sides = [x * abs(ufm.theory.closed_forms.bce_centered(mu, K, x).bias) - mu for x in (found.low, found.high)]
    assert sides[0] < 0 < sides[1]


def test_merging_threshold():
    """Three minority classes of 5 among 55 samples merge at sqrt(5)/55."""

    def at(x):
        return ufm.Problem(5, 6, (20, 20, 5, 5, 5), CE(), ufm.Decay(x, x, 0.01), features="per_class")

    found = ufm.proof.threshold(at, lambda p: ufm.solve(p).params, 0.04, 0.0415, width=2e-3)
    assert (found.low_rank, found.high_rank) == (4, 2)
    assert found.low < np.sqrt(5.0) / 55 < found.high


def test_thresholds_refuse_what_they_cannot_know():
    with pytest.raises(ufm.InputError, match="loss = 'focal:gamma=2': must be a convex loss"):
        ufm.proof.rank_of_minimizer(ufm.Problem(3, 4, 1, Focal(2.0)), None)
    with pytest.raises(ufm.InputError, match="dim = 3: must be above classes = 3"):
        ufm.proof.rank_of_minimizer(ufm.Problem(3, 3, 1, CE()), None)
    with pytest.raises(ufm.InputError, match="ranks at the ends = 2: must be different"):
        ufm.proof.threshold(lambda x: ufm.Problem(3, 4, 1, CE(), ufm.Decay(x, x, x)), best, 0.01, 0.02)
    saddle = ufm.Problem(3, 4, 1, CE(), DECAY)
    with pytest.raises(Unproved, match="saddle of index 8"):
        ufm.proof.rank_of_minimizer(saddle, jax.tree.map(np.zeros_like, saddle.init(0)))


def codes(decay):
    """Falling and rising parts of two codes of deep linear CE, K = 4 and two matrices above H, n = 1, equal decays.

    ``2/M = 2/3`` and ``kappa = 3/2 decay``. Collapse: one simplex. Pairs: two antipodal pairs, each in one dimension.
    """
    kappa, power = 3 * decay / 2, arb(2) / 3

    def price(a):
        return kappa * a**power if a > 0 else arb(0)

    return {
        "collapse": (lambda a: (3 * (-a).exp()).log1p(), lambda a: 3 * price(a)),
        "pairs": (lambda a: 2 * (-a / 2).exp().log1p(), lambda a: 2 * price(a)),
    }


@pytest.mark.parametrize(
    ("decay", "lower", "higher", "at"), [(11760, "collapse", "pairs", 4.9556), (11761, "pairs", "collapse", 8.937)]
)
def test_depth_lets_pairs_overtake_collapse(decay, lower, higher, at):
    """At decay 0.011760 the best collapse is below every pair of pairs, at 0.011761 it is the other way round."""
    families = codes(arb(decay) / 10**6)
    falling, rising = families[lower]
    value = falling(arb(at)) + rising(arb(at))
    assert exceeds(*families[higher], value, 400.0)
    assert not exceeds(*families[lower], value, 400.0)


def test_a_half_line_is_looked_at_to_its_end():
    """A dip far out, a floor that is reached, and a rising part that never gets there."""
    assert not exceeds(lambda a: (-a).exp(), lambda a: a / 10, arb("0.34"), 4.0)
    assert not exceeds(lambda a: (-a).exp(), lambda a: a / 10, arb("0.33"), 3.0)
    assert exceeds(lambda a: (-a).exp(), lambda a: a / 10, arb("0.3302"), 4.0)

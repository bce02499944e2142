"""Random problems over the convex losses: certified globally optimal, and equal to the closed form.

Every loss with every bias mode and with d = K - 1, d = K and a larger d, at random sizes: 36 static shapes (a compile
each) with 8 draws of decays and hyper-parameters.
"""

import itertools

import numpy as np
import pytest

import ufm
from ufm import Decay, Problem, losses
from ufm.theory import certify, minimizer

DRAWS = 8
LOSSES = {
    "ce": lambda rng: losses.CE(),
    "bce": lambda rng: losses.BCE(),
    "ls": lambda rng: losses.LabelSmoothing(rng.uniform(0, 0.5)),
    "mse": lambda rng: losses.MSE(rng.uniform(0.3, 5), rng.uniform(0.3, 5)),
}


KINDS = list(itertools.product(LOSSES, ("per_class", "unified", "none"), ("K - 1", "K", "more")))


@pytest.mark.parametrize(("loss", "bias", "dim"), KINDS)
def test_random_problems(loss, bias, dim):
    rng = np.random.default_rng(KINDS.index((loss, bias, dim)))
    K, n = int(rng.integers(2, 21)), int(rng.integers(1, 21))
    d = {"K - 1": K - 1, "K": K, "more": int(rng.integers(K + 1, 2 * K + 1))}[dim]
    for draw in range(DRAWS):
        decay = Decay(*np.exp(rng.uniform(np.log(1e-4), np.log(0.3), 3)))
        problem = Problem(K, d, n, LOSSES[loss](rng), decay, bias)
        found = minimizer(problem)
        solution = ufm.solve(problem, key=draw)
        certificate = certify(problem, solution.params)
        value = float(solution.value)
        # Squared error with decays near 1e-4 meets the rounding of its own gradient just above 1e-12.
        at_rounding = loss == "mse" and solution.status_name == "stalled" and float(solution.residual) < 5e-12
        assert solution.converged or at_rounding, problem
        assert certificate.value == pytest.approx(value, rel=1e-13)
        # A bound is a bound, tight or not.
        assert certificate.lower_bound - certificate.rounding <= found.lower_bound * (1 + 1e-13)
        if d >= K or found.exact:
            assert certificate.gap <= 1e-10 * max(1.0, value), problem
            assert value == pytest.approx(found.value, rel=1e-9), problem
        else:
            # d = K - 1 in the mean-shifted regime: no theorem, and points below the best ETF exist (see
            # test_an_asymmetric_point_beats_the_etf); what must hold is the bound of the lift.
            assert value >= found.lower_bound * (1 - 1e-12)


def test_an_asymmetric_point_beats_the_etf():
    """d = K - 1, mean-shifted: most starts end 2 % below the best centered ETF (draw 33 of an earlier seed)."""
    decay = Decay(0.000177472339638774, 0.01450853376203792, 0.04126126373339258)
    problem = Problem(6, 5, 17, losses.BCE(), decay, "unified")
    found = minimizer(problem)
    best = ufm.solve(problem, 3, starts=6)
    assert not found.exact
    assert found.value == pytest.approx(0.5153236949443664, rel=1e-12)
    assert float(best.value) == pytest.approx(0.5059257892199175, rel=1e-10)
    assert found.lower_bound == pytest.approx(0.45500696720233724, rel=1e-12)
    logits = np.asarray(best.params.W @ best.params.H)[problem.labels, np.arange(problem.samples)]
    assert np.ptp(logits) > 0.1  # the classes are no longer alike

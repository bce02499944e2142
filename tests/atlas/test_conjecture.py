"""`ufm.conjecture`: eight kinds of false claims are found and shrunk, a true one is not called true, errors are one line."""

import math
import re

import numpy as np
import pytest

import ufm
from ufm import Decay, InputError, Problem, losses, theory
from ufm.atlas import Family, Theorem, Verdict, at_most, conjecture, quantity, rerun, small
from ufm.atlas.hypotheses import (
    K_mu,
    balanced,
    dim_at_least,
    no_bias,
    not_separating,
    number,
    with_bias,
)

CE, BCE, MSE = losses.CE(), losses.BCE(), losses.MSE()
ROOM = dim_at_least(0)


def value_of(problem, **changes):
    """The minimum of a problem with other fields, by the closed form."""
    given = {"classes": problem.classes, "per_class": problem.per_class, "decay": problem.decay, "loss": problem.loss}
    given = {"bias": str(problem.bias), **given, **changes}
    return theory.minimizer(Problem(dim=given["classes"] + 1, **given)).value


def off_by_root_n(problem):
    """mu = sqrt(decay_W decay_H), whatever n."""
    return value_of(problem, per_class=1)


def orthogonal_whatever_the_dimension(problem, evidence):
    """MSE: the logits of their own classes sum to K (1 - mu)."""
    Z = np.asarray(problem.logits(evidence.critical.params))
    trace = np.bincount(problem.labels, Z[problem.labels, np.arange(problem.columns)] * problem.multiplicity).sum()
    mu = math.sqrt(problem.per_class) * float(problem.decay.price)
    return [quantity("sum", problem.classes * max(0.0, 1 - problem.classes * mu), trace / problem.per_class)]


def counts_do_not_matter(problem):
    """Only N/K matters."""
    return value_of(
        problem, per_class=1, decay=Decay(problem.decay.W * problem.samples / problem.classes, problem.decay.H)
    )


def below_the_threshold(problem):
    """CE at the gap log(1/mu - K + 1), whose sign nobody looked at."""
    K, mu = problem.classes, math.sqrt(problem.per_class) * float(problem.decay.price)
    gap = math.log(1 / mu - K + 1)
    return math.log(1 + (K - 1) * math.exp(-gap)) + mu * (K - 1) * gap


def zero_beyond_half(problem, evidence):
    """BCE without bias is zero iff K mu >= (K-2)/2: so it is for K > 3."""
    zero = K_mu(problem) >= (problem.classes - 2) / 2
    found = evidence.value > problem.classes * math.log(2) * (1 - 1e-9)
    return [quantity("zero", float(zero), float(found))]


def third_digit(problem):
    """One in a thousand."""
    return 1.001 * value_of(problem)


def beyond_the_threshold_all_is_zero(problem):
    """True of CE."""
    return float(problem.loss.at(0.0, 0.0, problem.classes))


def no_decay_no_bias(problem):
    """A bias that costs nothing is taken for none."""
    return value_of(problem, bias="none" if float(problem.decay.b) == 0 else str(problem.bias))


small_ce = small(CE)
PLANTED = {
    # claim, family, hypotheses, the smallest instance: K, d, counts, bias
    "root n": (off_by_root_n, CE, balanced & dim_at_least(-1), (2, 1, 2, "none")),
    "d >= K": (orthogonal_whatever_the_dimension, MSE, balanced & no_bias, (2, 1, 1, "none")),
    "balanced": (counts_do_not_matter, CE, dim_at_least(-1) & no_bias, (3, 1, (2, 1, 1), "none")),
    "threshold": (below_the_threshold, CE, balanced & dim_at_least(-1), (2, 1, 1, "none")),
    "K > 3": (zero_beyond_half, BCE, balanced & no_bias & ROOM, (2, 2, 1, "none")),
    "third digit": (third_digit, CE, balanced & dim_at_least(-1), (2, 1, 1, "none")),
    "CE not BCE": (
        beyond_the_threshold_all_is_zero,
        (CE, BCE),
        balanced & not_separating & with_bias,
        (3, 1, 1, "unified"),
    ),
    "free bias": (no_decay_no_bias, BCE, balanced & with_bias, (3, 1, 1, "unified")),
}
FAST = ("root n", "balanced", "third digit")


def run(name, budget=24, seed=0):
    claim, family, hypotheses, smallest = PLANTED[name]
    if name == "d >= K":  # of critical points, not of the minimum: below d = K no bound is tight
        claim = Theorem("planted", "test", "", "", hypotheses, claim, minimum=False)
        return conjecture(claim, family, budget, seed), smallest
    return conjecture(claim, family, budget, seed, hypotheses), smallest


def shape(problem):
    return problem.classes, problem.dim, problem.per_class, str(problem.bias)


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in PLANTED])
def test_a_planted_claim_is_refuted_by_its_smallest_instance(name):
    found, smallest = run(name)
    assert found.finding.verdict == Verdict.REFUTED
    assert shape(found.counterexample) == smallest, found.words
    assert "holds" not in found.words

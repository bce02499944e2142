"""`ufm.conjecture`: eight kinds of false claims are found and shrunk, and a true one is not called true."""

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


PLANTED = {
    # claim, family, hypotheses, the smallest instance: K, d, counts, bias
    "root n": (off_by_root_n, CE, balanced & dim_at_least(-1), (2, 1, 2, "none")),
    "d >= K": (orthogonal_whatever_the_dimension, MSE, balanced & no_bias, (2, 1, 1, "none")),
    "balanced": (counts_do_not_matter, CE, dim_at_least(-1) & no_bias, (3, 2, (2, 1, 1), "none")),
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
FAST = ("d >= K", "threshold", "third digit")


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


PAIR = Family(lambda rng: CE, ((2, 2, 2),), ("none",), (0.1, 0.2))


def test_a_true_claim_is_not_called_true():
    found = conjecture(value_of, PAIR, 8)
    assert (found.counterexample, found.finding, found.tried, found.undecided) == (None, None, 8, 0)
    assert found.words.startswith("value_of: no counterexample in 8 certified problems; the nearest was ce K=2 d=2 n=2")
    assert "holds" not in str(found)
    assert 0 <= found.nearest.worst.residual <= 1
    with pytest.raises(InputError, match="counterexample = None"):
        found.save("nowhere.json")


def low(problem, evidence):
    """False where the decays are larger than any that the family draws."""
    return at_most("minimum", 0.6, evidence.value)


def test_an_adversary_leaves_the_family_to_where_the_claim_fails():
    assert all(float(_minimum(PAIR(np.random.default_rng(i)))) < 0.5 for i in range(20))
    found = conjecture(low, PAIR, 32, hypotheses=no_bias & number("d", lambda p: p.dim, "=", 2))
    assert len(found.findings) > 16  # not among the random half
    assert found.finding.quantities[0].measured > 0.6
    assert "instead of at most 0.6" in found.words
    problem = found.counterexample
    assert shape(problem) == (2, 2, 1, "none")
    assert float(problem.decay.W) == float(problem.decay.H) == 1.0


def _minimum(problem):
    return theory.minimizer(problem).value


def test_a_saved_counterexample_is_checked_again(tmp_path):
    found = conjecture(third_digit, PAIR, 4)
    again = rerun(found.save(tmp_path / "found.json"), {"third_digit": found.claim})
    assert (again.verdict, again.as_recorded) == (Verdict.REFUTED, True)
    assert again.problem == found.counterexample
    other = conjecture(third_digit, PAIR, 4)
    assert other.words == found.words


def test_what_is_found_does_not_depend_on_the_number_of_workers(monkeypatch):
    words = set()
    for workers in ("1", "2"):
        monkeypatch.setenv("UFM_WORKERS", workers)
        words.add(conjecture(third_digit, PAIR, 4).words)
    assert len(words) == 1


def test_a_claim_without_a_value_decides_nothing():
    def silent(problem):
        return math.log(-1.0)

    def infinite(problem):
        return np.inf

    for claim in (silent, infinite, lambda problem: value_of(problem, classes=1)):
        found = conjecture(claim, PAIR, 2)
        assert (found.tried, found.counterexample) == (0, None)
        assert re.search(r"no counterexample in 0 certified problems, 2 more undecided .the claim ", found.words)


@pytest.mark.parametrize(
    ("claim", "family", "given", "words"),
    [
        (3.0, PAIR, {}, "claim = 3.0: must be a Theorem, or a function"),
        (lambda a, b, c: 0.0, PAIR, {}, "claim = "),
        (lambda p: "four", PAIR, {}, "claim = 'four': must be a number"),
        (lambda p, e: [1.0], PAIR, {}, "claim = .*must be quantities"),
        (lambda p: p.clases, PAIR, {}, "claim = .*not end in AttributeError"),
        (low, 3, {}, "family = 3: must be"),
        (low, lambda rng: 3, {}, "family = 3: must be"),
        (low, PAIR, {"hypotheses": with_bias}, "family = .*inside the hypotheses .with bias."),
        (low, PAIR, {"budget": 0}, "budget = 0"),
        (low, PAIR, {"seed": -1}, "seed = -1"),
    ],
)
def test_what_is_no_claim_is_refused(claim, family, given, words):
    with pytest.raises(InputError, match=words) as error:
        conjecture(claim, family, **{"budget": 2, **given})
    assert "\n" not in str(error.value)


def test_small_problems():
    rng = np.random.default_rng(0)
    drawn = [small(CE, losses.Focal(2.0))(rng) for _ in range(200)]
    assert {p.classes for p in drawn} == {2, 3, 4, 5, 6}
    assert {str(p.bias) for p in drawn} == {"none", "unified", "per_class"}
    assert {p.features for p in drawn} == {"per_sample"}  # focal loss is not convex
    assert 0.1 < np.mean([float(p.decay.b) == 0 for p in drawn]) < 0.4


def test_the_function_of_the_package():
    assert ufm.conjecture is conjecture

"""The checker itself: true theorems hold, wrong ones are refuted, and nothing is judged without evidence."""

import dataclasses

import numpy as np
import pytest

import ufm
from ufm.atlas import THEOREMS, Evidence, Theorem, Verdict, check, quantity, standard_suite
from ufm.theory import closed_forms

CE = ufm.Problem(4, 5, 3, ufm.losses.CE(), ufm.Decay(0.02, 0.01, 0.05))
BCE = dataclasses.replace(CE, loss=ufm.losses.BCE())
# decay_b |b| > mu: beyond the published theorem.
SHIFTED = dataclasses.replace(BCE, decay=ufm.Decay(0.005, 0.001, 0.5))
INSTANCES = {
    "zhu2021/3.1": CE,
    "zhu2021/zero": dataclasses.replace(CE, decay=ufm.Decay(0.3, 0.3, 0.05)),
    "zhu2021/3.2": dataclasses.replace(CE),
    "zhou2022/ls": dataclasses.replace(CE, loss=ufm.losses.LabelSmoothing(0.1)),
    "zhou2022/ls-zero": dataclasses.replace(CE, loss=ufm.losses.LabelSmoothing(0.95)),
    "zhou2022/focal": dataclasses.replace(CE, loss=ufm.losses.Focal(2.0)),
    "mse/bias": dataclasses.replace(CE, loss=ufm.losses.MSE(2.0, 3.0), decay=ufm.Decay(0.02, 0.01, 0.0)),
    "mse/no-bias": dataclasses.replace(CE, loss=ufm.losses.MSE(), bias="none"),
    "mse/decayed-bias": dataclasses.replace(CE, loss=ufm.losses.MSE(2.0, 3.0), decay=ufm.Decay(0.02, 0.01, 0.5)),
    "li2025/1": CE,
    "li2025/2": dataclasses.replace(BCE, decay=ufm.Decay(0.02, 0.01, 1e-3)),
    "li2025/2-corrected": SHIFTED,
    "li2025/bce-zero": dataclasses.replace(BCE, decay=ufm.Decay(0.3, 0.3, 0.05)),
    "li2025/ce-bias-law": CE,
    "li2025/bce-forgets": BCE,
    "binary/equivalence": ufm.Problem(2, 3, 2, ufm.losses.CE(), ufm.Decay(0.05, 0.02, 0.1)),
}


def test_every_theorem_has_an_instance_here():
    assert set(INSTANCES) == set(THEOREMS)


@pytest.fixture(scope="module")
def evidence():
    """One solve per problem, shared by the tests of this file."""
    kept = {}

    def of(problem):
        return kept.setdefault(str(problem), Evidence(problem))

    return of


@pytest.mark.parametrize("name", INSTANCES)
def test_holds_inside_and_a_wrong_constant_is_refuted(name, evidence):
    theorem, problem = THEOREMS[name], INSTANCES[name]
    assert check(theorem, problem, evidence(problem)).verdict == Verdict.HOLDS

    def mutated(problem, found):
        """The same claim with its headline off by one part in ten thousand."""
        quantities = list(theorem.claim(problem, found))
        wrong = dataclasses.replace(quantities[0], predicted=quantities[0].predicted * (1 + 1e-4) + 1e-3)
        return [wrong, *quantities[1:]]

    finding = check(dataclasses.replace(theorem, claim=mutated), problem, evidence(problem))
    assert finding.verdict == Verdict.REFUTED
    assert finding.reason


def test_dropped_hypothesis_is_refuted(evidence):
    """The published theorem for BCE is refuted where the mean mode pays; CE's formula below its threshold too."""
    assert check(THEOREMS["li2025/2"], SHIFTED, evidence(SHIFTED)).verdict == Verdict.REFUTED
    everywhere = dataclasses.replace(THEOREMS["zhu2021/zero"], inside=lambda problem: True)
    wrong = dataclasses.replace(
        everywhere, claim=lambda p, e: [quantity("||W||", 0.0, float(np.linalg.norm(e.solution.params.W)))]
    )
    assert check(wrong, CE, evidence(CE)).verdict == Verdict.REFUTED


def test_counterexample_of_theory():
    """K=10, n=5, decays 5e-3, 1e-3, 1/2: f* = 0.671708 while the best centred ETF has 1.766 (theory, section 3)."""
    centred = closed_forms.bce_centred(np.sqrt(5 * 5e-3 * 1e-3), 10, 0.5)
    problem = ufm.Problem(10, 20, 5, ufm.losses.BCE(), ufm.Decay(5e-3, 1e-3, 0.5))
    finding = ufm.verify(problem, theorem="li2025/2").findings[0]
    assert finding.verdict == Verdict.REFUTED
    assert finding.gap < 1e-10
    assert finding.quantities[0].predicted == pytest.approx(1.766, abs=1e-3)
    assert finding.quantities[0].measured == pytest.approx(0.671708, abs=1e-6)
    assert centred.shift == 0.0


def test_outside_and_inconclusive(evidence):
    uneven = dataclasses.replace(CE, per_class=(3, 2, 2, 1))
    assert check(THEOREMS["zhu2021/3.1"], uneven).verdict == Verdict.OUTSIDE

    class Loose(Evidence):
        """The same solution with a certificate that proves little."""

        gap = 1e-3

    finding = check(THEOREMS["zhu2021/3.1"], CE, Loose(CE))
    assert finding.verdict == Verdict.INCONCLUSIVE
    assert "gap" in finding.reason


def test_a_value_below_the_claimed_minimum_refutes_without_certificate():
    class Loose(Evidence):
        """No bound at all."""

        gap = np.inf

    claim = Theorem("x", "x", "x", "x", "x", lambda p: True, lambda p, e: [quantity("minimum", 9.0, e.value)])
    assert check(claim, CE, Loose(CE)).verdict == Verdict.REFUTED


def test_not_finite_is_not_agreement():
    assert quantity("x", 1.0, np.nan).residual == np.inf


def test_record_decides_ok(evidence):
    true = check(THEOREMS["zhu2021/3.1"], CE, evidence(CE), recorded=Verdict.HOLDS)
    false = check(THEOREMS["zhu2021/3.1"], CE, evidence(CE), recorded=Verdict.REFUTED)
    assert true.as_recorded
    assert not false.as_recorded
    assert not ufm.atlas.Report([true, false]).ok


def test_suite_covers_what_it_must():
    cases = standard_suite()
    names = {case.theorem.id for case in cases}
    assert names == set(THEOREMS)
    assert {case.problem.classes for case in cases} >= {10, 100}
    refuted = [case for case in cases if case.recorded == Verdict.REFUTED]
    assert {case.theorem.id for case in refuted} == {"li2025/2"}


def test_unknown_names_are_named():
    with pytest.raises(ufm.InputError, match=r"paper = 'li': must be one of .*li2025"):
        ufm.verify(paper="li")
    with pytest.raises(ufm.InputError, match="theorem = 'li2025/3'"):
        ufm.verify(theorem="li2025/3")

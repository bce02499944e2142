"""The checker itself: hypotheses matter, and nothing is judged without evidence."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from problems import (
    BCE,
    CE,
    DEEP_PAIRS,
    DEEP_RELU,
    DEEP_SQUARES,
    PENTAGON,
    SPHERE_BCE,
    SPHERE_CE,
    TAGS,
    UNEVEN,
    VALUES,
)

import ufm
from ufm.atlas import THEOREMS, Evidence, Theorem, Verdict, check, quantity, standard_suite
from ufm.atlas._draw import draw
from ufm.atlas._trials import try_once
from ufm.atlas.hypotheses import anything
from ufm.theory import closed_forms, minimizer


@pytest.fixture(scope="module")
def evidence():
    """One solve per problem, shared by the tests of this file."""
    kept = {}

    def of(problem):
        return kept.setdefault(str(problem), Evidence(problem))

    return of


@pytest.mark.parametrize(("K_mu", "centered"), [(0.6, True), (0.45, True), (0.43, False)])
def test_three_classes_without_bias(K_mu, centered, evidence):
    """The centered ETF from K mu = 3 (8 - sqrt 32)/16 = 0.4393 on; at 0.6 the minimum is 1.857916452085."""
    decay = K_mu / 6  # n = 4
    problem = ufm.Problem(3, 4, 4, ufm.losses.BCE(), ufm.Decay(decay, decay, 0.1), "none")
    assert check(THEOREMS["li2025/2-corrected"], problem, evidence(problem)).verdict == Verdict.HOLDS
    assert (np.linalg.norm(np.sum(evidence(problem).solution.params.W, axis=0)) < 1e-4) == centered
    if K_mu == 0.6:
        assert evidence(problem).value == pytest.approx(1.857916452085, abs=1e-11)


def test_three_classes_may_have_no_boundary():
    """Where the boundary lies at infinity `li2025/boundary` applies, and is near to nothing."""
    problem = ufm.Problem(3, 4, 4, ufm.losses.BCE(), ufm.Decay(0.1, 0.1, 50.0))
    assert THEOREMS["li2025/boundary"].applies(problem)


# Hypotheses with a boundary in the decays: the claim is false 2 % beyond it.
BOUNDED = [
    *("zhu2021/3.1", "zhu2021/zero", "zhu2021/strict-saddle", "zhou2022/ls", "zhou2022/ls-zero"),
    *("zhou2022/ls-strict-saddle", "zhou2022/focal-strict-saddle", "mse/bias", "mse/no-bias", "li2025/2"),
    *("li2025/2-corrected", "li2025/bce-zero", "li2025/merged", "binary/outputs"),
]
SMOOTH_UNEVEN = dataclasses.replace(
    UNEVEN, loss=ufm.losses.LabelSmoothing(0.5), decay=ufm.Decay(0.07, 0.07, 0.05), bias="none"
)
# Hypotheses of kind: the claim is false on a problem of another kind, or where a decay must vanish and does not.
OUTSIDE = {
    "li2025/1": UNEVEN,
    "li2025/ce-bias-law": BCE,
    "li2025/eq20": BCE,
    "li2025/eq21": dataclasses.replace(UNEVEN, loss=ufm.losses.BCE()),
    "zhou2022/contrastive": ufm.Problem(40, 40, 1, ufm.losses.Focal(2.0)),
    "rediscovering/1": dataclasses.replace(BCE, decay=ufm.Decay(0.02, 0.01, 0.5), bias="unified"),
    "rediscovering/normalised": SPHERE_CE,
    "rediscovering/normalised-corrected": SPHERE_CE,
    "rediscovering/normalised-1": SPHERE_BCE,
    "yaras2022/ce": SPHERE_BCE,
    # Label smoothing scales the gradient at the merged point by 1 - alpha: classes merge sooner.
    "hong2024/merging": SMOOTH_UNEVEN,
    "hong2024/zero": dataclasses.replace(SMOOTH_UNEVEN, decay=ufm.Decay(0.12, 0.12, 0.05)),
    # One smallest class has nobody to merge with.
    "fang2021/minority": dataclasses.replace(UNEVEN, per_class=(4, 3, 2, 1), decay=ufm.Decay(0.02, 0.02, 0.05)),
    # Free features: no orthogonality.
    "dang2024/ce": dataclasses.replace(UNEVEN, bias="none"),
    "nonnegative/bce": dataclasses.replace(BCE, decay=ufm.Decay(0.02, 0.01, 1e-3)),
    # A target of 2 doubles the frame.
    "dang2023/mse": dataclasses.replace(DEEP_SQUARES, loss=ufm.losses.MSE(1.0, 2.0)),
    "dang2023/mse-bias": dataclasses.replace(DEEP_SQUARES, loss=ufm.losses.MSE(1.0, 2.0), bias="per_class"),
    "tirer2022/extended": dataclasses.replace(DEEP_SQUARES, bias="per_class"),
    "sukenik2023/binary": dataclasses.replace(
        DEEP_SQUARES, classes=2, dim=3, loss=ufm.losses.MSE(1.0, 2.0), decay=ufm.Decay(0.1, 0.1, 0.0)
    ),
    # Two layers are too few.
    "sukenik2024/low-rank": dataclasses.replace(DEEP_RELU, model=ufm.models.Deep(2, "relu")),
    # Three classes collapse.
    "garrod2025/low-rank": dataclasses.replace(DEEP_PAIRS, classes=3, dim=3, decay=ufm.Decay(0.02, 0.01, 0.0)),
    "garrod2025/codes": dataclasses.replace(DEEP_PAIRS, loss=ufm.losses.MSE()),
    "li2024/pick-all-label": dataclasses.replace(TAGS, loss=ufm.losses.MSE()),
    "andriopoulos2024/collapse": dataclasses.replace(VALUES, decay=ufm.Decay(0.1, 0.05, 0.5)),
    # A pentagon: neighbors stay neighbors.
    "schur/pairs": ufm.Problem(5, 5, targets=PENTAGON, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.1)),
    "dynamics/flow": BCE,
    "dynamics/descent": BCE,
}
NONE_TO_DROP = {
    "zhu2021/3.2": "about the point, not the problem: see the test of points that are no minimum",
    "dynamics/critical": "the same",
    "zhu2021/lemma": "a statement about CE alone",
    "rediscovering/naive": "a statement about CE alone",
    "zhou2022/contrastive-focal": "refuted as it stands",
    "zhou2022/contrastive-focal-corrected": "says for every K and gamma what holds",
    "zhou2022/focal": "says for every decay what holds",
    "zhou2022/focal-landscape": "dropping the convex region is zhou2022/focal-landscape-global, refuted",
    "zhou2022/focal-landscape-global": "refuted as it stands",
    "mse/decayed-bias": "says for every decay what holds",
    "li2025/bce-forgets": "holds beyond its hypotheses, too",
    "li2025/eq3": "holds beyond its hypotheses, too",
    "li2025/boundary": "true beyond K mu = 1, too, where everything is zero",
    "hong2024/convex": "holds for every convex loss",
    "thrampoulidis2022/svm": "a statement about the counts alone",
    "thrampoulidis2022/limit": "an asymptotic statement",
    "dang2024/ce-bias": "refuted as it stands",
    "dang2023/ce": "refuted as it stands",
    "nonnegative/merging": "free features merge at the same threshold",
    "nonnegative/unused-axis": "about a point, not the problem",
    "nonnegative/blocked": "the same",
    "binary/equivalence": "its two problems exist for CE and K = 2 only",
}


def test_every_hypothesis_is_dropped_somewhere():
    assert {*BOUNDED, *OUTSIDE, *NONE_TO_DROP} == set(THEOREMS)


@pytest.mark.parametrize("name", BOUNDED)
def test_just_outside_the_hypotheses_the_claim_is_false(name):
    theorem = THEOREMS[name]
    found = draw(theorem.draw.quick(), theorem.applies, 30, np.random.default_rng(0))
    assert found.boundary
    assert try_once(theorem, found.outside[0], outside=True).verdict == Verdict.REFUTED


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_problem_of_another_kind_is_outside_and_the_claim_false(name):
    theorem, problem = THEOREMS[name], OUTSIDE[name]
    assert check(theorem, problem).verdict == Verdict.OUTSIDE
    assert try_once(theorem, problem, outside=True).verdict == Verdict.REFUTED


@pytest.mark.parametrize("name", ["zhu2021/3.2", "dynamics/critical"])
def test_points_that_are_no_minimum_break_claims_about_minima(name):
    evidence = Evidence(CE)
    start = CE.init(jax.random.key(1))
    evidence.solution = dataclasses.replace(Evidence(CE).solution, params=start)
    quantities = THEOREMS[name].claim(CE, evidence)
    assert max(q.residual for q in quantities) > 1
    assert check(THEOREMS[name], CE, evidence).verdict != Verdict.HOLDS


def test_normalized_counterexample(evidence):
    """K=4, d=6, n=3, gamma=4, decay_b=1/2: the ETF's .645876 at 50 digits, and a certified point far below it."""
    finding = check(THEOREMS["rediscovering/normalised"], SPHERE_BCE, evidence(SPHERE_BCE))
    assert finding.verdict == Verdict.REFUTED
    assert finding.gap < 1e-12

    def etf(b):
        return mp.log1p(mp.exp(-4 - b)) + 3 * mp.log1p(mp.exp(b - mp.mpf(4) / 3)) + b * b

    best = mp.findroot(lambda b: 3 / (1 + mp.exp(mp.mpf(4) / 3 - b)) - 1 / (1 + mp.exp(4 + b)) + 2 * b, -0.3)
    assert finding.quantities[0].predicted == pytest.approx(float(etf(best)), rel=1e-13)
    assert finding.quantities[0].predicted == pytest.approx(0.645876, abs=1e-6)
    assert finding.quantities[0].measured == pytest.approx(0.494202, abs=1e-6)


def test_focal_origin_is_a_trap_for_many_classes():
    """K = 40, gamma = 3: the origin is no strict saddle and lies above the best ETF, so it is not global either."""
    mu = 1.2 / 40
    problem = ufm.Problem(40, 41, 1, ufm.losses.Focal(3.0), ufm.Decay(mu, mu, 0.1))
    assert check(THEOREMS["zhou2022/focal-landscape-global"], problem).verdict == Verdict.REFUTED
    escaping = dataclasses.replace(problem, decay=ufm.Decay(0.9 * mu, 0.9 * mu, 0.1))
    assert check(THEOREMS["zhou2022/focal-landscape-global"], escaping).verdict == Verdict.HOLDS


def test_normalized_and_plain_problems_are_not_confused():
    assert check(THEOREMS["zhu2021/3.1"], SPHERE_CE).verdict == Verdict.OUTSIDE
    assert check(THEOREMS["yaras2022/ce"], CE).verdict == Verdict.OUTSIDE


def test_counterexample_of_theory():
    """K=10, n=5, decays 5e-3, 1e-3, 1/2: f* = 0.671708 while the best centered ETF has 1.766 (theory, section 3)."""
    centered = closed_forms.bce_centered(np.sqrt(5 * 5e-3 * 1e-3), 10, 0.5)
    problem = ufm.Problem(10, 20, 5, ufm.losses.BCE(), ufm.Decay(5e-3, 1e-3, 0.5))
    # Any point may be the witness: here the corrected closed form, certified; `ufm verify` solves for it.
    witness = Evidence(problem)
    witness.solution = types.SimpleNamespace(params=jax.tree.map(jnp.asarray, minimizer(problem).params))
    finding = check(THEOREMS["li2025/2"], problem, witness)
    assert finding.verdict == Verdict.REFUTED
    assert finding.gap < 1e-10
    assert finding.quantities[0].predicted == pytest.approx(1.766, abs=1e-3)
    assert finding.quantities[0].measured == pytest.approx(0.671708, abs=1e-6)
    assert centered.shift == 0.0


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

    claim = Theorem("x", "x", "x", "x", anything, lambda p, e: [quantity("minimum", 9.0, e.value)])
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
    # The papers' settings for every minimizer; the rest is tried on random problems.
    assert names <= set(THEOREMS)
    assert {"zhu2021/3.1", "zhou2022/focal", "mse/no-bias", "li2025/2", "binary/equivalence"} <= names
    assert {case.problem.classes for case in cases} >= {10, 100}
    refuted = [case for case in cases if case.recorded == Verdict.REFUTED]
    assert {case.theorem.id for case in refuted} == {"li2025/2", "rediscovering/normalised"}


def test_unknown_names_are_named():
    with pytest.raises(ufm.InputError, match=r"paper = 'li': must be one of .*li2025"):
        ufm.verify(paper="li")
    with pytest.raises(ufm.InputError, match="theorem = 'li2025/3'"):
        ufm.verify(theorem="li2025/3")

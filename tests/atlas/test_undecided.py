"""What cannot be decided is inconclusive and says why: thresholds, solves that stall, gaps that prove nothing, size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm.atlas import THEOREMS, Evidence, Quantity, Theorem, Verdict, check, quantity
from ufm.atlas.hypotheses import anything
from ufm.atlas.papers import li2025, zhu2021
from ufm.landscape import examine, find_critical_points
from ufm.solvers import Status

CE = ufm.Problem(3, 4, 2, ufm.losses.CE(), ufm.Decay(0.02, 0.02, 0.05))
BCE = dataclasses.replace(CE, loss=ufm.losses.BCE())
UNEVEN = dataclasses.replace(CE, per_class=(3, 1, 1), bias="none")
FIXED = np.eye(3, 4)


def at(distance, problem=CE):
    """The problem with K mu = 1 + ``distance``."""
    decay = (1.0 + distance) / problem.classes / np.sqrt(problem.per_class)
    return dataclasses.replace(problem, decay=ufm.Decay(decay, decay, 0.05))


def claiming(quantities, **fields):
    """A theorem whose claim is a function of the evidence alone."""
    return Theorem("x", "x", "x", "x", anything, lambda p, e: quantities(e), **fields)


@pytest.mark.parametrize("name", ["zhu2021/3.1", "zhu2021/zero", "zhu2021/strict-saddle", "binary/outputs"])
@pytest.mark.parametrize("distance", [3e-5, -3e-5, 1e-9, -1e-9])
def test_a_threshold_nearer_than_one_in_ten_thousand_is_not_called(name, distance):
    finding = check(THEOREMS[name], at(distance))
    below = name != "zhu2021/zero"
    assert finding.verdict == (Verdict.INCONCLUSIVE if (distance < 0) == below else Verdict.OUTSIDE)
    if finding.verdict == Verdict.INCONCLUSIVE:
        # K mu goes with the square root of either decay: twice the distance, to the bisection's one percent.
        said = float(finding.reason.split(" of itself")[0].split()[-1])
        assert said == pytest.approx(-2 * distance, rel=0.06)


def test_thresholds_inside_the_hypotheses_are_not_called_either():
    """The corrected theorem changes its case at `boundary_decay_b`; equal decays are no threshold."""
    from ufm.atlas.papers.li2025_bias import boundary_decay_b

    edge = boundary_decay_b(0.02 * np.sqrt(2), 3)
    for factor, near in ((1 + 1e-6, True), (1 - 1e-6, True), (1.001, False)):
        problem = dataclasses.replace(BCE, decay=ufm.Decay(0.02, 0.02, edge * factor))
        assert bool(THEOREMS["li2025/2-corrected"].too_near(problem)) == near
    assert not THEOREMS["dynamics/flow"].too_near(CE)


@pytest.mark.parametrize("name", [n for n in THEOREMS if n.startswith(("hong2024", "fang2021", "thrampoulidis"))])
def test_a_fixed_classifier_is_outside_and_named(name):
    finding = check(THEOREMS[name], dataclasses.replace(UNEVEN, classifier=FIXED))
    assert finding.verdict == Verdict.OUTSIDE
    assert finding.reason.startswith("needs a free classifier")


def test_a_solve_that_did_not_converge_decides_nothing():
    evidence = Evidence(BCE)
    evidence.solution = dataclasses.replace(evidence.solution, status=jnp.asarray(Status.MAX_STEPS))
    finding = check(THEOREMS["dynamics/critical"], BCE, evidence)
    assert finding.verdict == Verdict.INCONCLUSIVE
    assert "did not converge: max steps" in finding.reason


def test_starts_that_did_not_converge_do_not_forget_their_bias(monkeypatch):
    stopped = ufm.solve(BCE, solver=ufm.solvers.Newton(max_steps=1))
    monkeypatch.setattr(li2025, "free_solve", lambda *a, **k: stopped)
    finding = check(THEOREMS["li2025/bce-forgets"], BCE)
    assert finding.verdict == Verdict.INCONCLUSIVE
    assert "from a bias of mean 0 did not converge" in finding.reason


@pytest.mark.parametrize("decay", [ufm.Decay(100.0, 100.0, 100.0), ufm.Decay(1e-8, 1e-8, 1e-8)])
def test_the_law_of_the_bias_holds_at_every_decay(decay):
    problem = dataclasses.replace(CE, decay=decay)
    assert check(THEOREMS["li2025/ce-bias-law"], problem).verdict == Verdict.HOLDS
    _, step = li2025.stable_descent(problem, problem.init(jax.random.key(0)))
    assert 0 < step * max(vars(decay).values()) < 2


def test_equal_decays_are_equal_at_every_size():
    small = ufm.Decay(1e-8, 2e-8, 0.0)
    assert check(THEOREMS["dynamics/flow"], dataclasses.replace(CE, decay=small)).verdict == Verdict.OUTSIDE
    # A feature that stands for two samples has twice the decay.
    shared = dataclasses.replace(CE, features="per_class", decay=ufm.Decay(0.04, 0.02, 0.05))
    for name in ("dynamics/flow", "dynamics/descent", "dynamics/critical"):
        assert check(THEOREMS[name], shared).verdict == Verdict.HOLDS
    equal = dataclasses.replace(shared, decay=CE.decay)
    assert check(THEOREMS["dynamics/flow"], equal).verdict == Verdict.OUTSIDE


def test_the_limit_of_imbalance_with_features_shared_or_not():
    decay = ufm.Decay(2e-5, 1e-5, 0.0)
    for features in ("per_sample", "per_class"):
        problem = dataclasses.replace(UNEVEN, decay=decay, features=features)
        assert check(THEOREMS["thrampoulidis2022/limit"], problem).verdict == Verdict.HOLDS


def test_a_gap_is_held_against_the_value_and_not_against_one():
    evidence = Evidence(CE)
    for value, gap, rounding, doubt in (
        (1e-6, 1e-11, 1e-22, "certified gap"),
        (1e-6, 1e-17, 1e-22, ""),
        (1e-12, 1e-17, 1e-15, "hides"),
        (5.0, 4e-10, 1e-15, ""),
    ):
        evidence.certificate = ufm.theory.Certificate(value - gap, gap, value, 1.0, rounding)
        assert bool(evidence.doubt) == bool(doubt)
        assert doubt in evidence.doubt


def test_a_disagreement_counts_if_another_solve_repeats_it():
    noise = claiming(lambda e: [quantity("noise", 0.0, 1.0 + e.seed)])
    finding = check(noise, CE, Evidence(CE, seed=0))
    assert finding.verdict == Verdict.INCONCLUSIVE
    assert "does not repeat noise 1 instead of 0" in finding.reason
    assert check(claiming(lambda e: [quantity("size", 0.0, 1.0)]), CE).verdict == Verdict.REFUTED
    assert check(claiming(lambda e: [quantity("first", 0.0, 1.0 - e.seed)]), CE).verdict == Verdict.HOLDS
    # The value is certified: that it differs needs no second look.
    value = claiming(lambda e: [Quantity("minimum", e.value * 0.9, e.value, 1e-9)])
    assert check(value, CE).verdict == Verdict.REFUTED


def test_a_search_that_is_too_large_is_not_made():
    focal = ufm.Problem(loss=ufm.losses.Focal(2.0))
    finding = check(THEOREMS["zhou2022/focal-landscape"], focal)
    assert finding.verdict == Verdict.INCONCLUSIVE
    assert "64650 variables" in finding.reason


def test_many_samples_need_no_matrix_of_their_number():
    """40,000 samples: a basis of all right singular vectors would take 13 GB."""
    problem = ufm.Problem(2, 3, 20000, ufm.losses.CE(), ufm.Decay(1e-3, 1e-4, 0.1))
    quantities = zhu2021.saddles(problem)
    assert all(q.residual <= 1 for q in quantities)


@pytest.mark.parametrize("field", ["W", "H", "b"])
def test_a_batch_of_problems_is_refused_by_name(field):
    batch = dataclasses.replace(CE, decay=dataclasses.replace(CE.decay, **{field: jnp.array([0.1, 0.2])}))
    with pytest.raises(ufm.InputError, match=rf"decay.{field}.shape = \(2,\)"):
        check(THEOREMS["dynamics/critical"], batch)
    with pytest.raises(ufm.InputError, match="problem = 'str'"):
        ufm.verify("ce")


def test_without_float64_the_verdicts_are_those_of_float64():
    with jax.enable_x64(False):
        narrow = dataclasses.replace(BCE, decay=ufm.Decay(*(jnp.float32(x) for x in (0.02, 0.02, 0.05))))
        (finding,) = ufm.verify(narrow, theorem="li2025/2-corrected").findings
        assert finding.verdict == Verdict.HOLDS
        points = find_critical_points(dataclasses.replace(BCE, per_class=1, dim=2), 6)
        assert points[0].kind != "not critical"
        assert len(points) > 1
        assert points[0].params.H.dtype == np.float64
        exact = ufm.theory.minimizer(narrow).params
        assert examine(narrow, exact).kind == "global minimum"
        single = jax.tree.map(jnp.asarray, exact)
        assert single.H.dtype == jnp.float32
        with pytest.raises(ufm.InputError, match=r"tol = 1e-08: must be at least 4.8e-06 .*jax_enable_x64"):
            examine(narrow, single)
        assert examine(narrow, single, tol=1e-5).critical


def test_a_solution_that_underflows_is_zero():
    """The naive loss under strong decays: W and H shrink to 1e-155, whose squares have no digits."""
    naive = ufm.Problem(3, 4, 2, ufm.losses.Naive(), ufm.Decay(44.0, 0.96, 0.03), "none", "per_class")
    evidence = Evidence(naive)
    tiny = jax.tree.map(lambda x: 1e-155 * x, naive.init(jax.random.key(0)))
    evidence.solution = dataclasses.replace(evidence.solution, params=tiny, value=jnp.zeros(()), status=jnp.asarray(1))
    assert check(THEOREMS["dynamics/critical"], naive, evidence).verdict == Verdict.HOLDS


@pytest.mark.parametrize("decays", [(1e-300, 1e-300, 0.0), (1e100, 1e100, 1e100), (1e-12, 1e-12, 1e-12)])
def test_laws_hold_at_decays_that_nobody_would_set(decays):
    problem = dataclasses.replace(CE, decay=ufm.Decay(*decays))
    for name in ("dynamics/descent", "dynamics/flow", "li2025/ce-bias-law", "zhu2021/strict-saddle"):
        assert check(THEOREMS[name], problem).verdict in (Verdict.HOLDS, Verdict.OUTSIDE)


def test_the_gap_of_focal_loss_has_no_limit():
    """K = 3, gamma = 0, mu = 1e-40: 1 - pi = 2 e^-a to rounding, and the equation is 1 - pi = 2 mu."""
    from ufm.atlas.papers.zhou2022 import focal_gaps

    assert max(focal_gaps(1e-40, 3, 0.0)) == pytest.approx(np.log(1e40), rel=1e-12)

"""Random instances: how they are drawn, judged, saved and run again; wrong theorems come out refuted."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import ufm
from ufm.atlas import THEOREMS, Verdict, check, quantity, rerun, save_counterexample
from ufm.atlas._draw import BOUNDARY, Family, draw
from ufm.atlas._trials import Trial, Trials, run_trials, try_once
from ufm.atlas.hypotheses import anything, strength
from ufm.statement import from_data, to_data

SHIFTED = ufm.Problem(4, 5, 3, ufm.losses.BCE(), ufm.Decay(0.005, 0.001, 0.5))


@pytest.mark.parametrize("name", THEOREMS)
def test_every_theorem_draws_problems_inside_its_hypotheses(name):
    theorem = THEOREMS[name]
    found = draw(theorem.draw, theorem.hypotheses, 6, np.random.default_rng(0))
    assert len(found.inside) + len(found.boundary) == 6
    assert all(theorem.applies(p) for p in found.inside + found.boundary)
    assert not any(theorem.applies(p) for p in found.outside)
    kept = [from_data(json.loads(json.dumps(to_data(p)))) for p in found.inside]
    assert [to_data(p) for p in kept] == [to_data(p) for p in found.inside]


def test_boundary_is_where_the_hypotheses_end():
    theorem = THEOREMS["zhu2021/3.1"]
    found = draw(theorem.draw, theorem.hypotheses, 30, np.random.default_rng(1))
    across = found.outside[: len(found.boundary)]
    assert found.boundary
    for below, above in zip(found.boundary, across, strict=True):
        assert (
            1 - 3 * BOUNDARY < below.classes * strength(below) < 1 < above.classes * strength(above) < 1 + 3 * BOUNDARY
        )


def test_a_boundary_that_is_three_percent_off_is_seen(monkeypatch):
    """Half of the draws lie so near the boundary that random ones see it."""
    from ufm.atlas.papers import li2025_bias

    right = li2025_bias.boundary_decay_b
    monkeypatch.setattr(li2025_bias, "boundary_decay_b", lambda mu, classes: 1.03 * right(mu, classes))
    (trial,) = run_trials([THEOREMS["li2025/boundary"]], 24, quick=True)
    assert trial.verdict == Verdict.REFUTED


def test_quick_family_has_one_shape():
    quick = THEOREMS["li2025/2-corrected"].draw.quick()
    rng = np.random.default_rng(0)
    assert len({jax.tree.structure(quick(rng)) for _ in range(20)}) == 1


def test_trials_count_what_they_tried():
    theorem = THEOREMS["rediscovering/naive"]
    (trial,) = run_trials([theorem], 8, quick=True)
    assert (len(trial.findings), trial.undecided, trial.verdict) == (8, 0, Verdict.HOLDS)
    assert trial.gap is None
    assert 0 <= trial.residual <= 1
    assert Trials([trial]).ok
    assert "1 theorem on 8 instances: 1 holds; all as recorded" in Trials([trial]).summary


def test_a_wrong_constant_is_refuted_saved_and_run_again(tmp_path, monkeypatch):
    """K/(K-1) replaced by one: the naive bound fails on every instance, the smallest is kept."""
    from ufm.atlas.papers import rediscovering

    monkeypatch.setattr(rediscovering, "bound_factor", lambda classes: 1.1 * classes / (classes - 1.0))
    (trial,) = run_trials([THEOREMS["rediscovering/naive"]], 6)
    assert trial.verdict == Verdict.REFUTED
    assert not Trials([trial]).ok
    assert trial.counterexample.problem.classes == min(f.problem.classes for f in trial.findings)
    path = save_counterexample(trial.counterexample, tmp_path, 0)
    again = rerun(path, THEOREMS)
    assert (again.verdict, again.as_recorded) == (Verdict.REFUTED, True)
    assert [q.measured for q in again.quantities] == [q.measured for q in trial.counterexample.quantities]
    monkeypatch.undo()
    assert not rerun(path, THEOREMS).as_recorded


def test_a_dropped_hypothesis_is_found_at_the_boundary():
    """CE's gap formula claimed for all decays: the zero regime refutes it."""
    theorem = dataclasses.replace(THEOREMS["zhu2021/3.1"], hypotheses=anything)
    (trial,) = run_trials([theorem], 20, quick=True)
    assert trial.verdict == Verdict.REFUTED
    assert trial.counterexample.problem.classes * strength(trial.counterexample.problem) >= 1


def test_outside_a_formula_without_value_counts_as_false():
    def undefined(problem, evidence):
        raise ValueError("log of a negative number")

    theorem = dataclasses.replace(THEOREMS["li2025/eq20"], claim=undefined)
    assert try_once(theorem, SHIFTED, outside=True).verdict == Verdict.REFUTED
    with pytest.raises(ValueError, match="negative number"):
        try_once(dataclasses.replace(theorem, hypotheses=anything), SHIFTED)


def test_one_undecided_instance_is_not_a_theorem():
    holds = check(THEOREMS["li2025/eq21"], SHIFTED)
    open_ = dataclasses.replace(holds, verdict=Verdict.INCONCLUSIVE)
    assert Trial(holds.theorem, [holds], 0, 0, 0).verdict == Verdict.HOLDS
    assert Trial(holds.theorem, [holds, open_], 0, 0, 0).verdict == Verdict.INCONCLUSIVE
    assert Trial(holds.theorem, [holds, open_], 0, 0, 0).undecided == 1


@pytest.mark.parametrize("content", ["", "{}", '{"theorem": "no/such"}', "[1]"])
def test_a_file_that_is_no_counterexample_is_named(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ufm.InputError, match="must be a counterexample"):
        rerun(path, THEOREMS)


def test_same_seed_same_problems():
    family = Family(lambda rng: ufm.losses.CE(), ((4, 5, 3),))
    a, b = (family(np.random.default_rng(5)) for _ in range(2))
    assert to_data(a) == to_data(b)


def test_unequal_decays_break_the_law_of_imbalance():
    theorem = dataclasses.replace(THEOREMS["dynamics/flow"], hypotheses=anything)
    unequal = dataclasses.replace(SHIFTED, decay=ufm.Decay(0.02, 0.3, 0.1))
    assert check(THEOREMS["dynamics/flow"], unequal).verdict == Verdict.OUTSIDE
    assert check(theorem, unequal).verdict == Verdict.REFUTED


def test_quantity_scales_with_what_is_predicted():
    assert quantity("x", 1e6, 1e6 + 0.05).residual == pytest.approx(0.5)

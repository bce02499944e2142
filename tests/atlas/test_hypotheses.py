"""Hypotheses: they test what their words say, name the first that fails, and what a problem has instead."""

import dataclasses
import re

import numpy as np
import pytest
from problems import BCE, CE, SPHERE_CE, UNEVEN, decays

import ufm
from ufm.atlas import THEOREMS, Verdict, check
from ufm.atlas import hypotheses as h
from ufm.atlas._draw import draw
from ufm.losses import MSE, Focal, LabelSmoothing

FIXED = dataclasses.replace(CE, classifier=np.eye(4, 5))
UNBIASED = dataclasses.replace(CE, bias="none")
WEIGHTED = ufm.losses.custom(
    lambda z, k, weights: weights[k % 2] * z[k], {"weights": np.array([3.0, 0.1])}, name="weighted"
)
STRONG = decays(CE, 0.2, 0.2, 0.0)  # K mu = 4 sqrt(3) 0.2

# A condition, a problem that satisfies it, one that does not, and what is said of that.
CONDITIONS = [
    (h.loss(MSE, LabelSmoothing), dataclasses.replace(CE, loss=MSE()), CE, "needs MSE or label smoothing, got ce"),
    (h.loss(ufm.losses.CE), CE, dataclasses.replace(CE, loss=Focal(2.0)), "needs CE, got focal:gamma=2"),
    (h.loss(ufm.losses.CE), CE, dataclasses.replace(CE, loss=WEIGHTED), "needs CE, got weighted:weights=[3 0.1]"),
    (h.free_classifier, CE, FIXED, "needs a free classifier, got fixed classifier"),
    (h.any_classifier, FIXED, SPHERE_CE, "needs a free classifier or a given classifier, got on spheres, gamma=4"),
    (h.on_spheres, SPHERE_CE, FIXED, "needs unit features and classifier rows, got fixed classifier"),
    (
        h.nonnegative,
        dataclasses.replace(CE, model=ufm.models.Nonnegative()),
        CE,
        "needs non-negative features, got linear",
    ),
    (h.balanced, CE, UNEVEN, "needs balanced, got n = (4, 4, 1, 1)"),
    (h.imbalanced, UNEVEN, CE, "needs imbalanced, got n = 3"),
    (
        h.dim_at_least(-1),
        dataclasses.replace(CE, dim=3),
        dataclasses.replace(CE, dim=2),
        "needs d >= K-1, got d = 2, K = 4",
    ),
    (
        h.dim_at_least(0),
        dataclasses.replace(CE, dim=4),
        dataclasses.replace(CE, dim=3),
        "needs d >= K, got d = 3, K = 4",
    ),
    (h.dim_at_least(1), CE, dataclasses.replace(CE, dim=4), "needs d >= K+1, got d = 4, K = 4"),
    (h.classes_above(3), CE, ufm.Problem(3, 5, 3), "needs K > 3, got K = 3"),
    (h.bias_per_class, CE, UNBIASED, "needs bias per class, got no bias"),
    (
        h.unified_bias,
        dataclasses.replace(CE, bias="unified"),
        CE,
        "needs unified bias, got bias per class, decay_b = 0.05",
    ),
    (h.with_bias, CE, UNBIASED, "needs with bias, got no bias"),
    (h.no_bias, UNBIASED, CE, "needs no bias, got bias per class, decay_b = 0.05"),
    (h.decayed_bias, CE, STRONG, "needs decayed bias, got bias per class, decay_b = 0"),
    (h.free_bias, STRONG, CE, "needs bias without decay, got bias per class, decay_b = 0.05"),
    (h.separating, CE, STRONG, "needs K mu < 1, got K mu = 1.386"),
    (h.not_separating, STRONG, CE, "needs K mu >= 1, got K mu = 0.09798"),
    (h.no_bias | h.decayed_bias, CE, STRONG, "needs no bias or decayed bias, got bias per class, decay_b = 0"),
    (
        h.loss(ufm.losses.CE) | h.loss(ufm.losses.BCE) & h.free_bias,
        decays(BCE, 0.1, 0.1, 0.0),
        BCE,
        "needs CE or (BCE, bias without decay), got bce, bias per class, decay_b = 0.05",
    ),
]


@pytest.mark.parametrize(("condition", "inside", "outside", "said"), CONDITIONS, ids=lambda x: str(x)[:30])
def test_a_condition_says_what_it_tests(condition, inside, outside, said):
    assert (condition(inside), condition.fails(inside)) == (True, "")
    assert (condition(outside), condition.fails(outside)) == (False, said)
    assert said.startswith(f"needs {condition}")


def test_every_condition_of_the_room_is_tried():
    tried = {id(condition) for condition, *_ in CONDITIONS}
    named = {name: v for name, v in vars(h).items() if isinstance(v, h.Hypothesis)}
    assert [name for name, v in named.items() if id(v) not in tried] == ["anything"]
    assert h.anything(SPHERE_CE)


@pytest.mark.parametrize("name", THEOREMS)
def test_every_theorem_names_the_condition_that_fails(name):
    """On problems of all sorts: nothing fails where it applies, and elsewhere a condition that it lists."""
    theorem = THEOREMS[name]
    found = draw(theorem.draw, theorem.applies, 5, np.random.default_rng(0))
    problems = [*found.inside, *found.outside, CE, BCE, FIXED, UNBIASED, STRONG, SPHERE_CE, UNEVEN]
    listed = [part.words for part in theorem.hypotheses.parts or (theorem.hypotheses,)]
    assert str(theorem.hypotheses) == ", ".join(listed)
    for problem in problems:
        said = theorem.hypotheses.fails(problem)
        assert bool(said) != theorem.applies(problem)
        assert not said or any(said.startswith(f"needs {words}") for words in listed)


@pytest.mark.parametrize("name", THEOREMS)
def test_every_theorem_says_its_model(name):
    """Where a theorem speaks of no other model, a problem of that model is outside by its name."""
    words = str(THEOREMS[name].hypotheses)
    models = ufm.models
    models = models.Linear, models.FixedClassifier, models.Nonnegative, models.Spheres, models.Deep
    kinds = [m.kind for m in models if m.kind in words]
    assert kinds
    draw_one = THEOREMS[name].draw(np.random.default_rng(0))
    assert type(draw_one.model).kind in kinds


def test_a_part_is_asked_only_where_those_before_it_hold():
    asked = []
    late = h.Hypothesis("late", lambda p: asked.append(p) or True)
    assert not (h.imbalanced & late)(CE)
    assert not asked
    assert (h.balanced & late)(CE)
    assert asked == [CE]


def test_numbers_near_a_threshold():
    far = h.away_from("equality", lambda p: float(p.dim))
    for ratio, decided in (
        (1.0, False),
        (1.0099, False),
        (0.9901, False),
        (1.0102, True),
        (0.99, True),
        (np.inf, True),
    ):
        condition = h.away_from("equality", lambda p, ratio=ratio: [5.0, ratio])
        assert condition(CE) == decided
    assert str(far) == "not within 1 % of equality"


def test_a_hypothesis_that_is_dropped_or_added_changes_verdict_and_words():
    theorem = THEOREMS["li2025/1"]
    wide = dataclasses.replace(theorem, hypotheses=theorem.hypotheses & h.dim_at_least(10))
    finding = check(wide, CE)
    assert (finding.verdict, finding.reason) == (Verdict.OUTSIDE, "needs d >= K+10, got d = 5, K = 4")
    assert check(dataclasses.replace(theorem, hypotheses=h.anything), UNEVEN).verdict == Verdict.REFUTED
    assert re.fullmatch(r"needs balanced, got n = \(4, 4, 1, 1\)", check(theorem, UNEVEN).reason)


@pytest.mark.parametrize("given", ["CE, balanced", lambda p: True])
def test_words_and_bare_functions_are_no_hypotheses(given):
    with pytest.raises(ufm.InputError, match=r"hypotheses = '(str|function)': must be a Hypothesis of ufm.atlas.hyp"):
        ufm.atlas.Theorem("x", "x", "x", "x", given, lambda p, e: [])

"""Uniform classification against brute force from the definitions, hand-made cases and invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufm import InputError
from ufm.geometry import simplex_etf
from ufm.networks import uniform


def brute_threshold(positive: np.ndarray, negative: np.ndarray) -> float:
    """A_uni from the definition: try a point between every two neighboring scores."""
    points = np.unique(np.concatenate([positive, negative]))
    middles = (points[1:] + points[:-1]) / 2
    return max([np.mean([p > t > n for p, n in zip(positive, negative, strict=True)]) for t in middles], default=0.0)


def brute_extremes(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own, other = [], []
    for i, k in enumerate(labels):
        own.append(scores[k, i])
        other.append(max(scores[j, i] for j in range(len(scores)) if j != k))
    return np.array(own), np.array(other)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Integer scores, so that ties abound."""
    classes, samples = draw(st.integers(2, 4)), draw(st.integers(1, 12))
    flat = draw(st.lists(st.integers(-4, 4), min_size=classes * samples, max_size=classes * samples))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples))
    return np.array(flat, float).reshape(classes, samples), np.array(labels)


@settings(max_examples=150, deadline=None)
@given(scored())
def test_all_accuracies_against_brute_force(case):
    scores, labels = case
    classes = len(scores)
    e = uniform.extremes(scores, labels)
    own, other = brute_extremes(scores, labels)
    np.testing.assert_array_equal(e.positive, own)
    np.testing.assert_array_equal(e.negative, other)

    best = uniform.uniform_accuracy(e)
    assert best.accuracy == pytest.approx(brute_threshold(own, other), abs=1e-15)
    per_class = [brute_threshold(own[labels == k], other[labels == k]) * np.sum(labels == k) for k in range(classes)]
    class_wise, thresholds = uniform.class_wise_accuracy(e, labels, classes)
    assert class_wise == pytest.approx(sum(per_class) / labels.size, abs=1e-15)
    sample_wise = uniform.sample_wise_accuracy(e)
    top = scores.max(axis=0)
    shares = [(scores[k, i] == top[i]) / np.sum(scores[:, i] == top[i]) for i, k in enumerate(labels)]
    assert sample_wise == pytest.approx(np.mean(shares))
    assert best.accuracy <= class_wise + 1e-15 <= sample_wise + 2e-15

    # The threshold attains the accuracy it claims, anywhere inside its interval, and so does each class's.
    if best.accuracy > 0:
        assert best.low < best.value < best.high
        for t in (best.value, best.low + 1e-9, best.high - 1e-9):
            assert uniform.accuracy_at(e, t) == pytest.approx(best.accuracy)
    attained = [
        uniform.accuracy_at(uniform.Extremes(own[m], other[m]), t) * m.sum()
        for k, t in enumerate(thresholds)
        if (m := labels == k).any()
    ]
    assert sum(attained) / labels.size == pytest.approx(class_wise)


@settings(max_examples=60, deadline=None)
@given(scored(), st.randoms(use_true_random=False), st.integers(-3, 3), st.sampled_from([0.5, 2.0]))
def test_invariance(case, random, shift, scale):
    """Relabeling and reordering change nothing; t* moves with the scores."""
    scores, labels = case
    e = uniform.extremes(scores, labels)
    best = uniform.uniform_accuracy(e)
    samples = random.sample(range(labels.size), labels.size)
    classes = np.array(random.sample(range(len(scores)), len(scores)))
    relabeled = np.empty_like(scores)
    relabeled[classes] = scores
    other = uniform.extremes((scale * relabeled + shift)[:, samples], classes[labels][samples])
    moved = uniform.uniform_accuracy(other)
    assert moved.accuracy == best.accuracy
    np.testing.assert_allclose(moved.value, scale * best.value + shift)
    assert uniform.sample_wise_accuracy(other) == uniform.sample_wise_accuracy(e)


def test_perfect_collapse_has_every_accuracy_one():
    classes, n, gamma = 5, 3, 4.0
    U = np.asarray(simplex_etf(classes, 6))
    labels = np.repeat(np.arange(classes), n)
    e = uniform.extremes(gamma * U @ U[labels].T, labels)
    best = uniform.uniform_accuracy(e)
    assert best.accuracy == 1.0
    np.testing.assert_allclose([best.low, best.high], [-gamma / (classes - 1), gamma])
    assert uniform.class_wise_accuracy(e, labels, classes)[0] == 1.0


def test_square_shares_no_threshold_with_its_neighbors_scaled_up():
    """A square: neighbors at cosine 0. Scaling one class beyond another keeps the sample-wise accuracy only."""
    W = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], float)
    H = W.T.copy()
    e = uniform.extremes(W @ H, np.arange(4))
    assert (uniform.uniform_accuracy(e).low, uniform.uniform_accuracy(e).high) == (0.0, 1.0)
    rotated = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]]) @ H
    rotated[:, 0] *= 100.0  # its second best score is now above every other's best
    e = uniform.extremes(W @ rotated, np.arange(4))
    assert uniform.sample_wise_accuracy(e) == 1.0
    assert uniform.class_wise_accuracy(e, np.arange(4), 4)[0] == 1.0
    assert uniform.uniform_accuracy(e).accuracy == 0.75


def test_identical_features_classify_nothing():
    e = uniform.extremes(np.zeros((3, 5)), [0, 1, 2, 0, 1])
    best = uniform.uniform_accuracy(e)
    assert best.accuracy == 0.0
    assert uniform.sample_wise_accuracy(e) == pytest.approx(1 / 3)
    assert np.isnan(best.value)


def test_class_without_samples_has_no_threshold():
    accuracy, thresholds = uniform.class_wise_accuracy(uniform.extremes([[2.0, 2], [1, 1], [0, 1]], [0, 0]), [0, 0], 3)
    assert accuracy == 1.0
    np.testing.assert_array_equal(thresholds, [1.5, np.nan, np.nan])


def test_open_intervals_that_touch_do_not_meet():
    e = uniform.Extremes(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    assert uniform.uniform_accuracy(e).accuracy == 0.5


def test_float32_neighbors_have_a_threshold_between():
    a = np.float32(1.0)
    b = np.nextafter(a, np.float32(2.0))
    best = uniform.uniform_accuracy(uniform.Extremes(np.array([b]), np.array([a])))
    assert best.accuracy == 1.0
    assert float(a) < best.value < float(b)


@pytest.mark.parametrize(
    ("scores", "labels", "field"),
    [(np.zeros((1, 2)), [0, 0], "scores.shape"), (np.zeros((2, 2)), [0], "labels.shape")],
)
def test_wrong_shapes_are_named(scores, labels, field):
    with pytest.raises(InputError, match=field):
        uniform.extremes(scores, labels)


def test_nan_is_refused():
    with pytest.raises(InputError, match="scores = 'NaN or inf'"):
        uniform.uniform_accuracy(uniform.Extremes(np.array([np.nan]), np.array([0.0])))


def test_blocks_add_up():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(7, 100)).astype(np.float32), rng.integers(0, 7, 100)
    whole = uniform.extremes(scores, labels)
    blocks = [uniform.extremes(scores[:, i : i + 30], labels[i : i + 30]) for i in range(0, 100, 30)]
    np.testing.assert_array_equal(np.concatenate([b.positive for b in blocks]), whole.positive)
    np.testing.assert_array_equal(np.concatenate([b.negative for b in blocks]), whole.negative)


def test_bias_distance_and_accuracy_at_the_bias():
    assert uniform.bias_to_threshold(-1.5, 2.0) == {"mean": 0.5, "max": 0.5}
    e = uniform.Extremes(np.array([3.0, 2.0]), np.array([0.0, 1.0]))
    assert [uniform.accuracy_at(e, t) for t in (0.5, 1.5, 2.0)] == [0.5, 1.0, 0.5]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8), st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_overlap_is_the_least_total_error(positive, negative):
    p, n = np.array(positive, float), np.array(negative, float)
    errors = [np.mean(p <= t) + np.mean(n > t) for t in np.arange(-4, 4.5, 0.5)]
    assert uniform.overlap(p, n) == pytest.approx(min(errors))

"""`ufm.measure` against direct formulas, on arrays of every kind and on solved problems."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm import InputError, measurement
from ufm.geometry import random_rotation, simplex_etf
from ufm.metrics import uniform

K, D, N = 5, 8, 101


def network(seed: int = 0, spread: float = 0.7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(K), rng.integers(0, K, N - K)])
    W = rng.normal(size=(K, D))
    return {
        "features": W[labels] + spread * rng.normal(size=(N, D)) + 0.3,
        "labels": labels,
        "weight": W,
        "bias": rng.normal(size=K) - 4.0,
    }


def pinv_nc1(F, labels):
    """tr(S_W S_B^+)/K with the covariances written out."""
    centre = F.mean(axis=0)
    means = [F[labels == k].mean(axis=0) for k in range(K)]
    S_W = sum(np.outer(f - means[k], f - means[k]) for f, k in zip(F, labels, strict=True)) / len(F)
    S_B = sum(np.outer(m - centre, m - centre) for m in means) / K
    return np.trace(S_W @ np.linalg.pinv(S_B, rcond=1e-10)) / K


def test_every_number_against_the_definitions():
    g = network()
    F, labels, W, b = g.values()
    found = ufm.measure(F, labels, W, b).to_dict()
    scores = F @ W.T
    logits = scores + b
    own = scores[np.arange(N), labels]
    mask = np.eye(K, dtype=bool)[labels]
    means = np.array([F[labels == k].mean(axis=0) for k in range(K)])

    assert found["accuracy"]["with_bias"] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))
    assert found["accuracy"]["at_bias"] == pytest.approx(np.mean(np.all((logits > 0) == mask, axis=1)))
    assert found["accuracy"]["sample_wise"] == pytest.approx(np.mean(scores.argmax(axis=1) == labels))
    trial = np.linspace(scores.min(), scores.max(), 20001)
    hits = [np.mean(np.all((scores > t) == mask, axis=1)) for t in trial]
    assert found["accuracy"]["uniform"] == pytest.approx(max(hits))
    assert np.mean(np.all((scores > found["threshold"]) == mask, axis=1)) == pytest.approx(max(hits))
    for side, values in (("positive", own), ("negative", scores[~mask])):
        expected = [values.mean(), values.std(), values.min(), values.max()]
        np.testing.assert_allclose(list(found["scores"][side].values()), expected, rtol=1e-10)
    exact = uniform.overlap(own, scores[~mask])
    assert exact - 1e-12 <= found["scores"]["overlap"] <= exact + 0.02
    assert found["bias"]["to_threshold"]["mean"] == pytest.approx(abs(-b.mean() - found["threshold"]))
    nearest_mean = np.argmin(((F[:, None] - means[None]) ** 2).sum(axis=2), axis=1)
    assert found["collapse"]["nc4"] == pytest.approx(np.mean(logits.argmax(axis=1) != nearest_mean))
    assert found["collapse"]["nc1"] == pytest.approx(pinv_nc1(F, labels))


def test_streaming_agrees_with_the_metrics_of_whole_arrays(monkeypatch):
    """Blocks of three rows give what one block and `ufm.metrics.collapse` give."""
    g = network(1)
    whole = ufm.measure(**g)
    monkeypatch.setattr(measurement, "BLOCK_BYTES", 3 * 8 * D)
    steps = []
    blocks = ufm.measure(**g, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (2 * N, 2 * N)
    assert len(steps) == 2 * -(-N // 3)
    np.testing.assert_allclose(_numbers(blocks.to_dict()), _numbers(whole.to_dict()), rtol=1e-7, atol=1e-12)
    np.testing.assert_array_equal(blocks.histograms.positive, whole.histograms.positive)
    direct = ufm.metrics.collapse(*(jnp.asarray(x) for x in (g["weight"], g["features"].T, g["labels"], g["bias"])))
    np.testing.assert_allclose(list(vars(whole.collapse).values()), list(vars(direct).values()), atol=1e-12)


def test_a_bad_row_is_counted_from_the_start_of_the_features(monkeypatch):
    monkeypatch.setattr(measurement, "BLOCK_BYTES", 3 * 8 * D)
    g = network(1)
    g["features"][[16, 17], 2] = np.nan
    with pytest.raises(InputError, match=r"row 16, the first of 2 among rows 15\.\.17'"):
        ufm.measure(**g)


def _numbers(tree):
    leaves = jax.tree.leaves(tree)
    return np.array([x for x in leaves if isinstance(x, float)])


@pytest.mark.parametrize("seed", range(2))
def test_invariance_under_rotation_order_and_names(seed):
    g = network(seed)
    before = ufm.measure(**g).to_dict()
    rng = np.random.default_rng(seed)
    Q = np.asarray(random_rotation(jax.random.key(seed), D))
    order, names = rng.permutation(N), rng.permutation(K)
    W, b = np.empty_like(g["weight"]), np.empty_like(g["bias"])
    W[names], b[names] = g["weight"] @ Q, g["bias"]
    after = ufm.measure((g["features"] @ Q)[order], names[g["labels"]][order], W, b).to_dict()
    for key in ("collapse", "accuracy", "threshold", "compactness", "distinctiveness"):
        np.testing.assert_allclose(_numbers(after[key]), _numbers(before[key]), rtol=1e-9, atol=1e-10)


def test_perfect_collapse():
    U = np.asarray(simplex_etf(K, D))
    found = ufm.measure(np.repeat(3 * U, 4, axis=0), np.repeat(np.arange(K), 4), 2 * U, -2.0)
    np.testing.assert_allclose(list(vars(found.collapse).values()), 0.0, atol=1e-7)
    assert 0 <= found.collapse.nc1 < 1e-28
    assert (found.uniform, found.at_bias) == (1.0, 1.0)
    np.testing.assert_allclose([found.threshold.low, found.threshold.high], [-1.5, 6.0])
    np.testing.assert_allclose([found.compactness, found.distinctiveness], [1.0, 1.25])
    # Such norms and scores are those of an ETF under either loss: nothing is left over.
    assert found.nearest["ce"].residual < 1e-12
    assert found.nearest["ce"].alignment == pytest.approx(1.0)


def test_degenerate_features():
    """Identical features, a class of one sample, fewer dimensions than classes: numbers, not NaN."""
    labels = np.array([0, 0, 1, 1, 2])
    W = np.array([[1.0, 0], [0, 1], [-1, -1]])
    same = ufm.measure(np.ones((5, 2)), labels, W)
    assert (same.uniform, same.compactness, same.collapse.nc1) == (0.0, pytest.approx(1.0), 0.0)
    assert np.isnan(same.threshold.value)
    line = ufm.measure(np.array([[1.0, 0], [1.1, 0], [3, 0], [3.1, 0], [5, 0]]), labels, W)
    assert 0 < line.collapse.nc1 < 0.01
    nothing = ufm.measure(np.zeros((5, 2)), labels, np.zeros((3, 2)))
    assert nothing.nearest["bce"].regime in ("zero", "mean-shifted", "etf")
    assert nothing.collapse.nc1 == 0.0


def test_float32_and_half_precision_are_summed_in_more():
    g = network(2)
    exact = ufm.measure(**g)
    single = ufm.measure(**{k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in g.items()})
    assert single.collapse.nc1 == pytest.approx(exact.collapse.nc1, rel=1e-5)
    half = g["features"].astype(np.float16)
    small = ufm.measure(half, g["labels"], g["weight"].astype(np.float16), g["bias"])
    wide = ufm.measure(half.astype(float), g["labels"], g["weight"].astype(np.float16).astype(float), g["bias"])
    assert small.positive.mean == pytest.approx(wide.positive.mean, rel=1e-6)
    brain = ufm.measure(jnp.asarray(g["features"], jnp.bfloat16), g["labels"].tolist(), jnp.asarray(g["weight"]))
    assert brain.collapse.nc1 == pytest.approx(exact.collapse.nc1, rel=0.05)


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    g = network()
    plain = ufm.measure(**g)
    tensors = {k: torch.from_numpy(v) for k, v in g.items()}
    tensors["weight"].requires_grad_(True)
    assert ufm.measure(**tensors).to_dict() == plain.to_dict()
    tensors["features"] = tensors["features"].to(torch.bfloat16)
    assert ufm.measure(**tensors).collapse.nc1 == pytest.approx(plain.collapse.nc1, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros(3)}, r"features.shape = \(3,\)"),
        ({"features": np.zeros((D, N))}, "labels.shape"),
        ({"weight": np.zeros((K, D + 1))}, "weight.shape"),
        ({"weight": np.zeros((K, N))}, "transposed"),
        ({"weight": np.zeros((1, D))}, "K >= 2"),
        ({"weight": np.full((K, D), np.inf)}, "weight = 'NaN or inf'"),
        ({"labels": np.zeros(N - 1, int)}, "labels.shape"),
        ({"labels": np.zeros(N)}, "labels.dtype = 'float64': must be integers"),
        ({"labels": np.arange(N) % K + 1}, r"labels = '1..5': must be in 0..4"),
        ({"labels": np.arange(N) % K - 1}, r"labels = '-1..3'"),
        ({"labels": np.arange(N) % (K - 2)}, "no sample of class 3 and 1 more"),
        ({"bias": np.zeros(K + 1)}, "bias.shape"),
        ({"bias": np.full(K, np.nan)}, "bias = 'NaN or inf'"),
        (
            {"features": np.where(np.eye(N, D) > 0, np.nan, 1.0)},
            "NaN or inf in row 0, the first of 8 among rows 0..100",
        ),
        (
            {"features": np.where(np.arange(N)[:, None] == 17, np.inf, np.ones((N, D)))},
            "inf in row 17': must be finite",
        ),
        ({"features": np.full((N, D), 3e38, np.float32), "weight": np.full((K, D), 9, np.float32)}, "overflow"),
        ({"features": np.zeros((N, D), object)}, "features.dtype = 'object'"),
        ({"features": np.zeros((N, D), complex)}, "real numbers"),
        ({"labels": ["cat"] * N}, "labels.dtype"),
        ({"weight": {"a": 1}}, "weight.dtype = 'object'"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        ufm.measure(**(network() | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "decay_b", "bias"),
    [("ce", 5e-3, "per_class"), ("bce", 5e-4, "per_class"), ("bce", 0.5, "per_class"), ("bce", 0.0, "none")],
)
def test_nearest_model_of_a_model_is_itself(loss, decay_b, bias):
    """The witness is the closed-form point: its decays, regime and scores must come back, with no residual."""
    decay = ufm.Decay(5e-3, 1e-3, decay_b)
    problem = ufm.Problem(6, 9, 5, loss=ufm.losses.parse(loss), decay=decay, bias=bias)
    exact = ufm.theory.minimizer(problem)
    found = ufm.measure(np.asarray(exact.params.H).T, problem.labels, exact.params.W, exact.params.b).nearest[loss]
    assert found.regime == exact.regime
    np.testing.assert_allclose([found.decay_W, found.decay_H], [5e-3, 1e-3], rtol=1e-6)
    if loss == "bce" and bias != "none":
        assert found.decay_b == pytest.approx(decay_b, rel=1e-5)
        assert found.bias_residual < 1e-8
    assert found.residual < 1e-8
    assert found.alignment == pytest.approx(1.0)


def test_nearest_model_is_the_nearest():
    """No model of a fine grid is nearer than the one found, for scores that no model has."""
    from ufm.theory.closed_forms import bce
    from ufm.theory.nearest import Observed, nearest

    for positive, negative, b in ((4.0, -1.0, 0.5), (2.0, -6.0, -1.0), (30.0, -0.5, -14.0), (0.5, 0.2, -2.0)):
        seen = Observed(10, 1000, positive, negative, b, 10.0, 100.0)
        mine = nearest(seen, "bce")

        def distance(p, q, bias, at=(positive, negative, b)):
            return ((p - at[0]) ** 2 + 9 * (q - at[1]) ** 2) / 10 + (bias - at[2]) ** 2

        best = distance(mine.positive, mine.negative, mine.bias)
        for mu in 0.1 * np.geomspace(1e-9, 0.99, 60):
            for decay_b in np.geomspace(1e-9, 1e3, 40):
                m = bce(mu, 10, decay_b)
                assert distance(m.p - m.bias, m.q - m.bias, m.bias) >= best - 1e-9


def test_the_sheet_shows_every_number_and_hides_none():
    """Also of a network without a bias, and of one whose metrics are zero or undefined."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from ufm.plotting import sheet

    g = network()
    U = np.asarray(simplex_etf(K, D))
    networks = {
        "biased": ufm.measure(**g),
        "free": ufm.measure(**dict(g, bias=None)),
        "collapsed": ufm.measure(3 * U, np.arange(K), U, -1.0),
        "identical": ufm.measure(np.ones((K, D)), np.arange(K), U),
    }
    figure = sheet(networks)
    FigureCanvasAgg(figure).draw()
    assert networks["collapsed"].collapse.nc4 == 0.0
    for number, (name, found) in enumerate(networks.items()):
        scores, collapse, models = figure.axes[3 * number : 3 * number + 3]
        for axes in (scores, models):
            box = axes.get_legend().get_window_extent()
            assert axes.bbox.x0 <= box.x0, name
            assert box.x1 <= axes.bbox.x1, name
            for line in axes.lines:
                assert not box.overlaps(line.get_window_extent()), name
        names = ("nc1", "nc2", "nc2_means", "nc3", "nc4")
        assert [t.get_text() for t in collapse.texts] == [f"{getattr(found.collapse, n):.2g}" for n in names]
        assert models.get_ylabel() == "mean score"
        shown = ["positive", "negative"] + ["minus bias"] * (found.bias is not None)
        assert [t.get_text() for t in models.get_legend().get_texts()] == shown


def test_the_checks_catch_a_planted_error():
    """A mutation of each part of a measurement differs from the truth by more than the tests allow."""
    g = network()
    truth = ufm.measure(**g).to_dict()
    shifted = dict(g, bias=g["bias"] + 0.5)
    assert ufm.measure(**shifted).to_dict()["accuracy"]["at_bias"] != truth["accuracy"]["at_bias"]
    turned = dict(g, weight=np.roll(g["weight"], 1, axis=0))
    assert ufm.measure(**turned).to_dict()["collapse"]["nc3"] > truth["collapse"]["nc3"] + 0.1
    found = ufm.measure(**g)
    assert dataclasses.replace(found, uniform=0.0).to_dict() != found.to_dict()

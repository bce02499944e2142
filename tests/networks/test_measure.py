"""`ufm.measure` against direct formulas, on arrays of every kind and on solved problems."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm import InputError
from ufm.geometry import random_rotation, simplex_etf
from ufm.networks import measurement

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
    """Identical features, a class of one sample, fewer dimensions than classes: numbers, or words why there is none."""
    labels = np.array([0, 0, 1, 1, 2])
    W = np.array([[1.0, 0], [0, 1], [-1, -1]])
    same = ufm.measure(np.ones((5, 2)), labels, W)
    assert (same.uniform, same.compactness) == (0.0, pytest.approx(1.0))
    assert np.isnan(same.collapse.nc1)
    assert np.isnan(same.threshold.value)
    line = ufm.measure(np.array([[1.0, 0], [1.1, 0], [3, 0], [3.1, 0], [5, 0]]), labels, W)
    assert 0 < line.collapse.nc1 < 0.01
    nothing = ufm.measure(np.zeros((5, 2)), labels, np.zeros((3, 2)))
    assert nothing.nearest["bce"].regime == "zero"
    assert np.isnan(nothing.collapse.nc1)


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
        ({"features": np.ma.masked_equal(network()["features"], network()["features"][3, 2])}, "masked entries"),
        ({"labels": np.ma.masked_equal(network()["labels"], 2)}, "labels = 'an array with masked entries'"),
        ({"bias": np.ma.masked_invalid([0.0, np.nan, 0.0, 0.0, 0.0])}, "leave out those samples, or fill them"),
        ({"weight": {"a": 1}}, "weight.dtype = 'object'"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        ufm.measure(**(network() | change))
    assert "\n" not in str(caught.value)


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
        shown = [f"{getattr(found.collapse, n):.2g}".replace("nan", "undefined") for n in names]
        assert [t.get_text() for t in collapse.texts] == shown
        assert models.get_ylabel() == "mean score"
        shown = ["positive", "negative"] + ["minus bias"] * (found.bias is not None)
        assert [t.get_text() for t in models.get_legend().get_texts()] == shown

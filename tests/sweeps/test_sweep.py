"""What a sweep computes: against `ufm.solve` lane by lane, one engine against the other, and exact laws."""

import csv
import dataclasses
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import ufm
from ufm.plotting.sweep import heat_map, pictures
from ufm.sweeps import _engine, load
from ufm.sweeps.lane import smallest

SMALL = ufm.Problem(3, 4, 5, ufm.losses.BCE(), ufm.Decay(0.02, 0.01, 0.01), features="per_class")
AXES = {"decay.b": [1e-3, 0.05, 2.0], "seed": [0, 7], "decay.W": [0.02, 3.0]}


@pytest.fixture(scope="module")
def grid():
    return ufm.sweep(SMALL, AXES, bias_mean=0.5)


def test_each_lane_is_the_problem_with_its_values(grid):
    assert grid.dims == ("decay.b", "seed", "decay.W")
    assert grid["value"].shape == (3, 2, 2)
    assert grid.statuses == {"converged": 12}
    for (i, b), (j, seed), (k, W) in [
        ((i, b), (j, s), (k, w))
        for i, b in enumerate(AXES["decay.b"])
        for j, s in enumerate(AXES["seed"])
        for k, w in enumerate(AXES["decay.W"])
    ]:
        problem = grid.problem_at(**{"decay.b": b, "decay.W": W})
        assert (float(problem.decay.b), float(problem.decay.W), float(problem.decay.H)) == (b, W, 0.01)
        closed = ufm.theory.minimizer(problem)
        at = (i, j, k)
        assert abs(grid["value"][at] - closed.value) < 1e-12
        assert abs(grid["bias"][at] - closed.bias) < 1e-9
        assert abs(grid["bias_start"][at] - float(problem.init(jax.random.key(seed), 1.0, 0.5).b.mean())) < 1e-15
        assert ["zero", "etf", "mean-shifted"][grid["regime"][at]] == closed.regime
        assert -grid["rounding"][at] <= grid["gap"][at] < 1e-10
        assert grid["lower_bound"][at] <= closed.value + grid["rounding"][at]
        z = SMALL.logits(ufm.Params(*map(jnp.asarray, (closed.params.W, closed.params.H))))
        assert abs(grid["positive"][at] - float(jnp.mean(jnp.diag(z)))) < 1e-9


@pytest.mark.slow
def test_a_lane_is_what_solve_finds_from_the_same_seed(grid):
    alone = ufm.solve(grid.problem_at(**{"decay.b": 0.05, "decay.W": 0.02}), 7, bias_mean=0.5)
    assert abs(grid["value"][1, 1, 0] - float(alone.value)) < 1e-14
    assert grid["steps"][1, 1, 0] == int(alone.steps)
    assert grid["evaluations"][1, 1, 0] == int(alone.evaluations)


@pytest.mark.slow
def test_engines_agree_with_newton(grid, monkeypatch):
    """Its conjugate gradients are a loop in the loop."""
    monkeypatch.setitem(_engine.WIDTH, "cpu", 4)
    monkeypatch.setattr(_engine, "NARROWER", 2)
    batch = ufm.sweep(SMALL, AXES, bias_mean=0.5, engine="batch")
    assert batch.info["engine"] == "batch"
    for name in ("steps", "status", "regime"):
        np.testing.assert_array_equal(batch[name], grid[name])
    for name in ("value", "bias", "positive", "negative", "lower_bound", "bias_start"):
        np.testing.assert_allclose(batch[name], grid[name], rtol=1e-9, atol=1e-9)
    assert 0.3 < batch.info["useful"] < 1.0
    assert grid.info["useful"] == 1.0  # one device: nothing waits


def test_a_list_is_its_lanes(grid):
    rows = [{"decay.W": 3.0, "decay.b": 2.0, "seed": 7}, {"decay.W": 0.02, "decay.b": 1e-3, "seed": 0}]
    found = ufm.sweep(SMALL, rows, bias_mean=0.5)
    assert found.dims == ("lane",)
    assert found.coords["decay.W"].tolist() == [3.0, 0.02]
    assert found["value"].tolist() == [grid["value"][2, 1, 1], grid["value"][0, 0, 0]]
    assert found.table()["seed"] == [7, 0]


def test_tied_axes_and_selection(grid):
    found = ufm.sweep(SMALL, {"decay.W,decay.H": [0.01, 0.02], "seed": [3]})
    expected = [ufm.theory.minimizer(found.problem_at(**{"decay.W,decay.H": d})).value for d in (0.01, 0.02)]
    np.testing.assert_allclose(found["value"][:, 0], expected, atol=1e-12)
    part = grid.select(seed=7, **{"decay.b": 0.05})
    assert part.dims == ("decay.W",)
    np.testing.assert_array_equal(part["value"], grid["value"][1, 1])
    assert float(part.problem.decay.b) == 0.05
    with pytest.raises(ufm.InputError, match="seed = 1: must be one of"):
        grid.select(seed=1)


def test_a_failed_lane_is_alone():
    found = ufm.sweep(SMALL, {"scale": [1.0, 1e200, 2.0]})
    assert found["status"].tolist() == [1, ufm.Status.NONFINITE, 1]
    assert found["regime"][1] == -1
    for name, values in found.data.items():
        if values.dtype.kind == "f":
            assert np.isnan(values).tolist() == [False, name != "evaluations", False], name
    assert found.regimes == {"unconverged": 1, "etf": 2}
    assert len(found.plot("value").axes[0].lines) == 2
    assert found.statuses == {"converged": 2, "nonfinite": 1}


def test_lanes_that_did_not_converge_have_no_regime_and_hollow_points():
    """Nine steps suffice beyond the threshold only; a start at zero is a saddle there where zero is no minimum."""
    axes = {"decay.W": [0.002, 3.0], "decay.b": [0.01, 0.1], "scale": [0.0, 1.0]}
    found = ufm.sweep(SMALL, axes, options={"max_steps": 9})
    short, zero = ("saddle", "max steps"), ("converged", "converged")
    labels = [[tuple(ufm.Status(s).label for s in row) for row in rows] for rows in found["status"]]
    assert labels == [[short, short], [zero, zero]]
    assert found["regime"].tolist() == [[[-1, -1]] * 2, [[0, 0]] * 2]
    assert found.regimes == {"unconverged": 4, "zero": 4}
    assert found.solved.tolist() == (found["status"] == ufm.Status.CONVERGED).tolist()
    figure = found.select(scale=1.0).plot("value", x="decay.W")
    assert figure.get_suptitle() == "2 of 4 did not converge (hollow)"
    *_, filled, hollow = figure.axes[0].lines
    assert (filled.get_markerfacecolor(), hollow.get_markerfacecolor()) == (hollow.get_color(), "none")
    assert np.isfinite(filled.get_ydata()).ravel().tolist() == [False, True]
    assert np.isfinite(hollow.get_ydata()).ravel().tolist() == [True, False]
    marks = found.select(scale=1.0).plot("regime").axes[0].lines[0]
    assert marks.get_xydata().tolist() == [[0.01, 0.002], [0.1, 0.002]]
    plt.close("all")


def test_the_regime_of_a_float32_solve_is_read_with_its_own_rounding():
    """Decays just inside and far outside; with the threshold of float64 a mean of 1e-5 would count as a shift."""
    found = ufm.sweep(SMALL, {"decay.b": [1e-3, 0.05, 2.0], "decay.W": [0.02, 3.0]}, dtype="float32")
    expected = [
        [ufm.theory.minimizer(found.problem_at(**{"decay.b": b, "decay.W": w})).regime for w in (0.02, 3.0)]
        for b in (1e-3, 0.05, 2.0)
    ]
    assert [[ufm.theory.Regime(r).label for r in row] for row in found["regime"]] == expected
    single, double = (
        float(smallest(ufm.Solution(ufm.Params(H, H), 1.0, 0.0, 1e-14, 1, 1, 1, {})))
        for H in (jnp.zeros((2, 2), t) for t in ("float32", "float64"))
    )
    assert single > 1e-3 > 1e-5 > double


def test_mean_bias_obeys_its_law_and_trajectories_are_kept():
    """b(t) = b(0) (1 - lr decay_b)^t under gradient descent for a shift-invariant loss, whatever the features do."""
    problem = ufm.Problem(3, 4, 5, decay=ufm.Decay(0.02, 0.01, 0.1), features="per_class")
    axes = {"bias_mean": [0.0, 4.0], "decay.b": [0.0, 0.1], "loss": ["ls:alpha=0", "ls:alpha=0.2"]}
    options = {"tol": 0.0, "max_steps": 40, "record_every": 10}
    found = ufm.sweep(problem, axes, "sgd:lr=0.5,momentum=0", options=options, keep=["bias"])
    for j, decay in enumerate((0.0, 0.1)):
        law = found["bias_start"][:, j, :, None] * (1 - 0.5 * decay) ** np.arange(0, 41, 10)
        np.testing.assert_allclose(found["trajectory.bias"][:, j], law, atol=1e-13)
        np.testing.assert_allclose(found["bias"][:, j], law[..., -1], atol=1e-13)
    assert "trajectory.positive" not in found.data
    assert found.statuses == {"max steps": 8}
    # The groups do not mix: the law is blind to the loss, the value is not.
    at = found.problem_at(loss="ls:alpha=0.2", **{"decay.b": 0.1})
    alone = ufm.sweep(at, {"bias_mean": [4.0]}, "sgd:lr=0.5,momentum=0", options=options, keep=["bias"])
    assert alone["value"][0] == found["value"][1, 1, 1] != found["value"][1, 1, 0]


@pytest.mark.slow
def test_float32_lanes_carry_float64_certificates():
    with jax.enable_x64(False):
        found = ufm.sweep(SMALL, {"seed": [0, 1]})
    assert found.info["dtype"] == "float32"
    assert found["lower_bound"].dtype == np.float64
    value = ufm.theory.minimizer(SMALL).value
    assert (found["lower_bound"] <= value + 1e-12).all()
    assert (found["value"] >= value - 1e-12).all()
    assert (np.abs(found["rounding"]) < 1e-12).all()


def test_prediction_and_figures(grid, tmp_path):
    lines = grid.select(seed=0, **{"decay.W": 0.02}).predicted("decay.b")
    closed = ufm.theory.minimizer(grid.problem_at(**{"decay.W": 0.02, "decay.b": lines["x"][-1]}))
    z = closed.params.W @ closed.params.H
    assert abs(lines["positive"][-1] - z[0, 0]) < 1e-12
    assert abs(lines["negative"][-1] - z[0, 1]) < 1e-12
    assert lines["bias"][-1] == closed.bias
    figures = pictures(grid)
    assert set(figures) == {"map_value", "map_gap", "map_regime", "map_bias"}
    heat_map(grid, "value").savefig(tmp_path / "map.png")
    grid.plot(x="decay.b").savefig(tmp_path / "scores.png")
    assert (tmp_path / "map.png").stat().st_size > 5000
    grid.save_table(tmp_path / "lanes.csv")
    assert len((tmp_path / "lanes.csv").read_text().splitlines()) == 13


def test_tables_and_counts_say_statuses_and_regimes_in_words(grid, tmp_path):
    grid.save_table(tmp_path / "lanes.csv")
    with (tmp_path / "lanes.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        problem = grid.problem_at(**{name: float(row[name]) for name in ("decay.b", "decay.W")})
        assert (row["status"], row["regime"]) == ("converged", ufm.theory.minimizer(problem).regime)
    assert grid.summary()["regime"] == grid.regimes == Counter(row["regime"] for row in rows)


def test_one_axis_makes_a_line_and_two_a_map(grid):
    line = grid.select(**{"decay.W": 0.02})
    (axes,) = line.plot("bias").axes
    for curve in axes.lines:
        np.testing.assert_array_equal(curve.get_xdata(), AXES["decay.b"])
    medians, *seeds = [curve.get_ydata() for curve in axes.lines]
    np.testing.assert_array_equal(np.stack(seeds, 1), line["bias"])
    np.testing.assert_array_equal(medians, line["bias"].mean(axis=1))  # two seeds
    assert [text.get_text() for text in line.plot("regime").axes[0].get_yticklabels()] == [
        "zero",
        "etf",
        "mean-shifted",
    ]
    assert len(grid.plot("bias").axes) == 2  # a map and its color bar
    panels = grid.plot("bias", x="decay.W").axes
    assert sum(bool(axes.lines) for axes in panels) == 3  # one for each decay of the bias
    for sweep in (grid, line, line.select(**{"decay.b": 0.05})):
        with pytest.raises(ufm.InputError, match=r"quantity = 'valu': must be one of .*did you mean 'value'"):
            sweep.plot("valu")
        with pytest.raises(ufm.InputError, match=r"quantity = 'own.png': must be one of bias, "):
            sweep.plot("own.png")
    with pytest.raises(ufm.InputError, match=r"x = 'seed': must be a numeric axis"):
        line.plot("bias", x="seed")
    plt.close("all")


def test_the_title_names_what_is_drawn(grid):
    """Without the problem, as a loss of one's own comes back from a directory, there is no line to speak of."""
    line = grid.select(**{"decay.W": 0.02})
    for sweep, title in (
        (line, "points: solved, lines: closed form"),
        (dataclasses.replace(line, problem=None), "points: solved"),
    ):
        assert sweep.plot().get_suptitle() == title
    plt.close("all")


def test_xarray(grid):
    pytest.importorskip("xarray")
    dataset = grid.to_xarray()
    assert float(dataset["value"].sel(seed=7, **{"decay.b": 0.05, "decay.W": 3.0})) == grid["value"][1, 1, 1]


def test_without_xarray_it_says_what_to_install(grid, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"^to_xarray needs `pip install xarray`$"):
        grid.to_xarray()


def test_a_round_trip_through_a_directory(grid, tmp_path):
    kept = ufm.sweep(SMALL, AXES, bias_mean=0.5, out=tmp_path / "s", chunk=5)
    back = load(tmp_path / "s")
    assert len(list((tmp_path / "s" / "chunks").glob("*.npz"))) == 3
    for name in grid.data:
        np.testing.assert_array_equal(kept[name], grid[name])
        np.testing.assert_array_equal(back[name], grid[name])
    assert back.dims == grid.dims
    assert back.info["statement"] == "bce K=3 d=4 n=5, decay H=0.01, one feature per class"
    assert back.problem_at(**{"decay.b": 2.0}) == grid.problem_at(**{"decay.b": 2.0})


BAD = [
    ({"decay.c": [1.0]}, "decay.c.*did you mean 'decay"),
    ({"decay.b": [0.1, -1.0]}, "decay.b = -1.0"),
    ({"decay.b": ["x"]}, "must be numbers"),
    ({"decay.b": 0.1}, "a list of values"),
    ({"decay.b": []}, "at least one value"),
    ({"seed": [1.5]}, "seed = 1.5"),
    ({"seed": [-1]}, "seed = -1"),
    ({"scale": [-1.0]}, "scale = -1.0"),
    ({"loss": ["bcee"]}, "did you mean 'bce'"),
    ({"loss.gamma": [1.0]}, "loss.gamma"),
    ({"classes": [2.5]}, "classes = 2.5"),
    ({"solver": ["newtn"]}, "did you mean 'newton'"),
    ({"solver": ["lifted"]}, "a solver of the factored problem"),
    ([{"seed": 1}, {"sede": 1}], "lane 1"),
    ({"decay.W": [0.1], "decay.W,decay.H": [0.2]}, "'decay.W' and 'decay.W' set the same"),
    ({"decay.b,decay.b": [0.1]}, "'decay.b' and 'decay.b' set the same"),
    ({"loss": ["focal:gamma=1"], "loss.gamma": [2.0]}, "'loss' and 'loss.gamma' set the same"),
    ([{"decay.b": 0.1, "decay.b,decay.W": 0.2}], "set the same"),
    ([], "at least one"),
]


@pytest.mark.parametrize(("axes", "message"), BAD, ids=[str(axes) for axes, _ in BAD])
def test_a_bad_axis_is_refused_before_anything_runs(axes, message):
    with pytest.raises(ufm.InputError, match=message):
        ufm.sweep(SMALL, axes)


def test_problems_that_a_sweep_cannot_vary_are_refused():
    with pytest.raises(ufm.InputError, match=r"problem = 'str': must be a ufm.Problem"):
        ufm.sweep("ce", {"seed": [0]})
    batch = dataclasses.replace(SMALL, decay=ufm.Decay(np.full(3, 0.1), 0.1, 0.1))
    with pytest.raises(ufm.InputError, match=r"decay.W.shape = \(3,\).*ufm.sweep"):
        ufm.sweep(batch, {"seed": [0]})


def test_bad_options_are_refused():
    with pytest.raises(ufm.InputError, match=r"memory.*GB"):
        ufm.sweep(SMALL, {"seed": [0]}, memory=1e6)
    with pytest.raises(ufm.InputError, match=r"engine = 'scna'.*did you mean 'scan'"):
        ufm.sweep(SMALL, {"seed": [0]}, engine="scna")
    with pytest.raises(ufm.InputError, match="only gradient methods"):
        ufm.sweep(SMALL, {"seed": [0]}, options={"record_every": 5})


def test_a_line_that_is_not_proven_is_dashed_and_says_so():
    """At d = K-1 beyond the ETF regime the best symmetric point is no certified minimizer."""
    narrow = dataclasses.replace(SMALL, dim=SMALL.classes - 1, loss=ufm.losses.BCE())
    found = ufm.sweep(narrow, {"decay.b": [1e-3, 2.0]})
    lines = found.predicted("decay.b")
    assert lines["exact"][0] == 1
    assert lines["exact"][-1] == 0
    figure = found.plot()
    assert figure.get_suptitle() == ("points: solved, dashed lines: best symmetric point, not proven to be the minimum")
    assert {line.get_linestyle() for line in figure.axes[0].lines if len(line.get_xdata()) > 2} == {"--"}
    plt.close("all")

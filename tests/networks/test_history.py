"""`History`: rows are those of `measure`, however batches come; files; figure; what is refused."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import ufm
from ufm.networks import History, history, predict

K, D, N = 3, 5, 24
RNG = np.random.default_rng(0)
Y = np.arange(N) % K
W, B = RNG.normal(size=(K, D)), RNG.normal(size=K)
H = W[Y] + 0.3 * RNG.normal(size=(N, D))


def filled(steps=(1, 10, 100)):
    run = History()
    for step in steps:
        run.add(step, W[Y] + (H - W[Y]) / (1 + step), Y, W, B)
    return run


def test_a_row_is_what_measure_says():
    run = History()
    assert run.add(5, H, Y, W, B).collapse == ufm.measure(H, Y, W, B).collapse
    found = ufm.measure(H, Y, W, B)
    assert {name: float(run[name][0]) for name in ("nc1", "nc2", "nc2_means", "nc3", "nc4")} == {
        name: getattr(found.collapse, name) for name in ("nc1", "nc2", "nc2_means", "nc3", "nc4")
    }
    assert (run["step"][0], run["samples"][0], run["positive"][0]) == (5, N, found.positive.mean)
    # Independently:
    means = np.array([H[k == Y].mean(axis=0) for k in range(K)])

    def cosine(rows):
        unit = rows / np.linalg.norm(rows, axis=1)[:, None]
        return ((unit @ unit.T).sum() - K) / (K * (K - 1))

    expected = [np.sqrt((W**2).sum()), np.sqrt((H**2).sum(axis=1).mean()), cosine(W), cosine(means), B.mean()]
    names = ("weight_norm", "feature_norm", "classifier_cosine", "feature_cosine", "bias")
    np.testing.assert_allclose([run[name][0] for name in names], expected, rtol=1e-12)


def test_batches_in_any_order_and_read_once():
    whole, parts = History(), History()
    whole.add(1, H, Y, W, B)
    order = RNG.permutation(N)
    once = ((H[i] - 1.0, Y[i].tolist()) for i in (order[:7], order[7:8], order[8:]))
    parts.add_from(1, lambda x: x + 1.0, once, W, B)
    for name in history.COLUMNS:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-9, atol=1e-14, err_msg=name)


def test_torch_batches():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(H), torch.tensor(Y))
    run = History()
    run.add_from(1, torch.nn.Identity(), torch.utils.data.DataLoader(data, 5, shuffle=True), W, B)
    assert run["positive"][0] == pytest.approx(ufm.measure(H, Y, W, B).positive.mean)


def test_files(tmp_path):
    run = filled()
    run.save(tmp_path / "run.npz")
    again = History.load(tmp_path / "run.npz")
    again.add(1000, H, Y, W)
    again.save(tmp_path / "run.npz")
    again = History.load(tmp_path / "run.npz")
    assert len(again) == 4
    assert np.isnan(again["bias"][-1])
    for name in history.COLUMNS:
        np.testing.assert_array_equal(again[name][:3], run[name])
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    run.to_csv(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["nc1"]) for row in rows] == run["nc1"].tolist()


def test_xarray():
    pytest.importorskip("xarray")
    data = filled().to_xarray()
    assert data["step"].values.tolist() == [1, 10, 100]
    assert set(data) | {"step"} == set(history.COLUMNS)


def test_a_minimizer_is_what_was_predicted():
    """The columns that `Prediction.row` foretells are those that its own point has, unequal counts included."""
    counts = [6, 5, 2]
    found = predict(classes=3, dim=4, counts=counts, loss="ce", weight_decay=0.01, feature_decay=0.01, batch=3)
    y = np.repeat(np.arange(3), counts)
    run = History()
    run.add(1, found.params.H.T[y], y, found.params.W, found.params.b)
    for name, value in found.row.items():
        assert run[name][0] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    figure = run.plot(found)
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 6
    (scores,) = [axes for axes in figure.axes if axes.get_title().startswith("unbiased")]
    dashed = [line.get_ydata()[0] for line in scores.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed, [found.positive, found.negative, found.bias])


def test_figure_of_steps_from_zero(tmp_path):
    figure = filled((0, 1, 10)).plot()
    figure.savefig(tmp_path / "run.png")  # draws without a warning
    first = figure.axes[0]
    assert (first.get_xscale(), first.get_yscale(), first.get_xlim()) == ("symlog", "log", (0.0, 10.0))
    assert not figure.axes[-1].get_visible()


def add_from(loader, apply=lambda x: x):
    return lambda run: run.add_from(200, apply, loader, W, B)


BAD = np.where(np.arange(N)[:, None] == 9, np.nan, H)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda run: run.add(100, H, Y, W), "step = 100: must be more than 100, the last one"),
        (lambda run: run.add(np.nan, H, Y, W), "step = nan: must be one finite number"),
        (lambda run: run.add(200, BAD, Y, W), "step 200: features = 'NaN or inf in row 9': must be finite"),
        (lambda run: run.add(200, H, Y % 2, W), "step 200: labels = 'no sample of class 2'"),
        (add_from([]), "loader at step 200 = '0 batches': must be one that yields samples"),
        (add_from([(H, Y), (BAD[8:], Y[8:])]), "batch 1 at step 200: features = 'NaN or inf': must be finite"),
        (add_from([(H, Y), (H[:, :3], Y)]), "batch 1 at step 200: features.shape = (24, 3)"),
        (add_from([(H, Y[:5])]), "batch 0 at step 200: labels.shape = (5,)"),
        (add_from([(H, Y)], lambda x: x[0]), "batch 0 at step 200: features.shape = (5,)"),
        (add_from([H]), "batch 0 at step 200 = ndarray: must be a pair (inputs, labels)"),
        (lambda run: History().plot(), "history = 'no rows'"),
    ],
)
def test_what_is_refused(act, message):
    run = filled()
    with pytest.raises(ufm.InputError) as error:
        act(run)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert len(run) == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_a_file_that_is_none(tmp_path, content):
    path = tmp_path / "run.npz"
    path.write_bytes(content)
    with pytest.raises(ufm.InputError, match=r"must be a file of History\.save"):
        History.load(path)
    np.savez(path, step=[1.0])
    with pytest.raises(ufm.InputError, match=r"must be a file of History\.save"):
        History.load(path)
    np.savez(path, **{name: [1.0] * (1 + (name == "nc1")) for name in history.COLUMNS})
    with pytest.raises(ufm.InputError, match="differ in length"):
        History.load(path)


def test_an_unknown_column():
    with pytest.raises(KeyError, match="must be one of step, nc1"):
        filled()["nc5"]

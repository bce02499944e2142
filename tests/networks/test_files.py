"""Files of every format give the same numbers; damaged, lying and dangerous ones give one clear line."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

import ufm
from ufm import InputError
from ufm.networks import measurement
from ufm.networks.measurement import measure_file

K, D, N = 5, 8, 101


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(K), rng.integers(0, K, N - K)])
    W = rng.normal(size=(K, D))
    F = W[labels] + 0.5 * rng.normal(size=(N, D))
    return {"features": F, "labels": labels, "weight": W, "bias": rng.normal(size=K)}


@pytest.fixture(scope="module")
def truth(arrays):
    return ufm.measure(**arrays).to_dict()


def save(path, arrays, how):
    if how == "npz":
        np.savez(path, **arrays)
    elif how == "compressed":
        np.savez_compressed(path, **arrays)
    elif how == "fortran":
        np.savez(path, **{k: np.asfortranarray(v) for k, v in arrays.items()})
    elif how == "npy":
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    else:
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    return path


@pytest.mark.parametrize("how", ["npz", "compressed", "fortran", "npy", "safetensors"])
def test_every_format_in_small_blocks(how, arrays, truth, tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "BLOCK_BYTES", 7 * 8 * D)
    suffix = {"npy": "", "safetensors": ".safetensors"}.get(how, ".npz")
    found = measure_file(save(tmp_path / f"net{suffix}", arrays, how)).to_dict()
    for part in ("collapse", "accuracy"):
        for name, value in truth[part].items():
            assert found[part][name] == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_bfloat16_survives_every_format(arrays, tmp_path):
    """.npy keeps bfloat16 as two raw bytes; it is read back as what it was."""
    half = arrays | {"features": arrays["features"].astype(ml_dtypes.bfloat16)}
    direct = ufm.measure(**half).collapse.nc1
    for how, name in (("npz", "a.npz"), ("npy", "b"), ("safetensors", "c.safetensors")):
        assert measure_file(save(tmp_path / name, half, how)).collapse.nc1 == pytest.approx(direct)


def test_no_block_is_larger_than_asked(arrays, tmp_path):
    from ufm.networks.arrays import open_features

    for how, name in (("compressed", "a.npz"), ("npy", "b"), ("safetensors", "c.safetensors")):
        with open_features(save(tmp_path / name, arrays, how)) as (tables, _):
            blocks = list(tables["features"].read(30))
            assert [len(b) for b in blocks] == [30, 30, 30, 11]
            np.testing.assert_array_equal(np.concatenate(blocks), arrays["features"])


def npz_of(path, arrays, **replaced: bytes):
    """An .npz whose named members are the given bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", replaced.get(name, buffer.getvalue()))
    return path


def lying(shape, descr="<f8") -> bytes:
    """A .npy header that claims ``shape``, with ten numbers behind it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(80)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


DAMAGE = {
    "a header that claims more than there is": (lambda p, a: npz_of(p, a, features=lying((10**12, D))), "damaged"),
    "a negative size": (lambda p, a: npz_of(p, a, features=lying((-1, D))), "damaged|features"),
    "labels as long as a lie": (lambda p, a: npz_of(p, a, labels=lying((10**12,), "<i8")), "labels .*damaged"),
    "objects": (lambda p, a: npz_of(p, a, features=objects()), "pickles are refused"),
    "a structure": (lambda p, a: npz_of(p, a, features=lying((10,), [("x", "<f8")])), "real numbers"),
    "text for an array": (lambda p, a: npz_of(p, a, features=b"hello"), "npy format"),
    "a missing array": (lambda p, a: npz_of(p, {k: a[k] for k in ("features", "labels")}), "no weight"),
    "a pickle": (lambda p, a: p.write_bytes(pickle.dumps(a)), "not a zip archive"),
    "text": (lambda p, a: p.write_text("features, labels"), "a whole .npz file"),
    "an empty file": (lambda p, a: p.write_bytes(b""), "cut short"),
    "nothing": (lambda p, a: None, "existing"),
    "a cut file": (lambda p, a: p.write_bytes(npz_of(p, a).read_bytes()[:-900]), r"a whole \.npz file \(not a zip"),
    "flipped bytes": (lambda p, a: p.write_bytes(flip(npz_of(p, a).read_bytes())), "whole, readable"),
}


def flip(data: bytes) -> bytes:
    return data[:900] + bytes(x ^ 0x40 for x in data[900:910]) + data[910:]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_npz(damage, arrays, tmp_path):
    make, message = DAMAGE[damage]
    path = tmp_path / "net.npz"
    make(path, arrays)
    with pytest.raises(InputError, match=message) as caught:
        measure_file(path)
    assert "\n" not in str(caught.value)


def test_damaged_folder_and_safetensors(arrays, tmp_path):
    folder = save(tmp_path / "folder", arrays, "npy")
    (folder / "features.npy").write_bytes((folder / "features.npy").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"features.npy"):
        measure_file(folder)
    (folder / "features.npy").write_bytes(objects())
    with pytest.raises(InputError, match=r"features.npy"):
        measure_file(folder)
    tensors = save(tmp_path / "net.safetensors", arrays, "safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"whole \.safetensors"):
        measure_file(tensors)


FORMATS = {"npz": "net.npz", "npy": "net", "safetensors": "net.safetensors"}


@pytest.mark.parametrize("how", FORMATS)
def test_a_missing_array_shows_those_there_and_the_nearest(how, arrays, tmp_path):
    """Also where none of them has a name that is known."""
    named = {"h": "features", "y": "labels", "fc.weight": "weight", "fc.bias": "bias"}
    path = save(tmp_path / FORMATS[how], {name: arrays[key] for name, key in named.items()}, how)
    with pytest.raises(
        InputError, match=r"= 'fc\.bias, fc\.weight, h, y': must be features, labels.*\(no features, labels\)"
    ):
        measure_file(path)


def test_a_misspelt_array_is_named(arrays, tmp_path):
    path = tmp_path / "net.npz"
    np.savez(path, feature=arrays["features"], **{k: arrays[k] for k in ("labels", "weight")})
    with pytest.raises(InputError, match=r"no features; did you mean 'features' by 'feature'\?"):
        measure_file(path)
    np.savez(path, **{f"layer{i}": np.zeros(1) for i in range(20)})
    with pytest.raises(InputError, match="layer15 and 12 more'"):
        measure_file(path)


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("name", ["biases", "bais"])
def test_a_misspelt_bias_is_not_overlooked(how, name, arrays, tmp_path):
    free = {k: v for k, v in arrays.items() if k != "bias"}
    path = save(tmp_path / FORMATS[how], free | {name: arrays["bias"]}, how)
    with pytest.raises(InputError, match=f"did you mean 'bias' by '{name}'"):
        measure_file(path)


def text(found):
    """A measurement in words: NaN is equal to itself there."""
    return json.dumps({k: v for k, v in found.to_dict().items() if k not in ("source", "notes")})


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        ("weight", "Bias"),
        ("weight", "fc.bias"),
        ("W", "b"),
        ("weight", "b"),
        ("fc.weight", "fc.bias"),
        ("head.weight", "head.bias"),
        ("module.classifier.weight", "module.classifier.bias"),
        ("lm_head_weight", "lm_head_bias"),
        ("fc.weight", "bias"),
    ],
)
def test_the_last_layer_by_its_usual_names(weight, bias, arrays, tmp_path):
    """Beside arrays of other layers, whose shapes do not fit or whose layer is another."""
    rename = {"weight": weight, "bias": bias}
    others = {"conv.weight": np.zeros((3, 3, 3)), "conv.bias": np.zeros(K + 1)}
    if weight not in ("weight", "W"):
        others["other.bias"] = np.zeros(K)
    stored = {rename.get(name, name): array for name, array in arrays.items()} | others
    seen = []
    found = measure_file(save(tmp_path / "net.npz", stored, "npz"), told=seen.append)
    assert text(found) == text(ufm.measure(**arrays))
    (source,) = seen
    assert source == found.source
    assert source.read == {"features": "features", "labels": "labels", **rename}
    assert source.left == tuple(sorted(others))
    assert found.to_dict()["source"] == {"read": source.read, "left": sorted(others)}
    for role, name in rename.items():
        assert (role if name == role else f"{name!r} as {role}") in str(source)
    assert "left: conv.bias, conv.weight" in str(source)


def test_of_several_last_layers_none_is_guessed(arrays, tmp_path):
    path = tmp_path / "net.npz"
    free = {k: v for k, v in arrays.items() if k != "bias"}
    np.savez(path, **free, **{"a.bias": arrays["bias"], "b.bias": arrays["bias"]})
    with pytest.raises(InputError, match=r"bias in net\.npz = 'a\.bias, b\.bias': must be one array"):
        measure_file(path)
    weights = {"a.weight": arrays["weight"], "b.weight": arrays["weight"]}
    np.savez(path, features=arrays["features"], labels=arrays["labels"], **weights)
    with pytest.raises(InputError, match=r"weight in net\.npz = 'a\.weight, b\.weight': must be one array"):
        measure_file(path)
    weights["b.weight"] = np.zeros((K, D + 1))  # a hidden layer
    np.savez(path, features=arrays["features"], labels=arrays["labels"], **weights)
    assert measure_file(path).source.read["weight"] == "a.weight"
    # Of another shape than the labels ask for: named, not passed over.
    np.savez(path, features=arrays["features"], labels=arrays["labels"], W=arrays["weight"], b=np.zeros(K + 1))
    with pytest.raises(InputError, match=r"bias\.shape"):
        measure_file(path)


@pytest.mark.parametrize("shape", [(K,), (D, D), (3,), ()])
def test_a_basis_is_no_bias(shape, arrays, tmp_path):
    free = {k: v for k, v in arrays.items() if k != "bias"} | {"basis": np.zeros(shape)}
    np.savez(tmp_path / "net.npz", **free)
    found = measure_file(tmp_path / "net.npz")
    assert found.bias is None
    assert str(found.source) == "read: features, labels, weight; no bias; left: basis"


def tensors(path, arrays):
    """A .safetensors file, written by hand: arrays of (type, shape, bytes)."""
    header, data = {}, b""
    for name, (kind, shape, bits) in arrays.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(bits)]}
        data += bits
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_eight_bit_tensors(kind, arrays, tmp_path):
    """As they are in memory: through the floats of ml_dtypes, in blocks."""
    pytest.importorskip("safetensors")
    small = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}[kind]
    eight = {name: arrays[name].astype(small) for name in ("features", "weight")}
    stored = {name: (kind, list(x.shape), x.tobytes()) for name, x in eight.items()}
    stored["labels"] = ("I64", [N], arrays["labels"].tobytes())
    found = measure_file(tensors(tmp_path / "net.safetensors", stored))
    direct = ufm.measure(eight["features"], arrays["labels"], eight["weight"])
    assert text(found) == text(direct)
    wide = ufm.measure(eight["features"].astype(np.float32), arrays["labels"], eight["weight"].astype(np.float32))
    assert found.collapse == wide.collapse


@pytest.mark.parametrize("kind", ["F4", "C64", "BOOL"])
def test_tensors_that_are_no_numbers_of_whole_bytes(kind, tmp_path):
    pytest.importorskip("safetensors")
    bits = {"F4": 4, "C64": 64, "BOOL": 8}[kind]
    stored = {"features": (kind, [4, 2], bytes(8 * bits // 8))}
    stored |= {"labels": ("I64", [4], bytes(32)), "weight": ("F32", [2, 2], bytes(16))}
    with pytest.raises(InputError, match=rf"features\.dtype = '{kind}': must be one of F64.*F8_E4M3") as caught:
        measure_file(tensors(tmp_path / "net.safetensors", stored))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", FORMATS)
def test_other_arrays_are_ignored_and_named(how, arrays, truth, tmp_path):
    """Whatever they hold, and near a known name too where that name is there."""
    others = {"epoch": np.zeros(3), "biases": np.zeros(2, bool)}
    seen = []
    found = measure_file(save(tmp_path / FORMATS[how], arrays | others, how), told=seen.append)
    assert [source.left for source in seen] == [("biases", "epoch")]
    assert found.to_dict()["accuracy"] == truth["accuracy"]
    free = {k: v for k, v in arrays.items() if k != "bias"} | {"epoch": np.zeros(3)}
    assert measure_file(save(tmp_path / f"free-{FORMATS[how]}", free, how)).bias is None


def run(*arguments):
    command = [sys.executable, "-m", "ufm", "measure", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_line(arrays, truth, tmp_path):
    path = save(tmp_path / "net.npz", arrays | {"epoch": np.zeros(3)}, "npz")
    figure = tmp_path / "sheet.png"
    done = run(path, "--json", "--figure", figure)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"ufm: {path}: read: features, labels, weight, bias; left: epoch\n"
    found = json.loads(done.stdout)
    assert {"collapse", "accuracy", "threshold", "bias", "scores", "compactness", "distinctiveness"} <= set(found)
    assert set(found["accuracy"]) >= {"sample_wise", "class_wise", "uniform"}
    assert found["accuracy"] == pytest.approx(truth["accuracy"])
    assert found["nearest"]["ce"]["decay_b"] is None
    assert found["notes"]["nearest.ce.decay_b"] == "CE determines no bias"
    assert found["source"]["left"] == ["epoch"]
    assert figure.read_bytes()[:4] == b"\x89PNG"


def test_two_networks_side_by_side(arrays, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from ufm.cli import commands

    monkeypatch.setattr("ufm.cli.measure.use_jax", lambda: None)
    path = str(save(tmp_path / "net.npz", arrays, "npz"))
    both = CliRunner().invoke(commands, ["measure", "--compare", path, path])
    assert both.exit_code == 0, both.output
    assert both.stdout.count("net.npz") == 2
    assert "uniform accuracy" in both.stdout
    found = json.loads(CliRunner().invoke(commands, ["measure", "--json", "--compare", path, path]).stdout)
    assert [report["path"] for report in found["compare"]] == [path, path]
    one = CliRunner().invoke(commands, ["measure", path, path])
    assert isinstance(one.exception, InputError)


def full_disk(*arguments, **options):
    raise OSError("no space left on device")


def test_the_table_is_printed_before_the_figure_fails(arrays, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from ufm.cli import commands

    monkeypatch.setattr("ufm.cli.measure.use_jax", lambda: None)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full_disk)
    path = str(save(tmp_path / "net.npz", arrays, "npz"))
    done = CliRunner().invoke(commands, ["measure", path, "--figure", str(tmp_path / "a.PNG")])
    assert isinstance(done.exception, OSError)
    assert "uniform accuracy" in done.stdout


def test_command_line_says_what_is_wrong(arrays, tmp_path):
    path = npz_of(tmp_path / "net.npz", arrays, features=objects())
    done = run(path, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("ufm: features.dtype")


def test_without_safetensors_it_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    path.touch()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(InputError, match=r"needs `pip install safetensors`$"):
        measure_file(path)


def test_a_file_of_pytorch_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "net.pt"
    np.savez(tmp_path / "net", data=np.zeros(3))
    (tmp_path / "net.npz").rename(path)  # a zip archive, as torch.save writes
    with pytest.raises(InputError, match=r"safetensors\.torch\.save_file"):
        measure_file(path)

"""A sweep's directory after damage: the right answer, or one line that names the file.

``UFM_HOSTILE=10000`` sets the number of draws.
"""

import os
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ufm
from ufm.sweeps import load
from ufm.sweeps._store import Store

DRAWS = int(os.environ.get("UFM_HOSTILE", "60"))
PROBLEM = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01), features="per_class")
AXES = {"decay.W": [0.01, 0.1, 0.5, 1.0], "seed": [0, 1]}
RUNNING = int(ufm.Status.RUNNING)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished sweep of four chunks, its directory and its files' contents."""
    folder = tmp_path_factory.mktemp("sound") / "out"
    whole = ufm.sweep(PROBLEM, AXES, out=folder, chunk=2)
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) == 1 + 1 + 1 + 4
    return folder, whole, {name: content for name, content in files.items() if name.name != "lock"}


def one_line(error, names):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 300
    assert any(name in text for name in names), text


def flipped(content, data):
    bits = data.draw(st.lists(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=3, unique=True))
    changed = bytearray(content)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def cut(content, data):
    return content[: data.draw(st.integers(0, len(content) - 1))]


def grown(content, data):
    return content + data.draw(st.binary(min_size=1, max_size=40))


def replaced(content, data):
    start, length = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 64))
    return content[:start] + data.draw(st.binary(max_size=80)) + content[start + length :]


def check_load(folder, whole, manifest, changed):
    """All that is shown is what was computed, and what is not shown is named; or the load is refused."""
    try:
        found = load(folder)
    except ufm.InputError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 300 + len(str(folder)), text
        assert changed.name in text, text
        assert changed.suffix == ".json" or changed.name == "axes.npz"
        return
    kept = found["status"] != RUNNING
    for name in whole.data:
        np.testing.assert_array_equal(found[name][kept], whole[name][kept], err_msg=name)
    assert {name: coord.tolist() for name, coord in found.coords.items()} == {
        name: coord.tolist() for name, coord in whole.coords.items()
    }
    assert found.info.items() >= manifest.items()
    missing = len(found.info["progress"]["damaged"])
    assert missing == (1 if not kept.all() else 0)


@settings(max_examples=DRAWS)
@given(data=st.data())
def test_damage_of_any_file_is_seen(sound, data):
    folder, whole, files = sound
    manifest = Store(folder).manifest()
    name = data.draw(st.sampled_from(sorted(files)))
    change = data.draw(st.sampled_from([flipped, flipped, cut, grown, replaced]))
    content = change(files[name], data)
    path = folder / name
    try:
        path.write_bytes(content)
        check_load(folder, whole, manifest, path)
    finally:
        path.write_bytes(files[name])


@settings(max_examples=max(5, DRAWS // 20))
@given(data=st.data())
def test_resume_heals_or_says_how(sound, tmp_path_factory, data):
    folder, whole, files = sound
    here = tmp_path_factory.mktemp("here") / "out"
    shutil.copytree(folder, here)
    for name in data.draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=3, unique=True)):
        (here / name).write_bytes(data.draw(st.sampled_from([flipped, cut]))(files[name], data))
    changed = [name for name in files if (here / name).read_bytes() != files[name]]
    refused = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            ufm.sweep(PROBLEM, AXES, out=here, resume=True)
        except ufm.InputError as error:
            refused = str(error)
            (here / "manifest.json").unlink()
            ufm.sweep(PROBLEM, AXES, out=here, resume=True)
    if refused is not None:
        assert "manifest.json: " in refused
        assert "delete it and sweep again with --resume" in refused or "another version" in refused
    found = load(here)
    for quantity in whole.data:
        np.testing.assert_array_equal(found[quantity], whole[quantity], err_msg=quantity)
    chunks = [str(name) for name in changed if name.parts[0] == "chunks"]
    assert all(any(name in str(one.message) for one in said) for name in chunks)
    shutil.rmtree(here.parent)


HOSTILE = {
    "another format": b'{"format": 3, "sha256": ""}',
    "no object": b"[1, 2]",
    "a number": b"7",
    "nothing": b"",
    "zeros": bytes(1000),
    "no text": b"\xff\xfe\x00",
    "nested 100,000 deep": b"[" * 100_000,
    "deep inside": b'{"format": 2, "x": ' + b"[" * 900 + b"]" * 900 + b"}",
    "an integer of 5,000 digits": b'{"format": ' + b"7" * 5000 + b"}",
    "infinite": b'{"format": Infinity}',
    "a format that is a list": b'{"format": [[[1]]]}',
    "no digest": b'{"format": 2, "chunks": 1000000000, "chunk_lanes": [-16, -16]}',
    "a digest that is none": b'{"format": 2, "sha256": null, "chunks": 1e9}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_that_is_none(name, tmp_path):
    (tmp_path / "manifest.json").write_bytes(HOSTILE[name])
    for refused in (lambda: load(tmp_path), lambda: ufm.sweep(PROBLEM, AXES, out=tmp_path, resume=True)):
        with pytest.raises(
            ufm.InputError, match=r"manifest\.json: (must be the manifest|format = 3: must be 2)"
        ) as error:
            refused()
        one_line(error, ["damaged; delete it", "another version"])


def test_what_is_no_file_is_not_read(sound, tmp_path):
    """Neither waits for a writer of a pipe nor reads a device for ever."""
    folder, _, _ = sound
    here = tmp_path / "out"
    shutil.copytree(folder, here)
    (here / "chunks" / "00000.npz").unlink()
    os.mkfifo(here / "chunks" / "00000.npz")
    (here / "chunks" / "00001.npz").unlink()
    (here / "chunks" / "00001.npz").symlink_to("/dev/zero")
    (here / "chunks" / "notes.npz").write_bytes(b"?")
    found = load(here)
    assert found.info["progress"]["damaged"] == [0, 1]
    (here / "manifest.json").unlink()
    os.mkfifo(here / "manifest.json")
    with pytest.raises(ufm.InputError, match=r"no manifest\.json"):
        load(here)


def test_a_directory_that_no_system_can_name():
    for refused in (lambda: ufm.sweep(PROBLEM, AXES, out="a\0b"), lambda: load("a\0b")):
        with pytest.raises(ufm.InputError, match=r"^out = 'a\\x00b': must be the name of a directory$"):
            refused()

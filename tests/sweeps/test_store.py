"""Nothing lost, nothing damaged believed: the directory of a sweep, and the command that writes it."""

import errno
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import ufm
from ufm._files import sealed_arrays
from ufm._provenance import host
from ufm.sweeps import _engine, load, read_spec, spec_names
from ufm.sweeps._store import Store

SPEC = """
title = "small"
[problem]
classes = 3
dim = 4
per_class = 5
features = "per_class"
bias = "none"
[solver]
name = "sgd:lr=0.5,momentum=0.5"
tol = 1e-3
max_steps = 300
record_every = 100
record = ["positive"]
[axes]
"decay.W,decay.H" = {log = [1e-3, 1.0, 9]}
seed = {range = [0, 5]}
"""
AXES = {"decay.W": [0.01, 0.1, 1.0], "seed": [0, 1]}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "small.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def whole(spec):
    """The uninterrupted sweep, on the one device of this process."""
    return ufm.sweep(**read_spec(spec))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "UFM_COMPILE_CACHE": cache}


def start(environment, *arguments):
    command = [sys.executable, "-m", "ufm", "sweep", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_chunks(process, directory, count, timeout=120):
    until = time.monotonic() + timeout
    while len(list(directory.glob("chunks/*.npz"))) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)


def same(found, whole):
    assert set(found.data) == set(whole.data)
    for name in whole.data:
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-9, atol=1e-12, err_msg=name)


def run(found, out, **options):
    arguments = read_spec(found)
    arguments["axes"] = AXES
    return ufm.sweep(**(arguments | options), out=out, chunk=2)


def test_engines_agree(spec, whole, monkeypatch):
    """Narrow batches that are refilled and then shrink; every lane must come back to its place."""
    assert len(set(whole["steps"].ravel().tolist())) > 10
    monkeypatch.setitem(_engine.WIDTH, "cpu", 8)
    monkeypatch.setattr(_engine, "NARROWER", 4)
    batch = ufm.sweep(**read_spec(spec), engine="batch")
    assert batch.info["engine"] == "batch"
    same(batch, whole)
    assert 0.3 < batch.info["useful"] < 1.0
    assert whole.info["useful"] == 1.0  # one device: nothing waits


def test_interrupted_killed_and_torn_on_four_devices_equals_uninterrupted_on_one(spec, whole, environment, tmp_path):
    out = tmp_path / "out"
    options = [spec, "--out", out, "--chunk", "3", "--devices", "4"]
    process = start(environment, *options)
    wait_for_chunks(process, out, 1)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 130, messages
    assert f"kept in {out}; the same command with --resume goes on" in messages
    chunks = sorted(out.glob("chunks/*.npz"))
    assert 1 <= len(chunks) < 15

    process = start(environment, *options, "--resume")
    wait_for_chunks(process, out, len(chunks) + 3)
    process.kill()
    process.communicate(timeout=120)
    torn = chunks[0].read_bytes()
    chunks[0].write_bytes(torn[: len(torn) // 2])
    # As a kill in the middle of a write leaves it: the process is gone.
    (out / "chunks" / f"00007.npz.{host()}.{process.pid}.partial").write_bytes(b"half")

    process = start(environment, *options, "--resume", "--json")
    stdout, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    report = json.loads(stdout)
    assert report["lanes"] == 45
    assert report["status"] == whole.statuses
    assert report["devices"] == 4
    assert chunks[0].read_bytes() == torn
    assert not list(out.rglob("*.partial"))
    same(load(out), whole)


@pytest.mark.slow
def test_killed_at_random_twenty_times(spec, whole, environment, tmp_path):
    out, rng, kills = tmp_path / "out", random.Random(0), 0
    options = [spec, "--out", out, "--chunk", "1", "--devices", "1", "--resume"]
    wait_for_chunks(
        warm := start(environment, *options[:1], "--out", tmp_path / "warm", *options[3:]), tmp_path / "x", 1
    )
    warm.communicate(timeout=120)
    while kills < 20:
        process = start(environment, *options)
        # Anywhere: while Python starts, while JAX loads the program, inside a chunk, inside a write.
        before = len(list(out.glob("chunks/*.npz")))
        if rng.random() < 0.3:
            time.sleep(rng.uniform(0.0, 4.0))
        else:
            wait_for_chunks(process, out, before + rng.randint(1, 2))
            time.sleep(rng.uniform(0.0, 0.02))
        kills += process.poll() is None
        process.kill()
        process.communicate(timeout=60)
        if len(list(out.glob("chunks/*.npz"))) > 40:
            for path in rng.sample(sorted(out.glob("chunks/*.npz")), 20):
                path.unlink()
    process = start(environment, *options)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    same(load(out), whole)


PEAK = """
import resource, sys, jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
import ufm
problem = ufm.Problem(10, 64, 200, decay=ufm.Decay(5e-3, 5e-3, 5e-3))
found = ufm.sweep(problem, {"seed": range(64)}, options={"max_steps": 2}, memory=1.5e9, engine="batch")
print(found.info["chunk_lanes"][0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_peak_memory_is_within_the_budget(environment):
    """64 pools of 2 MB each and their temporaries would take more than the budget at once: they go in chunks."""
    result = subprocess.run([sys.executable, "-c", PEAK], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lanes, peak = map(float, result.stdout.split())
    assert 2 <= lanes < 64
    assert peak < 1.5e9


def test_damage_is_found_and_mended(spec, tmp_path):
    out = tmp_path / "out"
    first = run(spec, out)
    chunks = sorted(out.glob("chunks/*.npz"))
    assert len(chunks) == 3
    kept = [path.read_bytes() for path in chunks]
    # Tampered; torn; one chunk in the place of another, digest and all.
    chunks[0].write_bytes(kept[0].replace(kept[0][200:204], b"\x00\x01\x02\x03", 1))
    chunks[1].write_bytes(kept[1][:-1])
    chunks[2].write_bytes(kept[1])
    damaged = load(out)
    assert int((damaged["status"] == ufm.Status.RUNNING).sum()) >= 4
    assert damaged.info["progress"]["damaged"] == [0, 1]
    with pytest.warns(UserWarning, match=r"3 damaged files were made again: chunks/00000\.npz, chunks/00001\.npz"):
        again = run(spec, out, resume=True)
    assert [path.read_bytes() for path in chunks] == kept
    same(again, first)


def test_pickled_arrays_are_not_read(tmp_path):
    store = Store(tmp_path)
    tags = {"fingerprint": np.array("x"), "lanes": np.arange(2), "made": np.array("{}")}
    store.write_arrays("chunks/00000.npz", tags)
    assert store.chunk(0, "x", np.arange(2)).arrays == {}
    assert store.chunk(0, "y", np.arange(2)) is None
    assert store.chunk(0, "x", np.arange(3)) is None
    assert store.chunk(1, "x") is None
    with pytest.raises(ValueError, match="allow_pickle"):
        sealed_arrays({"evil": np.array([{}], object)})
    buffer = io.BytesIO()
    np.savez(buffer, evil=np.array([{}], object))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(64)
    body = buffer.getvalue()[:-64]
    store.write("evil.npz", body + hashlib.sha256(body).hexdigest().encode())
    assert store.read_arrays("evil.npz") is None


def test_a_full_disk_names_the_directory_and_keeps_what_is_done(spec, tmp_path, monkeypatch):
    out, sync, calls = tmp_path / "out", os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 7:  # axes, manifest and a chunk take two each
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="1 finished chunks are kept") as error:
            run(spec, out)
    assert error.value.filename == str(out)
    assert not list(out.rglob("*.partial"))
    assert sorted(p.name for p in out.glob("chunks/*")) == ["00000.npz"]
    assert run(spec, out, resume=True).info["chunks"] == 3


def test_a_second_run_another_sweep_and_a_fresh_start_are_refused(spec, tmp_path):
    out = tmp_path / "out"
    with Store(out).held(), pytest.raises(ufm.InputError, match="no other sweep is writing"):
        run(spec, out)
    run(spec, out, resume=True)  # nothing there yet: begins
    with pytest.raises(ufm.InputError, match="--resume"):
        run(spec, out)
    with pytest.raises(ufm.InputError, match="other values"):
        run(spec, out, resume=True, seed=0, bias_mean=1.0)
    # A step size that optax hides in a closure.
    with pytest.raises(ufm.InputError, match="other values"):
        run(spec, out, resume=True, solver="sgd:lr=0.4,momentum=0.5")
    with pytest.raises(ufm.InputError, match=r"no manifest\.json"):
        load(tmp_path)


def test_a_callback_that_raises_loses_nothing(spec, tmp_path):
    def stop(done, failed, total):
        assert (failed, total) == (0, 6)
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path, progress=stop)
    found = load(tmp_path)
    assert found.statuses["running"] == 4
    assert np.isnan(found["value"]).sum() == 4


BAD = [
    ("[problem]\nclasses = \n", "line 2"),
    ("[problem]\nclases = 3\n[axes]\nseed = [0]", "clases.*did you mean 'classes'"),
    ("[axes]\n'decay.x' = [1.0]", "did you mean 'decay"),
    ("[axis]\nseed = [0]", "axis.*did you mean 'axes'"),
    ("[problem]\nclasses = 3", r"one of \[axes\] and \[\[lanes\]\]"),
    ("[problem]\nloss = 'bcee'\n[axes]\nseed = [0]", "did you mean 'bce'"),
    ("[problem]\ndecay = {w = 1.0}\n[axes]\nseed = [0]", "decay = 'w'"),
    ("[solver]\nname = 'newton'\nrecord_every = 3\n[axes]\nseed = [0]", "only gradient methods"),
    ("[start]\nsed = 1\n[axes]\nseed = [0]", "did you mean 'seed'"),
    ("[axes]\nseed = {logg = [1, 2, 3]}", "did you mean 'log'"),
    ("[axes]\nseed = {log = [1, 2]}", r"\[first, last, points\]"),
    ("lanes = 3", "lanes = 3"),
    ("lanes = [3]", r"lanes = \[3\]"),
    ("axes = 3", "axes = 3"),
    ("dtype = 'half'\n[axes]\nseed = [0]", "dtype = 'half'"),
    ("[solver]\ntol = 'x'\n[axes]\nseed = [0]", "tol = 'x'"),
    ("[solver]\nname = 3\n[axes]\nseed = [0]", "solver"),
    ("[solver]\nname = 'sgd'\nrecord = ['bais']\n[axes]\nseed = [0]", "did you mean 'bias'"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_spec_names_its_line_or_key(text, message, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ufm.InputError, match=message):
        ufm.sweep(**read_spec(path))


def test_shipped_specs_read_and_an_unknown_one_is_refused():
    assert spec_names() == ["bias-decay", "initial-bias"]
    for name in spec_names():
        assert read_spec(name)["title"]
    with pytest.raises(ufm.InputError, match="did you mean 'bias-decay'"):
        read_spec("bias-decey")

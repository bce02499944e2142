"""Shards: processes that share a directory and nothing else, in any number, order and state of health."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

import ufm
from ufm import _provenance
from ufm._provenance import host
from ufm.cli import commands
from ufm.sweeps import _store, load
from ufm.sweeps._state import chunk_sizes, state
from ufm.sweeps._store import Store

PROBLEM = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01), features="per_class")
AXES = {"decay.W": np.geomspace(0.01, 1.0, 9).tolist(), "seed": [0, 1]}
SPEC = """
[problem]
loss = "ce"
classes = 3
dim = 4
per_class = 5
features = "per_class"
decay = {W = 0.01, H = 0.01, b = 0.01}
[axes]
"decay.W" = {log = [0.01, 1.0, 9]}
seed = [0, 1]
"""
NO_LOCKS = """
import errno, fcntl
def refused(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = refused
"""


@pytest.fixture(scope="module")
def whole():
    return ufm.sweep(PROBLEM, AXES)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "spec.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "JAX_PLATFORMS": "cpu", "UFM_COMPILE_CACHE": cache}


def bit_for_bit(found, whole):
    assert set(found.data) == set(whole.data)
    for name in whole.data:
        np.testing.assert_array_equal(found[name], whole[name], err_msg=name)


QUICK = """
import os, sys
import jax, ufm.cli
def use_jax():  # programs compiled as the tests' own, which compares digits and saves half a minute
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", os.environ["UFM_COMPILE_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
sys.modules["ufm.cli.sweep"].use_jax = use_jax
"""


def process(environment, *arguments, before=""):
    code = f"{before}{QUICK}ufm.cli.main()"
    command = [sys.executable, "-c", code, "sweep", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_any_shards_in_any_order_are_the_whole_bit_for_bit(whole, tmp_path):
    """Two of three shards, then one of two, then the rest alone; no chunk is solved twice."""
    for shard in ((2, 3), (0, 3), (1, 2)):
        part = ufm.sweep(PROBLEM, AXES, out=tmp_path, shard=shard)
        own = part["status"] != ufm.Status.RUNNING
        for name in whole.data:
            np.testing.assert_array_equal(part[name][own], whole[name][own], err_msg=name)
        assert part.statuses["running"] > 0
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("chunks/*.npz")}
    assert len(times) == 18 - 3  # numbers 4, 10, 16 are 1 modulo 3 and even: nobody's yet
    assert load(tmp_path).statuses["running"] == 3
    bit_for_bit(ufm.sweep(PROBLEM, AXES, out=tmp_path, resume=True), whole)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    bit_for_bit(load(tmp_path), whole)


def test_a_chunk_is_an_eighth_of_a_shards_share_at_most(tmp_path):
    axes = {"seed": range(100), "loss": ["ce", "bce"]}
    stop = pytest.raises(KeyboardInterrupt)

    def interrupt(*_):
        raise KeyboardInterrupt

    with stop:
        ufm.sweep(PROBLEM, axes, out=tmp_path, shard=(1, 3), progress=interrupt)
    manifest = Store(tmp_path).manifest()
    assert manifest["chunk_lanes"] == [8, 8]
    assert manifest["chunks"] == 26
    assert chunk_sizes(manifest["group_lanes"], manifest["chunk_lanes"]).sum() == 200
    assert [path.name for path in tmp_path.glob("chunks/*")] == ["00001.npz"]


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ((3, 3), r"^shard = '3/3': must be 0/3 to 2/3$"),
        ((0, 0), "^number of shards = 0: must be a whole number >= 1$"),
        ((-1, 2), "^shard = -1: must be a whole number >= 0$"),
        ((0.0, 2), "^shard = 0.0: must be a whole number"),
        ((True, 2), "^shard = True: must be a whole number"),
        (3, "^shard = 3: must be two whole numbers"),
        ((1, 2, 3), r"^shard = \(1, 2, 3\): must be two whole numbers"),
    ],
)
def test_a_share_that_is_none(shard, message, tmp_path):
    with pytest.raises(ufm.InputError, match=message):
        ufm.sweep(PROBLEM, AXES, out=tmp_path, shard=shard)
    assert not list(tmp_path.iterdir())


def test_a_shard_needs_a_directory_of_the_same_sweep(tmp_path):
    with pytest.raises(ufm.InputError, match=r"^out = None: must be a directory"):
        ufm.sweep(PROBLEM, AXES, shard=(0, 2))
    ufm.sweep(PROBLEM, {"seed": [0]}, out=tmp_path)
    with pytest.raises(ufm.InputError, match="other values"):
        ufm.sweep(PROBLEM, AXES, out=tmp_path, shard=(0, 2))
    (tmp_path / "manifest.json").unlink()  # the chunks remember
    with pytest.raises(ufm.InputError, match="other values"):
        ufm.sweep(PROBLEM, AXES, out=tmp_path, shard=(0, 2))


def test_shards_share_the_directory_and_a_sweep_of_its_own_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "JOINING", 0.2)
    store = Store(tmp_path)
    with store.held(shared=True):
        with Store(tmp_path).held(shared=True):
            pass
        with pytest.raises(ufm.InputError, match="--shard I/N"), store.held():
            pass
    with store.held(), pytest.raises(ufm.InputError, match="--shard I/N"), Store(tmp_path).held(shared=True):
        pass


def test_one_manifest_of_many_is_the_manifest(tmp_path, monkeypatch):
    """Also where a file system has no hard links."""
    for links in (True, False):
        folder = tmp_path / str(links)
        if not links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
        for title in ("first", "second"):
            Store(folder).begin({"title": title})
        assert Store(folder).manifest()["title"] == "first"
        assert [path.name for path in folder.iterdir()] == ["manifest.json"]


def test_partial_files_of_the_living_and_of_other_hosts_are_spared(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "chunks").mkdir()
    living, dead = f"00001.npz.{host()}.{os.getppid()}.partial", f"00002.npz.{host()}.{gone.pid}.partial"
    other, late = "00003.npz.node-7.example.org.123.partial", "00004.npz.node-7.example.org.124.partial"
    for name in (living, dead, other, late):
        (tmp_path / "chunks" / name).write_bytes(b"half")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(tmp_path / "chunks" / late, (two_days_ago, two_days_ago))
    Store(tmp_path).clear()
    assert {path.name for path in tmp_path.glob("chunks/*")} == {living, other}


def test_a_deleted_manifest_is_written_again_and_nothing_is_lost(whole, tmp_path):
    ufm.sweep(PROBLEM, AXES, out=tmp_path, chunk=5)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("chunks/*.npz")}
    manifest = (tmp_path / "manifest.json").read_bytes()
    for cut in (0, 1, len(manifest) // 2, len(manifest) - 5):
        (tmp_path / "manifest.json").write_bytes(manifest[:cut])
        for refused in (lambda: load(tmp_path), lambda: ufm.sweep(PROBLEM, AXES, out=tmp_path, resume=True)):
            with pytest.raises(ufm.InputError, match=r"damaged; delete it and sweep again with --resume: the chunks"):
                refused()
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ufm.InputError, match="--resume"):
        ufm.sweep(PROBLEM, AXES, out=tmp_path)
    ufm.sweep(PROBLEM, AXES, out=tmp_path, resume=True, chunk=3)  # as another machine would cut it
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list(tmp_path.glob("chunks/*"))) == len(times)
    bit_for_bit(load(tmp_path), whole)


def test_another_sweeps_axes_are_refused_and_mended(whole, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    ufm.sweep(PROBLEM, AXES, out=here)
    ufm.sweep(PROBLEM, {**AXES, "seed": [0, 5]}, out=there)
    shutil.copy(there / "axes.npz", here / "axes.npz")
    with pytest.raises(ufm.InputError, match=r"^axes\.npz = .*: must be undamaged and of this sweep"):
        load(here)
    with pytest.warns(UserWarning, match=r"^a damaged file was made again: axes\.npz$"):
        ufm.sweep(PROBLEM, AXES, out=here, resume=True)
    bit_for_bit(load(here), whole)


def test_another_version_is_said_and_its_lanes_are_known(whole, tmp_path, monkeypatch):
    ufm.sweep(PROBLEM, AXES, out=tmp_path, shard=(0, 2))
    now = _provenance.solved_with("cpu")
    assert load(tmp_path).info["solved_with"] == [{**now, "lanes": 9, "chunks": "0, 2, 4, 6, 8, 10, 12, 14, 16"}]
    monkeypatch.setattr(_provenance, "__version__", "9.9")
    with pytest.warns(UserWarning, match=rf"begun with ufm {ufm.__version__} \(now 9\.9\); digits may differ"):
        ufm.sweep(PROBLEM, AXES, out=tmp_path, shard=(1, 2))
    found = load(tmp_path)
    assert [origin["ufm"] for origin in found.info["solved_with"]] == [ufm.__version__, "9.9"]
    assert sorted(found["origin"].ravel().tolist()) == [0] * 9 + [1] * 9
    assert found.table()["origin"] == found["origin"].ravel().tolist()
    assert "origin" not in found.summary()["ranges"]
    np.testing.assert_array_equal(found["value"], whole["value"])


def test_rates_and_time_left_are_those_of_the_slowest_shard():
    """Shard 0 finished 2 lanes in 1 s and has 2 left; shard 1 needed 4 s for 2, and 1 lane of the 3 left failed."""
    sizes = {"group_lanes": [9], "chunk_lanes": [1]}
    failed, fine = int(ufm.Status.NONFINITE), int(ufm.Status.CONVERGED)

    def chunk(number, finished, status=fine):
        made = {"with": {"ufm": "1"}, "host": "h", "shard": f"{number % 2}/2"}
        return _store.Chunk(number, np.array([number]), {"status": np.array([status])}, made, finished)

    chunks = [chunk(0, 10.0), chunk(2, 10.5), chunk(4, 11.0), chunk(1, 10.0), chunk(3, 14.0, failed)]
    progress = state(sizes, chunks, [])["progress"]
    first, second = progress["shards"]
    assert (first["lanes"], first["done"], first["rate"], first["left"]) == (5, 3, 2.0, 1.0)
    assert (second["lanes"], second["done"], second["rate"], second["left"]) == (4, 2, 0.25, 8.0)
    assert (progress["done"], progress["failed"], progress["rate"], progress["left"]) == (5, 1, 2.25, 8.0)
    nothing = state(sizes, [], [])["progress"]
    assert (nothing["done"], nothing["rate"], nothing["left"]) == (0, None, None)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_after_the_chunk_in_hand(number, status, spec, environment, tmp_path):
    """Sent by the sweep to itself while its first chunk is being solved."""
    before = f"""
import os
from ufm.sweeps import _engine
solve = _engine.Engine.solve
def signalled(*arguments):
    os.kill(os.getpid(), {int(number)})
    return solve(*arguments)
_engine.Engine.solve = signalled
"""
    one = process(environment, spec, "--out", tmp_path, "--shard", "0/2", "--devices", "1", before=before)
    _, messages = one.communicate(timeout=120)
    assert one.returncode == status, messages
    assert "stopping after this chunk" in messages
    assert f"kept in {tmp_path}; the same command with --resume goes on" in messages
    assert [path.name for path in tmp_path.glob("chunks/*")] == ["00000.npz"]
    assert load(tmp_path).statuses == {"running": 17, "converged": 1}


def test_two_processes_without_locks_write_one_sweep(spec, whole, environment, tmp_path):
    """Both solve all chunks at once, on a file system that refuses locks."""
    arguments = [spec, "--out", tmp_path / "out", "--shard", "0/1", "--devices", "1", "--json"]
    both = [process(environment, *arguments, before=NO_LOCKS) for _ in range(2)]
    results = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [0, 0], results
    assert all(json.loads(out)["status"] == {"converged": 18} for out, _ in results)
    assert not list(tmp_path.rglob("*.partial"))
    bit_for_bit(load(tmp_path / "out"), whole)


def test_show_says_how_far_each_shard_is(tmp_path, monkeypatch):
    """Shard 2 has not begun, and a chunk of shard 0 is damaged."""
    for i in (0, 1):
        ufm.sweep(PROBLEM, AXES, out=tmp_path, shard=(i, 3))
    chunk = tmp_path / "chunks" / "00003.npz"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    monkeypatch.setattr("ufm.cli.sweep.use_jax", lambda: None)
    shown = CliRunner().invoke(commands, ["show", str(tmp_path)]).stdout
    assert "11 of 18 lanes done, 0 failed; " in shown
    assert "1 damaged chunks; sweep again with --resume to mend them" in shown
    rows = [line.split()[:5] for line in shown.splitlines() if re.match(r" \d/3 ", line)]
    assert rows[:2] == [["0/3", host(), "5/6", "5/6", "0"], ["1/3", host(), "6/6", "6/6", "0"]]
    assert rows[2][:3] == ["2/3", "0/6", "0/6"]
    progress = json.loads(CliRunner().invoke(commands, ["show", str(tmp_path), "--json"]).stdout)["progress"]
    assert (progress["done"], progress["damaged"]) == (11, [3])
    assert [shard["chunks_done"] for shard in progress["shards"]] == [5, 6, 0]
    assert progress["left"] > 0
    with pytest.warns(UserWarning, match=r"a damaged file was made again: chunks/00003\.npz"):
        ufm.sweep(PROBLEM, AXES, out=tmp_path, resume=True)
    assert "lanes done" not in CliRunner().invoke(commands, ["show", str(tmp_path)]).stdout

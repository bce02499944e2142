"""Shards that die and are run again, against one process; and how a million lanes are cut for a cluster.

    python benchmarks/bench_shards.py [--shards 8] [--kills 4] [--lanes 4096] [--seed 0] [--capacity]

Starts every shard as a process of its own on one directory, kills ``--kills`` of them with SIGKILL at random moments,
runs those again, and compares every number of every lane with a run of one process, bit for bit. ``--capacity`` prints
the chunks of 10^6 lanes for 8 nodes of 4 devices instead; nothing is solved.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SPEC = """
[problem]
loss = "bce"
classes = 10
dim = 15
per_class = 10
decay = {{W = 5e-3, H = 5e-3, b = 5e-3}}
[axes]
"decay.b" = {{log = [1e-4, 1.0, {points}]}}
seed = {{range = [0, 8]}}
"""


def start(spec: Path, out: Path, *options: str) -> subprocess.Popen:
    """A process that sweeps ``spec`` into ``out``."""
    command = [
        sys.executable,
        "-m",
        "ufm",
        "sweep",
        str(spec),
        "--out",
        str(out),
        "--devices",
        "1",
        "--chunk",
        "8",
        *options,
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed_shards(shards: int, kills: int, lanes: int, seed: int) -> None:
    """The run with deaths, beside the one without."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from ufm import sweeps

    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["UFM_COMPILE_CACHE"] = str(work / "cache")
        spec = work / "spec.toml"
        spec.write_text(SPEC.format(points=lanes // 8))
        began = time.monotonic()
        assert start(spec, work / "alone").wait() == 0
        seconds = time.monotonic() - began
        print(f"one process: {lanes} lanes in {seconds:.1f} s")
        out = work / "shared"
        share = [f"{i}/{shards}" for i in range(shards)]
        began = time.monotonic()
        running = {one: start(spec, out, "--resume", "--shard", one) for one in share}
        done = lambda: len(list(out.glob("chunks/*.npz")))  # noqa: E731
        unharmed = set(share)
        # From the start of Python to the last chunk: one victim by the clock, the others by chunks done.
        for i in range(kills):
            if i == 0:
                time.sleep(rng.uniform(0.0, 0.5 * seconds))
            else:
                target = done() + rng.randint(1, 2 * shards)
                while done() < target and any(process.poll() is None for process in running.values()):
                    time.sleep(rng.uniform(0.0, 0.01))
            alive = sorted(one for one in unharmed if running[one].poll() is None)
            if not alive:
                break
            one = rng.choice(alive)
            unharmed.remove(one)
            running[one].send_signal(signal.SIGKILL)
            status = running[one].wait()
            print(f"  shard {one} ended with {status} after {time.monotonic() - began:.1f} s, {done()} chunks there")
            running[one] = start(spec, out, "--resume", "--shard", one)
        statuses = [process.wait() for process in running.values()]
        print(f"{shards} shards: {time.monotonic() - began:.1f} s, statuses {statuses}")
        found, alone = sweeps.load(out), sweeps.load(work / "alone")
        differ = [n for n in alone.data if not np.array_equal(found[n], alone[n], equal_nan=True)]
        partial = [path.name for path in out.rglob("*.partial")]
        print(f"{found.info['chunks']} chunks, {found.statuses}; quantities that differ in any bit: {differ or 'none'}")
        print(f"half-written files left: {partial or 'none'}")


def capacity() -> None:
    """The table of chunks, for devices that need not be there."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import ufm
    from ufm.sweeps._axes import plan
    from ufm.sweeps._engine import Engine, Task
    from ufm.sweeps._run import most_lanes
    from ufm.sweeps._state import chunk_sizes

    axes = {"decay.b": np.geomspace(1e-6, 1.0, 1000), "seed": range(1000)}
    rows = [
        ("32 shards of a GPU, 80 GB", "gpu", 1, 0.25 * 80e9, 32),
        ("8 shards of 4 GPUs, 80 GB", "gpu", 4, 0.25 * 80e9, 8),
        ("8 shards of 4 TPU chips, 16 GB", "tpu", 4, 0.25 * 16e9, 8),
        ("8 shards of 4 CPU devices, 64 GB", "cpu", 4, 0.25 * 64e9, 8),
        ("no shards, 4 GPUs, 80 GB", "gpu", 4, 0.25 * 80e9, 1),
    ]
    print("| problem | processes | lanes a chunk | chunks | lanes of a shard, least to most | lost by a kill |")
    print("|---|---|---|---|---|---|")
    for features in ("per_class", "per_sample"):
        problem = ufm.Problem(10, 64, 50, ufm.losses.BCE(), ufm.Decay(5e-4, 5e-4, 5e-4), features=features)
        eliminate = features == "per_class"
        layout = plan(problem, axes, None, {"seed": 0, "scale": 1.0, "bias_mean": 0.0}, np.float64, eliminate=eliminate)
        (group,) = layout.groups
        task = Task(group.solver, np.dtype(np.float64), None, eliminate)
        for words, platform, devices, memory, shards in rows:
            engine = Engine("scan" if platform == "cpu" else "batch")
            engine.size, engine.platform = devices, platform
            most = layout.lanes if shards == 1 else most_lanes(layout.lanes, shards, devices)
            size = min(engine.capacity(group, task, memory, most), most)
            sizes = chunk_sizes([layout.lanes], [size])
            shares = [int(sizes[i::shards].sum()) for i in range(shards)]
            lost = f"{100 * size / max(shares):.1f} % of a share"
            print(
                f"| K=10 d=64 n=50 {features} | {words} | {size} | {len(sizes)} | {min(shares)} to {max(shares)} "
                f"| {lost} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--lanes", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--capacity", action="store_true")
    given = parser.parse_args()
    if given.capacity:
        capacity()
    else:
        killed_shards(given.shards, given.kills, given.lanes, given.seed)

"""How the objective scales: against bare matrix products, over blocks, in N, d and K, and at start-up.

    python benchmarks/bench_scale.py [--large] [--figure growth.png]

Ratios are of medians, measured in turn within one run. ``--large`` adds K=10,000 (a minute and 3 GB).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ufm
from ufm import blocks


def clock(functions, repeats):
    """Median seconds of each function of no arguments, run in turn; the first round is not counted."""
    times = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            if repeat:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(t) for name, t in times.items()}


def float32_point(problem):
    """A random point made by NumPy, so that JAX holds nothing else."""
    rng, K, d, N = np.random.default_rng(0), problem.classes, problem.dim, problem.columns
    W = rng.standard_normal((K, d), np.float32) / np.float32(d**0.5)
    H = rng.standard_normal((d, N), np.float32) / np.float32(d**0.5)
    return ufm.Params(jnp.asarray(W), jnp.asarray(H), jnp.zeros(K, jnp.float32))


def against_products(loss):
    """Value and gradient over the three matrix products in it, K=1000, d=512, N=20,000, float32."""
    problem = ufm.Problem(1000, 512, 20, loss)
    point = float32_point(problem)
    U = jnp.ones((1000, problem.columns), jnp.float32)
    whole = jax.jit(jax.value_and_grad(problem.objective))
    products = jax.jit(lambda W, H, U: (W @ H, U @ H.T, W.T @ U))
    t = clock({"whole": lambda: whole(point), "products": lambda: products(point.W, point.H, U)}, 5)
    print(f"{loss} K=1000 d=512 N=20000 float32: {t['whole']:.3f} s, three products {t['products']:.3f} s, ", end="")
    print(f"ratio {t['whole'] / t['products']:.2f}")


def large_peak(held):
    """In this process: peak memory of value and gradient at K=10,000, d=512, N=20,000, and its CPU seconds."""
    blocks.HELD = held
    problem = ufm.Problem(10_000, 512, 2, ufm.losses.CE())
    shapes = jax.eval_shape(lambda: problem.init(jax.random.key(0), dtype=jnp.float32))
    program = jax.jit(jax.value_and_grad(problem.objective)).lower(shapes).compile()
    jax.block_until_ready(jnp.ones((64, 64)) @ jnp.ones((64, 64)))

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    idle, peak, done = resident(), 0.0, threading.Event()
    point = float32_point(problem)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    size = sum(x.nbytes for x in jax.tree.leaves(point)) / 2**20

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.process_time()
    jax.block_until_ready(program(point))
    seconds = time.process_time() - began
    done.set()
    watcher.join()
    program_mb = program.memory_analysis().temp_size_in_bytes / 2**20
    print(
        f"{(peak - idle) / size:.2f} times the {size:.0f} MB of parameters ({program_mb:.0f} MB of scratch), ", end=""
    )
    print(f"{seconds:.1f} CPU-s")


def per_class():
    """Solve time with one feature per class at n=10 and n=1,000,000."""
    jax.config.update("jax_enable_x64", True)
    decay = {n: ufm.Decay(5e-4, 5e-3 / n, 5e-4) for n in (10, 1_000_000)}  # the same mu
    problems = {n: ufm.Problem(10, 64, n, ufm.losses.BCE(), decay[n], features="per_class") for n in decay}
    start = problems[10].init(jax.random.key(0))
    t = clock({n: lambda p=p: ufm.solve(p, init=start).value for n, p in problems.items()}, 15)
    print(f"per-class solve: n=10 {1e3 * t[10]:.2f} ms, n=1000000 {1e3 * t[1_000_000]:.2f} ms, ", end="")
    print(f"ratio {t[1_000_000] / t[10]:.2f}")
    full = ufm.Problem(10, 64, 10, ufm.losses.BCE(), decay[10])
    values = [float(ufm.solve(p).value) for p in (full, problems[10])]
    print(f"value per sample minus per class: {values[0] - values[1]:.1e}")


def growth(figure):
    """Seconds of value and gradient over two decades of N, d and K, float32."""
    base = {"N": 20_000, "d": 128, "K": 100}
    ranges = {
        "N": (2_000, 6_000, 20_000, 60_000, 200_000),
        "d": (16, 50, 160, 500, 1600),
        "K": (10, 32, 100, 320, 1000),
    }
    series = {}
    for axis, sizes in ranges.items():
        functions = {}
        for size in sizes:
            s = base | {axis: size}
            problem = ufm.Problem(s["K"], s["d"], s["N"] // s["K"], ufm.losses.CE())
            point, program = float32_point(problem), jax.jit(jax.value_and_grad(problem.objective))
            functions[size] = lambda program=program, point=point: program(point)
        series[axis] = clock(functions, 7)
        slope = np.polyfit(np.log(list(series[axis])), np.log(list(series[axis].values())), 1)[0]
        shown = ", ".join(f"{size}: {1e3 * t:.1f} ms" for size, t in series[axis].items())
        print(f"growth in {axis} (others {base}): exponent {slope:.2f}; {shown}")
    if figure:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
        for ax, (axis, t) in zip(axes, series.items(), strict=True):
            sizes, seconds = np.array(list(t)), np.array(list(t.values()))
            ax.loglog(sizes, seconds, "o-", label="measured")
            ax.loglog(sizes, seconds[-1] * sizes / sizes[-1], "k--", lw=1, label="linear")
            ax.set_xlabel(axis)
        axes[0].set_ylabel("value and gradient (s)")
        axes[0].legend()
        plt.savefig(figure, dpi=150)


def start_up():
    """Seconds to import ufm beyond importing JAX, fresh processes in turn."""
    times = {"jax": [], "ufm": []}
    for _ in range(5):
        for name in times:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            times[name].append(time.perf_counter() - began)
    t = {name: statistics.median(x) for name, x in times.items()}
    print(f"import jax {t['jax']:.2f} s, import ufm {t['ufm']:.2f} s")
    code = (
        "import jax, time; t = time.perf_counter(); import ufm; ufm.Problem, ufm.solve; print(time.perf_counter() - t)"
    )
    rest = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    print(f"first use of ufm.solve after import jax: {float(rest):.2f} s")


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--figure", help="file for the growth curves")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak is not None:
        large_peak(given.peak)
        return
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {platform.machine()}, {time.strftime('%Y-%m-%d')}")
    start_up()
    for loss in (ufm.losses.CE(), ufm.losses.BCE()):
        against_products(loss)
    growth(given.figure)
    if given.large:
        for name, held in (("blocked", 0), ("whole", 10**12)):
            print(f"K=10000 d=512 N=20000 float32, {name}: ", end="", flush=True)
            subprocess.run([sys.executable, __file__, "--peak", str(held)], check=True)
    per_class()
    print("GPU: not measured" if jax.devices()[0].platform == "cpu" else "")


if __name__ == "__main__":
    main()

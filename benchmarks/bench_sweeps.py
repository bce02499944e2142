"""A sweep against one jitted solve called in a loop, interleaved in one process.

    python benchmarks/bench_sweeps.py [--devices 2] [--lanes 256] [--repeats 5] [--features per_class]

Both solve the same lanes from the same starts. The loop's user gets solutions; the sweep's also certificates and
metrics, so `solve only` is the same sweep engine without measuring. Ratios are of wall times in the same repeat;
`cores` is CPU time over wall time: less than --devices on a sweep means that the machine was busy with other work.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--devices", type=int, default=len(os.sched_getaffinity(0)))
parser.add_argument("--lanes", type=int, default=256)
parser.add_argument("--repeats", type=int, default=5)
parser.add_argument("--classes", type=int, default=10)
parser.add_argument("--dim", type=int, default=15)
parser.add_argument("--per-class", type=int, default=10)
parser.add_argument("--features", default="per_sample")
parser.add_argument("--batch", action="store_true", help="the batch engine too")
given = parser.parse_args()

import jax

jax.config.update("jax_num_cpu_devices", given.devices)
jax.config.update("jax_enable_x64", True)

import numpy as np

import ufm
from ufm.sweeps import _engine
from ufm.sweeps._axes import plan, with_leaves


class SolveOnly(_engine.Task):
    """A task that keeps what the loop's user has: value, status and the count."""

    def result(self, problem, solution, bias_start):
        """The fields of the solution."""
        return {name: getattr(solution, name) for name in ("value", "status", "steps", "evaluations")}


def main() -> None:
    """Run the table."""
    problem = ufm.Problem(given.classes, given.dim, given.per_class, features=given.features)
    problem = with_leaves(problem, {"decay.W": 5e-3, "decay.H": 5e-3})
    axes = {"decay.b": np.geomspace(1e-4, 1.0, 16), "seed": range(-(-given.lanes // 16))}
    group = plan(problem, axes, None, {}, np.float64).groups[0]
    lanes = len(group.index)
    solve = jax.jit(functools.partial(ufm.solvers.run, group.solver))

    def loop() -> float:
        for i in range(lanes):
            lane = {name: float(x[i]) for name, x in group.lanes.items()}
            one = with_leaves(problem, lane)
            start = problem.init(jax.random.key(int(lane["seed"])), lane["scale"], lane["bias_mean"])
            solve(one, start).value.block_until_ready()
        return 1.0

    def engine(name: str, kind: type) -> float:
        work, task = _engine.Engine(name), kind(group.solver, np.dtype("float64"))
        capacity = work.capacity(group, task, 4e9)
        costs = [work.solve(group, task, slice(i, i + capacity), capacity)[1] for i in range(0, lanes, capacity)]
        useful, made = np.sum(costs, axis=0)
        return useful / made

    runs = {
        "one jitted solve in a loop": loop,
        "sweep (scan), solve only": lambda: engine("scan", SolveOnly),
        "sweep (scan), certified": lambda: engine("scan", _engine.Task),
    }
    if given.batch:
        runs["sweep (batch), certified"] = lambda: engine("batch", _engine.Task)
    rows: dict = {name: [] for name in runs}
    useful = {}
    for repeat in range(given.repeats + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            useful[name] = run()
            if repeat:
                rows[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    load = os.getloadavg()[0]
    date = time.strftime("%Y-%m-%d")
    print(f"jax {jax.__version__}, {given.devices} CPU devices, load {load:.1f}, {date}; {lanes} lanes")
    print(f"bce K={given.classes} d={given.dim} n={given.per_class} {given.features}, decay_b 1e-4 ... 1")
    print(f"{'':<28}{'ms/lane':>9}{'cpu ms':>9}{'loop/this':>11}{'min':>7}{'max':>7}{'cores':>7}{'useful':>9}")
    base = [wall for wall, _ in rows["one jitted solve in a loop"]]
    for name, times in rows.items():
        ratios = [b / wall for b, (wall, _) in zip(base, times, strict=True)]
        wall, cpu = (1e3 * statistics.median(column) / lanes for column in zip(*times, strict=True))
        print(f"{name:<28}{wall:>9.2f}{cpu:>9.2f}{statistics.median(ratios):>11.2f}", end="")
        print(f"{min(ratios):>7.2f}{max(ratios):>7.2f}{cpu / wall:>7.2f}{100 * useful[name]:>8.1f}%")


if __name__ == "__main__":
    main()

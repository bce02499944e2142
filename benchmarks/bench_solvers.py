"""Solvers from the same random start to a certified gap, beside what a user would call instead.

    python benchmarks/bench_solvers.py [--classes 10 --dim 64 --per-class 500] [--losses ce,bce] [--repeats 3]

Prints wall time (median over repeats, compilation apart), cost in units of one jitted value-and-gradient
of the objective, and the certified gap reached. A solver that does not reach the gap is shown with the
gap it reached. Runs are interleaved: every repeat runs all solvers in turn.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

import ufm
from ufm.solvers import LBFGS, Gradient, Newton


def ours(solver):
    """A solver of the package as a function of problem and start."""
    return lambda problem, start: ufm.solve(problem, init=start, solver=solver).params


def scipy_lbfgsb(problem, start):
    """SciPy's L-BFGS-B on the jitted gradient, as a user would call it."""
    flat, unravel = ravel_pytree(start)
    function = jax.jit(jax.value_and_grad(lambda x: problem.objective(unravel(x))))

    def value_and_gradient(x):
        value, gradient = function(x)
        return float(value), np.asarray(gradient)

    options = {"maxiter": 20_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-11, "maxcor": 20}
    found = minimize(value_and_gradient, np.asarray(flat), jac=True, method="L-BFGS-B", options=options)
    return unravel(jnp.asarray(found.x))


RIVALS = {
    "ufm Newton (default)": ours(Newton()),
    "ufm LBFGS": ours(LBFGS()),
    "scipy L-BFGS-B": scipy_lbfgsb,
    "optax adam, 5000 steps": ours(Gradient(optax.adam(optax.cosine_decay_schedule(0.05, 5000)), max_steps=5000)),
}


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--losses", default="ce,bce")
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {platform.machine()}, {time.strftime('%Y-%m-%d')}")
    for name in given.losses.split(","):
        decay = ufm.Decay(given.decay, given.decay, given.decay)
        problem = ufm.Problem(given.classes, given.dim, given.per_class, ufm.losses.parse(name), decay)
        start = problem.init(jax.random.key(0))
        unit = jax.jit(jax.value_and_grad(problem.objective))
        jax.block_until_ready(unit(start))
        first, times, units, gaps = {}, {k: [] for k in RIVALS}, [], {}
        for repeat in range(given.repeats + 1):
            began = time.perf_counter()
            for _ in range(20):
                jax.block_until_ready(unit(start))
            units.append((time.perf_counter() - began) / 20)
            for rival, run in RIVALS.items():
                began = time.perf_counter()
                params = jax.block_until_ready(run(problem, start))
                elapsed = time.perf_counter() - began
                if repeat == 0:
                    first[rival] = elapsed
                    gaps[rival] = ufm.theory.certify(problem, params).gap
                else:
                    times[rival].append(elapsed)
        one = statistics.median(units)
        print(
            f"\n{problem.loss} K={problem.classes} d={problem.dim} n={problem.per_class} decays {given.decay:g}; ",
            end="",
        )
        print(f"one value-and-gradient {1e3 * one:.2f} ms")
        print(f"{'solver':<26}{'median s':>10}{'min':>9}{'max':>9}{'units':>9}{'gap':>10}{'first run s':>13}")
        for rival, seconds in times.items():
            middle = statistics.median(seconds)
            print(
                f"{rival:<26}{middle:>10.3f}{min(seconds):>9.3f}{max(seconds):>9.3f}"
                f"{middle / one:>9.0f}{gaps[rival]:>10.1e}{first[rival]:>13.2f}"
            )


if __name__ == "__main__":
    main()

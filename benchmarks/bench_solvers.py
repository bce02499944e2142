"""The package's solvers beside what a user would call instead, from the same random start to a certified gap.

    pip install -e '.[bench]' && pip install torch==2.13.0
    python benchmarks/bench_solvers.py [--problems ce:10,64,500 bce:100,128,20] [--repeats 3] [--peak]

For every solver: wall time (median, minimum and maximum over the repeats, compilation apart), cost in units
of one jitted value-and-gradient of the same problem, and the certified gap reached. Runs are interleaved:
each repeat runs every solver in turn, with the unit measured in between. A solver that misses the gap is
shown with the gap it reached. ``--peak`` runs each once more in a process of its own and prints its peak
memory beyond that of an idle one.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

import ufm
from ufm.solvers import LBFGS, Gradient

PROBLEMS = ["ce:10,64,500", "bce:10,64,500", "ce:100,128,20", "bce:100,128,20", "ce:10,15,10"]
GAP = 1e-10


def ours(eliminate, solver=None):
    """`ufm.solve` as a function of problem and start."""
    return lambda problem, start: ufm.solve(problem, init=start, solver=solver, eliminate=eliminate).params


def scipy_lbfgsb(problem, start):
    """SciPy's L-BFGS-B on the jitted gradient."""
    flat, unravel = ravel_pytree(start)
    function = compiled(
        ("scipy", problem), lambda: jax.jit(jax.value_and_grad(lambda x: problem.objective(unravel(x))))
    )

    def value_and_gradient(x):
        value, gradient = function(x)
        return float(value), np.asarray(gradient)

    options = {"maxiter": 20_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-11, "maxcor": 20}
    found = minimize(value_and_gradient, np.asarray(flat), jac=True, method="L-BFGS-B", options=options)
    return unravel(jnp.asarray(found.x))


def optax_lbfgs(problem, start):
    """optax.lbfgs in one jitted loop, stopped on the norm of the stored gradient."""

    def build():
        optimizer, objective = optax.lbfgs(), problem.objective
        value_and_grad = optax.value_and_grad_from_state(objective)

        def step(carry):
            params, state = carry
            value, gradient = value_and_grad(params, state=state)
            updates, state = optimizer.update(gradient, state, params, value=value, grad=gradient, value_fn=objective)
            return optax.apply_updates(params, updates), state

        def unfinished(carry):
            state = carry[1]
            count = optax.tree.get(state, "count")
            return (count == 0) | ((count < 5000) & (optax.tree.norm(optax.tree.get(state, "grad")) > 1e-10))

        return jax.jit(lambda p: jax.lax.while_loop(unfinished, step, (p, optimizer.init(p)))[0])

    return compiled(("optax", problem), build)(start)


def optimistix(method):
    """Optimistix's minimizers in one jit, as its documentation calls them."""

    def run(problem, start):
        import optimistix as optx

        def build():
            solver = getattr(optx, method)(rtol=1e-12, atol=1e-12)
            f = lambda y, _: problem.objective(y)  # noqa: E731
            return jax.jit(lambda p: optx.minimize(f, solver, p, max_steps=5000, throw=False).value)

        return compiled((method, problem), build)(start)

    return run


def pymanopt_trust_regions(problem, start):
    """Pymanopt's trust regions on a product of Euclidean spaces, JAX backend."""
    import pymanopt
    from pymanopt.manifolds import Euclidean, Product
    from pymanopt.optimizers import TrustRegions

    def build():
        manifold = Product([Euclidean(*np.shape(x)) for x in (start.W, start.H, start.b)])
        cost = pymanopt.function.jax(manifold)(lambda W, H, b: problem.objective(ufm.Params(W, H, b)))
        return pymanopt.Problem(manifold, cost)

    optimizer = TrustRegions(verbosity=0, min_gradient_norm=1e-9, max_iterations=500, max_time=30)
    point = [np.asarray(x) for x in (start.W, start.H, start.b)]
    found = optimizer.run(compiled(("pymanopt", problem), build), initial_point=point).point
    return ufm.Params(*map(jnp.asarray, found))


def torch_model(problem, start):
    """The objective in PyTorch as the papers' scripts write it, and its leaves."""
    import torch

    W, H, b = (torch.tensor(np.asarray(x), requires_grad=True) for x in (start.W, start.H, start.b))
    labels = torch.tensor(problem.labels, dtype=torch.long)
    targets = torch.nn.functional.one_hot(labels, problem.classes).double()
    decay = problem.decay

    def objective():
        logits = (W @ H + b[:, None]).T
        if problem.loss.name == "ce":
            risk = torch.nn.functional.cross_entropy(logits, labels)
        else:
            summed = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
            risk = summed / problem.samples
        return risk + 0.5 * (decay.W * (W**2).sum() + decay.H * (H**2).sum() + decay.b * (b**2).sum())

    return objective, [W, H, b]


def torch_lbfgs(problem, start):
    """torch.optim.LBFGS with its strong Wolfe line search."""
    import torch

    objective, leaves = torch_model(problem, start)
    optimizer = torch.optim.LBFGS(
        leaves,
        max_iter=3000,
        tolerance_grad=1e-10,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    optimizer.step(closure)
    return ufm.Params(*(jnp.asarray(x.detach().numpy()) for x in leaves))


def torch_sgd(problem, start, steps=3000):
    """SGD with momentum, full batch, the way the papers' scripts run it."""
    import torch

    objective, leaves = torch_model(problem, start)
    optimizer = torch.optim.SGD(leaves, lr=1.0, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()
    return ufm.Params(*(jnp.asarray(x.detach().numpy()) for x in leaves))


def cvxpy_value(problem, start):
    """Minimum of the convex lift with CVXPY; a value, as it has no factors."""
    import cvxpy as cp

    K, N, decay = problem.classes, problem.samples, problem.decay
    X, b = cp.Variable((K, N)), cp.Variable(K)
    Z = X + cp.reshape(b, (K, 1), order="F") @ np.ones((1, N))
    y = np.eye(K)[:, problem.labels]
    if problem.loss.name == "ce":
        risk = cp.sum(cp.log_sum_exp(Z, axis=0)) - cp.sum(cp.multiply(y, Z))
    else:
        risk = cp.sum(cp.logistic(cp.multiply(1.0 - 2.0 * y, Z)))
    nuclear = float((decay.W * decay.H) ** 0.5) * cp.normNuc(X)
    return cp.Problem(cp.Minimize(risk / N + nuclear + 0.5 * float(decay.b) * cp.sum_squares(b))).solve()


_programs: dict = {}


def compiled(key, build):
    """``build()`` once for each key, so that compilation is paid in the first run only."""
    key = (key[0], repr(key[1]))
    if key not in _programs:
        _programs[key] = build()
    return _programs[key]


SOLVERS = {
    "ufm (default: H eliminated)": ours(True),
    "ufm, every feature free": ours(False),
    "ufm LBFGS, every feature free": ours(False, LBFGS()),
    "scipy L-BFGS-B": scipy_lbfgsb,
    "optax lbfgs": optax_lbfgs,
    "optax adam, 5000 steps": ours(
        False, Gradient(optax.adam(optax.cosine_decay_schedule(0.05, 5000)), max_steps=5000)
    ),
    "optimistix BFGS": optimistix("BFGS"),
    "optimistix LBFGS": optimistix("LBFGS"),
    "pymanopt trust regions": pymanopt_trust_regions,
    "torch LBFGS": torch_lbfgs,
    "torch SGD momentum, 3000 steps": torch_sgd,
    "cvxpy (value only)": cvxpy_value,
}


def applies(name, problem):
    """Whether the solver can be asked at all: a dense inverse Hessian or an interior point has its limits."""
    unknowns = problem.dim * (problem.classes + problem.samples)
    return {"optimistix BFGS": unknowns <= 5_000, "cvxpy (value only)": problem.samples <= 200}.get(name, True)


def read(text, decay):
    """``ce:10,64,500`` as a problem."""
    name, _, sizes = text.partition(":")
    return ufm.Problem(*map(int, sizes.split(",")), ufm.losses.parse(name), ufm.Decay(decay, decay, decay))


def gap_of(problem, result, best_bound):
    """Certified gap of parameters, or of a value against the best bound known."""
    if isinstance(result, ufm.Params):
        return ufm.theory.certify(problem, result).gap
    return float(result) - best_bound


def peak_memory(text, name, decay):
    """Peak memory in MB of one process that runs ``name``."""
    command = [sys.executable, __file__, "--problems", text, "--only", name, "--decay", str(decay), "--child"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def main() -> None:
    """Run the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=PROBLEMS, metavar="LOSS:K,d,n")
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*SOLVERS, "idle"], default=list(SOLVERS), metavar="SOLVER")
    parser.add_argument("--peak", action="store_true", help="peak memory, each solver in a process of its own")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        problem = read(given.problems[0], given.decay)
        if given.only != ["idle"]:
            jax.block_until_ready(SOLVERS[given.only[0]](problem, problem.init(jax.random.key(0))))
        # ru_maxrss would be the parent's, which a child inherits.
        status = Path("/proc/self/status").read_text()
        print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
        return
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {platform.machine()}, {time.strftime('%Y-%m-%d')}")
    print("command: python benchmarks/bench_solvers.py " + " ".join(sys.argv[1:]))
    for text in given.problems:
        table(text, given)


def table(text, given) -> None:
    """One problem's table."""
    problem = read(text, given.decay)
    names = [name for name in given.only if applies(name, problem)]
    start = problem.init(jax.random.key(0))
    unit = jax.jit(jax.value_and_grad(problem.objective))
    jax.block_until_ready(unit(start))
    first, times, units, results, missing = {}, {name: [] for name in names}, [], {}, {}
    for repeat in range(given.repeats + 1):
        for name in names:
            if name in missing:
                continue
            for _ in range(5):
                began = time.perf_counter()
                jax.block_until_ready(unit(start))
                units.append(time.perf_counter() - began)
            began = time.perf_counter()
            try:
                result = jax.block_until_ready(SOLVERS[name](problem, start))
            except ImportError as error:
                missing[name] = f"not installed: {error.name}"
                continue
            elapsed = time.perf_counter() - began
            if repeat == 0:
                first[name], results[name] = elapsed, result
            else:
                times[name].append(elapsed)
            print(f"\r{text} repeat {repeat}: {name:<32}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 70 + "\r", end="", file=sys.stderr)
    bounds = [ufm.theory.certify(problem, r).lower_bound for r in results.values() if isinstance(r, ufm.Params)]
    one = statistics.median(units)
    print(
        f"\n{problem.loss} K={problem.classes} d={problem.dim} n={problem.per_class}, decays {given.decay:g}; ", end=""
    )
    print(f"one value-and-gradient {1e3 * one:.2f} ms")
    idle = peak_memory(text, "idle", given.decay) if given.peak else None
    head = f"{'solver':<32}{'median s':>10}{'min':>9}{'max':>9}{'units':>10}{'gap':>10}{'first s':>9}"
    print(head + ("  peak MB" if given.peak else ""))
    for name in names:
        if name in missing:
            print(f"{name:<32}  {missing[name]}")
            continue
        seconds, gap = times[name], gap_of(problem, results[name], max(bounds))
        middle = statistics.median(seconds)
        line = f"{name:<32}{middle:>10.4f}{min(seconds):>9.4f}{max(seconds):>9.4f}{middle / one:>10.1f}{gap:>10.1e}"
        line += f"{first[name]:>9.2f}"
        if given.peak:
            line += f"{peak_memory(text, name, given.decay) - idle:>9.0f}"
        print(line + ("" if gap <= GAP else "   gap not reached"), flush=True)


if __name__ == "__main__":
    main()

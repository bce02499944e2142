"""Hessian-vector products against gradients, and extreme eigenvalues against SciPy and dense eigh.

Run ``python benchmarks/bench_landscape.py``. Times are printed, never asserted.
"""

import time

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

import ufm
from ufm.landscape import Hessian, extreme_eigenpairs, hvp
from ufm.theory import hessian_spectrum, minimizer


def seconds(call, repeats=10):
    """Median time of a call."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def products():
    """Hessian-vector products in units of gradients."""
    for K, d, n in ((10, 64, 100), (10, 512, 195)):
        problem = ufm.Problem(K, d, n, loss=ufm.losses.CE())
        params = problem.init(jax.random.key(0))
        gradient = jax.jit(jax.grad(lambda p, problem=problem: problem.objective(p)))
        g, h = seconds(lambda: gradient(params)), seconds(lambda: hvp(problem, params, params))  # noqa: B023
        size = Hessian(problem, params).size
        print(f"{size:8d} variables: gradient {1e3 * g:.2f} ms, HVP {1e3 * h:.2f} ms, ratio {h / g:.2f}")


def extremes():
    """Extreme eigenvalues at a minimiser whose spectrum is known."""
    problem = ufm.Problem(10, 20, 10, loss=ufm.losses.BCE(), decay=ufm.Decay(5e-3, 1e-3, 0.5))
    hessian = Hessian(problem, jax.tree.map(jnp.asarray, minimizer(problem).params))
    exact, operator = hessian_spectrum(problem).expand(), hessian.operator
    k = 8
    for which, name, true in (("smallest", "SA", exact[:k]), ("largest", "LA", exact[::-1][:k])):
        start = time.perf_counter()
        pairs = extreme_eigenpairs(operator, k, which)
        ours = time.perf_counter() - start
        count = [0]

        def matvec(v, count=count):
            count[0] += 1
            return operator.rows(v.reshape(1, -1))[0]

        start = time.perf_counter()
        linear = LinearOperator((hessian.size, hessian.size), matvec=matvec, dtype=float)
        theirs = np.sort(eigsh(linear, k, which=name, return_eigenvectors=False, tol=1e-9))
        scipy_time = time.perf_counter() - start
        theirs = theirs if which == "smallest" else theirs[::-1]
        print(
            f"{which}: ours {ours:.2f} s, {pairs.products} products, error {np.abs(pairs.values - true).max():.1e};  "
            f"eigsh {scipy_time:.2f} s, {count[0]} products, error {np.abs(theirs - true).max():.1e}"
        )


if __name__ == "__main__":
    products()
    extremes()

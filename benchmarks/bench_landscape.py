"""Hessian-vector products against gradients, and eigensolvers against SciPy and matfree on the same operators.

Run ``python benchmarks/bench_landscape.py`` (matfree from the extra ``bench``; without it its rows are left out);
``--large`` alone does the million unknowns. Times are printed, never asserted.
"""

import itertools
import sys
import time

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

import ufm
from ufm.landscape import Hessian, Operator, extreme_eigenpairs, hvp, spectral_density
from ufm.theory import hessian_spectrum, minimizer

try:
    from matfree import decomp, eig
except ImportError:
    decomp = None


def interleaved(calls, repeats=30):
    """Times (calls, repeats): one of each in turn, so that a busy machine slows all alike."""
    for call in calls:
        jax.block_until_ready(call())
    times = np.zeros((len(calls), repeats))
    for j in range(repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[i, j] = time.perf_counter() - start
    return times


def products(batch=8):
    """Hessian-vector products in units of gradients: of one direction, and for each of a batch."""
    gradient = jax.jit(lambda problem, params: jax.grad(problem.objective)(params))
    for loss in (ufm.losses.CE(), ufm.losses.BCE()):
        for K, d, n in ((10, 64, 100), (10, 512, 195), (10, 64, 1600)):
            problem = ufm.Problem(K, d, n, loss=loss)
            params = problem.init(jax.random.key(0))
            operator = Hessian(problem, params).operator
            rows = jnp.asarray(np.random.default_rng(0).normal(size=(batch, operator.size)))
            calls = [
                lambda p=problem, x=params: gradient(p, x),
                lambda p=problem, x=params: hvp(p, x, x),
                lambda a=operator, v=rows: a.apply(v),
            ]
            times = interleaved(calls, 15)
            one, many = np.median(times[1:] / times[0], axis=1)
            best = times.min(axis=1)
            print(
                f"{loss!s:4s} {operator.size:8d} variables (d={d}): gradient {1e3 * best[0]:6.2f} ms; "
                f"HVP / gradient: one {one:.2f} (of the fastest {best[1] / best[0]:.2f}), "
                f"each of {batch} {many / batch:.2f} ({best[2] / best[0] / batch:.2f})"
            )


def operators():
    """``(name, operator, exact eigenvalues)``: spectra that break Lanczos, and Hessians known in closed form."""
    n = 1500
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    yield "identity", np.eye(n), np.ones(n)
    low = Q[:, :3] * np.array([1.0, 2.0, 3.0])
    yield "rank 3", low @ Q[:, :3].T, np.concatenate([np.zeros(n - 3), [1.0, 2.0, 3.0]])
    yield "projector", Q[:, :500] @ Q[:, :500].T, np.repeat([0.0, 1.0], [n - 500, 500])
    for loss in (ufm.losses.CE(), ufm.losses.BCE()):
        problem = ufm.Problem(10, 20, 10, loss=loss, decay=ufm.Decay(5e-3, 1e-3, 0.5))
        hessian = Hessian(problem, jax.tree.map(jnp.asarray, minimizer(problem).params))
        yield f"UFM {loss}", hessian.operator, hessian_spectrum(problem).expand()


def extremes(k=8):
    """The k smallest and largest eigenvalues by three methods: error, residual, products, time."""
    print(
        f"\n{'operator':10s} {'end':8s} {'method':8s} {'error':>9s} {'residual':>9s} {'products':>8s} {'seconds':>8s}"
    )
    for name, given, exact in operators():
        operator = Operator.of_matrix(given) if isinstance(given, np.ndarray) else given
        counted = [0]

        def matvec(v, counted=counted, operator=operator):
            counted[0] += 1
            return operator.rows(v.reshape(1, -1))[0]

        linear = LinearOperator((operator.size, operator.size), matvec=matvec, dtype=float)

        def ours(which, operator=operator):
            pairs = extreme_eigenpairs(operator, k, which)
            return pairs.values, pairs.vectors, pairs.products

        def scipy_eigsh(which, counted=counted, linear=linear):
            counted[0] = 0
            values, vectors = eigsh(linear, k, which="SA" if which == "smallest" else "LA", tol=1e-9)
            order = np.argsort(values)[:: 1 if which == "smallest" else -1]
            return values[order], vectors.T[order], counted[0]

        def matfree(which, given=given, operator=operator, steps=60):
            if isinstance(given, np.ndarray):
                matrix = jnp.asarray(given)
                apply = lambda v: matrix @ v  # noqa: E731
            else:
                apply = lambda v: operator.apply(v[None, :])[0]  # noqa: E731
            start = jnp.asarray(np.random.default_rng(0).normal(size=operator.size))
            values, vectors = jax.jit(eig.eigh_partial(decomp.tridiag_sym(steps)), static_argnums=0)(apply, start)
            values, vectors = np.asarray(values), np.asarray(vectors)
            vectors = vectors if vectors.shape[0] == len(values) else vectors.T
            order = np.argsort(values)[:: 1 if which == "smallest" else -1][:k]
            return values[order], vectors[order], steps

        for which in ("smallest", "largest"):
            true = exact[:k] if which == "smallest" else exact[::-1][:k]
            methods = {"ufm": ours, "eigsh": scipy_eigsh} | ({"matfree": matfree} if decomp else {})
            for method, solve in methods.items():
                start = time.perf_counter()
                try:
                    values, vectors, used = solve(which)
                except ArpackError as reason:
                    print(f"{name:10s} {which:8s} {method:8s} {reason}")
                    continue
                seconds = time.perf_counter() - start
                residual = np.linalg.norm(operator.rows(vectors) - values[:, None] * vectors, axis=1).max()
                error = np.abs(values - true).max()
                print(f"{name:10s} {which:8s} {method:8s} {error:9.1e} {residual:9.1e} {used:8d} {seconds:8.2f}")


def large():
    """A million unknowns with a feature per sample: both ends and the density, against the exact spectrum."""
    problem = ufm.Problem(10, 64, 1600, loss=ufm.losses.BCE(), decay=ufm.Decay(5e-3, 1e-4, 0.5))
    exact = hessian_spectrum(problem)
    hessian = Hessian(problem, jax.tree.map(jnp.asarray, minimizer(problem).params))
    operator = hessian.operator
    print(f"\n{hessian.size} unknowns, {len(exact.distinct(1e-9))} distinct eigenvalues, kernel {exact.kernel}")
    for which, k in (("largest", 4), ("smallest", 2)):
        start = time.perf_counter()
        # The basis holds more steps than there are distinct eigenvalues, so no restart is needed.
        pairs = extreme_eigenpairs(operator, k, which, block=2, basis=60)
        seconds = time.perf_counter() - start
        true = [v for v, t in exact.distinct() for _ in range(min(t, k))]
        true = np.sort(true)[::-1][:k] if which == "largest" else np.sort(true)[:k]
        print(
            f"{which}: {pairs.products} products, {seconds:.0f} s, residuals up to {pairs.residuals.max():.1e}, "
            f"error {np.abs(pairs.values - true).max():.1e}, negative {pairs.negative}, {pairs.clusters}"
        )
    start = time.perf_counter()
    density = spectral_density(operator, probes=4, steps=30)
    print(f"density: 4 probes, {time.perf_counter() - start:.0f} s, least node {np.nanmin(density.nodes):.1e}")
    # Kernel, the decay of the features and its near neighbors, and the modes of collapse.
    edges = [-np.inf, 1e-6, 3e-4, np.inf]
    values, times = exact.eigenvalues, np.array(exact.multiplicities)
    for low, high in itertools.pairwise(edges):
        count, error = density.count(low, high)
        true = times[(values > low) & (values <= high)].sum()
        print(f"  {low:9.2e} to {high:9.2e}: {count:10.0f} +- {error:6.0f}  exact {true}")


if __name__ == "__main__":
    if "--large" not in sys.argv:
        products()
        extremes()
    large()

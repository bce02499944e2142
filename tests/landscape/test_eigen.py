"""Extreme eigenpairs and densities on spectra that break Lanczos."""

import jax
import numpy as np
import pytest

import ufm
from ufm.landscape.eigen import extreme_eigenpairs, spectral_density
from ufm.landscape.hvp import Hessian, Operator
from ufm.theory import hessian_spectrum, minimizer

N = 120
Q = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
MATRICES = {
    "identity": np.eye(N),
    "zero": np.zeros((N, N)),
    "rank 3": Q[:, :3] @ Q[:, :3].T,
    "rank 3 plus identity": 0.5 * np.eye(N) + Q[:, :3] @ np.diag([1.0, 2.0, -3.0]) @ Q[:, :3].T,
    "projector": Q[:, :50] @ Q[:, :50].T,
    "few": Q @ np.diag(np.repeat([-1e-3, 0.0, 1e-4, 0.5], [14, 50, 20, 36])) @ Q.T,
    "generic": Q @ np.diag(np.random.default_rng(1).normal(size=N)) @ Q.T,
}

# Of 16 eigenvalues, the multiplicities that the next eigenvalue proves; a cluster that fills the rest is open.
RESOLVED = {
    ("rank 3", "largest"): [3],
    ("rank 3 plus identity", "smallest"): [1],
    ("rank 3 plus identity", "largest"): [1, 1],
    ("few", "smallest"): [14],
    ("generic", "smallest"): [1] * 16,
    ("generic", "largest"): [1] * 16,
}


@pytest.mark.parametrize("which", ["smallest", "largest"])
@pytest.mark.parametrize("name", MATRICES)
def test_extreme_pairs(name, which):
    A = MATRICES[name]
    exact = np.linalg.eigvalsh(A)
    exact = exact if which == "smallest" else exact[::-1]
    for k in (1, 5, 16):
        pairs = extreme_eigenpairs(Operator.of_matrix(A), k, which)
        assert pairs.converged.all()
        assert np.max(np.abs(pairs.values - exact[:k])) < 1e-10
        assert np.max(np.abs(pairs.vectors @ pairs.vectors.T - np.eye(k))) < 1e-12
        assert pairs.negative == int(np.sum(exact[:k] < -1e-9))
        # A multiplicity that is called resolved is the true one.
        for value, copies, resolved in pairs.clusters:
            true = int(np.sum(np.abs(exact - value) < 1e-6))
            assert copies == true if resolved else copies <= true
    assert sum(copies for _, copies, _ in pairs.clusters) == 16
    assert [copies for _, copies, resolved in pairs.clusters if resolved] == RESOLVED.get((name, which), [])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_nearly_as_large_as_the_matrix(dtype):
    # The block is as wide as what is left of the space, or wider: most of each new block is rounding.
    rng = np.random.default_rng(2)
    for n in range(2, 12):
        generic, few = rng.normal(size=n), rng.integers(-1, 3, n)
        for exact in (np.sort(generic), np.sort(few)):
            basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
            operator = Operator.of_matrix(((basis * exact) @ basis.T).astype(dtype))
            for k in range(1, n + 1):
                for which, wanted in (("smallest", exact[:k]), ("largest", exact[::-1][:k])):
                    pairs = extreme_eigenpairs(operator, k, which)
                    assert pairs.converged.all()
                    assert np.max(np.abs(pairs.values - wanted)) < 40 * n * np.finfo(dtype).eps


def test_rounding_in_float32_is_no_negative_curvature():
    rng = np.random.default_rng(0)
    for n in (3, 6, 12):
        for _ in range(60):
            v = rng.normal(size=n) * 10.0 ** rng.uniform(-2, 2)
            pairs = extreme_eigenpairs(Operator.of_matrix(np.outer(v, v).astype(np.float32)), min(3, n - 1))
            assert pairs.vectors.dtype == np.float32
            assert pairs.negative == 0


@pytest.mark.parametrize("loss", [ufm.losses.CE(), ufm.losses.BCE()], ids=str)
def test_hessian_at_collapse(loss):
    problem = ufm.Problem(4, 9, 5, loss=loss, decay=ufm.Decay(5e-3, 1e-3, 0.5))
    spectrum = hessian_spectrum(problem)
    hessian = Hessian(problem, jax.tree.map(jax.numpy.asarray, minimizer(problem).params))
    low, high = extreme_eigenpairs(hessian.operator, 6), extreme_eigenpairs(hessian.operator, 6, "largest")
    assert low.negative == 0
    assert np.max(np.abs(low.values)) < 1e-12
    assert np.max(np.abs(high.values - spectrum.expand()[::-1][:6])) < 1e-10
    density = spectral_density(hessian.operator, probes=12, steps=40)
    count, error = density.count(-1e-8, 1e-8)
    assert abs(count - spectrum.kernel) < 4 * error + 1
    assert error < 0.1 * spectrum.kernel  # 12 probes: 1.5 and 1.7 of 21 and 26
    assert np.nanmin(density.nodes) > -1e-12


def test_density_stops_at_breakdown():
    for A in (MATRICES["identity"], MATRICES["zero"], MATRICES["rank 3"]):
        density = spectral_density(Operator.of_matrix(A), probes=3)
        exact = np.linalg.eigvalsh(A)
        assert np.nanmin(density.nodes) >= exact[0] - 1e-13
        assert np.nanmax(density.nodes) <= exact[-1] + 1e-13
        assert np.allclose(density.weights.sum(axis=1), 1.0)


def test_dense_limit_names_the_alternative():
    problem = ufm.Problem(10, 64, 100)
    hessian = Hessian(problem, problem.init(jax.random.key(0)))
    with pytest.raises(ufm.InputError, match="extreme_eigenpairs or spectral_density"):
        hessian.dense()


def test_out_of_budget_is_said():
    pairs = extreme_eigenpairs(Operator.of_matrix(MATRICES["generic"]), 5, max_products=10)
    assert not pairs.converged.all()
    assert pairs.clusters
    assert not any(resolved for _, _, resolved in pairs.clusters)

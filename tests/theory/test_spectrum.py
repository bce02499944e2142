"""Exact spectra against dense Hessians by autodiff and NumPy: two routes that share no formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import ufm
from ufm.theory import collapsed_spectrum, hessian_spectrum, ladder, merged, minimizer

# (K, d, n, bias, features): few shapes, so that few programs are compiled; K = 2, 3 lack irreps, d = K - 1.
SHAPES = [
    (5, 6, 2, "per_class", "per_sample"),
    (4, 5, 1, "unified", "per_sample"),
    (3, 2, 2, "per_class", "per_sample"),
    (2, 3, 3, "none", "per_class"),
]
LOSSES = [
    ufm.losses.CE(),
    ufm.losses.BCE(),
    ufm.losses.Focal(2.0),
    ufm.losses.LabelSmoothing(0.1),
    ufm.losses.MSE(2.0, 3.0),
]


@jax.jit
def _dense(problem, x):
    flat, unravel = ravel_pytree(x)
    return jax.hessian(lambda v: problem.objective(unravel(v)))(flat)


def dense(problem, params):
    return np.linalg.eigvalsh(np.asarray(_dense(problem, jax.tree.map(jnp.asarray, params))))


def random_problems(shape, loss, count=6):
    rng = np.random.default_rng([SHAPES.index(shape), len(loss.name)])
    K, d, n, bias, features = shape
    for _ in range(count):
        decay = ufm.Decay(*10.0 ** rng.uniform(-3.5, -0.7, 3))
        yield ufm.Problem(K, d, n, loss=loss, decay=decay, bias=bias, features=features)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_dense_spectrum(shape, loss):
    for problem in random_problems(shape, loss):
        spectrum, point = hessian_spectrum(problem), minimizer(problem, jax.random.key(1))
        exact = dense(problem, point.params)
        assert spectrum.size == len(exact)
        assert np.max(np.abs(spectrum.expand() - exact)) <= 1e-12 * np.max(np.abs(exact))
        assert spectrum.index == 0
        assert spectrum.kernel == spectrum.rotations
        assert all(isinstance(t, int) and t > 0 for t in spectrum.multiplicities)


def test_custom_loss_and_zero_gap():
    def scaled(z, k, t):
        true = jnp.arange(z.size, dtype=jnp.int32) == jnp.asarray(k, jnp.int32)
        return jnp.sum(jnp.where(true, jax.nn.softplus(t * (1 - z)), jax.nn.softplus(t * z) ** 2))

    problem = ufm.Problem(
        5, 6, 2, loss=ufm.losses.custom(scaled, {"t": 1.5}, symmetric=True), decay=ufm.Decay(0.01, 0.02, 0.3)
    )
    regimes = []
    for decay in (ufm.Decay(0.01, 0.02, 0.3), ufm.Decay(0.25, 0.3, 2.0), ufm.Decay(3.0, 3.0, 1.0)):
        case = dataclasses.replace(problem, decay=decay)
        point = minimizer(case)
        regimes.append((point.regime, point.gap > 0))
        exact = dense(case, point.params)
        assert np.max(np.abs(hessian_spectrum(case).expand() - exact)) <= 1e-12 * np.max(np.abs(exact))
    assert regimes == [("mean-shifted", True), ("etf", True), ("zero", False)]


def test_kernel_dimension_at_a_billion_samples():
    for loss, kernel in ((ufm.losses.CE(), 9 * 20 - 45), (ufm.losses.BCE(), 10 * 20 - 55)):
        problem = ufm.Problem(10, 20, 10**9, loss=loss, decay=ufm.Decay(5e-3, 5e-12, 0.5))
        spectrum = hessian_spectrum(problem)
        assert (spectrum.index, spectrum.kernel, spectrum.rotations) == (0, kernel, kernel)
        assert spectrum.size == 10 * 20 + 20 * 10**10 + 10


def test_a_wrong_curvature_is_caught(monkeypatch):
    """Mutation: the sign of the entry of two different false classes."""
    from ufm.theory import spectrum as module

    true = module._curvature
    monkeypatch.setattr(module, "_curvature", lambda *a, **k: (*true(*a, **k)[:-1], -true(*a, **k)[-1]))
    problem = ufm.Problem(5, 6, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    exact = dense(problem, minimizer(problem).params)
    assert np.max(np.abs(hessian_spectrum(problem).expand() - exact)) > 1e-4


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[1], LOSSES[4]], ids=lambda loss: loss.name)
def test_ladder_against_dense(loss):
    problem = ufm.Problem(4, 5, 2, loss=loss, decay=ufm.Decay(5e-3, 5e-3, 5e-2))
    rungs = ladder(problem)
    assert [rung.groups for rung in rungs] == [(4,), (2, 2), (1, 1, 1, 1)]
    for rung in rungs:
        params = jax.tree.map(jnp.asarray, rung.params(jax.random.key(1)))
        slope, _ = ravel_pytree(jax.grad(problem.objective)(params))
        exact = dense(problem, params)
        assert float(jnp.linalg.norm(slope)) < 1e-13
        assert abs(float(problem.objective(params)) - rung.value) < 1e-12
        assert np.max(np.abs(rung.spectrum.expand() - exact)) <= 1e-13 * np.max(np.abs(exact))
        if loss.name == "ce":
            m = rung.prototypes
            assert rung.spectrum.index == (4 - m) * 5
            assert rung.spectrum.kernel == (m - 1) * 5 - m * (m - 1) // 2
            assert abs(rung.value - ufm.theory.coarse_ce(float(np.sqrt(2) * 5e-3), 4, m)[1]) < 1e-12


def test_unequal_groups_and_imbalance():
    problem = ufm.Problem(4, 5, 2, loss=ufm.losses.CE(), decay=ufm.Decay(5e-3, 5e-3, 5e-2))
    rung = merged(problem, (3, 1))
    exact = dense(problem, rung.params())
    assert np.max(np.abs(rung.spectrum.expand() - exact)) <= 1e-12
    assert (rung.spectrum.index, rung.spectrum.kernel) == (10, 4)
    with pytest.raises(ufm.InputError, match="sizes that sum to classes = 4"):
        merged(problem, (3, 2))
    # Any collapsed point of an imbalanced problem, critical or not.
    uneven = dataclasses.replace(problem, classes=3, per_class=(3, 2, 1))
    point = uneven.init(jax.random.key(0))
    means = point.H[:, np.array([0, 3, 5])]
    spectrum = collapsed_spectrum(uneven, ufm.Params(point.W, means, point.b))
    exact = dense(uneven, ufm.Params(point.W, means[:, uneven.labels], point.b))
    assert np.max(np.abs(spectrum.expand() - exact)) <= 1e-12

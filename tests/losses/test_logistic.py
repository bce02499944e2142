"""The one-neuron logistic loss: 50-digit values, its conjugate, CE of two classes in disguise, and what it refuses."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import ufm
from ufm.losses import CE, Logistic

LOGITS = np.array([-1e4, -700.0, -30.0, -1.0, 0.0, 0.3, 40.0, 1e4])


@jax.jit
def everything(z, k):
    """Value, gradient and conjugate there for rows of logits and labels."""
    values, slopes = jax.vmap(jax.value_and_grad(Logistic()))(z, k)
    return values, slopes, jax.vmap(Logistic().conjugate)(slopes, k)


def test_value_slope_and_conjugate_against_mpmath():
    z = np.tile(np.stack([LOGITS, 3.0 - LOGITS], axis=1), (2, 1))
    k = np.repeat([0, 1], LOGITS.size)
    for x, label, value, slope, conjugate in zip(z[:, 0], k, *map(np.asarray, everything(z, k)), strict=True):
        y = 1 - 2 * int(label)
        m = mp.mpf(float(x)) * y
        exact = mp.log1p(mp.exp(-m)) if m > 0 else -m + mp.log1p(mp.exp(m))
        wrong = 1 / (1 + mp.exp(m))
        assert float(value) == pytest.approx(float(exact), rel=1e-14, abs=1e-300)
        assert float(slope[0]) == pytest.approx(float(-y * wrong), rel=1e-13, abs=1e-300)
        assert float(slope[1]) == 0.0
        # Fenchel's equality l + l* = u z.
        assert float(conjugate) == pytest.approx(float(-wrong * m - exact), abs=1e-11)


def test_conjugate_is_infinite_off_its_domain():
    off = jnp.array([[0.1, 0.0], [-1.1, 0.0], [-0.5, 0.1]])
    both = jnp.concatenate([off, -off])
    found = jax.jit(jax.vmap(Logistic().conjugate))(both, jnp.repeat(jnp.array([0, 1]), 3))
    assert np.all(np.isinf(found))


@pytest.mark.parametrize(("factor", "same"), [(0.5, True), (0.6, False)])
def test_two_neurons_of_ce_are_one_neuron(factor, same):
    """CE's minimizer, its rows subtracted, is certified for one neuron with half the decays; other decays show."""
    decay = ufm.Decay(0.05, 0.02, 0.1)
    two = ufm.theory.minimizer(ufm.Problem(2, 3, 4, CE(), decay, "none"))
    x = two.params
    W = np.stack([x.W[0] - x.W[1], 0 * x.W[0]])
    one = ufm.Problem(2, 3, 4, Logistic(), ufm.Decay(factor * decay.W, decay.H), "none")
    certificate = ufm.theory.certify(one, ufm.Params(jnp.asarray(W), jnp.asarray(x.H)))
    assert (abs(certificate.value - two.value) < 1e-13) == same
    assert (abs(certificate.gap) < 1e-12) == same


def test_what_it_refuses():
    assert ufm.losses.parse("logistic") == Logistic()
    with pytest.raises(ufm.InputError, match="classes = 3: must be 2"):
        Logistic()(jnp.zeros(3), 0)
    balanced = ufm.Problem(2, 3, 4, Logistic())
    assert ufm.theory.predict(balanced) is None
    with pytest.raises(ufm.theory.NoClosedForm, match="tells classes apart"):
        ufm.theory.minimizer(balanced)
    with pytest.raises(ufm.theory.NoClosedForm, match="tells classes apart"):
        ufm.theory.ladder(balanced)
    with pytest.raises(ufm.InputError, match="value at"):
        Logistic().at(1.0, -1.0, 2)

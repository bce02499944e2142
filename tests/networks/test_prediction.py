"""`predict`: its factors against training's own objective, summed over batches in NumPy, and what networks showed."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm.networks import NoPrediction, predict, prediction

MNIST = {"classes": 10, "dim": 64, "counts": 6000, "weight_decay": 5e-4, "feature_decay": 5e-4, "batch": 128}
K, D, N, B = 3, 4, 12, 4


def batch_loss(loss, z, y, reduction):
    """Losses of a batch z (B, K) as PyTorch reduces them, written out."""
    own = np.eye(z.shape[1])[y]
    if loss == "ce":
        each = (np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y])[:, None]
    elif loss == "bce":
        each = own * np.log1p(np.exp(-z)) + (1 - own) * np.log1p(np.exp(z))
    else:
        each = (z - own) ** 2
    if reduction == "mean_over_classes":
        return each.mean()
    total = each.sum()
    return total if reduction == "sum" else total / len(y)


def training_objective(loss, W, H, b, y, decays, reduction, feature_reduction):
    """Mean over the batches of an epoch of what training takes the gradient of; H is (N, d)."""
    order = np.random.default_rng(1).permutation(N).reshape(-1, B)
    values = []
    for batch in order:
        h = H[batch]
        squares = (h**2).sum() if feature_reduction == "batch_sum" else (h**2).sum(axis=1).mean()
        penalty = decays[0] * (W**2).sum() + decays[1] * squares + decays[2] * (b**2).sum()
        values.append(batch_loss(loss, h @ W.T + b, y[batch], reduction) + 0.5 * penalty)
    return np.mean(values)


@pytest.mark.parametrize("loss", ["ce", "bce", "mse"])
@pytest.mark.parametrize("reduction", ["mean", "mean_over_classes", "sum"])
@pytest.mark.parametrize("feature_reduction", ["batch_sum", "batch_mean"])
def test_the_problem_is_training_s_objective_over_its_scale(loss, reduction, feature_reduction, monkeypatch):
    if (loss, reduction) == ("ce", "mean_over_classes"):
        pytest.skip("cross-entropy is no sum over classes")
    zero = ufm.Params(np.zeros((K, D)), np.zeros((D, K)), np.zeros(K))
    monkeypatch.setattr(prediction, "_best", lambda problem: (zero, "closed form"))  # only the problem counts here
    rng, decays = np.random.default_rng(0), (0.3, 0.7, 0.2)
    found = predict(
        classes=K, dim=D, counts=[6, 4, 2], loss=loss, weight_decay=decays[0], feature_decay=decays[1], batch=B,
        bias_decay=decays[2], loss_reduction=reduction, feature_decay_reduction=feature_reduction,
    )  # fmt: skip
    W, H, b = rng.normal(size=(K, D)), np.abs(rng.normal(size=(N, D))), rng.normal(size=K)
    problem = dataclasses.replace(found.problem, features="per_sample")
    value = float(problem.objective(ufm.Params(jnp.asarray(W), jnp.asarray(H.T), jnp.asarray(b))))
    y = np.repeat(np.arange(K), [6, 4, 2])
    expected = training_objective(loss, W, H, b, y, decays, reduction, feature_reduction)
    assert found.scale * value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["LOSS", "FEATURES"])
def test_a_wrong_factor_would_be_seen(name, monkeypatch):
    """The check above fails where the loss's scale, or the batch, is left out of the decays."""
    original = ufm.Decay
    wrong = {
        "LOSS": lambda W, H, b: original(W / K, H, b),
        "FEATURES": lambda W, H, b: original(W, H / B, b),
    }[name]
    monkeypatch.setattr(prediction, "Decay", wrong)
    with pytest.raises(AssertionError):
        test_the_problem_is_training_s_objective_over_its_scale("bce", "mean_over_classes", "batch_sum", monkeypatch)


def test_factors_against_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(B, K)), np.array([0, 1, 2, 0])
    own = torch.tensor(np.eye(K)[y])
    functional = torch.nn.functional
    pairs = (
        ("ce", "mean", functional.cross_entropy(torch.tensor(z), torch.tensor(y))),
        ("bce", "mean_over_classes", functional.binary_cross_entropy_with_logits(torch.tensor(z), own)),
        ("mse", "mean_over_classes", functional.mse_loss(torch.tensor(z), own)),
    )
    for loss, reduction, value in pairs:
        assert batch_loss(loss, z, y, reduction) == pytest.approx(float(value), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "positive", "negative", "cosine", "feature_cosine"),
    [
        ({"loss": "ce"}, 5.6307, -0.6256, -1 / 9, 0.0),
        ({"loss": "ce", "relu": False}, 5.6790, -0.6310, -1 / 9, -1 / 9),
        ({"loss": "bce", "bias_decay": 0.5}, 4.2359, -5.6259, 0.27032, 0.27032),
    ],
)
def test_what_networks_trained_on_mnist_were_near(changes, positive, negative, cosine, feature_cosine):
    found = predict(**MNIST | changes)
    seen = [found.positive, found.negative, found.classifier_cosine, found.feature_cosine]
    np.testing.assert_allclose(seen, [positive, negative, cosine, feature_cosine], atol=5e-5)
    assert found.source == "closed form"
    assert found.gap < 1e-12
    mu = np.sqrt(5e-4 * 5e-4 * 128 / 10)  # the bias of the mean-shifted regime is -mu/decay_b
    assert found.bias == pytest.approx(-mu / 0.5 if changes["loss"] == "bce" else 0.0, abs=1e-12)
    law = np.sqrt(5e-4 / (5e-4 * 128)) * found.norms["weight"]  # decay_W ||W||^2 = decay_H ||H||^2
    assert found.norms["feature"] == pytest.approx(law, rel=1e-9)


def test_a_long_tail_class_by_class():
    """Scores that networks met to 1 % but for the smallest classes; no closed form, but a certificate."""
    tail = ufm.targets.long_tail(10, 5400, 100)
    found = predict(**MNIST | {"counts": tail, "loss": "bce", "bias_decay": 0.05})
    own = [5.182, 4.846, 4.526, 4.219, 3.922, 3.632, 3.345, 3.062, 2.780, 2.496]
    np.testing.assert_allclose(found.positive_by_class, own, atol=2.5e-3)  # whose counts were rounded otherwise
    assert found.source == "solve: converged"
    assert found.gap < 1e-10
    counts = np.asarray(tail.counts(10)) if hasattr(tail, "counts") else np.asarray(tail)
    assert found.positive == pytest.approx(np.average(found.positive_by_class, weights=counts))


def test_effective_decay_of_measured_norms_is_the_one_trained_with():
    trained = predict(**MNIST | {"loss": "ce", "counts": 20})
    measured = (trained.norms["weight"], trained.norms["feature"] * np.sqrt(200))
    found = predict(**MNIST | {"loss": "ce", "counts": 20, "feature_decay": None, "norms": measured})
    assert float(found.problem.decay.H) == pytest.approx(float(trained.problem.decay.H), rel=1e-9)
    assert found.assumptions[0].endswith("the effective one: decay_W ||W||^2 = decay_H ||H||^2.")


def test_assumptions_say_what_matters():
    small = {"classes": 3, "dim": 4, "weight_decay": 0.01, "feature_decay": 0.01, "batch": 5, "counts": 5}
    words = " ".join(predict(**small, loss="ce", bias_decay=0.0, optimizer="adam").assumptions)
    assert "initial mean of the bias" in words
    assert "Adam" in words
    assert "spurious local minimum" in words
    assert "decay_H = 0.00333333: feature_decay times 5" in words
    dead = predict(**small | {"weight_decay": 1.0, "feature_decay": 1.0}, loss="ce")
    assert "At these decays the features of class 0, 1, 2 are 0." in dead.assumptions
    assert dead.positive == dead.feature_cosine == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "bce", "feature_decay": 0.0}, "feature_decay = 0.0: must be a number > 0"),
        ({"feature_decay": None}, "norms = (||W||, ||H||) measured"),
        ({"feature_decay": None, "norms": (1.0,)}, "norms = (1.0,): must be two numbers > 0"),
        ({"norms": (1.0, 1.0)}, "None where a feature_decay is given"),
        ({"loss_reduction": "mean_over_classes"}, "only bce and mse are sums over classes"),
        ({"loss_reduction": "men"}, "did you mean 'mean'?"),
        ({"batch": 0}, "batch = 0: must be a whole number >= 1"),
        ({"batch": 60001}, "at most 60000, all samples"),
        ({"weight_decay": 0.0}, "weight_decay = 0.0: must be a number > 0"),
        ({"optimizer": "lion"}, "one of adam, adamw, sgd"),
        ({"loss": "cce"}, "did you mean"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(ufm.InputError) as error:
        predict(**MNIST | {"loss": "ce"} | changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_decoupled_decay_is_refused():
    with pytest.raises(NoPrediction, match="no objective's stationary point"):
        predict(**MNIST, loss="ce", optimizer="adamw")

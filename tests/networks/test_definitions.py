"""Every number of `ufm.measure` against its definition, and a wrong formula in place of each caught by that."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import ufm
from ufm.networks import uniform

K, D, N = 5, 8, 101
TIED = (3, 4)
"""Two classes with one classifier row, bias and set of features: all their samples are ties."""


def network() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    W, bias = rng.normal(size=(K, D)), rng.normal(size=K) - 4.0
    W[4], bias[4] = W[3], bias[3]
    labels = np.concatenate([np.arange(3), rng.integers(0, 3, N - 43), np.repeat(TIED, 20)])
    F = W[labels] + 0.7 * rng.normal(size=(N, D)) + 0.3
    F[-20:] = F[-40:-20]
    return {"features": F, "labels": labels, "weight": W, "bias": bias}


def share(scores, labels):
    """Mean share of the true class in the largest of its sample's scores (N, K), up to rounding."""
    top = scores >= scores.max(axis=1, keepdims=True) - 1e-12
    return np.mean(top[np.arange(len(labels)), labels] / top.sum(axis=1))


def to_etf(gram):
    M = (np.eye(K) - 1 / K) / np.sqrt(K - 1)
    return np.linalg.norm(gram / np.linalg.norm(gram) - M)


def cosines(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (unit @ unit.T)[~np.eye(K, dtype=bool)]


def definitions(features, labels, weight, bias) -> dict[str, float]:
    """Every number, by its path in `Measurement.to_dict`."""
    F, W = features, weight
    scores, mask = F @ W.T, np.eye(K, dtype=bool)[labels]
    logits, own, others = scores + bias, scores[mask], scores[~mask]
    means = np.array([F[labels == k].mean(axis=0) for k in range(K)])
    center = F.mean(axis=0)
    away, rows, centered = F - means[labels], W - W.mean(axis=0), means - center
    S_W, S_B = away.T @ away / N, centered.T @ centered / K
    near = -((F[:, None] - means[None]) ** 2).sum(axis=2)
    decided, nearest = (x >= x.max(axis=1, keepdims=True) - 1e-12 for x in (logits, near))
    agreed = (decided & nearest).sum(axis=1) / decided.sum(axis=1) / nearest.sum(axis=1)

    def best(samples):
        """Largest number of samples that one threshold classifies, over all middles of scores."""
        points = np.unique(scores[samples])
        middles = 0.5 * (points[1:] + points[:-1])
        return max(np.sum(np.all((scores[samples] > t) == mask[samples], axis=1)) for t in middles)

    trial = np.linspace(scores.min(), scores.max(), 200_001)
    low, high = np.where(mask, -np.inf, scores).max(axis=1), own
    hits = ((low[:, None] < trial) & (trial < high[:, None])).sum(axis=0)
    best_at = np.flatnonzero(hits == hits.max())
    runs = np.split(best_at, np.flatnonzero(np.diff(best_at) > 1) + 1)
    widest = trial[max(runs, key=len)]
    threshold = 0.5 * (widest[0] + widest[-1])
    U = F / np.linalg.norm(F, axis=1, keepdims=True)
    pairs = U @ U.T
    same = labels[:, None] == labels[None, :]
    within = [(pairs[np.ix_(labels == k, labels == k)].sum() - n) / (n * (n - 1)) for k, n in _counts(labels)]
    across = [pairs[np.ix_(labels == j, labels == k)].mean() for j in range(K) for k in range(K) if j != k]
    assert same.any()
    gap = own.mean() - others.mean()
    log_mu = -np.log(np.exp(gap) + K - 1)
    ratio = np.linalg.norm(F) / np.linalg.norm(W)
    found = {
        "collapse.nc1": np.trace(S_W @ np.linalg.pinv(S_B, rcond=1e-10)) / K,
        "collapse.nc2": to_etf(rows @ rows.T),
        "collapse.nc2_uncentred": to_etf(W @ W.T),
        "collapse.nc2_means": to_etf(centered @ centered.T),
        "collapse.nc2_means_uncentred": to_etf(means @ means.T),
        "collapse.nc3": to_etf(W @ centered.T),
        "collapse.nc4": 1.0 - agreed.mean(),
        "accuracy.sample_wise": share(scores, labels),
        "accuracy.with_bias": share(logits, labels),
        "accuracy.class_wise": sum(best(labels == k) for k in range(K)) / N,
        "accuracy.uniform": best(labels >= 0) / N,
        "accuracy.at_bias": np.mean(np.all((logits > 0) == mask, axis=1)),
        "threshold": threshold,
        "bias.mean": bias.mean(),
        "bias.std": bias.std(),
        "bias.to_threshold.mean": abs(-bias.mean() - threshold),
        "bias.to_threshold.max": np.abs(-bias - threshold).max(),
        "scores.overlap": uniform.overlap(own, others),
        "compactness": np.mean(within),
        "distinctiveness": 1.0 - np.mean(across),
        "nearest.ce.log_mu": log_mu,
        "nearest.ce.decay_W": np.exp(log_mu) / np.sqrt(N / K) * ratio,
        "nearest.ce.decay_H": np.exp(log_mu) / np.sqrt(N / K) / ratio,
        "nearest.ce.positive": gap * (K - 1) / K,
        "nearest.ce.negative": -gap / K,
        "nearest.ce.residual": np.linalg.norm(scores - np.where(mask, gap * (K - 1) / K, -gap / K))
        / np.linalg.norm(scores),
        "nearest.ce.alignment": np.sqrt(N / K) * (K - 1) * gap / np.linalg.norm(F) / np.linalg.norm(W),
    }
    for name, x in (("classifier", W), ("means", centered)):
        norms, cos = np.linalg.norm(x, axis=1), cosines(rows if name == "classifier" else x)
        found[f"collapse.equinorm_{name}"] = norms.std() / norms.mean()
        found[f"collapse.equiangular_{name}"] = cos.std()
        found[f"collapse.maximal_angle_{name}"] = np.abs(cos + 1 / (K - 1)).mean()
    for side, x in (("positive", own), ("negative", others)):
        values = {"mean": x.mean(), "std": x.std(), "min": x.min(), "max": x.max()}
        found |= {f"scores.{side}.{key}": value for key, value in values.items()}
    return found


def _counts(labels):
    return list(enumerate(np.bincount(labels)))


ROUGH = {
    "threshold": 1e-3,
    "bias.to_threshold.mean": 1e-3,
    "bias.to_threshold.max": 1e-3,
    "scores.overlap": 0.02,  # at most one bin's mass above the exact value
}
"""Absolute tolerances of what is found by trial on a grid; the rest agrees to 1e-9."""


def wrong(truth) -> set[str]:
    """Paths at which the measured network is not as defined."""
    found, failed = ufm.measure(**network()).to_dict(), set()
    for path, expected in truth.items():
        value = found
        for key in path.split("."):
            value = value[key]
        if value != pytest.approx(expected, rel=1e-9, abs=ROUGH.get(path, 1e-12)):
            failed.add(path)
    return failed


@pytest.fixture(scope="module")
def truth():
    return definitions(**network())


def test_every_number_against_the_definitions(truth):
    assert wrong(truth) == set()


def only_scores(old):
    """Own and other scores change places."""

    def swapped(scores, labels, width=0.0):
        found = old(scores, labels, width)
        return uniform.Extremes(found.negative, found.positive, 1.0 - found.credit)

    return swapped


MUTATIONS = {
    # attribute, wrong formula, paths at which it is seen
    "streaming.between_inverse": (lambda old: lambda C, size: (old(C, size)[0] ** 2, 0.0), ["collapse.nc1"]),
    "streaming.ratio_of_variances": (lambda old: lambda value, *rest: K * old(value, *rest), ["collapse.nc1"]),
    "streaming.agreement": (lambda old: lambda first, second: (first & second).any(axis=0), ["collapse.nc4"]),
    "streaming.tied": (lambda old: lambda x, width: np.eye(len(x), dtype=bool)[x.argmax(axis=0)].T, ["collapse.nc4"]),
    "streaming.extremes": (
        only_scores,
        [
            *(f"scores.{name}" for name in ("positive.mean", "positive.std", "positive.min", "positive.max")),
            *(f"scores.{name}" for name in ("negative.mean", "negative.std", "negative.max")),
            *(f"accuracy.{name}" for name in ("sample_wise", "with_bias", "class_wise", "uniform")),
        ],
    ),
    "streaming._bins": (lambda old: lambda values, edges: old(-values, edges), ["scores.overlap"]),
    "configuration._frame": (
        lambda old: lambda xp, like, classes: np.eye(classes) / np.sqrt(classes),
        [f"collapse.{name}" for name in ("nc2", "nc2_uncentred", "nc2_means", "nc2_means_uncentred", "nc3")],
    ),
    "configuration._to_etf": (
        lambda old: lambda rows, gram, common: old(rows, gram, 0.0 * common),
        ["collapse.nc2_uncentred", "collapse.nc2_means_uncentred"],
    ),
    "configuration._gram": (lambda old: lambda rows: old(abs(rows)), ["collapse.nc2", "collapse.nc2_means"]),
    "configuration._to_duality": (lambda old: lambda W, means: old(W, W), ["collapse.nc3"]),
    "configuration._norm_variation": (
        lambda old: lambda rows: np.linalg.norm(rows, axis=1).std(),
        ["collapse.equinorm_classifier", "collapse.equinorm_means"],
    ),
    "configuration._angles": (
        lambda old: lambda rows, pairs: old(rows + 0.1, pairs),
        [f"collapse.{a}_{b}" for a in ("equiangular", "maximal_angle") for b in ("classifier", "means")],
    ),
    "uniform.sample_wise_accuracy": (
        lambda old: lambda e: float(np.mean(e.positive > e.negative)),
        ["accuracy.sample_wise", "accuracy.with_bias"],
    ),
    "uniform.class_wise_accuracy": (
        lambda old: lambda e, labels, classes: old(e, 0 * labels, classes),
        ["accuracy.class_wise"],
    ),
    "uniform.uniform_accuracy": (
        lambda old: lambda e: old(uniform.Extremes(e.positive + 1.0, e.negative)),
        ["accuracy.uniform", "threshold", "bias.to_threshold.mean", "bias.to_threshold.max"],
    ),
    "uniform.accuracy_at": (lambda old: lambda e, t: float(np.mean(e.positive > t)), ["accuracy.at_bias"]),
    "uniform.bias_to_threshold": (
        lambda old: lambda bias, t: old(-bias, t),
        ["bias.to_threshold.mean", "bias.to_threshold.max"],
    ),
    "cosines.compactness": (lambda old: lambda sums, n, nonzero: old(sums, n + 1, nonzero), ["compactness"]),
    "cosines.distinctiveness": (lambda old: lambda sums, n: 1.0 + old(sums, n), ["distinctiveness"]),
    "cosines.class_sums": (lambda old: lambda H, k, classes, out: old(H[::-1] ** 2, k, classes, out), ["compactness"]),
}
NEAREST = [f"nearest.ce.{name}" for name in ("log_mu", "positive", "negative", "residual", "alignment")]
MUTATIONS["nearest._ce"] = (
    lambda old: lambda seen: (m._replace(logits=m.logits._replace(p=0.0, gap=0.0), log_mu=1.0) for m in old(seen)),
    [*NEAREST[:2], "nearest.ce.residual", "nearest.ce.alignment", "nearest.ce.decay_W", "nearest.ce.decay_H"],
)
MUTATIONS["nearest.Logits"] = (lambda old: lambda a, c, b, p, q: old(a, c, b, q, p), ["nearest.ce.negative"])
PLAIN = {"bias.mean", "bias.std", "scores.negative.min"}
"""A mean, a deviation and a minimum that NumPy takes of what is given: no formula of ours."""
HOMES = {name: f"ufm.networks.{name}" for name in ("streaming", "uniform", "cosines")}
HOMES |= {"nearest": "ufm.networks.nearest_model", "configuration": "ufm.metrics.configuration"}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_formula_is_caught(name, truth, monkeypatch):
    mutation, seen = MUTATIONS[name]
    home, attribute = name.split(".")
    module = importlib.import_module(HOMES[home])
    monkeypatch.setattr(module, attribute, mutation(getattr(module, attribute)))
    assert wrong(truth) >= set(seen)


def test_a_formula_is_mutated_for_every_number(truth):
    assert {path for _, seen in MUTATIONS.values() for path in seen} == truth.keys() - PLAIN
    numbers = {path for path, value in _leaves(ufm.measure(**network()).to_dict()) if isinstance(value, float)}
    other = {path for path in numbers - truth.keys() if not path.startswith(("nearest.bce", "threshold_interval"))}
    assert other == {f"nearest.ce.{name}" for name in ("mu", "misfit", "decay_b", "bias", "bias_residual")}


def _leaves(tree, path=""):
    for key, value in tree.items():
        where = f"{path}.{key}" if path else key
        yield from _leaves(value, where) if isinstance(value, dict) else [(where, value)]

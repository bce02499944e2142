"""`ufm verify` on problems of every kind that can be stated: no crash, and nothing refuted that is on record as true.

`UFM_DRAWS=5000` draws more. Shapes come from a small pool, for a shape costs compilations and a decay none.
"""

import collections
import os

import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm.atlas import THEOREMS, Verdict, check
from ufm.atlas._core import Evidence

DRAWS = int(os.environ.get("UFM_DRAWS", "200"))
SEED = int(os.environ.get("UFM_SEED", "0"))
EVERY = os.environ.get("UFM_DRAWS") is not None
# Classes, dimension (from 1, above and below K - 1) and counts.
SHAPES = (
    ((2, 3, 2), (2, 1, (3, 1)), (3, 4, 2), (3, 2, (2, 1, 1)), (3, 1, 2))
    + ((4, 5, 2), (4, 3, 1), (4, 5, (3, 3, 1, 1)), (2, 3, (2, 2)), (3, 4, (3, 2, 2))) * EVERY
)


def margin(z, k):
    """A convex loss of the differences of logits that is none of ours."""
    return jnp.sum(jnp.logaddexp(0.0, 1.0 - z[k] + z))


def weighted(z, k, weights):
    """Cross-entropy that tells classes apart."""
    return jnp.asarray(weights, z.dtype)[k % 2] * (jnp.logaddexp.reduce(z) - z[k])


MARGIN = ufm.losses.custom(margin, convex=True, shift_invariant=True, infimum=0.0)
LOSSES = {
    "ce": lambda rng: ufm.losses.CE(),
    "bce": lambda rng: ufm.losses.BCE(),
    "focal": lambda rng: ufm.losses.Focal(float(rng.uniform(0.0, 4.0))),
    "label-smoothing": lambda rng: ufm.losses.LabelSmoothing(float(rng.uniform(0.0, 0.95))),
    "mse": lambda rng: ufm.losses.MSE(*np.exp(rng.normal(size=2)).tolist()) if rng.random() < 0.7 else ufm.losses.MSE(),
    "naive": lambda rng: ufm.losses.Naive(),
    "logistic": lambda rng: ufm.losses.Logistic(),
    "margin": lambda rng: MARGIN,
    "weighted": lambda rng: ufm.losses.custom(weighted, {"weights": np.array([3.0, 0.1])}, convex=True, infimum=0.0),
}


def any_problem(rng):
    """A problem of any kind: half of the strengths near those where something changes, all decays from 1e-8 to 100."""
    K, d, n = SHAPES[rng.integers(len(SHAPES))]
    loss = LOSSES[list(LOSSES)[rng.integers(len(LOSSES))]](rng)
    bias = ("per_class", "unified", "none")[rng.integers(3)]
    features = ("per_sample", "per_class")[rng.integers(2)]
    W, H, b = np.exp(rng.uniform(np.log(1e-8), np.log(1e2), 3))
    kind = rng.integers(6)
    if kind < 3:  # K mu of order one, at one, or as small as the limit wants
        wanted = (np.exp(rng.normal()), 1.0 + rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-8, -1), 1e-3)[kind]
        ratio = np.exp(rng.normal())
        root = wanted / K / np.sqrt(np.mean(n)) if kind < 2 else wanted / np.sum(n * np.ones(K)) * rng.uniform(0.01, 1)
        W, H = root * ratio, root / ratio
    if rng.random() < 0.2:
        W = H
    b = (b, 0.0, np.exp(rng.uniform(-7, 0)))[rng.integers(3)]
    decay = ufm.Decay(*(x.item() if rng.random() < 0.8 else jnp.asarray(x, jnp.float32) for x in np.array([W, H, b])))
    fixed = rng.random() < 0.15
    normalized = not fixed and rng.random() < 0.25
    classifier = rng.normal(size=(K, d)).astype((np.float32, np.float64)[rng.integers(2)]) if fixed else None
    problem = ufm.Problem(K, d, n, loss, decay, bias, features, classifier)
    return ufm.NormalizedProblem(problem, float(np.exp(rng.uniform(-2, 5)))) if normalized else problem


def test_any_problem():
    rng = np.random.default_rng(SEED)
    counts, wrong = collections.Counter(), []
    # Verdicts that need no solve, of all draws; those that need one, of every fourth where CI waits.
    for i in range(DRAWS):
        problem = any_problem(rng)
        evidence = Evidence(problem, seed=i)
        for theorem in THEOREMS.values():
            try:
                finding = check(theorem, problem, evidence)
            except ufm.InputError:
                counts["refused"] += 1
                continue
            except Exception as error:
                wrong.append((theorem.id, str(problem), repr(error)))
                continue
            counts[finding.verdict] += 1
            if not finding.as_recorded:
                wrong.append((theorem.id, str(problem), finding.reason))
    print(dict(counts), "wrong:", len(wrong))
    for found in wrong:
        print(found)
    assert not wrong
    assert counts[Verdict.HOLDS] > DRAWS

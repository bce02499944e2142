"""`ufm verify` on problems of every kind that can be stated: no crash, and nothing refuted that is on record as true.

`UFM_DRAWS=5000` draws more, `UFM_SEED` others. A kind costs compilations and a decay none: problems of one kind share
their programs.
"""

import collections
import os

import jax
import jax.numpy as jnp
import numpy as np

import ufm
from ufm.atlas import THEOREMS, Verdict, check
from ufm.atlas._core import Evidence

DRAWS, SEED = int(os.environ.get("UFM_DRAWS", "200")), int(os.environ.get("UFM_SEED", "0"))
KINDS = max(18, DRAWS // 20)
"""Twice the number of losses: each comes up twice in the shortest run."""
SMALL = ((2, 3, 2), (3, 4, 2), (3, 2, (2, 1, 1)), (2, 1, (3, 1)), (3, 4, (3, 2, 2)), (3, 1, 2))
SHAPES = (*SMALL, (4, 5, 2), (4, 3, 1), (4, 5, (3, 3, 1, 1)), (2, 2, 1), (4, 4, (2, 1, 1, 1)))
"""Classes, dimension (from 1, below and above the classes) and samples per class; the first few in a short run."""


def margin(z, k):
    """A convex loss of the differences of logits that is none of ours."""
    return jnp.sum(jnp.logaddexp(0.0, 1.0 - z[k] + z))


def weighted(z, k, weights):
    """Cross-entropy that tells classes apart."""
    return weights[k % 2] * (jax.nn.logsumexp(z) - z[k])


MARGIN = ufm.losses.custom(margin, convex=True, shift_invariant=True, infimum=0.0)
LOSSES = {
    "ce": lambda rng: ufm.losses.CE(),
    "bce": lambda rng: ufm.losses.BCE(),
    "focal": lambda rng: ufm.losses.Focal(float(rng.uniform(0.0, 4.0))),
    "label-smoothing": lambda rng: ufm.losses.LabelSmoothing(float(rng.uniform(0.0, 0.95))),
    "mse": lambda rng: ufm.losses.MSE(*(np.exp(rng.normal(size=2)) if rng.random() < 0.7 else np.ones(2)).tolist()),
    "naive": lambda rng: ufm.losses.Naive(),
    "logistic": lambda rng: ufm.losses.Logistic(),
    "margin": lambda rng: MARGIN,
    "weighted": lambda rng: ufm.losses.custom(weighted, {"weights": jnp.array([3.0, 0.1])}, convex=True, infimum=0.0),
}


def kind(rng, loss):
    """What a compiled program depends on, as a function of a generator that draws a problem of the kind."""
    K, d, n = SHAPES[rng.integers(len(SHAPES) if DRAWS > 200 else len(SMALL))]
    if loss == "logistic" and rng.random() < 0.8:
        K, d, n = SHAPES[0]
    bias, features = ("per_class", "unified", "none")[rng.integers(3)], ("per_sample", "per_class")[rng.integers(2)]
    form = ("free", "free", "free", "fixed", "spheres")[rng.integers(5)]
    narrow = rng.random() < 0.3

    def of_kind(rng):
        decay = ufm.Decay(*((jnp.float32(x) if narrow else x) for x in decays(rng, K, n)))
        classifier = None
        if form == "fixed":
            classifier = rng.normal(size=(K, d)).astype(np.float32 if narrow else float)
        problem = ufm.Problem(K, d, n, LOSSES[loss](rng), decay, bias, features, classifier)
        gamma = float(np.exp(rng.uniform(-2.0, 5.0)))
        return ufm.NormalizedProblem(problem, gamma) if form == "spheres" else problem

    return of_kind


def decays(rng, classes, counts):
    """All from 1e-8 to 100; or K mu of order one, near one, or as small as the limit wants; some equal, some zero."""
    W, H, b = np.exp(rng.uniform(np.log(1e-8), np.log(1e2), 3))
    samples = float(np.sum(counts * np.ones(classes)))
    strengths = (
        np.exp(rng.normal()) / np.sqrt(classes * samples),
        (1.0 + rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-8.0, -1.0)) / np.sqrt(classes * samples),
        10.0 ** rng.uniform(-5.0, -3.0) / samples,
    )
    which, ratio = rng.integers(6), np.exp(rng.normal())
    if which < 3:
        W, H = strengths[which] * ratio, strengths[which] / ratio
    H = W if rng.random() < 0.2 else H
    b = (b, 0.0, np.exp(rng.uniform(-7.0, 0.0)))[rng.integers(3)]
    return float(W), float(H), float(b)


def problems():
    """`DRAWS` problems, those of one kind in a row."""
    rng = np.random.default_rng(SEED)
    names = list(LOSSES)
    for i in range(KINDS):
        of_kind = kind(rng, names[i % len(names)])
        for _ in range(DRAWS * (i + 1) // KINDS - DRAWS * i // KINDS):
            yield of_kind(rng)


def judge(problem, seed):
    """The verdict of each theorem on a problem, and what must not be: exceptions, and verdicts against the record."""
    evidence, verdicts, wrong = Evidence(problem, seed), collections.Counter(), []
    for theorem in THEOREMS.values():
        try:
            found = check(theorem, problem, evidence)
        except ufm.InputError:
            verdicts["refused"] += 1
        except Exception as error:
            wrong.append(f"{theorem.id} on {problem}: {error!r}")
        else:
            verdicts[found.verdict] += 1
            if not found.as_recorded:
                wrong.append(f"{theorem.id} on {problem}: {found.reason}")
    return verdicts, wrong


def test_any_problem_that_can_be_stated():
    verdicts, wrong = collections.Counter(), []
    for seed, problem in enumerate(problems()):
        found, bad = judge(problem, seed)
        verdicts += found
        wrong += bad
    assert not wrong, "\n".join([f"{len(wrong)} of {sum(verdicts.values())}: {dict(verdicts)}", *wrong])
    # Verdicts that decide nothing would pass, too. By the seed a problem is inside 1.8 to 2.3 theorems that hold.
    assert verdicts[Verdict.HOLDS] > DRAWS
    assert verdicts[Verdict.INCONCLUSIVE] < verdicts[Verdict.HOLDS]

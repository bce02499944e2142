"""Two classes: softmax on two neurons or sigmoid on one?"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from scipy.special import log_expit, log_softmax, logsumexp

from ufm.atlas._claims import lowest
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import SHAPES, Family
from ufm.atlas.hypotheses import (
    balanced,
    bias_per_class,
    dim_at_least,
    free_bias,
    free_classifier,
    loss,
    no_bias,
    number,
    separating,
    strength,
)
from ufm.losses import BCE, CE, Logistic
from ufm.problem import Decay, Problem


def one_neuron_problem(problem: Problem) -> Problem:
    """The one-neuron problem (`ufm.losses.Logistic`) with decays (W/2, H, b/2)."""
    decay = Decay(problem.decay.W / 2.0, problem.decay.H, problem.decay.b / 2.0)
    return Problem(2, problem.dim, problem.per_class, Logistic(), decay, problem.bias, problem.features)


def _equivalence(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    single = Evidence(one_neuron_problem(problem), evidence.seed).certified("the problem with one neuron")
    two, one = evidence.solution.params, single.solution.params
    difference = two.W[0] - two.W[1]
    quantities = [
        lowest(evidence, single.value),
        quantity("||w_1 - w_2||", float(jnp.linalg.norm(one.W[0])), float(jnp.linalg.norm(difference))),
    ]
    if problem.bias == "per_class":
        quantities.append(quantity("b_1 - b_2", float(one.b[0]), float(two.b[0] - two.b[1])))
    return quantities


EQUIVALENCE = Theorem(
    id="binary/equivalence",
    source="classical; theory of this package",
    statement="Two-class CE equals one-neuron logistic loss with w = w_1 - w_2, b = b_1 - b_2 and their decays halved.",
    formula="CE(decay_W, decay_H, decay_b) = logistic(decay_W/2, decay_H, decay_b/2)",
    hypotheses=loss(CE) & free_classifier & number("K", lambda p: p.classes, "=", 2) & (bias_per_class | no_bias),
    claim=_equivalence,
    draw=Family(lambda rng: CE(), ((2, 3, 4), (2, 3, (5, 2))), ("per_class", "none")),
)


def outputs_of(mu: float, classes: int) -> tuple[float, float]:
    """``((K-1) mu, mu)``: what is missing from 1 at the true class, and the output elsewhere."""
    return (classes - 1) * mu, mu


def _outputs(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    """Logarithms of probabilities at the solution, from its logits by SciPy; mu alone predicts them."""
    missing, other = outputs_of(strength(problem), problem.classes)
    Z = np.asarray(problem.logits(evidence.solution.params))
    true = np.arange(problem.classes)[:, None] == problem.labels[None, :]
    if isinstance(problem.loss, BCE):
        elsewhere, missed = log_expit(Z[~true]), log_expit(-Z[true])
    else:
        logs = log_softmax(Z, axis=0)
        elsewhere, missed = logs[~true], logsumexp(np.where(true, -np.inf, logs), axis=0)
    return [
        quantity("log of 1 - output at the true class", np.log(missing), missed.mean(), 1e-6),
        quantity("log of the output elsewhere", np.log(other), elsewhere.mean(), 1e-6),
        quantity("spread of the outputs elsewhere, relative", 0.0, np.ptp(elsewhere), 1e-6),
    ]


OUTPUTS = Theorem(
    id="binary/outputs",
    source="theory of this package",
    statement="Softmax and sigmoids alike: regularization alone sets how extreme the outputs are.",
    formula="1 - (K-1) mu at the true class, mu elsewhere, mu = sqrt(n decay_W decay_H)",
    hypotheses=(loss(CE) | loss(BCE) & free_bias) & free_classifier & balanced & dim_at_least(-1) & separating,
    claim=_outputs,
    draw=Family(lambda rng: (CE(), BCE())[rng.integers(2)], SHAPES, strength=(1e-3, 2.0), decay_b=(0.0, 0.0)),
)

THEOREMS = (EQUIVALENCE, OUTPUTS)

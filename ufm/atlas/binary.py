"""Two classes: softmax on two neurons or sigmoid on one?"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.losses import CE, custom
from ufm.problem import Decay, Problem


def one_neuron(logits: Array, label: Array) -> Array:
    """Logistic loss ``softplus(-y z)``, y = +1 for class 0 and -1 for class 1, of the first logit alone."""
    sign = jnp.where(jnp.asarray(label) == 0, 1.0, -1.0).astype(logits.dtype)
    return jax.nn.softplus(-sign * logits[0])


LOGISTIC = custom(one_neuron, convex=True, infimum=0.0)


def one_neuron_problem(problem: Problem) -> Problem:
    """The one-neuron problem with decays (W/2, H, b/2); the second row of W is idle and decays to zero."""
    decay = Decay(problem.decay.W / 2.0, problem.decay.H, problem.decay.b / 2.0)
    return Problem(2, problem.dim, problem.per_class, LOGISTIC, decay, problem.bias, problem.features)


def _equivalence(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    single = Evidence(one_neuron_problem(problem), evidence.seed)
    two, one = evidence.solution.params, single.solution.params
    difference = two.W[0] - two.W[1]
    quantities = [
        quantity("minimum", single.value, evidence.value, 1e-9),
        quantity("certified gap with one neuron", 0.0, single.gap, 1e-9),
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
    hypotheses="CE, K = 2, bias per class or none",
    inside=lambda p: isinstance(p.loss, CE) and p.classes == 2 and p.classifier is None and p.bias != "unified",
    claim=_equivalence,
)

THEOREMS = (EQUIVALENCE,)

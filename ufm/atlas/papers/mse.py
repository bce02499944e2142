"""Squared error: Zhou, Li, Ding, You, Qu & Zhu 2022 (MSE) and Tirer & Bruna 2022."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ufm import geometry
from ufm.atlas._claims import equivalent_decay_b, etf_geometry, nonzero, symmetric_logits
from ufm.atlas._core import Evidence, Quantity, Theorem, quantity
from ufm.atlas._draw import WIDE, Family
from ufm.atlas.hypotheses import (
    Hypothesis,
    K_mu,
    balanced,
    dim_at_least,
    free_bias,
    free_classifier,
    loss,
    no_bias,
    number,
    strength,
)
from ufm.losses import MSE
from ufm.problem import Problem
from ufm.theory import closed_forms
from ufm.theory.closed_forms import Logits


def _rescaled(rng: np.random.Generator) -> MSE:
    return MSE(float(rng.uniform(0.3, 5.0)), float(rng.uniform(0.5, 8.0)))


def _predicted(problem: Problem) -> Logits:
    hyper = {k: float(v) for k, v in problem.loss.hyper.items()}
    return closed_forms.mse(strength(problem), problem.classes, equivalent_decay_b(problem), **hyper)


def _hyper(problem: Problem) -> str:
    return ", ".join(f"{name} = {float(value):g}" for name, value in problem.loss.hyper.items())


SQUARES = loss(MSE) & free_classifier & balanced & dim_at_least(0)
apart = number("gap", lambda p: _predicted(p).gap, ">", 0)
plain = Hypothesis("kappa = beta = 1", lambda p: all(float(v) == 1 for v in p.loss.hyper.values()), _hyper)


def _free_bias(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return symmetric_logits(problem, evidence, _predicted(problem)) + etf_geometry(problem, evidence)


WITH_BIAS = Theorem(
    id="mse/bias",
    source="Zhou et al. 2022 (MSE), Thm 3.1; Tirer & Bruna 2022, Thm 3.2",
    statement="With a free bias the global minimizers of rescaled MSE collapse to a centered simplex ETF.",
    formula="linear equations for (p, q): see closed_forms.mse",
    hypotheses=SQUARES & free_bias & apart,
    claim=_free_bias,
    draw=Family(_rescaled, WIDE, decay_b=(0.0, 0.0), strength=(0.01, 30.0)),
)


def frame_size(mu: float, classes: int) -> float:
    """``1 - K mu/2``: half the loss with target 1 has ``X = (1 - K mu_half) I``; ours is twice that."""
    return max(0.0, 1.0 - classes * mu / 2.0)


def _frame(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    x = evidence.solution.params
    identity = np.eye(problem.classes)
    distances = {
        "distance of WW' from a multiple of I": geometry.gram_distance(x.W, identity),
        "NC1": evidence.collapse.nc1,
    }
    shape = [quantity(name, 0.0, float(value), 1e-6) for name, value in distances.items()]
    size = frame_size(strength(problem), problem.classes)
    return [quantity("positive score", size, evidence.scores["positive"]["mean"]), *shape, nonzero(problem, evidence)]


NO_BIAS = Theorem(
    id="mse/no-bias",
    source="Tirer & Bruna 2022, Thm 3.1",
    statement="Without bias the global minimizers of MSE collapse to an orthogonal frame, not an ETF.",
    formula="W H = (1 - K mu/2) I for ||z - e_k||^2",
    hypotheses=SQUARES & plain & no_bias & number("K mu", K_mu, "<", 2),
    claim=_frame,
    draw=Family(lambda rng: MSE(1.0, 1.0), WIDE, ("none",)),
)


def _decayed(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    shape = etf_geometry(problem, evidence, centered=False) if _predicted(problem).gap > 0 else []
    return symmetric_logits(problem, evidence, _predicted(problem)) + shape


DECAYED_BIAS = Theorem(
    id="mse/decayed-bias",
    source="scalar reduction (this package)",
    statement="With a decayed bias, MSE gains a mean mode once decay_b |b| exceeds mu.",
    formula="c = 0 iff decay_b |b| <= mu; beyond it b = mu/decay_b",
    hypotheses=SQUARES,
    claim=_decayed,
    case=lambda p: (_predicted(p).gap > 0, _predicted(p).shift == 0),
    draw=Family(_rescaled, WIDE, ("per_class", "unified", "none"), strength=(0.01, 10.0), decay_b=(1e-3, 10.0)),
)

THEOREMS = (WITH_BIAS, NO_BIAS, DECAYED_BIAS)

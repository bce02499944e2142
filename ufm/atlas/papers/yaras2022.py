"""Yaras, Wang, Zhu, Balzano & Qu 2022, "Neural Collapse with Normalized Features": cross-entropy on spheres."""

from __future__ import annotations

from collections.abc import Sequence

from ufm.atlas._claims import collapsed_cosines
from ufm.atlas._core import Evidence, Quantity, Theorem
from ufm.atlas._draw import WIDE, SphereFamily
from ufm.atlas.hypotheses import balanced, decayed_bias, dim_at_least, loss, no_bias, on_spheres
from ufm.losses import CE
from ufm.problem import Problem
from ufm.theory import spheres as theory


def _ce(problem: Problem, evidence: Evidence) -> Sequence[Quantity]:
    return collapsed_cosines(problem, evidence, theory.ce(float(problem.model.gamma), problem.classes))


NORMALIZED_CE = Theorem(
    id="yaras2022/ce",
    source="Yaras et al. 2022, Thm 1; with a decayed bias: this package",
    statement="Global minimizers of CE over unit norms collapse to a simplex ETF for every temperature.",
    formula="minimum log(1 + (K-1) exp(-K gamma/(K-1)))",
    hypotheses=loss(CE) & on_spheres & balanced & dim_at_least(0) & (no_bias | decayed_bias),
    claim=_ce,
    draw=SphereFamily(lambda rng: CE(), WIDE, ("none", "per_class")),
)

THEOREMS = (NORMALIZED_CE,)

"""Proofs that the refuted theorems are false: files that anyone can check, and how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ufm._base import require, require_known
from ufm.atlas._core import Theorem
from ufm.atlas._verify import THEOREMS
from ufm.losses import BCE, Focal
from ufm.models import Spheres
from ufm.problem import Decay, Problem
from ufm.theory import minimizer

if TYPE_CHECKING:
    from ufm.proof import Proof

PLACE = Path(__file__).parent / "proofs"
# Just beyond the decay at which the origin stops being a saddle, F'(log(K-1))/(K-1); for K = 24 an ETF lies lower.
_FLAT = Problem(24, 25, 1, Focal(3.0), Decay(0.0519, 0.0519, 0.0), "none")
PROBLEMS: dict[str, Problem] = {
    "li2025/2": Problem(10, 20, 5, BCE(), Decay(5e-3, 1e-3, 0.5)),
    "rediscovering/normalised": Problem(4, 6, 3, BCE(), Decay(b=0.5), model=Spheres(4.0)),
    "zhou2022/contrastive-focal": _FLAT,
    "zhou2022/focal-landscape-global": _FLAT,
}
"""The problem on which each refuted theorem is proved to be false."""
UNPROVED = {
    "dang2023/ce": "two points of a deep model are compared, and the prover knows no deep models yet",
    "dang2024/ce-bias": "it takes a bound on all orthogonal points, which the prover does not know yet",
}
"""Refuted by numbers and certificates, and not by a proof: why."""


def proof_file(theorem: str) -> Path:
    """The proof that a theorem is false, as it comes with the package; ``python -m ufm.proof.checker`` checks it.

    Raises:
        InputError: for a theorem without.

    >>> proof_file("li2025/2").name
    'li2025-2.json'
    """
    require_known("theorem", theorem, PROBLEMS)
    return PLACE / f"{theorem.replace('/', '-')}.json"


def refute(theorem: Theorem, problem: Problem) -> Proof:
    """Prove that what ``theorem`` claims of ``problem`` is false: its claim against the closed-form minimizer.

    Raises:
        InputError: for a theorem whose claim has no form for `ufm.proof`.
        Unproved: if the claim is not refuted.

    >>> import ufm
    >>> proof = refute(ufm.atlas.THEOREMS["li2025/2"], PROBLEMS["li2025/2"])
    >>> proof.document["refutes"]["by"][:12]
    '1.0946792331'
    """
    from ufm.proof import prove

    provable = [t.id for t in THEOREMS.values() if t.refutation is not None]
    require(theorem.refutation is not None, "theorem", theorem.id, f"one of {', '.join(provable)}")
    return prove(problem, minimizer(problem).params, refutes=theorem.refutation(problem))  # type: ignore[misc]

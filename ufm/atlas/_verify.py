"""Run the theorems: the standard suite, or all that apply to a problem."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax

from ufm._base import require_known
from ufm._parallel import in_parallel
from ufm._version import __version__
from ufm.atlas._core import Evidence, Finding, Report, Theorem, Verdict, check
from ufm.atlas._trials import RETRIES, Trials, run_trials
from ufm.atlas.papers import PAPERS, binary, li2025, mse, rediscovering, zhou2022, zhu2021
from ufm.losses import BCE, CE, MSE, Focal, LabelSmoothing
from ufm.models import Spheres
from ufm.problem import Decay, Problem

THEOREMS: dict[str, Theorem] = {t.id: t for group in PAPERS.values() for t in group}


@dataclass(frozen=True)
class Case:
    """A theorem on one problem, with the verdict recorded for it."""

    theorem: Theorem
    problem: Any
    recorded: Verdict
    note: str = ""


def standard_suite() -> list[Case]:
    """The cases that ``ufm verify`` runs: the papers' settings (K = 10 and 100, decays 5e-4) and small ones.

    >>> import ufm
    >>> refuted = [case for case in ufm.atlas.standard_suite() if case.recorded == "refuted"]
    >>> [case.theorem.id for case in refuted]
    ['li2025/2', 'li2025/2', 'rediscovering/normalised']
    """
    holds = Verdict.HOLDS
    ten = Problem(10, 64, 100, decay=Decay(5e-4, 5e-4, 5e-4))
    hundred = Problem(100, 128, 10, decay=Decay(5e-4, 5e-4, 5e-4))
    small = Problem(4, 5, 3, decay=Decay(0.02, 0.01, 0.05))
    # K mu = 1 at decay 1/(K sqrt n): one step to either side of the threshold.
    above, below = Decay(0.0102, 0.0102, 5e-4), Decay(0.0098, 0.0098, 5e-4)
    counterexample = Problem(10, 20, 5, BCE(), Decay(5e-3, 1e-3, 0.5))
    ce, focal, smooth = (dataclasses.replace(ten, loss=x) for x in (CE(), Focal(3.0), LabelSmoothing(0.1)))

    def with_decay(problem: Problem, decay: Decay) -> Problem:
        return dataclasses.replace(problem, decay=decay)

    squares = dataclasses.replace(ten, loss=MSE(1.0, 1.0))
    pair = Problem(2, 3, 4, CE(), Decay(0.05, 0.02, 0.1))
    normalized = Problem(4, 6, 3, BCE(), Decay(b=0.5), model=Spheres(4.0))
    return [
        Case(zhu2021.MINIMIZER, ce, holds),
        Case(zhu2021.MINIMIZER, dataclasses.replace(hundred, loss=CE()), holds),
        Case(zhu2021.CERTIFICATE, ce, holds),
        Case(zhu2021.MINIMIZER, with_decay(ce, below), holds, "just below the threshold"),
        Case(zhu2021.THRESHOLD, with_decay(ce, above), holds, "just above the threshold"),
        Case(li2025.THEOREM_1, ce, holds),
        Case(zhou2022.FOCAL, focal, holds),
        Case(zhou2022.LABEL_SMOOTHING, smooth, holds),
        Case(
            zhou2022.LABEL_SMOOTHING, with_decay(smooth, Decay(0.0088, 0.0088, 5e-4)), holds, "just below the threshold"
        ),
        Case(
            zhou2022.LABEL_SMOOTHING_ZERO,
            with_decay(smooth, Decay(0.0092, 0.0092, 5e-4)),
            holds,
            "just above the threshold",
        ),
        Case(mse.WITH_BIAS, with_decay(squares, Decay(5e-4, 5e-4, 0.0)), holds),
        Case(mse.NO_BIAS, dataclasses.replace(squares, bias="none"), holds),
        Case(mse.DECAYED_BIAS, squares, holds, "bias decayed lightly: ETF"),
        Case(mse.DECAYED_BIAS, with_decay(squares, Decay(5e-4, 5e-4, 0.5)), holds, "bias decayed strongly: mean mode"),
        Case(li2025.THEOREM_2, ten, holds, "decay_b |b| <= mu"),
        Case(li2025.THEOREM_2, dataclasses.replace(hundred, loss=BCE()), Verdict.REFUTED, "K = 100: decay_b |b| > mu"),
        Case(li2025.THEOREM_2, counterexample, Verdict.REFUTED, "the counterexample: decay_b |b| > mu"),
        Case(li2025.THEOREM_2_CORRECTED, ten, holds, "ETF"),
        Case(li2025.THEOREM_2_CORRECTED, counterexample, holds, "mean-shifted"),
        Case(li2025.THEOREM_2_CORRECTED, dataclasses.replace(hundred, loss=BCE()), holds, "mean-shifted"),
        Case(li2025.THEOREM_2_CORRECTED, dataclasses.replace(small, bias="unified"), holds, "unified bias"),
        Case(li2025.BCE_ZERO, with_decay(ten, above), holds, "just above the threshold"),
        Case(li2025.THEOREM_2_CORRECTED, with_decay(ten, below), holds, "just below the threshold"),
        Case(li2025.CE_BIAS_LAW, dataclasses.replace(small, loss=CE()), holds),
        Case(li2025.BCE_FORGETS, ten, holds),
        Case(binary.EQUIVALENCE, pair, holds),
        Case(rediscovering.NORMALIZED_BCE, normalized, Verdict.REFUTED, "normalized twin of the counterexample"),
        Case(rediscovering.NORMALIZED_BCE_CORRECTED, normalized, holds, "mean-shifted"),
    ]


def verify_random(
    instances: int = 200,
    *,
    paper: str | None = None,
    theorem: str | None = None,
    seed: int = 0,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Trials:
    """Try theorems on random problems inside, on the boundary of and outside their hypotheses.

    Args:
        instances: inside the hypotheses, for each theorem.
        paper: keep only the theorems of one paper (`PAPERS`).
        theorem: keep only one theorem, by id (`THEOREMS`).
        seed: of problems and starts.
        quick: one static shape for each theorem: fewer compilations.
        progress: called with (done, total).

    Returns:
        `Trials`; its ``ok`` says whether every verdict is the recorded one.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> verify_random(5, theorem="rediscovering/naive").trials[0].verdict.value
    'holds'
    """
    chosen = _chosen(paper, theorem).values()
    found = run_trials(chosen, instances, seed=seed, quick=quick, progress=progress)
    return Trials(found, {**_meta(seed, RETRIES), "instances": instances, "quick": quick})


def verify(
    problem: Problem | None = None,
    *,
    paper: str | None = None,
    theorem: str | None = None,
    seed: int = 0,
    starts: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check theorems and say which hold.

    Args:
        problem: check every theorem on it; without one, run the standard suite.
        paper: keep only the theorems of one paper (`PAPERS`).
        theorem: keep only one theorem, by id (`THEOREMS`).
        seed: of the random starts.
        starts: random starts per problem.
        progress: called with (done, total) as checks end.

    Returns:
        A `Report`; its ``ok`` says whether every verdict is the recorded one.

    Raises:
        InputError: for an unknown name, what is no single problem, or a loss that breaks its promises.

    >>> import ufm
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> [f.verdict.value for f in ufm.verify(problem, theorem="zhu2021/3.1").findings]
    ['holds']
    """
    chosen = _chosen(paper, theorem)
    if problem is None:
        cases = [case for case in standard_suite() if case.theorem.id in chosen]
    else:
        cases = [Case(t, problem, None) for t in chosen.values()]  # type: ignore[arg-type]
    return Report(_run(cases, seed, starts, progress), _meta(seed, starts))


def _chosen(paper: str | None, theorem: str | None) -> dict[str, Theorem]:
    if paper is not None:
        require_known("paper", paper, PAPERS)
    if theorem is not None:
        require_known("theorem", theorem, THEOREMS)
    groups: Iterable[Theorem] = THEOREMS.values() if paper is None else PAPERS[paper]
    return {t.id: t for t in groups if theorem is None or t.id == theorem}


def _run(cases: list[Case], seed: int, starts: int, progress: Callable[[int, int], None] | None) -> list[Finding]:
    """Check the cases, one solve per problem, two problems at a time: compilation leaves a core idle."""
    groups: dict[int, list[int]] = {}
    keys: list[Any] = []
    for i, case in enumerate(cases):
        key = (jax.tree.structure(case.problem), tuple(map(_leaf, jax.tree.leaves(case.problem))))
        if key not in keys:
            keys.append(key)
        groups.setdefault(keys.index(key), []).append(i)
    findings: dict[int, Finding] = {}

    def run(members: list[int]) -> None:
        evidence = Evidence(cases[members[0]].problem, seed, starts)
        for i in members:
            case = cases[i]
            findings[i] = check(case.theorem, case.problem, evidence, case.recorded, case.note)
            if progress:
                progress(len(findings), len(cases))

    in_parallel(run, groups.values())
    return [findings[i] for i in range(len(cases))]


def _leaf(x: Any) -> Any:
    return x.tobytes() if hasattr(x, "tobytes") else x


def _meta(seed: int, starts: int) -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "ufm": __version__,
        "jax": jax.__version__,
        "device": device.device_kind,
        "float64": True,  # `check` sees to it
        "seed": seed,
        "starts": starts,
        "date": datetime.date.today().isoformat(),
    }

"""Solvers of the factored problem, and a convex reference; one `Solution`, one `Status`."""

from __future__ import annotations

from ufm.solvers._core import TOLERANCES, Solution, Status, answered, least_tolerance, run
from ufm.solvers._solve import best_of, coded, eliminates, float_dtype, multistart, parse, resolve, solve
from ufm.solvers.gradient import Gradient
from ufm.solvers.lbfgs import LBFGS
from ufm.solvers.lifted import Lifted
from ufm.solvers.newton import Newton
from ufm.solvers.saddles import judged
from ufm.solvers.sharding import shard

__all__ = [
    "LBFGS",
    "TOLERANCES",
    "Gradient",
    "Lifted",
    "Newton",
    "Solution",
    "Status",
    "answered",
    "best_of",
    "coded",
    "eliminates",
    "float_dtype",
    "judged",
    "least_tolerance",
    "multistart",
    "parse",
    "resolve",
    "run",
    "shard",
    "solve",
]

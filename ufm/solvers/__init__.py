"""Solvers of the factored problem, and a convex reference; one `Solution`, one `Status`."""

from __future__ import annotations

from ufm.solvers._core import Solution, Status, answered, run
from ufm.solvers._solve import best_of, eliminates, multistart, parse, solve
from ufm.solvers.gradient import Gradient
from ufm.solvers.lbfgs import LBFGS
from ufm.solvers.lifted import Lifted
from ufm.solvers.newton import Newton
from ufm.solvers.saddles import judged
from ufm.solvers.sharding import shard

__all__ = [
    "LBFGS",
    "Gradient",
    "Lifted",
    "Newton",
    "Solution",
    "Status",
    "answered",
    "best_of",
    "eliminates",
    "judged",
    "multistart",
    "parse",
    "run",
    "shard",
    "solve",
]

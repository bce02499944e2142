"""A numerical laboratory for the unconstrained feature model of neural collapse.

Minimize ``1/N sum loss(W h_i + b, y_i) + lambda_W/2 ||W||^2 + lambda_H/2 ||H||^2 + lambda_b/2 ||b||^2`` over
free features H, classifier W and bias b, and check the result against theory. The decays lambda_W, lambda_H and
lambda_b are ``W``, ``H`` and ``b`` of a `Decay`.

Names load on first use, so that ``ufm --help`` does not wait for JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ufm._version import __version__

if TYPE_CHECKING:
    from ufm import (
        atlas,
        geometry,
        landscape,
        losses,
        metrics,
        models,
        networks,
        proof,
        saved,
        solvers,
        statement,
        sweeps,
        targets,
        theory,
    )
    from ufm._base import InputError
    from ufm.atlas import conjecture, verify
    from ufm.networks import Measurement, measure
    from ufm.problem import Decay, NormalizedProblem, Params, Problem
    from ufm.saved import load
    from ufm.solvers import Solution, Status, solve
    from ufm.sweeps import Sweep, sweep

_ROOMS = (
    "atlas",
    "geometry",
    "landscape",
    "losses",
    "metrics",
    "models",
    "networks",
    "plotting",
    "proof",
    "saved",
    "solvers",
    "statement",
    "sweeps",
    "targets",
    "theory",
)
_HOMES = {
    "Decay": "problem",
    "InputError": "_base",
    "Measurement": "networks",
    "NormalizedProblem": "problem",
    "Params": "problem",
    "Problem": "problem",
    "Solution": "solvers",
    "Status": "solvers",
    "Sweep": "sweeps",
    "load": "saved",
    "conjecture": "atlas",
    "measure": "networks",
    "solve": "solvers",
    "sweep": "sweeps",
    "verify": "atlas",
}

__all__ = [
    "Decay",
    "InputError",
    "Measurement",
    "NormalizedProblem",
    "Params",
    "Problem",
    "Solution",
    "Status",
    "Sweep",
    "__version__",
    "atlas",
    "conjecture",
    "geometry",
    "landscape",
    "load",
    "losses",
    "measure",
    "metrics",
    "models",
    "networks",
    "proof",
    "saved",
    "solve",
    "solvers",
    "statement",
    "sweep",
    "sweeps",
    "targets",
    "theory",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"ufm.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"ufm.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ufm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS, *_HOMES])

"""Numerical probes of the landscape: Hessians, eigenvalues, critical points, slices, rates."""

from __future__ import annotations

from ufm.landscape.critical import CriticalPoint, escape_direction, examine
from ufm.landscape.derivatives import DerivativeCheck, check_derivatives
from ufm.landscape.descent import Descent, saddle_to_saddle
from ufm.landscape.eigen import Density, Eigenpairs, extreme_eigenpairs, spectral_density
from ufm.landscape.finder import all_rungs, find_critical_points, minima_not_global
from ufm.landscape.hvp import Hessian, Operator, hvp
from ufm.landscape.known import what_is_known
from ufm.landscape.rates import best_rates, compare, gradient_norms, measured_rate, rate
from ufm.landscape.slices import path, plane, way_down

__all__ = [
    "CriticalPoint",
    "Density",
    "DerivativeCheck",
    "Descent",
    "Eigenpairs",
    "Hessian",
    "Operator",
    "all_rungs",
    "best_rates",
    "check_derivatives",
    "compare",
    "escape_direction",
    "examine",
    "extreme_eigenpairs",
    "find_critical_points",
    "gradient_norms",
    "hvp",
    "measured_rate",
    "minima_not_global",
    "path",
    "plane",
    "rate",
    "saddle_to_saddle",
    "spectral_density",
    "way_down",
    "what_is_known",
]

"""Closed-form minimizers, the scalar reduction and the dual certificate. Knows no numerical solver."""

from __future__ import annotations

from ufm.theory import closed_forms, columns, depth, fixed_classifier, group_codes, nonnegative, spheres
from ufm.theory.certificate import Certificate, certify, certify_normalized
from ufm.theory.collapsed import collapsed_spectrum
from ufm.theory.eigenvalues import Spectrum
from ufm.theory.merging import Merging, merging_threshold
from ufm.theory.minimizer import Minimizer, NoClosedForm, minimizer, predict
from ufm.theory.reduction import Reduction, Regime, bias_stiffness, collapse_strength, reduce
from ufm.theory.saddles import Rung, coarse_ce, ladder, merged
from ufm.theory.spectrum import hessian_spectrum

__all__ = [
    "Certificate",
    "Merging",
    "Minimizer",
    "NoClosedForm",
    "Reduction",
    "Regime",
    "Rung",
    "Spectrum",
    "bias_stiffness",
    "certify",
    "certify_normalized",
    "closed_forms",
    "coarse_ce",
    "collapse_strength",
    "collapsed_spectrum",
    "columns",
    "depth",
    "fixed_classifier",
    "group_codes",
    "hessian_spectrum",
    "ladder",
    "merged",
    "merging_threshold",
    "minimizer",
    "nonnegative",
    "predict",
    "reduce",
    "spheres",
]

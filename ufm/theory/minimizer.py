"""Closed-form global minimisers of balanced problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from ufm import geometry
from ufm._base import InputError, in_float64
from ufm.problem import Params, Problem
from ufm.theory.reduction import Reduction, Regime, reduce_scalar, scalar_problem, static_part


class NoClosedForm(InputError):  # noqa: N818 - a verdict, not a mishap
    """The problem has no closed-form minimiser; the message says why.

    >>> import ufm
    >>> ufm.theory.minimizer(ufm.Problem(3, 4, per_class=(3, 2, 1)))
    Traceback (most recent call last):
        ...
    ufm.theory.minimizer.NoClosedForm: per_class = (3, 2, 1): no closed form for imbalanced counts
    """


@dataclass(frozen=True)
class Minimizer:
    """A global minimiser in closed form, up to rotation of the features.

    Attributes:
        params: the point, in float64.
        value: minimum of the objective.
        regime: ``"zero"``, ``"etf"`` or ``"mean-shifted"``.
        gap: a, logit of the true class minus that of any other.
        shift: c, weight of the mean mode (zero unless mean-shifted).
        bias: beta, the same for all classes.
        exact: whether the value is known to be the global minimum. False for ``dim = classes - 1``
            where the unrestricted minimiser needs one dimension more: then ``params`` is the best
            symmetric point of that dimension and ``lower_bound`` lies below ``value``.
        lower_bound: minimum without a bound on the dimension.
    """

    params: Params
    value: float
    regime: str
    gap: float
    shift: float
    bias: float
    exact: bool
    lower_bound: float


_reduce = in_float64(reduce_scalar, static=("centred", "size"))


def _reduction(problem: Problem, centred: bool) -> Reduction:
    """`reduce` in float64, as numbers on the host."""
    solution = _reduce(*scalar_problem(problem), **static_part(problem, centred))
    return jax.tree.map(float, solution)


def refuse_asymmetric(problem: Problem) -> None:
    """Raise `NoClosedForm` unless every class is like every other."""
    if not problem.balanced:
        raise NoClosedForm(f"per_class = {problem.per_class}: no closed form for imbalanced counts")
    if problem.classifier is not None:
        raise NoClosedForm("classifier = fixed: no closed form for a given classifier")
    if not problem.loss.symmetric:
        raise NoClosedForm(f"loss = {problem.loss}: no closed form for a loss that tells classes apart")


def symmetric_minimizer(problem: Problem) -> tuple[Reduction, bool, float]:
    """The scalar minimiser alone, whether it is exact, and the minimum without a bound on the dimension.

    Its cost depends on neither n nor d; `minimizer` adds the point.

    Raises:
        NoClosedForm: as `minimizer`.
    """
    refuse_asymmetric(problem)
    free = _reduction(problem, centred=False)
    best, exact = free, True
    rank = (problem.classes - 1) * (free.gap > 0) + (free.shift != 0)
    if problem.dim < rank:
        if problem.dim < problem.classes - 1:
            least = problem.classes - 1
            raise NoClosedForm(f"dim = {problem.dim}: no closed form below classes - 1 = {least}")
        best, exact = _reduction(problem, centred=True), False
    return best, exact, free.value


def minimizer(problem: Problem, key: Array | None = None) -> Minimizer:
    """Closed-form global minimiser of a balanced ``problem``; theory only, nothing is optimised in W, H.

    Li et al. 2025 (BCE, Thm 2, with the mean-shifted regime beyond it), Zhou et al. 2022 (CE, focal, label
    smoothing, MSE), and any other loss that treats classes alike, through `reduce`.

    Args:
        problem: balanced, with a free classifier.
        key: rotates the features at random.

    Raises:
        NoClosedForm: for imbalanced counts, a fixed classifier, a loss that tells classes apart, or a dimension
            below K - 1.

    >>> import ufm
    >>> problem = ufm.Problem(10, 15, 10, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> round(ufm.theory.minimizer(problem).value, 12)
    1.222591211077
    """
    best, exact, bound = symmetric_minimizer(problem)
    return Minimizer(
        params=_point(problem, best, key),
        value=best.value,
        regime=Regime(int(best.regime)).label,
        gap=best.gap,
        shift=best.shift,
        bias=best.bias,
        exact=exact,
        lower_bound=bound,
    )


def _point(problem: Problem, solution: Reduction, key: Array | None) -> Params:
    """Factors ``W = sqrt(a r) U + mean mode`` and ``h_k = w_k / r`` (``r = sqrt(n decay_H/decay_W)``), ``U U' = M``."""
    K, d = problem.classes, problem.dim
    gap, shift, beta = solution.gap, solution.shift, solution.bias
    r = np.sqrt(problem.per_class * float(problem.decay.H) / float(problem.decay.W))  # type: ignore[operator]
    modes = np.vstack([geometry.helmert(K), np.full((1, K), K**-0.5)])
    weights = np.concatenate([np.full(K - 1, gap), [shift]])
    used = np.flatnonzero(weights)
    modes, weights = modes[used], weights[used]
    frame = np.eye(len(used), d)
    if key is not None and len(used):
        frame = np.asarray(geometry.orthonormal(key, len(used), d), float)
    size = np.sqrt(np.abs(weights))[:, None]
    W = (modes * size).T @ frame * np.sqrt(r)
    means = (modes * size * np.sign(weights)[:, None]).T @ frame / np.sqrt(r)
    H = means[problem.labels].T
    b: Any = {"per_class": np.full(K, beta), "unified": np.asarray(beta), "none": None}[problem.bias]
    return Params(W, H, b)


def predict(problem: Problem) -> Minimizer | None:
    """`minimizer`, or None where there is no closed form.

    >>> import ufm
    >>> predict(ufm.Problem(3, 4, (3, 2, 1))) is None   # imbalanced
    True
    """
    try:
        return minimizer(problem)
    except NoClosedForm:
        return None

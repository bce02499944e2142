"""Closed-form global minimizers of balanced problems."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from ufm import geometry
from ufm._base import InputError, in_float64
from ufm.bias import Bias
from ufm.losses import BCE, CE, Custom, Naive
from ufm.models import Deep, Linear, Model, Nonnegative, Spheres
from ufm.problem import Params, Problem
from ufm.theory import depth, nonnegative, spheres
from ufm.theory.certificate import certify
from ufm.theory.reduction import Reduction, Regime, bias_stiffness, reduce_scalar, scalar_problem, static_part
from ufm.theory.symmetric_certificate import closing

BLUNT = 1e-9
"""Rounding relative to the value from which on a certificate proves nothing that a closed form would claim."""


class NoClosedForm(InputError):  # noqa: N818 - a verdict, not a mishap
    """The problem has no closed-form minimizer; the message says why.

    >>> import ufm
    >>> ufm.theory.minimizer(ufm.Problem(3, 4, per_class=(3, 2, 1)))
    Traceback (most recent call last):
        ...
    ufm.theory.minimizer.NoClosedForm: per_class = (3, 2, 1): no closed form for imbalanced counts
    """


@dataclass(frozen=True)
class Minimizer:
    """The best symmetric point of a balanced problem, up to rotation of the features: its minimizer where ``exact``.

    Attributes:
        params: the point, in float64.
        value: minimum of the objective.
        regime: ``"zero"``, ``"etf"`` or ``"mean-shifted"``.
        gap: a, logit of the true class minus that of any other; negative where the loss wants the true class to
            lose, so that features point away from their row of W.
        shift: c, weight of the mean mode (zero unless mean-shifted).
        bias: beta, the same for all classes.
        exact: whether this is proven to be the global minimum: ``value`` is the objective at ``params``, and the
            dual certificate of that point closes, both to rounding.
        lower_bound: a lower bound on the minimum, to rounding: ``value`` itself where ``exact``, and -inf where
            nothing is known of the loss.
        reason: why it is not proven, in one sentence; empty where ``exact``.
    """

    params: Params
    value: float
    regime: str
    gap: float
    shift: float
    bias: float
    exact: bool
    lower_bound: float
    reason: str = ""

    @property
    def logit_gap(self) -> float:
        """a: `gap` by a name that no certificate shares."""
        return self.gap


@dataclass(frozen=True)
class Symmetric:
    """The best symmetric point without the point: what `Minimizer` says of it."""

    reduction: Reduction
    exact: bool
    lower_bound: float
    reason: str


_reduce = in_float64(reduce_scalar, static=("centered", "merged", "size"), effort=1)


def _reduction(problem: Problem, *, centered: bool = False, merged: bool = False) -> Reduction:
    """`reduce` in float64, as numbers on the host."""
    solution = jax.tree.map(float, _reduce(*scalar_problem(problem), merged=merged, **static_part(problem, centered)))
    if solution.value == -np.inf:
        raise NoClosedForm(f"loss = {problem.loss}: no minimum at these decays: unbounded below, as far as searched")
    if not np.isfinite(solution.value):
        p, q = _logits(problem, solution)[:2]
        place = f"loss = {problem.loss}: {solution.value} at true logit {p:g} and other logits {q:g}"
        raise NoClosedForm(f"{place}: no closed form from values that are not finite")
    return solution


def refuse_asymmetric(problem: Problem, model: type[Model] = Linear) -> None:
    """Raise `NoClosedForm` unless every class is like every other, and the model is ``model``."""
    if problem.weights is not None:
        raise NoClosedForm("weights: no closed form for classes with weights of their own")
    if not problem.labeled:
        raise NoClosedForm(f"targets: no closed form here for {problem.targets.words}")
    if not problem.balanced:
        raise NoClosedForm(f"per_class = {problem.per_class}: no closed form for imbalanced counts")
    if type(problem.model) is not model:
        raise NoClosedForm(f"model = {problem.model.words}: no closed form for this model here")
    if problem.offset is not None:
        raise NoClosedForm("offset: no closed form for logits with a constant added")
    if not problem.loss.symmetric:
        hint = " (symmetric=True promises that it does not)" if isinstance(problem.loss, Custom) else ""
        raise NoClosedForm(f"loss = {problem.loss}: no closed form for a loss that tells classes apart{hint}")
    problem.loss.check(problem.classes)


def symmetric_minimizer(problem: Problem) -> Symmetric:
    """The scalar minimizer alone, and whether it is proven to be the minimum.

    Its cost depends on neither n nor d; `minimizer` adds the point, and judges by that.

    Raises:
        NoClosedForm: as `minimizer`.
    """
    refuse_asymmetric(problem)
    free = _reduction(problem)
    exact, bound, reason = _judged(problem, free)
    rank = (problem.classes - 1) * (free.gap != 0) + (free.shift != 0)
    if problem.dim >= rank:
        return Symmetric(free, exact, bound, reason)
    if problem.dim < problem.classes - 1:
        least = problem.classes - 1
        raise NoClosedForm(f"dim = {problem.dim}: no closed form below classes - 1 = {least}")
    # K - 1 dimensions hold the classes apart or their common mean, not both.
    best = min((_reduction(problem, centered=True), _reduction(problem, merged=True)), key=lambda r: r.value)
    reason = f"the minimizer without a bound on the dimension has rank K = {rank}, more than dim = {problem.dim}"
    return Symmetric(best, False, min(bound, best.value), reason)


def _judged(problem: Problem, solution: Reduction) -> tuple[bool, float, str]:
    """Whether a solution of the scalar problem is proven to be the minimum, the lower bound, and why it is not."""
    logits = _logits(problem, solution)
    mu, stiffness = map(float, scalar_problem(problem)[2:])
    penalty = mu * ((problem.classes - 1) * abs(solution.gap) + abs(solution.shift))
    penalty += 0.5 * stiffness * solution.bias**2 if solution.bias else 0.0
    reason, bound = closing(problem, logits, solution.bias, penalty, solution.value)
    return not reason, bound if reason else solution.value, reason


def _logits(problem: Problem, solution: Reduction) -> np.ndarray:
    """Logits of a sample of class 0 (K,)."""
    K = problem.classes
    return solution.gap * (np.arange(K) == 0) + (solution.shift - solution.gap) / K + solution.bias


def minimizer(problem: Problem, key: Array | int | None = None) -> Minimizer:
    """The best symmetric point of a balanced ``problem``; theory only, nothing is optimized in W, H.

    Whether it is the global minimum is computed, not assumed: ``exact``, with the ``reason`` where it is not.

    Li et al. 2025 (BCE, Thm 2, with the mean-shifted regime beyond it), Zhou et al. 2022 (CE, focal, label
    smoothing, MSE), and any other loss that treats classes alike, through `reduce`.

    Args:
        problem: balanced, with a free classifier.
        key: a seed or JAX key that rotates the features at random.

    Raises:
        NoClosedForm: for imbalanced counts, a fixed classifier, a loss that tells classes apart or is unbounded
            below, or a dimension below K - 1.
        InputError: for a custom loss that breaks a promise.

    >>> import ufm
    >>> problem = ufm.Problem(10, 15, 10, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> round(ufm.theory.minimizer(problem).value, 12)
    1.222591211077
    """
    if isinstance(problem.model, Spheres):
        return _on_spheres(problem, key)
    if isinstance(problem.model, Deep):
        return _deep(problem)
    if isinstance(problem.model, Nonnegative):
        return _nonnegative(problem)
    found = symmetric_minimizer(problem)
    best, exact, bound, reason = found.reduction, found.exact, found.lower_bound, found.reason
    W, means, b = _factors(problem, best, key)
    if exact:
        exact, bound, reason = _judged_at(problem, best, W, means, b)
    return Minimizer(
        params=Params(W, means[problem.labels].T, b),
        value=best.value,
        regime=Regime(int(best.regime)).label,
        gap=best.gap,
        shift=best.shift,
        bias=best.bias,
        exact=exact,
        lower_bound=bound,
        reason=reason,
    )


def _on_spheres(problem: Problem, key: Array | int | None) -> Minimizer:
    """The closed form of `theory.spheres`, x and y the weights of its two modes, as a point.

    ``w_k = sqrt(x) u_k + sqrt(|y|) m`` and ``h_k = sqrt(x) u_k - sign(y) sqrt(|y|) m``, u a simplex ETF of unit rows.
    """
    refuse_asymmetric(problem, Spheres)
    K, gamma = problem.classes, float(problem.model.gamma)
    if isinstance(problem.loss, BCE):
        best = spheres.bce(gamma, K, float(bias_stiffness(problem)))
    elif isinstance(problem.loss, CE | Naive):
        best = (spheres.ce if isinstance(problem.loss, CE) else spheres.naive)(gamma, K)
    else:
        raise NoClosedForm(f"loss = {problem.loss}: on spheres closed forms are known for ce, bce and naive")
    etf = np.sqrt(best.etf * K / (K - 1.0)) * geometry.helmert(K).T
    mean = np.full((K, 1), np.sqrt(abs(best.mean)))
    W, H = np.hstack([etf, mean]), np.hstack([etf, -np.sign(best.mean) * mean])
    used = np.any(W != 0, axis=0)
    rank = int(used.sum())
    if problem.dim < rank:
        raise NoClosedForm(f"dim = {problem.dim}: no closed form on spheres below {rank}, the rank of the minimizer")
    frame = np.eye(rank, problem.dim) if key is None else np.asarray(geometry.orthonormal(key, rank, problem.dim))
    b = Bias(problem.bias).constant(best.bias, K)
    params = Params(W[:, used] @ frame, (H[:, used] @ frame)[problem.labels].T, b)
    shift = -K * gamma * best.mean
    return _certified(problem, params, best.value, best.regime, best.p - best.q, shift, best.bias)


def _certified(
    problem: Problem, params: Params, value: float, regime: str, gap: float, shift: float, bias: float
) -> Minimizer:
    """A `Minimizer` that is exact if the objective at ``params`` is ``value`` and their certificate closes."""
    found = certify(problem, params)
    reason = ""
    if abs(found.value - value) > found.rounding + 8 * np.finfo(float).eps * abs(value):
        reason = "the objective at its params is another"
    elif not found.gap <= found.rounding <= BLUNT * abs(found.value):
        reason = f"its certificate does not close: gap {found.gap:.1e}, rounding {found.rounding:.1e}"
    bound = float(found.lower_bound) if reason else value
    return Minimizer(params, value, regime, gap, shift, bias, not reason, bound, reason)


def _nonnegative(problem: Problem) -> Minimizer:
    """The closed forms of `theory.nonnegative`: symmetric points of balanced problems, orthogonal ones of others."""
    problem.loss.check(problem.classes)
    if not problem.loss.symmetric:
        raise NoClosedForm(f"loss = {problem.loss}: no closed form for a loss that tells classes apart")
    if problem.dim < problem.classes:
        raise NoClosedForm(f"dim = {problem.dim}: no closed form for features >= 0 below K = {problem.classes}")
    if problem.balanced and problem.offset is None:
        free = _reduction(dataclasses.replace(problem, model=Linear()))
        best = nonnegative.balanced(problem, free)
    elif problem.loss.convex:
        best = nonnegative.decoupled(problem)
    else:
        raise NoClosedForm(f"loss = {problem.loss}: no closed form for unequal classes unless the loss is convex")
    return _certified(problem, **vars(best))


def _deep(problem: Problem) -> Minimizer:
    """The best point known (`theory.depth`); proven where the certificate closes."""
    try:
        params, regime, gap, shift, bias = depth.candidate(problem)
    except LookupError as unknown:
        raise NoClosedForm(f"model = {problem.model.words}: {unknown}") from None
    found = certify(problem, params)
    exact = found.gap <= found.rounding <= BLUNT * abs(found.value)
    reason = "" if exact else "no tight bound is known for several weight matrices here; lower points are not excluded"
    bound = found.value if exact else float(found.lower_bound)
    return Minimizer(params, found.value, regime, gap, shift, bias, bool(exact), bound, reason)


def _judged_at(problem: Problem, best: Reduction, W: Any, means: Any, b: Any) -> tuple[bool, float, str]:
    """`_judged` by the point itself: W (K, d), class means (K, d) and bias, whose logits must be the symmetric ones."""
    expected = _logits(problem, best)
    shared = 0.0 if b is None else b
    logits = W @ means.T + np.reshape(shared, (-1, 1))
    target = np.where(np.eye(problem.classes, dtype=bool), expected[0], expected[-1])
    # Products of K or fewer numbers, none larger than the mode that it belongs to.
    known = 8 * problem.classes * np.finfo(float).eps * (abs(best.gap) + abs(best.shift) + abs(best.bias))
    if not np.all(np.abs(logits - target) <= known):
        return False, -np.inf, "the logits at its params are not those of the scalar problem"
    decay = jax.tree.map(float, problem.decay)
    counted = problem.per_class * np.sum(means**2)
    penalty = 0.5 * (decay.W * np.sum(W**2) + decay.H * counted + decay.b * np.sum(np.square(shared)))
    reason, bound = closing(problem, logits[:, 0], best.bias, float(penalty), best.value)
    return not reason, bound if reason else best.value, reason


def _factors(problem: Problem, solution: Reduction, key: Array | int | None) -> tuple[Any, Any, Any]:
    """``W = sqrt(a r) U + mean mode``, class means ``h_k = +- w_k / r`` by mode (K, d), and the bias.

    ``U U' = M`` and ``r = sqrt(n decay_H/decay_W)``.
    """
    K, d = problem.classes, problem.dim
    gap, shift, beta = solution.gap, solution.shift, solution.bias
    r = np.sqrt(problem.per_class) * float(problem.decay.ratio)
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
    b = Bias(problem.bias).constant(beta, K)
    return W, means, b


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

"""Thresholds between two proved numbers: on either side the unique minimizer has another rank.

Let the loss be convex and d > K, and let a critical point have index 0 and a kernel of rotations alone
(`ufm.proof.critical_point`). In a dimension outside its span the Hessian shows that
``decay_W decay_H I - V diag(1/n) V'`` is positive semidefinite, which is the certificate of `ufm.theory`: the point is
a global minimizer. The lifted problem is convex, its minimizers form a convex set, and the logits of this one are
isolated in it: it is the only one, up to rotations, and every minimizer has its rank. A threshold of collapse is where
the rank changes: it is 0 at zero, K-1 for a simplex ETF, K in the mean-shifted regime, and one less for each class that
merges into another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ufm._base import require
from ufm.problem import Params, Problem
from ufm.proof.balls import Unproved, arb
from ufm.proof.critical import critical_point

STEPS = 40
"""Halvings: 53 lead from a bracket of size one to the last digit of float64, of which the last few are not provable."""
TRIES = (0.5, 0.25, 0.75, 0.1, 0.9)
"""Where between the ends a rank is sought: near the threshold a minimizer is degenerate, and nothing is proved."""


@dataclass(frozen=True)
class Bracket:
    """A threshold lies between two numbers.

    Attributes:
        low: here the unique minimizer has rank ``low_rank``.
        high: here it has rank ``high_rank``.
        low_rank: of W at ``low``.
        high_rank: of W at ``high``.
    """

    low: float
    high: float
    low_rank: int
    high_rank: int


def rank_of_minimizer(problem: Problem, params: Params) -> int:
    """The rank of W at every global minimizer, proved at ``params``, which is near one.

    Raises:
        InputError: for a loss that is not convex, or d <= K.
        Unproved: if it does not follow: not near a minimizer, or too near a threshold.

    >>> import jax, ufm
    >>> jax.config.update("jax_enable_x64", True)
    >>> problem = ufm.Problem(3, 4, 2, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01))
    >>> rank_of_minimizer(problem, ufm.theory.minimizer(problem).params)
    2
    """
    require(problem.loss.convex, "loss", str(problem.loss), "a convex loss")
    require(problem.dim > problem.classes, "dim", problem.dim, f"above classes = {problem.classes}")
    found = critical_point(problem, params)
    if found.index:
        raise Unproved(f"the point is a saddle of index {found.index}")
    return found.rank


def threshold(
    problem_at: Callable[[float], Problem],
    minimizer: Callable[[Problem], Params],
    low: float,
    high: float,
    width: float = 1e-4,
) -> Bracket:
    """Bracket the threshold at which the rank of the minimizer changes.

    Args:
        problem_at: the problem at a number, such as a decay.
        minimizer: a point near the minimizer of a problem, such as ``lambda p: ufm.theory.minimizer(p).params`` or
            ``lambda p: ufm.solve(p).params``: the source of floats, not of truth.
        low: below the threshold.
        high: above it.
        width: relative width at which to stop.

    Raises:
        InputError: see `rank_of_minimizer`; and if the ranks at the ends agree.
        Unproved: if a rank is not proved at an end.

    >>> import jax, ufm
    >>> jax.config.update("jax_enable_x64", True)
    >>> def at(decay_b):
    ...     return ufm.Problem(4, 5, 2, ufm.losses.BCE(), ufm.Decay(5e-3, 1e-3, decay_b))
    >>> found = threshold(at, lambda p: ufm.theory.minimizer(p).params, 1e-4, 0.5, width=0.1)
    >>> found.low_rank, found.high_rank, found.high < 1.2 * found.low
    (3, 4, True)
    """

    def rank(x: float) -> int:
        problem = problem_at(x)
        return rank_of_minimizer(problem, minimizer(problem))

    below, above = rank(low), rank(high)
    require(below != above, "ranks at the ends", below, "different")
    for _ in range(STEPS):
        if high - low <= width * abs(high):
            break
        for share in TRIES:
            x = low + share * (high - low)
            try:
                here = rank(x)
            except Unproved:
                continue
            if here in (below, above):
                low, high = (x, high) if here == below else (low, x)
                break
        else:
            break
    return Bracket(low, high, below, above)


PIECES = 200_000
"""Pieces into which a half-line may be cut: a curve a millionth of its height above the floor takes some thousands."""


def exceeds(falling: Callable[[arb], arb], rising: Callable[[arb], arb], floor: arb, end: float) -> bool:
    """Whether ``falling(a) + rising(a) > floor`` for every a >= 0, proved piece by piece.

    On a piece the sum is at least ``falling`` at its right end plus ``rising`` at its left end; beyond ``end`` rising
    alone must suffice, falling being positive. For two families of closed-form points, each with one number to minimize
    over, this decides which is lower. False says nothing.

    >>> exceeds(lambda a: (-a).exp(), lambda a: a / 10, arb("0.33"), 4.0)
    True
    """
    if not rising(arb(end)) > floor:
        return False
    pieces, done = [(0.0, end)], 0
    while pieces:
        left, right = pieces.pop()
        if falling(arb(right)) + rising(arb(left)) > floor:
            continue
        done, middle = done + 1, 0.5 * (left + right)
        if done > PIECES or not left < middle < right:
            return False
        pieces += [(left, middle), (middle, right)]
    return True

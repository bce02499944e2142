"""What the theorems say of a landscape, by dimension and loss: said plainly, so that a probe is not read as proof."""

from __future__ import annotations

from ufm.problem import Problem
from ufm.theory import NoClosedForm
from ufm.theory.minimizer import symmetric_minimizer

RELU = (
    "Features >= 0: a second-order stationary point with an unused axis (row of H and column of W zero) is a global "
    "minimum; where all axes are in use, a point with a dead class can be a local minimum that is not."
)


def what_is_known(problem: Problem) -> list[str]:
    """Statements, each one line, of what is proven and what is not for this loss and dimension.

    >>> import ufm
    >>> what_is_known(ufm.Problem(4, 2, loss=ufm.losses.CE()))[0]
    'd = 2 < K-1 = 3: no closed form for the minimizer; the certified bound ignores the dimension and is not tight.'
    """
    K, d = problem.classes, problem.dim
    convex = problem.loss.convex
    name = problem.loss.name
    if problem.model.bounded:
        return [RELU] if convex else []
    drop = "where W loses rank the escape direction descends unless the gradient in Z is below its bound"
    try:
        reason = symmetric_minimizer(problem).reason
    except NoClosedForm:
        reason = ""
    said = []
    if d > K and convex:
        said.append(f"d = {d} > K = {K}: every critical point that is not global is a strict saddle (Zhu et al. 2021).")
    elif d > K:
        said.append(
            f"d = {d} > K = {K}: the strict-saddle theorem needs a convex loss, which {name} is not said to be; "
            f"at any point, {drop}."
        )
    elif d >= K - 1:
        where = "K" if d == K else "K-1"
        said.append(
            f"d = {d} = {where}: the strict-saddle theorem needs d > K; {drop}; at full rank nothing is proven."
        )
    else:
        said.append(
            f"d = {d} < K-1 = {K - 1}: no closed form for the minimizer; the certified bound ignores the dimension and "
            "is not tight."
        )
        said.append(
            f"Local minima that are not global are not excluded; {drop}. Rungs of the ladder that fit in d dimensions "
            "are exact critical points."
        )
    if reason:
        said.append(
            f"The point shown is the best symmetric one, not proven global: {reason}. Its index is that of this point."
        )
    return said

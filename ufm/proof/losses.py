"""Losses in ball arithmetic: value, slopes, curvature, and the conjugate at an exact point of its domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ufm import losses
from ufm._base import require
from ufm.proof.balls import Unproved, arb, ctx, exact, fmpq


class Form:
    """A loss in ball arithmetic: subclass it for a loss of your own, and give `prove` an instance.

    ``zero_sum`` says that the loss does not see a common shift of the logits, so that gradients, and what the conjugate
    is finite at, sum to zero. The true class is k, logits and slopes are lists of K.

    >>> from flint import arb
    >>> class Square(Form):
    ...     def value(self, z, k): return sum(x * x for x in z) - z[k]
    ...     def slopes(self, z, k): return [2 * x - (j == k) for j, x in enumerate(z)]
    ...     def conjugate(self, u, k): return arb(sum((x + (j == k)) ** 2 for j, x in enumerate(u)) / 4)
    >>> import jax, ufm
    >>> jax.config.update("jax_enable_x64", True)
    >>> own = ufm.losses.custom(lambda z, k: jax.numpy.sum(z**2) - z[k], name="square")
    >>> problem = ufm.Problem(3, 4, 2, own, ufm.Decay(0.1, 0.1, 0.1))
    >>> ufm.proof.prove(problem, ufm.solve(problem).params, loss=Square()).width < 1e-10
    True
    """

    zero_sum = False
    steepest = math.inf
    """Bound on minus the slope in the true logit, at which the conjugate is finite."""

    def value(self, z: Sequence[arb], k: int) -> arb:
        """The loss at logits z."""
        raise NotImplementedError

    def slopes(self, z: Sequence[arb], k: int) -> list[arb]:
        """Its gradient."""
        raise NotImplementedError

    def curvature(self, z: Sequence[arb], k: int) -> list[list[arb]]:
        """Its Hessian; only `critical_point` asks for it."""
        raise Unproved("the ball form of the loss has no curvature")

    def conjugate(self, u: Sequence[fmpq], k: int) -> arb:
        """An upper bound on ``l*(u)``, u being exact; `Unproved` where it is infinite or not known."""
        raise NotImplementedError


def xlogx(v: fmpq) -> arb:
    """``v log v`` for an exact v >= 0."""
    if v < 0:
        raise Unproved("the dual point leaves the domain of the loss's conjugate")
    return arb(v) * arb(v).log() if v else arb(0)


def softplus(x: arb) -> arb:
    """``log(1 + e^x)``."""
    return x.exp().log1p()


def sigmoid(x: arb) -> arb:
    """``1/(1 + e^-x)``."""
    return 1 / (1 + (-x).exp())


class OfSoftmax(Form):
    """CE and label smoothing: ``logsumexp z - <y, z>``."""

    zero_sum = True

    def __init__(self, alpha: fmpq) -> None:
        self.alpha, self.steepest = alpha, 1.0 - int(alpha.p) / int(alpha.q)

    def target(self, j: int, k: int, classes: int) -> fmpq:
        return self.alpha / classes + (1 - self.alpha if j == k else 0)

    def value(self, z: Sequence[arb], k: int) -> arb:
        # Relative to z_k, so that a small loss keeps its digits.
        moved = [x - z[k] for x in z]
        smoothed = sum((self.target(j, k, len(z)) * x for j, x in enumerate(moved)), arb(0))
        return sum((x.exp() for j, x in enumerate(moved) if j != k), arb(0)).log1p() - smoothed

    def slopes(self, z: Sequence[arb], k: int) -> list[arb]:
        return [p - self.target(j, k, len(z)) for j, p in enumerate(softmax(z))]

    def curvature(self, z: Sequence[arb], k: int) -> list[list[arb]]:
        return covariance(softmax(z))

    def conjugate(self, u: Sequence[fmpq], k: int) -> arb:
        return sum((xlogx(x + self.target(j, k, len(u))) for j, x in enumerate(u)), arb(0))


def softmax(z: Sequence[arb]) -> list[arb]:
    """Probabilities, each ``1/sum_j e^(z_j - z_i)``: one ball each, without a common factor."""
    return [1 / sum(((y - x).exp() for y in z), arb(0)) for x in z]


def covariance(p: Sequence[arb]) -> list[list[arb]]:
    """``diag(p) - p p'``."""
    return [[(x if i == j else 0) - x * y for j, y in enumerate(p)] for i, x in enumerate(p)]


class OfFocal(Form):
    """Focal loss, ``F(y) = sigmoid(y)^gamma softplus(y)`` of the log-odds y against the true class."""

    zero_sum = True
    steepest = 1.0

    def __init__(self, gamma: fmpq) -> None:
        self.gamma = arb(gamma)

    def curve(self, y: arb) -> tuple[arb, arb, arb]:
        """F and its first two derivatives, p being the probability of the true class: s' = s p for s = 1 - p."""
        g, s, p, soft = self.gamma, sigmoid(y), sigmoid(-y), softplus(y)
        power = (-g * softplus(-y)).exp()
        second = g * (g * p * soft - s * soft + s) + (g + 1) * s
        return power * soft, power * (g * p * soft + s), power * p * second

    def odds(self, z: Sequence[arb], k: int) -> tuple[arb, list[arb]]:
        """y, and the shares of the other classes in it."""
        others = [x for j, x in enumerate(z) if j != k]
        top = sum(((x - z[k]).exp() for x in others), arb(0)).log()
        shares = softmax(others)
        return top, [*shares[:k], arb(0), *shares[k:]]

    def value(self, z: Sequence[arb], k: int) -> arb:
        return self.curve(self.odds(z, k)[0])[0]

    def slopes(self, z: Sequence[arb], k: int) -> list[arb]:
        y, shares = self.odds(z, k)
        slope = self.curve(y)[1]
        return [slope * (x - (j == k)) for j, x in enumerate(shares)]

    def curvature(self, z: Sequence[arb], k: int) -> list[list[arb]]:
        y, shares = self.odds(z, k)
        _, first, second = self.curve(y)
        along = [x - (j == k) for j, x in enumerate(shares)]
        rest = covariance(shares)
        return [[second * a * b + first * rest[i][j] for j, b in enumerate(along)] for i, a in enumerate(along)]

    def conjugate(self, u: Sequence[fmpq], k: int) -> arb:
        """See `ufm.losses.Focal`: the supremum over y lies in any bracket at whose ends ``F' - a`` has both signs."""
        a = -u[k]
        if not a:
            return arb(0) + sum((xlogx(x) for j, x in enumerate(u) if j != k), arb(0))
        if a >= 1:
            raise Unproved("the dual point leaves the domain of the loss's conjugate")
        low, high = arb(-1), arb(1)
        while not self.curve(low)[1] < a:
            low *= 2
        while not self.curve(high)[1] > a:
            high *= 2
        for _ in range(ctx.prec):
            middle = ((low + high) / 2).mid()
            slope = self.curve(middle)[1]
            if slope < a:
                low = middle
            elif slope > a:
                high = middle
            else:
                break
        y = low.union(high)
        mixed = sum((xlogx(x) for j, x in enumerate(u) if j != k), arb(0)) - xlogx(a)
        return mixed + a * y - self.curve(y)[0]


class OfBinary(Form):
    """BCE: one sigmoid per class."""

    steepest = 1.0

    def value(self, z: Sequence[arb], k: int) -> arb:
        return sum((softplus(-x if j == k else x) for j, x in enumerate(z)), arb(0))

    def slopes(self, z: Sequence[arb], k: int) -> list[arb]:
        return [-sigmoid(-x) if j == k else sigmoid(x) for j, x in enumerate(z)]

    def curvature(self, z: Sequence[arb], k: int) -> list[list[arb]]:
        return [[sigmoid(x) * sigmoid(-x) if i == j else arb(0) for j in range(len(z))] for i, x in enumerate(z)]

    def conjugate(self, u: Sequence[fmpq], k: int) -> arb:
        sides = [-x if j == k else x for j, x in enumerate(u)]
        return sum((xlogx(v) + xlogx(1 - v) for v in sides), arb(0))


class OfNeuron(OfBinary):
    """Logistic: class 0 is the neuron on, its logit the first; the second is idle."""

    def value(self, z: Sequence[arb], k: int) -> arb:
        return OfBinary.value(self, z[:1], k)

    def slopes(self, z: Sequence[arb], k: int) -> list[arb]:
        return [*OfBinary.slopes(self, z[:1], k), arb(0)]

    def curvature(self, z: Sequence[arb], k: int) -> list[list[arb]]:
        return [[*OfBinary.curvature(self, z[:1], k)[0], arb(0)], [arb(0), arb(0)]]

    def conjugate(self, u: Sequence[fmpq], k: int) -> arb:
        if u[1]:
            raise Unproved("the dual point leaves the domain of the loss's conjugate")
        return OfBinary.conjugate(self, u[:1], k)


class OfSquares(Form):
    """Rescaled squared error."""

    def __init__(self, kappa: fmpq, beta: fmpq) -> None:
        self.kappa, self.beta = kappa, beta

    def value(self, z: Sequence[arb], k: int) -> arb:
        return sum((self.kappa * (x - self.beta) ** 2 if j == k else x * x for j, x in enumerate(z)), arb(0))

    def slopes(self, z: Sequence[arb], k: int) -> list[arb]:
        return [2 * self.kappa * (x - self.beta) if j == k else 2 * x for j, x in enumerate(z)]

    def curvature(self, z: Sequence[arb], k: int) -> list[list[arb]]:
        stiff = [arb(2 * self.kappa) if j == k else arb(2) for j in range(len(z))]
        return [[x if i == j else arb(0) for j in range(len(z))] for i, x in enumerate(stiff)]

    def conjugate(self, u: Sequence[fmpq], k: int) -> arb:
        squares = [x * x / (4 * self.kappa if j == k else 4) for j, x in enumerate(u)]
        return arb(self.beta * u[k] + sum(squares))


FORMS: dict[type, Callable[[Any], Form]] = {
    losses.CE: lambda loss: OfSoftmax(fmpq(0)),
    losses.LabelSmoothing: lambda loss: OfSoftmax(exact(loss.alpha)),
    losses.Focal: lambda loss: OfFocal(exact(loss.gamma)),
    losses.BCE: lambda loss: OfBinary(),
    losses.Logistic: lambda loss: OfNeuron(),
    losses.MSE: lambda loss: OfSquares(exact(loss.kappa), exact(loss.beta)),
}
"""By exact type: what inherits from a loss may be another function."""


def form(loss: Any) -> Form:
    """The ball form of a loss.

    Raises:
        InputError: for a loss without.
    """
    allowed = "one with a ball form; give that of your own as prove(..., loss=...), see ufm.proof.Form"
    require(type(loss) in FORMS, "loss", str(loss), allowed)
    return FORMS[type(loss)](loss)

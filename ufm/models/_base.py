"""What a model of the features is: points, logits, penalty, coordinates, and what duality and theory know of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import InputError, write_call
from ufm.models._params import Params
from ufm.models._scaled import Scaled

if TYPE_CHECKING:
    from ufm.problem import Problem


class Coordinates(Protocol):
    """Variables that a solver works in: scaled ones, or those of a manifold. Points and moves are `Params`."""

    @property
    def problem(self) -> Any:
        """The problem whose objective this is."""
        ...

    def inward(self, params: Params) -> Params:
        """Plain to solver's variables."""
        ...

    def outward(self, point: Params) -> Params:
        """Solver's to plain variables (a point, not a gradient)."""
        ...

    def value_and_gradient(self, point: Params) -> tuple[Array, Params]:
        """The objective and its gradient in these variables."""
        ...

    def hessian(self, point: Params) -> Callable[[Params], Params]:
        """The Hessian there, as a map of moves."""
        ...

    def retract(self, point: Params, move: Params) -> Params:
        """The point a ``move`` away."""
        ...

    def plain_norm(self, gradient: Params) -> Array:
        """Norm of the plain gradient, given the gradient in these variables."""
        ...

    def inflated(self, factor: Array) -> Any:
        """The same with the decays of W and H times ``factor``; itself where norms are fixed."""
        ...

    def first_inflation(self) -> Array:
        """Factor on the decays with which a solve from far away begins, at least 1."""
        ...


class Model:
    """How a point becomes logits, ``Z = C F + b``, and what it costs, ``R``; a small frozen pytree.

    A model must have `layers` and `penalty`; constraints need `onto` and `coordinates`. A model without `dual_scale`
    and `conjugate` has no certificate, and what needs one is inconclusive.

    Notation: m_i is how many samples column i of H stands for, V (K, columns) a dual matrix, and

        R(X) = inf {penalty(params) : logits without bias = X},      R*(V) = sup_X <V, X> - R(X).
    """

    name: ClassVar[str]
    kind: ClassVar[str] = "a model of its own"
    """The model in words, where a theorem needs it."""
    multiplicative: ClassVar[bool] = False
    """Whether logits are products ``W H`` of free factors with quadratic decays, of which the theorems speak."""
    decayed: ClassVar[bool] = False
    """Whether W is a variable that decays, so that ``sqrt(2 f/decay_W)`` bounds it."""
    collapses: ClassVar[bool] = False
    """Whether the best features at fixed (W, b) are unique per class where the loss is convex."""

    shared_dual: ClassVar[bool] = False
    """Whether lower bounds are taken of the problem with one feature per class. They hold for all samples and any loss:
    averaging a class's dual columns loses nothing, as l* is convex."""
    bounded: ClassVar[bool] = False
    """Whether variables have bounds; the model's coordinates then have a `face`, see `Nonnegative`."""

    def layers(self, params: Params) -> tuple[Array, Array]:
        """Classifier C (K, d) and features F (d, columns) of a point: the logits without bias are ``C F``."""
        raise NotImplementedError

    def penalty(self, problem: Problem, params: Params) -> Array:
        """R at a point: what the decays of W and H cost, columns of H counted by multiplicity; a scalar."""
        raise NotImplementedError

    def coordinates(self, problem: Problem, params: Params) -> Coordinates:
        """Variables for a solver at points shaped like ``params``: scaled ones unless there are constraints."""
        return Scaled.of(problem, params)

    def onto(self, params: Params) -> Params:
        """The point of the model that is nearest to any ``params`` of its shapes; itself where all are allowed."""
        return params

    def start(self, problem: Problem, params: Params, key: Array) -> Params:
        """A random start, made from normal ``params`` W (K, d), H (d, columns) and b, and a ``key`` for more."""
        return self.onto(params)

    def factored(self, problem: Problem, X: Array) -> Params:
        """A point with logits ``X`` (K, columns) and no bias, for starts that are given as logits.

        Raises:
            InputError: unless overridden.
        """
        raise InputError(f"model = {self}: must be linear or deep, to start from given logits")

    def codes(self, problem: Problem) -> tuple[str, ...]:
        """Group codes (`ufm.codes`) to start at as well, where random starts are known to end in local minima."""
        return ()

    def head(self, params: Params) -> tuple[Array, Array]:
        """The last matrix and the features that it acts on: what collapse is measured of."""
        return params.W, params.H

    def check(self, problem: Problem) -> None:
        """Raise `InputError` where the model does not fit the sizes of ``problem``."""

    def hessian(self, problem: Problem, params: Params) -> Callable[[Params], Params]:
        """``direction -> Hessian direction`` of the objective in plain variables, by autodiff unless overridden."""
        return lambda direction: jax.jvp(jax.grad(problem.objective), (params,), (direction,))[1]

    # Duality ---------------------------------------------------------------------------------

    def dual_scale(self, problem: Problem, V: Array) -> Array:
        """Largest ``s <= 1`` with ``R*(-s V)`` finite; 1 if not known."""
        return jnp.ones((), V.dtype)

    def conjugate(self, problem: Problem, V: Array, params: Params) -> tuple[Array, Array]:
        """``R*(-V)`` or an upper bound, tight at a minimizer ``params``; and the size that its rounding goes by.

        Infinite, unless overridden: then no lower bound on the minimum is known, and certificates say -inf.
        """
        return jnp.full((), jnp.inf, V.dtype), jnp.zeros((), V.dtype)

    decays: ClassVar[tuple[str, ...]] = ("W", "H")
    """Decays that the penalty uses, beside that of the bias."""

    @property
    def words(self) -> str:
        """The model in a line of words about a problem."""
        return str(self)

    @property
    def hyper(self) -> dict[str, Any]:
        """The hyper-parameters by name, as the command line takes them."""
        return {}

    def __str__(self) -> str:
        return write_call(self.name, self.hyper)

"""Trust-region Newton with Steihaug's conjugate gradients: the default solver.

Conn, Gould & Toint, "Trust-Region Methods" (2000), Alg. 6.1.1 with Alg. 7.5.1 for the subproblem:
conjugate gradients stop at the boundary, at negative curvature, or once the model gradient has
shrunk by ``min(3/10, residual^{1/2})`` relative to the start, which gives superlinear convergence.
Negative curvature carries it off strict saddles. Near the solution, where the decrease predicted
drowns in the rounding of f, both decreases get the same allowance (their Sec. 17.4.2).

Where a convex loss makes every minimizer collapse, the Hessian is replaced by its two blocks at the class
means (`classwise`): the products of one do not depend on N, the other falls idle as the features meet. Far
from there the block of the means is wrong by what the deviations add to the curvature in W, a hundredfold
where decay_H is much larger than decay_W, and the radius that keeps W in check would make the deviations
crawl: they then move alone, in a ball of their own, until they fit into it.

Small decays make the valley of equal products W H narrow, and Newton crawls along it. The decays of W and H
therefore start inflated, at a twentieth of where everything collapses to zero, and fall to their own
values by factors of 8, each time the residual is below a tenth. A start that is nearly critical is spared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import axpy, dot, norm, pytree
from ufm.models import half_square
from ufm.problem import Params, Problem
from ufm.solvers import classwise
from ufm.solvers._core import (
    TOLERANCES,
    Solution,
    Status,
    choose,
    reached,
    residual,
)

ROUNDS = 6
"""Times that a step on a face takes up what lies beyond the bounds."""
BENDS = 6
"""Lengths tried for the gradient step on a face, each a fifth of the last."""
SPOILT = 0.7
"""Share of the promised decrease that a step on a face must keep."""


@pytree()
@dataclass(frozen=True)
class NewtonState:
    """Everything that one iteration hands to the next, in scaled variables."""

    point: Params
    value: Any
    gradient: Params
    gradient_norm: Any
    radius: Any
    within: Any
    """Radius for the deviations from class means where they move alone."""
    inflation: Any
    status: Any
    steps: Any
    evaluations: Any

    @property
    def residual(self) -> Array:
        """See `Solution`."""
        return residual(self.gradient_norm, self.value)


@dataclass(frozen=True)
class Newton:
    """Trust-region Newton; see the module's docstring for method and sources.

    Args:
        tol: bound on the residual (`Solution`); None takes the default of the dtype.
        max_steps: outer iterations allowed.
        max_cg: conjugate-gradient iterations allowed in one step.
        anneal: start with inflated decays and lower them to those of the problem.

    >>> Newton(tol=1e-10).max_cg
    200
    """

    tol: float | None = None
    max_steps: int = 5000
    max_cg: int = 200
    anneal: bool = True
    tolerances = TOLERANCES

    def start(self, problem: Problem, params: Params) -> NewtonState:
        """State before ``params`` is evaluated; the first iteration does that with a move of zero."""
        space = problem.model.coordinates(problem, params)
        point, dtype = space.inward(params), params.H.dtype
        return NewtonState(
            point=point,
            value=jnp.asarray(jnp.inf, dtype),
            gradient=jax.tree.map(jnp.zeros_like, point),
            gradient_norm=jnp.zeros((), dtype),
            radius=norm(point),
            within=norm(point),
            inflation=space.first_inflation() if self.anneal else jnp.ones((), dtype),
            status=jnp.asarray(Status.RUNNING, jnp.int32),
            steps=jnp.asarray(-1, jnp.int32),
            evaluations=jnp.zeros((), dtype),
        )

    def step(self, problem: Problem, state: NewtonState) -> NewtonState:
        """One trust-region iteration."""
        scaled = problem.model.coordinates(problem, state.point).inflated(state.inflation)
        first = state.steps < 0
        # Beyond a tenth of the stopping rule, or the rounding of the gradient, lie only the noise and
        # the rotations that leave f unchanged; iterating there would follow them. A step that comes near
        # goes all the way, so that the last one lands well inside the rule.
        floor = jnp.maximum(0.1 * (self.tol or 0.0), 4.0 * jnp.finfo(state.radius.dtype).eps)
        forcing = state.residual * jnp.minimum(0.3, jnp.sqrt(state.residual))
        target = jnp.where(forcing > 1e3 * floor, forcing, floor) * jnp.sqrt(2.0 * jnp.abs(state.value))
        move, length, predicted, products, on_boundary, alone = self.subproblem(scaled, state, target)
        trial = scaled.retract(state.point, move)
        value, gradient = scaled.value_and_gradient(trial)
        gradient_norm = norm(gradient)

        eps = jnp.finfo(value.dtype).eps
        allowance = 10.0 * eps * jnp.abs(state.value)
        ratio = (state.value - value + allowance) / (predicted + allowance)
        finite = jnp.isfinite(value) & jnp.isfinite(gradient_norm)
        # Inside the rounding of f the gradient alone tells whether the step helped.
        blind = predicted <= allowance
        improved = jnp.where(blind, gradient_norm < state.gradient_norm, ratio > 0.05)
        accept = first | (finite & improved)

        # A start at the origin still needs a radius of the size of the solution, about sqrt(2 f).
        initial = jnp.maximum(state.radius, 1e-2 * jnp.sqrt(2.0 * jnp.abs(value)))
        ball = jnp.where(alone, state.within, state.radius)
        grown = jnp.where(on_boundary, 2.5 * ball, ball)
        ball = jnp.where(~accept | (ratio < 0.25), 0.25 * length, jnp.where(ratio > 0.7, grown, ball))
        radius = jnp.where(first, initial, jnp.where(alone, state.radius, ball))
        within = jnp.where(first, initial, jnp.where(alone, ball, state.within))

        point = choose(accept, trial, state.point)
        gradient = choose(accept, gradient, state.gradient)
        value = jnp.where(accept, value, state.value)
        gradient_norm = jnp.where(accept, gradient_norm, state.gradient_norm)
        stalled = ~first & ~accept & (blind | (length <= eps * state.radius))

        if self.anneal:

            def warm() -> Array:
                # A start near a critical point of the problem itself is there already.
                own_value, _, own_norm = deflate(state.inflation - 1.0, point, value, gradient, gradient_norm)
                return residual(own_norm, own_value) <= 0.1

            near = residual(gradient_norm, value) <= 0.1
            following = jnp.where(near | stalled, jnp.maximum(1.0, state.inflation / 8.0), state.inflation)
            following = jnp.where(jax.lax.cond(first, warm, lambda: jnp.zeros((), bool)), 1.0, following)
            drop = state.inflation - following
            stalled = stalled & (drop == 0)
            value, gradient, gradient_norm = deflate(drop, point, value, gradient, gradient_norm)
        else:
            following = state.inflation

        status = jnp.where(stalled, Status.STALLED, Status.RUNNING)
        reaches = reached(residual(gradient_norm, value), self.tol) & (following == 1.0)
        status = jnp.where(reaches, Status.CONVERGED, status)
        # Later, a trial outside the finite range of the loss is only a step too long.
        broken = ~finite & (first | (length <= eps * state.radius))
        status = jnp.where(broken, Status.NONFINITE, status)
        return NewtonState(
            point=point,
            value=value,
            gradient=gradient,
            gradient_norm=gradient_norm,
            radius=radius,
            within=within,
            inflation=following,
            status=status.astype(jnp.int32),
            steps=state.steps + 1,
            evaluations=state.evaluations + products + 1.0,
        )

    def subproblem(
        self, space: Any, state: NewtonState, target: Array
    ) -> tuple[Params, Array, Array, Array, Array, Array]:
        """Move, length, decrease predicted, cost, whether on the boundary, whether of the deviations alone."""
        if space.problem.model.bounded:
            return *self.on_face(space, state, target), jnp.zeros((), bool)
        if not classwise.collapses(space.problem):
            found = steihaug(space.hessian(state.point), state.gradient, state.radius, target, self.max_cg)
            return *found, jnp.zeros((), bool)
        # Two orthogonal blocks, each in its own ball: a trust region in the larger of the two lengths.
        split = classwise.Classwise(space)
        means, slope = split.means(state.point), split.means(state.gradient)
        slope_w = state.gradient.H - split.spread(slope)
        # The means' block errs by the deviations. Where that has cut the radius to less than half of these, they
        # move alone, in a ball of their own and to a tenth of their own gradient (a quadratic then takes three such
        # steps to a thousandth), if the decrease is not lost in rounding.
        deviations = norm(state.point.H - split.spread(means))
        rounding = 100.0 * jnp.finfo(deviations.dtype).eps * jnp.abs(state.value)
        alone = (2.0 * state.radius < deviations) & (norm(slope_w) * deviations > rounding)
        move, length, predicted, products, on_boundary = steihaug(
            split.mean_hessian(means), slope, state.radius, target, self.max_cg
        )
        ball, target_w = choose(alone, (state.within, 0.1 * norm(slope_w)), (state.radius, target))
        within, length_w, predicted_w, products_w, on_boundary_w = steihaug(
            split.deviation_hessian(means), slope_w, ball, target_w, self.max_cg
        )
        others = jnp.where(alone, 0.0, 1.0).astype(length.dtype)
        move = jax.tree.map(lambda x: others * x, move)
        return (
            Params(move.W, split.spread(move) + within, move.b),
            jnp.maximum(others * length, length_w),
            others * predicted + predicted_w,
            products * (space.problem.groups / space.problem.samples) + products_w,
            (~alone & on_boundary) | on_boundary_w,
            alone,
        )

    def on_face(self, space: Any, state: NewtonState, target: Array) -> tuple[Params, Array, Array, Array, Array]:
        """The same where variables have bounds: active ones go there, the others follow by conjugate gradients.

        What then lies beyond a bound is cut off. Where that spoils the decrease, in the quadratic model, it joins the
        active ones, for up to `ROUNDS` times; where it still does, a share of the gradient step is taken.
        """
        point, gradient, product = state.point, state.gradient, space.hessian(state.point)
        radius, tiny = state.radius, jnp.finfo(state.radius.dtype).tiny

        def judged(move: Params) -> tuple[Params, Array]:
            move = axpy(-1.0, point, space.retract(point, move))
            return move, -dot(gradient, move) - 0.5 * dot(move, product(move))

        def round_of(c: dict[str, Any]) -> dict[str, Any]:
            free = c["free"]

            def keep(x: Params) -> Params:
                return jax.tree.map(jnp.multiply, free, x)

            landing = jax.tree.map(lambda f, x: (f - 1.0) * x, free, point)
            far = norm(landing)
            landing = jax.tree.map(lambda x: jnp.where(far > radius, radius / far, 1.0) * x, landing)
            image = product(landing)
            left = jnp.sqrt(jnp.maximum(radius**2 - dot(landing, landing), (0.1 * radius) ** 2))
            slope = keep(axpy(1.0, image, gradient))
            inner, _, fall, products, boundary = steihaug(lambda v: keep(product(v)), slope, left, target, self.max_cg)
            promised = fall - dot(gradient, landing) - 0.5 * dot(landing, image)
            whole = axpy(1.0, inner, landing)
            move, decrease = judged(whole)
            better = decrease > c["decrease"]
            beyond = space.beyond(point, whole, free)
            return {
                "free": jax.tree.map(lambda f, y: jnp.where(y, 0.0, f), free, beyond),
                "move": choose(better, move, c["move"]),
                "decrease": jnp.where(better, decrease, c["decrease"]),
                "boundary": jnp.where(better, boundary, c["boundary"]),
                "products": c["products"] + products + 2.0,
                "again": decrease <= jnp.maximum(SPOILT * promised, 0.0),
                "round": c["round"] + 1,
            }

        false = jnp.zeros((), bool)
        start = {
            "free": space.free(point, gradient),
            "move": jax.tree.map(jnp.zeros_like, gradient),
            "decrease": jnp.zeros_like(radius),
            "boundary": false,
            "products": jnp.zeros_like(radius),
            "again": ~false,
            "round": jnp.zeros((), jnp.int32),
        }
        end = jax.lax.while_loop(lambda c: c["again"] & (c["round"] < ROUNDS), round_of, start)
        found = end["move"], end["decrease"], end["products"], end["boundary"]

        def steepest() -> tuple[Params, Array, Array, Array]:
            squared, curvature = dot(gradient, gradient), dot(gradient, product(gradient))
            length = radius / jnp.maximum(jnp.sqrt(squared), tiny)
            length = jnp.where(curvature > 0, jnp.minimum(length, squared / jnp.maximum(curvature, tiny)), length)
            # Entries near zero bend the way: short enough, it goes down.
            shares = length * 0.2 ** jnp.arange(BENDS, dtype=length.dtype)
            moves, falls = jax.lax.map(lambda t: judged(jax.tree.map(lambda g: -t * g, gradient)), shares)
            first = jnp.argmax(falls)
            best = jax.tree.map(lambda x: x[first], moves), falls[first], found[2] + BENDS + 1.0, false
            return choose(best[1] > found[1], best, found)

        move, decrease, products, boundary = jax.lax.cond(end["again"], steepest, lambda: found)
        return move, norm(move), decrease, products, boundary

    def finish(self, problem: Problem, state: NewtonState) -> Solution:
        """The state in plain variables."""
        scaled = problem.model.coordinates(problem, state.point)
        running = state.status == Status.RUNNING
        value, gradient, gradient_norm = state.value, state.gradient, state.gradient_norm
        if self.anneal:  # a solve cut short still carries inflated decays, which are not the problem's
            value, gradient, gradient_norm = deflate(state.inflation - 1.0, state.point, value, gradient, gradient_norm)
        return Solution(
            params=scaled.outward(state.point),
            value=value,
            grad_norm=scaled.plain_norm(gradient),
            residual=residual(gradient_norm, value),
            status=jnp.where(running, Status.MAX_STEPS, state.status).astype(jnp.int32),
            steps=jnp.maximum(state.steps, 0),
            evaluations=state.evaluations,
            trajectory={},
        )


def deflate(
    drop: Array, point: Params, value: Array, gradient: Params, gradient_norm: Array
) -> tuple[Array, Params, Array]:
    """Value, gradient and its norm after the inflation of the decays falls by ``drop``; nothing is evaluated again."""

    def fallen() -> tuple[Array, Params, Array]:
        W, H = axpy(-drop, (point.W, point.H), (gradient.W, gradient.H))
        slope = Params(W, H, gradient.b)
        return value - drop * half_square(point), slope, norm(slope)

    return jax.lax.cond(drop > 0, fallen, lambda: (value, gradient, gradient_norm))


def steihaug(
    hvp: Any, gradient: Any, radius: Array, target: Array, limit: int
) -> tuple[Any, Array, Array, Array, Array]:
    """Minimize ``<g, p> + <p, B p>/2`` approximately within ``||p|| <= radius``.

    Norms of p follow from recurrences (Conn, Gould & Toint 2000, Eqs. 7.5.5-7.5.7).

    Args:
        hvp: ``p -> B p``.
        gradient: g.
        radius: of the trust region.
        target: norm of the model's gradient at which to stop.
        limit: on the iterations.

    Returns:
        The move p, its norm, the decrease of the model, the products used, whether p is on the boundary.
    """
    squared = dot(gradient, gradient)
    eps = jnp.finfo(squared.dtype).eps

    def unfinished(c: Any) -> Array:
        return ~c["done"] & (c["rr"] > target**2) & (c["count"] < limit)

    def iterate(c: Any) -> Any:
        s, rr, ss, ps, pp = c["s"], c["rr"], c["ss"], c["ps"], c["pp"]
        Bs = hvp(s)
        curvature = dot(s, Bs)
        # Rotations of (W, H) leave f unchanged, and their zero curvature carries rounding of either
        # sign: once a step exists, they end the iteration where it stands.
        size = jnp.maximum(c["size"], jnp.abs(curvature) / ss)
        flat = (c["count"] > 0) & (jnp.abs(curvature) <= 1e3 * eps * size * ss)
        newton = rr / jnp.where(curvature > 0, curvature, 1.0)
        leaves = ~flat & ((curvature <= 0) | (pp + newton * (2.0 * ps + newton * ss) >= radius**2))
        # Step length to the boundary: the positive root of ||p + tau s|| = radius.
        tau = (-ps + jnp.sqrt(jnp.maximum(ps**2 + ss * (radius**2 - pp), 0.0))) / ss
        alpha = jnp.where(flat, 0.0, jnp.where(leaves, tau, newton))
        r = axpy(alpha, Bs, c["r"])
        rr_next = dot(r, r)
        beta = rr_next / rr
        return {
            "p": axpy(alpha, s, c["p"]),
            "r": r,
            "s": jax.tree.map(lambda u, v: beta * u - v, s, r),
            "rr": rr_next,
            "pp": pp + alpha * (2.0 * ps + alpha * ss),
            "ps": beta * (ps + alpha * ss),
            "ss": rr_next + beta**2 * ss,
            "size": size,
            "count": c["count"] + 1,
            "done": leaves | flat,
            "boundary": leaves,
            # <s, r> = -||r||^2, so the model falls by alpha ||r||^2 - alpha^2 <s, B s>/2.
            "decrease": c["decrease"] + alpha * (rr - 0.5 * alpha * curvature),
        }

    zero = jnp.zeros((), squared.dtype)
    false = jnp.zeros((), bool)
    start = {
        "p": jax.tree.map(jnp.zeros_like, gradient),
        "r": gradient,
        "s": jax.tree.map(jnp.negative, gradient),
        "rr": squared,
        "pp": zero,
        "ps": zero,
        "ss": squared,
        "size": zero,
        "count": jnp.zeros((), jnp.int32),
        "done": false,
        "boundary": false,
        "decrease": zero,
    }
    end = jax.lax.while_loop(unfinished, iterate, start)
    return end["p"], jnp.sqrt(end["pp"]), end["decrease"], end["count"].astype(squared.dtype), end["boundary"]

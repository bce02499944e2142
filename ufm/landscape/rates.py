"""Local convergence rates at collapse, from the exact spectrum, and which loss converges faster.

Near a minimizer whose kernel is its orbit (Morse-Bott) an iteration contracts every Hessian eigenvalue
mu > 0 on its own, so a method's asymptotic rate is the largest spectral radius over the exact spectrum.
Quadratic theory: Polyak 1964; Lessard, Recht & Packard 2016, Prop. 1 and Table 1.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import require, require_known
from ufm.losses import BCE, CE, Loss
from ufm.problem import Params, Problem
from ufm.theory.eigenvalues import Spectrum
from ufm.theory.minimizer import symmetric_minimizer
from ufm.theory.reduction import Regime
from ufm.theory.spectrum import hessian_spectrum, symmetric_spectrum

METHODS = ("gradient", "heavy ball", "nesterov")


@dataclass(frozen=True)
class Rate:
    """A method with its step size ``lr`` and ``momentum``; the error falls by ``rate`` an iteration."""

    method: str
    lr: float
    momentum: float
    rate: float

    @property
    def iterations(self) -> float:
        """Iterations for one factor e."""
        return -1.0 / np.log(self.rate) if 0 < self.rate < 1 else (0.0 if self.rate == 0 else np.inf)


def contraction(method: str, eigenvalues: Any, lr: float, momentum: float = 0.0) -> np.ndarray:
    """Spectral radius of one iteration on each curvature in ``eigenvalues``.

    Heavy ball ``x+ = x - lr g(x) + momentum (x - x-)`` has the roots of ``z^2 - (1 + m - lr mu) z + m``;
    Nesterov, with the gradient at ``x + m (x - x-)``, those of ``z^2 - (1 + m)(1 - lr mu) z + m (1 - lr mu)``.
    """
    require_known("method", method, METHODS)
    mu = np.asarray(eigenvalues, float)
    if method == "gradient":
        return np.abs(1.0 - lr * mu)
    if method == "heavy ball":
        half, product = 0.5 * (1.0 + momentum - lr * mu), np.full_like(mu, momentum)
    else:
        half, product = 0.5 * (1.0 + momentum) * (1.0 - lr * mu), momentum * (1.0 - lr * mu)
    root = np.sqrt((half**2 - product).astype(complex))
    return np.maximum(np.abs(half + root), np.abs(half - root))


def rate(spectrum: Spectrum, method: str, lr: float, momentum: float = 0.0) -> Rate:
    """Exact asymptotic rate with given hyper-parameters, off the kernel: the largest `contraction`.

    Args:
        spectrum: exact Hessian spectrum at a minimizer, with at least one positive eigenvalue.
        method: ``"gradient"``, ``"heavy ball"`` or ``"nesterov"``.
        lr: step size.
        momentum: 0 for plain gradient descent, which ignores it.

    Returns:
        A `Rate`; above 1 the method diverges.

    Raises:
        InputError: for an unknown method.

    >>> import ufm
    >>> problem = ufm.Problem(4, 6, 5, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.1))
    >>> spectrum = ufm.theory.hessian_spectrum(problem)
    >>> [round(ufm.landscape.rate(spectrum, "gradient", lr).rate, 2) for lr in (1.0, 10.0, 100.0)]   # the last diverges
    [0.99, 0.9, 14.73]
    """
    positive = spectrum.eigenvalues[spectrum.eigenvalues > spectrum.zero]
    return Rate(method, lr, momentum, float(np.max(contraction(method, positive, lr, momentum))))


def best_rates(spectrum: Spectrum) -> dict[str, Rate]:
    """The best step size, momentum and rate of each method for this spectrum's condition number.

    >>> import ufm
    >>> problem = ufm.Problem(4, 6, 5, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.1))
    >>> {name: round(float(r.iterations), 1) for name, r in best_rates(ufm.theory.hessian_spectrum(problem)).items()}
    {'gradient': 7.9, 'heavy ball': 1.9, 'nesterov': 2.9}
    """
    require(spectrum.index == 0, "spectrum.index", spectrum.index, "0: rates are those of a minimizer")
    L, m = spectrum.largest, spectrum.smallest_positive
    root, kappa = np.sqrt(L / m), L / m
    stretched = np.sqrt(3.0 * kappa + 1.0)
    heavy = ((root - 1.0) / (root + 1.0)) ** 2
    return {
        "gradient": Rate("gradient", 2.0 / (L + m), 0.0, (kappa - 1.0) / (kappa + 1.0)),
        "heavy ball": Rate("heavy ball", 4.0 / (np.sqrt(L) + np.sqrt(m)) ** 2, heavy, np.sqrt(heavy)),
        "nesterov": Rate("nesterov", 4.0 / (3.0 * L + m), (stretched - 2) / (stretched + 2), 1.0 - 2.0 / stretched),
    }


@jax.jit
def _descend(problem: Problem, start: Params, lr: Array, momentum: Array, nesterov: Array, norms: Array) -> Array:
    gradient = jax.grad(problem.objective)

    def step(i: Array, carry: Any) -> Any:
        x, velocity, norms = carry
        ahead = jax.tree.map(lambda x, v: x + jnp.where(nesterov, momentum, 0.0) * v, x, velocity)
        g = gradient(ahead)
        size = jnp.sqrt(sum((jnp.sum(u**2) for u in jax.tree.leaves(g)), start=jnp.zeros((), norms.dtype)))
        velocity = jax.tree.map(lambda v, u: momentum * v - lr * u, velocity, g)
        return jax.tree.map(jnp.add, x, velocity), velocity, norms.at[i].set(size)

    still = jax.tree.map(jnp.zeros_like, start)
    return jax.lax.fori_loop(0, norms.shape[0], step, (start, still, norms))[2]


def gradient_norms(problem: Problem, start: Params, rate: Rate, steps: int) -> np.ndarray:
    """Gradient norms (steps,) of ``steps`` plain iterations of a method from ``start``.

    Plain norms over (W, H, b), the first at ``start`` itself.

    Args:
        problem: whose objective is minimized.
        start: the point to start from; its dtype is that of the run.
        rate: a `Rate`: the method with its step size and momentum.
        steps: how many.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import ufm
    >>> problem = ufm.Problem(4, 6, 5, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.1))
    >>> collapsed, noise = ufm.theory.minimizer(problem).params, problem.init(jax.random.key(0))
    >>> near = jax.tree.map(lambda x, y: x + 1e-3 * y, collapsed, noise)
    >>> best = ufm.landscape.best_rates(ufm.theory.hessian_spectrum(problem))["gradient"]
    >>> norms = ufm.landscape.gradient_norms(problem, near, best, 120)
    >>> round(best.rate, 3), round(ufm.landscape.measured_rate(norms), 3)
    (0.88, 0.88)
    """
    dtype = start.H.dtype
    numbers = [jnp.asarray(x, dtype) for x in (rate.lr, rate.momentum)]
    nesterov = jnp.asarray(rate.method == "nesterov")
    return np.asarray(_descend(problem.astype(dtype), start, *numbers, nesterov, jnp.zeros(steps, dtype)))


def measured_rate(norms: np.ndarray, *, double_root: bool = False, floor: float = 1e-10) -> float:
    """Rate per step of a run: slope of ``log norm`` over its second half before it reaches ``floor``.

    Heavy ball and Nesterov have a ``double_root`` at their best parameters: the error is then ``t rate^t``, and
    the factor t is taken off.

    Args:
        norms: gradient norms or errors, one per step (steps,).
        double_root: whether to take off the factor t.
        floor: relative to the first norm; what lies below is taken for rounding.

    Raises:
        InputError: for fewer than 8 steps in that half.

    >>> import numpy as np, ufm
    >>> t = np.arange(40)
    >>> round(ufm.landscape.measured_rate(0.8**t), 6)
    0.8
    >>> round(ufm.landscape.measured_rate((t + 1) * 0.8**t, double_root=True), 6)
    0.8
    """
    norms = np.asarray(norms, float)
    alive = int(np.argmax(norms < floor * norms[0])) if np.any(norms < floor * norms[0]) else len(norms)
    t = np.arange(alive // 2, alive)
    require(len(t) >= 8, "norms", f"{alive} above the floor", "longer: at least 16 steps above it")
    # The envelope: the running maximum from the right removes the oscillation of complex roots.
    envelope = np.maximum.accumulate(norms[:alive][::-1])[::-1][alive // 2 :]
    log_error = np.log(envelope) - (np.log(t + 1.0) if double_root else 0.0)
    return float(np.exp(np.polyfit(t, log_error, 1)[0]))


GROUPS = {
    "collapse of samples": ("within class: trivial", "within class: standard"),
    "class geometry": ("class:",),
    "directions off the span": ("off span", "within class: off span"),
}
"""Blocks by what they do: within-class collapse (NC1), means and classifier (NC2, NC3), unused directions."""


@dataclass(frozen=True)
class LocalSpeed:
    """How one loss converges near collapse.

    Attributes:
        loss: its name with hyper-parameters.
        regime: of the minimizer.
        spectrum: exact Hessian spectrum.
        condition: its condition number off the kernel.
        limiting: block of the slowest mode.
        frozen: condition number and slowest block with the bias held at its optimum.
        slowest: smallest positive eigenvalue of each of `GROUPS`, with the bias held.

    ``spectrum.reason`` says why the point is not proven to be the minimizer, where it is not.
    """

    loss: str
    regime: str
    spectrum: Spectrum
    condition: float
    limiting: str
    frozen: tuple[float, str]
    slowest: dict[str, float]


def local_speed(problem: Problem) -> LocalSpeed:
    """Condition number, limiting mode and the slowest mode of each kind at the minimizer of ``problem``."""
    spectrum = hessian_spectrum(problem)
    with jax.enable_x64(True):
        point = symmetric_minimizer(problem).reduction
        still = dataclasses.replace(problem, bias="none")
        frozen = symmetric_spectrum(still, problem.classes, point.gap, point.shift, point.bias)
    slowest = {}
    for group, names in GROUPS.items():
        chosen = np.array([block.startswith(names) for block in frozen.blocks])
        values = frozen.eigenvalues[chosen & (frozen.eigenvalues > frozen.zero)]
        if len(values):
            slowest[group] = float(values.min())
    return LocalSpeed(
        loss=str(problem.loss),
        regime=Regime(int(point.regime)).label,
        spectrum=spectrum,
        condition=spectrum.condition,
        limiting=limiting_block(spectrum),
        frozen=(frozen.condition, limiting_block(frozen)),
        slowest=slowest,
    )


def limiting_block(spectrum: Spectrum) -> str:
    """Block of the smallest positive eigenvalue."""
    return spectrum.blocks[int(np.argmax(spectrum.eigenvalues > spectrum.zero))]


def compare(problem: Problem, losses: tuple[Loss, Loss] | None = None) -> dict[str, Any]:
    """Which of two losses converges faster near its collapse, by how much, and which mode limits it.

    Speeds are compared three ways: each loss at its own best step size (condition numbers), both under the
    gradient flow (smallest positive eigenvalue), and with the bias frozen.

    Args:
        problem: its loss is replaced by each of ``losses`` in turn.
        losses: BCE and CE by default.

    >>> import ufm
    >>> result = compare(ufm.Problem(10, 20, 1, decay=ufm.Decay(5e-3, 1e-3, 0.5)))
    >>> result["faster"], result["speeds"][1].limiting
    ('bce', 'off span: trivial')
    """
    speeds = [local_speed(dataclasses.replace(problem, loss=loss)) for loss in losses or (BCE(), CE())]
    conditions = [s.condition for s in speeds]
    winner = int(np.argmin(conditions))
    tie = np.isclose(conditions[0], conditions[1], rtol=1e-9)
    return {
        "faster": "tie" if tie else speeds[winner].loss,
        "ratio": conditions[1] / conditions[0],
        "frozen_ratio": speeds[1].frozen[0] / speeds[0].frozen[0],
        "flow_ratio": speeds[0].spectrum.smallest_positive / speeds[1].spectrum.smallest_positive,
        "groups": {g: speeds[0].slowest[g] / speeds[1].slowest[g] for g in speeds[0].slowest if g in speeds[1].slowest},
        "speeds": tuple(speeds),
    }

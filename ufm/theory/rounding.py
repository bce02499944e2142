"""What the rounding of a certificate can be, proved from the standard model of floating-point arithmetic.

Model: ``fl(x op y) = (x op y)(1 + t)`` with ``|t| <= u``, u half of eps; a sum or inner product of n terms errs by at
most ``gamma(n) = n u/(1 - n u)`` times the sum of absolute values, in whatever order it is taken (Higham 2002, Accuracy
and Stability of Numerical Algorithms, eqs. 2.4, 3.5, 3.13, 4.4). exp, log and log1p err by at most ``LIBRARY`` u.
Underflow changes a number by less than `UNDERFLOW`.

**Conjugates.** ``l*(s u)`` is wanted at the floating-point u, moved into the domain of l* where rounding put it out:
the entries of a column of CE sum to 1e-17, where l* is infinite. `conjugate` says how far the column moved (``defect``)
and by how much its number can miss l* there. The tool is, for x, y in [0, 1] with ``|x - y| <= e <= 1/9``,

    |x log x - y log y| <= 3 e (1 + |log max(x, e)|).                                                             (1)

For ``x >= 2e`` the derivative between is at most ``1 + log 2 + |log x|``; else both lie below ``3e <= 1/e``, where
``-x log x`` rises, and ``|3e log 3e| <= 3e |log e|``.

**Values.** ``|l(z + t) - l(z)| <= |t|_max sum |dl/dz| + L |t|_2^2``, L the Lipschitz constant of the gradient. Matrix
product, bias, differences of logits, exponentials and their sum act like a change of the logits by at most
``(d + K + 16) u (1 + |w| |h| + |b|)``, what follows like a relative error of ``gamma(K + 8)``.

Of a user's loss nothing is known. It is assumed that value and gradient are, to a relative error of ``(K + USER) u``,
those at logits within ``(K + USER) u (1 + max |z|)`` of the given ones, and that L is at most 1/u^(1/2).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ufm._base import matmul
from ufm.losses import (
    BCE,
    CE,
    MSE,
    Focal,
    LabelSmoothing,
    Logistic,
    Loss,
    Naive,
    complement_log,
    is_column,
    smoothed,
    true_class,
    xlogx,
)

LIBRARY = 6.0
"""Error of exp, log, log1p and their guarded forms in units of u; tests measure 1.9, 1.0, 2.6 and 4.5 on XLA's CPU."""
USER = 64.0
"""Units of rounding granted to a user's loss, beyond one per class."""
UNDERFLOW = 1e-290
"""Above what numbers lost to underflow, 2e-308 each, can add up to."""


class Part(NamedTuple):
    """A number and a bound on its error."""

    value: Any
    rounding: Any


class Conjugate(NamedTuple):
    """``l*(s u)`` of one column, a bound on its error, and on the 1-norm of u's distance from the domain."""

    value: Array
    error: Array
    defect: Array


def unit(dtype: Any) -> float:
    """The unit roundoff u."""
    return float(jnp.finfo(dtype).eps) / 2.0


def gamma(n: float, dtype: Any) -> float:
    """Higham's ``gamma_n = n u / (1 - n u)``; infinite where that says nothing.

    >>> gamma(3, "float64") / 2.0**-53
    3.000000000000001
    """
    small = n * unit(dtype)
    return small / (1.0 - small) if small < 1.0 else math.inf


def total(terms: Array) -> Array:
    """Sum over the last axis in two levels, so that no term passes more than `depth` additions.

    The compiler may not merge the levels: a barrier stands before each.
    """
    size = terms.shape[-1]
    terms = jax.lax.optimization_barrier(terms)
    if size > 16:  # a second level saves nothing before
        side = math.isqrt(size - 1) + 1
        short = [(0, 0)] * (terms.ndim - 1) + [(0, -size % side)]
        blocks = jnp.pad(terms, short).reshape(*terms.shape[:-1], -1, side)
        terms = jax.lax.optimization_barrier(jnp.sum(blocks, axis=-1))
    return jnp.sum(terms, axis=-1)


def depth(size: int) -> int:
    """Most additions that a term of `total` passes.

    >>> depth(10), depth(5000)
    (10, 142)
    """
    return size if size <= 16 else 2 * (math.isqrt(size - 1) + 1)


def operator_norm(A: Array, units: int = 0) -> tuple[Array, Array]:
    """``||A||_2`` of A (rows, columns) and t with ``||A||_2 <= (1 + t)`` times it: no eigenvalue routine is trusted.

    The entries are known to a relative ``units`` u.

    With computed eigenpairs V, w of the Gram matrix G, its residual ``R = G V - V diag(w)`` and ``b = ||V'V - I||``,

        ||G|| <= (sqrt(1 + b) max|w| + ||R||) / sqrt(1 - b),

    as ``G = (V diag(w) + R) V^-1``. Products err by gamma times the norm of those of absolute values, where
    ``|| |V| ||_2^2 <= ||V||_F^2 <= (1 + b) K``, and that of ``|A| |A|'`` is at most ``||A||_1 ||A||_inf``.
    """
    if A.shape[0] > A.shape[1]:
        A = A.T
    K, n = A.shape
    dtype = A.dtype
    side = n if n <= 64 else max(K, math.isqrt(n - 1) + 1)  # in blocks, for a bound that grows like the root of n
    count = -(-n // side)
    if count == 1:
        G = matmul(A, A.T)
    else:
        blocks = jnp.pad(A, ((0, 0), (0, -n % side))).reshape(K, count, side).swapaxes(0, 1)
        G = jnp.sum(jax.lax.optimization_barrier(matmul(blocks, blocks.swapaxes(1, 2))), axis=0)
    # Derivatives are those of a simple eigenvalue, <v, dG v>: those of V would divide by the gaps between equal ones.
    values, V = jnp.linalg.eigh(jax.lax.stop_gradient(G))
    v = V[:, jnp.argmax(jnp.abs(values))]
    moving = jnp.sum(v * matmul(G, v[:, None])[:, 0])
    top = jnp.max(jnp.abs(values)) + (moving - jax.lax.stop_gradient(moving))
    top, (A, G) = jnp.maximum(top, jnp.finfo(dtype).tiny), jax.lax.stop_gradient((A, G))
    norm, top = jnp.sqrt(top), jax.lax.stop_gradient(top)
    size = jnp.abs(A)
    spread = jnp.max(jnp.sum(size, axis=0)) * jnp.max(jnp.sum(size, axis=1)) / top

    both = matmul(jnp.concatenate([V.T, G / top]), V)
    off = both - jnp.concatenate([jnp.eye(K, dtype=dtype), V * (values / top)[None, :]])
    root = 1.1 * math.sqrt(K)
    b = jnp.sqrt(jnp.sum(off**2)) + gamma(K + 6, dtype) * (root * root + (spread + 1.0) * root)  # ||R||/top as well
    # (sqrt(1 + b) + b)/sqrt(1 - b) <= 1 + 2b/(1 - b), and the root of 1 + x is at most 1 + x/2.
    excess = jnp.where(b < 0.1, 2.0 * b / (1.0 - b) + gamma(side + count + 4, dtype) * spread, jnp.inf)
    return norm, 0.5 * excess + gamma(units, dtype) * jnp.sqrt(spread) + 4.0 * unit(dtype)


def largest_eigenvalue(S: Array, moving: Array) -> tuple[Array, Array]:
    """``lambda_max(S)`` of S (K, K), positive, and t with ``lambda_max(S) <= (1 + t)`` times it; see `operator_norm`.

    With ``b = ||V'V - I||`` and ``R = S V - V diag(w)``, ``V'S V`` is off ``diag(w)`` by at most
    ``e = sqrt(1 + b) ||R|| + b max|w|``, and ``x = V y`` has ``|y|^2 <= |x|^2/(1 - b)``: so
    ``lambda_max(S) <= (max w + e)/(1 - b)``. Derivatives are those of ``v'(moving) v``, S being the sum of a matrix
    that moves and one that does not.
    """
    K, dtype = S.shape[0], S.dtype
    S = jax.lax.stop_gradient(S)
    values, V = jnp.linalg.eigh(S)
    v = V[:, -1]
    change = jnp.sum(v * matmul(moving, v[:, None])[:, 0])
    top = jnp.maximum(values[-1], jnp.finfo(dtype).tiny)
    size = jnp.max(jnp.sum(jnp.abs(S), axis=0)) / top
    both = matmul(jnp.concatenate([V.T, S / top]), V)
    off = both - jnp.concatenate([jnp.eye(K, dtype=dtype), V * (values / top)[None, :]])
    root = 1.1 * math.sqrt(K)
    # Products err by gamma times those of absolute values, || |V| || <= root and || |S| || <= size.
    b = jnp.sqrt(jnp.sum(off**2)) + gamma(K + 6, dtype) * (root * root + (size + 1.0) * root)
    reach = jnp.max(jnp.abs(values)) / top
    excess = jnp.where(b < 0.1, (b * (1.0 + b) + b * reach + b) / (1.0 - b), jnp.inf)
    return top + (change - jax.lax.stop_gradient(change)), excess + 4.0 * unit(dtype)


# Losses -------------------------------------------------------------------------------------------


def infimum(loss: Loss) -> float:
    """A number that the loss never goes below; -inf where none is known."""
    return -math.inf if loss.infimum is None else loss.infimum


def user(loss: Loss, classes: int = 0) -> float:
    """Units of rounding granted to a loss that is not the package's own: zero for those that are."""
    known = isinstance(loss, CE | LabelSmoothing | Focal | BCE | Logistic | MSE | Naive)
    return 0.0 if known else USER + classes


@functools.singledispatch
def conjugate(loss: Loss, logits: Array, u: Array, label: Array, scale: Array) -> Conjugate:
    """``l*(scale u)`` (for a user's loss, a bound on it) at one column u (K,), a gradient at ``logits`` (K,).

    By default the loss is a user's: see the module.
    """
    value = loss.conjugate_along(logits, label, scale)
    theta = user(loss, u.shape[0]) * unit(u.dtype)
    reach = jnp.sum(jnp.abs(u)) * (1.0 + jnp.max(jnp.abs(logits)))
    least = infimum(loss)
    size = 2.0 * reach + jnp.abs(loss(logits, label)) + jnp.abs(value) + (abs(least) if least > -math.inf else 0.0)
    return Conjugate(value, theta * size, theta * jnp.sum(jnp.abs(u)))


@conjugate.register
def _(loss: Naive, logits: Array, u: Array, label: Array, scale: Array) -> Conjugate:
    """l* is 0 at the slope, whose entries are right to 2u, and exists nowhere else."""
    return Conjugate(
        loss.conjugate(scale * u, label), jnp.zeros((), u.dtype), 4.0 * unit(u.dtype) * jnp.sum(jnp.abs(u))
    )


@conjugate.register(MSE)
def _(loss: MSE, logits: Array, u: Array, label: Array, scale: Array) -> Conjugate:
    """Every u is in the domain; terms are right to 8u and may cancel."""
    if is_column(label):
        v = scale * u
        size = jnp.sum(jnp.abs(label * v) + v**2 / 4.0)
        return Conjugate(loss.conjugate(v, label), gamma(u.shape[0] + 8, u.dtype) * size, jnp.zeros((), u.dtype))
    true, v = true_class(u, label), scale * u
    size = jnp.sum(jnp.where(true, jnp.abs(loss.beta * v) + v**2 / (4.0 * loss.kappa), v**2 / 4.0))
    return Conjugate(loss.conjugate(v, label), gamma(u.shape[0] + 8, u.dtype) * size, jnp.zeros((), u.dtype))


@conjugate.register(BCE)
@conjugate.register(Logistic)
def _(loss: BCE | Logistic, logits: Array, u: Array, label: Array, scale: Array) -> Conjugate:
    """Probabilities v (a sigmoid, its sign exact) beyond one are clipped; v is then right to u, or what was clipped."""
    if is_column(label):
        return _binary_column(loss, scale * u, label)
    v = scale * jnp.abs(u)
    outside = jnp.maximum(v - 1.0, 0.0)
    known = 2.0 * unit(u.dtype) * v + outside
    rising, falling = jnp.abs(xlogx(v)), jnp.abs(complement_log(v))
    moved = jnp.sum(3.0 * (known + 2.0 * unit(u.dtype) * rising) + _near_one(v, falling, known))
    error = moved + gamma(u.shape[0] + LIBRARY + 4, u.dtype) * jnp.sum(rising + falling)
    return Conjugate(loss.conjugate(scale * u, label), error, jnp.sum(outside))


def _binary_column(loss: Any, w: Array, target: Array) -> Conjugate:
    """Entropies of ``v = w + y`` and ``1 - v``, each known to what its terms' rounding or the clipping moved."""
    v = w + target
    outside = jnp.maximum(jnp.maximum(v - 1.0, -v), 0.0)
    known = 4.0 * unit(w.dtype) * (jnp.abs(w) + target) + outside
    v = jnp.clip(v, 0.0, 1.0)
    size = jnp.sum(jnp.abs(xlogx(v)) + jnp.abs(xlogx(1.0 - v)))
    error = jnp.sum(_moved(v, known) + _moved(1.0 - v, known)) + gamma(w.shape[0] + LIBRARY + 4, w.dtype) * size
    return Conjugate(jnp.sum(xlogx(v) + xlogx(1.0 - v)), error, jnp.sum(outside))


def _moved(v: Array, known: Array) -> Array:
    """Right side of (1), at v in [0, 1] known to ``known``."""
    safe = jnp.maximum(jnp.maximum(v, known), jnp.finfo(v.dtype).tiny)
    return jnp.where(known > 0, 3.0 * known * (1.0 + jnp.abs(jnp.log(safe))), 0.0)


def _softmax_column(w: Array, target: Array, slack: Any) -> Conjugate:
    """``T sum v log v`` at ``v = (w + y)/T`` moved onto the simplex; T, y are known to ``slack`` units each.

    What the entries of w do not sum to is spread over v by its normalization, which moves no entry by more.
    """
    u, few, dtype = unit(w.dtype), gamma(w.shape[0] + 8, w.dtype), w.dtype
    mass = jnp.sum(target)
    v = (w + target) / mass
    negative = jnp.sum(jnp.maximum(-v, 0.0))
    off = (jnp.abs(jnp.sum(w)) + few * jnp.sum(jnp.abs(w) + target)) / mass + 2.0 * negative
    entries = jnp.maximum(v, 0.0)
    known = (
        (4.0 + slack) * u * (jnp.abs(w) + target) / mass + jnp.maximum(-v, 0.0) + entries * (off + (few + slack * u))
    )
    size = jnp.sum(jnp.abs(xlogx(entries)))
    error = jnp.sum(_moved(entries, known)) + (gamma(w.shape[0] + LIBRARY + 8, dtype) + slack * u) * size
    return Conjugate(mass * jnp.sum(xlogx(entries)), mass * error, mass * (2.0 * off))


def _near_one(v: Array, falling: Array, known: Array) -> Array:
    """Right side of (1) at ``1 - v``; ``falling`` is ``|(1 - v) log(1 - v)|``. Beside one ``known`` is at least u."""
    rest = 1.0 - v
    close = rest <= 4.0 * known
    log = jnp.where(close, -math.log(unit(v.dtype)), falling / jnp.where(close, 1.0, rest))
    return 3.0 * known * (1.0 + log)


class Simplex(NamedTuple):
    """The point that `_on_simplex` means: entries off the true one, their sum, and what is known of them."""

    others: Array
    wrong: Array
    relative: Array  # error of others
    absolute: Array  # and what adds to it, over all entries, times 1 + |log| in (1)
    of_wrong: Array
    defect: Array


def _on_simplex(w: Array, label: Array, alpha: Any) -> Simplex:
    """``v = w + alpha/K`` off the true entry, negative ones set to zero, all divided by their sum where it exceeds one.

    The true entry is what is left. An entry that should be zero errs by its terms' rounding, at least ``u alpha/K``:
    that bounds the logarithm in (1), as does 2^-150 where alpha is less.
    """
    K, dtype = w.shape[0], w.dtype
    u, few, true = unit(dtype), gamma(K + 8, dtype), true_class(w, label)
    others = jnp.where(true, 0.0, w + alpha / K)
    wrong = alpha * (K - 1.0) / K - jnp.sum(jnp.where(true, w, 0.0))
    off = jnp.abs(jnp.sum(w)) + few * jnp.sum(jnp.abs(w))
    negative = K * jnp.maximum(8.0 * u * alpha / K - jnp.min(jnp.where(true, 1.0, others)), 0.0)
    lost = few * (wrong + alpha + off)
    over = jnp.maximum(wrong + (off + lost + negative) - 1.0, 0.0)
    relative, absolute = 4.0 * u + over, 8.0 * u * alpha + negative
    of_wrong = off + lost + absolute + relative * (wrong + off)
    log = -math.log(u) + jnp.abs(jnp.log(jnp.maximum(alpha / K, 2.0**-100)))
    return Simplex(others, wrong, relative, absolute * (1.0 + log), of_wrong, off + 2.0 * (negative + over))


@conjugate.register(CE)
@conjugate.register(LabelSmoothing)
def _(loss: CE | LabelSmoothing, logits: Array, u: Array, label: Array, scale: Array) -> Conjugate:
    if is_column(label):
        target = smoothed(label, loss.alpha) if isinstance(loss, LabelSmoothing) else label
        return _softmax_column(scale * u, target, u.shape[0] + 4.0)
    at = _on_simplex(scale * u, label, getattr(loss, "alpha", 0.0))
    rising, falling = -jnp.sum(xlogx(at.others)), jnp.abs(complement_log(at.wrong))
    moved = 3.0 * (at.relative * (at.wrong + rising) + at.absolute) + _near_one(at.wrong, falling, at.of_wrong)
    error = moved + gamma(u.shape[0] + LIBRARY + 4, u.dtype) * (rising + falling)
    return Conjugate(loss.conjugate(scale * u, label), error, at.defect)


@conjugate.register(Focal)
def _(loss: Focal, logits: Array, u: Array, label: Array, scale: Array) -> Conjugate:
    """The supremum of ``a y - F(y)`` is missed by at most ``t |y - y*|``, t the error of the slope found.

    ``F'' >= F' (1 - F')`` up to where F' is 1 (checked on a grid of y and gamma), so ``|y - y*| <= 2 t/(a (1 - a))``;
    and never more than 80, as beyond 40 F' is 1 to rounding.
    """
    at = _on_simplex(scale * u, label, 0.0)
    value, y = loss.conjugate_and_log_odds(scale * u, label)
    a, far = at.wrong, 1.0 + jnp.abs(y)
    grow = 1.0 + loss.gamma * far
    slope = 2.0 * LIBRARY * unit(u.dtype) * grow * a + at.of_wrong
    gap = jnp.maximum(a * (1.0 - a), jnp.finfo(u.dtype).tiny)
    missed = slope * jnp.minimum(80.0, 2.0 * slope / gap)
    rising, mixed = -jnp.sum(xlogx(at.others)), jnp.abs(xlogx(a))
    # a log a errs like a sum of its entries' logarithms, each larger: of_wrong/a relative.
    moved = 3.0 * (at.relative * (a + rising) + at.absolute) + 3.0 * at.of_wrong * (1.0 + mixed / jnp.maximum(a, gap))
    size = rising + mixed + a * far + loss.of_log_odds(y) * grow
    return Conjugate(
        value, moved + at.of_wrong * far + missed + gamma(u.shape[0] + 2 * LIBRARY, u.dtype) * size, at.defect
    )


def sensitivity(loss: Loss, u: Array, values: Array, targets: Array) -> tuple[Array, Any]:
    """``sum |dl/dz|`` of each column of u (K, columns), with what the evaluation adds; and L. ``values`` (columns,),
    ``targets`` labels (columns,) or one row each (columns, K).

    Label smoothing adds the terms of its mean, focal loss an exponent ``gamma softplus(-y)``.
    """
    slopes = jnp.sum(jnp.abs(u), axis=0)
    if targets.ndim == 2:  # columns of mass T: exponentials move the softmax by T, smoothing errs like the value
        mass = jnp.sum(jnp.abs(targets), axis=1)
        return slopes + mass + values, jnp.maximum(mass, 2.0)
    if isinstance(loss, LabelSmoothing):
        return slopes + 2.0 * loss.alpha, 1.0
    if isinstance(loss, Focal):
        return slopes + loss.gamma * values, (1.0 + loss.gamma) ** 2
    if isinstance(loss, MSE):
        return slopes, 2.0 * jnp.maximum(loss.kappa, 1.0)
    return slopes, 1.0 if isinstance(loss, CE | BCE | Logistic | Naive) else unit(u.dtype) ** -0.5


def mixture(loss: Loss) -> tuple[Any, Any] | None:
    """What `ufm.theory.certificate` needs where the bias has no decay: ``(r, t)``, None where it is not known.

    With n_j the samples of class j and ``u_i = n/N - e_{k_i}`` (its first row for one neuron), the columns ``r u_i``
    balance exactly, moving each entry by up to ``r min n/N`` leaves them in the domain, and l* is at most t there.
    On CE's and BCE's it is at most 0, on focal loss's at most ``sup_y y (1 - sigmoid(y)^gamma)``, below
    ``.28 max(1, gamma)`` as ``y/(1 + e^y) < .28``; on squared error's ``1/(4 kappa) + 1``, as ``sum u_j <= 2``.
    """
    if isinstance(loss, LabelSmoothing):
        return 1.0 - loss.alpha, 0.0
    if isinstance(loss, Focal):
        return 1.0, 0.28 * jnp.maximum(loss.gamma, 1.0)
    if isinstance(loss, MSE):
        return 1.0, 0.25 / loss.kappa + 1.0
    return (1.0, 0.0) if isinstance(loss, CE | BCE | Logistic) else None

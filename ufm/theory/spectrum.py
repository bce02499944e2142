"""The exact Hessian spectrum at a symmetric critical point, at a cost that depends on neither n nor d.

At a point where the K classes form m groups of s = K/m that share one classifier row and one feature
(m = K at the closed-form minimizer), the second variation of the objective is

    sum_i omega [dz_i' C_i dz_i / 2 + g_i' dW dh_i] + decays,    dz_i = dW h_i + W dh_i + db,

with ``g_i``, ``C_i`` the gradient and Hessian of the loss at one column and ``omega`` its weight. It
commutes with O(d), with permutations inside a class, inside a group and of the groups. Columns of a
class split into their mean and R - 1 deviations (R columns a class); features into the span of the
classifier and the ``d - rank`` directions off it; classes into group means and contrasts inside a
group. What is left are irreps of S_m: on matrices over groups

    R^m x R^m = 2 trivial + 3 standard + symmetric (m-2, 2) + antisymmetric (m-2, 1, 1),

so each block has at most 7 rows. Group columns z_g see the loss's Hessian through their entries, their
sum ``s = 1'z`` and their true entry ``t = z_g`` only, which makes every block a few dot products.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ufm._base import in_float64
from ufm.losses import Loss
from ufm.models import Nonnegative
from ufm.problem import Problem
from ufm.theory.eigenvalues import Spectrum
from ufm.theory.minimizer import minimizer, symmetric_minimizer
from ufm.theory.nonnegative import face_spectrum


def hessian_spectrum(problem: Problem) -> Spectrum:
    """Every eigenvalue of the Hessian of ``problem.objective`` at its best symmetric point.

    Any loss, regime, bias and feature mode; n = 10^9 costs what n = 1 does. The point is the global minimizer if
    ``reason`` is empty. Where it is not, as for ``dim = classes - 1`` beyond the threshold of the mean mode, ``reason``
    says why that is not proven, and the index may show that the point is no minimum. With non-negative features the
    spectrum is that on the face of the point: `ufm.theory.nonnegative.face_spectrum`.

    Raises:
        NoClosedForm: where `minimizer` has none.

    >>> import ufm
    >>> problem = ufm.Problem(5, 7, 10**9, loss=ufm.losses.CE(), decay=ufm.Decay(1e-3, 1e-12, 1e-3))
    >>> spectrum = ufm.theory.hessian_spectrum(problem)
    >>> spectrum.index, spectrum.kernel, spectrum.size      # kernel (K-1)d - K(K-1)/2
    (0, 18, 35000000040)
    """
    if isinstance(problem.model, Nonnegative):
        best = minimizer(problem)
        return face_spectrum(problem, best.params, best.reason)
    with jax.enable_x64(True):
        found = symmetric_minimizer(problem)
        point = found.reduction
        spectrum = symmetric_spectrum(problem, problem.classes, point.gap, point.shift, point.bias)
        return dataclasses.replace(spectrum, reason=found.reason)


class Curvature(NamedTuple):
    """First and second derivatives of the loss of one column: logit p in its own group of s, q elsewhere.

    Pairs name the classes: the label, another class of its group ("own"), a class of another group
    ("other"); a trailing 2 is a second, different class of the same kind.
    """

    label: float
    own: float
    other: float
    label_label: float
    label_own: float
    label_other: float
    own_own: float
    own_own2: float
    own_other: float
    other_other: float
    other_other2: float


def _differentiate(loss: Loss, p: Array, q: Array, *, classes: int, size: int) -> tuple[Array, ...]:
    logits = jnp.where(jnp.arange(classes) < size, p, q)
    gradient = jax.grad(loss)
    places = [0, min(1, classes - 1), min(size, classes - 1), min(2, classes - 1), min(size + 1, classes - 1)]
    g, hvp = jax.linearize(lambda z: gradient(z, 0), logits)
    # Three Hessian columns hold every entry: no K x K matrix is formed.
    rows = {i: hvp(jnp.zeros_like(logits).at[i].set(1.0)) for i in places[:3]}
    label, own, other, own2, other2 = places
    return (
        g[label],
        g[own],
        g[other],
        rows[label][label],
        rows[label][own],
        rows[label][other],
        rows[own][own],
        rows[own][own2],
        rows[own][other],
        rows[other][other],
        rows[other][other2],
    )


_curvature = in_float64(_differentiate, static=("classes", "size"))


def symmetric_spectrum(problem: Problem, groups: int, gap: float, shift: float, bias: float) -> Spectrum:
    """Spectrum at the point with class logits ``a (B B' - J/m) + (c/K) J + beta``, B the (K, m) group indicator.

    Args:
        problem: balanced, K classes.
        groups: m, a divisor of K.
        gap: a, of either sign.
        shift: c.
        bias: beta. Together they must be critical in the scalar problem; `hessian_spectrum` and the
            ladder of `saddles` see to that.
    """
    K, d, m = problem.classes, problem.dim, groups
    s = K // m
    n = int(problem.per_class)  # type: ignore[arg-type]
    decay_W, decay_H, decay_b = (float(x) for x in (problem.decay.W, problem.decay.H, problem.decay.b))
    per_sample = problem.features == "per_sample"
    R, omega, decay_h = (n, 1.0 / (n * K), decay_H) if per_sample else (1, 1.0 / K, n * decay_H)

    mean = shift / K + bias
    at_own, at_other = gap * (m - 1) / m + mean, -gap / m + mean
    c = Curvature(*(float(x) for x in _curvature(problem.loss, at_own, at_other, classes=K, size=s)))
    # Hessian of the loss as a function of the m group logits, z = B z_g: entries A (true group), B, C, D.
    A = c.label_label + (s - 1) * (2 * c.label_own + c.own_own + (s - 2) * c.own_own2)
    B = s * (c.label_other + (s - 1) * c.own_other)
    C, D = s * (c.other_other + (s - 1) * c.other_other2), s**2 * c.other_other2
    g_true, g_false = c.label + (s - 1) * c.own, s * c.other
    pull, mean_pull = g_true - g_false, g_true + (m - 1) * g_false  # eigenvalues of the group gradient matrix

    r = np.sqrt(n) * float(problem.decay.ratio)
    spread, shifted = gap != 0 and m > 1, shift != 0
    alpha, alpha0 = np.sqrt(s * abs(gap) * r), np.sqrt(abs(shift) * r)  # singular values of W
    eta, eta0 = np.sign(gap) * alpha / r, np.sign(shift) * alpha0 / r  # and of the class means
    column, column0 = alpha / np.sqrt(R), alpha0 / np.sqrt(R)
    off = d - (m - 1) * spread - shifted

    def quadratic(total: list[float], true: list[float]) -> np.ndarray:
        """``sum_g z_g' C_g z_g`` on orthonormal matrices whose columns have these sums and true entries."""
        t1, t2 = np.array(total), np.array(true)
        cross = np.outer(t1, t2)
        E = A - C - 2 * B + 2 * D
        return (C - D) * np.eye(len(total)) + D * np.outer(t1, t1) + (B - D) * (cross + cross.T) + E * np.outer(t2, t2)

    def block(form: Any, weight: float, pairs: list[tuple[Any, Any, float]], of_bias: Any = None) -> np.ndarray:
        """Eigenvalues over pairs (dW, dH), given the logits each moves and their coupling, and the bias."""
        moved = [w for w, _, _ in pairs] + [h for _, h, _ in pairs] + ([] if of_bias is None else [of_bias])
        decays = [decay_W] * len(pairs) + [decay_h] * len(pairs) + [decay_b] * (of_bias is not None)
        if not moved:
            return np.zeros(0)
        L = np.stack([np.atleast_1d(x) for x in moved], axis=1).astype(float)
        H = weight * L.T @ np.atleast_2d(form) @ L + np.diag(decays)
        for i, (_, _, gradient) in enumerate(pairs):
            H[i, i + len(pairs)] += omega * np.sqrt(R) * gradient
            H[i + len(pairs), i] += omega * np.sqrt(R) * gradient
        return np.linalg.eigvalsh(H)

    entries: list[tuple[str, float, int]] = []

    def add(name: str, values: np.ndarray, times: int) -> None:
        entries.extend((name, float(v), times) for v in np.atleast_1d(values))

    per_class_bias = problem.bias == "per_class"
    # Group means, in the span. Trivial: the orthonormal matrices M/sqrt(m-1) and J/m.
    trivial = quadratic([0.0, np.sqrt(m)], [np.sqrt((m - 1) / m), np.sqrt(1 / m)])
    T1, T2 = np.eye(2)
    pairs = [(eta * T1, column * T1, pull)] * spread + [(eta0 * T2, column0 * T2, mean_pull)] * shifted
    moved_by_bias = {"per_class": np.sqrt(K) * T2, "unified": K * T2, "none": None}[problem.bias]
    add("class: trivial", block(trivial, R * omega / s, pairs, moved_by_bias), 1)

    # Standard, x a unit vector of zero sum: M diag(x) M / kappa, 1 x'/sqrt(m) and x 1'/sqrt(m).
    kappa = np.sqrt(max(1 - 2 / m, 0.0))
    standard = quadratic([0.0, np.sqrt(m), 0.0], [kappa, np.sqrt(1 / m), np.sqrt(1 / m)])
    S1, S2, S3 = np.eye(3)
    pairs = [(eta * S1, column * S1, pull)] * (spread and m > 2)
    pairs += [(eta * S2, column * S3, mean_pull)] * spread + [(eta0 * S3, column0 * S2, pull)] * shifted
    moved_by_bias = np.sqrt(K) * S3 if per_class_bias else None
    add("class: standard", block(standard, R * omega / s, pairs, moved_by_bias), m - 1)

    if spread:
        for name, sign, times in (("symmetric", 1, m * (m - 3) // 2), ("antisymmetric", -1, (m - 1) * (m - 2) // 2)):
            add(f"class: {name}", block(C - D, R * omega / s, [(eta, column, sign * pull)]), times)
    add("off span: standard", block(0.0, 0.0, [(0.0, 0.0, pull)]), (m - 1) * off)
    add("off span: trivial", block(0.0, 0.0, [(0.0, 0.0, mean_pull)]), off)

    # Deviations of the R columns of a class from their mean: W' C_k W + decay.
    seen = np.diag([alpha * spread, alpha0 * shifted])[:, [i for i, used in enumerate((spread, shifted)) if used]]
    if seen.size:
        inner = omega / s * seen.T @ trivial @ seen + decay_h * np.eye(seen.shape[1])
        add("within class: trivial", np.linalg.eigvalsh(inner), K * (R - 1))
    if spread:
        add("within class: standard", np.array(decay_h + omega / s * alpha**2 * (C - D)), K * (R - 1) * (m - 2))
    add("within class: off span", np.array(decay_h), K * (R - 1) * off)

    # Contrasts between classes of one group g: dW = x v', dH = v x', db = x with x of zero sum on g. Their
    # logits are x times (v'H)_g' for the columns of group g', plus W v in the column of each class of g.
    pull = c.label - c.own
    if spread:
        form = np.diag([c.other_other - c.other_other2, (C - D) / s])
        pairs = [(np.array([eta, 0.0]), np.array([0.0, column]), pull)]
        add("contrast: standard", block(form, R * omega, pairs), m * (s - 1) * (m - 2))
    mine, others = np.sqrt((m - 1) / m), -np.sqrt(1 / (m * (m - 1))) if m > 1 else 0.0
    even = np.sqrt(1 / m)
    E = c.label_label - c.own_own - 2 * c.label_own + 2 * c.own_own2
    form = np.zeros((4, 4))  # over (x-part at g, x-part elsewhere, W v at g, W v elsewhere)
    form[0, 0] = s * (c.own_own - c.own_own2) + E
    form[1, 1] = s * (m - 1) * (c.other_other - c.other_other2)
    form[0, 2] = form[2, 0] = (s * (c.label_own - c.own_own2) + E) / np.sqrt(s)
    form[0, 3] = form[3, 0] = np.sqrt(s) * (m - 1) * (c.label_other - c.own_other)
    form[2, 2], form[2, 3], form[3, 2] = A / s, (m - 1) * B / s, (m - 1) * B / s
    form[3, 3] = (m - 1) * (C + (m - 2) * D) / s
    pairs = []
    for used, u, v, w, h in ((spread, mine, others, eta, column), (shifted, even, even, eta0, column0)):
        move = np.array([u, v, 0.0, 0.0]), np.array([0.0, 0.0, u, v])
        pairs += [(w * move[0] / np.sqrt(s), h * move[1], pull)] * used
    moved_by_bias = np.array([1.0, 1.0, 0.0, 0.0]) if per_class_bias else None
    if s > 1:
        add("contrast: trivial", block(form, R * omega, pairs, moved_by_bias), m * (s - 1))
    add("contrast: off span", block(0.0, 0.0, [(0.0, 0.0, pull)]), m * (s - 1) * off)

    rank = (m - 1) * spread + shifted
    return Spectrum.of(entries, rank * d - rank * (rank + 1) // 2)

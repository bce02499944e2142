"""Wrong formulas, one or more for each theorem of the atlas; `test_mutations` puts them in place of the right ones."""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from problems import (
    BCE,
    CE,
    CENTERED,
    DEEP_FREE,
    DEEP_PAIRS,
    DEEP_RELU,
    DEEP_SQUARES,
    DEEP_TWO,
    FOCAL,
    SHIFTED,
    SMOOTH,
    SPHERE_BCE,
    SPHERE_CE,
    TAGS,
    UNEVEN,
    VALUES,
    decays,
    sphere,
)
from scipy.special import expit, logit

import ufm
from ufm.atlas import Theorem, Verdict
from ufm.atlas.papers import (
    andriopoulos2024,
    binary,
    dang2023,
    dang2024,
    dynamics,
    fang2021,
    garrod2025,
    hong2024,
    li2024,
    li2025,
    li2025_bias,
    mse,
    nonnegative,
    rediscovering,
    schur,
    sukenik2023,
    sukenik2024,
    thrampoulidis2022,
    tirer2022,
    zhou2022,
    zhou2022_landscape,
    zhu2021,
)
from ufm.theory import closed_forms, depth, group_codes
from ufm.theory import nonnegative as nonnegative_theory
from ufm.theory import spheres as sphere_theory
from ufm.theory.closed_forms import Logits
from ufm.theory.spheres import Cosines

HOLDS, REFUTED, OUTSIDE = Verdict.HOLDS, Verdict.REFUTED, Verdict.OUTSIDE


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One wrong formula.

    Attributes:
        theorem: its id.
        problem: on which it is judged.
        where: module that states the theorem, or the theorem itself.
        name: of the function there that is replaced, or of the theorem's field.
        wrong: what replaces the function, its first argument the right one; or makes the field from the right one.
        before: verdict with the right one.
        after: verdict with the wrong one.
    """

    theorem: str
    problem: Any
    where: ModuleType | Theorem
    name: str
    wrong: Callable[..., Any]
    before: Verdict = HOLDS
    after: Verdict = REFUTED

    def __str__(self) -> str:
        return f"{self.theorem}-{self.name}-{self.before.name.lower()}"


MIXED = ufm.Problem(4, 5, None, ufm.losses.BCE(), ufm.Decay(0.02, 0.01, 0.5), targets=ufm.targets.mixup(4, 0.7, 2, 1))
RELU = ufm.models.Nonnegative()
RELU_UNEVEN = ufm.Problem(4, 5, (60, 20, 5, 5), ufm.losses.CE(), ufm.Decay(0.03, 0.03, 0.0), "none", model=RELU)
RELU_BIASED = ufm.Problem(4, 5, (60, 20, 5, 5), ufm.losses.CE(), ufm.Decay(1e-3, 1e-3, 1.0), model=RELU)
RELU_MERGED = ufm.Problem(4, 5, (100, 100, 4, 4), ufm.losses.CE(), ufm.Decay(0.011, 0.011, 1e-3), model=RELU)
RELU_BCE = dataclasses.replace(CENTERED, model=RELU)
RELU_EVEN = ufm.Problem(4, 5, 3, ufm.losses.CE(), ufm.Decay(0.02, 0.01, 0.05), model=RELU)


# Wrong formulas that several theorems share -----------------------------------------------------


def one_class_fewer(right, first, K, *rest, **more):
    return right(first, K - 1, *rest, **more)


def one_class_more(right, first, K, *rest, **more):
    return right(first, K + 1, *rest, **more)


def strength_of_K(right, mu, K, *rest, **more):
    """``K mu`` for ``(K-1) mu``."""
    return right(mu * K / (K - 1), K, *rest, **more)


def focal_strength_of_K(right, gap, mu, K, gamma):
    return right(gap, mu * K / (K - 1), K, gamma)


def slope_of_K(right, problem):
    """``K mu`` for ``(K-1) mu`` beside the slope at the origin, the other way round."""
    return right(problem) * problem.classes / (problem.classes - 1)


def unified_decay(right, mu, K, decay_b, **more):
    """The decay of a bias per class where that of a unified one belongs, which K classes share."""
    return right(mu, K, K * decay_b, **more)


def mean_decay(right, problem):
    """The arithmetic mean of the decays for the geometric one."""
    return 0.5 * (problem.decay.W + problem.decay.H)


def harmonic_decay(right, problem):
    return 2.0 / (1.0 / problem.decay.W + 1.0 / problem.decay.H)


def centered_by_samples(right, problem):
    """``Y - n 1'/N`` for ``Y - 1 1'/K``."""
    return right(problem) + 1.0 / problem.classes - (problem.counts / problem.samples)[:, None]


# Wrong formulas of one theorem ------------------------------------------------------------------


def ce_without_one(right, mu, K):
    """``a = log(1/mu - K)``."""
    gap = np.log(1.0 / mu - K)
    return Logits(gap, 0.0, 0.0, gap * (K - 1) / K, -gap / K)


def merged_among_fewer(right, mu, K, decay_b):
    """``sigma(m) = 1/(K-1) + mu``."""
    m, beta = float(logit(1 / (K - 1) + mu)), -mu / decay_b
    return Logits(0.0, K * (m - beta), beta, m, m)


def eq_3_over_K(right, gap, decay_b, K):
    """``1/(2K)`` for ``1/(2(K-1))``."""
    return (decay_b * gap + 1 / (2 * K)) * (1 + np.exp(gap))


def orthogonal_by_K(right, gamma, K):
    """Cosines of ``-1/K`` between different classes."""
    q = -gamma / K
    return Cosines(1.0, 0.0, 0.0, gamma, q, float(np.log1p((K - 1) * np.exp(q - gamma))))


def bias_still_decayed_in_full(right, problem):
    return decays(right(problem), problem.decay.W / 2, problem.decay.H, problem.decay.b)


def without_square_of_step(right, x, G, step, decay):
    """``1 - 2 eta lambda`` for its square."""
    return right(x, G, step, decay) - (step * decay) ** 2 * dynamics.imbalance(x)


def focal_at(slope, problem):
    """``problem`` with its decays scaled so that the logit gradient at the origin is ``slope`` times their mean."""
    factor = zhou2022_landscape.focal_origin_slope(problem) / slope
    return decays(problem, problem.decay.W * factor, problem.decay.H * factor, problem.decay.b)


SQUARES = decays(CE, 0.02, 0.01, 0.0, loss=ufm.losses.MSE(2.0, 3.0))
EDGE = li2025_bias.boundary_decay_b(np.sqrt(3 * 0.005 * 0.001), 4)
# sqrt(n_c)/N is 1/8 for the two smallest classes; everything is zero beyond .211.
LOPSIDED = decays(UNEVEN, 0.15, 0.15, 0.05, per_class=(4, 2, 1, 1))
NO_BIAS = decays(LOPSIDED, 0.15, 0.15, bias="none")
MANY = ufm.Problem(40, 41, 1, ufm.losses.Focal(3.0), ufm.Decay(0.1, 0.1, 0.1))
# F of exponent 2 is convex up to log(K-1) for K <= 17.
SEVENTEEN, EIGHTEEN = (ufm.Problem(K, K, 1, ufm.losses.Focal(2.0)) for K in (17, 18))

MUTATIONS = [
    Mutation("zhu2021/3.1", CE, closed_forms, "ce", ce_without_one),
    # K mu = 1.05.
    Mutation("zhu2021/zero", decays(CE, 0.152, 0.152, 0.05), closed_forms, "ce", one_class_fewer),
    Mutation("zhu2021/3.2", CE, zhu2021, "weight", harmonic_decay),
    Mutation("zhu2021/strict-saddle", CE, zhu2021, "weight", mean_decay),
    Mutation("zhu2021/strict-saddle", CE, zhu2021, "coarse_gap", strength_of_K),
    Mutation("zhu2021/lemma", CE, zhu2021, "lower_bound", one_class_more),
    Mutation(
        "zhou2022/ls", SMOOTH, closed_forms, "label_smoothing", lambda f, mu, K, alpha: f(mu, K, alpha * K / (K - 1))
    ),
    Mutation(  # alpha + K mu = 1.05
        "zhou2022/ls-zero",
        decays(SMOOTH, 0.08, 0.08, 0.05, loss=ufm.losses.LabelSmoothing(0.5)),
        closed_forms,
        "label_smoothing",
        one_class_fewer,
    ),
    Mutation(
        "zhou2022/ls-strict-saddle",
        SMOOTH,
        zhu2021,
        "coarse_gap",
        lambda f, mu, K, m, alpha: f(mu, K, m, alpha * (K - 1) / K),
    ),
    Mutation("zhou2022/ls-strict-saddle", SMOOTH, zhu2021, "weight", mean_decay),
    Mutation("zhou2022/focal", FOCAL, closed_forms, "focal_stationarity", focal_strength_of_K),
    Mutation("zhou2022/focal-strict-saddle", FOCAL, zhu2021, "weight", mean_decay),
    Mutation(
        "zhou2022/focal-strict-saddle",
        focal_at(0.9, FOCAL),
        zhou2022_landscape,
        "focal_origin_slope",
        slope_of_K,
        before=OUTSIDE,
    ),
    Mutation(
        "zhou2022/focal-landscape",
        ufm.Problem(3, 4, 1, ufm.losses.Focal(2.0), ufm.Decay(0.1, 0.1, 0.1)),
        closed_forms,
        "focal_stationarity",
        focal_strength_of_K,
    ),
    Mutation(
        "zhou2022/focal-landscape-global",
        focal_at(1.01, MANY),
        zhou2022_landscape,
        "focal_origin_slope",
        lambda f, p: f(p) * (p.classes - 1) / p.classes,
    ),
    Mutation(
        "zhou2022/focal-landscape-global",
        focal_at(0.99, MANY),
        zhou2022_landscape,
        "focal_origin_slope",
        slope_of_K,
        before=REFUTED,
        after=HOLDS,
    ),
    Mutation(
        "zhou2022/focal-landscape-global", focal_at(1.01, MANY), closed_forms, "focal_stationarity", focal_strength_of_K
    ),
    Mutation("zhou2022/contrastive", BCE, zhou2022, "reached_by_all", lambda f, loss: True),
    Mutation("zhou2022/contrastive-focal", SEVENTEEN, zhou2022, "contrastive", one_class_more),
    Mutation(
        "zhou2022/contrastive-focal", EIGHTEEN, zhou2022, "contrastive", one_class_fewer, before=REFUTED, after=HOLDS
    ),
    Mutation("zhou2022/contrastive-focal-corrected", EIGHTEEN, zhou2022, "contrastive", one_class_fewer),
    Mutation("mse/bias", SQUARES, closed_forms, "mse", strength_of_K),
    Mutation(
        "mse/no-bias", decays(CE, 0.02, 0.01, loss=ufm.losses.MSE(), bias="none"), mse, "frame_size", one_class_fewer
    ),
    Mutation("mse/decayed-bias", decays(SQUARES, 0.02, 0.01, 0.5), closed_forms, "mse", unified_decay),
    Mutation("li2025/1", CE, li2025, "scores_of_norm", lambda f, p, rho: (f(p, rho)[0], -f(p, rho)[0] / p.classes)),
    Mutation(  # n left out
        "li2025/1",
        CE,
        li2025,
        "scores_of_norm",
        lambda f, p, rho: tuple(score * np.sqrt(p.counts[0]) for score in f(p, rho)),
    ),
    Mutation("li2025/2", CENTERED, closed_forms, "bce_centered", unified_decay),
    Mutation(  # with the hypothesis that it lacks it is no longer refuted
        "li2025/2",
        SHIFTED,
        li2025.THEOREM_2,
        "hypotheses",
        lambda right: right & li2025.weak_force,
        before=REFUTED,
        after=OUTSIDE,
    ),
    Mutation("li2025/2-corrected", CENTERED, closed_forms, "bce_centered", unified_decay),
    Mutation("li2025/2-corrected", SHIFTED, closed_forms, "bce_mean_shifted", one_class_more),
    Mutation("li2025/bce-zero", decays(BCE, 0.3, 0.3, 0.05), closed_forms, "bce_centered", unified_decay),
    Mutation(  # a flow for the same time
        "li2025/ce-bias-law",
        CE,
        li2025,
        "mean_bias_after",
        lambda f, mean, decay_b, step: mean * np.exp(-decay_b * step * li2025.STEPS),
    ),
    Mutation("li2025/bce-forgets", BCE, closed_forms, "bce", unified_decay),
    Mutation("li2025/eq3", decays(BCE, 0.0924, 0.0924, 0.01), li2025_bias, "separation", eq_3_over_K),
    Mutation("li2025/eq20", CE, li2025_bias, "bias_gradient", lambda f, p, x: f(p, x) - p.decay.b * x.b),
    Mutation("li2025/eq21", BCE, li2025_bias, "bias_slope", lambda f, p, q, K: f(p, q, K) + expit(q) / K),
    Mutation(
        "li2025/boundary",
        decays(SHIFTED, 0.005, 0.001, 1.02 * EDGE),
        li2025_bias,
        "boundary_decay_b",
        lambda f, mu, K: 1.04 * f(mu, K),
    ),
    Mutation("li2025/boundary", SHIFTED, closed_forms, "bce_mean_shifted", one_class_more),
    Mutation("li2025/merged", decays(BCE, 0.3, 0.3, 2.0), closed_forms, "bce", merged_among_fewer),
    Mutation(
        "rediscovering/1",
        decays(BCE, 0.02, 0.01, 0.0, bias="unified"),
        rediscovering,
        "unified_threshold",
        lambda f, B, A, K: f(B, A, K - 1),
    ),
    Mutation(  # at a gap of 1.74, log(2K - 3) = 1.61 and log(2K - 2) = 1.79
        "rediscovering/1",
        decays(BCE, 0.0924, 0.0924, 0.0, bias="unified"),
        rediscovering,
        "least_gap",
        lambda f, K: np.log(2 * K - 2),
    ),
    Mutation("rediscovering/naive", CE, rediscovering, "bound_factor", lambda f, K: (K + 1) / K),
    Mutation(
        "rediscovering/normalised",
        sphere(0.1, 2.0),
        sphere_theory,
        "bias_equation",
        lambda f, b, p, q, K, L: f(b, p, q, K, L / K),
    ),
    Mutation(  # the mean mode, which it does not know
        "rediscovering/normalised",
        SPHERE_BCE,
        rediscovering,
        "etf",
        lambda f, p: sphere_theory.bce(p.model.gamma, p.classes, p.classes * p.decay.b),
        before=REFUTED,
        after=HOLDS,
    ),
    Mutation("rediscovering/normalised-corrected", SPHERE_BCE, rediscovering, "bias_stiffness", lambda f, p: p.decay.b),
    Mutation(
        "rediscovering/normalised-1", sphere(0.0), sphere_theory, "corollary_1", lambda f, A, B, K: f(A, B, K - 1)
    ),
    Mutation("yaras2022/ce", SPHERE_CE, sphere_theory, "ce", orthogonal_by_K),
    Mutation(  # sqrt(n_c/N)
        "hong2024/merging",
        LOPSIDED,
        hong2024,
        "merging",
        lambda f, p: {n: ratio * np.sqrt(p.samples) for n, ratio in f(p).items()},
    ),
    Mutation(
        "hong2024/zero", decays(LOPSIDED, 0.22, 0.22, 0.05), hong2024, "bias_alone", lambda f, p: np.zeros(p.classes)
    ),
    Mutation("hong2024/convex", decays(LOPSIDED, 0.06, 0.04, 0.05), hong2024, "weight", mean_decay),
    Mutation("fang2021/minority", NO_BIAS, fang2021, "merging_ratio", lambda f, p: p.classes * f(p)),
    Mutation("thrampoulidis2022/svm", NO_BIAS, thrampoulidis2022, "sel_matrix", centered_by_samples),
    Mutation(
        "thrampoulidis2022/limit", decays(NO_BIAS, 1e-5, 1e-5), thrampoulidis2022, "sel_matrix", centered_by_samples
    ),
    Mutation(
        "binary/equivalence",
        ufm.Problem(2, 3, (5, 2), ufm.losses.CE(), ufm.Decay(0.05, 0.02, 0.1)),
        binary,
        "one_neuron_problem",
        bias_still_decayed_in_full,
    ),
    Mutation("binary/outputs", CE, binary, "outputs_of", strength_of_K),
    Mutation(  # n left out
        "dang2023/mse", DEEP_SQUARES, depth, "strength", lambda f, p: f(p) / p.per_class ** (1 / 3)
    ),
    Mutation(
        "dang2023/mse-bias", DEEP_FREE, dang2023, "squares_value", lambda f, p: f(p) * p.classes / (p.classes - 1)
    ),
    Mutation(  # with one matrix collapse is optimal, and certified
        "dang2023/ce",
        dataclasses.replace(DEEP_PAIRS, model=ufm.models.Deep(1)),
        dang2023,
        "collapsed_value",
        lambda f, p: 0.99 * f(p),
    ),
    Mutation(
        "dang2023/ce",
        DEEP_PAIRS,
        dang2023,
        "collapsed_value",
        lambda f, p: group_codes.value_of("2+2+2", 6, 2, depth.strength(p)).value,
        before=REFUTED,
        after=Verdict.INCONCLUSIVE,
    ),
    Mutation("garrod2025/low-rank", DEEP_PAIRS, garrod2025, "low_rank_code", lambda f, K: str(K)),
    Mutation(
        "garrod2025/codes",
        DEEP_PAIRS,
        garrod2025,
        "best_code",
        lambda f, p: dataclasses.replace(f(p), value=f(p).value * (1 + 1e-6)),
    ),
    Mutation("tirer2022/extended", DEEP_SQUARES, tirer2022, "frame_gram", lambda f, p: f(p) - 1 / p.classes),
    Mutation("sukenik2023/binary", DEEP_TWO, sukenik2023, "zero_threshold", lambda f, p: f(p) / 4),
    Mutation(
        "sukenik2024/low-rank",
        DEEP_RELU,
        sukenik2024,
        "penalty_ratio",
        lambda f, K, L: f(K, L) * 2 ** (-1 / (L + 1)),
    ),
    Mutation("dynamics/flow", decays(BCE, 0.02, 0.02, 0.05), dynamics, "kept", lambda f, decay: np.sqrt(f(decay))),
    Mutation("dynamics/descent", decays(BCE, 0.02, 0.02, 0.05), dynamics, "imbalance_after", without_square_of_step),
    Mutation("dynamics/critical", BCE, dynamics, "balance", lambda f, p, x: f(decays(p, p.decay.W, p.decay.W), x)),
    Mutation(
        "dang2024/ce", RELU_UNEVEN, dang2024, "unbiased_ce", lambda f, n, s: f(n, s * np.sqrt(len(n) / (len(n) - 1)))
    ),
    Mutation("li2024/pick-all-label", TAGS, li2024, "pick_all_label", lambda f, K, n, s: f(K, n, s * (K - 1) / K)),
    Mutation("andriopoulos2024/collapse", VALUES, andriopoulos2024, "gram", lambda f, p: f(p) / p.decay.ratio),
    Mutation(
        "andriopoulos2024/collapse",
        VALUES,
        andriopoulos2024,
        "regression",
        lambda f, p: f(dataclasses.replace(p, decay=ufm.Decay(p.decay.W, 2 * p.decay.H, 0.0))),
    ),
    Mutation("schur/pairs", MIXED, schur, "off_symmetric", lambda f, gram: f(gram) + abs(gram.sum()) / np.trace(gram)),
    Mutation("dang2024/ce", RELU_UNEVEN, dang2024, "death_ratio", lambda f, p: 3 * f(p)),
    Mutation("dang2024/ce-bias", RELU_BIASED, dang2024, "largest_cosine", lambda f: -1 / 3),
    Mutation("dang2024/ce-bias", RELU_MERGED, dang2024, "largest_cosine", lambda f: 1.0, before=REFUTED, after=HOLDS),
    Mutation(
        "nonnegative/bce", RELU_BCE, nonnegative_theory, "frame_cost", lambda f, a, c, K: (K - 1) * abs(a) + abs(c)
    ),
    Mutation("nonnegative/merging", RELU_MERGED, nonnegative, "merging_ratio", lambda f, p: 2 * f(p)),
    Mutation("nonnegative/unused-axis", RELU_EVEN, nonnegative, "steepness", lambda f, p, x: f(p, x) ** 2),
    Mutation(  # a push that leaves the local minimum: through the origin
        "nonnegative/blocked", RELU_EVEN, nonnegative, "pushed", lambda f, p, x, size: p.init(0)
    ),
]

"""Which classes of an imbalanced problem share one row of W: minority collapse for CE, BCE, LS and MSE.

Let z_k = z_j for two classes of n_c samples each. A sample of class k pulls the two rows apart by
``delta/N`` with ``delta = |dl/dz_k - dl/dz_j|``, whatever the other logits, and the n_c samples by
``delta sqrt(n_c)/N`` in the operator norm. The nuclear norm holds them together with ``sqrt(decay_W decay_H)``:

    w_k = w_j   iff   delta sqrt(n_c)/N <= sqrt(decay_W decay_H).

The bias does not enter, so BCE merges minorities where cross-entropy does. "Only if" needs room for all classes:
d >= K, or K-1 where the loss ignores a common shift of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ufm._base import require
from ufm.losses import BCE, CE, MSE, LabelSmoothing
from ufm.models import Linear
from ufm.problem import Problem, require_single


@dataclass(frozen=True)
class Merging:
    """Classes of one count, and when they share one row of W.

    Attributes:
        count: n_c, samples of each of them.
        classes: which ones; two at least.
        threshold: ``delta sqrt(n_c)/N``.
        merged: whether ``sqrt(decay_W decay_H)`` is at least that.
    """

    count: int
    classes: tuple[int, ...]
    threshold: float
    merged: bool


def pull_apart(loss: Any) -> float:
    """``delta``: 1 for CE and BCE, ``1 - alpha`` for label smoothing, ``2 beta`` for the squared error.

    Raises:
        InputError: for another loss, or a squared error with kappa other than 1: delta depends on the logits there.

    >>> import ufm
    >>> pull_apart(ufm.losses.LabelSmoothing(0.25))
    0.75
    """
    known = type(loss) in (CE, BCE, LabelSmoothing) or (type(loss) is MSE and float(loss.kappa) == 1)
    require(known, "loss", str(loss), "ce, bce, ls, or mse with kappa = 1")
    if isinstance(loss, LabelSmoothing):
        return 1.0 - float(loss.alpha)
    return 2.0 * float(loss.beta) if isinstance(loss, MSE) else 1.0


def merging_threshold(problem: Problem) -> tuple[Merging, ...]:
    """From which ``sqrt(decay_W decay_H)`` on classes of equal counts share one row of W.

    Source: Hong & Ling 2024 for CE; the formula at the top of this file for the others.

    Returns:
        One `Merging` for each count that two or more classes share, the smallest first; it merges first.

    Raises:
        InputError: where the threshold is not known: another loss or model, weights or offsets of classes, targets
            that are no labels, or d below K (K-1 for CE and LS).

    >>> import ufm
    >>> problem = ufm.Problem(5, 5, (20, 20, 5, 5, 5), ufm.losses.BCE(), ufm.Decay(0.05, 0.05, 0.01))
    >>> [(m.count, m.classes, round(m.threshold, 4), m.merged) for m in merging_threshold(problem)]
    [(5, (2, 3, 4), 0.0407, True), (20, (0, 1), 0.0813, False)]
    """
    require_single(problem)
    require(problem.labeled, "targets", str(problem.targets), "class labels")
    require(type(problem.model) is Linear, "model", str(problem.model), "linear: W and H free")
    for name in ("weights", "offset"):
        require(getattr(problem, name) is None, name, getattr(problem, name), "absent: no threshold is known with it")
    delta = pull_apart(problem.loss)
    least = problem.classes - problem.loss.shift_invariant
    require(problem.dim >= least, "dim", problem.dim, f"at least {least}: below, no threshold is known")
    price, counts = float(problem.decay.price), np.asarray(problem.counts)
    found = []
    for count in np.unique(counts):
        classes = tuple(int(k) for k in np.flatnonzero(counts == count))
        if len(classes) > 1:
            threshold = delta * float(np.sqrt(count)) / float(problem.samples)
            found.append(Merging(int(count), classes, threshold, price >= threshold))
    return tuple(found)

"""Enclose the minimum of a problem between decimals, and write down all that it takes to see that."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from ufm._base import InputError, require
from ufm._version import __version__
from ufm.problem import Params, Problem
from ufm.proof import checker
from ufm.proof.balls import (
    PRECISIONS,
    Unproved,
    arb,
    arb_mat,
    ctx,
    exact,
    exact_matrix,
    flint_version,
    fmpq,
    hexadecimal,
    midpoints,
    outward,
)
from ufm.proof.claims import Refutation
from ufm.proof.losses import Form
from ufm.proof.statement import Statement, hexadecimals
from ufm.statement import describe, stated

FORMAT = 1
WIDTH = 1e-10
"""How wide an enclosure may be without a reason said."""
SPARE = 2
"""Digits printed beyond the width of the enclosure."""
LEAST_DIGITS, MOST_DIGITS, DIGITS = 12, 20, 10
"""Decimal places of an enclosure, and of what is claimed. Two decimals of 20 places are subtracted exactly."""
SHARP = 1e-6
"""Radius of a ball in units of the last digit printed."""
MARGINS = (2.0**-44, 2.0**-38, 2.0**-32, 2.0**-20, 1.0)
"""What the dual matrix keeps from its bound, relative: NumPy knows a norm to 2^-46. At 1 it is zero."""
REMEDY = "solve to a smaller tolerance, unless d or the loss leaves no dual matrix tight"
ABOUT = "A proof about the unconstrained feature model. Check it with: python -m ufm.proof.checker FILE"


@dataclass(frozen=True)
class Proof:
    """A proved enclosure of the global minimum f*.

    Attributes:
        lower: a decimal below f*.
        upper: a decimal above f*, and above the value of a point at hand.
        width: of the enclosure.
        reason: why the enclosure is wider than was asked; empty where it is not.
        precision: bits of the balls that sufficed.
        document: what `save` writes; None for a loss of one's own, which no checker knows.
    """

    lower: str
    upper: str
    width: float
    reason: str
    precision: int
    document: dict[str, Any] | None = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the proof as JSON; `check` reads it. ``docs/proofs.md`` says what each field is."""
        require(self.document is not None, "loss", "one of your own", "one of ufm.losses to be saved, and checked")
        place = Path(path)
        place.write_text(dump(self.document))
        return place

    def __str__(self) -> str:
        return f"{self.lower} < f* < {self.upper}" + (f" ({self.reason})" if self.reason else "")


def dump(document: Any) -> str:
    """JSON with a row of numbers on one line."""
    text = json.dumps(document, indent=1, allow_nan=False)
    return re.sub(r"\[[^\[\]{}]*\]", lambda row: " ".join(row.group().split()), text) + "\n"


def prove(
    problem: Problem,
    params: Params,
    *,
    loss: Form | None = None,
    refutes: Refutation | None = None,
    width: float = WIDTH,
) -> Proof:
    """Enclose the global minimum: the value of a point above, a Fenchel bound below, both in ball arithmetic.

    The precision is doubled until the digits printed are certain. An enclosure wider than ``width`` says why in
    `Proof.reason`: the point is not converged, or no dual point is tight (d below the rank of the convex problem's
    solution, or a loss that is not convex there).

    Args:
        problem: one problem; its float64 numbers are taken as the exact ones.
        params: a point of its shapes, best a solution. Each sample's feature is replaced by the mean of its class.
        loss: the ball form of a loss of your own.
        refutes: a theorem's claim about the minimum, to be refuted in the same file.
        width: how wide an enclosure may be without a reason said.

    Raises:
        InputError: for a loss or a model without a ball form, or a point that does not fit.
        Unproved: if ``refutes`` does not follow.

    >>> import jax, ufm
    >>> jax.config.update("jax_enable_x64", True)
    >>> problem = ufm.Problem(10, 20, 5, ufm.losses.BCE(), ufm.Decay(5e-3, 1e-3, 0.5))
    >>> proof = prove(problem, ufm.theory.minimizer(problem).params)
    >>> proof.lower[:12], proof.upper[:12], proof.width < 1e-12
    ('0.6717079569', '0.6717079569', True)
    """
    statement = Statement(problem, loss)
    x = statement.point(params)
    for precision in PRECISIONS:
        with ctx.workprec(precision):
            upper = statement.objective(x)
            scores = midpoints(statement.model.scores(arb_mat(exact_matrix(x.W)), arb_mat(exact_matrix(x.H))))
            lower, dual, failure = _best(statement, statement.logits(x), scores)
            gap = max(float((upper - lower).upper()), 1e-30)
            digits = min(MOST_DIGITS, max(LEAST_DIGITS, SPARE - math.floor(math.log10(gap))))
            if float((upper - lower).rad()) * 10.0**digits < SHARP:
                break
    else:
        failure = failure or f"{precision} bits do not settle the bounds"
    with ctx.workprec(precision):
        low, high = outward(lower, digits, up=False), outward(upper, digits, up=True)
        claim = None if refutes is None else _refuted(statement, refutes, high)
    found = float(Decimal(high) - Decimal(low))
    reason = "" if found <= width else failure or f"point and dual matrix are {gap:.1e} apart: {REMEDY}"
    document = None
    if not statement.own and stated(problem):
        document = {
            "format": FORMAT,
            "about": ABOUT,
            "statement": f"{describe(problem)}: {low} < f* < {high}",
            "problem": statement.data(),
            "point": {
                **({} if problem.classifier is not None else {"W": hexadecimals(x.W)}),
                "H": hexadecimals(x.H),
                "b": hexadecimals(np.ravel([] if x.b is None else x.b)),
            },
            "dual": dual,
            "lower": low,
            "upper": high,
            "refutes": claim,
            "versions": {"ufm": __version__, "python-flint": flint_version},
        }
        text = json.dumps(document, sort_keys=True, allow_nan=False)
        document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    return Proof(low, high, found, reason, precision, document)


def _best(
    statement: Statement, logits: list[list[arb]], scores: np.ndarray | None, keep: np.ndarray | None = None
) -> tuple[arb, dict[str, Any], str]:
    """A lower bound, the dual that gives it, and why it is only the trivial one, V = 0; empty where it is not."""
    failure = ""
    for margin in MARGINS:
        V, witness = statement.dual(logits, scores, margin, keep)
        try:
            bound = statement.bound(V, witness, None if keep is None else arb_mat(centering(statement.K)))
        except Unproved as unproved:
            failure = str(unproved)
            continue
        return bound, {"V": [list(map(hexadecimal, row)) for row in V], **hexadecimals(witness)}, failure
    raise Unproved(failure)


def centering(classes: int) -> list[list[fmpq]]:
    """``I - J/K``."""
    return [[fmpq(classes * (i == j) - 1, classes) for j in range(classes)] for i in range(classes)]


def _refuted(statement: Statement, claim: Refutation, upper: str) -> dict[str, Any]:
    """The part of the document that refutes a claim, given that a point lies below ``upper``."""
    K, form = statement.K, statement.loss
    said: dict[str, Any] = {"theorem": claim.theorem, "words": claim.words, "claim": claim.claim}
    if claim.claim == "chord":
        ends = [exact(x) for x in claim.ends or ()]
        s, t, middle = (form.value([arb(0)] + [arb(x / (K - 1))] * (K - 1), 0) for x in (*ends, sum(ends) / 2))
        by = Decimal(outward(middle - (s + t) / 2, DIGITS, up=False))
        said |= {"ends": list(map(hexadecimal, ends))}
    elif claim.claim == "centered":
        logits = [[arb(exact(x)) for x in column] for column in np.asarray(claim.logits, float).T]
        bound, dual, _ = _best(statement, logits, None, np.eye(K) - 1.0 / K)
        lower = outward(bound, DIGITS, up=False)
        said |= {"lower": lower, "dual": dual}
        by = Decimal(lower) - Decimal(upper)
    else:
        require(claim.claim == "origin", "claim", claim.claim, "centered, origin or chord")
        require(
            statement.problem.bias == "none", "bias", str(statement.problem.bias), "none, for a claim on the origin"
        )
        zero = [[arb(0)] * K for _ in range(K)]
        columns = [form.slopes(z, k) for k, z in enumerate(zero)]
        V = arb_mat([[w * c[j] for w, c in zip(statement.shares, columns, strict=True)] for j in range(K)])
        statement.model.support(V, {})  # no negative curvature: the second variation is that of W H alone
        at_zero = sum(
            (w * form.value(z, k) for k, (w, z) in enumerate(zip(statement.shares, zero, strict=True))), arb(0)
        )
        lower = outward(at_zero, DIGITS, up=False)
        said |= {"lower": lower}
        by = Decimal(lower) - Decimal(upper)
    if not by > 0:
        raise Unproved(f"{claim.theorem} is not refuted: {by}")
    return {**said, "by": str(by)}


def check(path: str | Path) -> str:
    """What a proof file proves, in a line, by the independent checker.

    Raises:
        InputError: if the file does not prove what it says, with the reason.

    >>> import jax, tempfile, ufm
    >>> jax.config.update("jax_enable_x64", True)
    >>> problem = ufm.Problem(3, 4, 5, ufm.losses.CE(), ufm.Decay(0.01, 0.01, 0.01))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check(prove(problem, ufm.theory.minimizer(problem).params).save(f"{folder}/proof.json"))[:9]
    '0.2136674'
    """
    try:
        with ctx.workprec(ctx.prec):
            return checker.check(json.loads(Path(path).read_text()))
    except (checker.Refused, json.JSONDecodeError) as refused:
        raise InputError(f"proof = {str(path)!r}: must be a file that proves what it says ({refused})") from None

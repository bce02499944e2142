"""Check a proof file from its data alone: ``python checker.py FILE`` or ``python -m ufm.proof.checker FILE``.

This file imports python-flint and the standard library, nothing of ``ufm``. Numbers are read as exact rationals, and
both bounds are computed anew in ball arithmetic (Arb); ``docs/proofs.md`` has the fields and the lemmas:

    upper = f(point),    lower = -sum omega_k l*(V_k/omega_k) + <V, offset> - R*(-V) - beta*(-V 1) <= f*    (Fenchel).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from flint import arb, arb_mat, ctx, fmpq

FORMAT = 1
HEX = re.compile(r"(-?)0x([0-9a-f]+)(?:\.([0-9a-f]+))?p([+-]?\d{1,5})")


class Refused(ValueError):  # noqa: N818 - a verdict, not a mishap
    """The file does not prove what it says."""


def need(ok: bool, reason: str) -> None:
    """Refuse for this ``reason`` unless ``ok``."""
    if not ok:
        raise Refused(reason)


def number(text: Any) -> fmpq:
    """A hexadecimal float of any length, exactly; NaN and infinity are none."""
    match = HEX.fullmatch(text) if isinstance(text, str) else None
    need(match is not None, f"{text!r} is not a hexadecimal number")
    sign, whole, part, power = match.groups()  # type: ignore[union-attr]
    value, shift = fmpq(int(sign + whole + (part or ""), 16)), int(power) - 4 * len(part or "")
    return value * (1 << shift) if shift >= 0 else value / (1 << -shift)


def numbers(row: Any, length: int) -> list[fmpq]:
    """A row of numbers."""
    need(isinstance(row, list) and len(row) == length, f"a row of {length} numbers is needed")
    return [number(x) for x in row]


def matrix(rows: Any, height: int, width: int) -> list[list[fmpq]]:
    """Rows of numbers."""
    need(isinstance(rows, list) and len(rows) == height, f"a matrix of {height} rows is needed")
    return [numbers(row, width) for row in rows]


def entropy(v: fmpq) -> arb:
    """The value of v log v; v must be exactly 0 or more."""
    need(v >= 0, "the dual matrix leaves the domain of the conjugate")
    return arb(0) if v == 0 else arb(v) * arb(v).log()


def positive_definite(A: list[list[arb]]) -> bool:
    """Whether ball Cholesky (as LDL') succeeds on the symmetric A: then A is positive definite."""
    for k in range(len(A)):
        if not A[k][k] > 0:
            return False
        for i in range(k + 1, len(A)):
            factor = A[i][k] / A[k][k]
            for j in range(k + 1, i + 1):
                A[i][j] -= factor * A[j][k]
    return True


class Problem:
    """A problem as the file states it; every number exact."""

    def __init__(self, data: dict[str, Any]) -> None:
        K, d, n = self.K, self.d, self.n = [data[x] for x in ("classes", "dim", "counts")]
        need(type(K) is int and type(d) is int and K >= 2 and d >= 1, "classes and dim must be whole numbers")
        need(len(n) == K and all(type(x) is int and x >= 1 for x in n), "counts must be K whole numbers")
        self.loss, self.model, self.bias = data["loss"]["name"], data["model"]["name"], data["bias"]
        need(self.loss in ("ce", "ls", "focal", "bce", "mse") or (self.loss, K) == ("logistic", 2), "unknown loss")
        need(self.model in ("linear", "fixed", "spheres", "nonnegative"), "unknown model")
        self.h = h = {key: number(x) for key, x in data["loss"].items() if key != "name"}
        need(h.get("gamma", 0) >= 0 <= h.get("alpha", 0) < 1 and h.get("kappa", 1) > 0, "hyper-parameter of the loss")
        self.gamma = number(data["model"]["gamma"]) if self.model == "spheres" else fmpq(1)
        self.C = arb_mat(matrix(data["model"]["W"], K, d)) if self.model == "fixed" else None
        self.W, self.H, self.b = (number(data["decay"][x]) for x in "WHb")
        need(self.W > 0 and self.H > 0 and self.b >= 0 and self.gamma > 0, "decays and gamma must be positive")
        self.omega = [fmpq(x, sum(n)) for x in n] if data["weights"] is None else numbers(data["weights"], K)
        need(all(w >= 0 for w in self.omega), "weights must not be negative")
        self.offset, self.of_bias = numbers(data["offset"], K), {"per_class": K, "unified": 1, "none": 0}[self.bias]

    def value(self, z: list[arb], k: int) -> arb:
        """The loss at logits z for the true class k."""
        others = z[:k] + z[k + 1 :]
        if self.loss in ("ce", "ls", "focal"):
            odds = sum((x - z[k]).exp() for x in others)
            if self.loss == "focal":
                return odds.log1p() * (-self.h["gamma"] * (1 / odds).log1p()).exp()
            return odds.log1p() + (self.h["alpha"] * (z[k] - sum(z) / self.K) if self.loss == "ls" else 0)
        if self.loss == "bce":
            return (-z[k]).exp().log1p() + sum(x.exp().log1p() for x in others)
        if self.loss == "logistic":
            return (z[0] if k == 1 else -z[0]).exp().log1p()
        return self.h["kappa"] * (z[k] - self.h["beta"]) ** 2 + sum(x * x for x in others)

    def conjugate(self, u: list[fmpq], k: int) -> arb:
        """l*(u) for the true class k, u being exact."""
        others, w = u[:k] + u[k + 1 :], -u[k]
        if self.loss in ("ce", "ls", "focal"):
            need(sum(u) == 0, "a column of the dual matrix does not sum to zero")
            if self.loss == "focal":
                return sum(map(entropy, others)) - entropy(w) + (self.envelope(w) if w else 0)
            smooth = self.h.get("alpha", fmpq()) / self.K
            return sum(entropy(x + smooth) for x in others) + entropy(1 - smooth * (self.K - 1) - w)
        if self.loss == "bce":
            return sum(entropy(v) + entropy(1 - v) for v in [w, *others])
        if self.loss == "logistic":
            need(u[1] == 0, "the second row of the dual matrix must be zero")
            return entropy(u[0] if k == 1 else w) + entropy(1 - (u[0] if k == 1 else w))
        return arb(u[k] ** 2 / (4 * self.h["kappa"]) - self.h["beta"] * w + sum(x * x for x in others) / 4)

    def slope(self, y: arb) -> arb:
        """F'(y) of focal loss F(y) = sigmoid(y)^gamma softplus(y), y the log-odds against the true class."""
        p = 1 / (1 + y.exp())
        return (-self.h["gamma"] * (-y).exp().log1p()).exp() * (1 - p - self.h["gamma"] * p * p.log())

    def envelope(self, a: fmpq) -> arb:
        """sup_y a y - F(y) of focal loss for 0 < a < 1, taken where F' = a: F' - a changes sign there only."""
        need(a < 1, "the dual matrix leaves the domain of the conjugate")
        low, high = arb(-1), arb(1)
        while not self.slope(low) < a:
            low *= 2
        while not self.slope(high) > a:
            high *= 2
        for _ in range(ctx.prec):
            middle = ((low + high) / 2).mid()
            if not (self.slope(middle) < a or self.slope(middle) > a):
                break
            low, high = (middle, high) if self.slope(middle) < a else (low, middle)
        y = low.union(high)
        return a * y - y.exp().log1p() * (-self.h["gamma"] * (-y).exp().log1p()).exp()

    def objective(self, point: dict[str, Any]) -> arb:
        """The objective at the point: an upper bound on f*."""
        K, d, b = self.K, self.d, numbers(point["b"], self.of_bias)
        H = arb_mat(matrix(point["H"], d, K))
        W = arb_mat(matrix(point["W"], K, d)) if self.C is None else self.C
        rows = [sum(W[j, a] ** 2 for a in range(d)) for j in range(K)]
        columns = [sum(H[a, k] ** 2 for a in range(d)) for k in range(K)]
        need(self.model != "nonnegative" or all(x >= 0 for x in H.entries()), "a feature is negative")
        Z, value = (W * H).tolist(), self.b / 2 * sum(arb(x) ** 2 for x in b)
        if self.model == "spheres":
            Z = [[self.gamma * z / (rows[j] * columns[k]).sqrt() for k, z in enumerate(Z[j])] for j in range(K)]
        else:
            value += (self.W * sum(rows) + self.H * sum(n * x for n, x in zip(self.n, columns, strict=True))) / 2
        shift = [x + y for x, y in zip(self.offset, b * (K if self.bias == "unified" else 1) or [0] * K, strict=True)]
        return value + sum(w * self.value([Z[j][k] + shift[j] for j in range(K)], k) for k, w in enumerate(self.omega))

    def bound(self, dual: dict[str, Any], allowed: list[list[fmpq]] | None = None) -> arb:
        """The Fenchel bound at V, on all points or on those whose W lies in the range of the projector ``allowed``."""
        V, value = matrix(dual["V"], self.K, self.K), arb(0)
        for k, share in enumerate(self.omega):
            column = [row[k] for row in V]
            need(share > 0 or not any(column), "a class without weight has a dual column")
            value -= share * self.conjugate([x / share for x in column], k) if share > 0 else 0
            value += sum(x * y for x, y in zip(column, self.offset, strict=True))
        force = [sum(row) for row in V]
        force = {"per_class": force, "unified": [sum(force)], "none": []}[self.bias]
        need(self.b > 0 or not any(force), "the bias has no decay and the dual matrix does not balance")
        value -= sum(x * x for x in force) / (2 * self.b) if self.b > 0 else 0
        return value - self.support(arb_mat(V) if allowed is None else arb_mat(allowed) * arb_mat(V), dual)

    def support(self, V: arb_mat, dual: dict[str, Any]) -> arb:
        """An upper bound on R*(-V)."""
        K, bound, r, c, squared = self.K, arb(0), [arb(1)] * self.K, [arb(n) for n in self.n], arb(self.W * self.H)
        if self.C is not None:
            pulled = sum(row[k] ** 2 / c[k] for row in (self.C.transpose() * V).tolist() for k in range(K))
            return pulled / (2 * self.H) - self.W / 2 * sum(x * x for x in self.C.entries())
        if self.model == "spheres":
            (r, c), norm = [numbers(dual[key], K) for key in ("rows", "columns")], number(dual["norm"])
            need(norm >= 0 and all(x > 0 for x in r + c), "the norm and its weights must be positive")
            r, c = [arb(x / sum(r)) for x in r], [arb(x / sum(c)) for x in c]  # of sum one
            squared, bound = arb(norm**2), arb(self.gamma * norm)
        A = arb_mat([[V[j, k] / c[k].sqrt() for k in range(K)] for j in range(K)])
        S = (A.transpose() * A if self.model == "nonnegative" else A * A.transpose()).tolist()
        P = matrix(dual["P"], K, K) if self.model == "nonnegative" else [[fmpq(0)] * K] * K
        need(all(P[i][j] == P[j][i] >= 0 for i in range(K) for j in range(K)), "P must be symmetric and >= 0")
        rest = [[(squared * r[i] if i == j else 0) - S[i][j] - P[i][j] for j in range(K)] for i in range(K)]
        need(positive_definite(rest), "the norm of the dual matrix is not proved to be small enough")
        return bound


def agree(text: str, ball: Callable[[], arb], up: bool) -> Decimal:
    """The decimal ``text``, which must be the last one below (``up``: the first one above) the exact number."""
    need(isinstance(text, str) and re.fullmatch(r"-?\d+\.\d{1,60}", text) is not None, f"{text!r} is no decimal")
    for ctx.prec in (128, 256, 512, 1024):
        value = ball() * arb(10) ** len(text.partition(".")[2])
        if value.rad() < 1e-6:
            break
    need(bool(value.is_finite() and value.rad() < 1e-6), "a bound cannot be computed to the digits printed")
    end = value.upper().floor() + 1 if up else value.lower().ceil() - 1
    need(end == int(text.replace(".", "")), f"{text} is not the bound that follows, rounded outward")
    return Decimal(text)


def refutation(problem: Problem, claim: dict[str, Any], upper: Decimal) -> None:
    """Refuse unless the theorem's claim fails by as much as is said; docs/proofs.md has the three kinds of claims."""
    K, kind, name, by = problem.K, claim["claim"], problem.loss, Decimal(claim["by"])
    if kind == "chord":  # phi(t) = l(0, t/(K-1), ...) is above its chord
        ends = s, t = numbers(claim["ends"], 2)
        need(name == "focal" and K > 2 and s < t <= 0, "a chord is one of focal loss's phi, over t <= 0")
        phi = [lambda x=x: problem.value([arb(0)] + [arb(x / (K - 1))] * (K - 1), 0) for x in (*ends, (s + t) / 2)]
        by = agree(claim["by"], lambda: phi[2]() - (phi[0]() + phi[1]()) / 2, up=False)
    elif kind == "centered":  # 1'W = 0
        centering = [[fmpq(K * (i == j) - 1, K) for j in range(K)] for i in range(K)]
        by = agree(claim["lower"], lambda: problem.bound(claim["dual"], centering), up=False) - upper
    else:  # the origin is a critical point without negative curvature
        need((kind, name, problem.model, problem.bias) == ("origin", "focal", "linear", "none"), "unknown claim")
        need(not any(problem.offset), "the claim on the origin is without offset")
        by = agree(claim["lower"], lambda: sum(problem.omega) * problem.value([arb(0)] * K, 0), up=False) - upper
        a = [problem.slope(arb(K - 1).log()) * w for w in problem.omega]
        problem.support(arb_mat([[a[k] / (K - 1) * (1 - K * (i == k)) for k in range(K)] for i in range(K)]), {})
    need(by == Decimal(claim["by"]) > 0, "the claim does not fail by as much as is said")


def check(document: dict[str, Any]) -> str:
    """What the document proves, in a line; `Refused` if it does not prove what it says."""
    try:
        need(document["format"] == FORMAT, f"format {document['format']!r}: this checker reads {FORMAT}")
        text = json.dumps({key: x for key, x in document.items() if key != "digest"}, sort_keys=True, allow_nan=False)
        need(hashlib.sha256(text.encode()).hexdigest() == document["digest"], "the digest is that of another document")
        problem, claim = Problem(document["problem"]), document["refutes"]
        agree(document["lower"], lambda: problem.bound(document["dual"]), up=False)
        upper = agree(document["upper"], lambda: problem.objective(document["point"]), up=True)
        if claim is not None:
            refutation(problem, claim, upper)
        refuted = f"; refutes {claim['theorem']} by {claim['by']}" if claim else ""
        return f"{document['lower']} < f* < {document['upper']}{refuted}"
    except Exception as error:  # whatever a malformed field leads to
        raise error if isinstance(error, Refused) else Refused(f"a field is missing or malformed: {error!r}") from error


if __name__ == "__main__":
    try:
        sys.stdout.write(f"proved: {check(json.loads(Path(sys.argv[1]).read_text()))}\n")
    except (Refused, OSError, IndexError, json.JSONDecodeError) as refused:
        sys.exit(f"refused: {refused}")

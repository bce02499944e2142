"""Exact numbers, balls and matrices of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ufm._base import InputError

try:
    from flint import __version__ as flint_version
    from flint import arb, arb_mat, ctx, fmpq
except ImportError:
    raise InputError("python-flint is not installed, and proofs need it: pip install 'ufm[proof]'") from None

__all__ = [
    "PRECISIONS",
    "Unproved",
    "arb",
    "arb_mat",
    "ctx",
    "exact",
    "exact_matrix",
    "flint_version",
    "fmpq",
    "hexadecimal",
    "inertia",
    "midpoints",
    "outward",
    "positive_definite",
]

PRECISIONS = (128, 256, 512, 1024)
"""Bits that are tried in turn. 128 leave 1e-25 of a sum of 1e4 terms; what 1024 do not settle, no number does."""


class Unproved(Exception):  # noqa: N818 - a verdict, not a mishap
    """What was to be proved does not follow from the numbers at hand; the message says why."""


def exact(x: Any) -> fmpq:
    """A float as the rational number that it is.

    >>> exact(0.1)
    3602879701896397/36028797018963968
    """
    return fmpq(*float(x).as_integer_ratio())


def exact_matrix(x: Any) -> list[list[fmpq]]:
    """`exact`, entry by entry."""
    return [[exact(value) for value in row] for row in np.asarray(x, float).tolist()]


def hexadecimal(x: fmpq) -> str:
    """A dyadic rational as a hexadecimal float with as many digits as it takes; `float.fromhex` reads it.

    >>> hexadecimal(exact(0.75) + exact(2.0**-60)), float.fromhex(hexadecimal(exact(0.1))) == 0.1
    ('0xc00000000000001p-60', True)
    """
    numerator, power = int(x.p), int(x.q).bit_length() - 1
    assert int(x.q) == 1 << power, "a dyadic number"
    return f"{'-' if numerator < 0 else ''}0x{abs(numerator):x}p{-power}"


def outward(ball: arb, digits: int, *, up: bool) -> str:
    """The last decimal of ``digits`` places below the ball; ``up``: the first one above.

    >>> [outward(arb(2).sqrt(), 3, up=up) for up in (False, True)]
    ['1.414', '1.415']
    """
    scaled = ball * arb(10) ** digits
    end = scaled.upper().floor() + 1 if up else scaled.lower().ceil() - 1
    whole = int(end.unique_fmpz())
    text = f"{abs(whole):0{digits + 1}d}"
    return f"{'-' if whole < 0 else ''}{text[:-digits]}.{text[-digits:]}"


def midpoints(A: arb_mat) -> np.ndarray:
    """The centers of a ball matrix as floats."""
    return np.array([[float(x.mid()) for x in row] for row in A.tolist()]).reshape(A.nrows(), A.ncols())


def inertia(A: arb_mat) -> tuple[int, int]:
    """How many eigenvalues of a symmetric ball matrix are positive, and how many negative.

    A float eigenbasis Q makes ``Q'AQ`` nearly diagonal, and ball LDL' of that counts signs (Sylvester). If no pivot
    holds zero, ``Q'AQ`` is regular, so that Q is, which therefore need not be orthogonal.

    Raises:
        Unproved: if a pivot's sign is not certain.

    >>> inertia(arb_mat([[2, 1], [1, -1]]))
    (1, 1)
    """
    size = A.nrows()
    if size == 0:
        return 0, 0
    Q = arb_mat(np.linalg.eigh(midpoints(A))[1].tolist())
    signs, rows = [], (Q.transpose() * A * Q).tolist()
    for k in range(size):
        pivot = rows[k][k]
        if not (pivot > 0 or pivot < 0):
            raise Unproved(f"the sign of an eigenvalue near {float(pivot.mid()):.1e} is not certain")
        signs.append(bool(pivot > 0))
        for i in range(k + 1, size):
            factor = rows[i][k] / pivot
            for j in range(k + 1, i + 1):
                rows[i][j] -= factor * rows[j][k]
    return sum(signs), size - sum(signs)


def positive_definite(A: Sequence[Sequence[arb]]) -> bool:
    """Whether ball Cholesky (as LDL') of a symmetric matrix succeeds: then it is positive definite.

    >>> positive_definite([[arb(2), arb(1)], [arb(1), arb(1)]])
    True
    """
    rows = [list(row) for row in A]
    for k, row in enumerate(rows):
        if not row[k] > 0:
            return False
        for i in range(k + 1, len(rows)):
            factor = rows[i][k] / row[k]
            for j in range(k + 1, i + 1):
                rows[i][j] -= factor * rows[j][k]
    return True

"""Group codes: low-rank patterns of logits that beat collapse in deep models, by name.

A code is a sum of parts, each a simplex, a pyramid or a polygon on its own classes, in directions orthogonal to those
of the other parts. Logits of a part are a Gram matrix, with an amplitude of its own:

    "4"          simplex on 4 classes: I - J/4, the collapse of these classes; "2" is an antipodal pair
    "antiprism8" an even number of classes on a polygon, every other one raised, the rest lowered: rank 3
    "icosahedron" its 12 corners: rank 3
    "frame4"     orthogonal frame: I, what MSE without bias has; "frame" alone takes all classes
    "pyramid5"   an odd number of classes: two pairs and the top; "pyramid" alone takes all classes
    "polygon5"   regular polygon in the plane: cos(2 pi (i - j)/5); "polygon" alone takes all classes

so ``"code:2+2+2"`` is three antipodal pairs, ``"code:polygon5+2"`` a pentagon and a pair. The first are those that
Garrod & Keating 2025 (as summarised) and Súkeník et al. 2024 name low-rank solutions; see `ufm.theory.depth`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ufm._base import InputError, require

PREFIX = "code:"


@dataclass(frozen=True)
class Part:
    """A part of a code: its kind and on how many classes.

    >>> Part("simplex", 2).gram().tolist(), Part("polygon", 7).rank
    ([[0.5, -0.5], [-0.5, 0.5]], 2)
    """

    kind: str
    size: int

    @property
    def rank(self) -> int:
        """Rank of the logits."""
        r = self.size
        return {"simplex": r - 1, "frame": r, "pyramid": (r + 1) // 2, "polygon": 2}.get(self.kind, 3)

    def modes(self) -> list[np.ndarray]:
        """Matrices (size, size) whose sum, each with an amplitude > 0 of its own, are the logits of the part.

        Those of a pyramid are the pairs, the top's own column, and the columns of the others along the axis of the top.
        """
        r = self.size
        if self.kind == "simplex":
            return [np.eye(r) - 1.0 / r]
        if self.kind == "frame":
            return [np.eye(r)]
        if self.kind == "icosahedron":
            ring = np.array([[0.0, s, t * (1.0 + 5.0**0.5) / 2.0] for s in (1.0, -1.0) for t in (1.0, -1.0)])
            corners = np.vstack([np.roll(ring, k, axis=1) for k in range(3)])
            return [corners @ corners.T / (corners[0] @ corners[0])]
        turn = 2.0 * np.pi * np.arange(r) / r
        sign = (-1.0) ** np.arange(r)
        if self.kind in ("polygon", "antiprism"):
            circle = np.cos(turn[:, None] - turn[None, :])
            return [circle] if self.kind == "polygon" else [circle, np.outer(sign, sign)]
        axis, top = np.append(np.full(r - 1, -1.0 / (r - 1)), 1.0), np.arange(r) == r - 1
        pairs = np.zeros((r, r))
        pairs[:-1, :-1] = np.kron(np.eye(r // 2), np.eye(2) - 0.5)
        return [pairs, np.outer(axis, top), np.outer(axis, np.where(top, 0.0, -1.0))]

    def gram(self) -> np.ndarray:
        """Logits of amplitude one (size, size): symmetric, positive semidefinite."""
        weights = (1.0, 1.0, 1.0 / (self.size - 1)) if self.kind == "pyramid" else (1.0, 0.5)
        return sum((w * mode for w, mode in zip(weights, self.modes(), strict=False)), np.zeros(()))

    def __str__(self) -> str:
        return str(self.size) if self.kind == "simplex" else f"{self.kind}{self.size}"


Code = tuple[Part, ...]


def parse(text: str, classes: int) -> Code:
    """Read ``"2+2+2"``, ``"pyramid"``, ``"polygon5+2"``, with ``code:`` in front or not, for K = ``classes``.

    Raises:
        InputError: for what is no code, parts that do not add up to K, a pyramid of an even number of classes or a
            polygon of fewer than 3, an antiprism of an odd number.

    >>> [str(part) for part in parse("code:polygon5+2", 7)]
    ['polygon5', '2']
    >>> parse("2+2", 5)
    Traceback (most recent call last):
        ...
    ufm._base.InputError: code = '2+2': must be parts that add up to classes = 5, not 4
    """
    word = text.removeprefix(PREFIX)
    parts = []
    for item in word.split("+"):
        match = re.fullmatch(r"(pyramid|polygon|antiprism|icosahedron|frame)?(\d*)", item.strip())
        if match is None or not (match[1] or match[2]):
            raise InputError(f"code = {word!r}: must be sizes, pyramidN or polygonN joined by +, as in 2+2+2, pyramid")
        kind = match[1] or "simplex"
        alone = not match[2]
        require(not alone or "+" not in word, "code", word, f"one with a size for {kind}, as in {kind}5+2")
        parts.append(Part(kind, classes if alone else int(match[2])))
    total = sum(part.size for part in parts)
    require(total == classes, "code", word, f"parts that add up to classes = {classes}, not {total}")
    for part in parts:
        least = {"simplex": 1, "frame": 1, "pyramid": 3, "polygon": 3, "antiprism": 4, "icosahedron": 12}[part.kind]
        require(part.size >= least, "code", word, f"one whose {part.kind} has at least {least} classes")
        require(part.kind != "icosahedron" or part.size == 12, "code", word, "one whose icosahedron has 12 classes")
        parity = {"pyramid": 1, "antiprism": 0}.get(part.kind, part.size % 2)
        word_of = f"one whose {part.kind} has an {'odd' if parity else 'even'} number of classes"
        require(part.size % 2 == parity, "code", word, word_of)
    return tuple(parts)


def name(code: Code) -> str:
    """The text that gives the code back.

    >>> name(parse("code:pyramid", 7))
    'pyramid7'
    """
    return "+".join(map(str, code))


def pattern(code: Code, amplitudes: tuple[float, ...] | None = None) -> np.ndarray:
    """Logits (K, K) of a sample of each class: the parts' Gram matrices on the diagonal, times their amplitudes.

    >>> pattern(parse("2+1", 3), (2.0, 1.0)).tolist()
    [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    K = sum(part.size for part in code)
    Z, at = np.zeros((K, K)), 0
    for part, amplitude in zip(code, amplitudes or (1.0,) * len(code), strict=True):
        block = slice(at, at + part.size)
        Z[block, block] = amplitude * part.gram()
        at += part.size
    return Z

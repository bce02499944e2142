"""A spectrum as a short list: eigenvalues with their multiplicities and symmetry types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 256 * np.finfo(float).eps
"""Eigenvalues below this part of the largest one are counted as zero."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the Hessian in the plain variables (W, H, b), one entry per block and value.

    Attributes:
        eigenvalues: ascending.
        multiplicities: whole numbers of any size.
        blocks: symmetry type of each entry, such as ``"class: standard"``. Entries of different blocks may
            coincide: `distinct` merges them.
        rotations: dimension of the orbit under O(d): the kernel that every such point has.
        reason: why the point is not proven to be the global minimizer; empty where it is, or where nothing is claimed.
    """

    eigenvalues: np.ndarray
    multiplicities: tuple[int, ...]
    blocks: tuple[str, ...]
    rotations: int
    reason: str = ""

    @staticmethod
    def of(entries: Sequence[tuple[str, float, int]], rotations: int) -> Spectrum:
        """Sort ``(block, eigenvalue, multiplicity)`` and drop what occurs zero times."""
        kept = sorted((value, block, times) for block, value, times in entries if times > 0)
        values, blocks, times = zip(*kept, strict=True)
        return Spectrum(np.array(values), tuple(int(t) for t in times), tuple(blocks), rotations)

    @property
    def size(self) -> int:
        """Number of variables."""
        return sum(self.multiplicities)

    @property
    def largest(self) -> float:
        """Largest eigenvalue."""
        return float(self.eigenvalues[-1])

    @property
    def zero(self) -> float:
        """Eigenvalues of at most this size count as zero."""
        return ROUNDING * float(np.max(np.abs(self.eigenvalues)))

    def _count(self, chosen: np.ndarray) -> int:
        return sum(t for t, yes in zip(self.multiplicities, chosen, strict=True) if yes)

    @property
    def index(self) -> int:
        """Number of negative eigenvalues."""
        return self._count(self.eigenvalues < -self.zero)

    @property
    def kernel(self) -> int:
        """Dimension of the kernel; more than ``rotations`` only at a threshold or along an undecayed bias."""
        return self._count(np.abs(self.eigenvalues) <= self.zero)

    @property
    def smallest_positive(self) -> float:
        """Smallest eigenvalue off the kernel."""
        return float(np.min(self.eigenvalues[self.eigenvalues > self.zero]))

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue off the kernel: the local condition number of a minimizer."""
        return self.largest / self.smallest_positive

    def distinct(self, rtol: float = 1e-12) -> list[tuple[float, int]]:
        """Eigenvalues closer than ``rtol`` times the largest merged, as ``(value, multiplicity)``."""
        merged: list[tuple[float, int]] = []
        for value, times in zip(self.eigenvalues.tolist(), self.multiplicities, strict=True):
            if merged and value - merged[-1][0] <= rtol * self.largest:
                merged[-1] = (merged[-1][0], merged[-1][1] + times)
            else:
                merged.append((value, times))
        return merged

    def expand(self) -> np.ndarray:
        """All eigenvalues, repeated: for sizes that fit in memory."""
        return np.repeat(self.eigenvalues, self.multiplicities)

    def block(self, name: str) -> np.ndarray:
        """Eigenvalues of the blocks whose name contains ``name``."""
        return self.eigenvalues[[name in block for block in self.blocks]]

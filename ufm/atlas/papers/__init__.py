"""One file for each paper, and the classical laws: the theorems, in the order in which they are listed."""

from __future__ import annotations

from ufm.atlas._core import Theorem
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
    yaras2022,
    zhou2022,
    zhou2022_landscape,
    zhu2021,
)

PAPERS: dict[str, tuple[Theorem, ...]] = {
    "zhu2021": zhu2021.THEOREMS,
    "zhou2022": (*zhou2022.THEOREMS, *zhou2022_landscape.THEOREMS),
    "mse": mse.THEOREMS,
    "li2025": (*li2025.THEOREMS, *li2025_bias.THEOREMS),
    "rediscovering": rediscovering.THEOREMS,
    "yaras2022": yaras2022.THEOREMS,
    "dang2024": dang2024.THEOREMS,
    "nonnegative": nonnegative.THEOREMS,
    "hong2024": hong2024.THEOREMS,
    "fang2021": fang2021.THEOREMS,
    "thrampoulidis2022": thrampoulidis2022.THEOREMS,
    "binary": binary.THEOREMS,
    "dynamics": dynamics.THEOREMS,
    "tirer2022": tirer2022.THEOREMS,
    "dang2023": dang2023.THEOREMS,
    "sukenik2023": sukenik2023.THEOREMS,
    "sukenik2024": sukenik2024.THEOREMS,
    "garrod2025": garrod2025.THEOREMS,
    "li2024": li2024.THEOREMS,
    "andriopoulos2024": andriopoulos2024.THEOREMS,
    "schur": schur.THEOREMS,
}

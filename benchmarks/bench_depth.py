"""Deep linear cross-entropy: which code wins at which strength, with solves from random starts on top.

Run ``python benchmarks/bench_depth.py --figure FILE`` (``--starts 0`` leaves the solves out). ``strength`` is
(decay_W^L n decay_H)^{1/(L+1)}. A solve that ends below the best code is printed as ``LOWER``: the list of codes is
not complete there, and the transition beside it is one among named codes only.
"""

import argparse
import re
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
import matplotlib.pyplot as plt
import numpy as np

import ufm
from ufm import codes
from ufm.plotting.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILION, style
from ufm.theory import group_codes

COLORS = {
    "collapse": BLUE,
    "pairs": ORANGE,
    "groups": VERMILION,
    "pyramid": PURPLE,
    "polygon": GREEN,
    "antiprism": SKY,
    "icosahedron": "#F0E442",
    "zero": GRAY,
}


def earlier(path):
    """Lines about solves in an earlier output, by (K, L)."""
    found, at = {}, None
    for line in Path(path).read_text().splitlines():
        if match := re.match(r"K=(\d+) L=(\d+):", line):
            at = tuple(map(int, match.groups()))
        elif line.startswith("  strength "):
            found.setdefault(at, []).append(line)
    return found


def kind(code):
    """The color of a code."""
    kinds, sizes = {part.kind for part in code}, [part.size for part in code]
    for name in ("icosahedron", "antiprism", "polygon", "pyramid"):
        if name in kinds:
            return name
    if len(code) == 1:
        return "collapse"
    return "zero" if max(sizes) == 1 else "pairs" if max(sizes) == 2 else "groups"


def solved(classes, layers, strength, starts):
    """Least value of random starts."""
    problem = ufm.Problem(
        classes,
        classes,
        1,
        ufm.losses.CE(),
        ufm.Decay(strength, strength),
        bias="none",
        model=ufm.models.Deep(layers=layers),
    )
    return min(float(s.value) for s in ufm.solvers.multistart(problem, 1, starts=starts))


DOTS = {"the same": "black", "LOWER": "red", "higher": "white"}
"""What the best of the random starts is beside the code."""


def main():
    """Table on standard output, and the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(3, 13)))
    parser.add_argument("--solved", type=int, default=10, help="solve up to so many classes")
    parser.add_argument("--solves", help="an earlier output, whose solves are taken")
    parser.add_argument("--figure")
    given = parser.parse_args()
    kept = {} if given.solves is None else earlier(given.solves)
    least, depths = 1e-6, (2, 3, 4, 5)
    with style():
        figure, panels = plt.subplots(1, len(depths), figsize=(15, 5.5), sharey=True)
    for panel, layers in zip(panels, depths, strict=True):
        for K in given.classes:
            changes = group_codes.transitions(K, layers, least)
            edges = [least, *(x.strength for x in changes), 1.0]
            names = [changes[0].below, *(x.above for x in changes)]
            print(f"K={K} L={layers}: " + "; ".join(str(x) for x in changes), flush=True)
            points = [] if given.solves is None else kept.get((K, layers), [])
            for low, high, code in zip(edges[:-1], edges[1:], names, strict=True):
                panel.barh(K, high - low, left=low, color=COLORS[kind(code)], height=0.86, edgecolor="white")
                if high / low > 5 and kind(code) != "zero":
                    panel.text(np.sqrt(low * high), K, codes.name(code), ha="center", va="center", fontsize=6)
                if given.solves is None and given.starts and kind(code) != "zero" and given.solved >= K:
                    t = float(np.sqrt(max(low, 1e-4) * high)) if high > 1e-4 else float(np.sqrt(low * high))
                    found, value = solved(K, layers, t, given.starts), group_codes.value_of(code, K, layers, t).value
                    word = "the same" if abs(found - value) < 1e-10 * value else "LOWER" if found < value else "higher"
                    points.append(f"  strength {t:.4g}: {codes.name(code)} {value:.10f}, starts {found:.10f}: {word}")
            for line in points:
                print(line, flush=True)
                t, word = float(line.split()[1].rstrip(":")), line.rpartition(": ")[2]
                panel.plot(t, K, "o", color=DOTS.get(word, DOTS["higher"]), markeredgecolor="black", markersize=4)
        panel.set(xscale="log", xlim=(least, 0.4), title=f"L = {layers}", xlabel="strength")
        panel.set_xticks([1e-6, 1e-4, 1e-2])
        panel.set_yticks(given.classes)
        panel.grid(visible=False)
    panels[0].set_ylabel("classes K")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in COLORS.values()]
    handles += [plt.Line2D([], [], marker="o", ls="", color=c, markeredgecolor="black") for c in DOTS.values()]
    words = [f"best of the starts: {word.lower()}" for word in DOTS]
    figure.legend(handles, [*COLORS, *words], loc="outside right upper", fontsize=8)
    if given.figure:
        figure.savefig(given.figure)


if __name__ == "__main__":
    main()

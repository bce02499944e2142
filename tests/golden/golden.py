"""Golden numbers: what theorems, closed forms, solvers, spectra and metrics said before a rebuilding.

    python -m tests.golden.golden compare   # from the root; exit 1 if a number differs
    python -m tests.golden.golden write     # keep the numbers of the code at hand in place of the old ones

``golden.json`` holds problems as data: two inside the hypotheses of every theorem that could be drawn, 304 random ones,
every second of them again for its spectrum, and random features. Two tolerances, relative to ``max(1, |x|)``: ``EXACT``
for formulas, ``SOLVED`` for numbers of a solution, which agree only as far as the stopping rule goes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import jax

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
import numpy as np

import ufm
from ufm.statement import from_data

FILE = Path(__file__).with_name("golden.json")
EXACT, SOLVED = 1e-12, 1e-10
NOTHING = 2e-9
"""Below this a distance that should be zero counts as zero: the convex solver stops near 1e-9, as rounding lets it."""


def evaluate(entry: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of an entry: exact ones and solved ones."""
    if entry["kind"] == "metrics":
        return _metrics(entry), {}
    problem = from_data(entry["problem"])
    if entry["kind"] == "theorem":
        return _theorem(entry, problem)
    if entry["kind"] == "random":
        return _random(entry, problem)
    try:
        spectrum = ufm.theory.hessian_spectrum(problem)
    except ufm.InputError as error:
        return {"refused": type(error).__name__}, {}
    # Equal eigenvalues of different blocks come in an order that rounding decides: merged.
    return {"distinct": [list(entry) for entry in spectrum.distinct(1e-9)]}, {}


def _theorem(entry: dict[str, Any], problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    finding = ufm.atlas.check(ufm.atlas.THEOREMS[entry["theorem"]], problem)
    exact = {"verdict": str(finding.verdict), "names": [q.name for q in finding.quantities]}
    solved = {
        "predicted": [q.predicted for q in finding.quantities],
        "measured": [0.0 if q.predicted == 0 and abs(q.measured) < NOTHING else q.measured for q in finding.quantities],
        "gap": finding.gap,
    }
    return exact, solved


def _random(entry: dict[str, Any], problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    closed = ufm.theory.minimizer(problem)
    solution = ufm.solve(problem, key=entry["key"])
    certificate = ufm.theory.certify(problem, solution.params)
    exact = {k: getattr(closed, k) for k in ("value", "gap", "shift", "bias", "regime", "lower_bound")}
    solved = {"value": float(solution.value), "lower_bound": certificate.lower_bound}
    return exact, solved


def _metrics(entry: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(entry["seed"])
    K, d = entry["classes"], entry["dim"]
    labels = np.repeat(np.arange(K), 5)
    W, H, b = rng.normal(size=(K, d)), rng.normal(size=(d, 5 * K)), rng.normal(size=K)
    found = ufm.metrics.collapse(*(jax.numpy.asarray(x) for x in (W, H, labels, b)))
    measured = ufm.measure(H.T, labels, W, b).to_dict()
    scalars = {k: measured[k] for k in ("accuracy", "threshold", "compactness", "distinctiveness")}
    return {"collapse": {k: float(v) for k, v in vars(found).items()}, **scalars}


def difference(old: Any, new: Any) -> float:
    """Largest difference relative to ``max(1, |old|)``; infinite where kinds, lengths or words differ."""
    if isinstance(old, dict):
        return max((difference(v, new.get(k)) for k, v in old.items()), default=0.0)
    if isinstance(old, list):
        same = isinstance(new, list) and len(old) == len(new)
        return max(map(difference, old, new), default=0.0) if same else np.inf
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        if old == new or (np.isnan(old) and np.isnan(new)):
            return 0.0
        return abs(old - new) / max(1.0, abs(old))
    return 0.0 if old == new else np.inf


def write() -> None:
    """Evaluate every entry again and keep what comes out."""
    entries = json.loads(FILE.read_text())
    for entry in entries:
        entry["exact"], entry["solved"] = (_plain(x) for x in evaluate(entry))
    FILE.write_text("[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]\n")


def compare(kinds: tuple[str, ...] = (), report: Any = click.echo) -> bool:
    """Evaluate again and say where numbers differ."""
    worst: dict[tuple[str, str], float] = {}
    fine = True
    for entry in json.loads(FILE.read_text()):
        if kinds and entry["kind"] not in kinds:
            continue
        for part, found, limit in zip(("exact", "solved"), evaluate(entry), (EXACT, SOLVED), strict=True):
            off = difference(entry[part], _plain(found))
            worst[entry["kind"], part] = max(off, worst.get((entry["kind"], part), 0.0))
            if off > limit:
                fine = False
                report(f"{entry['kind']} {entry.get('theorem', '')} {part}: {off:.1e}  {entry.get('problem')}")
    for (kind, part), off in worst.items():
        report(f"worst difference, {kind} {part}: {off:.1e}")
    return fine


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in x]
    return x.item() if hasattr(x, "item") else x


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write()
    else:
        sys.exit(not compare(tuple(sys.argv[2:])))

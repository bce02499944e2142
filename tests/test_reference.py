"""The API reference: it builds without a warning, and every public name says what it is and shows it."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["ufm", *(f"ufm.{room}" for room in (
    "atlas", "geometry", "landscape", "losses", "metrics", "networks", "plotting", "proof", "report", "solvers",
    "sweeps", "theory",
))]  # fmt: skip
RESULTS = {
    "Bound": "at_most", "Bracket": "threshold",
    "Case": "standard_suite", "Certificate": "certify", "Collapse": "collapse",
    "Conjecture": "conjecture", "CriticalBall": "critical_point", "CriticalPoint": "examine",
    "Custom": "custom", "Decay": "minimizer", "Density": "spectral_density", "DerivativeCheck": "check_derivatives",
    "Descent": "saddle_to_saddle", "Diagram": "diagram", "Eigenpairs": "extreme_eigenpairs", "Evidence": "check",
    "Finding": "check", "Measurement": "measure", "Merging": "merging_threshold",
    "Minimizer": "minimizer", "Nearest": "nearest",
    "Observed": "nearest", "NoPrediction": "predict", "Params": "plane", "Point": "diagram", "Prediction": "predict",
    "Proof": "prove", "Quantity": "quantity",
    "Reduction": "reduce", "Regime": "reduce",
    "Report": "verify", "Rung": "ladder", "Spectrum": "hessian_spectrum",
    "Theorem": "check", "Trial": "verify_random", "Trials": "verify_random", "Verdict": "check",
}  # fmt: skip
"""What a function returns or takes, beside that function: its example shows both."""


def public(room):
    """Functions and classes by name; neither the rooms inside a room nor its data."""
    module = importlib.import_module(room)
    return {name: getattr(module, name) for name in module.__all__ if callable(getattr(module, name))}


def has_example(thing):
    members = [x for x in vars(thing).values() if inspect.isroutine(x)] if inspect.isclass(thing) else []
    return any(">>>" in (getattr(x, "__doc__", None) or "") for x in [thing, *members])


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_documented(room):
    assert importlib.import_module(room).__doc__
    assert [name for name, thing in public(room).items() if not inspect.getdoc(thing)] == []


def test_every_public_name_shows_itself_or_is_shown_by_another():
    without = {name for room in ROOMS for name, thing in public(room).items() if not has_example(thing)}
    assert without == RESULTS.keys()
    assert without.isdisjoint(RESULTS.values())


@pytest.mark.slow
def test_reference_builds_without_a_warning(tmp_path):
    """CI builds it in a step of its own; a package of its name in the working directory changes nothing."""
    (tmp_path / "ufm").mkdir()
    (tmp_path / "ufm" / "__init__.py").touch()
    command = [sys.executable, ROOT / "docs" / "build.py", "api"]
    done = subprocess.run(command, check=True, timeout=300, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("API reference: api/index.html\n", "")
    tmp_path /= "api"
    for page in ("ufm", "ufm/atlas", "ufm/theory", "ufm/report"):
        assert "<h1" in (tmp_path / f"{page}.html").read_text()
    assert "Certificate" in (tmp_path / "ufm" / "theory.html").read_text()

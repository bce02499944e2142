"""Many classes: memory of the order of the classifier, and not a word on standard error beyond what was read."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

PEAK = """
import resource, runpy, sys
sys.argv = ["ufm", "measure", "--json", sys.argv[1]]
try:
    runpy.run_module("ufm", run_name="__main__")
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.slow
def test_six_thousand_classes(tmp_path):
    """Tables of pairs took 120 bytes K^2, 4.4 GB here, and XLA folded their constants for seconds."""
    classes, dim = 6000, 64
    rng = np.random.default_rng(0)
    W = rng.standard_normal((classes, dim), dtype=np.float32)
    arrays = {"weight": W, "features": W + 0.1, "labels": np.arange(classes), "bias": np.zeros(classes, np.float32)}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["classes"] == classes
    lines = [line.split("\r")[-1] for line in done.stderr.splitlines() if line.strip()]
    assert lines[0] == f"ufm: {tmp_path}: read: features, labels, weight, bias"
    assert "folding" not in done.stderr
    peak = 1024 * int(lines[-1].split()[-1])  # ru_maxrss counts KiB on Linux
    # The interpreter with JAX takes about 300 MB, blocks of scores 32 MiB each.
    assert peak < 1.2e9

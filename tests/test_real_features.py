"""The findings of notebooks/05_real_features.py hold for every seed and initial bias."""

from __future__ import annotations

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_real_features.py"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    pytest.importorskip("sklearn")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        patch.setenv("MPLBACKEND", "Agg")
        with jax.numpy_dtype_promotion("standard"):  # optax's schedules need it
            found = runpy.run_path(str(NOTEBOOK))["rows"]
        assert Path("figures/05_real_features.png").stat().st_size > 10_000
    return found


@pytest.mark.slow
def test_findings(rows):
    assert len(rows) == 18
    for row in rows:
        # The model's minimum is a lower bound, and the network reaches it.
        assert -1e-5 < row["excess"] < 2e-3
        for side in ("positive", "negative"):
            assert row[side] == pytest.approx(row[f"{side}, theory"], abs=1e-2)
        assert row["regime"] == row["regime, theory"]
        assert row["decay_W"] == pytest.approx(5e-3, rel=1e-2)
        assert row["nc1"] < 2e-3
        assert row["uniform"] == 1.0
        # The shifted regime: an ETF about a mean, not about zero.
        assert row["nc2"] < 0.05
        assert (row["nc2_uncentred"] > 0.1) == (row["loss"] == "BCE, decayed bias")
        if row["loss"] == "CE":
            assert row["bias"] == pytest.approx(row["initial bias"], abs=1e-5)
        else:
            assert row["bias"] == pytest.approx(row["bias, theory"], abs=1e-2)

    def mean(loss, key):
        return np.mean([row[key] for row in rows if row["loss"] == loss])

    # BCE's learned bias is a threshold for unseen digits, CE's is not; for the rest the losses are alike.
    assert mean("BCE", "test at bias") > mean("CE", "test at bias") + 0.1
    assert mean("BCE", "test |mean(-b) - t*|") < mean("CE", "test |mean(-b) - t*|")
    assert abs(mean("BCE", "test uniform") - mean("CE", "test uniform")) < 0.1

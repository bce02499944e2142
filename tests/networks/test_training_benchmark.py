"""The benchmark's reader of IDX files and its objective; no network is trained."""

from __future__ import annotations

import gzip
import runpy
import struct
from argparse import Namespace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm

TRAIN = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "networks" / "train.py"))
GOOD = struct.pack(">III", 0x0802, 2, 3) + bytes(range(6))


@pytest.mark.parametrize("zipped", [True, False])
def test_reading(tmp_path, zipped):
    (tmp_path / ("file.gz" if zipped else "file")).write_bytes(gzip.compress(GOOD) if zipped else GOOD)
    np.testing.assert_array_equal(TRAIN["read_idx"](tmp_path, "file", 2), np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other", GOOD, "must hold file or file.gz"),
        ("file", GOOD[:-1], "must have 6 bytes after its header, not 5"),
        ("file", GOOD[:7], "must be an IDX file of bytes in 2 dimensions"),
        ("file", b"\0\0\x08\x03" + GOOD[4:], "must be an IDX file of bytes in 2 dimensions"),
        ("file.gz", gzip.compress(GOOD)[:-9], "must be a whole gzip file"),
        ("file.gz", GOOD, "must be a whole gzip file"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as error:
        TRAIN["read_idx"](tmp_path, "file", 2)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_batch_of_everything_is_the_predicted_problem():
    """With one batch the objective is that of `predict`'s problem, and the decay of the layers before it."""
    counts, decays = [3, 2, 1], {"weight_decay": 0.3, "feature_decay": 0.2, "bias_decay": 0.1}
    labels, key = jnp.repeat(jnp.arange(3), jnp.array(counts), total_repeat_length=6), jax.random.key(0)
    x = jax.random.uniform(key, (6, 4), jnp.float64)
    layers = [
        (jax.random.normal(jax.random.key(i), (n, m), jnp.float64), jnp.ones(n))
        for i, (n, m) in enumerate(((5, 4), (3, 5)))
    ]
    found = ufm.networks.predict(classes=3, dim=5, counts=counts, loss="ce", batch=6, **decays)
    problem = ufm.Problem(3, 5, counts, found.problem.loss, found.problem.decay, model=found.problem.model)
    (inner, _), (W, b) = layers
    value = problem.objective(ufm.Params(W, TRAIN["features"](layers, x).T, b))
    seen = TRAIN["objective"](layers, x, labels, Namespace(loss="ce", **decays))
    assert float(seen) == pytest.approx(float(value) + 0.15 * float(jnp.sum(inner**2)), rel=1e-12)

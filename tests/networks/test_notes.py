"""What is no number says why, in strict JSON and in the table."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import ufm
from ufm.cli._common import plain

K, D = 4, 3
LABELS = np.repeat(np.arange(K), 3)
RANDOM = np.random.default_rng(0).normal(size=(12, D))
NETWORKS = {
    "ordinary": (RANDOM, np.eye(K, D), np.zeros(K)),
    "zero": (0 * RANDOM, np.zeros((K, D)), -1.0),
    "constant features": (0 * RANDOM + 0.1, np.eye(K, D), None),
    "no variance between classes": (np.tile([[1.0] * D, [0.0] * D, [-1.0] * D], (K, 1)), np.eye(K, D), np.ones(K)),
    "large margins": (1e4 * np.eye(K)[LABELS], np.eye(K), None),
    "one sample a class": (np.eye(K), np.eye(K), -0.5 * np.ones(K)),
    "two classes": (RANDOM[:6], np.eye(2, D), 0.3),
}


def undefined(tree, path=""):
    for key, value in tree.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from undefined(value, where)
        elif value is None or (isinstance(value, list) and None in value):
            yield where


def measured(name):
    features, weight, bias = NETWORKS[name]
    classes = len(weight)
    return ufm.measure(features, np.arange(len(features)) * classes // len(features), weight, bias)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_null_has_a_reason(name):
    report = plain(measured(name).to_dict())
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    nulls = {path.removesuffix(".mean").removesuffix(".max") for path in undefined(report)}
    assert nulls == report["notes"].keys()
    assert all(report["notes"].values())


def test_the_words_fit():
    def notes(name):
        return measured(name).to_dict()["notes"]

    assert notes("constant features")["collapse.nc1"].startswith("undefined (0/0)")
    assert notes("zero")["collapse.nc1"].startswith("undefined (0/0)")
    assert notes("no variance between classes")["collapse.nc1"].startswith("infinite")
    assert notes("one sample a class")["compactness"].startswith("undefined")
    assert "no bias" in notes("large margins")["nearest.bce.decay_b"]
    assert "two classes" in notes("two classes")["nearest.bce.decay_b"]
    assert math.isinf(measured("no variance between classes").collapse.nc1)


def test_the_table_shows_the_words(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from ufm.cli import commands

    monkeypatch.setattr("ufm.cli.measure.use_jax", lambda: None)
    monkeypatch.chdir(tmp_path)  # short names: one line a row
    paths = []
    for name in ("zero", "no variance between classes", "large margins"):
        features, weight, bias = NETWORKS[name]
        arrays = {"features": features, "labels": LABELS, "weight": weight} | ({} if bias is None else {"bias": bias})
        paths.append(f"{len(paths)}.npz")
        np.savez(paths[-1], **arrays)
    done = CliRunner().invoke(commands, ["measure", "--compare", *paths, "--figure", "sheet.png"])
    assert done.exit_code == 0, done.output
    (nc1,) = [line.split() for line in done.stdout.splitlines() if line.startswith(" NC1 ")]
    assert nc1[:3] == ["NC1", "undefined", "infinite"]
    assert f"{paths[0]}, collapse.nc1: undefined (0/0)" in done.stdout
    assert f"{paths[2]}, nearest.ce: mu and the decays are below the smallest floats: take log_mu" in done.stdout

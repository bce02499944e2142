"""The kept numbers come out again: metrics in every run, the rest in the slow one."""

import pytest
from golden import compare


def complaints(*kinds):
    said = []
    return [] if compare(kinds, said.append) else said


def test_metrics():
    assert not complaints("metrics")


@pytest.mark.slow
def test_theorems_random_problems_and_spectra():
    assert not complaints("theorem", "random", "spectrum")


def test_a_number_that_differs_is_told(monkeypatch):
    monkeypatch.setattr("golden.EXACT", -1.0)
    assert any(line.startswith("metrics") for line in complaints("metrics"))

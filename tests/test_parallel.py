"""Tasks that run at once: how many, in which order, and what never runs together."""

import threading

import jax
import jax.numpy as jnp
import pytest

import ufm
from ufm import _parallel
from ufm._parallel import BATCHED_EIGH, MOST, in_parallel, workers
from ufm.landscape import finder


def test_workers_are_the_cores_and_two_at_most(monkeypatch):
    monkeypatch.delenv("UFM_WORKERS", raising=False)
    for cores, expected in ((1, 1), (2, 2), (64, MOST)):
        monkeypatch.setattr(_parallel, "cores", lambda cores=cores: cores)
        assert workers() == expected
    monkeypatch.setenv("UFM_WORKERS", "5")
    assert workers() == 5


@pytest.mark.parametrize("given", ["0", "-1", "two", "", "1.5"])
def test_a_number_of_workers_that_is_none(monkeypatch, given):
    monkeypatch.setenv("UFM_WORKERS", given)
    with pytest.raises(ufm.InputError, match=rf"^UFM_WORKERS = '{given}': must be a whole number >= 1$"):
        in_parallel(abs, [1])


def test_as_many_at_once_as_asked_for_and_in_order(monkeypatch):
    """Three tasks that wait for one another end only if all three run."""
    monkeypatch.setenv("UFM_WORKERS", "3")
    together = threading.Barrier(3, timeout=60)
    assert in_parallel(lambda i: (together.wait() >= 0, i), range(3)) == [(True, 0), (True, 1), (True, 2)]
    monkeypatch.setenv("UFM_WORKERS", "1")
    assert set(in_parallel(lambda _: threading.current_thread(), range(3))) == {threading.current_thread()}


def test_the_first_error_is_raised(monkeypatch):
    monkeypatch.setenv("UFM_WORKERS", "2")
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda x: 1 / x, [1, 0, 2])


def test_a_search_holds_the_lock_while_its_batch_runs(monkeypatch):
    """Two batched eigendecompositions at once deadlock."""
    held = []

    def refine(problem, stacked, *options):
        held.append(BATCHED_EIGH.locked())
        return stacked, jnp.full(len(stacked.H), jnp.inf)  # none of them critical

    monkeypatch.setattr(finder, "_refine_all", refine)
    problem = ufm.Problem(2, 1, 1, loss=ufm.losses.CE(), bias="none")
    assert ufm.landscape.find_critical_points(problem, [problem.init(jax.random.key(0))]) == []
    assert held == [True]
    assert not BATCHED_EIGH.locked()

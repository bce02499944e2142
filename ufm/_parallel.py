"""How many tasks run at once: the one place that decides about threads, and about what they must not do together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ufm._base import require

Task = TypeVar("Task")
Result = TypeVar("Result")
MOST = 2
"""Workers unless the user asks for more: times and memory were measured with two, on two cores."""
BATCHED_EIGH = threading.Lock()
"""Held while a batch of eigendecompositions runs: XLA's thread pool on CPU deadlocks when two threads run one each
at once (jax 0.10)."""


def cores() -> int:
    """Cores that this process may use; at least one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has no such
    return usable or 1


def workers() -> int:
    """How many tasks run at once: ``UFM_WORKERS`` where it is set, else one for each core and at most `MOST`.

    Raises:
        InputError: where ``UFM_WORKERS`` is not a whole number >= 1.
    """
    asked = os.environ.get("UFM_WORKERS")
    if asked is None:
        return min(cores(), MOST)
    require(asked.isdecimal() and int(asked) >= 1, "UFM_WORKERS", asked, "a whole number >= 1")
    return int(asked)


def in_parallel(function: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
    """``function`` of every task, in their order, `workers` of them at a time.

    The first error is raised, and tasks that have not begun are dropped. With one worker all runs in the caller's
    thread.

    >>> in_parallel(abs, [-2, 1])
    [2, 1]
    """
    count = workers()
    if count == 1:
        return [function(task) for task in tasks]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, tasks))

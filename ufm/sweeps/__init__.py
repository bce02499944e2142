"""Many problems at once: grids and lists over any leaf, batched, sharded, resumable and labeled."""

from __future__ import annotations

from ufm.sweeps._result import Sweep
from ufm.sweeps._spec import read_spec, spec_names
from ufm.sweeps._sweep import load, sweep

__all__ = ["Sweep", "load", "read_spec", "spec_names", "sweep"]

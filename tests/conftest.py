"""Tests run in float64 with rank and dtype promotion refused; warnings are errors (pyproject.toml)."""

import os

from ufm.cli._common import use_older_emitters

# Before NumPy loads: on matrices this small OpenBLAS threads spin, forty times the work itself on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Most of a test's time is compilation, and XLA's newer emitters on CPU take four times as long as the older ones.
# The commands and notebooks that CI runs are compiled as users' are.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
use_older_emitters("--xla_cpu_parallel_codegen_split_count=1")
# Figures are drawn without a screen, whatever the machine has.
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "ufm", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ufm")

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # 3. A thousand problems: from a spec to a figure
#
# When does the mean of the classifier leave the simplex? BCE's minimizer is *mean-shifted* wherever its bias is
# held back hard enough. One sweep over two decays draws the map, and every point of it carries a certificate.

# %%
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 2)  # before any JAX work: lanes are dealt to the devices
jax.config.update("jax_enable_x64", True)
import numpy as np

import ufm
from ufm.plotting.sweep import heat_map, scores_and_bias

out = Path("figures")
out.mkdir(exist_ok=True)

# %% [markdown]
# ## The spec
# As a file for `ufm sweep map.toml --out DIR`, which keeps every finished chunk and can be interrupted at any time.

# %%
spec = """
title = "BCE, K = 5, n = 10"

[problem]
loss = "bce"
classes = 5
dim = 6
per_class = 10
features = "per_class"        # one feature per class: the same minimum at a cost independent of n

[axes]
"decay.W,decay.H" = {log = [5e-4, 0.1, 32]}
"decay.b" = {log = [1e-4, 1.0, 32]}
"""
Path("map.toml").write_text(spec)
found = ufm.sweep(**ufm.sweeps.read_spec("map.toml"))
print(found)

# %% [markdown]
# ## The result
# Named axes, one array per quantity. `found.to_xarray()` hands them over; here NumPy is enough.

# %%
print("largest certified gap", found["gap"].max(), "at a rounding allowance of", found["rounding"].max())
print("regimes (zero, etf, mean-shifted):", np.bincount(found["regime"].ravel(), minlength=3))
print(f"{100 * found.info['useful']:.0f} % of the evaluations made were needed")
assert found["gap"].max() < 1e-9

heat_map(found, "regime").savefig(out / "sweep_regime.png")

# %% [markdown]
# Theory says where the line is: mean-shifted iff decay_b |b| > mu. The sweep never saw that formula.

# %%
wrong = 0
for i, decay in enumerate(found.coords["decay.W,decay.H"][::4]):
    for j, decay_b in enumerate(found.coords["decay.b"][::4]):
        problem = found.problem_at(**{"decay.W,decay.H": decay, "decay.b": decay_b})
        closed = ufm.theory.minimizer(problem)
        wrong += closed.regime != ["zero", "etf", "mean-shifted"][found["regime"][4 * i, 4 * j]]
print("points where the closed form says otherwise:", wrong)
assert wrong == 0

# %% [markdown]
# ## One line of the map
# Final scores and bias over the decay of the bias: points are solved, lines are the closed form.

# %%
decay = found.coords["decay.W,decay.H"][8]
scores_and_bias(found.select(**{"decay.W,decay.H": decay}), "decay.b").savefig(out / "sweep_line.png")

# %% [markdown]
# The papers' experiments ship as specs: `ufm sweep initial-bias --out DIR`, `ufm sweep bias-decay --out DIR`, then
# `ufm show DIR --out FIGS`.

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # 1. What does a network's last layer converge to?
#
# Deep classifiers trained long enough *collapse*: all features of a class meet in one point, and the class
# means and classifier rows form a regular simplex. The **unconstrained feature model** explains why: forget
# the network, let every feature $h_i$ be a free variable, and minimize
#
# $$ f(W,H,b) = \frac1N\sum_i \ell(W h_i + b, y_i) + \frac{\lambda_W}2\|W\|^2 + \frac{\lambda_H}2\|H\|^2
#    + \frac{\lambda_b}2\|b\|^2 . $$
#
# `ufm` states such a problem, solves it, and tells you, with a certificate, whether the theorems hold for it.

# %%
import jax

jax.config.update("jax_enable_x64", True)  # float64 for verification; the package never sets it for you

import dataclasses
from pathlib import Path

import numpy as np
import optax

import ufm
from ufm import plotting

figures = Path("figures")
figures.mkdir(exist_ok=True)

# %% [markdown]
# ## State, solve, certify
# Ten classes, cross-entropy. `solve` starts from random features and knows nothing of collapse.

# %%
problem = ufm.Problem(classes=10, dim=15, per_class=10, loss=ufm.losses.CE(), decay=ufm.Decay(W=0.01, H=0.01, b=0.01))
solution = ufm.solve(problem, key=0)
print(solution.status_name, "after", int(solution.steps), "steps; value", float(solution.value))

# %% [markdown]
# Is that the *global* minimum of a non-convex problem? The dual certificate answers with a lower bound that
# is valid for every $(W,H,b)$, and the closed form of the theorem is an independent witness.

# %%
certificate = ufm.theory.certify(problem, solution.params)
closed = ufm.theory.minimizer(problem)
print(f"lower bound {certificate.lower_bound:.15f}   gap {certificate.gap:.1e}")
print(f"closed form {closed.value:.15f}   regime {closed.regime}")
assert certificate.gap < 1e-12
assert abs(closed.value - certificate.value) < 1e-12

# %% [markdown]
# The features collapsed: NC1 (within-class variability), NC2 (distance from a simplex ETF), NC3 (self-duality).

# %%
W, H, b = solution.params.W, solution.params.H, solution.params.b
collapse = ufm.metrics.collapse(W, H, problem.labels, b)
print(f"NC1 {float(collapse.nc1):.1e}   NC2 {float(collapse.nc2):.1e}   NC3 {float(collapse.nc3):.1e}")

# %% [markdown]
# ## Train it the way a network is trained
# Any optax optimizer records its trajectory. With cross-entropy the mean bias only feels its own decay, an
# exact law; binary cross-entropy forgets where its bias started.

# %%
every, steps = 4, 400
sgd = ufm.solvers.Gradient(optax.sgd(1.0, momentum=0.9), tol=0.0, max_steps=steps, record_every=every)
for loss in (ufm.losses.CE(), ufm.losses.BCE()):
    trained = dataclasses.replace(problem, loss=loss, decay=ufm.Decay(0.005, 0.005, 1e-6))
    run = ufm.solve(trained, key=0, solver=sgd, bias_mean=4.0)
    limit = ufm.theory.minimizer(trained)
    K = trained.classes
    shift = limit.shift / K
    predicted = {
        "positive": limit.gap * (K - 1) / K + shift,
        "negative": -limit.gap / K + shift,
        "bias": limit.bias if not loss.shift_invariant else float(run.trajectory["bias"][-1]),
    }
    figure = plotting.training(run.trajectory, every, predicted, f"{loss}: SGD from mean bias 4 (dashed: theory)")
    figure.savefig(figures / f"01_training_{loss.name}.png")
    print(loss, "mean bias", float(run.trajectory["bias"][0]), "->", float(run.trajectory["bias"][-1]))

# %% [markdown]
# ## Where a published theorem stops
# For BCE the published minimizer is a *centered* simplex ETF. That holds while $\lambda_b|b| \le
# \mu=\sqrt{n\lambda_W\lambda_H}$. Beyond, all classifier rows share a common mean vector, which is cheaper than
# the bias. Sweep $\lambda_b$: points are solved and certified, lines are the closed form.

# %%
base = ufm.Problem(10, 20, 5, ufm.losses.BCE(), ufm.Decay(5e-3, 1e-3, 0.5))
decays = np.logspace(-5, 0, 16)
measured = {"positive": [], "negative": [], "bias": []}
worst = 0.0
for decay_b in decays:
    p = dataclasses.replace(base, decay=dataclasses.replace(base.decay, b=float(decay_b)))
    s = ufm.solve(p, key=1)
    worst = max(worst, ufm.theory.certify(p, s.params).gap)
    scores = ufm.metrics.scores(s.params.W, s.params.H, p.labels)
    measured["positive"].append(float(scores["positive"]["mean"]))
    measured["negative"].append(float(scores["negative"]["mean"]))
    measured["bias"].append(float(s.params.b.mean()))
print(f"worst certified gap of the {len(decays)} solves: {worst:.1e}")

grid = np.logspace(-5, 0, 200)
predicted = {"positive": [], "negative": [], "bias": []}
regimes = []
for decay_b in grid:
    m = ufm.theory.minimizer(dataclasses.replace(base, decay=dataclasses.replace(base.decay, b=float(decay_b))))
    predicted["positive"].append(m.gap * 0.9 + m.shift / 10)
    predicted["negative"].append(-m.gap * 0.1 + m.shift / 10)
    predicted["bias"].append(m.bias)
    regimes.append(m.regime)
boundary = grid[regimes.index("mean-shifted")]
figure = plotting.scores_against(
    decays,
    measured,
    predicted,
    predicted_x=grid,
    boundary=boundary,
    label="$\\lambda_b$, decay of the bias",
    title="BCE: etf to the left, mean-shifted to the right",
)
figure.savefig(figures / "01_bce_regimes.png")

# %% [markdown]
# The counterexample at $\lambda_b=1/2$, as a verdict with its evidence:

# %%
report = ufm.verify(base, paper="li2025")
print(report)

# %% [markdown]
# Your own loss is one function. Promise convexity and a lower bound of the loss, and it is certified too.

# %%
import jax.numpy as jnp


def squared_hinge(logits, label, margin=1.0):
    gap = jnp.maximum(0.0, margin - logits[label] + logits)
    return jnp.sum(jnp.where(jnp.arange(logits.size) == label, 0.0, gap**2))


promises = {"convex": True, "shift_invariant": True, "symmetric": True, "infimum": 0.0}
loss = ufm.losses.custom(squared_hinge, {"margin": 2.0}, **promises)
mine = ufm.Problem(classes=5, dim=6, per_class=4, loss=loss, decay=ufm.Decay(0.01, 0.01, 0.01))
solution = ufm.solve(mine)
print(
    solution.status_name, f"gap {ufm.theory.certify(mine, solution.params).gap:.1e}", ufm.theory.minimizer(mine).regime
)

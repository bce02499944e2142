# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # 2. What the theorems say, and where they stop
#
# A theorem here is an object: hypotheses that a problem satisfies or not, and a claim with numbers on both
# sides. The predicted side comes from the paper's formula, the measured side from a solve that knows no
# theory, and a dual certificate says whether the solve found the *global* minimum. Four verdicts are possible:
# holds, refuted, outside hypotheses, inconclusive.

# %%
import jax

jax.config.update("jax_enable_x64", True)

import tempfile
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

import ufm
from ufm import atlas, plotting

figures = Path("figures")
figures.mkdir(exist_ok=True)

for theorem in atlas.THEOREMS.values():
    print(f"{theorem.id:36} {theorem.recorded.value:8} {theorem.statement}")

# %% [markdown]
# ## One theorem, many problems
# `verify_random` draws problems inside the hypotheses, others 2 % inside their boundary, and some outside, where
# the claim should break down: hypotheses that could be dropped would show there.

# %%
trials = atlas.verify_random(40, theorem="zhu2021/3.1", quick=True)
(trial,) = trials.trials
print(trials.summary)
print(f"worst residual {trial.residual:.0e} of the tolerance, worst certified gap {trial.gap:.0e}")
print(f"outside the hypotheses: {trial.outside} problems, the claim is false on {trial.broken}")
assert trials.ok

# %% [markdown]
# ## The counterexample, from start to finish
# Li et al. 2025 (Theorem 2, as its poster states it): the global minimizers of BCE are a *centered* simplex ETF, and
# the bias solves
# $-\mathrm{logit}((K-1)\mu+\lambda_b b)+(K-1)\,\mathrm{logit}(\mu-\lambda_b b)=Kb$, $\mu=\sqrt{n\lambda_W\lambda_H}$.
#
# **1. What is claimed.** Ten classes, five samples each, a strongly decayed bias:

# %%
K, n = 10, 5
problem = ufm.Problem(K, 20, n, ufm.losses.BCE(), ufm.Decay(W=5e-3, H=1e-3, b=0.5))
mu = np.sqrt(n * 5e-3 * 1e-3)
claimed = ufm.theory.closed_forms.bce_centered(mu, K, 0.5)
claimed_minimum = np.logaddexp(0, -claimed.p) + (K - 1) * np.logaddexp(0, claimed.q)
claimed_minimum += mu * (K - 1) * claimed.gap + 0.5 * K * 0.5 * claimed.bias**2
print(f"claimed: bias {claimed.bias:.6f}, minimum {claimed_minimum:.6f}")

# %% [markdown]
# **2. What a solver finds**, from a random start, and **3. the proof** that nothing lower exists: a dual bound.

# %%
solution = ufm.solve(problem, key=0)
certificate = ufm.theory.certify(problem, solution.params)
print(f"found:   bias {float(solution.params.b.mean()):.6f}, minimum {certificate.value:.6f}")
print(f"nothing is below {certificate.lower_bound:.12f} (gap {certificate.gap:.0e})")
assert certificate.value < claimed_minimum - 1
assert certificate.gap < 1e-10

# %% [markdown]
# **4. Why.** A common shift of all logits can be carried by the bias at cost $\lambda_b K\beta^2/2$ or by a mean vector
# shared by all features and classifier rows at cost $\mu|c|$. Once $\lambda_b|\beta|>\mu$ the second is cheaper. The
# rows of $W$ do not sum to zero:

# %%
mean_row = np.asarray(solution.params.W).mean(axis=0)
print(f"decay_b |b| of the claim: {0.5 * abs(claimed.bias):.4f}, against mu = {mu:.4f}")
print(f"norm of the mean row: {np.linalg.norm(mean_row):.4f}")

# %% [markdown]
# **5. What is true instead.** Beyond that line $b=-\mu/\lambda_b$, $\sigma(q)=2\mu$ and $\sigma(-p)=(K-2)\mu$: the bias
# no longer knows the data.

# %%
W, H, b = solution.params.W, solution.params.H, solution.params.b
Z = np.asarray(W @ H + b[:, None])
true = np.arange(K)[:, None] == problem.labels[None, :]
for name, predicted, measured in (
    ("b", -mu / 0.5, float(b.mean())),
    ("sigma(q)", 2 * mu, expit(Z[~true]).mean()),
    ("sigma(-p)", (K - 2) * mu, expit(-Z[true]).mean()),
):
    print(f"{name:10} predicted {predicted:.10f}   measured {measured:.10f}")
    assert abs(predicted - measured) < 1e-9
edge = K * mu / (logit((K - 2) * mu) - (K - 1) * logit(2 * mu))
print(f"the published theorem ends at decay_b = {edge:.6f} for these decays")

# %% [markdown]
# **6. Again, from a file.** A refuted instance is saved so that anyone can check it: `ufm verify --rerun FILE`.

# %%
finding = atlas.check(atlas.THEOREMS["li2025/2"], problem)
with tempfile.TemporaryDirectory() as folder:
    path = atlas.save_counterexample(finding, Path(folder), seed=0)
    again = atlas.rerun(path, atlas.THEOREMS)
print(again.verdict, "-", again.reason)
assert again.as_recorded
assert again.verdict == "refuted"

# %% [markdown]
# ## Its twin on the spheres
# With unit rows of $W$ and unit features ($\gamma\cos$ as logits) a decayed bias does the same to BCE: the ETF is the
# minimizer iff $L|b|\le\sigma(-p)+\sigma(q)$, $L=K\lambda_b$ for a bias per class.

# %%
normalized = ufm.NormalizedProblem(ufm.Problem(4, 6, 3, ufm.losses.BCE(), ufm.Decay(b=0.5)), gamma=4.0)
evidence = atlas.Evidence(normalized)
for name in ("rediscovering/normalised", "rediscovering/normalised-corrected"):
    finding = atlas.check(atlas.THEOREMS[name], normalized, evidence)
    headline = finding.quantities[0]
    print(f"{name:36} {finding.verdict:8} claimed {headline.predicted:.6f}, found {headline.measured:.6f}")
    assert finding.verdict == atlas.THEOREMS[name].recorded
print(f"certified gap {evidence.gap:.0e}")

# %% [markdown]
# ## The map
# The same over two hyper-parameters. Regions are predicted, points are solved and certified; one on the wrong
# side of a line would be a red square.

# %%
for name in ("bce", "merging"):
    chart = atlas.diagram(name)
    points = chart.solve(9)
    plotting.phase(chart, points).savefig(figures / f"02_phase_{name}.png")
    wrong = sum(p.wrong for p in points)
    print(f"{name}: {len(points)} points, {sum(p.certified for p in points)} certified, {wrong} on the wrong side")
    assert wrong == 0

# %% [markdown]
# ## Another one that stops
# The contrastive property (Zhou et al. 2022, Def. 1) asks that $\phi(t)+c|t|$ has *one* minimizer for every $c>0$.
# Focal loss has it for few classes only: beyond $F''(\log(K-1))<0$, $F(y)=\sigma(y)^\gamma\,\mathrm{softplus}(y)$, two
# minimizers tie for some $c$ - the collapsed ETF and the origin.

# %%
from ufm.theory.contrastive import contrastive

for classes in (4, 10, 20, 30, 100):
    found = contrastive(ufm.losses.Focal(2.0), classes)
    print(classes, "one minimizer" if found.tie is None else f"two at c = {found.tie:.4f}: t = {found.tied}")

# %% [markdown]
# `ufm verify --instances 200 --report DIR` runs every theorem this way.

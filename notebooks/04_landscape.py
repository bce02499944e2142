# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # 4. Does BCE converge to collapse faster than CE, and what else is there in the landscape?
#
# The Hessian at the minimizer is known in closed form, so the local rate of every method is too.

# %%
import itertools
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ufm
from ufm.landscape import (
    Hessian,
    all_rungs,
    check_derivatives,
    find_critical_points,
    minima_not_global,
    path,
    saddle_to_saddle,
    spectral_density,
    way_down,
    what_is_known,
)
from ufm.landscape.rates import best_rates, compare
from ufm.plotting import landscape as draw
from ufm.theory import hessian_spectrum, minimizer

figures = Path("figures")
figures.mkdir(exist_ok=True)

# %% [markdown]
# ## One small problem, complete
# Exact eigenvalues with multiplicities, over counts measured by quadrature with Hessian-vector products.

# %%
problem = ufm.Problem(4, 6, 2, loss=ufm.losses.CE(), decay=ufm.Decay(1e-2, 2e-2, 5e-2))
exact = hessian_spectrum(problem)
point = jax.tree.map(jnp.asarray, minimizer(problem).params)
density = spectral_density(Hessian(problem, point).operator, probes=12)
draw.spectrum(exact, density).figure.savefig(figures / "04_spectrum.png")
print(f"index {exact.index}, kernel {exact.kernel} = rotations {exact.rotations}, condition {exact.condition:.4g}")

# %% [markdown]
# ## Every critical point that was found
# Merged classes give a ladder of saddles whose index is (K - m) d. It is not the whole list: points in between
# have classes at unequal distances, or a class that stays at the origin and lives on its bias. All are
# strict saddles, with the negative curvature that the escape direction promises.

# %%
points, rungs = find_critical_points(problem, 48), all_rungs(problem)
draw.ladder(points, rungs).figure.savefig(figures / "04_critical_points.png")
for p in points:
    print(f"f {p.value:.5f}  {p.kind:14s} index {p.index:2d}  kernel {p.kernel:2d}  equal rows {p.groups}", end="")
    print(f"  smallest {p.smallest: .4f}  promised {p.escape.promised: .4f}")
assert all(p.smallest <= p.escape.promised + 1e-9 for p in points)

# %% [markdown]
# A straight line from each saddle to the minimizer, once the two are rotated onto each other.

# %%
ax = None
for p in points[1:]:
    ax = draw.path(*path(problem, p.params, points[0].params), ax=ax, label=f"index {p.index}")
ax.legend(fontsize=7)
ax.figure.savefig(figures / "04_paths.png")

# %% [markdown]
# The plane through the saddle of two pairs, toward the minimizer and along its escape direction: down on both sides.

# %%
pairs = next(rung for rung in rungs if rung.groups == (2, 2))
ax = draw.plane(
    way_down(problem, pairs.params(), point), ("toward the minimizer", "escape direction"), "2+2", end="minimizer"
)
ax.figure.savefig(figures / "04_plane.png")

# %% [markdown]
# ## Does gradient descent walk down the ladder?
# From a random small start it does not. At the origin of a balanced problem the gradient in Z has K - 1 equal
# singular values, so all directions of collapse grow at one rate and the run leaves for the minimizer at once. A
# rung is visited when the start prefers its grouping: here the part of the start that breaks the grouping is
# 10^4 times smaller than the rest, and stays so while both grow. Thick parts of the curves are near a rung, by value
# and by the classes that share a row of Z.

# %%
small = ufm.Problem(4, 6, 2, loss=ufm.losses.CE(), decay=ufm.Decay(5e-3, 5e-3, 5e-2))
ax = None
for through, color in (((), draw.BLUE), ([(2, 2)], draw.ORANGE), ([(3, 1)], draw.GREEN)):
    run = saddle_to_saddle(small, through=through)
    name = "prefers " + "+".join(map(str, through[0])) if through else "random start"
    ax = draw.descent(run, ax, name, color)
    print(f"{name:14s}", [("+".join(map(str, g)), round(a), round(b)) for g, a, b in run.plateaus])
ax.set_xlim(0, 300)
ax.figure.savefig(figures / "04_descents.png")

# %% [markdown]
# ## Fewer dimensions than classes
# For d < K the strict-saddle theorem is silent, and the landscape is not benign. At d = K - 1 and beyond the threshold
# of the mean mode, BCE has a strict local minimum that is not global: pairs of classes sit opposite each other,
# above the ETF. That it is not global is proven, the ETF lies lower; that the ETF is global is not.

# %%
tight = ufm.Problem(4, 3, 1, loss=ufm.losses.BCE(), decay=ufm.Decay(5e-3, 1e-2, 5e-2))
print("\n".join(what_is_known(tight)))
found = find_critical_points(tight, 48)
for p in found:
    print(f"f {p.value:.6f}  {p.kind:28s} index {p.index:2d}  kernel {p.kernel}  certified gap {p.gap:.1e}")
for p in minima_not_global(found):
    print(f"not global: f = {p.value:.6f}, class scores\n{np.round(np.asarray(p.params.W @ p.params.H), 2)}")

# %% [markdown]
# ## BCE against CE
# The ratio is CE's condition number over BCE's: above one, BCE converges faster at its own best step.
# Then the slowest mode of each kind under the gradient flow, with the bias held at its optimum.

# %%
rows = []
for K, n, W, H, b in itertools.product((3, 10, 100), (1, 10, 1000), (5e-4, 5e-3), (5e-6, 5e-5, 5e-4), (5e-4, 5e-2)):
    result = compare(ufm.Problem(K, 2 * K, n, decay=ufm.Decay(W, H, b)))
    if "zero" not in {s.regime for s in result["speeds"]}:
        rows.append((K, n, result))
for K in (3, 10, 100):
    mine = [r for k, _, r in rows if k == K]
    wins = sum(r["ratio"] > 1 for r in mine)
    print(f"K={K}: BCE has the smaller condition number in {wins} of {len(mine)} settings")
    for kind in ("collapse of samples", "class geometry"):
        ratios = np.array([r["groups"][kind] for r in mine if kind in r["groups"]])
        print(f"   {kind}: BCE faster in {np.sum(ratios > 1)} of {len(ratios)}, median ratio {np.median(ratios):.2f}")

# %%
figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
for K, marker, color in ((3, "o", draw.BLUE), (10, "s", draw.ORANGE), (100, "^", draw.GREEN)):
    mine = [(n, r) for k, n, r in rows if k == K]
    ax.plot([n for n, _ in mine], [r["ratio"] for _, r in mine], marker, color=color, mfc="none", label=f"K = {K}")
ax.axhline(1, color="black", lw=1)
ax.set(xscale="log", yscale="log", xlabel="samples per class $n$", ylabel="condition number, CE over BCE")
ax.legend()
figure.savefig(figures / "04_bce_against_ce.png")

# %% [markdown]
# **Plainly.** Neither loss has the better condition number everywhere: the answer turns with K, n and the decays,
# because the slowest mode is often a bare decay or the bias. The modes of collapse itself, the samples of a
# class and the geometry of the means, are faster under BCE in every setting with K >= 10 on this grid; for
# K = 3 either loss may win.

# %% [markdown]
# ## A loss of one's own
# A gradient that autodiff cannot see is found by its Taylor slope.

# %%
broken = check_derivatives(lambda z, k: jnp.sum(jnp.exp(z) * jax.lax.stop_gradient(z)))
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
draw.derivatives(check_derivatives(ufm.losses.BCE()), axes[0])
draw.derivatives(broken, axes[1])
figure.savefig(figures / "04_derivatives.png")
print(broken.verdict, "|", {name: round(float(r.iterations), 1) for name, r in best_rates(exact).items()})

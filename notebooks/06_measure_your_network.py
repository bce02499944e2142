# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # 6. Measure your own network in five lines
#
# Run your network over its training set, keep what enters the last layer, and save it with the last layer:
#
# ```python
# features, labels = ...                    # (N, d), (N,): NumPy, JAX or PyTorch, any float type
# layer = network.fc                        # its last linear layer
# found = ufm.measure(features, labels, layer.weight, layer.bias)
# print(found.uniform, found.collapse.nc1, found.nearest["ce"].mu)
# ```
#
# or from the command line, for files larger than memory: `ufm measure features.npz --figure sheet.png`, and
# `ufm measure --compare ce.npz bce.npz` for two networks side by side.
#
# Here a softmax and a BCE classifier on top of fixed random features of handwritten digits stand in for yours.

# %%
import jax

jax.config.update("jax_enable_x64", True)

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import ufm
from ufm.plotting.measure import sheet

images, labels = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
features = np.maximum(images / 16.0 @ rng.normal(size=(64, 256)), 0.0) / 16.0


def last_layer(loss):
    """Weight and bias by L-BFGS."""

    def objective(layer):
        logits = jnp.asarray(features) @ layer["weight"].T + layer["bias"][None, :]
        return jnp.mean(jax.vmap(loss)(logits, labels)) + 1e-4 * jnp.sum(layer["weight"] ** 2)

    solver = optax.lbfgs()
    layer = {"weight": jnp.zeros((10, 256)), "bias": jnp.zeros(10)}

    def step(carry, _):
        layer, state = carry
        value, gradient = optax.value_and_grad_from_state(objective)(layer, state=state)
        update, state = solver.update(gradient, state, layer, value=value, grad=gradient, value_fn=objective)
        return (optax.apply_updates(layer, update), state), value

    (layer, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, None, 60))((layer, solver.init(layer)))
    return layer


# %% [markdown]
# The five lines:

# %%
networks = {}
for name, loss in {"CE": ufm.losses.CE(), "BCE": ufm.losses.BCE()}.items():
    layer = last_layer(loss)
    networks[name] = ufm.measure(features, labels, layer["weight"], layer["bias"])
    print(name, {key: round(value, 3) for key, value in networks[name].to_dict()["accuracy"].items()})

# %% [markdown]
# `nearest` is the unconstrained feature model that comes closest to the measured scores and bias. Random features
# cannot collapse, so the residual is large and says so.

# %%
for name, found in networks.items():
    model = found.nearest[name.lower()]
    print(
        f"{name}: NC1 {found.collapse.nc1:.2f}, nearest {model.regime}, mu {model.mu:.2e}, off by {model.residual:.0%}"
    )
    print(f"  t* {found.threshold.value:.2f}, minus the mean bias {-found.bias.mean():.2f}")

Path("figures").mkdir(exist_ok=True)
sheet(networks).savefig("figures/06_measure_your_network.png", dpi=110)

# %% [markdown]
# The same from a file, as `ufm measure` reads it:

# %%
np.savez("figures/digits.npz", features=features, labels=labels, weight=layer["weight"], bias=layer["bias"])
again = ufm.networks.measure_file("figures/digits.npz")
print(again.uniform == networks["BCE"].uniform)

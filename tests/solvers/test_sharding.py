"""One problem over four devices gives what one device gives."""

import os
import subprocess
import sys

import jax
import pytest

import ufm
from ufm.solvers import shard

PROGRAM = """
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
import ufm
from ufm.solvers import shard

assert len(jax.devices()) == 4
problem = ufm.Problem(4, 6, 8, ufm.losses.BCE(), ufm.Decay(0.02, 0.03, 0.05))
start = problem.init(jax.random.key(0))
auto = (jax.sharding.AxisType.Auto,)
meshes = [
    jax.make_mesh((4,), ("samples",), axis_types=auto),
    jax.make_mesh((2, 2), ("classes", "samples"), axis_types=auto * 2),
]
value, gradient = jax.jit(jax.value_and_grad(problem.objective))(start)
alone = ufm.solve(problem, init=start, eliminate=False)
for mesh in meshes:
    split = shard(start, mesh)
    assert len(split.H.sharding.device_set) == 4 and not split.H.is_fully_replicated
    v, g = jax.jit(jax.value_and_grad(problem.objective))(split)
    assert not g.H.is_fully_replicated
    np.testing.assert_allclose(v, value, rtol=1e-14)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-16), g, gradient)
    for eliminate in (False, True):
        found = ufm.solve(problem, init=split, eliminate=eliminate)
        assert found.status_name == "converged"
        np.testing.assert_allclose(found.value, alone.value, rtol=1e-13)
print("equal")
"""


def test_four_devices_equal_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"


def test_bad_meshes():
    params = ufm.Problem(3, 4, 5).init(jax.random.key(0))
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ufm.InputError, match=r"mesh.axis_names = \('rows',\): must be among"):
        shard(params, mesh)

"""One problem spread over devices: features by samples, and the classifier by classes.

Everything that is solved is a jitted function of the parameters, so XLA splits its products the way the
parameters are split and adds the sums over devices that they need; nothing else changes.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ufm._base import require
from ufm.problem import Params


def shard(params: Params, mesh: Mesh) -> Params:
    """``params`` laid out over ``mesh``: H (d, columns) along its axis "samples", W (K, d) and b (K,) along "classes".

    An axis that the mesh lacks is not split. Pass the result to ``ufm.solve(problem, init=...)``. Logits of
    more than 2^24 entries are taken block by block, which a split along samples would gather: keep
    ``classes * columns`` below that, or split along classes alone.

    Raises:
        InputError: for a mesh with other axes, or sizes that the devices do not divide.

    >>> import jax, ufm
    >>> mesh = jax.make_mesh((1,), ("samples",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> problem = ufm.Problem(classes=3, dim=4, per_class=5)
    >>> tuple(shard(problem.init(jax.random.key(0)), mesh).H.sharding.spec)
    (None, 'samples')
    """
    axes = dict(zip(mesh.axis_names, mesh.devices.shape, strict=True))
    known = {"samples", "classes"}
    require(set(axes) <= known, "mesh.axis_names", mesh.axis_names, 'among "samples" and "classes"')
    first, *rest = params.W if isinstance(params.W, tuple) else (params.W,)
    for axis, size, field in (("samples", params.H.shape[1], "H.shape[1]"), ("classes", first.shape[0], "classes")):
        devices = axes.get(axis, 1)
        require(size % devices == 0, field, size, f"a multiple of the {devices} devices along {axis!r}")
    samples, classes = (axis if axis in axes else None for axis in ("samples", "classes"))

    def put(x: Any, *axes: str | None) -> Any:
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    b = None if params.b is None else put(params.b, *([classes] if params.b.ndim else []))
    W = (put(first, classes, None), *(put(x, None, None) for x in rest))
    return Params(W if isinstance(params.W, tuple) else W[0], put(params.H, None, samples), b)

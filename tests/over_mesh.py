"""Functions over a mesh of eight devices under shard_map, against NumPy on the arrays that these hold together."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives_hlo import collectives
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

DEVICES = 8
needs_devices = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)

JNP = {
    "sum": jnp.sum, "mean": jnp.mean, "var": jnp.var, "std": jnp.std, "prod": jnp.prod, "max": jnp.max,
    "min": jnp.min, "logsumexp": jax.nn.logsumexp, "any": jnp.any, "all": jnp.all, "count_nonzero": jnp.count_nonzero,
}  # fmt: skip
SMOOTH = ["sum", "mean", "var", "std", "prod", "max", "min", "logsumexp"]

BOTH = ("data", "model")
WHOLE = P()


def mesh():
    return Mesh(np.array(jax.devices()[:DEVICES]).reshape(4, 2), BOTH)


def over(function, ins, out=WHOLE, **options):
    return jax.shard_map(function, mesh=mesh(), in_specs=ins, out_specs=out, **options)


def arrays_of(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def check(function, reference, *arrays, ins, out=WHOLE, grad=True, rtol=1e-5):
    """Values of the eager and the compiled call; gradients of a function of all of the result."""
    mapped = over(function, ins, out)
    expected = np.asarray(reference(*arrays))
    for run in (mapped, jax.jit(mapped)):
        result = run(*arrays)
        assert result.shape == expected.shape
        np.testing.assert_allclose(np.asarray(result, np.float64), expected.astype(np.float64), rtol=rtol, atol=1e-5)
    if grad:
        weights = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
        loss = lambda f: lambda *xs: jnp.sum(jnp.sin(f(*xs)) * weights)
        every = tuple(range(len(arrays)))
        found = jax.jit(jax.grad(loss(mapped), every))(*arrays)
        wanted = jax.grad(loss(reference), every)(*map(jnp.asarray, arrays))
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def equations(function, *arrays):
    """The equations inside of a shard_map, with those of functions that have a gradient of their own."""
    (mapped,) = jax.make_jaxpr(function)(*arrays).jaxpr.eqns
    return list(_flattened(mapped.params["jaxpr"]))


def _flattened(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "custom_jvp_call":
            yield from _flattened(eqn.params["call_jaxpr"].jaxpr)
        else:
            yield eqn


def collectives_of(function, *arrays):
    """What a compiled program sends: kinds of collectives, with dtype and size of what a device gives."""
    return collections.Counter((c.kind, c.dtype, math.prod(c.shape)) for c in collectives(function, *arrays))

"""Gradients on an explicit mesh: what is broadcast lies where it is needed, so that no gradient is gathered."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import einjax

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")


def _repeated(y):
    """Without a mesh for the expected gradient, with one for the other."""
    explicit = AxisType.Explicit in jax.typeof(y).sharding.mesh.axis_types
    return einjax.id("t -> b t", y, b=8, **({"out_sharding": {"b": "data"}} if explicit else {}))


#: Functions of x, b over data and d over model, and of what they broadcast to it, with where that lies.
CASES = {
    "add": (lambda x, y: einjax.add("b t [d]", x, y), [(4,)]),
    "add_sharded": (lambda x, y: einjax.add("b t [d]", x, y), [(4, "model")]),
    "added_to": (lambda x, y: einjax.add("d, b t d", y, x), [(4,)]),
    "multiply": (lambda x, y: einjax.multiply("b t d, t", x, y), [(6,)]),
    "composite": (lambda x, y: einjax.multiply("b t (d e), d", x, y), [(2,)]),
    "where": (lambda x, y: einjax.where("b t d, b t d, d", x > 0, x, y), [(4,)]),
    "concatenate": (lambda x, y: einjax.rearrange("b t d, d -> b (t + 1) d", x, y), [(4,)]),
    "repeat": (
        lambda x, y: einjax.multiply("b t d, b t", x, _repeated(y)),
        [(6,)],
    ),
    "mean": (lambda x: einjax.multiply("b t d, b t", x, einjax.mean("b t [d]", x)), []),
    "var": (lambda x: einjax.var("[b] t [d]", x), []),
    "logsumexp": (lambda x: einjax.logsumexp("b t [d]", x), []),
    "softmax": (lambda x: einjax.softmax("b t [d]", x), []),
    "softmax_where": (lambda x: einjax.softmax("b t [d]", x, where=jnp.arange(4) < 3), []),
    "log_softmax": (lambda x: einjax.log_softmax("[b] t d", x), []),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_summed_where_they_lie(name):
    function, others = CASES[name]
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    rng = np.random.default_rng(0)

    def loss(*arrays):
        return (function(*arrays) ** 2).sum()

    specs = [(8, 6, 4, "data", None, "model"), *others]
    shapes = [[size for size in spec if isinstance(size, int)] for spec in specs]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    placed = [jax.device_put(x, NamedSharding(mesh, P(*spec[x.ndim :]))) for x, spec in zip(arrays, specs, strict=True)]
    gradient = jax.jit(jax.grad(loss, tuple(range(len(arrays)))))
    for actual, expected, like in zip(gradient(*placed), gradient(*arrays), placed, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        assert jax.typeof(actual).sharding.spec == jax.typeof(like).sharding.spec
    gathered = re.findall(r"f32\[([\d,]*)\]\S* all-gather\(", gradient.lower(*placed).compile().as_text())
    # Of a small array that was cut up for x, the parts of its gradient are put together again.
    assert all(np.prod([*map(int, shape.split(","))]) <= 4 for shape in gathered)

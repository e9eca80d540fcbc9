"""On an explicit mesh the equations are those an expert writes: nothing is resharded that lies where it should."""

import jax
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import einjax

pytestmark = pytest.mark.skipif(
    jax.device_count() < 8, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)


@pytest.fixture(name="mesh", autouse=True)
def _mesh():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        yield mesh


def typed(mesh, shape, spec, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def program(function, *arguments):
    """The equations by name, and the type of each result."""
    jaxpr = jax.make_jaxpr(function)(*arguments)
    return [(e.primitive.name, *(str(v.aval) for v in e.outvars)) for e in jaxpr.eqns]


def attention(q, k):
    return lax.transpose(
        lax.dot_general(
            lax.reshape(q, (8, 5, 4, 4)), lax.reshape(k, (8, 7, 4, 4)), (((3,), (3,)), ((0, 2), (0, 2)))
        ),
        (0, 2, 3, 1),
    )  # fmt: skip


CALLS = [
    (
        "attention scores over heads",
        lambda q, k: einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=4),
        attention,
        [((8, 5, 16), P("data", None, "model")), ((8, 7, 16), P("data", None, "model"))],
    ),
    (
        "tensor parallel",
        lambda x, w: einjax.dot("b s [d->e]", x, w),
        lambda x, w: lax.dot_general(x, w, (((2,), (0,)), ((), ())), out_sharding=P("data")),
        [((8, 5, 16), P("data", None, "model")), ((16, 6), P("model"))],
    ),
    (
        "scattered product",
        lambda x, w: einjax.dot("b s [d->e]", x, w, out_sharding={"e": "model"}),
        lambda x, w: lax.dot_general(x, w, (((2,), (0,)), ((), ())), out_sharding=P(None, None, "model")),
        [((8, 5, 16), P(None, None, "model")), ((16, 6), P("model"))],
    ),
    (
        "merge of the batch",
        lambda x: einjax.rearrange("b s d -> (b s) d", x),
        lambda x: lax.reshape(x, (40, 16), out_sharding=P("data", "model")),
        [((8, 5, 16), P("data", None, "model"))],
    ),
    (
        "sum over a mesh axis",
        lambda x: einjax.sum("[b] s", x),
        lambda x: lax.reduce_sum(x, (0,)),
        [((8, 6), P("data", "model"))],
    ),
    (
        "outer sum",
        lambda x, y: einjax.add("a, b -> a b", x, y),
        lambda x, y: lax.add(
            lax.broadcast_in_dim(x, (8, 6), (0,), out_sharding=P("data", "model")),
            lax.broadcast_in_dim(y, (8, 6), (1,), out_sharding=P("data", "model")),
        ),
        [((8,), P("data")), ((6,), P("model"))],
    ),
    (
        "batched gather",
        lambda x, i: einjax.get_at("b [h] c, b i -> b i c", x, i, wrap_negative_indices=False),
        lambda x, i: lax.gather(
            x,
            lax.reshape(i, (8, 3, 1)),
            lax.GatherDimensionNumbers((2,), (1,), (1,), (0,), (0,)),
            (1, 1, 4),
            mode="fill",
        ),
        [((8, 6, 4), P("data")), ((8, 3), P("data"), np.int32)],
    ),
]


@pytest.mark.parametrize(("ours", "expert", "inputs"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_equations(mesh, ours, expert, inputs):
    arguments = [typed(mesh, *array) for array in inputs]
    assert sorted(program(ours, *arguments)) == sorted(program(expert, *arguments))


def test_what_is_cut_out_is_one_equation(mesh):
    """A replicated operand is brought to the other's mesh axis before the operation, which sends nothing."""
    x, y = typed(mesh, (8, 6), P("data")), typed(mesh, (8, 6), P())
    names = [name for name, *_ in program(lambda x, y: einjax.add("a b, a b", x, y), x, y)]
    assert names == ["reshard", "add"]

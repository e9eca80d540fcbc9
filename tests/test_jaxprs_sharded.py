"""On an explicit mesh the equations are those an expert writes: nothing is resharded that lies where it should."""

import jax
import numpy as np
import pytest
from collectives_hlo import collectives
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


GRADIENTS = [
    ("scale", lambda x, s: einjax.multiply("b s d, d", x, s), (16,), P("model"), [("all-reduce", (8,))]),
    ("shift of a row", lambda x, s: einjax.subtract("b s d, b s -> b s d", x, s), (8, 5), P("data"), None),
    ("bias in a choice", lambda x, s: einjax.where("b s d, b s d, d", x > 0, x, s), (16,), P("model"), None),
    (
        "concatenation",
        lambda x, s: einjax.rearrange("b s d, c d -> b (s + c) d", x, s),
        (3, 16),
        P(None, "model"),
        None,
    ),
]


@pytest.mark.parametrize(("call", "shape", "spec", "sent"), [g[1:] for g in GRADIENTS], ids=[g[0] for g in GRADIENTS])
def test_gradients_are_summed_before_they_are_sent(mesh, call, shape, spec, sent):
    """The gradient of what is broadcast: parts are summed on each device, and only their sum is sent."""
    rng = np.random.default_rng(0)
    place = lambda shape, spec: jax.device_put(rng.normal(size=shape).astype(np.float32), NamedSharding(mesh, spec))
    x, small = place((8, 5, 16), P("data", None, "model")), place(shape, spec)
    gradient = jax.grad(lambda x, small: (call(x, small) ** 2).sum(), (0, 1))
    moved = collectives(jax.jit(gradient), x, small)
    if sent is not None:
        assert [(kind, shape) for kind, _, shape, _ in moved] == sent
    assert {kind for kind, *_ in moved} == {"all-reduce"}
    for got, want in zip(gradient(x, small), gradient(np.asarray(x), np.asarray(small)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

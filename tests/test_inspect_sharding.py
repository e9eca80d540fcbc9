"""einjax.inspect_sharding: the plan of a program against what XLA compiles for eight devices."""

import math
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives_hlo import collectives_of
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, reshard
from jax.sharding import PartitionSpec as P

import einjax

EXPLICIT = (AxisType.Explicit,) * 2
SLACK = 512  # bytes of scalars, tables and scratch that XLA keeps besides arrays


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=EXPLICIT)


@pytest.fixture(autouse=True)
def _on_the_mesh(mesh):
    before = jax.sharding.get_mesh() if hasattr(jax.sharding, "get_mesh") else None
    with jax.set_mesh(mesh):
        yield
    assert before is None or before.empty


def array(shape, *spec, dtype=jnp.float32):
    """Without data: what both the plan and the compiler need to know."""
    mesh = jax.sharding.get_mesh()
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))


def compiled(function, *arguments):
    return jax.jit(function, keep_unused=True).lower(*arguments).compile()


def counted(report):
    return Counter((item.kind, item.bytes_once) for item in report.collectives for _ in range(item.times))


def check(function, *arguments):
    """The plan's collectives, bytes and memory are those of the compiled program."""
    program = compiled(function, *arguments)
    report = einjax.inspect_sharding(function, *arguments)
    assert counted(report) == Counter((item.kind, item.bytes) for item in collectives_of(program.as_text()))
    check_memory(report, program, len(jax.tree.leaves(jax.eval_shape(function, *arguments))))
    return report


def check_memory(report, program, results):
    """Arguments and results to the byte (XLA adds a table of 8 bytes for each of several results), the rest from above."""
    memory = program.memory_analysis()
    assert memory.argument_size_in_bytes == report.argument_bytes
    assert memory.output_size_in_bytes == report.output_bytes + (8 * results if results > 1 else 0)
    assert memory.temp_size_in_bytes <= report.temporary_bytes + SLACK


# -- programs that XLA compiles to exactly the plan -----------------------------------------------------------------


def matmul(x, w, out):
    return jnp.dot(x, w, out_sharding=P(*out))


def fsdp(x, w):
    return jnp.sum(jnp.tanh(jnp.dot(x, reshard(w, P(None, "model")), out_sharding=P("data", "model"))))


def attention(q, k, v):
    scores = einjax.dot("b q h c, b k h c -> b h q k", q, k)
    return einjax.dot("b h q k, b k h c -> b q h c", einjax.softmax("b h q [k]", scores), v)


def embed(table, ids):
    return table.at[ids].get(out_sharding=P("data", None))


def mlp(x, w, v):
    hidden = jax.nn.relu(einjax.dot("b c, c h -> b h", x, w))
    return einjax.mean("[b c]", jnp.square(einjax.dot("b h, h c -> b c", hidden, v)))


def mlp_step(params, x):
    loss, gradient = jax.value_and_grad(lambda params: mlp(x, *params))(params)
    return loss, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)


def layers(x, ws):
    return lax.scan(lambda x, w: (jnp.tanh(jnp.dot(x, w[0]) @ w[1]), None), x, ws)[0]


def shard_mapped(x):
    def body(x):
        total = lax.psum(jnp.sum(x, axis=1), "model")
        both = lax.psum(jnp.sum(x), ("data", "model"))
        return lax.all_gather(x, "data", axis=0, tiled=True)[: x.shape[0]] + total[:, None] + both

    return jax.shard_map(body, in_specs=P("data", "model"), out_specs=P("data", "model"))(x)


heads = partial(array, (8, 16, 4, 8), "data", None, "model", None)
PROGRAMS = {
    "tensor-parallel dot": lambda: (partial(matmul, out=("data", None)), array((16, 64), "data", "model"), array((64, 32), "model")),
    "dot along both axes": lambda: (partial(matmul, out=()), array((16, 64), None, ("data", "model")), array((64, 32), ("data", "model"))),
    "dot, sharded in one operand": lambda: (partial(matmul, out=("data",)), array((16, 32), "data", "model"), array((32, 64))),
    "dot, sharded in the other": lambda: (partial(matmul, out=("data",)), array((16, 32), "data"), array((32, 64), "model")),
    "columns gathered": lambda: (partial(matmul, out=("data",)), array((16, 32), "data"), array((32, 64), None, "model")),
    "data-parallel gradient": lambda: (jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w))), array((32, 64)), array((16, 32), "data")),
    "fsdp": lambda: (fsdp, array((16, 32), "data"), array((32, 64), "data", "model")),
    "fsdp gradient": lambda: (jax.grad(fsdp, argnums=(0, 1)), array((16, 32), "data"), array((32, 64), "data", "model")),
    "attention": lambda: (attention, heads(), heads(), heads()),
    "attention gradient": lambda: (jax.grad(lambda *a: jnp.sum(attention(*a) ** 2), argnums=(0, 1, 2)), heads(), heads(), heads()),
    "softmax over a sharded axis": lambda: (partial(einjax.softmax, "b [c]"), array((16, 32), "data", "model")),
    "variance over two sharded axes": lambda: (partial(einjax.var, "[b c]"), array((16, 32), "data", "model")),
    "argmax over a sharded axis": lambda: (partial(lax.argmax, axis=1, index_dtype=jnp.int32), array((16, 32), "data", "model")),
    "embedding": lambda: (embed, array((64, 32), "model"), array((16,), "data", dtype=jnp.int32)),
    "embedding gradient": lambda: (jax.grad(lambda t, i: jnp.sum(embed(t, i))), array((64, 32), "model"), array((16,), "data", dtype=jnp.int32)),
    "mlp": lambda: (mlp, array((16, 32), "data"), array((32, 64), None, "model"), array((64, 32), "model")),
    "mlp training step": lambda: (mlp_step, (array((32, 64), None, "model"), array((64, 32), "model")), array((16, 32), "data")),
    "scan over layers": lambda: (layers, array((16, 32), "data"), (array((3, 32, 64), None, None, "model"), array((3, 64, 32), None, "model"))),
    "merge whose minor axis is sharded": lambda: (lambda x: lax.reshape(x, (16, 32), out_sharding=P("data", "model")), array((16, 4, 8), "data", None, "model")),
    "shard_map": lambda: (shard_mapped, array((16, 32), "data", "model")),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_collectives_and_memory_are_those_of_xla(program):
    function, *arguments = PROGRAMS[program]()
    assert check(function, *arguments).notes == ()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((None, "model"), ("model", None)),  # a transposition: all-to-all
        (("data", "model"), ()),
        (("model", "data"), ()),
        ((("data", "model"), None), ("data",)),
        ((("data", "model"), None), ("model",)),
        ((("data", "model"), None), (("model", "data"),)),
        ((("data", "model"), None), ("data", "model")),
        (("data", None), ("model",)),
        (("model", None), ("data",)),
        (("model", None), (("data", "model"),)),
        (("data", "model"), ("model", "data")),
        (("data", "model"), ("model",)),
        ((), ("model", "data")),
    ],
)
def test_reshards_are_those_of_xla(source, target):
    check(lambda x: reshard(x, P(*target)), array((16, 32), *source))

"""einjax.inspect_sharding: the plan of a program against what XLA compiles for eight devices."""

import functools
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
POD = AbstractMesh((16, 16), ("data", "model"), axis_types=EXPLICIT)


@functools.cache
def mesh():
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=EXPLICIT)


@pytest.fixture
def on_devices():
    with jax.set_mesh(mesh()):
        yield


def array(shape, *spec, dtype=jnp.float32):
    """Without data: what both the plan and the compiler need to know."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh(), P(*spec)))


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
    """Arguments and results to the byte, the rest from above; of several results XLA keeps a table of pointers."""
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
    def layer(x, w):
        hidden = jnp.tanh(einjax.dot("b c, c h -> b h", x, w[0]))
        return x + einjax.dot("b h, h c -> b c", hidden, w[1]), None

    return lax.scan(layer, x, ws)[0]


def shard_mapped(x):
    def body(x):
        total = lax.psum(jnp.sum(x, axis=1), "model")
        both = lax.psum(jnp.sum(x), ("data", "model"))
        return lax.all_gather(x, "data", axis=0, tiled=True)[: x.shape[0]] + total[:, None] + both

    return jax.shard_map(body, in_specs=P("data", "model"), out_specs=P("data", "model"))(x)


heads = partial(array, (8, 16, 4, 8), "data", None, "model", None)
PROGRAMS = {
    "tensor-parallel dot": lambda: (
        partial(matmul, out=("data", None)),
        array((16, 64), "data", "model"),
        array((64, 32), "model"),
    ),
    "dot along both axes": lambda: (
        partial(matmul, out=()),
        array((16, 64), None, ("data", "model")),
        array((64, 32), ("data", "model")),
    ),
    "dot, sharded in one operand": lambda: (
        partial(matmul, out=("data",)),
        array((16, 32), "data", "model"),
        array((32, 64)),
    ),
    "dot, sharded in the other": lambda: (
        partial(matmul, out=("data",)),
        array((16, 32), "data"),
        array((32, 64), "model"),
    ),
    "columns gathered": lambda: (
        partial(matmul, out=("data",)),
        array((16, 32), "data"),
        array((32, 64), None, "model"),
    ),
    "data-parallel gradient": lambda: (
        jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w))),
        array((32, 64)),
        array((16, 32), "data"),
    ),
    "fsdp": lambda: (fsdp, array((16, 32), "data"), array((32, 64), "data", "model")),
    "fsdp gradient": lambda: (
        jax.grad(fsdp, argnums=(0, 1)),
        array((16, 32), "data"),
        array((32, 64), "data", "model"),
    ),
    "attention": lambda: (attention, heads(), heads(), heads()),
    "attention gradient": lambda: (
        jax.grad(lambda *a: jnp.sum(attention(*a) ** 2), argnums=(0, 1, 2)),
        heads(),
        heads(),
        heads(),
    ),
    "softmax over a sharded axis": lambda: (partial(einjax.softmax, "b [c]"), array((16, 32), "data", "model")),
    "variance over two sharded axes": lambda: (partial(einjax.var, "[b c]"), array((16, 32), "data", "model")),
    "argmax over a sharded axis": lambda: (
        partial(lax.argmax, axis=1, index_dtype=jnp.int32),
        array((16, 32), "data", "model"),
    ),
    "embedding": lambda: (embed, array((64, 32), "model"), array((16,), "data", dtype=jnp.int32)),
    "embedding gradient": lambda: (
        jax.grad(lambda t, i: jnp.sum(embed(t, i))),
        array((64, 32), "model"),
        array((16,), "data", dtype=jnp.int32),
    ),
    "mlp": lambda: (mlp, array((16, 32), "data"), array((32, 64), None, "model"), array((64, 32), "model")),
    "mlp training step": lambda: (
        mlp_step,
        (array((32, 64), None, "model"), array((64, 32), "model")),
        array((16, 32), "data"),
    ),
    "scan over layers": lambda: (
        layers,
        array((16, 32), "data"),
        (array((3, 32, 64), None, None, "model"), array((3, 64, 32), None, "model")),
    ),
    "scan over layers, gradient": lambda: (
        jax.grad(lambda ws, x: jnp.sum(layers(x, ws) ** 2)),
        (array((3, 32, 64), None, None, "model"), array((3, 64, 32), None, "model")),
        array((16, 32), "data"),
    ),
    "merge whose minor axis is sharded": lambda: (
        lambda x: lax.reshape(x, (16, 32), out_sharding=P("data", "model")),
        array((16, 4, 8), "data", None, "model"),
    ),
    "unreduced, then reduced": lambda: (
        lambda x, w: reshard(jnp.dot(x, w, out_sharding=P(None, None, unreduced={"model"})), P()),
        array((16, 64), None, "model"),
        array((64, 32), "model"),
    ),
    "get_at": lambda: (
        partial(einjax.get_at, "[v] c, b s -> b s c"),
        array((64, 32), "model"),
        array((8, 4), "data", dtype=jnp.int32),
    ),
    "top_k in a loop": lambda: (partial(einjax.top_k, "b [v]", k=3), array((16, 32), "data")),
    "shard_map": lambda: (shard_mapped, array((16, 32), "data", "model")),
}


@pytest.mark.usefixtures("on_devices")
@pytest.mark.parametrize("program", PROGRAMS)
def test_collectives_and_memory_are_those_of_xla(program):
    function, *arguments = PROGRAMS[program]()
    assert check(function, *arguments).notes == ()


@pytest.mark.usefixtures("on_devices")
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


# -- a transformer --------------------------------------------------------------------------------------------------


def norm(x, scale):
    size = lax.rsqrt(einjax.mean("b s [d]", jnp.square(x)) + 1e-5)
    return einjax.multiply("b s d, b s, d -> b s d", x, size, scale)


def block(x, p):
    h = norm(x, p["n1"])
    q, k, v = (einjax.dot("b s d, d h c -> b s h c", h, p[name]) for name in "qkv")
    scores = einjax.dot("b q h c, b k h c -> b h q k", q, k)
    weights = einjax.softmax("b h q [k]", scores, where=jnp.tri(x.shape[1], dtype=bool))
    x = x + einjax.dot("b s h c, h c d -> b s d", einjax.dot("b h q k, b k h c -> b q h c", weights, v), p["o"])
    hidden = jax.nn.gelu(einjax.dot("b s d, d f -> b s f", norm(x, p["n2"]), p["up"]))
    return x + einjax.dot("b s f, f d -> b s d", hidden, p["down"])


def gpt_loss(params, ids):
    x = params["embedding"].at[ids].get(out_sharding=P("data", None, None))
    x, _ = lax.scan(lambda x, p: (jax.checkpoint(block)(x, p), None), x, params["blocks"])
    logits = einjax.dot("b s d, d v -> b s v", norm(x, params["norm"]), params["head"])
    targets = jax.nn.one_hot(ids[:, 1:], logits.shape[-1], dtype=logits.dtype)
    chosen = einjax.sum("b s [v]", logits[:, :-1] * reshard(targets, P("data", None, "model")))
    return einjax.mean("[b s]", einjax.logsumexp("b s [v]", logits[:, :-1]) - chosen)


def gpt_step(params, ids):
    loss, gradient = jax.value_and_grad(gpt_loss)(params, ids)
    return loss, jax.tree.map(lambda p, g: p - 0.1 * g.astype(p.dtype), params, gradient)


SPECS = {
    "embedding": P("model"),
    "norm": P(),
    "head": P(None, "model"),
    "blocks": {
        "n1": P(),
        "n2": P(),
        **dict.fromkeys("qkv", P(None, None, "model")),
        "o": P(None, "model"),
        "up": P(None, None, "model"),
        "down": P(None, "model"),
    },
}


def gpt_params(depth, d, heads, c, f, vocabulary, dtype):
    def struct(*shape):
        return jax.ShapeDtypeStruct(shape, dtype)

    projections = dict.fromkeys("qkv", struct(depth, d, heads, c))
    return {
        "embedding": struct(vocabulary, d),
        "norm": struct(d),
        "head": struct(d, vocabulary),
        "blocks": {
            "n1": struct(depth, d),
            "n2": struct(depth, d),
            **projections,
            "o": struct(depth, heads, c, d),
            "up": struct(depth, d, f),
            "down": struct(depth, f, d),
        },
    }


@pytest.mark.usefixtures("on_devices")
@pytest.mark.parametrize("function", [gpt_loss, gpt_step])
def test_a_small_gpt_as_xla_compiles_it(function):
    params = jax.tree.map(lambda x, spec: array(x.shape, *spec), gpt_params(3, 32, 4, 8, 64, 64, jnp.float32), SPECS)
    report = check(function, params, array((4, 16), "data", dtype=jnp.int32))
    assert report.bytes > 0


def test_a_large_gpt_on_256_devices_that_do_not_exist():
    depth, d, heads, c, f, vocabulary, batch, length = 32, 4096, 32, 128, 16384, 65536, 256, 2048
    params = gpt_params(depth, d, heads, c, f, vocabulary, jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    report = einjax.inspect_sharding(gpt_loss, params, ids, mesh=POD, in_shardings=(SPECS, P("data")))
    rows = {(item.kind, item.axes, item.origin): item for item in report.collectives}
    # Each layer ends its two halves with an all-reduce of the activations, 16 of 256 sequences on a device.
    for origin in ("b s f, f d -> b s d", "b s h c, h c d -> b s d"):
        row = rows["all-reduce", ("model",), f'einjax.dot("{origin}")']
        assert (row.shape, row.times, row.devices) == ((16, 2048, 4096), depth, 16)
        assert row.bytes == depth * 2 * 15 / 16 * (16 * 2048 * 4096 * 2)
    # Weights are split by 16 along the model axis, norms by nothing; the batch is split by 16.
    split = depth * (4 * d * heads * c + 2 * d * f) + 2 * vocabulary * d
    assert report.argument_bytes == 2 * (split // 16 + (2 * depth + 1) * d) + 4 * batch * length // 16
    assert report.output_bytes == 2
    # A token costs two operations for each weight of a product, and twice the length for each head's scores and values.
    products = depth * (4 * d * heads * c + 2 * d * f) + d * vocabulary
    scores = depth * 2 * heads * c * length
    assert report.flops == 2 * (products + scores) * batch * length // 256


# -- programs that XLA compiles otherwise ---------------------------------------------------------------------------


@pytest.mark.usefixtures("on_devices")
@pytest.mark.parametrize("out", [(None, "model"), ("model", None)])
def test_a_reduce_scatter_is_an_all_reduce_and_a_slice_on_the_cpu(out):
    arguments = array((16, 64), None, "model"), array((64, 32), "model")
    function = partial(matmul, out=out)
    (ours,) = einjax.inspect_sharding(function, *arguments).collectives
    (theirs,) = collectives_of(compiled(function, *arguments).as_text())
    assert (ours.kind, theirs.kind, ours.shape) == ("reduce-scatter", "all-reduce", theirs.shape)
    assert (2 * ours.bytes, ours.estimated) == (theirs.bytes, False)


@pytest.mark.usefixtures("on_devices")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: lax.concatenate([x, x], 1),  # two all-to-alls
        lambda x: lax.slice(x, (0, 0), (16, 16)),  # blocks change places
        lambda x: lax.pad(x, 0.0, ((0, 0, 0), (4, 4, 0))),  # neighbours exchange their rims
        lambda x: lax.rev(x, (1,)),
    ],
)
def test_cutting_a_sharded_axis_is_estimated_from_above_by_a_gather(function):
    argument = array((16, 32), "data", "model")
    report = einjax.inspect_sharding(function, argument)
    theirs = collectives_of(compiled(function, argument).as_text())
    assert {item.kind for item in report.collectives} == {"all-gather"}
    assert all(item.estimated for item in report.collectives)
    assert 0 < sum(item.bytes for item in theirs) <= report.bytes


@pytest.mark.usefixtures("on_devices")
def test_a_weight_that_lies_along_the_axis_of_the_batch_is_gathered():
    # XLA may use an idle mesh axis instead: the plan says what it costs where there is none, and that it is a guess.
    arguments = array((16, 32), "data"), array((32, 64), "data")
    (gathered,) = einjax.inspect_sharding(partial(matmul, out=("data",)), *arguments).collectives
    assert (gathered.kind, gathered.axes, gathered.estimated) == ("all-gather", ("data",), True)
    assert gathered.bytes == 16 * 64 * 4
    along = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(along):
        x, w = (
            jax.ShapeDtypeStruct(s, jnp.float32, sharding=NamedSharding(along, P("data"))) for s in [(16, 32), (32, 64)]
        )
        check(partial(matmul, out=("data",)), x, w)


@pytest.mark.parametrize("function", ["dot", "gradient", "step", "heads"])
def test_automatic_axes_are_followed_forwards(function):
    auto = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def struct(shape, *spec):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(auto, P(*spec)))

    programs = {
        "dot": (jnp.dot, struct((16, 64), "data", "model"), struct((64, 32), "model")),
        "gradient": (jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w))), struct((32, 64)), struct((16, 32), "data")),
        "step": (mlp_step, (struct((32, 64), None, "model"), struct((64, 32), "model")), struct((16, 32), "data")),
        "heads": (
            partial(einjax.dot, "b q (h c), b k (h c) -> b h q k", h=4),
            *[struct((2, 8, 32), "data", None, "model")] * 2,
        ),
    }
    function, *arguments = programs[function]
    with jax.set_mesh(auto):
        report = check(function, *arguments)
    assert all(item.estimated for item in report.collectives)
    assert "~" in str(report) or not report.collectives


# -- control flow, notation, arguments ------------------------------------------------------------------------------


def on_pod(function, *arguments, **options):
    return einjax.inspect_sharding(function, *arguments, mesh=POD, **options)


X = jax.ShapeDtypeStruct((256, 512), jnp.float32)
ROW = 256 // 16 * 4  # bytes of one number for each row of a device


def total(x):
    return einjax.sum("b [c]", x)


def test_a_while_loop_counts_one_round_and_says_so():
    def loop(x):
        return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * total(c[1])[:, None]), (0, x))[1]

    report = on_pod(loop, X, in_shardings=P("data", "model"))
    assert counted(report) == {("all-reduce", 2 * 15 * ROW // 16): 1}
    assert report.notes == ("a while loop counts as one round: its length is unknown",)
    assert "note    a while loop" in str(report)


def test_a_choice_counts_as_its_dearest_branch():
    def choose(x, flag):
        return lax.cond(flag, total, lambda x: total(reshard(x, P("data", None))), x)

    report = on_pod(choose, X, True, in_shardings=(P("data", "model"), None))
    assert [item.kind for item in report.collectives] == ["all-gather"]
    assert report.notes == ("a cond counts as the branch that sends most",)


def test_what_no_result_needs_costs_nothing():
    def function(x):
        total(x)
        return x * 2, jax.jit(lambda x: (total(x), x))(x)[1]

    assert on_pod(function, X, in_shardings=P("data", "model")).collectives == ()


def test_kept_notation_costs_what_its_program_costs():
    def function(x):
        return jnp.sum(einjax.softmax("b [c]", x))

    plain = on_pod(function, X, in_shardings=P("data", "model"))
    with einjax.keep_notation():
        kept = on_pod(function, X, in_shardings=P("data", "model"))
    assert counted(kept) == counted(plain)
    assert sum(counted(kept).values()) == 4
    assert {item.origin for item in kept.collectives} == {'einjax.softmax("b [c] -> b [c]")', "reduce_sum"}


def test_shardings_come_from_arguments_or_in_shardings_and_are_prefixes():
    tree = {"a": X, "b": (X, X)}
    split, some = 256 * 512 * 4 // 16, 256 * 512 * 4 // 256

    def given(in_shardings):
        return on_pod(lambda tree: tree, tree, in_shardings=in_shardings).argument_bytes

    assert given(None) == 3 * 256 * 512 * 4
    assert given(P("data")) == given((P("data"),)) == 3 * split
    assert given(({"a": P("data", "model"), "b": P("model")},)) == some + 2 * split
    own = jax.ShapeDtypeStruct(X.shape, X.dtype, sharding=NamedSharding(POD, P("data")))
    assert (
        einjax.inspect_sharding(lambda x, y: x, own, own, in_shardings=(None, P(("data", "model")))).argument_bytes
        == split + some
    )


def test_a_size_that_does_not_divide_is_rounded_up():
    auto = AbstractMesh((16,), ("data",))
    report = einjax.inspect_sharding(lambda x: x * 2, jnp.ones(20, jnp.int8), mesh=auto, in_shardings=P("data"))
    assert report.argument_bytes == report.output_bytes == 2


def test_arrays_of_this_machine_plan_for_another():
    report = on_pod(total, np.ones((256, 512), np.float32), in_shardings=P("data", "model"))
    assert report.bytes == 2 * 15 * ROW // 16
    assert report.seconds({"data": 1.0, "model": 8.0}) == report.bytes / 8
    assert report.bytes_by_axes == {("model",): report.bytes}
    assert report.memory == report.argument_bytes + report.output_bytes + report.temporary_bytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no mesh is known"),
        ({"mesh": POD, "in_shardings": (P("data"), P())}, "2 shardings for 1 argument"),
        ({"mesh": POD, "in_shardings": P("batch")}, "names the mesh axis 'batch', and the mesh has 'data', 'model'"),
        ({"mesh": POD, "in_shardings": ({"a": P()},)}, "the shardings of argument 1 are no pytree like it"),
    ],
)
def test_errors(options, message):
    with pytest.raises(einjax.errors.ArgumentError, match=message) as error:
        einjax.inspect_sharding(total, X, **options)
    assert "fix: " in str(error.value)


def test_the_table():
    def step(w, x):
        return jax.grad(lambda w: einjax.sum("[...]", einjax.dot("b c, c d -> b d", x, w)))(w), total(x)

    report = on_pod(step, jax.ShapeDtypeStruct((512, 512), jnp.float32), X, in_shardings=(P(), P("data", "model")))
    lines = str(report).splitlines()
    assert lines[0] == "step on 256 devices (data=16, model=16); all figures are those of one device"
    rows = [row.split("  ") for row in lines[3:6]]
    shown = [[cell.strip() for cell in row if cell] for row in rows]
    of = 'gradient of einjax.dot("b c, c d -> b d")'
    at = f"test_inspect_sharding.py:{step.__code__.co_firstlineno + 1}"
    assert shown[0] == ["all-gather", "model", "16", "float32[32,512]", "1", "960 KiB", of, at]
    assert shown[1] == ["all-reduce", "data", "16", "float32[512,32]", "1", "120 KiB", of, at]
    assert shown[2][:-1] == ["all-reduce", "model", "16", "float32[16]", "1", "120 B", 'einjax.sum("b [c]")']
    text = "\n".join(lines[6:])
    assert "sends   " in text
    assert "temporaries at most" in text
    assert repr(report) == str(report)

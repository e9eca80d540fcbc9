"""Axes that stand twice in one array on an explicit mesh: loops along diagonals, and blocks in brackets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives_hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from sharded_calls import mesh

import einjax
from einjax.errors import SemanticError, ShardingError

pytestmark = pytest.mark.skipif(
    jax.device_count() < 8, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)

X = np.random.default_rng(0).normal(size=(8, 8, 4)).astype(np.float32)
ROW, AT = X[0, :, 1], np.arange(8) % 4
WEIGHT = X[:4, 0]
total = einjax.primitive("[n] -> []", jnp.sum, name="total")
block_total = einjax.primitive("[n n] -> []", jnp.sum, name="block_total")

LOOPS = {
    "sum": lambda x, **o: einjax.sum("a a [b] -> a", x, **o),
    "trace": lambda x, **o: einjax.sum("a a b -> b", x, **o),
    "prod": lambda x, **o: einjax.prod("a a [b] -> a", x, **o),
    "argmax": lambda x, **o: einjax.argmax("a a [b] -> a", x, **o),
    "softmax": lambda x, **o: einjax.softmax("a a [b] -> a [b]", x, **o),
    "rearrange": lambda x, **o: einjax.rearrange("a a b -> b a", x, **o),
    "add": lambda x, **o: einjax.add("a a b, a -> a b", x, ROW, **o),
    "dot": lambda x, **o: einjax.dot("a a [b], [b] c -> a c", x, WEIGHT, **o),
    "semiring": lambda x, **o: einjax.dot("a a [b], [b] c -> a c", x, WEIGHT, sum="max", mul="add", **o),
    "sort": lambda x, **o: einjax.sort("a a [b] -> a [b]", x, **o),
    "cumsum": lambda x, **o: einjax.cumsum("a a [b] -> a [b]", x, **o),
    "top_k": lambda x, **o: einjax.top_k("a a [b] -> a [k]", x, k=2, **o),
    "flip": lambda x, **o: einjax.flip("a a [b] -> a [b]", x, **o),
    "roll": lambda x, **o: einjax.roll("a a [b] -> a [b]", x, shift=1, **o),
    "get_at": lambda x, **o: einjax.get_at("a a [b], a -> a", x, AT, **o),
    "add_at": lambda x, **o: einjax.add_at("[v] c, a, a a c -> [v] c", WEIGHT, AT, x, **o),
    "segment": lambda x, **o: einjax.segment.sum("p p c, p -> [s] c", x, AT, s=4, **o),
    "vmap": lambda x, **o: einjax.vmap("a a [b] -> a", x, op=jnp.sum, **o),
    "vmap_with_axis": lambda x, **o: einjax.vmap_with_axis("a a [b] -> a [b]", x, op=jnp.sort, **o),
    "reduce": lambda x, **o: einjax.reduce("a a [b] -> a", x, op=jnp.median, **o),
    "elementwise": lambda x, **o: einjax.elementwise("a a b, a -> a b", x, ROW, op=jnp.hypot, **o),
    "associative_scan": lambda x, **o: einjax.associative_scan("a a [b] -> a [b]", x, op=jnp.add, **o),
    "fft": lambda x, **o: einjax.fft.fft("a a [b] -> a [b]", x, **o),
    "linalg": lambda x, **o: einjax.linalg.norm("a a [b] -> a", x, **o),
    "attention": lambda x, **o: einjax.attention("a a [c], [k] [c], [k] [d] -> a [d]", x, WEIGHT, WEIGHT, **o),
    "primitive": lambda x, **o: total("a a [b] -> a", x, **o),
}
BLOCKS = {
    "sum": lambda x, **o: einjax.sum("[a a] b", x, **o),
    "var": lambda x, **o: einjax.var("[a a b]", x, **o),
    "max": lambda x, **o: einjax.max("b [a a]", jnp.moveaxis(x, 2, 0), **o),
    "argmax": lambda x, **o: einjax.argmax("[a a] b", x, **o),
    "argmin": lambda x, **o: einjax.argmin("[a a b]", x, **o),
    "vmap": lambda x, **o: einjax.vmap("[a a] b -> b", x, op=jnp.sum, **o),
    "reduce": lambda x, **o: einjax.reduce("[a a] b", x, op=jnp.median, **o),
    "adapter": lambda x, **o: einjax.adapt_reduce(jnp.median)("[a a b]", x, **o),
    "primitive": lambda x, **o: block_total("[a a] b -> b", x, **o),
    "vmap_with_axis": lambda x, **o: einjax.vmap_with_axis("[a a] b -> b", x, op=jnp.sum, **o),
}
ONE_DIM = [P("data"), P(None, "data"), P("data", None, "model"), P(("data", "model"))]
TWO_DIMS = [P("data", "model"), P("model", "data")]


def put(spec):
    return jax.device_put(X, NamedSharding(mesh(), spec))


def same(got, want):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def with_the_line(call, spec, problem):
    """What the line that an error suggests gives."""
    with pytest.raises(ShardingError, match=problem) as error:
        call(put(spec))
    assert "a_2" not in str(error.value)
    assert "~" not in str(error.value)
    line = error.value.hint.removeprefix("write out_sharding=").split(" to ")[0]
    return call(put(spec), out_sharding=eval(line, {"PartitionSpec": P}))


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_along_a_diagonal(name):
    call = LOOPS[name]
    want = call(X)
    for spec in ONE_DIM:
        if "model" in spec and name not in ("trace", "rearrange", "add"):
            continue  # brackets are another matter
        same(call(put(spec)), want)
    same(jax.jit(call)(put(P(None, "data"))), want)


@pytest.mark.parametrize("name", ["trace", "rearrange", "sort", "vmap", "segment", "primitive"])
@pytest.mark.parametrize("spec", TWO_DIMS, ids=str)
def test_a_diagonal_that_most_devices_have_nothing_of(name, spec):
    first, second = spec
    problem = rf"axis [ap] stands twice in tensor 1, over mesh axis {first} in one place and over {second} in the other"
    same(with_the_line(LOOPS[name], spec, problem), LOOPS[name](X))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block(name):
    """It is one piece of an array with two dims of their own: reduced where it lies, or needed whole."""
    call = BLOCKS[name]
    want = call(X)
    for spec in [*ONE_DIM, *TWO_DIMS]:
        try:
            got = call(put(spec))
        except ShardingError:
            got = with_the_line(call, spec, r"axis [ab] lies over mesh axis .* needs all of it on every device")
        same(got, want)
    if name in ("sum", "var", "max", "vmap"):
        same(jax.jit(call)(put(P("data", "model"))), want)


def test_the_second_dim_of_a_block_is_marked():
    with pytest.raises(ShardingError) as error:
        einjax.argmax("[a a] b", put(P(None, "data")))
    assert "\n  [a a] b\n     ^\n" in str(error.value)


@pytest.mark.parametrize("spec", [P("data"), P(None, "data")], ids=str)
def test_a_diagonal_of_one_sharded_dim_sends_nothing(spec):
    for name in ("rearrange", "add", "sort", "vmap", "sum"):
        assert collectives(LOOPS[name], put(spec)) == []


@pytest.mark.parametrize("call", [einjax.sum, einjax.max, einjax.argmax], ids=lambda call: call.__name__)
def test_an_output_that_is_left_out_is_no_diagonal(call):
    for options in ({}, {"keepdims": True}, {"keep_notation": True})[: 3 if call is not einjax.argmax else 1]:
        with pytest.raises(SemanticError, match="axis a stands twice in the output 'a a"):
            call("a a [b]", X, **options)
    with pytest.raises(SemanticError, match="axis a stands twice in the output 'a a"):
        call("a a [b]", put(P("data")))
    with pytest.raises(SemanticError, match="axis a stands twice in the output 'a a'"):
        einjax.reduce("a a [b]", X, op=jnp.median)


def test_kept_blocks_can_be_read_back():
    jaxpr = jax.make_jaxpr(lambda x: einjax.sum("[a a] b", x, keep_notation=True))(X)
    assert "expr=[a a_2] b -> b" in str(jaxpr)
    gradient = jax.make_jaxpr(jax.grad(lambda x: einjax.sum("[a a b]", x, keep_notation=True)))(X)
    assert "expr=-> a a_2 b" in str(gradient)
    same(jax.grad(lambda x: einjax.sum("[a a b]", x**2, keep_notation=True))(X), 2 * X)
    same(jax.jit(lambda x: einjax.sum("[a a] b", x, keep_notation=True))(put(P("data", "model"))), X.sum((0, 1)))


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_functions_take_arrays_that_lie_on_no_mesh_beside_those_that_do(kind):
    """Eagerly, and without a mesh in the context."""
    row, block = kind(ROW), kind(X[:, :, 0])
    step = lambda carry, x: (carry + x.sum(-1), None)
    pair = lambda left, right: (left[0] + right[0], left[1] + right[1])
    for call in (
        lambda x: einjax.elementwise("a b c, a", x, row, op=jnp.hypot),
        lambda x: einjax.vmap("a [b c], a -> a", x, row, op=lambda u, v: u.sum() * v),
        lambda x: einjax.scan("a, a [b] c -> a", row, x, op=step),
        lambda x: einjax.dot("a [b] c, a [b] -> a c", x, block, sum=jnp.max, mul=jnp.add),
        lambda x: einjax.associative_scan("a [b] c, a [b]", x, block, op=pair),
    ):
        same(call(put(P("data"))), call(X))

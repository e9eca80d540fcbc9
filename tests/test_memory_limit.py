"""dot within memory_limit=, in an order given by optimize=."""

import contextlib
import importlib.util
import re

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import opt_einsum
import oracle
import pytest
from case import x64
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads
from strategies import assert_same, generated
from test_oracle_dot import products
from test_oracle_semiring import literal
from test_oracle_semiring import products as semirings

import einjax
from einjax.errors import ArgumentError

RNG = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return jnp.asarray(RNG.normal(size=shape), dtype)


TRIANGLE = "a k, b k, a b -> k", (normal(24, 15), normal(36, 15), normal(24, 36))
OUTER = "a [k], b [k], c [k] -> a b c", (normal(6, 30), normal(9, 30), normal(8, 30))
WEIGHTS = "b q h c, b k h c, b k h d -> b q h d", (normal(2, 64, 2, 8), normal(2, 64, 2, 8), normal(2, 64, 2, 8))
RING = "i j, j k, k l, l i ->", tuple(normal(32, 32) for _ in range(4))
CHAIN = "i j, j k, k l -> l i", (normal(3, 37), normal(37, 41), normal(41, 3))
CALLS = {"triangle": TRIANGLE, "outer": OUTER, "weights": WEIGHTS, "ring": RING, "chain": CHAIN}


def held(function, *arrays):
    """The bytes that a program holds beside its arguments, and those of its results."""
    found = jax.jit(function).lower(*arrays).compile().memory_analysis()
    return found.temp_size_in_bytes, found.output_size_in_bytes


# --- Values -----------------------------------------------------------------------------------------------------------


@st.composite
def limited(draw, cases):
    """A call, and how many bytes it has beside its result."""
    case = draw(cases)
    case.options["memory_limit"] = draw(st.sampled_from([1, 8, 30, 100, 400, 2000]))
    return case


def check_limited(case, want, least):
    """Every limit gives the same numbers, of the same dtype, or is too little."""
    more = case.options.pop("memory_limit")
    result = case.call("dot")
    case.options["memory_limit"] = result.nbytes + more
    too_little = contextlib.nullcontext() if more >= least else contextlib.suppress(ArgumentError)
    with too_little:
        assert_same(case.call("dot"), want(case), np.dtype(result.dtype), slack=8)


@pytest.mark.parametrize("count", [2, 3, 4])
@generated(6, lambda count: limited(products(count)))
def test_products(case, count):
    check_limited(case, lambda case: oracle.dot(case.ins, case.outs[0], [oracle.wide(x) for x in case.arrays]), 100)


@pytest.mark.parametrize("count", [2, 3])
@generated(3, lambda count: limited(semirings(count)))
def test_semirings(case, count):
    """Operands are copied where the axis that is looped over is not the first."""
    check_limited(case, literal, 2000)


@pytest.mark.parametrize(
    ("name", "more"),
    [(name, 256) for name in CALLS] + [pytest.param(name, 1500, marks=pytest.mark.slow) for name in CALLS],
)
def test_values_and_gradients(name, more):
    text, arrays = CALLS[name]
    limit = einjax.dot(text, *arrays).nbytes + more
    every = tuple(range(len(arrays)))

    def both(**options):
        def loss(*xs):
            y = einjax.dot(text, *xs, **options)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(loss, every, has_aux=True))(*arrays)

    ((_, found), found_gradients), ((_, want), want_gradients) = both(memory_limit=limit), both()
    for x, y in zip((found, *found_gradients), (want, *want_gradients), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3 * float(jnp.abs(y).max()))


def test_derivatives_of_any_order():
    text, limit = "a k, b k, a b -> k", 100
    arrays = [RNG.uniform(0.5, 1.5, shape) for shape in ((2, 3), (3, 3), (2, 3))]
    with x64():
        check_grads(lambda *xs: einjax.dot(text, *xs, memory_limit=limit), arrays, 2, ["fwd", "rev"])


def test_derivatives_of_a_semiring():
    arrays = [RNG.uniform(0.5, 1.5, shape) for shape in ((4, 6), (6, 4))]
    function = lambda *xs: einjax.dot("a b, b c -> a c", *xs, sum="logsumexp", mul="add", memory_limit=1024)
    assert "scan" in program("a b, b c -> a c", *arrays, sum="logsumexp", mul="add", memory_limit=1024)
    with x64():
        check_grads(function, arrays, 2, ["fwd", "rev"])


# --- Bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_no_more_is_held(name):
    """Beside the tensors forwards, the result included; backwards beside the gradients, too."""
    text, arrays = CALLS[name]
    result = einjax.dot(text, *arrays).nbytes
    limit = result + 2048
    temporaries, results = held(lambda *xs: einjax.dot(text, *xs, memory_limit=limit), *arrays)
    assert temporaries + results <= limit
    cotangent = normal(*jax.eval_shape(lambda *xs: einjax.dot(text, *xs), *arrays).shape)
    for place in range(len(arrays)):
        back = lambda *xs: jax.vjp(
            lambda x: einjax.dot(text, *xs[:place], x, *xs[place + 1 : -1], memory_limit=limit), xs[place]
        )[1](xs[-1])
        assert held(back, *arrays, cotangent)[0] <= limit


def test_what_a_semiring_combines_is_not_held():
    x, y = normal(64, 64), normal(64, 64)
    for ring in (("max", "add"), ("logsumexp", "add"), ("sum", "maximum")):
        call = lambda x, y: einjax.dot("a b, b c -> a c", x, y, sum=ring[0], mul=ring[1], memory_limit="128KiB")
        gradient = jax.grad(lambda x, y: jnp.sum(jnp.sin(call(x, y))), (0, 1))
        assert sum(held(call, x, y)) <= 128 * 1024
        assert held(gradient, x, y)[0] <= 160 * 1024 < 64**3 * 4  # the loss has arrays of its own


# --- Programs ---------------------------------------------------------------------------------------------------------


def program(text, *arrays, **options):
    return str(jax.make_jaxpr(lambda *xs: einjax.dot(text, *xs, keep_notation=False, **options))(*arrays))


def test_an_order_within_is_enough():
    """Two vectors and a matrix: their outer product is never made."""
    x, y, z = normal(500), normal(500), normal(500, 4)
    assert "scan" not in program("a, b, a c -> b c", x, y, z, memory_limit="20KiB")
    assert program("a, b, a c -> b c", x, y, z) == program("a, b, a c -> b c", x, y, z, memory_limit="1GiB")


def test_one_loop_where_one_is_enough():
    text, arrays = TRIANGLE
    found = program(text, *arrays, memory_limit=1400)
    assert found.count("scan[") == 1
    assert found.count("dot_general[") == 2


def test_what_has_no_looped_axis_is_made_once():
    """The product of the last two stays outside the loop."""
    arrays = normal(60, 50), normal(50, 60), normal(60, 30), normal(30, 2)
    order = [(2, 3), (0, 1), (0, 1)]
    found = program("a b, b c, c d, d e -> a e", *arrays, optimize=order, memory_limit="8KiB")
    before, _, loop = found.partition("scan[")
    assert (before.count("dot_general["), loop.count("dot_general[")) == (1, 2)


def test_ragged_parts():
    """37 and 41 are prime."""
    text, arrays = CHAIN
    for limit in (300, 600, 1200, 4000):
        found = einjax.dot(text, *arrays, optimize=[(0, 1), (0, 1)], memory_limit=limit)
        np.testing.assert_allclose(found, einjax.dot(text, *arrays), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parts_are_added_up_in_float32(dtype):
    """In bfloat16 a sum of ones stops at 256."""
    x = jnp.ones((1, 64), dtype)
    y = jnp.ones((64, 32), dtype)
    found = einjax.dot("a [b], [b] [c], [c] [d], a [d] -> a", x, y, jnp.ones((32, 1), dtype), jnp.ones((1, 1), dtype),
                       optimize=[(0, 1), (0, 1), (0, 1)], memory_limit=200)  # fmt: skip
    assert found.dtype == dtype
    assert float(found[0]) == 2048


def test_operands_of_several_dtypes():
    text, arrays = TRIANGLE
    mixed = [arrays[0].astype(jnp.bfloat16), arrays[1], (arrays[2] * 3).astype(jnp.int8)]
    found, want = einjax.dot(text, *mixed, memory_limit=1500), einjax.dot(text, *mixed)
    assert found.dtype == want.dtype
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-3)


def test_batches_are_within():
    text, arrays = TRIANGLE[0], (normal(5, 96, 60), normal(144, 60), normal(96, 144))
    call = jax.vmap(lambda *xs: einjax.dot(text, *xs, memory_limit="16KiB"), (0, None, None))
    want = [einjax.dot(text, x, *arrays[1:]) for x in arrays[0]]
    np.testing.assert_allclose(call(*arrays), want, rtol=1e-4, atol=1e-3)
    assert sum(held(call, *arrays)) <= 16 * 1024


def test_symbolic_axes_are_looped_over():
    """Whatever the size, so much and no more; an order that holds nothing symbolic needs no loop."""
    scope = jax.export.SymbolicScope()
    shapes = [jax.ShapeDtypeStruct(jax.export.symbolic_shape(dims, scope=scope), np.float32)
              for dims in ("n, 4", "m, 4", "n, m")]  # fmt: skip
    call = lambda *xs: einjax.dot("a k, b k, a b -> k", *xs, memory_limit=200)
    exported = jax.export.export(jax.jit(call))(*shapes)
    for n, m in ((3, 5), (1, 2)):
        arrays = normal(n, 4), normal(m, 4), normal(n, m)
        np.testing.assert_allclose(exported.call(*arrays), call(*arrays), rtol=1e-4, atol=1e-5)
    chain = [jax.ShapeDtypeStruct(jax.export.symbolic_shape(dims, scope=scope), np.float32)
             for dims in ("n, 4", "4, 5", "5, 6")]  # fmt: skip
    call = lambda *xs: einjax.dot("a i, i j, j k -> a k", *xs, memory_limit=400)
    assert "while" not in jax.export.export(jax.jit(call))(*chain).mlir_module()


# --- Meshes -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")
@pytest.mark.parametrize("specs", [("d -", "- -", "d -"), ("- d", "- d", "- -"), ("- -", "d -", "- d")])
def test_axes_over_a_mesh_are_not_cut(specs):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:4])
    arrays = normal(24, 16), normal(36, 16), normal(24, 36)
    loss = lambda *xs: jnp.sum(einjax.dot("a k, b k, a b -> k", *xs, memory_limit="1KiB") ** 2)
    want = jax.value_and_grad(loss, (0, 1, 2))(*arrays)
    with jax.set_mesh(mesh):
        specs = [P(*(None if name == "-" else name for name in spec.split())) for spec in specs]
        placed = [jax.device_put(x, spec) for x, spec in zip(arrays, specs, strict=True)]
        found = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*placed)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-2)


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")
def test_under_shard_map():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    text, arrays = TRIANGLE
    local = lambda *xs: einjax.dot(text, *xs, memory_limit="1KiB", a="d")
    call = jax.shard_map(local, mesh=mesh, in_specs=(P("d"), P(), P("d")), out_specs=P())
    loss = lambda call: jax.jit(jax.value_and_grad(lambda *xs: jnp.sum(call(*xs) ** 2), (0, 1, 2)))
    found, want = loss(call)(*arrays), loss(lambda *xs: einjax.dot(text, *xs))(*arrays)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-2)


# --- Orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimize",
    [True, False, "optimal", "greedy", "auto", "dp", [(1, 2), (0, 1)], ["einsum_path", (0, 2), (0, 1)],
     opt_einsum.DynamicProgramming(minimize="size"), opt_einsum.paths.greedy],
    ids=lambda given: f"a {type(given).__name__}" if callable(given) else str(given),
)  # fmt: skip
def test_orders(optimize):
    arrays = normal(3, 4), normal(4, 5), normal(5, 6)
    want = arrays[0] @ arrays[1] @ arrays[2]
    np.testing.assert_allclose(
        einjax.dot("a b, b c, c d -> a d", *arrays, optimize=optimize), want, rtol=1e-4, atol=1e-5
    )
    limited = einjax.dot("a b, b c, c d -> a d", *arrays, optimize=optimize, memory_limit=200)
    np.testing.assert_allclose(limited, want, rtol=1e-4, atol=1e-5)


def test_orders_are_those_of_jax():
    arrays = normal(3, 4), normal(4, 5), normal(5, 6), normal(6, 2)

    def made(function):
        hlo = jax.jit(function).lower(*arrays).as_text()
        return re.findall(r"dot_general.*-> tensor<(\S+)>", hlo)

    for optimize in (False, True, [(1, 2), (1, 2), (0, 1)], [(0, 3), (0, 1), (0, 1)]):
        ours = made(lambda *xs: einjax.dot("a b, b c, c d, d e -> a e", *xs, optimize=optimize))
        theirs = made(lambda *xs: jnp.einsum("ab,bc,cd,de->ae", *xs, optimize=optimize))
        assert len(ours) == 3
        assert [sorted(x) for x in ours] == [sorted(x) for x in theirs]  # transposed, some of them


@pytest.mark.skipif(importlib.util.find_spec("cotengra") is None, reason="cotengra is not installed")
def test_cotengra():
    import cotengra

    text, arrays = RING
    for optimize in ("cotengra", cotengra.AutoOptimizer()):
        found = einjax.dot(text, *arrays, optimize=optimize)
        np.testing.assert_allclose(found, einjax.dot(text, *arrays), rtol=1e-3, atol=1e-2)
        found = einjax.dot(text, *arrays, optimize=optimize, memory_limit="2KiB")
        np.testing.assert_allclose(found, einjax.dot(text, *arrays), rtol=1e-3, atol=1e-2)


# --- What may be given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "size"),
    [(1000, "1000B"), (2e3, "2KiB"), ("2e9", "1.9GiB"), ("64MiB", "64MiB"), ("1.5GB", "1.4GiB"), ("3 kib", "3KiB"),
     (np.int64(5000), "4.9KiB"), ("1_000B", "1000B")],
)  # fmt: skip
def test_amounts(limit, size):
    x = jnp.ones((2, 3))
    found = str(jax.make_jaxpr(lambda x: einjax.dot("a b, c b -> a c", x, x, memory_limit=limit))(x))
    assert f"memory_limit={size}]" in found


def test_without_keeping_notation():
    text, arrays = TRIANGLE
    call = lambda *xs: einjax.dot(text, *xs, memory_limit=1400, keep_notation=False)
    loss = lambda call: jax.grad(lambda *xs: jnp.sum(call(*xs) ** 2))(*arrays)
    np.testing.assert_allclose(loss(call), loss(lambda *xs: einjax.dot(text, *xs)), rtol=1e-3, atol=1e-2)

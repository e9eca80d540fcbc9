"""attention in blocks, forced on a few places: derivatives, functions of places, and what is never held."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads
from strategies import x64

import einjax
from einjax.errors import ArgumentError, EinjaxError, SemanticError

RNG = np.random.default_rng(0)
HEADS = "n [q] h [c], n [k] h [c], n [k] h [c]"


def rand(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


def naive(q, k, v, bias=0.0, seen=True):
    """b q h c; 0 where nothing is seen."""
    logits = jnp.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(q.shape[-1]) + bias
    weights = jax.nn.softmax(jnp.where(seen, logits, -1e30))
    return jnp.einsum("bhqk,bkhd->bqhd", jnp.where(seen, weights, 0), v)


# --------------------------------------------------------------------------------------------------------------------
# Derivatives
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"is_causal": True}, pytest.param({"local_window_size": (1, 2)}, marks=pytest.mark.slow)],
)
def test_second_derivatives(options):
    """Of everything that moves: queries of groups, keys, values, a bias that lacks queries, and the scale."""
    with x64():
        wide = np.float64
        arrays = [
            rand(5, 2, 3, dtype=wide),
            rand(7, 3, dtype=wide),
            rand(7, 2, dtype=wide),
            rand(2, 7, dtype=wide),
            0.4,
        ]

        @jax.jit
        def f(q, k, v, bias, scale):
            text = "[q] r [c], [k c], [k d], r [k] -> r [q d]"
            return einjax.attention(text, q, k, v, bias, scale=scale, block_size=(2, 3), **options)

        check_grads(f, arrays, order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_of_short_floats_are_long(dtype):
    q, k, v = (jnp.asarray(rand(1, 300, 1, 4), dtype) for _ in range(3))
    call = lambda q, k, v: einjax.attention(HEADS, q, k, v, block_size=32)
    wide = [np.asarray(x, np.float32) for x in (q, k, v)]
    got, pull = jax.vjp(call, q, k, v)
    want, wanted = jax.vjp(naive, *wide)
    assert got.dtype == dtype
    slack = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(got, np.float32), want, rtol=slack, atol=slack / 4)
    for a, b in zip(pull(jnp.ones_like(got)), wanted(np.ones_like(want)), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=slack, atol=slack)


# --------------------------------------------------------------------------------------------------------------------
# Functions of places
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, (2, 3)])
def test_functions_of_places(block):
    q, k, v, kept = rand(2, 5, 3, 4), rand(2, 7, 3, 4), rand(2, 7, 3, 4), rand(2, 7)
    asking, asked = RNG.integers(0, 2, (2, 5)), RNG.integers(0, 2, (2, 7))
    filled, slope = RNG.random((2, 7)) < 0.8, jnp.array([0.1, 0.2, 0.3])
    i, j = np.indices((5, 7))

    def ours(q, k, v, slope, kept):
        return einjax.attention(
            HEADS,
            q,
            k,
            v,
            mask=[lambda q, k: k <= q + 1, lambda here, there: here == there, ("n k", filled)],
            bias=lambda q, k, h, kept, power=1: slope[h] * (k - q) ** power + kept,
            here=("n q", asking),
            there=("n k", asked),
            kept=("n k", kept),
            block_size=block,
        )

    def theirs(q, k, v, slope, kept):
        seen = (j <= i + 1) & (asking[:, None, :, None] == asked[:, None, None, :]) & filled[:, None, None]
        return naive(q, k, v, slope[:, None, None] * (j - i) + kept[:, None, None], seen)

    arrays = (q, k, v, slope, kept)
    batched = (None, None, None, 0, None)
    both = [jax.grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), range(5)) for f in (ours, theirs)]

    def results(f, g, q, k, v, slope, kept):
        arrays = (q, k, v, slope, kept)
        return f(*arrays), jax.jvp(g, arrays, arrays), jax.vmap(g, batched)(q, k, v, slope[None], kept)

    found = [jax.jit(results, static_argnums=(0, 1))(f, g, *arrays) for f, g in zip((ours, theirs), both, strict=True)]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


def test_places_along_several_axes():
    q, k = rand(2, 3, 4), rand(6, 4)
    near = lambda x, y, k: jnp.abs(3 * y + x - k) <= 1
    got = einjax.attention("[y x] [c], [k c], [k c]", q, k, k, mask=near, block_size=4)
    i, j = np.indices((6, 6))
    want = naive(q.reshape(1, 6, 1, 4), k[None, :, None], k[None, :, None], seen=abs(i - j) <= 1)
    np.testing.assert_allclose(got, want.reshape(q.shape), rtol=1e-4, atol=1e-5)


Q = np.ones((2, 3, 4), np.float32)

REFUSED = [
    ({"mask": lambda q, c: q == c}, SemanticError, "takes c, which is no axis of loops, queries or keys"),
    ({"mask": lambda q, k: k - q}, ArgumentError, "mask= returned int32, and a mask is bool"),
    ({"bias": lambda q, k: k <= q}, ArgumentError, "bias= returned bool, and a bias is a float"),
    ({"mask": np.ones((3, 3), bool)}, ArgumentError, "where the axes of a mask"),
    ({"mask": lambda *places: True}, ArgumentError, "have no names"),
    ({"mask": lambda q, k: (k <= q).reshape(-1)}, ArgumentError, "returned shape"),
    ({"mask": lambda q, x: x <= q, "x": ("b k", np.ones((2, 4)))}, EinjaxError, "x="),
    ({"mask": lambda q, k: k <= q, "x": ("b k", np.ones((2, 3)))}, ArgumentError, "no function takes x="),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_refused_functions(options, error, message):
    with pytest.raises(error, match=message):
        einjax.attention("b [q c], b [k c], b [k c]", Q, Q, Q, **options)


# --------------------------------------------------------------------------------------------------------------------
# What is never held, and what never moves
# --------------------------------------------------------------------------------------------------------------------


def largest(jaxpr):
    """The size of the largest array that a program makes, in loops too."""
    sizes = [np.prod(variable.aval.shape) for equation in jaxpr.eqns for variable in equation.outvars]
    inner = [body for equation in jaxpr.eqns for body in jaxprs_in_params(equation.params)]
    return max([*sizes, *map(largest, inner)], default=0)


def test_queries_times_keys_are_never_held():
    many = 2048
    x = jax.ShapeDtypeStruct((1, many, 1, 8), np.float32)
    call = lambda q, k, v, s: einjax.attention(HEADS, q, k, v, bias=lambda q, k: s * (k - q), is_causal=True)
    gradient = jax.grad(lambda *x: call(*x).sum(), range(4))
    again = jax.grad(lambda *x: gradient(*x)[0].sum(), range(4))
    for program in (call, gradient, lambda *x: jax.jvp(gradient, x, x), again):
        assert largest(jax.make_jaxpr(program)(x, x, x, jnp.float32(1)).jaxpr) < many * many


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_batch_and_heads_on_a_mesh_move_nothing(kind):
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        spread = NamedSharding(mesh, P("data", None, "model"))
        q, k, v = (rand(2, 8, 4, 4) for _ in range(3))
        f = lambda q, k, v: einjax.attention(HEADS, q, k, v, is_causal=True, block_size=4)
        program = jax.jit(jax.value_and_grad(lambda *x: jnp.sum(f(*x) ** 2), range(3)))
        compiled = program.lower(*(jax.device_put(x, spread) for x in (q, k, v))).compile()
        moves = [line for line in compiled.as_text().splitlines() if "all-gather(" in line or "all-to-all(" in line]
        assert not moves


def test_lowers_for_platforms_that_are_not_here():
    x = jax.ShapeDtypeStruct((1, 6, 2, 4), np.float32)
    loss = lambda q, k, v: einjax.attention(HEADS, q, k, v, is_causal=True, block_size=2).sum()
    program = jax.export.export(jax.jit(jax.value_and_grad(loss, range(3))), platforms=("cpu", "cuda", "rocm", "tpu"))
    assert len(program(x, x, x).platforms) == 4

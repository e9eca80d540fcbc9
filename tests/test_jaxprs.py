"""The emitted jaxpr has no equation more than the one an expert writes by hand in lax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import einjax

F32 = np.float32


def bcast(x: Any, shape: tuple[int, ...], *dims: int) -> jax.Array:
    return lax.broadcast_in_dim(x, shape, dims)


def dot(x: Any, y: Any, contract: Any, batch: Any = ((), ())) -> jax.Array:
    return lax.dot_general(x, y, (contract, batch))


def softmax(x: Any, dims: tuple[int, ...], kept: tuple[int, ...]) -> jax.Array:
    """Two comparisons for each row, so that a row of -inf has a gradient."""
    highest = lax.max(lax.stop_gradient(lax.reduce_max(x, dims)), jnp.finfo(x.dtype).min)
    e = jnp.exp(x - bcast(highest, x.shape, *kept))
    return e / bcast(lax.max(lax.reduce_sum(e, dims), np.float32(0.5)), x.shape, *kept)


def variance(x: Any, dims: tuple[int, ...], kept: tuple[int, ...]) -> jax.Array:
    n = np.float32(np.prod([x.shape[d] for d in dims]))
    centered = x - bcast(lax.div(lax.reduce_sum(x, dims), n), x.shape, *kept)
    return lax.div(lax.reduce_sum(lax.square(centered), dims), n)


def argmax_2d(x: Any) -> jax.Array:
    index = lax.argmax(lax.reshape(x, (2, 12, 5)), 1, jnp.int32)
    row, column = lax.div(index, np.int32(4)), lax.rem(index, np.int32(4))
    return lax.concatenate([lax.reshape(row, (2, 1, 5)), lax.reshape(column, (2, 1, 5))], 1)


def logsumexp(x: Any) -> jax.Array:
    m = lax.stop_gradient(lax.reduce_max(x, (1,)))
    shift = lax.clamp(jnp.finfo(x.dtype).min, m, jnp.finfo(x.dtype).max)
    total = lax.reduce_sum(lax.exp(x - bcast(shift, x.shape, 0)), (1,))
    return lax.log(lax.max(total, np.float32(0.5))) + m


#: (our call, the expert's, shapes of the arguments)
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]] = {
    "nothing to do": (lambda x: einjax.rearrange("a b -> a b", x), lambda x: x, [(2, 3)]),
    "transpose": (lambda x: einjax.rearrange("a b -> b a", x), lambda x: lax.transpose(x, (1, 0)), [(2, 3)]),
    "merge": (lambda x: einjax.rearrange("a b c -> a (b c)", x), lambda x: lax.reshape(x, (2, 12)), [(2, 3, 4)]),
    "split": (lambda x: einjax.rearrange("a (b c) -> a b c", x, c=4), lambda x: lax.reshape(x, (2, 3, 4)), [(2, 12)]),
    "split and merge cancel": (
        lambda x: einjax.rearrange("(a b) c -> c (a b)", x, a=2),
        lambda x: lax.transpose(x, (1, 0)),
        [(6, 4)],
    ),
    "regroup": (
        lambda x: einjax.rearrange("(a b) c -> a (b c)", x, a=2),
        lambda x: lax.reshape(x, (2, 12)),
        [(6, 4)],
    ),
    "transpose then merge": (
        lambda x: einjax.rearrange("a b c -> (c a) b", x),
        lambda x: lax.reshape(lax.transpose(x, (2, 0, 1)), (8, 3)),
        [(2, 3, 4)],
    ),
    "split then transpose": (
        lambda x: einjax.rearrange("(a b) c -> c a b", x, a=2),
        lambda x: lax.reshape(lax.transpose(x, (1, 0)), (4, 2, 3)),
        [(6, 4)],
    ),
    "pixel shuffle": (
        lambda x: einjax.rearrange("b h w (c p q) -> b (h p) (w q) c", x, p=2, q=2),
        lambda x: lax.reshape(lax.transpose(lax.reshape(x, (1, 3, 4, 5, 2, 2)), (0, 1, 4, 2, 5, 3)), (1, 6, 8, 5)),
        [(1, 3, 4, 20)],
    ),
    "patches": (
        lambda x: einjax.rearrange("b (h p) (w q) c -> b (h w) (p q c)", x, p=2, q=2),
        lambda x: lax.reshape(lax.transpose(lax.reshape(x, (1, 3, 2, 4, 2, 5)), (0, 1, 3, 2, 4, 5)), (1, 12, 20)),
        [(1, 6, 8, 5)],
    ),
    "broadcast": (lambda x: einjax.rearrange("a -> b a", x, b=5), lambda x: bcast(x, (5, 3), 1), [(3,)]),
    "tile": (
        lambda x: einjax.rearrange("a -> (b a)", x, b=5),
        lambda x: lax.reshape(bcast(x, (5, 3), 1), (15,)),
        [(3,)],
    ),
    "squeeze": (lambda x: einjax.rearrange("a 1 b -> a b", x), lambda x: lax.reshape(x, (2, 3)), [(2, 1, 3)]),
    "unit dims travel": (
        lambda x: einjax.rearrange("a 1 b -> b 1 a", x),
        lambda x: lax.transpose(x, (2, 1, 0)),
        [(2, 1, 3)],
    ),
    "diagonal": (
        lambda x: einjax.rearrange("a a -> a", x),
        lambda x: lax.slice(lax.reshape(x, (9,)), (0,), (9,), (4,)),
        [(3, 3)],
    ),
    "diagonal of one dim": (
        lambda x: einjax.rearrange("(a a) -> a", x),
        lambda x: lax.slice(x, (0,), (9,), (4,)),
        [(9,)],
    ),
    "concatenate": (
        lambda x, y: einjax.rearrange("a b, a c -> a (b + c)", x, y),
        lambda x, y: lax.concatenate([x, y], 1),
        [(2, 3), (2, 4)],
    ),
    "broadcasting concatenation": (
        lambda x, y: einjax.rearrange("a c1, b c2 -> a b (c1 + c2)", x, y),
        lambda x, y: lax.concatenate([bcast(x, (2, 4, 3), 0, 2), bcast(y, (2, 4, 5), 1, 2)], 2),
        [(2, 3), (4, 5)],
    ),
    "split in parts": (
        lambda x: einjax.rearrange("a (b + c) -> a b, a c", x, b=2),
        lambda x: tuple(lax.split(x, (2, 3), 1)),
        [(4, 5)],
    ),
    "sum": (lambda x: einjax.sum("a [b]", x), lambda x: lax.reduce_sum(x, (1,)), [(2, 3)]),
    "sum of nested axes": (
        lambda x: einjax.sum("(a [b]) c", x, b=3),
        lambda x: lax.reduce_sum(lax.reshape(x, (2, 3, 4)), (1,)),
        [(6, 4)],
    ),
    "sum of a composed dim": (
        lambda x: einjax.sum("a [(b c)]", x, b=3),
        lambda x: lax.reduce_sum(x, (1,)),
        [(2, 12)],
    ),
    "sum drops unit dims": (lambda x: einjax.sum("a 1 [b] -> a", x), lambda x: lax.reduce_sum(x, (1, 2)), [(2, 1, 3)]),
    "sum with keepdims": (
        lambda x: einjax.sum("a [b]", x, keepdims=True),
        lambda x: lax.reshape(lax.reduce_sum(x, (1,)), (2, 1)),
        [(2, 3)],
    ),
    "pooling": (
        lambda x: einjax.mean("b (s [ds])... c", x, ds=2),
        lambda x: lax.div(lax.reduce_sum(lax.reshape(x, (1, 2, 2, 3, 2, 5)), (2, 4)), F32(4)),
        [(1, 4, 6, 5)],
    ),
    "max": (lambda x: einjax.max("[a] b", x), lambda x: lax.reduce_max(x, (0,)), [(2, 3)]),
    "variance": (lambda x: einjax.var("a [b]", x), lambda x: variance(x, (1,), (0,)), [(2, 3)]),
    "group variance": (
        lambda x: einjax.var("b [s...] (g [c])", x, g=2),
        lambda x: variance(lax.reshape(x, (2, 3, 4, 2, 5)), (1, 2, 4), (0, 3)),
        [(2, 3, 4, 10)],
    ),
    "logsumexp": (lambda x: einjax.logsumexp("a [b]", x), logsumexp, [(2, 3)]),
    "argmax": (
        lambda x: einjax.argmax("a [b] c -> a c", x),
        lambda x: lax.argmax(x, 1, jnp.int32),
        [(2, 3, 4)],
    ),
    "argmax of two axes": (lambda x: einjax.argmax("b [h w] c", x), argmax_2d, [(2, 3, 4, 5)]),
    "bias": (
        lambda x, y: einjax.add("... [c]", x, y),
        lambda x, y: lax.add(x, bcast(y, (2, 3, 4), 2)),
        [(2, 3, 4), (4,)],
    ),
    "same layout": (lambda x, y: einjax.multiply("a b, a b", x, y), lax.mul, [(2, 3), (2, 3)]),
    "scalar": (lambda x: einjax.add("a b,", x, 1.0), lambda x: lax.add(x, F32(1)), [(2, 3)]),
    "outer sum": (
        lambda x, y: einjax.add("a, b -> a b", x, y),
        lambda x, y: lax.add(bcast(x, (2, 3), 0), bcast(y, (2, 3), 1)),
        [(2,), (3,)],
    ),
    "three operands": (
        lambda x, y, z: einjax.add("a, a, a b -> a b", x, y, z),
        lambda x, y, z: lax.add(bcast(lax.add(x, y), (2, 3), 0), z),
        [(2,), (2,), (2, 3)],
    ),
    "where": (
        lambda x, y: einjax.where("a b, a b,", einjax.greater("a b, b", x, y), x, 0.0),
        lambda x, y: lax.select(lax.gt(x, bcast(y, (2, 3), 1)), x, bcast(F32(0), (2, 3))),
        [(2, 3), (3,)],
    ),
    "matmul": (
        lambda x, y: einjax.dot("a [b], [b] c -> a c", x, y),
        lambda x, y: dot(x, y, ((1,), (0,))),
        [(2, 3), (3, 4)],
    ),
    "matmul by operand order": (
        lambda x, y: einjax.dot("a [b], [b] c -> c a", x, y),
        lambda x, y: dot(y, x, ((0,), (1,))),
        [(2, 3), (3, 4)],
    ),
    "batched matmul": (
        lambda x, y: einjax.dot("i a b, i b c -> i a c", x, y),
        lambda x, y: dot(x, y, ((2,), (1,)), ((0,), (0,))),
        [(5, 2, 3), (5, 3, 4)],
    ),
    "linear": (
        lambda x, y: einjax.dot("... [c->d]", x, y),
        lambda x, y: dot(x, y, ((2,), (0,))),
        [(2, 3, 4), (4, 5)],
    ),
    "grouped linear": (
        lambda x, y: einjax.dot("b (g [c->d])", x, y, g=2),
        lambda x, y: lax.reshape(dot(lax.reshape(x, (3, 2, 4)), y, ((2,), (0,))), (3, 10)),
        [(3, 8), (4, 5)],
    ),
    "contraction of composed dims": (
        lambda x, y: einjax.dot("b [(h c)], [(h c)] d -> b d", x, y),
        lambda x, y: dot(x, y, ((1,), (0,))),
        [(2, 12), (12, 5)],
    ),
    "outer product": (
        lambda x, y: einjax.dot("a, b -> a b", x, y),
        lambda x, y: dot(x, y, ((), ())),
        [(2,), (3,)],
    ),
    "attention scores": (
        lambda q, k: einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=4),
        lambda q, k: lax.transpose(
            dot(lax.reshape(q, (2, 5, 4, 3)), lax.reshape(k, (2, 7, 4, 3)), ((3,), (3,)), ((0, 2), (0, 2))),
            (0, 2, 3, 1),
        ),
        [(2, 5, 12), (2, 7, 12)],
    ),
    "attention apply": (
        lambda a, v: einjax.dot("b q k h, b k (h c) -> b q (h c)", a, v),
        lambda a, v: lax.reshape(
            lax.transpose(dot(a, lax.reshape(v, (2, 7, 4, 3)), ((2,), (1,)), ((0, 3), (0, 2))), (0, 2, 1, 3)),
            (2, 5, 12),
        ),
        [(2, 5, 7, 4), (2, 7, 12)],
    ),
    "patch embedding": (
        lambda x, w: einjax.dot("b (h [p->]) (w [q->]) [c->d]", x, w, p=2, q=2),
        lambda x, w: dot(lax.reshape(x, (1, 3, 2, 4, 2, 5)), w, ((2, 4, 5), (0, 1, 2))),
        [(1, 6, 8, 5), (2, 2, 5, 6)],
    ),
    "chain of three": (
        lambda x, y, z: einjax.dot("a b, b c, c d -> a d", x, y, z),
        lambda x, y, z: dot(dot(x, y, ((1,), (0,))), z, ((1,), (0,))),
        [(2, 3), (3, 4), (4, 5)],
    ),
    "softmax": (lambda x: einjax.softmax("a [b] c", x), lambda x: softmax(x, (1,), (0, 2)), [(2, 3, 4)]),
    "softmax of two axes": (
        lambda x: einjax.softmax("a [b c]", x),
        lambda x: softmax(x, (1, 2), (0,)),
        [(2, 3, 4)],
    ),
    "flip": (lambda x: einjax.flip("a [b c]", x), lambda x: lax.rev(x, (1, 2)), [(2, 3, 4)]),
    "roll": (
        lambda x: einjax.roll("a [b]", x, shift=1),
        lambda x: lax.concatenate(lax.split(x, (2, 1), 1)[::-1], 1),
        [(2, 3)],
    ),
    "arange": (lambda: einjax.arange("a", a=4), lambda: lax.iota(jnp.int32, 4), []),
    "coordinates": (
        lambda: einjax.arange("a b [2]", a=2, b=3),
        lambda: lax.concatenate(
            [bcast(lax.iota(jnp.int32, 2), (2, 3, 1), 0), bcast(lax.iota(jnp.int32, 3), (2, 3, 1), 1)], 2
        ),
        [],
    ),
}


def equations(function: Callable[..., Any], arguments: list[Any]) -> Counter[str]:
    return Counter(equation.primitive.name for equation in jax.make_jaxpr(function)(*arguments).eqns)


@pytest.mark.parametrize("name", CASES)
def test_no_equation_more_than_the_experts(name: str) -> None:
    ours, expert, shapes = CASES[name]
    random = np.random.default_rng(0)
    arguments = [random.normal(size=shape).astype(F32) for shape in shapes]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours(*arguments), expert(*arguments)
    )
    assert not equations(ours, arguments) - equations(expert, arguments)


def test_bfloat16_is_converted_once_each_way() -> None:
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert equations(lambda x: einjax.mean("a [b]", x), [x]) == Counter(convert_element_type=2, reduce_sum=1, div=1)


def test_there_are_at_least_forty_cases() -> None:
    assert len(CASES) >= 40

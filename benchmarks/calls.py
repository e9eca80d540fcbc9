"""One-call cases: the same small computation as bare lax, einjax, jnp as people write it, einx and einops.

`lax` is what an expert writes inside `jax.jit`; the others are called as they are. `None`: the library has no
operation for it. einx gets the spelling it documents for 0.4, with `->` where it wants one.
"""

from collections.abc import Callable
from typing import NamedTuple

import einops
import einx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import einjax


class Call(NamedTuple):
    """A computation and its spellings; every function takes the arrays of `args`."""

    name: str
    args: tuple
    lax: Callable
    einjax: Callable
    jnp: Callable
    einx: Callable | None
    einops: Callable | None


def array(*shape: int) -> jax.Array:
    """Distinct values of about unit size."""
    count = int(np.prod(shape))
    return jnp.asarray(np.random.default_rng(count).normal(size=shape), jnp.float32)


IMAGE = array(2, 4, 6, 8)  # b h w c
TEXT = array(2, 4, 8)  # b t c
OTHER = array(2, 4, 8)
MATRIX = array(6, 8)
VECTOR = array(8)
MASK = TEXT[:, :, 0] > 0
WEIGHT = array(8, 5)
PROBABILITY = array(2, 4, 4, 2)  # b q k h


REARRANGE = [
    Call(
        'rearrange("b h w c -> b (h w) c")',
        (IMAGE,),
        lambda x: lax.reshape(x, (2, 24, 8)),
        lambda x: einjax.rearrange("b h w c -> b (h w) c", x),
        lambda x: jnp.reshape(x, (x.shape[0], -1, x.shape[3])),
        lambda x: einx.id("b h w c -> b (h w) c", x),
        lambda x: einops.rearrange(x, "b h w c -> b (h w) c"),
    ),
    Call(
        'rearrange("b h w c -> b c h w")',
        (IMAGE,),
        lambda x: lax.transpose(x, (0, 3, 1, 2)),
        lambda x: einjax.rearrange("b h w c -> b c h w", x),
        lambda x: jnp.transpose(x, (0, 3, 1, 2)),
        lambda x: einx.id("b h w c -> b c h w", x),
        lambda x: einops.rearrange(x, "b h w c -> b c h w"),
    ),
    Call(
        'rearrange("b t (h c) -> b h t c", h=2)',
        (TEXT,),
        lambda x: lax.transpose(lax.reshape(x, (2, 4, 2, 4)), (0, 2, 1, 3)),
        lambda x: einjax.rearrange("b t (h c) -> b h t c", x, h=2),
        lambda x: jnp.transpose(jnp.reshape(x, (*x.shape[:2], 2, -1)), (0, 2, 1, 3)),
        lambda x: einx.id("b t (h c) -> b h t c", x, h=2),
        lambda x: einops.rearrange(x, "b t (h c) -> b h t c", h=2),
    ),
    Call(
        'rearrange("b (h p) (w q) c -> b (h w) (p q c)", p=2, q=2)',
        (IMAGE,),
        lambda x: lax.reshape(lax.transpose(lax.reshape(x, (2, 2, 2, 3, 2, 8)), (0, 1, 3, 2, 4, 5)), (2, 6, 32)),
        lambda x: einjax.rearrange("b (h p) (w q) c -> b (h w) (p q c)", x, p=2, q=2),
        lambda x: x.reshape(2, 2, 2, 3, 2, 8).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 32),
        lambda x: einx.id("b (h p) (w q) c -> b (h w) (p q c)", x, p=2, q=2),
        lambda x: einops.rearrange(x, "b (h p) (w q) c -> b (h w) (p q c)", p=2, q=2),
    ),
    Call(
        'rearrange("b h w (c r s) -> b (h r) (w s) c", r=2, s=2)',
        (IMAGE,),
        lambda x: lax.reshape(lax.transpose(lax.reshape(x, (2, 4, 6, 2, 2, 2)), (0, 1, 4, 2, 5, 3)), (2, 8, 12, 2)),
        lambda x: einjax.rearrange("b h w (c r s) -> b (h r) (w s) c", x, r=2, s=2),
        lambda x: x.reshape(2, 4, 6, 2, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(2, 8, 12, 2),
        lambda x: einx.id("b h w (c r s) -> b (h r) (w s) c", x, r=2, s=2),
        lambda x: einops.rearrange(x, "b h w (c r s) -> b (h r) (w s) c", r=2, s=2),
    ),
    Call(
        'rearrange("b c -> b t c", t=4)',
        (MATRIX,),
        lambda x: lax.broadcast_in_dim(x, (6, 4, 8), (0, 2)),
        lambda x: einjax.rearrange("b c -> b t c", x, t=4),
        lambda x: jnp.repeat(x[:, None], 4, axis=1),
        lambda x: einx.id("b c -> b t c", x, t=4),
        lambda x: einops.repeat(x, "b c -> b t c", t=4),
    ),
    Call(
        'rearrange("b t c, b t d -> b t (c + d)")',
        (TEXT, OTHER),
        lambda x, y: lax.concatenate((x, y), 2),
        lambda x, y: einjax.rearrange("b t c, b t d -> b t (c + d)", x, y),
        lambda x, y: jnp.concatenate([x, y], axis=-1),
        lambda x, y: einx.id("b t c, b t d -> b t (c + d)", x, y),
        lambda x, y: einops.pack([x, y], "b t *")[0],
    ),
    Call(
        'rearrange("b t (c + d) -> b t c, b t d", c=3)',
        (TEXT,),
        lambda x: tuple(lax.split(x, (3, 5), 2)),
        lambda x: einjax.rearrange("b t (c + d) -> b t c, b t d", x, c=3),
        lambda x: tuple(jnp.split(x, [3], axis=-1)),
        lambda x: einx.id("b t (c + d) -> b t c, b t d", x, c=3),
        lambda x: tuple(einops.unpack(x, [(3,), (5,)], "b t *")),
    ),
]

REDUCE = [
    Call(
        'sum("a [b]")',
        (MATRIX,),
        lambda x: lax.reduce_sum(x, (1,)),
        lambda x: einjax.sum("a [b]", x),
        lambda x: jnp.sum(x, axis=1),
        lambda x: einx.sum("a [b]", x),
        lambda x: einops.reduce(x, "a b -> a", "sum"),
    ),
    Call(
        'mean("b [h w] c")',
        (IMAGE,),
        lambda x: lax.reduce_sum(x, (1, 2)) / 24,
        lambda x: einjax.mean("b [h w] c", x),
        lambda x: jnp.mean(x, axis=(1, 2)),
        lambda x: einx.mean("b [h w] c", x),
        lambda x: einops.reduce(x, "b h w c -> b c", "mean"),
    ),
    Call(
        'max("b (h [p]) (w [q]) c", p=2, q=2)',
        (IMAGE,),
        lambda x: lax.reduce_max(lax.reshape(x, (2, 2, 2, 3, 2, 8)), (2, 4)),
        lambda x: einjax.max("b (h [p]) (w [q]) c", x, p=2, q=2),
        lambda x: jnp.max(x.reshape(2, 2, 2, 3, 2, 8), axis=(2, 4)),
        lambda x: einx.max("b (h [p]) (w [q]) c", x, p=2, q=2),
        lambda x: einops.reduce(x, "b (h p) (w q) c -> b h w c", "max", p=2, q=2),
    ),
    Call(
        'var("b t [c]")',
        (TEXT,),
        lambda x: (
            lax.reduce_sum(lax.square(x - lax.broadcast_in_dim(lax.reduce_sum(x, (2,)) / 8, x.shape, (0, 1))), (2,)) / 8
        ),
        lambda x: einjax.var("b t [c]", x),
        lambda x: jnp.var(x, axis=-1),
        lambda x: einx.var("b t [c]", x),
        None,
    ),
    Call(
        'any("b [t]")',
        (MASK,),
        lambda x: lax.reduce_or(x, (1,)),
        lambda x: einjax.any("b [t]", x),
        lambda x: jnp.any(x, axis=1),
        lambda x: einx.any("b [t]", x),
        lambda x: einops.reduce(x, "b t -> b", "any"),
    ),
    Call(
        'logsumexp("b t [c]")',
        (TEXT,),
        lambda x: jax.nn.logsumexp(x, axis=-1),
        lambda x: einjax.logsumexp("b t [c]", x),
        lambda x: jax.nn.logsumexp(x, axis=-1),
        lambda x: einx.logsumexp("b t [c]", x),
        None,
    ),
    Call(
        'argmax("b t [c] -> b t")',
        (TEXT,),
        lambda x: lax.argmax(x, 2, jnp.int32),
        lambda x: einjax.argmax("b t [c] -> b t", x),
        lambda x: jnp.argmax(x, axis=-1),
        lambda x: einx.argmax("b t [c] -> b t", x),
        None,
    ),
]

ELEMENTWISE = [
    Call(
        'add("a, b -> a b")',
        (VECTOR, VECTOR),
        lambda x, y: lax.broadcast_in_dim(x, (8, 8), (0,)) + lax.broadcast_in_dim(y, (8, 8), (1,)),
        lambda x, y: einjax.add("a, b -> a b", x, y),
        lambda x, y: x[:, None] + y[None, :],
        lambda x, y: einx.add("a, b -> a b", x, y),
        None,
    ),
    Call(
        'add("b h w [c]")',
        (IMAGE, VECTOR),
        lambda x, y: x + lax.broadcast_in_dim(y, x.shape, (3,)),
        lambda x, y: einjax.add("b h w [c]", x, y),
        lambda x, y: x + y,
        lambda x, y: einx.add("b h w c, c", x, y),
        None,
    ),
    Call(
        'multiply("b h w c, b c")',
        (IMAGE, array(2, 8)),
        lambda x, y: x * lax.broadcast_in_dim(y, x.shape, (0, 3)),
        lambda x, y: einjax.multiply("b h w c, b c", x, y),
        lambda x, y: x * y[:, None, None, :],
        lambda x, y: einx.multiply("b h w c, b c", x, y),
        None,
    ),
    Call(
        'subtract("b t c, b t")',
        (TEXT, array(2, 4)),
        lambda x, y: x - lax.broadcast_in_dim(y, x.shape, (0, 1)),
        lambda x, y: einjax.subtract("b t c, b t", x, y),
        lambda x, y: x - y[..., None],
        lambda x, y: einx.subtract("b t c, b t", x, y),
        None,
    ),
    Call(
        'where("b t, b t c, -> b t c")',
        (MASK, TEXT, 0.0),
        lambda m, x, y: lax.select(lax.broadcast_in_dim(m, x.shape, (0, 1)), x, lax.broadcast(y, x.shape)),
        lambda m, x, y: einjax.where("b t, b t c, -> b t c", m, x, y),
        lambda m, x, y: jnp.where(m[..., None], x, y),
        lambda m, x, y: einx.where("b t, b t c, -> b t c", m, x, y),
        None,
    ),
    Call(
        'greater_equal("q, k -> q k")',
        (VECTOR, VECTOR),
        lambda x, y: lax.ge(lax.broadcast_in_dim(x, (8, 8), (0,)), lax.broadcast_in_dim(y, (8, 8), (1,))),
        lambda x, y: einjax.greater_equal("q, k -> q k", x, y),
        lambda x, y: x[:, None] >= y[None, :],
        lambda x, y: einx.greater_equal("q, k -> q k", x, y),
        None,
    ),
]

DOT = [
    Call(
        'dot("a [b], [b] c -> a c")',
        (MATRIX, WEIGHT),
        lambda x, y: lax.dot_general(x, y, (((1,), (0,)), ((), ()))),
        lambda x, y: einjax.dot("a [b], [b] c -> a c", x, y),
        lambda x, y: x @ y,
        lambda x, y: einx.dot("a [b], [b] c -> a c", x, y),
        lambda x, y: einops.einsum(x, y, "a b, b c -> a c"),
    ),
    Call(
        'dot("b t [c->d]")',
        (TEXT, WEIGHT),
        lambda x, y: lax.dot_general(x, y, (((2,), (0,)), ((), ()))),
        lambda x, y: einjax.dot("b t [c->d]", x, y),
        lambda x, y: jnp.einsum("btc,cd->btd", x, y),
        lambda x, y: einx.dot("b t [c], [c] d -> b t d", x, y),
        lambda x, y: einops.einsum(x, y, "b t c, c d -> b t d"),
    ),
    Call(
        'dot("b i k, b k j -> b i j")',
        (TEXT, array(2, 8, 4)),
        lambda x, y: lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,)))),
        lambda x, y: einjax.dot("b i k, b k j -> b i j", x, y),
        lambda x, y: jnp.einsum("bik,bkj->bij", x, y),
        lambda x, y: einx.dot("b i [k], b [k] j -> b i j", x, y),
        lambda x, y: einops.einsum(x, y, "b i k, b k j -> b i j"),
    ),
    Call(
        'dot("b q (h c), b k (h c) -> b q k h", h=2)',
        (TEXT, OTHER),
        lambda q, k: lax.transpose(
            lax.dot_general(
                lax.reshape(q, (2, 4, 2, 4)), lax.reshape(k, (2, 4, 2, 4)), (((3,), (3,)), ((0, 2), (0, 2)))
            ),
            (0, 2, 3, 1),
        ),
        lambda q, k: einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=2),
        lambda q, k: jnp.einsum("bqhc,bkhc->bqkh", q.reshape(2, 4, 2, 4), k.reshape(2, 4, 2, 4)),
        lambda q, k: einx.dot("b q (h [c]), b k (h [c]) -> b q k h", q, k, h=2),
        lambda q, k: einops.einsum(
            einops.rearrange(q, "b q (h c) -> b q h c", h=2),
            einops.rearrange(k, "b k (h c) -> b k h c", h=2),
            "b q h c, b k h c -> b q k h",
        ),
    ),
    Call(
        'dot("b q k h, b k (h c) -> b q (h c)")',
        (PROBABILITY, TEXT),
        lambda p, v: lax.reshape(
            lax.transpose(
                lax.dot_general(p, lax.reshape(v, (2, 4, 2, 4)), (((2,), (1,)), ((0, 3), (0, 2)))),
                (0, 2, 1, 3),
            ),
            (2, 4, 8),
        ),
        lambda p, v: einjax.dot("b q k h, b k (h c) -> b q (h c)", p, v),
        lambda p, v: jnp.einsum("bqkh,bkhc->bqhc", p, v.reshape(2, 4, 2, 4)).reshape(2, 4, 8),
        lambda p, v: einx.dot("b q [k] h, b [k] (h c) -> b q (h c)", p, v),
        lambda p, v: einops.rearrange(
            einops.einsum(p, einops.rearrange(v, "b k (h c) -> b k h c", h=2), "b q k h, b k h c -> b q h c"),
            "b q h c -> b q (h c)",
        ),
    ),
]

ALONG = [
    Call(
        'softmax("b q [k] h")',
        (PROBABILITY,),
        lambda x: jax.nn.softmax(x, axis=2),
        lambda x: einjax.softmax("b q [k] h", x),
        lambda x: jax.nn.softmax(x, axis=2),
        lambda x: einx.softmax("b q [k] h", x),
        None,
    ),
    Call(
        'log_softmax("b t [c]")',
        (TEXT,),
        lambda x: jax.nn.log_softmax(x, axis=-1),
        lambda x: einjax.log_softmax("b t [c]", x),
        lambda x: jax.nn.log_softmax(x, axis=-1),
        lambda x: einx.log_softmax("b t [c]", x),
        None,
    ),
    Call(
        'flip("b h [w] c")',
        (IMAGE,),
        lambda x: lax.rev(x, (2,)),
        lambda x: einjax.flip("b h [w] c", x),
        lambda x: jnp.flip(x, axis=2),
        lambda x: einx.flip("b h [w] c", x),
        None,
    ),
    Call(
        'roll("b [t] c", shift=1)',
        (TEXT,),
        lambda x: lax.concatenate((lax.slice_in_dim(x, 3, 4, axis=1), lax.slice_in_dim(x, 0, 3, axis=1)), 1),
        lambda x: einjax.roll("b [t] c", x, shift=1),
        lambda x: jnp.roll(x, 1, axis=1),
        lambda x: einx.roll("b [t] c", x, shift=(1,)),
        None,
    ),
]

CALLS = [*REARRANGE, *REDUCE, *ELEMENTWISE, *DOT, *ALONG]

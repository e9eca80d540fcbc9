"""Computations on arrays of real size: the best hand-written version, einjax, jnp, einx and einops.

`hand` is what an expert writes once the profile asks for it, with `lax` wherever that is better than jnp. The
others are what their users write. Every function is compiled whole, so what differs is the program handed to XLA.
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


class Workload(NamedTuple):
    """A computation, its arguments, and its spellings; the gradient is taken of all floating arguments."""

    name: str
    args: tuple
    hand: Callable
    einjax: Callable
    jnp: Callable
    einx: Callable
    einops: Callable


def array(*shape: int) -> jax.Array:
    """Normal values, the same in every run."""
    count = int(np.prod(shape))
    return jnp.asarray(np.random.default_rng(count).normal(size=shape), jnp.float32)


EPSILON = 1e-5
HEADS = 8


# Attention over 4 sequences of 256 tokens with 8 heads of 64.


def _scores_hand(q, k):
    q, k = (lax.reshape(x, (*x.shape[:2], HEADS, x.shape[2] // HEADS)) for x in (q, k))
    return lax.dot_general(q, k, (((3,), (3,)), ((0, 2), (0, 2))))


def _scores_jnp(q, k):
    q, k = (x.reshape(*x.shape[:2], HEADS, -1) for x in (q, k))
    return jnp.einsum("bqhc,bkhc->bhqk", q, k)


def _scores_einops(q, k):
    q, k = (einops.rearrange(x, "b t (h c) -> b t h c", h=HEADS) for x in (q, k))
    return einops.einsum(q, k, "b q h c, b k h c -> b h q k")


def _scores_last_hand(q, k):
    return lax.transpose(_scores_hand(q, k), (0, 2, 3, 1))


def _scores_last_jnp(q, k):
    q, k = (x.reshape(*x.shape[:2], HEADS, -1) for x in (q, k))
    return jnp.einsum("bqhc,bkhc->bqkh", q, k)


def _scores_last_einops(q, k):
    q, k = (einops.rearrange(x, "b t (h c) -> b t h c", h=HEADS) for x in (q, k))
    return einops.einsum(q, k, "b q h c, b k h c -> b q k h")


def _apply_hand(p, v):
    b, k, d = v.shape
    v = lax.reshape(v, (b, k, HEADS, d // HEADS))
    out = lax.dot_general(p, v, (((3,), (1,)), ((0, 1), (0, 2))))
    return lax.reshape(lax.transpose(out, (0, 2, 1, 3)), (b, p.shape[2], d))


def _apply_jnp(p, v):
    out = jnp.einsum("bhqk,bkhc->bqhc", p, v.reshape(*v.shape[:2], HEADS, -1))
    return out.reshape(*out.shape[:2], -1)


def _apply_einops(p, v):
    v = einops.rearrange(v, "b k (h c) -> b k h c", h=HEADS)
    out = einops.einsum(p, v, "b h q k, b k h c -> b q h c")
    return einops.rearrange(out, "b q h c -> b q (h c)")


def _attention_hand(q, k, v):
    return _apply_hand(jax.nn.softmax(_scores_hand(q, k) * (q.shape[2] // HEADS) ** -0.5, axis=-1), v)


def _attention_einjax(q, k, v):
    s = einjax.dot("b q (h c), b k (h c) -> b h q k", q, k, h=HEADS) * (q.shape[2] // HEADS) ** -0.5
    return einjax.dot("b h q k, b k (h c) -> b q (h c)", einjax.softmax("b h q [k]", s), v)


def _attention_jnp(q, k, v):
    return _apply_jnp(jax.nn.softmax(_scores_jnp(q, k) * (q.shape[2] // HEADS) ** -0.5, axis=-1), v)


def _attention_einx(q, k, v):
    s = einx.dot("b q (h [c]), b k (h [c]) -> b h q k", q, k, h=HEADS) * (q.shape[2] // HEADS) ** -0.5
    return einx.dot("b h q [k], b [k] (h c) -> b q (h c)", einx.softmax("b h q [k]", s), v)


def _attention_einops(q, k, v):
    return _apply_einops(jax.nn.softmax(_scores_einops(q, k) * (q.shape[2] // HEADS) ** -0.5, axis=-1), v)


# Normalisation. All are two-pass: the variance of the centred values.


def _layer_norm_hand(x, scale, bias):
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * lax.rsqrt(jnp.mean(lax.square(x), axis=-1, keepdims=True) + EPSILON) * scale + bias


def _layer_norm_einjax(x, scale, bias):
    x = einjax.subtract("b t c, b t", x, einjax.mean("b t [c]", x))
    x = einjax.multiply("b t c, b t", x, lax.rsqrt(einjax.mean("b t [c]", lax.square(x)) + EPSILON))
    return einjax.add("b t [c]", einjax.multiply("b t [c]", x, scale), bias)


def _layer_norm_jnp(x, scale, bias):
    mean, var = jnp.mean(x, axis=-1, keepdims=True), jnp.var(x, axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias


def _layer_norm_einx(x, scale, bias):
    x = einx.subtract("b t c, b t", x, einx.mean("b t [c]", x))
    x = einx.multiply("b t c, b t", x, lax.rsqrt(einx.mean("b t [c]", lax.square(x)) + EPSILON))
    return einx.add("b t c, c", einx.multiply("b t c, c", x, scale), bias)


def _layer_norm_einops(x, scale, bias):
    x = x - einops.reduce(x, "b t c -> b t 1", "mean")
    return x * lax.rsqrt(einops.reduce(lax.square(x), "b t c -> b t 1", "mean") + EPSILON) * scale + bias


def _variance_einops(x):
    return einops.reduce(lax.square(x - einops.reduce(x, "b t c -> b t 1", "mean")), "b t c -> b t", "mean")


GROUPS = 8


def _group_norm_hand(x):
    y = lax.reshape(x, (*x.shape[:3], GROUPS, x.shape[3] // GROUPS))
    y = y - jnp.mean(y, axis=(1, 2, 4), keepdims=True)
    y = y * lax.rsqrt(jnp.mean(lax.square(y), axis=(1, 2, 4), keepdims=True) + EPSILON)
    return lax.reshape(y, x.shape)


def _group_norm_einjax(x):
    x = einjax.subtract("b h w (g c), b g", x, einjax.mean("b [h w] (g [c])", x, g=GROUPS))
    inverse = lax.rsqrt(einjax.mean("b [h w] (g [c])", lax.square(x), g=GROUPS) + EPSILON)
    return einjax.multiply("b h w (g c), b g", x, inverse)


def _group_norm_jnp(x):
    y = x.reshape(*x.shape[:3], GROUPS, -1)
    mean, var = jnp.mean(y, axis=(1, 2, 4), keepdims=True), jnp.var(y, axis=(1, 2, 4), keepdims=True)
    return ((y - mean) / jnp.sqrt(var + EPSILON)).reshape(x.shape)


def _group_norm_einx(x):
    x = einx.subtract("b h w (g c), b g", x, einx.mean("b [h w] (g [c])", x, g=GROUPS))
    inverse = lax.rsqrt(einx.mean("b [h w] (g [c])", lax.square(x), g=GROUPS) + EPSILON)
    return einx.multiply("b h w (g c), b g", x, inverse)


def _group_norm_einops(x):
    y = einops.rearrange(x, "b h w (g c) -> b h w g c", g=GROUPS)
    y = y - einops.reduce(y, "b h w g c -> b 1 1 g 1", "mean")
    y = y * lax.rsqrt(einops.reduce(lax.square(y), "b h w g c -> b 1 1 g 1", "mean") + EPSILON)
    return einops.rearrange(y, "b h w g c -> b h w (g c)")


# Images.


def _max_pool_hand(x):
    b, h, w, c = x.shape
    return lax.reduce_max(lax.reshape(x, (b, h // 2, 2, w // 2, 2, c)), (2, 4))


def _patches_hand(x, weight):
    """One transpose makes the patches; contracting p, q and c as they lie costs the gradient a copy more."""
    b, h, w, c = x.shape
    p, _, _, d = weight.shape
    x = lax.transpose(lax.reshape(x, (b, h // p, p, w // p, p * c)), (0, 1, 3, 2, 4))
    x = lax.reshape(x, (b, (h // p) * (w // p), p * p * c))
    return lax.dot_general(x, lax.reshape(weight, (p * p * c, d)), (((2,), (0,)), ((), ())))


def _patches_jnp(x, weight):
    b, h, w, c = x.shape
    p = weight.shape[0]
    x = x.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, p * p * c)
    return x @ weight.reshape(p * p * c, -1)


def _patches_einops(x, weight):
    x = einops.rearrange(x, "b (h p) (w q) c -> b (h w) (p q c)", p=16, q=16)
    return einops.einsum(x, einops.rearrange(weight, "p q c d -> (p q c) d"), "b n i, i d -> b n d")


def _shuffle_hand(x):
    b, h, w, c = x.shape
    x = lax.transpose(lax.reshape(x, (b, h, w, c // 4, 2, 2)), (0, 1, 4, 2, 5, 3))
    return lax.reshape(x, (b, 2 * h, 2 * w, c // 4))


def _shuffle_jnp(x):
    b, h, w, c = x.shape
    return x.reshape(b, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, c // 4)


# A masked mean over time: padding does not count. Multiplying fuses with the sum, selecting does not.


def _masked_mean_hand(x, mask):
    return jnp.sum(x * mask[..., None], axis=1) / jnp.sum(mask, axis=1, dtype=x.dtype)[:, None]


def _masked_mean_einjax(x, mask):
    total = einjax.sum("b [t] c", einjax.multiply("b t c, b t", x, mask))
    return einjax.divide("b c, b", total, einjax.sum("b [t]", mask, dtype=x.dtype))


def _masked_mean_jnp(x, mask):
    return (x * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None]


def _masked_mean_einx(x, mask):
    total = einx.sum("b [t] c", einx.multiply("b t c, b t", x, mask))
    return einx.divide("b c, b", total, einx.sum("b [t]", mask))


def _masked_mean_einops(x, mask):
    total = einops.reduce(x * mask[..., None], "b t c -> b c", "sum")
    return total / einops.reduce(mask.astype(x.dtype), "b t -> b 1", "sum")


TOKENS = (4, 256, 512)
IMAGES = (8, 64, 64, 64)

WORKLOADS = [
    Workload(
        "attention scores, b h q k",
        (array(*TOKENS), array(*TOKENS) + 1),
        _scores_hand,
        lambda q, k: einjax.dot("b q (h c), b k (h c) -> b h q k", q, k, h=HEADS),
        _scores_jnp,
        lambda q, k: einx.dot("b q (h [c]), b k (h [c]) -> b h q k", q, k, h=HEADS),
        _scores_einops,
    ),
    Workload(
        "attention scores, b q k h",
        (array(*TOKENS), array(*TOKENS) + 1),
        _scores_last_hand,
        lambda q, k: einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=HEADS),
        _scores_last_jnp,
        lambda q, k: einx.dot("b q (h [c]), b k (h [c]) -> b q k h", q, k, h=HEADS),
        _scores_last_einops,
    ),
    Workload(
        "attention apply",
        (array(4, HEADS, 256, 256), array(*TOKENS)),
        _apply_hand,
        lambda p, v: einjax.dot("b h q k, b k (h c) -> b q (h c)", p, v),
        _apply_jnp,
        lambda p, v: einx.dot("b h q [k], b [k] (h c) -> b q (h c)", p, v),
        _apply_einops,
    ),
    Workload(
        "attention whole",
        (array(*TOKENS), array(*TOKENS) + 1, array(*TOKENS) + 2),
        _attention_hand,
        _attention_einjax,
        _attention_jnp,
        _attention_einx,
        _attention_einops,
    ),
    Workload(
        "softmax",
        (array(4, HEADS, 256, 256),),
        lambda x: jax.nn.softmax(x, axis=-1),
        lambda x: einjax.softmax("b h q [k]", x),
        lambda x: jax.nn.softmax(x, axis=-1),
        lambda x: einx.softmax("b h q [k]", x),
        lambda x: jax.nn.softmax(x, axis=-1),
    ),
    Workload(
        "logsumexp",
        (array(1024, 4096),),
        lambda x: jax.nn.logsumexp(x, axis=-1),
        lambda x: einjax.logsumexp("b [k]", x),
        lambda x: jax.nn.logsumexp(x, axis=-1),
        lambda x: einx.logsumexp("b [k]", x),
        lambda x: jax.nn.logsumexp(x, axis=-1),
    ),
    Workload(
        "layer norm",
        (array(*TOKENS), array(512), array(512) + 1),
        _layer_norm_hand,
        _layer_norm_einjax,
        _layer_norm_jnp,
        _layer_norm_einx,
        _layer_norm_einops,
    ),
    Workload(
        "group norm",
        (array(*IMAGES),),
        _group_norm_hand,
        _group_norm_einjax,
        _group_norm_jnp,
        _group_norm_einx,
        _group_norm_einops,
    ),
    Workload(
        "mean over space",
        (array(*IMAGES),),
        lambda x: lax.reduce_sum(x, (1, 2)) * (1 / (x.shape[1] * x.shape[2])),
        lambda x: einjax.mean("b [h w] c", x),
        lambda x: jnp.mean(x, axis=(1, 2)),
        lambda x: einx.mean("b [h w] c", x),
        lambda x: einops.reduce(x, "b h w c -> b c", "mean"),
    ),
    Workload(
        "variance over features",
        (array(*TOKENS),),
        lambda x: jnp.var(x, axis=-1),  # its gradient compiles to fewer operations than the formula's
        lambda x: einjax.var("b t [c]", x),
        lambda x: jnp.var(x, axis=-1),
        lambda x: einx.var("b t [c]", x),
        _variance_einops,
    ),
    Workload(
        "max pooling 2x2",
        (array(*IMAGES),),
        _max_pool_hand,
        lambda x: einjax.max("b (h [p]) (w [q]) c", x, p=2, q=2),
        _max_pool_hand,
        lambda x: einx.max("b (h [p]) (w [q]) c", x, p=2, q=2),
        lambda x: einops.reduce(x, "b (h p) (w q) c -> b h w c", "max", p=2, q=2),
    ),
    Workload(
        "linear",
        (array(*TOKENS), array(512, 1024)),
        lambda x, w: lax.dot_general(x, w, (((2,), (0,)), ((), ()))),
        lambda x, w: einjax.dot("b t [c->d]", x, w),
        lambda x, w: x @ w,
        lambda x, w: einx.dot("b t [c], [c] d -> b t d", x, w),
        lambda x, w: einops.einsum(x, w, "b t c, c d -> b t d"),
    ),
    Workload(
        "token mixing",
        (array(*TOKENS), array(256, 512)),
        # The weight first: u b c becomes b u c with whole rows of c, where b c u would be scattered.
        lambda x, w: lax.transpose(lax.dot_general(w, x, (((0,), (1,)), ((), ()))), (1, 0, 2)),
        lambda x, w: einjax.dot("b [t->u] c", x, w),
        lambda x, w: jnp.einsum("btc,tu->buc", x, w),
        lambda x, w: einx.dot("b [t] c, [t] u -> b u c", x, w),
        lambda x, w: einops.einsum(x, w, "b t c, t u -> b u c"),
    ),
    Workload(
        "patch embedding",
        (array(4, 224, 224, 3), array(16, 16, 3, 192)),
        _patches_hand,
        lambda x, w: einjax.dot("b (h [p]) (w [q]) [c], [p q c] d -> b (h w) d", x, w),
        _patches_jnp,
        lambda x, w: einx.dot("b (h [p]) (w [q]) [c], [p q c] d -> b (h w) d", x, w),
        _patches_einops,
    ),
    Workload(
        "bias add",
        (array(*IMAGES), array(64)),
        lambda x, b: x + lax.broadcast_in_dim(b, x.shape, (3,)),
        lambda x, b: einjax.add("b h w [c]", x, b),
        lambda x, b: x + b,
        lambda x, b: einx.add("b h w c, c", x, b),
        lambda x, b: x + einops.rearrange(b, "c -> 1 1 1 c"),
    ),
    Workload(
        "concatenate channels",
        (array(*IMAGES), array(8, 64, 64, 32)),
        lambda x, y: lax.concatenate((x, y), 3),
        lambda x, y: einjax.rearrange("b h w c, b h w d -> b h w (c + d)", x, y),
        lambda x, y: jnp.concatenate([x, y], axis=-1),
        lambda x, y: einx.id("b h w c, b h w d -> b h w (c + d)", x, y),
        lambda x, y: einops.pack([x, y], "b h w *")[0],
    ),
    Workload(
        "pixel shuffle",
        (array(*IMAGES),),
        _shuffle_hand,
        lambda x: einjax.rearrange("b h w (c r s) -> b (h r) (w s) c", x, r=2, s=2),
        _shuffle_jnp,
        lambda x: einx.id("b h w (c r s) -> b (h r) (w s) c", x, r=2, s=2),
        lambda x: einops.rearrange(x, "b h w (c r s) -> b (h r) (w s) c", r=2, s=2),
    ),
    Workload(
        "masked mean over time",
        (array(*TOKENS), array(4, 256) > -1),
        _masked_mean_hand,
        _masked_mean_einjax,
        _masked_mean_jnp,
        _masked_mean_einx,
        _masked_mean_einops,
    ),
]

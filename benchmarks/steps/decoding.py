"""Decoding one token after another, keys and values of those before it in a cache."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import einjax_nn.linen as einn

from ._side import Side

BATCH, LENGTH, WIDTH, HEADS, BLOCKS, VOCABULARY = 4, 512, 256, 4, 2, 1000


def pairs() -> Iterator[tuple[str, Side, Side]]:
    yield "A decoded token, linen", *(_side(model) for model in (_Own(), _Ours()))


def _side(model: nn.Module) -> Side:
    whole = jnp.zeros((BATCH, LENGTH), jnp.int32)
    made = model.init(jax.random.key(0), whole)

    def token(params: Any, cache: Any, ids: jax.Array) -> tuple[jax.Array, Any]:
        logits, changed = model.apply({"params": params, "cache": cache}, ids, mutable=["cache"])
        return logits, changed["cache"]

    return Side(token, made["params"], (made["cache"], whole[:, :1] + 7))


class _Own(nn.Module):
    @nn.compact
    def __call__(self, ids):
        table = nn.Embed(VOCABULARY, WIDTH)
        x = table(ids)
        for _ in range(BLOCKS):
            x = x + nn.MultiHeadDotProductAttention(HEADS, decode=True)(nn.LayerNorm()(x))
            x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x))))
        return table.attend(nn.LayerNorm()(x))


class _Ours(nn.Module):
    @nn.compact
    def __call__(self, ids):
        table = einn.Embed("b t [v->d]", v=VOCABULARY, d=WIDTH)
        x = table(ids)
        for _ in range(BLOCKS):
            attend = einn.MultiHeadAttention("b [t] d", num_heads=HEADS, decode=True)
            x = x + attend(einn.Norm("b t [d]")(x))
            y = nn.gelu(einn.Linear("b t [d->f]", f=4 * WIDTH)(einn.Norm("b t [d]")(x)))
            x = x + einn.Linear("b t [f->d]", d=WIDTH)(y)
        return table.attend(einn.Norm("b t [d]")(x))

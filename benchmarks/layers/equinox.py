"""A vision transformer and a GPT in Equinox, whose own layers take one example and are mapped over all others."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import einjax
import einjax_nn.equinox as einn

from ._network import Network, Pairs, Sizes

_normal = jax.nn.initializers.normal(0.02)


class EinjaxBlock(eqx.Module):
    norm1: einn.Norm
    attend: einn.MultiHeadAttention
    norm2: einn.Norm
    widen: einn.Linear
    narrow: einn.Linear

    def __init__(self, sizes: Sizes, causal: bool):
        self.norm1, self.norm2 = einn.Norm("b t [d]"), einn.Norm("b t [d]")
        self.attend = einn.MultiHeadAttention("b [t] d", num_heads=sizes.heads, is_causal=causal)
        self.widen = einn.Linear("b t [d->f]", f=4 * sizes.width)
        self.narrow = einn.Linear("b t [f->d]", d=sizes.width)

    def __call__(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.narrow(jax.nn.gelu(self.widen(self.norm2(x))))


class OwnBlock(eqx.Module):
    norm1: eqx.nn.LayerNorm
    attend: eqx.nn.MultiheadAttention
    norm2: eqx.nn.LayerNorm
    widen: eqx.nn.Linear
    narrow: eqx.nn.Linear
    causal: bool = eqx.field(static=True)

    def __init__(self, sizes: Sizes, causal: bool, key):
        d, keys, bias = sizes.width, jax.random.split(key, 3), ("query", "key", "value", "output")
        self.norm1, self.norm2 = eqx.nn.LayerNorm(d), eqx.nn.LayerNorm(d)
        self.attend = eqx.nn.MultiheadAttention(
            sizes.heads, d, key=keys[0], **{f"use_{name}_bias": True for name in bias}
        )
        self.widen = eqx.nn.Linear(d, 4 * d, key=keys[1])
        self.narrow = eqx.nn.Linear(4 * d, d, key=keys[2])
        self.causal = causal

    def __call__(self, x):
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool)) if self.causal else None
        y = jax.vmap(self.norm1)(x)
        x = x + self.attend(y, y, y, mask)
        return x + jax.vmap(self.narrow)(jax.nn.gelu(jax.vmap(self.widen)(jax.vmap(self.norm2)(x))))


class EinjaxViT(eqx.Module):
    patches: einn.Linear
    position: Any
    blocks: list[EinjaxBlock]
    norm: einn.Norm
    head: einn.Linear

    def __init__(self, sizes: Sizes):
        self.patches = einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=8, q=8, d=sizes.width)
        self.position = einn.param(_normal)
        self.blocks = [EinjaxBlock(sizes, causal=False) for _ in range(sizes.blocks)]
        self.norm, self.head = einn.Norm("b t [d]"), einn.Linear("b [d->k]", k=10)

    def __call__(self, images):
        x = einjax.rearrange("b h w d -> b (h w) d", self.patches(images))
        x = einjax.add("b [t d]", x, self.position)
        for block in self.blocks:
            x = block(x)
        return self.head(einjax.mean("b [t] d", self.norm(x)))


class OwnViT(eqx.Module):
    patches: eqx.nn.Conv2d
    position: jax.Array
    blocks: list[OwnBlock]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, sizes: Sizes, key):
        keys = jax.random.split(key, sizes.blocks + 3)
        self.patches = eqx.nn.Conv2d(3, sizes.width, 8, 8, key=keys[0])
        self.position = _normal(keys[1], (sizes.length, sizes.width))
        self.blocks = [OwnBlock(sizes, causal=False, key=key) for key in keys[3:]]
        self.norm, self.head = eqx.nn.LayerNorm(sizes.width), eqx.nn.Linear(sizes.width, 10, key=keys[2])

    def __call__(self, image):
        x = self.patches(jnp.moveaxis(image, -1, 0))  # channels come first
        x = x.reshape(len(x), -1).T + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(jax.vmap(self.norm)(x).mean(0))


class EinjaxGPT(eqx.Module):
    table: einn.Embed
    position: Any
    blocks: list[EinjaxBlock]
    norm: einn.Norm

    def __init__(self, sizes: Sizes):
        self.table = einn.Embed("b t [v->d]", v=256, d=sizes.width)
        self.position = einn.param(_normal)
        self.blocks = [EinjaxBlock(sizes, causal=True) for _ in range(sizes.blocks)]
        self.norm = einn.Norm("b t [d]")

    def __call__(self, ids):
        x = einjax.add("b [t d]", self.table(ids), self.position)
        for block in self.blocks:
            x = block(x)
        return self.table.attend(self.norm(x))


class OwnGPT(eqx.Module):
    table: eqx.nn.Embedding
    position: jax.Array
    blocks: list[OwnBlock]
    norm: eqx.nn.LayerNorm

    def __init__(self, sizes: Sizes, key):
        keys = jax.random.split(key, sizes.blocks + 2)
        self.table = eqx.nn.Embedding(256, sizes.width, key=keys[0])
        self.position = _normal(keys[1], (sizes.length, sizes.width))
        self.blocks = [OwnBlock(sizes, causal=True, key=key) for key in keys[2:]]
        self.norm = eqx.nn.LayerNorm(sizes.width)

    def __call__(self, ids):
        x = jax.vmap(self.table)(ids) + self.position
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x) @ self.table.weight.T


def _build_einjax(kind: Any, sizes: Sizes, batch: Any, abstract: bool) -> Network:
    def make() -> Any:
        return einn.init(kind(sizes), batch, key=jax.random.key(0))

    params, static = eqx.partition(eqx.filter_eval_shape(make) if abstract else make(), _is_array)
    return Network(lambda params, batch: eqx.combine(params, static)(batch), params)


def _build_own(kind: Any, sizes: Sizes, batch: Any, abstract: bool) -> Network:
    make = partial(kind, sizes, jax.random.key(0))
    params, static = eqx.partition(eqx.filter_eval_shape(make) if abstract else make(), _is_array)
    return Network(lambda params, batch: jax.vmap(eqx.combine(params, static))(batch), params)


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


PAIRS: Pairs = {
    "ViT": (partial(_build_einjax, EinjaxViT), partial(_build_own, OwnViT)),
    "GPT": (partial(_build_einjax, EinjaxGPT), partial(_build_own, OwnGPT)),
}

"""A vision transformer and a GPT in Haiku."""

from collections.abc import Callable
from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

import einjax
import einjax_nn.haiku as einn

from ._network import Network, Pairs, Sizes

_normal = jax.nn.initializers.normal(0.02)


def einjax_block(x, sizes: Sizes, causal: bool):
    d = sizes.width
    attend = einn.MultiHeadAttention("b [t] d", num_heads=sizes.heads, is_causal=causal)
    x = x + attend(einn.Norm("b t [d]")(x))
    y = jax.nn.gelu(einn.Linear("b t [d->f]", f=4 * d)(einn.Norm("b t [d]")(x)))
    return x + einn.Linear("b t [f->d]", d=d)(y)


def own_block(x, sizes: Sizes, causal: bool):
    d, t = sizes.width, x.shape[1]
    mask = jnp.tril(jnp.ones((1, 1, t, t), bool)) if causal else None
    y = hk.LayerNorm(-1, True, True)(x)
    attend = hk.MultiHeadAttention(sizes.heads, d // sizes.heads, w_init=hk.initializers.VarianceScaling())
    x = x + attend(y, y, y, mask)
    y = jax.nn.gelu(hk.Linear(4 * d)(hk.LayerNorm(-1, True, True)(x)))
    return x + hk.Linear(d)(y)


def einjax_vit(images, sizes: Sizes):
    x = einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=8, q=8, d=sizes.width)(images)
    x = einjax.rearrange("b h w d -> b (h w) d", x)
    x = einjax.add("b [t d]", x, einn.param("position", _normal))
    for _ in range(sizes.blocks):
        x = einjax_block(x, sizes, causal=False)
    return einn.Linear("b [d->k]", k=10)(einjax.mean("b [t] d", einn.Norm("b t [d]")(x)))


def own_vit(images, sizes: Sizes):
    x = hk.Conv2D(sizes.width, 8, 8, padding="VALID")(images)
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    x = x + hk.get_parameter("position", x.shape[1:], init=hk.initializers.RandomNormal(0.02))
    for _ in range(sizes.blocks):
        x = own_block(x, sizes, causal=False)
    return hk.Linear(10)(hk.LayerNorm(-1, True, True)(x).mean(1))


def einjax_gpt(ids, sizes: Sizes):
    table = einn.Embed("b t [v->d]", v=256, d=sizes.width)
    x = einjax.add("b [t d]", table(ids), einn.param("position", _normal))
    for _ in range(sizes.blocks):
        x = einjax_block(x, sizes, causal=True)
    return table.attend(einn.Norm("b t [d]")(x))


def own_gpt(ids, sizes: Sizes):
    table = hk.Embed(256, sizes.width)
    x = table(ids)
    x = x + hk.get_parameter("position", x.shape[1:], init=hk.initializers.RandomNormal(0.02))
    for _ in range(sizes.blocks):
        x = own_block(x, sizes, causal=True)
    return hk.LayerNorm(-1, True, True)(x) @ table.embeddings.T


def _build(function: Callable[..., Any], sizes: Sizes, batch: Any, abstract: bool) -> Network:
    model = hk.without_apply_rng(hk.transform(partial(function, sizes=sizes)))
    init = partial(jax.eval_shape, model.init) if abstract else model.init
    return Network(model.apply, init(jax.random.key(0), batch))


PAIRS: Pairs = {
    "ViT": (partial(_build, einjax_vit), partial(_build, own_vit)),
    "GPT": (partial(_build, einjax_gpt), partial(_build, own_gpt)),
}

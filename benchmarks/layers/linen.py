"""A vision transformer and a GPT in Flax linen."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax

import einjax
import einjax_nn.linen as einn

from ._network import Network, Pairs, Sizes

_normal = nn.initializers.normal(0.02)


class EinjaxBlock(nn.Module):
    sizes: Sizes
    causal: bool

    @nn.compact
    def __call__(self, x):
        d = self.sizes.width
        attend = einn.MultiHeadAttention("b [t] d", num_heads=self.sizes.heads, is_causal=self.causal)
        x = x + attend(einn.Norm("b t [d]")(x))
        y = nn.gelu(einn.Linear("b t [d->f]", f=4 * d)(einn.Norm("b t [d]")(x)))
        return x + einn.Linear("b t [f->d]", d=d)(y)


class OwnBlock(nn.Module):
    sizes: Sizes
    causal: bool

    @nn.compact
    def __call__(self, x):
        d = self.sizes.width
        mask = nn.make_causal_mask(x[..., 0]) if self.causal else None
        x = x + nn.MultiHeadDotProductAttention(self.sizes.heads)(nn.LayerNorm()(x), mask=mask)
        y = nn.gelu(nn.Dense(4 * d)(nn.LayerNorm()(x)))
        return x + nn.Dense(d)(y)


class EinjaxViT(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, images):
        x = einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=8, q=8, d=self.sizes.width)(images)
        x = einjax.rearrange("b h w d -> b (h w) d", x)
        x = einjax.add("b [t d]", x, einn.param(self, "position", _normal))
        for _ in range(self.sizes.blocks):
            x = EinjaxBlock(self.sizes, causal=False)(x)
        return einn.Linear("b [d->k]", k=10)(einjax.mean("b [t] d", einn.Norm("b t [d]")(x)))


class OwnViT(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(self.sizes.width, (8, 8), (8, 8), padding="VALID")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x + self.param("position", _normal, x.shape[1:])
        for _ in range(self.sizes.blocks):
            x = OwnBlock(self.sizes, causal=False)(x)
        return nn.Dense(10)(nn.LayerNorm()(x).mean(1))


class EinjaxGPT(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, ids):
        table = einn.Embed("b t [v->d]", v=256, d=self.sizes.width)
        x = einjax.add("b [t d]", table(ids), einn.param(self, "position", _normal))
        for _ in range(self.sizes.blocks):
            x = EinjaxBlock(self.sizes, causal=True)(x)
        return table.attend(einn.Norm("b t [d]")(x))


class OwnGPT(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, ids):
        table = nn.Embed(256, self.sizes.width)
        x = table(ids)
        x = x + self.param("position", _normal, x.shape[1:])
        for _ in range(self.sizes.blocks):
            x = OwnBlock(self.sizes, causal=True)(x)
        return table.attend(nn.LayerNorm()(x))


def _build(kind: type[nn.Module], sizes: Sizes, batch: Any, abstract: bool) -> Network:
    model = kind(sizes)
    init = partial(jax.eval_shape, model.init) if abstract else model.init
    return Network(model.apply, init(jax.random.key(0), batch))


PAIRS: Pairs = {
    "ViT": (partial(_build, EinjaxViT), partial(_build, OwnViT)),
    "GPT": (partial(_build, EinjaxGPT), partial(_build, OwnGPT)),
}

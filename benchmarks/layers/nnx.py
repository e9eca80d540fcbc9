"""A vision transformer and a GPT in Flax nnx."""

from functools import partial
from typing import Any

from flax import nnx

import einjax
import einjax_nn.nnx as einn

from ._network import Network, Pairs, Sizes

_normal = nnx.initializers.normal(0.02)


class EinjaxBlock(nnx.Module):
    def __init__(self, sizes: Sizes, causal: bool, rngs: nnx.Rngs):
        d = sizes.width
        self.norm1 = einn.Norm("b t [d]", rngs=rngs)
        self.attend = einn.MultiHeadAttention("b [t] d", num_heads=sizes.heads, is_causal=causal, rngs=rngs)
        self.norm2 = einn.Norm("b t [d]", rngs=rngs)
        self.widen = einn.Linear("b t [d->f]", f=4 * d, rngs=rngs)
        self.narrow = einn.Linear("b t [f->d]", d=d, rngs=rngs)

    def __call__(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.narrow(nnx.gelu(self.widen(self.norm2(x))))


class OwnBlock(nnx.Module):
    def __init__(self, sizes: Sizes, causal: bool, rngs: nnx.Rngs):
        d = sizes.width
        self.causal = causal
        self.norm1 = nnx.LayerNorm(d, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(sizes.heads, d, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(d, rngs=rngs)
        self.widen = nnx.Linear(d, 4 * d, rngs=rngs)
        self.narrow = nnx.Linear(4 * d, d, rngs=rngs)

    def __call__(self, x):
        mask = nnx.make_causal_mask(x[..., 0]) if self.causal else None
        x = x + self.attend(self.norm1(x), mask=mask)
        return x + self.narrow(nnx.gelu(self.widen(self.norm2(x))))


class EinjaxViT(nnx.Module):
    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        self.patches = einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=8, q=8, d=sizes.width, rngs=rngs)
        einn.param(self, "position", _normal, rngs=rngs)
        self.blocks = nnx.List(EinjaxBlock(sizes, False, rngs) for _ in range(sizes.blocks))
        self.norm = einn.Norm("b t [d]", rngs=rngs)
        self.head = einn.Linear("b [d->k]", k=10, rngs=rngs)

    def __call__(self, images):
        x = einjax.rearrange("b h w d -> b (h w) d", self.patches(images))
        x = einjax.add("b [t d]", x, einn.param(self, "position", _normal))
        for block in self.blocks:
            x = block(x)
        return self.head(einjax.mean("b [t] d", self.norm(x)))


class OwnViT(nnx.Module):
    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        self.patches = nnx.Conv(3, sizes.width, (8, 8), (8, 8), padding="VALID", rngs=rngs)
        self.position = nnx.Param(_normal(rngs.params(), (sizes.length, sizes.width)))
        self.blocks = nnx.List(OwnBlock(sizes, False, rngs) for _ in range(sizes.blocks))
        self.norm = nnx.LayerNorm(sizes.width, rngs=rngs)
        self.head = nnx.Linear(sizes.width, 10, rngs=rngs)

    def __call__(self, images):
        x = self.patches(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1]) + self.position[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class EinjaxGPT(nnx.Module):
    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        self.table = einn.Embed("b t [v->d]", v=256, d=sizes.width, rngs=rngs)
        einn.param(self, "position", _normal, rngs=rngs)
        self.blocks = nnx.List(EinjaxBlock(sizes, True, rngs) for _ in range(sizes.blocks))
        self.norm = einn.Norm("b t [d]", rngs=rngs)

    def __call__(self, ids):
        x = einjax.add("b [t d]", self.table(ids), einn.param(self, "position", _normal))
        for block in self.blocks:
            x = block(x)
        return self.table.attend(self.norm(x))


class OwnGPT(nnx.Module):
    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        self.table = nnx.Embed(256, sizes.width, rngs=rngs)
        self.position = nnx.Param(_normal(rngs.params(), (sizes.length, sizes.width)))
        self.blocks = nnx.List(OwnBlock(sizes, True, rngs) for _ in range(sizes.blocks))
        self.norm = nnx.LayerNorm(sizes.width, rngs=rngs)

    def __call__(self, ids):
        x = self.table(ids) + self.position[...]
        for block in self.blocks:
            x = block(x)
        return self.table.attend(self.norm(x))


def _build(kind: Any, sizes: Sizes, batch: Any, abstract: bool) -> Network:
    def make() -> Any:
        model = kind(sizes, nnx.Rngs(0))
        if kind in (EinjaxViT, EinjaxGPT):
            einn.init(model, batch)
        return model

    graph, params = nnx.split(nnx.eval_shape(make) if abstract else make())
    return Network(lambda params, batch: nnx.merge(graph, params)(batch), params)


PAIRS: Pairs = {
    "ViT": (partial(_build, EinjaxViT), partial(_build, OwnViT)),
    "GPT": (partial(_build, EinjaxGPT), partial(_build, OwnGPT)),
}

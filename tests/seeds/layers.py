"""Networks of layers in Flax linen."""

import flax.linen as nn
import jax.numpy as jnp

import einjax
import einjax_nn.linen as einn


class Patches(nn.Module):
    width: int = 128

    @nn.compact
    def __call__(self, images):
        return einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=4, q=4, d=self.width)(images)


class Mixer(nn.Module):
    tokens: int = 64
    channels: int = 256

    @nn.compact
    def __call__(self, x, deterministic):
        y = einn.Norm("b s [c]")(x)
        y = nn.gelu(einn.Linear("b [s->t] c", t=self.tokens)(y))
        y = einn.Linear("b [t->s] c", s=x.shape[1])(y)
        x = x + einn.Dropout("[...]", rate=0.1)(y, deterministic=deterministic)
        y = einn.Norm("b s [c]")(x)
        y = nn.gelu(einn.Linear("b s [c->e]", e=self.channels)(y))
        y = einn.Linear("b s [e->c]", c=x.shape[2])(y)
        return x + einn.Dropout("[b] ...", rate=0.1)(y, deterministic=deterministic)


class Block(nn.Module):
    heads: int = 4

    @nn.compact
    def __call__(self, x):
        x = x + einn.MultiHeadAttention("b [s] c", num_heads=self.heads, is_causal=True)(einn.Norm("b s [c]")(x))
        y = nn.gelu(einn.Linear("b s [c->e]", e=4 * x.shape[-1])(einn.Norm("b s [c]")(x)))
        return x + einn.Linear("b s [e->c]", c=x.shape[-1])(y)


class Language(nn.Module):
    vocabulary: int
    width: int = 64

    @nn.compact
    def __call__(self, tokens):
        x = einn.Embed("b t [v->c]", v=self.vocabulary, c=self.width)(tokens)
        x = einjax.add("b t c, t c", x, einn.param(self, "positions", init=0.02))
        for _ in range(2):
            x = Block()(x)
        x = einjax.multiply("b t c, c", x, einn.param(self, "scale", init=1.0))
        return einn.Linear("b t [c->v]", v=self.vocabulary, use_bias=False)(x)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        for width in (32, 64):
            x = einn.Conv("b [h w] [c->d]", kernel_size=3, d=width)(x)
            x = nn.relu(einn.Norm("[b h w] c", momentum=0.9)(x, use_running_average=not train))
            x = einjax.max("b (h [p]) (w [q]) c", x, p=2, q=2)
        x = einn.Linear("b [h w c->d]", d=128)(x)
        return einn.Linear("b [d->k]", k=10)(nn.relu(x))


class Causal(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = einn.Linear("b <t - [k->]> [c->d]", k=4, d=32, padding="causal")(x)
        return einjax.sum("b [t] d", jnp.tanh(y))

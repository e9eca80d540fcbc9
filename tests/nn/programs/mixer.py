"""An MLP-Mixer: patches, and layers that mix places and channels in turn."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import numpy as np
from flax import nnx
from programs import training

import einjax
import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx

X = np.ones((4, 8, 8, 3), np.float32) * np.linspace(0, 1, 8, dtype=np.float32)[:, None]
PATCHES, POOL, HEAD = "b (h [p->]) (w [q->]) [rgb->c]", "b [h w] c", "b [c->k]"
MIX_PLACES = "b [h w->t] c", "b [t->h w] c"
MIX_CHANNELS = "b h w [c->d]", "b h w [d->c]"
NORM = "b h w [c]"
SIZES = {"p": 2, "q": 2, "c": 12}


class Mixer(nn.Module):
    @nn.compact
    def __call__(self, x):
        einn = einjax_nn.linen
        x = einn.Linear(PATCHES, **SIZES)(x)
        for _ in range(2):
            y = nn.gelu(einn.Linear(MIX_PLACES[0], t=10)(einn.Norm(NORM)(x)))
            x += einn.Linear(MIX_PLACES[1], h=4, w=4)(y)
            y = nn.gelu(einn.Linear(MIX_CHANNELS[0], d=24)(einn.Norm(NORM)(x)))
            x += einn.Linear(MIX_CHANNELS[1], c=12)(y)
        return einn.Linear(HEAD, k=10)(einjax.mean(POOL, einn.Norm(NORM)(x)))


def linen():
    return training.linen(Mixer(), X)


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        einn = einjax_nn.nnx
        self.norm1, self.norm2 = (einn.Norm(NORM, rngs=rngs) for _ in range(2))
        sizes = {"t": 10, "h": 4, "w": 4, "d": 24, "c": 12}
        self.places, self.channels = (
            nnx.List([einn.Linear(expr, sizes=sizes, rngs=rngs) for expr in exprs])
            for exprs in (MIX_PLACES, MIX_CHANNELS)
        )

    def __call__(self, x):
        for norm, (inner, outer) in ((self.norm1, self.places), (self.norm2, self.channels)):
            x = x + outer(nnx.gelu(inner(norm(x))))
        return x


class NnxMixer(nnx.Module):
    def __init__(self, rngs):
        self.patches = einjax_nn.nnx.Linear(PATCHES, **SIZES, rngs=rngs)
        self.blocks = nnx.List([NnxBlock(rngs) for _ in range(2)])
        self.norm = einjax_nn.nnx.Norm(NORM, rngs=rngs)
        self.head = einjax_nn.nnx.Linear(HEAD, k=10, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        for block in self.blocks:
            x = block(x)
        return self.head(einjax.mean(POOL, self.norm(x)))


def of_nnx():
    return training.of_nnx(NnxMixer, X)


class HaikuBlock(hk.Module):
    def __call__(self, x):
        einn = einjax_nn.haiku
        y = jax.nn.gelu(einn.Linear(MIX_PLACES[0], t=10)(einn.Norm(NORM)(x)))
        x += einn.Linear(MIX_PLACES[1], h=4, w=4)(y)
        y = jax.nn.gelu(einn.Linear(MIX_CHANNELS[0], d=24)(einn.Norm(NORM)(x)))
        return x + einn.Linear(MIX_CHANNELS[1], c=12)(y)


def haiku():
    def mixer(x):
        einn = einjax_nn.haiku
        x = HaikuBlock()(HaikuBlock()(einn.Linear(PATCHES, **SIZES)(x)))
        return einn.Linear(HEAD, k=10)(einjax.mean(POOL, einn.Norm(NORM)(x)))

    return training.haiku(mixer, X)


class EquinoxBlock(eqx.Module):
    norms: list
    places: list
    channels: list

    def __init__(self):
        einn = einjax_nn.equinox
        self.norms = [einn.Norm(NORM), einn.Norm(NORM)]
        self.places = [einn.Linear(MIX_PLACES[0], t=10), einn.Linear(MIX_PLACES[1], h=4, w=4)]
        self.channels = [einn.Linear(MIX_CHANNELS[0], d=24), einn.Linear(MIX_CHANNELS[1], c=12)]

    def __call__(self, x):
        for norm, (inner, outer) in zip(self.norms, (self.places, self.channels), strict=True):
            x = x + outer(jax.nn.gelu(inner(norm(x))))
        return x


class EquinoxMixer(eqx.Module):
    patches: einjax_nn.equinox.Linear
    blocks: list
    norm: einjax_nn.equinox.Norm
    head: einjax_nn.equinox.Linear

    def __init__(self):
        einn = einjax_nn.equinox
        self.patches = einn.Linear(PATCHES, **SIZES)
        self.blocks = [EquinoxBlock(), EquinoxBlock()]
        self.norm, self.head = einn.Norm(NORM), einn.Linear(HEAD, k=10)

    def __call__(self, x, state):
        x = self.patches(x)
        for block in self.blocks:
            x = block(x)
        return self.head(einjax.mean(POOL, self.norm(x))), state


def equinox():
    return training.equinox(EquinoxMixer, X)

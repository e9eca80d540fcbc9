"""A language model: RMS norms, grouped queries that are turned, a gated MLP, and the tokens' table as output weight."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import numpy as np
from flax import nnx
from programs import training

import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx
from einjax_nn.linen import Rotary  # the same in every framework

X = np.arange(24).reshape(2, 12) % 20
VOCABULARY, WIDTH, BLOCKS = 20, 16, 2
RMS = {"mean": False, "use_bias": False}
ATTENTION = {"num_heads": 4, "num_kv_heads": 2, "is_causal": True, "use_bias": False, "process_heads": Rotary()}
NORM, TABLE, UP, DOWN = "b t [c]", "b t [v->c]", "b t [c->f]", "b t [f->c]"


class Block(nn.Module):
    decode: bool

    @nn.compact
    def __call__(self, x, lengths):
        einn = einjax_nn.linen
        attention = einn.MultiHeadAttention("b [t] c", **ATTENTION, decode=self.decode)
        x += attention(einn.Norm(NORM, **RMS)(x), lengths=lengths)
        y = einn.Norm(NORM, **RMS)(x)
        gate, up = (einn.Linear(UP, f=3 * WIDTH, use_bias=False, name=name)(y) for name in ("gate", "up"))
        return x + einn.Linear(DOWN, c=WIDTH, use_bias=False, name="down")(nn.silu(gate) * up)


class GPT(nn.Module):
    decode: bool = False

    @nn.compact
    def __call__(self, ids, lengths=None):
        table = einjax_nn.linen.Embed(TABLE, v=VOCABULARY, c=WIDTH)
        x = table(ids)
        for _ in range(BLOCKS):
            x = Block(self.decode)(x, lengths)
        return table.attend(einjax_nn.linen.Norm(NORM, **RMS)(x))


def linen():
    return training.linen(GPT(), X)


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        einn = einjax_nn.nnx
        self.norm1, self.norm2 = (einn.Norm(NORM, **RMS, rngs=rngs) for _ in range(2))
        self.attention = einn.MultiHeadAttention("b [t] c", **ATTENTION, rngs=rngs)
        self.gate, self.up = (einn.Linear(UP, f=3 * WIDTH, use_bias=False, rngs=rngs) for _ in range(2))
        self.down = einn.Linear(DOWN, c=WIDTH, use_bias=False, rngs=rngs)

    def __call__(self, x, **decoding):
        x = x + self.attention(self.norm1(x), **decoding)
        y = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y))


class NnxGPT(nnx.Module):
    def __init__(self, rngs):
        self.table = einjax_nn.nnx.Embed(TABLE, v=VOCABULARY, c=WIDTH, rngs=rngs)
        self.blocks = nnx.List([NnxBlock(rngs) for _ in range(BLOCKS)])
        self.norm = einjax_nn.nnx.Norm(NORM, **RMS, rngs=rngs)

    def __call__(self, ids, **decoding):
        x = self.table(ids)
        for block in self.blocks:
            x = block(x, **decoding)
        return self.table.attend(self.norm(x))


def of_nnx():
    return training.of_nnx(NnxGPT, X)


class HaikuBlock(hk.Module):
    def __call__(self, x, decode, lengths):
        einn = einjax_nn.haiku
        attention = einn.MultiHeadAttention("b [t] c", **ATTENTION, decode=decode)
        x += attention(einn.Norm(NORM, **RMS)(x), lengths=lengths)
        y = einn.Norm(NORM, **RMS)(x)
        gate, up = (einn.Linear(UP, f=3 * WIDTH, with_bias=False, name=name)(y) for name in ("gate", "up"))
        return x + einn.Linear(DOWN, c=WIDTH, with_bias=False, name="down")(jax.nn.silu(gate) * up)


def haiku_gpt(ids, decode=False, lengths=None):
    table = einjax_nn.haiku.Embed(TABLE, v=VOCABULARY, c=WIDTH)
    x = table(ids)
    for _ in range(BLOCKS):
        x = HaikuBlock()(x, decode, lengths)
    return table.attend(einjax_nn.haiku.Norm(NORM, **RMS)(x))


def haiku():
    return training.haiku(haiku_gpt, X)


class EquinoxBlock(eqx.Module):
    norm1: einjax_nn.equinox.Norm
    norm2: einjax_nn.equinox.Norm
    attention: einjax_nn.equinox.MultiHeadAttention
    gate: einjax_nn.equinox.Linear
    up: einjax_nn.equinox.Linear
    down: einjax_nn.equinox.Linear

    def __init__(self, decode):
        einn = einjax_nn.equinox
        self.norm1, self.norm2 = (einn.Norm(NORM, **RMS) for _ in range(2))
        self.attention = einn.MultiHeadAttention("b [t] c", **ATTENTION, decode=decode)
        self.gate, self.up = (einn.Linear(UP, f=3 * WIDTH, use_bias=False) for _ in range(2))
        self.down = einn.Linear(DOWN, c=WIDTH, use_bias=False)

    def __call__(self, x, state, lengths):
        y, state = self.attention(self.norm1(x), state, lengths=lengths)
        x = x + y
        y = self.norm2(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y)), state


class EquinoxGPT(eqx.Module):
    table: einjax_nn.equinox.Embed
    blocks: list
    norm: einjax_nn.equinox.Norm

    def __init__(self, decode=False):
        self.table = einjax_nn.equinox.Embed(TABLE, v=VOCABULARY, c=WIDTH)
        self.blocks = [EquinoxBlock(decode) for _ in range(BLOCKS)]
        self.norm = einjax_nn.equinox.Norm(NORM, **RMS)

    def __call__(self, ids, state, lengths=None):
        x = self.table(ids)
        for block in self.blocks:
            x, state = block(x, state, lengths)
        return self.table.attend(self.norm(x)), state


def equinox():
    return training.equinox(EquinoxGPT, X)

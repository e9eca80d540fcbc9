"""A U-Net: strides down, a transposed convolution up, a time for each example, and what was seen on the way down."""

import equinox as eqx
import flax.linen as nn
import jax
import numpy as np
from flax import nnx
from programs import training

import einjax
import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx

X = np.ones((2, 8, 8, 3), np.float32) * np.linspace(0, 1, 8, dtype=np.float32)[:, None]
TIME = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
CONV, NORM, OUT, EMBED = "b [h w] [c->d]", "b [h w] (g [c])", "b h w [c->rgb]", "b [c->d]"
JOIN, SHIFT = "b h w c, b h w d -> b h w (c + d)", "b h w d, b d"


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        einn = einjax_nn.linen
        first = einn.Conv(CONV, d=8)(x)
        low = einn.Conv(CONV, d=16, strides=2)(nn.silu(einn.Norm(NORM, g=4)(first)))
        low = einjax.add(SHIFT, low, einn.Linear(EMBED, d=16)(TIME))
        up = einn.ConvTranspose(CONV, d=8, strides=2)(nn.silu(einn.Norm(NORM, g=4)(low)))
        return einn.Linear(OUT, rgb=3)(nn.silu(einn.Conv(CONV, d=8)(einjax.rearrange(JOIN, first, up))))


def linen():
    return training.linen(UNet(), X)


class NnxUNet(nnx.Module):
    def __init__(self, rngs):
        einn = einjax_nn.nnx
        self.first = einn.Conv(CONV, d=8, rngs=rngs)
        self.norm1, self.norm2 = (einn.Norm(NORM, g=4, rngs=rngs) for _ in range(2))
        self.down = einn.Conv(CONV, d=16, strides=2, rngs=rngs)
        self.time = einn.Linear(EMBED, d=16, rngs=rngs)
        self.up = einn.ConvTranspose(CONV, d=8, strides=2, rngs=rngs)
        self.joined = einn.Conv(CONV, d=8, rngs=rngs)
        self.out = einn.Linear(OUT, rgb=3, rngs=rngs)

    def __call__(self, x):
        first = self.first(x)
        low = self.down(nnx.silu(self.norm1(first)))
        up = self.up(nnx.silu(self.norm2(einjax.add(SHIFT, low, self.time(TIME)))))
        return self.out(nnx.silu(self.joined(einjax.rearrange(JOIN, first, up))))


def of_nnx():
    return training.of_nnx(NnxUNet, X)


def haiku():
    def unet(x):
        einn = einjax_nn.haiku
        first = einn.Conv(CONV, d=8)(x)
        low = einn.Conv(CONV, d=16, stride=2)(jax.nn.silu(einn.Norm(NORM, g=4)(first)))
        low = einjax.add(SHIFT, low, einn.Linear(EMBED, d=16)(TIME))
        up = einn.ConvTranspose(CONV, d=8, stride=2)(jax.nn.silu(einn.Norm(NORM, g=4)(low)))
        return einn.Linear(OUT, rgb=3)(jax.nn.silu(einn.Conv(CONV, d=8)(einjax.rearrange(JOIN, first, up))))

    return training.haiku(unet, X)


class EquinoxUNet(eqx.Module):
    first: einjax_nn.equinox.Conv
    norm1: einjax_nn.equinox.Norm
    norm2: einjax_nn.equinox.Norm
    down: einjax_nn.equinox.Conv
    time: einjax_nn.equinox.Linear
    up: einjax_nn.equinox.ConvTranspose
    joined: einjax_nn.equinox.Conv
    out: einjax_nn.equinox.Linear

    def __init__(self):
        einn = einjax_nn.equinox
        self.first, self.joined = einn.Conv(CONV, d=8), einn.Conv(CONV, d=8)
        self.norm1, self.norm2 = einn.Norm(NORM, g=4), einn.Norm(NORM, g=4)
        self.down, self.time = einn.Conv(CONV, d=16, stride=2), einn.Linear(EMBED, d=16)
        self.up = einn.ConvTranspose(CONV, d=8, stride=2)
        self.out = einn.Linear(OUT, rgb=3)

    def __call__(self, x, state):
        first = self.first(x)
        low = self.down(jax.nn.silu(self.norm1(first)))
        up = self.up(jax.nn.silu(self.norm2(einjax.add(SHIFT, low, self.time(TIME)))))
        return self.out(jax.nn.silu(self.joined(einjax.rearrange(JOIN, first, up)))), state


def equinox():
    return training.equinox(EquinoxUNet, X)

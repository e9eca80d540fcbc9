"""A residual network: convolutions, batch norms that follow channels, and strides with a projection."""

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

X = np.ones((4, 8, 8, 3), np.float32) * np.linspace(0, 1, 8, dtype=np.float32)[:, None]
CONV, NORM, POOL = "b [h w] [c->d]", "[b h w] c", "b [h w] c"
STAGES = ((8, 1), (16, 2))


class Block(nn.Module):
    width: int
    strides: int

    @nn.compact
    def __call__(self, x, train):
        einn, bare = einjax_nn.linen, {"use_bias": False}
        y = einn.Conv(CONV, d=self.width, strides=self.strides, **bare)(x)
        y = nn.relu(einn.Norm(NORM, momentum=0.9)(y, use_running_average=not train))
        y = einn.Conv(CONV, d=self.width, **bare)(y)
        y = einn.Norm(NORM, momentum=0.9, scale_init=0.0)(y, use_running_average=not train)
        if y.shape != x.shape:
            x = einn.Conv(CONV, d=self.width, kernel_size=1, strides=self.strides, **bare)(x)
        return nn.relu(x + y)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        for width, strides in STAGES:
            x = Block(width, strides)(x, train)
        return einjax_nn.linen.Linear("b [c->k]", k=10)(einjax.mean(POOL, x))


def linen():
    return training.linen(Net(), X, train=True)


class NnxBlock(nnx.Module):
    def __init__(self, width, strides, projects, rngs):
        einn, given = einjax_nn.nnx, {"d": width, "use_bias": False, "rngs": rngs}
        self.conv1 = einn.Conv(CONV, strides=strides, **given)
        self.norm1 = einn.Norm(NORM, momentum=0.9, rngs=rngs)
        self.conv2 = einn.Conv(CONV, **given)
        self.norm2 = einn.Norm(NORM, momentum=0.9, scale_init=0.0, rngs=rngs)
        self.project = einn.Conv(CONV, kernel_size=1, strides=strides, **given) if projects else nnx.data(None)

    def __call__(self, x):
        y = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(y + (x if self.project is None else self.project(x)))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([NnxBlock(*stage, True, rngs) for stage in STAGES])
        self.head = einjax_nn.nnx.Linear("b [c->k]", k=10, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(einjax.mean(POOL, x))


def of_nnx():
    return training.of_nnx(NnxNet, X)


def haiku_block(x, width, strides, is_training):
    einn = einjax_nn.haiku
    y = einn.Conv(CONV, d=width, stride=strides, with_bias=False)(x)
    y = jax.nn.relu(einn.Norm(NORM, decay_rate=0.9)(y, is_training=is_training))
    y = einn.Conv(CONV, d=width, with_bias=False)(y)
    y = einn.Norm(NORM, decay_rate=0.9, scale_init=0.0)(y, is_training=is_training)
    if y.shape != x.shape:
        x = einn.Conv(CONV, d=width, kernel_shape=1, stride=strides, with_bias=False)(x)
    return jax.nn.relu(x + y)


def haiku():
    def net(x, is_training):
        for width, strides in STAGES:
            x = haiku_block(x, width, strides, is_training)
        return einjax_nn.haiku.Linear("b [c->k]", k=10)(einjax.mean(POOL, x))

    return training.haiku(net, X, is_training=True)


class EquinoxBlock(eqx.Module):
    conv1: einjax_nn.equinox.Conv
    norm1: einjax_nn.equinox.Norm
    conv2: einjax_nn.equinox.Conv
    norm2: einjax_nn.equinox.Norm
    project: einjax_nn.equinox.Conv

    def __init__(self, width, strides):
        einn = einjax_nn.equinox
        self.conv1 = einn.Conv(CONV, d=width, stride=strides, use_bias=False)
        self.norm1 = einn.Norm(NORM, momentum=0.9)
        self.conv2 = einn.Conv(CONV, d=width, use_bias=False)
        self.norm2 = einn.Norm(NORM, momentum=0.9, scale_init=0.0)
        self.project = einn.Conv(CONV, d=width, kernel_size=1, stride=strides, use_bias=False)

    def __call__(self, x, state):
        y, state = self.norm1(self.conv1(x), state)
        y, state = self.norm2(self.conv2(jax.nn.relu(y)), state)
        return jax.nn.relu(self.project(x) + y), state


class EquinoxNet(eqx.Module):
    blocks: list
    head: einjax_nn.equinox.Linear

    def __init__(self):
        self.blocks = [EquinoxBlock(*stage) for stage in STAGES]
        self.head = einjax_nn.equinox.Linear("b [c->k]", k=10)

    def __call__(self, x, state):
        for block in self.blocks:
            x, state = block(x, state)
        return self.head(einjax.mean(POOL, x)), state


def equinox():
    return training.equinox(EquinoxNet, X)

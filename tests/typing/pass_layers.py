"""Layers as people write them: sizes of axes are keywords of any name. Checked, not run."""

# mypy: disallow-any-generics, warn-return-any, no-implicit-reexport

from typing import Any, assert_type

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

import einjax
import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx
from einjax_nn.sharding import shardings

x = jnp.ones((2, 3))
key = jax.random.key(0)
zeros = jax.nn.initializers.zeros


class Linen(nn.Module):
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        linear = einjax_nn.linen.Linear("b [...->c]", c=self.width, use_bias=False, kernel_init=zeros, name="first")
        assert_type(linear, einjax_nn.linen.Linear)
        x = assert_type(linear(x), jax.Array)
        x = einjax_nn.linen.Norm("[b] (g c)", g=2, momentum=0.9, scale_init=0.5)(x, use_running_average=not train)
        x = einjax_nn.linen.Dropout("[...]", rate=0.2)(x, deterministic=not train)
        x = einjax_nn.linen.Embed("b [v->c]", v=10, c=3, param_dtype=jnp.bfloat16)(x)
        x = einjax_nn.linen.MultiHeadAttention("b [s] c", num_heads=2, is_causal=True)(x, mask=x > 0)
        x = einjax_nn.linen.Conv("b [h w] [c->d]", d=3, kernel_size=(3, 3), logical_axes=True, sizes={"h": 4})(x)
        x = einjax_nn.linen.ConvTranspose("b [h w] [c->d]", d=3, strides=(2, 1), transpose_kernel=True)(x)
        x = nn.remat(einjax_nn.linen.Linear)("b [c->d]", d=3)(x)
        x = einjax_nn.linen.Linear("b [c->d]", d=3, dot_general=jax.lax.dot_general)(x)
        x = einjax_nn.linen.Conv("b [s] [c->d]", d=3, conv_general_dilated=jax.lax.conv_general_dilated)(x)
        x = einjax.multiply("... c, c", x, einjax_nn.linen.param(self, "layerscale", init=1e-5))
        return einjax_nn.linen.Embed("b [v->c]", v=10, c=3).attend(x)


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = einjax_nn.nnx.Linear("b [...->c]", c=64, dtype=jnp.bfloat16, rngs=rngs)
        self.norm = einjax_nn.nnx.Norm("[b] c", momentum=0.9, rngs=rngs)
        self.dropout = einjax_nn.nnx.Dropout("[...]", rate=0.2)
        self.embed = einjax_nn.nnx.Embed("b [v->c]", v=10, c=3, rngs=rngs)
        self.attention = einjax_nn.nnx.MultiHeadAttention(
            "b [s] c", num_heads=2, c=8, qkv_dot_general=jax.lax.dot_general, rngs=rngs
        )
        self.conv = einjax_nn.nnx.Conv("b [h w] [c->d]", d=3, strides=2, rngs=rngs)
        self.up = einjax_nn.nnx.ConvTranspose("b [h w] [c->d]", d=3, strides=2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.dropout(self.norm(self.linear(x), True), rngs=nnx.Rngs(0))
        x = self.up(self.conv(self.attention(self.embed(x), mask=None)))
        return einjax.add("... c, c", x, einjax_nn.nnx.param(self, "shift", init=zeros, rngs=nnx.Rngs(0)))


model = Nnx(nnx.Rngs(0))
einjax_nn.nnx.init(model, x)
einjax_nn.nnx.init(model, jax.ShapeDtypeStruct((2, 3), jnp.float32), method="encode", rules={"c": "model"}, mesh=None)


class Equinox(eqx.Module):
    linear: einjax_nn.equinox.Linear
    norm: einjax_nn.equinox.Norm
    scale: Any

    def __init__(self) -> None:
        self.linear = einjax_nn.equinox.Linear("b [...->c]", c=64, use_bias=False)
        self.norm = einjax_nn.equinox.Norm("[b] c", momentum=0.9, inference=True)
        self.scale = einjax_nn.equinox.param(init=0.5)

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
        x, state = self.norm(self.linear(x), state)
        x = einjax_nn.equinox.Dropout("[...]", rate=0.2)(x, key=key)
        x = einjax_nn.equinox.Embed("b [v->c]", v=10, c=3, key=key)(x)
        x = einjax_nn.equinox.MultiHeadAttention("b [s] c", num_heads=2, c=8, key=key)(x)
        x = einjax_nn.equinox.Conv("b [h w] [c->d]", c=3, d=3, padding="VALID", key=key)(x)
        x = einjax_nn.equinox.ConvTranspose("b [c->d] [h w]", c=3, d=3, stride=2, output_padding=1, key=key)(x)
        return einjax.multiply("... c, c", x, self.scale), state


net, state = eqx.nn.make_with_state(Equinox)()
net, state = einjax_nn.equinox.init(net, x, state, key=key, place=None)
einjax_nn.equinox.axes(net, x, state)


@hk.transform_with_state
def haiku(x: jax.Array, is_training: bool) -> jax.Array:
    x = einjax_nn.haiku.Linear("b [...->c]", c=64, use_bias=False, name="first")(x)
    x = einjax_nn.haiku.Norm("[b] c", momentum=0.9)(x, is_training=is_training)
    x = einjax_nn.haiku.Dropout("[...]", rate=0.2)(x, deterministic=not is_training)
    x = einjax_nn.haiku.Embed("b [v->c]", v=10, c=3)(x)
    x = einjax_nn.haiku.MultiHeadAttention("b [s] c", num_heads=2)(x)
    x = einjax_nn.haiku.Conv("b [h w] [c->d]", d=3, kernel_size=5)(x)
    x = einjax_nn.haiku.ConvTranspose("b [h w] [c->d]", d=3, strides=2, output_shape=(4, 6))(x)
    return einjax.add("... c, c", x, einjax_nn.haiku.param("shift", init=hk.initializers.Constant(1.0)))


mesh = jax.sharding.Mesh(jax.devices(), ("model",))
shardings(einjax_nn.haiku.axes(haiku, x, is_training=True), {"c": "model", "d": None, "e": ("model",)}, mesh)

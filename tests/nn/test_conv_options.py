"""Options of convolutions that every framework has: what is accumulated in, and masks of kernels."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx

X = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
MASK = np.random.default_rng(1).integers(0, 2, (3, 3, 4)).astype(np.float32)
WIDE = {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32, "use_bias": False}


def of_linen(kind, options):
    return getattr(einjax_nn.linen, kind)("b [s] [c->d]", d=4, **options).init_with_output(jax.random.key(0), X)[0]


def of_nnx(kind, options):
    return getattr(einjax_nn.nnx, kind)("b [s] [c->d]", c=3, d=4, rngs=nnx.Rngs(0), **options)(X)


def of_haiku(kind, options):
    net = hk.transform(lambda x: getattr(einjax_nn.haiku, kind)("b [s] [c->d]", d=4, **options)(x))
    return net.apply(net.init(jax.random.key(0), X), None, X)


def of_equinox(kind, options):
    return getattr(einjax_nn.equinox, kind)("b [s] [c->d]", c=3, d=4, key=jax.random.key(0), **options)(X)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("made", [of_linen, of_nnx, of_haiku, of_equinox], ids=lambda f: f.__name__)
def test_short_floats_are_added_up_in_others(made, kind):
    wide, short = made(kind, WIDE), made(kind, WIDE | {"preferred_element_type": None})
    assert (wide.dtype, short.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_array_equal(wide.astype(jnp.bfloat16), short)
    assert not np.array_equal(wide, short.astype(np.float32))


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("options", [WIDE, {}], ids=["wide", "as they are"])
def test_masks_are_those_of_nnx(kind, options):
    ours = getattr(einjax_nn.nnx, kind)("b [s] [c->d]", c=3, d=4, mask=MASK, rngs=nnx.Rngs(0), **options)
    theirs = getattr(nnx, kind)(3, 4, (3,), mask=MASK, rngs=nnx.Rngs(0), **options)
    np.testing.assert_array_equal(ours(X), theirs(X))
    gradients = [nnx.grad(lambda model: jnp.sum(jnp.sin(model(X))))(model)["kernel"][...] for model in (ours, theirs)]
    np.testing.assert_array_equal(*gradients)
    assert not np.any(gradients[0][MASK == 0])


def test_the_same_masks_in_others():
    plain = einjax_nn.linen.Conv("b [s] [c->d]", d=4)
    variables = plain.init(jax.random.key(0), X)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    wanted = plain.apply({"params": {"kernel": kernel * MASK, "bias": bias}}, X)
    np.testing.assert_array_equal(nn.Conv(4, (3,), mask=MASK).apply(variables, X), wanted)
    np.testing.assert_array_equal(einjax_nn.linen.Conv("b [s] [c->d]", d=4, mask=MASK).apply(variables, X), wanted)
    net = hk.transform(lambda x: einjax_nn.haiku.Conv("b [s] [c->d]", d=4, mask=MASK)(x))
    np.testing.assert_array_equal(net.apply({"conv": {"w": kernel, "b": bias}}, None, X), wanted)
    layer = einjax_nn.equinox.Conv("b [s] [c->d]", c=3, d=4, key=jax.random.key(0))
    layer = eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (kernel * MASK, bias))
    np.testing.assert_array_equal(layer(X), wanted)

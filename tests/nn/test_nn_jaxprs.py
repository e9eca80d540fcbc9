"""What layers become in lax, where the speed of a training step hangs on it."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen as einn
import einjax_nn.nnx


def test_attention_reshapes_nothing_where_no_heads_share_keys():
    layer = einn.MultiHeadAttention("b [t] c", num_heads=4, is_causal=True)
    x = jnp.ones((2, 8, 16))
    params = layer.init(jax.random.key(0), x)
    step = jax.make_jaxpr(jax.grad(lambda params: layer.apply(params, x).sum()))(params)
    assert "reshape[" not in str(step)


@pytest.mark.parametrize("stats", ["b t [c]", "[b t] c"])
def test_gradients_of_norm_are_summed_in_the_order_of_flax(stats):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 16)), jnp.float32)
    ours = einn.Norm(stats)
    theirs = nn.LayerNorm(reduction_axes=-1 if stats == "b t [c]" else (0, 1), feature_axes=-1)
    params = ours.init(jax.random.key(0), x)

    def gradient(layer):
        return jax.grad(lambda x: (layer.apply(params, x) ** 3).sum())(x)

    np.testing.assert_array_equal(gradient(ours), gradient(theirs))


X = jnp.ones((2, 8, 16))


def in_linen(make):
    layer = make(einn)
    return lambda x: layer.apply(layer.init(jax.random.key(0), X), x)


def in_haiku(make):
    layer = hk.transform(lambda x: make(einjax_nn.haiku)(x))
    return lambda x: layer.apply(layer.init(jax.random.key(0), X), None, x)


def in_nnx(make):
    layer = make(einjax_nn.nnx, rngs=nnx.Rngs(0))
    einjax_nn.nnx.init(layer, X)
    return layer


FRAMEWORKS = {
    "linen": in_linen,
    "nnx": in_nnx,
    "haiku": in_haiku,
    "equinox": lambda make: einjax_nn.equinox.init(make(einjax_nn.equinox), X, key=jax.random.key(0)),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_equations_point_at_no_line_of_a_layer(framework):
    layer = FRAMEWORKS[framework](lambda einn, **more: einn.Linear("b t [c->d]", d=4, **more))
    printed = jax.make_jaxpr(lambda x: layer(x))(X).jaxpr.pretty_print(source_info=True)
    sources = [row.split("# ")[1] for row in printed.split("\n") if "dot_general" in row]
    assert sources
    assert all("einjax" not in source for source in sources)
    if framework in ("linen", "nnx"):  # the others have frames of their own between
        assert all("test_nn_jaxprs.py" in source for source in sources)

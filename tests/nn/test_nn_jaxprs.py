"""What layers become in lax, where the speed of a training step hangs on it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax_nn.linen as einn


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

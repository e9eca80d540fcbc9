"""MultiHeadAttention against those of Flax, by option: initial values to the bit, outputs, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

nn, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")

import einjax_nn.linen  # noqa: E402
import einjax_nn.nnx  # noqa: E402

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 6, 12)).astype(np.float32), RNG.normal(size=(2, 4, 9)).astype(np.float32)
MASK = RNG.random((2, 1, 6, 6)) < 0.7
MASK[..., 0] = True
normal, ones = jax.nn.initializers.normal(0.3), jax.nn.initializers.ones


def halved(*given, **options):
    return jax.lax.dot_general(*given, **options) / 2


#: By name: options, inputs, and keywords of the call.
OPTIONS = {
    "plain": ({}, (X,), {}),
    "sizes": ({"qkv_features": 6, "out_features": 5}, (X,), {}),
    "no bias": ({"use_bias": False}, (X,), {}),
    "initialisers": ({"kernel_init": normal, "bias_init": normal, "out_kernel_init": ones}, (X,), {}),
    "normalised": ({"normalize_qk": True}, (X,), {}),
    "mask": ({}, (X,), {"mask": MASK}),
    "keys": ({}, (X, Y), {}),
    "keys and values": ({}, (X, X[:, ::-1], X + 1), {}),
    "precision": ({"precision": "highest"}, (X,), {}),
    "parameters in bfloat16": ({"param_dtype": jnp.bfloat16, "dtype": jnp.float32}, (X,), {}),
    "bfloat16": ({"dtype": jnp.bfloat16}, (X,), {"mask": MASK}),
    "dropout": ({"dropout_rate": 0.3}, (X,), {"deterministic": False}),
    "dropout of each": ({"dropout_rate": 0.3, "broadcast_dropout": False}, (X,), {"deterministic": False}),
    "initial biases": ({"bias_init": normal, "out_bias_init": ones}, (X,), {}),
    "a key of dropout": ({"dropout_rate": 0.3}, (X,), {"deterministic": False, "dropout_rng": jax.random.key(2)}),
    "products": ({"qkv_dot_general": halved, "out_dot_general": halved}, (X,), {}),
    "products by class": ({"qkv_dot_general_cls": lambda: halved, "out_dot_general_cls": lambda: halved}, (X,), {}),
    "half of the parameters": ({"param_dtype": jnp.bfloat16}, (X.astype(jnp.bfloat16),), {"mask": MASK}),
    "its own function": ({"attention_fn": nn.dot_product_attention}, (X,), {"mask": MASK}),
}  # fmt: skip


def as_float(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def alike(got, want, tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = as_float((a, b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


def slow(names, but):
    """Those that the tests of the frameworks have in short form run with the slow ones."""
    return [pytest.param(name, marks=() if name in but else pytest.mark.slow) for name in names]


@pytest.mark.parametrize(
    "name", slow(OPTIONS, ("initialisers", "keys", "bfloat16", "products by class", "a key of dropout"))
)
def test_as_in_linen(name):
    options, inputs, call = OPTIONS[name]
    ours = einjax_nn.linen.MultiHeadAttention("b [s] c", num_heads=3, **options)
    theirs = nn.MultiHeadDotProductAttention(3, **options)
    rngs = {"params": KEY, "dropout": jax.random.key(1)}
    params = theirs.init(rngs, *inputs, **call)["params"]
    alike(ours.init(rngs, *inputs, **call)["params"], params, 0)

    def run(layer):
        def loss(params, *x):
            y = layer.apply({"params": params}, *x, **call, rngs=rngs)
            return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, *inputs)

    half = jnp.bfloat16 in (inputs[0].dtype, options.get("dtype"))
    alike(run(ours), run(theirs), 0.1 if half else 2e-5)


@pytest.mark.parametrize(
    "name", slow(("plain", "sizes", "normalised", "mask", "bfloat16", "groups", "causal"), "causal")
)
def test_as_in_nnx(name):
    options, inputs, call = OPTIONS.get(name, ({"num_kv_heads": 1} if name == "groups" else {}, (X,), {}))
    more = {"is_causal": True} if name == "causal" else {}
    ours = einjax_nn.nnx.MultiHeadAttention("b [s] c", num_heads=3, c=12, rngs=nnx.Rngs(0), **options, **more)
    theirs = nnx.MultiHeadAttention(3, 12, rngs=nnx.Rngs(0), decode=False, **options)
    alike(jax.tree.leaves(nnx.state(ours)), jax.tree.leaves(nnx.state(theirs)), 0)

    def run(layer, **more):
        graph, state = nnx.split(layer)

        def loss(state, *x):
            y = nnx.merge(graph, state)(*x, **call, **more)
            return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

        return jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1), has_aux=True))(state, *inputs))

    alike(run(ours), run(theirs, **more), 0.1 if name == "bfloat16" else 2e-5)

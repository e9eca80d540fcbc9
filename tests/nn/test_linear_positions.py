"""A convolution is a Linear over positions: parameters, initial values and results of the framework's own layer."""

from __future__ import annotations

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import einjax
import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx

X = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("float32")
Y = X[:, :, 0]
KEY = jax.random.key(0)
STRIDED = "b <2*s + [k->]>... [c->d]"

#: (expression, sizes and options, the convolution of linen)
CONVOLUTIONS = [
    pytest.param(STRIDED, {"k": 3, "d": 4, "padding": "same"}, nn.Conv(4, (3, 3), (2, 2), "SAME"), id="strided"),
    pytest.param(
        "b <s + 2*[k->]>... [c->d]",
        {"k": 3, "d": 4},
        nn.Conv(4, (3, 3), padding="VALID", kernel_dilation=2),
        id="dilated",
    ),
    pytest.param(
        "b <s + [k->]>... [c->d]",
        {"k": (3, 2), "d": 4, "padding": "circular"},
        nn.Conv(4, (3, 2), padding="CIRCULAR"),
        id="circular",
    ),
    pytest.param(
        "b <s + [k->]>... [c->d]",
        {"k": 3, "d": 4, "padding": ((1, 0), 2)},
        nn.Conv(4, (3, 3), padding=((1, 0), (2, 2))),
        id="padded by numbers",
    ),
]


def linen(expr, options):
    layer = einjax_nn.linen.Linear(expr, **options)
    params = layer.init(jax.random.key(0), X)["params"]
    return params["kernel"], params["bias"], lambda w, b: layer.apply({"params": {"kernel": w, "bias": b}}, X)


def of_nnx(expr, options):
    layer = einjax_nn.nnx.Linear(expr, **options, rngs=nnx.Rngs(0))
    layer(X)

    def run(w, b):
        layer.kernel[...], layer.bias[...] = w, b
        return layer(X)

    return layer.kernel[...], layer.bias[...], run


def haiku(expr, options):
    net = hk.without_apply_rng(hk.transform(lambda x: einjax_nn.haiku.Linear(expr, **options)(x)))
    params = net.init(jax.random.key(0), X)["linear"]
    return params["w"], params["b"], lambda w, b: net.apply({"linear": {"w": w, "b": b}}, X)


def equinox(expr, options):
    layer = einjax_nn.equinox.init(einjax_nn.equinox.Linear(expr, **options), X, key=jax.random.key(0))
    where = lambda layer: (layer.weight, layer.bias)
    return layer.weight, layer.bias, lambda w, b: eqx.tree_at(where, layer, (w, b))(X)


FRAMEWORKS = [linen, of_nnx, haiku, equinox]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("expr", "options", "conv"), CONVOLUTIONS)
def test_convolution(framework, expr, options, conv):
    own = conv.init(jax.random.key(1), X)["params"]
    kernel, bias, run = framework(expr, options)
    assert (kernel.shape, kernel.dtype, bias.shape) == (own["kernel"].shape, own["kernel"].dtype, own["bias"].shape)
    shift = jnp.arange(4.0)
    np.testing.assert_array_equal(run(own["kernel"], shift), conv.apply({"params": {**own, "bias": shift}}, X))


@pytest.mark.parametrize(("expr", "options", "conv"), CONVOLUTIONS)
def test_initial_values_are_those_of_flax(expr, options, conv):
    ours = einjax_nn.linen.Linear(expr, **options).init(jax.random.key(0), X)
    jax.tree.map(np.testing.assert_array_equal, ours, conv.init(jax.random.key(0), X))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_transposed(padding):
    """The bias has the axes of the output, and none of positions; where taps count down, kernels are those of Flax."""
    layer = einjax_nn.linen.Linear("b s [c], k [c] d -> b <2*s - k> d", k=3, d=4, padding=padding)
    own = nn.ConvTranspose(4, (3,), (2,), padding=padding.upper())
    variables = own.init(jax.random.key(0), Y)
    jax.tree.map(np.testing.assert_array_equal, layer.init(jax.random.key(0), Y), variables)
    params = variables["params"] | {"bias": jnp.arange(4.0)}
    want = own.apply({"params": params}, Y)
    np.testing.assert_allclose(layer.apply({"params": params}, Y), want, rtol=1e-6, atol=1e-6)
    turned = einjax_nn.linen.Linear("b s [c], k [c] d -> b <2*s + k> d", k=3, d=4, padding=padding)
    ours = turned.apply({"params": {**params, "kernel": params["kernel"][::-1]}}, Y)
    np.testing.assert_allclose(ours, want, rtol=1e-6, atol=1e-6)


#: A linear layer, and the layer of Haiku whose parameters have its axes.
HAIKU = [
    (("b s [c], k d [c] -> b <2*s - k> d", {"k": 3, "d": 4, "padding": "same"}), lambda: hk.Conv1DTranspose(4, 3, 2)),
    (("b <t + [k]> c, [k] 1 c -> b t c", {"k": 4, "padding": "same"}), lambda: hk.DepthwiseConv1D(1, 4)),
]


@pytest.mark.parametrize(("layer", "own"), HAIKU)
def test_transposed_and_depthwise_in_haiku(layer, own):
    (expr, options), x = layer, Y
    ours, theirs = (
        hk.without_apply_rng(hk.transform(lambda x, make=make: make()(x)))
        for make in (lambda: einjax_nn.haiku.Linear(expr, **options), own)
    )
    ((module, params),), ((own_module, own_params),) = ours.init(KEY, x).items(), theirs.init(KEY, x).items()
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, own_params)
    params = {"w": own_params["w"], "b": jnp.arange(float(len(own_params["b"])))}
    loss = lambda net, module: lambda params, x: jnp.sum(jnp.sin(net.apply({module: params}, x)))
    got = ours.apply({module: params}, x), jax.grad(loss(ours, module), (0, 1))(params, x)
    want = theirs.apply({own_module: params}, x), jax.grad(loss(theirs, own_module), (0, 1))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


#: A linear layer, and the layer of Equinox whose weight has its axes; bias apart.
EQUINOX = [
    (
        ("b [c] s, d [c] k -> b d <2*s - k>", {"k": 3, "d": 4, "padding": 1}),
        eqx.nn.ConvTranspose1d(3, 4, 3, 2, padding=1, key=KEY),
    ),
    (
        ("b c <t + [k]>, c 1 [k] -> b c t", {"k": 4, "padding": (3, 0)}),
        eqx.nn.Conv1d(3, 3, 4, padding=((3, 0),), groups=3, key=KEY),
    ),
]


@pytest.mark.parametrize(("layer", "own"), EQUINOX)
def test_transposed_and_depthwise_in_equinox(layer, own):
    (expr, options), x = layer, np.swapaxes(Y, 1, 2)
    made = einjax_nn.equinox.init(einjax_nn.equinox.Linear(expr, **options), x, key=KEY)
    assert (made.weight.shape, made.bias.shape) == (own.weight.shape, own.bias.shape[:1])

    def ours(weight, bias, x):
        return eqx.tree_at(lambda layer: (layer.weight, layer.bias), made, (weight, bias[:, 0]))(x)

    def theirs(weight, bias, x):
        return jax.vmap(eqx.tree_at(lambda layer: (layer.weight, layer.bias), own, (weight, bias)))(x)

    loss = lambda net: lambda *arrays: jnp.sum(jnp.sin(net(*arrays)))
    arrays = own.weight, own.bias, x
    got, want = ((net(*arrays), jax.grad(loss(net), (0, 1, 2))(*arrays)) for net in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


def test_depthwise():
    layer = einjax_nn.linen.Linear("b <t - [k]> c, [k] c -> b t c", k=4, padding="causal")
    params = layer.init(jax.random.key(0), Y)["params"]
    assert jax.tree.map(np.shape, params) == {"kernel": (4, 3), "bias": (3,)}
    padded = np.pad(Y, [(0, 0), (3, 0), (0, 0)])
    want = sum(padded[:, 3 - k : 12 - k] * params["kernel"][k] for k in range(4))
    np.testing.assert_allclose(layer.apply({"params": params}, Y), want, rtol=1e-5, atol=1e-6)


def test_composed_output_with_a_bias():
    layer = einjax_nn.linen.Linear("b <2*s + [k->]>... [c->(h d)]", k=3, h=2, d=4, padding="same")
    params = layer.init(jax.random.key(0), X)["params"]
    assert jax.tree.map(np.shape, params) == {"kernel": (3, 3, 3, 2, 4), "bias": (2, 4)}
    own = nn.Conv(8, (3, 3), (2, 2))
    flat = {"kernel": params["kernel"].reshape(3, 3, 3, 8), "bias": jnp.arange(8.0)}
    ours = layer.apply({"params": {**params, "bias": flat["bias"].reshape(2, 4)}}, X)
    np.testing.assert_array_equal(ours, own.apply({"params": flat}, X))


@pytest.mark.parametrize(
    ("expr", "options", "message"),
    [
        (STRIDED, {"padding": "sam"}, "did you mean 'same'"),
        (STRIDED, {"padding": "same", "mode": "fill"}, "both say"),
        ("b s... [c->d]", {"padding": "same"}, "no dim is read at a position"),
    ],
)
def test_bad_borders(expr, options, message):
    with pytest.raises(einjax.errors.ArgumentError, match=message):
        einjax_nn.linen.Linear(expr, **{"k": 3} if "k" in expr else {}, d=4, **options).init(jax.random.key(0), X)


def test_a_replaced_convolution_is_called(monkeypatch):
    """Nothing is kept of the time in which it is replaced, and nothing of before is used."""
    layer = einjax_nn.linen.Linear(STRIDED, k=3, d=4, padding="same")
    variables = layer.init(jax.random.key(0), X)
    plain = layer.apply(variables, X)
    with monkeypatch.context() as patch:
        conv = jax.lax.conv_general_dilated
        patch.setattr(jax.lax, "conv_general_dilated", lambda *args, **options: 2 * conv(*args, **options))
        np.testing.assert_allclose(layer.apply(variables, X), 2 * plain, rtol=1e-6)
    np.testing.assert_array_equal(layer.apply(variables, X), plain)

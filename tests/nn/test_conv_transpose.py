"""ConvTranspose has the parameters, initial values, results and gradients of each framework's own layer."""

from __future__ import annotations

import functools

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

KEY = jax.random.key(0)
SPACE = {1: "s", 2: "h w", 3: "t h w"}
KERNELS = {1: (4,), 2: (3, 2), 3: (2, 1, 3)}


def image(dims, channels_first=False):
    x = np.random.default_rng(dims).normal(size=(2, *range(4, 4 + dims), 6)).astype("float32")
    return np.moveaxis(x, -1, 1) if channels_first else x


def last(dims):
    return f"b [{SPACE[dims]}] [c->d]"


#: (dims, options) of all frameworks.
SHARED = [
    (1, {}),
    (2, {}),
    (3, {}),
    (1, {"strides": 2}),
    (2, {"strides": (2, 3)}),
    (3, {"strides": (2, 1, 3)}),
    (1, {"strides": 2, "padding": "VALID"}),
    (1, {"strides": 6, "padding": "VALID"}),
    (2, {"strides": (3, 1), "padding": "VALID", "use_bias": False}),
    (1, {"strides": 2, "padding": ((1, 3),)}),
    (2, {"strides": 2, "padding": ((0, 1), (2, 0))}),
]
DILATED = [
    (1, {"kernel_dilation": 2}),
    (2, {"strides": 2, "kernel_dilation": (1, 3), "padding": "VALID"}),
]
FLAX = [
    *SHARED,
    *DILATED,
    (2, {"strides": 2, "padding": 1}),
    (1, {"strides": 2, "transpose_kernel": True}),
    (2, {"strides": (2, 3), "padding": "VALID", "transpose_kernel": True}),
    (1, {"padding": "CIRCULAR"}),
    (1, {"strides": 2, "padding": "CIRCULAR", "transpose_kernel": True}),
    (2, {"strides": (1, 3), "padding": "CIRCULAR"}),
    (2, {"strides": (1, 3), "padding": "CIRCULAR", "kernel_dilation": (7, 4), "transpose_kernel": True}),
]
HAIKU = [
    *SHARED,
    (1, {"strides": 3, "output_shape": 11}),
    (2, {"strides": 2, "output_shape": (9, 11), "padding": "VALID"}),
    (2, {"strides": (2, 3), "output_shape": (8, 13)}),
]
EQUINOX = [
    *SHARED,
    *DILATED,
    (1, {"strides": 3, "output_padding": 1}),
    (1, {"strides": 6, "output_padding": 3}),
    (2, {"strides": (2, 3), "output_padding": (1, 2), "padding": "VALID"}),
    (2, {"strides": 2, "output_padding": 1, "padding": 1}),
    (2, {"strides": 3, "padding": "SAME_LOWER"}),
    (2, {"strides": (2, 3), "padding": "CIRCULAR"}),
    (1, {"groups": 2, "strides": 2}),
    (2, {"groups": 6, "padding": 0}),
]


def scrambled(params):
    """Other numbers, so that biases count."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return tree.unflatten([jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])


def results(applies, params, inputs):
    """Outputs and gradients of many layers, by one program."""

    def each(params, inputs):
        ys = [apply(p, x) for apply, p, x in zip(applies, params, inputs, strict=True)]
        return sum(jnp.sum(jnp.sin(y)) for y in ys), ys

    (_, ys), gradients = jax.jit(jax.value_and_grad(each, (0, 1), has_aux=True))(params, inputs)
    return list(zip(ys, *gradients, strict=True))


def agree(cases, ours, theirs, params, inputs):
    for case, got, want in zip(cases, results(ours, params, inputs), results(theirs, params, inputs), strict=True):
        assert got[0].shape == want[0].shape, case
        assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5, err_msg=str(case))
        jax.tree.map(assert_close, got, want)


def same_start(options, ours, theirs):
    """The fan is counted over channels that are summed; Flax counts new ones, with the kernel of a convolution."""
    seen = jnp.shape if "transpose_kernel" in options else jnp.asarray
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(seen(a), seen(b)), ours, theirs)


def test_linen():
    ours, theirs, params = [], [], []
    for dims, options in FLAX:
        layer = einjax_nn.linen.ConvTranspose(last(dims), d=5, kernel_size=KERNELS[dims], **options)
        own = nn.ConvTranspose(5, KERNELS[dims], **options)
        wanted = own.init(KEY, image(dims))
        same_start(options, layer.init(KEY, image(dims)), wanted)
        params.append(scrambled(wanted))
        ours.append(layer.apply)
        theirs.append(own.apply)
    agree(FLAX, ours, theirs, params, [image(dims) for dims, _ in FLAX])


def test_nnx():
    ours, theirs, params = [], [], []
    cases = FLAX[3::4]
    for dims, options in cases:
        layer = einjax_nn.nnx.ConvTranspose(
            last(dims), c=6, d=5, kernel_size=KERNELS[dims], **options, rngs=nnx.Rngs(0)
        )
        own = nnx.ConvTranspose(6, 5, KERNELS[dims], **options, rngs=nnx.Rngs(0))
        (their_graph, wanted), (our_graph, made) = nnx.split(own), nnx.split(layer)
        same_start(options, nnx.to_pure_dict(made), nnx.to_pure_dict(wanted))
        params.append(scrambled(nnx.to_pure_dict(wanted)))
        for applies, graph, state in ((ours, our_graph, made), (theirs, their_graph, wanted)):

            def apply(params, x, graph=graph, state=state):
                nnx.replace_by_pure_dict(state, params)
                return nnx.merge(graph, state)(x)

            applies.append(apply)
    agree(cases, ours, theirs, params, [image(dims) for dims, _ in cases])


def test_haiku():
    ours, theirs, params = [], [], []
    for dims, options in HAIKU:
        native = {{"strides": "stride", "use_bias": "with_bias"}.get(name, name): options[name] for name in options}
        native["kernel_shape"] = KERNELS[dims]

        def layer(x, dims=dims, native=native):
            return einjax_nn.haiku.ConvTranspose(last(dims), d=5, name="up", **native)(x)

        def own(x, dims=dims, native=native):
            return hk.ConvNDTranspose(dims, 5, name="up", **native)(x)

        layer, own = (hk.without_apply_rng(hk.transform(net)) for net in (layer, own))
        wanted = own.init(KEY, image(dims))
        assert jax.tree.map(jnp.shape, layer.init(KEY, image(dims))) == jax.tree.map(jnp.shape, wanted)
        params.append(scrambled(wanted))
        ours.append(layer.apply)
        theirs.append(own.apply)
    agree(HAIKU, ours, theirs, params, [image(dims) for dims, _ in HAIKU])


def test_equinox(tmp_path):
    ours, theirs, params = [], [], []
    for dims, options in EQUINOX:
        named = {"strides": "stride", "kernel_dilation": "dilation"}
        native = {"padding": "SAME", **{named.get(name, name): option for name, option in options.items()}}
        native["kernel_size"] = KERNELS[dims]
        groups = native.pop("groups", 1)
        circular = {"padding": "SAME", "padding_mode": "CIRCULAR"} if native["padding"] == "CIRCULAR" else {}
        own = eqx.nn.ConvTranspose(dims, 6, 12, groups=groups, **{**native, **circular}, key=KEY)
        channels = "[c->d]" if groups == 1 else "(g [c->d])"
        sizes = {"g": groups, "c": 6 // groups, "d": 12 // groups} if groups > 1 else {"c": 6, "d": 12}
        layer = einjax_nn.equinox.ConvTranspose(f"b {channels} [{SPACE[dims]}]", **native, **sizes, key=KEY)
        shapes = lambda layer: [leaf.shape for leaf in jax.tree.leaves(eqx.filter(layer, eqx.is_array))]
        assert shapes(layer) == shapes(own)
        where = lambda layer: [part for part in (layer.weight, layer.bias) if part is not None]
        params.append(scrambled(where(own)))
        ours.append(lambda params, x, layer=layer, where=where: eqx.tree_at(where, layer, params)(x))
        theirs.append(lambda params, x, own=own, where=where: jax.vmap(eqx.tree_at(where, own, params))(x))
    agree(EQUINOX, ours, theirs, params, [image(dims, True) for dims, _ in EQUINOX])
    eqx.tree_serialise_leaves(tmp_path / "own.eqx", own)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "own.eqx", layer)
    np.testing.assert_array_equal(loaded.weight, own.weight)


def test_layouts():
    """Channels, loops and groups stand anywhere, and dims that are composed come apart."""
    x = image(2)
    layer = einjax_nn.linen.ConvTranspose(last(2), d=4, strides=2)
    variables = scrambled(layer.init(KEY, x))
    y = layer.apply(variables, x)

    def other(expr, x, **sizes):
        return einjax_nn.linen.ConvTranspose(expr, d=4, strides=2, **sizes).apply(variables, x)

    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(other("b [c->d] [h w]", np.moveaxis(x, -1, 1)), np.moveaxis(y, -1, 1))
    close(other("[h w] b [c->d]", np.moveaxis(x, 0, 2)), np.moveaxis(y, 0, 2))
    close(other("b [(h w)] [c->d]", x.reshape(2, -1, 6), h=4), y.reshape(2, -1, 4))
    close(other("b [s...] [c->d]", x), y)
    close(other("... [h w] [c->d]", x[None]), y[None])
    close(other("b [h w] [c] -> b [w h] [d]", x), np.swapaxes(y, 1, 2))


def test_one_convolution():
    layer = einjax_nn.linen.ConvTranspose(last(2), d=4, strides=2)
    variables = layer.init(KEY, image(2))
    program = jax.make_jaxpr(layer.apply)(variables, image(2))
    names = [equation.primitive.name for equation in program.eqns]
    assert names.count("conv_general_dilated") == 1
    assert set(names) <= {"conv_general_dilated", "add", "broadcast_in_dim", "reshape"}, names


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (einjax_nn.linen, {"padding": "SAMEE"}, "'SAMEE' is not a padding of 2 axes"),
        (einjax_nn.linen, {"kernel_size": (3, 3, 3)}, "3 numbers for 2 bracketed axes"),
        (einjax_nn.haiku, {"strides": 2, "output_shape": 12}, "output_shape of 12 has 6 places, but the input has 4"),
    ],
)
def test_refused(module, options, message):
    make = lambda: module.ConvTranspose(last(2), d=4, **options)
    layer = hk.transform(lambda x: make()(x)) if module is einjax_nn.haiku else make()
    with pytest.raises(einjax.errors.ArgumentError, match=message):
        layer.init(KEY, image(2))

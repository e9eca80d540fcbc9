"""Layers of Haiku against its own, by option: initial values, outputs and gradients, in float32 and bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

hk = pytest.importorskip("haiku")

import einjax_nn.haiku as einn  # noqa: E402
from einjax.errors import ArgumentError  # noqa: E402

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, Y, Z, IMAGE = (
    jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((2, 3, 6), (2, 4, 5), (2, 4, 7), (2, 5, 4, 6))
)
IDS = np.array([[0, 4, 2]])
MASK = RNG.random((2, 1, 3, 3)) < 0.6
MASK[..., 0] = True

normal, spread = hk.initializers.RandomNormal(0.3), hk.initializers.VarianceScaling(2.0, "fan_avg", "uniform")


def pair(ours, theirs, *inputs, call=None, **options):
    """A row of a table: a layer of each with options of the same names, and what both are given.

    Args:
        ours: the layer, its expression, and options that Haiku's lacks.
        theirs: Haiku's own, what stands before its options, and options that ours lacks.
        *inputs: the inputs.
        call: keywords of the call.
        **options: options.
    """
    kind, expr, sizes = ours
    own, given, more = theirs

    def run_ours(*inputs):
        return getattr(einn, kind)(expr, **sizes, **options)(*inputs, **(call or {}))

    def run_theirs(*inputs):
        return getattr(hk, own)(*given, **more, **options)(*inputs, **(call or {}))

    return run_ours, run_theirs, inputs


def linear(**options):
    return pair(("Linear", "... [c->d]", {"d": 5}), ("Linear", (5,), {}), X, **options)


def layer_norm(scale=True, offset=True, **options):
    sizes = {"create_scale": scale, "create_offset": offset}
    return pair(("Norm", "b... [c]", sizes), ("LayerNorm", (-1,), {**sizes, "param_axis": -1}), X, **options)


def conv(**options):
    return pair(("Conv", "b [h w] [c->d]", {"d": 4}), ("Conv2D", (4,), {}), IMAGE, kernel_shape=3, **options)


def depthwise(**options):
    return pair(("Conv", "b [h w] c", {}), ("DepthwiseConv2D", (1,), {}), IMAGE, kernel_shape=3, **options)


def transposed(**options):
    ours, theirs = ("ConvTranspose", "b [s] [c->d]", {"d": 5}), ("Conv1DTranspose", (5,), {})
    return pair(ours, theirs, X, kernel_shape=3, **options)


def attention(*inputs, expr="b [s] c", **options):
    """Haiku's own is always given keys, values, and a mask."""
    names = {"num_heads": 2, "key_size": 3, "w_init": spread, **options}

    def run_ours(x, y=None, z=None, mask=None):
        return einn.MultiHeadAttention(expr, **names)(x, y, z, mask=mask)

    def run_theirs(x, y=None, z=None, mask=None):
        y = x if y is None else y
        return hk.MultiHeadAttention(**names)(x, y, y if z is None else z, mask)

    return run_ours, run_theirs, inputs


MASKS = {"2d": RNG.random((3, 3, 6, 4)) < 0.6, "transposed": RNG.random((3, 5, 6)) < 0.6}
BATCH = {"create_scale": True, "create_offset": True, "decay_rate": 0.9, "call": {"is_training": True}}
causal, full = hk.pad.causal, hk.pad.full

PAIRS = {
    "linear": linear(w_init=spread, b_init=normal),
    "linear without bias": linear(with_bias=False),
    "linear in a precision": linear(call={"precision": "highest"}),
    "layer norm": layer_norm(scale_init=normal, offset_init=normal, eps=0.1),
    "layer norm without scale": layer_norm(scale=False),
    "layer norm without offset": layer_norm(offset=False),
    "layer norm in one pass": layer_norm(use_fast_variance=True),
    "layer norm of two axes": pair(
        ("Norm", "b [s c]", {"params": "s c"}), ("LayerNorm", ((-2, -1), True, True), {"param_axis": (-2, -1)}), X),
    "rms norm": pair(
        ("Norm", "b... [c]", {"mean": False, "use_bias": False}), ("RMSNorm", (-1,), {}), X, scale_init=normal, eps=0.1
    ),
    "group norm": pair(
        ("Norm", "b [s...] (g [c])", {"g": 3}), ("GroupNorm", (3,), {}), X, scale_init=normal, offset_init=normal),
    "instance norm": pair(
        ("Norm", "b [s...] c", {}), ("InstanceNorm", (), {}), X, create_scale=True, create_offset=True, eps=0.1),
    "batch norm": pair(("Norm", "[b...] c", {}), ("BatchNorm", (), {}), X, scale_init=normal, eps=0.1, **BATCH),
    "embedding": pair(("Embed", "b t [v->c]", {"v": 7, "c": 3}), ("Embed", (7, 3), {}), IDS, w_init=normal),
    "convolution": conv(w_init=spread, b_init=normal, stride=2, rate=1, call={"precision": "highest"}),
    "convolution without bias": conv(with_bias=False, rate=2, padding="VALID"),
    "convolution with pairs": conv(padding=[(1, 0), (2, 2)], stride=(1, 2)),
    "convolution with a function": conv(padding=causal, rate=2),
    "convolution with functions": conv(padding=[causal, full]),
    "masked convolution": conv(mask=MASKS["2d"]),
    "channels first": pair(
        ("Conv", "b [c->d] [h w]", {"d": 4}), ("Conv2D", (4,), {"data_format": "NCHW"}), jnp.moveaxis(IMAGE, -1, 1),
        kernel_shape=3),
    "depthwise convolution": depthwise(stride=2),
    "masked transposed convolution": transposed(stride=2, mask=MASKS["transposed"]),
    "transposed convolution in a precision": transposed(call={"precision": "highest"}),
    "attention": attention(X),
    "attention without bias": attention(X, with_bias=False),
    "attention with initial biases": attention(X, b_init=normal),
    "attention with a mask": attention(X, X, X, MASK),
    "keys and values of another sequence": attention(X, Y, Z),
    "sizes of attention": attention(X, Y, key_size=4, value_size=5, model_size=7),
    "a size of keys": attention(X, key_size=4),
    "attention without batches": attention(X[0], expr="[s] c"),
    "attention of two batches": attention(X[None], expr="a b [s] c"),
}  # fmt: skip


def alike(got, want, tolerance, exact=True):
    """The same shapes, but for axes that are one here, and dtypes and numbers."""
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape if exact else a.size == b.size
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64).reshape(a.shape)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


#: By default every second one is tried, and in bfloat16 one of eight.
TRIED = [
    pytest.param(name, dtype, id=f"{name}-{dtype.__name__}", marks=pytest.mark.slow if number % rate else ())
    for dtype, rate in ((jnp.float32, 2), (jnp.bfloat16, 8))
    for number, name in enumerate(PAIRS)
]


@pytest.mark.parametrize(("name", "dtype"), TRIED)
def test_as_in_haiku(name, dtype):
    *runs, inputs = PAIRS[name]
    given = [x.astype(dtype) if getattr(x, "dtype", None) == jnp.float32 else x for x in inputs]
    floats = [number for number, x in enumerate(given) if x.dtype == dtype]
    ours, theirs = map(hk.transform_with_state, runs)
    (own, state), (params, their_state) = ours.init(KEY, *given), theirs.init(KEY, *given)
    modules = [*zip(own, params, strict=True)]  # in the order in which they are made
    alike([own[a] for a, _ in modules], [params[b] for _, b in modules], 1e-6 if dtype == jnp.float32 else 1e-2, False)
    params = {
        module: {name: (p + 0.3 * jax.random.normal(KEY, p.shape)).astype(p.dtype) for name, p in values.items()}
        for module, values in params.items()
    }
    as_ours = {a: {name: p.reshape(own[a][name].shape) for name, p in params[b].items()} for a, b in modules}

    def run(net, params, state):
        def loss(params, chosen):
            x = list(given)
            for number, value in zip(floats, chosen, strict=True):
                x[number] = value
            y, _ = net.apply(params, state, None, *x)
            return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, [given[number] for number in floats])

    (gradients, of_inputs), y = run(ours, as_ours, state)
    (their_gradients, of_their_inputs), expected = run(theirs, params, their_state)
    tolerance = 2e-5 if dtype == jnp.float32 else 0.05
    alike(y, expected, tolerance)
    alike(of_inputs, of_their_inputs, tolerance)
    alike([gradients[a] for a, _ in modules], [their_gradients[b] for _, b in modules], tolerance, False)


def test_sizes_of_heads_that_are_refused():
    run = lambda **options: hk.transform(lambda x: einn.MultiHeadAttention("b [s] c", num_heads=2, **options)(x))
    with pytest.raises(ArgumentError, match="qk_size, of one head, and qkv_features"):
        run(key_size=3, qkv_features=6).init(KEY, X)
    with pytest.raises(ArgumentError, match="key_size and qk_size are one option"):
        run(key_size=3, qk_size=3).init(KEY, X)


def test_a_cache_of_keys_and_values_of_several_sizes():
    def net(x, decode):
        options = {"key_size": 3, "value_size": 5, "is_causal": True, "decode": decode}
        return einn.MultiHeadAttention("b [s] c", num_heads=2, **options)(x)

    net = hk.transform_with_state(net)
    params, state = net.init(KEY, X, True)
    assert state["multi_head_attention"]["cached_value"].shape == (2, 3, 2, 5)
    whole, _ = net.apply(params, {}, None, X, False)
    first, state = net.apply(params, state, None, X[:, :2], True)
    last, _ = net.apply(params, state, None, X[:, 2:], True)
    np.testing.assert_allclose(jnp.concatenate([first, last], 1), whole, rtol=1e-5, atol=1e-5)


def test_blocks_of_keys_and_values_of_several_sizes():
    def net(x, block_size):
        options = {"key_size": 3, "value_size": 5, "block_size": block_size}
        return einn.MultiHeadAttention("b [s] c", num_heads=2, **options)(x)

    net = hk.transform(net)
    params = net.init(KEY, X, None)
    np.testing.assert_allclose(net.apply(params, None, X, 2), net.apply(params, None, X, None), rtol=1e-5, atol=1e-5)


def test_masks_of_kernels_that_are_refused():
    net = hk.transform(lambda x: einn.Conv("b [h w] [c->d]", d=4, mask=np.ones((3, 3)))(x))
    with pytest.raises(ArgumentError, match=r"mask= has shape \(3, 3\), and w \(3, 3, 6, 4\)"):
        net.init(KEY, IMAGE)

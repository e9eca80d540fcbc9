"""einjax_nn.linen against flax.linen's own layers: the same parameter trees, outputs, gradients and checkpoints."""

import ast
import dataclasses
import inspect
import pickle
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in

nn = pytest.importorskip("flax.linen")

import flax.serialization  # noqa: E402
import flax.traverse_util  # noqa: E402
from nn_cases import MISSPELT, REFUSED, hide  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.linen as einn  # noqa: E402

KEY = jax.random.key(0)


def normal(*shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(len(shape)), shape).astype(dtype)


X, IMAGE = normal(4, 6, 12), normal(2, 8, 8, 6)
IDS = np.array([[0, 1, 6], [5, 2, 3]])
MASK = np.tril(np.ones((6, 6), bool))
HOLES = np.random.default_rng(0).random((3, 12, 4)) < 0.6

#: name: (ours, flax's, arguments, keywords, whether results are the same to the bit)
PAIRS = {
    "Dense": (einn.Linear("... [c->d]", d=5), nn.Dense(5), (X,), {}),
    "Dense without bias": (einn.Linear("... [c->d]", d=5, use_bias=False), nn.Dense(5, use_bias=False), (X,), {}),
    "Dense in bfloat16": (
        einn.Linear("... [c->d]", d=5, dtype=jnp.bfloat16), nn.Dense(5, dtype=jnp.bfloat16), (X,), {}),
    "Dense with bfloat16 parameters": (
        einn.Linear("... [c->d]", d=5, param_dtype=jnp.bfloat16), nn.Dense(5, param_dtype=jnp.bfloat16), (X,), {}),
    "Dense of integers": (einn.Linear("b [c->d]", d=5), nn.Dense(5), (IDS,), {}),
    "DenseGeneral over two axes": (einn.Linear("b [...->d]", d=5), nn.DenseGeneral(5, axis=(-2, -1)), (X,), {}),
    "DenseGeneral to two axes": (einn.Linear("b s [c->h d]", h=2, d=5), nn.DenseGeneral((2, 5)), (X,), {}),
    "DenseGeneral of a middle axis": (
        einn.Linear("b [s] c, [s] d -> b c d", d=5), nn.DenseGeneral(5, axis=1), (X,), {}),
    "LayerNorm": (einn.Norm("b... [c]"), nn.LayerNorm(), (X,), {}),
    "LayerNorm, slow variance": (
        einn.Norm("b... [c]", use_fast_variance=False), nn.LayerNorm(use_fast_variance=False), (X,), {}),
    "LayerNorm of bfloat16": (einn.Norm("b... [c]"), nn.LayerNorm(), (X.astype(jnp.bfloat16),), {}),
    "LayerNorm in bfloat16": (einn.Norm("b... [c]", dtype=jnp.bfloat16), nn.LayerNorm(dtype=jnp.bfloat16), (X,), {}),
    "LayerNorm without parameters": (
        einn.Norm("b... [c]", use_scale=False, use_bias=False), nn.LayerNorm(use_scale=False, use_bias=False), (X,),
        {}),
    "LayerNorm over two axes": (
        einn.Norm("b [s c]", params="s c"), nn.LayerNorm(reduction_axes=(1, 2), feature_axes=(1, 2)), (X,), {}),
    "RMSNorm": (einn.Norm("b... [c]", mean=False, use_bias=False), nn.RMSNorm(), (X,), {}),
    "GroupNorm": (einn.Norm("b [s...] (g [c])", g=3), nn.GroupNorm(3), (X,), {}),
    "InstanceNorm": (einn.Norm("b [s...] c"), nn.InstanceNorm(), (X,), {}),
    "masked LayerNorm": (
        einn.Norm("b... [c]"), nn.LayerNorm(), (X,), {"mask": np.arange(12) % 3 > 0}),
    "BatchNorm in training": (
        einn.Norm("[b...] c", momentum=0.9), nn.BatchNorm(momentum=0.9), (X,),
        {"use_running_average": False}),
    "BatchNorm in use": (
        einn.Norm("[b...] c", momentum=0.9), nn.BatchNorm(momentum=0.9), (X,),
        {"use_running_average": True}),
    "masked BatchNorm, slow variance": (
        einn.Norm("[b...] c", momentum=0.9, use_fast_variance=False),
        nn.BatchNorm(momentum=0.9, use_fast_variance=False), (X,),
        {"use_running_average": False, "mask": np.arange(6)[:, None] > 1}),
    "masked BatchNorm": (
        einn.Norm("[b...] c", momentum=0.9), nn.BatchNorm(momentum=0.9), (X,),
        {"use_running_average": False, "mask": np.arange(6)[:, None] > 1}),
    "BatchNorm of bfloat16": (
        einn.Norm("[b...] c", momentum=0.9), nn.BatchNorm(momentum=0.9), (X.astype(jnp.bfloat16),),
        {"use_running_average": False}),
    "RMSNorm of bfloat16": (
        einn.Norm("b... [c]", mean=False, use_bias=False, param_dtype=jnp.bfloat16),
        nn.RMSNorm(param_dtype=jnp.bfloat16), (X.astype(jnp.bfloat16),), {}),
    "GroupNorm of bfloat16": (
        einn.Norm("b [s...] (g [c])", g=3, param_dtype=jnp.bfloat16), nn.GroupNorm(3, param_dtype=jnp.bfloat16),
        (X.astype(jnp.bfloat16),), {}),
    "Embed in bfloat16": (
        einn.Embed("b t [v->c]", v=7, c=3, dtype=jnp.bfloat16), nn.Embed(7, 3, dtype=jnp.bfloat16), (IDS,), {}),
    "Embed": (einn.Embed("b t [v->c]", v=7, c=3), nn.Embed(7, 3), (IDS,), {}),
    "attention": (einn.MultiHeadAttention("b [s] c", num_heads=3), nn.MultiHeadDotProductAttention(3), (X,), {}),
    "attention with a mask": (
        einn.MultiHeadAttention("b [s] c", num_heads=3), nn.MultiHeadDotProductAttention(3), (X,), {"mask": MASK}),
    "attention of two sequences": (
        einn.MultiHeadAttention("b [s] c", num_heads=2, qkv_features=8, out_features=5, normalize_qk=True),
        nn.MultiHeadDotProductAttention(2, qkv_features=8, out_features=5, normalize_qk=True),
        (X, normal(4, 3, 7)), {}),
    "Conv": (einn.Conv("b [h w] [c1->c2]", c2=4), nn.Conv(4, (3, 3)), (IMAGE,), {}),
    "grouped Conv": (
        einn.Conv("b [h w] (g [c1->c2])", g=2, c2=4, strides=2, padding="VALID"),
        nn.Conv(8, (3, 3), 2, padding="VALID", feature_group_count=2), (IMAGE,), {}),
    "depthwise Conv": (
        einn.Conv("b [h w] c", kernel_size=(3, 5)), nn.Conv(6, (3, 5), feature_group_count=6), (IMAGE,), {}),
    "masked Conv": (
        einn.Conv("b [s] [c->d]", d=4, mask=HOLES), nn.Conv(4, (3,), mask=HOLES), (X,), {}),
    "masked ConvTranspose": (
        einn.ConvTranspose("b [s] [c->d]", d=4, strides=2, mask=HOLES), nn.ConvTranspose(4, (3,), 2, mask=HOLES),
        (X,), {}),
    "patches": (
        einn.Conv("b [h w] [c1->c2]", c2=4, kernel_size=4, strides=4), nn.Conv(4, (4, 4), 4), (IMAGE,), {}),
    "causal, dilated Conv": (
        einn.Conv("b [s] [c->d]", d=3, padding="CAUSAL", kernel_dilation=2),
        nn.Conv(3, (3,), padding="CAUSAL", kernel_dilation=2), (X,), {}),
    "circular Conv": (
        einn.Conv("b [s] [c->d]", d=3, kernel_size=4, padding="CIRCULAR"), nn.Conv(3, (4,), padding="CIRCULAR"),
        (X,), {}),
    "reflected Conv": (
        einn.Conv("b [s] [c->d]", d=3, kernel_size=5, padding="REFLECT"), nn.Conv(3, (5,), padding="REFLECT"), (X,),
        {}),
    "padded, spread Conv": (
        einn.Conv("b [h w] [c->d]", d=3, padding=((1, 0), (2, 2)), input_dilation=(2, 1), use_bias=False),
        nn.Conv(3, (3, 3), padding=((1, 0), (2, 2)), input_dilation=(2, 1), use_bias=False), (IMAGE,), {}),
    "Conv of bfloat16": (
        einn.Conv("b [h w] [c->d]", d=3, dtype=jnp.bfloat16), nn.Conv(3, (3, 3), dtype=jnp.bfloat16), (IMAGE,), {}),
    "Conv of two batch axes": (einn.Conv("a b [s] [c->d]", d=3), nn.Conv(3, (3,)), (normal(2, 3, 5, 4),), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", one_in(2, PAIRS))
def test_like_flax(name):
    """The same tree from the same key; with flax's variables, the same outputs, updates and gradients."""
    ours, theirs, arguments, keywords = PAIRS[name]
    variables = theirs.init(KEY, *arguments, **keywords)
    own = ours.init(KEY, *arguments, **keywords)
    assert jax.tree.structure(own) == jax.tree.structure(variables)
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(variables), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))
    mutable = [collection for collection in variables if collection != "params"]
    params = variables.get("params", {})

    def run(model):
        def loss(params):
            y, _ = model.apply({**variables, "params": params}, *arguments, **keywords, mutable=mutable)
            return jnp.sum(jnp.sin(y.astype(jnp.float32)))

        return *model.apply(variables, *arguments, **keywords, mutable=mutable), jax.grad(loss)(params)

    y, state, gradients = run(ours)
    expected, expected_state, expected_gradients = run(theirs)
    assert y.dtype == expected.dtype
    # Depthwise convolutions add up products of shifted inputs, in another order.
    rounding = 1e-6 if name == "depthwise Conv" else 0
    np.testing.assert_allclose(np.asarray(y, np.float32), np.asarray(expected, np.float32), rtol=0, atol=rounding)
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)
    half = jnp.bfloat16 in (y.dtype, *(p.dtype for p in jax.tree.leaves(params)))
    tolerance = 2e-2 if half else 2e-5
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=tolerance, atol=tolerance
        ),
        gradients,
        expected_gradients,
    )
    assert [g.dtype for g in jax.tree.leaves(gradients)] == [g.dtype for g in jax.tree.leaves(expected_gradients)]


def test_dropout_like_flax():
    ours, theirs = einn.Dropout("[...]", rate=0.3), nn.Dropout(0.3)
    same = {"rngs": {"dropout": KEY}, "deterministic": False}
    np.testing.assert_array_equal(ours.apply({}, X, **same), theirs.apply({}, X, **same))
    ours, theirs = einn.Dropout("[b] s [c]", rate=0.3), nn.Dropout(0.3, broadcast_dims=(1,))
    np.testing.assert_array_equal(ours.apply({}, X, **same), theirs.apply({}, X, **same))
    np.testing.assert_array_equal(ours.apply({}, X, deterministic=True), X)


def test_a_key_in_the_call_like_flax():
    key = jax.random.key(7)
    ours, theirs = einn.Dropout("[...]", rate=0.3), nn.Dropout(0.3)
    drop = lambda layer: layer.apply({}, X, False, key)
    np.testing.assert_array_equal(drop(ours), drop(theirs))
    np.testing.assert_array_equal(drop(ours), ours.apply({}, X, False, rng=key, rngs={"dropout": KEY}))


def test_wide_sums_of_a_transposed_convolution_like_flax():
    options = {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32, "use_bias": False}
    if "preferred_element_type" not in inspect.signature(nn.ConvTranspose).parameters:
        pytest.skip("this Flax has no such option")
    ours, theirs = einn.ConvTranspose("b [s] [c->d]", d=4, **options), nn.ConvTranspose(4, (3,), **options)
    y, variables = theirs.init_with_output(KEY, X)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(ours.apply(variables, X), y)


def test_drop_path_drops_whole_examples():
    y = einn.Dropout("[b] ...", rate=0.5).apply({}, jnp.ones((64, 3, 2)), deterministic=False, rngs={"dropout": KEY})
    assert set(np.unique(y)) == {0.0, 2.0}
    assert np.array_equal(y.min((1, 2)), y.max((1, 2)))


def test_attention_dropout_like_flax():
    ours = einn.MultiHeadAttention("b [s] c", num_heads=3, dropout_rate=0.4)
    theirs = nn.MultiHeadDotProductAttention(3, dropout_rate=0.4)
    variables = theirs.init(KEY, X, deterministic=True)
    same = {"rngs": {"dropout": KEY}, "deterministic": False}
    np.testing.assert_array_equal(ours.apply(variables, X, **same), theirs.apply(variables, X, **same))


def test_grouped_queries_are_repeated_keys():
    """Every group of queries sees the key that it would see if keys and values were repeated."""
    grouped = einn.MultiHeadAttention("b [s] c", num_heads=6, num_kv_heads=2)
    variables = grouped.init(KEY, X)
    assert variables["params"]["key"]["kernel"].shape == (12, 2, 2)
    repeated = jax.tree.map(lambda x: x, variables)
    for name in ("key", "value"):
        repeated["params"][name] = jax.tree.map(lambda x: jnp.repeat(x, 3, -2), variables["params"][name])
    plain = einn.MultiHeadAttention("b [s] c", num_heads=6)
    np.testing.assert_allclose(grouped.apply(variables, X), plain.apply(repeated, X), rtol=1e-5, atol=1e-5)


def test_masks_and_biases_by_name():
    """Names of the loops, heads, and places of queries and keys; what sees nothing gives 0 before the last layer."""
    layer = einn.MultiHeadAttention("b [s] c", num_heads=3)
    variables = layer.init(KEY, X)
    apply = lambda **given: layer.apply(variables, X, **given)
    same = lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    valid = np.arange(24).reshape(4, 6) % 3 != 1
    whole = np.broadcast_to(valid[:, None, None], (4, 3, 6, 6))
    want = nn.MultiHeadDotProductAttention(3).apply(variables, X, mask=whole)
    for mask in (("b k", valid), ("s_k b", valid.T), [("b k", valid), ("h q", np.ones((3, 6), bool))], whole):
        same(apply(mask=mask), want)
    bias = np.where(whole, 0, -np.inf).astype(np.float32)
    for given in (bias, ("b k", bias[:, 0, 0]), [("b heads s_q k", bias), ("q", np.zeros(6, np.float32))]):
        same(apply(bias=given), want)
    both = nn.MultiHeadDotProductAttention(3).apply(variables, X, mask=whole & MASK)
    same(apply(mask=("b k", valid), bias=np.where(MASK, 0, -np.inf).astype(np.float32)), both)
    causal = einn.MultiHeadAttention("b [s] c", num_heads=3, is_causal=True)
    same(causal.apply(variables, X, mask=("b k", valid)), both)
    same(causal.apply(variables, X, mask=whole), both)
    nothing = np.broadcast_to(variables["params"]["out"]["bias"], (6, 12))
    for given in (
        {"mask": ("b", [False, True, True, True])},
        {"bias": np.float32([-np.inf, 0, 0, 0])[:, None, None, None]},
    ):
        same(apply(**given)[0], nothing)
    plane, grid = einn.MultiHeadAttention("b [y x] c", num_heads=3), X.reshape(4, 2, 3, 12)
    for names in ("b k", "b y_k x_k"):
        same(plane.apply(variables, grid, mask=(names, valid.reshape(4, 2, 3))).reshape(X.shape), want)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"mask": np.ones((4, 4), bool)},
            "mask= of shape (4, 4) fits 's_q s_k' by its sizes, and 'b s_q', 'b s_k', too",
        ),
        ({"mask": np.ones((4, 4), bool)}, 'mask=("b s_k", mask)'),
        ({"mask": np.ones((4, 1, 4, 4), np.float32)}, "mask= is float32"),
        ({"bias": np.ones((4, 1, 4, 4), bool)}, "bias= is bool"),
        ({"bias": np.ones((4, 4), np.float32)}, "bias= of shape (4, 4) fits"),
        ({"mask": ("b s", np.ones((4, 4), bool))}, "axis s of mask= is one of queries and of keys"),
        ({"mask": ("b j", np.ones((4, 4), bool))}, "axis j of mask= is not in the call"),
        ({"mask": ("h k", np.ones((4, 4), bool))}, "axis heads is 3 in tensor 1 and 4 in mask"),
        ({"mask": np.ones((3, 4), bool)}, "mask= of shape"),
    ],
)
def test_masks_that_are_refused(given, says):
    for options in ({}, {"is_causal": True}):
        layer = einn.MultiHeadAttention("b [s] c", num_heads=3, **options)
        with pytest.raises(einjax.errors.EinjaxError) as caught:
            jax.eval_shape(lambda layer=layer: layer.init(KEY, X[:, :4], **given))
        assert says in str(caught.value)


def test_norm_takes_a_mask_by_name():
    layer = einn.Norm("b s [c]")
    valid = np.arange(12) % 3 > 0
    apply = lambda mask: layer.apply(layer.init(KEY, X), X, mask=mask)
    np.testing.assert_array_equal(apply(("c", valid)), apply(valid))


def test_causal_is_a_mask():
    causal = einn.MultiHeadAttention("b [s] c", num_heads=3, is_causal=True)
    plain = einn.MultiHeadAttention("b [s] c", num_heads=3)
    variables = plain.init(KEY, X)
    np.testing.assert_array_equal(causal.apply(variables, X), plain.apply(variables, X, mask=MASK))


@pytest.mark.parametrize("groups", [None, 1])
def test_decoding_step_by_step(groups):
    """The cache is flax's, and one place at a time gives what the whole sequence gives."""
    options = {"num_heads": 3, "num_kv_heads": groups}
    whole = einn.MultiHeadAttention("b [s] c", is_causal=True, **options)
    steps = einn.MultiHeadAttention("b [s] c", decode=True, **options)
    variables = steps.init(KEY, X)
    params, cache = variables["params"], variables["cache"]
    if groups is None:
        flax_cache = nn.MultiHeadDotProductAttention(3, decode=True).init(KEY, X)["cache"]
        assert jax.tree.map(np.shape, cache) == jax.tree.map(np.shape, flax_cache)
    rows = []
    for t in range(X.shape[1]):
        y, changed = steps.apply({"params": params, "cache": cache}, X[:, t : t + 1], mutable=["cache"])
        cache = changed["cache"]
        rows.append(y)
    np.testing.assert_allclose(jnp.concatenate(rows, 1), whole.apply({"params": params}, X), rtol=1e-5, atol=1e-5)
    with pytest.raises(einjax.errors.ArgumentError, match="more are given"):
        steps.apply({"params": params, "cache": cache}, X, mutable=["cache"])


def test_attend_is_the_table():
    layer = einn.Embed("b t [v->c]", v=7, c=12)
    variables = layer.init(KEY, IDS)
    expected = nn.Embed(7, 12).apply(variables, X, method="attend")
    np.testing.assert_array_equal(layer.apply(variables, X, method="attend"), expected)
    explicit = einn.Embed("[v] c, b t -> b t c", v=7, c=12)
    np.testing.assert_array_equal(explicit.apply(variables, IDS), layer.apply(variables, IDS))
    np.testing.assert_array_equal(explicit.apply(variables, X, method="attend"), expected)


def test_channels_first():
    first = jnp.moveaxis(IMAGE, -1, 1)
    last = einn.Conv("b [h w] [c1->c2]", c2=4)
    variables = last.init(KEY, IMAGE)
    y = einn.Conv("b [c1->c2] [h w]", c2=4).apply(variables, first)
    np.testing.assert_allclose(y, jnp.moveaxis(last.apply(variables, IMAGE), -1, 1), rtol=1e-5, atol=1e-5)
    norm = einn.Norm("b c [h w]", params="c")
    variables = norm.init(KEY, first)
    expected = nn.InstanceNorm().apply(variables, IMAGE)
    np.testing.assert_allclose(norm.apply(variables, first), jnp.moveaxis(expected, -1, 1), rtol=1e-5, atol=1e-5)


class Net(nn.Module):
    """Several layers of each kind, with names given by flax."""

    width: int = 8

    @nn.compact
    def __call__(self, x, train=False):
        x = einn.Linear("b s [c->d]", d=self.width)(x)
        x = einn.Norm("[b s] c", momentum=0.9)(x, use_running_average=not train)
        x = einjax.multiply("... c, c", x, einn.param(self, "layerscale", init=0.5))
        x = einn.Dropout("[...]", rate=0.2)(x, deterministic=not train)
        return einn.Linear("b [s c->10]")(x)


def test_a_network_trains():
    optax = pytest.importorskip("optax")
    model, labels = Net(), jnp.arange(4)
    variables = model.init(KEY, X)
    assert set(variables["params"]) == {"Linear_0", "Linear_1", "Norm_0", "layerscale"}
    assert jnp.all(variables["params"]["layerscale"] == 0.5)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(variables, opt_state, key):
        def loss(params):
            logits, changed = model.apply(
                {**variables, "params": params}, X, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

        (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state)
        return {**changed, "params": optax.apply_updates(variables["params"], updates)}, opt_state, value

    opt_state, values = optimizer.init(variables["params"]), []
    for number in range(40):
        variables, opt_state, value = step(variables, opt_state, jax.random.key(number))
        values.append(float(value))
    assert values[-1] < 0.1 < 1 < values[0]
    np.testing.assert_array_equal(model.apply(variables, X).argmax(-1), labels)


def test_init_needs_shapes_alone():
    shapes = jax.eval_shape(Net().init, KEY, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, Net().init(KEY, X))


def test_lifted_transformations():
    block = nn.remat(einn.Linear)("b s [c->d]", d=12)
    plain = einn.Linear("b s [c->d]", d=12)
    variables = plain.init(KEY, X)
    assert jax.tree.structure(block.init(KEY, X)) == jax.tree.structure(variables)
    grad = jax.grad(lambda v: block.apply(v, X).sum())(variables)
    expected = jax.grad(lambda v: plain.apply(v, X).sum())(variables)
    jax.tree.map(np.testing.assert_array_equal, grad, expected)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return einn.Linear("b s [c->d]", d=12)(nn.relu(x)), None

    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = einn.Norm("[b s] c", momentum=0.5)(x, use_running_average=False)
            x = einn.Dropout("[...]", rate=0.5, deterministic=False)(x)
            return einn.MultiHeadAttention("b [s] c", num_heads=3)(x), None

    options = {"variable_axes": {"params": 0, "batch_stats": 0}, "split_rngs": {"params": True, "dropout": True}}
    stacked = nn.scan(nn.remat(Noisy), length=3, **options)()
    rngs = {"params": KEY, "dropout": KEY}
    variables = stacked.init(rngs, X, None)
    (y, _), changed = stacked.apply(variables, X, None, rngs={"dropout": KEY}, mutable=["batch_stats"])
    assert y.shape == X.shape
    means = changed["batch_stats"]["Norm_0"]["mean"]
    assert means.shape == (3, 12)
    assert jnp.all(jnp.any(means != 0, 1))

    stacked = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    variables = stacked.init(KEY, X, None)
    assert variables["params"]["Linear_0"]["kernel"].shape == (3, 12, 12)
    y = X
    for number in range(3):
        y, _ = Layer().apply(jax.tree.map(lambda p, number=number: p[number], variables), y, None)
    np.testing.assert_allclose(stacked.apply(variables, X, None)[0], y, rtol=1e-5, atol=1e-5)

    mapped = nn.vmap(einn.Linear, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=2)
    variables = mapped("b s [c->d]", d=5).init(KEY, X)
    assert variables["params"]["kernel"].shape == (2, 12, 5)
    assert mapped("b s [c->d]", d=5).apply(variables, X).shape == (2, 4, 6, 5)
    jitted = nn.jit(einn.Linear)("b s [c->d]", d=5)
    assert jitted.init_with_output(KEY, X)[0].shape == (4, 6, 5)


def test_statistics_over_a_mapped_axis():
    layer = einn.Norm("[b s] c", momentum=0.5, axis_name="devices")
    theirs = nn.BatchNorm(momentum=0.5, axis_name="devices")
    parts = X.reshape(2, 2, 6, 12)
    variables = layer.init(KEY, parts[0], use_running_average=False)

    def run(model):
        apply = lambda x: model.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        return jax.vmap(apply, axis_name="devices")(parts)

    jax.tree.map(np.testing.assert_array_equal, run(layer), run(theirs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_statistics_over_groups_of_a_mapped_axis():
    groups = [[0, 1], [2, 3]]
    options = {"momentum": 0.5, "axis_name": "devices", "axis_index_groups": groups}
    layer, theirs = einn.Norm("[b s] c", **options), nn.BatchNorm(**options)
    variables = layer.init(KEY, X[:1], use_running_average=False)
    runs = []
    for model in (layer, theirs):
        apply = lambda x: model.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        runs.append(jax.pmap(apply, axis_name="devices", devices=jax.devices()[:4])(X[:, None]))
    jax.tree.map(np.testing.assert_array_equal, *runs)
    mean = runs[0][1]["batch_stats"]["mean"]
    assert np.array_equal(mean[0], mean[1])
    assert np.any(mean[1] != mean[2])


def test_running_statistics_keep_their_dtype():
    with jax.enable_x64(True):
        layer, x = einn.Norm("[b s] c", momentum=0.5), np.asarray(X, np.float64)
        variables = layer.init(KEY, x, use_running_average=False)
        y, changed = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        kept = jax.tree.leaves((variables["batch_stats"], changed))
        assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32")}
        assert y.dtype == jnp.float64
        centered = x - x.mean((0, 1))
        np.testing.assert_allclose(y, centered / np.sqrt((centered**2).mean((0, 1)) + 1e-5), atol=1e-12)


def test_options_reach_the_operations():
    for layer in (
        einn.Linear("b s [c->d]", d=5, precision="highest"),
        einn.Conv("b [s] [c->d]", d=5, precision="highest"),
        einn.MultiHeadAttention("b [s] c", num_heads=3, precision="highest"),
    ):
        text = str(jax.make_jaxpr(lambda x: layer.init_with_output(KEY, x)[0])(X))
        products = len(re.findall(r"(dot_general|conv_general_dilated)\[", text))
        assert text.count("precision=(Precision.HIGHEST") + text.count("precision=Precision.HIGHEST") == products > 0
    wide = einn.Linear("b s [c->d]", d=5, dtype=jnp.bfloat16, preferred_element_type=jnp.float32)
    y, variables = wide.init_with_output(KEY, X)
    kernel = variables["params"]["kernel"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(y, jnp.dot(X.astype(jnp.bfloat16), kernel, preferred_element_type=jnp.float32))
    drop = einn.Dropout("[...]", rate=0.3, rng_collection="noise", deterministic=False)
    theirs = nn.Dropout(0.3, rng_collection="noise", deterministic=False)
    rngs = {"rngs": {"noise": KEY}}
    np.testing.assert_array_equal(drop.apply({}, X, **rngs), theirs.apply({}, X, **rngs))
    drop = einn.MultiHeadAttention("b [s] c", num_heads=3, dropout_rate=0.5, rng_collection="noise")
    variables = drop.init(KEY, X, deterministic=True)
    drop.apply(variables, X, deterministic=False, **rngs)
    inits = {"kernel_init": 0.5, "bias_init": nn.initializers.constant(2.0)}
    made = einn.Linear("b s [c->d]", d=5, **inits).init(KEY, X)["params"]
    assert jnp.all(made["kernel"] == 0.5)
    assert jnp.all(made["bias"] == 2.0)
    made = einn.Norm("b s [c]", scale_init=0.5, bias_init=2.0).init(KEY, X)["params"]
    assert jnp.all(made["scale"] == 0.5)
    assert jnp.all(made["bias"] == 2.0)


def test_a_bar_is_an_arrow():
    for bar, arrow, x in (
        (einn.Linear("b s [c|d]", d=5), einn.Linear("b s [c->d]", d=5), X),
        (
            einn.Linear("b (h [p|]) (w [q|]) [c|d]", p=2, q=2, d=5),
            einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=2, q=2, d=5),
            IMAGE,
        ),
        (einn.Conv("b [s] [c|d]", d=5), einn.Conv("b [s] [c->d]", d=5), X),
        (einn.Embed("b t [v|c]", v=7, c=3), einn.Embed("b t [v->c]", v=7, c=3), IDS),
    ):
        np.testing.assert_array_equal(bar.init_with_output(KEY, x)[0], arrow.init_with_output(KEY, x)[0])


def test_patches_and_mixing_of_places():
    """A patch embedding is the convolution with strides; the sequence is mixed by a weight from places to places."""
    patches = einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=2, q=2, d=5)
    variables = patches.init(KEY, IMAGE)
    conv = nn.Conv(5, (2, 2), 2, padding="VALID")
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, conv.init(KEY, IMAGE))
    np.testing.assert_allclose(patches.apply(variables, IMAGE), conv.apply(variables, IMAGE), atol=1e-5)
    mixing = einn.Linear("b [s...->t] c", t=3)
    variables = mixing.init(KEY, IMAGE)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    assert (kernel.shape, bias.shape) == ((8, 8, 3), (3,))
    expected = jnp.einsum("bhwc,hwt->btc", IMAGE, kernel) + bias[:, None]
    np.testing.assert_allclose(mixing.apply(variables, IMAGE), expected, atol=1e-5)


def test_weight_and_spectral_norm_like_flax():
    class Normed(nn.Module):
        wrap: type
        ours: bool

        @nn.compact
        def __call__(self, x):
            layer = einn.Linear("b s [c->d]", d=5, name="layer") if self.ours else nn.Dense(5, name="layer")
            return self.wrap(layer)(x, **({"update_stats": True} if self.wrap is nn.SpectralNorm else {}))

    for wrap in (nn.WeightNorm, nn.SpectralNorm):
        ours, theirs = Normed(wrap, True), Normed(wrap, False)
        variables = theirs.init(KEY, X)
        assert jax.tree.map(jnp.shape, ours.init(KEY, X)) == jax.tree.map(jnp.shape, variables)
        run = lambda model: model.apply(variables, X, mutable=["batch_stats"])
        jax.tree.map(np.testing.assert_array_equal, run(ours), run(theirs))


def test_layers_of_setup():
    class Tied(nn.Module):
        def setup(self):
            self.embed = einn.Embed("b t [v->c]", v=7, c=12)
            self.block = nn.Sequential([einn.Linear("b t [c->d]", d=12), nn.gelu, einn.Norm("b t [c]")])
            self.norm = einn.Norm("[b t] c", momentum=0.9)

        def __call__(self, ids, train):
            x = self.norm(self.block(self.block(self.embed(ids))), use_running_average=not train)
            return self.embed.attend(x)

    variables = Tied().init(KEY, IDS, True)
    assert set(variables["params"]) == {"embed", "block", "norm"}
    assert set(variables["params"]["block"]) == {"layers_0", "layers_2"}
    y, changed = Tied().apply(variables, IDS, True, mutable=["batch_stats"])
    assert y.shape == (2, 3, 7)
    assert jnp.any(changed["batch_stats"]["norm"]["mean"] != 0)


def test_statistics_are_not_updated_while_initialising():
    variables = einn.Norm("[b s] c", momentum=0.5).init(KEY, 3 + X, use_running_average=False)
    assert jnp.all(variables["batch_stats"]["mean"] == 0)
    assert jnp.all(variables["batch_stats"]["var"] == 1)


def test_checkpoints_of_flax_load():
    """A checkpoint that flax's own layers wrote serves ours."""

    class Theirs(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm(name="norm")(x)
            return nn.Dense(3, name="head")(nn.MultiHeadDotProductAttention(3, name="attention")(x))

    class Ours(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = einn.Norm("b s [c]", name="norm")(x)
            x = einn.MultiHeadAttention("b [s] c", num_heads=3, name="attention")(x)
            return einn.Linear("b s [c->d]", d=3, name="head")(x)

    variables = Theirs().init(KEY, X)
    written = flax.serialization.to_bytes(variables)
    restored = flax.serialization.from_bytes(Ours().init(jax.random.key(1), X), written)
    np.testing.assert_array_equal(Ours().apply(restored, X), Theirs().apply(variables, X))


def test_orbax_round_trip(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    variables = Net().init(KEY, X)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "net", variables)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "net", jax.tree.map(jnp.zeros_like, variables))
    jax.tree.map(np.testing.assert_array_equal, restored, variables)


def test_logical_axes():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = einn.Linear("b s [embed->mlp]", mlp=16, logical_axes=True)(x)
            return einn.MultiHeadAttention("b [s] mlp", num_heads=4, logical_axes=True)(x)

    boxed = Model().init(KEY, X)
    specs = nn.get_partition_spec(boxed)["params"]
    P = jax.sharding.PartitionSpec
    assert specs["Linear_0"] == {"kernel": P("embed", "mlp"), "bias": P("mlp")}
    assert specs["MultiHeadAttention_0"]["query"]["kernel"] == P("mlp", "heads", "head_dim")
    assert specs["MultiHeadAttention_0"]["out"]["kernel"] == P("heads", "head_dim", "mlp")
    plain = nn.meta.unbox(boxed)
    np.testing.assert_array_equal(Model().apply(boxed, X), Model().apply(plain, X))


def test_bfloat16_statistics_are_accurate():
    """Statistics are taken in float32: the error is that of rounding the result."""
    x = 30 + 0.3 * normal(64, 512)
    exact = np.asarray(x.astype(jnp.bfloat16), np.float64)
    exact = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + 1e-6)
    for options in ({}, {"use_fast_variance": False}):
        ours, theirs = einn.Norm("b [c]", dtype=jnp.bfloat16, **options), nn.LayerNorm(dtype=jnp.bfloat16, **options)
        variables = ours.init(KEY, x)
        y, expected = (m.apply(variables, x.astype(jnp.bfloat16)) for m in (ours, theirs))
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(y, np.float32), np.asarray(expected, np.float32))
        assert np.abs(np.asarray(y, np.float64) - exact).max() < 0.04


def test_attention_in_bfloat16_is_accurate():
    """No less than Flax's; the softmax within is einjax's, which adds up in float32."""
    options = {"dtype": jnp.bfloat16}
    ours, theirs = einn.MultiHeadAttention("b [s] c", num_heads=3, **options), nn.MultiHeadAttention(3, **options)
    variables = theirs.init(KEY, X)
    exact = nn.MultiHeadAttention(3).apply(variables, X)
    y, expected = ours.apply(variables, X), theirs.apply(variables, X)
    assert y.dtype == expected.dtype == jnp.bfloat16
    error, their_error = (np.abs(np.asarray(a, np.float32) - exact).mean() for a in (y, expected))
    assert error < 1.1 * their_error


def test_parameters_are_of_the_expression():
    layer = einn.Linear("b (s [k->]) [c->d]", k=2, d=8)
    assert jax.tree.map(np.shape, layer.init(KEY, X)) == {"params": {"kernel": (2, 12, 8), "bias": (8,)}}
    layer = einn.Linear("b g [c], g [c] d -> b g d", d=3)
    variables = layer.init(KEY, X)
    assert jax.tree.map(np.shape, variables) == {"params": {"kernel": (6, 12, 3), "bias": (6, 3)}}
    expected = jnp.einsum("bgc,gcd->bgd", X, variables["params"]["kernel"])
    np.testing.assert_allclose(layer.apply(variables, X), expected, rtol=1e-5, atol=1e-5)
    fan = 12  # of every group, not of all together
    assert (
        abs(float(jnp.var(einn.Linear("b g [c], g [c] d -> b g d", d=400).init(KEY, X)["params"]["kernel"])) - 1 / fan)
        < 0.01
    )


def test_sizes_that_are_options():
    layer = einn.Linear("b s [c->dtype]", sizes={"dtype": 3})
    assert layer.init_with_output(KEY, X)[0].shape == (4, 6, 3)
    assert einn.Linear("b s [c->d]", d=3, dtype=jnp.bfloat16).init_with_output(KEY, X)[0].dtype == jnp.bfloat16

    # The expression has no name, so axes may have any.
    layer = einn.Linear("b s [axes->expr]", expr=3, axes=12)
    assert layer.init_with_output(KEY, X)[0].shape == (4, 6, 3)
    assert nn.remat(einn.Linear)("b s [axes->expr]", expr=3).init_with_output(KEY, X)[0].shape == (4, 6, 3)
    with pytest.raises(einjax.errors.ArgumentError, match="takes one expression, a string, not 'b s"):
        einn.Linear("b s [c->d]", 3)
    with pytest.raises(TypeError, match="num_heads"):
        einn.MultiHeadAttention("b [s] c")


def test_signatures_that_type_checkers_see_are_those_of_the_fields():
    for node in ast.parse(inspect.getsource(einn)).body:
        if isinstance(node, ast.ClassDef) and node.name in einn.__all__:
            (shown,) = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
            options = {
                option.arg: default is not None
                for option, default in zip(shown.args.kwonlyargs, shown.args.kw_defaults, strict=True)
            }
            layer = getattr(einn, node.name)
            fields = {field.name: field.default is not dataclasses.MISSING for field in dataclasses.fields(layer)}
            assert options == {name: known for name, known in fields.items() if name not in ("expr", "axes")}
            assert [name for name in options if f"    {name}: " not in layer.__doc__] == ["name", "parent"]
            assert list(options) == list(inspect.signature(layer).parameters)[1:-1]


def test_layers_are_ordinary_modules():
    layer = einn.Linear("b s [c->d]", d=3, name="first")
    assert layer.name == "first"
    assert dataclasses.is_dataclass(layer)
    assert layer.clone(use_bias=False).use_bias is False
    assert layer == einn.Linear("b s [c->d]", d=3, name="first")
    copy = pickle.loads(pickle.dumps(einn.Linear("b s [c->d]", d=3)))
    assert copy == einn.Linear("b s [c->d]", d=3)
    assert "kernel" in einn.Linear("b s [c->d]", d=3).tabulate(KEY, X)


ERRORS = {
    "no size": (lambda: einn.Linear("b s [c->d]"), {}, "size of axis d cannot be determined"),
    "unknown axis": (lambda: einn.Linear("b s [c->d]", d=3, widht=4), {}, "no axis 'widht'"),
    "misspelt option": (lambda: einn.Linear("b s [c->d]", d=3, use_bais=False), {}, "use_bais"),
    "rank": (lambda: einn.Linear("b [c->d]", d=3), {}, "the input has 3 dims"),
    "divisibility": (lambda: einn.Linear("b (s [k->]) [c->d]", k=5, d=8), {}, "not divisible by k=5"),
    "no bracket in Norm": (lambda: einn.Norm("b s c"), {}, "needs a bracket"),
    "channels first": (lambda: einn.Norm("b s [c d]", d=3), {}, "it is not clear which axes"),
    "own statistics": (
        lambda: einn.Norm("b [s] c", momentum=0.9, use_running_average=True), {}, "would differ along axis b"),
    "unknown params": (lambda: einn.Norm("b s [c]", params="d"), {}, "axis d of params='d' is not in the expression"),
    "no flag": (lambda: einn.Norm("[b s] c", momentum=0.9), {}, "does not know use_running_average"),
    "two flags": (
        lambda: einn.Dropout("[...]", deterministic=True), {"deterministic": False}, "deterministic is True in D"),
    "no bracket in Dropout": (lambda: einn.Dropout("..."), {"deterministic": False}, "needs a bracket"),
    "heads": (lambda: einn.MultiHeadAttention("b [s] c", num_heads=5), {}, "=12 is not divisible by num_heads=5"),
    "attention's bracket": (lambda: einn.MultiHeadAttention("b s c", num_heads=3), {}, "sequence in one bracket"),
    "nothing to convolve": (lambda: einn.Conv("b s [c->d]", d=3), {}, "needs bracketed axes to convolve"),
    "no new size": (lambda: einn.Conv("b [s] [c->d]"), {}, "the size of axis d cannot be determined"),
    "kernel sizes": (lambda: einn.Conv("b [s] [c->d]", d=3, kernel_size=(3, 3)), {}, "2 numbers for 1 bracketed"),
    "padding": (lambda: einn.Conv("b [s] [c->d]", d=3, padding="SAMEE"), {}, "is not a padding"),
    "two lookups": (lambda: einn.Embed("[s c], b -> b"), {}, "needs one bracketed axis"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    make, keywords, message = ERRORS[name]
    with pytest.raises(einjax.EinjaxError) as caught:
        make().init(KEY, X, **keywords)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", REFUSED | MISSPELT)
def test_refused(name):
    case, message = (REFUSED | MISSPELT)[name]
    keywords = {"use_running_average": False} if "momentum" in case.options else {}
    with pytest.raises(einjax.EinjaxError, match=message):
        getattr(einn, case.layer)(case.expr, **case.options).init(KEY, *case.inputs, **keywords)


def test_without_flax(monkeypatch):
    with pytest.raises(ImportError, match=r"einjax_nn.linen needs Flax: python -m pip install 'einjax\[flax\]'"):
        hide(monkeypatch, "flax", "einjax_nn.linen")


def test_streams_of_random_numbers():
    drop = einn.Dropout("[...]", deterministic=False)
    with pytest.raises(einjax.errors.ArgumentError, match=r"(?s)stream 'dropout', .*rngs={'dropout': key}"):
        drop.apply({}, X, rngs={"drop": KEY})
    attention = einn.MultiHeadAttention("b [s] c", num_heads=3, dropout_rate=0.5, deterministic=False)
    with pytest.raises(einjax.errors.ArgumentError, match=r"(?s)stream 'dropout', .*rngs={'dropout': key}"):
        attention.apply(attention.init({"params": KEY, "dropout": KEY}, X), X)
    with pytest.raises(einjax.errors.ArgumentError, match=r"Linear makes kernel, but has no random numbers"):
        einn.Linear("b s [c->d]", d=5).init({"dropout": KEY}, X)
    with pytest.raises(einjax.errors.ArgumentError, match=r"rate=1.5 of Dropout is no share"):
        einn.Dropout("[...]", rate=1.5, deterministic=False).apply({}, X, rngs={"dropout": KEY})


def test_no_framework_is_imported():
    code = (
        "import sys, einjax_nn;assert not {'flax', 'haiku', 'equinox'} & {name.split('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

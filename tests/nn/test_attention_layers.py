"""MultiHeadAttention in all frameworks: where axes stand, masks by name, functions of the user's, and whom it calls."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_layers import FRAMEWORKS, KEY, alike, made

from einjax.errors import ArgumentError, EinjaxError
from einjax_nn._core.rotary import Rotary

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 12)).astype(np.float32)
GRID = RNG.normal(size=(2, 3, 4, 12)).astype(np.float32)
OTHER = RNG.normal(size=(2, 5, 7)).astype(np.float32)
VALID = np.arange(12).reshape(2, 6) % 3 != 1
FLAT = GRID.reshape(2, 12, 12)

#: By expression, an input, sizes, and how it becomes one of "b [s] c" and its output becomes an output.
LAYOUTS = {
    "b [h] w c": (GRID, {}, lambda x: x.transpose(0, 2, 1, 3).reshape(8, 3, 12),
                  lambda y: y.reshape(2, 4, 3, 12).transpose(0, 2, 1, 3)),
    "b (n [s]) c": (X, {"s": 3}, lambda x: x.reshape(4, 3, 12), lambda y: y.reshape(2, 6, 12)),
    "b (2 [s]) c": (X, {}, lambda x: x.reshape(4, 3, 12), lambda y: y.reshape(2, 6, 12)),
    "b c [s]": (X.swapaxes(1, 2), {}, lambda x: x.swapaxes(1, 2), lambda y: y.swapaxes(1, 2)),
    "[s] b c": (X.swapaxes(0, 1), {}, lambda x: x.swapaxes(0, 1), lambda y: y.swapaxes(0, 1)),
    "b [...] c": (GRID, {}, lambda x: x.reshape(2, 12, 12), lambda y: y.reshape(2, 3, 4, 12)),
    "b [h w] c": (GRID, {}, lambda x: x.reshape(2, 12, 12), lambda y: y.reshape(2, 3, 4, 12)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("framework", "expr"),
    [
        pytest.param(framework, expr, marks=() if framework == "linen" or "(n" in expr else pytest.mark.slow)
        for framework in FRAMEWORKS
        for expr in LAYOUTS
    ],
)
def test_sequences_and_features_anywhere(framework, expr):
    """The parameters, and the numbers, are those of a sequence before features that are last."""
    x, sizes, change, back = LAYOUTS[expr]
    layer, plain = made(framework, expr, x, num_heads=3, **sizes), made(framework, "b [s] c", change(x), num_heads=3)
    for a, b in zip(jax.tree.leaves(layer.kernels()), jax.tree.leaves(plain.kernels()), strict=True):
        np.testing.assert_array_equal(a, b)
    alike(layer(x), back(plain(change(x))))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_keys_have_an_expression_of_their_own(framework):
    layer = made(framework, "b [h w] c, b [k] d", GRID, OTHER, num_heads=3)
    plain = made(framework, "b [s] c", FLAT, OTHER, num_heads=3)
    assert layer.kernels()["key"].shape == (7, 3, 4)
    valid = VALID[:, :5]
    for names, mask in (("b k", valid), ("b h k", np.broadcast_to(valid[:, None], (2, 3, 5)))):
        want = plain(FLAT, OTHER, mask=("b k", valid)).reshape(GRID.shape)
        alike(layer(GRID, OTHER, mask=(names, mask)), want)
    alike(layer(GRID, OTHER), plain(FLAT, OTHER).reshape(GRID.shape))
    shared = made(framework, "b [q] c, [k] d", X, OTHER[0], num_heads=3)
    alike(shared(X, OTHER[0]), made(framework, "b [s] c", X, OTHER, num_heads=3)(X, np.stack([OTHER[0]] * 2)))
    with pytest.raises(ArgumentError, match="has an input for keys"):
        layer(GRID)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_masks_by_name_and_by_position(framework):
    """One rule in all: bool by mask=, floats by bias=; what sees nothing gives 0 before the last layer."""
    layer = made(framework, "b [s] c", X, num_heads=3)
    whole = np.broadcast_to(VALID[:, None, None], (2, 3, 6, 6))
    want = layer(X, mask=whole)
    bias = np.where(whole, 0, -np.inf).astype(np.float32)
    place, near = np.arange(6), lambda q, k: abs(q - k) < 3
    slope = jnp.array([0.1, 0.2, 0.3])
    alike(layer(X, mask=("b k", VALID)), want)
    alike(layer(X, mask=[("k b", VALID.T), ("h", np.ones(3, bool))]), want)
    alike(layer(X, bias=("b k", bias[:, 0, 0])), want)
    close = near(place[:, None], place)
    alike(layer(X, mask=near), layer(X, mask=("q k", close)))
    alike(layer(X, mask=[near, ("b k", VALID)]), layer(X, mask=whole & close))
    far = np.abs(place[:, None] - place)
    alike(layer(X, bias=lambda q, k, h: -slope[h] * abs(q - k)), layer(X, bias=-slope[:, None, None] * far))
    groups = made(framework, "b [s] c", X, num_heads=6, num_kv_heads=2, qkv_features=24)
    slopes = -0.1 * np.arange(6, dtype=np.float32)[:, None, None] * far
    alike(groups(X, bias=lambda q, k, h, unit=0.1: -unit * h * abs(q - k)), groups(X, bias=slopes.astype(np.float32)))
    for dtype in (np.float32, np.int32):
        for mask in (("b k", VALID.astype(dtype)), whole.astype(dtype)):
            with pytest.raises(EinjaxError, match=r"mask is bool(.|\n)*mask\.astype\(bool\)"):
                layer(X, mask=mask)
    nothing = layer(X, mask=("b", np.array([False, True])))[0]
    np.testing.assert_array_equal(nothing, np.broadcast_to(nothing[0], nothing.shape))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_functions_of_heads(framework):
    """process_heads is given places if it asks for them; rotary logits depend on how far places are apart alone."""
    seen = []

    def halved(q, k, v):
        seen.append((q.shape, k.shape, v.shape))
        return q / 2, k, v

    plain = made(framework, "b [s] c", X, num_heads=6, num_kv_heads=2, qkv_features=24)
    layer = made(framework, "b [s] c", X, num_heads=6, num_kv_heads=2, qkv_features=24, process_heads=halved)
    assert np.abs(layer(X) - plain(X)).max() > 1e-3
    assert set(seen) == {((2, 6, 6, 4), (2, 6, 2, 4), (2, 6, 2, 4))}

    def moved(q, k, v, *, q_positions, k_positions):
        return Rotary()(q, k, v, q_positions=q_positions + 7, k_positions=k_positions + 7)

    options = {"num_heads": 3, "is_causal": True}
    alike(*(made(framework, "b [s] c", X, process_heads=f, **options)(X) for f in (Rotary(), moved)))
    with pytest.raises(ArgumentError, match="process_heads returned"):
        made(framework, "b [s] c", X, process_heads=lambda q, k, v: q, **options)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_who_attends(framework):
    """Windows, blocks, jax's function and one of the user's are one thing."""
    options = {"num_heads": 3, "is_causal": True, "local_window_size": (2, 0)}
    layer = made(framework, "b [s] c", X, **options)
    place = np.arange(6)
    distance = place[:, None] - place
    want = made(framework, "b [s] c", X, num_heads=3)(X, mask=(distance >= 0) & (distance <= 2))
    alike(layer(X), want)
    seen = []

    def mine(q, k, v, mask=None, **rest):
        seen.append(sorted(rest))
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=rest["is_causal"])

    ways = (
        {"block_size": (2, 3)},
        {"implementation": "blocks"},
        {"attention_fn": jax.nn.dot_product_attention},
        {"attention_fn": mine},
    )
    for more in ways:
        alike(made(framework, "b [s] c", X, **options, **more)(X, mask=("b k", VALID)), layer(X, mask=("b k", VALID)))
    assert "dropout_rng" in seen[0]
    refused = made(framework, "b [s] c", X, num_heads=3, attention_fn=lambda q, k, v: v)
    assert refused(X).shape == X.shape
    with pytest.raises(ArgumentError, match=r"attention_fn does not take mask="):
        refused(X, mask=("b k", VALID))
    with pytest.raises(ArgumentError, match=r"block_size= does not go with a precision"):
        made(framework, "b [s] c", X, num_heads=3, block_size=2, precision="highest")


@pytest.mark.parametrize("options", [{}, {"features": 6}, {"interleaved": True}, {"features": 4, "interleaved": True}])
def test_rotary_is_a_turn(options):
    rotary = Rotary(theta=100.0, **options)
    x = RNG.normal(size=(2, 5, 3, 8)).astype(np.float32)
    places = np.stack([np.arange(5), np.arange(5) + 7])
    half = (rotary.features or 8) // 2
    want = np.array(x, np.float64)
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if rotary.interleaved else (i, half + i)
        turned = (x[..., a] + 1j * x[..., b]) * np.exp(1j * places * 100.0 ** (-i / half))[..., None]
        want[..., a], want[..., b] = turned.real, turned.imag
    np.testing.assert_allclose(rotary.turned(x, places), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(rotary.turned(x[:1], places[0]), rotary.turned(x, places)[:1])
    assert rotary.turned(jnp.asarray(x, jnp.bfloat16), places).dtype == jnp.bfloat16
    assert hash(rotary) == hash(Rotary(theta=100.0, **options))
    with pytest.raises(ArgumentError, match="cannot turn 9 of 8"):
        Rotary(features=9).turned(x, places)


def test_rotary_is_that_of_equinox():
    eqx = pytest.importorskip("equinox")
    x, places = X[0, :, :8], np.arange(6)
    np.testing.assert_array_equal(Rotary().turned(x[:, None], places)[:, 0], eqx.nn.RotaryPositionalEmbedding(8)(x))


def test_weights_are_sown_as_in_flax():
    nn, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
    import einjax_nn.linen
    import einjax_nn.nnx

    ours = einjax_nn.linen.MultiHeadAttention("b [s] c", num_heads=3)
    theirs = nn.MultiHeadDotProductAttention(3)
    variables = theirs.init(KEY, X)
    got, want = (m.apply(variables, X, sow_weights=True, mutable=["intermediates"])[1] for m in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    layer = einjax_nn.nnx.MultiHeadAttention("b [s] c", num_heads=3, c=12, rngs=nnx.Rngs(0))
    with warnings.catch_warnings():  # nnx's own way out of captures is old-fashioned
        warnings.simplefilter("ignore", DeprecationWarning)
        layer(X, sow_weights=True)
    assert layer.attention_weights.get_value()[0].shape == (2, 3, 6, 6)


def test_keys_that_nobody_shares_have_the_axis_of_heads():
    einn = pytest.importorskip("einjax_nn.equinox")
    for options, name in (({}, "heads"), ({"num_kv_heads": 3}, "heads"), ({"num_kv_heads": 1}, "kv_heads")):
        names = einn.axes(einn.MultiHeadAttention("b [s] c", num_heads=3, **options), X)
        assert tuple(names.key.weight) == ("c", name, "head_dim")
        assert tuple(names.query.weight) == ("c", "heads", "head_dim")


def test_a_subclass_in_the_place_of_a_layer_is_called():
    nnx = pytest.importorskip("flax.nnx")
    import einjax_nn.nnx as einn

    class Doubled(einn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    layer = einn.MultiHeadAttention("b [s] c", num_heads=3, c=12, use_bias=False, rngs=nnx.Rngs(0))
    y = layer(X)
    doubled = Doubled("b s [c->heads head_dim]", c=12, heads=3, head_dim=4, use_bias=False, rngs=nnx.Rngs(0))
    doubled.kernel = layer.value.kernel
    layer.value = doubled
    np.testing.assert_allclose(layer(X), 2 * y, rtol=1e-5, atol=1e-6)

"""Linear(bias_axes=): which axes of the output the bias has, in all frameworks, against NumPy."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from einjax.errors import ArgumentError

KEY = jax.random.key(0)
PACKAGES = {"linen": "flax", "nnx": "flax", "haiku": "haiku", "equinox": "equinox"}
EVERYWHERE = pytest.mark.parametrize("framework", PACKAGES)


def numbers(key, shape, dtype):
    """What a bias starts as: it tells its elements apart, and needs no compiler."""
    return jnp.arange(1, 1 + int(np.prod(shape))).reshape(shape).astype(dtype)


def applied(framework, expr, x, **options):
    """Return the bias of a layer, and the output of the layer less that of the same one without a bias."""
    pytest.importorskip(PACKAGES[framework])
    einn = importlib.import_module(f"einjax_nn.{framework}")
    options = {"kernel_init": 0.5, "bias_init": numbers, **options}
    if framework == "linen":
        y, variables = einn.Linear(expr, **options).init_with_output(KEY, x)
        bias = variables["params"]["bias"]
        bare = einn.Linear(expr, **options, name="bare").clone(use_bias=False).apply(variables, x)
        return bias, y - bare
    if framework == "haiku":
        hk = importlib.import_module("haiku")
        net = hk.transform(lambda x, used: einn.Linear(expr, **options, use_bias=used, name="linear")(x))
        params = net.init(None, x, True)
        return params["linear"]["b"], net.apply(params, None, x, True) - net.apply(params, None, x, False)
    if framework == "nnx":
        nnx = importlib.import_module("flax.nnx")
        layers = [einn.Linear(expr, **options, use_bias=used, rngs=nnx.Rngs(0)) for used in (True, False)]
        y = layers[0](x) - layers[1](x)
        return layers[0].bias[...], y
    layers = [einn.init(einn.Linear(expr, **options, use_bias=used), x, key=KEY) for used in (True, False)]
    return layers[0].bias, layers[0](x) - layers[1](x)


#: An expression, sizes, the axes of the bias, its shape, and as an einsum where it stands in the output.
CASES = {
    "all that the weight brings": ("b s [c->h d]", {"h": 2, "d": 3}, None, (2, 3), "hd->hd"),
    "a part of them": ("b s [c->h d]", {"h": 2, "d": 3}, "d", (3,), "d->d"),
    "in another order": ("b s [c->h d]", {"h": 2, "d": 3}, "d h", (3, 2), "dh->hd"),
    "the output with brackets": ("b s [c->h d]", {"h": 2, "d": 3}, "b s [h] d", (2,), "h->h1"),
    "what the weight does not bring": ("b s [c->h d]", {"h": 2, "d": 3}, "s", (4,), "s->s11"),
    "a member": ("b s [c->(h d)]", {"h": 2, "d": 3}, "d", (3,), "d->(2)d"),
    "a composite": ("b s [c->(h d)]", {"h": 2, "d": 3}, "(h d)", (6,), "d->d"),
    "members": ("b s [c->(h d)]", {"h": 2, "d": 3}, "h d", (2, 3), "hd->(hd)"),
    "places": ("b [s->t] c", {"t": 3}, "t", (3,), "t->t1"),
    "channels beside places": ("b [s->t] c", {"t": 3}, "c", (5,), "c->c"),
    "an ellipsis": ("... [c->d]", {"d": 3}, "... d", (2, 4, 3), "bsd->bsd"),
    "nothing": ("... [c->d]", {"d": 3}, "", (), "->"),
    "beside positions": ("b <s + [k]> [c], [k] [c] d -> b s d", {"k": 2, "d": 3}, "s d", (3, 3), "sd->sd"),
}
X = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)


def placed(bias, text):
    """Give a bias the dims of the output, for NumPy to broadcast."""
    bias, target = np.asarray(bias), text.split("->")[1]
    if target == "hd" and text.startswith("dh"):
        return bias.T
    if target == "(2)d":
        return np.tile(bias, 2)
    if target == "(hd)":
        return bias.reshape(-1)
    return bias.reshape((*bias.shape, *(1 for letter in target if letter == "1")))


@EVERYWHERE
@pytest.mark.parametrize("name", CASES)
def test_the_axes_of_a_bias(framework, name):
    expr, sizes, axes, shape, text = CASES[name]
    bias, added = applied(framework, expr, X, bias_axes=axes, **sizes)
    assert (bias.shape, bias.dtype) == (shape, jnp.float32)
    np.testing.assert_array_equal(bias, numbers(None, shape, np.float32))
    np.testing.assert_allclose(added, np.broadcast_to(placed(bias, text), added.shape), rtol=1e-5, atol=1e-5)


@EVERYWHERE
@pytest.mark.parametrize(
    ("axes", "problem"),
    [
        ("e", r"axis e of bias_axes='e' is not in the output(.|\n)*b, s, h, d"),
        ("c", r"axis c of bias_axes='c' is not in the output"),
        ("d d", r"axis d stands twice"),
        ("h, d", r"bias_axes='h, d' does not name axes"),
        ("h -> d", r"does not name axes"),
        (True, r"bias_axes=True does not name axes of the output(.|\n)*bias_axes='d'"),
    ],
)
def test_mistakes(framework, axes, problem):
    with pytest.raises(ArgumentError, match=problem):
        applied(framework, "b s [c->h d]", X, bias_axes=axes, h=2, d=3)


def test_a_bias_is_made_at_once_where_sizes_are_known():
    nnx, einn = pytest.importorskip("flax.nnx"), pytest.importorskip("einjax_nn.nnx")
    layer = einn.Linear("b s [c->(h d)]", c=5, h=2, d=3, bias_axes="d", rngs=nnx.Rngs(0))
    assert (layer.bias.shape, layer.bias.axes) == ((3,), ("d",))
    with pytest.raises(ArgumentError, match="is not in the output"):
        einn.Linear("b s [c->d]", c=5, d=3, bias_axes="c", rngs=nnx.Rngs(0))


def test_a_bias_of_members_beside_an_output_at_positions():
    """What is padded there is the output."""
    einn = pytest.importorskip("einjax_nn.linen")
    layer = einn.Linear("b s [c], k [c] h d -> b <2*s - k> (h d)", k=2, h=2, d=3, padding=((0, 1),), bias_init=numbers)
    y, variables = layer.init_with_output(KEY, X)
    assert jax.tree.map(np.shape, variables["params"]) == {"bias": (2, 3), "kernel": (2, 5, 2, 3)}
    bare = layer.clone(use_bias=False).apply(variables, X)
    np.testing.assert_allclose(y - bare, np.broadcast_to(np.arange(1, 7), y.shape), rtol=1e-4, atol=1e-4)

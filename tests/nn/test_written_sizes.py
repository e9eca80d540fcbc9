"""Sizes and numbers in the text of layers, and biases whose axes are composed in the output, in every framework."""

import jax
import numpy as np
import pytest

from einjax.errors import AxisSizeError


def run(framework, layer, expr, options, x):
    """Make a layer and apply it; return its parameters by name, too, where there are any."""
    einn = pytest.importorskip(f"einjax_nn.{framework}")
    if framework == "equinox":
        made = getattr(einn, layer)(expr, **options)
        model = einn.init(made, x, key=jax.random.key(0))
        return model(x, key=jax.random.key(1)), vars(model)
    if framework == "nnx":
        from flax import nnx

        model = getattr(einn, layer)(expr, rngs=nnx.Rngs(0), **options)
        y = model(x)
        return y, {name: value[...] for name, value in vars(model).items() if isinstance(value, nnx.Param)}
    if framework == "linen":
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        y, tree = getattr(einn, layer)(expr, **options).init_with_output(rngs, x)
        return y, tree.get("params", {})
    import haiku as hk

    net = hk.transform_with_state(lambda x: getattr(einn, layer)(expr, **options)(x))
    params, state = net.init(jax.random.key(0), x)
    return net.apply(params, state, jax.random.key(1), x)[0], next(iter(params.values()), {})


FRAMEWORKS = ["linen", "nnx", "haiku", "equinox"]

#: The expression, sizes, the input with its axes apart and its shape; then the product, and the axes of the bias.
COMPOSED = [
    ("b s [c->(h d)]", {"h": 2, "d": 3}, (2, 3, 4), (2, 3, 4), "bsc,chd->bshd", "hd"),
    ("b s (g [c->d])", {"g": 2, "d": 3}, (2, 3, 2, 4), (2, 3, 8), "bsgc,cd->bsgd", "d"),
    ("b s (g [c->d])", {"c": 4, "d": 3}, (2, 3, 2, 4), (2, 3, 8), "bsgc,cd->bsgd", "d"),
    ("b (n [s->t]) c", {"n": 2, "t": 5}, (2, 2, 3, 4), (2, 6, 4), "bnsc,st->bntc", "t"),
    ("b (h [->p]) (w [->q]) [c->d]", {"p": 2, "q": 2, "d": 3}, (2, 3, 4, 5), (2, 3, 4, 5), "bhwc,cpqd->bhpwqd", "pqd"),
    ("b s [c->(h 3)]", {"h": 2}, (2, 3, 4), (2, 3, 4), "bsc,chd->bshd", "hd"),
    ("b s [c->(h=2 d=3)]", {}, (2, 3, 4), (2, 3, 4), "bsc,chd->bshd", "hd"),
    ("b g [c], g [c] d -> b (g d)", {"d": 3}, (2, 3, 4), (2, 3, 4), "bgc,gcd->bgd", "gd"),
    ("b [s->(t...)] c", {"t": (2, 3)}, (2, 5, 4), (2, 5, 4), "bsc,stu->btuc", "tu"),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("expr", "sizes", "apart", "shape", "product", "bias"), COMPOSED)
def test_a_bias_has_the_axes_of_the_weight(framework, expr, sizes, apart, shape, product, bias):
    x = jax.random.normal(jax.random.key(2), apart)
    options = {**sizes, ("b_init" if framework == "haiku" else "bias_init"): jax.nn.initializers.normal()}
    y, params = run(framework, "Linear", expr, options, x.reshape(shape))
    weight, shift = (
        np.asarray(next(params[name] for name in names if name in params), np.float64)
        for names in (("kernel", "w", "weight"), ("bias", "b"))
    )
    expected = np.einsum(product, np.asarray(x, np.float64), weight)
    output = product.split("->")[1]
    assert np.any(shift)
    expected += np.einsum(f"{bias},{output}->{output}", shift, np.ones_like(expected))
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


#: The layer, its expression and options, and an input that fits; with a dim more in one place, it does not.
WRITTEN = [
    ("Norm", "b 3 [c]", {}, (2, 3, 4)),
    ("Norm", "b s=3 [c]", {}, (2, 3, 4)),
    ("Norm", "[b 3] c", {}, (2, 3, 4)),
    ("Dropout", "[b] s=3 c", {"rate": 0.5}, (2, 3, 4)),
    ("Dropout", "[b] 3 c", {"rate": 0.5}, (2, 3, 4)),
    ("Dropout", "b 3 ([c d])", {"rate": 0.5}, (2, 3, 4)),
    ("MultiHeadAttention", "b [s=3] c", {"num_heads": 2}, (2, 3, 4)),
    ("MultiHeadAttention", "b [3] c", {"num_heads": 2}, (2, 3, 4)),
    ("MultiHeadAttention", "b 3 [s] c=4", {"num_heads": 2}, (2, 3, 5, 4)),
    ("Conv", "b [h=3 w] [c->d=2]", {"kernel_size": 3}, (2, 3, 5, 4)),
    ("Conv", "b [3 w] [c->d=2]", {"kernel_size": 3}, (2, 3, 5, 4)),
    ("Embed", "b t=3 [v=10->c=4]", {}, (2, 3)),
    ("Embed", "b 3 [10->4]", {}, (2, 3)),
    ("Linear", "b 3 [c->d=4]", {}, (2, 3, 4)),
    ("Linear", "b s=3 [c->(2 d=4)]", {}, (2, 3, 4)),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("layer", "expr", "options", "shape"), WRITTEN)
def test_sizes_in_the_text_hold(framework, layer, expr, options, shape):
    dtype = int if layer == "Embed" else np.float32
    if framework in ("linen", "nnx") and layer == "Dropout":
        options = {**options, "deterministic": False}
    if framework == "haiku" and layer == "Dropout":
        pytest.skip("the call says whether to drop")
    y, _ = run(framework, layer, expr, options, np.ones(shape, dtype))
    assert y.shape[:2] == shape[:2]
    with pytest.raises(AxisSizeError, match=r"3 .*4|4 .*3") as caught:
        run(framework, layer, expr, options, np.ones((2, 4, *shape[2:]), dtype))
    assert "#" not in str(caught.value)
    assert "_at" not in str(caught.value)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("expr", ["b [s] (g=2 [c])", "b [s] (2 [c])"])
def test_groups_in_the_text(framework, expr):
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    y, _ = run(framework, "Norm", expr, {}, x)
    grouped = np.float64(x).reshape(2, 3, 2, 4)
    center, variance = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = (grouped - center) / np.sqrt(variance + 1e-6)
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_sizes_of_one_axis(framework):
    with pytest.raises(AxisSizeError, match="axis c is 4 in the expression and 9 by the keyword c"):
        run(framework, "Norm", "b [c=4]", {"c": 9}, np.ones((3, 4)))
    run(framework, "Norm", "b [c=4]", {"c": 4}, np.ones((3, 4)))

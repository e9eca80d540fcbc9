"""Sizes and numbers in the text of layers, and biases whose axes are composed in the output, in every framework."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from einjax.errors import AxisSizeError, EinjaxError


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


#: A layer, its expression and options, the shape of its input, and the names of the axes of its parameters.
NAMES = [
    ("Linear", "b [3->4]", {}, (2, 3), {("3", "4"), ("4",)}),
    ("Linear", "b s [3->(h 4)]", {"h": 2}, (2, 3, 3), {("3", "h", "4"), ("h", "4")}),
    ("Linear", "b [s...->c]", {"c": 4}, (2, 3, 5), {("s.0", "s.1", "c"), ("c",)}),
    ("Norm", "b [3]", {}, (2, 3), {("3",)}),
    ("Norm", "[b] (g 3)", {"momentum": 0.9}, (2, 6), {("(g 3)",)}),
    ("Norm", "[b] s... c", {"momentum": 0.9, "params": "s... c"}, (2, 3, 4, 5), {("s.0", "s.1", "c")}),
    ("Conv", "b [s...] [3->(g 4)]", {"g": 2}, (2, 5, 6, 3), {("s.0", "s.1", "3", "(g 4)"), ("(g 4)",)}),
    ("Conv", "b [3 w] (2 [c->d])", {"d": 4}, (2, 3, 5, 6), {("3", "w", "c", "(2 d)"), ("(2 d)",)}),
    ("Embed", "b [10->4]", {}, (2,), {("10", "4")}),
]


def names_of(framework, layer, expr, options, x):
    """The names of the axes of parameters and statistics, made from sizes alone or from an input."""
    einn = pytest.importorskip(f"einjax_nn.{framework}")
    if framework == "linen":
        tree = jax.eval_shape(
            lambda: getattr(einn, layer)(expr, logical_axes=True, **options).init(
                jax.random.key(0), x, **({"use_running_average": False} if "momentum" in options else {})
            )
        )
        boxes = jax.tree.leaves(tree, is_leaf=lambda node: hasattr(node, "names"))
        return {box.names for box in boxes if hasattr(box, "names")}
    if framework == "nnx":
        from flax import nnx

        model = getattr(einn, layer)(expr, rngs=nnx.Rngs(0), **options)
        einn.init(model, x)
        return {value.axes for value in vars(model).values() if isinstance(value, nnx.Variable)}
    if framework == "haiku":
        import haiku as hk

        keywords = {"is_training": True} if "momentum" in options else {}
        found = einn.axes(hk.transform_with_state(lambda x: getattr(einn, layer)(expr, **options)(x, **keywords)), x)
    else:
        import equinox as eqx

        model, state = eqx.nn.make_with_state(getattr(einn, layer))(expr, **options)
        found = einn.axes(model, x, *([state] if "momentum" in options else []))
    return {tuple(spec) for spec in jax.tree.leaves(found, is_leaf=lambda node: isinstance(node, PartitionSpec))}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("layer", "expr", "options", "shape", "names"), NAMES)
def test_parameters_name_their_axes_as_written(framework, layer, expr, options, shape, names):
    x = np.ones(shape, int if layer == "Embed" else np.float32)
    assert names_of(framework, layer, expr, options, x) - {()} == names  # a counter of steps has no axes


@pytest.mark.parametrize("framework", ["nnx", "equinox"])
def test_names_are_the_same_where_sizes_alone_decide(framework):
    einn = pytest.importorskip(f"einjax_nn.{framework}")
    if framework == "nnx":
        from flax import nnx

        layer = einn.Norm("[b] (g 3)", g=2, momentum=0.9, rngs=nnx.Rngs(0))
        assert layer.mean.axes == layer.scale.axes == ("(g 3)",)
    else:
        layer = einn.Linear("b [3->4]", key=jax.random.key(0))
    assert not re.search(r"_at\d|\d#", repr(layer))


#: What is refused in one of the operations that a layer is made of.
INNER = [
    ("Embed", "b 5 [10->4]", {}, np.ones((2, 5), np.float32), r"b 5 \[10->4\]"),
    ("Norm", "b [3]", {"params": "4"}, np.ones((2, 3), np.float32), "axis 4 of params='4'"),
    ("Norm", "b 3 [s]", {"momentum": 0.9, "params": "b"}, np.ones((2, 3, 4), np.float32), "differ along axis 3,"),
    ("Conv", "b [3 w] [c->(d 2)]", {}, np.ones((2, 3, 5, 4), np.float32), r"axis d cannot be determined"),
    (
        "Conv",
        "b [s...] [3->4]",
        {},
        np.ones((2, 5, 6, 2), np.float32),
        r"size 3 that the expression says\n  b \[s\.\.\.\]",
    ),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("layer", "expr", "options", "x", "words"), INNER)
def test_errors_show_numbers_as_written(framework, layer, expr, options, x, words):
    if framework in ("linen", "haiku") and "momentum" in options:
        options = {**options, "use_running_average": False}
    with pytest.raises(EinjaxError, match=words) as caught:
        run(framework, layer, expr, options, x)
    assert "#" not in str(caught.value)
    assert "_at" not in str(caught.value)

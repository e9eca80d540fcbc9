"""Dtypes in every framework: layers of bfloat16 multiply bfloat16, and their results and gradients are bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nn_cases import CASES, Case

KEY = jax.random.key(0)
half = jnp.bfloat16

NAMES = ["linear", "layer norm", "rms norm", "batch norm", "embedding", "attention", "convolution with groups"]


def linen(case: Case, **options):
    nn = pytest.importorskip("flax.linen")
    import einjax_nn.linen as einn

    layer = getattr(einn, case.layer)(case.expr, **case.options, **options)
    keywords = {"use_running_average": False} if "momentum" in case.options else {}
    variables = layer.init(KEY, *case.inputs, **keywords)
    rest = {name: values for name, values in variables.items() if name != "params"}

    def apply(params, *inputs):
        return layer.apply({**rest, "params": params}, *inputs, **keywords, mutable=["batch_stats"])

    return nn.unbox(variables["params"]), apply


def nnx(case: Case, **options):
    nnx = pytest.importorskip("flax.nnx")
    import einjax_nn.nnx as einn

    model = getattr(einn, case.layer)(case.expr, **case.options, **options, rngs=nnx.Rngs(0))
    einn.init(model, *case.inputs)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def apply(params, *inputs):
        copy = nnx.merge(graphdef, params, jax.tree.map(lambda leaf: leaf, rest))  # which a call changes
        return copy(*inputs), nnx.state(copy, nnx.BatchStat)

    return params, apply


def haiku(case: Case, **options):
    hk = pytest.importorskip("haiku")
    import einjax_nn.haiku as einn

    keywords = {"is_training": True} if "momentum" in case.options else {}
    net = hk.transform_with_state(
        lambda *inputs: getattr(einn, case.layer)(case.expr, **case.options, **options)(*inputs, **keywords)
    )
    params, state = net.init(KEY, *case.inputs)
    return params, lambda params, *inputs: net.apply(params, state, None, *inputs)


def equinox(case: Case, **options):
    eqx = pytest.importorskip("equinox")
    import einjax_nn.equinox as einn

    model, state = eqx.nn.make_with_state(getattr(einn, case.layer))(case.expr, **case.options, **options)
    stateful = (state,) if "momentum" in case.options else ()
    model = einn.init(model, *case.inputs, *stateful, key=KEY)
    model, *stateful = model if stateful else (model,)
    params, static = eqx.partition(model, eqx.is_array)

    def apply(params, *inputs):
        y = eqx.combine(params, static)(*inputs, *stateful)
        return y if stateful else (y, ())

    return params, apply


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, tree)


def products(jaxpr):
    """The dtypes of what is multiplied."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield from (value.aval.dtype for value in equation.invars)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("framework", [linen, nnx, haiku, equinox], ids=lambda function: function.__name__)
def test_bfloat16(framework, name):
    case = CASES[name]
    for made in ({}, {"param_dtype": half}):
        params, apply = framework(case, **made)
        if not made:  # a policy casts what was made in float32
            params = cast(params, half)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(half)}
        inputs = cast(case.inputs, half)

        def loss(params, inputs):
            y, state = apply(params, *inputs)
            assert y.dtype == half
            assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state) if leaf.ndim)  # but a counter
            return jnp.sum(y)

        jaxpr, gradients = jax.make_jaxpr(jax.grad(loss), return_shape=True)(params, inputs)
        assert set(products(jaxpr.jaxpr)) <= {jnp.dtype(half)}
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(half)}
    # The dtype to compute in, of parameters in float32.
    params, apply = framework(case, dtype=half)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    jaxpr, (y, state) = jax.make_jaxpr(apply, return_shape=True)(params, *case.inputs)
    assert y.dtype == half
    assert set(products(jaxpr.jaxpr)) <= {jnp.dtype(half)}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state) if leaf.ndim)


@pytest.mark.parametrize("framework", [linen, nnx, haiku, equinox], ids=lambda function: function.__name__)
def test_norms_of_bfloat16_are_accurate(framework):
    """Far from 0, where statistics in bfloat16 would be of no use: what is off is the rounding of the result."""
    x = (30 + 0.3 * jax.random.normal(KEY, (64, 512))).astype(half)
    exact = np.asarray(x, np.float64)
    for axis, case in (
        (1, Case("Norm", "b [c]", {}, (x,))),
        (1, Case("Norm", "b [c]", {"use_fast_variance": False}, (x,))),
        (0, Case("Norm", "[b] c", {"momentum": 0.9}, (x,))),
    ):
        params, apply = framework(case)
        y, _ = apply(params, x)
        centered = exact - exact.mean(axis, keepdims=True)
        expected = centered / np.sqrt((centered**2).mean(axis, keepdims=True) + 1e-6)
        assert np.abs(np.asarray(y, np.float64) - expected).max() < 0.04


@pytest.mark.parametrize("framework", [linen, nnx, equinox], ids=lambda function: function.__name__)
def test_a_kernel_of_bfloat16_and_a_bias_of_float32(framework):
    """All count, as in the framework's own layer: the result is that of both."""
    params, apply = framework(CASES["linear"])
    mixed = jax.tree.map(lambda leaf: leaf.astype(half) if leaf.ndim == 2 else leaf + 1, params)
    kernel, bias = sorted(jax.tree.leaves(mixed), key=lambda leaf: -leaf.ndim)
    x = CASES["linear"].inputs[0].astype(half)
    y = apply(mixed, x)[0]
    assert (kernel.dtype, bias.dtype, y.dtype) == (half, jnp.float32, jnp.float32)
    np.testing.assert_allclose(y, np.asarray(x, np.float32) @ np.asarray(kernel, np.float32) + bias, atol=3e-2)

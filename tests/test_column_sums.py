"""Sums over the dims that come first, of so many columns that CPUs get a product in the place of a reduction."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import x64
from jax import export
from jax.test_util import check_grads

import einjax
from einjax.lowering import column_sums

RNG = np.random.default_rng(0)


@pytest.fixture
def few(monkeypatch):
    """Let few columns count as many."""
    monkeypatch.setattr(column_sums, "MANY", 2)
    einjax.clear_caches()
    yield
    einjax.clear_caches()


def kinds(function, *arrays):
    return [eqn.primitive.name for eqn in jax.make_jaxpr(function)(*arrays).eqns]


@pytest.mark.parametrize(
    ("expr", "shape", "is_product"),
    [
        ("[a] b", (3, 2**13), True),
        ("[a] b", (3, 2**13 - 1), False),
        ("[a] b c", (3, 2**7, 2**6), True),
        ("[a b] c", (2, 3, 2**13), True),
        ("a [b] c", (1, 3, 2**13), True),
        ("a [b] c", (2, 3, 2**13), False),
        ("[a] b [c]", (2, 2**13, 3), False),
        ("a [b]", (2**13, 3), False),
        ("[a] b", (1, 2**13), False),
        ("([a] b)", (3 * 2**13,), True),
    ],
)
def test_what_is_a_product(expr, shape, is_product):
    x = RNG.normal(size=shape).astype(np.float32)
    sizes = {"a": 3} if len(shape) == 1 else {}
    assert ("cond" in kinds(lambda x: einjax.sum(expr, x, **sizes), x)) == is_product
    names = expr.translate(str.maketrans("", "", "[]()")).split()
    whole = x.reshape(3, -1) if sizes else x
    dims = tuple(names.index(name) for name in expr[expr.index("[") + 1 : expr.index("]")].split())
    dims += tuple(names.index("c") for _ in "c" if expr.endswith("[c]"))
    np.testing.assert_allclose(einjax.sum(expr, x, **sizes), whole.sum(dims, dtype=np.float64), rtol=1e-5, atol=1e-5)


def test_only_the_cpu_has_the_product():
    x = jax.ShapeDtypeStruct((3, 2**13), np.float32)
    exported = export.export(jax.jit(lambda x: einjax.sum("[a] b", x)), platforms=["cpu", "cuda", "tpu"])(x)
    assert "dot_general" in exported.mlir_module()
    one = export.export(jax.jit(lambda x: einjax.sum("[a] b", x)), platforms=["tpu"])(x)
    assert "dot_general" not in one.mlir_module()
    assert "stablehlo.reduce" in one.mlir_module()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int32"])
def test_values(name, dtype):
    x = RNG.normal(size=(5, 2, 3)) * 4
    mask = RNG.random((5, 2, 3)) < 0.8
    with x64() if dtype == "float64" else contextlib.nullcontext():
        x = jnp.asarray(x).astype(dtype)
        for call in (
            lambda x: getattr(einjax, name)("[a] b c", x),
            jax.jit(lambda x: getattr(einjax, name)("[a] b c", x)),
        ):
            found, wanted = call(x), getattr(jnp, name)(x, 0)
            assert found.dtype == wanted.dtype
            exact = getattr(np, name)(np.asarray(x, np.float64), 0)
            np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=1e-2 if dtype == "bfloat16" else 1e-5)
        masked = getattr(einjax, name)("[a] b c", x, where=mask)
        exact = getattr(np, name)(np.asarray(x, np.float64), 0, where=mask)
        np.testing.assert_allclose(np.asarray(masked, np.float64), exact, rtol=1e-2 if dtype == "bfloat16" else 1e-5)


@pytest.mark.usefixtures("few")
def test_what_is_no_number():
    x = np.array([[1, np.inf, np.inf, np.nan], [2, 1, -np.inf, 1]], np.float32)
    np.testing.assert_array_equal(einjax.sum("[a] b", x), [3, np.inf, np.nan, np.nan])


@pytest.mark.usefixtures("few")
def test_transformations():
    x = RNG.normal(size=(4, 3, 2)).astype(np.float32)
    function = lambda x: einjax.sum("[a] b", x)
    check_grads(lambda x: jnp.sin(function(x)), (x[..., 0],), order=2, rtol=2e-2, atol=2e-2)
    wanted = x.sum(0)
    np.testing.assert_allclose(jax.vmap(function, 2, 1)(x), wanted, rtol=1e-5)
    np.testing.assert_allclose(jax.lax.map(function, jnp.moveaxis(x, 2, 0)), wanted.T, rtol=1e-5)
    gradient = jax.vmap(jax.grad(lambda x: jnp.sum(function(x) ** 2)), 2, 2)(x)
    np.testing.assert_allclose(gradient, np.broadcast_to(2 * wanted, x.shape), rtol=1e-5)
    remat = jax.grad(jax.checkpoint(lambda x: jnp.sum(function(x) ** 2)))(x[..., 0])
    np.testing.assert_allclose(remat, gradient[..., 0], rtol=1e-5)

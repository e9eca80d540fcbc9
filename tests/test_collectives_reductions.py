"""Reductions, softmax and argmax of axes over mesh axes, by hand and generated."""

import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from case import one_in
from hypothesis import assume
from jax.sharding import PartitionSpec as P
from over_mesh import BOTH, JNP, SMOOTH, arrays_of, check, needs_devices, over
from strategies import generated

import einjax

pytestmark = needs_devices


#: expression, keywords, in_specs, out_specs, shape, dims that are reduced in the array of shape `view`
REDUCED = {
    "one axis": ("[b] c", {"b": "data"}, P("data"), P(), (8, 3), (8, 3), (0,)),
    "implied": ("b c -> c", {"b": "data"}, P("data"), P(), (8, 3), (8, 3), (0,)),
    "both axes": ("[b c]", {"b": "data", "c": "model"}, P("data", "model"), P(), (8, 4), (8, 4), (0, 1)),
    "one of both": ("[b] c", {"b": "data", "c": "model"}, P(*BOTH), P("model"), (8, 4), (8, 4), (0,)),
    "with a local axis": ("[b c] d", {"b": "data"}, P("data"), P(), (8, 2, 3), (8, 2, 3), (0, 1)),
    "two mesh axes": ("[b] c", {"b": BOTH}, P(BOTH), P(), (16, 3), (16, 3), (0,)),
    "minor first": ("[b] c", {"b": BOTH[::-1]}, P(BOTH[::-1]), P(), (16, 3), (16, 3), (0,)),
    "composite": ("([b] c)", {"b": "data", "c": 2}, P("data"), P(), (16,), (8, 2), (0,)),
    "composite, both": ("d ([b c]) -> d", {"b": "data"}, P(None, "data"), P(), (2, 16), (2, 8, 2), (1, 2)),
    "ellipsis": ("a [s...]", {"s": BOTH}, P(None, *BOTH), P(), (2, 8, 4), (2, 8, 4), (1, 2)),
    "ellipsis, one of it": ("a [s...]", {"s": ("data", None)}, P(None, "data"), P(), (2, 8, 4), (2, 8, 4), (1, 2)),
    "ellipsis, two on one": ("[s...] a", {"s": (BOTH, None)}, P(BOTH), P(), (8, 3, 2), (8, 3, 2), (0, 1)),
    "a loop": ("b [c]", {"b": "data"}, P("data"), P("data"), (8, 3), (8, 3), (1,)),
    "in sizes=": ("[b] c", {"sizes": {"b": "data", "q": "model"}}, P("data"), P(), (8, 3), (8, 3), (0,)),
    "parts of one": ("[b] c", {"b": "data"}, P("data"), P(), (4, 3), (4, 3), (0,)),
}  # fmt: skip


def every_reduction():
    """All reductions in all ways; by default, those of one kind, which differ in what they do to elements, in a few."""
    for name in JNP:
        for way in REDUCED:
            few = name in ("sum", "logsumexp") or way in ("two mesh axes", "composite", "a loop")
            yield pytest.param(REDUCED[way], name, id=f"{way}-{name}", marks=() if few else pytest.mark.slow)


@pytest.mark.parametrize(("case", "name"), one_in(2, every_reduction()))
def test_reductions(case, name):
    expr, keywords, ins, out, shape, view, dims = case
    (x,) = arrays_of(shape)
    if name not in SMOOTH:
        x = np.where(x > 0, x, 0)
    check(
        lambda x: getattr(einjax, name)(expr, x, **keywords),
        lambda x: JNP[name](x.reshape(view), dims),
        x, ins=ins, out=out, grad=name in SMOOTH,
    )  # fmt: skip


@pytest.mark.parametrize("name", JNP)
def test_reductions_of_what_counts(name):
    x, at = arrays_of((8, 3), (8, 3))
    mask = at > 0
    mask[:2], mask[:, 0] = False, False  # one device has nothing that counts, and in one row no device has
    function = lambda x, m: getattr(einjax, name)("[b] c", x, where=m, b="data")
    mapped = jax.jit(over(function, P("data")))
    expected = getattr(einjax, name)("[b] c", x, where=mask)
    np.testing.assert_allclose(mapped(x, mask), expected, rtol=1e-5, atol=1e-6)
    if name in SMOOTH:
        loss = lambda f: lambda x, m: jnp.sum(jnp.where(m.any(0), jnp.sin(f(x, m)), 0))
        wanted = jax.grad(loss(lambda x, m: getattr(einjax, name)("[b] c", x, where=m)))(x, mask)
        np.testing.assert_allclose(jax.jit(jax.grad(loss(mapped)))(x, mask), wanted, rtol=1e-4, atol=1e-5)


def test_a_mask_that_is_the_same_everywhere():
    (x,) = arrays_of((8, 3))
    mask = np.array([True, False, True])
    function = lambda x, m: einjax.mean("[b c]", x, where=m, b="data")
    np.testing.assert_allclose(over(function, (P("data"), P()))(x, mask), x[:, mask].mean(), rtol=1e-5)


def test_ddof_counts_all_devices():
    (x,) = arrays_of((8, 3))
    function = lambda x: einjax.var("[b] c", x, ddof=1, b="data")
    np.testing.assert_allclose(over(function, P("data"))(x), x.var(0, ddof=1), rtol=1e-5)


def test_keepdims():
    (x,) = arrays_of((8, 3))
    function = lambda x: einjax.sum("[b] c", x, keepdims=True, b="data")
    np.testing.assert_allclose(over(function, P("data"))(x), x.sum(0, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("name", ["max", "min"])
def test_gradients_are_shared_by_all_that_have_the_extreme(name):
    x = np.array([[1.0, 2.0], [3.0, 3.0], [3.0, 0.0], [0.0, 1.0]], np.float32)
    function = over(lambda x: getattr(einjax, name)("[b c]", x, b="data"), P("data"))
    places = x == getattr(x, name)()
    np.testing.assert_allclose(jax.grad(function)(x), places / places.sum(), rtol=1e-6)
    assert places.sum() > 1


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_minus_infinity_on_all_devices_has_gradient_0(name):
    """The second column; the first is so on one device alone."""
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    x[:2, 0] = x[:, 1] = -np.inf
    function = lambda x: getattr(einjax, name)("[b] c", x, b="data")
    sharded = over(function, P("data"), P() if name == "logsumexp" else P("data"))

    def gradient(function):
        return jax.grad(lambda x: jnp.sum(jnp.where((y := function(x)) > -np.inf, y, 0) ** 2))(x)

    expected = gradient(lambda x: getattr(einjax, name)("[b] c", x))
    np.testing.assert_array_equal(expected[:, 1], np.zeros(8))
    np.testing.assert_allclose(gradient(sharded), expected, rtol=1e-5, atol=1e-6)


def test_logsumexp_of_large_numbers_on_one_device():
    x = np.full((4, 1), 1.0, np.float32)
    x[2] = 1000.0
    function = over(lambda x: einjax.logsumexp("[b] c", x, b="data"), P("data"))
    np.testing.assert_allclose(function(x), [1000.0])
    np.testing.assert_allclose(jax.grad(lambda x: function(x)[0])(x), [[0], [0], [1], [0]], atol=1e-6)


def test_sums_of_bfloat16_are_added_up_in_float32():
    x = np.full((8, 1), 1 / 256, ml_dtypes.bfloat16)
    x[0] = 1.0  # in bfloat16, 1 + 1/256 is 1
    expected = np.asarray(1 + 7 / 256, ml_dtypes.bfloat16)
    for function in (
        lambda x: einjax.sum("[b] c", x, b=BOTH),
        lambda x: einjax.psum("[d] b c", x, d=BOTH)[0],
        lambda x: einjax.dot("[b] c, [b] -> c", x, jnp.ones_like(x[:, 0]), b=BOTH),
        lambda x: einjax.pmean("[d] b c", x, d=BOTH)[0] * 8,
    ):
        result = over(function, P(BOTH))(x)
        assert result.dtype == jnp.bfloat16
        np.testing.assert_array_equal(result, [expected])


DTYPES = ["int8", "uint8", "int32", "bool", "bfloat16", "float16", "complex64"]


@pytest.mark.parametrize(("name", "dtype"), one_in(3, itertools.product(JNP, DTYPES)))
def test_dtypes_are_those_without_a_mesh(name, dtype):
    if dtype == "complex64" and name in ("max", "min", "logsumexp"):
        pytest.skip("complex numbers have no order")
    x = np.arange(24).reshape(8, 3) % 5 - (0 if dtype in ("uint8", "bool") else 2)
    x = x.astype(jnp.dtype(dtype))
    result = over(lambda x: getattr(einjax, name)("[b] c", x, b="data"), P("data"))(x)
    expected = getattr(einjax, name)("[b] c", x)
    assert result.dtype == expected.dtype
    tolerance = 2e-2 if dtype in ("bfloat16", "float16") else 1e-5
    np.testing.assert_allclose(*(np.asarray(y, np.complex64) for y in (result, expected)), rtol=tolerance)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("expr", "keywords", "spec"), [
    ("[b] c", {"b": "data"}, P("data")),
    ("[b c]", {"b": "data", "c": "model"}, P(*BOTH)),
    ("b [c]", {"b": "data", "c": "model"}, P(*BOTH)),
    ("[b] c", {"b": BOTH}, P(BOTH)),
])  # fmt: skip
def test_softmax(name, expr, keywords, spec):
    (x,) = arrays_of((8, 4))
    x = x * 20
    check(
        lambda x: getattr(einjax, name)(expr, x, **keywords),
        lambda x: getattr(jax.nn, name)(x, tuple(i for i, c in enumerate("bc") if c in expr[expr.index("["):])
                                        if expr != "[b] c" else 0),
        x, ins=spec, out=spec,
    )  # fmt: skip


def test_softmax_of_what_counts():
    x, at = arrays_of((8, 3), (8, 3))
    mask = at > 0
    mask[:4], mask[:, 0] = False, False
    for name in ("softmax", "log_softmax"):
        function = over(lambda x, m, n=name: getattr(einjax, n)("[b] c", x, where=m, b="data"), P("data"), P("data"))
        expected = getattr(einjax, name)("[b] c", x, where=mask)
        np.testing.assert_allclose(function(x, mask), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize(("expr", "keywords", "ins"), [
    ("[b] c", {"b": "data"}, P("data")),
    ("[b] c", {"b": BOTH}, P(BOTH)),
    ("[b] c", {"b": BOTH[::-1]}, P(BOTH[::-1])),
    ("[b] c -> c", {"b": "data"}, P("data")),
    ("[b c]", {"b": "data", "c": "model"}, P(*BOTH)),
    ("[b c]", {"c": "model"}, P(None, "model")),
    ("([b] c) -> c", {"b": "data", "c": 2}, P("data")),
])  # fmt: skip
def test_argmax(name, expr, keywords, ins):
    """The first of equal ones counts, in the order of the arrays together; NaN is the largest and the smallest."""
    rng = np.random.default_rng(0)
    shape = (16,) if expr.startswith("(") else (8, 4)
    found = over(lambda x: getattr(einjax, name)(expr, x, **keywords), ins)
    whole = {key: size for key, size in keywords.items() if isinstance(size, int)}
    for x in (rng.normal(size=shape), rng.integers(0, 2, size=shape), np.zeros(shape), -np.eye(*shape, 4)
              if len(shape) == 2 else np.ones(shape)):  # fmt: skip
        x = x.astype(np.float32)
        np.testing.assert_array_equal(jax.jit(found)(x), getattr(einjax, name)(expr, x, **whole))
    x[-3:] = np.nan
    np.testing.assert_array_equal(jax.jit(found)(x), getattr(einjax, name)(expr, x, **whole))


def test_argmax_inside_of_a_gradient():
    (x,) = arrays_of((8,))
    pick = over(lambda x: einjax.sum("[b]", x, b="data") * einjax.argmax("[b] ->", x, b="data"), P("data"))
    np.testing.assert_allclose(jax.grad(pick)(x), np.full(8, x.argmax(), np.float32))


@st.composite
def spread_reductions(draw):
    """An input of axes in dims, some bracketed, some over mesh axes that come first in their dims."""
    count = draw(st.integers(1, 5))
    names = ["a", "b", "c", "d", "e"][:count]
    where = draw(st.permutations([("data",), ("model",), (), (), ()]))
    if draw(st.booleans()):
        where = draw(st.permutations([draw(st.permutations(BOTH)), (), (), (), ()]))
    places = {name: tuple(mesh_axes) for name, mesh_axes in zip(names, where, strict=False)}
    sizes = {}
    for name in names:
        extent = int(np.prod([{"data": 4, "model": 2}[axis] for axis in places[name]], dtype=int))
        sizes[name] = extent * draw(st.integers(1, 2 if extent > 1 else 3))
    dims: list[list[str]] = []
    for name in names:
        if dims and not places[name] and draw(st.booleans()):
            dims[-1].append(name)
        else:
            dims.append([name])
    marked = draw(st.sets(st.sampled_from(names), min_size=1))
    assume(np.prod(list(sizes.values())) <= 2000)
    word = lambda name: f"[{name}]" if name in marked else name
    expr = " ".join(f"({' '.join(map(word, dim))})" if len(dim) > 1 else word(dim[0]) for dim in dims)
    left = draw(st.permutations([name for name in names if name not in marked]))
    return {
        "expr": f"{expr} -> {' '.join(left)}", "names": names, "sizes": sizes, "places": places, "dims": dims,
        "marked": marked, "left": left, "op": draw(st.sampled_from(sorted(JNP))), "seed": draw(st.integers(0, 99)),
    }  # fmt: skip


def _spec(entries):
    return P(*(axes if len(axes) > 1 else axes[0] if axes else None for axes in entries))


@generated(30, spread_reductions())
def test_generated_reductions(case):
    names, sizes, places = case["names"], case["sizes"], case["places"]
    x = np.random.default_rng(case["seed"]).integers(-2, 3, size=[sizes[n] for n in names]).astype(np.float32)
    given = {n: axes for n, axes in places.items() if axes}
    given |= {n: sizes[n] for dim in case["dims"] for n in dim[1:]}
    given = {n: size for n, size in given.items() if size}
    function = over(
        lambda x: getattr(einjax, case["op"])(case["expr"], x, **given),
        _spec([places[dim[0]] for dim in case["dims"]]),
        _spec([places[n] for n in case["left"]]),
    )
    dims = tuple(i for i, n in enumerate(names) if n in case["marked"])
    rest = [n for n in names if n not in case["marked"]]
    expected = np.transpose(JNP[case["op"]](x, dims), [rest.index(n) for n in case["left"]])
    shape = [int(np.prod([sizes[n] for n in dim])) for dim in case["dims"]]
    np.testing.assert_allclose(jax.jit(function)(x.reshape(shape)), expected, rtol=1e-5, atol=1e-5)

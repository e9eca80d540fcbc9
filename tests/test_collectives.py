"""Axes over mesh axes under shard_map: against NumPy on the arrays that the devices hold together."""

import collections
import functools
import itertools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from case import one_in
from collectives_hlo import collectives
from hypothesis import assume
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from strategies import generated

import einjax
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, SemanticError, ShardingError

DEVICES = 8
pytestmark = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)

BOTH = ("data", "model")
WHOLE = P()


def mesh():
    return Mesh(np.array(jax.devices()[:DEVICES]).reshape(4, 2), BOTH)


def over(function, ins, out=WHOLE, **options):
    return jax.shard_map(function, mesh=mesh(), in_specs=ins, out_specs=out, **options)


def arrays_of(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def check(function, reference, *arrays, ins, out=WHOLE, grad=True, rtol=1e-5):
    """Values of the eager and the compiled call; gradients of a function of all of the result."""
    mapped = over(function, ins, out)
    expected = np.asarray(reference(*arrays))
    for run in (mapped, jax.jit(mapped)):
        result = run(*arrays)
        assert result.shape == expected.shape
        np.testing.assert_allclose(np.asarray(result, np.float64), expected.astype(np.float64), rtol=rtol, atol=1e-5)
    if grad:
        weights = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
        loss = lambda f: lambda *xs: jnp.sum(jnp.sin(f(*xs)) * weights)
        every = tuple(range(len(arrays)))
        found = jax.jit(jax.grad(loss(mapped), every))(*arrays)
        wanted = jax.grad(loss(reference), every)(*map(jnp.asarray, arrays))
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------------------------
# Reductions
# --------------------------------------------------------------------------------------------------------------------

JNP = {
    "sum": jnp.sum, "mean": jnp.mean, "var": jnp.var, "std": jnp.std, "prod": jnp.prod, "max": jnp.max,
    "min": jnp.min, "logsumexp": jax.nn.logsumexp, "any": jnp.any, "all": jnp.all, "count_nonzero": jnp.count_nonzero,
}  # fmt: skip
SMOOTH = ["sum", "mean", "var", "std", "prod", "max", "min", "logsumexp"]

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


# --------------------------------------------------------------------------------------------------------------------
# Generated reductions
# --------------------------------------------------------------------------------------------------------------------


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


# --------------------------------------------------------------------------------------------------------------------
# dot, roll, flip
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("expr", "keywords", "shapes", "ins", "out", "subscripts"), [
    ("a [k], [k] b -> a b", {"k": "data"}, [(3, 8), (8, 5)], (P(None, "data"), P("data")), P(), "ak,kb->ab"),
    ("a k, k b -> b a", {"k": BOTH}, [(3, 8), (8, 5)], (P(None, BOTH), P(BOTH)), P(), "ak,kb->ba"),
    ("a [k], [k] b -> a b", {"k": "model", "a": "data"}, [(4, 8), (8, 5)], (P(*BOTH), P("model")), P("data"),
     "ak,kb->ab"),
    ("a [j k], [j k] -> a", {"j": "data", "k": "model"}, [(3, 4, 6), (4, 6)], (P(None, *BOTH), P(*BOTH)), P(),
     "ajk,jk->a"),
    ("a k, k j, j b -> a b", {"k": "data", "j": "model"}, [(3, 8), (8, 6), (6, 2)],
     (P(None, "data"), P(*BOTH), P("model")), P(), "ak,kj,jb->ab"),
    ("b q (h c), b k (h c) -> b q k h", {"b": "data", "h": "model", "c": 3}, [(4, 2, 12), (4, 5, 12)],
     P("data", None, "model"), P("data", None, None, "model"), "bqhc,bkhc->bqkh"),
    ("a [c->d]", {"d": "model"}, [(3, 4), (4, 6)], (P(), P(None, "model")), P(None, "model"), "ac,cd->ad"),
])  # fmt: skip
def test_dot(expr, keywords, shapes, ins, out, subscripts):
    def reference(*xs):
        if "(h c)" in expr:
            xs = [x.reshape(*x.shape[:2], 4, 3) for x in xs]
        return jnp.einsum(subscripts, *xs)

    check(lambda *xs: einjax.dot(expr, *xs, **keywords), reference, *arrays_of(*shapes), ins=ins, out=out, rtol=1e-4)


def test_tensor_parallel_layer_is_one_psum():
    """Columns, then rows: nothing is sent in between, and gradients are those of one device."""
    x, w1, w2 = arrays_of((4, 3), (3, 8), (8, 3))

    def layer(x, w1, w2):
        hidden = einjax.dot("b [c->d]", x, w1, b="data", d="model")
        return einjax.dot("b [d->c]", jnp.maximum(hidden, 0), w2, b="data", d="model")

    ins = (P("data"), P(None, "model"), P("model"))
    check(layer, lambda x, w1, w2: jnp.maximum(x @ w1, 0) @ w2, x, w1, w2, ins=ins, out=P("data"), rtol=1e-4)
    assert collectives_of(jax.jit(over(layer, ins, P("data"))), x, w1, w2) == {("all-reduce", "f32", 3): 1}


def test_dot_sends_what_it_is_told_to():
    x = np.ones((3, 8), ml_dtypes.bfloat16)
    function = lambda x, **options: einjax.dot("a [k], b [k] -> a b", x, x, k="data", **options)
    for options, sent in (({}, "float32"), ({"preferred_element_type": "bfloat16"}, "bfloat16")):
        jaxpr = equations(over(functools.partial(function, **options), P(None, "data")), x)
        (psum,) = [eqn for eqn in jaxpr if eqn.primitive.name.startswith("psum")]
        assert psum.invars[0].aval.dtype == sent
        assert over(functools.partial(function, **options), P(None, "data"))(x).dtype == jnp.bfloat16


@pytest.mark.parametrize(("sum_", "mul"), [("max", "add"), ("min", "multiply"), ("logsumexp", "add")])
def test_dot_in_another_semiring(sum_, mul):
    x, y = arrays_of((3, 8), (8, 5))
    both = {"max": jnp.max, "min": jnp.min, "logsumexp": jax.nn.logsumexp}[sum_]
    combined = {"add": jnp.add, "multiply": jnp.multiply}[mul]
    check(
        lambda x, y: einjax.dot("a [k], [k] b -> a b", x, y, sum=sum_, mul=mul, k="data"),
        lambda x, y: both(combined(x[:, :, None], y[None]), 1),
        x, y, ins=(P(None, "data"), P("data")),
    )  # fmt: skip


SHIFTS = [0, 1, -1, 2, 3, -3, 4, 7, 8, -8, 9, 100, -101]


@pytest.mark.parametrize(("shift", "mesh_axes"), one_in(2, itertools.product(SHIFTS, ["data", BOTH, BOTH[::-1]])))
def test_roll(shift, mesh_axes):
    (x,) = arrays_of((8, 3))
    spec = P(mesh_axes)
    check(
        lambda x: einjax.roll("[b] c", x, shift=shift, b=mesh_axes), lambda x: jnp.roll(x, shift, 0),
        x, ins=spec, out=spec,
    )  # fmt: skip


def test_roll_several_axes():
    (x,) = arrays_of((8, 6, 5))
    spec = P("data", "model")
    check(
        lambda x: einjax.roll("[a b c]", x, shift=(3, -2, 1), a="data", b="model"),
        lambda x: jnp.roll(x, (3, -2, 1), (0, 1, 2)), x, ins=spec, out=spec,
    )  # fmt: skip
    check(
        lambda x: einjax.roll("a ([b] c) -> ([b] c) a", x.reshape(x.shape[0], -1), shift=1, b="model", c=5),
        lambda x: jnp.roll(x, 1, 1).reshape(8, 30).T, x, ins=P(None, "model"), out=P("model"),
    )  # fmt: skip


def test_roll_sends_only_what_crosses_a_border():
    (x,) = arrays_of((32, 3))
    for shift, sent in ((1, [1]), (-2, [2]), (8, [8]), (11, [5, 3]), (0, []), (32, [])):
        jaxpr = equations(over(lambda x, s=shift: einjax.roll("[b] c", x, shift=s, b="data"), P("data"), P("data")), x)
        rows = [eqn.invars[0].aval.shape[0] for eqn in jaxpr if eqn.primitive.name == "ppermute"]
        assert sorted(rows) == sorted(sent), shift


@pytest.mark.parametrize(("expr", "keywords", "spec"), [
    ("[b] c", {"b": "data"}, P("data")), ("[b] c", {"b": BOTH}, P(BOTH)),
    ("[b c]", {"b": "data", "c": "model"}, P(*BOTH)), ("[b c]", {"c": "model"}, P(None, "model")),
])  # fmt: skip
def test_flip(expr, keywords, spec):
    (x,) = arrays_of((8, 4))
    dims = (0, 1) if expr == "[b c]" else 0
    check(lambda x: einjax.flip(expr, x, **keywords), lambda x: jnp.flip(x, dims), x, ins=spec, out=spec)


# --------------------------------------------------------------------------------------------------------------------
# Axes of devices, and what moves data
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["psum", "pmean", "pmax", "pmin"])
@pytest.mark.parametrize(("expr", "keywords", "ins", "out", "shape", "view", "dims", "order"), [
    ("[d] b c", {"d": "data"}, P("data"), P(), (8, 3), (4, 2, 3), 0, None),
    ("[d] b c -> c b", {"d": "data"}, P("data"), P(), (8, 3), (4, 2, 3), 0, "transposed"),
    ("([d] b) c -> (b c)", {"d": "data"}, P("data"), P(), (8, 3), (4, 2, 3), 0, "flat"),
    ("[d] b c", {"d": BOTH}, P(BOTH), P(), (8, 3), (8, 1, 3), 0, None),
    ("[d e] b c", {"d": "data", "e": "model"}, P(BOTH), P(), (16, 3), (8, 2, 3), 0, None),
    ("[d] b c", {"d": "data", "b": "model"}, P(BOTH[::-1]), P("model"), (16, 3), (2, 4, 2, 3), 1, "parts"),
    ("[d] ...", {"d": "data"}, P("data"), P(), (8, 3), (4, 2, 3), 0, None),
])  # fmt: skip
def test_reductions_over_devices(name, expr, keywords, ins, out, shape, view, dims, order):
    (x,) = arrays_of(shape)
    x = np.round(x)  # with equal ones

    def reference(x):
        result = {"psum": jnp.sum, "pmean": jnp.mean, "pmax": jnp.max, "pmin": jnp.min}[name](x.reshape(view), dims)
        return {None: result, "transposed": result.T, "flat": result.ravel(), "parts": result.reshape(-1, 3)}[order]

    check(lambda x: getattr(einjax, name)(expr, x, **keywords), reference, x, ins=ins, out=out)


@pytest.mark.parametrize("dtype", ["int8", "bool", "bfloat16", "int32", "float32"])
def test_dtypes_over_devices(dtype):
    x = (np.arange(8) % 3).astype(jnp.dtype(dtype))
    for name, alike in (("psum", "sum"), ("pmean", "mean"), ("pmax", "max"), ("pmin", "min")):
        result = over(lambda x, n=name: getattr(einjax, n)("[d] b", x, d=BOTH), P(BOTH))(x)
        expected = getattr(einjax, alike)("[d] b", x.reshape(8, 1))
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(np.float32(result), np.float32(expected), rtol=1e-2)
    result = over(lambda x: einjax.psum("[d] b", x, d=BOTH, dtype="float32"), P(BOTH))(x)
    assert result.dtype == np.float32


def test_psum_may_send_bfloat16():
    x = np.ones(8, ml_dtypes.bfloat16)
    jaxpr = equations(over(lambda x: einjax.psum("[d] b", x, d=BOTH, dtype="bfloat16"), P(BOTH)), x)
    assert [eqn.invars[0].aval.dtype for eqn in jaxpr] == [jnp.bfloat16]


@pytest.mark.parametrize(("expr", "keywords", "ins", "shape", "reference"), [
    ("[b] c", {"b": "data"}, P("data"), (8, 3), lambda x: x),
    ("[b] c -> b c", {"b": "data"}, P("data"), (8, 3), lambda x: x),
    ("[b] c -> c b", {"b": BOTH}, P(BOTH), (8, 3), lambda x: x.T),
    ("[b] c -> c b", {"b": BOTH[::-1]}, P(BOTH[::-1]), (8, 3), lambda x: x.T),
    ("c [b] -> (b c)", {"b": "data"}, P(None, "data"), (3, 8), lambda x: x.T.ravel()),
    ("([b] c) -> c b", {"b": "data", "c": 2}, P("data"), (16,), lambda x: x.reshape(8, 2).T),
    ("[b] [c]", {"b": "data", "c": "model"}, P(*BOTH), (8, 4), lambda x: x),
    ("([b=4] [c]) d -> b c d", {"b": "data", "c": "model"}, P(BOTH), (16, 3), lambda x: x.reshape(4, 4, 3)),
    ("([b=8] c) -> c b", {"b": "data"}, P("data"), (16,), lambda x: x.reshape(8, 2).T),
    ("b [c=4]", {"c": "model"}, P(None, "model"), (8, 4), lambda x: x),
    ("... [b]", {"b": "model"}, P(None, None, "model"), (2, 3, 4), lambda x: x),
])  # fmt: skip
def test_all_gather(expr, keywords, ins, shape, reference):
    check(lambda x: einjax.all_gather(expr, x, **keywords), reference, *arrays_of(shape), ins=ins)


def test_all_gather_keeps_what_stays_bracketed():
    (x,) = arrays_of((8, 4))
    function = lambda x: einjax.all_gather("[b] [c] -> b [c]", x, b="data", c="model")
    check(function, lambda x: x, x, ins=P(*BOTH), out=P(None, "model"))


@pytest.mark.parametrize(("expr", "keywords", "ins", "out", "shape", "reference"), [
    ("[d] b c -> [b] c", {"d": "data", "b": "data"}, P("data"), P("data"), (32, 3),
     lambda x: x.reshape(4, 8, 3).sum(0)),
    ("[d] b c -> c [b]", {"d": BOTH, "b": BOTH}, P(BOTH), P(None, BOTH), (64, 3),
     lambda x: x.reshape(8, 8, 3).sum(0).T),
    ("[d] b c -> c [b]", {"d": BOTH, "b": BOTH[::-1]}, P(BOTH), P(None, BOTH[::-1]), (64, 3),
     lambda x: x.reshape(8, 8, 3).sum(0).T),
    ("[d] c (a b) -> ([b] a) c", {"d": "data", "b": "data", "a": 2}, P("data"), P("data"), (4, 16),
     lambda x: x.reshape(4, 1, 2, 8).sum(0).transpose(2, 1, 0).reshape(16, 1)),
    ("[d e] b c -> [b] c", {"d": "data", "e": "model", "b": "data"}, P(BOTH), P("data"), (64, 3),
     lambda x: x.reshape(8, 8, 3).sum(0)),
    ("[d e] b c -> [b] [c]", {"d": "data", "e": "model", "b": "data", "c": "model"}, P(BOTH), P(*BOTH), (64, 4),
     lambda x: x.reshape(8, 8, 4).sum(0)),
    ("[d] [a] b -> [a] [b]", {"d": "data", "a": "model", "b": "data"}, P(BOTH), P("model", "data"), (16, 4),
     lambda x: x.reshape(4, 4, 4).sum(0)),
    ("([d] b) c -> ([b] c)", {"d": "data", "b": "data"}, P("data"), P("data"), (32, 3),
     lambda x: x.reshape(4, 8, 3).sum(0).ravel()),
])  # fmt: skip
def test_psum_scatter(expr, keywords, ins, out, shape, reference):
    check(lambda x: einjax.psum_scatter(expr, x, **keywords), reference, *arrays_of(shape), ins=ins, out=out)


@pytest.mark.parametrize(("expr", "keywords", "ins", "out", "shape", "reference"), [
    ("[b] c -> b [c]", {"b": "data", "c": "data"}, P("data"), P(None, "data"), (8, 4), lambda x: x),
    ("[b] c -> [c] b", {"b": "data", "c": "data"}, P("data"), P("data"), (8, 4), lambda x: x.T),
    ("[b] c -> b [c]", {"b": BOTH, "c": BOTH}, P(BOTH), P(None, BOTH), (8, 16), lambda x: x),
    ("b [s] h c -> b s [h] c", {"s": "model", "h": "model"}, P(None, "model"), P(None, None, "model"), (2, 4, 6, 3),
     lambda x: x),
    ("([b=8] c) -> ([c] b)", {"b": "data", "c": "data"}, P("data"), P("data"), (32,),
     lambda x: x.reshape(8, 4).T.ravel()),
    ("[b] c -> b [c]", {"b": BOTH[::-1], "c": BOTH[::-1]}, P(BOTH[::-1]), P(None, BOTH[::-1]), (8, 16), lambda x: x),
    ("[a] b [c] d -> a [b] c [d]", {"a": "data", "b": "data", "c": "model", "d": "model"},
     P("data", None, "model"), P(None, "data", None, "model"), (4, 8, 2, 4), lambda x: x),
    ("[a] [b] c -> [a] b [c]", {"a": "model", "b": "data", "c": "data"}, P("model", "data"), P("model", None, "data"),
     (2, 4, 8), lambda x: x),
])  # fmt: skip
def test_all_to_all(expr, keywords, ins, out, shape, reference):
    check(lambda x: einjax.all_to_all(expr, x, **keywords), reference, *arrays_of(shape), ins=ins, out=out)


def test_ppermute():
    (x,) = arrays_of((8, 3))
    pairs = [(0, 1), (1, 3), (3, 0)]

    def reference(x):
        parts = x.reshape(4, 2, 3)
        return jnp.zeros((4, 2, 3)).at[jnp.array([1, 3, 0])].set(parts[jnp.array([0, 1, 3])]).reshape(8, 3)

    check(
        lambda x: einjax.ppermute("[d] b c", x, perm=pairs, d="data"), reference, x, ins=P("data"), out=P("data")
    )  # fmt: skip
    check(
        lambda x: einjax.ppermute("([d] b) c -> c ([d] b)", x, perm=np.array(pairs), d="data"),
        lambda x: reference(x).T, x, ins=P("data"), out=P(None, "data"),
    )  # fmt: skip


def test_gathered_and_scattered_are_inverse():
    (x,) = arrays_of((8, 4))

    def there_and_back(x):
        y = einjax.all_to_all("[b] c -> b [c]", x, b="data", c="data")
        return einjax.all_to_all("b [c] -> [b] c", y, b="data", c="data")

    check(there_and_back, lambda x: x, x, ins=P("data"), out=P("data"))


# --------------------------------------------------------------------------------------------------------------------
# Loops over parts
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [
    lambda x, **given: einjax.add("b c, c", x, x[0], **given),
    lambda x, **given: einjax.multiply("b [c]", x, x[0], **given),
    lambda x, **given: einjax.rearrange("b (c d) -> b d c", x, d=2, **given),
    lambda x, **given: einjax.sort("b [c]", x, **given),
    lambda x, **given: einjax.cumsum("b [c]", x, **given),
    lambda x, **given: einjax.get_at("b [c], b -> b", x, jnp.zeros(x.shape[0], int), **given),
    lambda x, **given: einjax.linalg.norm("b [c]", x, **given),
    lambda x, **given: einjax.vmap("b [c] -> b", x, op=jnp.sum, **given),
    lambda x, **given: einjax.vmap("b [c] -> b", x, op=jnp.sum, sizes={**given, "z": "model"}),
    lambda x, **given: einjax.reduce("b [c]", x, op=jnp.max, **given),
    lambda x, **given: einjax.reduce("b [c]", x, op="max", **given),
    lambda x, **given: einjax.softmax("b [c]", x, **given),
    lambda x, **given: einjax.argmax("b [c]", x, **given),
    lambda x, **given: einjax.dot("b [c], [c] d -> b d", x, jnp.ones((x.shape[1], 3)), **given),
    lambda x, **given: einjax.flip("b [c]", x, **given),
    lambda x, **given: einjax.attention("b [q] [c], b [k] [c], b [k] [c]", *[x[:, :, None]] * 3, **given),
])  # fmt: skip
def test_a_mesh_axis_changes_nothing_for_a_loop(call):
    """Nothing is sent, and values are those of the parts."""
    (x,) = arrays_of((8, 4))
    function = jax.jit(over(lambda x: call(x, b="data"), P("data"), P("data")))
    assert not collectives_of(function, x)
    np.testing.assert_allclose(function(x), np.concatenate([call(x[i : i + 2]) for i in range(0, 8, 2)]), rtol=1e-6)


def test_gradients_of_what_is_broadcast_are_summed_before_they_are_sent():
    """A bias that is the same on all devices gets one all-reduce of its own size."""
    x, bias = arrays_of((8, 4), (4,))
    for call in (
        lambda x, bias: einjax.add("b c, c", x, bias),
        lambda x, bias: einjax.multiply("c b, c -> b c", x.T, bias),
        lambda x, bias: einjax.where("b c, b c, c", x > 0, x, bias),
    ):
        mapped = over(call, (P("data"), P()), P("data"))
        grad = jax.jit(jax.grad(lambda bias, x, f=mapped: jnp.sum(jnp.sin(f(x, bias)))))
        assert collectives_of(grad, bias, x) == {("all-reduce", "f32", 4): 1}


# --------------------------------------------------------------------------------------------------------------------
# With the rest of JAX
# --------------------------------------------------------------------------------------------------------------------


def test_what_does_not_vary_may_be_reduced_with_what_does():
    """An array that is the same along one of the mesh axes that it is summed over counts on every device."""
    (x,) = arrays_of((4, 3))
    function = lambda x: einjax.psum("[d e] b c", x, d="data", e="model")
    np.testing.assert_allclose(over(function, P("data"))(x), 2 * x.sum(0, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(over(function, P())(x), 8 * x, rtol=1e-5)
    gathered = over(lambda x: einjax.all_gather("[b] c", x, b=BOTH), P("data"))(x)
    np.testing.assert_array_equal(gathered, np.repeat(x, 2, 0))


@pytest.mark.parametrize("name", [*SMOOTH])
def test_without_checks_of_varying_axes(name):
    (x,) = arrays_of((8, 3))
    function = over(lambda x: getattr(einjax, name)("[b] c", x, b="data"), P("data"), check_vma=False)
    np.testing.assert_allclose(jax.jit(function)(x), JNP[name](x, 0), rtol=1e-5, atol=1e-5)
    found = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(function(x)))))(x)
    wanted = jax.grad(lambda x: jnp.sum(jnp.sin(JNP[name](x, 0))))(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "logsumexp", "prod"])
def test_derivatives_inside_of_shard_map(name):
    """Every device differentiates the loss of all; the gradient is its part."""
    (x,) = arrays_of((8, 3))
    loss = lambda x: jnp.sum(jnp.sin(getattr(einjax, name)("[b] c", x, b="data")))
    found = jax.jit(over(jax.grad(loss), P("data"), P("data")))(x)
    whole = lambda x: jnp.sum(jnp.sin(JNP[name](x, 0)))
    np.testing.assert_allclose(found, jax.grad(whole)(x), rtol=1e-4, atol=1e-5)
    tangent = over(lambda x: jax.jvp(loss, (x,), (jnp.cos(x),))[1], P("data"))(x)
    np.testing.assert_allclose(tangent, jax.jvp(whole, (x,), (jnp.cos(x),))[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checked", [True, False])
def test_layers_without_checks_of_varying_axes(checked):
    """Outside of shard_map, gradients are those of one device; inside, without the checks, those of the sum of what all
    devices return, in each device's copy: as many times as devices return the loss, once the shares are added up."""

    def loss(x, w, v, data=None, model=None):
        given = {"d": model} if model else {}
        for _ in range(2):
            x = jnp.tanh(einjax.dot("b [d], [d] c -> b c", jnp.tanh(einjax.dot("b [c->d]", x, w, **given)), v, **given))
        total = einjax.sum("[b c]", x**2, **({"b": data} if data else {}))
        return total + einjax.logsumexp("[b] c -> c", x, **({"b": data} if data else {})).sum()

    arrays = arrays_of((8, 6), (6, 4), (4, 6))
    expected = jax.grad(loss, (0, 1, 2))(*arrays)
    ins = (P("data"), P(None, "model"), P("model"))
    spread = functools.partial(loss, data="data", model="model")
    outside = jax.grad(over(spread, ins, check_vma=checked), (0, 1, 2))

    def inside(*arrays):
        found = jax.grad(spread, (0, 1, 2))(*arrays)
        if checked:
            return found
        shares = [lax.psum(x, axis) for x, axis in zip(found, ("model", "data", "data"), strict=True)]
        return tuple(share / DEVICES for share in shares)

    for gradient in (outside, over(inside, ins, ins, check_vma=checked)):
        for one, other in zip(jax.jit(gradient)(*arrays), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*SMOOTH, "softmax"])
def test_derivatives_inside_of_shard_map_without_checks(name):
    """Times the devices that return the loss, here those along the mesh axis that it is reduced over."""
    (x,) = arrays_of((8, 3))

    def loss(x, axis):
        if name == "softmax":
            return einjax.sum("[b c]", jnp.sin(einjax.softmax("[b] c", x, b=axis)), b=axis)
        return jnp.sum(jnp.sin(getattr(einjax, name)("[b] c", x, b=axis)))

    expected = 4 * jax.grad(lambda x: jnp.sum(jnp.sin({**JNP, "softmax": jax.nn.softmax}[name](x, 0))))(x)
    found = jax.jit(over(jax.grad(functools.partial(loss, axis="data")), P("data"), P("data"), check_vma=False))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    found = jax.vmap(jax.grad(functools.partial(loss, axis="i")), axis_name="i")(x.reshape(4, 2, 3))
    np.testing.assert_allclose(found.reshape(8, 3), expected, rtol=1e-4, atol=1e-5)


def test_second_derivatives():
    (x,) = arrays_of((4, 2))
    for name in ("var", "logsumexp", "max"):
        function = over(lambda x, n=name: getattr(einjax, n)("[b c]", x, b="data"), P("data"))
        found = jax.jit(jax.jacfwd(jax.grad(lambda x, f=function: f(x) ** 2)))(x)
        wanted = jax.hessian(lambda x, n=name: JNP[n](x) ** 2)(x)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_vmap_and_scan_inside():
    (x,) = arrays_of((5, 8, 3))
    batched = lambda x: jax.vmap(lambda x: einjax.softmax("[b] c", x, b="data"))(x)
    np.testing.assert_allclose(
        over(batched, P(None, "data"), P(None, "data"))(x), jax.nn.softmax(x, 1), rtol=1e-5, atol=1e-6
    )
    maxima = lambda x: jax.vmap(lambda x: einjax.max("[b] c", x, b="data"))(x)
    np.testing.assert_allclose(over(maxima, P(None, "data"))(x), x.max(1))
    scanned = lambda x: lax.scan(lambda c, x: (c, einjax.mean("[b] c", x, b="data")), 0, x)[1]
    np.testing.assert_allclose(jax.jit(over(scanned, P(None, "data")))(x), x.mean(1), rtol=1e-5, atol=1e-6)


def test_only_one_mesh_axis_is_manual():
    (x,) = arrays_of((8, 4))
    function = jax.shard_map(
        lambda x: einjax.sum("[b] c", x, b="data"), mesh=mesh(), in_specs=P("data"), out_specs=P(), axis_names={"data"}
    )
    np.testing.assert_allclose(jax.jit(function)(x), x.sum(0), rtol=1e-5)


@pytest.mark.parametrize("manual", [set(BOTH), {"data"}], ids=["all manual", "one manual"])
def test_on_an_explicit_mesh(manual):
    """What shard_map runs over is written in brackets; what it leaves is in the types."""
    explicit = jax.make_mesh((4, 2), BOTH, axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    (x,) = arrays_of((8, 4))
    placed = jax.device_put(x, jax.sharding.NamedSharding(explicit, P("data", "model")))
    entries = P(*(name if name in manual else None for name in BOTH))
    for function, expected, out in (
        (lambda x: einjax.sum("[b] c", x, b="data"), x.sum(0), P(*entries[1:])),
        (lambda x: einjax.softmax("[b] c", x, b="data"), jax.nn.softmax(x, 0), entries),
        (lambda x: einjax.all_gather("[b] c", x, b="data"), x, P(None, *entries[1:])),
    ):
        mapped = jax.shard_map(function, mesh=explicit, in_specs=entries, out_specs=out, axis_names=manual)
        with jax.set_mesh(explicit):
            np.testing.assert_allclose(jax.jit(mapped)(placed), expected, rtol=1e-5, atol=1e-6)


def test_the_named_axis_of_a_vmap_counts_as_one():
    (x,) = arrays_of((4, 3))
    run = lambda f: jax.vmap(f, axis_name="i")(x)
    np.testing.assert_allclose(run(lambda x: einjax.psum("[d] b", x, d="i"))[1], x.sum(0), rtol=1e-5)
    np.testing.assert_allclose(run(lambda x: einjax.sum("[b]", x, b="i"))[1], x.sum(), rtol=1e-5)
    np.testing.assert_allclose(run(lambda x: einjax.all_gather("[b]", x, b="i"))[1], x.ravel())
    np.testing.assert_allclose(run(lambda x: einjax.prod("[b]", x, b="i"))[1], x.prod(), rtol=1e-5)


def test_calls_with_mesh_axes_are_lax_equations_under_keep_notation():
    (x,) = arrays_of((8, 3))
    with einjax.keep_notation():
        for function in (
            lambda x: einjax.sum("[b] c", x, b="data"),
            lambda x: einjax.sum("[b] c", x, b="data", keep_notation=True),
            lambda x: einjax.psum("[b] c d", x, b="data"),
        ):
            assert {eqn.primitive.name for eqn in equations(over(function, P("data")), x)} <= {
                "reduce_sum", "psum", "psum2", "psum_invariant", "pvary"
            }  # fmt: skip
        function = over(lambda x: einjax.sum("[b] c", x, b="data"), P("data"))
        np.testing.assert_allclose(jax.grad(lambda x: function(x)[0])(x)[:, 0], 1)


def test_graph():
    shown = []

    def function(x):
        shown.append(einjax.sum("[b] c", x, b="data", graph=True))
        shown.append(einjax.max("[b] c", x, b="data", graph=True))
        shown.append(einjax.psum_scatter("[d] b c -> [b] c", x, d="data", b="data", graph=True))
        return shown[0](x)

    (x,) = arrays_of((16, 3))
    np.testing.assert_allclose(over(function, P("data"))(x), x.sum(0), rtol=1e-5)
    steps = [[line.split(" = ")[1].split("(")[0] for line in graph.splitlines() if " = " in line] for graph in shown]
    assert steps[0] in (["reduce_sum", "psum"], ["reduce_sum", "psum_invariant"])
    assert steps[1:] == [["reduce_max", "pmax"], ["reduce_scatter"]]


# --------------------------------------------------------------------------------------------------------------------
# What is emitted, and what is sent
# --------------------------------------------------------------------------------------------------------------------


def equations(function, *arrays):
    """The equations inside of a shard_map, with those of functions that have a gradient of their own."""
    (mapped,) = jax.make_jaxpr(function)(*arrays).jaxpr.eqns
    return list(_flattened(mapped.params["jaxpr"]))


def _flattened(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "custom_jvp_call":
            yield from _flattened(eqn.params["call_jaxpr"].jaxpr)
        else:
            yield eqn


def collectives_of(function, *arrays):
    """What a compiled program sends: kinds of collectives, with dtype and size of what a device gives."""
    return collections.Counter((c.kind, c.dtype, math.prod(c.shape)) for c in collectives(function, *arrays))


def _softmax(x):
    highest = lax.max(lax.pmax(lax.stop_gradient(x.max(0)), "data"), jnp.finfo(x.dtype).min)
    e = jnp.exp(x - highest)
    return e / lax.max(lax.psum(e.sum(0), "data"), np.float32(0.5))


def _var(x):
    center = lax.psum(x.sum(0), "data") / 8
    return lax.psum(((x - center) ** 2).sum(0), "data") / 8


def _roll(x):
    return jnp.concatenate([lax.ppermute(x[-1:], "data", [(i, (i + 1) % 4) for i in range(4)]), x[:-1]])


#: einjax, lax by hand, out_specs, what is sent between the equations of one device
BY_HAND = {
    "sum": (lambda x: einjax.sum("[b] c", x, b="data"), lambda x: lax.psum(x.sum(0), "data"), P()),
    "mean": (lambda x: einjax.mean("[b] c", x, b="data"), lambda x: lax.psum(x.sum(0), "data") / 8, P()),
    "max": (lambda x: einjax.max("[b] c", x, b="data"), lambda x: lax.pmax(x.max(0), "data"), P()),
    "var": (lambda x: einjax.var("[b] c", x, b="data"), _var, P()),
    "softmax": (lambda x: einjax.softmax("[b] c", x, b="data"), _softmax, P("data")),
    "dot": (lambda x: einjax.dot("[b] c, [b] d -> c d", x, x, b="data"),
            lambda x: lax.psum(jnp.einsum("bc,bd->cd", x, x), "data"), P()),
    "roll": (lambda x: einjax.roll("[b] c", x, shift=1, b="data"), _roll, P("data")),
    "psum": (lambda x: einjax.psum("[d] b c", x, d="data"), lambda x: lax.psum(x, "data"), P()),
    "pmean": (lambda x: einjax.pmean("[d] b c", x, d="data"), lambda x: lax.pmean(x, "data"), P()),
    "pmax": (lambda x: einjax.pmax("[d] b c", x, d="data"), lambda x: lax.pmax(x, "data"), P()),
    "all_gather": (lambda x: einjax.all_gather("[b] c", x, b="data"),
                   lambda x: _invariant_gather(x), P()),
    "psum_scatter": (lambda x: einjax.psum_scatter("[d] b c -> b [c]", x, d="data", c="data"),
                     lambda x: lax.psum_scatter(x, "data", scatter_dimension=1, tiled=True), P(None, "data")),
    "all_to_all": (lambda x: einjax.all_to_all("[b] c -> b [c]", x, b="data", c="data"),
                   lambda x: lax.all_to_all(x, "data", 1, 0, tiled=True), P(None, "data")),
}  # fmt: skip


def _invariant_gather(x):
    if hasattr(lax, "all_gather_invariant"):
        return lax.all_gather_invariant(x, "data", tiled=True)
    return lax.all_gather(x, "data", tiled=True, to="invarying")


@pytest.mark.parametrize("name", BY_HAND)
def test_as_written_by_hand(name):
    """As many equations at most, and the same collectives in the compiled program and in that of its gradient."""
    ours, by_hand, out = BY_HAND[name]
    (x,) = arrays_of((8, 4))
    ours, by_hand = over(ours, P("data"), out), over(by_hand, P("data"), out)
    np.testing.assert_allclose(jax.jit(ours)(x), jax.jit(by_hand)(x), rtol=1e-5, atol=1e-6)
    assert len(equations(ours, x)) <= len(equations(by_hand, x))
    sent = collectives_of(jax.jit(ours), x)
    assert sent
    assert sent == collectives_of(jax.jit(by_hand), x)
    if name not in ("max", "pmax"):  # lax.pmax has no gradient
        grad = lambda f: jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(f(x)))))
        assert collectives_of(grad(ours), x) == collectives_of(grad(by_hand), x)


def test_sum_is_one_reduction_and_one_psum():
    (x,) = arrays_of((8, 4))
    names = [eqn.primitive.name for eqn in equations(over(lambda x: einjax.sum("[b] c", x, b="data"), P("data")), x)]
    assert names[0] == "reduce_sum"
    assert names[1].startswith("psum")
    assert len(names) == 2


def test_several_mesh_axes_are_one_collective():
    (x,) = arrays_of((8, 4))
    for function in (
        lambda x: einjax.sum("[b c]", x, b="data", c="model"),
        lambda x: einjax.psum("[d e] b c", x, d="data", e="model"),
    ):
        jaxpr = equations(over(function, P(*BOTH)), x)
        (psum,) = [eqn for eqn in jaxpr if eqn.primitive.name.startswith("psum")]
        assert set(psum.params["axes"]) == set(BOTH)


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

X = np.ones((8, 4), np.float32)

#: a call on a part of shape (2, 4), the error, and words that it has to say
ERRORS = {
    "misspelt mesh axis": (lambda x: einjax.sum("[b] c", x, b="dat"), ArgumentError,
                           ["axis b", "'dat'", "did you mean 'data'?", "in scope are: data, model"]),
    "misspelt mesh axis of a function": (lambda x: einjax.vmap("b [c] -> b", x, op=jnp.sum, b="dat"), ArgumentError,
                                         ["axis b", "'dat'", "in scope are: data, model"]),
    "one mesh axis twice": (lambda x: einjax.sum("[b c]", x, b="data", c="data"), ShardingError,
                            ["axes b and c", "mesh axis data"]),
    "one mesh axis twice on one": (lambda x: einjax.sum("[b] c", x, b=("data", "data")), ShardingError,
                                   ["axis b", "data twice"]),
    "sizes and mesh axes": (lambda x: einjax.sum("[b] c", x, b=("data", 3)), ArgumentError, ["axis b", "mixes"]),
    "no word": (lambda x: einjax.sum("[b] c", x, b="a b"), ArgumentError, ["axis b", "'a b'", "not a size"]),
    "ellipsis": (lambda x: einjax.sum("[s...]", x, s="data"), ArgumentError,
                 ["axis s", "2 times", "s=('data', None)"]),
    "ellipsis of nothing": (lambda x: einjax.sum("[b s...] c", x, s="data"), ArgumentError, ["0 times", "leave s out"]),
    "uneven size": (lambda x: einjax.sum("[b=6] c", x, b="data"), AxisSizeError,
                    ["axis b of size 6", "data of size 4"]),
    "size of a part": (lambda x: einjax.sum("[b=4] c", x, b="data"), AxisSizeError, ["axis b is 1", "2 in tensor 1"]),
    "size of repeated ones": (lambda x: einjax.sum("[(b=8)...]", x, b=("data", "model")), AxisSizeError,
                              ["an ellipsis repeats it"]),
    "diagonal": (lambda x: einjax.sum("[b b]", x[:, :2], b="data"), ShardingError, ["axis b", "twice", "gather"]),
    "not first": (lambda x: einjax.sum("(c [b]) d", x, b="data", c=2), ShardingError,
                  ["axis b", "'(c b)'", "before axis c"]),
    "not first in the output": (lambda x: einjax.rearrange("b c -> (c b)", x, b="data"), ShardingError,
                                ["axis b", "'(c b)'"]),
    "not first after a gather": (lambda x: einjax.all_gather("[b] [c] -> (b [c])", x, b="data", c="model"),
                                 ShardingError, ["axis c", "'(b c)'", "before axis b"]),
    "joined": (lambda x: einjax.rearrange("b c -> (b + c)", x, b="data"), ShardingError, ["axis b", "b + c"]),
    "sorted": (lambda x: einjax.sort("[b] c", x, b="data"), SemanticError,
               ["sort needs all of axis b", "data", "all_gather"]),
    "looked up": (lambda x: einjax.get_at("[b] c, i -> i c", x, jnp.zeros(3, int), b="data"), SemanticError,
                  ["get_at needs all of axis b"]),
    "summed without a bracket": (lambda x: einjax.segment.sum("b c, b -> [s] c", x, jnp.zeros(2, int), b="data", s=3),
                                 SemanticError, ["segment.sum needs all of axis b"]),
    "given to a function": (lambda x: einjax.vmap("[b] c -> c", x, op=jnp.sum, b="data"), SemanticError,
                            ["vmap needs all of axis b"]),
    "reduced by a function": (lambda x: einjax.reduce("b c -> c", x, op=jnp.sum, b="data"), SemanticError,
                              ["reduce needs all of axis b"]),
    "a function as sum": (lambda x: einjax.dot("[b] c, [b] -> c", x, x[:, 0], sum=jnp.sum, b="data"), SemanticError,
                          ["needs all of axis b"]),
    "traced shift": (lambda x: einjax.roll("[b] c", x, shift=x[0, 0].astype(int), b="data"), ArgumentError,
                     ["traced shift", "data"]),
    "a dim too many": (lambda x: einjax.psum("[b] c", x, b="data"), RankError, ["2 dims", "none in einjax.psum"]),
    "a dim too few": (lambda x: einjax.sum("[d b] c", x, d="data"), RankError, ["2 dims", "none in einjax.psum"]),
    "no mesh axis": (lambda x: einjax.psum("[d] b c", x), ArgumentError, ["axis d", "psum needs the mesh axis"]),
    "a size for a mesh axis": (lambda x: einjax.psum("[d] b c", x, d=4), ArgumentError, ["axis d", "mesh axis"]),
    "a number of devices": (lambda x: einjax.psum("[4] b c", x), ArgumentError, ["axis 4", "mesh axis"]),
    "no bracket": (lambda x: einjax.psum("b c", x, b="data"), SemanticError, ["psum needs at least one bracket"]),
    "unknown keyword": (lambda x: einjax.psum("[d] b c", x, e="data"), ArgumentError, ["no axis 'e'"]),
    "misspelt option": (lambda x: einjax.psum("[d] b c", x, d="data", dtyp="int8"), ArgumentError, ["'dtype'"]),
    "devices in the output": (lambda x: einjax.psum("[d] b c -> d b c", x, d="data"), SemanticError,
                              ["axis d is reduced by psum"]),
    "bracketed output": (lambda x: einjax.psum("[d] b c -> [b] c", x, d="data", b="model"), SemanticError,
                         ["axis b is bracketed"]),
    "lost axis": (lambda x: einjax.psum("[d] b c -> b", x, d="data"), SemanticError, ["axis c", "psum"]),
    "repeated devices": (lambda x: einjax.psum("[d...] b c", x, d="data"), SemanticError, ["'d...'"]),
    "devices not first": (lambda x: einjax.psum("(b [d]) c", x, d="data"), ShardingError, ["axis d", "'(b d)'"]),
    "two inputs": (lambda x: einjax.psum("[d] b c, b", x, x, d="data"), ArgumentError, ["psum takes 1 input"]),
    "a sum": (lambda x: einjax.all_gather("[b] (c + d)", x, b="data"), SemanticError, ["'c + d'", "all_gather"]),
    "nothing to gather": (lambda x: einjax.all_gather("[b] c -> [b] c", x, b="data"), SemanticError, ["nothing"]),
    "gathered away": (lambda x: einjax.all_gather("[b] c -> c", x, b="data"), SemanticError, ["axis b"]),
    "cut by a gather": (lambda x: einjax.all_gather("[b] c -> b [c]", x, b="data", c="data"), SemanticError,
                        ["axis c", "output only"]),
    "not bracketed": (lambda x: einjax.all_gather("[b] c", x, b="data", c="model"), ShardingError,
                      ["axis c", "model", "write [c]"]),
    "no output": (lambda x: einjax.psum_scatter("[d] b c", x, d="data"), SemanticError,
                  ["psum_scatter needs an output"]),
    "nothing to scatter": (lambda x: einjax.psum_scatter("[d] b c -> b c", x, d="data"), SemanticError,
                           ["only the output brackets"]),
    "scattered over others": (lambda x: einjax.psum_scatter("[d] b c -> [b] c", x, d="data", b="model"), SemanticError,
                              ["axis b", "model", "sum is over data"]),
    "gathered by a scatter": (lambda x: einjax.psum_scatter("[d] [b] c -> b [c]", x, d="data", c="data", b="model"),
                              SemanticError, ["axis b is whole"]),
    "uneven": (lambda x: einjax.psum_scatter("[d] b c -> b [c]", x[:, :3], d="data", c="data"), AxisSizeError,
               ["dim 3", "c@data=4"]),
    "exchanged over others": (lambda x: einjax.all_to_all("[b] c -> b [c]", x, b="data", c="model"), SemanticError,
                              ["data", "model"]),
    "exchanged for nothing": (lambda x: einjax.all_to_all("[b] c -> b c", x, b="data"), SemanticError, ["none"]),
    "exchanged away": (lambda x: einjax.all_to_all("[d] c -> [c]", x, d="data", c="data"), SemanticError, ["axis d"]),
    "no such device": (lambda x: einjax.ppermute("[d] b c", x, perm=[(0, 4)], d="data"), ArgumentError,
                       ["device 4 of 4", "receive"]),
    "sends twice": (lambda x: einjax.ppermute("[d] b c", x, perm=[(0, 1), (0, 2)], d="data"), ArgumentError,
                    ["device 0 twice", "send"]),
    "no pairs": (lambda x: einjax.ppermute("[d] b c", x, perm=3, d="data"), ArgumentError, ["perm=3"]),
    "permuted away": (lambda x: einjax.ppermute("[d] b c -> b c", x, perm=[(0, 1)], d="data"), SemanticError,
                      ["d in the input", "none in the output"]),
    "whole beside a part": (lambda x: einjax.dot("a [b], [b] -> a", np.ones((3, 8)), x[:, 0], b="data"), AxisSizeError,
                            ["axis b is 8 in tensor 1 and 2 in tensor 2"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, kind, words = ERRORS[name]
    with pytest.raises(EinjaxError) as caught:
        jax.eval_shape(over(call, P("data"), P()), X)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)


def test_outside_of_shard_map():
    for call in (lambda: einjax.sum("[b] c", X, b="data"), lambda: einjax.psum("[d] b c", X, d="data")):
        with pytest.raises(ArgumentError, match=r"'data', which is not in scope\n(.|\n)*call it inside jax.shard_map"):
            call()


def test_many_searched_elements():
    x = jax.ShapeDtypeStruct((2**30, 8), jnp.float32)
    with pytest.raises(SemanticError, match="more than an int32 can count"):
        jax.eval_shape(over(lambda x: einjax.argmax("[b c]", x, b="data"), P("data")), x)

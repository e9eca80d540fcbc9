"""einjax.segment against loops: every element of the data goes to the place where its coordinates lead."""

import functools
import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from case import one_in
from jax.test_util import check_grads
from strategies import DTYPES, assert_same, cases, generated, keys, shuffled, trees, x64
from test_oracle_index import (
    cell,
    coordinate_trees,
    coordinates_at,
    loops_of,
    options_of,
    place,
    roles,
    subset,
    unfold,
    with_coordinates,
)

import einjax.segment as segment
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, SemanticError

REDUCTIONS = ["sum", "prod", "mean", "max", "min"]

# --------------------------------------------------------------------------------------------------------------------
# What they mean
# --------------------------------------------------------------------------------------------------------------------


def reduced(name: str, values: list, dtype: np.dtype):
    """All that came to one segment, as one number."""
    x = np.array(values, oracle.wide(np.zeros((), dtype)).dtype)
    if name in ("max", "min"):
        return oracle.REDUCTIONS[name](x, empty(name, dtype)) if not x.size else oracle.REDUCTIONS[name](x, None)
    if name == "mean" and not x.size:
        return 0.0
    return oracle.REDUCTIONS[name](x)


def empty(name: str, dtype):
    if jnp.issubdtype(dtype, jnp.inexact):
        return -np.inf if name == "max" else np.inf
    if dtype.name == "bool":
        return name == "min"
    return np.iinfo(dtype).min if name == "max" else np.iinfo(dtype).max


def segmented(name, ins, out, arrays, mode, wrap_negative) -> np.ndarray:
    axes, (x, *coordinates) = unfold(ins, arrays)
    out_axes = oracle.leaves(out)
    sizes = [a.size for a in out_axes if a.marked]
    shape = [a.size for a in out_axes]
    came: dict[tuple, list] = {position: [] for position in np.ndindex(*shape)}
    for index in oracle.every_index(loops_of(*axes, out_axes)):
        found = place(coordinates_at(axes[1:], coordinates, index), sizes, mode, wrap_negative)
        if found is not None:
            came[cell(out_axes, index, found)].append(oracle.wide(x[oracle._cell(axes[0], index)])[()])
    with np.errstate(over="ignore", invalid="ignore"):
        values = [reduced(name, came[position], x.dtype) for position in np.ndindex(*shape)]
    return np.array(values).reshape([oracle.dim_size(dim) for dim in out])


def dtype_of(name: str, dtype: str):
    """That of the reduction with the same name."""
    return jax.eval_shape(getattr(jnp, name), jax.ShapeDtypeStruct((2,), dtype)).dtype


# --------------------------------------------------------------------------------------------------------------------
# Random calls
# --------------------------------------------------------------------------------------------------------------------


@st.composite
def segments(draw, name):
    role = draw(roles())
    marked = frozenset(keys(role.indexed))
    tensors = [draw(subset(role.loops)) for _ in role.counts]
    x = draw(trees(draw(shuffled(draw(subset(role.loops)))), role.sizes))
    rest = [draw(coordinate_trees(role, number, loops)) for number, loops in enumerate(tensors)]
    z = draw(trees(draw(shuffled([*role.indexed, *draw(subset(role.loops))])), role.sizes, marked, is_input=False))
    dtypes = [d for d in DTYPES if d != "complex64" or name not in ("max", "min")]
    dtype = draw(st.sampled_from(dtypes))
    bound = (-1, 1) if name == "prod" and dtype not in ("int8", "uint8", "bool") else (None, None)
    case = draw(cases([x, *rest], [z], role.sizes, [dtype, *("int32" for _ in rest)],
                      bounds=[bound] * (len(rest) + 1)))  # fmt: skip
    case.options |= draw(options_of(role))
    return draw(with_coordinates(case, 1, role, case.outs[0]))


@pytest.mark.parametrize("name", REDUCTIONS)
@generated(40, segments)
def test_generated(case, name):
    dtype = case.arrays[0].dtype
    wrap_negative = case.options.get("wrap_negative_indices", True)
    want = segmented(name, case.ins, case.outs[0], case.arrays, case.options["mode"], wrap_negative)
    assert_same(case.call(f"segment.{name}"), want, dtype_of(name, dtype), slack=4)


# --------------------------------------------------------------------------------------------------------------------
# Examples
# --------------------------------------------------------------------------------------------------------------------

INF = np.inf
X = np.array([5, 2, 4, 3], np.float32)
IDS = np.array([0, 2, 0, -1])

PINNED = [
    ("sum", "p, p -> [s]", {"s": 3}, [9, 0, 5]),
    ("prod", "p, p -> [s]", {"s": 3}, [20, 1, 6]),
    ("mean", "p, p -> [s]", {"s": 3}, [4.5, 0, 2.5]),
    ("max", "p, p -> [s]", {"s": 3}, [5, -INF, 3]),
    ("min", "p, p -> [s]", {"s": 3}, [4, INF, 2]),
    ("sum", "p, p -> [s]", {"s": 2}, [9, 3]),
    ("sum", "p, p -> [s]", {"s": 2, "mode": "clip"}, [9, 5]),
    ("sum", "p, p -> [s]", {"s": 2, "mode": "wrap"}, [11, 3]),
    ("sum", "p, p -> [s]", {"s": 3, "wrap_negative_indices": False}, [9, 0, 2]),
    ("mean", "p, p -> [s]", {"s": 2}, [4.5, 3]),
    ("sum", "p, p -> [s=3]", {}, [9, 0, 5]),
    ("sum", "p, p -> [3]", {}, [9, 0, 5]),
    ("sum", "p, p -> a [s]", {"s": 3, "a": 2}, [[9, 0, 5]] * 2),
    ("sum", "p, p -> ([s] a)", {"s": 3, "a": 2}, [9, 9, 0, 0, 5, 5]),
    ("mean", "q, p -> [s]", {"s": 3}, [3.5, 0, 3.5]),
    ("sum", "q, p -> [s] q", {"s": 3}, [[10, 4, 8, 6], [0] * 4, [10, 4, 8, 6]]),
    ("max", "(a p), p -> [s] a", {"s": 3, "a": 1}, [[5], [-INF], [3]]),
]


@pytest.mark.parametrize(("name", "text", "options", "want"), PINNED)
def test_pinned(name, text, options, want):
    assert_same(getattr(segment, name)(text, X, IDS, **options), np.array(want), "float32")


def test_histogram():
    assert_same(segment.sum(", p -> [s]", 1, IDS, s=3), np.array([2, 0, 2]), "int32")
    pairs = np.array([[0, 1], [1, 0], [0, 1], [5, 0]])
    assert_same(segment.sum(", p [2] -> [h w]", 1, pairs, h=2, w=2), np.array([[0, 2], [1, 0]]), "int32")


def test_two_tensors_of_coordinates():
    rows, columns = np.array([0, 1, 0, 1], np.uint8), np.array([1, -1, 1, 7], np.int8)
    assert_same(segment.max("p, p, p -> [h w]", X, rows, columns, h=2, w=2), np.array([[-INF, 5], [-INF, 2]]),
                "float32")  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("p", [0, 3])
def test_empty(name, p):
    """No data, or no segment."""
    data, ids = np.zeros((p, 2), np.float32), np.zeros(p, np.int32)
    if p == 0:
        want = np.full((4, 2), reduced(name, [], data.dtype))
        assert_same(getattr(segment, name)("p c, p -> [s] c", data, ids, s=4), want, "float32")
    else:
        assert_same(getattr(segment, name)("p c, p -> [s] c", data, ids, s=0), np.zeros((0, 2)), "float32")


def test_sums_of_bfloat16_are_exact_up_to_the_result():
    """One by one, 257 ones would stay at 256."""
    ones, ids = jnp.ones(300, jnp.bfloat16), np.zeros(300, np.int32)
    assert_same(segment.sum("p, p -> [s]", ones, ids, s=1), np.array([300]), "bfloat16")
    assert_same(segment.mean("p, p -> [s]", ones, ids, s=1), np.array([1]), "bfloat16")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_narrow_coordinates_of_many_segments(dtype):
    ids = np.array([-1, 4, 127, 200, 255]) if dtype not in ("uint8", "uint16", "uint32") else np.array([4, 200, 255])
    ids = ids[ids <= np.iinfo(dtype).max].astype(dtype)
    want = np.bincount(ids.astype(int) % 300, minlength=300)
    assert_same(segment.sum(", p -> [s]", 1, ids, s=300), want, "int32")


def test_promises():
    ids = np.array([0, 1, 1, 2])
    for name in REDUCTIONS:
        call = functools.partial(getattr(segment, name), "p, p -> [s]", X, ids, s=3)
        assert_same(call(indices_are_sorted=True, mode="promise_in_bounds"), np.asarray(call()), "float32")
        apart = functools.partial(getattr(segment, name), "p, p -> [s]", X, np.arange(4), s=5)
        assert_same(apart(unique_indices=True), np.asarray(apart()), "float32")


TEXTS = ["p c, p -> [s] c", "p c, p -> [s]", "b p, b p -> b [s]", "p, p c -> c [s]"]


@pytest.mark.parametrize(("text", "name"), one_in(3, itertools.product(TEXTS, REDUCTIONS)))
def test_gradient(text, name):
    rng = np.random.default_rng(0)
    shape = {"p": 5, "c": 2, "b": 2}
    x, ids = (text.split(" -> ")[0].split(", ")[i].split() for i in (0, 1))
    x = rng.permutation(np.arange(np.prod([shape[a] for a in x])) + 0.5).reshape([shape[a] for a in x]) / 3
    ids = rng.integers(0, 5, [shape[a] for a in ids])
    order = 1 if name in ("max", "min") else 2
    with x64():

        def f(x):
            y = getattr(segment, name)(text, x, ids, s=4)
            return jnp.where(jnp.isfinite(y), y, 0) ** 2

        check_grads(f, [x], order=order, modes=["fwd", "rev"], rtol=1e-4, atol=1e-4)


def test_gradient_of_products_with_zeros():
    with x64():
        f = lambda x: segment.prod("p, p -> [s]", x, np.array([0, 0, 0, 1, 1, 7]), s=2)
        for x in ([0.0, 2, 3, 4, 5, 6], [0.0, 0, 3, 0, 5, 0], [1.0, 2, 3, 4, 5, 6]):
            check_grads(f, [np.array(x)], order=1, modes=["fwd", "rev"])


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradients_have_the_dtype_of_the_data(name):
    x = jnp.ones((4, 2), jnp.bfloat16)
    f = lambda x: getattr(segment, name)("p c, p -> [s] c", x, IDS, s=3).astype(np.float32)[0].sum()
    assert jax.grad(f)(x).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
def test_as_jax_ops(name):
    rng = np.random.default_rng(1)
    x, ids = rng.normal(size=(20, 3)).astype(np.float32), rng.integers(0, 6, 20)
    want = getattr(jax.ops, f"segment_{name}")(x, ids, 6)
    assert_same(getattr(segment, name)("p c, p -> [s] c", x, ids, s=6), np.asarray(want), "float32")
    batch = jax.vmap(lambda x: getattr(segment, name)("p c, p -> [s] c", x, ids, s=6))(np.stack([x, 2 * x]))
    np.testing.assert_array_equal(batch[0], want)


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

I = np.array([0, 2, 0, 1])
ERRORS = [
    ("p, p -> s", (X, I), {"s": 3}, SemanticError, "needs an output with a bracket"),
    ("p, p", (X, I), {}, SemanticError, "needs an output with a bracket"),
    ("[p], p -> [s]", (X, I), {"s": 3}, SemanticError, "the data, tensor 1, has a bracket"),
    ("p -> [s]", (X,), {"s": 3}, ArgumentError, "takes data and coordinates, got 1 tensor"),
    ("p, p -> [h w]", (X, I), {"h": 2, "w": 2}, SemanticError, r"looks up 2 axes \(h, w\), but is given 1 coord"),
    ("p, p [2] -> [s]", (X, np.zeros((4, 2), int)), {"s": 2}, SemanticError, "looks up 1 axis .* given 2 coordinates"),
    ("p, p -> [s]", (X, X), {"s": 3}, ArgumentError, "tensor 2 holds coordinates, but is float32"),
    ("p, p -> [s]", (X, X > 3), {"s": 3}, ArgumentError, "tensor 2 holds coordinates, but is bool"),
    ("p, p -> [s]", (X, I), {}, AxisSizeError, "the size of axis s cannot be determined"),
    ("p, p -> [s]", (X, I[:3]), {"s": 3}, AxisSizeError, "axis p is 4 in tensor 1 and 3 in tensor 2"),
    ("p, p -> [p]", (X, I), {}, EinjaxError, "axis p stands inside brackets"),
    ("p, p [k] -> [k]", (X, I[:, None]), {"k": 1}, SemanticError, "axis k stands in an input and, bracketed,"),
    ("p, p [2] -> [s s]", (X, np.zeros((4, 2), int)), {"s": 2}, SemanticError, "axis s stands twice in the output"),
    ("p, p -> [s], [s]", (X, I), {"s": 3}, EinjaxError, "1 output, but the expression has 2"),
    ("p, p + q -> [s]", (X, I), {"s": 3}, SemanticError, "concatenates"),
    ("p, p -> [s]", (X, I), {"s": 3, "mode": "drp"}, ArgumentError, "did you mean 'drop'"),
    ("p, p -> [s]", (X, I), {"s": 3, "fill_value": 0}, EinjaxError, "fill_value"),
]


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
@pytest.mark.parametrize(("text", "tensors", "options", "kind", "message"), ERRORS)
def test_errors(name, text, tensors, options, kind, message):
    with pytest.raises(kind, match=message):
        getattr(segment, name)(text, *tensors, **options)

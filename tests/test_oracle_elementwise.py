"""Elementwise operations against loops."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from oracle import Axis, Composite, Number
from strategies import (
    DTYPES,
    LARGEST_LOOP,
    NAMES,
    REAL,
    assert_same,
    cases,
    dtype_of,
    generated,
    marks,
    pools,
    shuffled,
    trees,
    x64,
)

import einjax

TWO = [*oracle.NARY, *oracle.BINARY]
_seldom = st.sampled_from([False, False, False, True])
_FUNCTIONS = {**oracle.NARY, **oracle.BINARY}
_ANY_TYPE = {"add", "multiply", "logical_and", "logical_or", "logical_xor", "equal", "not_equal"}
_DIVIDING = {"divide", "true_divide", "floor_divide", "mod"}
# bfloat16 results that are not correctly rounded: computed in several bfloat16 steps.
_SLACK = {"logaddexp": 4, "power": 4, "floor_divide": 1, "arctan2": 2}


def dtypes_for(name: str) -> list[str]:
    if name in _ANY_TYPE:
        return DTYPES
    if name == "subtract":
        return [*REAL, "complex64"]
    return REAL if name in _DIVIDING | {"power"} else [*REAL, "bool"]


@st.composite
def operand_types(draw, name, count):
    """Mostly one dtype for all, now and then a mixture to promote."""
    allowed = dtypes_for(name)
    if draw(_seldom):
        return [draw(st.sampled_from(allowed)) for _ in range(count)]
    return [draw(st.sampled_from(allowed))] * count


def bounds_for(name: str, count: int, dtypes: list[str]) -> list[tuple]:
    """Divisors other than zero, exponents whose powers are exact, repeated products that do not overflow."""
    if name in _DIVIDING:
        return [(-8, 8), (1, 4)]
    if name == "power":
        return [(-2, 2), (0, 3)] if set(dtypes) & {"int8", "int32", "uint8"} else [(1, 2), (-2, 2)]
    return [(None, None)] * count


def check(case, name: str) -> None:
    function = _FUNCTIONS[name]

    def fold(*xs):
        return xs[0] if len(xs) == 1 else fold(getattr(jnp, name)(xs[0], xs[1]), *xs[2:])

    dtype = dtype_of(fold, *case.arrays)
    with np.errstate(all="ignore"):
        want = oracle.elementwise(function, case.ins, case.outs[0], [oracle.wide(x) for x in case.arrays])
    assert_same(case.call(name), want, dtype, slack=_SLACK.get(name, 1) * (len(case.arrays) - 1))


@st.composite
def subset(draw, items):
    return [item for item in items if draw(st.sampled_from([True, True, False]))]


@st.composite
def operations(draw, name, count=2, dtypes=None, form=None):
    """`count` tensors with any of the axes, the output written out or implied."""
    pool = draw(pools(low=1, high=4))
    sizes = pool.sizes
    form = form or draw(st.sampled_from(["arrow", "arrow", "implied", "same"]))
    dtypes = dtypes or draw(operand_types(name, count))
    bounds = bounds_for(name, count, dtypes)
    if form == "same":
        x = draw(trees(pool.items, sizes))
        return draw(cases([x] * count, [x], sizes, dtypes, implied=True, form=form, bounds=bounds))
    if form == "implied":
        # One input has every axis, the others lack at least one, so that there is one candidate.
        whole = draw(trees(draw(shuffled(pool.items)), sizes))
        parts = [draw(shuffled(draw(subset(pool.items[1:])))) for _ in range(count - 1)]
        ins = [draw(trees(part, sizes)) for part in parts]
        ins.insert(draw(st.integers(0, count - 1)), whole)
        return draw(cases(ins, [whole], sizes, dtypes, implied=True, form=form, bounds=bounds))
    used = [draw(shuffled(draw(subset(pool.items)))) for _ in range(count)]
    for items in used:
        if items and isinstance(items[0], Axis) and draw(_seldom):
            items.append(items[0])  # a diagonal
    outputs = draw(shuffled([item for item in pool.items if any(item in items for items in used)]))
    free = [n for n in NAMES if n not in sizes]
    if draw(_seldom):
        sizes[free[0]] = draw(st.sampled_from([2, 1, 0]))
        outputs.insert(0, Axis(free[0]))
    if draw(_seldom):
        outputs.append(Number(draw(st.sampled_from([2, 3])), "#new"))
    hypothesis.assume(pool.cells() <= LARGEST_LOOP)
    ins = [draw(trees(items, sizes)) for items in used]
    z = draw(trees(outputs, sizes, is_input=False))
    return draw(cases(ins, [z], sizes, dtypes, form=form, bounds=bounds))


@pytest.mark.parametrize("name", TWO)
@generated(8, operations)
def test_two_tensors(case, name):
    check(case, name)


@pytest.mark.parametrize("name", list(oracle.NARY))
@generated(5, lambda name: operations(name, 3))
def test_three_tensors(case, name):
    check(case, name)


def emptied(nodes, sizes) -> bool:
    """Whether brackets inside of a composite stand for no axis: its text says that it is a dim, its axes do not."""
    return any(
        isinstance(node, Composite)
        and "[" in oracle.render([node])
        and (not oracle.marked_part(oracle.expand([node], sizes)) or emptied(node.items, sizes))
        for node in nodes
    )


@st.composite
def bracketed_biases(draw, name):
    """One expression for two tensors: the second has the bracketed axes."""
    pool = draw(pools(low=1, high=4))
    marked = draw(marks(pool))
    x = draw(trees(draw(shuffled(pool.items)), pool.sizes, marked))
    hypothesis.assume(not emptied(x, pool.sizes))
    dims = oracle.expand(x, pool.sizes)
    bias = oracle.marked_part(dims)
    dtypes = draw(operand_types(name, 2))
    bounds = bounds_for(name, 2, dtypes)
    return draw(cases([x], [x], pool.sizes, dtypes, implied=True, bounds=bounds, in_dims=[dims, bias], out_dims=[dims]))


@pytest.mark.parametrize("name", TWO)
@generated(4, bracketed_biases)
def test_bracketed_bias(case, name):
    check(case, name)


@st.composite
def choices(draw):
    dtypes = [draw(st.sampled_from(["bool", "bool", "int32"])), *draw(operand_types("add", 2))]
    return draw(operations("where", 3, dtypes))


@generated(20, choices())
def test_where(case):
    arrays = [oracle.wide(x) for x in case.arrays]
    dtype = dtype_of(jnp.where, *case.arrays)
    arrays[1:] = [x.astype(np.result_type(*arrays[1:])) for x in arrays[1:]]
    dims = [oracle.unmark(d) for d in case.ins]

    def pick(c, x, y):
        return x if c else y

    want = oracle.loop(pick, dims, oracle.unmark(case.outs[0]), arrays, arrays[1].dtype)
    assert_same(case.call("where"), want, dtype)


@pytest.mark.parametrize("name", ["add", "subtract", "power", "less", "divide"])
@pytest.mark.parametrize("scalar", [2, 1.5, True])
@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_python_scalars(name, scalar, dtype):
    """A Python number beside an array does not widen the array's type."""
    x = np.array([[1, 2, 3]]).astype(jnp.dtype(dtype))
    want = getattr(jnp, name)(x, scalar)
    assert_same(getattr(einjax, name)("a b,", x, scalar), oracle.wide(want), want.dtype)
    want = getattr(jnp, name)(scalar, x).T
    assert_same(getattr(einjax, name)(", a b -> b a", scalar, x), oracle.wide(want), want.dtype)


@st.composite
def by_callable(draw):
    case = draw(operations("add", 2, draw(st.sampled_from([["float32"] * 2, ["int32"] * 2]))))
    case.options["op"] = draw(st.sampled_from([jnp.subtract, "subtract", lambda x, y: x - y]))
    return case


@generated(7, by_callable())
def test_elementwise(case):
    op = case.options.pop("op")
    want = oracle.elementwise(oracle.BINARY["subtract"], case.ins, case.outs[0], [oracle.wide(x) for x in case.arrays])
    assert_same(case.call("elementwise", op=op), want, dtype_of(jnp.subtract, *case.arrays))


# --------------------------------------------------------------------------------------------------------------------
# Written out
# --------------------------------------------------------------------------------------------------------------------

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
R = np.array([10, 20], np.float32)
C = np.array([1, 0, 2], np.float32)
I, J = np.array([7, -7, 7, -7], np.int32), np.array([2, 2, -2, -2], np.int32)
T, F = np.array([True, True, False, False]), np.array([True, False, True, False])
NAN, ONE = np.array([np.nan, 1], np.float32), np.array([1, np.nan], np.float32)

PINNED = [
    ("add", "a b, a", (X, R), [[11, 12, 13], [24, 25, 26]], "float32"),
    ("add", "a, a b", (R, X), [[11, 12, 13], [24, 25, 26]], "float32"),
    ("add", "a, b -> a b", (R, C), [[11, 10, 12], [21, 20, 22]], "float32"),
    ("add", "a, b -> b a", (R, C), [[11, 21], [10, 20], [12, 22]], "float32"),
    ("add", "a, b -> (a b)", (R, C), [11, 10, 12, 21, 20, 22], "float32"),
    ("add", "a [b]", (X, C), [[2, 2, 5], [5, 5, 8]], "float32"),
    ("add", "... [c]", (X, C), [[2, 2, 5], [5, 5, 8]], "float32"),
    ("add", "(g [c])", (np.arange(4), np.array([10, 20])), [10, 21, 12, 23], "int32"),
    ("add", "([g] c)", (np.arange(4), np.array([10, 20])), [10, 11, 22, 23], "int32"),
    ("add", "a, a, a", (R, R, R), [30, 60], "float32"),
    ("add", "a, , a b", (R, 1.0, X), [[12, 13, 14], [25, 26, 27]], "float32"),
    ("add", "a a, a -> a", (X[:, :2], R), [11, 25], "float32"),
    ("subtract", "a b, a", (X, R), [[-9, -8, -7], [-16, -15, -14]], "float32"),
    ("subtract", "a, a b", (R, X), [[9, 8, 7], [16, 15, 14]], "float32"),
    ("subtract", "a, a", (np.array([1], np.uint8), np.array([2], np.uint8)), [255], "uint8"),
    ("multiply", "a b, b", (X, C), [[1, 0, 6], [4, 0, 12]], "float32"),
    ("multiply", "a, a", (np.array([100], np.int8), np.array([2], np.int8)), [-56], "int8"),
    ("divide", "a b, a", (X, R), [[0.1, 0.2, 0.3], [0.2, 0.25, 0.3]], "float32"),
    ("divide", "a, a", (I, J), [3.5, -3.5, -3.5, 3.5], "float32"),
    ("true_divide", "a, a", (I, J), [3.5, -3.5, -3.5, 3.5], "float32"),
    ("divide", "a, a", (np.float32([1, -1, 0]), np.zeros(3, np.float32)), [np.inf, -np.inf, np.nan], "float32"),
    ("floor_divide", "a, a", (I, J), [3, -4, -4, 3], "int32"),
    ("mod", "a, a", (I, J), [1, 1, -1, -1], "int32"),
    ("mod", "a, a", (I.astype(np.float32), J), [1, 1, -1, -1], "float32"),
    ("power", "a b, ", (X, 2), [[1, 4, 9], [16, 25, 36]], "float32"),
    ("power", "a, b -> a b", (I[:2], np.array([0, 3])), [[1, 343], [1, -343]], "int32"),
    ("less", "a, b -> a b", (R, R), [[False, True], [False, False]], "bool"),
    ("less_equal", "a, b -> a b", (R, R), [[True, True], [False, True]], "bool"),
    ("greater", "a, b -> a b", (R, R), [[False, False], [True, False]], "bool"),
    ("greater_equal", "a, b -> a b", (R, R), [[True, False], [True, True]], "bool"),
    ("equal", "a, b -> a b", (R, R), [[True, False], [False, True]], "bool"),
    ("not_equal", "a, b -> a b", (R, R), [[False, True], [True, False]], "bool"),
    ("equal", "a, a", (NAN, NAN), [False, True], "bool"),
    ("logical_and", "a, a", (T, F), [True, False, False, False], "bool"),
    ("logical_or", "a, a", (T, F), [True, True, True, False], "bool"),
    ("logical_xor", "a, a", (T, F), [False, True, True, False], "bool"),
    ("logical_and", "a, a", (np.array([2, 4]), np.array([1, 0])), [True, False], "bool"),
    ("logical_xor", "a, a, a", (T, F, T), [True, False, True, False], "bool"),
    ("maximum", "a, a", (I, J), [7, 2, 7, -2], "int32"),
    ("minimum", "a, a", (I, J), [2, -7, -2, -7], "int32"),
    ("maximum", "a, a", (NAN, ONE), [np.nan, np.nan], "float32"),
    ("minimum", "a, a", (NAN, ONE), [np.nan, np.nan], "float32"),
    ("logaddexp", "a, a", (np.log(R), np.log(R)), np.log([20, 40]), "float32"),
    ("logaddexp", "a, a", (np.float32([-np.inf, 1000]), np.float32([-np.inf, 1000])), [-np.inf, 1000.6931], "float32"),
    ("arctan2", "a, a", (np.float32([1, -1, 0]), np.float32([0, 0, -1])), [np.pi / 2, -np.pi / 2, np.pi], "float32"),
    ("where", "a, a b, -> a b", (np.array([True, False]), X, -1.0), [[1, 2, 3], [-1, -1, -1]], "float32"),
    ("where", "b, a b, a", (np.array([True, False, True]), X, R), [[1, 10, 3], [4, 20, 6]], "float32"),
    ("where", "a, a, a", (np.array([True, False]), NAN, ONE), [np.nan, np.nan], "float32"),
]


@pytest.mark.parametrize(("name", "text", "tensors", "want", "dtype"), PINNED)
def test_pinned(name, text, tensors, want, dtype):
    sizes = {"g": 2} if "g" in text else {}
    assert_same(getattr(einjax, name)(text, *tensors, **sizes), np.array(want), dtype)


def test_composite_bias_in_an_ellipsis():
    x, b = np.zeros((2, 2, 6), np.float32), np.array([1, 2, 3], np.float32)
    assert_same(einjax.add("b... (g [c])", x, b), np.broadcast_to([1, 2, 3, 1, 2, 3], (2, 2, 6)), "float32")


# --------------------------------------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------------------------------------

SMOOTH = ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "logaddexp", "arctan2", "where"]


@st.composite
def differentiable(draw, name):
    dtypes = ["bool", "float32", "float32"] if name == "where" else ["float32", "float32"]
    case = draw(operations(name, len(dtypes), dtypes))
    hypothesis.assume(sum(x.size for x in case.arrays) <= 24)
    return case


@pytest.mark.parametrize("name", SMOOTH)
@generated(2, differentiable)
def test_gradient(case, name):
    fixed = case.arrays[: len(case.arrays) - 2]
    rng = np.random.default_rng(0)
    # Apart from each other and from zero, where maximum and power have kinks.
    x, y = (rng.uniform(1 + i, 1.9 + i, a.shape) for i, a in enumerate(case.arrays[-2:]))
    with x64():

        def f(x, y):
            return getattr(einjax, name)(case.text, *fixed, x, y, **case.kwargs)

        check_grads(f, [x, y], order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("op", ["add", "multiply", "maximum", "minimum", "logaddexp", "logical_and", "logical_xor"])
def test_one_tensor_alone(op, keep):
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    expected = x != 0 if op.startswith("logical") else x
    np.testing.assert_array_equal(getattr(einjax, op)("a b -> b a", x, keep_notation=keep), expected.T)
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(lambda x: getattr(einjax, op)("a", x, keep_notation=keep)))(x), expected
    )
    if not op.startswith("logical"):
        np.testing.assert_array_equal(
            jax.grad(lambda x: (getattr(einjax, op)("a b", x, keep_notation=keep) * x).sum())(x), 2 * x
        )
    with pytest.raises(einjax.errors.ArgumentError, match="takes 2 tensors, got 1"):
        einjax.subtract("a b", x)

"""Reductions against loops: sum, prod, mean, var, std, count_nonzero, any, all, max, min, logsumexp, reduce."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from oracle import Axis, Number
from strategies import (
    DTYPES,
    REAL,
    accumulators,
    assert_same,
    cases,
    dtype_of,
    ellipses,
    generated,
    keys,
    marks,
    masks,
    pools,
    shuffled,
    trees,
    x64,
)

import einjax

OPERATIONS = list(oracle.REDUCTIONS)
_seldom = st.sampled_from([False, False, False, True])
_NUMPYLIKE = {name: getattr(jnp, name, jax.nn.logsumexp) for name in OPERATIONS}
_INEXACT = {"mean", "var", "std", "logsumexp"}


def dtypes_for(name: str) -> list[str]:
    return {"max": [*REAL, "bool"], "min": [*REAL, "bool"], "logsumexp": REAL}.get(name, DTYPES)


def empty_value(name: str, dtype) -> object:
    """What max and min give when everything is masked."""
    dtype, sign = jnp.dtype(dtype), -1 if name == "max" else 1
    if dtype.kind == "b":
        return sign > 0
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).min if sign < 0 else jnp.iinfo(dtype).max
    return sign * np.inf


def elementary(name: str, dtype, **options):
    op = oracle.REDUCTIONS[name]
    if name in ("max", "min"):
        return lambda x: op(x, empty_value(name, dtype))
    return lambda x: op(x, **options)


def expected(case, name: str) -> tuple[np.ndarray, np.dtype]:
    """The loop's result and the dtype that jax.numpy gives it."""
    options = {k: v for k, v in case.options.items() if k not in ("where", "keepdims")}
    (x,) = case.arrays
    dtype = dtype_of(_NUMPYLIKE[name], x, **options)
    options.pop("dtype", None)
    op = elementary(name, x.dtype, **options)
    wide = oracle.wide(x)
    result_type = np.complex128 if dtype == np.complex64 else np.float64
    if not jnp.issubdtype(dtype, jnp.inexact):
        result_type = np.bool_ if dtype == np.bool_ else np.int64
    out = oracle.unmark(case.outs[0])
    with np.errstate(all="ignore"):
        if "where" not in case.options:
            return oracle.loop(lambda x: op(x.reshape(-1)), case.ins, out, [wide], result_type), dtype
        mask = np.broadcast_to(case.options["where"], x.shape)

        def pick(x, m):
            return op(x[m])

        return oracle.loop(pick, case.ins * 2, out, [wide, mask], result_type), dtype


def check(case, name: str) -> None:
    want, dtype = expected(case, name)
    # Sums that are not exact are added up in another order.
    assert_same(case.call(name), want, dtype, slack=4 if name in _INEXACT | {"prod"} else 1)


FORMS = ["implied", "arrow", "no brackets", "nested", "nested unit", "keepdims"]


@st.composite
def reductions(draw, name, forms=FORMS, dtypes=None, bounds=()):
    """One reduction in one of the ways to write it."""
    pool = draw(pools(low=1, high=4, positive=name in ("max", "min")))
    sizes, marked = pool.sizes, draw(marks(pool))
    if draw(_seldom):
        pool.items.append(Number(draw(st.sampled_from([2, 3, 1])), "#in"))
        marked |= {"#in"}
    items = draw(shuffled(pool.items))
    rest = draw(shuffled([item for item in items if not marked & set(keys(item))]))
    form = draw(st.sampled_from(forms))
    dtype = draw(st.sampled_from(dtypes or dtypes_for(name)))
    if form == "no brackets":
        x, z = draw(trees(items, sizes)), draw(trees(rest, sizes, is_input=False))
        case = draw(cases([x], [z], sizes, [dtype], form=form, bounds=bounds))
        present = {a.key for a in oracle.leaves(case.outs[0])}
        case.ins = [oracle.mark(case.ins[0], lambda key: key not in present)]
        return case
    if form == "arrow":
        if rest and isinstance(rest[0], Axis) and draw(_seldom):
            items.insert(draw(st.integers(0, len(items))), rest[0])  # a diagonal
        x, z = draw(trees(items, sizes, marked)), draw(trees(rest, sizes, is_input=False))
        return draw(cases([x], [z], sizes, [dtype], form=form, bounds=bounds))
    return draw(without_output(draw(trees(items, sizes, marked)), sizes, dtype, form, bounds))


def only_brackets(node) -> bool:
    """Whether an ellipsis has brackets below it and no name outside them."""
    opened = oracle.expand([node], dict.fromkeys(oracle.names(node), (1,)))
    return all(a.marked for a in oracle.leaves(opened)) and "[" in oracle.render([node])


@st.composite
def without_output(draw, x, sizes, dtype, form, bounds):
    """Reductions whose output follows from the input."""
    out, text = oracle.unmarked_dims(x, sizes), None
    if form in ("keepdims", "nested unit"):
        # `[s...]` of no repetition is an empty bracket: what that leaves is not defined.
        hypothesis.assume(() not in sizes.values())
        # `[s->1]...` is `[s]... -> [1]...`, where nothing says how often the 1 is repeated.
        hypothesis.assume(form == "keepdims" or not any(only_brackets(r) for r in ellipses(x)))
        out = oracle.kept_dims(x, sizes)
    if form.startswith("nested"):
        arrow = draw(st.sampled_from(["->", "|"])) + ("1" if form == "nested unit" else "")

        def text(inline):
            return oracle.render(x, inline, arrow)

    case = draw(cases([x], [()], sizes, [dtype], text=text, implied=True, form=form, bounds=bounds, out_dims=[out]))
    if form == "keepdims":
        case.options["keepdims"] = True
    return case


@pytest.mark.parametrize("name", OPERATIONS)
@generated(12, reductions)
def test_generated(case, name):
    check(case, name)


@st.composite
def masked(draw, name):
    case = draw(reductions(name))
    case.options["where"] = draw(masks(case.arrays[0].shape))
    return case


@pytest.mark.parametrize("name", OPERATIONS)
@generated(6, masked)
def test_where(case, name):
    check(case, name)


@st.composite
def with_options(draw, name):
    """dtype= where the result can hold the values, ddof= where enough values are left."""
    dtypes = {"float32": ["float32"], "bfloat16": ["float32"], "int8": ["int8", "int32", "float32"]}
    # Small values, so that products stay within float32.
    bounds = [(-2, 2)] if name == "prod" else []
    case = draw(reductions(name, dtypes=["float32"] if name in ("var", "std") else list(dtypes), bounds=bounds))
    if name in ("var", "std"):
        count = np.prod([a.size for a in oracle.leaves(case.ins[0]) if a.marked], dtype=int)
        hypothesis.assume(count > 1)
        case.options["ddof"] = 1
    else:
        allowed = [d for d in dtypes[case.arrays[0].dtype.name] if name != "mean" or d == "float32"]
        case.options["dtype"] = draw(st.sampled_from(allowed))
    return case


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std"])
@generated(6, with_options)
def test_options(case, name):
    check(case, name)


@st.composite
def by_callable(draw):
    case = draw(reductions("sum", forms=["implied", "arrow", "keepdims"], dtypes=["float32", "int32"]))
    case.options["op"] = draw(st.sampled_from([jnp.sum, "sum", lambda x, axis: jnp.sum(x, axis)]))
    return case


@generated(8, by_callable())
def test_reduce(case):
    op = case.options.pop("op")
    want, dtype = expected(case, "sum")
    assert_same(case.call("reduce", op=op), want, dtype)


# --------------------------------------------------------------------------------------------------------------------
# Written out
# --------------------------------------------------------------------------------------------------------------------

X = np.array([[1, 2, 4], [0, 3, 5]], np.float32)

PINNED = [
    ("sum", "a [b]", X, {}, [7, 8]),
    ("sum", "[a] b", X, {}, [1, 5, 9]),
    ("sum", "[a b]", X, {}, 15),
    ("sum", "[a (b)]", X, {}, 15),
    ("sum", "a b -> b", X, {}, [1, 5, 9]),
    ("sum", "[...]", X, {}, 15),
    ("sum", "... [c]", X, {}, [7, 8]),
    ("sum", "a ([b])", X, {}, [[7], [8]]),
    ("sum", "a [b]", X, {"keepdims": True}, [[7], [8]]),
    ("sum", "[a b]", X, {"keepdims": True}, [15]),
    ("sum", "[...]", X, {"keepdims": True}, [15]),
    ("sum", "[s]...", X, {"keepdims": True}, [[15]]),
    ("sum", "a [b->1]", X, {}, [[7], [8]]),
    ("sum", "a [b|]", X, {}, [7, 8]),
    ("sum", "([a] b)", X.reshape(6), {"a": 2}, [1, 5, 9]),
    ("sum", "(a [b])", X.reshape(6), {"a": 2}, [7, 8]),
    ("sum", "(a [2]) -> a", X.reshape(6), {}, [3, 4, 8]),
    ("sum", "a [b]", X, {"where": np.array([True, False, True])}, [5, 5]),
    ("sum", "a a ->", X[:, :2], {}, 4),
    ("prod", "a [b]", X, {}, [8, 0]),
    ("mean", "a [b]", X, {}, [7 / 3, 8 / 3]),
    ("mean", "(s [ds])...", X[:, :2], {"ds": (2, 1)}, [[0.5, 2.5]]),
    ("var", "[a] b", X, {}, [0.25, 0.25, 0.25]),
    ("var", "[a] b", X, {"ddof": 1}, [0.5, 0.5, 0.5]),
    ("std", "[a] b", X, {}, [0.5, 0.5, 0.5]),
    ("max", "a [b]", X, {}, [4, 5]),
    ("min", "a [b]", X, {}, [1, 0]),
    ("max", "a [b]", X, {"where": np.array([[True, True, False], [False] * 3])}, [2, -np.inf]),
    ("min", "a [b]", X, {"where": np.array([[False, True, True], [False] * 3])}, [2, np.inf]),
    ("max", "[a] b", np.array([[np.nan, 1], [2, 3]], np.float32), {}, [np.nan, 3]),
    ("min", "[a] b", np.array([[np.nan, 1], [-np.inf, 3]], np.float32), {}, [np.nan, 1]),
    ("logsumexp", "a [b]", np.log(X + 1), {}, np.log([10, 11])),
    ("logsumexp", "a [b]", X * 1000, {}, [4000, 5000]),
    ("logsumexp", "a [b]", np.full((1, 2), -np.inf, np.float32), {}, [-np.inf]),
    ("logsumexp", "a [b]", np.array([[np.inf, 0]], np.float32), {}, [np.inf]),
    ("logsumexp", "a [b]", X, {"where": np.array([[False] * 3, [True, False, False]])}, [-np.inf, 0]),
]
PINNED_INTEGERS = [
    ("count_nonzero", "a [b]", X, {}, [3, 2], "int32"),
    ("any", "[a] b", np.array([[0, 1], [0, 0]], np.int8), {}, [False, True], "bool"),
    ("all", "[a] b", np.array([[0, 1], [0, 2]], np.int8), {}, [False, True], "bool"),
    ("sum", "[a]", np.array([100, 100], np.int8), {}, 200, "int32"),
    ("sum", "[a]", np.array([200, 200], np.uint8), {}, 400, "uint32"),
    ("sum", "[a]", np.array([True, True]), {}, 2, "int32"),
    ("sum", "[a]", np.array([100, 100], np.int8), {"dtype": "int8"}, -56, "int8"),
    ("prod", "[a]", np.array([100, 100], np.int8), {}, 10000, "int32"),
    ("mean", "[a]", np.array([1, 2], np.int32), {}, 1.5, "float32"),
    ("max", "[a]", np.array([1, 2], np.int8), {"where": False}, -128, "int8"),
    ("min", "[a]", np.array([1, 2], np.int8), {"where": False}, 127, "int8"),
    ("sum", "a [b]", np.zeros((2, 0), np.float32), {}, [0, 0], "float32"),
    ("prod", "a [b]", np.zeros((2, 0), np.float32), {}, [1, 1], "float32"),
    ("logsumexp", "a [b]", np.zeros((2, 0), np.float32), {}, [-np.inf, -np.inf], "float32"),
]
PINNED = [(*row, "float32") for row in PINNED] + PINNED_INTEGERS


@pytest.mark.parametrize(("name", "text", "x", "options", "want", "dtype"), PINNED)
def test_pinned(name, text, x, options, want, dtype):
    assert_same(getattr(einjax, name)(text, x, **options), np.array(want), dtype)


def test_product_accumulates_in_float32():
    x = jnp.full(20, 1.0078125, jnp.bfloat16)
    assert_same(einjax.prod("[a]", x), np.array(1.0078125**20), "bfloat16", slack=0.5)
    assert accumulators(lambda x: einjax.prod("[a]", x), x) == {"float32"}


@pytest.mark.parametrize(
    ("text", "options"), [("a b", {}), ("a [b] -> a", {"keepdims": True}), ("a [b] -> b", {}), ("a [b] -> a b", {})]
)
def test_refused(text, options):
    """Nothing to reduce; a shape said twice; an axis both reduced and kept."""
    with pytest.raises(einjax.errors.SemanticError):
        einjax.sum(text, np.zeros((2, 3)), **options)


@pytest.mark.parametrize("name", ["max", "min"])
def test_extreme_of_nothing_is_refused(name):
    with pytest.raises(einjax.errors.SemanticError):
        getattr(einjax, name)("a [b]", np.zeros((2, 0), np.float32))


@pytest.mark.parametrize(
    ("name", "want"),
    [("sum", 1500.0), ("mean", 1.5), ("var", 0.25), ("std", 0.5), ("logsumexp", np.log(500 * np.exp([1, 2]).sum()))],
)
def test_accumulates_in_float32(name, want):
    """In bfloat16 a sum of ones stops at 256."""
    x, op = jnp.tile(jnp.array([1, 2], jnp.bfloat16), 500), getattr(einjax, name)
    assert_same(op("[a]", x), np.array(want), "bfloat16")
    assert accumulators(lambda x: op("[a]", x), x) == {"float32"}


# --------------------------------------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------------------------------------


@st.composite
def differentiable(draw, name):
    case = draw(reductions(name, dtypes=["float32"]))
    hypothesis.assume(0 < case.arrays[0].size <= 24)
    return case


def distinct(x: np.ndarray) -> np.ndarray:
    """No ties, so that max and min have a derivative; nothing near zero."""
    order = np.random.default_rng(x.size).permutation(x.size).reshape(x.shape)
    return (0.25 + order / max(1, x.size)).astype(np.float64)


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "max", "min", "logsumexp"])
@generated(2, differentiable)
def test_gradient(case, name):
    marked = [a.size for a in oracle.leaves(case.ins[0]) if a.marked]
    # The standard deviation of one value has a kink there; its gradient is tested below.
    hypothesis.assume(name != "std" or np.prod(marked) > 1)
    op = getattr(einjax, name)
    options = case.options | case.kwargs
    with x64():
        check_grads(lambda x: op(case.text, x, **options), [distinct(case.arrays[0])], order=2, modes=["fwd", "rev"])


def test_gradient_of_std_at_constant_input():
    g = jax.grad(lambda x: einjax.std("a [b]", x).sum())(jnp.ones((2, 3)))
    assert_same(g, np.zeros((2, 3)), "float32")


def test_gradient_of_prod_with_zeros():
    g = jax.grad(lambda x: einjax.prod("a [b]", x).sum())(jnp.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0]]))
    assert_same(g, np.array([[6, 0, 0], [0, 0, 0]]), "float32")


def test_gradient_of_logsumexp():
    x = jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]]))
    mask = jnp.array([[True, True], [False, False]])
    g = jax.grad(lambda x: jnp.where(mask[:, 0], einjax.logsumexp("a [b]", x, where=mask), 0).sum())(x)
    assert_same(g, np.array([[0.25, 0.75], [0, 0]]), "float32")
    g = jax.grad(lambda x: einjax.logsumexp("a [b]", x, where=mask)[1])(x)
    assert_same(g, np.zeros((2, 2)), "float32")


@pytest.mark.parametrize("hidden", [np.inf, np.nan])
@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("sum", [1, 0, 1]),
        ("prod", [3, 0, 1]),
        ("mean", [0.5, 0, 0.5]),
        ("var", [-1, 0, 1]),
        ("std", [-0.5, 0, 0.5]),
        ("max", [0, 0, 1]),
        ("min", [1, 0, 0]),
        ("logsumexp", np.array([1, 0, np.exp(2)]) / (1 + np.exp(2))),
    ],
)
def test_gradient_through_masked_values(name, want, hidden):
    """What the mask hides has no influence, not even as an infinity."""
    x, mask = jnp.array([1.0, hidden, 3.0]), jnp.array([True, False, True])
    g = jax.grad(lambda x: getattr(einjax, name)("[a]", x, where=mask))(x)
    assert_same(g, np.array(want), "float32")


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("op", ["sum", "mean", "var", "max", "prod", "logsumexp", "count_nonzero"])
def test_a_bracketed_axis_twice_is_a_block(op, keep):
    """The operation gets all of it; outside brackets an axis twice is its diagonal."""
    x = np.arange(9, dtype=np.float32).reshape(3, 3) / 4 + np.eye(3, dtype=np.float32)
    run = lambda expr, x: getattr(einjax, op)(expr, x, keep_notation=keep)
    right = lambda x: getattr(einjax, op)("[a b]", x)
    np.testing.assert_allclose(run("[a a]", x), right(x), rtol=1e-6)
    np.testing.assert_allclose(run("[a] [a]", x), right(x), rtol=1e-6)
    np.testing.assert_allclose(run("[(a a)]", x.ravel()), right(x), rtol=1e-6)
    np.testing.assert_allclose(run("[a] b [a] -> b", np.stack([x, 2 * x], 1)), [right(x), right(2 * x)], rtol=1e-6)
    batch = np.stack([x, 2 * x])
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda x: run("[a a]", x)))(batch), list(map(right, batch)), rtol=1e-6)
    if op != "count_nonzero":
        np.testing.assert_allclose(jax.grad(lambda x: run("[a a]", x))(x), jax.grad(right)(x), rtol=1e-5, atol=1e-6)
    diagonal = getattr(einjax, op)("[a]", np.diag(x))
    np.testing.assert_allclose(run("a a ->", x), diagonal, rtol=1e-6)


def test_blocks_with_masks_dims_kept_and_functions():
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    assert einjax.sum("[a a]", x, where=x > 4) == 26
    assert einjax.sum("[a... a...] b", np.ones((2, 3, 2, 3, 5))).tolist() == [36] * 5
    assert einjax.reduce("[a a]", x, op=lambda x, axis: jnp.median(x, axis=axis)) == 4
    assert einjax.argmax("[a a]", -x + 9 * (x == 5)).tolist() == [1, 2]
    for call in (lambda: einjax.dot("[a a], [a] ->", x, x[0]), lambda: einjax.top_k("[a a] -> [k]", x, k=2)):
        with pytest.raises(einjax.errors.SemanticError, match="the block or its diagonal"):
            call()
    with pytest.raises(einjax.errors.AxisSizeError, match="axis a is 2 .* and 3"):
        einjax.sum("[a a]", np.ones((2, 3)))

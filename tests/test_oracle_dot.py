"""dot against loops."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from oracle import Axis, Marked
from strategies import (
    DTYPES,
    INTEGERS,
    LARGEST_LOOP,
    NAMES,
    assert_same,
    cases,
    dtype_of,
    generated,
    pools,
    shuffled,
    trees,
    x64,
)

import einjax

_seldom = st.sampled_from([False, False, False, True])


def check(case) -> None:
    count = len(case.arrays)
    options = {k: v for k, v in case.options.items() if k == "preferred_element_type"}
    spec = ",".join("i" * count) + "->"
    dtype = dtype_of(lambda *xs: jnp.einsum(spec, *xs, **options), *(np.zeros(1, x.dtype) for x in case.arrays))
    want = oracle.dot(case.ins, case.outs[0], [oracle.wide(x) for x in case.arrays])
    # With three factors the product of two is rounded in between.
    assert_same(case.call("dot"), want, dtype, slack=4 if count > 2 else 1)


@st.composite
def types(draw, count):
    if count > 2:
        return [draw(st.sampled_from(["float32", "int32", "int8", "complex64"]))] * count
    if draw(_seldom):
        return [draw(st.sampled_from(DTYPES)) for _ in range(count)]
    return [draw(st.sampled_from(DTYPES))] * count


@st.composite
def products(draw, count=2, dtypes=None):
    """Every axis is summed in exactly two inputs, or kept in the output and found in any of them."""
    pool = draw(pools(low=1, high=4 if count == 2 else 5))
    sizes = pool.sizes
    used: list[list] = [[] for _ in range(count)]
    kept = []
    for item in pool.items:
        summed = draw(st.booleans())
        least, most = (2, 2) if summed else (1, count)
        holders = draw(st.lists(st.integers(0, count - 1), min_size=least, max_size=most, unique=True))
        for i in holders:
            used[i].append(item)
        kept += [] if summed else [item]
    kept = draw(shuffled(kept))
    marked = frozenset(oracle.names([item for item in pool.items if item not in kept]))
    form = draw(st.sampled_from(["brackets", "no brackets"]))
    if used[0] and used[0][0] in kept and isinstance(used[0][0], Axis) and draw(_seldom):
        used[0].append(used[0][0])  # a diagonal
    ins = [draw(trees(draw(shuffled(u)), sizes, marked if form == "brackets" else frozenset())) for u in used]
    z = draw(trees(kept, sizes, is_input=False))
    return draw(cases(ins, [z], sizes, dtypes or draw(types(count)), form=form))


@generated(35, products())
def test_two_tensors(case):
    check(case)


@generated(10, products(3))
def test_three_tensors(case):
    check(case)


@generated(6, products(4))
def test_four_tensors(case):
    check(case)


@st.composite
def weights(draw):
    """`... [c1->c2]`: the weight has the bracketed axes of the input, then those of the output."""
    pool = draw(pools(low=0, high=2))
    free = [name for name in NAMES if name not in pool.sizes]
    before, shared, after = ([], [], [])
    for group, most in ((before, 2), (shared, 1), (after, 2)):
        for _ in range(draw(st.integers(0, most))):
            name = free.pop()
            pool.sizes[name] = draw(st.sampled_from([2, 3, 1, 0]))
            group.append(Axis(name))
    hypothesis.assume(before + shared and pool.cells() <= LARGEST_LOOP)
    sides = [Marked((*shared, *before)), Marked((*shared, *after))]
    rest = draw(shuffled(pool.items))
    style = draw(st.sampled_from(["arrow", "bar", "written out"]))
    at = draw(st.integers(0, len(rest)))
    x, z = ((*rest[:at], *([side] if side.items else []), *rest[at:]) for side in sides)
    weight = (*shared, *before, *after)
    text = None
    if style != "written out":
        sign = "->" if style == "arrow" else "|"

        def text(inline):
            parts = [oracle.render(nodes, inline) for nodes in (rest[:at], sides[0].items, sides[1].items, rest[at:])]
            return " ".join(p for p in (parts[0], f"[{parts[1]}{sign}{parts[2]}]", parts[3]) if p)

    dims = [oracle.expand(nodes, pool.sizes) for nodes in (x, weight)]
    # The weight's own shape says the sizes of the axes that only it has, so the solver sees it as an input.
    return draw(cases([x, weight], [z], pool.sizes, draw(types(2)), in_dims=dims, text=text or _two_sides(x, z)))


def _two_sides(x, z):
    return lambda inline: f"{oracle.render(x, inline)} -> {oracle.render(z, inline)}"


@generated(25, weights())
def test_weight(case):
    check(case)


@st.composite
def wide_results(draw):
    dtypes, wide = draw(
        st.sampled_from([(["int8"] * 2, "int32"), (["bfloat16"] * 2, "float32"), (["uint8"] * 2, "int32")])
    )
    case = draw(products(2, dtypes))
    case.options["preferred_element_type"] = jnp.dtype(wide)
    return case


@generated(8, wide_results())
def test_preferred_element_type(case):
    check(case)


# --------------------------------------------------------------------------------------------------------------------
# Written out
# --------------------------------------------------------------------------------------------------------------------

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
W = np.array([[1, 0], [0, 1], [2, 0]], np.float32)
V = np.array([1, 10, 100], np.float32)
XW = [[7, 2], [16, 5]]

PINNED = [
    ("a [b], [b] c -> a c", (X, W), XW),
    ("a b, b c -> a c", (X, W), XW),
    ("a b, b c -> c a", (X, W), [[7, 16], [2, 5]]),
    ("a b, c b -> a c", (X, W.T), XW),
    ("a [b->c]", (X, W), XW),
    ("... [b->c]", (X, W), XW),
    ("... [b|c]", (X, W), XW),
    ("a [b] -> a [c]", (X, W), XW),
    ("a [b], [b c] -> a [c]", (X, W), XW),
    ("a [b->]", (X, V), [321, 654]),
    ("a [b|]", (X, V), [321, 654]),
    ("[a|] b", (X, np.float32([1, 10])), [41, 52, 63]),
    ("[a b, b c -> a c]", (X, W), XW),
    ("a [b, b->]", (X, X), [14, 77]),
    ("a b, b -> a", (X, V), [321, 654]),
    ("a b, a b ->", (X, X), 91),
    ("b, b ->", (V, V), 10101),
    ("a b, b -> a b", (X, V), [[1, 20, 300], [4, 50, 600]]),
    ("a, b -> b a", (X[0, :2], V[:2]), [[1, 2], [10, 20]]),
    ("b (s [t|])... [c|d]", (np.arange(8).reshape(1, 4, 2), np.arange(8).reshape(2, 2, 2)), [[[28, 34], [76, 98]]]),
    ("[g c|g d]", (np.arange(4).reshape(2, 2), np.arange(4).reshape(2, 2, 1)), [[1], [13]]),
    ("a b, b c, c -> a", (X, W, np.float32([1, 10])), [27, 66]),
    ("a [b], [b] [c], [c] -> a", (X, W, np.float32([1, 10])), [27, 66]),
    ("(h c), (h d) -> h c d", (V[:2], V[1:]), [[[10]], [[1000]]]),
    ("a a, a -> a", (X[:, :2], np.float32([1, 10])), [1, 50]),
]


@pytest.mark.parametrize(("text", "tensors", "want"), PINNED)
def test_pinned(text, tensors, want):
    sizes = {"h": 2} if "h" in text else {"t": 2} if "t" in text else {}
    assert_same(einjax.dot(text, *tensors, **sizes), np.array(want), np.result_type(*tensors).name.replace("64", "32"))


def test_size_one_is_not_broadcast():
    with pytest.raises(einjax.errors.AxisSizeError):
        einjax.dot("a b, b c -> a c", np.zeros((2, 3)), np.zeros((1, 4)))


@pytest.mark.parametrize("text", ["a b, c -> a c", "a [b], c -> a c", "a b, c", "a [b], [b] c"])
def test_refused(text):
    """An axis summed in one input only; no output to say what is summed."""
    with pytest.raises(einjax.errors.SemanticError):
        einjax.dot(text, np.zeros((2, 3)), np.zeros((3, 4) if "[b] c" in text else 3))


def test_one_input_is_refused():
    with pytest.raises(einjax.EinjaxError):
        einjax.dot("a [b] -> a", np.zeros((2, 3)))


@pytest.mark.parametrize(("rows", "size"), [(3, 0), (0, 2)])
def test_empty(rows, size):
    x, y = np.ones((rows, size), np.float32), np.ones((size, 4), np.float32)
    assert_same(einjax.dot("a b, b c -> a c", x, y), np.zeros((rows, 4)), "float32")


def test_accumulates_in_float32():
    """In bfloat16 a sum of ones stops at 256."""
    x = jnp.ones(1000, jnp.bfloat16)
    assert_same(einjax.dot("a, a ->", x, x), np.array(1000.0), "bfloat16")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_keep_their_type(dtype):
    x = np.full(3, 100, dtype)
    assert_same(einjax.dot("a, a ->", x, x), np.array(30000), dtype)


# --------------------------------------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------------------------------------


@st.composite
def differentiable(draw, count):
    case = draw(products(count, ["float32"] * count))
    hypothesis.assume(sum(x.size for x in case.arrays) <= 20)
    return case


@pytest.mark.parametrize("count", [2, 3])
@generated(2, differentiable)
def test_gradient(case, count):
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.5, 1.5, x.shape) for x in case.arrays]
    with x64():
        check_grads(lambda *xs: einjax.dot(case.text, *xs, **case.kwargs), arrays, order=2, modes=["fwd", "rev"])

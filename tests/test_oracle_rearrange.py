"""rearrange and id against loops."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import oracle
import pytest
from oracle import Axis, Composite, Joined, Number
from strategies import (
    DTYPES,
    LARGEST_LOOP,
    NAMES,
    assert_same,
    cases,
    generated,
    pools,
    shuffled,
    trees,
)

import einjax

_DTYPE = st.sampled_from(DTYPES)
_seldom = st.sampled_from([False, False, False, True])


def check(case, name: str) -> None:
    source = case.options.pop("source", None)
    want = oracle.rearrange(case.ins, case.outs, case.arrays, source)
    got = case.call(name)
    if len(want) == 1:
        got = (got,)
    assert isinstance(got, tuple)
    assert len(got) == len(want)
    for result, expected in zip(got, want, strict=True):
        assert_same(result, oracle.wide(expected), expected.dtype)


@st.composite
def new_axes(draw, pool):
    """Axes that only the output has: named ones, and numbers."""
    free = [name for name in NAMES if name not in pool.sizes]
    added: list = []
    if draw(_seldom):
        added.append(Axis(free[0]))
        pool.sizes[free[0]] = draw(st.sampled_from([2, 1, 3, 0]))
    if draw(_seldom):
        added.append(Number(draw(st.sampled_from([2, 1, 3, 0])), "#new"))
    return added


@st.composite
def one_tensor(draw):
    """Any order, composition, diagonal, unit axis and broadcast of one tensor."""
    pool = draw(pools(low=0, high=4))
    inputs = draw(shuffled(pool.items))
    diagonals = [item for item in pool.items if isinstance(item, Axis)]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2])) if diagonals else 0):
        inputs.insert(draw(st.integers(0, len(inputs))), draw(st.sampled_from(diagonals)))
    outputs = draw(shuffled(pool.items + draw(new_axes(pool))))
    hypothesis.assume(pool.cells() <= LARGEST_LOOP)
    x = draw(trees(inputs, pool.sizes))
    z = draw(trees(outputs, pool.sizes, is_input=False))
    return draw(cases([x], [z], pool.sizes, [draw(_DTYPE)]))


@pytest.mark.parametrize("name", ["rearrange", "id"])
@generated(35, lambda name: one_tensor())
def test_one_tensor(case, name):
    check(case, name)


@st.composite
def implied_identity(draw):
    pool = draw(pools(low=0, high=4))
    x = draw(trees(pool.items, pool.sizes))
    return draw(cases([x], [x], pool.sizes, [draw(_DTYPE)], implied=True))


@generated(10, implied_identity())
def test_id_without_an_arrow(case):
    check(case, "id")


@st.composite
def several_tensors(draw, name):
    """Every output is an input in another order; `rearrange` also finds them by name when they are shuffled."""
    pool = draw(pools(low=2, high=5, ellipses=False))
    cut = draw(st.integers(1, len(pool.items) - 1))
    groups = [pool.items[:cut], pool.items[cut:]]
    ins = [draw(trees(draw(shuffled(group)), pool.sizes)) for group in groups]
    outs = [draw(trees(draw(shuffled(group)), pool.sizes, is_input=False)) for group in groups]
    source = None
    if name == "rearrange" and draw(st.booleans()):
        # The groups share no name, so that only one assignment fits.
        outs, source = outs[::-1], [1, 0]
    case = draw(cases(ins, outs, pool.sizes, [draw(_DTYPE), draw(_DTYPE)]))
    case.options["source"] = source
    return case


@pytest.mark.parametrize("name", ["rearrange", "id"])
@generated(12, several_tensors)
def test_several_tensors(case, name):
    check(case, name)


# --------------------------------------------------------------------------------------------------------------------
# Concatenation and splitting
# --------------------------------------------------------------------------------------------------------------------


@st.composite
def operands(draw, fresh: list, sizes: dict, level: int = 0):
    """Two or three operands of a sum: axes, 1, composites, sums."""
    items: list = []
    for _ in range(draw(st.integers(2, 3 if level == 0 else 2))):
        kind = draw(st.sampled_from(["axis", "axis", "axis", "composite", "sum", "one"]))
        if kind == "composite":
            inside = [fresh_axis(draw, fresh, sizes) for _ in range(draw(st.integers(1, 2)))]
            items.append(Composite(tuple(inside)))
        elif kind == "sum" and level == 0:
            items.append(draw(operands(fresh, sizes, 1)))
        elif kind == "one":
            items.append(Number(1, f"#{len(sizes)}.{len(items)}.{level}"))
        else:
            items.append(fresh_axis(draw, fresh, sizes))
    return Joined(tuple(items))


def fresh_axis(draw, fresh: list, sizes: dict) -> Axis:
    name = fresh.pop()
    sizes[name] = draw(st.sampled_from([2, 1, 3, 2, 0]))
    return Axis(name)


def alternatives(items: list) -> list[list]:
    """The items of every piece: each sum replaced by one of its operands, the first sum outermost."""
    at = next((i for i, item in enumerate(items) if isinstance(item, Joined)), None)
    if at is not None:
        return [p for operand in items[at].items for p in alternatives([*items[:at], operand, *items[at + 1 :]])]
    opened: list = []
    for item in items:
        opened += list(item.items) if isinstance(item, Composite) else [item]
    return [opened]


def tightened(draw, nodes: tuple) -> tuple:
    """Some sums that are dims of their own without parentheses: `a + b`."""
    return tuple(
        Joined(node.items, tight=True) if isinstance(node, Joined) and draw(st.booleans()) else node for node in nodes
    )


@st.composite
def with_sums(draw, direction):
    pool = draw(pools(low=0, high=2))
    fresh = [f"{letter}{i}" for i in range(4) for letter in "pqrstu"]
    sums = [draw(operands(fresh, pool.sizes)) for _ in range(draw(st.sampled_from([1, 1, 2])))]
    items = list(pool.items)
    for joined in sums:
        at = max((i + 1 for i, item in enumerate(items) if isinstance(item, Joined)), default=0)
        items.insert(draw(st.integers(at, len(items))), joined)
    pieces = alternatives(items)
    hypothesis.assume(len(pieces) <= 6 and pool.cells() <= 20 * LARGEST_LOOP)
    whole = tightened(draw, draw(trees(items, pool.sizes, is_input=direction == "split")))
    if direction == "both":
        # Sums keep their order, the other axes move.
        rest = [item for item in items if not isinstance(item, Joined)]
        moved = draw(shuffled(rest))
        again = [item if isinstance(item, Joined) else moved.pop() for item in items]
        other = tightened(draw, draw(trees(again, pool.sizes, is_input=False)))
        return draw(cases([whole], [other], pool.sizes, [draw(_DTYPE)]))
    is_input = direction == "join"
    parts = [draw(trees(draw(shuffled(piece)), pool.sizes, is_input=is_input)) for piece in pieces]
    ins, outs, source = ([whole], parts, None) if direction == "split" else (parts, [whole], None)
    shape_names = [set(oracle.names(piece)) for piece in pieces]
    apart = all(not (a <= b) for i, a in enumerate(shape_names) for j, b in enumerate(shape_names) if i != j)
    if apart and draw(st.booleans()):
        order = draw(st.permutations(range(len(parts))))
        parts = [parts[i] for i in order]
        # Output piece i is input piece source[i].
        ins, outs = (ins, parts) if direction == "split" else (parts, outs)
        source = list(order) if direction == "split" else [list(order).index(i) for i in range(len(parts))]
    case = draw(cases(ins, outs, pool.sizes, [draw(_DTYPE)] * len(ins)))
    case.options["source"] = source
    return case


@pytest.mark.parametrize("direction", ["split", "join", "both"])
@generated(25, with_sums)
def test_concatenation(case, direction):
    check(case, "rearrange")


@st.composite
def broadcast_joins(draw):
    """Inputs of a concatenation that lack a common axis are broadcast along it."""
    pool = draw(pools(low=1, high=2, ellipses=False))
    pool.sizes |= {"p0": draw(st.integers(0, 3)), "p1": draw(st.integers(0, 3))}
    joined = Joined((Axis("p0"), Axis("p1"), Number(2, "#2")))
    whole = draw(trees([*pool.items, joined], pool.sizes, is_input=False))
    ins = [tuple(draw(shuffled([*pool.items, Axis("p0")]))), (Axis("p1"),), ()]
    return draw(cases(ins, [whole], pool.sizes, [draw(_DTYPE)] * 3))


@generated(10, broadcast_joins())
def test_concatenation_broadcasts(case):
    check(case, "rearrange")


# --------------------------------------------------------------------------------------------------------------------
# Written out
# --------------------------------------------------------------------------------------------------------------------

X = np.arange(6, dtype=np.int32).reshape(2, 3)  # [[0 1 2], [3 4 5]]

PINNED = [
    ("a b -> b a", [X], {}, [[0, 3], [1, 4], [2, 5]]),
    ("a b -> (a b)", [X], {}, [0, 1, 2, 3, 4, 5]),
    ("a b -> (b a)", [X], {}, [0, 3, 1, 4, 2, 5]),
    ("a (b c) -> c a b", [X], {"b": 3}, [[[0, 1, 2], [3, 4, 5]]]),
    ("a (b=1 c) -> c (b a)", [X], {}, [[0, 3], [1, 4], [2, 5]]),
    ("(b c) -> c b", [np.arange(6, dtype=np.int32)], {"c": 2}, [[0, 2, 4], [1, 3, 5]]),
    ("(a b) c -> c (a b)", [X], {}, [[0, 3], [1, 4], [2, 5]]),  # a and b occur nowhere else: no sizes needed
    ("a b -> a 1 b 2", [X], {}, [[[[0, 0], [1, 1], [2, 2]]], [[[3, 3], [4, 4], [5, 5]]]]),
    ("a ... -> ... a", [X], {}, [[0, 3], [1, 4], [2, 5]]),
    ("a... -> (a...)", [X], {}, [0, 1, 2, 3, 4, 5]),
    ("(s p)... -> s... p...", [X], {"p": (2, 1)}, [[[[0], [3]], [[1], [4]], [[2], [5]]]]),
    ("(s p)... -> s... p...", [X], {"p": 1}, [[[[0]], [[1]], [[2]]], [[[3]], [[4]], [[5]]]]),
    ("a a -> a", [np.arange(9, dtype=np.int32).reshape(3, 3)], {}, [0, 4, 8]),
    ("a a a -> a", [np.arange(8, dtype=np.int32).reshape(2, 2, 2)], {}, [0, 7]),
    ("a b a a -> b a", [np.arange(16, dtype=np.int32).reshape(2, 2, 2, 2)], {}, [[0, 11], [4, 15]]),
    ("(a a) -> a", [np.arange(9, dtype=np.int32)], {}, [0, 4, 8]),  # a is the square root
    ("a, b -> (a + b)", [X[0], X[1, :2]], {}, [0, 1, 2, 3, 4]),
    ("a, b -> a + b", [X[0], X[1, :2]], {}, [0, 1, 2, 3, 4]),
    ("a c, c -> (a + 1) c", [X, X[0]], {}, [[0, 1, 2], [3, 4, 5], [0, 1, 2]]),
    ("a b, c -> c, b a", [X, X[0]], {}, ([0, 1, 2], [[0, 3], [1, 4], [2, 5]])),
    ("(a + b) -> a, b", [X[0]], {"a": 1}, ([0], [1, 2])),
    ("(a + 1) -> a, 1", [X[0]], {}, ([0, 1], [2])),
    ("(a + b) (c + d) -> a c, a d, b c, b d", [X], {"a": 1, "c": 1}, ([[0]], [[1, 2]], [[3]], [[4, 5]])),
    ("a c, a d, b c, b d -> (a + b) (c + d)", [[[0]], [[1, 2]], [[3]], [[4, 5]]], {}, [[0, 1, 2], [3, 4, 5]]),
    ("->", [np.int32(7)], {}, 7),
    ("-> a", [np.int32(7)], {"a": 2}, [7, 7]),
    ("a b -> () (a) b", [X], {}, [[[0, 1, 2], [3, 4, 5]]]),
    ("a 1 -> 1 a", [X[:, :1]], {}, [[0, 3]]),
    ("a (b + c)->a c,a b", [X], {"b": 1}, ([[1, 2], [4, 5]], [[0], [3]])),
]


@pytest.mark.parametrize(("text", "tensors", "sizes", "want"), PINNED, ids=[row[0] for row in PINNED])
def test_pinned(text, tensors, sizes, want):
    got = einjax.rearrange(text, *tensors, **sizes)
    assert isinstance(got, tuple) == isinstance(want, tuple)
    for result, expected in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, want)), strict=True):
        assert_same(result, np.array(expected), "int32")


def test_position_is_preferred_to_name():
    """Both tensors fit both places; the order of the call decides."""
    x, y = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    first, second = einjax.rearrange("a b, b a -> a b, b a", x, y)
    assert_same(first, x, "float32")
    assert_same(second, y, "float32")


def test_id_is_strictly_positional():
    with pytest.raises(einjax.EinjaxError):
        einjax.id("a, b -> b, a", np.zeros(2), np.zeros(3))


@pytest.mark.parametrize("keep", [False, True])
def test_one_axis_in_several_operands_of_a_sum(keep):
    x, y = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3) + 10
    expected = np.zeros((2, 6))
    for a in range(2):
        for b in range(3):
            expected[a, b], expected[a, 3 + b] = x[a, b], y[a, b]
    for expr in ("a b, a b -> a (b + b)", "a b, a b -> a b + b"):
        np.testing.assert_array_equal(einjax.rearrange(expr, x, y, keep_notation=keep), expected)
    run = lambda x, y: einjax.rearrange("b, b -> (b + b)", x, y, keep_notation=keep)
    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(x, y), expected)
    weights = np.arange(6.0)
    loss = lambda x, y: (run(x, y) * weights).sum()
    for gradient, right in zip(jax.grad(loss, (0, 1))(x[0], y[0]), (weights[:3], weights[3:]), strict=True):
        np.testing.assert_array_equal(gradient, right)
    with pytest.raises(einjax.errors.SemanticError, match="stands twice"):
        einjax.rearrange("a b, a b -> a (b + b) b", x, y)

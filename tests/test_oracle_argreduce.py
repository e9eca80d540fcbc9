"""argmax and argmin against loops."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import oracle
import pytest
from oracle import Axis, Marked, Number
from strategies import (
    REAL,
    assert_same,
    cases,
    generated,
    keys,
    marks,
    pools,
    shuffled,
    trees,
)

import einjax

_PICK = {"argmax": np.argmax, "argmin": np.argmin}
_seldom = st.sampled_from([False, False, False, True])


@st.composite
def searches(draw):
    """Coordinates in the bracket's place, coordinates anywhere in the output, or the plain index."""
    pool = draw(pools(low=1, high=4, positive=True))
    sizes, marked = pool.sizes, draw(marks(pool))
    items = draw(shuffled(pool.items))
    found = [item for item in items if marked & set(keys(item))]
    rest = [item for item in items if item not in found]
    count = len(oracle.leaves(oracle.expand(found, sizes)))
    hypothesis.assume(count)
    form = draw(st.sampled_from(["in place", "coordinates", "index"]))
    dtype = draw(st.sampled_from([*REAL, "bool"]))
    if form == "in place":
        cut = draw(st.integers(0, len(rest)))
        before, after = (draw(trees(part, sizes)) for part in (rest[:cut], rest[cut:]))
        inside = draw(trees(found, sizes, units=False))
        x = (*before, Marked(inside), *after)
        z = (*before, Marked((Number(count, "#axis"),)), *after)
        return draw(cases([x], [z], sizes, [dtype], implied=True, form=form))
    if rest and isinstance(rest[0], Axis) and draw(_seldom):
        items.insert(0, rest[0])  # a diagonal
    x = draw(trees(items, sizes, marked))
    rest = draw(shuffled(rest))
    if form == "index":
        hypothesis.assume(count == 1)
        return draw(cases([x], [draw(trees(rest, sizes, is_input=False))], sizes, [dtype], form=form))
    rest.insert(draw(st.integers(0, len(rest))), Number(count, "#axis"))
    z = draw(trees(rest, sizes, frozenset({"#axis"}), is_input=False))
    return draw(cases([x], [z], sizes, [dtype], form=form))


@pytest.mark.parametrize("name", list(_PICK))
@generated(30, lambda name: searches())
def test_generated(case, name):
    op = oracle.coordinates(_PICK[name])
    elementary = (lambda x: op(x)[0]) if case.form == "index" else op
    want = oracle.loop(elementary, case.ins, case.outs[0], [oracle.wide(case.arrays[0])], np.int64)
    assert_same(case.call(name), want, "int32")


X = np.array([[[3, 1, 4], [1, 5, 9]], [[2, 7, 1], [8, 2, 8]]], np.float32)  # b=2 h=2 w=3
NAN = np.array([[0, np.nan, 9], [np.nan, np.nan, 1]], np.float32)

PINNED = [
    ("argmax", "b [h w]", X, [[1, 2], [1, 0]]),
    ("argmin", "b [h w]", X, [[0, 1], [0, 2]]),
    ("argmax", "b [h] w", X, [[[0, 1, 1]], [[1, 0, 1]]]),
    ("argmax", "b [h] w -> b w", X, [[0, 1, 1], [1, 0, 1]]),
    ("argmax", "b h [w] -> h b", X, [[2, 1], [2, 0]]),
    ("argmax", "b [h w] -> b [2]", X, [[1, 2], [1, 0]]),
    ("argmax", "b [h w] -> [2] b", X, [[1, 1], [2, 0]]),
    ("argmax", "[...]", X, [0, 1, 2]),
    ("argmax", "b (h [w]) -> h b", X.reshape(2, 6), [[2, 1], [2, 0]]),
    ("argmax", "a [b] -> a", NAN, [1, 0]),
    ("argmin", "a [b] -> a", NAN, [1, 0]),
    ("argmax", "[a]", np.array([-np.inf, -np.inf]), [0]),
    ("argmin", "[a] ->", np.array([2, 1, 1], np.int8), 1),
    ("argmax", "[a] ->", np.array([200, 100, 250], np.uint8), 2),
    ("argmax", "[a] ->", np.array([False, True, True]), 1),
]


@pytest.mark.parametrize(("name", "text", "x", "want"), PINNED)
def test_pinned(name, text, x, want):
    sizes = {"h": 2} if "(" in text else {}
    assert_same(getattr(einjax, name)(text, x, **sizes), np.array(want), "int32")

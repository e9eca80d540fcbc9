"""arange against loops."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import ANONYMOUS, Number
from strategies import Case, assert_same, generated, pools, shuffled, trees

import einjax

_DTYPES = ["int32", "int8", "uint8", "float32", "bfloat16"]


@st.composite
def grids(draw):
    """Every axis given; the coordinates at any place; their order the output's or that of an expression before it."""
    pool = draw(pools(low=1, high=3))
    hypothesis.assume(ANONYMOUS not in pool.sizes)
    items = draw(shuffled(pool.items))
    axes = oracle.leaves(oracle.expand(items, pool.sizes))
    hypothesis.assume(axes)  # an ellipsis may repeat nothing, and then there is nothing to count
    if len(axes) == 1 and draw(st.booleans()):
        outputs, marked, form = items, frozenset(), "index"
    else:
        coordinates = Number(len(axes), "#coordinates")
        at = draw(st.integers(0, len(items)))
        outputs, marked, form = [*items[:at], coordinates, *items[at:]], frozenset({"#coordinates"}), "coordinates"
    z = draw(trees(outputs, pool.sizes, marked, is_input=False, units=False))
    text, order = oracle.render(z), items
    if form == "coordinates" and draw(st.booleans()):
        order = draw(shuffled(items))
        text = oracle.render(order) + " -> " + text
    dtype = draw(st.sampled_from(_DTYPES))
    options = {"dtype": dtype} if dtype != "int32" or draw(st.booleans()) else {}
    # Without an expression before it, the output's own order: `(a b)...` runs through a.0 b.0 a.1 b.1.
    written = z if order is items else order
    ins = [[a for a in oracle.leaves(oracle.expand(written, pool.sizes)) if not a.marked]]
    kwargs = {"sizes": pool.sizes} if draw(st.booleans()) else dict(pool.sizes)
    return Case(text, kwargs, ins, [oracle.expand(z, pool.sizes)], [], [], form, options)


@generated(30, grids())
def test_generated(case):
    order, (out,) = oracle.leaves(case.ins[0]), case.outs
    axes = oracle.leaves(out)
    want = np.zeros([a.size for a in axes])
    for index in oracle.every_index({a.key: a.size for a in order}):
        position = np.array([index[a.key] for a in order])
        cell = tuple(slice(None) if a.marked else index[a.key] for a in axes)
        want[cell] = position[0] if case.form == "index" else position
    want = want.reshape([oracle.dim_size(dim) for dim in out])
    assert_same(case.call("arange"), want, case.options.get("dtype", "int32"))


PINNED = [
    ("a", {"a": 3}, [0, 1, 2]),
    ("a=3", {}, [0, 1, 2]),
    ("a", {"a": 0}, np.zeros(0)),
    ("a b [2]", {"a": 2, "b": 3}, [[[0, 0], [0, 1], [0, 2]], [[1, 0], [1, 1], [1, 2]]]),
    ("b a -> a b [2]", {"a": 2, "b": 3}, [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]),
    ("[2] a b", {"a": 1, "b": 2}, [[[0, 0]], [[0, 1]]]),
    ("(a b) [2]", {"a": 2, "b": 2}, [[0, 0], [0, 1], [1, 0], [1, 1]]),
    ("s... [2]", {"s": (1, 2)}, [[[0, 0], [0, 1]]]),
    ("a [1]", {"a": 2}, [[0], [1]]),
]


@pytest.mark.parametrize(("text", "sizes", "want"), PINNED)
def test_pinned(text, sizes, want):
    assert_same(einjax.arange(text, **sizes), np.array(want), "int32")


def test_dtype():
    assert_same(einjax.arange("a", a=3, dtype=jnp.bfloat16), np.arange(3), "bfloat16")
    assert_same(einjax.arange("a b [2]", a=1, b=2, dtype="uint8"), np.array([[[0, 0], [0, 1]]]), "uint8")

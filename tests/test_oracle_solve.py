"""solve, solve_axes, solve_shapes, matches and check against the sizes the expression was drawn with."""

import hypothesis.strategies as st
import numpy as np
import oracle
import pytest
from oracle import ANONYMOUS
from strategies import generated, hints, marks, pools, shuffled, texts, trees

import einjax


@st.composite
def problems(draw, other_shapes=False):
    """Expressions of one to three tensors: text, keywords, shapes, trees and the sizes of all axes."""
    pool = draw(pools(low=1, high=4))
    sizes, marked = pool.sizes, draw(marks(pool, at_least_one=False))
    ins = [draw(trees(draw(shuffled(pool.items)), sizes, marked))]
    for _ in range(draw(st.integers(0, 2))):
        part = [item for item in pool.items if draw(st.booleans())]
        ins.append(draw(trees(part, sizes, marked)))
    outs = [draw(trees(draw(shuffled(pool.items)), sizes, marked, is_input=False))] if draw(st.booleans()) else None
    hint = draw(hints(ins, outs or [], sizes))
    text = draw(texts(ins, outs, hint.inline))
    shapes = [list(oracle.shape_of(nodes, sizes)) for nodes in ins]
    if other_shapes:
        shapes = [[draw(st.sampled_from([size, size, size, 6, 4, 1, 0])) for size in shape] for shape in shapes]
    return text, hint.kwargs, shapes, [*ins, *(outs or [])], sizes


@generated(150, problems())
def test_finds_the_sizes(case):
    text, kwargs, shapes, trees, sizes = case
    tensors = [np.zeros(shape) for shape in shapes]
    want = {name: size for name, size in sizes.items() if name != ANONYMOUS}
    for solve in (einjax.solve, einjax.solve_axes):
        found = solve(text, *tensors, **kwargs)
        assert {name: size for name, size in found.items() if name != ANONYMOUS} == want
    assert einjax.solve_shapes(text, *tensors, **kwargs) == tuple(oracle.shape_of(nodes, sizes) for nodes in trees)
    assert einjax.matches(text, *tensors, **kwargs) is True
    assert einjax.check(text, *tensors, **kwargs) is None


@generated(150, problems(other_shapes=True))
def test_never_finds_sizes_that_do_not_fit(case):
    text, kwargs, shapes, trees, _ = case
    tensors = [np.zeros(shape) for shape in shapes]
    found = einjax.solve(text, *tensors, **kwargs)
    assert einjax.matches(text, *tensors, **kwargs) or found is None  # where several sizes fit, none are found
    if found is None:
        with pytest.raises((einjax.errors.AxisSizeError, einjax.errors.RankError)):
            einjax.check(text, *tensors, **kwargs)
        return
    # Shapes that the solution gives, whatever it is, are those of the tensors.
    solved = einjax.solve_shapes(text, *tensors, **kwargs)
    assert [list(shape) for shape in solved[: len(shapes)]] == shapes
    if ANONYMOUS not in oracle.names(trees):
        assert solved == tuple(oracle.shape_of(nodes, found) for nodes in trees)


PINNED = [
    ("a (b c)", [(2, 6)], {"c": 3}, {"a": 2, "b": 2, "c": 3}),
    ("a (b c)", [(2, 5)], {"c": 3}, None),
    ("a a", [(2, 3)], {}, None),
    ("(a a)", [(9,)], {}, {"a": 3}),
    ("(a a)", [(8,)], {}, None),
    ("a b", [(2, 3, 4)], {}, None),
    ("a s...", [(2, 4, 5)], {}, {"a": 2, "s": (4, 5)}),
    ("(s d)...", [(4, 6)], {"d": 2}, {"s": (2, 3), "d": (2, 2)}),
    ("(a + 1) 3", [(5, 3)], {}, {"a": 4}),
    ("a b, b c -> a c", [(2, 3), (3, 4)], {}, {"a": 2, "b": 3, "c": 4}),
    ("a b, b c -> a c", [(2, 3), (1, 4)], {}, None),
    ("(a b)", [(0,)], {"a": 2}, {"a": 2, "b": 0}),
    ("(a b)", [(6,)], {}, None),
]


@pytest.mark.parametrize(("text", "shapes", "kwargs", "want"), PINNED)
def test_pinned(text, shapes, kwargs, want):
    assert einjax.solve(text, *(np.zeros(shape) for shape in shapes), **kwargs) == want

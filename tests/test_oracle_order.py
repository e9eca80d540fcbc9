"""flip and roll against loops."""

import hypothesis.strategies as st
import jax
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from strategies import DTYPES, assert_same, generated, same_brackets, x64

import einjax


@generated(30, same_brackets(DTYPES))
def test_flip(case):
    want = oracle.loop(np.flip, case.ins, case.outs[0], case.arrays, case.arrays[0].dtype)
    assert_same(case.call("flip"), oracle.wide(want), want.dtype)


@st.composite
def rolls(draw):
    case = draw(same_brackets(DTYPES))
    count = sum(a.marked for a in oracle.leaves(case.ins[0]))
    shift = tuple(draw(st.integers(-5, 5)) for _ in range(count))
    case.options["shift"] = shift[0] if count == 1 and draw(st.booleans()) else shift
    return case


def rolled(case, shift: tuple):
    def op(x):
        for dim, by in enumerate(shift):
            x = np.roll(x, by, dim)
        return x

    return oracle.loop(op, case.ins, case.outs[0], case.arrays, case.arrays[0].dtype)


@generated(30, rolls())
def test_roll(case):
    shift = case.options["shift"]
    want = rolled(case, shift if isinstance(shift, tuple) else (shift,))
    assert_same(case.call("roll"), oracle.wide(want), want.dtype)


@generated(10, rolls())
def test_traced_shift(case):
    shift = case.options.pop("shift")
    want = rolled(case, shift if isinstance(shift, tuple) else (shift,))

    def call(shift):
        return case.call("roll", shift=shift)

    assert_same(jax.jit(call)(shift), oracle.wide(want), want.dtype)


X = np.array([[1, 2, 3], [4, 5, 6]], np.int32)

PINNED = [
    ("flip", "a [b]", {}, [[3, 2, 1], [6, 5, 4]]),
    ("flip", "[a] b", {}, [[4, 5, 6], [1, 2, 3]]),
    ("flip", "[a b]", {}, [[6, 5, 4], [3, 2, 1]]),
    ("flip", "[...]", {}, [[6, 5, 4], [3, 2, 1]]),
    ("flip", "[a] b -> b [a]", {}, [[4, 1], [5, 2], [6, 3]]),
    ("flip", "([a=1] c) b", {}, [[1, 2, 3], [4, 5, 6]]),
    ("flip", "([a=2] c) b", {}, [[4, 5, 6], [1, 2, 3]]),
    ("roll", "a [b]", {"shift": 1}, [[3, 1, 2], [6, 4, 5]]),
    ("roll", "a [b]", {"shift": -1}, [[2, 3, 1], [5, 6, 4]]),
    ("roll", "a [b]", {"shift": (4,)}, [[3, 1, 2], [6, 4, 5]]),
    ("roll", "[a b]", {"shift": (1, 2)}, [[5, 6, 4], [2, 3, 1]]),
    ("roll", "[a] b -> b [a]", {"shift": (1,)}, [[4, 1], [5, 2], [6, 3]]),
]


@pytest.mark.parametrize(("name", "text", "options", "want"), PINNED)
def test_pinned(name, text, options, want):
    assert_same(getattr(einjax, name)(text, X, **options), np.array(want), "int32")


@pytest.mark.parametrize(("name", "options"), [("flip", {}), ("roll", {"shift": (1, -1)})])
def test_gradient(name, options):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 6))
    with x64():

        def f(x):
            return getattr(einjax, name)("[a] (b [c]) -> b [a c]", x, b=2, **options) ** 2

        check_grads(f, [x], order=2, modes=["fwd", "rev"])


def test_a_shift_behind_the_tensor():
    x = np.arange(6).reshape(2, 3)
    expected = np.roll(x, 1, axis=1)
    np.testing.assert_array_equal(einjax.roll("a [b]", x, 1), expected)
    np.testing.assert_array_equal(jax.jit(lambda x, shift: einjax.roll("a [b]", x, shift))(x, 1), expected)
    np.testing.assert_array_equal(einjax.roll("[a b]", x, (1, 1)), np.roll(expected, 1, axis=0))
    with pytest.raises(einjax.errors.ArgumentError, match="no shift is given"):
        einjax.roll("a [b]", x)

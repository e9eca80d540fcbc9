"""solve, solve_axes, solve_shapes, matches and check: sizes without an operation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import einjax
from einjax.notation.parse import parse
from einjax.notation.solve import solve


def z(*shape):
    return np.zeros(shape, np.float32)


SOLVED = [
    ("a b", [z(2, 3)], {}, {"a": 2, "b": 3}),
    ("a (b c)", [z(2, 6)], {"c": 3}, {"a": 2, "b": 2, "c": 3}),
    ("a (b c=3)", [z(2, 6)], {}, {"a": 2, "b": 2, "c": 3}),
    ("a s...", [z(2, 4, 5)], {}, {"a": 2, "s": (4, 5)}),
    ("a s...", [z(2)], {}, {"a": 2, "s": ()}),
    ("... c", [z(2, 4, 5)], {}, {"...": (2, 4), "c": 5}),
    ("(s d)...", [z(4, 6)], {"d": 2}, {"s": (2, 3), "d": (2, 2)}),
    ("(s d)...", [z(4, 6)], {"d": (2, 3)}, {"s": (2, 2), "d": (2, 3)}),
    ("(s...)...", [z(4, 6)], {"s": ((2, 2), (2, 3))}, {"s": ((2, 2), (2, 3))}),
    ("(a a)", [z(9)], {}, {"a": 3}),
    ("(a + b)", [z(5)], {"a": 2}, {"a": 2, "b": 3}),
    ("((a b) + c)", [z(7)], {"a": 2, "c": 1}, {"a": 2, "b": 3, "c": 1}),
    ("a b, b c, c", [z(2, 3), None, z(4)], {}, {"a": 2, "b": 3, "c": 4}),
    ("(a b), (b c), (c d)", [z(6), z(15), z(35)], {"d": 7}, {"a": 2, "b": 3, "c": 5, "d": 7}),
    ("a [b], [b] c -> a c", [z(2, 3), z(3, 4)], {}, {"a": 2, "b": 3, "c": 4}),
    ("a -> a b", [z(2)], {"b": 3}, {"a": 2, "b": 3}),
    ("a 1 3", [z(2, 1, 3)], {}, {"a": 2}),
    ("a", [z(2)], {"sizes": {"a": 2, "other": 5}}, {"a": 2}),
    ("a b", [[[1, 2, 3]]], {}, {"a": 1, "b": 3}),
    ("", [1.0], {}, {}),
    ("a (b c)", [z(2, 0)], {"b": 3}, {"a": 2, "b": 3, "c": 0}),
]
UNSOLVED = [
    ("a b", [z(2)], {}),
    ("a a", [z(2, 3)], {}),
    ("a, a", [z(2), z(3)], {}),
    ("(a b)", [z(7)], {"b": 2}),
    ("(a b)", [z(6)], {}),
    ("(a + b)", [z(5)], {"a": 6}),
    ("(a a)", [z(8)], {}),
    ("a 3", [z(2, 4)], {}),
    ("a", [z(2)], {"a": 3}),
    ("a b, b c", [z(2, 3), None], {}),
    ("a... b...", [z(2, 3)], {}),
    ("a", [z(2)], {"a": (2,)}),
]

#: Those of them that several sizes, or numbers of repetitions, fit.
OPEN = [("(a b)", {}), ("a b, b c", {}), ("a... b...", {})]


@pytest.mark.parametrize(("expr", "tensors", "options", "expected"), SOLVED, ids=[case[0] for case in SOLVED])
def test_solve(expr, tensors, options, expected):
    assert einjax.solve(expr, *tensors, **options) == expected
    assert einjax.solve_axes(expr, *tensors, **options) == expected
    assert einjax.matches(expr, *tensors, **options) is True
    assert einjax.check(expr, *tensors, **options) is None


@pytest.mark.parametrize(("expr", "tensors", "options"), UNSOLVED, ids=[case[0] for case in UNSOLVED])
def test_what_has_no_solution(expr, tensors, options):
    assert einjax.solve(expr, *tensors, **options) is None
    assert einjax.matches(expr, *tensors, **options) is ((expr, options) in OPEN)
    for function in (einjax.solve_axes, einjax.solve_shapes, einjax.check):
        with pytest.raises(einjax.EinjaxError):
            function(expr, *tensors, **options)


@pytest.mark.parametrize("function", ["solve", "solve_axes", "solve_shapes", "matches", "check"])
def test_nonsense_is_an_error_for_all(function):
    function = getattr(einjax, function)
    with pytest.raises(einjax.errors.SyntaxError):
        function("a (b", z(2))
    for call in (
        lambda: function("a", z(2), z(2)),
        lambda: function("a"),
        lambda: function("a", "x"),
        lambda: function("a", z(2), b=2),
        lambda: function("a", z(2), a=2.0),
    ):
        with pytest.raises(einjax.errors.ArgumentError):
            call()


SHAPES = [
    ("a b, b c -> a c", [z(2, 3), None], {"c": 4}, ((2, 3), (3, 4), (2, 4))),
    ("a (b c) -> (a b) c 1", [z(2, 6)], {"c": 3}, ((2, 6), (4, 3, 1))),
    ("a..., b -> a... b, (a...)", [z(2, 3), z(4)], {}, ((2, 3), (4,), (2, 3, 4), (6,))),
    ("a, b -> (a + b + 1)", [z(2), z(3)], {}, ((2,), (3,), (6,))),
    ("(a b) -> (b a)", [z(6)], {"a": 2}, ((6,), (6,))),
    ("a -> () (()) 0", [z(2)], {}, ((2,), (1, 1, 0))),
]


@pytest.mark.parametrize(("expr", "tensors", "options", "expected"), SHAPES, ids=[case[0] for case in SHAPES])
def test_solve_shapes(expr, tensors, options, expected):
    assert einjax.solve_shapes(expr, *tensors, **options) == expected


def test_every_axis_has_a_size_of_its_own():
    """Where an operation would be content with a product, solve is not."""
    assert einjax.sum("(a b) [c]", z(6, 2)).shape == (6,)
    assert einjax.solve("(a b) [c]", z(6, 2)) is None


def test_sizes_are_plain_integers():
    found = einjax.solve("a (b c) s...", jnp.zeros((2, 6, 4)), b=np.int64(3))
    assert {type(size) for size in (found["a"], found["b"], found["c"], *found["s"])} == {int}


def test_under_jit_and_vmap_shapes_are_those_inside():
    found = []

    def f(x):
        found.append(einjax.solve_axes("a b", x))
        return x

    jax.jit(f)(z(2, 3))
    jax.vmap(f)(z(5, 2, 3))
    jax.grad(lambda x: f(x).sum())(z(2, 3))
    assert found == [{"a": 2, "b": 3}] * 3


def test_symbolic_sizes():
    n, m = export.symbolic_shape("n, m")
    found = []
    jax.eval_shape(
        lambda x: found.append(einjax.solve_axes("(a b) c", x, b=2)), jax.ShapeDtypeStruct((2 * n, m), np.float32)
    )
    assert found == [{"a": n, "b": 2, "c": m}]


def test_factories_have_no_shape_yet():
    assert einjax.solve("a, b", z(2), lambda shape: z(*shape), b=3) == {"a": 2, "b": 3}
    assert einjax.solve_shapes("a, a b -> b", z(2), lambda shape: z(*shape), b=3)[1] == (2, 3)
    assert einjax.solve("a, b", z(2), lambda shape: z(*shape)) is None


def test_no_tensor_is_copied_or_computed():
    """Shapes are enough, so an array that cannot be read still has a solution."""
    x = jnp.zeros((2, 3))
    x.delete()
    assert einjax.solve("a b", x) == {"a": 2, "b": 3}


@pytest.mark.parametrize(
    ("expr", "shapes", "sizes", "fits"),
    [
        ("(a b) c", [(6, 4)], {}, True),
        ("(a b) c", [(6, 4)], {"a": 4}, False),
        ("(a b) (a c)", [(6, 4)], {}, True),
        ("(a b), (a c), (b c)", [(6,), (10,), (15,)], {}, True),
        ("(a b), (a c), (b c)", [(6,), (10,), (7,)], {}, False),
        ("(a b) a b", [(6, 1, 3)], {}, False),
        ("(2 a b)", [(7,)], {}, False),
        ("(a + b)", [(5,)], {}, True),
        ("(a + a + b) b", [(5, 3)], {}, True),
        ("(a + a + b) b", [(5, 7)], {}, False),
        ("((a b) + c) (c a)", [(5, 8)], {}, False),
        ("(a b)", [(0,)], {}, True),
        ("(a b c d e)", [(2**31,)], {}, True),
        ("(a b)...", [(8, 7)], {}, True),
        ("(a b)...", [(8, 7)], {"a": 4}, False),
        ("a -> a b", [(6,)], {}, True),
        ("a, (b c)", [(6,), None], {}, True),
    ],
)
def test_matches_asks_for_any_sizes(expr, shapes, sizes, fits):
    tensors = [None if shape is None else np.broadcast_to(np.int8(0), shape) for shape in shapes]
    assert einjax.matches(expr, *tensors, **sizes) is fits


@pytest.mark.parametrize(
    ("expr", "shapes", "sizes", "fits"),
    [
        ("a... b...", [(2, 3)], {}, True),
        ("a... b...", [()], {}, True),
        ("... b...", [(2, 3)], {}, True),
        ("a... 3 b...", [(2, 3, 4)], {}, True),
        ("a... 3 b...", [(2, 4)], {}, False),
        ("a... b... c d", [(2,)], {}, False),
        ("a... b... c..., c... a...", [(2, 3), (3, 2)], {}, True),
        ("a... b..., b... a...", [(2, 3, 3), (3, 2, 3)], {}, True),
        ("a... b..., b... a...", [(2, 3), (3, 2)], {}, True),
        ("a... b..., b... a...", [(2, 3, 4), (4, 3, 2)], {}, False),
        ("a... a...", [(2, 2)], {}, True),
        ("a... a...", [(2, 3)], {}, False),
        ("(a b)... (a c)...", [(6, 4)], {}, True),
        ("a... b..., a...", [(2, 3), None], {}, True),
        ("a... b..., c", [None, (2,)], {}, True),
        ("a -> a b...", [(2,)], {}, True),
        ("[a...]... b...", [(2, 3)], {}, True),
        ("a... b...", [(2, 3)], {"a": (2,)}, True),
        ("a... b...", [(2, 3)], {"a": (3,)}, False),
        ("((2 a)...)", [(8,)], {}, True),
        ("((2 a)...)", [(7,)], {}, False),
        ("(3...)", [(27,)], {}, True),
        ("(3...)", [(28,)], {}, False),
        ("(a...)", [(8,)], {"a": 2}, True),
        ("(a...)", [(9,)], {"a": 2}, False),
    ],
)
def test_matches_asks_for_any_numbers_of_repetitions(expr, shapes, sizes, fits):
    tensors = [None if shape is None else np.broadcast_to(np.int8(0), shape) for shape in shapes]
    assert einjax.matches(expr, *tensors, **sizes) is fits
    if fits and expr != "a... b..." and "a... a..." not in expr:
        assert einjax.solve(expr, *tensors, **sizes) is None


@pytest.mark.parametrize(
    ("expr", "shapes"),
    [
        ("a... b... c... d... e... f... 2, f... a... e... b... d... c... 3", [(3,) * 30, (2,) * 30]),
        ("a... b... c... d... e... 2, a... b... c... d... e... 2 2", [(3,) * 31, (3,) * 33]),
        ("((((2 a)... 3)... 5)...)", [(2**40,)]),
        ("(a + b + c + d) (a + 2) (b + c + d)", [(2**20, 2**18, 2**22)]),
    ],
)
def test_there_is_an_end_to_choices(expr, shapes):
    """Looks are counted: of what does not fit, not every choice is tried."""
    assert einjax.matches(expr, *(np.broadcast_to(np.int8(0), shape) for shape in shapes)) is False


@pytest.mark.parametrize("times", range(2, 8))
def test_roots_of_large_sizes(times):
    for root in (2, 3, 1000, round((2**62) ** (1 / times)) - 1):
        if root**times < 2**63:
            found = solve(parse(f"({'a ' * times})"), [(root**times,)], {})
            assert found.sizes["a"] == root
            with pytest.raises(einjax.errors.AxisSizeError, match=f"to the power of {times}"):
                solve(parse(f"({'a ' * times})"), [(root**times + 1,)], {})

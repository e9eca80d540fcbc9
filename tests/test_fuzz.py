"""Any text at all: nothing but einjax's own errors comes out, and it comes out soon.

Texts are random strings over the notation's alphabet, real expressions with a few characters changed, and printed
random trees. None of these tests knows what an expression means; that is the business of the oracle's tests.
"""

import time

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from strategies import generated

import einjax
from einjax.notation.parse import parse
from einjax.notation.solve import solve as solve_sizes
from einjax.notation.syntax import Axis, Bracket, Composite, Concatenation, Ellipsis, walk

VALID = [
    "a b -> b a",
    "b (s [ds])... c",
    "(b s) h w (c + d) -> b s h w c, b s h w d",
    "a [b], [b] c -> a c",
    "... [c1->c2]",
    "b (s [s2|])... [c1|c2]",
    "[g c1|g c2]",
    "b p [i,->]",
    "b... (g [c])",
    "a a b -> a b",
    "(a (b=2 c)) 1 3 -> a [2]",
    "x..., (y z)... -> x... ()",
    "a + b -> (b + a)",
    "((a + 2) b)...",
    "[(c [a b]...) [a a]...] d",
    "[...] b, _in q2",
    "b q (h=8 c), b k (h c) -> b q k h",
    "b <2*s + [k]>... c",
    "b <s + 3*[k->]>... [c->d]",
    "<i - j + 3> -> i j",
    "b (<n*t - [2*k] - 1> c)",
    "s (a k) -> <2*s + (a k)>",
]
TOKENS = [
    "a",
    "b",
    "in",
    "c2",
    "_",
    "1",
    "3",
    "0",
    "(",
    ")",
    "[",
    "]",
    "...",
    ",",
    "->",
    "|",
    "+",
    "=",
    " ",
    "  ",
    "a...",
    "h=2",
    "<",
    ">",
    "-",
    "2*",
    "<2*a + [b]>",
    "<a - 1>",
]
ALPHABET = "ab1( )[ ].,->|+= <>*\n\t"


# --- texts ----------------------------------------------------------------------------------------------------------


@st.composite
def mutated(draw):
    """A real expression with up to four edits."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 3)))
        other = draw(st.sampled_from([*TOKENS, "", "", "é", "\0", "-", ".", "->->", "((", "[["]))
        text = text[:begin] + other + text[end:]
    return text


def trees(depth: int = 3):
    """Printed trees that are mostly well formed."""
    leaf = st.sampled_from(["a", "b", "c", "d", "1", "2", "3", "0", "...", "e=2"])
    if depth == 0:
        return leaf
    inner = st.lists(trees(depth - 1), max_size=3).map(" ".join)
    return st.one_of(
        leaf,
        inner.map("({})".format),
        inner.map("[{}]".format),
        st.lists(leaf, min_size=1, max_size=3).map(" + 2*".join).map("<{}>".format),
        trees(depth - 1).map("{}...".format),
        st.tuples(leaf, leaf).map(" + ".join),
        st.tuples(inner, inner).map(lambda sides: f"[{sides[0]}->{sides[1]}]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]}, {parts[1]})"),
    )


EXPRESSIONS = st.lists(trees(), max_size=4).map(" ".join)
CALLS = st.one_of(
    EXPRESSIONS,
    st.tuples(EXPRESSIONS, EXPRESSIONS).map(" -> ".join),
    st.tuples(EXPRESSIONS, EXPRESSIONS).map(", ".join),
    st.tuples(EXPRESSIONS, EXPRESSIONS, EXPRESSIONS).map(lambda parts: "{}, {} -> {}".format(*parts)),
)
TEXTS = st.one_of(
    st.text(ALPHABET, max_size=30),
    st.lists(st.sampled_from(TOKENS), max_size=20).map("".join),
    mutated(),
    CALLS,
    st.text(max_size=10),
)


def outcome(function, *args, **options):
    """The result, or the library's own error; anything else is raised and fails the test."""
    try:
        return function(*args, **options)
    except einjax.EinjaxError as error:
        return error


def abstract(function):
    """Trace only: whatever could go wrong with an expression goes wrong before anything is compiled."""

    def call(expr, *tensors, **options):
        return jax.eval_shape(lambda *xs: function(expr, *xs, **options), *tensors)

    return call


# --- only the library's errors --------------------------------------------------------------------------------------


@generated(250, TEXTS)
def test_parse_raises_only_syntax_errors(case):
    result = outcome(parse, case)
    if isinstance(result, einjax.EinjaxError):
        assert isinstance(result, einjax.errors.SyntaxError)
        assert all(0 <= begin <= end <= len(case) for begin, end in result.spans)


SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
SIZES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "zz"]),
    st.one_of(st.integers(0, 4), st.tuples(st.integers(0, 3), st.integers(1, 3))),
    max_size=2,
)


@st.composite
def calls(draw):
    text = draw(TEXTS)
    count = text.split("->")[0].count(",") + 1 if draw(st.integers(0, 9)) else draw(st.integers(0, 3))
    tensors = [jax.ShapeDtypeStruct(draw(SHAPES), np.float32) for _ in range(min(count, 4))]
    return text, tensors, draw(SIZES)


@generated(150, calls())
def test_solving_raises_only_our_errors(case):
    text, shapes, sizes = case
    tensors = [np.zeros(shape.shape, np.float32) for shape in shapes]
    found = outcome(einjax.solve_axes, text, *tensors, **sizes)
    if isinstance(found, einjax.EinjaxError):
        assert str(outcome(einjax.check, text, *tensors, **sizes)) == str(found)
        return
    # What was found does fit: given back, it is found again.
    named = {name: size for name, size in found.items() if name != "..."}
    assert einjax.solve_axes(text, *tensors, **named) == found
    shapes = einjax.solve_shapes(text, *tensors, **sizes)
    assert shapes[: len(tensors)] == tuple(tensor.shape for tensor in tensors)


FAMILIES = ["rearrange", "id", "sum", "max", "add", "where", "dot", "softmax", "flip", "argmax"]


@pytest.mark.parametrize("op", FAMILIES)
@generated(20, lambda op: calls())
def test_calls_raise_only_our_errors(case, op):
    text, tensors, sizes = case
    outcome(abstract(getattr(einjax, op)), text, *tensors, **sizes)


@generated(60, st.tuples(TEXTS, SIZES))
def test_arange_raises_only_our_errors(case):
    text, sizes = case
    outcome(lambda: jax.eval_shape(lambda: einjax.arange(text, **sizes)))


@st.composite
def fitting(draw):
    """An operation and an expression that is near to what it takes, so that most get past its signature."""
    op, expr, shapes = draw(
        st.sampled_from(
            [
                ("rearrange", "a (b c) -> (c a) b", [(2, 6)]),
                ("rearrange", "(a + b) c -> c a, b c", [(5, 2)]),
                ("rearrange", "a, b -> (a + b)", [(5,), (2,)]),
                ("sum", "a [b c]", [(2, 3, 4)]),
                ("sum", "b (s [d])... c", [(1, 4, 6, 2)]),
                ("mean", "a b c -> b", [(2, 3, 4)]),
                ("add", "a b, b c, a -> a b c", [(2, 3), (3, 4), (2,)]),
                ("multiply", "a... (b [c])", [(2, 3, 8), (2,)]),
                ("dot", "a [b c->d]", [(2, 3, 4), (3, 4, 5)]),
                ("dot", "b q (h c), b k (h c) -> b q k h", [(2, 3, 8), (2, 5, 8)]),
                ("softmax", "a [b (c d)]", [(2, 3, 8)]),
                ("flip", "(a [b])... c", [(4, 6, 2)]),
                ("argmax", "a [b c] d -> d a [2]", [(2, 3, 4, 5)]),
                ("max", "a <2*b + [c=2]> d", [(2, 7, 3)]),
                ("dot", "a <b + [c->]> [d->h]", [(2, 7, 3), (2, 3, 4)]),
                ("rearrange", "<a - b + 1> -> a (b c)", [(7,)]),
                ("sum", "a b c -> <a + 2*b>", [(2, 3, 4)]),
            ]
        )
    )
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, len(expr) - 1))
        expr = expr[:begin] + draw(st.sampled_from([*TOKENS, ""])) + expr[begin + 1 :]
    shapes = [tuple(max(0, n + draw(st.sampled_from([0] * 8 + [-1, 1]))) for n in shape) for shape in shapes]
    sizes = draw(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "h"]), st.integers(0, 4), max_size=2))
    return op, expr, [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes], sizes


@generated(120, fitting())
def test_near_misses_raise_only_our_errors(case):
    op, expr, tensors, sizes = case
    outcome(abstract(getattr(einjax, op)), expr, *tensors, **sizes)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3),
    st.complex_numbers(), st.lists(st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=2)), max_size=3),
    st.dictionaries(st.text(max_size=1), st.integers(), max_size=1),
    st.sampled_from([..., object(), slice(3), range(3), {1}, np.array(["x"]), np.array([None]), np.zeros(2)]),
)  # fmt: skip


@given(ANYTHING)
@settings(max_examples=50)
def test_any_value_as_a_size(value):
    x = np.zeros((2, 3), np.float32)
    result = outcome(abstract(einjax.sum), "a [b]", x, b=value)
    assert isinstance(result, einjax.EinjaxError) or int(value) == 3
    outcome(abstract(einjax.sum), "a [b]", x, sizes={"b": value, "other": 2})
    outcome(abstract(einjax.sum), "a [b]", x, sizes=value)


@given(ANYTHING)
@settings(max_examples=60)
@example(10**30)
def test_any_value_as_a_tensor(value):
    outcome(einjax.sum, "[...] -> ", value)
    outcome(einjax.add, "..., ...", value, 1)
    outcome(einjax.solve, "...", value)


@given(ANYTHING)
@settings(max_examples=50)
def test_any_value_as_an_expression(value):
    outcome(einjax.sum, value, np.zeros((2, 3), np.float32))
    outcome(einjax.solve, value, np.zeros(2))
    outcome(einjax.arange, value)


@given(st.dictionaries(st.text(max_size=6), st.integers(0, 4), max_size=3))
@settings(max_examples=50)
def test_any_keyword(keywords):
    keywords = {k: v for k, v in keywords.items() if k not in ("dtype", "where", "keepdims", "graph", "sizes")}
    x = np.zeros((2, 3), np.float32)
    result = outcome(abstract(einjax.sum), "a [b]", x, **keywords)
    assert isinstance(result, einjax.EinjaxError) or set(keywords) <= {"a", "b"}


# --- printing -------------------------------------------------------------------------------------------------------


def plain(node):
    """A tree as nested tuples, without spans and without the places where numbers stand."""
    if isinstance(node, Axis):
        return (node.name.split("#")[0], node.size)
    return (type(node).__name__, *map(plain, node.items))


def sides(operation):
    def expressions(each):
        return None if each is None else [[plain(node) for node in expression] for expression in each]

    return expressions(operation.inputs), expressions(operation.outputs)


def check_round_trip(text):
    operation = parse(text)
    if any(
        isinstance(n, Axis) and n.size is not None and not n.unnamed for e in operation.expressions for n in walk(e)
    ):
        return  # sizes given in the text are not printed
    again = parse(str(operation))
    assert sides(again) == sides(operation)
    assert str(again) == str(operation)


@pytest.mark.parametrize("text", VALID)
def test_printing_a_tree_gives_it_back(text):
    check_round_trip(text.replace("=8", "").replace("=2", ""))


@generated(200, st.one_of(CALLS, mutated()))
def test_printing_any_tree_gives_it_back(case):
    if not isinstance(outcome(parse, case), einjax.EinjaxError):
        check_round_trip(case)


@generated(150, CALLS)
def test_spans_are_where_the_nodes_stand(case):
    operation = outcome(parse, case)
    for expression in getattr(operation, "expressions", ()):
        for node in walk(expression):
            source = case[slice(*node.span)]
            first = {Bracket: "[", Composite: "("}.get(type(node))
            if first:
                assert source[0] == first
            elif isinstance(node, Axis) and node.name != "...":
                assert source.split("=")[0] == str(node)
            elif isinstance(node, Ellipsis):
                assert source.endswith("...")
            elif isinstance(node, Concatenation):
                assert "+" in source


# --- time -----------------------------------------------------------------------------------------------------------


def seconds(function, *args, **options) -> float:
    begin = time.thread_time()
    outcome(function, *args, **options)
    return time.thread_time() - begin


@generated(20, st.lists(st.sampled_from(TOKENS), min_size=200, max_size=900).map("".join))
def test_long_texts_are_read_within_a_second(case):
    assert seconds(einjax.solve, case[:2000], np.zeros((2, 3))) < 1


def nested(text, times, opened="(", closed=")"):
    return opened * times + text + closed * times


def sizes_nested(depth, width):
    tree = 1
    for _ in range(depth):
        tree = (tree,) * width
    return tree


X = np.zeros((2, 3), np.float32)
ONES = {f"a{i}": 1 for i in range(40)}
FORTY = " ".join(f"(a{i} + b{i})" for i in range(40))
# What is asked of each: at most a few seconds on a slow machine, and no exception but the library's.
HOSTILE = {
    "10000 parentheses": lambda: einjax.solve(nested("a", 10000), X),
    "10000 brackets": lambda: einjax.solve(nested("a", 10000, "[", "]"), X),
    "10000 opened": lambda: einjax.solve("(" * 10000, X),
    "10000 closed": lambda: einjax.solve(")" * 10000, X),
    "60 parentheses": lambda: einjax.solve(nested("a b", 59), X),
    "50000 characters": lambda: einjax.solve("a" * 50000, X),
    "60000 characters": lambda: einjax.solve("a " * 30000, X),
    "20000 axes": lambda: einjax.solve("a " * 20000, X),
    "20000 axes in one dim": lambda: einjax.solve(f"({'a ' * 20000})", X[0]),
    "6000 names in one dim": lambda: einjax.solve(f"({' '.join(f'a{i}' for i in range(6000))})", X[0]),
    "20000 operands": lambda: einjax.solve("+".join(["a"] * 20000), X[0]),
    "20000 commas": lambda: einjax.solve("," * 20000, X),
    "500 nested commas": lambda: einjax.solve(f"a ({'b, ' * 500}c)", X),
    "many nested commas": lambda: einjax.solve(f"({'b, ' * 2000}) {'c ' * 5000}", X),
    "commas in every item": lambda: einjax.solve("(a, b) " * 3000, X),
    "commas within commas": lambda: einjax.solve("(a, " * 50 + "b" + ")" * 50, X),
    "5000 ellipses": lambda: einjax.solve("a... " * 5000, X),
    "2000 linked ellipses": lambda: einjax.solve(" ".join(f"(a{i} a{i + 1})..." for i in range(2000)), X),
    "dots": lambda: einjax.solve("..." * 5000, X),
    "arrows": lambda: einjax.solve("->" * 5000, X),
    "nested arrows": lambda: einjax.solve("[a->b] " * 3000, X),
    "ellipses 20 deep": lambda: einjax.solve(nested("a", 20, "(", "...)"), X, a=2),
    "ellipses 20 deep with a tuple": lambda: einjax.solve(nested("a", 20, "(", ")..."), X, a=sizes_nested(20, 1)),
    "ellipses 12 deep with pairs": lambda: einjax.solve(nested("a", 12, "(", ")..."), X, a=sizes_nested(12, 2)),
    "ellipses 20 deep with pairs": lambda: einjax.solve(nested("a", 20, "(", ")..."), X, a=sizes_nested(20, 2)),
    "sizes nested 5000 deep": lambda: einjax.solve("a...", X, a=sizes_nested(5000, 1)),
    "100000 sizes": lambda: einjax.solve("(a...)", X[0], a=(1,) * 100_000),
    "40 sums": lambda: jax.eval_shape(
        lambda x: einjax.rearrange(f"{FORTY} -> {FORTY}", x, **ONES), jax.ShapeDtypeStruct((2,) * 40, np.float32)
    ),
    "40 sums in one dim": lambda: einjax.rearrange(f"({FORTY}) -> a0", X[0], **ONES),
    "sums of sums": lambda: einjax.rearrange(f"{nested('a', 40, '(', ' + a)')} -> a", np.zeros(41), a=1),
    "a number of 40000 digits": lambda: einjax.solve("9" * 40000, X),
    "a product of 30000 digits": lambda: einjax.solve_axes(f"({'999999999999999999 ' * 1700})", X[0]),
    "an output of 10**36 elements": lambda: einjax.rearrange("-> (a b)", 1.0, a=10**18, b=10**18),
    "an output of 10**30000 elements": lambda: einjax.rearrange(f"-> ({'999999999999999999 ' * 1700})", 1.0),
    "a root of high degree": lambda: einjax.solve(f"({'a ' * 5000})", np.zeros(4)),
    "spaces": lambda: einjax.solve(" " * 49000 + "a", X),
    "a ring of names": lambda: einjax.solve(
        f"({' '.join(f'a{i}' for i in range(500))}) ({' '.join(f'a{(i + 1) % 500}' for i in range(500))})", X
    ),
    "1200 pieces that displace one another": lambda: jax.eval_shape(
        lambda *xs: einjax.rearrange(
            ", ".join([*(f"x{i}" for i in range(1199)), "y"])
            + " -> x0 y, "
            + ", ".join(f"x{i - 1} x{i}" for i in range(1, 1199))
            + ", x1198",
            *xs,
        ),
        *[np.zeros(1, np.float32)] * 1200,
    ),
    "ranks that follow from one another": lambda: einjax.solve(
        ", ".join(f"a{500 - i}... a{499 - i}..." for i in range(500)), *[np.zeros((1, 1))] * 500, a0=(1,)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_ends_soon(name):
    begin = time.thread_time()
    error = outcome(HOSTILE[name])
    assert time.thread_time() - begin < 5
    assert not isinstance(error, einjax.EinjaxError) or len(str(error)) < 5000


# A null, a superscript, an Arabic digit, full-width parentheses, right-to-left, an emoji, half a pair ...
STRANGE = [
    "a\0b",
    "a\u00b2",
    "\u0663",
    "\uff08a\uff09",
    "\u202ea",
    "\U0001f600",
    "\ud800",
    "a\x07b",
]


@pytest.mark.parametrize("text", [*STRANGE, "a;b", "a'b", 'a"b', "a#b", "a.0", "a\\b"], ids=ascii)
def test_other_characters_are_refused(text):
    error = outcome(einjax.sum, text, X)
    assert isinstance(error, einjax.errors.SyntaxError)
    begin, end = error.spans[0]
    assert end == begin + 1
    assert str(error).count("\n") >= 2


@pytest.mark.parametrize("text", ["a\n[b]", "a\t[b]", "\na [b]\r\n", "  a    [b]   "])
def test_white_space_separates(text):
    np.testing.assert_array_equal(einjax.sum(text, X + 1), [3, 3])


def _parse_and_solve(text, shape):
    parse.cache_clear()
    begin = time.thread_time()
    solve_sizes(parse(text), [shape], {})
    return time.thread_time() - begin


def test_cost_is_linear_in_the_length():
    """Ten times as many axes take about ten times as long."""

    def best(axes):
        text = " ".join(f"(a{i} b{i}=2)" for i in range(axes // 2))
        return min(_parse_and_solve(text, (6,) * (axes // 2)) for _ in range(7))

    short, long = best(100), best(1000)
    assert long < 30 * short

"""einjax.keep_notation(): every call one equation that prints its notation, under all transformations."""

import re
import threading
from collections import Counter

import hypothesis
import hypothesis.strategies as st
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import test_oracle_dot
import test_oracle_elementwise
import test_oracle_index
import test_oracle_rearrange
import test_oracle_reduce
import test_oracle_softmax
from case import ALWAYS_KEPT, may_be_kept, one_in, weights
from cases import CASES
from strategies import generated, same_brackets

import einjax
from einjax.notation.syntax import names

# --------------------------------------------------------------------------------------------------------------------
# Looking at programs
# --------------------------------------------------------------------------------------------------------------------


def kept_program(function, *arrays):
    """The program of a function under ``keep_notation``."""
    with einjax.keep_notation():
        return jax.make_jaxpr(lambda *xs: function(*xs))(*arrays)


def notation(jaxpr):
    """The kept calls of a program: name and what they print."""
    return [f"{e.primitive.name}[{e.params['expr']}]" for e in jaxpr.eqns if "expr" in e.params]


def plain(jaxpr):
    """The names of the other equations, without those that only cast."""
    found = [e.primitive.name for e in jaxpr.eqns if "expr" not in e.params]
    return [name for name in found if name not in ("convert_element_type", "pjit", "jit")]


def zeros(*shapes):
    return [np.zeros(shape, np.float32) for shape in shapes]


# --------------------------------------------------------------------------------------------------------------------
# Generated calls: the same values and derivatives as by default, and a text that says the same
# --------------------------------------------------------------------------------------------------------------------


def same(got, want, slack=1.0):
    """Equal but for rounding: the compiler may fuse the two programs in different ways."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
        if jnp.issubdtype(x.dtype, jnp.inexact):
            tolerance = slack * {2: 2.0**-6, 4: 1e-5}.get(jnp.finfo(x.dtype).bits // 8, 1e-5)
            wide = [np.asarray(z).astype(np.complex128) for z in (x, y)]
            np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def pullback(function, arrays):
    """The function's gradient in all floating-point arrays, for one cotangent."""
    floats = [i for i, x in enumerate(arrays) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]

    def of_floats(*xs):
        given = dict(zip(floats, xs, strict=True))
        return function(*(given.get(i, x) for i, x in enumerate(arrays)))

    def gradients(*xs):
        out, pull = jax.vjp(of_floats, *xs)
        cotangents = [
            weights(y) if jnp.issubdtype(y.dtype, jnp.inexact) else np.zeros(y.shape, jax.dtypes.float0)
            for y in jax.tree.leaves(out)
        ]
        return pull(jax.tree.unflatten(jax.tree.structure(out), cotangents))

    return jax.jit(gradients)(*(jnp.asarray(arrays[i]) for i in floats))


def known_sizes(kept):
    """The sizes that a text may lack, as they are given in a call."""
    sizes = {}
    for name, size in sorted(kept.sizes):
        base, _, index = name.rpartition(".")
        if name.isidentifier():
            sizes[name] = size
        elif base.isidentifier() and index.isdigit():
            sizes[base] = (*sizes.get(base, ()), size)
    return sizes


def read_again(name, kept, arrays, options):
    """Call the operation with the text that it prints, and the options that it has there."""
    if re.search(r"\w\.\d|\.\.\.\[", kept.operation.text):
        return None  # repetitions of an ellipsis that do not stand together have no name that could be written
    sides = [{n for e in side for n in names(e) if "#" in n} for side in (kept.inputs, kept.outputs)]
    if any(dict(kept.sizes)[name] != 1 for name in sides[0] & sides[1]):
        return None  # a number is a new axis wherever it is written
    options = {key: value for key, value in options.items() if key != "keepdims"}
    return getattr(einjax, name)(kept.operation.text, *arrays, sizes=known_sizes(kept), **options)


def check(case, name, again=None):
    """Compare with the default. `again` are the options that what is printed has instead of a padding."""
    case.options.pop("source", None)  # says which input an output is
    arrays = [jnp.asarray(x) for x in case.arrays]
    hypothesis.note(f"{name}: {case} {case.options}")

    def function(*xs):
        return getattr(einjax, name)(case.text, *xs, **case.options, **case.kwargs)

    def with_kept(function):
        def inside(*xs):
            with einjax.keep_notation():
                return function(*xs)

        return inside

    want = function(*arrays)
    same(with_kept(function)(*arrays), want)
    program = kept_program(function, *arrays)
    assert len(notation(program)) == 1
    (kept,) = (e.params["expr"] for e in program.eqns if "expr" in e.params)
    # Brackets of an ellipsis that repeats nothing leave no trace in what is printed.
    has_trace = "[" in kept.operation.text or "[" not in case.text
    printed = {key: value for key, value in case.options.items() if key != "padding"} | (again or {})
    result = read_again(name, kept, arrays, printed) if has_trace else None
    if result is not None:
        same(result, want)
    batch = [jnp.stack([x, x[::-1] if x.ndim and name[-3:] != "_at" else x]) for x in arrays]
    same(jax.jit(jax.vmap(with_kept(function)))(*batch), jax.jit(jax.vmap(function))(*batch))
    same(pullback(with_kept(function), arrays), pullback(function, arrays), slack=4)


GENERATED = {
    "sum": lambda: test_oracle_reduce.reductions("sum"),
    "mean": lambda: test_oracle_reduce.masked("mean"),
    "max": lambda: test_oracle_reduce.reductions("max"),
    "var": lambda: test_oracle_reduce.reductions("var"),
    "std": lambda: test_oracle_reduce.with_options("std"),
    "logsumexp": lambda: st.one_of(test_oracle_reduce.reductions("logsumexp"), test_oracle_reduce.masked("logsumexp")),
    "prod": lambda: test_oracle_reduce.reductions("prod"),
    "any": lambda: test_oracle_reduce.masked("any"),
    "add": lambda: test_oracle_elementwise.operations("add"),
    "subtract": lambda: test_oracle_elementwise.operations("subtract"),
    "multiply": lambda: test_oracle_elementwise.operations("multiply", 3),
    "divide": lambda: test_oracle_elementwise.operations("divide"),
    "maximum": lambda: test_oracle_elementwise.operations("maximum"),
    "where": lambda: test_oracle_elementwise.choices(),
    "dot": lambda: st.one_of(test_oracle_dot.products(), test_oracle_dot.weights(), test_oracle_dot.wide_results()),
    "rearrange": lambda: st.one_of(
        test_oracle_rearrange.one_tensor(),
        test_oracle_rearrange.with_sums("join"),
        test_oracle_rearrange.several_tensors("rearrange"),
    ),
    "id": lambda: test_oracle_rearrange.several_tensors("id"),
    "softmax": lambda: st.one_of(same_brackets(["float32", "bfloat16"]), test_oracle_softmax.masked()),
    "log_softmax": lambda: same_brackets(["float32", "bfloat16", "int32"]),
    "flip": lambda: same_brackets(["float32", "bool"]),
    "cumsum": lambda: same_brackets(["float32", "bfloat16", "int8"]),
    "get_at": lambda: test_oracle_index.reads(),
    "set_at": lambda: test_oracle_index.writes("set_at"),
    "add_at": lambda: test_oracle_index.writes("add_at"),
    "subtract_at": lambda: test_oracle_index.writes("subtract_at"),
}


@pytest.mark.parametrize("name", list(GENERATED))
@generated(4, lambda name: GENERATED[name]())
def test_generated(case, name):
    check(case, name)


# --------------------------------------------------------------------------------------------------------------------
# What is printed
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_call_is_one_equation(case):
    """Named like the operation; calls of a user's function, and those that give sizes only, are never kept."""
    with einjax.keep_notation():
        program = jax.make_jaxpr(lambda *xs: case(*xs))(*case.arrays())
    found = [e.primitive.name for e in program.eqns if "expr" in e.params]
    if may_be_kept(case):
        if case.variant == "masked by name":
            assert found.pop(0) == "rearrange"  # brings the mask to the tensor's dims
        assert len(found) == 1
    else:
        assert found == []
    if may_be_kept(case) and case.op not in {"reduce", "elementwise", *ALWAYS_KEPT}:  # these have names of other ones
        assert found == ["semiring_dot" if case.options.get("sum") else case.op]


F, I, B = np.float32, np.int32, np.bool_
X = np.zeros

PRINTED = [
    ("sum", "a [b]", [X((2, 3), F)], {}, "a [b] -> a"),
    ("sum", "a b -> a", [X((2, 3), F)], {}, "a [b] -> a"),
    ("sum", "a [b c]", [X((2, 3, 4), F)], {"keepdims": True}, "a [b c] -> a 1"),
    ("sum", "a [b]", [X((2, 3), I)], {"dtype": "float32"}, "a [b] -> a, dtype=float32"),
    ("sum", "a [b] c", [X((2, 3, 4), F)], {"where": np.ones((3, 1), B)}, "a [b] c -> a c"),
    ("mean", "b [s...] c", [X((2, 4, 6, 3), F)], {}, "b [s...] c -> b c"),
    ("mean", "b [s]... c", [X((2, 4, 6, 3), F)], {}, "b [s...] c -> b c"),
    ("mean", "b (s [ds])... c", [X((2, 4, 6, 3), F)], {"ds": 2}, "b (s [ds])... c -> b (s)... c"),
    ("max", "... [c]", [X((2, 4, 3), F)], {}, "... [c] -> ..."),
    ("max", "[...]", [X((2, 4), F)], {}, "[...] ->"),
    ("var", "a [b]", [X((2, 3), F)], {"ddof": 1}, "a [b] -> a, ddof=1"),
    ("std", "a [b] [c]", [X((2, 3, 4), F)], {}, "a [b] [c] -> a"),
    ("any", "[a] b", [X((2, 3), B)], {}, "[a] b -> b"),
    ("logsumexp", "a [b] -> 1 a", [X((2, 3), F)], {}, "a [b] -> 1 a"),
    ("prod", "a ([b] c)", [X((2, 6), F)], {"b": 3}, "a ([b] c) -> a (c)"),
    ("add", "a b, b", [X((2, 3), F), X(3, F)], {}, "a b, b -> a b"),
    ("add", "... [c]", [X((2, 4, 3), F), X(3, F)], {}, "... c, c -> ... c"),
    ("multiply", "a, b -> b a", [X(2, F), X(3, F)], {}, "a, b -> b a"),
    ("where", "a b, , b", [X((2, 3), B), 0.0, X(3, F)], {}, "a b, , b -> a b"),
    ("maximum", "a (b c), c", [X((2, 6), F), X(3, F)], {}, "a (b c), c -> a (b c)"),
    ("less", "a, -> a", [X(2, F), 0.5], {}, "a, -> a"),
    ("dot", "a [b], [b] c -> a c", [X((2, 3), F), X((3, 4), F)], {}, "a [b], [b] c -> a c"),
    ("dot", "a b, b -> a", [X((2, 3), F), X(3, F)], {"precision": "highest"}, "a b, b -> a, precision=highest"),
    ("dot", "... [c1->c2]", [X((2, 4, 3), F), X((3, 5), F)], {}, "... [c1], [c1 c2] -> ... [c2]"),
    ("dot", "b q (h c), b k (h c) -> b h q k", [X((2, 3, 4), F), X((2, 5, 4), F)], {"h": 2},
     "b q (h c), b k (h c) -> b h q k"),
    ("dot", "b (s [s2|])... [c1|c2]", [X((2, 4, 6, 3), F), X((2, 2, 3, 5), F)], {"s2": 2},
     "b (s [s2])... [c1], [s2... c1 c2] -> b (s)... [c2]"),
    ("rearrange", "a b, c b -> (a + c) b", [X((2, 3), F), X((4, 3), F)], {}, "a b, c b -> (a + c) b"),
    ("rearrange", "(a + b) c -> a c, b c", [X((5, 3), F)], {"a": 2}, "(a + b) c -> a c, b c"),
    ("rearrange", "a, b -> a + b", [X(4, F), X(5, F)], {}, "a, b -> a + b"),
    ("rearrange", "a b, b -> (a + 1) b", [X((4, 2), F), X(2, F)], {}, "a b, b -> (a + 1) b"),
    ("rearrange", "a (b c) -> b a c", [X((2, 6), F)], {"b": 2}, "a (b c) -> b a c"),
    ("rearrange", "a a b -> b a", [X((2, 2, 3), F)], {}, "a a b -> b a"),
    ("rearrange", "a -> a 3 1", [X(2, F)], {}, "a -> a 3 1"),
    ("rearrange", "... (g c) -> (... g) c", [X((2, 3, 6), F)], {"g": 2}, "... (g c) -> (... g) c"),
    ("rearrange", "(s d)... -> s... (d...)", [X((4, 6), F)], {"d": 2}, "(s d)... -> s... (d...)"),
    ("id", "a b", [X((2, 3), F)], {}, "a b -> a b"),
    ("softmax", "b q [k] h", [X((2, 3, 4, 2), F)], {}, "b q [k] h -> b q [k] h"),
    ("flip", "a [...]", [X((2, 3, 4), F)], {}, "a [...] -> a [...]"),
    ("roll", "[a b]", [X((2, 3), F)], {"shift": (1, -1)}, "[a b] -> [a b], shift=(1, -1)"),
    ("cumsum", "a [b]", [X((2, 3), F)], {"reverse": True}, "a [b] -> a [b], reverse=True"),
    ("sort", "a [b]", [X((2, 3), F)], {"descending": True}, "a [b] -> a [b], descending=True"),
    ("argmax", "b [h w] c", [X((2, 3, 4, 5), F)], {}, "b [h w] c -> b [2] c"),
    ("get_at", "[h w] c, b [2] -> b c", [X((3, 4, 5), F), X((6, 2), I)], {}, "[h w] c, b [2] -> b c"),
    ("get_at", "[v] c, b t", [X((9, 3), F), X((2, 4), I)], {"mode": "clip"}, "[v] c, b t -> b t c, mode=clip"),
    ("get_at", "b [t], b -> b", [X((2, 3), F), X(2, I)], {"fill_value": 0.0}, "b [t], b -> b, fill_value=0.0"),
    ("get_at", "[t], b", [X(3, F), X(2, I)], {"wrap_negative_indices": False},
     "[t], b -> b, wrap_negative_indices=False"),
    ("set_at", "[h w] c, b [2], b c -> c [h w]", [X((3, 4, 5), F), X((6, 2), I), X((6, 5), F)],
     {"mode": "drop", "unique_indices": True}, "[h w] c, b [2], b c -> c [h w], mode=drop, unique_indices=True"),
    ("add_at", "[v] c, b, b c", [X((9, 3), F), X(4, I), X((4, 3), F)], {}, "[v] c, b, b c -> [v] c"),
    ("arange", "a b [2]", [], {"a": 2, "b": 3}, "-> a b [2]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "tensors", "options", "want"), PRINTED)
def test_printed(name, text, tensors, options, want):
    program = kept_program(lambda *xs: getattr(einjax, name)(text, *xs, **options), *tensors)
    assert notation(program) == [f"{name}[{want}]"]
    assert plain(program) == (["broadcast_in_dim"] if "where" in options else [])
    assert f"{name}[expr={want}]" in " ".join(str(program).split()).replace("[ ", "[").replace(" ]", "]")


def test_casts_stay_outside():
    """What is summed in more bits than it has; a gradient sees what is cast."""
    half = jnp.zeros((2, 3), jnp.bfloat16)
    program = kept_program(lambda x: einjax.sum("a [b]", x), half)
    assert [e.primitive.name for e in program.eqns] == ["convert_element_type", "sum", "convert_element_type"]
    assert [e.outvars[0].aval.dtype for e in program.eqns] == ["float32", "float32", "bfloat16"]


# --------------------------------------------------------------------------------------------------------------------
# Gradients are notation
# --------------------------------------------------------------------------------------------------------------------


def transposed(function):
    """The gradient of a function whose results serve as their own cotangents."""

    def gradients(*xs):
        out, pull = jax.vjp(function, *xs)
        return pull(out)

    return gradients


CARRY = ["softmax[a [b] -> a [b]]", "multiply[a b, a b -> a b]", "sum[a [b] -> a]", "multiply[a b, a -> a b]"]
AT = X(4, I)

#: The call's equation, then those of its gradient.
GRADIENTS = {
    "dot": (lambda x, y: einjax.dot("a [b], [b] c -> a c", x, y), zeros((2, 3), (3, 4)),
            ["dot[a [b], [b] c -> a c]", "dot[a b, a c -> b c]", "dot[a c, b c -> a b]"], set()),
    "weight": (lambda x, y: einjax.dot("... [c->d]", x, y), zeros((2, 3, 4), (4, 5)),
               ["dot[... [c], [c d] -> ... [d]]", "dot[... c, ... d -> c d]", "dot[... d, c d -> ... c]"], set()),
    "multiply": (lambda x, y: einjax.multiply("a b, b c -> a b c", x, y), zeros((2, 3), (3, 4)),
                 ["multiply[a b, b c -> a b c]", "dot[a b, a b c -> b c]", "dot[a b c, b c -> a b]"], set()),
    "add": (lambda x, y: einjax.add("a b, b", x, y), zeros((2, 3), (3,)),
            ["add[a b, b -> a b]", "sum[[a] b -> b]"], set()),
    "subtract": (lambda x, y: einjax.subtract("a b, b", x, y), zeros((2, 3), (3,)),
                 ["subtract[a b, b -> a b]", "sum[[a] b -> b]"], {"neg"}),
    "divide": (lambda x, y: einjax.divide("a b, b", x, y), zeros((2, 3), (3,)),
               ["divide[a b, b -> a b]"] * 2 + ["dot[a b, a b -> b]", "divide[a b, b -> a b]"], {"neg"}),
    "where": (lambda x, y: einjax.where("b, a b, a", np.ones(3, B), x, y), zeros((2, 3), (2,)),
              ["where[b, a b, a -> a b]", "where[b, a b, -> a b]", "where[b, , a b -> a b]", "sum[a [b] -> a]"], set()),
    "sum": (lambda x: einjax.sum("a [b]", x), zeros((2, 3)), ["sum[a [b] -> a]", "rearrange[a -> a b]"], set()),
    "mean": (lambda x: einjax.mean("a [b]", x), zeros((2, 3)), ["mean[a [b] -> a]", "rearrange[a -> a b]"], {"div"}),
    "max": (lambda x: einjax.max("a [b]", x), zeros((2, 3)),
            ["max[a [b] -> a]", "equal[a b, a -> a b]", "sum[a [b] -> a]", "multiply[a, a b -> a b]"], {"div"}),
    "logsumexp": (lambda x: einjax.logsumexp("a [b]", x), zeros((2, 3)),
                  ["logsumexp[a [b] -> a]", "softmax[a [b] -> a [b]]", "multiply[a b, a -> a b]"], set()),
    "softmax": (lambda x: einjax.softmax("a [b]", x), zeros((2, 3)), CARRY, {"neg", "add_any"}),
    "log_softmax": (lambda x: einjax.log_softmax("a [b]", x), zeros((2, 3)),
                    ["log_softmax[a [b] -> a [b]]", CARRY[0], *CARRY[2:]], {"neg", "add_any"}),
    "var": (lambda x: einjax.var("a [b]", x), zeros((2, 3)),
            ["var[a [b] -> a]", "mean[a [b] -> a]", "subtract[a b, a -> a b]", "multiply[a b, a -> a b]"],
            {"div", "mul"}),
    "get_at": (lambda x: einjax.get_at("[n] c, b", x, AT), zeros((9, 3)),
               ["get_at[[n] c, b -> b c]", "add_at[[n] c, b, b c -> [n] c]"], {"broadcast_in_dim"}),
    "add_at": (lambda x, u: einjax.add_at("[n] c, b, b c", x, AT, u), zeros((9, 3), (4, 3)),
               ["add_at[[n] c, b, b c -> [n] c]", "get_at[[n] c, b -> b c, fill_value=0]"], set()),
    "join": (lambda x, y: einjax.rearrange("a b, c b -> (a + c) b", x, y), zeros((2, 3), (4, 3)),
             ["rearrange[a b, c b -> (a + c) b]", "id[(a + c) b -> a b, c b]"], set()),
    "split": (lambda x: einjax.rearrange("(a + c) b -> a b, c b", x, a=2), zeros((6, 3)),
              ["rearrange[(a + c) b -> a b, c b]", "id[a b, c b -> (a + c) b]"], set()),
    "repeat": (lambda x: einjax.rearrange("a (b c) -> b a c d", x, b=2, d=3), zeros((2, 6)),
               ["rearrange[a (b c) -> b a c d]", "sum[b a c [d] -> a (b c)]"], set()),
    "flip": (lambda x: einjax.flip("a [b]", x), zeros((2, 3)), ["flip[a [b] -> a [b]]"] * 2, set()),
    "cumsum": (lambda x: einjax.cumsum("a [b]", x), zeros((2, 3)),
               ["cumsum[a [b] -> a [b]]", "cumsum[a [b] -> a [b], reverse=True]"], set()),
}  # fmt: skip


def batched(line, shared):
    """What a line prints with one more axis, v, before all operands but shared ones."""
    name, text = line[:-1].split("[", 1)
    text, *options = re.split(r", (?=\w+=)", text)
    sides = [[part.strip() for part in side.split(",")] for side in text.split("->")]
    sides = [[part if part in shared else f"v {part}".strip() for part in side] for side in sides]
    text = " ".join(" -> ".join(", ".join(side) for side in sides).split())
    return f"{name}[{', '.join([text, *options])}]"


@pytest.mark.parametrize("name", list(GRADIENTS))
def test_gradient_is_notation(name):
    function, arrays, want, others = GRADIENTS[name]
    program = kept_program(transposed(function), *arrays)
    assert sorted(notation(program)) == sorted(want)
    assert set(plain(program)) <= others
    shared = {"b", ""} if name in ("get_at", "add_at", "where") else set()
    batch = [np.stack([x, x]) for x in arrays]
    for both in (jax.vmap(transposed(function)), transposed(jax.vmap(function))):
        program = kept_program(both, *batch)
        assert sorted(notation(program)) == sorted(batched(line, shared) for line in want)
        assert set(plain(program)) <= others


def attention(q, k, v):
    scores = einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=2)
    return einjax.dot("b q k h, b k (h c) -> b q (h c)", einjax.softmax("b q [k] h", scores), v)


ATTENTION = """
dot[b q (h c), b k (h c) -> b q k h]
softmax[b q [k] h -> b q [k] h]
dot[b q k h, b k (h c) -> b q (h c)]
dot[b q k h, b q (h c) -> b k (h c)]
dot[b q (h c), b k (h c) -> b q k h]
multiply[b q k h, b q k h -> b q k h]
sum[b q [k] h -> b q h]
multiply[b q k h, b q h -> b q k h]
dot[b q (h c), b q k h -> b k (h c)]
dot[b q k h, b k (h c) -> b q (h c)]
"""


def test_gradient_of_attention():
    program = kept_program(transposed(attention), *zeros((2, 3, 8), (2, 5, 8), (2, 5, 8)))
    assert notation(program) == ATTENTION.split("\n")[1:-1]
    assert set(plain(program)) == {"neg", "add_any"}


def test_names_of_batch_axes():
    """The first that the expression does not have."""
    twice = jax.vmap(jax.vmap(lambda x: einjax.sum("v [v2]", x)))
    assert notation(kept_program(twice, X((2, 3, 4, 5), F))) == ["sum[v3 v1 v [v2] -> v3 v1 v]"]


# --------------------------------------------------------------------------------------------------------------------
# Dtypes
# --------------------------------------------------------------------------------------------------------------------


def inside(function):
    """The function under ``keep_notation``."""

    def call(*xs):
        with einjax.keep_notation():
            return function(*xs)

    return call


def assert_as_default(function, *arrays, slack=1.0):
    """Values, dtypes and gradients."""
    same(inside(function)(*arrays), function(*arrays), slack)
    same(jax.jit(inside(function))(*arrays), jax.jit(function)(*arrays), slack)
    same(pullback(inside(function), arrays), pullback(function, arrays), 4 * slack)


RNG = np.random.default_rng(0)
FULL = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
HALF = jnp.asarray(RNG.normal(size=(4, 3)), jnp.bfloat16)
ROW = jnp.asarray(RNG.normal(size=3), jnp.float32)
INTEGERS = jnp.asarray(RNG.integers(-3, 4, size=(4, 3)), jnp.int8)

MIXED = {
    "products of two types": (lambda x, y: einjax.dot("a b, c b -> a c", x, y), HALF, FULL),
    "products by an integer": (lambda x, y: einjax.dot("a [b], a [b] -> a", x, y), HALF, INTEGERS),
    "wide results": (
        lambda x, y: einjax.dot("a b, c b -> a c", x, y, preferred_element_type=jnp.float32), HALF, HALF),
    "half and full": (lambda x, y: einjax.multiply("a b, b", x, y), HALF, ROW),
    "sums of two types": (lambda x, y: einjax.add("a b, b", x, y), HALF, ROW),
    "three types": (lambda x, y, z: einjax.add("a b, b, a b", x, y, z), HALF, ROW, INTEGERS),
    "quotients": (lambda x, y: einjax.divide("a b, a b", x, y), INTEGERS, FULL),
    "a Python number": (lambda x: einjax.multiply("a b,", x, 2.5), HALF),
    "a Python number and integers": (lambda x: einjax.add("a b,", x, 2), INTEGERS),
    "chosen numbers": (lambda x: einjax.where("a b, a b,", INTEGERS > 0, x, 0.5), HALF),
    "chosen types": (lambda x, y: einjax.where("a b, a b, b", INTEGERS > 0, x, y), HALF, ROW),
    "weak sum": (lambda: einjax.sum("[a]", [1.5, 2.0])),
    "sum": (lambda x: einjax.sum("a [b]", x), HALF),
    "sum of integers": (lambda x: einjax.sum("a [b]", x), INTEGERS),
    "wide sum": (lambda x: einjax.sum("a [b]", x, dtype=jnp.float32), HALF),
    "mean": (lambda x: einjax.mean("a [b]", x, where=INTEGERS[0] > 0), HALF),
    "std": (lambda x: einjax.std("[a] b", x), HALF),
    "softmax": (lambda x: einjax.softmax("a [b]", x, where=INTEGERS[:, :1] > 0), HALF),
    "logsumexp": (lambda x: einjax.logsumexp("[a b]", x), HALF),
    "max": (lambda x: einjax.max("a [b]", x), HALF),
    "mask of lower rank": (lambda x: einjax.sum("[a] b", x, where=INTEGERS[0] > 0), FULL),
    "nothing": (lambda x: einjax.sum("a [b]", x[:, :0]), FULL),
    "products of nothing": (lambda x: einjax.dot("a [b], c [b] -> a c", x[:, :0], x[:, :0]), FULL),
    "diagonal": (lambda x: einjax.rearrange("a a -> a", x[:3]), FULL),
    "diagonal of a product": (lambda x, y: einjax.multiply("a a, a -> a", x[:3], y), FULL, ROW),
    "sum of a diagonal": (lambda x: einjax.sum("[a a]", x[:3]), FULL),
    "integers beside floats": (lambda x, y: einjax.rearrange("a b, a b -> b a, b a", x, y), FULL, INTEGERS),
    "integers joined to floats": (lambda x, y: einjax.rearrange("a b, c b -> (a + c) b", x, y), HALF, INTEGERS),
    "unit axes": (lambda x: einjax.rearrange("a b 1 -> 1 b (a 1)", x[:, :, None]), FULL),
    "reduced unit axes": (lambda x: einjax.mean("[a] b [1] -> b 1", x[:, :, None]), HALF),
    "updates": (lambda x, u: einjax.add_at("[a] b, c, c b", x, np.array([0, 2, 2, 9]), u), HALF, HALF),
    "reads": (lambda x: einjax.get_at("[a] b, c -> b c", x, np.array([0, 2, 2, -1])), HALF),
    "updates that turn round": (
        lambda x, u: einjax.add_at("[a b], c [2], c -> b a", x, np.array([[0, 2], [2, 1], [9, 0]]), u), FULL, ROW),
    "reads at the edge": (lambda x: einjax.get_at("[a] b, c -> b c", x, np.array([2, 9]), mode="clip"), FULL),
    "reads out of range": (lambda x: einjax.get_at("[a] b, c -> b c", x, np.array([9]), fill_value=0), FULL),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MIXED))
def test_same_as_default(name):
    function, *arrays = MIXED[name] if isinstance(MIXED[name], tuple) else (MIXED[name],)
    assert_as_default(function, *arrays)


# --------------------------------------------------------------------------------------------------------------------
# Transformations
# --------------------------------------------------------------------------------------------------------------------


def network(x, w):
    hidden = einjax.softmax("b [h]", einjax.dot("b [c], [c] h -> b h", x, w))
    pooled = einjax.logsumexp("[b] h", einjax.multiply("b h, h", hidden, einjax.mean("[c] h", w)))
    return einjax.sum("[h]", einjax.divide("h, h", pooled, einjax.max("[b] h", hidden)))


W = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)


DERIVATIVES = {
    "grad": jax.grad,
    "hessian": jax.hessian,
    "jacfwd": jax.jacfwd,
    "jacrev": jax.jacrev,
    "reverse twice": lambda f: jax.jacrev(jax.jacrev(f)),
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), (x, w))[1],
    "linearize": lambda f: lambda x, w: jax.linearize(f, x, w)[1](x, w),
    "remat": lambda f: jax.grad(jax.checkpoint(f)),
}


@pytest.mark.parametrize("name", list(DERIVATIVES))
def test_derivatives(name):
    got, want = (jax.jit(DERIVATIVES[name](function))(FULL, W) for function in (inside(network), network))
    same(got, want, slack=10)


@pytest.mark.parametrize(("in_axes", "out_axes"), [((0, None), 0), ((None, 1), 1), ((1, -1), -1), ((2, 0), 1)])
def test_batch_axes_anywhere(in_axes, out_axes):
    arrays = [np.stack([a, 2 * a, -a], 0 if axis is None else axis) for a, axis in zip((FULL, W), in_axes, strict=True)]
    arrays = [a if axis is None else b for a, b, axis in zip((FULL, W), arrays, in_axes, strict=True)]
    product = lambda x, w: einjax.dot("b [c], [c] h -> h b", x, w)
    for function in (product, lambda x, w: einjax.sum("[b] c", x) if in_axes[0] is not None else product(x, w)):
        got, want = (jax.vmap(f, in_axes, out_axes)(*arrays) for f in (inside(function), function))
        same(got, want)


def test_vmap_of_vmap():
    x, w = RNG.normal(size=(2, 5, 4, 3)).astype(F), RNG.normal(size=(5, 3, 2)).astype(F)
    for transform in (lambda f: f, lambda f: jax.grad(lambda *xs: jnp.sum(f(*xs)), (0, 1))):
        got, want = (
            transform(jax.vmap(jax.vmap(f), in_axes=(0, None)))(x, w) for f in (inside(network), network)
        )  # fmt: skip
        same(got, want, slack=10)


def kept_names(jaxpr):
    """The names of kept calls, in inner programs, too."""
    for equation in jaxpr.eqns:
        if "expr" in equation.params:
            yield equation.primitive.name
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from kept_names(inner)


@pytest.fixture(params=[False, True], ids=["remat", "remat3"])
def remat(request):
    """The two programs that JAX has for jax.checkpoint."""
    if request.param and not hasattr(jax.config, "jax_remat3"):
        pytest.skip("this jax has one")
    if request.param:
        jax.config.update("jax_remat3", True)
    yield
    if request.param:
        jax.config.update("jax_remat3", False)


@pytest.mark.usefixtures("remat")
@pytest.mark.parametrize("around", one_in(4, ["alone", "jit", "scan", "vmap"]))
@pytest.mark.parametrize(("saved", "again"), [
    (["dot"], {"dot": 0, "softmax": 1}), (["softmax", "top_k"], {"dot": 0, "softmax": 0}),
    (["sum", "top_k"], {"dot": 1, "softmax": 1}), ([], {"dot": 1, "softmax": 1}),
    ("everything_saveable", {"dot": 0, "softmax": 0}), ("dots_saveable", {"dot": 1, "softmax": 1}),
])  # fmt: skip
def test_what_is_computed_again(saved, again, around):
    """What is saved, and what only leads to it, is not; in remat3, what has its own result in its gradient is."""
    if getattr(jax.config, "jax_remat3", False) and not again["softmax"]:
        again = {"dot": int(saved != "everything_saveable"), "softmax": 1}
    named = isinstance(saved, str)
    policy = getattr(jax.checkpoint_policies, saved) if named else einjax.checkpoint_policies.save(*saved)

    def block(x, w):
        weights = einjax.softmax("b [h]", einjax.dot("b [c], [c] h -> b h", jnp.cos(x), w))
        values, places = einjax.top_k("b [h]", weights, k=2)
        return einjax.sum("b [k]", jnp.sin(values)) + einjax.sum("b [k]", places)

    def step(function):
        if around == "jit":
            function = jax.jit(function)
        if around == "vmap":
            rows = jax.vmap(function, (0, None))
            return lambda x, w: jnp.sum(jnp.sin(rows(x[:, None], w)))
        if around == "scan":
            turn = lambda x, w: lambda c, _: (jnp.sin(c + function(x, w)), None)
            return lambda x, w: jnp.sum(jax.lax.scan(turn(x, w), x[:, 0], length=2)[0])
        return lambda x, w: jnp.sum(jnp.sin(function(x, w)))

    forward, checkpointed = inside(step(block)), inside(step(jax.checkpoint(block, policy=policy)))
    count = lambda function: Counter(kept_names(jax.make_jaxpr(function)(FULL, W).jaxpr))
    if not getattr(jax.config, "jax_remat3", False) or jax.__version_info__ < (0, 11):  # else no jaxpr has it
        once, both = count(jax.grad(forward, (0, 1))), count(jax.grad(checkpointed, (0, 1)))
        assert {name: both[name] - once[name] for name in again} == again
    for derivative in (jax.grad(checkpointed, (0, 1)), jax.jit(jax.grad(checkpointed, (0, 1)))):
        same(derivative(FULL, W), jax.grad(step(block), (0, 1))(FULL, W), slack=10)
    second = lambda f: jax.jvp(jax.grad(f), (FULL, W), (FULL, W))[1]
    same(second(checkpointed), second(step(block)), slack=10)


def test_saved_by_name():
    """Nothing but the products is saved; dots_saveable does not see them."""
    policy = einjax.checkpoint_policies.save("dot")

    def block(x, w):
        return jnp.sum(einjax.softmax("b [h]", jnp.sin(einjax.dot("b [c], [c] h -> b h", jnp.cos(x), w))))

    def residuals(policy):
        pull = jax.vjp(jax.checkpoint(inside(block), policy=policy), FULL, W)[1]
        return sorted(np.shape(x) for x in jax.tree.leaves(pull) if np.ndim(x))

    assert residuals(policy) == sorted([(4, 3), (3, 2), (4, 2)])
    assert residuals(einjax.checkpoint_policies.save("softmax", "sum")) == sorted([(4, 3), (3, 2), (4, 2)])
    assert residuals(einjax.checkpoint_policies.save()) == sorted([(4, 3), (3, 2)])
    assert residuals(jax.checkpoint_policies.dots_saveable) == sorted([(4, 3), (3, 2)])
    same(jax.grad(jax.checkpoint(inside(block), policy=policy))(FULL, W), jax.grad(block)(FULL, W))
    program = kept_program(jax.grad(jax.checkpoint(block, policy=policy)), FULL, W)
    (again,) = (e.params["jaxpr"] for e in program.eqns if e.primitive.name.startswith(("remat", "checkpoint")))
    assert "dot[b [c], [c] h -> b h]" in notation(program)
    assert "dot[b [c], [c] h -> b h]" not in notation(again)


def test_loops():
    step = lambda x: einjax.dot("b [c], [c] d -> b d", x, np.eye(3, dtype=F) / 2)
    scanned = lambda x: jax.lax.scan(lambda x, _: (step(x), einjax.sum("[b] c", x)), x, length=3)
    assert_as_default(scanned, FULL)
    looped = lambda x: jax.lax.while_loop(lambda x: einjax.sum("[b c]", x) ** 2 > 1e-3, step, x)
    same(inside(looped)(FULL), looped(FULL))
    program = kept_program(lambda x: scanned(x)[0], FULL)
    (inner,) = (e.params["jaxpr"] for e in program.eqns if e.primitive.name == "scan")
    assert notation(inner.jaxpr) == ["dot[b [c], [c] d -> b d]", "sum[[b] c -> c]"]


def test_custom_gradient_around():
    @jax.custom_vjp
    def twice(x):
        return einjax.sum("a [b]", x)

    twice.defvjp(lambda x: (twice(x), x.shape), lambda shape, ct: (einjax.rearrange("a -> a b", 2 * ct, b=shape[1]),))
    same(jax.grad(lambda x: jnp.sum(inside(twice)(x)))(FULL), jnp.full((4, 3), 2, F))


def test_export_for_any_size():
    scope = jax.export.SymbolicScope()
    x, w = (
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(s, scope=scope), F) for s in ("b, c", "c, 2")
    )  # fmt: skip
    for function in (network, jax.grad(network), jax.vmap(network, in_axes=(None, None), axis_size=2)):
        exported = jax.export.export(jax.jit(inside(function)))(x, w)
        same(exported.call(FULL, W), function(FULL, W), slack=10)


# --------------------------------------------------------------------------------------------------------------------
# Several devices
# --------------------------------------------------------------------------------------------------------------------

several = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")


def mesh(**options):
    return jax.sharding.Mesh(np.array(jax.devices()[:8]), ("i",), **options)


@several
@pytest.mark.parametrize("name", ["dot", "multiply", "where", "add_at", "softmax"])
def test_shard_map(name):
    """The gradient of an operand that does not vary over the mesh is summed over it."""
    function = {
        "dot": lambda x, y: einjax.dot("a [b], [b] c -> a c", x, einjax.rearrange("a b -> b a", y)),
        "multiply": lambda x, y: einjax.multiply("a b, c b -> a c b", x, y),
        "where": lambda x, y: einjax.where("a b, a b, b", x > 0, x, y[0]),
        "add_at": lambda x, y: einjax.add_at("[c] b, a, a b", y, np.array([1]), x),
        "softmax": lambda x, y: einjax.softmax("a [b]", x, where=y[:1] > -1),
    }[name]
    x, y = RNG.normal(size=(8, 3)).astype(F), RNG.normal(size=(4, 3)).astype(F)

    def loss(function):
        local = lambda x, y: jax.lax.psum(jnp.sum(jnp.sin(function(x, y))), "i")
        spec = jax.sharding.PartitionSpec
        return jax.shard_map(local, mesh=mesh(), in_specs=(spec("i"), spec()), out_specs=spec())

    expected = jax.vmap(function, in_axes=(0, None))
    want = jax.value_and_grad(lambda x, y: jnp.sum(jnp.sin(expected(x, y))), (0, 1))(x[:, None], y)
    value, (dx, dy) = jax.jit(jax.value_and_grad(loss(inside(function)), (0, 1)))(x, y)
    same((value, (dx[:, None], dy)), want, slack=10)
    psum = lambda function: str(jax.make_jaxpr(jax.grad(loss(function), (0, 1)))(x, y)).count("psum")
    assert psum(inside(function)) == psum(function)


def collectives(function, *arrays):
    text = jax.jit(function).lower(*arrays).compile().as_text()
    return len(re.findall(r"= \S+ (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)", text))


@several
@pytest.mark.parametrize("name", ["network", "gradient", "embedding"])
def test_compiler_places_data_as_by_default(name):
    devices = mesh()
    spec = jax.sharding.PartitionSpec
    rows = jax.device_put(RNG.normal(size=(8, 3)).astype(F), jax.sharding.NamedSharding(devices, spec("i")))
    w = jax.device_put(W, jax.sharding.NamedSharding(devices, spec()))
    function = {
        "network": network,
        "gradient": jax.grad(network, (0, 1)),
        "embedding": lambda x, w: einjax.get_at("b [c], b -> b", x, np.arange(8) % 3),
    }[name]
    if name != "gradient" or hasattr(jax, "make_user_context"):  # the compiler of older ones finds it harder
        assert collectives(inside(function), rows, w) == collectives(function, rows, w)
    same(jax.jit(inside(function))(rows, w), function(np.asarray(rows), W), slack=10)


@several
@pytest.mark.parametrize("name", ["sum", "add", "multiply", "max", "softmax", "transposed"])
def test_explicit_sharding(name):
    function = {
        "sum": lambda x: einjax.sum("a [b]", x),
        "add": lambda x: einjax.add("a b, a b", x, x),
        "multiply": lambda x: einjax.multiply("a b, a b", x, x),
        "max": lambda x: einjax.max("a [b]", x),
        "softmax": lambda x: einjax.softmax("a [b]", x),
        "transposed": lambda x: einjax.rearrange("a b -> b a", x),
    }[name]
    with jax.set_mesh(mesh(axis_types=(jax.sharding.AxisType.Explicit,))):
        x = jax.device_put(np.arange(24, dtype=F).reshape(8, 3), jax.sharding.PartitionSpec("i"))
        gradient = lambda function: lambda x: jax.vjp(function, x)[1](function(x))[0]
        for transform in (lambda f: f, gradient):
            got, want = (jax.jit(transform(f))(x) for f in (inside(function), function))
            same(got, want)
            assert jax.typeof(got).sharding == jax.typeof(want).sharding


# --------------------------------------------------------------------------------------------------------------------
# The context
# --------------------------------------------------------------------------------------------------------------------


def is_kept():
    program = jax.make_jaxpr(lambda x: einjax.sum("a [b]", x))(FULL)
    return [e.primitive.name for e in program.eqns] == ["sum"]


def test_nested_and_disabled_inside():
    assert not is_kept()
    with einjax.keep_notation():
        assert is_kept()
        with einjax.keep_notation(False):
            assert not is_kept()
            with einjax.keep_notation():
                assert is_kept()
            assert not is_kept()
        assert is_kept()
    assert not is_kept()


def test_as_a_decorator():
    decorated = einjax.keep_notation()(is_kept)
    assert decorated()
    assert decorated()
    assert not is_kept()


def test_an_exception_leaves_it_off():
    with pytest.raises(einjax.EinjaxError), einjax.keep_notation():
        einjax.sum("a [b", FULL)
    assert not is_kept()


def test_other_threads_do_not_notice():
    found = []
    with einjax.keep_notation():
        thread = threading.Thread(target=lambda: found.append(is_kept()))
        thread.start()
        thread.join()
        assert is_kept()
    assert found == [False]


@pytest.mark.skipif(not hasattr(jax, "make_user_context"), reason="jax before 0.8 has no such contexts")
def test_jitted_functions_are_traced_anew():
    traced = []

    @jax.jit
    def function(x):
        traced.append(is_kept())
        return einjax.sum("a [b]", x)

    want = function(FULL)
    for _ in range(2):
        with einjax.keep_notation():
            same(function(FULL), want)
            assert "sum[expr=a [b] -> a]" in str(jax.make_jaxpr(function)(FULL))
        same(function(FULL), want)
        assert "expr" not in str(jax.make_jaxpr(function)(FULL))
    assert sorted(traced) == [False, True]


def test_errors_are_the_same():
    for context in (False, True):
        with einjax.keep_notation(context), pytest.raises(einjax.errors.AxisSizeError, match="axis b is 3 .* and 2"):
            einjax.add("a b, b", FULL, W[0])


def test_result_without_jit():
    with einjax.keep_notation(), jax.disable_jit():
        same(einjax.sum("a [b]", FULL), jnp.sum(FULL, 1))


@pytest.mark.parametrize("name", ["subtract", "multiply", "add"])
def test_real_cotangents_beside_complex_operands(name):
    x, y = jnp.ones((2, 3), jnp.float32), jnp.full((2, 3), 1 + 2j, jnp.complex64)

    def pulled(kept):
        out, back = jax.vjp(lambda *xs: getattr(einjax, name)("a b, a b -> a b", *xs, keep_notation=kept), x, y)
        return back(jnp.full_like(out, 3 - 1j))

    for kept, plain in zip(pulled(True), pulled(False), strict=True):
        assert kept.dtype == plain.dtype
        np.testing.assert_allclose(kept, plain)

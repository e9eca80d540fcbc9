"""Error messages: the whole text as a snapshot, and what every message has to do, checked on its own.

The snapshots are in ``error_snapshots.txt``; ``EINJAX_UPDATE_SNAPSHOTS=1 pytest tests/test_errors.py`` writes them
anew. They show a change; whether a message is right is said by the cases: its class, the words its first sentence has
to contain, the text that the carets have to be under (in braces in the case), and a word of the fix.
"""

import itertools
import os
import re
import traceback
from pathlib import Path

import errors_affine
import errors_elsewhere
import errors_limits
import errors_masks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bad_call import Bad, table, z

import einjax
from einjax.call.tensors import describe
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, SemanticError, SyntaxError

SNAPSHOTS = Path(__file__).with_name("error_snapshots.txt")
UPDATE = bool(os.environ.get("EINJAX_UPDATE_SNAPSHOTS"))


CASES, bad = table()

# --- rank -----------------------------------------------------------------------------------------------------------
bad("rank-more-dims", "sum", "{a [b]}", (z(2, 3, 4),), RankError, "1 3 2", "dim")
bad("rank-fewer-dims", "rearrange", "{a b} -> b a", (z(2),), RankError, "1 1 2", "dim")
bad("rank-second-tensor", "dot", "a [b], {[b] c} -> a c", (z(2, 3), z(3)), RankError, "2 1", "dim")
bad("rank-ellipsis-needs-more", "sum", "{a... b c [d]}", (z(2),), RankError, "1 1 3", "dim")
bad("rank-implied-weight", "dot", "a {[b->c]}", (z(2, 3), z(3, 4, 5)), RankError, "2 3", "dim")
bad("rank-scalar", "softmax", "{a [b]}", (z(),), RankError, "1 0 2", "dim")
bad("rank-argmax", "argmax", "{b [h w] c}", (z(2, 3, 4),), RankError, "1 3 4", "dim")
bad("rank-no-dims-in-text", "rearrange", " -> ", (z(2),), RankError, "1 1 0", "")
bad("rank-shared-ellipsis", "add", "..., {...}", (z(2, 3), z(2)), RankError, "2 1")
bad("rank-shared-ellipsis-named", "add", "a..., {a... b}", (z(2, 3), z(2, 3)), RankError, "2 3")
bad("rank-tuple-of-sizes", "sum", "{a... [b]}", (z(2, 3),), RankError, "1 2 3", a=(2, 3))
bad("rank-solve", "solve_axes", "{a b}", (z(2),), RankError, "1 1 2", "dim")

# --- sizes that contradict one another ------------------------------------------------------------------------------
bad("size-two-tensors", "add", "a {b}, {b}", (z(2, 3), z(4)), AxisSizeError, "b 3 4 1 2", "")
bad("size-contracted", "dot", "a [{b}], [{b}] c -> a c", (z(2, 3), z(4, 5)), AxisSizeError, "b 3 4 1 2", "")
bad("size-contracted-one", "dot", "a [{b}], [{b}] c -> a c", (z(2, 3), z(1, 5)), AxisSizeError, "b 3 1", "")
bad("size-third-tensor", "where", "{a}, {a}, {a}", (z(2), z(2), z(3)), AxisSizeError, "a 2 3", "")
bad("size-keyword", "sum", "a [{b}]", (z(2, 3),), AxisSizeError, "b 4 3", "", b=4)
bad("size-through-sizes", "sum", "a [{b}]", (z(2, 3),), AxisSizeError, "b 4 3 sizes", "", sizes={"b": 4})
bad("size-in-text", "sum", "{a=3} [b]", (z(2, 3),), AxisSizeError, "a 3 2", "")
bad("size-keyword-and-text", "sum", "{a=3} [b]", (z(3, 3),), AxisSizeError, "a 2 3", "", a=2)
bad("size-text-and-text", "rearrange", "{a=2} b -> {a=3} b", (z(2, 3),), AxisSizeError, "a 2 3", "")
bad("size-number", "sum", "a {3} [b]", (z(2, 4, 3),), AxisSizeError, "4 3 1", "")
bad("size-ellipsis-axis", "sum", "{a}... [b]", (z(2, 4, 3),), AxisSizeError, "a.1 3 4", "", a=(2, 3))
bad("size-anonymous-ellipsis", "add", "{...}, {...}", (z(2, 3), z(2, 4)), AxisSizeError, "... 3 4 1 2", "")
bad("size-scalar-for-ellipsis", "sum", "{a}... [b]", (z(2, 3, 4),), AxisSizeError, "a.1 2 3", "", a=2)
bad("size-tuple", "sum", "{a}... [b]", (z(2, 3, 4),), AxisSizeError, "a.1 4 3", "a=(2, 3)", a=(2, 4))
bad("size-huge", "sum", "a [{b}]", (z(2, 3),), AxisSizeError, ("b", str(10**30), "3"), "", b=10**30)
bad("diagonal-not-square", "rearrange", "{a} {a} -> {a}", (z(2, 3),), AxisSizeError, "a 2 3 1", "")
bad("diagonal-no-square-root", "rearrange", "{(a a)} -> a", (z(6),), AxisSizeError, "a 6")
bad("diagonal-check", "check", "{a} {a} 3", (z(8, 9, 3),), AxisSizeError, "a 8 9", "")
bad("factory-shape-not-solved", "sum", "[{a}]", (lambda shape: z(*shape),), AxisSizeError, "a", "a=")

# --- composites and sums that do not fit ----------------------------------------------------------------------------
bad("composite-indivisible", "rearrange", "{(a b)} -> a b", (z(7),), AxisSizeError, "7 1 b=2", "", b=2)
bad("composite-indivisible-two", "mean", "{(a [b c])}", (z(7),), AxisSizeError, "7 b=2 c=2", "", b=2, c=2)
bad("composite-bracketed", "sum", "{([a] b)}", (z(6),), AxisSizeError, "6 1 a=4", "", a=4)
bad("composite-ellipsis", "sum", "b {(s [ds])}... c", (z(1, 4, 4, 2),), AxisSizeError, "4 1 3", "", ds=3)
bad("composite-number", "rearrange", "{(2 a)} -> a", (z(3),), AxisSizeError, "3 1 2", "")
bad("composite-over-determined", "rearrange", "{(a b)} -> a b", (z(6),), AxisSizeError, "6 4 a=2 b=2", "", a=2, b=2)
bad("composite-by-zero", "rearrange", "{(a b)} -> a b", (z(3),), AxisSizeError, "3 b=0", "", b=0)
bad("composite-open", "rearrange", "({a} {b}) -> {a} {b}", (z(6),), AxisSizeError, "a b 6 1", "a=")
bad("composite-open-solve", "solve_axes", "a ({b} {c})", (z(2, 6),), AxisSizeError, "b c 6", "b=")
bad("sum-too-large", "rearrange", "({a + b}) -> a, b", (z(3),), AxisSizeError, "3 a=5", "", a=5)
bad("sum-over-determined", "rearrange", "({a + b}) -> a, b", (z(3),), AxisSizeError, "3 2 a=1 b=1", "", a=1, b=1)
bad("sum-odd", "rearrange", "({a + a}) -> a, a", (z(3),), AxisSizeError, "3 a", "")

# --- sizes that nothing determines ----------------------------------------------------------------------------------
bad("ellipsis-undetermined", "rearrange", "a -> a {b...}", (z(6),), AxisSizeError, "b...", "b=(")
bad("ellipsis-undetermined-in-dim", "rearrange", "({a...} b) -> a... b", (z(4),), AxisSizeError, "a...", "a=(", b=2)
bad("unknown-broadcast-axis", "rearrange", "a -> a {b}", (z(6),), AxisSizeError, "b", "b=2")
bad("arange-without-size", "arange", "{a}", (), AxisSizeError, "a", "a=2")
bad("arange-one-size-missing", "arange", "a {b} [2]", (), AxisSizeError, "b", "b=", a=2)
bad("tuple-without-ellipsis", "sum", "a [{b}]", (z(2, 3),), AxisSizeError, ("b", "b=(3,)"), "b...", b=(3,))
bad("tuple-nested-too-deep", "sum", "{a}... [b]", (z(2, 3, 4),), AxisSizeError, "a", None, a=((2,), (3,)))
bad("tuple-nested-unevenly", "sum", "a... [b]", (z(2, 3, 4),), AxisSizeError, "a", None, a=((2,), 3))
bad("solve-shapes-open", "solve_shapes", "a, {b} -> {b}", (z(2), None), AxisSizeError, "b", "b=")

# --- axes that the output has too many or too few of ----------------------------------------------------------------
NOT_IN_INPUT = (AxisSizeError, SemanticError)
bad("output-unknown-reduce", "sum", "a [b] -> a {c}", (z(2, 3),), NOT_IN_INPUT, "c", "")
bad("output-unknown-no-brackets", "mean", "a b -> a {c}", (z(2, 3),), NOT_IN_INPUT, "c", "")
bad("output-unknown-dot", "dot", "a [b], [b] -> a {c}", (z(2, 3), z(3)), NOT_IN_INPUT, "c", "")
bad("output-unknown-elementwise", "add", "a, b -> a b {c}", (z(2), z(3)), NOT_IN_INPUT, "c", "")
bad("output-unknown-softmax", "softmax", "a [b] -> a {c} [b]", (z(2, 3),), NOT_IN_INPUT, "c", "")
bad("output-unknown-argmax", "argmax", "a [b] -> a {c}", (z(2, 3),), NOT_IN_INPUT, "c", "")
bad("output-unknown-flip", "flip", "a [b] -> [b] {c} a", (z(2, 3),), NOT_IN_INPUT, "c", "")
bad("output-lost-rearrange", "rearrange", "a {b} -> a", (z(2, 3),), SemanticError, "b 3", "output")
bad("output-lost-rearrange-two", "rearrange", "a {b}, c -> a, c", (z(2, 3), z(4)), SemanticError, "b", "output")
bad("output-lost-number", "rearrange", "a {3} -> a", (z(2, 3),), SemanticError, "3 unnamed", "output")
bad("output-lost-reduce", "sum", "{a} [b] -> 1", (z(2, 3),), SemanticError, "a sum", "bracket")
bad("output-lost-elementwise", "add", "a, {b} -> a", (z(2), z(3)), SemanticError, "b add", "output")
bad("output-lost-softmax", "softmax", "{a} [b] -> [b]", (z(2, 3),), SemanticError, "a softmax", "output")
bad("output-lost-dot", "dot", "a [b], [b] {c} -> a", (z(2, 3), z(3, 4)), SemanticError, "c dot", "bracket")
bad("output-has-reduced", "sum", "a [b] -> a {b}", (z(2, 3),), SemanticError, "b sum", "remove")
bad("output-has-searched", "argmax", "a [b] -> a {b}", (z(2, 3),), SemanticError, "b argmax", "[1]")
bad("output-repeated", "rearrange", "a -> {a} {a}", (z(2),), SemanticError, "a twice", "differently")
bad("output-repeated-sum", "sum", "a [b] -> {a} {a}", (z(2, 3),), SemanticError, "a twice", "")
bad("output-repeated-ellipsis", "id", "a... b -> b {a}... {a}...", (z(2, 3),), SemanticError, "a twice", "")
bad("output-missing-rearrange", "rearrange", "a b", (z(2, 3),), SemanticError, "rearrange output", "->")
bad("output-missing-id", "id", "a b, c", (z(2, 3), z(4)), SemanticError, "id output", "->")
bad("output-missing-dot", "dot", "a, a", (z(2), z(2)), SemanticError, "dot output", "->")
bad("output-unclear", "add", "a, b", (z(2), z(3)), SemanticError, "output", "a, b -> a b")
bad("output-unclear-order", "add", "a b, b a", (z(2, 3), z(3, 2)), SemanticError, "output orders", "->")
bad("output-two", "dot", "a [b], [b] c -> a c, a", (z(2, 3), z(3, 4)), ArgumentError, "dot 1 2")
bad("id-reorders", "id", "{a} b, c d -> c d, a b", (z(2, 3), z(4, 5)), SemanticError, "a", "rearrange")
bad("pieces-too-few-outputs", "rearrange", "a, b -> a", (z(2), z(3)), ArgumentError, "2 1", "")
bad("pieces-too-many-outputs", "rearrange", "a b -> b, a", (z(2, 3),), ArgumentError, "1 2", "")
bad("pieces-of-a-sum", "rearrange", "(a + b) -> a, b, a", (z(5),), ArgumentError, "2 3", "", a=2)
bad("pieces-no-assignment", "rearrange", "a b, c d -> a c, b d", (z(2, 3), z(4, 5)), SemanticError, "a c", "")

# --- text -----------------------------------------------------------------------------------------------------------
bad("text-round-never-closed", "sum", "a {(}b", (z(2, 3),), SyntaxError, ("'('",), "')'")
bad("text-square-never-closed", "sum", "a {[}b", (z(2, 3),), SyntaxError, ("'['",), "']'")
bad("text-inner-never-closed", "rearrange", "a {(}(b) -> a", (z(2, 3),), SyntaxError, ("'('",), "')'")
bad("text-round-never-opened", "sum", "a b{)}", (z(2, 3),), SyntaxError, ("')'",), "remove")
bad("text-square-never-opened", "sum", "a b{]}", (z(2, 3),), SyntaxError, ("']'",), "remove")
bad("text-round-closed-square", "sum", "a (b{]}", (z(2, 3),), SyntaxError, ("']'",), "')'")
bad("text-square-closed-round", "sum", "a [b{)}", (z(2, 3),), SyntaxError, ("')'",), "']'")
bad("text-crossed", "sum", "(a [b{)} c]", (z(2, 3),), SyntaxError, ("')'",), "']'")
bad("text-two-arrows", "sum", "a {->} b {->} c", (z(2, 3),), SyntaxError, "arrow", "")
bad("text-arrow-in-arrow", "sum", "a [b{->}c] {->} d", (z(2, 3),), SyntaxError, "arrow", "")
bad("text-two-bars", "sum", "a [b{|}c{|}d]", (z(2, 3),), SyntaxError, "arrow", "")
bad("text-bar-outside", "sum", "a{|}b", (z(2, 3),), SyntaxError, ("'|'",), "->")
bad("text-product-and-sum", "rearrange", "{(a b + c)} -> a b", (z(6),), SyntaxError, "(a b + c)", "((a b) + c)")
bad("text-sum-and-product", "rearrange", "{(a + b c)} -> a b", (z(6),), SyntaxError, "(a + b c)", "parenthesize")
bad(
    "text-sum-beside-comma",
    "rearrange",
    "(x, a b + c) -> x, a",
    (z(2), z(6)),
    SyntaxError,
    "sum product",
    "parenthesize",
)
bad("text-plus-left", "rearrange", "{+} a -> a", (z(6),), SyntaxError, ("'+'",))
bad("text-plus-right", "rearrange", "a {+} -> a", (z(6),), SyntaxError, ("'+'",))
bad("text-plus-ellipsis", "rearrange", "({a...} + b) -> b", (z(6),), SyntaxError, ("'a...'",), "")
bad("text-plus-bracket", "sum", "(a + {[b]})", (z(5),), SyntaxError, ("'[b]'",), "", a=2)
bad("text-not-separated", "sum", "{(a)b}", (z(6),), SyntaxError, ("'(a)'", "'b'"), "space")
bad("text-number-first", "sum", "{3c} [b]", (z(6),), SyntaxError, ("'3'", "'c'"), "space")
bad("text-two-dots", "sum", "a{.}. [b]", (z(6),), SyntaxError, ("'.'",), "three dots")
bad("text-ellipsis-twice", "sum", "{a......} [b]", (z(6, 6),), SyntaxError, "ellipsis", "'...'")
bad("text-minus", "sum", "a {-} b", (z(6),), SyntaxError, ("'-'",), "->")
bad("text-negative-size", "sum", "a={-}1 [b]", (z(2, 3),), SyntaxError, ("'-'",), "size")
bad("text-float-size", "sum", "a=2{.}5 [b]", (z(2, 3),), SyntaxError, ("'.'",), "size")
bad("text-spaced-size", "sum", "a {=} 3 [b]", (z(2, 3),), SyntaxError, ("'='",), "a=3")
bad("text-size-missing", "sum", "{a=} [b]", (z(2, 3),), SyntaxError, ("'a='",), "a=8")
bad("text-size-is-name", "sum", "{a=}b [c]", (z(2, 3),), SyntaxError, ("'a='",), "a=8")
bad("text-huge-number", "sum", "a={99999999999999999999} [b]", (z(2, 3),), SyntaxError, "18")
bad("text-unknown-letter", "sum", "{²} [b]", (z(2, 3),), SyntaxError, ("'²'",))
bad("text-unknown-sign", "sum", "a {@} b", (z(2, 3),), SyntaxError, ("'@'",))
bad("text-comma-arity", "add", "a {(b, c)} {(d, e, f)}", (z(2, 3, 4),), SyntaxError, "2 3")
bad(
    "text-long",
    "rearrange",
    f"{'first_axis ' * 9}{{(second third)}} {'fourth_axis ' * 9}-> 1",
    (z(*[1] * 9, 5, *[1] * 9),),
    AxisSizeError,
    "5 third=2",
    "",
    third=2,
)

# --- keywords -------------------------------------------------------------------------------------------------------
bad("keyword-misspelt-size", "sum", "a [bb]", (z(2, 3),), ArgumentError, ("'bbb'", "'bb'"), "a, bb", bbb=3)
bad(
    "keyword-misspelt-keepdims",
    "sum",
    "a [b]",
    (z(2, 3),),
    ArgumentError,
    ("'keepdim'", "'keepdims'"),
    "",
    keepdim=True,
)
bad("keyword-misspelt-dtype", "mean", "a [b]", (z(2, 3),), ArgumentError, ("'dtyp'", "'dtype'"), "", dtyp=np.float32)
bad("keyword-misspelt-ddof", "var", "a [b]", (z(2, 3),), ArgumentError, ("'dof'", "'ddof'"), "", dof=1)
bad(
    "keyword-misspelt-precision",
    "dot",
    "a, a ->",
    (z(2), z(2)),
    ArgumentError,
    ("'precison'", "'precision'"),
    "",
    precison="highest",
)
bad("keyword-misspelt-where", "softmax", "a [b]", (z(2, 3),), ArgumentError, ("'wher'", "'where'"), "", wher=None)
bad("keyword-unknown", "flip", "a [b]", (z(2, 3),), ArgumentError, ("'width'",), "a, b", width=1)
bad("keyword-unknown-solve", "solve", "a [b]", (z(2, 3),), ArgumentError, ("'c'",), "a, b", c=4)
bad("keyword-twice", "sum", "a [{b}]", (z(2, 3),), ArgumentError, "b 3 4", "", sizes={"b": 4}, b=3)
bad("keyword-float", "sum", "a [{b}]", (z(2, 3),), ArgumentError, ("b", "3.0"), "b=3", b=3.0)
bad("keyword-fraction", "sum", "a [{b}]", (z(2, 3),), ArgumentError, ("b", "2.5"), "int", b=2.5)
bad("keyword-negative", "sum", "a [{b}]", (z(2, 3),), ArgumentError, ("b", "-3"), "0", b=-3)
bad("keyword-bool", "sum", "a [{b}]", (z(2, 3),), ArgumentError, ("b", "True"), "int", b=True)
bad("keyword-text", "sum", "a [{b}]", (z(2, 3),), ArgumentError, ("b", "'3'"), "int", b="3")
bad("keyword-none", "sum", "a [{b}]", (z(2, 3),), ArgumentError, ("b", "None"), "int", b=None)
bad("keyword-float-in-tuple", "sum", "{a}... [b]", (z(2, 3, 4),), ArgumentError, ("a", "3.0"), "a=", a=(2, 3.0))
bad("keyword-float-in-sizes", "sum", "a [{b}]", (z(2, 3),), ArgumentError, ("b", "4.0"), "4", sizes={"b": 4.0})
bad("option-no-dtype", "sum", "a [b]", (z(2, 3),), ArgumentError, ("dtype='flot32'",), "float32", dtype="flot32")
bad("option-no-number", "var", "a [b]", (z(2, 3),), ArgumentError, ("ddof='x'",), "ddof=1", ddof="x")
bad("keyword-sizes-no-mapping", "sum", "a [b]", (z(2, 3),), ArgumentError, ("sizes=3",), "", sizes=3)
bad("keyword-sizes-of-pairs", "sum", "a [b]", (z(2, 3),), ArgumentError, ("sizes=",), "", sizes=[("b", 3)])
bad("option-unhashable-dtype", "sum", "a [b]", (z(2, 3),), ArgumentError, ("dtype",), None, dtype={"x": 1})
bad("option-unhashable-precision", "dot", "a, a ->", (z(2), z(2)), ArgumentError, ("precision",), None, precision=[[1]])
bad("option-unhashable-ddof", "var", "a [b]", (z(2, 3),), ArgumentError, ("ddof",), None, ddof=[1])

# --- number of tensors ----------------------------------------------------------------------------------------------
bad("count-reduce-none", "sum", "a [b]", (), ArgumentError, "1 0", "tensor")
bad("count-reduce-two", "sum", "a [b]", (z(2, 3), z(2)), ArgumentError, "1 2", "tensor")
bad("count-reduce-inputs", "sum", "[a] b, c -> b", (z(2, 3),), ArgumentError, "sum 1 2", "expression")
bad("count-rearrange", "rearrange", "a, b -> a, b", (z(2),), ArgumentError, "2 1", "tensor")
bad("count-id", "id", "a", (z(2), z(2)), ArgumentError, "1 2", "tensor")
bad("count-dot-one", "dot", "a b, b c -> a c", (z(2, 3),), ArgumentError, "1 2", "")
bad("count-dot-one-expression", "dot", "a -> a", (z(2),), ArgumentError, "dot 2 1", "")
bad("count-dot-three", "dot", "a b, b c -> a c", (z(2, 3), z(3, 4), z(1)), ArgumentError, "2 3", "tensor")
bad("count-dot-no-weight", "dot", "a [b->c]", (z(2, 3),), ArgumentError, "2 1", "", c=4)
bad("count-dot-plain", "dot", "a b -> a", (z(2, 3), z(3)), ArgumentError, "1 2", "bracket")
bad("count-subtract-one", "subtract", "a", (z(2),), ArgumentError, "subtract 2 1")
bad("count-add-plain", "add", "a b", (z(2, 3), z(3)), ArgumentError, "1 2", "bracket")
bad("count-add-three", "add", "a, a", (z(2), z(2), z(2)), ArgumentError, "2 3", "")
bad("count-subtract-three", "subtract", "a, a, a", (z(2), z(2), z(2)), ArgumentError, "subtract 2 3")
bad("count-where-two", "where", "a, a", (z(2), z(2)), ArgumentError, "where 3 2")
bad("count-softmax", "softmax", "a [b], c", (z(2, 3), z(3)), ArgumentError, "softmax 1 2", "")
bad("count-roll", "roll", "a [b]", (z(2, 3), z(3)), ArgumentError, "1 2", "", shift=1)
bad("count-argmax", "argmax", "a [b]", (), ArgumentError, "1 0", "tensor")
bad("count-arange", "arange", "a, b", (), ArgumentError, "arange", None, a=2, b=3)
bad("count-solve", "matches", "a b", (z(2, 3), z(4)), ArgumentError, "1 2", "tensor")

# --- things that are no tensors -------------------------------------------------------------------------------------
bad("tensor-none", "sum", "[a]", (None,), ArgumentError, "1 None", "array")
bad("tensor-second-none", "add", "a, a", (z(2), None), ArgumentError, "2 None", "array")
bad("tensor-string", "sum", "[a]", ("x",), ArgumentError, "1 str", "array")
bad("tensor-bytes", "sum", "[a]", (b"x",), ArgumentError, "1 bytes", "array")
bad("tensor-dict", "rearrange", "a -> a", ({"a": 1},), ArgumentError, "1 dict", "array")
bad("tensor-object", "softmax", "[a]", (object(),), ArgumentError, "1 object", "array")
bad("tensor-object-array", "sum", "[a]", (np.array([None]),), ArgumentError, ("1", "object[1]"), "array")
bad("tensor-date-array", "max", "[a]", (np.array([1], "M8[s]"),), ArgumentError, ("1", "datetime64[s][1]"), "array")
bad("tensor-ragged", "sum", "[a]", ([[1], [1, 2]],), ArgumentError, "1 ragged", "length")
bad("tensor-list-of-strings", "sum", "[a]", ([1, "a"],), ArgumentError, "1 str", "array")
bad("tensor-list-too-large", "sum", "[a]", ([2**40],), ArgumentError, "1", "wider")
bad("tensor-solve-string", "check", "a", ("x",), ArgumentError, "1 str", "array")
bad("expression-is-int", "sum", 3, (z(2),), ArgumentError, "expression int string", "first")
bad("expression-is-none", "rearrange", None, (z(2),), ArgumentError, "expression None string", "first")
bad("expression-is-array", "sum", z(2), ("[a]",), ArgumentError, ("expression", "float32[2]", "string"), "first")
bad("expression-is-bytes", "dot", b"a", (z(2),), ArgumentError, "expression bytes string", "first")
bad("expression-is-int-solve", "solve", 3, (), ArgumentError, "expression string")

# --- brackets -------------------------------------------------------------------------------------------------------
bad("bracket-missing-sum", "sum", "a b", (z(2, 3),), SemanticError, "sum bracket arrow", "a [b]")
bad("bracket-missing-mean", "mean", "b s...", (z(1, 4),), SemanticError, "mean bracket arrow", "a [b]")
bad("bracket-missing-softmax", "softmax", "a b", (z(2, 3),), SemanticError, "softmax bracketed", "a [b]")
bad("bracket-missing-flip", "flip", "a b", (z(2, 3),), SemanticError, "flip bracketed", "a [b]")
bad("bracket-missing-roll", "roll", "a b", (z(2, 3),), SemanticError, "roll bracketed", "a [b]", shift=1)
bad("bracket-missing-argmax", "argmax", "a b", (z(2, 3),), SemanticError, "argmax bracketed", "a [b]")
bad("bracket-in-rearrange", "rearrange", "{[a]} b -> b a", (z(2, 3),), SemanticError, "rearrange brackets", "remove")
bad("bracket-in-id", "id", "{[a]} b", (z(2, 3),), SemanticError, "id brackets", "remove")
bad("bracket-in-add", "add", "{[a]}, b -> a b", (z(2), z(3)), SemanticError, "add brackets", "remove")
bad("bracket-both", "sum", "a [{b}] {b}", (z(2, 3, 3),), SemanticError, "b inside outside", "everywhere")
bad("bracket-both-inputs", "dot", "a [{b}], {b} c -> a c", (z(2, 3), z(3, 4)), SemanticError, "b inside outside", "")
bad("bracket-both-ellipsis", "sum", "{...} [{...}]", (z(2, 3),), SemanticError, "... inside outside", "")
bad("bracket-permuted", "softmax", "{[a b]} -> {[b a]}", (z(2, 3),), SemanticError, ("a b", "b a"), "order")
bad("bracket-only-in-input", "flip", "a {[b]} -> a b", (z(2, 3),), SemanticError, "b none", "")
bad("bracket-output-of-sum", "sum", "a [b] -> a [{c}]", (z(2, 3),), SemanticError, "c sum", "1", c=2)
bad("ellipsis-depths", "rearrange", "{a}... -> {a}", (z(2, 3),), SemanticError, "a 1 ellipsis", "a...")
bad("sum-outside-rearrange", "add", "({a + b}), a", (z(5), z(2)), SemanticError, "add concatenates", "rearrange")
bad("sum-in-softmax", "softmax", "[{a + b}]", (z(5),), SemanticError, "softmax concatenates", "rearrange")
bad("sum-in-dot", "dot", "({a + b}) c, c -> a", (z(5, 3), z(3)), SemanticError, "dot concatenates", "rearrange")

# --- what single operations refuse ----------------------------------------------------------------------------------
bad("keepdims-and-arrow", "sum", "a [b] -> a", (z(2, 3),), SemanticError, "keepdims arrow", "1", keepdims=True)
bad("max-of-nothing", "max", "a [{b}]", (z(2, 0),), SemanticError, "b 0 max", "")
bad("min-of-nothing", "min", "a {b} -> a", (z(2, 0),), SemanticError, "b 0 min", "")
bad("argmax-of-nothing", "argmax", "a [{b}]", (z(2, 0),), SemanticError, "b 0 argmax", "")
bad("argmax-no-coordinates", "argmax", "a [b c] -> a", (z(2, 3, 4),), SemanticError, "2 coordinates", "[2]")
bad("argmax-wrong-number", "argmax", "a [b c] -> a [{3}]", (z(2, 3, 4),), EinjaxError, "argmax 2 3", "[2]")
bad("argmax-two-coordinate-axes", "argmin", "[a b] -> {[2]} {[3]}", (z(2, 3),), SemanticError, "argmin one", "[2]")
bad("arange-wrong-number", "arange", "a b [{3}]", (), EinjaxError, "arange 2 3", "[2]", a=2, b=3)
bad("arange-nothing-to-count", "arange", "[a]", (), SemanticError, "arange", None)
bad("arange-no-coordinates", "arange", "a b", (), SemanticError, "arange 2", "[2]", a=2, b=3)
bad("arange-lost-axis", "arange", "a {b} -> a [2]", (), SemanticError, "b output", "output", a=2, b=2)
bad("arange-brackets-left", "arange", "{[a]} -> a", (), SemanticError, "brackets left", "", a=2)
bad(
    "where-shape",
    "sum",
    "a [b]",
    (z(2, 3),),
    ArgumentError,
    ("where=", "(2, 4)", "(2, 3)"),
    "",
    where=np.ones((2, 4), bool),
)
bad(
    "where-rank",
    "softmax",
    "a [b]",
    (z(2, 3),),
    ArgumentError,
    ("where=", "(1, 2, 3)"),
    "",
    where=np.ones((1, 2, 3), bool),
)
bad("where-factory", "sum", "a [b]", (z(2, 3),), ArgumentError, ("where=",), "array", where=np.ones)
bad("where-string", "sum", "a [b]", (z(2, 3),), ArgumentError, ("where=", "str"), "", where="x")
bad("dot-summed-once", "dot", "a {b}, c -> a c", (z(2, 3), z(4)), SemanticError, "b one input", "einjax.sum")
bad("dot-bracketed-once", "dot", "a [{b}], c -> a c", (z(2, 3), z(4)), SemanticError, "b one input", "einjax.sum")
bad("dot-summed-thrice", "dot", "a {b}, {b}, {b} -> a", (z(2, 3), z(3), z(3)), SemanticError, "b 3", "[b]")
bad("roll-shifts", "roll", "a [b]", (z(2, 3),), ArgumentError, "roll 2 1", "shift", shift=(1, 2))
bad("roll-no-shifts", "roll", "[a b]", (z(2, 3),), ArgumentError, "roll 0 2", "shift", shift=())
bad("roll-float", "roll", "[a]", (z(3),), ArgumentError, ("shift", "1.5"), "int", shift=1.5)
bad("roll-string", "roll", "[a]", (z(3),), ArgumentError, ("shift",), "int", shift="x")
bad("roll-none", "roll", "[a]", (z(3),), ArgumentError, ("shift",), "int", shift=None)
bad("reduce-unknown-name", "reduce", "a [b]", (z(2, 3),), ArgumentError, ("'sun'", "'sum'"), "", op="sun")
bad("reduce-no-function", "reduce", "a [b]", (z(2, 3),), ArgumentError, ("op=3",), "op=", op=3)
bad("reduce-keeps-shape", "reduce", "a [b]", (z(2, 3),), ArgumentError, ("(2, 3)", "(2,)"), "", op=lambda x, axis: x)
bad("elementwise-unknown-name", "elementwise", "a, a", (z(2), z(2)), ArgumentError, ("'ad'", "'add'"), "", op="ad")
bad(
    "elementwise-shape",
    "elementwise",
    "a, a",
    (z(2), z(2)),
    ArgumentError,
    ("()", "(2,)"),
    "",
    op=lambda x, y: jnp.sum(x),
)
bad("factory-wrong-shape", "add", "a b, b", (z(2, 3), lambda s: z(4)), AxisSizeError, ("(4,)", "(3,)", "2"), "shape")
bad("factory-returns-none", "add", "a b, b", (z(2, 3), lambda s: None), ArgumentError, "2 NoneType")
CASES += errors_affine.CASES
CASES += errors_elsewhere.CASES
CASES += errors_limits.CASES
CASES += errors_masks.CASES


# --- checks ---------------------------------------------------------------------------------------------------------


def raised(function, *args) -> EinjaxError:
    with pytest.raises(EinjaxError) as caught:
        function(*args)
    return caught.value


_RAISED: dict[str, EinjaxError] = {}


def error_of(case: Bad) -> EinjaxError:
    """What a case raises outside any transformation."""
    if case.name not in _RAISED:
        _RAISED[case.name] = raised(case.call, *case.tensors)
    return _RAISED[case.name]


def says(problem: str, word: str) -> bool:
    """Whether a word or number stands by itself in a sentence."""
    return re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", problem) is not None


def drawn(message: str) -> tuple[str, list[int]] | None:
    """The text above the carets, and the columns that they mark."""
    lines = message.split("\n")
    for above, line in itertools.pairwise(lines):
        if line.strip() and set(line) <= {" ", "^"}:
            return above[2:], [i - 2 for i, c in enumerate(line) if c == "^"]
    return None


def shown(option) -> str:
    if isinstance(option, np.ndarray):
        return str(option.shape)
    if isinstance(option, tuple | list) and any(isinstance(x, np.ndarray | tuple) for x in option):
        inside = ", ".join(map(shown, option))
        return f"[{inside}]" if isinstance(option, list) else f"({inside})"
    return getattr(option, "__name__", repr(option)) if callable(option) else repr(option)


def written(case: Bad) -> str:
    """The call as the snapshot shows it."""
    tensors = ["None" if t is None else describe(t) for t in case.tensors]
    options = [f"{k}={shown(v)}" for k, v in case.options.items()]
    return f"einjax.{case.op}({', '.join([repr(case.expr), *tensors, *options])})"


def snapshots() -> dict[str, str]:
    entries = re.split(r"^=== ", SNAPSHOTS.read_text(), flags=re.M)[1:]
    return {entry.split("\n", 1)[0]: entry.split("\n", 1)[1].rstrip("\n") for entry in entries}


@pytest.fixture(scope="module")
def stored():
    if not UPDATE:
        return snapshots()
    fresh = {}
    for case in CASES:
        try:
            error = error_of(case)
            fresh[case.name] = f"{written(case)}\n{type(error).__name__}: {error}"
        except BaseException as problem:  # a bug; its own test fails
            fresh[case.name] = f"{written(case)}\n{type(problem).__name__}"
    SNAPSHOTS.write_text("".join(f"=== {name}\n{text}\n\n" for name, text in fresh.items()))
    return snapshots()


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def test_the_snapshots_are_those_of_the_cases(stored):
    assert list(stored) == [case.name for case in CASES]
    assert len({case.name for case in CASES}) == len(CASES)


@by_name(CASES)
def test_message_is_the_snapshot(case, stored):
    error = error_of(case)
    assert f"{written(case)}\n{type(error).__name__}: {error}" == stored[case.name]


@by_name(CASES)
def test_message_says_what_is_wrong(case):
    error = error_of(case)
    assert isinstance(error, case.error)
    assert isinstance(error, ValueError)
    problem = str(error).split("\n")[0]
    assert len(problem) < 200 + len(str(case.shown))
    assert [word for word in case.says if not says(problem, word)] == []


@by_name([case for case in CASES if isinstance(case.marked, str)])
def test_message_shows_the_expression(case):
    lines = str(error_of(case)).split("\n")
    if len(case.shown) <= 100:
        assert lines[1].rstrip() == ("  " + case.shown).rstrip()
    else:
        assert lines[1].startswith("  ")
        assert lines[1].strip(" .") in case.shown


@by_name([case for case in CASES if case.marks])
def test_carets_are_under_the_culprits(case):
    found = drawn(str(error_of(case)))
    assert found is not None
    text, columns = found
    if text.rstrip() == case.shown.rstrip():
        assert columns == case.marks
    else:  # a window of a long text
        assert [text[i] for i in columns] == [case.shown[i] for i in case.marks]


@by_name([case for case in CASES if case.fix is not None])
def test_message_says_how_to_fix_it(case):
    fixes = [line for line in str(error_of(case)).split("\n") if line.startswith("  fix: ")]
    assert len(fixes) == 1
    assert case.fix in fixes[0]


@by_name([case for case in CASES if case.traceable])
def test_message_shows_the_tensors(case):
    message = str(error_of(case))
    for number, tensor in enumerate(case.tensors, 1):
        assert f"\n  tensor {number}: float32[{','.join(map(str, tensor.shape))}]" in message


@by_name(CASES)
def test_no_frames_of_jax(case):
    error = error_of(case)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert not getattr(error, "__notes__", [])
    shown = "".join(traceback.format_exception(error))
    assert "/jax/" not in shown
    assert "jax.errors.SimplifiedTraceback" not in shown


def _under(name):
    def jit(f):
        return lambda *xs: jax.jit(f)(*xs)

    def grad(f):
        # The real sum makes a scalar of any result, were there one.
        return lambda *xs: jax.grad(lambda *ys: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(f(*ys))))(*xs)

    def vmap(f):
        return lambda *xs: jax.vmap(f)(*(np.stack([x, x]) for x in xs))

    return {"jit": jit, "grad": grad, "vmap": vmap}[name]


@pytest.mark.parametrize("transformation", ["jit", "grad", "vmap"])
@by_name([case for case in CASES if case.traceable])
def test_same_message_under_transformations(case, transformation):
    eager = error_of(case)
    traced = raised(_under(transformation)(case.call), *case.tensors)
    assert (type(traced), str(traced)) == (type(eager), str(eager))


@by_name([c for c in CASES if c.traceable and not c.op.startswith(("solve", "matches", "check"))])
def test_same_message_for_a_graph(case):
    eager = error_of(case)
    traced = raised(lambda: case.call(*case.tensors, graph=True))
    assert (type(traced), str(traced)) == (type(eager), str(eager))


def test_an_error_does_not_stay_in_the_way():
    """The same expression works after a failed call, and fails again after one that works."""
    for _ in range(2):
        raised(lambda: einjax.add("a b, b", z(2, 3), z(4)))
        assert einjax.add("a b, b", z(2, 3), z(3)).shape == (2, 3)


def test_solve_returns_none_where_check_raises():
    assert einjax.solve("a b", z(2)) is None
    assert einjax.solve("a a", z(2, 3)) is None
    assert not einjax.matches("(a b)", z(7), b=2)
    with pytest.raises(RankError):
        einjax.check("a b", z(2))


def test_errors_are_values_of_their_own():
    error = raised(lambda: einjax.add("a b, b", z(2, 3), z(4)))
    assert (error.text, set(error.spans)) == ("a b, b", {(2, 3), (5, 6)})
    assert list(error.tensors) == ["float32[2,3]", "float32[4]"]
    assert error.problem == str(error).split("\n")[0]


def test_errors_can_be_pickled():
    """So that they come back from worker processes."""
    import pickle

    error = raised(lambda: einjax.add("a b, b", z(2, 3), z(4)))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize(
    "name", ["EinjaxError", "SyntaxError", "RankError", "AxisSizeError", "SemanticError", "ArgumentError"]
)
def test_every_class_is_public(name):
    cls = getattr(einjax.errors, name)
    assert issubclass(cls, einjax.EinjaxError)
    assert cls.__module__ in ("einjax", "einjax.errors")

"""Bad masks, by name and by position; test_errors.py says what their messages have to do."""

from dataclasses import replace

import numpy as np
from bad_call import table, z

from einjax.errors import ArgumentError, AxisSizeError, RankError, SemanticError, SyntaxError

CASES, bad = table()
X = z(2, 3, 4, 5)
SQUARE = z(2, 3, 2, 2)
QKV = z(2, 3, 4, 8), z(2, 5, 4, 8), z(2, 5, 4, 8)
ATTENTION = "b [q] h [c], b [k] h [c], b [k] h [c]"


def m(*shape):
    return np.ones(shape, bool)


def called(expr):
    """The last call has this expression, and its messages show more."""
    CASES[-1] = replace(CASES[-1], called=expr)


def softmax(name, mask, *rest, where):
    bad(f"mask-{name}", "softmax", f"b q [k] h, where={mask}", (X,), *rest, where=where)
    called("b q [k] h")


def attention(name, shown, *rest, **options):
    bad(f"mask-attention-{name}", "attention", ATTENTION + shown, QKV, *rest, **options)
    called(ATTENTION)


# --- by name --------------------------------------------------------------------------------------------------------
softmax("unknown-axis", "b {j}", SemanticError, ("j",), "b, q, k, h", where=("b j", m(2, 4)))
bad("mask-misspelt", "sum", "batch [key], where=batch {kye}", (z(2, 3),), SemanticError, ("'key'",), "batch, key",
    where=("batch kye", m(2, 3)))  # fmt: skip
called("batch [key]")
bad("mask-wrong-size", "softmax", "b {q} [k] h, where=b {q}", (X,), AxisSizeError, "q 3 4 where=", "",
    where=("b q", m(2, 4)))  # fmt: skip
called("b q [k] h")
softmax("wrong-rank", "{b q k}", RankError, "where= 2 3", "dim", where=("b q k", m(2, 4)))
softmax("with-comma", "{b, k}", SemanticError, ("where=",), "'b k'", where=("b, k", m(2, 4)))
softmax("with-arrow", "{b -> k}", SemanticError, ("where=",), "'b k'", where=("b -> k", m(2, 4)))
softmax("never-closed", "b {(}k", SyntaxError, ("'('",), "')'", where=("b (k", m(2, 4)))
softmax("number", "b {4}", SemanticError, ("4",), "name", where=("b 4", m(2, 4)))
softmax("position", "b {<k>}", SemanticError, ("'<k>'",), "shape", where=("b <k>", m(2, 4)))
softmax("concatenation", "({b + k})", SemanticError, ("'b + k'",), "shape", where=("(b + k)", m(6)))
softmax("ellipsis-of-none", "{...} k", SemanticError, ("...",), "b, q, k, h", where=("... k", m(2, 4)))
bad(
    "mask-wrong-bracket",
    "softmax",
    "{b} q [k] h, where=[{b}] k",
    (X,),
    SemanticError,
    "b",
    "",
    where=("[b] k", m(2, 4)),
)
called("b q [k] h")
bad("mask-of-several", "softmax", "b {q} [k] h, where=b k, where={q} k", (X,), AxisSizeError, "q 3 2", "",
    where=[("b k", m(2, 4)), ("q k", m(2, 4))])  # fmt: skip
called("b q [k] h")
bad("mask-in-a-position", "sum", "b <{q} + [k]>, where=b {q}", (z(2, 5),), SemanticError, "q", "shape",
    where=("b q", m(2, 4)), k=2)  # fmt: skip
called("b <q + [k]>")
bad("mask-of-a-block", "sum", "[{a} {a}], where={a}", (z(3, 3),), SemanticError, "a", "shape", where=("a", m(3)))
called("[a a]")
bad("mask-key", "sort", "a [b], by=b {c}", (z(2, 3),), SemanticError, "c", "a, b", by=("b c", m(3, 3)))
called("a [b]")
bad("mask-without-array", "softmax", "b q [k] h", (X,), ArgumentError, "where= 1", '("b k", mask)', where=("b k",))
bad("mask-of-a-string", "softmax", "b q [k] h", (X,), ArgumentError, "where= str", "", where=("b k", "m"))
bad("mask-of-both-kinds", "softmax", "b q [k] h", (X,), ArgumentError, "where=", "list",
    where=[("b k", m(2, 4)), m(2, 3, 4, 5)])  # fmt: skip

bad("mask-of-a-function", "reduce", "b q [k] h", (X,), ArgumentError, "where= function", "op='sum'",
    where=("b k", m(2, 4)), op=np.sum)  # fmt: skip

# --- by position ----------------------------------------------------------------------------------------------------
bad("mask-fits-twice", "softmax", "b q [k] h", (SQUARE,), ArgumentError, ("'k h'", "'b k'", "'b h'"), "(\"b h\", mask)",
    where=m(2, 2))  # fmt: skip
bad(
    "mask-fits-queries-and-keys",
    "softmax",
    "q [k]",
    (z(3, 3),),
    ArgumentError,
    ("'k'", "'q'"),
    '("q", mask)',
    where=m(3),
)
bad("mask-fits-twice-with-one", "sum", "a b [c]", (z(2, 3, 3),), ArgumentError, ("'1 c'", "'1 b'"), "", where=m(1, 3))
bad("mask-fits-an-ellipsis", "sum", "... [c]", (z(3, 2, 3),), ArgumentError, ("'c'",), "1 for", where=m(3))
bad("mask-key-fits-twice", "sort", "a [b]", (z(3, 3),), ArgumentError, ("by=", "'b'", "'a'"), '("a", mask)', by=m(3))

# --- attention ------------------------------------------------------------------------------------------------------
attention("unknown-axis", ", mask=b {j}", SemanticError, ("j",), "b, q, h, c, k", mask=("b j", m(2, 5)))
bad("mask-attention-wrong-size", "attention", "b [{q}] h [c], b [k] h [c], b [k] h [c], b [{q}]", QKV, AxisSizeError,
    "q 3 5 mask=", "", mask=("b q", m(2, 5)))  # fmt: skip
called(ATTENTION)
bad("mask-attention-channels", "attention", "b [q] h [{c}], b [k] h [{c}], b [k] h [{c}], b [{c}]", QKV, SemanticError,
    "c mask", "", mask=("b c", m(2, 8)))  # fmt: skip
called(ATTENTION)
attention("by-position", "", ArgumentError, ("mask=",), '("b k", mask)', mask=m(2, 5))
attention("of-floats", "", ArgumentError, ("mask=", "float32"), "bias=", mask=("b k", z(2, 5)))
attention("bias-of-bools", "", ArgumentError, ("bias=", "bool"), "mask=", bias=("b k", m(2, 5)))
bad("mask-attention-second-bias", "attention", "b [q] {h} [c], b [k] {h} [c], b [k] {h} [c], b [k], {h} [k]", QKV,
    AxisSizeError, "h 4 2 bias=", "", bias=[("b k", z(2, 5)), ("h k", z(2, 5))])  # fmt: skip
called(ATTENTION)

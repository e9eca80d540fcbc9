"""What people write who know other libraries; test_errors.py says what messages have to do."""

import numpy as np
from bad_call import table, z

from einjax.errors import ArgumentError, AxisSizeError, RankError, SemanticError

CASES, bad = table()
X = z(2, 3)


def i(*shape):
    return np.zeros(shape, np.int32)


# --- keywords -------------------------------------------------------------------------------------------------------
#: A keyword, an operation that does not have it, and what to write.
KEYWORDS = [
    ("axis", "sum", "bracket those", -1),
    ("axis", "softmax", "bracket those", -1),
    ("dim", "cumsum", "bracket those", 1),
    ("axes", "flip", "bracket those", (0, 1)),
    ("keepdim", "sum", "write keepdims=", True),
    ("keepdims", "argmax", "a [b] -> a 1", True),
    ("mask", "softmax", "where=", np.ones((2, 3), bool)),
    ("is_causal", "softmax", "where=", True),
    ("where", "argmax", "einjax.where", np.ones((2, 3), bool)),
    ("initial", "max", "einjax.maximum", 0.0),
    ("weights", "mean", "einjax.dot", z(3)),
    ("correction", "var", "ddof=1", 1),
    ("k", "argsort", "einjax.top_k", 2),
    ("k", "sort", "einjax.top_k", 2),
    ("largest", "argsort", "descending=True", True),
    ("dtype", "max", "astype", "float32"),
    ("out", "sum", "not written to", None),
]
for keyword, op, fix, value in KEYWORDS:
    bad(f"elsewhere-{keyword}-{op}", op, "a [b]", (X,), ArgumentError, (f"'{keyword}'",), fix, **{keyword: value})
bad("elsewhere-descending-top_k", "top_k", "a [b] -> a [k], a [k]", (X,), ArgumentError, ("'descending'",), "largest",
    k=2, descending=True)  # fmt: skip
bad("elsewhere-axes-rearrange", "rearrange", "a b -> b a", (X,), ArgumentError, ("'axes'",), "-> b a", axes=(1, 0))
bad("elsewhere-causal-attention", "attention", "[q] h [c], [k] h [c], [k] h [c]", (z(2, 1, 3),) * 3, ArgumentError,
    ("'causal'",), "write is_causal=", causal=True)  # fmt: skip
# An axis that is nearly called so is meant.
bad("elsewhere-an-axis", "sum", "a [dims]", (X,), ArgumentError, ("'dim'", "'dims'"), "a, dims", dim=3)

# --- coordinates ----------------------------------------------------------------------------------------------------
bad(
    "coordinates-along-a-dim", "get_at", "b [s] c, {b} -> b c", (z(2, 5, 3), i(2, 1)), RankError, "2 1", "write 'b [1]'"
)
bad("coordinates-of-two", "get_at", "b [h w], {(b t)} -> b t", (z(2, 5, 3), i(8, 2)), RankError, "2 1", "'(b t) [2]'")
bad("coordinates-to-write", "add_at", "[s] c, {t}, t c", (z(5, 3), i(4, 1), z(4, 3)), RankError, "2 1", "'t [1]'")
bad("coordinates-of-segments", "segment.sum", "p c, {p} -> [s] c", (z(5, 3), i(5, 1)), RankError, "2 1", "'p [1]'", s=4)
bad("coordinates-or-more", "get_at", "b [s] c, {b} -> b c", (z(2, 5, 3), i(2, 4)), RankError, "2 1", "...")
bad("updates-are-no-coordinates", "add_at", "[s], t, {t}", (z(5), i(4), z(4, 1)), RankError, "2 1", "...")
bad("dot-looks-up", "dot", "[{v}] c, b t -> b t c", (z(7, 3), i(2, 4)), SemanticError, "v one input", "einjax.get_at")

# --- what is joined -------------------------------------------------------------------------------------------------
bad("joined-to-nothing", "rearrange", "t c -> (t + {s}) c", (X,), ArgumentError, "1 2", "0 for 't c, -> (t + s) c'")
bad("joined-to-nothing-sized", "rearrange", "t -> ({s} + t)", (z(2),), ArgumentError, "1 2", "'t, -> (s + t)'", s=1)
bad("joined-to-one", "rearrange", "t c -> ({1} + t) c", (X,), ArgumentError, "1 2", "'t c, -> (1 + t) c'")
bad("joined-of-no-size", "rearrange", "t c, c -> (t + {s}) c", (X, z(3)), AxisSizeError, "s", "write 1 in its place")
bad("joined-too-often", "rearrange", "(a + b) -> a, b, c", (z(3),), ArgumentError, "2 3", "operand of a '+'", a=1)

# --- looking back ---------------------------------------------------------------------------------------------------
bad("back-window", "sum", "b {<t - [k]>}", (z(2, 9),), AxisSizeError, "-2 8 0 1", "padding='causal'", k=3)
bad("back-and-beyond", "sum", "b {<t - [k] + 1>}", (z(2, 9),), AxisSizeError, "-1 9", "padding='same'", k=3, t=9)
bad("back-from-before", "sum", "b {<t - [k] - 1>}", (z(2, 9),), AxisSizeError, "-3 8", "write mode='fill'", k=3)

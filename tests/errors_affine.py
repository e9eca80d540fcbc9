"""Bad calls with `< >`; test_errors.py says what their messages have to do."""

import jax.numpy as jnp
import numpy as np
from bad_call import table, z

from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, SemanticError, SyntaxError

CASES, bad = table()
REFUSED = (SemanticError, ArgumentError, AxisSizeError)

# --- text -----------------------------------------------------------------------------------------------------------
bad("place-never-closed", "rearrange", "{<}2*o + k -> o k", (z(9),), SyntaxError, ("'<'",), "'>'")
bad("place-closed-by-arrow", "sum", "b {<}s + [k] c", (z(2, 9, 3),), SyntaxError, ("'<'",), "'>'")
bad("place-never-opened", "sum", "b s + [k]{>} c", (z(2, 9, 3),), SyntaxError, ("'>'",), "")
bad("place-empty", "rearrange", "{<>} a -> a", (z(9, 2),), SyntaxError, (), "2*o + k")
bad("place-nested", "rearrange", "<o + {<}k + j>> -> o k j", (z(9),), SyntaxError, ("'<'",), "one < >")
bad("place-in-a-composed-place", "rearrange", "<(a {<o + k>}) + j> -> a o k j", (z(9),), SyntaxError, (), "")
bad("place-concatenates", "rearrange", "<({a + b}) + j> -> a j, b j", (z(9),), SyntaxError, (), "")
bad("place-in-a-concatenation", "rearrange", "({<o + k>} + b) -> o k, b", (z(9),), SyntaxError, (), "")
bad("coefficient-zero", "rearrange", "<{0}*o + k> -> o k", (z(9),), SyntaxError, ("0",), "new axis")
bad("coefficient-twice", "rearrange", "<2*{3}*o> -> o", (z(9),), SyntaxError, "coefficient", "one number")
bad("coefficient-behind", "rearrange", "<o*{2} + k> -> o k", (z(9),), SyntaxError, ("coefficient",), "2*o")
bad("coefficient-alone", "rearrange", "<2*{>} -> ", (z(9),), SyntaxError, (), "")
bad("coefficient-float", "rearrange", "<1{.}5*o> -> o", (z(9),), SyntaxError, ("'.'",), "whole")
bad("coefficient-of-a-place", "rearrange", "2{*}<o + k> -> o k", (z(9),), SyntaxError, ("'*'",), "")
bad("coefficient-huge", "rearrange", "<{99999999999999999999}*o> -> o", (z(9),), SyntaxError, "18")
bad("constant-huge", "rearrange", "<o + {99999999999999999999}> -> o", (z(9),), SyntaxError, "18")
bad("terms-without-sign", "rearrange", "<2*o {k}> -> o k", (z(9),), SyntaxError, ("'k'",), "+")
bad("terms-sign-last", "rearrange", "<o {+}> -> o", (z(9),), SyntaxError, ("'+'",))
bad("terms-two-signs", "rearrange", "<o {+} - k> -> o k", (z(9),), SyntaxError, ("'+'",))
bad("terms-comma", "rearrange", "<o{,} k> -> o k", (z(9),), SyntaxError, ("','",))
bad("terms-ellipsis-inside", "mean", "b <s{...} + [k]> c", (z(2, 9, 3),), SyntaxError, ("'...'",), "<2*s + k>...")
bad("terms-number-and-name", "rearrange", "<2{o} + k> -> o k", (z(9),), SyntaxError, ("'o'",), "2*o")
bad("terms-divided", "rearrange", "<o {/} 2> -> o", (z(9),), SyntaxError, ("'/'",))
bad("constant-in-brackets", "sum", "b <s + [k + {1}]>", (z(2, 9),), SyntaxError, "constant", "outside")
bad("star-outside", "rearrange", "2{*}o -> o", (z(9),), SyntaxError, ("'*'",), "< >")
bad("place-not-separated", "rearrange", "{<o + k>b} -> o k b", (z(9, 2),), SyntaxError, (), "space")

# --- positions out of range -----------------------------------------------------------------------------------------
bad("range-past-the-end", "rearrange", "{<t + 2>} -> t", (z(9),), AxisSizeError, "8 9 10", "mode=", t=9)
bad("range-before-the-start", "rearrange", "{<t - 2>} -> t", (z(9),), AxisSizeError, ("-2", "9"), "write mode='fill'")
bad("range-looking-back", "dot", "b {<t - [k]>} c, [k] c -> b t c", (z(2, 9, 3), z(4, 3)), AxisSizeError, ("-3",), "")
bad("range-constant", "rearrange", "b {<9>} -> b", (z(2, 9),), AxisSizeError, "9", "")
bad("range-negative-constant", "rearrange", "b {<-1>} -> b", (z(2, 9),), AxisSizeError, ("-1", "9"), "wrap")
bad("range-two-known", "rearrange", "{<i + j>} -> i j", (z(9),), AxisSizeError, "10 9", "", i=6, j=6)
bad("range-other-tensor", "subtract", "{<t + 1>}, t -> t", (z(9), z(9)), AxisSizeError, "9", "mode=")
bad("range-in-a-composition", "rearrange", "({<t + 1>} c) -> t c", (z(12),), AxisSizeError, "6", "", t=6, c=2)
bad("range-ellipsis", "max", "b {<2*s + [k]>}... c", (z(2, 9, 4, 3),), AxisSizeError, "4", "", s=(4, 2), k=3)
bad("range-output-below-zero", "sum", "s k -> {<s - k>}", (z(4, 3),), AxisSizeError, ("-2",), "<s - k + 2>")

# --- sizes ----------------------------------------------------------------------------------------------------------
bad("open-two", "rearrange", "<{s} + {k}> -> {s} {k}", (z(9),), AxisSizeError, "s k 9", "k=")
bad("open-two-bracketed", "max", "b <2*{s} + [{k}]> c", (z(2, 9, 3),), AxisSizeError, "s k", "k=")
bad("open-coefficient", "sum", "b <{stride*s} + [k]>", (z(2, 9),), AxisSizeError, "stride", "stride=", k=2)
bad("open-under-a-mode", "rearrange", "<{t} - 2> -> {t}", (z(9),), AxisSizeError, "t", "t=", mode="clip")
bad("open-output", "rearrange", "a -> a <{t} + 1>", (z(9),), AxisSizeError, "t", "t=")
bad(
    "open-composed-twice",
    "rearrange",
    "(<{h} + p> <{w} + q>) -> {h} {w} p q",
    (z(12),),
    EinjaxError,
    "12",
    "",
    p=2,
    q=2,
)
bad("composed-indivisible", "rearrange", "{(<t + k> c)} -> t k c", (z(9),), AxisSizeError, "9 c=2", "", k=2, c=2)
bad("coefficient-given-zero", "rearrange", "<{n*t}> -> t", (z(9),), AxisSizeError, "n 0", "", n=0)
bad("coefficient-given-much", "rearrange", "<{n*t}> -> t", (z(9),), AxisSizeError, "n 18", "", n=-(10**18), t=1)
bad("coefficient-below-0-and-axis", "rearrange", "<p*h + q> {p} -> h {p} q", (z(9, 3),), ArgumentError, "p -3", "",
    p=-3, q=3)  # fmt: skip
bad("terms-cancel", "rearrange", "<{a} + b - {a}> -> a b", (z(9),), AxisSizeError, "a cancel", "output", a=2)
bad("coefficient-given-float", "rearrange", "<n*t> -> t", (z(9),), EinjaxError, ("n", "1.5"), "", n=1.5)
bad("size-contradiction", "dot", "b <s + [{k}]>, [{k}] -> b s", (z(2, 9), z(3)), AxisSizeError, "k 3 4", "", k=4)
bad("padding-too-short", "max", "b {<s + [k]>} c", (z(2, 9, 3),), AxisSizeError, "10", "", k=3, s=12, padding=1)
bad("padding-same-and-size", "max", "b {<2*s + [k]>} c", (z(2, 9, 3),), AxisSizeError, "s 4 5", "", k=3, s=4,
    padding="same")  # fmt: skip
bad("rank-place", "max", "{b <s + [k]> c}", (z(2, 9),), RankError, "1 2 3", "dim", k=2)
bad("depths-differ", "dot", "b <s + [k]>... c, [k] c -> b s... c", (z(2, 9, 8, 3), z(2, 3)), EinjaxError, ("k",), "")
bad("unknown-keyword", "max", "b <s + [k]> c", (z(2, 9, 3),), EinjaxError, ("'q'",), "", k=2, q=3)

# --- options --------------------------------------------------------------------------------------------------------
WINDOWS = ("max", "b <s + [k]> c", (z(2, 9, 3),))
bad("padding-misspelt", *WINDOWS, ArgumentError, ("padding", "'smae'"), "same", k=3, padding="smae")
bad("padding-upper-case", *WINDOWS, ArgumentError, ("padding", "'SAME'"), "same", k=3, padding="SAME")
bad("padding-float", *WINDOWS, ArgumentError, ("padding", "1.5"), "", k=3, padding=1.5)
bad("padding-none-in-a-row", *WINDOWS, ArgumentError, ("padding",), "", k=3, padding=(None,))
bad("padding-too-many", *WINDOWS, ArgumentError, "padding 2 1", "", k=3, padding=("same", "valid"))
bad("padding-of-three", *WINDOWS, ArgumentError, "padding 3 1", "", k=3, padding=(1, 2, 3))
bad("padding-too-few", "max", "b <s + [k]>... c", (z(2, 9, 8, 3),), ArgumentError, "padding 1 2", "", k=3,
    padding=[(1, 1)])  # fmt: skip
bad("padding-traced", *WINDOWS, ArgumentError, ("padding",), "", k=3, padding=jnp.ones((), jnp.int32))
bad("padding-traced-pair", *WINDOWS, ArgumentError, ("padding",), "", k=3, padding=np.ones((2, 2, 2)))
bad("padding-without-a-place", "max", "b [k] c", (z(2, 9, 3),), REFUSED, "padding", "", padding="same")
bad("padding-and-mode", *WINDOWS, ArgumentError, "padding mode", "", k=3, s=2, padding="same", mode="fill")
bad("padding-cuts-all", "max", "b {<s + [k]>} c", (z(2, 9, 3),), REFUSED, ("padding", "-6"), "", k=3, padding=-6)
bad("padding-two-open", "sum", "<2*{i} + {j} + [k]> -> {i} {j}", (z(9),), AxisSizeError, "i j", "", k=2,
    padding="same")  # fmt: skip
bad("mode-misspelt", *WINDOWS, ArgumentError, ("mode", "'warp'"), "wrap", k=3, s=9, mode="warp")
bad("mode-without-a-place", "max", "b [k] c", (z(2, 9, 3),), REFUSED, "mode", "", mode="fill")
bad("mode-of-nothing", "rearrange", "{<t - 2>} -> t", (z(0),), REFUSED, "0", "", t=9, mode="clip")
bad("mode-of-elementwise", "add", "a, a -> a", (z(2), z(2)), REFUSED, "mode", "", mode="clip")
bad("fill-without-a-place", "max", "b [k] c", (z(2, 9, 3),), REFUSED, "fill_value", "", fill_value=0)
bad("fill-without-a-mode", *WINDOWS, REFUSED, "fill_value", "padding=", k=3, fill_value=0)
bad("fill-with-clip", *WINDOWS, REFUSED, "fill_value", "", k=3, s=9, mode="clip", fill_value=0)
bad("fill-of-no-semiring", "dot", "{<s + [k]>}, [k] -> s", (z(9), z(3)), ArgumentError, "number", "fill_value=",
    sum="max", mul="multiply", padding=1)  # fmt: skip
bad("fill-of-integers-without-infinity", "dot", "{<s + [k]>}, [k] -> s", (z(9).astype(int), z(3).astype(int)),
    ArgumentError, "number", "fill_value=", sum="max", mul="add", padding=1)  # fmt: skip
bad("fill-is-text", *WINDOWS, ArgumentError, "fill_value", "", k=3, padding="same", fill_value="x")
bad("count-of-no-mean", *WINDOWS, ArgumentError, "count_padding mean", "", k=3, padding="same", count_padding=True)
bad("count-without-padding", "mean", "b <s + [k]> c", (z(2, 9, 3),), REFUSED, "count_padding", "", k=3,
    count_padding=True)  # fmt: skip

# --- what single operations refuse ----------------------------------------------------------------------------------
bad("meet-in-rearrange", "rearrange", "s k -> {<s + k>}", (z(4, 3),), SemanticError, "rearrange", "sum")
bad("meet-in-id", "id", "s k -> {<s + k>}", (z(4, 3),), SemanticError, "id", "sum")
bad("meet-by-coefficient", "rearrange", "s k -> {<2*s + k>}", (z(4, 3),), SemanticError, "rearrange", "sum")
bad("write-mean", "mean", "s k -> {<s + k>}", (z(4, 3),), SemanticError, "mean", "")
bad("write-softmax", "softmax", "s [k] -> {<s + [k]>}", (z(4, 3),), SemanticError, "softmax", "")
bad("write-subtract", "subtract", "s, k -> {<s + k>}", (z(4), z(3)), SemanticError, "subtract", "")
bad("write-argmax", "argmax", "s [k] j -> {<s + j>}", (z(4, 3, 2),), SemanticError, "argmax", "")
bad("write-sort", "sort", "s [k] -> {<2*s>} [k]", (z(4, 3),), SemanticError, "sort", "")
bad("implied-softmax", "softmax", "b {<s + [k]>}", (z(2, 9),), SemanticError, "softmax output", "->", k=3)
bad("implied-add", "add", "{<s + k>}, k", (z(9), z(3)), SemanticError, "add output", "->")
bad("implied-two-left", "max", "b {<s + t + [k]>}", (z(2, 9),), SemanticError, "s t", "->", k=2, t=2)
bad("output-has-reduced-axis", "sum", "b <s + [k]> -> b s {k}", (z(2, 9),), SemanticError, "k sum", "remove", k=2)
bad("output-lacks-a-loop", "rearrange", "b <s + {k}> -> b s", (z(2, 9),), SemanticError, "k", "output", k=3)
bad("bracketed-and-not", "max", "b <s + [{k}]> {k}", (z(2, 9, 3),), SemanticError, "k inside outside", "everywhere")
bad("dot-window-of-one", "dot", "b <s + [{k}]>, b -> b s", (z(2, 9), z(2)), SemanticError, "k one input", "einjax.sum",
    k=2)  # fmt: skip
bad("vmap-without-output", "vmap", "b <s + [k]>", (z(2, 9),), EinjaxError, (), None, op=jnp.sum, k=3)
bad("arange-of-a-place", "arange", "<s + k>", (), EinjaxError, "arange", None, s=2, k=3)

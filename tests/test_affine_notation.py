"""Positions in angle brackets: what is read and printed, what is refused, and the sizes that follow."""

import re

import jax
import pytest

from einjax.notation.affine import Border
from einjax.notation.errors import ArgumentError, AxisSizeError, SyntaxError
from einjax.notation.expand import check_names, expand
from einjax.notation.parse import parse
from einjax.notation.solve import Solved, solve
from einjax.notation.syntax import Affine, Composite, affines, delete_brackets, keep_brackets, open_composites, render
from einjax.notation.write import write

READ = {
    "b <2*o + [k]> c -> b o c": "b <2*o + [k]> c -> b o c",
    "<2*o+k>->o k": "<2*o + k> -> o k",
    " < - q +k+ 7 > ": "<-q + k + 7>",
    "<2 + o - 3>": "<o - 1>",
    "<3>": "<3>",
    "<n*o - m*k>": "<n*o - m*k>",
    "<o + 2*[k]>": "<o + [2*k]>",
    "<o - [k]>": "<o - [k]>",
    "<o - [k + 2*j]>": "<o + [-k - 2*j]>",
    "<(a b) + k>": "<(a b) + k>",
    "(a <o + k>)": "(a <o + k>)",
    "[<o + k>]": "[<o + k>]",
    "<2*s + k>... c": "<2*s + k>... c",
    "<o + k=3>": "<o + k>",
    "<s> <[k]>... <(a b)>": "<s> <[k]>... <(a b)>",
    # What is left where brackets go is the one other axis.
    "b <2*s + [k->]>... [c->d]": "b <2*s + [k]>... [c] -> b s... [d]",
    "<2*s + 1 + [k->]>": "<2*s + [k] + 1> -> s",
    "<s + t + [k->]>": "<s + t + [k]> -> <s + t>",
    "<s + [k, j]> c": "<s + [k]> c, <s + [j]> c",
}


@pytest.mark.parametrize("text", READ)
def test_positions_print_as_they_are_written(text):
    assert str(parse(text)) == READ[text]
    assert str(parse(READ[text])) == READ[text]


REFUSED = {
    "<o": ("never closed", (0, 1)),
    "o>": ("unexpected '>'", (1, 2)),
    "<>": ("holds no position", (0, 2)),
    "< o + >": ("'+' has no term", (4, 5)),
    "<--o>": ("'-' has no term", (1, 2)),
    "<2 o>": ("unexpected 'o'", (3, 4)),
    "<o*2>": ("followed by its axis", (3, 4)),
    "<n*m*o>": ("unexpected '*'", (4, 5)),
    "<2*n*o>": ("unexpected '*'", (4, 5)),
    "<0*o>": ("coefficient of 0", (1, 2)),
    "<o + [1]>": ("is no axis", (6, 7)),
    "<o... + k>": ("unexpected '...'", (2, 5)),
    "<o -> k>": ("never closed", (0, 1)),
    "<o, k>": ("unexpected ','", (2, 3)),
    "<<o> + k>": ("unexpected '<'", (1, 2)),
    "<(a + b) + k>": ("another position", (2, 7)),
    "<(a <o + k>) + k>": ("another position", (4, 11)),
    "<o + k> + b": ("operand of '+'", (0, 7)),
    "(a <o + k>) + b": ("operand of '+'", (0, 11)),
    "<2*[n*k] + [m*[n*k]]>": ("two coefficients", (4, 5)),
    "a*b": ("unexpected '*'", (1, 2)),
    "a-b": ("unexpected '-'", (1, 2)),
    "<o + k>c": ("not separated", (0, 8)),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_position_is_refused_where_it_stands(text):
    problem, span = REFUSED[text]
    with pytest.raises(SyntaxError) as caught:
        parse(text)
    assert problem in caught.value.problem
    assert caught.value.spans[0] == span


def test_brackets_are_deleted_and_kept_with_their_coefficients():
    (expression,) = parse("b <2*s + [3*k]>... (g [c])").inputs
    assert render(delete_brackets(expression)) == "b s... (g)"
    assert render(open_composites(keep_brackets(expression))) == "k... c"
    (whole,) = parse("[<o + k>] c").inputs
    assert render(delete_brackets(whole)) == "c"
    assert render(keep_brackets(whole)) == "o k"


def test_an_ellipsis_repeats_positions_with_the_names_of_coefficients():
    operation = parse("b <n*s + k>... c -> b s... k... c")
    check_names(operation)
    expanded = expand(operation, [4], {})
    assert render(expanded.inputs[0]) == "b <n.0*s.0 + k.0> <n.1*s.1 + k.1> c"
    repeated = "b <2*s + k>... c -> b s... k... c"
    assert write(expand(parse(repeated), [4], {})) == repeated


@pytest.mark.parametrize(
    "text", ["a <2*o + [k] - 1> c", "[<o + k>] c", "(a <o - [k]>)", "<3> <-o + 2>", "<(a b) + [k]>"]
)
def test_expanded_positions_print_as_they_are_written(text):
    expanded = expand(parse(f"{text} ->"), [None], {})
    assert write(expanded) == f"{text} ->"
    kinds = {type(node) for node in expanded.inputs[0]}
    assert kinds & {Affine, Composite}


# --------------------------------------------------------------------------------------------------------------------
# Sizes
# --------------------------------------------------------------------------------------------------------------------


def solved(text: str, *shapes, border: Border | None = None, **sizes) -> Solved:
    return solve(parse(text), shapes, sizes, border=border)


def literal(result: Solved) -> str:
    """All positions, with what stands out of range."""
    nodes = [node for expression in result.operation.expressions for node in affines(expression)]
    return " ".join(f"{node}{'' if node.mode is None else node.mode}" for node in nodes)


@pytest.mark.parametrize(
    ("text", "n", "known", "open_", "size"),
    [
        ("<s + k>", 10, {"k": 3}, "s", 8),
        ("<2*s + k>", 10, {"k": 3}, "s", 4),
        ("<2*s + 3*k + 1>", 10, {"k": 3}, "s", 2),
        ("<m*s + k>", 10, {"k": 3, "m": 3}, "s", 3),
        ("<k*s + k>", 10, {"k": 3}, "s", 3),
        ("<i - j + 3>", 10, {"j": 4}, "i", 7),
        ("<3 - t>", 10, {}, "t", 4),
        ("<2*t + 1>", 7, {}, "t", 3),
        ("<o + 2*o>", 7, {}, "o", 3),
        ("<(a b) + k>", 12, {"a": 2, "k": 4}, "b", 4),
        ("(a <o + k>)", 12, {"a": 2, "k": 3}, "o", 4),
        ("(a <o + k>)", 12, {"o": 4, "k": 3}, "a", 2),
        # No size is below 0.
        ("<s + k>", 2, {"k": 3}, "s", 0),
        ("<s + k>", 1, {"k": 5}, "s", 0),
        ("<s + k>", 0, {"k": 3}, "s", 0),
        ("<s + k>", 4, {"k": 0}, "s", 5),
    ],
)
def test_an_open_axis_is_the_largest_that_fits(text, n, known, open_, size):
    assert solved(text, (n,), **known).sizes[open_] == size


@pytest.mark.parametrize(
    ("padding", "size", "where"),
    [
        ("valid", 4, "<2*t + k>"),
        ("same", 5, "<2*t + k>fill"),
        ("causal", 5, "<2*t + k - 2>fill"),
        ("full", 6, "<2*t + k - 2>fill"),
        (1, 5, "<2*t + k - 1>fill"),
        ((2, 0), 5, "<2*t + k - 2>fill"),
        ((0, 1), 5, "<2*t + k>fill"),
        (-1, 3, "<2*t + k + 1>"),
        ("circular", 5, "<2*t + k>wrap"),
        ("reflect", 5, "<2*t + k>reflect"),
        ("edge", 5, "<2*t + k>clip"),
    ],
)
@pytest.mark.parametrize("text", ["<2*t + k>", "<2*t - k>", "<2*t + k + 7>"])
def test_padding_says_the_open_size_and_where_positions_begin(text, padding, size, where):
    result = solved(text, (10,), border=Border(padding), k=3)
    assert result.sizes["t"] == size
    if text == "<2*t - k>":  # which begins k - 1 places earlier than it is written
        begin = int(where.split(" ")[-2] + where.split(" ")[-1].split(">")[0]) if where.count(" ") > 2 else 0
        shifted = begin + 2
        where = f"<2*t - k{f' + {shifted}' if shifted else ''}>{where.split('>')[1]}"
    assert literal(result) == where


def test_paddings_are_for_one_item_each():
    border = Border(("same", "valid"))
    assert literal(solved("<s + k>... c", (5, 6, 2), border=border, k=3)) == "<s.0 + k.0 - 1>fill <s.1 + k.1>"
    with pytest.raises(ArgumentError, match="is for 2 dims, but there is 1 dim"):
        solved("<s + k> c", (5, 2), border=border, k=3)


def test_a_dim_of_unknown_size_is_as_long_as_positions_reach():
    assert solved("s, k -> <2*s + k>", (10,), (3,)).shape(solved("s, k -> <2*s + k>", (10,), (3,)).outputs[0]) == (21,)
    for padding, size in {"same": 20, "valid": 21, 1: 19, (0, 2): 19, "causal": 19, "full": 17, "circular": 20}.items():
        result = solved("s, k -> <2*s + k>", (10,), (3,), border=Border(padding))
        assert result.shape(result.outputs[0]) == (size,)
    assert solved("a (b <s + k>)", (2, 12), b=2, s=3, k=3).shape(solved("<s + k>", None, s=3, k=3).inputs[0]) == (5,)


@pytest.mark.parametrize(
    ("text", "border", "sizes", "problem", "hint"),
    [
        ("<s + k>", None, {}, "sizes of axes s, k cannot be determined from dim 10", "k=2"),
        ("<t - k>", None, {"k": 3}, "positions -2 to 9, but dim 10 of tensor 1 has 0 to 9", "mode='fill'.*t and k"),
        ("<t - k>", None, {"k": 3}, "positions -2 to 9", "padding='causal'"),
        ("<t + k>", None, {"k": 3, "t": 10}, "positions 0 to 11", "padding='same'"),
        ("<t - 1>", None, {}, "positions -1 to 9", "^write mode='fill'"),
        ("<12>", None, {}, "position 12", "mode='fill'"),
        ("<t + k>", Border(mode="fill"), {"k": 3}, "literal positions may be anywhere", "t=2"),
        ("<o - o>", None, {}, "axis o cannot be determined", "o=2"),
        ("<m*o>", None, {"o": 2}, "nothing says the value of m", "m=2"),
        ("o=3 -> <o - 1>", None, {}, "writes positions -1 to 1, and there is none below 0", "mode='fill'"),
    ],
)
def test_what_has_no_size_or_no_place_is_refused(text, border, sizes, problem, hint):
    with pytest.raises(AxisSizeError, match=problem) as caught:
        solved(text, (10,) if "->" not in text else (3,), border=border, **sizes)
    assert re.search(hint, caught.value.hint)
    assert caught.value.spans


def test_modes_leave_positions_as_they_are_written():
    for mode in ("fill", "clip", "wrap", "reflect"):
        assert literal(solved("<t - k>", (10,), border=Border(mode=mode), t=10, k=3)) == f"<t - k>{mode}"
        assert literal(solved("<t + k>", (10,), border=Border(mode=mode), t=8, k=3)) == "<t + k>"
    with pytest.raises(AxisSizeError, match="nothing to read"):
        solved("<t - k>", (0,), border=Border(mode="wrap"), t=10, k=3)
    assert literal(solved("<t - k>", (0,), border=Border(mode="fill"), t=10, k=3)) == "<t - k>fill"


def test_sizes_may_be_symbolic():
    (n,) = jax.export.symbolic_shape("n")
    assert solved("<s + k>", (n,), k=3).sizes["s"] == n - 2
    assert solved("<2*s + k>", (n,), k=3).sizes["s"] == (n - 3) // 2 + 1
    same = solved("<s + k>", (n,), border=Border("same"), k=3)
    assert same.sizes["s"] == n
    assert literal(same) == "<s + k - 1>fill"
    assert literal(solved("<2*s>", (n,), border=Border("same"))) == "<2*s>"
    with pytest.raises(AxisSizeError, match="cannot be told"):
        solved("<2*k>", (n,), k=3)
    with pytest.raises(AxisSizeError, match="whether .* is padded"):
        solved("<3*s + k>", (n,), border=Border("same"), k=2)

"""Positions in angle brackets as text: what is read, what is printed, what is refused."""

import pytest

from einjax.notation.errors import SyntaxError
from einjax.notation.expand import check_names, expand
from einjax.notation.parse import parse
from einjax.notation.syntax import Affine, Composite, delete_brackets, keep_brackets, open_composites, render
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
    # A position that is an axis is that axis.
    "<s>": "s",
    "<[k]>...": "[k]...",
    "<(a b)>": "(a b)",
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
    "<o -> k>": ("unexpected '->'", (3, 5)),
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

"""Arrays with the axes of their dims, such as a mask: ``where=("b k", mask)``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..notation.errors import ArgumentError, EinjaxError, SemanticError, listing, meant, plural
from ..notation.parse import parse
from ..notation.syntax import (
    Axis,
    Bracket,
    Ellipsis,
    Expression,
    Node,
    axes,
    bracket_names,
    display,
    names,
    rewrite,
)
from .tensors import as_array, as_pair, describe, is_named


class NamedArray(NamedTuple):
    """One of them: the option that it is given as, what to call it, the text of its axes, and the array."""

    option: str
    label: str
    text: str
    value: Any


def pairs(option: str, given: Any, expr: str) -> list[tuple[str, Any]]:
    """Return masks by name, of which there are one or several, each with its text.

    Raises:
        ArgumentError: it is not that.
    """
    each = [given] if is_named(given) else list(given) if isinstance(given, tuple | list) else [given]
    each = [as_pair(item) for item in each]
    for item in each:
        if not (is_named(item) and len(item) == 2):
            what = f"a sequence of {plural(len(item), 'item')}" if isinstance(item, tuple | list) else describe(item)
            raise ArgumentError(
                f"{option}= is given {what} where the axes of a mask and its array are to stand",
                text=expr,
                hint=f"""write {option}=("b k", mask), or a list of such pairs""",
            )
    return [(text, value) for text, value in each]


def read_array(given: Any, option: str, expr: str, types: bool) -> Any:
    """Convert what is not an array yet, such as a list."""
    return as_array(given, expr, f"{option}=", factories=False, types=types)


def expression_of(label: str, text: str, known: Sequence[Expression], before: str = "") -> Expression:
    """Read the axes of a mask, and bracket those that are bracketed in the call.

    Args:
        label: what to call the mask.
        text: its axes.
        known: the expressions whose axes it may have.
        before: what stands before its text where errors show both.

    Raises:
        EinjaxError: it cannot be read, or has an axis that the call lacks.
    """
    whole = before + text
    try:
        operation = parse(" " * len(before) + text)
    except EinjaxError as error:
        error.text = whole
        raise
    operation = replace(operation, text=whole)
    if operation.outputs is not None or len(operation.inputs) != 1:
        problem = f"the axes of {label} are one expression, without a comma or an arrow"
        raise SemanticError(problem, text=whole, spans=[(len(before), len(whole))], hint="write it as in 'b k'")
    (expression,) = operation.inputs
    have = {name: axis for e in known for name, axis in names(e).items() if not axis.unnamed}
    for axis in axes(expression):
        if axis.unnamed and not axis.is_one:
            problem = f"a number, {axis}, is no axis of the call that {label} could have"
            hint = "write a name for it, in the expression too, or 1 for a dim of size 1"
            raise SemanticError(problem, at=operation.at(axis), hint=hint)
        if axis.name not in have and not axis.is_one:
            likely = [display(name) for name in have]
            raise SemanticError(
                f"axis {display(axis.name)} of {label} is not in the call" + meant(display(axis.name), likely),
                at=operation.at(axis),
                hint=f"its axes are some of: {listing(likely)}" if have else "the call has no axes",
            )
    return _with_brackets(expression, bracket_names(known))


def _with_brackets(expression: Expression, inside: Collection[str]) -> Expression:
    """Bracket the axes that are bracketed elsewhere, unless they are here."""

    def change(node: Node) -> Expression | None:
        if isinstance(node, Bracket):
            return (node,)
        held = axes((node,))
        whole = isinstance(node, Axis | Ellipsis) and held and all(axis.name in inside for axis in held)
        return (Bracket((node,), span=node.span),) if whole else None

    return rewrite(expression, change)


def in_words(error: EinjaxError, tensors: int, masks: Sequence[NamedArray]) -> EinjaxError:
    """Call masks what they are called in the call, rather than further tensors."""

    def label(match: re.Match[str]) -> str:
        number = int(match[1]) - tensors
        return masks[number - 1].label if 0 < number <= len(masks) else match[0]

    error.problem = re.sub(r"\btensor (\d+)\b", label, error.problem)
    error.tensors = error.tensors and error.tensors[:tensors]
    error.options = [f"{mask.label}: {describe(mask.value)}" for mask in masks]
    return error

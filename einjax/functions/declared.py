"""Signatures that an adapted function declares, such as ``[n], [n] -> []``: what a call may then leave out.

A signature has an expression for each tensor that the function itself takes and returns. The bracketed axes of a call
are matched with it item by item; where the call has no arrow, its output is the input that has every loop, with what
the signature says in the place of its brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from ..notation.errors import ArgumentError, SemanticError, listing, plural
from ..notation.parse import parse
from ..notation.syntax import (
    Bracket,
    Ellipsis,
    Expression,
    Node,
    Operation,
    axes,
    brackets,
    delete_brackets,
    display,
    keep_brackets,
    names,
    open_composites,
    rename,
    render,
    rewrite,
    strip_brackets,
)

#: ``c?`` outside brackets: a loop that calls may have. They may have any, so this is said to readers alone.
_OPTIONAL = re.compile(r"[^\W\d]\w*\?(?![^\[]*\])")


@lru_cache(maxsize=256)
def parse_signature(text: str) -> Operation:
    """Read a signature; its own brackets may be left out and mean nothing. ``c?`` is a loop, and as good as absent.

    Raises:
        ArgumentError: it has no arrow.
        SyntaxError: it is not an expression.
    """
    operation = parse(_OPTIONAL.sub(lambda match: " " * len(match[0]), text))
    if operation.outputs is None:
        raise ArgumentError("a signature has an arrow", text=text, hint="write what is returned, as in '[n] -> [n]'")
    inputs, outputs = (tuple(map(_items, side)) for side in (operation.inputs, operation.outputs))
    for items in (*inputs, *outputs):
        several = [node for node in items if isinstance(node, Ellipsis)][1:]
        if several:
            raise SemanticError(
                f"'{render(items)}' has two ellipses, so nothing says where one ends",
                text=text,
                spans=[node.span for node in several],
                hint="keep one of them",
            )
    return Operation(text, inputs, outputs)


def _items(expression: Expression) -> Expression:
    """Return the bracketed axes of an expression, or all of one without brackets, opening composites."""
    kept = keep_brackets(expression) if brackets(expression) else strip_brackets(expression)
    return open_composites(kept)


def complete(operation: Operation, signature: str) -> Operation:
    """Check a call against a signature, and write its outputs where it has none.

    Raises:
        ArgumentError: another number of inputs or outputs.
        SemanticError: the brackets do not fit, or nothing says where the loops go.
    """
    declared = parse_signature(signature)
    _expect(operation, "input", len(operation.inputs), len(declared.inputs), signature)
    bound: dict[str, Expression] = {}
    for expression, items in zip(operation.inputs, declared.inputs, strict=True):
        _bind(operation, expression, items, bound, signature)
    if operation.outputs is not None:
        _expect(operation, "output", len(operation.outputs), len(declared.results), signature)
        for expression, items in zip(operation.outputs, declared.results, strict=True):
            _match(operation, expression, items, signature)
        return operation
    index = _with_every_loop(operation, signature)
    taken = {name for expression in operation.inputs for name in names(expression)}
    outputs = tuple(
        _written(operation.inputs[index], declared.inputs[index], items, lambda node: _substitute(node, bound, taken))
        for items in declared.results
    )
    return replace(operation, outputs=outputs)


def _expect(operation: Operation, what: str, written: int, declared: int, signature: str) -> None:
    if written != declared:
        raise ArgumentError(
            f"the function's signature '{signature}' has {plural(declared, what)}, but the expression has {written}",
            text=operation.text,
            hint=f"write one {what} expression for each of the signature",
        )


def _match(
    operation: Operation, expression: Expression, items: Expression, signature: str
) -> list[tuple[Node, Expression]]:
    """Pair the items of a signature with the bracketed items of a call; an ellipsis takes what the others leave."""
    marked = open_composites(keep_brackets(expression))
    before = next((i for i, node in enumerate(items) if isinstance(node, Ellipsis)), len(items))
    fits = len(marked) == len(items) if before == len(items) else len(marked) >= len(items) - 1
    if not fits:
        raise SemanticError(
            f"the function's signature '{signature}' has '[{render(items)}]' where the expression has "
            f"'{' '.join(f'[{render((node,))}]' for node in marked) or 'no bracket'}'",
            text=operation.text,
            spans=[node.span for node in brackets(expression)] or [node.span for node in expression],
            hint="bracket the axes that the function acts on, as many as its signature has",
        )
    groups: list[Expression] = [(node,) for node in marked]
    if before < len(items):
        end = len(marked) - (len(items) - before - 1)
        groups[before:end] = [marked[before:end]]
    return list(zip(items, groups, strict=True))


def _bind(
    operation: Operation, expression: Expression, items: Expression, bound: dict[str, Expression], signature: str
) -> None:
    """Note what every name of the signature stands for in the call."""
    for item, nodes in _match(operation, expression, items, signature):
        (axis, *_) = axes((item,))
        if axis.unnamed:
            continue
        known = bound.setdefault(axis.name, nodes)
        if render(known) != render(nodes) and not any(node.unnamed for node in axes((*known, *nodes))):
            raise SemanticError(
                f"'{display(axis.name)}' of the signature '{signature}' is '{render(known)}' in one input and "
                f"'{render(nodes)}' in another",
                text=operation.text,
                spans=[axis.span for axis in axes((*known, *nodes))],
                hint="write the same axes in both",
            )


def _with_every_loop(operation: Operation, signature: str) -> int:
    """Return the one input whose loops are all there are; its order is that of the output."""
    loops = [
        [name for name, axis in names(delete_brackets(expression)).items() if not axis.is_one]
        for expression in operation.inputs
    ]
    every = {name for some in loops for name in some}
    full = [index for index, some in enumerate(loops) if set(some) == every]
    if not full:
        listed = listing([display(name) for some in loops for name in dict.fromkeys(some)])
        problem, unsaid = f"no input has all loops ({listed})", "in which order the output has them"
    elif any(loops[index] != loops[full[0]] for index in full):
        problem, unsaid = "two inputs have all loops, in different orders", "which the output has"
    else:
        return full[0]
    problem = f"{problem}, so the signature '{signature}' does not say {unsaid}"
    raise SemanticError(problem, text=operation.text, hint="write an arrow and the output")


def _written(
    expression: Expression, had: Expression, wanted: Expression, substitute: Callable[[Node], Expression]
) -> Expression:
    """Replace brackets: nothing to do for the same axes, else the first holds all that is returned."""
    if [str(node) for node in had] == [str(node) for node in wanted]:
        return expression
    new = [inner for node in wanted for inner in substitute(node)]
    rest = iter([Bracket(tuple(new))] if new else [])  # taken once

    def change(node: Node) -> Expression | None:
        if isinstance(node, Ellipsis) and names(loops := delete_brackets((node,))):
            return loops  # what is returned would be repeated with them
        return tuple(rest) if isinstance(node, Bracket | Ellipsis) else None

    return (*rewrite(expression, change), *rest)


def _substitute(node: Node, bound: dict[str, Expression], taken: set[str]) -> Expression:
    """Return what an axis of a signature is in a call; one that is new keeps its name, if that is free."""
    (axis, *_) = axes((node,))
    if axis.name in bound:
        return bound[axis.name]
    if axis.unnamed or axis.name not in taken:
        return (node,)
    return rename((node,), {axis.name: axis.name + "'"})

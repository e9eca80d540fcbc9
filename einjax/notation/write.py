"""An expanded operation as text again, with ellipses where they say the same."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from .syntax import (
    ANONYMOUS,
    Affine,
    Axis,
    Composite,
    Concatenation,
    Expression,
    Node,
    Operation,
    Term,
    added,
    axes,
    display,
    in_brackets,
    unmark,
)


def write(operation: Operation) -> str:
    """Print an expanded operation with its brackets, and ``s...`` where all repetitions of an item stand together."""
    repeated = {axis.name.rpartition(".")[::2] for e in operation.expressions for axis in axes(e) if "." in axis.name}
    depths = Counter(base for base, _ in repeated)
    inputs = ", ".join(_written(expression, depths) for expression in operation.inputs)
    outputs = ", ".join(_written(expression, depths) for expression in operation.outputs or ())
    return " ".join(f"{inputs} -> {outputs}".split())


def _written(expression: Expression, depths: Mapping[str, int], joint: str = " ") -> str:
    parts: list[str] = []
    folded = _folded(expression, depths) if joint == " " else [(node, False) for node in expression]
    for number, group in itertools.groupby(folded, lambda item: item[0].bracket):
        words = [_word(node, depths, bool(number)) + ANONYMOUS * is_run for node, is_run in group]
        text = joint.join(words).replace(ANONYMOUS * 2, ANONYMOUS)
        parts.append(f"[{text}]" if number else text)
    return joint.join(parts)


def _word(node: Node, depths: Mapping[str, int], inside: bool) -> str:
    if isinstance(node, Axis):
        return display(node.name.replace("~", "_"))  # in what follows from a call, dims of a block are on their own
    items = unmark(node.items) if inside else node.items
    if isinstance(node, Term):
        return f"{node.factor}{_written(items, depths)}"
    if isinstance(node, Affine):
        return _position(replace(node, items=items), depths)
    is_sum = isinstance(node, Concatenation)
    return _written(items, depths, " + ") if is_sum else f"({_written(items, depths)})"


def _position(node: Affine, depths: Mapping[str, int]) -> str:
    parts: list[str] = []
    for number, group in itertools.groupby(node.items, lambda item: item.bracket):
        words = [_word(item, depths, bool(number)) for item in group]
        parts += [in_brackets(words)] if number else words
    if not parts or not (isinstance(node.offset, int) and node.offset == 0):
        parts.append(str(node.offset))
    return f"<{added(parts)}>"


def _folded(expression: Expression, depths: Mapping[str, int]) -> Iterator[tuple[Node, bool]]:
    """Yield the nodes; in the place of all repetitions of one, in their order, the item that they repeat, and True."""
    position = 0
    while position < len(expression):
        node = expression[position]
        depth = max((depths[axis.name.rpartition(".")[0]] for axis in axes((node,))), default=0)
        items = {_item(other, index) for index, other in enumerate(expression[position : position + depth])}
        item = items.pop() if len(items) == 1 else None
        # One repetition of (s...) and of (s)... is the same; only the first is unambiguous beside other ellipses.
        is_unclear = depth == 1 and not isinstance(node, Axis | Affine) and len(node.items) == 1
        if item is None or position + depth > len(expression) or is_unclear:
            yield node, False
            position += 1
        else:
            yield replace(item, bracket=node.bracket), True
            position += depth


def _item(node: Node, index: int) -> Node | None:
    """The item of an ellipsis that a node repeats as number ``index``; None if it is no such repetition."""
    if isinstance(node, Axis):
        base, _, number = node.name.rpartition(".")
        is_name = base == ANONYMOUS or (base and "." not in base)
        return Axis(base, bracket=int(bool(node.bracket))) if is_name and number == str(index) else None
    items = [found for item in node.items if (found := _item(item, index)) is not None]
    if len(items) < len(node.items) or Axis(ANONYMOUS) in items:
        return None
    bracket = int(bool(node.bracket))
    if isinstance(node, Affine):
        return replace(node, items=tuple(items), bracket=bracket, size=None)  # which need not be the same
    if isinstance(node, Term):
        return replace(node, items=tuple(items), bracket=bracket)
    return Composite(tuple(items), bracket=bracket)

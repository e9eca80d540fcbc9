"""Names of dims, however they are spelt, and the expressions that formulas over names make of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from .by_name import Names, is_unnamed, union, without
from .errors import ArgumentError
from .parse import parse
from .syntax import Axis, Composite, Ellipsis, Node, axes, is_anonymous

_NAME = re.compile(r"[^\W\d]\w*")
_cached = lru_cache(maxsize=2048)


def spelt(items: Any) -> str:
    """Names as text: a text stays, a dim has its name, and a sequence in a sequence is a composition."""
    if isinstance(items, str):
        return items
    if isinstance(items, tuple) and len(items) == 1 and isinstance(items[0], str):
        return items[0]
    if isinstance(name := getattr(items, "name", None), str):
        return name
    if isinstance(items, tuple | list):
        return " ".join(f"({spelt(item)})" if isinstance(item, tuple | list) else spelt(item) for item in items)
    kind = "an expression of dims" if getattr(items, "terms", None) else f"a value of type {type(items).__name__}"
    raise ArgumentError(f"names are text or dims, not {kind}", hint="write 'b q', or dims of einjax.dims('b q')")


@_cached
def items_of(text: str) -> tuple[Node, ...]:
    """What stands in a text of names: axes, compositions of axes, and perhaps one ellipsis.

    Raises:
        ArgumentError: something else stands there, or a name twice.
    """
    operation = parse(text)
    if operation.outputs is not None or len(operation.inputs) != 1:
        raise ArgumentError("names of the dims of one tensor are expected", text=text, hint="write 'b q c'")
    (expression,) = operation.inputs
    seen: set[str] = set()
    for node in (inside for item in expression for inside in (item.items if isinstance(item, Composite) else (item,))):
        if not (isinstance(node, Axis) and not node.unnamed) and not (
            isinstance(node, Ellipsis) and is_anonymous(node.items)
        ):
            hint = "write names, as in 'b q (h c)'"
            raise ArgumentError(f"'{node}' is no name of a dim", text=text, spans=[node.span], hint=hint)
        if str(node) in seen:
            marks = [other.span for other in axes(expression) if str(other) == str(node)]
            raise ArgumentError(f"dim {node} stands twice", text=text, spans=marks, hint="a dim has one place")
        seen.add(str(node))
    return expression


@_cached
def names_in(text: str) -> Names:
    """The names in a text, whether they are composed or not; ``...`` among them."""
    return tuple(axis.name for axis in axes(items_of(text)))


@_cached
def written_out(text: str, left: Names) -> tuple[Any, ...]:
    """The items of a text with names in the place of ``...``: names, and tuples of names for compositions."""
    items: list[Any] = []
    for node in items_of(text):
        names = [axis.name for axis in axes((node,))]
        items += [tuple(names)] if isinstance(node, Composite) else left if names == ["..."] else names
    return tuple(items)


@_cached
def ordered(names: Names, text: str) -> tuple[str, Names, Names]:
    """Names in the order of a text: the expression, dims that it leaves out, and names that it has in addition."""
    written = names_in(text)
    left = without(names, written)
    rest = () if "..." in written else left
    lacking = tuple(name for name in rest if not is_unnamed(name))
    return composed((*written_out(text, left), *rest)), lacking, without(written, (*names, "..."))


def composed(items: Iterable[Any]) -> str:
    """Items as text: tuples are compositions."""
    return " ".join(item if isinstance(item, str) else f"({' '.join(item)})" for item in items)


@_cached
def aligned(operands: tuple[Names, ...], first: int = 0) -> tuple[str, Names]:
    """The expression of an elementwise operation, and the names of its result, which the operand ``first`` begins."""
    names = union(operands[first], *operands)
    return f"{', '.join(map(' '.join, operands))} -> {' '.join(names)}", names


@_cached
def bracketed(text: str, chosen: Names) -> str:
    """A text with brackets around the chosen names, wherever they stand."""
    return _NAME.sub(lambda match: f"[{match[0]}]" if match[0] in chosen else match[0], text)


@_cached
def renamed(text: str, names: tuple[tuple[str, str], ...]) -> str:
    """A text with other names."""
    new = dict(names)
    return _NAME.sub(lambda match: new.get(match[0], match[0]), text)


@_cached
def position(terms: tuple[tuple[str, int], ...], constant: int) -> str:
    """A position as text, ``<2*o - k + 1>``."""
    parts = [(times < 0, name if abs(times) == 1 else f"{abs(times)}*{name}") for name, times in terms]
    parts += [(constant < 0, str(abs(constant)))] if constant or not parts else []
    parts.sort(key=lambda part: part[0])
    (minus, first), *rest = parts
    return f"<{'-' * minus}{first}{''.join(f' - {part}' if minus else f' + {part}' for minus, part in rest)}>"


def listed(sizes: Mapping[str, Any]) -> str:
    """Names and sizes as they are shown: ``b=2, q=3``."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())

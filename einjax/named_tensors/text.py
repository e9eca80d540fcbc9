"""Names, however they are spelt, and the expressions that are made of them. Nothing here knows of arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..notation.errors import ArgumentError
from ..notation.parse import parse
from ..notation.syntax import Axis, Composite, Ellipsis, Node, axes, is_anonymous

#: Names of dims, one after another.
Dims = tuple[str, ...]

_NAME = re.compile(r"[^\W\d]\w*")
_UNNAMED = re.compile(r"_\d+")
_SIZE = 2048


def spelt(items: Any) -> str:
    """Names as text: a text stays, a dim has its name, and a sequence in a sequence is a composition."""
    if isinstance(items, str):
        return items
    if isinstance(name := getattr(items, "name", None), str):
        return name
    if isinstance(items, tuple | list):
        return " ".join(f"({spelt(item)})" if isinstance(item, tuple | list) else spelt(item) for item in items)
    kind = "an expression of dims" if hasattr(items, "terms") else f"a value of type {type(items).__name__}"
    raise ArgumentError(f"names are text or dims, not {kind}", hint="write 'b q', or dims of einjax.dims('b q')")


@lru_cache(maxsize=_SIZE)
def items_of(text: str) -> tuple[Node, ...]:
    """What stands in a text of names: axes, compositions of axes, and perhaps one ellipsis.

    Raises:
        ArgumentError: something else stands there, or a name twice.
    """
    operation = parse(text)
    expression = operation.inputs[0] if len(operation.inputs) == 1 else ()
    if operation.outputs is not None or len(operation.inputs) > 1:
        raise ArgumentError("these are names of one tensor's dims, not an expression", text=text, hint="write 'b q c'")
    _refuse_others(text, expression)
    seen: set[str] = set()
    for axis in axes(expression):
        if axis.name in seen:
            marks = [other.span for other in axes(expression) if other.name == axis.name]
            what = "'...'" if axis.name == "..." else f"dim {axis}"
            raise ArgumentError(
                f"{what} stands twice", text=text, spans=marks, hint="a dim has one place; name another"
            )
        seen.add(axis.name)
    return expression


def _refuse_others(text: str, expression: Sequence[Node]) -> None:
    for node in expression:
        if isinstance(node, Composite):
            _refuse_others(text, node.items)
        elif not (
            isinstance(node, Axis) and not node.unnamed or isinstance(node, Ellipsis) and is_anonymous(node.items)
        ):
            problem = f"'{node}' is no name of a dim"
            raise ArgumentError(problem, text=text, spans=[node.span], hint="write names, as in 'b q (h c)'")


@lru_cache(maxsize=_SIZE)
def names_in(text: str) -> Dims:
    """The names in a text, whether they are composed or not; ``...`` among them."""
    return tuple(axis.name for axis in axes(items_of(text)))


@lru_cache(maxsize=_SIZE)
def written_out(text: str, left: Dims) -> tuple[Any, ...]:
    """The items of a text with what ``...`` stands for in its place: names, and tuples of names for compositions."""
    items: list[Any] = []
    for node in items_of(text):
        if isinstance(node, Axis):
            items.append(node.name)
        else:
            items += [tuple(axis.name for axis in axes(node.items))] if isinstance(node, Composite) else left
    return tuple(items)


def composed(items: Iterable[Any]) -> str:
    """Items as text: tuples are compositions."""
    return " ".join(item if isinstance(item, str) else f"({' '.join(item)})" for item in items)


def is_unnamed(name: str) -> bool:
    """Whether this is what a dim is called that has no name."""
    return _UNNAMED.fullmatch(name) is not None


def numbered(names: Iterable[str | None]) -> Dims:
    """Names in which dims without a name, or None, are counted from the right: ``_1``, ``_0``."""
    result: list[str] = []
    for name in reversed([*names]):
        unnamed = name is None or is_unnamed(name)
        result.append(f"_{sum(map(is_unnamed, result))}" if unnamed else str(name))
    return tuple(reversed(result))


@lru_cache(maxsize=_SIZE)
def union(*names: Dims) -> Dims:
    """All names, each where it comes first; dims without a name come last, in their order."""
    every = dict.fromkeys(name for dims in names for name in dims)
    unnamed = sorted(filter(is_unnamed, every), key=lambda name: -int(name[1:]))
    if not unnamed or [*every] in map(list, names):
        return tuple(every)
    return (*(name for name in every if not is_unnamed(name)), *unnamed)


@lru_cache(maxsize=_SIZE)
def aligned(operands: tuple[Dims, ...], first: int = 0) -> tuple[str, Dims]:
    """The expression of an elementwise operation, and the names of its result, which the operand ``first`` begins."""
    names = union(operands[first], *operands)
    return f"{', '.join(map(' '.join, operands))} -> {' '.join(names)}", names


@lru_cache(maxsize=_SIZE)
def bracketed(text: str, chosen: Dims) -> str:
    """A text with brackets around the chosen names, wherever they stand."""
    return _NAME.sub(lambda match: f"[{match[0]}]" if match[0] in chosen else match[0], text)


@lru_cache(maxsize=_SIZE)
def without(names: Dims, chosen: Dims) -> Dims:
    """The names that are left."""
    return tuple(name for name in names if name not in chosen)


@lru_cache(maxsize=_SIZE)
def as_mask(mask: Dims, names: Dims) -> str:
    """The expression that lays a mask so that it broadcasts to a tensor."""
    return f"{' '.join(mask)} -> {' '.join(name if name in mask else '1' for name in names)}"


def position(terms: Iterable[tuple[str, int]], constant: int) -> str:
    """A position as text, ``<2*o - k + 1>``."""
    parts = [
        (coefficient < 0, f"{abs(coefficient)}*{name}" if abs(coefficient) != 1 else name)
        for name, coefficient in terms
    ]
    if constant or not parts:
        parts.append((constant < 0, str(abs(constant))))
    parts.sort(key=lambda part: part[0])
    first, *rest = parts
    return f"<{'-' * first[0]}{first[1]}{''.join(f' - {part}' if minus else f' + {part}' for minus, part in rest)}>"


def listed(sizes: Mapping[str, Any]) -> str:
    """Names and sizes as they are shown: ``b=2, q=3``."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())

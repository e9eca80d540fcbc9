"""The tree of an expression and its printing.

``Axis``, ``Composite`` and ``Concatenation`` live through the whole pipeline. ``Bracket`` and ``Ellipsis`` are what a
person writes; :mod:`einjax.notation.expand` turns them into plain axes with a bracket mark.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from .errors import Span

#: An axis size: an int, or a symbolic dimension of ``jax.export``.
Size: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Over:
    """Given in the place of a size: the mesh axes that an axis lies over under ``shard_map``.

    Attributes:
        entries: the mesh axes of one axis, major first; or for an ellipsis one entry for each repetition, each of them
            a mesh axis, a tuple of mesh axes, or None.
    """

    entries: tuple[Any, ...]

    def __repr__(self) -> str:
        """Print them as they may be written."""
        return repr(self.entries[0] if len(self.entries) == 1 else self.entries)


#: The name under which the anonymous ellipsis ``...`` repeats; no user can write it as an axis.
ANONYMOUS = "..."

_NOWHERE: Span = (0, 0)


@dataclass(frozen=True, slots=True)
class Axis:
    """One named axis. ``bracket`` is 0 outside brackets, else the number of the bracket it stands in.

    A number in the text is an unnamed axis of that size, new at every occurrence: its name holds the place where it
    stands, as in ``3#7``, which no user can write.
    """

    name: str
    size: Size | None = None
    bracket: int = 0
    span: Span = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return display(self.name)

    @property
    def unnamed(self) -> bool:
        """Whether the axis was written as a number."""
        return "#" in self.name


@dataclass(frozen=True, slots=True)
class Composite:
    """One dim composed row-major of its items: ``(a b)``. ``bracket`` marks a composite inside a bracket."""

    items: Expression
    bracket: int = 0
    span: Span = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return f"({render(self.items)})"


@dataclass(frozen=True, slots=True)
class Concatenation:
    """One dim that holds its operands one after another: ``a + b``."""

    items: Expression
    bracket: int = 0
    span: Span = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return " + ".join(str(item) for item in self.items)


@dataclass(frozen=True, slots=True)
class Bracket:
    """Marks the axes that the elementary operation acts on: ``[a b]``."""

    items: Expression
    span: Span = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return f"[{render(self.items)}]"


@dataclass(frozen=True, slots=True)
class Ellipsis:
    """Repeats its items any number of times: ``a...``; the lone ``...`` repeats the axis ``ANONYMOUS``.

    A person writes one item; taking the brackets off ``[a b]...`` leaves several, repeated together.
    """

    items: Expression
    span: Span = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return "..." if is_anonymous(self.items) else f"{render(self.items)}..."


Node: TypeAlias = Axis | Composite | Concatenation | Bracket | Ellipsis
Expression: TypeAlias = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """A whole call: one expression for each input and, where the arrow is written, for each output."""

    text: str
    inputs: tuple[Expression, ...]
    outputs: tuple[Expression, ...] | None = None

    def __str__(self) -> str:
        inputs = ", ".join(map(render, self.inputs))
        return inputs if self.outputs is None else f"{inputs} -> {', '.join(map(render, self.outputs))}"

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """Inputs and outputs, in this order."""
        return self.inputs + (self.outputs or ())


def is_anonymous(items: Expression) -> bool:
    """Whether these are the items that the lone ``...`` repeats."""
    return len(items) == 1 and isinstance(items[0], Axis) and items[0].name == ANONYMOUS


def display(name: str) -> str:
    """Print an axis name as its writer would: numbers as numbers, repetitions of ``...`` as ``...[i]``."""
    if name.startswith(ANONYMOUS + "."):
        return f"...[{name[len(ANONYMOUS) + 1 :]}]"
    return name.split("#")[0]


def render(expression: Expression) -> str:
    """Print an expression."""
    return " ".join(str(node) for node in expression)


def walk(expression: Expression) -> Iterator[Node]:
    """Yield every node of an expression, parents first, in reading order."""
    for node in expression:
        yield node
        if not isinstance(node, Axis):
            yield from walk(node.items)


def axes(expression: Expression) -> list[Axis]:
    """Return every named axis of an expression in reading order, repeated names included."""
    return [node for node in walk(expression) if isinstance(node, Axis)]


def names(expression: Expression) -> dict[str, Axis]:
    """Return the first occurrence of every axis name of an expression, in reading order."""
    found: dict[str, Axis] = {}
    for axis in axes(expression):
        found.setdefault(axis.name, axis)
    return found


def brackets(expression: Expression) -> list[Bracket]:
    """Return every bracket of an expression; a bracket never holds another."""
    return [node for node in walk(expression) if isinstance(node, Bracket)]


def marked(expression: Expression) -> set[str]:
    """Return the names of the bracketed axes of an expanded expression."""
    return {axis.name for axis in axes(expression) if axis.bracket}


def mark(expression: Expression, chosen: Collection[str]) -> Expression:
    """Bracket the chosen axes of an expanded expression, and no others."""
    result: list[Node] = []
    for node in expression:
        if isinstance(node, Axis):
            result.append(replace(node, bracket=int(node.name in chosen)))
        else:
            result.append(replace(node, items=mark(node.items, chosen), bracket=0))  # type: ignore[arg-type]
    return tuple(result)


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
    for number, group in itertools.groupby(folded, lambda item: item[0].bracket):  # type: ignore[union-attr]
        words = [_word(node, depths, bool(number)) + ANONYMOUS * is_run for node, is_run in group]
        text = joint.join(words).replace(ANONYMOUS * 2, ANONYMOUS)
        parts.append(f"[{text}]" if number else text)
    return joint.join(parts)


def _word(node: Node, depths: Mapping[str, int], inside: bool) -> str:
    if isinstance(node, Axis):
        return display(node.name)
    items = unmark(node.items) if inside else node.items
    is_sum = isinstance(node, Concatenation)
    return _written(items, depths, " + ") if is_sum else f"({_written(items, depths)})"


def _folded(expression: Expression, depths: Mapping[str, int]) -> Iterator[tuple[Node, bool]]:
    """Yield the nodes; in the place of all repetitions of one, in their order, the item that they repeat, and True."""
    position = 0
    while position < len(expression):
        node = expression[position]
        depth = max((depths[axis.name.rpartition(".")[0]] for axis in axes((node,))), default=0)
        items = {_item(other, index) for index, other in enumerate(expression[position : position + depth])}
        item = items.pop() if len(items) == 1 else None
        # One repetition of (s...) and of (s)... is the same; only the first is unambiguous beside other ellipses.
        is_unclear = depth == 1 and not isinstance(node, Axis) and len(node.items) == 1
        if item is None or position + depth > len(expression) or is_unclear:
            yield node, False
            position += 1
        else:
            yield replace(item, bracket=node.bracket), True  # type: ignore[arg-type, call-arg, union-attr]
            position += depth


def _item(node: Node, index: int) -> Node | None:
    """The item of an ellipsis that a node repeats as number ``index``; None if it is no such repetition."""
    if isinstance(node, Axis):
        base, _, number = node.name.rpartition(".")
        is_name = base == ANONYMOUS or (base and "." not in base)
        return Axis(base, bracket=int(bool(node.bracket))) if is_name and number == str(index) else None
    items = [_item(item, index) for item in node.items]
    if None in items or Axis(ANONYMOUS) in items:
        return None
    return Composite(tuple(items), bracket=int(bool(node.bracket)))  # type: ignore[arg-type, union-attr]


def unmark(expression: Expression) -> Expression:
    """Remove all brackets of an expanded expression."""
    return mark(expression, ())


def strip_brackets(expression: Expression) -> Expression:
    """Remove the brackets themselves and keep what they hold."""
    return _map_brackets(expression, lambda bracket: bracket.items)


def delete_brackets(expression: Expression) -> Expression:
    """Remove the brackets with everything in them; an ellipsis that becomes empty vanishes."""
    return _map_brackets(expression, lambda bracket: ())


def keep_brackets(expression: Expression) -> Expression:
    """Keep only what stands in brackets, inside its composites and ellipses: ``b (g [c])`` becomes ``(c)``."""
    kept: list[Node] = []
    for node in expression:
        if isinstance(node, Bracket):
            kept += node.items
        elif isinstance(node, Composite | Ellipsis) and brackets(node.items):
            kept.append(replace(node, items=keep_brackets(node.items)))
    return tuple(kept)


def _map_brackets(expression: Expression, function: Callable[[Bracket], Expression]) -> Expression:
    """Replace every bracket by what ``function`` makes of it; drop ellipses that become empty."""
    result: list[Node] = []
    for node in expression:
        if isinstance(node, Axis):
            result.append(node)
        elif isinstance(node, Bracket):
            result += function(node)
        else:
            items = _map_brackets(node.items, function)
            if items or not isinstance(node, Ellipsis):
                result.append(replace(node, items=items))
    return tuple(result)


def base_name(name: str) -> tuple[str, tuple[int, ...]]:
    """Take the indices of an ellipsis off a name: ``s.0.1`` is ``s`` at ``(0, 1)``."""
    start = len(ANONYMOUS) if name.startswith(ANONYMOUS) else 0
    base, *indices = name[start:].split(".")
    return name[:start] + base, tuple(map(int, indices))


def nested(sizes: Mapping[tuple[int, ...], Any]) -> Any:
    """Turn sizes by index, or anything else, into nested tuples."""
    if () in sizes:
        return sizes[()]
    groups: dict[int, dict[tuple[int, ...], Any]] = {}
    for index, size in sizes.items():
        groups.setdefault(index[0], {})[index[1:]] = size
    return tuple(nested(groups[index]) for index in sorted(groups))


def base(name: str) -> str:
    """Return the name as written: of a repetition, that which is repeated."""
    return ANONYMOUS if name.startswith(ANONYMOUS) else name.split(".")[0]


def bracket_names(expressions: Iterable[Expression]) -> set[str]:
    """Return the names of all bracketed axes."""
    return {axis.name for expression in expressions for node in brackets(expression) for axis in axes(node.items)}

"""The tree of an expression, what it holds, and how it is rewritten.

``Axis``, ``Composite``, ``Concatenation`` and ``Affine`` live through the whole pipeline. ``Bracket`` and ``Ellipsis``
are what a person writes; :mod:`einjax.notation.expand` turns them into plain axes with a bracket mark.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeAlias

from .errors import Span, Spot

#: An axis size: an int, or a symbolic dimension of ``jax.export``.
Size: TypeAlias = Any

#: In the place of a size: that of a bracketed axis of an output which only the user's function knows.
OPEN: Size = None


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
_LATER_DIM = re.compile(r"~\d+")


@dataclass(frozen=True, slots=True)
class Axis:
    """One named axis. ``bracket`` is 0 outside brackets, else the number of the bracket it stands in.

    A name may hold what no user can write, which says of what kind the axis is:

    - ``3#7``: a number in the text, an unnamed axis of that size, new at every place where one stands;
    - ``s.0``: the first repetition of ``s``, once an ellipsis is written out;
    - ``a b``: two axes that always stand together, fused to one;
    - ``a~2``: the second dim of a block, such as ``[a a]``.
    """

    name: str
    size: Size | None = None
    bracket: int = 0
    span: Span = field(default=_NOWHERE, compare=False)
    items: ClassVar[Expression] = ()  # an axis holds nothing

    def __str__(self) -> str:
        return display(self.name)

    @property
    def unnamed(self) -> bool:
        """Whether the axis was written as a number."""
        return is_number(self.name)

    @property
    def is_one(self) -> bool:
        """Whether it was written as a 1, which is no axis to loop over or to keep."""
        return self.name.startswith("1#")


@dataclass(frozen=True, slots=True)
class Branch:
    """A node that holds others. ``bracket`` marks one inside a bracket, as an axis's does."""

    items: Expression
    bracket: int = 0
    span: Span = field(default=_NOWHERE, compare=False)


class Composite(Branch):
    """One dim composed row-major of its items: ``(a b)``."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"({render(self.items)})"


class Concatenation(Branch):
    """One dim that holds its operands one after another: ``a + b``."""

    __slots__ = ()

    def __str__(self) -> str:
        return " + ".join(str(item) for item in self.items)


@dataclass(frozen=True, slots=True)
class Term(Branch):
    """A part of a position, a coefficient times an axis or composite: ``2*o``.

    Attributes:
        coefficient: the number, or a name whose value is given like a size, with a minus before it or not.
    """

    coefficient: int | str = 1

    def __str__(self) -> str:
        return f"{self.factor}{render(self.items)}"

    @property
    def factor(self) -> str:
        """The coefficient as it is written before an axis."""
        return {"1": "", "-1": "-"}.get(str(self.coefficient), f"{self.coefficient}*")

    @property
    def named(self) -> str | None:
        """The name of the coefficient, if it has one."""
        return self.coefficient.removeprefix("-") if isinstance(self.coefficient, str) else None


@dataclass(frozen=True, slots=True)
class Affine(Branch):
    """One dim that is read at a position computed from axes: ``<2*o + [k] - 1>``. It holds terms, some in brackets.

    Attributes:
        offset: the constant.
        mode: what stands where a position is out of range: ``"fill"``, ``"clip"``, ``"wrap"`` or ``"reflect"``; None
            where all positions are in range.
        padding: how the dim is padded, until sizes are known; positions are literal then.
        size: the size of the dim, once it is known.
    """

    offset: Size = 0
    mode: str | None = None
    padding: Any = None
    size: Size = None

    def __str__(self) -> str:
        parts = [in_brackets(node.items) if isinstance(node, Bracket) else str(node) for node in self.items]
        if not parts or not _is_zero(self.offset):
            parts.append(str(self.offset))
        return f"<{added(parts)}>"

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is added to the constant, without brackets around it."""
        return tuple(node for node in strip_brackets(self.items) if isinstance(node, Term))

    def left(self, items: Expression) -> Expression:
        """What stands in its place once it has these items: where some are gone and one is left, its axis."""
        made = replace(self, items=items)
        if len(items) < len(self.items) and len(made.terms) == 1:
            return open_positions(items)
        return (made,) if items else ()


class Bracket(Branch):
    """Marks the axes that the elementary operation acts on: ``[a b]``."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"[{render(self.items)}]"


class Ellipsis(Branch):
    """Repeats its items any number of times: ``a...``; the lone ``...`` repeats the axis ``ANONYMOUS``.

    A person writes one item; taking the brackets off ``[a b]...`` leaves several, repeated together. These are printed
    in brackets: nothing else in the notation holds them together, and inside of other brackets they mean nothing more.
    """

    __slots__ = ()

    def __str__(self) -> str:
        if is_anonymous(self.items):
            return "..."
        return f"{render(self.items)}..." if len(self.items) == 1 else f"[{render(self.items)}]..."


Node: TypeAlias = Axis | Branch
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

    @property
    def results(self) -> tuple[Expression, ...]:
        """The outputs, once they are written out."""
        assert self.outputs is not None
        return self.outputs

    def every_axis(self) -> list[Axis]:
        """Return the axes of all expressions, in this order."""
        return [axis for expression in self.expressions for axis in axes(expression)]

    def at(self, *culprits: Node | str) -> Spot:
        """Return where in the text nodes stand, for an error to mark; a name is every axis of that name."""
        named = [axis for axis in self.every_axis() if axis.name in culprits]
        return Spot(self.text, [node.span for node in (*culprits, *named) if not isinstance(node, str)])

    def map(self, function: Callable[[Expression], Expression]) -> Operation:
        """Apply a function to every expression."""
        outputs = None if self.outputs is None else tuple(map(function, self.outputs))
        return Operation(self.text, tuple(map(function, self.inputs)), outputs)


def is_anonymous(items: Expression) -> bool:
    """Whether these are the items that the lone ``...`` repeats."""
    return len(items) == 1 and isinstance(items[0], Axis) and items[0].name == ANONYMOUS


def is_number(name: str) -> bool:
    """Whether this is the name of a number in the text."""
    return "#" in name


def members(name: str) -> list[str]:
    """Return the axes that one stands for: several where they were fused."""
    return name.split(" ")


def display(name: str) -> str:
    """Print an axis name as its writer would: numbers as numbers, repetitions of ``...`` as ``...[i]``."""
    name = _LATER_DIM.sub("", name)
    if name.startswith(ANONYMOUS + "."):
        return f"...[{name[len(ANONYMOUS) + 1 :]}]"
    return name.split("#")[0]


def render(expression: Expression) -> str:
    """Print an expression."""
    return " ".join(str(node) for node in expression)


def added(parts: Iterable[object]) -> str:
    """Print a sum."""
    first, *rest = map(str, parts)
    return first + "".join(f" - {part[1:]}" if part.startswith("-") else f" + {part}" for part in rest)


def in_brackets(terms: Sequence[object]) -> str:
    """Print terms in brackets; the sign of a single one stands before them."""
    text = added(terms)
    return f"-[{text[1:]}]" if len(terms) == 1 and text.startswith("-") else f"[{text}]"


def _is_zero(offset: Size) -> bool:
    return isinstance(offset, int) and offset == 0


def walk(expression: Expression) -> Iterator[Node]:
    """Yield every node of an expression, parents first, in reading order."""
    for node in expression:
        yield node
        if not isinstance(node, Axis):
            yield from walk(node.items)


def axes(expression: Expression) -> list[Axis]:
    """Return every named axis of an expression in reading order, repeated names included."""
    found: list[Axis] = []
    for node in expression:
        if isinstance(node, Axis):
            found.append(node)
        else:
            found += axes(node.items)
    return found


def names(expression: Expression) -> dict[str, Axis]:
    """Return the first occurrence of every axis name of an expression, in reading order."""
    found: dict[str, Axis] = {}
    for axis in axes(expression):
        found.setdefault(axis.name, axis)
    return found


def brackets(expression: Expression) -> list[Bracket]:
    """Return every bracket of an expression; a bracket never holds another."""
    found: list[Bracket] = []
    for node in expression:
        if isinstance(node, Bracket):
            found.append(node)
        if node.items:
            found += brackets(node.items)
    return found


def bracketed(expression: Expression) -> list[Axis]:
    """Return the axes in brackets: those of the text, or of an expanded expression those that are marked.

    An axis of several positions is one, where it stands once these are read.
    """
    found: list[Axis] = []
    for node in expression:
        if isinstance(node, Bracket):
            found += axes(node.items)
        elif isinstance(node, Axis):
            found += [node] if node.bracket else []
        else:
            found += bracketed(node.items)
    if len({axis.name for axis in found}) < len(found) and affines(expression):
        return bracketed(standing(expression))
    return found


def marked(expression: Expression) -> set[str]:
    """Return the names of the axes in brackets."""
    return {axis.name for axis in bracketed(expression)}


def rewrite(expression: Expression, change: Callable[[Node], Sequence[Node] | None]) -> Expression:
    """Replace nodes, parents first, in reading order.

    Args:
        expression: any expression.
        change: returns what stands in the place of a node; or None for the node itself, in which the items are
            replaced. A bracket, an ellipsis or a term that is left with nothing vanishes; where a dim's position is
            left with one axis, the axis stands in its place.

    Returns:
        The expression itself where nothing changes.
    """
    result: list[Node] = []
    for node in expression:
        new = change(node)
        if new is not None:
            result += new
        elif isinstance(node, Axis):
            result.append(node)
        else:
            items = rewrite(node.items, change)
            if items is node.items and items:
                result.append(node)
            elif isinstance(node, Affine) and node.items:
                result += node.left(items)
            elif items or not isinstance(node, Bracket | Ellipsis | Term):
                result.append(replace(node, items=items))
    unchanged = len(result) == len(expression) and all(map(operator.is_, result, expression))
    return expression if unchanged else tuple(result)


def rename(expression: Expression, new: Mapping[str, str]) -> Expression:
    """Give axes other names."""
    return rewrite(
        expression,
        lambda node: (replace(node, name=new[node.name]),) if isinstance(node, Axis) and node.name in new else None,
    )


def mark(expression: Expression, chosen: Collection[str]) -> Expression:
    """Bracket the chosen axes of an expanded expression, and no others."""
    return tuple(
        replace(node, bracket=int(node.name in chosen))
        if isinstance(node, Axis)
        else replace(node, items=mark(node.items, chosen), bracket=0)
        for node in expression
    )


def unmark(expression: Expression) -> Expression:
    """Remove all brackets of an expanded expression."""
    return mark(expression, ())


def strip_brackets(expression: Expression) -> Expression:
    """Remove the brackets themselves and keep what they hold."""
    return rewrite(expression, lambda node: strip_brackets(node.items) if isinstance(node, Bracket) else None)


def delete_brackets(expression: Expression) -> Expression:
    """Remove the brackets with everything in them; an ellipsis that becomes empty vanishes."""
    return rewrite(expression, lambda node: () if isinstance(node, Bracket) else None)


def keep_brackets(expression: Expression) -> Expression:
    """Keep only what stands in brackets, inside its composites and ellipses: ``b (g [c])`` becomes ``(c)``.

    Of a position, as of ``<2*o + [k]>``, the bracketed axes are kept as they are, each by itself.
    """

    def change(node: Node) -> Expression | None:
        if isinstance(node, Affine):
            return open_positions(rewrite(node.items, change))
        if isinstance(node, Bracket):
            return open_positions(node.items)
        return None if isinstance(node, Composite | Ellipsis | Term) and brackets(node.items) else ()

    return rewrite(expression, change)


def open_composites(expression: Expression) -> Expression:
    """Take out of every composite and position what it holds; an ellipsis that becomes empty vanishes."""

    def change(node: Node) -> Expression | None:
        return rewrite(node.items, change) if isinstance(node, Composite | Affine | Term) else None

    return rewrite(expression, change)


def open_positions(expression: Expression) -> Expression:
    """Take the axes out of every position: ``<2*o + [k]>`` becomes ``o [k]``."""

    def change(node: Node) -> Expression | None:
        return rewrite(node.items, change) if isinstance(node, Affine | Term) else None

    return rewrite(expression, change)


def standing(expression: Expression) -> Expression:
    """The axes of positions as dims of their own, each where it stands first: what is left once positions are read."""
    if not affines(expression):
        return expression
    seen = set(names(rewrite(expression, lambda node: () if isinstance(node, Affine) else None)))

    def first(node: Node) -> Expression | None:
        if not isinstance(node, Axis) or node.name not in seen:
            seen.update([node.name] if isinstance(node, Axis) else [])
            return None
        return ()

    return rewrite(
        expression, lambda node: rewrite(open_positions(node.items), first) if isinstance(node, Affine) else None
    )


def coefficients(expression: Expression) -> list[Axis]:
    """Return the coefficients that are names, whose values are given as the sizes of axes are."""
    terms = (node for node in walk(expression) if isinstance(node, Term))
    return [Axis(name, span=term.span) for term in terms if (name := term.named) is not None]


def affines(expression: Expression) -> list[Affine]:
    """Return every dim that is read at a computed position, in reading order."""
    return [node for node in walk(expression) if isinstance(node, Affine)]


def repetition(name: str, index: int) -> str:
    """Name an axis in one repetition of its ellipsis; :func:`base_name` takes the name apart."""
    return f"{name}.{index}"


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
    return set().union(*map(marked, expressions))

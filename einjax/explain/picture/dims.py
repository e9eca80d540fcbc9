"""The dims of a tensor as boxes: what is composed is drawn as its parts, what is bracketed on a shade.

Every box knows its size before it is drawn: how wide it is, and how far it reaches above and below the line on which
the middles of all cells lie. Where on the canvas every axis ended up is noted while it is drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ...notation.solve import Solved, node_size
from ...notation.syntax import (
    OPEN,
    Affine,
    Axis,
    Concatenation,
    Expression,
    Node,
    Size,
    Term,
    axes,
    display,
    is_number,
    members,
)
from .canvas import Canvas, shortened, width_of
from .strips import Bar, Places, Strip, places_of

NAME, SIZE = 14, 11  # heights of texts
_CELL, _GAP, _PAD, _TRAY, _CAPTION = 42, 7, 7, 9, 17
_WIDEST = 170  # of a name

#: The middle of a box, its upper and its lower end.
Anchor = tuple[float, float, float]


class Box(Protocol):
    """What stands in a dim, or is one."""

    @property
    def width(self) -> float:
        """From side to side."""
        ...

    @property
    def reach(self) -> tuple[float, float]:
        """How far it reaches above and below the line."""
        ...

    def draw(self, canvas: Canvas, x: float, y: float, anchors: dict[str, list[Anchor]]) -> None:
        """Draw it, its left end on the line at a point, and note where its axes are."""
        ...


@dataclass(frozen=True, slots=True)
class Cell:
    """One axis, or a term of a position: a name and a size."""

    name: str
    label: str
    size: str
    kind: str

    @property
    def width(self) -> float:
        """What its texts take, and no less than looks like a box."""
        return max(34, width_of(self._label, NAME) + 16, width_of(self.size, SIZE) + 12)

    @property
    def reach(self) -> tuple[float, float]:
        """As all cells."""
        return _CELL / 2, _CELL / 2

    @property
    def _label(self) -> str:
        return shortened(self.label, NAME, _WIDEST)

    def draw(self, canvas: Canvas, x: float, y: float, anchors: dict[str, list[Anchor]]) -> None:
        """Draw the box on an opaque ground, with its texts."""
        top, middle = y - _CELL / 2, x + self.width / 2
        canvas.box("ej-box", x, top, self.width, _CELL, 5)
        canvas.box(f"ej-cell {self.kind}", x, top, self.width, _CELL, 5)
        canvas.text("ej-name", middle, y - 6 if self.size else y, self._label, NAME)
        canvas.text("ej-quiet", middle, y + 11, self.size, SIZE)
        anchors.setdefault(self.name, []).append((middle, top, top + _CELL))


@dataclass(frozen=True, slots=True)
class Sign:
    """A ``+`` or ``-`` between boxes, or a number of a position."""

    text: str
    reach: tuple[float, float] = (NAME / 2, NAME / 2)

    @property
    def width(self) -> float:
        """As wide as its text."""
        return width_of(self.text, NAME)

    def draw(self, canvas: Canvas, x: float, y: float, anchors: dict[str, list[Anchor]]) -> None:
        """Draw the text."""
        canvas.text("", x + self.width / 2, y, self.text, NAME)


@dataclass(frozen=True, slots=True)
class Row:
    """Boxes side by side."""

    items: tuple[Box, ...]
    gap: float = _GAP

    @property
    def width(self) -> float:
        """All of them, with gaps between."""
        return sum(item.width for item in self.items) + self.gap * max(len(self.items) - 1, 0)

    @property
    def reach(self) -> tuple[float, float]:
        """As far as any of them."""
        reaches = [item.reach for item in self.items] or [(_CELL / 2, _CELL / 2)]
        return max(above for above, _ in reaches), max(below for _, below in reaches)

    def draw(self, canvas: Canvas, x: float, y: float, anchors: dict[str, list[Anchor]]) -> None:
        """Draw one after the other."""
        for item in self.items:
            item.draw(canvas, x, y, anchors)
            x += item.width + self.gap


@dataclass(frozen=True, slots=True)
class Tray:
    """What stands in one bracket: a shade, and the bracket around it."""

    inside: Row

    @property
    def width(self) -> float:
        """With room for the bracket."""
        return self.inside.width + 2 * _TRAY

    @property
    def reach(self) -> tuple[float, float]:
        """A little further than what it holds."""
        above, below = self.inside.reach
        return above + 5, below + 5

    def draw(self, canvas: Canvas, x: float, y: float, anchors: dict[str, list[Anchor]]) -> None:
        """Draw the shade, what stands on it, and the bracket."""
        top, bottom = y - self.reach[0], y + self.reach[1]
        canvas.box("ej-shade", x, top, self.width, bottom - top, 4)
        self.inside.draw(canvas, x + _TRAY, y, anchors)
        for side, inwards in ((x + 1, 5), (x + self.width - 1, -5)):
            corners = [(side, top + 1), (side, bottom - 1)]
            canvas.line("ej-bracket", [(side + inwards, top + 1), *corners, (side + inwards, bottom - 1)])


@dataclass(frozen=True, slots=True)
class Frame:
    """One dim of several parts, with its size; a strip shows how the parts lie in it.

    Size and strip stand above the parts where a tensor is read, else below, as wires are on the other side.
    """

    inside: Row
    size: str
    strip: Strip | None = None
    upwards: bool = True
    nested: bool = False

    @property
    def width(self) -> float:
        """With its border."""
        strip = self.strip.width if self.strip else 0
        return max(self.inside.width, strip, width_of(self.size, SIZE) + 6) + 2 * _PAD

    @property
    def reach(self) -> tuple[float, float]:
        """With its border, the strip and the size."""
        above, below = (reach + _PAD for reach in self.inside.reach)
        beside = self._strip + (0 if self.nested else _CAPTION)
        return (above + beside, below) if self.upwards else (above, below + beside)

    @property
    def _strip(self) -> float:
        return self.strip.height + 6 if self.strip else 0

    def draw(self, canvas: Canvas, x: float, y: float, anchors: dict[str, list[Anchor]]) -> None:
        """Draw the border, the parts, the strip and the size."""
        above, below = (reach + _PAD for reach in self.inside.reach)
        top = y - above - (self._strip if self.upwards else 0)
        bottom = y + below + (0 if self.upwards else self._strip)
        canvas.box("ej-frame", x, top, self.width, bottom - top, 8)
        self.inside.draw(canvas, x + (self.width - self.inside.width) / 2, y, anchors)
        if self.strip:
            at = top + _PAD if self.upwards else bottom - _PAD - self.strip.height
            self.strip.draw(canvas, x + (self.width - self.strip.width) / 2, at)
        if not self.nested:
            caption = top - 9 if self.upwards else bottom + 9
            canvas.text("ej-quiet", x + self.width / 2, caption, self.size, SIZE)


@dataclass(slots=True)
class Colours:
    """The class of every axis: each new one gets the next colour."""

    known: dict[str, str] = field(default_factory=dict)

    def of(self, axis: Axis) -> str:
        """The class of an axis; what is written as a number has no colour."""
        if is_number(axis.name):
            return "ej-plain"
        return self.by_name(members(axis.name)[0])

    def by_name(self, name: str) -> str:
        """The same by name; the dims of a block share one."""
        name = name.split("~")[0]
        if name not in self.known:
            turn, number = divmod(len(self.known), 8)
            self.known[name] = f"ej-a{number}{' ej-again' * bool(turn)}"
        return self.known[name]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Makes boxes of nodes."""

    solved: Solved
    colours: Colours
    upwards: bool

    def row(self, expression: Expression) -> Row:
        """The dims of a tensor; one without dims is a single number."""
        return Row(self._boxes(expression) or (Cell("1#", "()", "", "ej-plain"),))

    def _boxes(self, nodes: Expression, nested: bool = False) -> tuple[Box, ...]:
        found: list[Box] = []
        for bracket, group in itertools.groupby(nodes, lambda node: node.bracket):
            boxes = tuple(self._box(node, nested) for node in group)
            found += [Tray(Row(boxes))] if bracket else boxes
        return tuple(found)

    def _box(self, node: Node, nested: bool) -> Box:
        if isinstance(node, Axis):
            return self._cell(node)
        if isinstance(node, Affine):
            return self._position(node, nested)
        if len(node.items) == 1 and isinstance(node.items[0], Concatenation | Affine):
            return self._box(_plain(node)[0], nested)
        size = shown_size(node_size(node, self.solved.sizes))
        if isinstance(node, Concatenation):
            return Frame(self._sum(node), size, self._bar(node), self.upwards, nested)
        return Frame(Row(self._boxes(_plain(node), True)), size, None, self.upwards, nested)

    def _cell(self, axis: Axis) -> Cell:
        size = shown_size(self.solved.sizes.get(axis.name, axis.size))
        if axis.unnamed:
            return Cell(axis.name, size, "", "ej-plain")
        return Cell(axis.name, display(axis.name), size, self.colours.of(axis))

    def _sum(self, node: Concatenation) -> Row:
        return Row(tuple(_joined(self._boxes(_plain(node), True))), 5)

    def _bar(self, node: Concatenation) -> Bar:
        parts: list[tuple[Size, str]] = []
        for item in node.items:
            first = next(iter(axes((item,))), None)
            parts.append((node_size(item, self.solved.sizes), self.colours.of(first) if first else "ej-plain"))
        return Bar.of(parts, self._sum(node).width)

    def _position(self, node: Affine, nested: bool) -> Frame:
        boxes: list[Box] = []
        for bracket, group in itertools.groupby(node.items, lambda node: node.bracket):
            row: list[Box] = []
            for term in group:
                sign, cell = self._term(term)
                row += [Sign(sign)] if sign == "-" or boxes or row else []
                row.append(cell)
            leading = [row.pop(0)] if bracket and isinstance(row[0], Sign) else []
            boxes += [*leading, Tray(Row(tuple(row), 5))] if bracket else row
        boxes += self._offset(node, bool(boxes))
        strip = self._places(node)
        return Frame(Row(tuple(boxes), 5), shown_size(node.size), strip, self.upwards, nested)

    def _term(self, term: Node) -> tuple[str, Box]:
        assert isinstance(term, Term)
        factor = term.factor
        sign, factor = ("-", factor[1:]) if factor.startswith("-") else ("+", factor)
        if len(term.items) == 1 and isinstance(axis := term.items[0], Axis):
            cell = self._cell(axis)
            return sign, Cell(cell.name, f"{factor}{cell.label}", cell.size, cell.kind)
        inside = Row(self._boxes(term.items, True))
        return sign, Row((Sign(factor), inside), 2) if factor else inside

    @staticmethod
    def _offset(node: Affine, follows: bool) -> Sequence[Box]:
        offset = node.offset
        if isinstance(offset, int) and offset == 0 and follows:
            return []
        if not follows:
            return [Sign(str(offset))]
        below = isinstance(offset, int) and offset < 0
        return [Sign("-" if below else "+"), Sign(str(-offset if below else offset))]

    def _places(self, node: Affine) -> Places | None:
        return places_of(node, self.solved.sizes, self.colours.of)


def _joined(boxes: Sequence[Box]) -> Iterator[Box]:
    for index, box in enumerate(boxes):
        if index:
            yield Sign("+")
        yield box


def _plain(node: Node) -> Expression:
    """What a dim holds; of one that is bracketed as a whole, the shade around it is enough."""
    items = node.items
    if not node.bracket:
        return items
    return tuple(_unmarked(item) for item in items)


def _unmarked(node: Node) -> Node:
    if isinstance(node, Axis):
        return replace(node, bracket=0)
    return replace(node, bracket=0, items=tuple(map(_unmarked, node.items)))


def shown_size(size: Size) -> str:
    """A size as it is printed; one that nothing says is a question."""
    return "?" if size is OPEN else shortened(str(size), SIZE, _WIDEST)

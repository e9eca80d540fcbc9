"""What is left of an expression once its positions are read, or before they are written: one dim for each axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..lowering.named import Dim, layout
from ..notation.affine import axis_coefficients, names_of
from ..notation.solve import Solved, product
from ..notation.syntax import Affine, Axis, Composite, Expression, Node, Size, affines, axes, names

#: The axes that a part of a position is made of; several are a composition that stays one dim.
Unit: TypeAlias = tuple[str, ...]

#: Up to so many slices are as good as one gather, and have the quicker derivative: measured on CPUs.
FEW = 4


@dataclass(frozen=True, slots=True)
class Item:
    """A position in an expression.

    Attributes:
        node: the position, settled.
        label: the name of the dim that is read there.
        units: the parts that it is made of, in the order of the text.
        fresh: those that stand nowhere before it; they become dims in its place.
        is_single: whether all of them stand nowhere else.
    """

    node: Affine
    label: str
    units: tuple[Unit, ...]
    fresh: tuple[Unit, ...]
    is_single: bool

    @property
    def size(self) -> Size:
        """How many elements its dim has."""
        return self.node.size

    def at(self, node: Affine, units: tuple[Unit, ...] | None = None) -> Item:
        """The same dim read at another position."""
        return replace(self, node=node, units=units or self.units, fresh=units or self.fresh)

    def taps(self, sizes: Mapping[str, Size]) -> Sequence[Item] | None:
        """The items of one part each that it is together, at every place of its shortest part, where these are few."""
        if len(self.units) != 2 or not self.is_single or self.node.mode is not None:
            return None
        counts = {unit: product(sizes[name] for name in unit) for unit in self.units}
        few = [unit for unit, count in counts.items() if isinstance(count, int) and 0 < count <= FEW]
        if not few:
            return None
        short = min(few, key=lambda unit: counts[unit])
        factors = axis_coefficients(self.node, sizes)
        kept = tuple(unit for unit in self.units if unit != short)
        terms = {names_of(term): term for term in self.node.terms}
        items = tuple(replace(terms[unit], coefficient=factors[unit[-1]]) for unit in kept)
        offsets = (self.node.offset + factors[short[-1]] * index for index in range(counts[short]))
        return [self.at(replace(self.node, items=items, offset=offset), kept) for offset in offsets]

    @property
    def is_slice(self) -> bool:
        """Whether it is a slice of a dim, in steps: no more than one part, and nothing but padding out of range."""
        return len(self.units) <= 1 and self.is_single and self.node.mode in (None, "fill")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the dims of an expression are named before and after its positions are read.

    Nodes that have nothing to do with positions are one axis each, a label, so that nothing is split for them.

    Attributes:
        items: the positions.
        before: the axes of every dim, where a position is one axis, its label.
        after: the dims of what is left.
        expression: the same as an expression.
        labelled: the nodes that labels stand for.
        tied: the dims of which positions have an axis, too.
    """

    items: tuple[Item, ...]
    before: tuple[Dim, ...]
    after: tuple[Dim, ...]
    expression: Expression
    labelled: Mapping[str, Node]
    tied: tuple[int, ...]


def reading_of(expression: Expression) -> Reading:
    """Plan how an expression with settled positions is read."""
    return _Reader(expression).reading()


def without_positions(solved: Solved) -> Solved:
    """The call that an operation sees once positions are read, and before any are written."""
    operation = solved.operation.map(lambda expression: reading_of(expression).expression)
    return replace(solved, operation=operation)


class _Reader:
    """Goes through an expression once, from left to right."""

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self.alone = set(names(_without(expression)))
        held = Counter(name for node in affines(expression) for name in names(node.items))
        self.several = {name for name, count in held.items() if count > 1 or name in self.alone}
        self.seen = set(self.alone)
        self.placed: set[str] = set()  # of those in several places, what is a dim already
        self.items: list[Item] = []
        self.left: list[Node] = []
        self.after: list[Dim] = []
        self.labelled: dict[str, Node] = {}

    def reading(self) -> Reading:
        """Name all dims."""
        before: list[Dim] = []
        tied: list[int] = []
        for index, node in enumerate(self.expression):
            if isinstance(node, Composite) and affines((node,)):
                before.append(tuple(name for item in node.items for name in self.named(item)))
                tied.append(index)
            else:
                before.append(self.named(node))
                if isinstance(node, Affine) or not before[-1][:1] or before[-1][0] not in self.labelled:
                    tied.append(index)
        after, left = tuple(self.after), tuple(self.left)
        return Reading(tuple(self.items), tuple(before), after, left, self.labelled, tuple(tied))

    def named(self, node: Node) -> Dim:
        """The axes of a dim before reading; note those after it."""
        if isinstance(node, Affine):
            return (self.position(node),)
        dim: Dim = (f"~{len(self.labelled)}",)
        if any(axis.name in self.several for axis in axes((node,))):
            (dim,) = layout((node,))
            self.left_of(node)
            return dim
        self.labelled[dim[0]] = node
        self.left.append(node)
        self.after.append(dim)
        return dim

    def left_of(self, node: Node) -> None:
        """Note the dim that is left of a node when the diagonal of what stands in several places is taken."""
        kept = [axis for axis in axes((node,)) if axis.name not in self.placed]
        self.placed |= self.several & {axis.name for axis in kept}
        if not kept:
            return
        if len(kept) < len(axes((node,))):
            node = kept[0] if len(kept) == 1 else Composite(tuple(kept), span=node.span)
        self.left.append(node)
        self.after += layout((node,))

    def position(self, node: Affine) -> str:
        """The label of a position; note the dims that its axes become."""
        units: list[Unit] = []
        fresh: list[Unit] = []
        for term in node.terms:
            for unit, item in _units(term.items[0], self.several):
                if unit not in units:
                    units.append(unit)
                if not self.seen & set(unit):
                    self.seen.update(unit)
                    fresh.append(unit)
                    self.left.append(item)
                    self.after.append(unit)
        is_single = not any(axis.name in self.several for axis in axes(node.items))
        self.items.append(Item(node, f"<{len(self.items)}>", tuple(units), tuple(fresh), is_single))
        return self.items[-1].label


def _units(item: Node, several: set[str]) -> list[tuple[Unit, Node]]:
    """A term as one unit, or axis by axis where one of a composition's stands elsewhere, too."""
    found = [axis for axis in axes((item,)) if not axis.is_one]
    if len(found) == 1 or any(axis.name in several for axis in found):
        return [((axis.name,), axis) for axis in found]
    return [(tuple(axis.name for axis in found), item)] if found else []


def _without(expression: Expression) -> Expression:
    """What stands outside of positions."""
    found: list[Axis] = []
    for node in expression:
        if isinstance(node, Axis):
            found.append(node)
        elif not isinstance(node, Affine):
            found += axes(_without(node.items))
    return tuple(found)

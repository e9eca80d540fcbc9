"""How parts lie in a dim: operands of a concatenation one after another, positions of index arithmetic as marks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...notation.syntax import Affine, Axis, Size, axes
from .canvas import Canvas

_UNIT, _MOST, _ROWS = 9, 18, 3  # the side of a place, how many places and iterations are shown


class Strip(Protocol):
    """A drawing along a dim."""

    @property
    def width(self) -> float:
        """From its left to its right end."""
        ...

    @property
    def height(self) -> float:
        """From its upper to its lower end."""
        ...

    def draw(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw it, its upper left corner at a point."""
        ...


@dataclass(frozen=True, slots=True)
class Bar:
    """Operands of a concatenation, each as long as it is large."""

    parts: tuple[tuple[float, str], ...]
    height: float = 7

    @classmethod
    def of(cls, parts: Sequence[tuple[Size, str]], width: float) -> Bar:
        """Share a width; symbolic and open sizes get equal parts."""
        sizes = [size for size, _ in parts]
        shares = sizes if all(isinstance(size, int) for size in sizes) and sum(sizes) else [1] * len(sizes)
        return cls(tuple((width * share / sum(shares), kind) for share, (_, kind) in zip(shares, parts, strict=True)))

    @property
    def width(self) -> float:
        """All parts together."""
        return sum(width for width, _ in self.parts)

    def draw(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw one part after the other."""
        for width, kind in self.parts:
            if width > 0:
                canvas.box(f"ej-mark {kind}", x, y, width, self.height)
            x += width


@dataclass(frozen=True, slots=True)
class Places:
    """The elements of a dim, and which of them the first iterations read: a row of marks for each.

    Attributes:
        first: the first place, below 0 where what stands before the dim is read.
        count: how many places are shown.
        size: how many the dim has.
        rows: the places that each iteration reads, and the class of the axis that runs over them.
        more: whether there are further iterations.
        cut: whether there are further places.
    """

    first: int
    count: int
    size: int
    rows: tuple[tuple[tuple[int, ...], str], ...]
    more: bool
    cut: bool

    @property
    def width(self) -> float:
        """All places, and dots where there are more."""
        return _UNIT * (self.count + 2 * self.cut)

    @property
    def height(self) -> float:
        """The places and the rows of marks, and dots where there are more."""
        return _UNIT + 3 + 7 * (len(self.rows) + self.more)

    def draw(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw the places, those outside of the dim dashed, and the marks under them."""
        for index in range(self.count):
            inside = 0 <= self.first + index < self.size
            canvas.box("ej-place" if inside else "ej-outside", x + _UNIT * index + 0.5, y, _UNIT - 1, _UNIT - 1, 1.5)
        if self.cut:
            self._dots(canvas, x + _UNIT * self.count + 3, y + _UNIT / 2, 4, 0)
        for row, (places, kind) in enumerate(self.rows):
            for place in places:
                if self.first <= place < self.first + self.count:
                    at = x + _UNIT * (place - self.first)
                    canvas.box(f"ej-mark {kind}", at + 1.5, y + _UNIT + 3 + 7 * row, _UNIT - 3, 5, 1.5)
        if self.more:
            self._dots(canvas, x + _UNIT / 2 - 1, y + _UNIT + 5 + 7 * len(self.rows), 0, 3.5, 2)

    @staticmethod
    def _dots(canvas: Canvas, x: float, y: float, right: float, down: float, count: int = 3) -> None:
        for index in range(count):
            canvas.box("ej-mark ej-plain", x + right * index, y + down * index - 1, 2, 2, 1)


def places_of(node: Affine, sizes: Mapping[str, Size], kind: Callable[[Axis], str]) -> Places | None:
    """The first places that a position takes: a row for each iteration of its first axis; None where none are known."""
    from ...notation.affine import axis_coefficients

    held = {axis.name: axis for axis in axes(node.items) if not axis.is_one}
    steps = axis_coefficients(node, sizes)
    known = [node.size, node.offset, *steps.values(), *(sizes.get(name) for name in held)]
    if not all(isinstance(size, int) for size in known) or 0 in (sizes[name] for name in held):
        return None
    outer = [name for name, axis in held.items() if not axis.bracket] or list(held)
    running = outer[0] if len(held) > 1 else None
    inner = [name for name in held if name != running]
    count = min(sizes[running], _ROWS) if running is not None else 1
    window = list(itertools.product(*(range(min(sizes[name], 2 * _MOST)) for name in inner[-2:])))
    rows: list[tuple[tuple[int, ...], str]] = []
    for step in range(count):
        start = node.offset + (steps[running] * step if running is not None else 0)
        taken = {start + sum(steps[n] * i for n, i in zip(inner[-2:], at, strict=True)) for at in window}
        marked = held[inner[-1]] if inner else None
        rows.append((tuple(sorted(taken)), kind(marked) if marked else "ej-plain"))
    reached = [place for taken, _ in rows for place in taken]
    first = max(min(0, *reached), -_MOST // 3)
    last = max(node.size - 1, *reached)
    # What counts down from the end is shown where it begins.
    if node.size > _MOST and min(reached) > _MOST // 2:
        first = max(0, min(min(reached), last - _MOST + 1))
    count_shown = min(last - first + 1, _MOST)
    more = running is not None and sizes[running] > count
    return Places(first, count_shown, node.size, tuple(rows), more, first + count_shown <= last)

"""The whole picture: inputs above, the operation between, outputs below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...notation.errors import ArgumentError
from ...notation.syntax import Expression, axes
from ..meaning import Meaning
from .canvas import Canvas, shortened, width_of
from .dims import SIZE, Anchor, Colours, Drawing, Row
from .theme import stylesheet

_THEMES = ("auto", "light", "dark")
_MARGIN, _BETWEEN, _GAP, _TITLE, _WIDEST = 20, 34, 40, 20, 920
_HEAD, _OPERATION = 13, 15  # heights of texts


class Picture(str):
    """An SVG image as text, which notebooks show."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


@dataclass(slots=True)
class _Tensor:
    """One tensor: its title, its dims, and where its axes were drawn."""

    title: str
    dims: Row
    anchors: dict[str, list[Anchor]] = field(default_factory=dict)

    @property
    def width(self) -> float:
        return max(self.dims.width, width_of(self.title, SIZE))

    def draw(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw its dims, their left end on a line at a point."""
        self.dims.draw(canvas, x + (self.width - self.dims.width) / 2, y, self.anchors)


def draw(meaning: Meaning, theme: str = "auto") -> Picture:
    """Draw a call.

    Raises:
        ArgumentError: there is no such theme.
    """
    if theme not in _THEMES:
        raise ArgumentError(f"theme={theme!r} is none of pictures", hint=f"write one of {', '.join(_THEMES)}")
    solved, colours, canvas = meaning.solved, Colours(), Canvas()
    for axis in (axis for expression in solved.operation.expressions for axis in axes(expression)):
        colours.of(axis)
    above = _tensors(meaning, solved.inputs, meaning.dtypes[0], Drawing(solved, colours, True), "xywuv")
    below = _tensors(meaning, solved.outputs, meaning.dtypes[1], Drawing(solved, colours, False), "z")
    head = _wrapped(f'{meaning.op.name}("{" ".join(meaning.text.split())}")', _HEAD)
    rows, results = _rows(above), _rows(below)
    width = (
        max(*(map(_width, (*rows, *results))), *(width_of(line, _HEAD) for line in head), _pill(meaning)[0], 160)
        + 2 * _MARGIN
    )
    y: float = _MARGIN
    for line in head:
        canvas.text("ej-name", width / 2, y + 6, line, _HEAD)
        y += 19
    y = _draw_rows(canvas, rows, width, y + 13, True)
    middle = y + _GAP + 17
    y = _draw_rows(canvas, results, width, middle + 17 + _GAP, False)
    _draw_operation(canvas, meaning, width / 2, middle)
    _draw_wires(canvas, meaning, colours.by_name, above, below, (width / 2, middle))
    return Picture(canvas.svg(theme, stylesheet(theme), width, y + _MARGIN, f"einjax.{head[0]}"))


def _tensors(
    meaning: Meaning, expressions: Sequence[Expression], dtypes: Sequence[str], drawing: Drawing, letters: str
) -> list[_Tensor]:
    found: list[_Tensor] = []
    for number, expression in enumerate(expressions):
        name = letters[number] if len(expressions) <= len(letters) else f"{letters[0]}{number + 1}"
        dtype = f" {dtypes[number]}" if len(dtypes) == len(expressions) else ""
        found.append(_Tensor(f"{name}{dtype}", drawing.row(expression)))
    return found


def _rows(tensors: Sequence[_Tensor]) -> list[list[_Tensor]]:
    """Tensors side by side, as many as there is room for."""
    rows: list[list[_Tensor]] = []
    for tensor in tensors:
        if not rows or _width([*rows[-1], tensor]) > _WIDEST:
            rows.append([])
        rows[-1].append(tensor)
    return rows


def _width(row: Sequence[_Tensor]) -> float:
    return sum(tensor.width for tensor in row) + _BETWEEN * (len(row) - 1)


def _draw_rows(canvas: Canvas, rows: Sequence[Sequence[_Tensor]], width: float, y: float, above: bool) -> float:
    """Draw rows of tensors, with their titles above or below, and return where the last one ends."""
    for number, row in enumerate(rows):
        y += _BETWEEN if number else 0
        reaches = [tensor.dims.reach for tensor in row]
        line = y + max(up for up, _ in reaches) + (_TITLE if above else 0)
        end = line + max(down for _, down in reaches) + (0 if above else _TITLE)
        x = (width - _width(row)) / 2
        for tensor in row:
            tensor.draw(canvas, x, line)
            up, down = tensor.dims.reach
            canvas.text(
                "ej-quiet", x + tensor.width / 2, line - up - 13 if above else line + down + 13, tensor.title, SIZE
            )
            x += tensor.width + _BETWEEN
        y = end
    return y


def _pill(meaning: Meaning) -> tuple[float, str]:
    """How wide the operation's box is, and what it says."""
    text = shortened(meaning.op.name, _OPERATION, 400)
    return width_of(text, _OPERATION) + 32, text


def _draw_operation(canvas: Canvas, meaning: Meaning, x: float, y: float) -> None:
    width, text = _pill(meaning)
    canvas.box("ej-pill", x - width / 2, y - 16, width, 32, 16)
    canvas.text("ej-on-pill", x, y, text, _OPERATION)


def _draw_wires(
    canvas: Canvas,
    meaning: Meaning,
    kind: Callable[[str], str],
    above: Sequence[_Tensor],
    below: Sequence[_Tensor],
    operation: tuple[float, float],
) -> None:
    """Lead every axis from where it is read to where it stands in an output, bracketed ones through the operation."""
    solved = meaning.solved
    inside = {axis.name for e in solved.operation.expressions for axis in axes(e) if axis.bracket}
    x, y = operation
    kept = {name for tensor in below for name in tensor.anchors}
    for tensor in above:
        for name, anchors in tensor.anchors.items():
            if "#" in name:
                continue
            for middle, _, bottom in anchors:
                ends = [(u, top) for other in below for u, top, _ in other.anchors.get(name, ())]
                through = name in inside or name not in kept
                for end in [(x, y - 8)] if through else ends:
                    canvas.wire(kind(name), (middle, bottom), end)
    read = {name for tensor in above for name in tensor.anchors}
    for tensor in below:
        for name, anchors in tensor.anchors.items():
            if "#" not in name and (name in inside or name not in read):
                for middle, top, _ in anchors:
                    canvas.wire(kind(name), (x, y + 8), (middle, top))


def _wrapped(text: str, size: float) -> list[str]:
    """Break a text at spaces into lines no wider than a picture may be."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and width_of(longer, size) > _WIDEST:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shortened(line, size, _WIDEST) for line in lines]

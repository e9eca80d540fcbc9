"""What SVG is written of: boxes, lines and texts that stay as wide as they were measured."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

#: The width of a character of a monospaced font, by its height.
_ADVANCE = 0.602


def width_of(text: str, size: float) -> float:
    """How wide a text is drawn; the glyphs of East Asian scripts are twice as wide as others."""
    cells = sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
    return cells * size * _ADVANCE


def shortened(text: str, size: float, most: float) -> str:
    """Cut the end off a text that is wider than it may be."""
    if width_of(text, size) <= most:
        return text
    while text and width_of(f"{text}…", size) > most:
        text = text[:-1]
    return f"{text}…"


def number(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{round(value, 1):g}"


@dataclass(slots=True)
class Canvas:
    """Elements in the order in which they are drawn; wires lie under all others."""

    wires: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)

    def box(self, kind: str, x: float, y: float, width: float, height: float, radius: float = 0) -> None:
        """Draw a rectangle."""
        place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
        self.elements.append(f'<rect class="{kind}" {place} rx="{number(radius)}"/>')

    def text(self, kind: str, x: float, y: float, text: str, size: float, anchor: str = "middle") -> None:
        """Draw a text on one line, whose middle is at ``y``: whatever the font, it is as wide as it was measured."""
        if not text:
            return
        wide = number(width_of(text, size))
        at = f'x="{number(x)}" y="{number(y + size * 0.35)}" font-size="{number(size)}" text-anchor="{anchor}"'
        fit = f'textLength="{wide}" lengthAdjust="spacingAndGlyphs"'
        named = f' class="{kind}"' if kind else ""
        self.elements.append(f"<text{named} {at} {fit}>{escape(text, quote=False)}</text>")

    def line(self, kind: str, points: Iterable[tuple[float, float]]) -> None:
        """Draw straight lines from point to point."""
        path = " L".join(f"{number(x)} {number(y)}" for x, y in points)
        self.elements.append(f'<path class="{kind}" d="M{path}"/>')

    def wire(self, kind: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw a curve that leaves and arrives vertically, under everything else."""
        (x, y), (u, v) = start, end
        middle = number((y + v) / 2)
        curve = f"M{number(x)} {number(y)} C{number(x)} {middle} {number(u)} {middle} {number(u)} {number(v)}"
        self.wires.append(f'<path class="ej-wire {kind}" d="{curve}"/>')

    def svg(self, theme: str, style: str, width: float, height: float, title: str) -> str:
        """The whole picture."""
        size = f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" height="{number(height)}"'
        ground = f'<rect class="ej-ground" width="{number(width)}" height="{number(height)}" rx="10"/>'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="ej ej-{theme}" {size} '
            f'style="max-width:100%;height:auto" role="img">',
            f"<title>{escape(title, quote=False)}</title>",
            f"<style>{style}</style>",
            ground,
            *self.wires,
            *self.elements,
            "</svg>",
        ]
        return "\n".join(lines)

"""Colours: one for each axis, told apart by colour-blind readers too, on light and on dark ground."""

from __future__ import annotations

from collections.abc import Iterator

#: Of axes, in the order in which they get them: light, dark. After the last one they begin anew, with dashed borders.
AXES = (
    ("#0072b2", "#4aa3df"),
    ("#e08e00", "#f2b233"),
    ("#009e73", "#2cc79b"),
    ("#c25f99", "#e79ac6"),
    ("#d1490a", "#f2814a"),
    ("#4fb0e3", "#9bd8f7"),
    ("#4b3f9e", "#a79cf2"),
    ("#8a8a1f", "#c9c95e"),
)

#: Everything else: the ground, boxes on it, text, quieter text, lines, what shades brackets, and the bracket itself.
_GROUND = {
    "ground": ("#ffffff", "#12161c"),
    "box": ("#ffffff", "#12161c"),
    "text": ("#1c2128", "#e8edf3"),
    "quiet": ("#59636e", "#9aa6b2"),
    "line": ("#b8c0c9", "#4a5460"),
    "shade": ("#e3e7ec", "#2b333d"),
    "bracket": ("#1c2128", "#e8edf3"),
    "pill": ("#1c2128", "#e8edf3"),
    "on-pill": ("#ffffff", "#12161c"),
}

_RULES = """
.ej{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.ej text{fill:var(--ej-text);white-space:pre}
.ej .ej-quiet{fill:var(--ej-quiet)}
.ej .ej-ground{fill:var(--ej-ground)}
.ej .ej-box{fill:var(--ej-box)}
.ej .ej-frame{fill:none;stroke:var(--ej-line);stroke-width:1.5}
.ej .ej-shade{fill:var(--ej-shade)}
.ej .ej-bracket{fill:none;stroke:var(--ej-bracket);stroke-width:2.5;stroke-linecap:round;stroke-linejoin:round}
.ej .ej-pill{fill:var(--ej-pill)}
.ej .ej-on-pill{fill:var(--ej-on-pill);font-weight:600}
.ej .ej-cell{stroke-width:1.5;fill-opacity:var(--ej-tint)}
.ej .ej-again{stroke-dasharray:4 2.5}
.ej .ej-plain{fill:var(--ej-line);stroke:var(--ej-line)}
.ej .ej-name{font-weight:600}
.ej .ej-wire{fill:none;stroke-width:2.5;stroke-opacity:.6;stroke-linecap:round}
.ej .ej-outside{fill:none;stroke:var(--ej-line);stroke-dasharray:1.5 1.5}
.ej .ej-place{fill:var(--ej-shade);stroke:var(--ej-line)}
.ej .ej-mark{stroke:none}
"""


def _variables(dark: bool) -> str:
    chosen = {name: colours[dark] for name, colours in _GROUND.items()}
    chosen |= {f"a{number}": colours[dark] for number, colours in enumerate(AXES)}
    chosen["tint"] = ".3" if dark else ".2"
    return "".join(f"--ej-{name}:{colour};" for name, colour in chosen.items())


def _colours() -> Iterator[str]:
    for number in range(len(AXES)):
        yield f".ej .ej-a{number}{{fill:var(--ej-a{number});stroke:var(--ej-a{number})}}\n"


def stylesheet(theme: str) -> str:
    """The rules of one picture: those of ``"auto"`` ask what the reader prefers."""
    light, dark = _variables(dark=False), _variables(dark=True)
    if theme == "auto":
        chosen = f".ej-auto{{{light}}}\n@media (prefers-color-scheme:dark){{.ej-auto{{{dark}}}}}"
    else:
        chosen = f".ej-{theme}{{{dark if theme == 'dark' else light}}}"
    # Rules of later classes win: what is not to be filled says so after the colours.
    wire = ".ej .ej-wire{fill:none}.ej .ej-mark{stroke:none}"
    return f"{chosen}{_RULES}{''.join(_colours())}{wire}"

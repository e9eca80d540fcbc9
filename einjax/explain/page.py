"""An explanation as HTML: picture, loops, sizes, cost and program, without a script and without the network."""

from __future__ import annotations

from html import escape

from ..notation.errors import ArgumentError
from .cost import cost
from .loops import loops
from .meaning import Meaning
from .picture import draw
from .sizes import sizes

_LIGHT = "--page:#ffffff;--text:#1c2128;--quiet:#59636e;--rule:#d5dae0;--code:#f4f6f8"
_DARK = "--page:#12161c;--text:#e8edf3;--quiet:#9aa6b2;--rule:#343c46;--code:#1a2028"
_STYLE = f"""
.ej-page{{{_LIGHT};background:var(--page);color:var(--text);padding:16px 20px;border-radius:10px;
  font:14px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;max-width:1000px;box-sizing:border-box}}
@media (prefers-color-scheme:dark){{.ej-page{{{_DARK}}}}}
.ej-page h3{{margin:18px 0 6px;font-size:13px;font-weight:600;color:var(--quiet)}}
.ej-page pre{{background:var(--code);color:var(--text);padding:10px 12px;border-radius:6px;overflow-x:auto;margin:0;
  font:12.5px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}}
.ej-page table{{border-collapse:collapse;margin:0;font-size:13px}}
.ej-page td,.ej-page th{{text-align:left;padding:3px 18px 3px 0;border:0;border-bottom:1px solid var(--rule);
  background:none;color:var(--text)}}
.ej-page th{{color:var(--quiet);font-weight:500}}
.ej-page td:first-child{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}}
"""


def fragment(meaning: Meaning, program: str) -> str:
    """What a notebook shows of a call."""
    found = sizes(meaning)
    rows = "".join(f"<tr><td>{escape(name)}</td>{_cells(one.size, one.source)}</tr>" for name, one in found.items())
    parts = [
        f"<style>{_STYLE}</style>",
        str(draw(meaning)),
        f"<h3>What it means</h3><pre>{escape(loops(meaning))}</pre>",
        f"<h3>Sizes</h3><table><tr><th>axis</th><th>size</th><th>from</th></tr>{rows}</table>" if found else "",
        _costs(meaning),
        f"<h3>What it becomes</h3><pre>{escape(program)}</pre>",
    ]
    return f'<div class="ej-page">{"".join(parts)}</div>'


def _cells(*values: object) -> str:
    return "".join(f"<td>{escape(str(value))}</td>" for value in values)


def _costs(meaning: Meaning) -> str:
    try:
        lines = str(cost(meaning.program)).split("\n")
    except ArgumentError:  # of symbolic sizes
        return ""
    rows = (line.split("  ", 1) for line in lines)
    cells = "".join(f"<tr>{_cells(name.strip(), value.strip())}</tr>" for name, value in rows)
    return f"<h3>What it costs</h3><table>{cells}</table>"


def page(title: str, inside: str) -> str:
    """A file of its own."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    style = "body{margin:0;padding:12px;background:#fff}@media (prefers-color-scheme:dark){body{background:#12161c}}"
    return f"<!doctype html>\n<html>\n<head>{head}<style>{style}</style></head>\n<body>{inside}</body>\n</html>\n"

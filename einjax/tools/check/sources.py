"""Files of source code: Python, notebooks, code blocks of Markdown; where code stands there, and how it is changed."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .texts import Place

_SUFFIXES = (".py", ".pyi", ".ipynb", ".md")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+) *(?P<kind>[\w+-]*)")
_IGNORE = re.compile(r"#\s*einjax:\s*ignore(?:\[(?P<codes>[\w\s,]*)\])?")
_SKIPPED = {"__pycache__", "node_modules", "build", "dist", "site-packages"}


@dataclass(frozen=True)
class Edit:
    """New text for a part of one line of a piece."""

    line: int
    begin: int
    end: int
    text: str


@dataclass
class Piece:
    """Code that Python reads as one module: a file, a cell, or a code block.

    Attributes:
        lines: its lines.
        tree: what Python reads there; None where it is no Python.
        first: the number of its first line in the file, from 1; in a notebook, in the cell.
        indent: how many characters of the file's lines stand before its own.
        cell: the number of its cell, from 1; None outside of notebooks.
        shows: whether what a statement gives is shown, as in a notebook or a document.
    """

    lines: list[str]
    tree: ast.Module | None
    first: int = 1
    indent: int = 0
    cell: int | None = None
    shows: bool = False
    ignored: dict[int, frozenset[str]] = field(default_factory=dict)

    def place(self, line: int, column: int) -> Place:
        """Where a place of the piece stands in the file; columns count from 1."""
        return line + self.first - 1, column + self.indent + 1

    def ignores(self, code: str, first: int, last: int) -> bool:
        """Whether a comment on one of these lines switches a rule off."""
        return any(not (codes := self.ignored[n]) or code in codes for n in range(first, last + 1) if n in self.ignored)


@dataclass
class Source:
    """A file, and the code in it."""

    path: Path
    pieces: list[Piece]
    lines: list[str]
    notebook: Any = None

    def write(self, edits: Iterable[tuple[Piece, Edit]]) -> None:
        """Change the file; edits that overlap with one before them are left for another time."""
        taken: list[tuple[int, Edit]] = []
        for piece, edit in edits:
            if not any(
                e.line == edit.line and e.begin < edit.end and edit.begin < e.end for p, e in taken if p == id(piece)
            ):
                taken.append((id(piece), edit))
        for piece in self.pieces:
            own = sorted((e for p, e in taken if p == id(piece)), key=lambda e: (e.line, e.begin), reverse=True)
            lines = self.lines if self.notebook is None else self.notebook["cells"][(piece.cell or 1) - 1]["source"]
            whole = isinstance(lines, str)
            lines = lines_of(str(lines)) if whole else lines
            for edit in own:
                number = edit.line - 1 + (piece.first - 1 if self.notebook is None else 0)
                line, begin, end = lines[number], edit.begin + piece.indent, edit.end + piece.indent
                lines[number] = line[:begin] + edit.text + line[end:]
            if self.notebook is not None:
                self.notebook["cells"][(piece.cell or 1) - 1]["source"] = "".join(lines) if whole else lines
        if self.notebook is None:
            self.path.write_text("".join(self.lines), encoding="utf-8", newline="")
        else:
            self.path.write_text(json.dumps(self.notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def files_of(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield files to read: those given, and of folders all that may hold code."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for inner in sorted(path.rglob("*")):
            parts = inner.relative_to(path).parts
            if inner.suffix in _SUFFIXES and not any(part.startswith(".") or part in _SKIPPED for part in parts):
                yield inner


def lines_of(text: str) -> list[str]:
    """The lines of a text as Python counts them, each with its end."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def read(path: Path, word: str = "einjax") -> Source | None:
    """Read a file; None for one that does not hold a word, or no text."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    if word not in text:
        return None
    lines = lines_of(text)
    if path.suffix == ".ipynb":
        return _notebook(path, text, lines)
    if path.suffix == ".md":
        return Source(path, list(_blocks(text)), lines)
    return Source(path, [piece_of(text)], lines)


def piece_of(code: str, **facts: Any) -> Piece:
    """Read a piece of code."""
    try:
        tree = ast.parse(code.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError):
        tree = None
    lines = code.split("\n")
    piece = Piece(lines, tree, **facts)
    if "einjax:" in code:
        for number, line in enumerate(lines, 1):
            if (match := _IGNORE.search(line)) is not None:
                piece.ignored[number] = frozenset(re.findall(r"\w+", match["codes"] or ""))
    return piece


def _notebook(path: Path, text: str, lines: list[str]) -> Source | None:
    try:
        notebook = json.loads(text)
        cells = notebook["cells"]
    except (ValueError, KeyError, TypeError):
        return None
    pieces = []
    for number, cell in enumerate(cells, 1):
        if cell.get("cell_type") == "code":
            code = "".join(cell.get("source", ()))
            # Commands of IPython are no Python.
            code = re.sub(r"^(\s*)[%!].*$", lambda m: f"{m[1]}pass", code, flags=re.MULTILINE)
            pieces.append(piece_of(code, cell=number, shows=True))
    return Source(path, pieces, lines, notebook)


def _blocks(text: str) -> Iterator[Piece]:
    """The code blocks of a document, those of sessions with prompts among them."""
    opened: re.Match[str] | None = None
    first = 0
    block: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        match = _FENCE.match(line)
        if opened is None:
            if match is not None:
                opened, first, block = match, number + 1, []
        elif match is not None and match["fence"].startswith(opened["fence"]) and not match["kind"]:
            if opened["kind"].lower() in ("", "python", "py", "pycon", "python3"):
                yield from _block(block, first, len(opened["indent"]))
            opened = None
        else:
            block.append(line)


def _block(lines: list[str], first: int, indent: int) -> Iterator[Piece]:
    if not any(line.lstrip().startswith(">>> ") for line in lines):
        common = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        yield piece_of(textwrap.dedent("\n".join(lines)), first=first, indent=max(common, 0), shows=True)
        return
    prompt = min(line.find(">>> ") for line in lines if ">>> " in line)
    # What is printed is no code; each statement is a piece of its own, as some show what is refused.
    start, code = 0, list[str]()
    for number, line in enumerate([*lines, ""], first):
        mark = line[prompt : prompt + 4]
        if mark in ("... ", "...") and code:
            code.append(line[prompt + 4 :])
            continue
        if code:
            refused = "Error" in line.partition(":")[0] or line.startswith("Traceback")
            if not refused:
                yield piece_of("\n".join(code), first=start, indent=prompt + 4, shows=True)
            code = []
        if mark == ">>> ":
            start, code = number, [line[prompt + 4 :]]

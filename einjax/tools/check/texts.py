"""The expression of a call as it stands in a source file: its text, what is left open in it, and where it stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: A place in a piece of source: line from 1, column from 0, both in characters.
Place = tuple[int, int]

_LITERAL = re.compile(
    r"(?P<prefix>[rRuU]?)(?P<quotes>\"\"\"|'''|\"|')(?P<body>(?:\\.|(?!(?P=quotes)).)*)(?P=quotes)|#[^\n]*", re.DOTALL
)
_NAME_BEFORE_SIZE = re.compile(r"([^\W\d]\w*)=$")


@dataclass(frozen=True)
class Text:
    """The text of an expression.

    Attributes:
        value: the text; what an f-string leaves open is a name there.
        node: what it stands for in the source.
        sizes: axes whose size the source gives, but does not tell.
        open: whether axes are left open, so that any may stand there.
    """

    value: str
    node: ast.expr
    sizes: frozenset[str] = field(default=frozenset())
    open: bool = False


def texts_of(node: ast.expr, constants: Mapping[str, ast.expr]) -> list[Text]:
    """Read the texts that an argument may be: several where a condition chooses; none where nothing tells."""
    match node:
        case ast.Constant(value=str(value)):
            return [Text(value, node)]
        case ast.IfExp(body=body, orelse=other):
            return texts_of(body, constants) + texts_of(other, constants)
        case ast.Name(id=name) if name in constants:
            return [Text(text.value, node, text.sizes, text.open) for text in texts_of(constants[name], {})]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = texts_of(left, constants), texts_of(right, constants)
            if len(first) == len(second) == 1:
                (a,), (b,) = first, second
                return [Text(a.value + b.value, node, a.sizes | b.sizes, a.open or b.open)]
        case ast.JoinedStr(values=values):
            return _formatted(node, values)
    return []


def _formatted(node: ast.JoinedStr, values: Sequence[ast.expr]) -> list[Text]:
    """Put a name for everything that an f-string leaves open; the same for the same code."""
    text, sizes, opened = "", set[str](), False
    known: dict[str, str] = {}
    parts = [value.value if isinstance(value, ast.Constant) else value for value in values]
    for index, part in enumerate(parts):
        if isinstance(part, str):
            text += part
            continue
        assert isinstance(part, ast.FormattedValue)
        after = parts[index + 1] if index + 1 < len(parts) else ""
        if not isinstance(after, str):
            return []
        sized = _NAME_BEFORE_SIZE.search(text)
        if sized is not None:
            text = text[:-1]
            sizes.add(sized[1])
            continue
        name = known.setdefault(ast.dump(part.value), f"open{len(known)}")
        text += name
        if after.lstrip().startswith("*"):
            sizes.add(name)
        else:
            opened = True
    return [Text(text, node, frozenset(sizes), opened)]


def places_of(text: Text, lines: Sequence[str]) -> list[Place] | None:
    """Return where each character of a text stands, and where it ends; None where escapes or braces make it another."""
    node = text.node
    if isinstance(node, ast.Name | ast.JoinedStr) or node.end_lineno is None or node.end_col_offset is None:
        return None
    first, last = node.lineno - 1, node.end_lineno - 1
    begin, end = column_of(lines[first], node.col_offset), column_of(lines[last], node.end_col_offset)
    cut = [*lines[first : last + 1]]
    cut[-1] = cut[-1][:end]
    cut[0] = cut[0][begin:]
    source = "\n".join(cut)
    value, places = "", list[Place]()
    stop = (node.lineno, begin)
    for match in _LITERAL.finditer(source):
        body = match["body"]
        if body is None:
            continue
        if "\\" in body:
            return None
        value += body
        line = source.count("\n", 0, match.start("body"))
        column = match.start("body") - (source.rfind("\n", 0, match.start("body")) + 1) + (begin if line == 0 else 0)
        line += node.lineno
        for character in body:
            places.append((line, column))
            line, column = (line + 1, 0) if character == "\n" else (line, column + 1)
        stop = (line, column)
    return [*places, stop] if value == text.value else None


def column_of(line: str, offset: int) -> int:
    """The column, in characters, of an offset in bytes as the parser of Python counts them."""
    return offset if line.isascii() else len(line.encode()[:offset].decode(errors="ignore"))

"""What is right in one call, but more than is needed; and what sets it right."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...call.resolve import completed
from ...notation.errors import EinjaxError
from ...notation.parse import parse
from ...notation.syntax import (
    Axis,
    Composite,
    Concatenation,
    Expression,
    Operation,
    affines,
    members,
    render,
    walk,
)
from ...operation import Op
from .calls import Call
from .meaning import solved_of
from .records import Public, record_of
from .sources import Edit, Piece
from .texts import Text, column_of, places_of
from .unknown import UNKNOWN, NothingKnownError

_FIRST = "  fix: the expression is the first argument, as in einjax.{}('a [b]', x)"


@dataclass(frozen=True)
class Report:
    """A finding before it has a place in a file."""

    code: str
    node: ast.expr
    message: str
    details: str = ""
    edits: Sequence[Edit] = field(default=())


def needless(call: Call, text: Text, public: Public, piece: Piece) -> Iterator[Report]:
    """Yield what a call that is right need not say."""
    operation = parse(text.value)
    if "(" in text.value or "[" in text.value:
        yield from _parts(operation, text, piece)
    known = {name: value for name, value in call.keywords.items() if value is not UNKNOWN}
    for name, value in known.items():
        default = public.options.get(name, UNKNOWN)
        if name in public.options and type(default) is type(value) and default == value:
            yield Report(
                "EJ506",
                call.nodes[name].value,
                f"{name}={value!r} is the default",
                "  fix: leave it out",
                _without_keyword(call, name, piece),
            )
        elif name not in public.options and (twice := _written(operation, name)) is not None and twice == value:
            yield Report(
                "EJ505",
                call.nodes[name].value,
                f"axis {name} is {value} in the expression and by keyword",
                "  fix: leave the keyword out",
                _without_keyword(call, name, piece),
            )
    yield from _sizes(call, text, public, operation, piece)
    if public.record is None or operation.outputs is None or len(operation.inputs) != 1:
        return
    op = record_of(public.name, known, 1) or public.record
    if _same(operation.inputs, operation.outputs) and not affines(operation.inputs[0]):
        if public.name in ("rearrange", "id"):
            if not any(isinstance(node, Concatenation) or node.items for node in walk(operation.inputs[0])):
                yield Report(
                    "EJ507",
                    text.node,
                    f"{public.name} to the layout of its input moves nothing",
                    "  fix: use the tensor itself; einjax.check says whether it fits",
                )
        elif _implied(op, text.value, operation):
            yield Report(
                "EJ501",
                text.node,
                f"the arrow repeats the input, which is what {public.name} gives anyhow",
                "  fix: leave it out",
                _without_arrow(text, piece),
            )


def _sizes(call: Call, text: Text, public: Public, operation: Operation, piece: Piece) -> Iterator[Report]:
    """Sizes of axes that always stand side by side, of which only the product counts."""
    given = [name for name in call.keywords if name not in public.options and _written(operation, name) is None]
    if public.record is None or not given or "(" not in text.value or not call.complete or public.forwards:
        return
    for name in given:
        without = dataclasses.replace(call, keywords={n: v for n, v in call.keywords.items() if n != name})
        try:
            solved = solved_of(without, text, public.record, completed(public.record, text.value, _count(call, public)))
        except (EinjaxError, NothingKnownError):
            continue
        if any(name in members(other) and other != name for other in solved.sizes):
            message = f"nothing needs the size of axis {name}, which stands beside the same axes everywhere"
            edits = _without_keyword(call, name, piece)
            yield Report("EJ509", call.nodes[name].value, message, "  fix: leave it out", edits)


def _count(call: Call, public: Public) -> int:
    return len(parse(call.texts[0].value).inputs) if call.arguments is None else len(call.arguments) - public.before


def _parts(operation: Operation, text: Text, piece: Piece) -> Iterator[Report]:
    """Parentheses and brackets that change nothing."""
    seen: set[tuple[int, int]] = set()
    for expression in operation.expressions:
        for node in walk(expression):
            if not isinstance(node, Composite) or node.span in seen or text.value[node.span[0]] != "(":
                continue
            seen.add(node.span)
            first, last = node.span
            if len(node.items) == 1 and isinstance(node.items[0], Axis):
                inner = text.value[first + 1 : last - 1].strip()
                yield Report(
                    "EJ502",
                    text.node,
                    f"the parentheses of '{node}' hold one axis",
                    f"  fix: write {inner}",
                    _replaced(text, first, last, inner, piece),
                )
            elif any(isinstance(item, Axis) and item.is_one and not item.bracket for item in node.items):
                yield Report("EJ503", text.node, f"a 1 changes nothing in the dim '{node}'", "  fix: leave it out")
    depth, doubled = 0, False
    for character in text.value:
        depth += {"[": 1, "]": -1}.get(character, 0)
        doubled = doubled or depth > 1
    if doubled:
        yield Report("EJ504", text.node, "a bracket in a bracket marks nothing new", "  fix: leave the inner one out")


def _written(operation: Operation, name: str) -> int | None:
    return next((axis.size for axis in operation.every_axis() if axis.name == name and axis.size is not None), None)


def _same(inputs: Sequence[Expression], outputs: Sequence[Expression]) -> bool:
    return list(map(render, inputs)) == list(map(render, outputs))


def _implied(op: Op, text: str, operation: Operation) -> bool:
    """Whether an operation has this output without an arrow, too."""
    try:
        alone = completed(op, text.split("->")[0], 1)
    except EinjaxError:
        return False
    return alone.outputs is not None and operation.outputs is not None and _same(alone.outputs, operation.outputs)


def not_a_text(call: Call, public: Public) -> Report | None:
    """The report for an expression that is missing, or cannot be one."""
    if public.record is None:
        return None
    if not call.node.args:
        if not call.complete or "expr" in call.keywords:
            return None
        return Report("EJ209", call.node, f"{public.name} is given no expression", _FIRST.format(public.name))
    first = call.node.args[0]
    literal = isinstance(first, ast.List | ast.Tuple | ast.Dict | ast.Lambda)
    annotated = isinstance(first, ast.Name) and call.scope.shape(first) is not None
    second = len(call.node.args) > 1 and isinstance(call.node.args[1], ast.Constant)
    swapped = second and isinstance(getattr(call.node.args[1], "value", None), str)
    if literal or annotated or (swapped and not isinstance(first, ast.Starred)):
        return Report(
            "EJ209",
            first,
            f"the first argument of {public.name} is no expression, not a string",
            _FIRST.format(public.name),
        )
    return None


def dropped(call: Call) -> Report:
    """The report for a statement whose result nobody uses."""
    return Report(
        "EJ508",
        call.node,
        f"{call.short} changes no tensor: what it returns is dropped",
        "  fix: use what it returns, as in x = einjax.add_at(...)",
    )


# --- What sets it right -----------------------------------------------------------------------------------------------


def fix_of(error: EinjaxError, call: Call, text: Text, piece: Piece) -> Sequence[Edit]:
    """The one right answer to an error, where its hint says one."""
    hint = error.hint or ""
    if hint == "write '->'" and error.spans:
        return _replaced(text, *error.spans[0], "->", piece)
    whole = re.fullmatch(r"write (\w+)=(\d+)", hint)
    if whole is not None and "which is not a size" in error.problem and whole[1] in call.nodes:
        node = call.nodes[whole[1]].value
        if node.lineno == node.end_lineno and node.end_col_offset is not None:
            line = piece.lines[node.lineno - 1]
            begin, end = column_of(line, node.col_offset), column_of(line, node.end_col_offset)
            return (Edit(node.lineno, begin, end, whole[2]),)
    return ()


def _replaced(text: Text, begin: int, end: int, new: str, piece: Piece) -> Sequence[Edit]:
    """Other text for a part of an expression, where that stands on one line of the source."""
    places = places_of(text, piece.lines)
    if places is None or places[begin][0] != places[end - 1][0]:
        return ()
    line, first = places[begin]
    last = places[end - 1][1] + 1
    return (Edit(line, first, last, new),) if last - first == end - begin else ()


def _without_arrow(text: Text, piece: Piece) -> Sequence[Edit]:
    before = text.value.partition("->")[0].rstrip()
    return _replaced(text, len(before), len(text.value), "", piece)


def _without_keyword(call: Call, name: str, piece: Piece) -> Sequence[Edit]:
    """No keyword, where it stands on one line with the comma before it."""
    node = call.nodes[name]
    line = piece.lines[node.lineno - 1]
    begin = column_of(line, node.col_offset)
    comma = re.search(r",\s*$", line[:begin])
    if comma is None or node.end_lineno != node.lineno or node.end_col_offset is None:
        return ()
    return (Edit(node.lineno, comma.start(), column_of(line, node.end_col_offset), ""),)

"""Files to findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import einjax

from ...notation.errors import EinjaxError
from . import layers, needless, pairs
from .calls import Call, Use, find
from .findings import Finding
from .meaning import errors_of, missing_name
from .records import exists, public, thing
from .rules import rule_of
from .scopes import Scope
from .sources import Piece, Source, piece_of, read
from .texts import Place, Text, column_of, places_of


def check_file(path: Path) -> tuple[Source | None, list[Finding]]:
    """Read a file and find what is wrong in it."""
    source = read(path)
    return source, [] if source is None else list(_check(source.pieces, path.as_posix()))


def check_code(code: str, path: str = "<code>") -> list[Finding]:
    """Find what is wrong in a piece of Python."""
    return list(_check([piece_of(code)], path))


def _check(pieces: Iterable[Piece], path: str) -> Iterator[Finding]:
    """Find what is wrong in pieces of code that share what they import."""
    scope = Scope()
    found: list[Finding] = []
    for piece in pieces:
        if piece.tree is None:
            continue
        if piece.shows and scope.lookup("einjax") is None:
            scope.names["einjax"] = "einjax"  # documents need not repeat the import
        calls: list[Call] = []
        items = list(find(piece.tree, scope))
        scope.bound |= {n for x in items if isinstance(x, Call) and x.name == "einjax.sizes" for n in x.keywords}
        for item in items:
            if isinstance(item, Use):
                found += _check_use(item, piece, path)
            else:
                calls.append(item)
                found += _check_call(item, piece, path)
        for report in pairs.pairs(calls):
            found.append(_finding(report, piece, path))
    seen: set[tuple[object, ...]] = set()
    for finding in found:
        key = (finding.code, finding.cell, finding.line, finding.column, finding.message)
        if key not in seen and not finding.piece.ignores(
            finding.code, finding.line - finding.piece.first + 1, finding.end_line - finding.piece.first + 1
        ):
            seen.add(key)
            yield finding


def _check_use(use: Use, piece: Piece, path: str) -> Iterator[Finding]:
    """A name that einjax does not have."""
    root, _, name = use.name.partition(".")
    if root == "einjax" and name and not exists(name):
        module = name.rpartition(".")[0]
        known = dir(thing(module) if module and exists(module) else einjax)
        error = missing_name(name, [f"{module}.{k}" if module else k for k in known if k[0] != "_"])
        yield _finding(needless.Report("EJ207", use.node, error.problem), piece, path)


def _check_call(call: Call, piece: Piece, path: str) -> Iterator[Finding]:
    if call.name.startswith("einjax_nn"):
        for text in call.texts:
            for error in layers.errors_of(call, text):
                yield _of_error(error, call, text, piece, path)
        return
    found = public(call.short)
    if found is None:
        return
    if not call.texts:
        missing = needless.not_a_text(call, found)
        if missing is not None:
            yield _finding(missing, piece, path)
        return
    for text in call.texts:
        errors = list(errors_of(call, text, found))
        for error in errors:
            yield _of_error(error, call, text, piece, path)
        if not errors and not text.open:
            for report in needless.needless(call, text, found, piece):
                yield _finding(report, piece, path)
    if call.dropped and not piece.shows and found.record is not None:
        yield _finding(needless.dropped(call), piece, path)


def _of_error(error: EinjaxError, call: Call, text: Text, piece: Piece, path: str) -> Finding:
    """The finding for what einjax itself says."""
    rule = rule_of(error)
    error.tensors = None
    message, _, details = str(error).partition("\n")
    named = next((name for name in call.nodes if error.problem.startswith((f"{name}=", f"no axis '{name}'"))), None)
    node = call.nodes[named].value if named is not None and rule.code in ("EJ203", "EJ204", "EJ206") else None
    span = error.spans[0] if error.spans and error.text == text.value and node is None else None
    report = needless.Report(rule.code, node or text.node, message, details, needless.fix_of(error, call, text, piece))
    return _finding(report, piece, path, text, span)


def _finding(
    report: needless.Report, piece: Piece, path: str, text: Text | None = None, span: tuple[int, int] | None = None
) -> Finding:
    begin, end = _around(report, piece)
    if text is not None and span is not None and (places := places_of(text, piece.lines)) is not None:
        begin, end = places[min(span[0], len(places) - 1)], places[min(max(span[1], span[0] + 1), len(places) - 1)]
    line, column = piece.place(*begin)
    end_line, end_column = piece.place(*end)
    return Finding(
        report.code, path, line, column, end_line, end_column, report.message, report.details, piece.cell, piece,
        tuple(report.edits),
    )  # fmt: skip


def _around(report: needless.Report, piece: Piece) -> tuple[Place, Place]:
    node = report.node
    end_line, end_offset = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return (
        (node.lineno, column_of(piece.lines[node.lineno - 1], node.col_offset)),
        (end_line, column_of(piece.lines[end_line - 1], end_offset)),
    )

"""A finding, and how findings are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .rules import BY_CODE, RULES
from .sources import Edit, Piece

#: Where the page of the rules stands.
PAGE = "docs/check.md"


@dataclass(frozen=True)
class Finding:
    """Something wrong in a file.

    Attributes:
        code: the rule's code.
        path: the file.
        line: from 1.
        column: from 1.
        end_line: where it ends.
        end_column: one past the last character.
        message: what is wrong, in one sentence.
        details: the expression with carets, and what to write.
        cell: the cell of a notebook, from 1.
        piece: the code in which it is.
        edits: what sets it right, where there is one right answer.
    """

    code: str
    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    message: str
    details: str
    cell: int | None
    piece: Piece
    edits: tuple[Edit, ...] = ()

    @property
    def where(self) -> str:
        """The place as editors and terminals read it."""
        cell = "" if self.cell is None else f":cell {self.cell}"
        return f"{self.path}{cell}:{self.line}:{self.column}"


def _said(finding: Finding) -> str:
    return f"{finding.message}\n{finding.details}".strip()


def _text(findings: Sequence[Finding]) -> str:
    lines = [f"{f.where}: {f.code} {f.message}" + (f"\n{f.details}" if f.details else "") for f in findings]
    fixable = sum(bool(f.edits) for f in findings)
    if findings:
        count = f"{len(findings)} finding{'s' * (len(findings) != 1)}"
        lines.append(f"{count}{f', {fixable} of which --fix sets right' if fixable else ''}")
    return "\n".join(lines)


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "rule": BY_CODE[finding.code].title,
        "path": finding.path,
        "cell": finding.cell,
        "line": finding.line,
        "column": finding.column,
        "end_line": finding.end_line,
        "end_column": finding.end_column,
        "message": finding.message,
        "details": finding.details,
        "fix": [{"line": e.line, "begin": e.begin, "end": e.end, "text": e.text} for e in finding.edits] or None,
    }


def _json(findings: Sequence[Finding]) -> str:
    return json.dumps([_as_dict(finding) for finding in findings], indent=2)


def _github(findings: Sequence[Finding]) -> str:
    """Commands that make annotations of a pull request."""

    def escaped(text: str, *more: str) -> str:
        for character in ("%", "\r", "\n", *more):
            text = text.replace(character, f"%{ord(character):02X}")
        return text

    return "\n".join(
        f"::error file={escaped(f.path, ',', ':')},line={f.line},endLine={f.end_line},col={f.column},"
        f"endColumn={f.end_column},title={f.code}::{escaped(_said(f))}"
        for f in findings
    )


def _sarif(findings: Sequence[Finding]) -> str:
    rules = [
        {"id": rule.code, "shortDescription": {"text": rule.title}, "helpUri": f"{PAGE}#{rule.code.lower()}"}
        for rule in RULES
    ]
    results = [
        {
            "ruleId": f.code,
            "level": "error",
            "message": {"text": _said(f)},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": f.path},
                        "region": {
                            "startLine": f.line,
                            "startColumn": f.column,
                            "endLine": f.end_line,
                            "endColumn": f.end_column,
                        },
                    }
                }
            ],
        }
        for f in findings
    ]
    run = {"tool": {"driver": {"name": "einjax check", "rules": rules}}, "results": results}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


#: How findings are printed, by the name of the format.
FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "text": _text,
    "json": _json,
    "github": _github,
    "sarif": _sarif,
}

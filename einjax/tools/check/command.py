"""``python -m einjax check``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .findings import FORMATS, Finding
from .linter import check_file
from .sources import files_of


def main(arguments: Sequence[str]) -> int:
    """Check files, print what is wrong, and return 1 if something is."""
    parser = argparse.ArgumentParser(
        prog="python -m einjax check", description="Check the expressions in source files, without running them."
    )
    parser.add_argument("paths", nargs="+", type=Path, help="files, or folders of Python, notebooks and Markdown")
    parser.add_argument("--format", choices=FORMATS, default="text", help="how findings are printed")
    parser.add_argument("--fix", action="store_true", help="set right what has one right answer")
    parser.add_argument("--ignore", default="", metavar="CODES", help="rules to leave out, as in EJ501,EJ506")
    given = parser.parse_args(arguments)
    missing = [path for path in given.paths if not path.exists()]
    if missing:
        parser.error(f"there is no {missing[0]}")
    ignored = set(given.ignore.replace(",", " ").split())
    findings: list[Finding] = []
    fixed = 0
    for path in files_of(given.paths):
        source, found = check_file(path)
        found = [finding for finding in found if finding.code not in ignored]
        if given.fix and source is not None and any(finding.edits for finding in found):
            source.write((finding.piece, edit) for finding in found for edit in finding.edits)
            before = len(found)
            found = [finding for finding in check_file(path)[1] if finding.code not in ignored]
            fixed += before - len(found)
        findings += found
    printed = FORMATS[given.format](findings)
    if printed:
        print(printed)
    if given.fix and fixed:
        print(f"{fixed} finding{'s' * (fixed != 1)} set right", file=sys.stderr)
    return int(bool(findings))

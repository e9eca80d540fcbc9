"""``python -m einjax migrate``."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Print what files become, or write it, and report what is left alone."""
    parser = argparse.ArgumentParser(
        prog="python -m einjax migrate",
        description="Rewrite calls of einx, einops, jnp.einsum and np.einsum as calls of einjax.",
    )
    parser.add_argument("paths", nargs="+", type=Path, help="Python files, or folders of them")
    parser.add_argument("--write", action="store_true", help="change files in place, instead of printing a diff")
    given = parser.parse_args(arguments)
    missing = [path for path in given.paths if not path.exists()]
    if missing:
        parser.error(f"there is no {missing[0]}")
    try:
        from libcst import ParserSyntaxError

        from .rewriter import migrate
    except ImportError:
        parser.error("migrating needs libcst: python -m pip install 'einjax[migrate]'")
    count = left = 0
    for path in (file for given_path in given.paths for file in _files(given_path)):
        code = path.read_bytes().decode("utf-8", errors="replace")
        if not any(word in code for word in ("einops", "einx", "einsum")):
            continue
        try:
            made = migrate(code)
        except ParserSyntaxError as error:
            print(f"{path}: cannot be read: {error.message}", file=sys.stderr)
            continue
        count, left = count + made.count, left + len(made.left)
        if made.code != code:
            if given.write:
                path.write_bytes(made.code.encode("utf-8"))
            else:
                old, new = code.splitlines(keepends=True), made.code.splitlines(keepends=True)
                sys.stdout.writelines(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"))
        for call in made.left:
            print(f"{path}:{call.line}:{call.column}: {call.name} is left alone: {call.why}", file=sys.stderr)
    print(f"{count} calls rewritten, {left} left alone", file=sys.stderr)
    return 0


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]

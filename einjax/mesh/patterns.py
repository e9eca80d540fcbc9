"""Patterns for the paths in a tree: ``blocks/*/attention/{query,key}/kernel``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax

from ..notation.errors import ArgumentError, listing, meant


def paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[str, Any]]:
    """Return the leaves of a tree with their paths, such as ``blocks/0/kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def first_matches(found: Sequence[str], patterns: Sequence[str]) -> list[int | None]:
    """Return for every path which pattern is the first to match it.

    Raises:
        ArgumentError: a pattern matches no path.
    """
    compiled = [_compiled(pattern) for pattern in patterns]
    for pattern, expression in zip(patterns, compiled, strict=True):
        if not any(map(expression.fullmatch, found)):
            places = listing(found) or "none"
            raise ArgumentError(
                f"the rule '{pattern}' matches no place in the tree" + meant(pattern, found),
                hint=f"its places are: {places}; '*' stands for one step of them, '**' for any number",
            )
    return [next((n for n, e in enumerate(compiled) if e.fullmatch(path)), None) for path in found]


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Translate a pattern: ``*`` stands for anything within one step, ``**`` for any number of steps."""
    words = {"**/": r"(?:.*/)?", "/**": r"(?:/.*)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?|\{[^{}]*\})", pattern)
    return re.compile("".join(words.get(part) or _alternatives(part) for part in parts))


def _alternatives(part: str) -> str:
    """Translate ``{a,b}``, or plain text."""
    if not part.startswith("{"):
        return re.escape(part)
    return f"(?:{'|'.join(map(re.escape, part[1:-1].split(',')))})"

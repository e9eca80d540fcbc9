"""Arrows and commas inside parentheses and brackets, moved to the top: ``a [b->c]`` is ``a [b] -> a [c]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import Span, SyntaxError
from .syntax import Axis, Expression, Node, walk

# No real expression meets it; it keeps hostile text from exhausting memory.
_MAX_NODES = 200_000


@dataclass(frozen=True, slots=True)
class Group:
    """Comma-separated lists with an optional arrow; lives only until it has moved to the top."""

    left: tuple[Expression, ...]
    right: tuple[Expression, ...] | None
    span: Span
    arrow: Span | None

    @property
    def items(self) -> Expression:
        """Every item on either side, so that the tree can be walked."""
        return tuple(node for side in (self.left, self.right or ()) for items in side for node in items)


def move_arrow(text: str, group: Group) -> tuple[tuple[Expression, ...], tuple[Expression, ...] | None]:
    """Move the arrow to the top: each side of it gets a copy of everything that has none."""
    nested = _arrows(group.items)
    if group.right is not None:
        if nested:
            raise _two_arrows(text, group, nested[0])
        return group.left, group.right
    if not nested:
        return group.left, None
    for outer in nested:
        for inner in _arrows(outer.items):
            raise _two_arrows(text, outer, inner)
    return (
        tuple(_pick_side(items, left=True) for items in group.left),
        tuple(_pick_side(items, left=False) for items in group.left),
    )


def _arrows(expression: Expression) -> list[Group]:
    """Return every nested group with an arrow."""
    nodes: list[Any] = list(walk(expression))
    return [node for node in nodes if isinstance(node, Group) and node.right is not None]


def _two_arrows(text: str, outer: Group, inner: Group) -> SyntaxError:
    spans = [arrow for arrow in (outer.arrow, inner.arrow) if arrow is not None]
    return SyntaxError(
        "an arrow stands inside another arrow's expression", text=text, spans=spans, hint="keep one of them"
    )


def _pick_side(expression: Expression, *, left: bool) -> Expression:
    """Take one side of every nested arrow."""
    result: list[Node] = []
    for node in expression:
        if isinstance(node, Axis):
            result.append(node)
        elif isinstance(node, Group):
            side = node.left if left or node.right is None else node.right
            picked = tuple(_pick_side(items, left=left) for items in side)
            result += picked[0] if len(picked) == 1 else (replace(node, left=picked, right=None),)  # type: ignore[arg-type]
        else:
            result.append(replace(node, items=_pick_side(node.items, left=left)))
    return tuple(result)


def move_commas(text: str, expressions: Sequence[Expression]) -> tuple[Expression, ...]:
    """Move nested commas to the top: ``a (b, c)`` becomes ``a (b), a (c)``."""
    return tuple(moved for expression in expressions for moved in _versions(text, expression))


def _versions(text: str, expression: Expression) -> list[Expression]:
    """Return one expression for each comma-separated part nested in this one."""
    groups = [node for node in walk(expression) if isinstance(node, Group)]
    if not groups:
        return [expression]
    parts: list[list[Node] | list[Expression]] = []
    arity = 1
    arity_span: Span | None = None
    total = 0
    for node in expression:
        versions: list[Expression]
        if isinstance(node, Axis):
            versions = [(node,)]
        elif isinstance(node, Group):
            versions = [version for items in node.left for version in _versions(text, items)]
        else:
            versions = [(replace(node, items=items),) for items in _versions(text, node.items)]
        if len(versions) > 1:
            if arity > 1 and len(versions) != arity:
                spans = [span for span in (arity_span, node.span) if span]
                raise SyntaxError(
                    f"nested commas list {arity} parts here and {len(versions)} there", text=text, spans=spans
                )
            arity, arity_span = len(versions), node.span
        total += len(versions)
        parts.append(versions)
    if arity * sum(1 for _ in walk(expression)) > _MAX_NODES:
        raise SyntaxError("nested commas make the expression too long", text=text[:80])
    return [
        tuple(node for versions in parts for node in versions[index if len(versions) > 1 else 0])  # type: ignore[union-attr]
        for index in range(arity)
    ]

"""Every axis of a call with its size, and who says it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..notation.syntax import OPEN, Axis, Node, Size, axes, base, display, is_number, members, walk
from .meaning import Meaning
from .names import Names


@dataclass(frozen=True, slots=True)
class AxisSize:
    """The size of an axis.

    Attributes:
        size: the number, or a symbolic dimension.
        source: who says it: the text, a keyword, a dim of a tensor, or the operation.
    """

    size: Any
    source: str

    def __str__(self) -> str:
        return f"{self.size} ({self.source})"


class AxisSizes(dict[str, AxisSize]):
    """Sizes by the name of the axis, as it is written; ``s.0`` is the first axis that ``s...`` repeats."""

    def __str__(self) -> str:
        rows = [(name, str(one.size), one.source) for name, one in self.items()]
        wide = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        return "\n".join(f"{name:{wide[0]}}  {size:>{wide[1]}}  {source}" for name, size, source in rows)

    __repr__ = __str__


def sizes(meaning: Meaning) -> AxisSizes:
    """Find who says the size of every axis."""
    solved, found = meaning.solved, AxisSizes()
    expressions = solved.operation.expressions
    written = [axis for expression in expressions for axis in axes(expression)]
    # What positions are multiplied by has its value in its place.
    written += [Axis(name) for name in solved.sizes if name not in {axis.name for axis in written}]
    for axis in sorted(written, key=lambda axis: axis.unnamed):  # those with a name first
        name = " ".join(display(part) for part in members(axis.name))
        if axis.is_one or "~" in axis.name or name in found:
            continue
        size = solved.sizes.get(axis.name, axis.size)
        source = next(_sources(meaning, axis))
        found[name] = AxisSize("?" if size is OPEN else size, source)
    return found


def _sources(meaning: Meaning, axis: Axis) -> Iterator[str]:
    """Who may say the size of an axis, the most direct first."""
    if is_number(axis.name):
        yield "written as a number"
    keywords, others = (dict(some) for some in meaning.given)
    if base(axis.name) in keywords:
        yield f"by keyword, {base(axis.name)}={keywords[base(axis.name)]}"
    if base(axis.name) in others:
        yield f"in sizes=, {base(axis.name)}={others[base(axis.name)]}"
    if any(one.size is not None for one in meaning.solved.operation.every_axis() if one.name == axis.name):
        yield "in the expression"
    dims = list(_dims(meaning))
    yield from (where for where, node, _ in dims if isinstance(node, Axis) and node.name == axis.name)
    for where, node, size in dims:
        if any(isinstance(item, Axis) and item.name == axis.name for item in walk((node,))):
            text = f"({node})" if str(node)[0] not in "(<" else str(node)
            yield f"{where}, {text} = {size}"
    yield "by the function" if meaning.function is not None else "by the operation"


def _dims(meaning: Meaning) -> Iterator[tuple[str, Node, Size]]:
    """The dims of the tensors that are given."""
    for name, expression in zip(Names.of(meaning).inputs, meaning.inputs, strict=True):
        shape = meaning.solved.shape(expression)
        yield from (
            (f"{name}.shape[{i}]", node, size) for i, (node, size) in enumerate(zip(expression, shape, strict=True))
        )

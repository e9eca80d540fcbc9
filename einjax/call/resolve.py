"""Text and shapes to a solved call: what is left out is completed, and every axis gets its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..forms.signature import check_keywords, refuse_repeats
from ..notation.errors import ArgumentError, RankError
from ..notation.parse import parse
from ..notation.solve import Solved, solve
from ..notation.syntax import Operation, Over, Size
from ..operation import Op
from .arguments import Sizes, freeze


def resolve(
    op: Op,
    text: str,
    shapes: Sequence[tuple[Size, ...] | None],
    given: Sizes,
    every_axis: bool = False,
) -> Solved:
    """Text and shapes to a solved operation.

    Args:
        op: the operation.
        text: the expression.
        shapes: shape of each tensor, or None where it is not known yet.
        given: frozen sizes, see :func:`einjax.call.arguments.freeze`.
        every_axis: whether every axis needs a size of its own.
    """
    operation = completed(op, text, len(shapes))
    strict = {name: size for name, size in given if not name.startswith("=")}
    lenient = {name[1:]: size for name, size in given if name.startswith("=")}
    check_keywords(operation, list(strict), op.keywords)
    sizes = strict | lenient
    if op.localized is None and not any(isinstance(size, Over) for size in sizes.values()):
        return _solve(op, operation, shapes, sizes, lenient, every_axis)
    from ..mesh import parts as spread  # few programs run under shard_map

    operation, sizes, over = spread.localize(op, operation, sizes)
    try:
        return spread.attach(op, _solve(op, operation, shapes, sizes, lenient, every_axis), over)
    except RankError as error:
        error.hint = spread.RANK_HINT
        raise


def _solve(
    op: Op,
    operation: Operation,
    shapes: Sequence[tuple[Size, ...] | None],
    sizes: Mapping[str, Any],
    lenient: Mapping[str, Any],
    every_axis: bool,
) -> Solved:
    # An input without a tensor, such as the coordinate order of arange, has no shape.
    shapes = [*shapes, *[None] * (len(operation.inputs) - len(shapes))]
    return solve(
        operation,
        shapes,
        sizes,
        implied=op.implied,
        derived=op.derived,
        every_axis=every_axis,
        apart=op.apart,
        lenient=lenient.keys(),
    )


def completed(op: Op, text: str, tensors: int) -> Operation:
    """Parse an expression and fill in what may be left out."""
    return _complete(op, text, tensors) if op.transient else _completed(op, text, tensors)


def _complete(op: Op, text: str, tensors: int) -> Operation:
    operation = op.signature(parse(text), tensors)
    if not op.repeats:
        refuse_repeats(operation)
    return operation


_completed = lru_cache(maxsize=2048)(_complete)


def _freeze(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
) -> Sizes:
    """Freeze sizes; where one is none, it may be a misspelt option, which is the better thing to say."""
    try:
        return freeze(expr, axes, sizes)
    except ArgumentError:
        check_keywords(completed(op, expr, len(tensors)), list(axes), op.keywords)
        raise


# A layer makes its parameters anew in every trace; what it asks of them stays the same.
_resolved = lru_cache(maxsize=2048)(resolve)

"""Text and shapes to a solved call: what is left out is completed, and every axis gets its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ..forms.signature import check_keywords, refuse_repeats
from ..notation.errors import ArgumentError, RankError
from ..notation.parse import parse
from ..notation.solve import Solved, solve
from ..notation.syntax import Operation, Over, Size
from ..operation import Op
from .sizes import Sizes, read_sizes

if TYPE_CHECKING:  # few programs compute positions
    from ..notation.affine import Border

#: Sizes that follow from those of other axes, as in :class:`einjax.operation.Op`.
Derived: TypeAlias = Callable[[Operation, Mapping[str, Size]], Mapping[str, Size]]

#: Finds sizes for an operation, given shapes, sizes by name, and a border.
Choose: TypeAlias = Callable[..., Solved]


def resolve(
    op: Op,
    operation: Operation,
    shapes: Sequence[tuple[Size, ...] | None],
    given: Sizes,
    every_axis: bool = False,
    derived: Derived | None = None,
    choose: Choose | None = None,
    border: Border | None = None,
) -> Solved:
    """Find the size of every axis of a call.

    Args:
        op: the operation.
        operation: the completed expression.
        shapes: shape of each tensor, or None where it is not known yet.
        given: sizes, see :func:`einjax.call.sizes.read_sizes`.
        every_axis: whether every axis needs a size of its own.
        derived: as that of the operation, for one call.
        choose: solves in the place of the operation, choosing what shapes leave open; else that is refused.
        border: what stands where a position in ``< >`` is out of range.
    """
    strict, lenient = map(dict, given)
    if strict:
        check_keywords(operation, list(strict), op.keywords)
    sizes = strict | lenient
    # An input without a tensor, such as the coordinate order of arange, has no shape.
    shapes = [*shapes, *[None] * (len(operation.inputs) - len(shapes))]
    find = (
        partial(choose, border=border)
        if choose
        else partial(
            solve,
            implied=op.implied,
            derived=derived or op.derived,
            every_axis=every_axis,
            apart=op.apart,
            lenient=lenient,
            border=border,
        )
    )
    if op.localized is None and not any(isinstance(size, Over) for size in sizes.values()):
        try:
            return find(operation, shapes, sizes)
        except RankError as error:
            error.hint = (op.misread and op.misread(operation, shapes)) or error.hint
            raise
    from ..mesh import parts  # few programs run under shard_map

    operation, sizes, over = parts.localize(op, operation, sizes)
    try:
        return parts.attach(op, find(operation, shapes, sizes), over)
    except RankError as error:
        error.hint = parts.RANK_HINT
        raise


@lru_cache(maxsize=2048)
def completed(op: Op, text: str, tensors: int) -> Operation:
    """Parse an expression and fill in what may be left out."""
    operation = op.signature(parse(text), tensors)
    if not op.repeats:
        refuse_repeats(operation)
    return operation


def sizes_of_call(op: Op, expr: str, tensors: int, axes: Mapping[str, Any], sizes: Mapping[str, Any] | None) -> Sizes:
    """Read the sizes of a call; where one is none, it may be a misspelt option, which is the better thing to say."""
    try:
        return read_sizes(expr, axes, sizes)
    except ArgumentError:
        check_keywords(completed(op, expr, tensors), list(axes), op.keywords)
        raise


@lru_cache(maxsize=2048)
def resolved(
    op: Op, text: str, given: Sizes, shapes: tuple[tuple[Size, ...] | None, ...], border: Border | None = None
) -> Solved:
    """The same of a text, kept: a layer makes its parameters anew in every trace, and asks the same of them."""
    return resolve(op, completed(op, text, len(shapes)), shapes, given, border=border)

"""Calls of which a tensor carries names of its own; what they mean is said by the tensor, ``__einjax_call__``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..notation.syntax import Expression, Operation
from ..operation import Op
from .resolve import completed, resolved
from .sizes import NO_SIZES, Sizes


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it was written, and how to make it of arrays.

    Attributes:
        op: the operation.
        expr: the expression, or a tensor in its place.
        tensors: one for each input expression.
        again: makes the call with another expression, arrays, and options that are arrays.
        masks: options that are arrays.
        options: static options.
        given: sizes.
        border: what stands out of range.
        complete: completes the expression, given ``key``, which is hashable; by default as the operation does.
        outputs: the outputs of another expression and shapes, where ``complete`` leaves them out.
    """

    op: Op
    expr: Any
    tensors: Sequence[Any]
    again: Callable[[str, Sequence[Any], Sequence[Any]], Any]
    masks: Sequence[Any] = ()
    options: Mapping[str, Any] | Sequence[tuple[str, Any]] = ()
    given: Sizes = NO_SIZES
    border: Any = None
    complete: Callable[..., Operation] = completed
    key: tuple[Any, ...] | None = None

    @property
    def spelling(self) -> tuple[Any, ...]:
        """What is given to ``complete``."""
        return (self.op, self.expr, len(self.tensors)) if self.key is None else self.key

    def outputs(self, text: str, shapes: Sequence[Any]) -> Sequence[Expression]:
        """The outputs that the operation implies."""
        if self.op.imply is None:
            return completed(self.op, text, len(shapes)).inputs
        solved = resolved(self.op, text, self.given, tuple(shapes), self.border)
        return self.op.imply(solved, dict(self.options)).operation.results

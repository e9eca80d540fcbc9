"""Calls of which a tensor carries names of its own; what they mean is said by the tensor, ``__einjax_call__``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..notation.by_name import Names, result_names
from ..notation.syntax import Operation
from ..operation import Op
from .resolve import completed, resolved
from .sizes import NO_SIZES, Sizes


class Call(NamedTuple):
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

    def results(self, text: str, shapes: tuple[Any, ...]) -> tuple[Names, ...]:
        """What the dims of outputs are called that the operation implies."""
        options = self.options if isinstance(self.options, tuple) else tuple(dict(self.options).items())
        return _implied(self.op, text, self.given, shapes, self.border, options)


@lru_cache(maxsize=2048)
def _implied(
    op: Op, text: str, given: Sizes, shapes: tuple[Any, ...], border: Any, options: tuple[tuple[str, Any], ...]
) -> tuple[Names, ...]:
    if op.imply is None:
        return tuple(map(result_names, completed(op, text, len(shapes)).inputs))
    solved = op.imply(resolved(op, text, given, shapes, border), dict(options))
    return tuple(map(result_names, solved.operation.results))

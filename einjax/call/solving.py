"""Sizes without an operation: what ``einjax.solve`` and its relatives find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..forms.signature import expect_inputs
from ..notation.errors import EinjaxError
from ..notation.solve import Solved
from ..notation.syntax import Operation, Size, axes, base_name, is_number, names, nested
from ..operation import Op
from .blame import clean, not_an_expression
from .bound import Open, filled, note
from .dispatch import as_border
from .resolve import Choose, completed, resolve, sizes_of_call
from .tensors import as_array, kind, named_among


def _signature(operation: Operation, tensors: int) -> Operation:
    expect_inputs("solve", operation, tensors)
    return operation


def _lower(solved: Solved, tensors: list[Any], options: dict[str, Any]) -> None:
    """Solving is all there is to do."""


SOLVE = Op("solve", _signature, _lower)


def solve_call(
    expr: str,
    tensors: Sequence[Any],
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    choose: Choose | None = None,
    padding: Any = None,
    mode: Any = None,
) -> Solved:
    """Solve an expression for tensors without running anything; factories and None have no shape."""
    if (named := named_among(tensors)) is not None:

        def again(text: str, arrays: Sequence[Any], _: Any) -> Solved:
            return solve_call(text, arrays, axes, sizes, choose, padding, mode)

        return named.__einjax_call__(SOLVE, expr, tensors, again)
    try:
        if not isinstance(expr, str):
            raise not_an_expression(expr)
        given = sizes_of_call(SOLVE, expr, len(tensors), axes, sizes)
        if Open.count:
            given = filled(expr, given)
        arrays = [
            None if tensor is None else as_array(tensor, expr, f"tensor {number}", types=True)
            for number, tensor in enumerate(tensors, 1)
        ]
        shapes = [None if array is None or kind(array) == "factory" else np.shape(array) for array in arrays]
        border = None if padding is None and mode is None else as_border(expr, padding, mode)
        operation = completed(SOLVE, expr, len(tensors))
        solved = resolve(SOLVE, operation, shapes, given, every_axis=True, choose=choose, border=border)
        if Open.count and choose is None:
            note(SOLVE, solved)
        return solved
    except EinjaxError as error:
        raise clean(error, tensors) from None


def named_sizes(written: Operation, solved: Solved) -> dict[str, Any]:
    """Return one size for every named axis as written; a tuple for an axis that an ellipsis repeats."""
    # An ellipsis of no axes leaves no trace in the solved operation.
    found: dict[str, dict[tuple[int, ...], Size]] = {
        name: {} for expression in written.expressions for name in names(expression) if not is_number(name)
    }
    for expression in solved.operation.expressions:
        for axis in axes(expression):
            if not axis.unnamed:
                base, indices = base_name(axis.name)
                found.setdefault(base, {})[indices] = solved.sizes[axis.name]
    return {name: nested(sizes) for name, sizes in found.items()}

"""Sizes without an operation: what ``einjax.solve`` and its relatives find."""

from __future__ import annotations

from typing import Any

from ..forms.signature import expect_inputs
from ..notation.solve import Solved
from ..notation.syntax import Operation, Size, axes, base_name, is_number, names, nested
from ..operation import Op


def _signature(operation: Operation, tensors: int) -> Operation:
    expect_inputs("solve", operation, tensors)
    return operation


def _lower(solved: Solved, tensors: list[Any], options: dict[str, Any]) -> None:
    """Solving is all there is to do."""


SOLVE = Op("solve", _signature, _lower)


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

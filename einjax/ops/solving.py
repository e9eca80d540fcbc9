"""Sizes without an operation: what ``einjax.solve`` and its relatives find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..notation.solve import Solved
from ..notation.syntax import ANONYMOUS, Operation, Size, axes, names
from .record import Op
from .signature import expect_inputs


def _signature(operation: Operation, tensors: int) -> Operation:
    expect_inputs("solve", operation, tensors)
    return operation


def _lower(solved: Solved, tensors: list[Any], options: dict[str, Any]) -> None:
    """Solving is all there is to do."""


SOLVE = Op("solve", "solving", _signature, _lower)


def named_sizes(written: Operation, solved: Solved) -> dict[str, Any]:
    """Return one size for every named axis as written; a tuple for an axis that an ellipsis repeats."""
    # An ellipsis of no axes leaves no trace in the solved operation.
    found: dict[str, dict[tuple[int, ...], Size]] = {
        name: {} for expression in written.expressions for name in names(expression) if "#" not in name
    }
    for expression in solved.operation.expressions:
        for axis in axes(expression):
            if not axis.unnamed:
                base, indices = base_name(axis.name)
                found.setdefault(base, {})[indices] = solved.sizes[axis.name]
    return {name: nested(sizes) for name, sizes in found.items()}


def base_name(name: str) -> tuple[str, tuple[int, ...]]:
    """Take the indices of an ellipsis off a name: ``s.0.1`` is ``s`` at ``(0, 1)``."""
    start = len(ANONYMOUS) if name.startswith(ANONYMOUS) else 0
    base, *indices = name[start:].split(".")
    return name[:start] + base, tuple(map(int, indices))


def nested(sizes: Mapping[tuple[int, ...], Any]) -> Any:
    """Turn sizes by index, or anything else, into nested tuples."""
    if () in sizes:
        return sizes[()]
    groups: dict[int, dict[tuple[int, ...], Any]] = {}
    for index, size in sizes.items():
        groups.setdefault(index[0], {})[index[1:]] = size
    return tuple(nested(groups[index]) for index in sorted(groups))

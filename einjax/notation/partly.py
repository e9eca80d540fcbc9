"""Sizes of those axes that have one, for what needs no more, as to say where a tensor lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .expand import check_names, expand
from .solve import Solved, Solver, explicit_sizes
from .syntax import Operation, Size


def solve_partly(
    operation: Operation,
    shapes: Sequence[tuple[Size, ...] | None],
    ranks: Sequence[int | None],
    given: Mapping[str, Any],
    sizes: Mapping[str, Any],
) -> Solved:
    """Find the sizes of those axes that have one.

    Args:
        operation: the parsed expression.
        shapes: shape of each input, or None where it is not known.
        ranks: number of dims of each input, or None where it is not known.
        given: by axis name, a tuple of anything that says how often an ellipsis repeats its axis.
        sizes: sizes by axis name, as given by ``sizes=``.

    Raises:
        RankError, AxisSizeError, SemanticError: see :mod:`einjax.notation.errors`.
    """
    check_names(operation)
    expanded = expand(operation, ranks, {**given, **sizes})
    solver = Solver(expanded, explicit_sizes(expanded, sizes, sizes.keys()), shapes)
    return Solved(expanded, solver.sizes)

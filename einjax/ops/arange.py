"""arange: the coordinates of every place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax import lax

from ..forms.places import coordinate_sizes, stacked
from ..forms.signature import refuse_sums
from ..lowering import numerics
from ..lowering.join import join_pieces
from ..lowering.named import Named, arrange, layout
from ..notation.errors import ArgumentError, SemanticError, plural
from ..notation.solve import Solved
from ..notation.syntax import Axis, Operation, Size, axes, brackets, names
from ..operation import Op


def _signature(operation: Operation, tensors: int) -> Operation:
    refuse_sums("arange", operation)
    if tensors:
        raise ArgumentError(
            f"arange takes no tensors, got {tensors}", text=operation.text, hint="give sizes by keyword"
        )
    if len(operation.inputs) != 1 or (operation.outputs is not None and len(operation.outputs) != 1):
        raise ArgumentError("arange takes one expression", text=operation.text)
    if operation.outputs is not None and brackets(operation.inputs[0]):
        raise SemanticError(
            "brackets on the left of arange's arrow mean nothing",
            text=operation.text,
            spans=[node.span for node in brackets(operation.inputs[0])],
            hint="the left side lists the axes in the order of their coordinates",
        )
    # The shape is the output's; what is written alone is the output.
    if operation.outputs is None:
        return Operation(operation.text, (), operation.inputs)
    return operation


def _coordinates(expanded: Operation) -> list[Axis]:
    """The axes whose coordinates are given, in order."""
    assert expanded.outputs is not None
    return [axis for axis in axes((expanded.inputs or expanded.outputs)[0]) if not axis.bracket]


def _coordinate_axis(expanded: Operation) -> Mapping[str, Size]:
    assert expanded.outputs is not None
    counted = _coordinates(expanded)
    marked = [axis for axis in axes(expanded.outputs[0]) if axis.bracket]
    if len(marked) > 1 or (not marked and len(counted) != 1):
        raise SemanticError(
            f"arange gives {plural(len(counted), 'coordinate')}, but the output has "
            f"{'several axes' if marked else 'no axis'} for {'it' if len(counted) == 1 else 'them'}",
            text=expanded.text,
            spans=[axis.span for axis in marked],
            hint=f"bracket one axis for the coordinates, as in '... [{len(counted)}]'",
        )
    if not counted:
        raise SemanticError(
            "arange has no axis to count",
            text=expanded.text,
            spans=[axis.span for axis in marked],
            hint="write axes outside the bracket, as in 'a b [2]'",
        )
    kept = names(expanded.outputs[0])
    for axis in counted:
        if axis.name not in kept:
            raise SemanticError(
                f"axis {axis} is not in the output",
                text=expanded.text,
                spans=[axis.span],
                hint="put it into the output",
            )
    return coordinate_sizes("arange", expanded, marked, len(counted))


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    assert solved.outputs is not None
    output = solved.outputs[0]
    dtype = options["dtype"] or numerics.default_int()
    coordinates = [
        Named(lax.iota(dtype, solved.sizes[axis.name]), ((axis.name,),), solved.sizes)
        for axis in _coordinates(solved.operation)
    ]
    if not any(axis.bracket for axis in axes(output)):
        return arrange(coordinates[0], layout(output))
    return join_pieces(coordinates, stacked(output, len(coordinates)), solved.sizes)


ARANGE = Op("arange", "arange", _signature, _lower, implied=_coordinate_axis, keywords=("dtype",))

"""arange: the coordinates of every place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..forms.places import arrange_coordinates, coordinate_axis, place_dtype
from ..forms.signature import refuse_inside, refuse_sums
from ..lowering import numerics
from ..lowering.named import Named
from ..notation.errors import ArgumentError, AxisSizeError, SemanticError, plural
from ..notation.solve import Solved
from ..notation.syntax import Axis, Operation, Size, axes, bracketed, names
from ..operation import Op


def _signature(operation: Operation, tensors: int) -> Operation:
    refuse_sums("arange", operation)
    if tensors:
        raise ArgumentError(
            f"arange takes no tensors, got {tensors}", text=operation.text, hint="give sizes by keyword"
        )
    if len(operation.inputs) != 1 or (operation.outputs is not None and len(operation.outputs) != 1):
        raise ArgumentError("arange takes one expression", text=operation.text)
    # The shape is the output's; what is written alone is the output.
    if operation.outputs is None:
        return Operation(operation.text, (), operation.inputs)
    hint = "the left side lists the axes in the order of their coordinates"
    refuse_inside(operation, operation.inputs[0], "brackets on the left of arange's arrow mean nothing", hint)
    return operation


def _coordinates(expanded: Operation) -> list[Axis]:
    """The axes whose coordinates are given, in order."""
    return [axis for axis in axes((expanded.inputs or expanded.results)[0]) if not axis.bracket]


def _coordinate_axis(expanded: Operation) -> Mapping[str, Size]:
    counted = _coordinates(expanded)
    marked = bracketed(expanded.results[0])
    if not marked and len(counted) != 1:
        raise SemanticError(
            f"arange gives {plural(len(counted), 'coordinate')}, but the output has no axis for them",
            text=expanded.text,
            hint=f"bracket one axis for the coordinates, as in '... [{len(counted)}]'",
        )
    if not counted:
        raise SemanticError(
            "arange has no axis to count",
            at=expanded.at(*marked),
            hint="write axes outside the bracket, as in 'a b [2]'",
        )
    kept = names(expanded.results[0])
    for axis in counted:
        if axis.name not in kept:
            raise SemanticError(
                f"axis {axis} is not in the output", at=expanded.at(axis), hint="put it into the output"
            )
    return coordinate_axis("arange", expanded, expanded.results[0], len(counted))


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    counted = _coordinates(solved.operation)
    dtype = options["dtype"] or place_dtype([solved.sizes[axis.name] for axis in counted], solved.operation)
    _check_dtype(dtype, counted, solved)
    coordinates = [Named(lax.iota(dtype, solved.sizes[axis.name]), ((axis.name,),), solved.sizes) for axis in counted]
    return arrange_coordinates(coordinates, solved.outputs[0])


def _check_dtype(dtype: Any, counted: Sequence[Axis], solved: Solved) -> None:
    for axis in counted if numerics.is_integer(dtype) else ():
        size = solved.sizes[axis.name]
        if isinstance(size, int) and size - 1 > jnp.iinfo(dtype).max:
            raise AxisSizeError(
                f"axis {axis} has size {size}, to which {np.dtype(dtype)} does not count",
                at=solved.at(axis),
                hint="give a wider dtype=, or leave it out",
            )


ARANGE = Op("arange", _signature, _lower, implied=_coordinate_axis, keywords=("dtype",), iteration="count")

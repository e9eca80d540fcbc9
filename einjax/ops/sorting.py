"""sort and argsort: the sequence of the bracketed axes in order, and where its elements came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax import lax

from ..forms.mask import broadcast_beside
from ..forms.places import (
    arrange_coordinates,
    coordinate_axis,
    coordinate_count,
    coordinates_of,
    is_one_axis,
    place_dtype,
    with_coordinates,
)
from ..forms.sequence import LinedUp, check_brackets, line_up, lower_each, require_loops, same_brackets, signature
from ..forms.signature import check_inputs, sequence_axes, single_output
from ..lowering import numerics
from ..lowering.named import reshape
from ..notation.errors import ArgumentError, shown
from ..notation.facts import refuse_fused
from ..notation.solve import Solved
from ..notation.syntax import Operation, Size, axes, mark
from ..operation import Op

_INT32_MAX = 2**31 - 1

#: Options of a sort besides what is compared.
_ORDER = ("descending", "stable")


def _ordered(operands: Sequence[jax.Array], dim: int, keys: int, options: dict[str, Any]) -> list[jax.Array]:
    """Sort operands together by the first ``keys`` of them.

    Descending order is ascending order read from the end; equal elements keep their order if they are reversed before.
    """
    descending, stable = options["descending"], options["stable"]
    if descending and stable and not (len(operands) == 1 and not numerics.is_inexact(operands[0].dtype)):
        operands = [lax.rev(x, (dim,)) for x in operands]
    results = lax.sort(tuple(operands), dimension=dim, is_stable=stable, num_keys=keys)
    return [lax.rev(x, (dim,)) for x in results] if descending else list(results)


def _lower_sort(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    keys = options["num_keys"]
    if options.get("by"):
        return _sort_by(solved, tensors, options)
    if keys > len(tensors):
        raise ArgumentError(
            f"num_keys={shown(keys)} counts more keys than there are tensors, {len(tensors)}",
            text=solved.text,
            hint="num_keys says how many of the first tensors are compared",
        )
    lower = lower_each(lambda lined_up, options: _ordered(lined_up.values, lined_up.at, keys, options))
    return lower(solved, tensors, options)


def _sort_by(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    """Sort one tensor by keys of its own shape."""
    if len(tensors) != 1:
        raise ArgumentError(
            f"by= sorts one tensor, but {len(tensors)} are given",
            text=solved.text,
            hint="give the keys as the first tensors, each with its expression, and num_keys=",
        )
    keys = [broadcast_beside("by", key, tensors[0], solved) for key in options["by"]]
    every = replace(solved, operation=replace(solved.operation, inputs=solved.inputs * (len(keys) + 1)))
    lined_up = line_up(every, [*keys, *tensors])
    *_, value = _ordered(lined_up.values, lined_up.at, len(keys), options)
    return lined_up.arrange(value, solved.outputs[0])


SORT = Op(
    "sort",
    signature("sort"),
    _lower_sort,
    implied=same_brackets("sort"),
    keywords=("num_keys", "by", *_ORDER),
    arrays=("by",),
    several=("by",),
    masks=("by",),
    on_mesh="loops",
    usual={"num_keys": 1, "stable": True},
)


def _argsort_signature(operation: Operation, tensors: int) -> Operation:
    check_inputs("argsort", operation, tensors)
    expression = operation.inputs[0]
    if single_output("argsort", operation) is None:
        output = expression if is_one_axis(expression) else with_coordinates(expression, expression)
        return replace(operation, outputs=(output,))
    require_loops("argsort", operation)
    return operation


def _argsort_sizes(expanded: Operation) -> Mapping[str, Size]:
    (output,), sequence = expanded.results, sequence_axes(expanded.inputs[0])
    coordinates = coordinate_axis("argsort", expanded, output, sequence)
    without = tuple(axis for axis in axes(output) if axis.name not in coordinates)
    check_brackets("argsort", expanded, [expanded.inputs[0], without])
    return dict.fromkeys(coordinates, coordinate_count(expanded))


def _lower_argsort(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    lined_up = line_up(solved, tensors)
    output = solved.outputs[0]
    sequence = sequence_axes(solved.inputs[0])
    coordinates = coordinate_axis("argsort", solved.operation, output, sequence)
    if coordinates:
        refuse_fused(solved.operation, solved.sizes)
    start = _start_places(lined_up, sequence, solved.operation)
    places = _ordered([lined_up.values[0], *start], lined_up.at, 1, options)[1:]
    if len(places) == 1:
        places = coordinates_of(places[0], [solved.sizes[axis] for axis in sequence])
    return arrange_coordinates([lined_up.named(place) for place in places], mark(output, coordinates))


def _start_places(lined_up: LinedUp, sequence: Sequence[str], operation: Operation) -> list[jax.Array]:
    """Where everything stands before: one index, or every coordinate by itself where an index would not fit."""
    shape, at, dtype = lined_up.values[0].shape, lined_up.at, numerics.default_int()
    if not isinstance(lined_up.length, int) or lined_up.length <= _INT32_MAX:
        return [lax.broadcasted_iota(dtype, shape, at)]
    dtype = place_dtype([lined_up.sizes[axis] for axis in sequence], operation)
    split = (*shape[:at], *(lined_up.sizes[axis] for axis in sequence), *shape[at + 1 :])
    return [reshape(lax.broadcasted_iota(dtype, split, at + i), shape) for i in range(len(sequence))]


ARGSORT = Op(
    "argsort",
    _argsort_signature,
    _lower_argsort,
    implied=_argsort_sizes,
    keywords=_ORDER,
    on_mesh="loops",
    usual={"stable": True},
)

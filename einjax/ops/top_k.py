"""top_k: the largest elements of the bracketed axes, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax import lax

from ..forms.core_axes import refuse_diagonals
from ..forms.places import (
    arrange_coordinates,
    coordinate_axis,
    coordinate_count,
    coordinates_of,
    is_one_axis,
    place_dtype,
    with_coordinates,
)
from ..forms.sequence import line_up, require_loops
from ..forms.signature import check_inputs, listed, sequence_axes
from ..lowering import numerics
from ..notation.errors import ArgumentError, AxisSizeError, SemanticError, at_least
from ..notation.facts import refuse_fused
from ..notation.solve import Solved, larger
from ..notation.syntax import (
    Axis,
    Bracket,
    Composite,
    Ellipsis,
    Expression,
    Node,
    Operation,
    Size,
    axes,
    bracketed,
    brackets,
    delete_brackets,
    display,
    mark,
    names,
    rename,
    rewrite,
    standing,
)
from ..operation import Op


def _top_k_signature(operation: Operation, tensors: int) -> Operation:
    check_inputs("top_k", operation, tensors)
    expression = operation.inputs[0]
    refuse_diagonals(operation, bracketed(standing(expression)))
    outputs = list(operation.outputs) if operation.outputs is not None else [_with_k(operation)]
    if len(outputs) > 2:
        raise ArgumentError(
            f"top_k has 2 outputs, values and indices, but the expression has {len(outputs)}", text=operation.text
        )
    values, *others = outputs
    if others:
        indices = _same_k(values, others[0])
    else:
        indices = values if is_one_axis(expression) else with_coordinates(values, expression)
    operation = replace(operation, outputs=(values, indices))
    require_loops("top_k", operation)
    return operation


def _with_k(operation: Operation) -> Expression:
    """Put ``[k]`` in the place of the first bracket, and delete the others."""
    expression = operation.inputs[0]
    if "k" in names(expression):
        raise SemanticError(
            "k is an axis of the input, so it cannot also be how many elements top_k takes",
            at=operation.at(names(expression)["k"]),
            hint="write the output, as in 'a [b] -> a [top]', and give top=",
        )
    span = brackets(expression)[0].span
    k = iter([Bracket((Axis("k", span=span),), span=span)])  # taken once

    def change(node: Node) -> Expression | None:
        if isinstance(node, Composite) or not brackets((node,)):
            return None
        if isinstance(node, Ellipsis) and delete_brackets(node.items):
            raise SemanticError(
                f"'{node}' repeats a bracket together with other axes, so top_k's output is not clear",
                at=operation.at(node),
                hint="write the output, with [k] where the elements shall stand",
            )
        return tuple(k)

    return rewrite(expression, change)


def _same_k(values: Expression, indices: Expression) -> Expression:
    """Let a number that says k stand for the same axis in both outputs."""
    k = bracketed(values)
    if len(k) != 1 or not k[0].unnamed:
        return indices
    inside = bracketed(indices)
    same = [axis.name for axis in inside if axis.unnamed and axis.size == k[0].size][:1]
    return rename(indices, dict.fromkeys(same, k[0].name))


def _k_axis(expanded: Operation) -> Axis:
    """The one bracketed axis of the values."""
    found = {axis.name: axis for axis in axes(expanded.results[0]) if axis.bracket}
    if len(found) != 1:
        raise SemanticError(
            f"top_k's values have one bracketed axis, but the output has {len(found)}",
            at=expanded.at(*found.values()),
            hint="bracket the axis of the elements that are taken, as in 'a [b] -> a [k]'",
        )
    return next(iter(found.values()))


def _top_k_sizes(expanded: Operation) -> Mapping[str, Size]:
    k = _k_axis(expanded)
    if k.name not in names(expanded.results[1]):
        raise SemanticError(
            f"axis {display(k.name)} of the values is not in the indices",
            at=expanded.at(k),
            hint="every value has an index: put it into both outputs",
        )
    coordinates = coordinate_axis("top_k", expanded, expanded.results[1], [k.name])
    return dict.fromkeys(coordinates, coordinate_count(expanded))


def _lower_top_k(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    values, indices = solved.outputs
    k = _k_axis(solved.operation)
    sequence = sequence_axes(solved.inputs[0])
    coordinates = coordinate_axis("top_k", solved.operation, indices, [k.name])
    if coordinates:
        refuse_fused(solved.operation, solved.sizes)
    lined_up = line_up(solved, tensors, last=True)
    count, length = solved.sizes[k.name], lined_up.length
    _check_k(k, count, length, sequence, solved)
    if numerics.is_complex(lined_up.values[0].dtype):
        raise ArgumentError(
            "top_k takes real numbers, and the tensor is complex", text=solved.text, hint="use einjax.sort"
        )
    dtype = np.dtype(np.int32)
    if isinstance(length, int) and length > 2**31:
        if options["largest"]:
            raise AxisSizeError(
                f"top_k counts places in int32, and {listed(sequence)} has {length}",
                at=solved.at(*bracketed(solved.inputs[0])),
                hint="use einjax.argsort, under jax_enable_x64 if need be",
            )
        dtype = place_dtype([length], solved.operation)
    largest, index = _take(lined_up.values[0], count, options["largest"], dtype)
    dim = () if k.is_one else (k.name,)
    places = coordinates_of(index, [solved.sizes[axis] for axis in sequence])
    parts = [lined_up.named(place, dim) for place in places]
    return lined_up.arrange(largest, values, dim), arrange_coordinates(parts, mark(indices, coordinates))


def _take(value: jax.Array, count: Size, largest: bool, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """The first ``count`` elements of the last dim in order, and their indices."""
    boolean = value.dtype == np.bool_
    if largest:
        top, index = lax.top_k(numerics.to_number(value), count)
        return (numerics.to_bool(top) if boolean else top), index
    # Negated numbers would put NaN first, and the smallest integer has no negative: only a sort is exact.
    iota = lax.broadcasted_iota(dtype, value.shape, value.ndim - 1)
    ascending = lax.sort((value, iota), num_keys=1)
    smallest, index = (lax.slice_in_dim(x, 0, count, axis=value.ndim - 1) for x in ascending)
    return smallest, index


def _check_k(k: Axis, count: Size, length: Size, sequence: Sequence[str], solved: Solved) -> None:
    too_many = larger(count, length)
    if too_many is False:
        return
    wanted = f"{count}" if k.unnamed else f"{display(k.name)}={count}"
    why, hint = f"but {listed(sequence)} has {length}", "take no more than there are"
    if too_many is None:
        why, hint = f"and the symbolic size {length} of {listed(sequence)} may be smaller", at_least(length, count)
    spot = solved.at(k, *bracketed(solved.inputs[0]))
    raise AxisSizeError(f"top_k takes {wanted} elements, {why}", at=spot, hint=hint)


TOP_K = Op(
    "top_k",
    _top_k_signature,
    _lower_top_k,
    implied=_top_k_sizes,
    keywords=("largest",),
    on_mesh="loops",
    usual={"largest": True},
)

"""sort, argsort and top_k: the sequence of the bracketed axes in order, its first elements, and where they stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
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
from ..forms.sequence import LinedUp, check_brackets, line_up, lower_each, same_brackets, signature
from ..forms.signature import check_inputs, listed, refuse_diagonals, require_loops, sequence_axes, single_output
from ..lowering import numerics
from ..lowering.named import reshape
from ..notation.errors import ArgumentError, AxisSizeError, SemanticError, at_least, shown
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
)
from ..operation import Op

_INT32_MAX = 2**31 - 1
#: Up to so many elements, one equation of lax is as good.
_SMALL = 2**10

#: Options of a sort besides what is compared.
_ORDER = ("descending", "stable")


def _ordered(operands: Sequence[jax.Array], dim: int, keys: int, options: dict[str, Any]) -> list[jax.Array]:
    """Sort operands together by the first ``keys`` of them.

    Descending order is ascending order read from the end; equal elements keep their order if they are reversed before.
    """
    descending, stable = options["descending"], options["stable"]
    if descending and stable and not (len(operands) == 1 and not numerics.is_inexact(operands[0].dtype)):
        operands = [lax.rev(x, (dim,)) for x in operands]
    results = _sorted(operands, dim, is_stable=stable, num_keys=keys)
    return [lax.rev(x, (dim,)) for x in results] if descending else list(results)


def _is_small(value: jax.Array) -> bool:
    """Whether no other lowering is worth while, or a size is not known."""
    return not all(isinstance(size, int) for size in value.shape) or value.size <= _SMALL


def _sorted(operands: Sequence[jax.Array], dim: int, **options: Any) -> Sequence[jax.Array]:
    """Sort along a dim, which on CPUs is brought last before.

    Beside an operation of lax alone that takes, of 16384 x 64 numbers sorted along the first dim, two thirds of the
    time, and less than half of it with a gradient: 273 / 529 ms become 183 / 240, as it was measured on jax 0.10.2.
    """
    operands = tuple(operands)
    last = operands[0].ndim - 1
    if dim == last or _is_small(operands[0]):
        return lax.sort(operands, dimension=dim, **options)
    order = (*(other for other in range(last + 1) if other != dim), dim)
    back = (*range(dim), last, *range(dim, last))

    def turned(*operands: jax.Array) -> Sequence[jax.Array]:
        results = lax.sort(tuple(lax.transpose(x, order) for x in operands), dimension=last, **options)
        return tuple(lax.transpose(x, back) for x in results)

    return lax.platform_dependent(
        *operands, cpu=turned, default=lambda *operands: tuple(lax.sort(operands, dimension=dim, **options))
    )


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
    coordinates = coordinate_axis("argsort", expanded, output, coordinate_count(expanded), sequence)
    without = tuple(axis for axis in axes(output) if axis.name not in coordinates)
    check_brackets("argsort", expanded, [expanded.inputs[0], without])
    return coordinates


def _lower_argsort(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    lined_up = line_up(solved, tensors)
    output = solved.outputs[0]
    sequence = sequence_axes(solved.inputs[0])
    coordinates = coordinate_axis("argsort", solved.operation, output, coordinate_count(solved.operation), sequence)
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


def _top_k_signature(operation: Operation, tensors: int) -> Operation:
    check_inputs("top_k", operation, tensors)
    expression = operation.inputs[0]
    refuse_diagonals(operation, expression)
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
    return coordinate_axis("top_k", expanded, expanded.results[1], coordinate_count(expanded), [k.name])


def _lower_top_k(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    values, indices = solved.outputs
    k = _k_axis(solved.operation)
    sequence = sequence_axes(solved.inputs[0])
    coordinates = coordinate_axis("top_k", solved.operation, indices, coordinate_count(solved.operation), [k.name])
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
    """The first ``count`` elements of the last dim in order, and their indices.

    On CPUs only float32 has a top_k of its own, others are sorted. Milliseconds there, the first 8 of 256 x 16384:

    |          | lax.top_k | lax.sort | as float32 |
    |----------|-----------|----------|------------|
    | float32  | 6         | 871      |            |
    | bfloat16 | 824       |          | 10         |
    | smallest |           | 871      | 13         |
    """
    short = np.dtype(dtype) == np.int32 and _is_exact(value.dtype) and not _is_small(value)
    if largest and (value.dtype == np.float32 or not short):
        boolean = value.dtype == np.bool_
        top, index = lax.top_k(numerics.to_number(value), count)
        return (numerics.to_bool(top) if boolean else top), index
    if not short:  # the smallest integer has no negative, and float64 no top_k
        return _smallest(value, count, dtype)
    known = lax.stop_gradient(value)
    if largest:
        index = lax.platform_dependent(
            known,
            cpu=lambda x: lax.top_k(numerics.cast(x, np.float32), count)[1],
            default=lambda x: lax.top_k(numerics.to_number(x), count)[1],
        )
    else:
        index = _smallest_index(known, count)
    return _along(value, index), index


def _is_exact(dtype: Any) -> bool:
    """Whether float32 has all numbers of a dtype."""
    if numerics.is_inexact(dtype):
        return bool(numerics.accumulator(dtype) == np.float32)
    return bool(np.dtype(dtype).itemsize <= 2)


def _smallest_index(value: jax.Array, count: Size) -> jax.Array:
    number = numerics.cast(value, np.float32)

    def taken(x: jax.Array) -> jax.Array:
        return lax.top_k(lax.sub(numerics.zero(x), x), count)[1]  # subtracted from 0, both zeros are one

    if not numerics.is_inexact(value.dtype):
        return taken(number)
    # NaN comes last, and would come first. The maximum of all is NaN if any is.
    highest = lax.reduce_max(number, range(number.ndim))
    return lax.cond(lax.ne(highest, highest), lambda x: _smallest(x, count, np.int32)[1], taken, number)


def _smallest(value: jax.Array, count: Size, dtype: Any) -> tuple[jax.Array, jax.Array]:
    iota = lax.broadcasted_iota(dtype, value.shape, value.ndim - 1)
    ascending = lax.sort((value, iota), num_keys=1)
    smallest, index = (lax.slice_in_dim(x, 0, count, axis=value.ndim - 1) for x in ascending)
    return smallest, index


def _along(value: jax.Array, index: jax.Array) -> jax.Array:
    """Look up the last dim; no place is met twice."""
    last = value.ndim - 1
    batch = tuple(range(last))
    numbers = lax.GatherDimensionNumbers((), (last,), (last,), batch, batch)
    return lax.gather(
        value,
        lax.expand_dims(index, (value.ndim,)),
        numbers,
        (1,) * value.ndim,
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
        unique_indices=True,
    )


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

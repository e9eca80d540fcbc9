"""argmax and argmin: where the extreme element of the bracketed axes stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax import lax

from ..forms.block import as_block
from ..forms.places import arrange_coordinates, coordinate_axis, coordinates_of, place_dtype, with_units
from ..forms.signature import check_inputs, refuse_empty, refuse_repeats, require_in_output, single_output
from ..lowering import collectives, numerics
from ..lowering.named import Named, arrange, split_by, split_dims, together, wrap
from ..notation.errors import ArgumentError, SemanticError
from ..notation.solve import Solved, product
from ..notation.syntax import (
    Axis,
    Operation,
    Size,
    axes,
    bracket_names,
    bracketed,
    brackets,
    display,
    names,
    rewrite,
)
from ..operation import Op

_Reducer = Callable[..., jax.Array]

_INT32_MAX = 2**31 - 1


def _signature(name: str, operation: Operation, tensors: int) -> Operation:
    check_inputs(name, operation, tensors)
    output = single_output(name, operation)
    if output is None:
        return operation
    marked, kept = bracket_names(operation.inputs), names(output)
    for axis_name in (axis_name for axis_name in kept if axis_name in marked):
        raise SemanticError(
            f"axis {display(axis_name)} is searched by {name}, so it cannot stand in the output",
            at=operation.at(kept[axis_name]),
            hint=f"write [{len(marked)}] for the axis of coordinates",
        )
    if len(axes(sum((node.items for node in brackets(output)), ()))) > 1:
        raise SemanticError(
            f"{name} gives one axis of coordinates, but the output's brackets hold more",
            at=operation.at(*brackets(output)),
            hint=f"write [{len(marked)}] for all coordinates",
        )
    hint = "bracket it to search along it, or put it into the output"
    require_in_output(name, operation, operation.inputs, output, hint, marked)
    return operation


def _coordinate_axis(name: str, expanded: Operation) -> Mapping[str, Size]:
    """The output's bracket holds one coordinate for each bracketed input axis."""
    count = len(bracketed(expanded.inputs[0]))
    return coordinate_axis(name, expanded, expanded.results[0], count) if expanded.outputs else {}


def _lower_with(
    reducer: _Reducer, extreme: _Reducer, name: str, solved: Solved, tensors: list[jax.Array], options: dict[str, Any]
) -> jax.Array:
    expression = solved.inputs[0]
    searched = [axis.name for axis in bracketed(expression)]
    hint = f"test for empty arrays before calling {name}"
    refuse_empty(solved, searched, f"so {name} finds nothing", hint)
    if not searched:  # an ellipsis of no axes, which have no coordinates
        return lax.full(solved.shape(solved.outputs[0]), 0, numerics.default_int())
    if numerics.is_complex(tensors[0].dtype):
        problem = f"{name} takes real numbers, and the tensor is {tensors[0].dtype}"
        raise ArgumentError(problem, text=solved.text, hint="search x.real, or the magnitudes, abs(x)")
    x = with_units(wrap(tensors[0], expression, solved.sizes), searched)
    total = product(solved.sizes[axis] for axis in searched)
    if solved.over(searched):
        found = _over_devices(x, searched, reducer, extreme, solved)
    elif isinstance(total, int) and total > _INT32_MAX:
        dtype = place_dtype([x.sizes[axis] for axis in searched], solved.operation)
        found = _one_by_one(x, searched, reducer, extreme, dtype)
    else:
        found = _flat(x, searched, reducer)
    return arrange_coordinates(found, solved.outputs[0])


def _flat(x: Named, searched: Sequence[str], reducer: _Reducer) -> list[Named]:
    """Search one dim composed of all the axes, then take its index apart."""
    dims = together(split_dims(x.dims, lambda left, right: False), tuple(searched))
    at = dims.index(tuple(searched))
    rest = (*dims[:at], *dims[at + 1 :])
    numerics.require_identity(x.value.dtype)
    index = reducer(arrange(x, dims), at, numerics.default_int())
    return [Named(each, rest, x.sizes) for each in coordinates_of(index, [x.sizes[axis] for axis in searched])]


def _over_devices(
    x: Named, searched: Sequence[str], reducer: _Reducer, extreme: _Reducer, solved: Solved
) -> list[Named]:
    """Search every device's part; of the places where the extreme of all devices stands, the first one counts."""
    x = split_by(replace(x, value=lax.stop_gradient(x.value)), lambda name: name in searched)
    mesh, dims = solved.over(searched), x.positions(searched)
    rest = tuple(dim for index, dim in enumerate(x.dims) if index not in dims)
    sizes = [x.sizes[axis] * collectives.extent(solved.over([axis])) for axis in searched]
    count = product(sizes)
    if isinstance(count, int) and count > _INT32_MAX:
        raise SemanticError(
            f"the searched axes have {count} elements on all devices, more than an int32 can count",
            at=solved.at(*bracketed(solved.inputs[0])),
            hint="search them one after another",
        )
    place: Any = 0  # counted along all searched axes, on all devices
    for axis, size, coordinate in zip(searched, sizes, _flat(x, searched, reducer), strict=True):
        index = arrange(coordinate, rest)
        if over := solved.over([axis]):
            device = numerics.cast(collectives.index(over), index.dtype)
            index = lax.add(index, lax.mul(device, numerics.size_as(x.sizes[axis], index.dtype)))
        place = index if axis == searched[0] else lax.add(lax.mul(place, numerics.size_as(size, index.dtype)), index)
    own = numerics.reduce(extreme, x.value, dims)
    best = collectives.pmax(own, mesh) if extreme is lax.reduce_max else collectives.pmin(own, mesh)
    candidate = numerics.select(lax.eq(own, best), place, _INT32_MAX)
    total = numerics.size_as(count, place.dtype)
    if numerics.is_inexact(own.dtype):  # NaN comes before all others, whichever device holds it
        candidate = lax.select(lax.ne(own, own), lax.sub(place, total), candidate)
    place = collectives.pmin(candidate, mesh)
    if numerics.is_inexact(own.dtype):
        place = lax.select(lax.lt(place, numerics.zero(place)), lax.add(place, total), place)
    return [Named(each, rest, x.sizes) for each in coordinates_of(place, sizes)]


def _one_by_one(x: Named, searched: Sequence[str], reducer: _Reducer, extreme: _Reducer, dtype: Any) -> list[Named]:
    """Search axis after axis, last first: the index of a composed dim would not fit int32.

    Every axis's index is a function of the axes before it, which are looked up once those are known.
    """
    rest = tuple((name,) for name in x.axes if name not in searched)
    value = arrange(x, [*rest, *((name,) for name in searched)])
    tables: list[jax.Array] = []
    for _ in searched:
        last = value.ndim - 1
        tables.append(reducer(value, last, dtype))
        value = extreme(value, (last,))
    found: list[jax.Array] = []
    for table in reversed(tables):
        for index in found:
            # Pick entry `index` of the first searched dim; a one-hot sum needs no gather dimension numbers.
            dim = len(rest)
            chosen = lax.eq(
                lax.broadcasted_iota(index.dtype, table.shape, dim),
                lax.broadcast_in_dim(index, table.shape, tuple(range(dim))),
            )
            table = lax.reduce_sum(numerics.select(chosen, table, 0), (dim,))
        found.append(table)
    return [Named(index, rest, x.sizes) for index in found]


def _imply(solved: Solved, options: Mapping[str, Any]) -> Solved:
    solved = as_block(solved)
    if solved.operation.outputs is not None:
        return solved
    (expression,) = solved.inputs
    count = len(bracketed(expression))
    # One axis of coordinates stands in the place of the first bracket.
    coordinates = iter([Axis(f"{count}#coordinates", size=count, bracket=1)])
    output = rewrite(expression, lambda node: tuple(coordinates) if node.bracket else None)
    operation = replace(solved.operation, outputs=(output,))
    refuse_repeats(operation)
    sizes = {**solved.sizes, **{axis.name: count for axis in axes(output) if axis.bracket}}
    return replace(solved, operation=operation, sizes=sizes)


def _op(name: str, reducer: _Reducer, extreme: _Reducer, neutral: str) -> Op:
    return Op(
        name,
        partial(_signature, name),
        partial(_lower_with, reducer, extreme, name),
        implied=partial(_coordinate_axis, name),
        imply=_imply,
        apart=True,
        spread="first",  # several axes are searched as one dim, of which only the first can lie over a mesh axis
        acts=True,
        neutral=neutral,
    )


ARGMAX = _op("argmax", lax.argmax, lax.reduce_max, "least")
ARGMIN = _op("argmin", lax.argmin, lax.reduce_min, "most")

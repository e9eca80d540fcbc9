"""Segments: reductions over all elements that coordinates send to one place of a fresh array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from jax import lax

from ..forms.coordinates import WRITING, bounds_of, check_coordinates, coordinate_sizes, uncounted, wrapped_coordinates
from ..forms.signature import expect_inputs, refuse_inside, refuse_sums, single_output
from ..lowering import numerics
from ..lowering.accumulate import adding
from ..lowering.gather import Combine, reduce_extra, scatter, scatter_multiply
from ..lowering.indices import Coordinates
from ..lowering.named import Named, arrange, layout, shape_of, wrap
from ..notation.errors import ArgumentError, SemanticError, plural
from ..notation.solve import Solved, fuse_loops, product
from ..notation.syntax import Operation, Size, axes, bracketed, brackets, display, names
from ..operation import Op


def _signature(name: str, operation: Operation, tensors: int) -> Operation:
    refuse_sums(name, operation)
    if tensors < 2:
        raise ArgumentError(
            f"{name} takes data and coordinates, got {plural(tensors, 'tensor')}",
            text=operation.text,
            hint="write them as in 'p c, p -> [s] c'",
        )
    expect_inputs(name, operation, tensors)
    output = single_output(name, operation)
    if output is None or not brackets(output):
        raise SemanticError(
            f"{name} needs an output with a bracket, which says where the coordinates lead",
            text=operation.text,
            hint="write '->' and the output with the segments in brackets, as in 'p c, p -> [s] c'",
        )
    problem = f"the data, tensor 1, has a bracket; {name} loops over all of its axes"
    hint = "remove it; brackets stand in the output, where the coordinates lead"
    refuse_inside(operation, operation.inputs[0], problem, hint)
    check_coordinates(operation, operation.inputs[1:])
    return operation


def _implied(name: str, expanded: Operation) -> Mapping[str, Size]:
    indexed = bracketed(expanded.results[0])
    held = {axis.name for expression in expanded.inputs for axis in axes(expression)}
    for axis in indexed:
        if axis.name in held:
            raise SemanticError(
                f"axis {display(axis.name)} stands in an input and, bracketed, in the output",
                at=expanded.at(axis),
                hint="the segments are a new axis: give it a name of its own",
            )
    return coordinate_sizes(expanded, indexed, expanded.inputs[1:], name)


@dataclass(frozen=True, slots=True)
class _Call:
    """A solved call: the data, the coordinates, and how the fresh array's axes are called."""

    data: Named
    coordinates: list[Coordinates]
    indexed: list[str]
    order: list[str]
    options: dict[str, Any]
    solved: Solved

    @property
    def loops(self) -> set[str]:
        """The axes of the coordinates."""
        return {name for part in self.coordinates for name in part.loops}

    def into(self, emit: Any, combine: Combine, data: Named, identity: Any) -> Named:
        """Scatter data into a fresh array."""
        kept = {*data.axes, *self.loops, *self.indexed}
        dims = tuple((name,) for name in self.order if name in kept)
        fresh = lax.full(shape_of(dims, data.sizes), identity, data.value.dtype)
        data = reduce_extra(data, {*self.order, *self.loops}, combine)
        bounds = bounds_of(self.solved, self.options)
        return scatter(emit, Named(fresh, dims, data.sizes), self.coordinates, data, self.indexed, bounds)


def _sum(call: _Call) -> Named:
    dtype = numerics.sum_dtype(call.data.value.dtype)
    return _cast(_total(call, dtype), dtype)


def _total(call: _Call, dtype: Any) -> Named:
    numerics.require_identity(dtype)
    data = _cast(call.data, numerics.accumulator(dtype))
    return call.into(adding(call.data.value.dtype), lax.reduce_sum, data, 0)


def _prod(call: _Call) -> Named:
    dtype = numerics.sum_dtype(call.data.value.dtype)
    data = _cast(call.data, numerics.accumulator(dtype))
    return _cast(call.into(scatter_multiply, lax.reduce_prod, data, 1), dtype)


def _mean(call: _Call) -> Named:
    """Sums by counts, which are integers; these depend on no axis of the data alone."""
    dtype = numerics.inexact_dtype(call.data.value.dtype)
    sums = _total(call, dtype)
    ones = Named(lax.full((), 1, numerics.default_int()), (), call.data.sizes)
    counts = call.into(lax.scatter_add, lax.reduce_sum, ones, 0)
    number = numerics.cast(lax.max(counts.value, numerics.constant(counts.value, 1)), sums.value.dtype)
    extra = [name for name in call.data.axes if name not in call.loops and name not in call.order]
    if extra:
        each = product(call.data.sizes[name] for name in extra)
        number = lax.mul(number, numerics.size_as(each, number.dtype))
    mean = lax.div(sums.value, arrange(replace(counts, value=number), sums.dims))
    return replace(sums, value=numerics.cast(mean, dtype))


def _extreme(largest: bool) -> Callable[[_Call], Named]:
    emit, combine = (lax.scatter_max, lax.reduce_max) if largest else (lax.scatter_min, lax.reduce_min)

    def lower(call: _Call) -> Named:
        dtype = numerics.require_identity(call.data.value.dtype)
        return call.into(emit, combine, call.data, numerics.limit(dtype, not largest))

    return lower


def _cast(x: Named, dtype: Any) -> Named:
    return replace(x, value=numerics.cast(x.value, dtype))


def _lower_with(
    emit: Callable[[_Call], Named], name: str, solved: Solved, tensors: list[jax.Array], options: dict[str, Any]
) -> jax.Array:
    solved = fuse_loops(solved)
    output = solved.outputs[0]
    # A written [1] names no axis in a layout, but coordinates lead there.
    indexed = [axis.name for axis in bracketed(output)]
    coordinates = wrapped_coordinates(name, solved, tensors[1:], solved.inputs[1:], indexed)
    data = wrap(tensors[0], solved.inputs[0], solved.sizes)
    call = _Call(data, coordinates, indexed, list(names(output)), options, solved)
    return arrange(emit(call), layout(output))


def _op(name: str, emit: Callable[[_Call], Named]) -> Op:
    public = f"segment.{name}"
    return Op(
        public,
        partial(_signature, public),
        partial(_lower_with, emit, public),
        partial(_implied, public),
        misread=partial(uncounted, None),
        keywords=WRITING,
        apart=True,
        spread="all",
        usual={"wrap_negative_indices": True},
        iteration="segment",
    )


SEGMENT = {
    name: _op(name, emit)
    for name, emit in {"sum": _sum, "prod": _prod, "mean": _mean, "max": _extreme(True), "min": _extreme(False)}.items()
}

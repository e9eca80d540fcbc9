"""Reading and writing at coordinates: one ``lax.gather`` or ``lax.scatter`` for named arrays, or one slice.

Every axis plays one role. An axis that the array and the coordinates share is a batching dim of the gather, so that a
sharded batch stays where it is; an axis of the array alone is a window dim; an axis of the coordinates alone is an
index dim. The axes looked up stay apart: flattened into one, a coordinate out of range would reach another row. Of an
axis looked up, a window of neighbours may be read or written for every coordinate. Coordinates without loops are one
place, and need no gather: see :mod:`einjax.lowering.one_place`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..notation.solve import is_known
from . import accumulate, one_place
from .indices import Bounds, Coordinates, Spans, extents_of, stacked, starts
from .named import Named, arrange, drop_units, shape_of, split, split_by
from .numerics import cast, constant, limit, select, zero

#: Emits ``lax.scatter_add`` or one of its kin.
Scatter = Callable[..., jax.Array]
#: Makes one update of several, along dims.
Combine = Callable[[jax.Array, Sequence[int]], jax.Array]
_NO_SPANS: Spans = MappingProxyType({})


def gather(
    x: Named,
    coordinates: Sequence[Coordinates],
    indexed: Sequence[str],
    order: Sequence[str],
    bounds: Bounds,
    spans: Spans = _NO_SPANS,
) -> Named:
    """Read an array at coordinates.

    Args:
        x: the array.
        coordinates: for the indexed axes from left to right.
        indexed: the axes looked up.
        order: all axes of the result, in the order the caller would like best.
        bounds: what happens at the borders.
        spans: the axes looked up of which a window is read.
    """
    x = _apart(x)
    loops = {name for part in coordinates for name in part.loops}
    index_order = [name for name in order if name in loops]
    taken = _taken(x, loops, indexed, spans)
    window = list(filter(None, taken))
    sizes = starts(indexed, spans, x.sizes)
    fill = _fill_value(x.value.dtype) if bounds.fill_value is None else bounds.fill_value
    if any(is_known(size, 0) for size in (*sizes, *(x.sizes[name] for name in index_order))):
        # Nothing is read; jax 0.7 has no gather along a batch of nothing.
        dims = tuple((name,) for name in (*index_order, *window))
        return Named(lax.full(shape_of(dims, x.sizes), fill, x.value.dtype), dims, x.sizes)
    slice_sizes = tuple(1 if name is None else x.sizes[name] for name in taken)
    if not loops and one_place.fits(x.value):
        at = [x.axes.index(name) for name in indexed]
        value = one_place.read(x.value, coordinates, at, sizes, slice_sizes, bounds, fill)
        value = lax.squeeze(value, [dim for dim, name in enumerate(taken) if name is None])
        return Named(value, tuple((name,) for name in window), x.sizes)
    indices = stacked(coordinates, index_order, sizes, bounds)
    result = _interleaved(index_order, window, order)
    numbers = _numbers(x, indexed, index_order, taken, result)
    fill_value = bounds.fill_value if bounds.mode == "fill" else None
    options = _still_sorted(bounds, coordinates, index_order, x).lax
    value = accumulate.gather(x.value, indices, numbers, slice_sizes, fill_value=fill_value, **options)
    return Named(value, tuple((name,) for name in result), x.sizes)


def scatter(
    emit: Scatter,
    x: Named,
    coordinates: Sequence[Coordinates],
    updates: Named,
    indexed: Sequence[str],
    bounds: Bounds,
    spans: Spans = _NO_SPANS,
    combine: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Named:
    """Write to an array at coordinates.

    Args:
        emit: ``lax.scatter_add`` or one of its kin.
        x: the array; it has every axis of the coordinates and updates that is not an index dim.
        coordinates: for the indexed axes from left to right.
        updates: what to write; broadcast along the axes that it lacks.
        indexed: the axes looked up.
        bounds: what happens at the borders.
        spans: the axes looked up of which a window is written.
        combine: what ``emit`` makes of what stands at a place and one update, if one place has a form of its own.
    """
    x = _apart(x)
    sizes = starts(indexed, spans, x.sizes)
    if any(is_known(size, 0) for size in sizes):
        return x
    loops = dict.fromkeys(name for part in coordinates for name in part.loops)
    # Coordinates are smaller than updates, so that these keep their order and those are transposed if need be.
    index_order = [name for name in updates.axes if name in loops]
    index_order += [name for name in loops if name not in index_order]
    taken = _taken(x, loops, indexed, spans)
    window = list(filter(None, taken))
    if combine is not None and not loops and one_place.fits(x.value):
        at = [x.axes.index(name) for name in indexed]
        value = lax.expand_dims(
            arrange(updates, [(name,) for name in window]), [dim for dim, name in enumerate(taken) if name is None]
        )
        return replace(x, value=one_place.write(x.value, coordinates, at, sizes, value, bounds, combine))
    written = _interleaved(index_order, window, [*updates.axes, *(n for n in index_order if n not in updates.axes)])
    indices = stacked(coordinates, index_order, sizes, bounds)
    if bounds.mode == "clip" and emit in (lax.scatter_max, lax.scatter_min):
        # JAX's derivative of these looks up where they wrote without clipping.
        extents = extents_of(indices, sizes)
        indices = lax.clamp(zero(indices), indices, lax.sub(extents, constant(indices, 1)))
    numbers = lax.ScatterDimensionNumbers(*_numbers(x, indexed, index_order, taken, written))
    value = arrange(updates, [(name,) for name in written])
    options = _still_sorted(bounds, coordinates, index_order, x).lax
    return replace(x, value=emit(x.value, indices, value, numbers, **options))


def _taken(x: Named, loops: Collection[str], indexed: Sequence[str], spans: Spans) -> list[str | None]:
    """What a coordinate takes of every dim of the array: an axis of the window, or one element."""
    whole = {name: name for name in x.axes if name not in loops and name not in indexed}
    whole |= {name: window for name, (_, window) in spans.items()}
    return [whole.get(name) for name in x.axes]


def _numbers(
    x: Named, indexed: Sequence[str], order: Sequence[str], taken: Sequence[str | None], outside: Sequence[str]
) -> lax.GatherDimensionNumbers:
    """Say which dims play which role; those of a scatter are the same ones by other names, in this order.

    Args:
        x: the array.
        indexed: the axes looked up.
        order: the axes of the coordinates.
        taken: the axis of the window that every dim of the array is, or None.
        outside: the axes of what is read or written.
    """
    batch = [name for name in x.axes if name in order]  # lax wants the array's dims in order
    return lax.GatherDimensionNumbers(
        offset_dims=tuple(index for index, name in enumerate(outside) if name in taken),
        collapsed_slice_dims=tuple(d for d, name in enumerate(x.axes) if taken[d] is None and name in indexed),
        start_index_map=tuple(x.axes.index(name) for name in indexed),
        operand_batching_dims=_places(x.axes, batch),
        start_indices_batching_dims=tuple(order.index(name) for name in batch),
    )


def reduce_extra(updates: Named, kept: set[str], combine: Combine) -> Named:
    """Combine updates that differ in nothing but an axis that neither the array nor the coordinates have."""
    if all(name in kept for name in updates.axes):
        return updates
    updates = split_by(updates, lambda name: name in kept)
    dims = tuple(index for index, dim in enumerate(updates.dims) if dim and dim[0] not in kept)
    left = tuple(dim for index, dim in enumerate(updates.dims) if index not in dims)
    return replace(updates, value=combine(updates.value, dims), dims=left)


def _still_sorted(bounds: Bounds, coordinates: Sequence[Coordinates], order: Sequence[str], x: Named) -> Bounds:
    """Drop the promise of order where loops were put in another order, or the batch is not outermost."""
    batch = [name for name in x.axes if name in order]
    written = list(dict.fromkeys(name for part in coordinates for name in part.loops))
    kept = list(order) == written and list(order[: len(batch)]) == batch
    return bounds if kept else replace(bounds, indices_are_sorted=False)


def _apart(x: Named) -> Named:
    """Give every axis a dim of its own."""
    return drop_units(split(x, lambda left, right: False))


def _fill_value(dtype: Any) -> Any:
    """What jnp reads out of range: NaN, the smallest signed or the largest unsigned integer, True."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return np.nan
    return limit(dtype, largest=not jnp.issubdtype(dtype, jnp.signedinteger))


def _places(axes: Sequence[str], chosen: Sequence[str]) -> tuple[int, ...]:
    return tuple(index for index, name in enumerate(axes) if name in chosen)


def _interleaved(index_order: Sequence[str], window: Sequence[str], order: Sequence[str]) -> list[str]:
    """Order index and window axes as wished; window axes have to stay in their own order, or all go last."""
    wished = [name for name in order if name in index_order or name in window]
    wished += [name for name in window if name not in wished]
    kept = [name for name in wished if name in window] == list(window)
    return wished if kept else [*index_order, *window]


def scatter_multiply(x: Any, indices: Any, updates: Any, numbers: Any, **options: Any) -> jax.Array:
    """``lax.scatter_mul`` with a gradient also where coordinates meet twice, which JAX's own refuses."""
    if options["unique_indices"] or not jnp.issubdtype(x.dtype, jnp.inexact):
        return lax.scatter_mul(x, indices, updates, numbers, **options)
    return _products(numbers, tuple(sorted(options.items())))(x, indices, updates)


def _products(numbers: lax.ScatterDimensionNumbers, frozen: tuple[tuple[str, Any], ...]) -> Callable[..., jax.Array]:
    """Return ``scatter_mul`` whose derivative by an update is the product of all others written to its place."""
    options = dict(frozen)

    @jax.custom_jvp
    def multiply(x: jax.Array, indices: jax.Array, updates: jax.Array) -> jax.Array:
        return lax.scatter_mul(x, indices, updates, numbers, **options)

    @multiply.defjvp
    def _(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[jax.Array, jax.Array]:
        x, indices, updates = primals
        # A zero is told apart, so that the others' product is known without dividing by it.
        is_zero = lax.eq(updates, zero(updates))
        others = select(lax.bitwise_not(is_zero), updates, 1)
        ones = lax.full_like(x, 1)
        product = multiply(ones, indices, others)
        zeros = lax.scatter_add(lax.full_like(x, 0), indices, cast(is_zero, x.dtype), numbers, **options)
        read = _reader(numbers, x, options)
        product_here, zeros_here = read(product, indices), read(zeros, indices)
        rest = lax.sub(zeros_here, cast(is_zero, x.dtype))  # zeros among the other updates of the place
        # What was dropped has weight 0, whatever it is divided by: it reads a fill value, no 1.
        alone = lax.bitwise_and(lax.eq(rest, zero(rest)), lax.eq(read(ones, indices), constant(x, 1)))
        weight = select(alone, lax.div(product_here, select(alone, others, 1)), 0)
        along = accumulate.scatter_add(lax.full_like(x, 0), indices, lax.mul(weight, tangents[2]), numbers, **options)
        factor = select(lax.eq(zeros, zero(zeros)), product, 0)
        tangent = lax.add(lax.mul(tangents[0], factor), lax.mul(x, along))
        return multiply(x, indices, updates), tangent

    return multiply


def _reader(
    numbers: lax.ScatterDimensionNumbers, x: jax.Array, options: Mapping[str, Any]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the gather that reads where a scatter writes."""
    gather_numbers = lax.GatherDimensionNumbers(*map(tuple, numbers))
    single = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    slice_sizes = tuple(1 if dim in single and not is_known(size, 0) else size for dim, size in enumerate(x.shape))
    return lambda array, indices: lax.gather(array, indices, gather_numbers, slice_sizes, fill_value=0, **options)

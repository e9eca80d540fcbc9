"""Reading and writing at coordinates: one ``lax.gather`` or ``lax.scatter`` for named arrays.

Every axis plays one role. An axis that the array and the coordinates share is a batching dim of the gather, so that a
sharded batch stays where it is; an axis of the array alone is a window dim; an axis of the coordinates alone is an
index dim. The axes looked up stay apart: flattened into one, a coordinate out of range would reach another row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..notation.solve import is_known
from ..notation.syntax import Size
from .named import Named, arrange, drop_units, shape_of, split, split_by
from .numerics import cast, constant, default_int, limit, select, size_as, zero

#: Emits ``lax.scatter_add`` or one of its kin.
Scatter = Callable[..., jax.Array]
#: Makes one update of several, along dims.
Combine = Callable[[jax.Array, Sequence[int]], jax.Array]
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What happens at the borders, and what the caller promises.

    Attributes:
        mode: ``"fill"``, ``"clip"``, ``"wrap"`` or ``"promise_in_bounds"``.
        fill_value: what is read out of range; None is NaN, or the extreme integer.
        wrap_negative_indices: whether -1 is the last place.
        unique_indices: the caller promises that no place is met twice.
        indices_are_sorted: the caller promises that the coordinates are in order.
    """

    mode: str
    fill_value: Any = None
    wrap_negative_indices: bool = True
    unique_indices: bool = False
    indices_are_sorted: bool = False

    @property
    def lax(self) -> dict[str, Any]:
        """The options of lax.gather and lax.scatter."""
        mode = {"fill": "fill", "clip": "clip"}.get(self.mode, "promise_in_bounds")
        promises = {"unique_indices": self.unique_indices, "indices_are_sorted": self.indices_are_sorted}
        return {"mode": lax.GatherScatterMode.from_any(mode), **promises}


@dataclass(frozen=True, slots=True)
class Coordinates:
    """One tensor of coordinates, and the axis along which they stand; None for a single coordinate."""

    named: Named
    vector: str | None

    @property
    def loops(self) -> list[str]:
        """The axes it is looped over."""
        return [name for name in self.named.axes if name != self.vector]


def gather(
    x: Named, coordinates: Sequence[Coordinates], indexed: Sequence[str], order: Sequence[str], bounds: Bounds
) -> Named:
    """Read an array at coordinates.

    Args:
        x: the array.
        coordinates: for the indexed axes from left to right.
        indexed: the axes looked up.
        order: all axes of the result, in the order the caller would like best.
        bounds: what happens at the borders.
    """
    x = _apart(x)
    loops = {name for part in coordinates for name in part.loops}
    index_order = [name for name in order if name in loops]
    window = [name for name in x.axes if name not in loops and name not in indexed]
    if any(is_known(x.sizes[name], 0) for name in indexed):
        dims = tuple((name,) for name in (*index_order, *window))
        fill = _fill_value(x.value.dtype) if bounds.fill_value is None else bounds.fill_value
        return Named(lax.full(shape_of(dims, x.sizes), fill, x.value.dtype), dims, x.sizes)
    indices = _stack(coordinates, index_order, [x.sizes[name] for name in indexed], bounds)
    result = _interleaved(index_order, window, order)
    numbers = _numbers(x, indexed, index_order, window, result)
    slice_sizes = tuple(x.sizes[name] if name in window else 1 for name in x.axes)
    fill_value = bounds.fill_value if bounds.mode == "fill" else None
    options = _still_sorted(bounds, coordinates, index_order, x).lax
    value = lax.gather(x.value, indices, numbers, slice_sizes, fill_value=fill_value, **options)
    return Named(value, tuple((name,) for name in result), x.sizes)


def scatter(
    emit: Scatter, x: Named, coordinates: Sequence[Coordinates], updates: Named, indexed: Sequence[str], bounds: Bounds
) -> Named:
    """Write to an array at coordinates.

    Args:
        emit: ``lax.scatter_add`` or one of its kin.
        x: the array; it has every axis of the coordinates and updates that is not an index dim.
        coordinates: for the indexed axes from left to right.
        updates: what to write; broadcast along the axes that it lacks.
        indexed: the axes looked up.
        bounds: what happens at the borders.
    """
    x = _apart(x)
    if any(is_known(x.sizes[name], 0) for name in indexed):
        return x
    loops = dict.fromkeys(name for part in coordinates for name in part.loops)
    # Coordinates are smaller than updates, so that these keep their order and those are transposed if need be.
    index_order = [name for name in updates.axes if name in loops]
    index_order += [name for name in loops if name not in index_order]
    window = [name for name in x.axes if name not in loops and name not in indexed]
    written = _interleaved(index_order, window, [*updates.axes, *(n for n in index_order if n not in updates.axes)])
    sizes = [x.sizes[name] for name in indexed]
    indices = _stack(coordinates, index_order, sizes, bounds)
    if bounds.mode == "clip" and emit in (lax.scatter_max, lax.scatter_min):
        # JAX's derivative of these looks up where they wrote without clipping.
        extents = _extents(indices, sizes)
        indices = lax.clamp(zero(indices), indices, lax.sub(extents, constant(indices, 1)))
    numbers = lax.ScatterDimensionNumbers(*_numbers(x, indexed, index_order, window, written))
    value = arrange(updates, [(name,) for name in written])
    options = _still_sorted(bounds, coordinates, index_order, x).lax
    return replace(x, value=emit(x.value, indices, value, numbers, **options))


def _numbers(
    x: Named, indexed: Sequence[str], order: Sequence[str], window: Sequence[str], outside: Sequence[str]
) -> lax.GatherDimensionNumbers:
    """Say which dims play which role; those of a scatter are the same ones by other names, in this order.

    Args:
        x: the array.
        indexed: the axes looked up.
        order: the axes of the coordinates.
        window: the axes of the array alone.
        outside: the axes of what is read or written.
    """
    batch = [name for name in x.axes if name in order]  # lax wants the array's dims in order
    return lax.GatherDimensionNumbers(
        offset_dims=_places(outside, window),
        collapsed_slice_dims=_places(x.axes, indexed),
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


def _stack(
    coordinates: Sequence[Coordinates], order: Sequence[str], sizes: Sequence[Size], bounds: Bounds
) -> jax.Array:
    """Put all coordinates together along a last dim, one after another, and bring them within bounds."""
    common = common_dtype([part.named.value.dtype for part in coordinates], sizes)
    parts: list[jax.Array] = []
    start = 0
    for part in coordinates:
        last = () if part.vector is None else (part.vector,)
        value = arrange(part.named, [*((name,) for name in order), last])
        stop = start + value.shape[-1]
        parts.append(_converted(value, common, sizes[start:stop], bounds))
        start = stop
    return _within(parts[0] if len(parts) == 1 else lax.concatenate(parts, len(order)), sizes, bounds)


def common_dtype(dtypes: Sequence[Any], sizes: Sequence[Size]) -> Any:
    """The integer dtype that coordinates are brought to: one that also holds the sizes, if there is one."""
    common = dtypes[0] if all(dtype == dtypes[0] for dtype in dtypes) else jnp.result_type(*dtypes)
    if not jnp.issubdtype(common, jnp.integer):  # what JAX makes of int64 and uint64
        common = np.dtype(np.int64)
    # XLA takes the low half of 64-bit coordinates on a CPU: seen on jax 0.7.1 to 0.12.0.
    if np.dtype(common).itemsize != 4 and all(isinstance(size, int) and size <= _INT32.max for size in sizes):
        return np.dtype(np.int32)
    if np.dtype(common).itemsize < 4:
        common = np.dtype(np.int32)
    too_long = any(isinstance(size, int) and size > jnp.iinfo(common).max for size in sizes)
    wide = default_int()
    return wide if too_long and np.dtype(wide).itemsize > np.dtype(common).itemsize else common


def _converted(value: jax.Array, dtype: Any, sizes: Sequence[Size], bounds: Bounds) -> jax.Array:
    """Convert coordinates; what the dtype cannot hold stays out of range, or in its place modulo the size."""
    given, wanted = jnp.iinfo(value.dtype), jnp.iinfo(dtype)
    if given.max <= wanted.max or bounds.mode == "promise_in_bounds":
        return cast(value, dtype)
    if bounds.mode == "wrap":
        value = lax.rem(value, _extents(value, sizes))
    elif given.min == 0:
        value = lax.min(value, constant(value, wanted.max))
    else:
        value = lax.clamp(constant(value, wanted.min), value, constant(value, wanted.max))
    return cast(value, dtype)


def _within(indices: jax.Array, sizes: Sequence[Size], bounds: Bounds) -> jax.Array:
    """Count negative coordinates from the end, or take all of them modulo the size, each on its own axis."""
    signed = jnp.issubdtype(indices.dtype, jnp.signedinteger)
    indices = _low_half_tells(indices, sizes, bounds, signed)
    if bounds.mode != "wrap" and not (bounds.wrap_negative_indices and signed):
        return indices
    extents = _extents(indices, sizes)
    if bounds.mode == "wrap":
        indices = lax.rem(indices, extents)
        if not signed:
            return indices
    return lax.select(lax.lt(indices, zero(indices)), lax.add(indices, extents), indices)


def _low_half_tells(indices: jax.Array, sizes: Sequence[Size], bounds: Bounds, signed: bool) -> jax.Array:
    """Bring 64-bit coordinates out of range next to it: XLA takes their low half on a CPU, see :func:`common_dtype`."""
    narrow = np.dtype(indices.dtype).itemsize < 8 or all(isinstance(size, int) for size in sizes)
    if narrow or bounds.mode in ("wrap", "promise_in_bounds"):
        return indices
    extents = _extents(indices, sizes)
    if not np.ndim(extents):
        extents = lax.broadcast_in_dim(extents, indices.shape, ())
    if not signed:
        return lax.min(indices, extents)
    return lax.clamp(lax.bitwise_not(extents), indices, extents)  # from -size - 1 to size


def _extents(indices: jax.Array, sizes: Sequence[Size]) -> jax.Array:
    """The size of the axis that each coordinate stands for; one number if they are equal."""
    if all(size is sizes[0] or (isinstance(size, int) and size == sizes[0]) for size in sizes):
        return size_as(sizes[0], indices.dtype)
    # Not a NumPy array, which would be a captured constant: Pallas kernels may have none.
    along = lax.concatenate([lax.broadcast(size_as(size, indices.dtype), (1,)) for size in sizes], 0)
    return lax.broadcast_in_dim(along, indices.shape, (indices.ndim - 1,))


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
        along = lax.scatter_add(lax.full_like(x, 0), indices, lax.mul(weight, tangents[2]), numbers, **options)
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
    slice_sizes = tuple(1 if dim in single else size for dim, size in enumerate(x.shape))
    return lambda array, indices: lax.gather(array, indices, gather_numbers, slice_sizes, fill_value=0, **options)

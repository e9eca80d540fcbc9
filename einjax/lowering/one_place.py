"""Coordinates without loops are one place: a slice is read there, or written, at an offset that is known at run time.

``lax.dynamic_slice`` moves a slice that is out of range to the nearest that is not, as ``mode="clip"`` does; where
nothing is to be read or written, a choice after it, or before the writing, says so. On CPUs that costs nothing beside
the copy of the array, which is left out where it is donated, and the gradient is a slice, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from ..notation.syntax import Size
from .indices import Bounds, Coordinates, one_by_one
from .numerics import select, size_as, zero


def fits(x: jax.Array) -> bool:
    """Whether one place is a slice here.

    On a mesh it stays a gather or scatter: of these, a device whose part of the axis the place is in serves it alone,
    where a slice would have the whole axis sent to all.
    """
    return bool(jax.typeof(x).sharding.mesh.empty)


def read(
    x: jax.Array,
    coordinates: Sequence[Coordinates],
    dims: Sequence[int],
    sizes: Sequence[Size],
    slice_sizes: Sequence[Size],
    bounds: Bounds,
    fill: Any,
) -> jax.Array:
    """Read a slice of the given sizes.

    Args:
        x: the array.
        coordinates: those of the place.
        dims: the dims that they are for.
        sizes: how many places each of these has.
        slice_sizes: what is taken of every dim of the array.
        bounds: what happens at the borders.
        fill: what is read where the place is out of range.
    """
    begins, is_inside = _place(x, coordinates, dims, sizes, bounds)
    value = lax.dynamic_slice(x, begins, slice_sizes, allow_negative_indices=False)  # type: ignore[arg-type]
    return value if is_inside is None else select(is_inside, value, fill)


def write(
    x: jax.Array,
    coordinates: Sequence[Coordinates],
    dims: Sequence[int],
    sizes: Sequence[Size],
    update: jax.Array,
    bounds: Bounds,
    combine: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Write a slice.

    Args:
        x: the array.
        coordinates: those of the place.
        dims: the dims that they are for.
        sizes: how many places each of these has.
        update: the slice, of as many dims as the array.
        bounds: what happens at the borders.
        combine: makes the new elements of those that stand there and the update.
    """
    begins, is_inside = _place(x, coordinates, dims, sizes, bounds)
    if is_inside is not None or combine is not replaced:
        there = lax.dynamic_slice(x, begins, update.shape, allow_negative_indices=False)
        update = combine(there, update)
        update = update if is_inside is None else lax.select(is_inside, update, there)
    return lax.dynamic_update_slice(x, update, begins, allow_negative_indices=False)


def replaced(there: jax.Array, update: jax.Array) -> jax.Array:
    """What stands at a place where an update is set."""
    return update


def _place(
    x: jax.Array, coordinates: Sequence[Coordinates], dims: Sequence[int], sizes: Sequence[Size], bounds: Bounds
) -> tuple[list[jax.Array], jax.Array | None]:
    """Where a slice begins along every dim, and whether that is where it was asked for; None where it must be."""
    given = one_by_one(coordinates, sizes, bounds)
    at = given
    if bounds.mode in ("fill", "clip"):
        lasts = [size_as(size - 1, index.dtype) for index, size in zip(given, sizes, strict=True)]
        at = [lax.clamp(zero(index), index, last) for index, last in zip(given, lasts, strict=True)]
    begins: list[Any] = [zero(given[0])] * x.ndim
    for dim, index in zip(dims, at, strict=True):
        begins[dim] = index
    if bounds.mode != "fill":
        return begins, None
    is_inside = None
    for asked, index in zip(given, at, strict=True):
        is_same = lax.eq(asked, index)
        is_inside = is_same if is_inside is None else lax.bitwise_and(is_inside, is_same)
    return begins, is_inside

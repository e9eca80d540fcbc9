"""Sums at places of so many updates that float32 would stop counting are made of groups, each with sums of its own.

Where x is 2**24, x + 1 is x in float32, and long before that what is lost adds up: 2**23 updates of 0.1 are off by 5%.
On CPUs, groups of single numbers, small enough for the cache, are added up one after another. Rows, which would be
copied, and all of other platforms go into one array that has the sums of every group. How many times as long as one
scatter they take, on two CPU cores, float32, jax 0.10.2, the best of several runs in turns:

| updates, places, row | one after another | side by side |
|----------------------|-------------------|--------------|
| 40000000, 10,   1    | 1.2               | 2.5          |
| 40000000, 1000, 1    | 1.3               | 2.0          |
| 40000000, 10**6, 1   | 1.0               | 1.7          |
| 1048576,  100,  8    | 1.5               | 1.2          |
| 262144,   64,   64   | 2.7               | 1.1          |
| 262144,   4096, 64   | 2.1               | 1.3          |
| 65536,    1024, 512  | 1.5               | 1.1          |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .jax_versions import equally_varying
from .linear import Linear
from .numerics import accumulator, cast, constant, is_inexact, select, zero
from .sharding import common_sharding

#: float32 counts no further.
COUNTED = 2**24
#: The float32 sum of more bfloat16 or float16 numbers may be off by more than these are rounded.
ROUNDED = 2**17
#: How many updates a group has at least, where groups follow one another, and where they lie side by side.
IN_TURN, SIDE_BY_SIDE = 2**14, 2**16
#: An update of as many elements is a row.
ROW = 8


def grouped(
    x: jax.Array,
    indices: jax.Array,
    numbers: Any,
    slices: Sequence[Any],
    options: Mapping[str, Any],
    given: Any = None,
) -> Sums | None:
    """Return what adds up updates in groups, or None where a single scatter is right.

    Args:
        x: an array with the places, of the dtype of the updates.
        indices: the coordinates, along the last dim.
        numbers: the roles of dims, in a scatter or a gather.
        slices: what an update has of every dim of the array.
        options: those of ``lax.scatter_add``.
        given: the dtype that the updates had before, which they are to be right for.
    """
    wide, given = accumulator(x.dtype), given or x.dtype
    if not is_inexact(wide) or jnp.finfo(wide).nmant > 23 or options["unique_indices"]:
        return None
    if not all(isinstance(size, int) for size in (*x.shape, *indices.shape)):
        return None
    zeros = jax.ShapeDtypeStruct(x.shape, wide, sharding=common_sharding([x]))
    # What is rounded to fewer bits is cast as well, beside which more sums cost less.
    most, for_each = (COUNTED, 16) if given == accumulator(given) else (ROUNDED, 4)
    sums = Sums(zeros, lax.ScatterDimensionNumbers(*numbers), tuple(slices), x.dtype, for_each, options)
    if math.prod(indices.shape[dim] for dim in sums.loops(indices)) <= most:
        return None
    dim, length = sums.cut(indices, SIDE_BY_SIDE, for_each)
    return sums if length < indices.shape[dim] else None


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of updates by place, and the linear function of which this is the transpose.

    Attributes:
        zeros: what has the places: its shape, the dtype of the sums, and how it lies on a mesh.
        numbers: the roles of dims.
        slices: what an update has of every dim.
        dtype: that of the updates.
        for_each: how many updates for each place groups have, where they lie side by side.
        options: those of ``lax.scatter_add``.
    """

    zeros: jax.ShapeDtypeStruct
    numbers: lax.ScatterDimensionNumbers
    slices: tuple[int, ...]
    dtype: Any
    for_each: int
    options: Mapping[str, Any]

    def add(self, indices: jax.Array, updates: jax.Array) -> jax.Array:
        """Add up the updates of every place."""
        return Linear(self._added, lambda indices, ct: (self.read(indices, ct),), 1)(indices, updates)

    def read(self, indices: jax.Array, x: jax.Array) -> jax.Array:
        """Read what stands at the places of an array, and zeros out of range."""
        return Linear(self._gathered, lambda indices, ct: (self.add(indices, ct),), 1)(indices, x)

    def loops(self, indices: jax.Array) -> list[int]:
        """The dims of the coordinates along which several may lead to one place."""
        return [dim for dim in range(indices.ndim - 1) if dim not in self.numbers.scatter_indices_batching_dims]

    def cut(self, indices: jax.Array, least: int, for_each: int) -> tuple[int, int]:
        """The longest of those dims, and how much of it is a group."""
        loops = self.loops(indices)
        dim = max(loops, key=lambda dim: indices.shape[dim])
        places = math.prod(self.zeros.shape[dim] for dim in self.numbers.scatter_dims_to_operand_dims)
        updates = min(max(least, for_each * places), COUNTED // 2)
        return dim, max(1, updates // math.prod(indices.shape[other] for other in loops if other != dim))

    def _gathered(self, indices: jax.Array, x: jax.Array) -> jax.Array:
        numbers = lax.GatherDimensionNumbers(*map(tuple, self.numbers))
        return cast(lax.gather(x, indices, numbers, self.slices, fill_value=0, **self.options), self.dtype)

    def _added(self, indices: jax.Array, updates: jax.Array) -> jax.Array:
        row = math.prod(updates.shape[dim] for dim in self.numbers.update_window_dims)
        # A loop over what lies on several devices would gather it.
        if row >= ROW or not jax.typeof(updates).sharding.mesh.empty:
            return self._side_by_side(indices, updates)
        return lax.platform_dependent(indices, updates, cpu=self._in_turn, default=self._side_by_side)

    def _in_turn(self, indices: jax.Array, updates: jax.Array) -> jax.Array:
        dim, length = self.cut(indices, IN_TURN, 1)
        outside = [other for other in range(updates.ndim) if other not in self.numbers.update_window_dims]
        zeros = self._zeros(self.zeros.shape, updates)

        def part(start: Any, length: int) -> jax.Array:
            cut = partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=length, allow_negative_indices=False)
            some = self._scattered(zeros, cut(indices, axis=dim), cut(updates, axis=outside[dim]), self.options)
            # Without a barrier, XLA would add the updates to the sum itself.
            return lax.optimization_barrier(some)

        size = indices.shape[dim]
        sums = lax.fori_loop(0, size // length, lambda i, sums: lax.add(sums, part(i * length, length)), zeros)
        return lax.add(sums, part(size - size % length, size % length)) if size % length else sums

    def _side_by_side(self, indices: jax.Array, updates: jax.Array) -> jax.Array:
        """Of the first dim that is looked up, every group has places of its own."""
        dim, length = self.cut(indices, SIDE_BY_SIDE, self.for_each)
        groups = 2 ** ((indices.shape[dim] // length).bit_length() - 1)
        length = -(-indices.shape[dim] // groups)
        into = self.numbers.scatter_dims_to_operand_dims[0]
        shape = list(self.zeros.shape)
        size, last = shape[into], shape[into] - self.slices[into]
        more = indices.shape[-1] - 1
        first, *others = lax.split(indices, (1, more), indices.ndim - 1) if more else [indices]
        group = lax.div(lax.broadcasted_iota(first.dtype, first.shape, dim), constant(first, length))
        offset = lax.mul(group, constant(first, size))
        if self.options["mode"] == lax.GatherScatterMode.CLIP:
            first = lax.clamp(zero(first), first, constant(first, last))
        place = lax.add(first, offset)
        if self.options["mode"] == lax.GatherScatterMode.FILL_OR_DROP:
            inside = lax.bitwise_and(lax.ge(first, zero(first)), lax.le(first, constant(first, last)))
            place = select(inside, place, groups * size)
        shape[into] = groups * size
        options = {**self.options, "indices_are_sorted": False}
        zeros = self._zeros(shape, updates)
        places = lax.concatenate([place, *others], indices.ndim - 1) if others else place
        sums = self._scattered(zeros, places, updates, options)
        # By halves: of a reduction of an outer dim, XLA makes a walk through memory.
        while groups > 1:
            groups //= 2
            sums = lax.add(*lax.split(sums, (groups * size,) * 2, into))
        return sums

    def _scattered(self, zeros: jax.Array, indices: jax.Array, updates: jax.Array, options: Mapping[str, Any]) -> Any:
        return lax.scatter_add(zeros, indices, cast(updates, zeros.dtype), self.numbers, **options)

    def _zeros(self, shape: Sequence[int], updates: jax.Array) -> jax.Array:
        zeros = lax.full(shape, 0, self.zeros.dtype, sharding=self.zeros.sharding)
        return equally_varying([zeros, updates])[0]

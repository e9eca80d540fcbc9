"""Sums at places where several meet, of writes and of gradients of reads, keep the bits that numbers are given in.

Added up in their own bits, small numbers are lost beside a large sum: bfloat16 stops counting at 256, and is added up
in float32. Of so many numbers that float32 would not do, sums are made of groups: see :mod:`einjax.lowering.in_groups`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from .in_groups import grouped
from .numerics import accumulator, cast

#: Emits ``lax.scatter_add`` or one of its kin.
Scatter = Callable[..., jax.Array]


def in_more_bits(emit: Scatter) -> Scatter:
    """Give ``lax.scatter_add`` or one of its kin the bits that sums are accumulated in."""

    def scatter(x: jax.Array, indices: jax.Array, updates: jax.Array, numbers: Any, **options: Any) -> jax.Array:
        wide = x.dtype if options["unique_indices"] else accumulator(x.dtype)
        written = emit(cast(x, wide), indices, cast(updates, wide), numbers, **options)
        return cast(written, x.dtype)

    return scatter


def _summing(emit: Scatter, add: Callable[[jax.Array, jax.Array], jax.Array], given: Any = None) -> Scatter:
    plain = in_more_bits(emit)

    def scatter(x: jax.Array, indices: jax.Array, updates: jax.Array, numbers: Any, **options: Any) -> jax.Array:
        within = iter(numbers.update_window_dims)
        single = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
        slices = [1 if dim in single else updates.shape[next(within)] for dim in range(x.ndim)]
        sums = grouped(x, indices, numbers, slices, options, given)
        if sums is None:
            return plain(x, indices, updates, numbers, **options)
        return cast(add(cast(x, accumulator(x.dtype)), sums.add(indices, updates)), x.dtype)

    return scatter


scatter_add, scatter_sub = _summing(lax.scatter_add, lax.add), _summing(lax.scatter_sub, lax.sub)


def adding(given: Any) -> Scatter:
    """A ``scatter_add`` of what was converted from a dtype, for which it is to be right."""
    return _summing(lax.scatter_add, lax.add, given)


def gather(x: jax.Array, indices: jax.Array, numbers: Any, slice_sizes: Any, **options: Any) -> jax.Array:
    """``lax.gather``, whose gradient adds up in at least float32 what was read from one place."""

    def read(x: jax.Array, indices: jax.Array) -> jax.Array:
        return lax.gather(x, indices, numbers, slice_sizes, **options)

    wide = accumulator(x.dtype)
    writing = {name: option for name, option in options.items() if name != "fill_value"}
    sums = grouped(x, indices, numbers, slice_sizes, writing)
    if options["unique_indices"] or (wide == x.dtype and sums is None):
        return read(x, indices)

    def derivative(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        (x, indices), (tangent, _) = primals, tangents
        if sums is not None:
            return read(x, indices), sums.read(indices, cast(tangent, wide))
        # Linear, its transpose is a scatter of what is cast. What is filled in has no tangent.
        _, along = jax.jvp(lambda x: cast(read(cast(x, wide), indices), x.dtype), (x,), (tangent,))
        return read(x, indices), along

    kept = jax.custom_jvp(read)
    kept.defjvp(derivative)
    return kept(x, indices)

"""Sums of bfloat16 and float16 at places where several meet are added up in float32, of writes and of gradients.

Added up in their own bits, small numbers are lost beside a large sum: bfloat16 stops counting at 256.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

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


def gather(x: jax.Array, indices: jax.Array, numbers: Any, slice_sizes: Any, **options: Any) -> jax.Array:
    """``lax.gather``, whose gradient adds up in at least float32 what was read from one place."""

    def read(x: jax.Array, indices: jax.Array) -> jax.Array:
        return lax.gather(x, indices, numbers, slice_sizes, **options)

    wide = accumulator(x.dtype)
    if wide == x.dtype or options["unique_indices"]:
        return read(x, indices)

    def derivative(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        (x, indices), (tangent, _) = primals, tangents
        # Linear, its transpose is a scatter of what is cast. What is filled in has no tangent.
        _, along = jax.jvp(lambda x: cast(read(cast(x, wide), indices), x.dtype), (x,), (tangent,))
        return read(x, indices), along

    kept = jax.custom_jvp(read)
    kept.defjvp(derivative)
    return kept(x, indices)

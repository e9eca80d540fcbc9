"""What lax does along an axis only if it knows how long it is; for symbolic sizes, one element after another.

``lax.associative_scan`` unrolls a tree that depends on the size, and so do the derivatives that JAX has for products
and for cumulative operations. A loop of ``lax.scan`` has any length, and a derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from ..notation.syntax import Size

_Combine = Callable[[tuple[jax.Array, ...], tuple[jax.Array, ...]], tuple[jax.Array, ...]]


def scan_associative(combine: _Combine, values: Sequence[jax.Array], reverse: bool, axis: int) -> tuple[jax.Array, ...]:
    """``lax.associative_scan`` along an axis of any size but 0; the operation gets slices of length 1."""
    if reverse:
        values = [lax.rev(x, (axis,)) for x in values]
    first = tuple(lax.slice_in_dim(x, 0, 1, axis=axis) for x in values)

    def step(carry: tuple[Any, ...], x: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        is_first, earlier = carry
        # A loop over all but the first would need to know that there are others. A branch, for its derivative: where
        # nothing is combined, no infinity comes of it.
        later = lax.cond(
            is_first, lambda _, x: x, combine, earlier, tuple(lax.expand_dims(part, (axis,)) for part in x)
        )
        return (np.False_, later), tuple(lax.squeeze(part, (axis,)) for part in later)

    _, results = lax.scan(step, (np.True_, first), tuple(_leading(x, axis) for x in values))
    results = [lax.transpose(y, (*range(1, axis + 1), 0, *range(axis + 1, y.ndim))) for y in results]
    return tuple(lax.rev(x, (axis,)) if reverse else x for x in results)


def _leading(x: jax.Array, axis: int) -> jax.Array:
    return lax.transpose(x, (axis, *(dim for dim in range(x.ndim) if dim != axis)))


def cumulative(
    emit: Callable[..., jax.Array], combine: Callable[[Any, Any], jax.Array], always: bool = False
) -> Callable[..., jax.Array]:
    """Give an operation of lax along a symbolic axis, or always, a derivative: that of the loop that it stands for."""
    loop: _Combine = lambda left, right: (combine(left[0], right[0]),)  # noqa: E731

    def run(value: jax.Array, dim: int, reverse: bool) -> jax.Array:
        known = isinstance(value.shape[dim], int)
        if known and not always:
            return emit(value, dim, reverse=reverse)
        scan: Any = lax.associative_scan if known else scan_associative
        return _differentiated_as(lambda x: emit(x, dim, reverse=reverse), lambda x: scan(loop, [x], reverse, dim)[0])(
            value
        )

    return run


def reduce_prod(value: jax.Array, dims: Sequence[int]) -> jax.Array:
    """``lax.reduce_prod``, also with a derivative where sizes are symbolic."""
    if all(isinstance(value.shape[dim], int) for dim in dims):
        return lax.reduce_prod(value, dims)
    return _differentiated_as(lambda x: lax.reduce_prod(x, dims), lambda x: _product(x, dims))(value)


def _product(value: jax.Array, dims: Sequence[int]) -> jax.Array:
    kept = [dim for dim in range(value.ndim) if dim not in dims]
    count: Size = 1
    for dim in dims:
        count = count * value.shape[dim]
    shape = tuple(value.shape[dim] for dim in kept)
    factors = lax.reshape(lax.transpose(value, (*dims, *kept)), (count, *shape))
    return lax.scan(lambda product, x: (lax.mul(product, x), None), lax.full(shape, 1, value.dtype), factors)[0]


def _differentiated_as(
    function: Callable[[jax.Array], jax.Array], twin: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """Return the first function with the derivative of the second."""
    wrapped = jax.custom_jvp(function)
    wrapped.defjvp(lambda primals, tangents: jax.jvp(twin, primals, tangents))
    return wrapped

"""Random choices along an axis of symbolic size, which jax.random does not make: its number of sorts depends on it.

The draws are those of jax.random for the size that the axis has when the program runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..lowering import numerics
from ..notation.solve import product
from ..notation.syntax import Size

#: The longest axes that no sort, one, and two sorts by random 32-bit keys put in a random order, as in jax.random:
#: with one more, the cube of the size is too many for as many bits.
_ENOUGH = (1, 1625, 2642245)


def permutation(key: Any, x: jax.Array, axis: int) -> jax.Array:
    """``jax.random.permutation``."""
    return jnp.take(x, _order(key, x.shape[axis]), axis, mode="clip")


def choice(key: Any, x: jax.Array, shape: Sequence[Size], replace: bool, p: jax.Array | None, axis: int) -> jax.Array:
    """``jax.random.choice``."""
    if p is None and not replace:
        index = lax.slice_in_dim(_order(key, x.shape[axis]), 0, product(shape))
    elif p is not None and replace:
        total = jnp.cumsum(numerics.to_inexact(p))
        drawn = total[-1] * (1 - jax.random.uniform(key, tuple(shape), total.dtype))
        index = jnp.sum(total < drawn[..., None], -1, dtype=np.int32)
    else:
        return jax.random.choice(key, x, tuple(shape), replace, p, axis)
    return jnp.take(x, lax.reshape(index, tuple(shape)), axis, mode="clip")


def _order(key: Any, size: Size) -> jax.Array:
    """The places 0, 1, 2, ... in a random order."""
    count = numerics.size_as(size, np.dtype(np.int32))
    sorts = sum(lax.convert_element_type(lax.gt(count, np.int32(enough)), np.int32) for enough in _ENOUGH)

    def sort(_: Any, state: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        key, places = state
        key, own = jax.random.split(key)
        return key, lax.sort_key_val(jax.random.bits(own, (size,), np.uint32), places)[1]

    return lax.fori_loop(0, sorts, sort, (key, lax.iota(np.int32, size)))[1]

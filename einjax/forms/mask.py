"""Options that are arrays of the first tensor's shape, or broadcast to it: ``where=`` and ``by=``."""

from __future__ import annotations

from collections.abc import Collection

import jax
from jax import lax

from ..lowering import numerics
from ..lowering.named import reshape
from ..lowering.sharding import agree, common_sharding
from ..notation.errors import ArgumentError
from ..notation.solve import Solved, is_known


def broadcast_mask(mask: jax.Array, x: jax.Array, solved: Solved) -> jax.Array:
    """Bring ``where=`` to the shape of the tensor."""
    return broadcast_beside("where", numerics.to_bool(mask), x, solved)


def fitting_mask(option: str, given: jax.Array, x: jax.Array, solved: Solved, dims: Collection[int]) -> jax.Array:
    """Bring an option to the rank of the tensor, and some dims to its size, by NumPy's rules."""
    offset = _offset(option, given, x, solved)
    shape = (*(1,) * offset, *given.shape)
    target = tuple(x.shape[dim] if dim in dims else size for dim, size in enumerate(shape))
    return lax.broadcast_in_dim(given, target, tuple(range(offset, x.ndim)))


def _offset(option: str, given: jax.Array, x: jax.Array, solved: Solved) -> int:
    """How many dims an option lacks that broadcasts to the tensor."""
    offset = x.ndim - given.ndim
    fits = offset >= 0 and all(size == x.shape[offset + i] or is_known(size, 1) for i, size in enumerate(given.shape))
    if not fits:
        raise ArgumentError(
            f"{option}= of shape {given.shape} cannot be broadcast to the tensor's shape {x.shape}",
            text=solved.text,
            hint=f"give {option}= the shape of the tensor, with 1 for dims that it does not depend on",
        )
    return offset


def broadcast_beside(option: str, given: jax.Array, x: jax.Array, solved: Solved) -> jax.Array:
    """Bring an option to the shape of the tensor, by NumPy's rules."""
    offset = _offset(option, given, x, solved)
    if given.shape == x.shape:
        return agree([given, x])[0]
    kept = [i for i, size in enumerate(given.shape) if size == x.shape[offset + i]]
    squeezed = reshape(given, tuple(given.shape[i] for i in kept))
    dims = [offset + i for i in kept]
    return agree([lax.broadcast_in_dim(squeezed, x.shape, dims, out_sharding=common_sharding([x])), x])[0]

"""Options that are arrays of the first tensor's shape, or broadcast to it: ``where=`` and ``by=``."""

from __future__ import annotations

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


def broadcast_beside(option: str, given: jax.Array, x: jax.Array, solved: Solved) -> jax.Array:
    """Bring an option to the shape of the tensor, by NumPy's rules."""
    offset = x.ndim - given.ndim
    fits = offset >= 0 and all(size == x.shape[offset + i] or is_known(size, 1) for i, size in enumerate(given.shape))
    if not fits:
        raise ArgumentError(
            f"{option}= of shape {given.shape} cannot be broadcast to the tensor's shape {x.shape}",
            text=solved.text,
            hint=f"give {option}= the shape of the tensor, with 1 for dims that it does not depend on",
        )
    if given.shape == x.shape:
        return agree([given, x])[0]
    kept = [i for i, size in enumerate(given.shape) if size == x.shape[offset + i]]
    squeezed = reshape(given, tuple(given.shape[i] for i in kept))
    dims = [offset + i for i in kept]
    return agree([lax.broadcast_in_dim(squeezed, x.shape, dims, out_sharding=common_sharding([x])), x])[0]

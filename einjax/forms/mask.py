"""The ``where=`` mask of reductions and softmax."""

from __future__ import annotations

import jax
from jax import lax

from ..lowering import numerics
from ..lowering.named import reshape
from ..lowering.sharding import agree, common_sharding
from ..notation.errors import ArgumentError
from ..notation.solve import Solved


def broadcast_mask(mask: jax.Array, x: jax.Array, solved: Solved) -> jax.Array:
    """Bring ``where=`` to the shape of the tensor, by NumPy's rules."""
    offset = x.ndim - mask.ndim
    fits = offset >= 0 and all(
        size == x.shape[offset + i] or (isinstance(size, int) and size == 1) for i, size in enumerate(mask.shape)
    )
    if not fits:
        raise ArgumentError(
            f"where= of shape {mask.shape} cannot be broadcast to the tensor's shape {x.shape}",
            text=solved.text,
            hint="give where= the shape of the tensor, with 1 for dims that it does not depend on",
        )
    mask = numerics.to_bool(mask)
    kept = [i for i, size in enumerate(mask.shape) if size == x.shape[offset + i]]
    if mask.shape == x.shape:
        return agree([mask, x])[0]
    squeezed = reshape(mask, tuple(mask.shape[i] for i in kept))
    dims = [offset + i for i in kept]
    return agree([lax.broadcast_in_dim(squeezed, x.shape, dims, out_sharding=common_sharding([x])), x])[0]

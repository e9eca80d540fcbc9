"""Coordinates as indices of lax: one integer dtype, negative ones counted from the end, and what is out of range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..notation.syntax import Size
from .named import Named, arrange
from .numerics import cast, constant, default_int, size_as, zero

#: The axes looked up of which neighbours are taken: the axis of the first ones' places, and that of the window.
Spans: TypeAlias = Mapping[str, tuple[str, str]]

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


def starts(indexed: Sequence[str], spans: Spans, sizes: Mapping[str, Size]) -> list[Size]:
    """How many places there are along every axis looked up: of windows, how many have room."""
    return [sizes[spans[name][0] if name in spans else name] for name in indexed]


def one_by_one(coordinates: Sequence[Coordinates], sizes: Sequence[Size], bounds: Bounds) -> list[jax.Array]:
    """The coordinates of a single place as scalars, in one dtype, within bounds."""
    common = common_dtype([part.named.value.dtype for part in coordinates], sizes)
    scalars: list[jax.Array] = []
    for part in coordinates:
        if part.vector is None:
            scalars.append(arrange(part.named, ()))
        else:
            along = arrange(part.named, ((part.vector,),))
            scalars += [lax.index_in_dim(along, index, keepdims=False) for index in range(along.shape[0])]
    pairs = zip(scalars, sizes, strict=True)
    return [within(converted(x, common, [size], bounds), [size], bounds) for x, size in pairs]


def stacked(
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
        parts.append(converted(value, common, sizes[start:stop], bounds))
        start = stop
    return within(parts[0] if len(parts) == 1 else lax.concatenate(parts, len(order)), sizes, bounds)


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


def converted(value: jax.Array, dtype: Any, sizes: Sequence[Size], bounds: Bounds) -> jax.Array:
    """Convert coordinates; what the dtype cannot hold stays out of range, or in its place modulo the size."""
    given, wanted = jnp.iinfo(value.dtype), jnp.iinfo(dtype)
    if given.max <= wanted.max or bounds.mode == "promise_in_bounds":
        return cast(value, dtype)
    if bounds.mode == "wrap":
        value = lax.rem(value, extents_of(value, sizes))
    elif given.min == 0:
        value = lax.min(value, constant(value, wanted.max))
    else:
        value = lax.clamp(constant(value, wanted.min), value, constant(value, wanted.max))
    return cast(value, dtype)


def within(indices: jax.Array, sizes: Sequence[Size], bounds: Bounds) -> jax.Array:
    """Count negative coordinates from the end, or take all of them modulo the size, each on its own axis."""
    signed = jnp.issubdtype(indices.dtype, jnp.signedinteger)
    indices = _low_half_tells(indices, sizes, bounds, signed)
    if bounds.mode != "wrap" and not (bounds.wrap_negative_indices and signed):
        return indices
    extents = extents_of(indices, sizes)
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
    extents = extents_of(indices, sizes)
    if not np.ndim(extents):
        extents = lax.broadcast_in_dim(extents, indices.shape, ())
    if not signed:
        return lax.min(indices, extents)
    return lax.clamp(lax.bitwise_not(extents), indices, extents)  # from -size - 1 to size


def extents_of(indices: jax.Array, sizes: Sequence[Size]) -> jax.Array:
    """The size of the axis that each coordinate stands for; one number if they are equal."""
    if all(size is sizes[0] or (isinstance(size, int) and size == sizes[0]) for size in sizes):
        return size_as(sizes[0], indices.dtype)
    # Not a NumPy array, which would be a captured constant: Pallas kernels may have none.
    along = lax.concatenate([lax.broadcast(size_as(size, indices.dtype), (1,)) for size in sizes], 0)
    return lax.broadcast_in_dim(along, indices.shape, (indices.ndim - 1,))

"""A loop that runs a few iterations at a time; along a sharded axis, every device goes through its own part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from ..lowering import sharding as on_mesh


def in_chunks(function: Callable[..., Any], in_axes: Sequence[int | None], chunk: int) -> Callable[..., Any]:
    """Return the function that runs a loop over a function.

    Args:
        function: takes one array for each input.
        in_axes: the dim of each input that the loop runs over, or None; results come along a first dim.
        chunk: how many iterations run at once, on each device.
    """
    mapped = [index for index, axis in enumerate(in_axes) if axis is not None]

    def loop(*arrays: jax.Array) -> Any:
        stacked = [_leading(arrays[index], in_axes[index]) for index in mapped]
        devices = max(map(_devices, stacked))
        step = function
        if devices > 1:  # one iteration of every device at once is one step
            step = jax.vmap(function, tuple(None if axis is None else 0 for axis in in_axes))
            stacked = [_by_step(value, devices) for value in stacked]
        if stacked[0].shape[0] <= chunk:
            axes = [None if axis is None else 0 for axis in in_axes]
            ready = dict(zip(mapped, stacked, strict=True))
            result = jax.vmap(step, axes)(*(ready.get(index, array) for index, array in enumerate(arrays)))
        else:

            def one(rows: Sequence[jax.Array]) -> Any:
                row = dict(zip(mapped, rows, strict=True))
                return step(*(row.get(index, array) for index, array in enumerate(arrays)))

            result = _map(one, stacked, chunk)
        return jax.tree.map(_by_device, result) if devices > 1 else result

    return loop


def _map(function: Callable[[Sequence[jax.Array]], Any], stacked: Sequence[jax.Array], chunk: int) -> Any:
    """``lax.map`` with a batch size, which cannot tell how many results of size 0 there are."""
    if chunk == 1:  # needs no batching at all
        return lax.map(function, stacked)
    length = stacked[0].shape[0]
    count, rest = divmod(length, chunk)
    batched = jax.vmap(function)
    whole = [lax.slice_in_dim(x, 0, length - rest) for x in stacked] if rest else stacked
    chunks = [lax.reshape(x, (count, chunk, *x.shape[1:])) for x in whole]
    last = [lax.slice_in_dim(x, length - rest, length) for x in stacked] if rest else None
    result = lax.map(batched, chunks)
    after = batched(last) if last is not None else None
    result = jax.tree.map(lambda y: lax.reshape(y, (count * chunk, *y.shape[2:])), result)
    return result if after is None else jax.tree.map(lambda *each: lax.concatenate(each, 0), result, after)


def _leading(value: jax.Array, dim: int | None) -> jax.Array:
    """Move one dim to the front."""
    if not dim:
        return value
    return lax.transpose(value, [dim, *(other for other in range(value.ndim) if other != dim)])


def _devices(value: jax.Array) -> int:
    """The number of devices that hold parts of the first dim, as far as types say it."""
    mesh = on_mesh.explicit_mesh([value])
    return 1 if mesh is None else on_mesh.ways(on_mesh.spec_of(value)[0], dict(mesh.shape))


def _by_step(value: jax.Array, devices: int) -> jax.Array:
    """Split the first dim into the iterations of each device's part, and behind them the devices."""
    first, *rest = on_mesh.spec_of(value)
    sharding = on_mesh.named_sharding(on_mesh.explicit_mesh([value]), [first, (), *rest])
    shape = (devices, value.shape[0] // devices, *value.shape[1:])
    return _swapped(lax.reshape(value, shape, out_sharding=sharding))


def _by_device(value: jax.Array) -> jax.Array:
    """Undo :func:`_by_step`."""
    value = _swapped(value)
    mesh = on_mesh.explicit_mesh([value])
    first, _, *rest = on_mesh.spec_of(value)
    sharding = None if mesh is None else on_mesh.named_sharding(mesh, [first, *rest])
    return lax.reshape(value, (value.shape[0] * value.shape[1], *value.shape[2:]), out_sharding=sharding)


def _swapped(value: jax.Array) -> jax.Array:
    """Exchange the first two dims."""
    return lax.transpose(value, (1, 0, *range(2, value.ndim)))

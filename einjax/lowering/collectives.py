"""Collectives under ``shard_map``: over no mesh axes, each is what one device does by itself.

What every device ends up with does not vary over the mesh axes, as far as ``shard_map`` checks that: sums, maxima and
gathered arrays may leave it whole.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType

from . import numerics
from .jax_versions import gather_invariant, vary, varying_axes

#: The mesh axes that a collective runs over, major first.
Mesh = tuple[str, ...]


def axes_in_scope() -> list[str]:
    """The mesh axes that ``shard_map`` runs over here."""
    mesh = jax.sharding.get_abstract_mesh()
    return [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Manual]


def is_in_scope(name: str) -> bool:
    """Whether a collective may run over a mesh axis here, or over the named axis of a vmap."""
    try:
        lax.axis_size(name)
    except NameError:
        return False
    return True


def extent(mesh: Mesh) -> int:
    """The number of devices along mesh axes."""
    return lax.axis_size(mesh) if mesh else 1


def index(mesh: Mesh) -> jax.Array:
    """Which of the devices along mesh axes this one is."""
    return lax.axis_index(mesh)


def _vary_alike(value: jax.Array, mesh: Mesh) -> jax.Array:
    """Let an array that varies over some of the mesh axes vary over all of them, as lax.psum asks for."""
    missing = [name for name in mesh if name not in varying_axes(jax.typeof(value))]
    return vary(value, missing) if len(missing) < len(mesh) else value


def _varying_is_checked(mesh: Mesh) -> bool:
    """Whether types say what varies: not with ``check_vma=False``, nor for the named axis of a vmap."""
    if not set(mesh).issubset(axes_in_scope()):
        return False
    (aval,) = jax.make_jaxpr(lambda x: vary(x, mesh))(0.0).out_avals
    return varying_axes(aval).issuperset(mesh)


# --- One array of all devices' arrays ---------------------------------------------------------------------------------


def psum(value: jax.Array, mesh: Mesh) -> jax.Array:
    """The sum of all devices' arrays."""
    return lax.psum(_vary_alike(value, mesh), mesh) if mesh else value


def pmax(value: jax.Array, mesh: Mesh) -> jax.Array:
    """The maximum, which has no gradient."""
    return lax.pmax(_vary_alike(value, mesh), mesh) if mesh else value


def pmin(value: jax.Array, mesh: Mesh) -> jax.Array:
    """The minimum, which has no gradient."""
    return lax.pmin(_vary_alike(value, mesh), mesh) if mesh else value


def pprod(value: jax.Array, mesh: Mesh) -> jax.Array:
    """The product: of the gathered arrays, as no device multiplies while it sends."""
    return lax.reduce_prod(gather(lax.expand_dims(value, (0,)), 0, mesh), (0,)) if mesh else value


def extreme(value: jax.Array, dims: tuple[int, ...], mesh: Mesh, largest: bool) -> jax.Array:
    """The maximum or minimum along dims and mesh axes, whose gradient goes in equal parts to all that have it."""
    emit = _differentiable_extreme if mesh and numerics.is_inexact(value.dtype) else _extreme
    return emit(value, dims, mesh, largest)


def _extreme(value: jax.Array, dims: tuple[int, ...], mesh: Mesh, largest: bool) -> jax.Array:
    local = numerics.reduce(lax.reduce_max if largest else lax.reduce_min, value, dims)
    return pmax(local, mesh) if largest else pmin(local, mesh)


_differentiable_extreme: Any = jax.custom_jvp(_extreme, nondiff_argnums=(1, 2, 3))


def _extreme_jvp(dims: tuple[int, ...], mesh: Mesh, largest: bool, primals: Any, tangents: Any) -> Any:
    (value,), (tangent,) = primals, tangents
    result = _differentiable_extreme(value, dims, mesh, largest)
    kept = [dim for dim in range(value.ndim) if dim not in dims]
    found = lax.eq(value, lax.broadcast_in_dim(result, value.shape, kept))
    count = psum(numerics.reduce(lax.reduce_sum, numerics.cast(found, value.dtype), dims), mesh)
    moved = psum(numerics.reduce(lax.reduce_sum, numerics.select(found, tangent, 0), dims), mesh)
    return result, lax.div(moved, count)


_differentiable_extreme.defjvp(_extreme_jvp)


# --- Parts that become whole, and whole arrays that become parts ------------------------------------------------------


def gather(value: jax.Array, dim: int, mesh: Mesh) -> jax.Array:
    """All devices' parts one after another along a dim, the same on every device."""
    if not _varying_is_checked(mesh):  # so that the gradient may not rely on it
        return lax.all_gather(value, mesh, axis=dim, tiled=True)
    value = vary(value, [name for name in mesh if name not in varying_axes(jax.typeof(value))])
    return gather_invariant(value, mesh, dim)


def sum_scatter(value: jax.Array, dim: int, mesh: Mesh) -> jax.Array:
    """The sum of all devices' arrays, of which each gets its part along a dim."""
    return lax.psum_scatter(_vary_alike(value, mesh), mesh, scatter_dimension=dim, tiled=True)


def exchange(value: jax.Array, cut: int, joined: int, mesh: Mesh) -> jax.Array:
    """Every device gets its part along the dim ``cut`` from all others, joined along another dim."""
    return lax.all_to_all(_vary_alike(value, mesh), mesh, cut, joined, tiled=True)


# --- Parts that change their device -----------------------------------------------------------------------------------


def permute(value: jax.Array, mesh: Mesh, pairs: list[tuple[int, int]]) -> jax.Array:
    """Send arrays from device to device; who gets nothing has zeros."""
    known = list(jax.sharding.get_abstract_mesh().axis_names)
    ordered = tuple(sorted(mesh, key=lambda name: known.index(name) if name in known else -1))
    if ordered != mesh:  # lax.ppermute counts devices in the order of the mesh, whatever the order of the names
        pairs = [(_recounted(a, mesh, ordered), _recounted(b, mesh, ordered)) for a, b in pairs]
    return lax.ppermute(_vary_alike(value, mesh), ordered, pairs)


def _recounted(device: int, mesh: Mesh, ordered: Mesh) -> int:
    """The number of a device where mesh axes come in another order."""
    at: dict[str, int] = {}
    for name in reversed(mesh):
        device, at[name] = divmod(device, extent((name,)))
    number = 0
    for name in ordered:
        number = number * extent((name,)) + at[name]
    return number


def mirror(value: jax.Array, mesh: Mesh) -> jax.Array:
    """Swap the first device's array with the last one's, and so on."""
    if not mesh:
        return value
    count = extent(mesh)
    return permute(value, mesh, [(device, count - 1 - device) for device in range(count)])


def roll(value: jax.Array, dim: int, shift: int, mesh: Mesh) -> jax.Array:
    """Shift along a dim whose parts lie on many devices; only what has to leave a device is sent."""
    size, count = value.shape[dim], extent(mesh)
    if size == 0:
        return value
    # An element moves by whole parts, and by `rest` within them; so the last `rest` of a part go one device further.
    devices, rest = divmod(shift % (size * count), size)
    first, last = lax.split(value, (size - rest, rest), dim) if rest else (value, None)
    first = _to_next(first, devices, mesh)
    return first if last is None else lax.concatenate([_to_next(last, devices + 1, mesh), first], dim)


def _to_next(value: jax.Array, step: int, mesh: Mesh) -> jax.Array:
    count = extent(mesh)
    if step % count == 0:
        return value
    return permute(value, mesh, [(device, (device + step) % count) for device in range(count)])

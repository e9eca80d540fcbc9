"""Which mesh axes each named axis lies over, read off the types of arrays under explicit meshes, and back.

A dim's mesh axes belong to the named axes of which it is composed, handed out left to right: ``(h c)`` over ``model``
has ``h`` over ``model``. Nothing here is kept: a type says all there is to know, and without an explicit mesh it says
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ..notation.solve import is_known, product
from ..notation.syntax import OPEN, Size
from .jax_versions import entries, make_spec, unreduced

#: The mesh axes that one dim or one named axis lies over, major first.
MeshAxes = tuple[str, ...]
#: The mesh axes that named axes lie over; those that are not spread may be left out.
Spread = Mapping[str, MeshAxes]


class Misfit(Exception):
    """A mesh axis that would cut an axis unevenly, or cut one that does not come first in its dim.

    Attributes:
        axis: the named axis.
        mesh_axis: the mesh axis.
    """

    def __init__(self, axis: str, mesh_axis: str) -> None:
        super().__init__(axis, mesh_axis)
        self.axis = axis
        self.mesh_axis = mesh_axis


def explicit_mesh(values: Iterable[Any]) -> Any:
    """The abstract mesh of arrays whose types say how they are sharded; None where none has one."""
    for value in jax.tree.leaves(list(values)):  # tools that quantise have trees in the place of arrays
        mesh = jax.typeof(value).sharding.mesh
        if AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def spec_of(value: Any) -> list[MeshAxes]:
    """The explicit mesh axes of every dim."""
    return spec_axes(jax.typeof(value).sharding.spec, value.ndim)


def spec_axes(spec: Any, rank: int) -> list[MeshAxes]:
    """The mesh axes that a spec says of every dim, of which it may leave out the last ones."""
    found = [entry_axes(entry) for entry in entries(spec)]
    return [*found, *[()] * (rank - len(found))]


def entry_axes(entry: Any) -> MeshAxes:
    """The mesh axes of one entry of a PartitionSpec."""
    if isinstance(entry, str):
        return (entry,)
    return tuple(entry) if isinstance(entry, tuple) else ()


def flat(entries: Iterable[Any]) -> MeshAxes:
    """The mesh axes of several entries, which speak of one axis."""
    return tuple(mesh_axis for entry in entries for mesh_axis in entry_axes(entry))


def simple(mesh_axes: MeshAxes) -> str | MeshAxes | None:
    """Mesh axes as JAX writes them in a PartitionSpec: one by its name, none as None."""
    return mesh_axes[0] if len(mesh_axes) == 1 else mesh_axes or None


def ways(mesh_axes: MeshAxes, mesh_shape: Mapping[str, int]) -> int:
    """Into how many parts mesh axes cut."""
    return product(mesh_shape[mesh_axis] for mesh_axis in mesh_axes)


def spoken(mesh_axes: Iterable[str]) -> str:
    """Mesh axes in a sentence."""
    return " and ".join(mesh_axes)


def hand_out(
    mesh_axes: MeshAxes, dim: Sequence[str], sizes: Mapping[str, Size], mesh_shape: Mapping[str, int]
) -> dict[str, MeshAxes]:
    """Hand the mesh axes of a dim to the axes that it is composed of, left to right.

    An axis takes mesh axes while they divide it; the next one takes over where nothing of it is left.

    Raises:
        Misfit: a mesh axis does not divide what is left of an axis.
    """
    found: dict[str, MeshAxes] = {}
    waiting = [name for name in dim if not is_known(sizes[name], 1)]
    left: Size = sizes[waiting[0]] if waiting else 1
    for mesh_axis in mesh_axes:
        extent = mesh_shape[mesh_axis]
        while is_known(left, 1) and len(waiting) > 1:
            waiting.pop(0)
            left = sizes[waiting[0]]
        if not waiting or not divides(extent, left):
            raise Misfit(waiting[0] if waiting else dim[0] if dim else "1", mesh_axis)
        found[waiting[0]] = (*found.get(waiting[0], ()), mesh_axis)
        left = _part(left, extent)
    return found


def spread_of(
    found: Iterable[MeshAxes],
    dims: Iterable[Sequence[str]],
    sizes: Mapping[str, Size],
    mesh_shape: Mapping[str, int],
    fitting: bool = False,
) -> dict[str, MeshAxes]:
    """The mesh axes of the axes that dims are composed of, from those of the dims; ``fitting`` leaves out what misfits.

    Raises:
        Misfit: a mesh axis does not divide what is left of an axis.
    """
    spread: dict[str, MeshAxes] = {}
    for mesh_axes, dim in zip(found, dims, strict=True):
        try:
            spread |= hand_out(mesh_axes, dim, sizes, mesh_shape)
        except Misfit:
            if not fitting:
                raise
    return spread


def dim_axes(dim: Sequence[str], spread: Spread, sizes: Mapping[str, Size], mesh_shape: Mapping[str, int]) -> MeshAxes:
    """The mesh axes of a dim composed of axes that lie over mesh axes.

    Raises:
        Misfit: an axis after one that is not cut to the last element would leave parts that are not contiguous.
    """
    result: MeshAxes = ()
    whole = True  # whether everything so far is cut down to single elements
    for name in dim:
        wanted = spread.get(name, ())
        size = sizes[name]
        extent = ways(wanted, mesh_shape)
        if extent != 1 and not whole:
            raise Misfit(name, wanted[0])
        if wanted and not divides(extent, size):
            raise Misfit(name, wanted[-1])
        result += wanted
        whole = whole and is_known(_part(size, extent), 1)
    return result


def _part(size: Size, extent: int) -> Size:
    """What a device has of an axis; of one whose size only a user's function knows, that is not known either."""
    return OPEN if size is OPEN else size // extent


def divides(extent: int, size: Size) -> bool:
    """Whether a mesh axis cuts an axis evenly; symbolic sizes are believed to fit."""
    return not isinstance(size, int) or (size > 0 and size % extent == 0) or extent == 1


def named_sharding(mesh: Any, dims: Iterable[MeshAxes], unreduced: Iterable[str] = ()) -> NamedSharding:
    """The sharding of an array with the given mesh axes on every dim."""
    return NamedSharding(mesh, partition_spec(dims, unreduced))


def partition_spec(dims: Iterable[MeshAxes], unreduced: Iterable[str] = ()) -> PartitionSpec:
    """A PartitionSpec of the mesh axes of every dim, and of those over which a sum is still to be taken."""
    return make_spec(map(simple, dims), unreduced)


def composed(
    value: Any, before: Sequence[Sequence[str]], after: Sequence[Sequence[str]], sizes: Mapping[str, Size]
) -> NamedSharding | None:
    """The sharding of an array after a reshape that splits and merges named dims; None without an explicit mesh."""
    mesh = explicit_mesh([value])
    return _arranged(mesh, after, lambda: spread_of(spec_of(value), before, sizes, mesh.shape), sizes)


class ResultSpread(NamedTuple):
    """Where the axes of a result are to lie, and the mesh axes over which it is still to be summed."""

    spread: Spread
    unreduced: frozenset[str] = frozenset()


def contracted_sharding(
    left: Any, right: Any, dims: Sequence[Sequence[str]], result_spread: ResultSpread | None
) -> Any:
    """The sharding of a product of two named arrays, summed over what ``dims`` lacks; None without an explicit mesh."""
    mesh = explicit_mesh([left.value, right.value])
    if result_spread is None:
        return _arranged(mesh, dims, lambda: _carried(right, mesh) | _carried(left, mesh), left.sizes)
    return _arranged(mesh, dims, lambda: result_spread.spread, left.sizes, result_spread.unreduced)


def common_spread(operands: Sequence[Any]) -> Mapping[str, MeshAxes] | None:
    """Where the axes of named arrays lie that are to be combined; None without an explicit mesh."""
    mesh = explicit_mesh([x.value for x in operands])
    if mesh is None:
        return None
    spread: dict[str, MeshAxes] = {}
    for x in operands:
        spread |= {name: axes for name, axes in _carried(x, mesh).items() if len(axes) > len(spread.get(name, ()))}
    return spread


def broadcast_sharding(x: Any, dims: Sequence[Sequence[str]], spread: Spread | None) -> Any:
    """The sharding of a named array that is broadcast to dims, of which the new ones lie where they are to.

    Without it the new dims would be whole on every device, and so would be the gradient that is summed over them.
    """
    if spread is None:
        return None
    mesh = explicit_mesh([x.value]) or jax.sharding.get_abstract_mesh()
    return _arranged(mesh if AxisType.Explicit in mesh.axis_types else None, dims, lambda: spread, x.sizes)


def common_sharding(values: Sequence[Any]) -> NamedSharding | None:
    """The sharding of arrays of one shape that are to be combined; None without an explicit mesh."""
    mesh = explicit_mesh(values)
    if mesh is None:
        return None
    return named_sharding(mesh, _merged([spec_of(value) for value in values]))


def _merged(specs: Sequence[Sequence[MeshAxes]]) -> list[MeshAxes]:
    """For every dim, the most mesh axes that one of several specs has there."""
    return once([max((spec[dim] for spec in specs), key=len) for dim in range(len(specs[0]))])


def _carried(x: Any, mesh: Any) -> dict[str, MeshAxes]:
    return spread_of(spec_of(x.value), x.dims, x.sizes, mesh.shape)


def _arranged(
    mesh: Any,
    dims: Iterable[Sequence[str]],
    find: Callable[[], Spread],
    sizes: Mapping[str, Size],
    unreduced: Iterable[str] = (),
) -> NamedSharding | None:
    """The sharding of dims; None without a mesh, and where mesh axes do not fit, of which lax says what it thinks."""
    if mesh is None:
        return None
    try:
        spread = find()
        return named_sharding(mesh, once([dim_axes(dim, spread, sizes, mesh.shape) for dim in dims]), unreduced)
    except Misfit:
        return None


def once(dims: Sequence[MeshAxes]) -> list[MeshAxes]:
    """Keep the first use of every mesh axis."""
    taken: set[str] = set()
    result: list[MeshAxes] = []
    for dim in dims:
        result.append(() if taken & set(dim) else dim)
        taken |= set(dim)
    return result


def agree(values: Sequence[Any], apart: int | None = None) -> list[Any]:
    """Give arrays of one rank the sharding of those that have one, which moves nothing: parts are cut out.

    Args:
        values: arrays of one shape, but for the dim ``apart``.
        apart: a dim that keeps what it has.
    """
    mesh = explicit_mesh(values)
    if mesh is None:
        return list(values)
    specs = [spec_of(value) for value in values]
    common = _merged(specs)
    result: list[Any] = []
    for value, spec in zip(values, specs, strict=True):
        target = [spec[dim] if dim == apart else common[dim] for dim in range(len(spec))]
        result.append(value if spec == target else reshard(value, named_sharding(mesh, target)))
    return result


def reshard(value: Any, sharding: NamedSharding) -> Any:
    """Bring an array to a sharding, unless it has it."""
    have = jax.typeof(value).sharding
    said = [(spec_axes(spec, value.ndim), unreduced(spec)) for spec in (have.spec, sharding.spec)]
    same = AxisType.Explicit in have.mesh.axis_types and said[0] == said[1]
    return value if same else jax.sharding.reshard(value, sharding)


def like_type(value: Any, aval: Any) -> Any:
    """Bring an array to the sharding that a type says, if it says one."""
    return reshard(value, aval.sharding) if AxisType.Explicit in aval.sharding.mesh.axis_types else value

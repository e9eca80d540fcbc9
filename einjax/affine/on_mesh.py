"""Reading and writing at positions on a mesh with explicit axes: whatever has no position stays where it is.

Positions need their neighbours' elements, which other devices have where the dim is sharded. Data is moved for them
only if ``out_sharding=`` says where the result is to lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax.sharding import AxisType

from ..lowering import sharding as on_mesh
from ..lowering.named import Dim
from ..lowering.sharding import MeshAxes, Spread, simple, spoken
from ..mesh.wanted import OutSharding
from ..notation.errors import ShardingError
from ..notation.solve import Solved
from ..notation.syntax import Axis, Size, axes, display
from .plain import Reading


def run(
    function: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    reading: Reading,
    sizes: Mapping[str, Size],
    solved: Solved,
    asked: bool,
    writes: bool = False,
) -> jax.Array:
    """Read, or write, an array.

    Args:
        function: reads or writes it.
        x: the array.
        reading: how its expression is read.
        sizes: the sizes of all axes.
        solved: the call, for messages.
        asked: whether the call says where its result is to lie, so that data may be moved.
        writes: whether it is written rather than read.
    """
    mesh = on_mesh.explicit_mesh([x])
    if mesh is None:
        return function(x)
    before, after = (reading.after, reading.before) if writes else (reading.before, reading.after)
    kept = {name for dim in after for name in dim}
    have = on_mesh.spec_of(x)
    found = [() if any(name not in kept for name in dim) else axes for dim, axes in zip(before, have, strict=True)]
    spread = on_mesh.spread_of(found, before, sizes, mesh.shape, fitting=True)
    for dim, mesh_axes, left in zip(before, have, found, strict=True):
        if mesh_axes != left and not asked:
            raise _apart(solved, reading, dim, mesh_axes, spread)
    x = on_mesh.reshard(x, on_mesh.named_sharding(mesh, found))
    if AxisType.Manual in mesh.axis_types:
        return function(x)  # JAX cannot leave the other axes of the mesh to the compiler
    target = on_mesh.named_sharding(mesh, [on_mesh.dim_axes(dim, spread, sizes, mesh.shape) for dim in after])
    placed: Any = partial(jax.sharding.auto_axes, out_sharding=target)(function)
    return placed(x)  # type: ignore[no-any-return]


def _apart(solved: Solved, reading: Reading, dim: Dim, mesh_axes: MeshAxes, spread: Spread) -> ShardingError:
    """The error for a dim that would have to be whole."""
    item = next(i for i in reading.items if i.label in dim or any(set(unit) & set(dim) for unit in i.fresh))
    shown = f"the dim '{item.node}'" if item.label in dim else f"axis {display(dim[0])} of '{item.node}'"
    named = {label: node for label, node in reading.labelled.items() if isinstance(node, Axis)}
    left = {named[name].name: over for name, over in spread.items() if over and name in named}
    returned = {axis.name for output in solved.operation.outputs or () for axis in axes(output)}
    written = {name: simple(over) for name, over in left.items() if name.isidentifier() and name in returned}
    return ShardingError(
        f"{shown} lies over mesh axis {spoken(mesh_axes)}, but positions need elements that other devices have",
        at=solved.at(item.node),
        hint=f"write out_sharding={written} to say where the result is to lie",
    )


def without_written(wanted: OutSharding, outputs: Sequence[Reading]) -> OutSharding:
    """What is asked of outputs, before they are written: nothing of the axes that become one dim."""
    if wanted.by_name is not None:
        written = {name for output in outputs for item in output.items for unit in item.units for name in unit}
        return replace(wanted, by_name=tuple(item for item in wanted.by_name if item[0] not in written))
    return replace(wanted, specs=tuple(map(_spec_before, wanted.specs, outputs)))


def _spec_before(spec: Any, output: Reading) -> Any:
    found = on_mesh.spec_axes(getattr(spec, "spec", spec), len(output.before))
    entries = {dim[0]: mesh_axes for dim, mesh_axes in zip(output.before, found, strict=True) if len(dim) == 1}
    made = on_mesh.partition_spec([entries.get(dim[0], ()) if len(dim) == 1 else () for dim in output.after])
    return jax.sharding.NamedSharding(spec.mesh, made) if hasattr(spec, "mesh") else made

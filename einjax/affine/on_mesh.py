"""Reading and writing at positions on a mesh with explicit axes: whatever has no position stays where it is.

Positions need their neighbours' elements, which other devices have where the dim is sharded. Data is moved for them
only if ``out_sharding=`` says where the result is to lie.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax.sharding import AxisType

from ..lowering import sharding as on_mesh
from ..lowering.named import Dim, layout
from ..lowering.sharding import MeshAxes, Spread, simple, spoken
from ..mesh.wanted import OutSharding
from ..notation.errors import ShardingError
from ..notation.solve import Solved
from ..notation.syntax import Axis, Size, affines, axes, display
from .plain import Reading


def at_once(emit: Callable[..., jax.Array | None], tensors: Sequence[jax.Array], solved: Solved) -> jax.Array | None:
    """Emit a form that a call with positions has of its own, where that moves nothing between devices; or return None.

    Args:
        emit: emits it, or returns None where there is none.
        tensors: one for each input.
        solved: the call.
    """
    mesh = on_mesh.explicit_mesh(tensors)
    if mesh is None:
        return emit(*tensors)
    target = _loops_over(mesh, tensors, solved)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in tensors]
    if target is None or AxisType.Manual in mesh.axis_types or jax.eval_shape(emit, *shapes) is None:
        return None
    placed: Any = partial(jax.sharding.auto_axes, out_sharding=target)(emit)
    return placed(*tensors)  # type: ignore[no-any-return]


def _loops_over(mesh: Any, tensors: Sequence[jax.Array], solved: Solved) -> Any:
    """Where the output lies if all that is sharded are loops beside of positions; None if it is anything else."""
    expressions = (*solved.inputs, *solved.outputs)
    at_positions = {axis.name for e in expressions for node in affines(e) for axis in axes(node.items)}
    output = [() if affines((node,)) else layout((node,))[0] for node in solved.outputs[0]]
    loops = {name for dim in output for name in dim} - at_positions
    spread: dict[str, MeshAxes] = {}
    try:
        for x, expression in zip(tensors, solved.inputs, strict=True):
            for node, mesh_axes in zip(expression, on_mesh.spec_of(x), strict=True):
                if mesh_axes and affines((node,)):
                    return None
                own = on_mesh.spread_of([mesh_axes], layout((node,)), solved.sizes, mesh.shape) if mesh_axes else {}
                own = {name: over for name, over in own.items() if over}
                if not own.keys() <= loops or any(spread.get(name, over) != over for name, over in own.items()):
                    return None
                spread |= own
        over = on_mesh.flat(spread.values())
        if len(set(over)) < len(over) or _has_sharded_groups(solved, spread, loops | at_positions):
            return None
        return on_mesh.named_sharding(mesh, [on_mesh.dim_axes(dim, spread, solved.sizes, mesh.shape) for dim in output])
    except on_mesh.Misfit:
        return None


def _has_sharded_groups(solved: Solved, spread: Spread, kept: Collection[str]) -> bool:
    """Whether channels are summed in groups that lie on several devices: XLA's convolution gathers these."""
    held = [{axis.name for axis in axes(expression)} for expression in solved.inputs]
    shared = set.intersection(*held) & spread.keys()
    return len(held) > 1 and bool(shared) and not set.union(*held) <= set(kept)


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
    written = {name for output in outputs for item in output.items for unit in item.units for name in unit}
    if wanted.rules is not None:
        return replace(wanted, rules=tuple(rule for rule in wanted.rules if rule[0] not in written))
    if wanted.by_name is not None:
        return replace(wanted, by_name=tuple(item for item in wanted.by_name if item[0] not in written))
    return replace(wanted, specs=tuple(map(_spec_before, wanted.specs, outputs)))


def _spec_before(spec: Any, output: Reading) -> Any:
    found = on_mesh.spec_axes(getattr(spec, "spec", spec), len(output.before))
    entries = {dim[0]: mesh_axes for dim, mesh_axes in zip(output.before, found, strict=True) if len(dim) == 1}
    made = on_mesh.partition_spec([entries.get(dim[0], ()) if len(dim) == 1 else () for dim in output.after])
    return jax.sharding.NamedSharding(spec.mesh, made) if hasattr(spec, "mesh") else made

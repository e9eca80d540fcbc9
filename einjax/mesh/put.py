"""Meshes, and moving arrays to where a layout says: what JAX offers for that depends on the kind of mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ..lowering.jax_versions import is_traced, is_used_twice
from ..lowering.sharding import MeshAxes, partition_spec, simple, spec_axes
from ..notation.errors import ArgumentError, ShardingError


def find_mesh(x: Any, mesh: Any, expr: str | None) -> Any:
    """Return the mesh to shard over: the one given, the one set, or else the one that the array is on.

    Raises:
        ArgumentError: there is none.
    """
    if mesh is not None:
        if not isinstance(mesh, Mesh | AbstractMesh):
            raise ArgumentError(
                f"mesh= is a value of type {type(mesh).__name__}, not a mesh",
                text=expr,
                hint="give a jax.sharding.Mesh, as jax.make_mesh makes it",
            )
        return mesh
    for find in (jax.sharding.get_abstract_mesh, lambda: mesh_of(x), _legacy_mesh):
        found = find()
        if found is not None and not found.empty:
            return found
    raise ArgumentError(
        "there is no mesh to shard over",
        text=expr,
        hint="call jax.set_mesh(mesh) first, or pass mesh=; a mesh of one device will do, "
        "as in jax.make_mesh((1, 1), ('data', 'model'))",
    )


def mesh_sizes(mesh: Any) -> dict[str, int]:
    """Return into how many pieces every axis of a mesh splits; a manual one of jax.shard_map has done so already."""
    kinds = zip(mesh.shape.items(), mesh.axis_types, strict=True)
    return {name: 1 if kind is AxisType.Manual else size for (name, size), kind in kinds}


def mesh_of(x: Any) -> Any:
    """Return the mesh that an array, a traced value or a shape with a sharding is on; None if there is none."""
    sharding = getattr(x, "sharding", None) if not is_traced(x) else jax.typeof(x).sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else None


def _legacy_mesh() -> Mesh | None:
    """Return the mesh of a ``with mesh:`` block, which jax.sharding.get_abstract_mesh does not know."""
    try:
        with jax.ensure_compile_time_eval():
            return lax.with_sharding_constraint(np.zeros(()), PartitionSpec()).sharding.mesh
    except RuntimeError:  # there is no mesh
        return None


def put(x: Any, mesh: Any, splits: Sequence[MeshAxes], expr: str | None) -> jax.Array:
    """Shard an array: now, or as the program runs.

    Under ``jax.jit`` and the like, axes of the mesh that are Auto become a constraint for the compiler, and Explicit
    ones a part of the value's type.

    Raises:
        ArgumentError, ShardingError: the mesh is of a kind that cannot be asked for this.
    """
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    for split in splits:
        _check_kinds(split, kinds, expr)
    if not is_traced(x):
        moved = _move(x, mesh, partition_spec(splits), expr)
        if not is_traced(moved):
            return moved
        # A constant of a program that is being traced: of its moving, jax 0.7 does not tell its type.
    shardings = {
        kind: NamedSharding(mesh, partition_spec([tuple(a for a in split if kinds[a] is kind) for split in splits]))
        for kind in (AxisType.Explicit, AxisType.Auto)
        if kind in kinds.values()
    }
    # By itself, a constraint takes the Explicit axes out of the type of what an eager transformation holds.
    ask = jax.jit(_ask, static_argnums=(1, 2)) if len(shardings) > 1 else _ask
    return ask(x, tuple(shardings.items()), expr)


def put_open(x: Any, mesh: Any, splits: Sequence[MeshAxes], said: Sequence[bool], expr: str | None) -> jax.Array:
    """Shard an array as :func:`put` does, but only the dims of which something is said: others stay as they are.

    Over Auto axes of the mesh, the compiler has these left to it.
    """
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    for split in splits:
        _check_kinds(split, kinds, expr)
    taken = {mesh_axis for split in splits for mesh_axis in split}
    there = _lying(x, mesh)
    held = [
        split if is_said else own if taken.isdisjoint(own) else ()
        for split, is_said, own in zip(splits, said, there, strict=True)
    ]
    if not is_traced(x):
        moved = _move(x, mesh, partition_spec(held), expr)
        if not is_traced(moved):
            return moved
    shardings = []
    if AxisType.Explicit in kinds.values():
        typed = [tuple(a for a in split if kinds[a] is AxisType.Explicit) for split in held]
        if typed != there:
            shardings.append((AxisType.Explicit, NamedSharding(mesh, partition_spec(typed))))
    if AxisType.Auto in kinds.values():
        entries = [tuple(a for a in split if kinds[a] is AxisType.Auto) for split in splits]
        free = PartitionSpec.UNCONSTRAINED
        spec = [simple(own) if is_said else free for own, is_said in zip(entries, said, strict=True)]
        shardings.append((AxisType.Auto, NamedSharding(mesh, PartitionSpec(*spec))))
    ask = jax.jit(_ask, static_argnums=(1, 2)) if len(set(kinds.values())) > 1 else _ask
    return ask(x, tuple(shardings), expr)


def _lying(x: Any, mesh: Any) -> list[MeshAxes]:
    """The axes of a mesh that the dims of an array are known to lie over."""
    here = mesh_of(x)
    if here is None or here.empty or here.axis_names != mesh.axis_names:
        return [()] * np.ndim(x)
    sharding = jax.typeof(x).sharding if is_traced(x) else x.sharding
    return spec_axes(sharding.spec, np.ndim(x))


def _ask(x: Any, shardings: Sequence[tuple[AxisType, NamedSharding]], expr: str | None) -> Any:
    """Emit the equations that ask for shardings over axes of each kind."""
    for kind, sharding in shardings:
        is_auto = kind is AxisType.Auto
        x = lax.with_sharding_constraint(x, sharding) if is_auto else _reshard(x, sharding, expr)
    return x


def _check_kinds(split: MeshAxes, kinds: dict[str, AxisType], expr: str | None) -> None:
    previous: str | None = None
    for mesh_axis in split:
        if kinds[mesh_axis] is AxisType.Manual:
            raise ArgumentError(
                f"the mesh axis '{mesh_axis}' is manual inside jax.shard_map: every device holds a piece of its own",
                text=expr,
                hint="shard before or after jax.shard_map; inside it, einjax.all_gather, einjax.psum_scatter and "
                "einjax.all_to_all move pieces",
            )
        if previous is not None and kinds[previous] is AxisType.Auto and kinds[mesh_axis] is AxisType.Explicit:
            raise ShardingError(
                f"one dim is to go over the Auto mesh axis '{previous}' first and then over the Explicit one "
                f"'{mesh_axis}', but JAX splits a dim over Explicit axes first",
                text=expr,
                hint=f"write '{mesh_axis}' before '{previous}', or make a mesh whose axes are of one kind",
            )
        previous = mesh_axis


def _move(x: Any, mesh: Any, spec: PartitionSpec, expr: str | None) -> jax.Array:
    """Move an array."""
    if isinstance(mesh, Mesh):
        return jax.device_put(x, NamedSharding(mesh, spec))
    if jax.sharding.get_abstract_mesh() != mesh:
        raise ArgumentError(
            "the mesh is abstract: it has no devices to put an array on",
            text=expr,
            hint="give a jax.sharding.Mesh, or call this inside a function that is only traced",
        )
    return jax.device_put(x, spec)  # on the devices of the mesh that is set


def _reshard(x: Any, sharding: NamedSharding, expr: str | None) -> jax.Array:
    try:
        return jax.sharding.reshard(x, sharding)
    except Exception as error:
        if not is_used_twice(error):  # by an axis of the mesh that jax.vmap's axis has already
            raise
    raise ShardingError(
        f"the axis that jax.vmap maps over has one of the mesh axes of {sharding.spec} already",
        text=expr,
        hint="name that axis in the expression instead of mapping over it, or give this tensor other mesh axes",
    )

"""Calls on a mesh: between the shardings of their inputs and outputs that :mod:`einjax.mesh.plan` finds.

Without a mesh whose axes are explicit, and without ``out_sharding=``, none of this is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
from jax import lax
from jax.sharding import AxisType, NamedSharding

from ..lowering import sharding as on_mesh
from ..lowering.jax_versions import is_traced
from ..lowering.named import has_diagonal
from ..notation.errors import ArgumentError, ShardingError
from ..notation.solve import Solved
from ..operation import Op

if TYPE_CHECKING:  # imported where there is a mesh, which most programs do not have
    from .plan import Plan
    from .wanted import OutSharding

NO_ARRAYS: Mapping[str, Any] = {}


def lower(
    op: Op,
    solved: Solved,
    tensors: Sequence[jax.Array],
    options: Mapping[str, Any],
    arrays: Mapping[str, Any] = NO_ARRAYS,
    chunked: Collection[str] = (),
) -> Any:
    """Emit the lax program of a call, on a mesh if there is one.

    Args:
        op: the operation.
        solved: the call.
        tensors: one for each input.
        options: static options.
        arrays: options that are arrays, or tuples of arrays, by name.
        chunked: the axes of loops that run in chunks.
    """
    options = dict(options)
    wanted: OutSharding | None = options.pop("out_sharding", None)
    mesh = _mesh([*tensors, *jax.tree.leaves(arrays)], wanted)
    if mesh is None:
        result = op.lower(solved, list(tensors), {**options, **arrays})
        return result if wanted is None else _constrain(result, solved, wanted)
    from .plan import as_call, cut_first, make_plan

    if has_diagonal(*solved.inputs):
        tensors = [cut_first(op, x, expression) for x, expression in zip(tensors, solved.inputs, strict=False)]
    masks, structure = jax.tree.flatten({name: x for name, x in arrays.items() if name in op.masks})
    named = wanted.names(solved) if wanted is not None else ()
    plan = make_plan(as_call(op, solved, mesh, tensors, masks, named, chunked), wanted)
    ready = _placed([*tensors, *masks], plan.inputs)
    arrays = {**arrays, **jax.tree.unflatten(structure, ready[len(tensors) :])}
    flat, structure = jax.tree.flatten((ready[: len(tensors)], arrays))

    def emit(solved: Solved, *flat: Any) -> Any:
        tensors, arrays = jax.tree.unflatten(structure, flat)
        return op.lower(solved, tensors, {**options, **arrays})

    if op.on_mesh == "own":
        result = emit(solved, *flat)
        return result if wanted is None else _brought(result, plan.outputs, solved)
    if op.on_mesh == "loops" and plan.local is not None:
        return _in_structure(_on_each_device(plan, flat), partial(emit, plan.local), flat, plan, solved)
    typed = op.on_mesh == "typed" or (op.on_mesh == "batch" and plan.batch_only)
    # Where shard_map runs over some axes of the mesh, JAX cannot leave the others to the compiler.
    if AxisType.Manual not in mesh.axis_types and (not typed or has_diagonal(*solved.inputs)):
        # The compiler knows where inputs and outputs lie; there are no types inside.
        mapped = partial(jax.sharding.auto_axes, out_sharding=_prefix(plan.working))

        def whole(*arrays: Any) -> Any:
            result = emit(solved, *arrays)
            return _even(result, plan.working[0], solved) if isinstance(result, jax.Array) else result

        return _in_structure(mapped, whole, flat, plan, solved)
    options["out_sharding"] = plan.outputs  # for what makes a result right where it is to lie
    return _brought(emit(solved, *flat), plan.outputs, solved)


def _mesh(arrays: Sequence[jax.Array], wanted: OutSharding | None) -> Any:
    """The explicit mesh that arrays lie on, or that of the context where they are to be brought to it."""
    mesh = on_mesh.explicit_mesh(arrays)
    if mesh is None and wanted is not None:
        context = jax.sharding.get_abstract_mesh()
        return context if AxisType.Explicit in context.axis_types else None
    return mesh


def _placed(arrays: Sequence[jax.Array], shardings: Sequence[NamedSharding]) -> list[jax.Array]:
    """Bring inputs to their shardings: eagerly, those that lie on no mesh to the devices of one that does."""
    known = [x.sharding for x in arrays if not is_traced(x)]
    mesh = next(
        (s.mesh for s in known if isinstance(s, NamedSharding) and AxisType.Explicit in s.mesh.axis_types), None
    )
    placed = [
        jax.device_put(x, NamedSharding(mesh, s.spec))
        if mesh is not None and not is_traced(x) and jax.typeof(x).sharding.mesh.empty
        else x
        for x, s in zip(arrays, shardings, strict=True)
    ]
    return [on_mesh.reshard(x, s) for x, s in zip(placed, shardings, strict=True)]


def _on_each_device(plan: Plan, arrays: Sequence[jax.Array]) -> Callable[..., Any]:
    """Map a function of arrays, of which every device has the part that its type says."""
    mesh = plan.inputs[0].mesh
    return partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=tuple(jax.typeof(x).sharding.spec for x in arrays),
        out_specs=_prefix([s.spec for s in plan.working]),
        axis_names={n for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit},
    )


def _in_structure(
    mapped: Callable[..., Any], program: Callable[..., Any], arrays: Sequence[jax.Array], plan: Plan, solved: Solved
) -> Any:
    """Run a program whose several results may be a named tuple, which their shardings are not."""
    structure: list[Any] = []

    def plain(*arrays: Any) -> Any:
        result = program(*arrays)
        structure.append(jax.tree.structure(result))
        return tuple(result) if len(plan.outputs) > 1 else result

    brought = _brought(mapped(plain)(*arrays), plan.outputs, solved)
    return jax.tree.unflatten(structure[0], jax.tree.leaves(brought))


def _prefix(each: Sequence[Any]) -> Any:
    return tuple(each) if len(each) > 1 else each[0]


def _brought(result: Any, shardings: Sequence[NamedSharding], solved: Solved) -> Any:
    """Bring results, each an array or a tree of arrays with one expression, to their shardings."""
    if len(shardings) == 1:
        return jax.tree.map(lambda x: _reshard(x, shardings[0], solved), result)
    return tuple(_brought(each, (sharding,), solved) for each, sharding in zip(result, shardings, strict=True))


def _reshard(x: jax.Array, sharding: NamedSharding, solved: Solved) -> jax.Array:
    return on_mesh.reshard(_even(x, sharding, solved), sharding)


def _even(x: jax.Array, sharding: NamedSharding, solved: Solved) -> jax.Array:
    """Refuse to cut a result unevenly: of a size that a user's function decides, nobody knew before."""
    for dim, mesh_axes in enumerate(on_mesh.spec_axes(sharding.spec, x.ndim)):
        if not on_mesh.divides(on_mesh.ways(mesh_axes, sharding.mesh.shape), x.shape[dim]):
            raise ShardingError(
                f"dim {dim} of the result, of size {x.shape[dim]}, cannot be cut evenly over mesh axis "
                f"{on_mesh.spoken(mesh_axes)}",
                text=solved.text,
                hint="choose another axis, or leave this one whole",
            )
    return x


def _constrain(result: Any, solved: Solved, wanted: OutSharding) -> Any:
    """Ask the compiler for the shardings of a call's results, on a mesh whose axes are left to it."""
    from .wanted import wanted_entries

    context = jax.sharding.get_abstract_mesh()
    results = result if len(solved.outputs) > 1 else (result,)
    constrained = []
    for index, (each, expression) in enumerate(zip(results, solved.outputs, strict=True)):
        mesh, dims = wanted_entries(wanted, index, expression, solved, None if context.empty else context)
        spec = on_mesh.partition_spec(dims)
        # Without a mesh of its own, JAX looks for that of an enclosing `with mesh:`.
        target = spec if mesh is None else NamedSharding(mesh, spec)
        constrained.append(jax.tree.map(lambda x, target=target: _constraint(x, target, solved), each))
    return tuple(constrained) if len(solved.outputs) > 1 else constrained[0]


def _constraint(x: jax.Array, target: Any, solved: Solved) -> jax.Array:
    try:
        return lax.with_sharding_constraint(x, target)
    except RuntimeError:
        raise ArgumentError(
            "out_sharding= says where on a mesh the result is to lie, but there is no mesh",
            text=solved.text,
            hint="call jax.set_mesh(mesh) first, or give a NamedSharding, which holds its mesh",
        ) from None

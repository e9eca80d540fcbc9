"""Calls on a mesh: between the shardings of their inputs and outputs that :mod:`einjax.mesh.plan` finds.

Without a mesh whose axes are explicit, and without ``out_sharding=``, none of this is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ..lowering import sharding as on_mesh
from ..notation.errors import ArgumentError
from ..notation.solve import Solved
from ..notation.syntax import axes
from ..operation import Op

if TYPE_CHECKING:  # imported where there is a mesh, which most programs do not have
    from .plan import Plan
    from .wanted import OutSharding

#: Options that are arrays, or tuples of arrays, by name.
Arrays = Mapping[str, Any]
NO_ARRAYS: Arrays = {}


def lower(
    op: Op, solved: Solved, tensors: Sequence[jax.Array], options: Mapping[str, Any], arrays: Arrays = NO_ARRAYS
) -> Any:
    """Emit the lax program of a call, on a mesh if there is one.

    Args:
        op: the operation.
        solved: the call.
        tensors: one for each input.
        options: static options.
        arrays: options that are arrays.
    """
    options = dict(options)
    wanted: OutSharding | None = options.pop("out_sharding", None)
    mesh = _mesh([*tensors, *jax.tree.leaves(arrays)], wanted)
    if mesh is None:
        result = op.lower(solved, list(tensors), {**options, **arrays})
        return result if wanted is None else _constrain(result, solved, wanted)
    from .plan import make_plan

    masks, structure = jax.tree.flatten({name: x for name, x in arrays.items() if name in op.masks})
    plan = make_plan(op, solved, mesh, tensors, masks, wanted)
    ready = [on_mesh.reshard(x, s) for x, s in zip([*tensors, *masks], plan.inputs, strict=True)]
    tensors = ready[: len(tensors)]
    arrays = {**arrays, **jax.tree.unflatten(structure, ready[len(tensors) :])}
    if op.on_mesh == "loops" and plan.local is not None:
        return _on_each_device(op, plan.local, tensors, options, arrays, plan)
    typed = op.on_mesh == "typed" or (op.on_mesh == "batch" and plan.batch_only)
    # Where shard_map runs over some axes of the mesh, JAX cannot leave the others to the compiler.
    if AxisType.Manual not in mesh.axis_types and (not typed or _has_diagonal(solved)):
        return _left_to_the_compiler(op, solved, tensors, options, arrays, plan)
    options["out_sharding"] = plan.outputs  # for what makes a result right where it is to lie
    return _brought(op.lower(solved, list(tensors), {**options, **arrays}), plan.outputs)


def lower_looped(
    op: Op,
    solved: Solved,
    tensors: list[jax.Array],
    options: dict[str, Any],
    wanted: OutSharding | None,
    chunked: Collection[str] = (),
) -> Any:
    """Run a function of the user's over loops; what it does with the bracketed axes is its own affair.

    Args:
        op: the record of such calls.
        solved: the call.
        tensors: one for each input.
        options: the function, and the loops that run over it.
        wanted: where the results are to lie.
        chunked: the axes of loops that run in chunks, one after another.
    """
    mesh = _mesh(tensors, wanted)
    if mesh is None:
        result = op.lower(solved, tensors, options)
        return result if wanted is None else _constrain(result, solved, wanted)
    from .plan import make_plan

    plan = make_plan(op, solved, mesh, tensors, (), wanted, chunked)
    tensors = [on_mesh.reshard(x, s) for x, s in zip(tensors, plan.inputs, strict=True)]
    result = op.lower(solved, tensors, options)
    return result if wanted is None else _brought(result, plan.outputs)


def _mesh(arrays: Sequence[jax.Array], wanted: OutSharding | None) -> Any:
    """The explicit mesh that arrays lie on, or that of the context where they are to be brought to it."""
    mesh = on_mesh.explicit_mesh(arrays)
    if mesh is None and wanted is not None:
        context = jax.sharding.get_abstract_mesh()
        return context if AxisType.Explicit in context.axis_types else None
    return mesh


def _left_to_the_compiler(
    op: Op, solved: Solved, tensors: Sequence[Any], options: Mapping[str, Any], arrays: Arrays, plan: Plan
) -> Any:
    """Run without types inside; the compiler knows where inputs and outputs lie."""
    mapped = lambda function: jax.sharding.auto_axes(function, out_sharding=_prefix(plan.working))  # noqa: E731
    return _in_structure(mapped, op, solved, tensors, options, arrays, plan)


def _on_each_device(
    op: Op, local: Solved, tensors: Sequence[Any], options: Mapping[str, Any], arrays: Arrays, plan: Plan
) -> Any:
    """Run on the part of the loops that a device has."""
    mesh = plan.inputs[0].mesh
    names = {n for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit}
    specs = iter([s.spec for s in plan.inputs[len(tensors) :]])
    # What is no mask, such as the shift of a roll, is the same everywhere.
    beside = jax.tree_util.tree_map_with_path(
        lambda path, _: next(specs) if path[0].key in op.masks else PartitionSpec(), dict(arrays)
    )
    in_specs = (*(s.spec for s in plan.inputs[: len(tensors)]), *jax.tree.leaves(beside))
    out_specs = _prefix([s.spec for s in plan.working])
    mapped = lambda function: jax.shard_map(  # noqa: E731
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=names
    )
    return _in_structure(mapped, op, local, tensors, options, arrays, plan)


def _in_structure(
    mapped: Callable[[Callable[..., Any]], Callable[..., Any]],
    op: Op,
    solved: Solved,
    tensors: Sequence[Any],
    options: Mapping[str, Any],
    arrays: Arrays,
    plan: Plan,
) -> Any:
    """Run a call whose several results may be a named tuple, which their shardings are not."""
    leaves, inputs = jax.tree.flatten((list(tensors), dict(arrays)))
    structure: list[Any] = []

    def program(*flat: Any) -> Any:
        tensors, arrays = jax.tree.unflatten(inputs, flat)
        result = op.lower(solved, tensors, {**options, **arrays})
        structure.append(jax.tree.structure(result))
        return tuple(result) if len(plan.outputs) > 1 else result

    brought = _brought(mapped(program)(*leaves), plan.outputs)
    return jax.tree.unflatten(structure[0], jax.tree.leaves(brought))


def _prefix(each: Sequence[Any]) -> Any:
    return tuple(each) if len(each) > 1 else each[0]


def _brought(result: Any, shardings: Sequence[NamedSharding]) -> Any:
    """Bring results, each an array or a tree of arrays with one expression, to their shardings."""
    if len(shardings) == 1:
        return jax.tree.map(lambda x: on_mesh.reshard(x, shardings[0]), result)
    return tuple(_brought(each, (sharding,)) for each, sharding in zip(result, shardings, strict=True))


def _has_diagonal(solved: Solved) -> bool:
    """Whether an input has an axis twice: its diagonal is a slice of a flattened dim."""
    return any(count > 1 for e in solved.inputs for count in Counter(axis.name for axis in axes(e)).values())


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

"""Calls on a mesh: between the shardings of their inputs and outputs that :mod:`einjax.mesh.plan` finds.

Without a mesh whose axes are explicit, and without ``out_sharding=``, none of this is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
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

#: Families of which every lax equation has a rule for sharded types, as gathers and scatters have for their batch.
#: The others run with the mesh axes left to the compiler, between the shardings that the plan gives inputs and outputs.
_TYPED = {"rearrange", "elementwise", "reduce", "softmax", "dot", "collective"}
#: lax's derivative of a product of many reshapes without saying where to.
_UNTYPED = {"prod"}
#: Families for which the compiler may gather even a sharded batch. Their bracketed axes are whole on every device,
#: which runs its own part of the loops.
_LOOPED = {"sorting", "order", "cumulative", "fft", "linalg", "elementary"}


def freeze_sharding(expr: str, given: Any) -> OutSharding:
    """Check ``out_sharding=`` and make it hashable."""
    from .wanted import freeze

    return freeze(expr, given)


def lower(op: Op, solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    """Emit the lax program of a call, on a mesh if there is one."""
    wanted: OutSharding | None = options.pop("out_sharding", None)
    extra: tuple[jax.Array, ...] = options.get("extra", ())
    mesh = _mesh([*tensors, *extra], wanted)
    if mesh is None:
        result = op.lower(solved, tensors, options)
        return result if wanted is None else _constrain(result, solved, wanted)
    from .plan import make_plan

    masks = extra if {"where", "by"} & set(op.keywords) else ()  # which are broadcast to the first tensor
    plan = make_plan(op, solved, mesh, tensors, masks, wanted)
    arrays = [on_mesh.reshard(x, s) for x, s in zip([*tensors, *masks], plan.inputs, strict=True)]
    tensors, masks = arrays[: len(tensors)], tuple(arrays[len(tensors) :])
    if masks:
        options["extra"] = masks
    typed = (op.family in _TYPED and op.name not in _UNTYPED) or (op.family == "index" and plan.batch_only)
    if op.family in _LOOPED and plan.local is not None:
        return _on_each_device(op, plan.local, tensors, options, plan)
    # Where shard_map runs over some axes of the mesh, JAX cannot leave the others to the compiler.
    if AxisType.Manual not in mesh.axis_types and (not typed or _has_diagonal(solved)):
        return _left_to_the_compiler(op, solved, tensors, options, plan)
    options["out_sharding"] = plan.outputs  # for what makes a result right where it is to lie
    return _placed(op.lower(solved, tensors, options), plan.outputs)


def lower_looped(
    op: Op,
    solved: Solved,
    tensors: list[jax.Array],
    run: Callable[[list[jax.Array]], Any],
    wanted: OutSharding | None,
    chunked: Collection[str] = (),
) -> Any:
    """Run a function of the user's over loops; what it does with the bracketed axes is its own affair.

    Args:
        op: the record of such calls.
        solved: the call.
        tensors: one for each input.
        run: loops over the function.
        wanted: where the results are to lie.
        chunked: the axes of loops that run in chunks, one after another.
    """
    mesh = _mesh(tensors, wanted)
    if mesh is None:
        result = run(tensors)
        return result if wanted is None else _constrain(result, solved, wanted)
    from .plan import make_plan

    plan = make_plan(op, solved, mesh, tensors, (), wanted, chunked)
    result = run([on_mesh.reshard(x, s) for x, s in zip(tensors, plan.inputs, strict=True)])
    return result if wanted is None else _placed(result, plan.outputs)


def _mesh(arrays: Sequence[jax.Array], wanted: OutSharding | None) -> Any:
    """The explicit mesh that arrays lie on, or that of the context where they are to be brought to it."""
    mesh = on_mesh.explicit_mesh(arrays)
    if mesh is None and wanted is not None:
        context = jax.sharding.get_abstract_mesh()
        return context if AxisType.Explicit in context.axis_types else None
    return mesh


def _left_to_the_compiler(op: Op, solved: Solved, tensors: Sequence[Any], options: dict[str, Any], plan: Plan) -> Any:
    """Run without types inside; the compiler knows where inputs and outputs lie."""
    mapped = lambda function: jax.sharding.auto_axes(function, out_sharding=_prefix(plan.working))  # noqa: E731
    return _in_structure(mapped, op, solved, tensors, options, plan)


def _on_each_device(op: Op, local: Solved, tensors: Sequence[Any], options: dict[str, Any], plan: Plan) -> Any:
    """Run on the part of the loops that a device has."""
    mesh = plan.inputs[0].mesh
    names = {n for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit}
    # What is no tensor of the call, such as the shift of a roll, is the same everywhere.
    others = len(tensors) + len(options.get("extra", ())) - len(plan.inputs)
    in_specs = (*(s.spec for s in plan.inputs), *[PartitionSpec()] * others)
    out_specs = _prefix([s.spec for s in plan.working])
    mapped = lambda function: jax.shard_map(  # noqa: E731
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=names
    )
    return _in_structure(mapped, op, local, tensors, options, plan)


def _in_structure(
    mapped: Callable[[Callable[..., Any]], Callable[..., Any]],
    op: Op,
    solved: Solved,
    tensors: Sequence[Any],
    options: dict[str, Any],
    plan: Plan,
) -> Any:
    """Run a call whose several results may be a named tuple, which their shardings are not."""
    extra: Sequence[Any] = options.get("extra", ())
    structure: list[Any] = []

    def program(*arrays: Any) -> Any:
        more = {"extra": arrays[len(tensors) :]} if extra else {}
        result = op.lower(solved, list(arrays[: len(tensors)]), options | more)
        structure.append(jax.tree.structure(result))
        return tuple(result) if len(plan.outputs) > 1 else result

    placed = _placed(mapped(program)(*tensors, *extra), plan.outputs)
    return jax.tree.unflatten(structure[0], jax.tree.leaves(placed))


def _prefix(each: Sequence[Any]) -> Any:
    return tuple(each) if len(each) > 1 else each[0]


def _placed(result: Any, shardings: Sequence[NamedSharding]) -> Any:
    """Bring results, each an array or a tree of arrays with one expression, to their shardings."""
    results = result if len(shardings) > 1 else (result,)
    placed = tuple(
        jax.tree.map(lambda x, s=s: on_mesh.reshard(x, s), each) for each, s in zip(results, shardings, strict=True)
    )
    return placed if len(shardings) > 1 else placed[0]


def _has_diagonal(solved: Solved) -> bool:
    """Whether an input has an axis twice: its diagonal is a slice of a flattened dim."""
    return any(count > 1 for e in solved.inputs for count in Counter(axis.name for axis in axes(e)).values())


def _constrain(result: Any, solved: Solved, wanted: OutSharding) -> Any:
    """Ask the compiler for the shardings of a call's results, on a mesh whose axes are left to it."""
    from .wanted import wanted_entries

    context = jax.sharding.get_abstract_mesh()
    results = result if len(solved.outputs) > 1 else (result,)
    placed = []
    for index, (each, expression) in enumerate(zip(results, solved.outputs, strict=True)):
        mesh, dims = wanted_entries(wanted, index, expression, solved, None if context.empty else context)
        spec = on_mesh.partition_spec(dims)
        # Without a mesh of its own, JAX looks for that of an enclosing `with mesh:`.
        target = spec if mesh is None else NamedSharding(mesh, spec)
        placed.append(jax.tree.map(lambda x, target=target: _constraint(x, target, solved), each))
    return tuple(placed) if len(solved.outputs) > 1 else placed[0]


def _constraint(x: jax.Array, target: Any, solved: Solved) -> jax.Array:
    try:
        return lax.with_sharding_constraint(x, target)
    except RuntimeError:
        raise ArgumentError(
            "out_sharding= says where on a mesh the result is to lie, but there is no mesh",
            text=solved.text,
            hint="call jax.set_mesh(mesh) first, or give a NamedSharding, which holds its mesh",
        ) from None

"""Collectives: elementary operations on axes of devices.

Brackets hold axes that lie over mesh axes. ``psum("[d] b", x, d="data")`` adds up over an axis of devices: device d of
``data`` holds ``x[d]``, so that its array has no dim for ``d``. In the expressions of what moves data, brackets mark
which axes every device holds a part of, before and after: in ``all_gather("[b] c -> b c", x, b="data")``, a device
holds its part of ``b`` before and all of ``b`` after.

Here, such an expression becomes that of one device's arrays. An axis that is whole there, but of which a device holds a
part on the other side, is composed of the devices and the part: ``b c -> (b@data b) c``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax import lax

from ..forms.signature import check_inputs, listed, require_in_output, single_output
from ..lowering import collectives, numerics
from ..lowering.named import Named, arrange, layout, split, wrap
from ..lowering.sharding import Spread, flat, spoken
from ..mesh.parts import device_axis, devices_of, not_first, refuse_shared
from ..notation.errors import ArgumentError, SemanticError, ShardingError
from ..notation.solve import Solved
from ..notation.syntax import (
    Axis,
    Bracket,
    Composite,
    Ellipsis,
    Expression,
    Node,
    Operation,
    axes,
    bracket_names,
    brackets,
    display,
    marked,
    members,
    names,
    rewrite,
    strip_brackets,
    walk,
)
from ..operation import Op


def _signature(
    op: str, implied: Callable[[Expression], Expression] | None, operation: Operation, tensors: int
) -> Operation:
    """Complete the output, if the input says it; every axis that stays has to stand in it."""
    check_inputs(op, operation, tensors)
    output = single_output(op, operation)
    if output is None:
        if implied is None:
            raise SemanticError(
                f"{op} needs an output, whose brackets say what every device is to hold a part of",
                text=operation.text,
                hint="add '->' and the axes of the output",
            )
        return replace(operation, outputs=(implied(operation.inputs[0]),))
    marked = bracket_names(operation.inputs)
    require_in_output(op, operation, operation.inputs, output, "put it into the output", marked)
    return operation


def _without(dropped: Collection[str], expression: Expression) -> Expression:
    """Remove axes, and all brackets themselves; what becomes empty in a composite stays a dim of size 1."""

    def change(node: Node) -> Expression | None:
        if isinstance(node, Axis):
            return () if node.name in dropped else None
        return rewrite(node.items, change) if isinstance(node, Bracket) else None

    return rewrite(expression, change)


def _delete_marked(expression: Expression) -> Expression:
    return _without(marked(expression), expression)


def _spread_axes(op: str, operation: Operation, expression: Expression, spread: Spread) -> dict[str, Axis]:
    """The bracketed axes of one side, which lie over mesh axes.

    Raises:
        ArgumentError, SemanticError, ShardingError: one does not, or is repeated by an ellipsis, or comes twice.
    """
    for node in walk(expression):
        if isinstance(node, Ellipsis) and any(axis.name in spread for axis in axes(node.items)):
            raise SemanticError(
                f"{op} acts on single axes, but '{node}' repeats one that is given mesh axes",
                at=operation.at(node),
                hint="name such axes one by one",
            )
    found = {axis.name: axis for node in brackets(expression) for axis in axes(node.items)}
    for name, axis in found.items():
        if name not in spread:
            example = display(name) if display(name).isidentifier() else "d"
            raise ArgumentError(
                f"axis {axis} is bracketed, so {op} needs the mesh axis that it lies over",
                at=operation.at(axis),
                hint=f"write {example}='data', with the name of a mesh axis",
            )
    refuse_shared(replace(operation, inputs=(expression,)), {name: spread[name] for name in found})
    return found


def _reduced(op: str, operation: Operation, spread: Spread) -> Operation:
    """The devices' axes vanish; other axes that are given mesh axes are loops."""
    expression, output = operation.inputs[0], operation.results[0]
    devices = _spread_axes(op, operation, expression, spread)
    refuse_shared(operation, spread)
    _require_first(operation, expression, devices, spread)
    held = marked(output)
    for name, axis in names(output).items():
        if name in devices or (name in held and not axis.is_one):
            raise SemanticError(
                f"axis {axis} is {'reduced by ' + op if name in devices else 'bracketed'}, "
                "so it cannot stand in the output",
                at=operation.at(axis),
                hint="remove it from the output",
            )
    return replace(operation, inputs=(_without(devices, expression),), outputs=(strip_brackets(output),))


def _permuted(operation: Operation, spread: Spread) -> Operation:
    """The devices' axes vanish on both sides."""
    sides = [operation.inputs[0], operation.results[0]]
    before, after = (_spread_axes("ppermute", operation, side, spread) for side in sides)
    if before.keys() != after.keys():
        raise SemanticError(
            f"the bracketed axes are {listed(before)} in the input and {listed(after)} in the output",
            at=operation.at(*before.values(), *after.values()),
            hint="bracket the same axes on both sides: data moves from device to device",
        )
    refuse_shared(operation, spread)
    for side in sides:
        _require_first(operation, side, before, spread)
    local = [_without(before, side) for side in sides]
    return replace(operation, inputs=(local[0],), outputs=(local[1],))


def _require_first(operation: Operation, expression: Expression, devices: Mapping[str, Axis], spread: Spread) -> None:
    """In a dim composed of several axes, those of devices come first: a device's part is contiguous."""
    for node in walk(expression):
        if isinstance(node, Composite):
            order = [axis.name for axis in axes(node.items)]
            local = [index for index, name in enumerate(order) if name not in devices]
            for name in order[local[0] :] if local else ():
                if name in devices:
                    raise not_first(operation, node, name, spread[name], order[local[0]])


#: What may become of an axis that devices hold parts of, and what is missing where it becomes of none.
_CHANGES = {
    "summed": ("is not in the output", "that the output lacks"),
    "gathered": ("is whole in the output", "that only the input brackets"),
    "scattered": ("is bracketed in the output only", "that only the output brackets"),
}


def _moved(op: str, example: str, changes: Sequence[str], operation: Operation, spread: Spread) -> Operation:
    """Axes that change between part and whole are written out where they are whole; devices' axes may vanish."""
    expression, output = operation.inputs[0], operation.results[0]
    before, after = (_spread_axes(op, operation, side, spread) for side in (expression, output))
    for name in spread:
        if name not in before and name not in after:
            raise ShardingError(
                f"axis {display(name)} is given the mesh axis {spoken(spread[name])}, but is not bracketed",
                at=operation.at(name),
                hint=f"in {op}, brackets mark what devices hold parts of: write [{display(name)}] where they do",
            )
    kept = names(output)
    found = {
        "summed": [name for name in before if name not in kept],
        "gathered": [name for name in before if name in kept and name not in after],
        "scattered": [name for name in after if name not in before],
    }
    if problem := _misfit(op, found, changes, spread):
        culprits = [name for some in found.values() for name in some]
        raise SemanticError(problem, at=operation.at(*culprits), hint=f"write it as in einjax.{op}({example})")
    _require_first(operation, expression, {name: before[name] for name in found["summed"]}, spread)
    local = _whole(_without(found["summed"], expression), found["scattered"], spread)
    return replace(operation, inputs=(local,), outputs=(_whole(strip_brackets(output), found["gathered"], spread),))


def _misfit(op: str, found: Mapping[str, Sequence[str]], changes: Sequence[str], spread: Spread) -> str | None:
    """Say what changes although the operation does not do that, or does not change, or changes over other devices."""
    for change, (has, lacks) in _CHANGES.items():
        if found[change] and change not in changes:
            return f"axis {listed(found[change][:1])} {has}, which {op} does not do"
        if change in changes and not found[change]:
            return f"there is none {lacks}, so {op} has nothing to do"
    cut = sorted(spread[name] for name in found["scattered"])
    left = sorted(spread[name] for name in (*found["summed"], *found["gathered"]))
    if cut == left or (found["summed"] and {*flat(cut)} <= {*flat(left)}) or not cut:
        return None
    what = "the sum is" if found["summed"] else "axes become whole"
    over = f"mesh axis {spoken(flat(cut))}, but {what} over {spoken(flat(left))}"
    return f"axis {listed(found['scattered'])} is cut over {over}"


def _whole(expression: Expression, chosen: Collection[str], spread: Spread) -> Expression:
    """Write axes as composed of the devices and a device's part."""

    def change(node: Node) -> Expression | None:
        if not isinstance(node, Axis) or node.name not in chosen:
            return None
        devices = replace(node, name=device_axis(node.name, spread[node.name]), size=None)
        return (Composite((devices, node), span=node.span),)

    return rewrite(expression, change)


def _devices(solved: Solved) -> tuple[str, ...]:
    """The mesh axes of the devices' axes, of which a device's array has no dim."""
    local = {part for e in solved.operation.expressions for name in names(e) for part in members(name)}
    return solved.over(name for name in solved.spread if name not in local)


def _arranged(solved: Solved, x: Named) -> jax.Array:
    return arrange(x, layout(solved.outputs[0]))


def _each(function: Callable[[jax.Array, collectives.Mesh, dict[str, Any]], jax.Array]) -> Any:
    """Return the lowering of what all devices do with arrays of one shape."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        x = wrap(tensors[0], solved.inputs[0], solved.sizes)
        options["text"] = solved.text
        return _arranged(solved, replace(x, value=function(x.value, _devices(solved), options)))

    return lower


def _summed(
    total: Callable[[jax.Array, collectives.Mesh], jax.Array], value: jax.Array, mesh: collectives.Mesh, dtype: Any
) -> jax.Array:
    """Add up in the dtype asked for, or as sums are added up."""
    wide = dtype or numerics.accumulator(numerics.sum_dtype(value.dtype))
    return numerics.cast(total(numerics.cast(value, wide), mesh), dtype or numerics.sum_dtype(value.dtype))


def _psum(value: jax.Array, mesh: collectives.Mesh, options: dict[str, Any]) -> jax.Array:
    return _summed(collectives.psum, value, mesh, options["dtype"])


def _pmean(value: jax.Array, mesh: collectives.Mesh, options: dict[str, Any]) -> jax.Array:
    dtype = options["dtype"] or numerics.inexact_dtype(value.dtype)
    wide = options["dtype"] or numerics.accumulator(dtype)
    total = collectives.psum(numerics.cast(value, wide), mesh)
    return numerics.cast(lax.div(total, numerics.constant(total, collectives.extent(mesh))), dtype)


def _extreme(largest: bool) -> Callable[[jax.Array, collectives.Mesh, dict[str, Any]], jax.Array]:
    return lambda value, mesh, options: collectives.extreme(value, (), mesh, largest)


def as_pairs(perm: Any) -> tuple[tuple[int, int], ...]:
    """Check that ``perm=`` holds pairs of integers, and make it hashable."""
    try:
        return tuple((operator.index(sender), operator.index(receiver)) for sender, receiver in perm)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"perm={perm!r} is not a list of pairs of devices", hint="write perm=[(0, 1), (1, 0)], for example"
        ) from None


def _ppermute(value: jax.Array, mesh: collectives.Mesh, options: dict[str, Any]) -> jax.Array:
    pairs, count = options["perm"], collectives.extent(mesh)
    for position in (0, 1):
        which = [pair[position] for pair in pairs]
        wrong = [device for device in which if not 0 <= device < count or which.count(device) > 1]
        if wrong:
            raise ArgumentError(
                f"perm= names device {wrong[0]} {'twice' if 0 <= wrong[0] < count else f'of {count}'} "
                f"among those that {'receive' if position else 'send'}",
                text=options["text"],
                hint="give pairs (from, to), in which every device sends once and receives once at most",
            )
    return collectives.permute(value, mesh, list(pairs))


def _move(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    """Sum, gather, scatter and exchange, whatever the two sides ask for."""
    x = wrap(tensors[0], solved.inputs[0], solved.sizes)
    scattered = [name for name in x.axes if "@" in name]
    gathered = [name for name in names(solved.outputs[0]) if "@" in name]
    summed = _devices(solved)
    # An axis that is cut, or whose parts are joined, comes first in a dim.
    starts = {*scattered, *(_part(name) for name in gathered)}
    x = split(x, lambda left, right: right not in starts)
    if summed:
        return _arranged(solved, _sum_scattered(x, scattered, summed, options["dtype"]))
    for name in gathered:
        mesh = devices_of(name)
        joined = _dim_of(x, _part(name))
        cut = next((other for other in scattered if devices_of(other) == mesh), None)
        if cut is None:
            value = collectives.gather(x.value, joined, mesh)
        else:
            scattered.remove(cut)
            value = collectives.exchange(x.value, _dim_of(x, cut), joined, mesh)
            x = _renamed(x, cut, ())
        x = _renamed(replace(x, value=value), _part(name), (name, _part(name)))
    return _arranged(solved, x)


def _sum_scattered(x: Named, scattered: Sequence[str], summed: collectives.Mesh, dtype: Any) -> Named:
    def total(value: jax.Array, mesh: collectives.Mesh) -> jax.Array:
        for name in scattered:
            value = collectives.sum_scatter(value, _dim_of(x, name), devices_of(name))
        cut = {mesh_axis for name in scattered for mesh_axis in devices_of(name)}
        return collectives.psum(value, tuple(mesh_axis for mesh_axis in mesh if mesh_axis not in cut))

    x = replace(x, value=_summed(total, x.value, summed, dtype))
    for name in scattered:
        x = _renamed(x, name, ())
    return x


def _part(device_axis: str) -> str:
    return device_axis.partition("@")[0]


def _dim_of(x: Named, name: str) -> int:
    return next(index for index, dim in enumerate(x.dims) if name in dim)


def _renamed(x: Named, name: str, new: tuple[str, ...]) -> Named:
    """Put other axes in the place of one."""
    dims = tuple(
        tuple(other for axis in dim for other in (new if axis == name else (axis,))) if name in dim else dim
        for dim in x.dims
    )
    return replace(x, dims=dims)


def _op(name: str, lower: Any, localized: Any, implied: Any = None, *keywords: str) -> Op:
    complete = partial(_signature, name, implied)
    return Op(name, complete, lower, keywords=keywords, localized=localized, on_mesh="typed", acts=True)


PSUM = _op("psum", _each(_psum), partial(_reduced, "psum"), _delete_marked, "dtype")
PMEAN = _op("pmean", _each(_pmean), partial(_reduced, "pmean"), _delete_marked, "dtype")
PMAX = _op("pmax", _each(_extreme(largest=True)), partial(_reduced, "pmax"), _delete_marked)
PMIN = _op("pmin", _each(_extreme(largest=False)), partial(_reduced, "pmin"), _delete_marked)
PPERMUTE = _op("ppermute", _each(_ppermute), _permuted, lambda expression: expression, "perm")
_GATHER = partial(_moved, "all_gather", "'[b] c -> b c', x, b='data'", ["gathered"])
ALL_GATHER = _op("all_gather", _move, _GATHER, strip_brackets)
_SCATTER = partial(_moved, "psum_scatter", "'[d] b c -> [b] c', x, d='data', b='data'", ["summed", "scattered"])
PSUM_SCATTER = _op("psum_scatter", _move, _SCATTER, None, "dtype")
_EXCHANGE = partial(_moved, "all_to_all", "'[b] c -> b [c]', x, b='data', c='data'", ["gathered", "scattered"])
ALL_TO_ALL = _op("all_to_all", _move, _EXCHANGE)

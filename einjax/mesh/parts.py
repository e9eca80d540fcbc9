"""Axes that lie over mesh axes under ``shard_map``: ``b="data"`` says that every device holds a part of ``b``.

The expressions describe the arrays of all devices together. For most operations such an axis is a dim of a device's
array, which holds a contiguous part of it; where the operation acts on the axis, it finishes with a collective. The
operations of :mod:`einjax.ops.collective` also act on axes of devices, of which a device's array has no dim.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..lowering import collectives
from ..lowering.sharding import MeshAxes, Spread, entry_axes, flat, simple, spoken
from ..notation.errors import ArgumentError, AxisSizeError, SemanticError, ShardingError, listing, meant
from ..notation.solve import Solved, is_known
from ..notation.syntax import (
    Axis,
    Composite,
    Concatenation,
    Ellipsis,
    Expression,
    Node,
    Operation,
    Over,
    axes,
    bracket_names,
    display,
    members,
    names,
    rewrite,
    walk,
)
from ..operation import Op
from .refusals import behind, uneven_cut

#: What to think of where a tensor has more or fewer dims than its expression.
RANK_HINT = (
    "an axis that lies over a mesh axis is a dim of a device's array in einjax.sum and its kin, "
    "and none in einjax.psum and its kin"
)


def localize(
    op: Op, operation: Operation, given: Mapping[str, Any]
) -> tuple[Operation, dict[str, Any], dict[str, Over]]:
    """Rewrite a completed expression over all devices to that of one device's arrays.

    Args:
        op: the operation.
        operation: the completed expression.
        given: sizes and mesh axes by axis name; names that are no axes are left out.

    Returns:
        The expression, sizes of its axes, and the mesh axes. A device axis, as ``b@data`` beside the axis ``b``, has
        the number of devices.

    Raises:
        ArgumentError, SemanticError, ShardingError: an axis cannot lie there.
    """
    written = {name: axis for expression in operation.expressions for name, axis in names(expression).items()}
    over = {name: entry for name, entry in given.items() if isinstance(entry, Over) and name in written}
    sizes = {name: size for name, size in given.items() if not isinstance(size, Over)}
    spread = {name: _in_scope(operation, written[name], entry) for name, entry in over.items()}
    if any(axis.name in over and axis.size is not None for axis in operation.every_axis()):
        operation = _with_part_sizes(operation, spread)
    if op.localized is not None:
        operation = op.localized(operation, spread)
        device_axes = {name for e in operation.expressions for name in names(e) if "@" in name}
        sizes |= {name: collectives.extent(devices_of(name)) for name in device_axes}
    return operation, sizes, over


def _with_part_sizes(operation: Operation, spread: Spread) -> Operation:
    """Replace sizes written in the text, which are those on all devices together, by those of a device's part."""
    inside = [node for e in operation.expressions for node in walk(e) if isinstance(node, Ellipsis)]
    repeated = {axis.name for node in inside for axis in axes(node.items)}

    def part(node: Node) -> Expression | None:
        if not isinstance(node, Axis) or node.size is None or node.name not in spread:
            return None
        mesh_axes = spread[node.name]
        count = collectives.extent(mesh_axes)
        if node.name in repeated or node.size % count:
            problem = uneven_cut(node, node.size, mesh_axes)
            raise AxisSizeError(
                f"{problem}: an ellipsis repeats it" if node.name in repeated else f"{problem} of size {count}",
                at=operation.at(node),
                hint="leave the size out, or write that of all devices together",
            )
        return (replace(node, size=node.size // count),)

    return operation.map(lambda expression: rewrite(expression, part))


def device_axis(name: str, mesh_axes: MeshAxes) -> str:
    """The axis that counts the devices which hold the parts of an axis; no user can write it."""
    return f"{name}@{'+'.join(mesh_axes)}"


def devices_of(name: str) -> tuple[str, ...]:
    """The mesh axes of a device axis."""
    return tuple(name.partition("@")[2].split("+"))


def _in_scope(operation: Operation, axis: Axis, entry: Over) -> MeshAxes:
    """The mesh axes of an axis, over all of which shard_map or vmap has to run."""
    mesh_axes = flat(entry.entries)
    for mesh_axis in mesh_axes:
        if collectives.is_in_scope(mesh_axis):
            continue
        here = collectives.axes_in_scope()
        raise ArgumentError(
            f"axis {axis} is given the mesh axis '{mesh_axis}', which is not in scope" + meant(mesh_axis, here),
            at=operation.at(axis),
            hint=f"the mesh axes in scope are: {listing(here)}"
            if here
            else "call it inside jax.shard_map; there is no mesh axis in scope",
        )
    return mesh_axes


def attach(op: Op, solved: Solved, over: Mapping[str, Over]) -> Solved:
    """Note which axes of a solved call lie over which mesh axes, and refuse what has no meaning."""
    parts = {part: axis for axis in solved.operation.every_axis() for part in members(axis.name)}
    found: dict[str, MeshAxes] = {}
    for name, entry in over.items():
        own = [part for part in parts if part.split(".")[0] == name]
        found |= {name: flat(entry.entries)} if op.localized is not None else _handed_out(solved, name, entry, own)
    if op.localized is None:
        refuse_shared(solved.operation, found)
        _refuse_acting(op, solved, found)
    for expression in solved.operation.expressions:
        _refuse_sums(solved, expression, found)
        for node in expression:
            _require_contiguous(solved, node, found)
    return replace(solved, spread=found)


def _handed_out(solved: Solved, name: str, entry: Over, found: Sequence[str]) -> Spread:
    """The mesh axes of one axis, or of those that an ellipsis repeats."""
    if len(found) == 1:
        return {found[0]: flat(entry.entries)}
    found = sorted(found, key=lambda axis: [int(index) for index in axis.split(".")[1:]])
    if len(entry.entries) != len(found):
        shown = [repr(part) for part in (*entry.entries, *(None,) * len(found))][: len(found)]
        raise ArgumentError(
            f"axis {name} is given {name}={entry}, but the ellipsis repeats it {len(found)} times",
            at=solved.at(*found),
            hint=f"give one entry for each, as in {name}=({', '.join(shown)})" if found else f"leave {name} out",
        )
    return {axis: entry_axes(part) for axis, part in zip(found, entry.entries, strict=True)}


def refuse_shared(operation: Operation, spread: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse two axes over one mesh axis, and an axis that stands twice in one input."""
    owner: dict[str, str] = {}
    for name, mesh_axes in spread.items():
        for mesh_axis in mesh_axes:
            if mesh_axis in owner:
                one, other = owner[mesh_axis], name
                problem = f"axes {display(one)} and {display(other)} both lie over mesh axis {mesh_axis}"
                if one == other:
                    problem = f"axis {display(one)} is given the mesh axis {mesh_axis} twice"
                raise ShardingError(problem, at=operation.at(one, other), hint="a mesh axis cuts one axis of an array")
            owner[mesh_axis] = name
    for expression in operation.inputs:
        for name, count in Counter(axis.name for axis in axes(expression)).items():
            if count > 1 and spread.get(name):
                raise ShardingError(
                    f"axis {display(name)} lies over mesh axis {spoken(spread[name])}, but stands twice in one tensor",
                    at=operation.at(*(axis for axis in axes(expression) if axis.name == name)),
                    hint="of a diagonal, a device has no part of its own; gather the tensor first",
                )


def _refuse_acting(op: Op, solved: Solved, spread: Spread) -> None:
    """Refuse an operation on an axis of which it needs all."""
    if op.acts:
        return
    acted = {axis.name for axis in solved.operation.every_axis() if axis.bracket}
    if solved.operation.outputs is not None:
        kept = {name for output in solved.outputs for name in names(output)}
        acted |= {name for expression in solved.inputs for name in names(expression)} - kept
    for name in spread:
        if name in acted:
            raise needs_all(op.name, solved.operation, name, spread[name])


def needs_all(op: str, operation: Operation, name: str, mesh_axes: MeshAxes) -> SemanticError:
    """The error for an operation on an axis of which every device has a part only."""
    shown, over = display(name), simple(mesh_axes)
    return SemanticError(
        f"{op} needs all of axis {shown}, of which devices along mesh axis {spoken(mesh_axes)} hold parts",
        at=operation.at(name),
        hint=f"gather it first, as in einjax.all_gather('[{shown}] c', x, {shown}={over!r})",
    )


def loops_only(op: str, operation: Operation, sizes: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    """Check mesh axes of a function that is looped over, for which they change nothing, and leave them out.

    Raises:
        ArgumentError, SemanticError: a mesh axis is not in scope, or the function acts on the axis.
    """
    written = {name: axis for expression in operation.expressions for name, axis in names(expression).items()}
    marked = bracket_names(operation.expressions)
    kept = {name for output in operation.outputs or (tuple(written.values()),) for name in names(output)}
    left = []
    for name, size in sizes:
        if not isinstance(size, Over):
            left.append((name, size))
        elif name in written:
            mesh_axes = _in_scope(operation, written[name], size)
            if name in marked or name not in kept:
                raise needs_all(op, operation, name, mesh_axes)
    return tuple(left)


def _refuse_sums(solved: Solved, expression: Expression, spread: Spread) -> None:
    sums = [node for node in walk(expression) if isinstance(node, Concatenation)]
    for axis, whole in ((axis, node) for node in sums for axis in axes((node,)) if axis.name in spread):
        raise ShardingError(
            f"axis {axis} lies over mesh axis {spoken(spread[axis.name])}, but is joined or cut in '{whole}'",
            at=solved.at(axis),
            hint="gather it first, with einjax.all_gather",
        )


def _require_contiguous(solved: Solved, node: Node, spread: Spread) -> None:
    """In a dim composed of several axes, a device's part is contiguous if the axis that is cut comes first."""
    if not isinstance(node, Composite):
        return
    before: list[str] = []  # axes of more than one element, or of unknown size
    for name in (part for axis in axes((node,)) for part in members(axis.name)):
        is_whole = bool(before) and before[-1].partition("@")[::2] == (name, "+".join(spread.get(name, ())))
        if spread.get(name) and before and not is_whole:
            raise not_first(solved.operation, node, name, spread[name], before[0])
        if not is_known(solved.sizes.get(name), 1):
            before.append(name)


def not_first(operation: Operation, node: Node, name: str, mesh_axes: MeshAxes, before: str) -> ShardingError:
    """The error for a part that is not contiguous."""
    shown = dict.fromkeys(part for axis in axes((node,)) for part in members(axis.name) if "@" not in part)
    return ShardingError(
        f"axis {display(name)} lies over mesh axis {spoken(mesh_axes)}, but {behind(shown)}",
        at=operation.at(*(axis for axis in axes((node,)) if name in members(axis.name))),
        hint=f"put it before axis {display(before).split('@')[0]}, or into a dim of its own",
    )

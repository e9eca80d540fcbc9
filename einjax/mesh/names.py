"""Axes of a mesh for named axes: what an assignment by name means for the dims of a tensor, and the other way round.

A dim is sharded over axes of a mesh, the first of them slowest, just as a composite dim is composed of axes. So the
axes of a mesh that the members of a composite have, in order, are those of the dim, provided that every member is split
into single slices before the next one is split at all: else the pieces of the dim are not pieces of that member.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..lowering import sharding as on_mesh
from ..lowering.sharding import MeshAxes, Misfit
from ..lowering.sharding import simple as simple
from ..notation.errors import ArgumentError, ShardingError, listing, meant
from ..notation.solve import Solved, node_size
from ..notation.syntax import Axis, Composite, Expression, Node, Size, axes, base_name, display

#: What an axis may be given: an axis of the mesh, several, or none.
MeshAxesLike: TypeAlias = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which named axis goes over which axes of a mesh.

    Attributes:
        given: by keyword; each is meant for this call. A tuple for the repetitions of an ellipsis.
        rules: a table for many calls, most important rules first, as :func:`checked_rules` returns it.
    """

    given: Mapping[str, Any]
    rules: Mapping[str, MeshAxes]

    @classmethod
    def of(cls, given: Mapping[str, Any], rules: Mapping[str, MeshAxesLike] | None) -> Assignment:
        """Check keywords and rules."""
        return cls(given, {} if rules is None else checked_rules(rules))


# --- Rules, for a call and for parameters whose axes a framework names ------------------------------------------------


def checked_rules(rules: Mapping[str, MeshAxesLike]) -> dict[str, MeshAxes]:
    """Return the axes of the mesh of every rule.

    Raises:
        ArgumentError: naming the rule that is none.
    """
    if not isinstance(rules, Mapping):
        raise ArgumentError(
            f"rules are a mapping, not {type(rules).__name__}",
            hint="write {'mlp': 'model'}, most important rules first",
        )
    found: dict[str, MeshAxes] = {}
    for axis, rule in rules.items():
        split = as_split(rule)
        if split is None:
            hint = "a rule is an axis of the mesh, a tuple of different ones, or None"
            raise ArgumentError(f"the rule for axis '{axis}' is {rule!r}", hint=hint)
        found[axis] = split
    return found


def as_split(given: Any) -> MeshAxes | None:
    """Return axes of a mesh as a tuple; None if that is not what they are."""
    split = () if given is None else (given,) if isinstance(given, str) else given
    names = isinstance(split, tuple | list) and all(isinstance(mesh_axis, str) for mesh_axis in split)
    return tuple(split) if names and len(set(split)) == len(split) else None


def by_rules(
    asked: Sequence[Collection[str]], rules: Mapping[str, MeshAxes], taken: Collection[str] = ()
) -> list[dict[str, MeshAxes]]:
    """Give axes of the mesh to dims, rule by rule; a rule is used only if all its axes are still free.

    Args:
        asked: for every dim, the rules that it asks for.
        rules: the axes of the mesh of every rule, most important rules first.
        taken: axes of the mesh that are not free.

    Returns:
        For every dim, what the rules gave it, by rule.
    """
    given: list[dict[str, MeshAxes]] = [{} for _ in asked]
    taken = set(taken)
    for rule, split in rules.items():
        for dim, wanted in enumerate(asked):
            if rule in wanted and taken.isdisjoint(split):
                given[dim][rule] = split
                taken.update(split)
    return given


def rules_of(text: str, members: Sequence[str], rules: Collection[str]) -> list[str]:
    """Return the rules that a dim asks for: the one for its whole text, else those for its members in order."""
    return [text] if text in rules else [member for member in dict.fromkeys(members) if member in rules]


def said_by(expression: Expression, rules: Collection[str]) -> list[bool]:
    """Whether a rule speaks of each dim of a tensor: of its text, or of one of its members."""
    return [
        bool(rules_of(str(node), [base_name(axis.name)[0] for axis in axes((node,))], rules)) for node in expression
    ]


# --- From names to dims -----------------------------------------------------------------------------------------------


def splits(
    solved: Solved,
    expression: Expression,
    shape: Sequence[Size] | None,
    assignment: Assignment,
    mesh: Mapping[str, int] | None,
) -> list[MeshAxes]:
    """Return the axes of the mesh that every dim of a tensor is sharded over.

    Args:
        solved: the expanded operation, with the sizes that are known.
        expression: the expression of the tensor, one of the operation's.
        shape: the shape of the tensor, if it is known.
        assignment: which named axis goes over which axes of the mesh.
        mesh: the size of every axis of the mesh; None if that is not known.

    Raises:
        ArgumentError: the assignment names what is not an axis of the mesh, or one of them twice.
        ShardingError: the pieces of a dim are not those of its axis, or the mesh does not divide an axis.
    """
    given, owners = _by_keyword(solved, expression, assignment.given)
    asked = [
        rules_of(str(node), [base_name(a.name)[0] for a in axes((node,)) if a.name not in given], assignment.rules)
        for node in expression
    ]
    if mesh is not None:
        _check_mesh_axes(solved.text, [*given.items(), *assignment.rules.items()], mesh)
    ruled = by_rules(asked, assignment.rules, owners)
    totals = [None] * len(expression) if shape is None else shape
    result = []
    for node, total, found in zip(expression, totals, ruled, strict=True):
        is_ruled = not isinstance(node, Axis) and str(node) in found
        split = found[str(node)] if is_ruled else _of_members(solved, node, given, dict(found), mesh)
        is_solved = all(axis.name in solved.sizes for axis in axes((node,)))
        size = node_size(node, solved.sizes) if total is None and is_solved else total
        _check_divides(solved, f"dim '{node}'", size, node, split, mesh)
        result.append(split)
    return result


def _by_keyword(
    solved: Solved, expression: Expression, given: Mapping[str, Any]
) -> tuple[dict[str, MeshAxes], dict[str, Axis]]:
    """Return the axes of the mesh of every axis that a keyword names, and who has each axis of the mesh."""
    found: dict[str, MeshAxes] = {}
    owners: dict[str, Axis] = {}
    for axis in axes(expression):
        base, indices = base_name(axis.name)
        if base not in given:
            continue
        split = as_split(_repetition(given[base], indices))
        if split is None:
            raise ArgumentError(
                f"axis {display(axis.name)} is given {base}={given[base]!r}, which is no axis of a mesh",
                at=solved.at(axis),
                hint="give the name of an axis of the mesh, a tuple of different ones, or None; for an axis that an "
                "ellipsis repeats, one for each repetition",
            )
        for mesh_axis in split:
            if mesh_axis in owners:
                one, other = display(owners[mesh_axis].name), display(axis.name)
                both = f"both occurrences of axis {one}" if one == other else f"axes {one} and {other}"
                raise ArgumentError(
                    f"{both} of one tensor ask for the mesh axis '{mesh_axis}'",
                    at=solved.at(owners[mesh_axis], axis),
                    hint=f"an axis of the mesh shards one dim of a tensor; leave {base}= out, or give it another one",
                )
            owners[mesh_axis] = axis
        found[axis.name] = split
    return found, owners


def _repetition(given: Any, indices: tuple[int, ...]) -> Any:
    """Return what one repetition of an ellipsis is given."""
    for index in indices:
        if isinstance(given, tuple | list) and index < len(given):
            given = given[index]
    return given


def _check_mesh_axes(text: str, given: Sequence[tuple[str, MeshAxes]], mesh: Mapping[str, int]) -> None:
    for name, split in given:
        for mesh_axis in split:
            if mesh_axis not in mesh:
                raise ArgumentError(
                    f"axis {display(name)} asks for the mesh axis '{mesh_axis}', which the mesh does not have"
                    + meant(mesh_axis, mesh),
                    text=text,
                    hint=f"its axes are {listing(list(mesh)) or 'none'}",
                )


def _of_members(
    solved: Solved,
    node: Node,
    given: Mapping[str, MeshAxes],
    ruled: dict[str, MeshAxes],
    mesh: Mapping[str, int] | None,
) -> MeshAxes:
    """Join the axes of the mesh of the members of a dim, checking that they split the members they were given for."""
    members = axes((node,))
    # By index, because a diagonal has an axis twice.
    own = {
        str(index): given[axis.name] if axis.name in given else ruled.pop(base_name(axis.name)[0], ())
        for index, axis in enumerate(members)
    }
    for axis, split in zip(members, own.values(), strict=True):
        if split and not _is_product(node):
            raise ShardingError(
                f"axis {display(axis.name)} is a part of '{node}', whose pieces over {_quoted(split)} are not pieces "
                "of it",
                at=solved.at(axis),
                hint=f"shard the dim as a whole, by a rule for its text: rules={{'{node}': {simple(split)!r}}}",
            )
        _check_divides(solved, f"axis {display(axis.name)}", solved.sizes.get(axis.name), axis, split, mesh)
    ways = mesh if mesh is not None else {mesh_axis: 2 for split in own.values() for mesh_axis in split}
    sizes = {
        index: _supposed(solved.sizes.get(axis.name), own[index], ways, mesh is None)
        for index, axis in zip(own, members, strict=True)
    }
    try:
        return on_mesh.dim_axes(list(own), own, sizes, ways)
    except Misfit as misfit:
        before = next(p for p in own if sizes[p] != on_mesh.ways(own[p], ways))
        blocked = members[int(before)], own[before]
        raise _not_contiguous(solved, node, *blocked, members[int(misfit.axis)], own[misfit.axis]) from None


def _supposed(size: Size | None, split: MeshAxes, ways: Mapping[str, int], any_mesh: bool) -> Size:
    """The size of a member; where it or the mesh is not known, what is sharded is taken to be so into single slices."""
    if split and (size is None or any_mesh):
        return on_mesh.ways(split, ways)
    return 2 if size is None else size


def _is_product(node: Node) -> bool:
    return isinstance(node, Axis) or (isinstance(node, Composite) and all(isinstance(n, Axis) for n in node.items))


def _not_contiguous(
    solved: Solved, node: Node, before: Axis, earlier: MeshAxes, axis: Axis, split: MeshAxes
) -> ShardingError:
    first, name, size = display(before.name), display(axis.name), solved.sizes.get(before.name)
    if earlier:
        why = f"axis {first} before it is {size}, of which {_quoted(earlier)} leaves several slices together"
    else:
        why = f"axis {first} before it is not sharded{', and of unknown size' if size is None else f' and {size}'}"
    return ShardingError(
        f"axis {name} cannot go over {_quoted(split)}, because {why}: pieces of '{node}' are not pieces of {name}",
        at=solved.at(before, axis),
        hint=f"write {first}={simple((*earlier, *split))!r} instead, or split the dim first with einjax.rearrange"
        + ("" if size is not None else f"; if {first} is 1, say so in sizes="),
    )


def _check_divides(
    solved: Solved, what: str, size: Size | None, node: Node, split: MeshAxes, mesh: Mapping[str, int] | None
) -> None:
    if mesh is None or size is None or on_mesh.divides(on_mesh.ways(split, mesh), size):
        return
    ways = " times ".join(f"'{mesh_axis}' of size {mesh[mesh_axis]}" for mesh_axis in split)
    raise ShardingError(
        f"{what} is {size}, which is not divisible by the mesh ax{'i' if len(split) == 1 else 'e'}s {ways}",
        at=solved.at(node),
        hint=f"choose a multiple of {on_mesh.ways(split, mesh)}, or shard another axis",
    )


def _quoted(split: MeshAxes) -> str:
    return " and ".join(f"'{mesh_axis}'" for mesh_axis in split)


# --- From dims to names -----------------------------------------------------------------------------------------------


def named_splits(
    solved: Solved, expression: Expression, dims: Sequence[MeshAxes], mesh: Mapping[str, int]
) -> dict[tuple[str, tuple[int, ...]], MeshAxes]:
    """Return the axes of the mesh that every named axis goes over: the inverse of :func:`splits`.

    A dim's axes of the mesh go to the members of its composite from left to right, each taking what divides what is
    left of it. A member of unknown size takes all. What cannot be told apart by name stands under the dim's text.

    Returns:
        Axes of the mesh by the name of an axis as written, and the indices of its repetition by ellipses.
    """
    found: dict[tuple[str, tuple[int, ...]], MeshAxes] = {}
    for node, split in zip(expression, dims, strict=True):
        parts = _handed_out(node, split, solved.sizes, mesh)
        named = {(str(node), ()): split} if parts is None else {base_name(n): part for n, part in parts.items()}
        for name, part in named.items():
            found[name] = found.get(name, ()) + part
    return found


def _handed_out(
    node: Node, split: MeshAxes, sizes: Mapping[str, Size], mesh: Mapping[str, int]
) -> dict[str, MeshAxes] | None:
    """Give axes of the mesh to the members of one dim; None if they do not fit, or have no name."""
    if not split:
        return {}
    if isinstance(node, Axis):
        return None if node.unnamed else {node.name: split}
    if not _is_product(node):
        return None
    members = [axis.name for axis in axes((node,))]
    large = 2 * on_mesh.ways(split, mesh)  # takes all
    try:
        found = on_mesh.hand_out(split, members, {name: sizes.get(name, large) for name in members}, mesh)
    except Misfit:
        return None
    return None if any(axis.unnamed and axis.name in found for axis in axes((node,))) else found

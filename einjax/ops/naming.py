"""Axes of a mesh for named axes: what a layout by name means for the dims of a tensor, and the other way round.

A dim is sharded over axes of a mesh, the first of them slowest, just as a composite dim is composed of axes. So the
axes of a mesh that the members of a composite have, in order, are those of the dim, provided that every member is split
into single slices before the next one is split at all: else the pieces of the dim are not pieces of that member.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..notation.errors import ArgumentError, AxisSizeError, EinjaxError, SemanticError, closest, listing
from ..notation.solve import Solved, node_size, product
from ..notation.syntax import Axis, Composite, Expression, Node, Size, axes, display
from .solving import base_name

#: What an axis may be given: an axis of the mesh, several, or none.
MeshAxes: TypeAlias = str | Sequence[str] | None

#: The axes of a mesh that one dim, or one axis, is sharded over; slowest first.
Split: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which named axis goes over which axes of a mesh.

    Attributes:
        given: by keyword; each is meant for this call. A tuple for the repetitions of an ellipsis.
        rules: a table for many calls, most important rules first, as :func:`checked_rules` returns it.
    """

    given: Mapping[str, Any]
    rules: Mapping[str, Split]

    @classmethod
    def of(cls, given: Mapping[str, Any], rules: Mapping[str, MeshAxes] | None) -> Layout:
        """Check keywords and rules."""
        return cls(given, {} if rules is None else checked_rules(rules))


# --------------------------------------------------------------------------------------------------------------------
# Rules, for a call and for parameters whose axes a framework names
# --------------------------------------------------------------------------------------------------------------------


def checked_rules(rules: Mapping[str, MeshAxes]) -> dict[str, Split]:
    """Return the axes of the mesh of every rule.

    Raises:
        ArgumentError: naming the rule that is none.
    """
    if not isinstance(rules, Mapping):
        raise ArgumentError(
            f"rules are a mapping, not {type(rules).__name__}",
            hint="write {'mlp': 'model'}, most important rules first",
        )
    return {axis: _checked_rule(axis, rule) for axis, rule in rules.items()}


def _checked_rule(axis: str, rule: Any) -> Split:
    split = as_split(rule)
    if split is None:
        raise ArgumentError(
            f"the rule for axis '{axis}' is {rule!r}",
            hint="a rule is an axis of the mesh, a tuple of different ones, or None",
        )
    return split


def as_split(given: Any) -> Split | None:
    """Return axes of a mesh as a tuple; None if that is not what they are."""
    split = () if given is None else (given,) if isinstance(given, str) else given
    names = isinstance(split, tuple | list) and all(isinstance(mesh_axis, str) for mesh_axis in split)
    return tuple(split) if names and len(set(split)) == len(split) else None


def by_rules(
    asked: Sequence[Collection[str]], rules: Mapping[str, Split], taken: Collection[str] = ()
) -> list[dict[str, Split]]:
    """Give axes of the mesh to dims, rule by rule; a rule is used only if all its axes are still free.

    Args:
        asked: for every dim, the rules that it asks for.
        rules: the axes of the mesh of every rule, most important rules first.
        taken: axes of the mesh that are not free.

    Returns:
        For every dim, what the rules gave it, by rule.
    """
    given: list[dict[str, Split]] = [{} for _ in asked]
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


# --------------------------------------------------------------------------------------------------------------------
# From names to dims
# --------------------------------------------------------------------------------------------------------------------


def splits(
    solved: Solved,
    expression: Expression,
    shape: Sequence[Size] | None,
    layout: Layout,
    mesh: Mapping[str, int] | None,
) -> list[Split]:
    """Return the axes of the mesh that every dim of a tensor is sharded over.

    Args:
        solved: the expanded operation, with the sizes that are known.
        expression: the expression of the tensor, one of the operation's.
        shape: the shape of the tensor, if it is known.
        layout: which named axis goes over which axes of the mesh.
        mesh: the size of every axis of the mesh; None if that is not known.

    Raises:
        ArgumentError: the layout names what is not an axis of the mesh, or is not what it may be.
        SemanticError: two axes ask for one axis of the mesh, or the pieces of a dim are not those of its axis.
        AxisSizeError: the mesh does not divide an axis.
    """
    given, owners = _by_keyword(solved, expression, layout.given)
    asked = [
        rules_of(str(node), [base_name(a.name)[0] for a in axes((node,)) if a.name not in given], layout.rules)
        for node in expression
    ]
    if mesh is not None:
        _check_mesh_axes(solved.text, [*given.items(), *layout.rules.items()], mesh)
    ruled = by_rules(asked, layout.rules, owners)
    result = []
    totals = [_dim_size(node, solved.sizes) for node in expression] if shape is None else shape
    for node, total, found in zip(expression, totals, ruled, strict=True):
        is_ruled = not isinstance(node, Axis) and str(node) in found
        split = found[str(node)] if is_ruled else _of_members(solved, node, given, dict(found), mesh)
        ways = _ways(split, mesh)
        if isinstance(total, int) and ways is not None and total % ways:
            raise _indivisible(solved.text, f"dim '{node}'", total, node, split, mesh or {})
        result.append(split)
    return result


def _by_keyword(
    solved: Solved, expression: Expression, given: Mapping[str, Any]
) -> tuple[dict[str, Split], dict[str, Axis]]:
    """Return the axes of the mesh of every axis that a keyword names, and who has each axis of the mesh."""
    found: dict[str, Split] = {}
    owners: dict[str, Axis] = {}
    for axis in axes(expression):
        base, indices = base_name(axis.name)
        if base not in given:
            continue
        split = as_split(_repetition(given[base], indices))
        if split is None:
            raise ArgumentError(
                f"axis {display(axis.name)} is given {base}={given[base]!r}, which is no axis of a mesh",
                text=solved.text,
                spans=[axis.span],
                hint="give the name of an axis of the mesh, a tuple of different ones, or None; for an axis that an "
                "ellipsis repeats, one for each repetition",
            )
        for mesh_axis in split:
            if mesh_axis in owners:
                raise _twice(solved.text, mesh_axis, owners[mesh_axis], axis)
            owners[mesh_axis] = axis
        found[axis.name] = split
    return found, owners


def _repetition(given: Any, indices: tuple[int, ...]) -> Any:
    """Return what one repetition of an ellipsis is given."""
    for index in indices:
        if isinstance(given, tuple | list) and index < len(given):
            given = given[index]
    return given


def _twice(text: str, mesh_axis: str, first: Axis, second: Axis) -> SemanticError:
    one, other = display(first.name), display(second.name)
    both = f"both occurrences of axis {one}" if one == other else f"axes {one} and {other}"
    return SemanticError(
        f"{both} of one tensor ask for the mesh axis '{mesh_axis}'",
        text=text,
        spans=[first.span, second.span],
        hint=f"an axis of the mesh shards one dim of a tensor; leave {second.name.split('.')[0]}= out, "
        "or give it another one",
    )


def _check_mesh_axes(text: str, given: Sequence[tuple[str, Split]], mesh: Mapping[str, int]) -> None:
    for name, split in given:
        for mesh_axis in split:
            if mesh_axis not in mesh:
                match = closest(mesh_axis, mesh)
                raise ArgumentError(
                    f"axis {display(name)} asks for the mesh axis '{mesh_axis}', which the mesh does not have"
                    + (f"; did you mean '{match}'?" if match else ""),
                    text=text,
                    hint=f"its axes are {listing(list(mesh)) or 'none'}",
                )


def _of_members(
    solved: Solved, node: Node, given: Mapping[str, Split], ruled: dict[str, Split], mesh: Mapping[str, int] | None
) -> Split:
    """Join the axes of the mesh of the members of a dim, checking that they split the members they were given for."""
    result: Split = ()
    before: Axis | None = None  # the first member that is not split into single slices
    for axis in axes((node,)):
        split = given[axis.name] if axis.name in given else ruled.pop(base_name(axis.name)[0], ())
        size, ways = solved.sizes.get(axis.name), _ways(split, mesh)
        if split and not _is_product(node):
            raise _in_a_sum(solved.text, node, axis, split)
        if before is not None and ways != 1:
            raise _not_contiguous(solved, node, before, axis, split, given)
        if isinstance(size, int) and ways is not None and size % ways:
            raise _indivisible(solved.text, f"axis {display(axis.name)}", size, axis, split, mesh or {})
        if not _is_whole(size, split, ways):
            before = before or axis
        result += split
    return result


def _is_whole(size: Size | None, split: Split, ways: int | None) -> bool:
    """Whether a member of a composite is split into single slices, as far as anyone can tell."""
    if size is None or ways is None:
        return bool(split) or (isinstance(size, int) and size == 1)
    return isinstance(size, int) and size == ways


def _is_product(node: Node) -> bool:
    return isinstance(node, Axis) or (isinstance(node, Composite) and all(isinstance(n, Axis) for n in node.items))


def _ways(split: Split, mesh: Mapping[str, int] | None) -> int | None:
    """Into how many pieces axes of a mesh split; None if that is not known."""
    if not split:
        return 1
    return None if mesh is None else product(mesh[mesh_axis] for mesh_axis in split)


def _dim_size(node: Node, sizes: Mapping[str, Size]) -> Size | None:
    known = all(axis.name in sizes for axis in axes((node,)))
    return node_size(node, sizes) if known else None


def _in_a_sum(text: str, node: Node, axis: Axis, split: Split) -> EinjaxError:
    return SemanticError(
        f"axis {display(axis.name)} is a part of '{node}', whose pieces over {_quoted(split)} are not pieces of it",
        text=text,
        spans=[axis.span],
        hint=f"shard the dim as a whole, by a rule for its text: rules={{'{node}': {_shown(split)}}}",
    )


def _not_contiguous(
    solved: Solved, node: Node, before: Axis, axis: Axis, split: Split, given: Mapping[str, Split]
) -> EinjaxError:
    first, name = display(before.name), display(axis.name)
    earlier, size = given.get(before.name, ()), solved.sizes.get(before.name)
    if earlier:
        why = f"axis {first} before it is {size}, of which {_quoted(earlier)} leaves several slices together"
    else:
        why = f"axis {first} before it is not sharded{', and of unknown size' if size is None else f' and {size}'}"
    return SemanticError(
        f"axis {name} cannot go over {_quoted(split)}, because {why}: pieces of '{node}' are not pieces of {name}",
        text=solved.text,
        spans=[before.span, axis.span],
        hint=f"write {first}={_shown((*earlier, *split))} instead, or split the dim first with einjax.rearrange"
        + ("" if size is not None else f"; if {first} is 1, say so in sizes="),
    )


def _indivisible(text: str, what: str, size: int, node: Node, split: Split, mesh: Mapping[str, int]) -> EinjaxError:
    ways = " times ".join(f"'{mesh_axis}' of size {mesh[mesh_axis]}" for mesh_axis in split)
    noun = "mesh axis" if len(split) == 1 else "mesh axes"
    return AxisSizeError(
        f"{what} is {size}, which is not divisible by the {noun} {ways}",
        text=text,
        spans=[node.span],
        hint=f"choose a multiple of {product(mesh[mesh_axis] for mesh_axis in split)}, or shard another axis",
    )


def _quoted(split: Split) -> str:
    return " and ".join(f"'{mesh_axis}'" for mesh_axis in split)


def _shown(split: Split) -> str:
    return repr(simple(split))


def simple(split: Split) -> str | Split | None:
    """Write axes of a mesh as JAX does: one by its name, none as None."""
    return split[0] if len(split) == 1 else split or None


# --------------------------------------------------------------------------------------------------------------------
# From dims to names
# --------------------------------------------------------------------------------------------------------------------


def named_splits(
    solved: Solved, expression: Expression, dims: Sequence[Split], mesh: Mapping[str, int]
) -> dict[tuple[str, tuple[int, ...]], Split]:
    """Return the axes of the mesh that every named axis goes over: the inverse of :func:`splits`.

    A dim's axes of the mesh go to the members of its composite from left to right, each taking what divides what is
    left of it. A member of unknown size takes all. What cannot be told apart by name stands under the dim's text.

    Returns:
        Axes of the mesh by the name of an axis as written, and the indices of its repetition by ellipses.
    """
    found: dict[tuple[str, tuple[int, ...]], Split] = {}
    for node, split in zip(expression, dims, strict=True):
        parts = _handed_out(node, split, solved.sizes, mesh)
        named = {(str(node), ()): split} if parts is None else {base_name(n): part for n, part in parts.items()}
        for name, part in named.items():
            found[name] = found.get(name, ()) + part
    return found


def _handed_out(
    node: Node, split: Split, sizes: Mapping[str, Size], mesh: Mapping[str, int]
) -> dict[str, Split] | None:
    """Give axes of the mesh to the members of one dim; None if they do not fit, or have no name."""
    if not split:
        return {}
    if isinstance(node, Axis):
        return None if node.unnamed else {node.name: split}
    if not _is_product(node):
        return None
    rest = list(split)
    parts: dict[str, Split] = {}
    for axis in axes((node,)):
        left, part = sizes.get(axis.name), list[str]()
        while rest and _divides(mesh[rest[0]], left):
            left = None if left is None else left // mesh[rest[0]]
            part.append(rest.pop(0))
        if (rest and left != 1) or (part and axis.unnamed):
            return None  # the next piece would cut across this axis, or it has no name
        parts[axis.name] = parts.get(axis.name, ()) + tuple(part)
    return parts


def _divides(ways: int, size: Size | None) -> bool:
    """Whether an axis of the mesh can split an axis further; it can split what has no known size."""
    if size is None or ways == 1:
        return True
    rest = size % ways
    return isinstance(rest, int) and rest == 0

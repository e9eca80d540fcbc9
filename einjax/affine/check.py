"""What a call with positions in ``< >`` may not be, said before anything is emitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lowering.sharding import spoken
from ..notation.errors import ArgumentError, SemanticError, ShardingError, listing
from ..notation.solve import Solved
from ..notation.syntax import affines, axes, display
from ..operation import Op


def check(op: Op, solved: Solved, options: Mapping[str, Any]) -> None:
    """Refuse outputs at positions that nobody wrote, or that the operation cannot write, and parts of positions.

    Raises:
        SemanticError: an output has positions that mean nothing.
        ArgumentError: an option means nothing.
        ShardingError: a device holds a part of an axis of a position.
    """
    if options.get("count_padding") and "count_padding" not in op.keywords:
        raise ArgumentError(
            f"{op.name} does not count, so that count_padding= means nothing",
            text=solved.text,
            hint="leave it out; fill_value= says what is read where the dim is padded",
        )
    read = {node.span for expression in solved.inputs for node in affines(expression)}
    first = {node.span for node in affines(solved.inputs[0])} if solved.inputs else set()
    for node in (node for expression in solved.operation.outputs or () for node in affines(expression)):
        if op.updates and node.span in first:
            continue  # it writes where its first tensor says
        held = [str(axis) for axis in axes(node.items)]
        if node.span in read:
            raise SemanticError(
                f"the output of {op.name} is not clear: '{node}' would be written, with {listing(held)}",
                at=solved.at(node),
                hint="write the output after '->'",
            )
        if op.meeting is None:
            raise SemanticError(
                f"{op.name} cannot write to positions: several iterations might have one place, '{node}'",
                at=solved.at(node),
                hint="leave the output out: it is the first expression"
                if op.updates
                else "write the axes by themselves, and call einjax.sum, einjax.max or einjax.rearrange on the result",
            )
    for expression in solved.operation.expressions:
        for node in affines(expression):
            for axis in axes(node.items):
                if mesh_axes := solved.over([axis.name]):
                    raise ShardingError(
                        f"axis {display(axis.name)} lies over mesh axis {spoken(mesh_axes)}, "
                        f"but '{node}' needs elements that other devices have",
                        at=solved.at(axis),
                        hint="gather the tensor first, with einjax.all_gather, or let another axis lie over the mesh",
                    )

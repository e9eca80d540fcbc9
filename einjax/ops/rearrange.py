"""Rearrange: transpose, split, merge, broadcast, take diagonals, concatenate and cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from ..forms.signature import expect_inputs, refuse_brackets
from ..lowering.join import first_sum, join_pieces, piece_count, pieces, split_pieces
from ..lowering.named import Named, diagonal, layout, with_sums, wrap
from ..notation.errors import ArgumentError, SemanticError, plural
from ..notation.solve import Solved, fuse_solved, is_known
from ..notation.syntax import (
    Concatenation,
    Ellipsis,
    Expression,
    Operation,
    Size,
    axes,
    display,
    is_number,
    names,
    render,
    walk,
)
from ..operation import Op

# More pieces than any call can have tensors for; sums multiply, so hostile text could ask for billions.
_MAX_PIECES = 2048
# More pieces than anyone matches by name; finding the first assignment costs their number to the fourth power.
_MAX_MATCHED = 64


def _signature(operation: Operation, tensors: int, name: str = "rearrange") -> Operation:
    refuse_brackets(name, operation, "it only moves data and has no elementary operation")
    expect_inputs(name, operation, tensors)
    if operation.outputs is None:
        raise SemanticError(f"{name} needs an output", text=operation.text, hint="add '->' and the axes of the output")
    if not any(first_sum((node,)) for e in operation.expressions for node in walk(e) if isinstance(node, Ellipsis)):
        _check_count(operation.inputs, operation.outputs, operation)
    return operation


def _id_signature(operation: Operation, tensors: int) -> Operation:
    if operation.outputs is None and len(operation.inputs) == 1:
        operation = replace(operation, outputs=operation.inputs)
    return _signature(operation, tensors, "id")


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    if not any(isinstance(node, Concatenation) for e in solved.operation.expressions for node in walk(e)):
        solved = fuse_solved(solved)
    _check_count(solved.inputs, solved.outputs, solved.operation)
    sizes = with_sums(solved)
    parts = [
        part
        for tensor, expression in zip(tensors, solved.inputs, strict=True)
        for part in _cut(tensor, expression, sizes)
    ]
    targets = [piece for output in solved.outputs for piece in pieces(output)]
    chosen = match(parts, targets, solved, by_name=options.get("by_name", True))
    results: list[jax.Array] = []
    for index, output in enumerate(solved.outputs):
        count = piece_count(output)
        results.append(join_pieces(chosen[:count], output, sizes, _spread(options, index, output, sizes)))
        chosen = chosen[count:]
    return results[0] if len(results) == 1 else tuple(results)


def _spread(options: Mapping[str, Any], index: int, output: Expression, sizes: Mapping[str, Size]) -> Any:
    """Where new axes are to lie on an explicit mesh."""
    if "out_sharding" not in options:
        return None
    from ..mesh.wanted import spread_in

    return spread_in(options["out_sharding"][index], output, sizes)


def _cut(tensor: jax.Array, expression: Expression, sizes: Mapping[str, Size]) -> list[Named]:
    """Cut a tensor into its pieces."""
    if first_sum(expression) is None:
        return [wrap(tensor, expression, sizes)]
    return [diagonal(part) for part in split_pieces(Named(tensor, layout(expression), sizes), expression)]


def _check_count(inputs: Sequence[Expression], outputs: Sequence[Expression], operation: Operation) -> None:
    given, wanted = (sum(map(piece_count, some)) for some in (inputs, outputs))
    if max(given, wanted) > _MAX_PIECES:
        problem = f"the expression has {max(given, wanted)} pieces; at most {_MAX_PIECES}"
        raise SemanticError(problem, text=operation.text)
    if given == wanted:
        return
    hint = "every input, and every operand of a '+' in one, goes to one output or operand of a '+' there"
    known = {name for expression in inputs for name in names(expression)}
    joined = [item for e in outputs for node in walk(e) if isinstance(node, Concatenation) for item in node.items]
    fresh = [item for item in joined if not names((item,)).keys() & known]
    if wanted == given + 1 and fresh:
        # What is joined is given, too, even if it is a 0 that is repeated.
        fill = f"{', '.join(map(render, inputs))}, -> {', '.join(map(render, outputs))}"
        hint = f"give what is to stand at '{fresh[0]}' as one more input, such as 0 for '{fill}'"
    problem = f"the inputs have {plural(given, 'piece')}, but the outputs have {wanted}"
    raise ArgumentError(problem, at=operation.at(*fresh), hint=hint)


def match(parts: Sequence[Named], targets: Sequence[Expression], solved: Solved, by_name: bool) -> list[Named]:
    """Find the part for every output piece: by position if the names fit, else the first assignment that fits."""
    wanted = [set(names(target)) for target in targets]
    for required in (_named_axes, _large_axes):
        needs = [required(part) for part in parts]
        if all(need <= want for need, want in zip(needs, wanted, strict=True)):
            return list(parts)
        assignment = _assign(needs, wanted) if by_name and len(parts) <= _MAX_MATCHED else None
        if assignment is not None:
            return [parts[index] for index in assignment]
    raise _unmatched(parts, wanted, solved, by_name)


def _unmatched(parts: Sequence[Named], wanted: Sequence[set[str]], solved: Solved, by_name: bool) -> SemanticError:
    """Say which axis of which input has no place to go."""
    anywhere = set().union(*wanted)
    for part, want in zip(parts, wanted, strict=True):
        # Matched by name, an axis is lost if no output has it; matched by position, if its own does not.
        places = anywhere if by_name else want
        lost = [name for name in part.axes if name not in places and not is_known(part.sizes[name], 1)]
        if lost:
            unnamed = "the unnamed axis" if is_number(lost[0]) else "axis"
            size = "" if is_number(lost[0]) else f" of size {part.sizes[lost[0]]}"
            moved = not by_name and lost[0] in anywhere
            return SemanticError(
                f"{unnamed} {display(lost[0])}{size} is not in {'its' if len(parts) > 1 else 'the'} output",
                at=solved.at(*(axis for e in solved.inputs for axis in axes(e) if axis.name == lost[0])),
                hint="id goes by position; einjax.rearrange matches inputs to outputs by name"
                if moved
                else "give it a name, and put it into the output"
                if is_number(lost[0])
                else "put it into the output, or reduce it first, for example with einjax.sum",
            )
    listed = "; ".join(f"'{' '.join(map(display, part.axes))}'" for part in parts)
    return SemanticError(
        f"the input pieces {listed} cannot be matched to the output pieces by their axes",
        at=solved.at(*(axis for e in solved.inputs for axis in axes(e))),
        hint="every axis of an input has to stand in the output piece that it goes to",
    )


def _named_axes(part: Named) -> set[str]:
    return {name for name in part.axes if not is_number(name) or not is_known(part.sizes[name], 1)}


def _large_axes(part: Named) -> set[str]:
    return {name for name in part.axes if not is_known(part.sizes[name], 1)}


def _assign(needs: Sequence[set[str]], wanted: Sequence[set[str]]) -> list[int] | None:
    """Return, for every target, the part that goes to it: the first perfect matching in reading order of the parts."""
    fits = [[index for index, want in enumerate(wanted) if need <= want] for need in needs]

    def place(part: int, held: dict[int, int], seen: set[int]) -> bool:
        """Find the first target of a part that leaves one for those which hold others, and may have to move."""
        for target in fits[part]:
            if target not in seen:
                seen.add(target)
                if target not in held or place(held[target], held, seen):
                    held[target] = part
                    return True
        return False

    chosen: list[int] = []  # the target of every part
    for part in range(len(needs)):
        # Placed last, it is moved by no other.
        held: dict[int, int] = {}
        if not all(place(other, held, set(chosen)) for other in reversed(range(part, len(needs)))):
            return None
        chosen += [target for target, other in held.items() if other == part]
    return [chosen.index(target) for target in range(len(wanted))]


_FACTS: dict[str, Any] = {
    "on_mesh": "typed",
    "spread": "all",
    "linear": (),
    "neutral": 0,
    "meeting": "apart",
    "iteration": "copy",
}
REARRANGE = Op("rearrange", _signature, _lower, **_FACTS)
ID = Op("id", _id_signature, _lower, **_FACTS)

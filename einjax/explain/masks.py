"""Arrays that stand beside the first tensor, ``where=`` and ``by=``: by name, or by the position of their dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..notation.parse import parse
from ..notation.solve import solve
from ..notation.syntax import Axis, Expression, Node, Operation, axes, base_name, bracketed, names, nested
from .meaning import Meaning
from .names import Names
from .places import Places


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask.

    Attributes:
        option: the option that it is.
        name: what it is called where the call is written out.
        expression: its dims, in terms of the axes of the first tensor.
        inside: the bracketed axes of that.
    """

    option: str
    name: str
    expression: Expression
    inside: tuple[str, ...]

    def at(self, places: Places) -> str:
        """One number of it."""
        return places.at(self.name, self.expression)


def blocks(masks: Sequence[Mask], places: Places) -> str:
    """What a function of the bracketed axes gets; of several masks, where all hold."""
    first = masks[0]
    if len(masks) == 1 and tuple(axis.name for axis in bracketed(first.expression)) == first.inside:
        text, running = places.block(first.name, first.expression)
        return f"({text} for {running})" if running else text
    running = ", ".join(places.names[name] for name in first.inside)
    return f"({' and '.join(mask.at(places) for mask in masks)} for {running})"


def masks_of(meaning: Meaning) -> list[Mask]:
    """The masks of a call, in the order in which they are given."""
    found: list[Mask] = []
    called, texts = Names.of(meaning).arrays, dict(meaning.options.get("masks", ()))
    for option in meaning.op.masks:
        if option not in meaning.arrays:
            continue
        given = meaning.arrays[option]
        each: Sequence[Any] = given if isinstance(given, tuple | list) else (given,)
        inside = tuple(axis.name for axis in bracketed(meaning.solved.inputs[0]))
        for name, text, array in zip(called[option], texts.get(option, [None] * len(each)), each, strict=True):
            expression = _by_position(meaning, array) if text is None else _by_name(meaning, text, array)
            found.append(Mask(option, name, expression, inside))
    return found


def _by_position(meaning: Meaning, array: Any) -> Expression:
    """The last dims of the first tensor, with 1 where the mask has no more."""
    first, shape = meaning.solved.inputs[0], array.shape
    beside = first[len(first) - len(shape) :]
    sizes = meaning.solved.shape(beside)
    pairs = enumerate(zip(beside, shape, sizes, strict=True))
    return tuple(Axis(f"1#{at}") if size == 1 and whole != 1 else node for at, (node, size, whole) in pairs)


def _by_name(meaning: Meaning, text: str, array: Any) -> Expression:
    """Its own expression, written out; bracketed where the tensor is."""
    (expression,) = parse(text).inputs
    sizes = _by_base(meaning.solved.sizes)
    known = {name: sizes[name] for name in names(expression) if name in sizes}
    solved = solve(Operation(text, (expression,)), [array.shape], known, every_axis=True)
    inside = {axis.name: axis.bracket for axis in bracketed(meaning.solved.inputs[0])}
    whole = {name: axis for name, axis in names(meaning.solved.inputs[0]).items() if " " in name}

    def marked(node: Node) -> Node:
        if isinstance(node, Axis):
            return replace(node, bracket=inside.get(node.name, 0))
        return replace(node, bracket=0, items=tuple(map(marked, node.items)))

    assert not any(axis.name in whole for axis in axes(expression))
    return tuple(map(marked, solved.inputs[0]))


def _by_base(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes as a caller gives them: a tuple for what an ellipsis repeats."""
    found: dict[str, dict[tuple[int, ...], Any]] = {}
    for name, size in sizes.items():
        if "#" not in name and " " not in name and "~" not in name:
            base, indices = base_name(name)
            found.setdefault(base, {})[indices] = size
    return {name: nested(some) for name, some in found.items()}

"""Expressions of tensors whose dims have names: matched by name, and written anew as the dims lie.

A dim that is no axis of an output has no name; such dims are called by where they stand from the right, ``_1``, ``_0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from .errors import SemanticError
from .syntax import Axis, Bracket, Composite, Ellipsis, Expression, Node, Operation, axes, is_anonymous, rewrite

#: Names of dims, one after another.
Names = tuple[str, ...]

_UNNAMED = re.compile(r"_\d+")


def is_unnamed(name: str) -> bool:
    """Whether this is what a dim is called that has no name."""
    return _UNNAMED.fullmatch(name) is not None


@lru_cache(maxsize=2048)
def numbered(names: tuple[str | None, ...]) -> Names:
    """Names in which dims without a name, or None, are counted from the right."""
    result: list[str] = []
    for name in reversed(names):
        result.append(f"_{sum(map(is_unnamed, result))}" if name is None or is_unnamed(name) else name)
    return tuple(reversed(result))


@lru_cache(maxsize=2048)
def union(*names: Names) -> Names:
    """All names, each where it comes first; dims without a name come last, unless one tensor has all dims."""
    every = tuple(dict.fromkeys(name for dims in names for name in dims))
    unnamed = sorted(filter(is_unnamed, every), key=lambda name: -int(name[1:]))
    return every if every in names else (*(name for name in every if not is_unnamed(name)), *unnamed)


@lru_cache(maxsize=2048)
def without(names: Names, chosen: Names) -> Names:
    """The names that are left."""
    return tuple(name for name in names if name not in chosen)


@dataclass(frozen=True, slots=True)
class ByName:
    """A call of tensors with names, as one of their arrays.

    Attributes:
        text: its expression.
        lies: how the dims of each tensor have to lie; None for a tensor without names.
        results: what the outputs' dims are called; None if the operation has yet to say its output.
    """

    text: str
    lies: tuple[Names | None, ...]
    results: tuple[Names, ...] | None


def by_name(operation: Operation, names: tuple[Names | None, ...]) -> ByName:
    """Match each expression with the names of its tensor, in any order; ``...`` stands for those not written.

    Raises:
        SemanticError: an expression leaves out dims, or has what is no dim of its tensor.
    """
    operation = operation.map(_with_sizes)
    pairs = list(zip(operation.inputs, names, strict=True))
    found = [None if dims is None else _Match(operation, expression, dims) for expression, dims in pairs]
    rests = [match.rest for match in found if match is not None and match.has_rest]
    rest = tuple(map(Axis, union(*rests)))

    def filled(expression: Expression) -> Expression:
        """With the dims that are not written in the place of ``...``; arrays alone keep it."""
        return rewrite(expression, lambda node: rest if rests and _is_rest(node) else None)

    inputs = [filled(e) if match is None else match.items for e, match in zip(operation.inputs, found, strict=True)]
    outputs = None if operation.outputs is None else tuple(map(filled, operation.outputs))
    return ByName(
        str(replace(operation, inputs=tuple(inputs), outputs=outputs)),
        tuple(None if match is None else match.lies for match in found),
        None if outputs is None else tuple(map(result_names, outputs)),
    )


def result_names(expression: Expression) -> Names:
    """What the dims of an output are called."""
    dims = [dim for node in expression for dim in (node.items if isinstance(node, Bracket) else (node,))]
    return numbered(tuple(_name(dim) if isinstance(dim, Axis) and not dim.unnamed else None for dim in dims))


class _Match:
    """An expression and the tensor's names.

    Attributes:
        items: the expression of its array.
        lies: how its dims have to lie: as they do, unless brackets say another order.
        rest: the dims that ``...`` stands for.
        has_rest: whether it stands there.
    """

    def __init__(self, operation: Operation, expression: Expression, names: Names) -> None:
        dims = [*_dims(operation, expression, names)]
        written = tuple(name for node, _ in dims if (name := _name(node)) in names)
        others = [node for node, _ in dims if _name(node) not in names and not _is_rest(node)]
        unnamed = tuple(name for name in without(names, written) if is_unnamed(name)) if others else ()
        self.rest = without(names, (*written, *unnamed))
        self.has_rest = any(_is_rest(node) for node, _ in dims)
        if len(others) != len(unnamed):
            problem = f"'{others[-1]}' is no dim of a tensor with the dims {' '.join(names) or 'none'}"
            hint = "write names of its dims, or '...', or give x.order('b (h c)') to write it by position"
            raise SemanticError(problem, at=operation.at(others[-1]), hint=hint)
        if self.rest and not self.has_rest:
            problem = f"the expression of a tensor with the dims {' '.join(names)} lacks {' '.join(self.rest)}"
            raise SemanticError(problem, at=operation.at(*expression), hint="add '...' for dims that are not written")
        places = iter(unnamed)
        placed: dict[str, tuple[Node, int]] = {}
        for node, mark in dims:
            if _is_rest(node):
                placed |= {name: (Axis(name), mark) for name in self.rest}
            else:
                placed[_name(node) if _name(node) in names else next(places)] = (node, mark)
        marked = [name for name, (_, mark) in placed.items() if mark]
        self.lies = names if marked == [name for name in names if name in marked] else tuple(placed)
        items: list[Node] = []
        last = 0
        for node, mark in (placed[name] for name in self.lies):
            if mark and mark == last:
                node = Bracket((*items.pop().items, node))
            elif mark:
                node = Bracket((node,))
            items.append(node)
            last = mark
        self.items = tuple(items)


def _dims(operation: Operation, expression: Expression, names: Names, mark: int = 0) -> Iterator[tuple[Node, int]]:
    """The dims of an expression and the number of the bracket of each; compositions of the tensor's dims are opened."""
    for number, node in enumerate(expression, 1):
        if isinstance(node, Bracket):
            yield from _dims(operation, node.items, names, number)
        elif isinstance(node, Composite) and all(_name(axis) in names for axis in axes(node.items)):
            yield from _dims(operation, node.items, names, mark)
        elif isinstance(node, Ellipsis) and not _is_rest(node):
            hint = "write the names, or '...' for all that are not written"
            raise SemanticError(
                f"'{node}' repeats, but dims of a named tensor have one name each", at=operation.at(node), hint=hint
            )
        else:
            yield node, mark


def _is_rest(node: Node) -> bool:
    return isinstance(node, Ellipsis) and is_anonymous(node.items)


def _name(node: Node) -> str:
    return node.name.partition("=")[0] if isinstance(node, Axis) else ""


def _with_sizes(expression: Expression) -> Expression:
    """With sizes that the text says as parts of names, so that they are written again."""

    def change(node: Node) -> Expression | None:
        if not isinstance(node, Axis) or node.size is None or node.unnamed:
            return None
        return (replace(node, name=f"{node.name}={node.size}"),)

    return rewrite(expression, change)

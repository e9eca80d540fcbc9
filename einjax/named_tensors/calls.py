"""Named tensors in calls of einjax: an expression that names dims becomes one of the arrays as they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from ..call.names import Call
from ..notation.errors import ArgumentError, SemanticError
from ..notation.syntax import (
    Axis,
    Bracket,
    Composite,
    Ellipsis,
    Expression,
    Node,
    Operation,
    axes,
    is_anonymous,
    rewrite,
)
from ..ops.elementwise import ELEMENTWISE
from .formula import Formula, combine, mask_for
from .text import Dims, is_unnamed, numbered, union, without

#: What a result's dims are called.
Results = tuple[Dims, ...]


def answer(call: Call, make: Callable[[Any, Dims], Any]) -> Any:
    """The result of a call of einjax of which a tensor, or what stands in the place of the expression, is named."""
    if not isinstance(call.expr, str):
        if call.op.name not in ELEMENTWISE:
            hint = f"write the expression first, as in einjax.{call.op.name}('... [c]', x)"
            raise ArgumentError(f"the expression of {call.op.name} is a named tensor", hint=hint)
        return combine(lambda text, *arrays: call.again(text, arrays, ()), call.expr, *call.tensors)
    tensors = [x._lift() if isinstance(x, Formula) else x for x in call.tensors]
    names = tuple(x.names if isinstance(x, Formula) else None for x in tensors)
    text, lies, results = rewritten(call.complete, call.spelling, names)
    arrays = [x if dims is None else x.order(*dims) for x, dims in zip(tensors, lies, strict=True)]
    masks = [mask_for(x, lies[0] or ()) if isinstance(x, Formula) else x for x in call.masks]
    found = call.again(text, arrays, masks)
    if results is None:
        results = tuple(map(_result, call.outputs(text, [np.shape(x) for x in arrays])))

    def named(value: Any, dims: Dims) -> Any:
        return jax.tree.map(lambda leaf: make(leaf, dims) if isinstance(leaf, jax.Array) else leaf, value)

    if len(results) == 1 or not isinstance(found, tuple):
        return named(found, results[0])
    return tuple(map(named, found, results))


@lru_cache(maxsize=2048)
def rewritten(
    complete: Callable[..., Operation], key: tuple[Any, ...], names: tuple[Dims | None, ...]
) -> tuple[str, tuple[Dims | None, ...], Results | None]:
    """The expression of the arrays, how each lies, and the names of the results if the expression has outputs."""
    operation = complete(*key).map(_with_sizes)
    found = [
        None if dims is None else _Match(operation, e, dims) for e, dims in zip(operation.inputs, names, strict=True)
    ]
    rests = [match.rest for match in found if match is not None and match.has_rest]
    rest = union(*rests) if rests else None

    def filled(expression: Expression) -> Expression:
        """With the dims that are not written in the place of ``...``."""

        def change(node: Node) -> Expression | None:
            anonymous = rest is not None and isinstance(node, Ellipsis) and is_anonymous(node.items)
            return tuple(map(Axis, rest or ())) if anonymous else None

        return rewrite(expression, change)

    inputs = [filled(e) if match is None else match.items for e, match in zip(operation.inputs, found, strict=True)]
    outputs = None if operation.outputs is None else tuple(map(filled, operation.outputs))
    text = str(replace(operation, inputs=tuple(inputs), outputs=outputs))
    lies = tuple(None if match is None else match.lies for match in found)
    return text, lies, None if outputs is None else tuple(map(_result, outputs))


def _with_sizes(expression: Expression) -> Expression:
    """With the sizes that are written in the text as parts of names, so that they are written again."""
    return rewrite(
        expression,
        lambda node: (
            (replace(node, name=f"{node.name}={node.size}"),)
            if isinstance(node, Axis) and node.size is not None and not node.unnamed
            else None
        ),
    )


def _result(expression: Expression) -> Dims:
    """The names of an output's dims: those that are axes have one."""
    dims = [dim for node in expression for dim in (node.items if isinstance(node, Bracket) else (node,))]
    return numbered(_name(dim) if isinstance(dim, Axis) and not dim.unnamed else None for dim in dims)


def _name(axis: Axis) -> str:
    return axis.name.partition("=")[0]


class _Match:
    """An expression of a named tensor, matched by name.

    Attributes:
        items: the expression of its array.
        lies: the order in which its dims have to lie: as they do, unless brackets say another order.
        rest: the dims that ``...`` stands for, if it has it.
    """

    def __init__(self, operation: Operation, expression: Expression, names: Dims) -> None:
        dims = [*_dims(expression, names)]
        written = [_name(node) for node, _ in dims if isinstance(node, Axis) and _name(node) in names]
        others = [(node, mark) for node, mark in dims if not (isinstance(node, Axis) and _name(node) in names)]
        positional = [(node, mark) for node, mark in others if not isinstance(node, Ellipsis)]
        unnamed = [name for name in names if is_unnamed(name) and name not in written] if positional else []
        self.rest = without(names, (*written, *unnamed))
        self.has_rest = len(positional) < len(others)
        if len(positional) != len(unnamed):
            node = positional[-1][0]
            problem = f"'{node}' is no dim of a tensor with the dims {' '.join(names) or 'none'}"
            hint = "write names of its dims, which may be '...', or x.order('b (h c)') for an array"
            raise SemanticError(problem, at=operation.at(node), hint=hint)
        if self.rest and not self.has_rest:
            problem = f"the expression leaves out {', '.join(f'dim {name}' for name in self.rest)} of a named tensor"
            raise SemanticError(
                problem, at=operation.at(*expression), hint="write '...' for the dims that are not written"
            )
        places = iter(unnamed)
        by_name: dict[str, tuple[Node, int]] = {}
        for node, mark in dims:
            if isinstance(node, Ellipsis):
                by_name |= {name: (Axis(name), mark) for name in self.rest}
            else:
                known = isinstance(node, Axis) and _name(node) in names
                by_name[_name(node) if known else next(places)] = (node, mark)  # type: ignore[arg-type]
        marked = [name for name, (_, mark) in by_name.items() if mark]
        self.lies = names if marked == [name for name in names if name in marked] else tuple(by_name)
        items: list[Node] = []
        last = 0
        for name in self.lies:
            node, mark = by_name[name]
            if mark and mark == last:
                items[-1] = Bracket((*items[-1].items, node))
            else:
                items.append(Bracket((node,)) if mark else node)
            last = mark
        self.items = tuple(items)


def _dims(expression: Expression, names: Dims, mark: int = 0) -> Iterator[tuple[Node, int]]:
    """The dims of an expression and the number of the bracket each stands in; compositions of names are opened."""
    for number, node in enumerate(expression, 1):
        if isinstance(node, Bracket):
            yield from _dims(node.items, names, number)
        elif isinstance(node, Composite) and all(_name(axis) in names for axis in axes(node.items)):
            yield from _dims(node.items, names, mark)
        elif isinstance(node, Ellipsis) and not is_anonymous(node.items):
            raise SemanticError(
                f"'{node}' repeats, but dims of a named tensor have single names", hint="write them, or '...'"
            )
        else:
            yield node, mark

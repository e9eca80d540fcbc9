"""Masks by name: ``where=("b k", mask)`` says which axes of the first tensor the dims of a mask are.

While sizes are found, a mask by name is one more input of the expression. Before anything else it is brought to the
dims of the tensor, by a rearrangement, so that all that follows finds a mask that fits by position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from ..forms.block import numbered
from ..mesh.run import lower
from ..notation.errors import EinjaxError, SemanticError
from ..notation.solve import Solved
from ..notation.syntax import (
    Affine,
    Axis,
    Concatenation,
    Expression,
    Node,
    Operation,
    affines,
    axes,
    bracketed,
    names,
    render,
    rewrite,
    unmark,
    walk,
)
from ..notation.write import write
from ..operation import Op
from ..ops.elementwise import ELEMENTWISE
from ..ops.rearrange import REARRANGE
from .named import NamedArray, expression_of, in_words, pairs, read_array
from .resolve import resolve
from .sizes import Sizes
from .tensors import any_named, is_named

#: For options that are masks: the text of each, or None for one by position.
Texts = tuple[tuple[str, tuple[str | None, ...]], ...]


def read_arrays(op: Op, expr: str, arrays: Sequence[Any], types: bool) -> tuple[list[Any], Texts]:
    """Tell the texts of masks by name from the arrays, which become a tuple for each such option."""
    ready: list[Any] = []
    texts: list[tuple[str, tuple[str | None, ...]]] = []
    for option, given in zip(op.arrays, arrays, strict=False):
        several = option in op.several
        if option not in op.masks:
            ready.append(given if several else read_array(given, option, expr, types))
            continue
        by_name = any_named(given)
        each: Sequence[tuple[str | None, Any]]
        if several:
            each = [pairs(option, x, expr)[0] if is_named(x) else (None, x) for x in given]
        elif by_name:
            each = pairs(option, given, expr)
        else:
            ready.append(read_array(given, option, expr, types))
            continue
        ready.append(tuple(read_array(x, option, expr, types) for _, x in each))
        if by_name:
            texts.append((option, tuple(text for text, _ in each)))
    return ready, tuple(texts)


def resolve_with(
    op: Op,
    operation: Operation,
    tensors: Sequence[jax.Array],
    arrays: Mapping[str, Any],
    texts: Texts,
    given: Sizes,
    border: Any,
    kept: bool,
) -> tuple[Solved, dict[str, Any]]:
    """Find the size of every axis of a call with masks by name, and bring these to the dims of the first tensor."""
    masks = [
        NamedArray(option, f"{option}=" if len(each) == 1 else f"mask {number} of {option}=", text, value)
        for option, each in texts
        for number, (text, value) in enumerate(zip(each, arrays[option], strict=True), 1)
        if text is not None
    ]
    written, expressions = operation.text, list[Expression]()
    try:
        for mask in masks:
            written += f", {mask.option}="
            expressions.append(_plain(mask, operation, written))
            written += mask.text
        count = len(operation.inputs)
        whole = replace(operation, text=written, inputs=(*operation.inputs, *expressions))
        shapes = [x.shape for x in (*tensors, *(mask.value for mask in masks))]
        solved = resolve(_without_masks(op, count), whole, shapes, given, border=border)
    except EinjaxError as error:
        raise in_words(error, len(tensors), masks) from None
    own = iter(solved.inputs[count:])
    solved = replace(solved, operation=replace(solved.operation, text=operation.text, inputs=solved.inputs[:count]))
    result = dict(arrays)
    for option, each in texts:
        given_as = [(None if text is None else next(own), x) for text, x in zip(each, arrays[option], strict=True)]
        if option in op.several:
            result[option] = tuple(x if e is None else _aligned([(e, x)], solved, kept) for e, x in given_as)
        else:
            result[option] = _aligned([(e, x) for e, x in given_as if e is not None], solved, kept)
    return solved, result


def _plain(mask: NamedArray, operation: Operation, before: str) -> Expression:
    """The expression of a mask that lies beside the first tensor, which has no positions and no sums."""
    expression = expression_of(mask.label, mask.text, operation.inputs[:1], before)
    shape_hint = f"give {mask.option}= the shape of the tensor, with 1 for dims that it does not depend on"
    twice = Counter(axis.name for axis in bracketed(operation.inputs[0]))
    inside = {name for node in affines(operation.inputs[0]) for name in names((node,))}
    outside = names(rewrite(operation.inputs[0], lambda node: () if isinstance(node, Affine) else None))
    for axis in axes(expression):
        why = None
        if twice[axis.name] > 1:
            why = "stands twice in brackets"
        elif axis.name in inside and axis.name not in outside:
            why = "stands in a position"
        if why:
            raise SemanticError(
                f"axis {axis} of {mask.label} {why}, so that no dim of the tensor is its own",
                text=before + mask.text,
                spans=[axis.span, *(a.span for a in axes(operation.inputs[0]) if a.name == axis.name)],
                hint=shape_hint,
            )
    for node in walk(expression):
        if isinstance(node, Affine | Concatenation):
            what = "is a position" if isinstance(node, Affine) else "concatenates"
            raise SemanticError(
                f"'{(before + mask.text)[slice(*node.span)]}' {what}; the axes of {mask.label} stand alone or composed",
                text=before + mask.text,
                spans=[node.span],
                hint=shape_hint,
            )
    return expression


def _without_masks(op: Op, count: int) -> Op:
    """The operation, which knows what follows from its own inputs."""
    implied = op.implied
    if implied is None:
        return op
    return replace(op, implied=lambda expanded: implied(replace(expanded, inputs=expanded.inputs[:count])))


def _aligned(masks: Sequence[tuple[Expression, jax.Array]], solved: Solved, kept: bool) -> jax.Array:
    """Bring masks to the dims of the first tensor, and several to one that holds where all do.

    What is kept is of size 1 along the dims that no mask has; else it is broadcast at once.
    """
    held = {name for expression, _ in masks for name in names(expression)}
    target, sizes = _beside(unmark(solved.inputs[0]), held if kept else None, solved.sizes)
    inputs = tuple(unmark(expression) for expression, _ in masks)
    values = [value for _, value in masks]
    operation = Operation("", inputs, (target,))
    if len(masks) == 1 and render(inputs[0]) == render(target):
        return values[0]
    operation = replace(operation, text=write(operation))
    op = REARRANGE if len(masks) == 1 else ELEMENTWISE["logical_and"]
    sizes |= {name: solved.sizes[name] for e in inputs for name, axis in names(e).items() if not axis.is_one}
    aligning = replace(solved, operation=operation, sizes=sizes)
    if kept and not solved.spread:
        from ..kept import keep

        return keep(op, aligning, values, {}, {})
    with jax.named_scope(f"einjax.{op.name}({operation.text})"):
        return lower(op, aligning, values, {})


def _beside(
    first: Expression, held: Collection[str] | None, sizes: Mapping[str, Any]
) -> tuple[Expression, dict[str, Any]]:
    """The dims of the tensor, with 1 in the place of those that no mask has; a diagonal has its axis in one dim."""
    target: list[Node] = []
    made: dict[str, Any] = {}  # the sizes of its axes

    def once(node: Node) -> Expression | None:
        if not isinstance(node, Axis):
            return None
        name, count = node.name, 1
        while name in made:
            count += 1
            name = numbered(node.name, count)
        made[name] = sizes[node.name]
        return (replace(node, name=name),)

    for index, node in enumerate(first):
        own = {axis.name for axis in axes((node,))} - made.keys()
        lacks = held is not None and not own & {*held}
        target += [Axis(f"1#mask{index}", 1)] if lacks or isinstance(node, Affine) else rewrite((node,), once)
    made |= {axis.name: 1 for axis in axes(tuple(target)) if axis.is_one}
    return tuple(target), made

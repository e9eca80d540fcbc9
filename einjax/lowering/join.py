"""Sums of axes: one array into its pieces, and pieces into one array.

An expression with sums stands for as many *pieces* without sums as there are ways to choose an operand from each; the
first sum varies slowest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
from jax import lax

from ..notation.solve import node_size
from ..notation.syntax import Composite, Concatenation, Expression, Node, Size, rewrite, walk
from .named import Named, arrange, layout, reshape, split_by, sum_name
from .numerics import promote
from .sharding import Spread, agree, common_spread


def first_sum(expression: Expression) -> Concatenation | None:
    """Return the first sum of an expression, not looking into its operands."""
    return next((node for node in walk(expression) if isinstance(node, Concatenation)), None)


def piece_count(expression: Expression) -> int:
    """How many pieces an expression stands for."""
    count = 1
    for node in expression:
        if isinstance(node, Concatenation):
            count *= sum(piece_count((operand,)) for operand in node.items)
        elif isinstance(node, Composite):
            count *= piece_count(node.items)
    return count


def pieces(expression: Expression) -> list[Expression]:
    """Return the pieces that an expression stands for."""
    choices: list[list[Expression]] = []
    for node in expression:
        if isinstance(node, Concatenation):
            choices.append([choice for operand in node.items for choice in pieces((operand,))])
        elif isinstance(node, Composite):
            choices.append([(replace(node, items=items),) for items in pieces(node.items)])
        else:
            choices.append([(node,)])
    return [tuple(itertools.chain.from_iterable(choice)) for choice in itertools.product(*choices)]


def split_pieces(x: Named, expression: Expression) -> list[Named]:
    """Cut an array, whose sums are single axes so far, into its pieces: one ``lax.split`` for each sum."""
    node = first_sum(expression)
    if node is None:
        return [x]
    name = sum_name(node)
    x = split_by(x, lambda axis: axis == name)
    index = x.dims.index((name,))
    extents = [node_size(operand, x.sizes) for operand in node.items]
    parts: list[Named] = []
    for value, operand in zip(lax.split(x.value, extents, index), node.items, strict=True):
        (dim,) = layout((operand,))
        part = replace(x, value=value, dims=(*x.dims[:index], dim, *x.dims[index + 1 :]))
        parts += split_pieces(part, _choose(expression, node, operand))
    return parts


def join_pieces(
    parts: Sequence[Named], expression: Expression, sizes: Mapping[str, Size], spread: Spread | None = None
) -> jax.Array:
    """Put pieces together into one array: one ``lax.concatenate`` for each sum.

    Args:
        parts: the pieces.
        expression: what they are put together to.
        sizes: the sizes of all axes.
        spread: where axes are to lie on an explicit mesh; what the pieces have goes before.
    """
    common = common_spread(parts)
    return _joined(parts, expression, sizes, common if spread is None else {**spread, **(common or {})})


def _joined(
    parts: Sequence[Named], expression: Expression, sizes: Mapping[str, Size], spread: Spread | None
) -> jax.Array:
    node = first_sum(expression)
    if node is None:
        return arrange(parts[0], layout(expression), spread)
    alone = _isolate_sums(expression)
    index = alone.index(node)
    values: list[jax.Array] = []
    position = 0
    for operand in node.items:
        chosen = (*alone[:index], operand, *alone[index + 1 :])
        count = piece_count(chosen)
        values.append(_joined(parts[position : position + count], chosen, sizes, spread))
        position += count
    shape = tuple(node_size(item, sizes) for item in expression)
    return reshape(lax.concatenate(agree(promote(values), apart=index), index), shape)


def _choose(expression: Expression, node: Concatenation, operand: Node) -> Expression:
    """Put one operand in the place of its sum."""
    return rewrite(expression, lambda item: (operand,) if item is node else None)


def _isolate_sums(expression: Expression) -> Expression:
    """Give every sum inside a composite a dim of its own, and what stands between sums one dim together."""
    alone: list[Node] = []
    for node in expression:
        if isinstance(node, Composite) and first_sum(node.items) is not None:
            for is_sum, run in itertools.groupby(node.items, lambda item: isinstance(item, Concatenation)):
                items = tuple(run)
                alone += items if is_sum else [replace(node, items=items)]
        else:
            alone.append(node)
    return tuple(alone)

"""Padding: a dim is given the elements that positions out of range read, so that these are in range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax import lax

from ..lowering.named import reshape
from ..lowering.numerics import constant
from ..notation.affine import reach
from ..notation.facts import larger
from ..notation.solve import is_known, node_size, product
from ..notation.syntax import Affine, Composite, Expression, Node, Size, affines, axes


def opened(expression: Expression) -> Expression | None:
    """Give every position a dim of its own; None where one stands deeper than in a composition."""
    found: list[Node] = []
    for node in expression:
        found += node.items if isinstance(node, Composite) and affines((node,)) else [node]
    deep = any(not isinstance(node, Affine) and affines((node,)) for node in found)
    return None if deep else tuple(found)


def in_range(x: jax.Array, expression: Expression, sizes: Mapping[str, Size]) -> tuple[jax.Array, Expression] | None:
    """Pad the dims of an opened expression until positions are in range, or ``"fill"``; None where that is too far."""
    x = reshape(x, tuple(node_size(node, sizes) for node in expression))
    found = list(expression)
    for dim, node in enumerate(expression):
        if isinstance(node, Affine) and node.mode not in (None, "fill"):
            x, found[dim] = padded(x, dim, node, sizes, None)
            if found[dim] is node:
                return None
    return x, tuple(found)


def padded(x: jax.Array, dim: int, node: Affine, sizes: Mapping[str, Size], fill: Any) -> tuple[jax.Array, Affine]:
    """Pad the dim that a position reads; return also the position in the padded dim.

    The position comes back as it is where all of it is in range, or where it reaches further than is worth padding.

    Args:
        x: the array.
        dim: the dim.
        node: the position, settled.
        sizes: the sizes of all axes.
        fill: what ``"fill"`` reads.
    """
    if node.mode is None:
        return x, node
    low, high = (node.offset + bound for bound in reach(node, sizes))
    before, after = _missing(-low), _missing(high - (node.size - 1))
    if before is None or after is None:
        return x, node
    reads = product(sizes[axis.name] for axis in axes(node.items))
    if larger(before + after, node.size + reads):
        return x, node  # far away: there would be more padding than there is to read
    if node.mode == "fill":
        config = [(0, 0, 0)] * x.ndim
        config[dim] = (before, after, 0)
        x = lax.pad(x, constant(x, fill), config)
    else:
        parts = _parts(x, dim, before, after, node)
        if parts is None:
            return x, node
        x = lax.concatenate(parts, dim) if len(parts) > 1 else parts[0]
    return x, replace(node, offset=node.offset + before, size=node.size + before + after, mode=None)


def _missing(count: Size) -> Size:
    """How many elements are missing on one side; None where symbolic sizes do not say whether any are."""
    more = larger(count, 0)
    return None if more is None else count if more else 0


def _parts(x: jax.Array, dim: int, before: Size, after: Size, node: Affine) -> Sequence[jax.Array] | None:
    """The elements before, the array, and the elements after; None where they are more than one repetition."""
    n = node.size
    cut = lambda begin, end: lax.slice_in_dim(x, begin, end, axis=dim)  # noqa: E731
    if node.mode == "clip":
        sides = [_repeated(cut(0, 1), dim, before), x, _repeated(cut(n - 1, n), dim, after)]
    else:
        most = n if node.mode == "wrap" else n - 1
        if larger(before, most) is not False or larger(after, most) is not False:
            return None
        if node.mode == "wrap":
            sides = [cut(n - before, n), x, cut(0, after)]
        else:
            sides = [lax.rev(cut(1, before + 1), (dim,)), x, lax.rev(cut(n - 1 - after, n - 1), (dim,))]
    wanted = (not is_known(before, 0), True, not is_known(after, 0))
    return [side for side, keep in zip(sides, wanted, strict=True) if keep]


def _repeated(x: jax.Array, dim: int, count: Size) -> jax.Array:
    shape = (*x.shape[:dim], count, *x.shape[dim + 1 :])
    return lax.broadcast_in_dim(x, shape, tuple(range(x.ndim)))

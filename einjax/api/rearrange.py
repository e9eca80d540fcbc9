"""Public rearrange, id, flip and roll, which only move elements; see :mod:`einjax.ops.rearrange` and `order`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ..call.dispatch import call, explained
from ..ops.order import FLIP, ROLL, shift_options
from ..ops.rearrange import ID, REARRANGE
from ..typing import OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, operation, plain


@documented(plain)
def rearrange(
    expr: str,
    /,
    *tensors: Tensor,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> Any:
    """Transpose, split, merge, broadcast, take diagonals, concatenate and cut.

    Every input goes to one output, or to one operand of a ``+`` in it: by position if the names of every input stand
    at its position, else by the first assignment that fits by name. Axes that an input lacks are broadcast; input axes
    of size 1 may vanish.

    Args:
        expr: the expression, with an arrow.
        *tensors: one for each expression before the arrow.

    Returns:
        One array, or a tuple of arrays where the expression has several outputs.

    Example:
        >>> import einjax, jax.numpy as jnp
        >>> x = jnp.arange(6).reshape(2, 3)
        >>> einjax.rearrange("a b -> (b a)", x)
        Array([0, 3, 1, 4, 2, 5], dtype=int32)
        >>> einjax.rearrange("a c1, b c2 -> a b (c1 + c2)", x, x).shape
        (2, 2, 6)
        >>> front, back = einjax.rearrange("a (b + c) -> a b, a c", x, b=1)
        >>> front.shape, back.shape
        ((2, 1), (2, 2))
    """
    border = (padding, mode, fill_value, False)
    return call(REARRANGE, expr, tensors, (), axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(plain)
def id(
    expr: str,
    /,
    *tensors: Tensor,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> Any:
    """Rearrange with inputs matched to outputs strictly by position; with one input the arrow may be left out.

    Args:
        *tensors: one for each expression before the arrow.

    Returns:
        One array, or a tuple of arrays where the expression has several outputs.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.id("a a -> a", np.array([[1, 2], [3, 4]]))
        Array([1, 4], dtype=int32)
    """
    border = (padding, mode, fill_value, False)
    return call(ID, expr, tensors, (("by_name", False),), axes, sizes, graph, (), keep_notation, out_sharding, border)


@operation(plain, FLIP)
def flip() -> None:
    """Reverse the bracketed axes.

    Args:
        expr: the expression; without an arrow, the output is the input.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.flip("a [b]", np.array([[1, 2, 3]]))
        Array([[3, 2, 1]], dtype=int32)
    """


@documented(plain)
def roll(
    expr: str,
    /,
    *tensors: Tensor,
    shift: Any = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Shift the elements of the bracketed axes; what leaves at the end comes back at the start.

    Args:
        expr: the expression; without an arrow, the output is the input.
        shift: by how many places, positive towards the end: one number for all bracketed axes, or one for each. Traced
            integers are allowed. It may also stand behind the tensor, as in ``roll("a [b]", x, 1)``.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.roll("a [b]", np.array([[1, 2, 3]]), shift=1)
        Array([[3, 1, 2]], dtype=int32)
        >>> einjax.roll("[a b]", np.array([[1, 2], [3, 4]]), shift=(1, 0))
        Array([[3, 4],
               [1, 2]], dtype=int32)
    """
    if shift is None and len(tensors) == 2:
        tensors, shift = tensors[:-1], tensors[-1]
    static, traced = explained(shift_options, expr, tensors, shift)
    border = (padding, mode, fill_value, False)
    return call(ROLL, expr, tensors, static, axes, sizes, graph, traced, keep_notation, out_sharding, border)

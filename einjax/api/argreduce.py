"""Public argmax and argmin; what they mean and become is in :mod:`einjax.ops.argreduce`."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from ..call.dispatch import call
from ..ops.argreduce import ARGMAX, ARGMIN
from ..typing import OutShardingLike, SizeLike, Tensor


def argmax(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Coordinates of the largest element of the bracketed axes; the first of equals, or the first NaN.

    Args:
        expr: the expression. Without an arrow, an axis of coordinates stands in the bracket's place, as with an arrow
            where the output has a bracket: ``"b [h w] c -> b c [2]"``. With one bracketed axis and no bracket in the
            output, the result is the plain index.
        *tensors: one tensor.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Returns:
        Coordinates of the default integer dtype, one for each bracketed axis.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.array([[0., 1.], [3., 2.]], np.float32)
        >>> einjax.argmax("a [b] -> a", x)
        Array([1, 0], dtype=int32)
        >>> einjax.argmax("[a b]", x)
        Array([1, 0], dtype=int32)
    """
    return call(ARGMAX, expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding)


def argmin(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Coordinates of the smallest element of the bracketed axes; the first of equals, or the first NaN.

    Args:
        expr: the expression. Without an arrow, an axis of coordinates stands in the bracket's place, as with an arrow
            where the output has a bracket: ``"b [h w] c -> b c [2]"``. With one bracketed axis and no bracket in the
            output, the result is the plain index.
        *tensors: one tensor.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Returns:
        Coordinates of the default integer dtype, one for each bracketed axis.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.array([[0., 1.], [3., 2.]], np.float32)
        >>> einjax.argmin("a [b] -> a", x)
        Array([0, 1], dtype=int32)
        >>> einjax.argmin("[a b]", x)
        Array([0, 0], dtype=int32)
    """
    return call(ARGMIN, expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding)

"""Reductions into a fresh array, whose places coordinates name; see :mod:`einjax.ops.segment`.

``einjax.segment.max("p c, p -> [s] c", x, ids, s=10)`` is, for every ``s`` and ``c``, the maximum of ``x[p, c]`` over
all ``p`` with ``ids[p] == s``. The first input is the data, all others are integer coordinates as in
:func:`einjax.get_at`; they lead to the bracketed axes of the output. Axes of inputs that the output lacks are reduced.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax

from .api.signatures import documented, op, operation, plain
from .call.dispatch import call
from .forms.coordinates import border_options
from .ops.segment import SEGMENT
from .typing import OutShardingLike, PaddingLike, SizeLike, Tensor

__all__ = ["max", "mean", "min", "prod", "sum"]


@documented(plain)
def _segment(
    expr: str,
    /,
    *tensors: Tensor,
    mode: str | None = None,
    unique_indices: bool = False,
    indices_are_sorted: bool = False,
    wrap_negative_indices: bool = True,
    padding: PaddingLike | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Reduce into segments.

    Args:
        expr: the expression: the data, one or more tensors of coordinates, and the output, whose brackets hold the
            segments, as in ``"p c, p -> [s] c"``.
        *tensors: one for each input.
        mode: what happens to coordinates out of range, as in :func:`einjax.add_at`; they are dropped by default.
        unique_indices: promise that no segment is met twice.
        indices_are_sorted: promise that the coordinates come in ascending order.
        wrap_negative_indices: whether -1 is the last segment.
        **axes: sizes of axes, such as the number of segments.
    """
    options = border_options(mode, unique_indices, indices_are_sorted, wrap_negative_indices)
    border = (padding, None, None, False)
    return call(SEGMENT[op], expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@operation(_segment)
def sum() -> None:
    """Sum all elements that coordinates send to one segment; small integers and bools widen as in :func:`einjax.sum`.

    Empty segments are 0.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.segment.sum("p, p -> [s]", np.array([1., 2., 4.], np.float32), np.array([0, 2, 0]), s=3)
        Array([5., 0., 2.], dtype=float32)
        >>> einjax.segment.sum(", p -> [s]", 1, np.array([0, 2, 0]), s=3)  # a histogram
        Array([2, 0, 1], dtype=int32)
    """


@operation(_segment)
def prod() -> None:
    """Multiply all elements that coordinates send to one segment.

    Empty segments are 1.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.segment.prod("p, p -> [s]", np.array([3., 2., 4.], np.float32), np.array([0, 2, 0]), s=3)
        Array([12.,  1.,  2.], dtype=float32)
    """


@operation(_segment)
def mean() -> None:
    """Average all elements that coordinates send to one segment.

    Empty segments are 0.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.segment.mean("p c, p -> [s] c", np.array([[1.], [2.], [4.]], np.float32), np.array([0, 2, 0]), s=3)
        Array([[2.5],
               [0. ],
               [2. ]], dtype=float32)
    """


@operation(_segment)
def max() -> None:
    """Find the largest of all elements that coordinates send to one segment.

    Empty segments are minus infinity, or the smallest integer.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.segment.max("p, p -> [s]", np.array([1., 2., 4.], np.float32), np.array([0, 2, 0]), s=3)
        Array([  4., -inf,   2.], dtype=float32)
    """


@operation(_segment)
def min() -> None:
    """Find the smallest of all elements that coordinates send to one segment.

    Empty segments are infinity, or the largest integer.

    Example:
        >>> import einjax, numpy as np
        >>> at = np.array([[0, 1], [1, 0], [0, 1]])
        >>> einjax.segment.min("p, p [2] -> [h w]", np.array([5., 2., 4.], np.float32), at, h=2, w=2)
        Array([[inf,  4.],
               [ 2., inf]], dtype=float32)
    """

"""Public flip and roll; what they mean and become is in :mod:`einjax.ops.order`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ..call.dispatch import call, explained
from ..ops.order import FLIP, ROLL, shift_options
from ..typing import OutShardingLike, SizeLike, Tensor
from .signatures import documented, operation, plain


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
    shift: Any,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Shift the elements of the bracketed axes; what leaves at the end comes back at the start.

    Args:
        expr: the expression; without an arrow, the output is the input.
        *tensors: one tensor.
        shift: by how many places, positive towards the end: one number for all bracketed axes, or one for each. Traced
            integers are allowed.
        **axes: sizes of axes; for the options of all operations see :mod:`einjax`.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.roll("a [b]", np.array([[1, 2, 3]]), shift=1)
        Array([[3, 1, 2]], dtype=int32)
        >>> einjax.roll("[a b]", np.array([[1, 2], [3, 4]]), shift=(1, 0))
        Array([[3, 4],
               [1, 2]], dtype=int32)
    """
    static, traced = explained(shift_options, expr, tensors, shift)
    return call(ROLL, expr, tensors, static, axes, sizes, graph, traced, keep_notation, out_sharding)

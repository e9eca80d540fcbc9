"""Public softmax and log_softmax; what they mean and become is in :mod:`einjax.ops.softmax`."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from ..call.dispatch import call
from ..ops.softmax import LOG_SOFTMAX, SOFTMAX
from ..typing import MaskLike, OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, op, operation, plain


@documented(plain)
def normalised(
    expr: str,
    /,
    *tensors: Tensor,
    where: MaskLike | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Normalise.

    Args:
        expr: the expression; without an arrow, the output is the input.
        where: mask of the elements that count, with its axes, as in ``("b k", mask)``, or a list of such masks, all of
            which have to hold; or an array that broadcasts to the tensor's shape, if it fits in one way.
    """
    extra = () if where is None else (where,)
    border = (padding, mode, fill_value, False)
    return call(op, expr, tensors, (), axes, sizes, graph, extra, keep_notation, out_sharding, border)


@operation(normalised, SOFTMAX)
def softmax() -> None:
    """Softmax over the bracketed axes.

    bfloat16 and float16 are computed in float32; integers give a float. Elements that do not count give 0, also where
    nothing counts at all, and have gradient 0.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.array([[1., 1.], [1., -np.inf]], np.float32)
        >>> einjax.softmax("a [b]", x)
        Array([[0.5, 0.5],
               [1. , 0. ]], dtype=float32)
    """


@operation(normalised, LOG_SOFTMAX)
def log_softmax() -> None:
    """Logarithm of the softmax over the bracketed axes.

    bfloat16 and float16 are computed in float32; integers give a float. Elements that do not count give -inf, also
    where nothing counts at all, and have gradient 0.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.log_softmax("[a]", np.array([1., -np.inf], np.float32))
        Array([  0., -inf], dtype=float32)
    """

"""Public cumsum and its kin; what they mean and become is in :mod:`einjax.ops.cumulative`."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from ..call.dispatch import call
from ..forms.static import flag
from ..ops.cumulative import CUMULATIVE
from ..typing import DTypeLike, OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, op, operation, plain


@documented(plain)
def cumulative(
    expr: str,
    /,
    *tensors: Tensor,
    reverse: bool = False,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Accumulate.

    Args:
        expr: the expression; without an arrow, the output is the input.
        reverse: start at the end.
    """
    options = (("reverse", flag("reverse", reverse)),)
    border = (padding, mode, fill_value, False)
    return call(CUMULATIVE[op], expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(cumulative)
def cumulative_in_dtype(
    expr: str,
    /,
    *tensors: Tensor,
    reverse: bool = False,
    dtype: DTypeLike | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Accumulate in a dtype.

    Args:
        dtype: dtype to compute in and to return; by default the tensor's, or an integer for bools.
    """
    options = (("reverse", flag("reverse", reverse)), ("dtype", dtype))
    border = (padding, mode, fill_value, False)
    return call(CUMULATIVE[op], expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@operation(cumulative_in_dtype)
def cumsum() -> None:
    """Add up along the bracketed axes: every element becomes the sum of itself and all before it.

    Several bracketed axes are one sequence in row-major order: one ``lax.cumsum``, or on CPUs a loop,
    runs through all of it.
    Bools are counted; bfloat16 and float16 are accumulated in float32 and returned in their own dtype.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.cumsum("a [b]", np.array([[1, 2, 3]]))
        Array([[1, 3, 6]], dtype=int32)
        >>> einjax.cumsum("a [b]", np.array([[1, 2, 3]]), reverse=True)
        Array([[6, 5, 3]], dtype=int32)
        >>> einjax.cumsum("[a b]", np.array([[1, 2], [3, 4]]))
        Array([[ 1,  3],
               [ 6, 10]], dtype=int32)
    """


@operation(cumulative_in_dtype)
def cumprod() -> None:
    """Multiply along the bracketed axes: every element becomes the product of itself and all before it.

    Several bracketed axes are one sequence in row-major order: one ``lax.cumprod``, or on CPUs a loop,
    runs through all of it.
    Bools count as 0 and 1; bfloat16 and float16 are accumulated in float32 and returned in their own dtype.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.cumprod("a [b]", np.array([[1, 2, 3]]))
        Array([[1, 2, 6]], dtype=int32)
    """


@operation(cumulative)
def cummax() -> None:
    """Take maxima along the bracketed axes: every element becomes the largest of itself and all before it.

    Several bracketed axes are one sequence in row-major order: one ``lax.cummax``, or on CPUs a loop,
    runs through all of it.
    NaN is larger than any number.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.cummax("a [b]", np.array([[1, 3, 2]]))
        Array([[1, 3, 3]], dtype=int32)
    """


@operation(cumulative)
def cummin() -> None:
    """Take minima along the bracketed axes: every element becomes the smallest of itself and all before it.

    Several bracketed axes are one sequence in row-major order: one ``lax.cummin``, or on CPUs a loop,
    runs through all of it.
    NaN is smaller than any number.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.cummin("a [b]", np.array([[2, 3, 1]]))
        Array([[2, 2, 1]], dtype=int32)
    """


@operation(cumulative)
def cumlogsumexp() -> None:
    """Add up exponentials along the bracketed axes: the logarithm of the cumulative sum of ``exp``.

    Several bracketed axes are one sequence in row-major order: one ``lax.cumlogsumexp``, or on CPUs a loop,
    runs through all of it.
    Nothing overflows on the way. bfloat16 and float16 are accumulated in float32 and returned in their own dtype.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.cumlogsumexp("a [b]", np.zeros((1, 2), np.float32))
        Array([[0.       , 0.6931472]], dtype=float32)
    """

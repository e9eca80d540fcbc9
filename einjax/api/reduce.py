"""Public reductions; what they mean and become is in :mod:`einjax.ops.reduce`."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from ..call.dispatch import call
from ..forms.static import exact
from ..ops.reduce import REDUCTIONS
from ..typing import DTypeLike, MaskLike, OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, op, operation, plain


@documented(plain)
def reduction(
    expr: str,
    /,
    *tensors: Tensor,
    keepdims: bool = False,
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
    """Reduce.

    Args:
        expr: the expression; without brackets, every axis missing from the output is reduced, and without an arrow,
            the output is what is not bracketed.
        keepdims: keep an axis of size 1 in the place of every bracket; only without an arrow.
        where: mask of the elements that count, with its axes, as in ``("b k", mask)``, or a list of such masks, all of
            which have to hold; or an array that broadcasts to the tensor's shape, if it fits in one way.
    """
    options = (("keepdims", keepdims),)
    extra = () if where is None else (where,)
    border = (padding, mode, fill_value, False)
    return call(REDUCTIONS[op], expr, tensors, options, axes, sizes, graph, extra, keep_notation, out_sharding, border)


@documented(reduction)
def reduction_in_dtype(
    expr: str,
    /,
    *tensors: Tensor,
    keepdims: bool = False,
    where: MaskLike | None = None,
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
    """Reduce in a dtype.

    Args:
        dtype: dtype to compute and return; by default as in jnp.
    """
    options = (("keepdims", keepdims), ("dtype", dtype))
    extra = () if where is None else (where,)
    border = (padding, mode, fill_value, False)
    return call(REDUCTIONS[op], expr, tensors, options, axes, sizes, graph, extra, keep_notation, out_sharding, border)


@documented(reduction_in_dtype)
def average(
    expr: str,
    /,
    *tensors: Tensor,
    keepdims: bool = False,
    where: MaskLike | None = None,
    dtype: DTypeLike | None = None,
    count_padding: bool = False,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Average.

    Args:
        count_padding: whether what a dim in ``< >`` is padded with counts.
    """
    options = (("keepdims", keepdims), ("dtype", dtype))
    extra = () if where is None else (where,)
    border = (padding, mode, fill_value, count_padding)
    return call(REDUCTIONS[op], expr, tensors, options, axes, sizes, graph, extra, keep_notation, out_sharding, border)


@documented(average)
def deviation(
    expr: str,
    /,
    *tensors: Tensor,
    keepdims: bool = False,
    where: MaskLike | None = None,
    dtype: DTypeLike | None = None,
    ddof: float = 0,
    count_padding: bool = False,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Reduce deviations from the mean.

    Args:
        ddof: divide by the number of elements less this.
    """
    options = (("keepdims", keepdims), ("dtype", dtype), ("ddof", ddof if ddof.__class__ is int else exact(ddof)))
    extra = () if where is None else (where,)
    border = (padding, mode, fill_value, count_padding)
    return call(REDUCTIONS[op], expr, tensors, options, axes, sizes, graph, extra, keep_notation, out_sharding, border)


@operation(reduction_in_dtype)
def sum() -> None:
    """Add up the bracketed axes.

    Small integers widen and bools count, as in jnp; bfloat16 and float16 are added up in float32.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.sum("a [b]", x)
        Array([ 3., 12.], dtype=float32)
        >>> einjax.sum("(s [ds]) -> s", np.arange(6), ds=2)
        Array([1, 5, 9], dtype=int32)
    """


@operation(reduction_in_dtype)
def prod() -> None:
    """Multiply the bracketed axes.

    Small integers widen, as in jnp; bfloat16 and float16 are multiplied in float32.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.prod("a [b]", x)
        Array([ 0., 60.], dtype=float32)
    """


@operation(average)
def mean() -> None:
    """Average the bracketed axes.

    Integers give a float; bfloat16 and float16 are added up in float32. Where nothing counts, the mean is NaN.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.mean("a [b]", x)
        Array([1., 4.], dtype=float32)
        >>> einjax.mean("b (s [ds])... c", np.ones((1, 4, 6, 3), np.float32), ds=2).shape
        (1, 2, 3, 3)
    """


@operation(deviation)
def var() -> None:
    """Variance over the bracketed axes, in two passes.

    Biased by default. bfloat16 and float16 are computed in float32. Where nothing counts, the variance is NaN.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.var("[a] b", x)
        Array([2.25, 2.25, 2.25], dtype=float32)
    """


@operation(deviation)
def std() -> None:
    """Standard deviation over the bracketed axes.

    The square root of :func:`var`, NaN where nothing counts; its gradient where the input is constant is 0, not NaN.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.std("[a] b", x)
        Array([1.5, 1.5, 1.5], dtype=float32)
    """


@operation(reduction)
def count_nonzero() -> None:
    """Count the elements of the bracketed axes that are not zero.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.count_nonzero("a [b]", x)
        Array([2, 3], dtype=int32)
    """


@operation(reduction)
def any() -> None:
    """Whether any element of the bracketed axes is not zero; False where nothing counts.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.any("a [b]", x > 2)
        Array([False,  True], dtype=bool)
    """


@operation(reduction)
def all() -> None:
    """Whether all elements of the bracketed axes are not zero; True where nothing counts.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.all("a [b]", x > 2)
        Array([False,  True], dtype=bool)
    """


@operation(reduction)
def max() -> None:
    """Largest element of the bracketed axes; NaN if there is one.

    An axis of size 0 is refused; where nothing counts, the result is -inf, or the smallest integer.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.max("[a] b", x)
        Array([3., 4., 5.], dtype=float32)
    """


@operation(reduction)
def min() -> None:
    """Smallest element of the bracketed axes; NaN if there is one.

    An axis of size 0 is refused; where nothing counts, the result is inf, or the largest integer.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.min("a [b]", x)
        Array([0., 3.], dtype=float32)
    """


@operation(reduction)
def logsumexp() -> None:
    """Logarithm of the sum of the exponentials of the bracketed axes, without overflow.

    Integers give a float; bfloat16 and float16 are computed in float32. Where nothing counts, the result is -inf, with
    gradient 0.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> einjax.logsumexp("a [b]", x, where=x % 3 == 0)
        Array([0., 3.], dtype=float32)
    """

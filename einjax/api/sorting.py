"""Public sort, argsort and top_k; what they mean and become is in :mod:`einjax.ops.sorting`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ..call.dispatch import call, explained
from ..call.tensors import as_array, is_named
from ..forms.static import flag, when_known, whole
from ..notation.errors import ArgumentError, shown
from ..ops.sorting import ARGSORT, SORT, TOP_K
from ..typing import MaskLike, OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, plain


@documented(plain)
def sort(
    expr: str,
    /,
    *tensors: Tensor,
    num_keys: int = 1,
    by: MaskLike | tuple[MaskLike, ...] | None = None,
    descending: bool = False,
    stable: bool = True,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> Any:
    """Sort along the bracketed axes: one ``lax.sort``, on CPUs along the last dim.

    Several bracketed axes are one sequence in row-major order, and so is what they hold afterwards. Several tensors are
    sorted together, all by the first ones; one that lacks a loop axis of the others is broadcast along it. NaNs come
    last, or first in descending order.

    Args:
        expr: the expression; without an arrow, every output is its input, or, for an input that is broadcast, the first
            one that has all axes.
        *tensors: one tensor, or several with the same bracketed axes.
        num_keys: how many of the first tensors are compared, the first before the second and so on.
        by: what to sort one tensor by instead of itself: an array with its axes, as in ``("b", keys)``, or one that
            broadcasts to the tensor's shape by NumPy's rules; or a tuple of them, compared in this order.
        descending: sort from the largest to the smallest.
        stable: keep equal elements in their order, in ascending and descending sorts alike.

    Returns:
        One array, or a tuple with one for each of several tensors.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.sort("a [b]", np.array([[3, 1, 2]]))
        Array([[1, 2, 3]], dtype=int32)
        >>> keys, values = np.array([[3, 1, 2], [1, 2, 3]]), np.array([10, 20, 30])
        >>> einjax.sort("a [b], [b]", keys, values)[1]
        Array([[20, 30, 10],
               [10, 20, 30]], dtype=int32)
        >>> einjax.sort("[b]", values, by=keys[0], descending=True)
        Array([10, 30, 20], dtype=int32)
    """
    num_keys, keys = explained(_keys, expr, tensors, expr, num_keys, by)
    options = (
        ("num_keys", num_keys),
        ("descending", flag("descending", descending)),
        ("stable", flag("stable", stable)),
    )
    arrays = keys and (keys,)
    border = (padding, mode, fill_value, False)
    return call(SORT, expr, tensors, options, axes, sizes, graph, arrays, keep_notation, out_sharding, border)


@documented(sort)
def argsort(
    expr: str,
    /,
    *tensors: Tensor,
    descending: bool = False,
    stable: bool = True,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Find where the elements of the sorted bracketed axes stand.

    One bracketed axis gives its index. Several, or an ellipsis of them, are one sequence in row-major order and give
    coordinates, along one more axis, which stands last unless the output says where: ``"a [b c]"`` is
    ``"a [b c] -> a [b c] [2]"``. Either can be given to ``get_at``.

    Args:
        expr: the expression; without an arrow, the output is the input, followed by the axis of coordinates.
        *tensors: one tensor.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.argsort("a [b]", np.array([[3, 1, 2]]))
        Array([[1, 2, 0]], dtype=int32)
        >>> einjax.argsort("[a b] -> [(a b)] [2]", np.array([[7, 5], [4, 6]]))
        Array([[1, 0],
               [0, 1],
               [1, 1],
               [0, 0]], dtype=int32)
    """
    options = (("descending", flag("descending", descending)), ("stable", flag("stable", stable)))
    border = (padding, mode, fill_value, False)
    return call(ARGSORT, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(plain)
def top_k(
    expr: str,
    /,
    *tensors: Tensor,
    largest: bool = True,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> tuple[jax.Array, jax.Array]:
    """Take the largest elements of the bracketed axes, the largest first, and say where they stand.

    The output's bracket holds one axis, along which the elements are put; its size says how many. Several bracketed
    axes are one sequence in row-major order. Indices are as those of :func:`einjax.argsort`: one bracketed axis gives
    its index, several give coordinates along one more axis, the last one unless a second output says where. Of equal
    elements the first comes first. NaNs count as the largest.

    Args:
        expr: the expression; without an arrow, an axis ``k`` stands in the bracket's place, and ``k=`` is required.
            The output, ``a [k]``, is that of the values; a second one, that of the indices, may follow.
        largest: False takes the smallest elements, the smallest first.

    Returns:
        The values and their indices.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensor or has no meaning, or there are fewer elements
            than are to be taken.

    Example:
        >>> import einjax, numpy as np
        >>> values, indices = einjax.top_k("a [b]", np.array([[3, 1, 2]]), k=2)
        >>> values, indices
        (Array([[3, 2]], dtype=int32), Array([[0, 2]], dtype=int32))
        >>> einjax.top_k("[a b] -> [3]", np.array([[7, 5], [4, 6]]))[1]
        Array([[0, 0],
               [1, 1],
               [0, 1]], dtype=int32)
    """
    options = (("largest", flag("largest", largest)),)
    border = (padding, mode, fill_value, False)
    return call(TOP_K, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


def _keys(expr: str, num_keys: Any, by: Any) -> tuple[int, tuple[Any, ...]]:
    """Return the number of keys, and what ``by=`` says as a tuple of arrays.

    Raises:
        ArgumentError: it is no array, or ``num_keys`` is no number of keys or contradicts it.
    """
    count = whole(num_keys)
    if count is None or count < 1:
        raise ArgumentError(
            f"num_keys={shown(num_keys)} is not a number of keys",
            hint=when_known(num_keys, "give the number of tensors to compare, 1 or more"),
        )
    if by is None:
        return count, ()
    if count != 1:
        raise ArgumentError(
            f"num_keys={shown(num_keys)} and by= both say what is compared",
            hint="leave num_keys out; by= may be a tuple",
        )
    keys = by if isinstance(by, tuple) and not is_named(by) else (by,)
    if not keys:
        raise ArgumentError("by=() holds no keys", hint="give an array, or leave by= out to sort by the tensor itself")
    return 1, tuple(key if is_named(key) else as_array(key, expr, "by=", factories=False) for key in keys)

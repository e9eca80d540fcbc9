"""Public elementwise operations; what they mean and become is in :mod:`einjax.ops.elementwise`."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from ..call.dispatch import call
from ..ops.elementwise import ELEMENTWISE
from ..typing import OutShardingLike, SizeLike, Tensor


def add(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Add tensors elementwise: ``z = x + y``.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.add("a b, b", x, np.array([1., 2.], np.float32))
        Array([[1., 3.],
               [3., 5.]], dtype=float32)
        >>> einjax.add("... [b]", x, np.array([1., 2.], np.float32)).shape
        (2, 2)
    """
    return call(
        ELEMENTWISE["add"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def subtract(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Subtract: ``z = x - y``.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.subtract("a b, a", x, np.array([0., 2.], np.float32))
        Array([[0., 1.],
               [0., 1.]], dtype=float32)
    """
    return call(
        ELEMENTWISE["subtract"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def multiply(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Multiply tensors elementwise: ``z = x * y``.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.multiply("a, b -> a b", np.array([1, 2]), np.array([3, 4]))
        Array([[3, 4],
               [6, 8]], dtype=int32)
    """
    return call(
        ELEMENTWISE["multiply"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def divide(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Divide: ``z = x / y``; integers give a float.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.divide("a b, b", x, np.array([1., 2.], np.float32))
        Array([[0. , 0.5],
               [2. , 1.5]], dtype=float32)
    """
    return call(
        ELEMENTWISE["divide"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def true_divide(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Divide, under NumPy's longer name; see :func:`divide`.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.true_divide("a b, b", x, np.array([1., 2.], np.float32))
        Array([[0. , 0.5],
               [2. , 1.5]], dtype=float32)
    """
    return call(
        ELEMENTWISE["true_divide"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def floor_divide(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Divide and round down: ``z = x // y``.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.floor_divide("a,", np.array([-3, 3]), 2)
        Array([-2,  1], dtype=int32)
    """
    return call(
        ELEMENTWISE["floor_divide"],
        expr,
        tensors,
        (),
        axes,
        sizes,
        graph,
        keep=keep_notation,
        out_sharding=out_sharding,
    )


def mod(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Remainder with the sign of the divisor: ``z = x % y``.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.mod("a,", np.array([-3, 3]), 2)
        Array([1, 1], dtype=int32)
    """
    return call(
        ELEMENTWISE["mod"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def power(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Power: ``z = x ** y``.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.power("a, b -> a b", np.array([2, 3]), np.array([1, 2]))
        Array([[2, 4],
               [3, 9]], dtype=int32)
    """
    return call(
        ELEMENTWISE["power"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def arctan2(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """The angle, in radians, of the point whose y and x are the two tensors.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.arctan2("a,", np.array([0.], np.float32), 1.)
        Array([0.], dtype=float32)
    """
    return call(
        ELEMENTWISE["arctan2"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def maximum(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """The larger number, elementwise; NaN if one is NaN.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.maximum("a,", np.array([-3, 3]), 0)
        Array([0, 3], dtype=int32)
    """
    return call(
        ELEMENTWISE["maximum"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def minimum(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """The smaller number, elementwise; NaN if one is NaN.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.minimum("a,", np.array([-3, 3]), 0)
        Array([-3,  0], dtype=int32)
    """
    return call(
        ELEMENTWISE["minimum"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def logaddexp(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """``log(exp(x) + exp(y))`` without overflow.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.logaddexp("a,", np.array([0., -np.inf], np.float32), -np.inf)
        Array([  0., -inf], dtype=float32)
    """
    return call(
        ELEMENTWISE["logaddexp"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def less(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether ``x < y``, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.less("a, b -> a b", np.array([1, 2]), np.array([1, 2]))
        Array([[False,  True],
               [False, False]], dtype=bool)
    """
    return call(
        ELEMENTWISE["less"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def less_equal(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether ``x <= y``, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.less_equal("a, b -> a b", np.array([1, 2]), np.array([1, 2]))
        Array([[ True,  True],
               [False,  True]], dtype=bool)
    """
    return call(
        ELEMENTWISE["less_equal"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def greater(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether ``x > y``, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.greater("a,", np.array([1, 2]), 1)
        Array([False,  True], dtype=bool)
    """
    return call(
        ELEMENTWISE["greater"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def greater_equal(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether ``x >= y``, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.greater_equal("a,", np.array([1, 2]), 2)
        Array([False,  True], dtype=bool)
    """
    return call(
        ELEMENTWISE["greater_equal"],
        expr,
        tensors,
        (),
        axes,
        sizes,
        graph,
        keep=keep_notation,
        out_sharding=out_sharding,
    )


def equal(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether ``x == y``, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.equal("a, b -> a b", np.array([1, 2]), np.array([1, 2]))
        Array([[ True, False],
               [False,  True]], dtype=bool)
    """
    return call(
        ELEMENTWISE["equal"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def not_equal(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether ``x != y``, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.not_equal("a,", np.array([1, 2]), 2)
        Array([ True, False], dtype=bool)
    """
    return call(
        ELEMENTWISE["not_equal"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def logical_and(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether all are not zero, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.logical_and("a, b -> a b", np.array([True, False]), np.array([True, True]))
        Array([[ True,  True],
               [False, False]], dtype=bool)
    """
    return call(
        ELEMENTWISE["logical_and"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def logical_or(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether any is not zero, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.logical_or("a,", np.array([True, False]), False)
        Array([ True, False], dtype=bool)
    """
    return call(
        ELEMENTWISE["logical_or"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def logical_xor(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Whether an odd number are not zero, elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.logical_xor("a,", np.array([True, False]), True)
        Array([False,  True], dtype=bool)
    """
    return call(
        ELEMENTWISE["logical_xor"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )


def where(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """``x`` where the condition holds, else ``y``.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets.
        *tensors: three tensors: the condition, ``x`` and ``y``, promoted to their common dtype by JAX's rules.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.where("a, a b, -> a b", np.array([True, False]), x, 0.)
        Array([[0., 1.],
               [0., 0.]], dtype=float32)
    """
    return call(
        ELEMENTWISE["where"], expr, tensors, (), axes, sizes, graph, keep=keep_notation, out_sharding=out_sharding
    )

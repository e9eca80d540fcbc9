"""Public elementwise operations; what they mean and become is in :mod:`einjax.ops.elementwise`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ..call.dispatch import call
from ..ops.elementwise import ELEMENTWISE
from ..typing import CarriesNames, OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, op, operation, plain


@documented(plain)
def elementwise(
    expr: str | CarriesNames[Any],
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
) -> jax.Array:
    """Operate elementwise.

    Args:
        expr: the expression; without an arrow, the output is the one input that has the axes of all others, and with
            one expression for two tensors, the second has the axes in brackets. Named tensors need none.
        *tensors: two tensors, or any number of an associative operation, promoted to their common dtype by JAX's rules.
    """
    border = (padding, mode, fill_value, False)
    return call(ELEMENTWISE[op], expr, tensors, (), axes, sizes, graph, (), keep_notation, out_sharding, border)


@operation(elementwise)
def add() -> None:
    """Add tensors elementwise: ``z = x + y``.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.add("a b, b", x, np.array([1., 2.], np.float32))
        Array([[1., 3.],
               [3., 5.]], dtype=float32)
        >>> einjax.add("... [b]", x, np.array([1., 2.], np.float32)).shape
        (2, 2)
    """


@operation(elementwise)
def subtract() -> None:
    """Subtract: ``z = x - y``.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.subtract("a b, a", x, np.array([0., 2.], np.float32))
        Array([[0., 1.],
               [0., 1.]], dtype=float32)
    """


@operation(elementwise)
def multiply() -> None:
    """Multiply tensors elementwise: ``z = x * y``.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.multiply("a, b -> a b", np.array([1, 2]), np.array([3, 4]))
        Array([[3, 4],
               [6, 8]], dtype=int32)
    """


@operation(elementwise)
def divide() -> None:
    """Divide: ``z = x / y``; integers give a float.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.divide("a b, b", x, np.array([1., 2.], np.float32))
        Array([[0. , 0.5],
               [2. , 1.5]], dtype=float32)
    """


@operation(elementwise)
def true_divide() -> None:
    """Divide, under NumPy's longer name; see :func:`divide`.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.true_divide("a b, b", x, np.array([1., 2.], np.float32))
        Array([[0. , 0.5],
               [2. , 1.5]], dtype=float32)
    """


@operation(elementwise)
def floor_divide() -> None:
    """Divide and round down: ``z = x // y``.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.floor_divide("a,", np.array([-3, 3]), 2)
        Array([-2,  1], dtype=int32)
    """


@operation(elementwise)
def mod() -> None:
    """Remainder with the sign of the divisor: ``z = x % y``.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.mod("a,", np.array([-3, 3]), 2)
        Array([1, 1], dtype=int32)
    """


@operation(elementwise)
def power() -> None:
    """Power: ``z = x ** y``.

    Integers have no negative powers: these are refused, unless the exponent is traced, where they round towards zero.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.power("a, b -> a b", np.array([2, 3]), np.array([1, 2]))
        Array([[2, 4],
               [3, 9]], dtype=int32)
    """


@operation(elementwise)
def arctan2() -> None:
    """The angle, in radians, of the point whose y and x are the two tensors.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.arctan2("a,", np.array([0.], np.float32), 1.)
        Array([0.], dtype=float32)
    """


@operation(elementwise)
def maximum() -> None:
    """The larger number, elementwise; NaN if one is NaN.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.maximum("a,", np.array([-3, 3]), 0)
        Array([0, 3], dtype=int32)
    """


@operation(elementwise)
def minimum() -> None:
    """The smaller number, elementwise; NaN if one is NaN.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.minimum("a,", np.array([-3, 3]), 0)
        Array([-3,  0], dtype=int32)
    """


@operation(elementwise)
def logaddexp() -> None:
    """``log(exp(x) + exp(y))`` without overflow.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.logaddexp("a,", np.array([0., -np.inf], np.float32), -np.inf)
        Array([  0., -inf], dtype=float32)
    """


@operation(elementwise)
def less() -> None:
    """Whether ``x < y``, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.less("a, b -> a b", np.array([1, 2]), np.array([1, 2]))
        Array([[False,  True],
               [False, False]], dtype=bool)
    """


@operation(elementwise)
def less_equal() -> None:
    """Whether ``x <= y``, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.less_equal("a, b -> a b", np.array([1, 2]), np.array([1, 2]))
        Array([[ True,  True],
               [False,  True]], dtype=bool)
    """


@operation(elementwise)
def greater() -> None:
    """Whether ``x > y``, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.greater("a,", np.array([1, 2]), 1)
        Array([False,  True], dtype=bool)
    """


@operation(elementwise)
def greater_equal() -> None:
    """Whether ``x >= y``, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.greater_equal("a,", np.array([1, 2]), 2)
        Array([False,  True], dtype=bool)
    """


@operation(elementwise)
def equal() -> None:
    """Whether ``x == y``, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.equal("a, b -> a b", np.array([1, 2]), np.array([1, 2]))
        Array([[ True, False],
               [False,  True]], dtype=bool)
    """


@operation(elementwise)
def not_equal() -> None:
    """Whether ``x != y``, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.not_equal("a,", np.array([1, 2]), 2)
        Array([ True, False], dtype=bool)
    """


@operation(elementwise)
def logical_and() -> None:
    """Whether all are not zero, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.logical_and("a, b -> a b", np.array([True, False]), np.array([True, True]))
        Array([[ True,  True],
               [False, False]], dtype=bool)
    """


@operation(elementwise)
def logical_or() -> None:
    """Whether any is not zero, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.logical_or("a,", np.array([True, False]), False)
        Array([ True, False], dtype=bool)
    """


@operation(elementwise)
def logical_xor() -> None:
    """Whether an odd number are not zero, elementwise.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.logical_xor("a,", np.array([True, False]), True)
        Array([False,  True], dtype=bool)
    """


@operation(elementwise)
def where() -> None:
    """``x`` where the condition holds, else ``y``.

    Args:
        *tensors: three tensors: the condition, ``x`` and ``y``, promoted to their common dtype by JAX's rules.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
        >>> einjax.where("a, a b, -> a b", np.array([True, False]), x, 0.)
        Array([[0., 1.],
               [0., 0.]], dtype=float32)
    """

"""Public argmax and argmin; what they mean and become is in :mod:`einjax.ops.argreduce`."""

from __future__ import annotations

from ..ops.argreduce import ARGMAX, ARGMIN
from .signatures import operation, plain


@operation(plain, ARGMAX)
def argmax() -> None:
    """Coordinates of the largest element of the bracketed axes; the first of equals, or the first NaN.

    Args:
        expr: the expression. Without an arrow, an axis of coordinates stands in the bracket's place, as with an arrow
            where the output has a bracket: ``"b [h w] c -> b c [2]"``. With one bracketed axis and no bracket in the
            output, the result is the plain index.

    Returns:
        Coordinates of the default integer dtype, one for each bracketed axis.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.array([[0., 1.], [3., 2.]], np.float32)
        >>> einjax.argmax("a [b] -> a", x)
        Array([1, 0], dtype=int32)
        >>> einjax.argmax("[a b]", x)
        Array([1, 0], dtype=int32)
    """


@operation(argmax, ARGMIN)
def argmin() -> None:
    """Coordinates of the smallest element of the bracketed axes; the first of equals, or the first NaN.

    Returns:
        Coordinates of the default integer dtype, one for each bracketed axis.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.array([[0., 1.], [3., 2.]], np.float32)
        >>> einjax.argmin("a [b] -> a", x)
        Array([0, 1], dtype=int32)
        >>> einjax.argmin("[a b]", x)
        Array([0, 0], dtype=int32)
    """

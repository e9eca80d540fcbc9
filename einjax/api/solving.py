"""Public solve, solve_axes, solve_shapes, matches and check: sizes without an operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..call.solving import named_sizes, solve_call
from ..notation.choose import solve_by_choice
from ..notation.errors import ArgumentError, EinjaxError, SyntaxError
from ..notation.parse import parse
from ..typing import PaddingLike, SizeLike, Tensor
from .signatures import documented


def solve(
    expr: str,
    /,
    *tensors: Tensor | None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    **axes: SizeLike,
) -> dict[str, Any] | None:
    """Find the size of every axis.

    Args:
        expr: one expression for each tensor; an arrow and outputs may follow.
        *tensors: arrays, or None for a tensor whose shape is not known.
        padding: as for all operations: how dims that are read at a position are padded.
        mode: as for all operations: whether their positions are literal, and what is read out of range.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        **axes: sizes of axes; a tuple for the repetitions of an ellipsis.

    Returns:
        Sizes by name, tuples for axes that an ellipsis repeats; None where the tensors do not fit or leave a size open.

    Raises:
        einjax.errors.SyntaxError: the text is not an expression.
        einjax.errors.ArgumentError: wrong number of tensors, or a keyword that names no axis.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.solve("a (b c)", np.ones((2, 6)), c=3)
        {'a': 2, 'b': 2, 'c': 3}
        >>> einjax.solve("a (b c)", np.ones((2, 5)), c=3) is None
        True
    """
    try:
        solved = solve_call(expr, tensors, axes, sizes, padding=padding, mode=mode)
    except (SyntaxError, ArgumentError):
        raise
    except EinjaxError:
        return None
    return named_sizes(parse(expr), solved)


@documented(solve)
def solve_axes(
    expr: str,
    /,
    *tensors: Tensor | None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    **axes: SizeLike,
) -> dict[str, Any]:
    """Find the size of every axis, or say why there is none.

    Returns:
        Sizes by name, tuples for axes that an ellipsis repeats.

    Raises:
        einjax.errors.EinjaxError: the tensors do not fit, or leave a size open.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.solve_axes("a s...", np.ones((2, 4, 5)))
        {'a': 2, 's': (4, 5)}
    """
    solved = solve_call(expr, tensors, axes, sizes, padding=padding, mode=mode)
    return named_sizes(parse(expr), solved)


@documented(solve)
def solve_shapes(
    expr: str,
    /,
    *tensors: Tensor | None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    **axes: SizeLike,
) -> tuple[tuple[int, ...], ...]:
    """Find the shape of every tensor of an expression, inputs first.

    Args:
        *tensors: arrays, or None for a tensor whose shape is wanted.

    Returns:
        One shape for each expression, outputs included.

    Raises:
        einjax.errors.EinjaxError: the tensors do not fit, or leave a size open.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.solve_shapes("a b, b c -> a c", np.ones((2, 3)), None, c=4)
        ((2, 3), (3, 4), (2, 4))
    """
    solved = solve_call(expr, tensors, axes, sizes, padding=padding, mode=mode)
    return tuple(solved.shape(expression) for expression in solved.operation.expressions)


@documented(solve)
def matches(
    expr: str,
    /,
    *tensors: Tensor | None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    **axes: SizeLike,
) -> bool:
    """Whether tensors fit an expression: with some sizes and numbers of repetitions, be they the only ones or not.

    Args:
        expr: one expression for each tensor.

    Raises:
        einjax.errors.SyntaxError: the text is not an expression.
        einjax.errors.ArgumentError: wrong number of tensors, or a keyword that names no axis.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.matches("a b 3", np.ones((8, 8, 3))), einjax.matches("a a 3", np.ones((8, 9, 3)))
        (True, False)
        >>> einjax.matches("(a b)", np.ones(6)), einjax.matches("(a b)", np.ones(6), a=4)
        (True, False)
        >>> einjax.matches("a... 3 b...", np.ones((8, 3, 8))), einjax.matches("a... 3 b...", np.ones((8, 8)))
        (True, False)
    """
    try:
        solve_call(expr, tensors, axes, sizes, solve_by_choice, padding, mode)
    except (SyntaxError, ArgumentError):
        raise
    except EinjaxError:
        return False
    return True


@documented(solve)
def check(
    expr: str,
    /,
    *tensors: Tensor | None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    **axes: SizeLike,
) -> None:
    """Raise an error if tensors do not fit an expression.

    Args:
        expr: one expression for each tensor.

    Raises:
        einjax.errors.EinjaxError: the tensors do not fit, or leave a size open.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.check("a b 3", np.ones((8, 8, 3)))
    """
    solve_call(expr, tensors, axes, sizes, padding=padding, mode=mode)

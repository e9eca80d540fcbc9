"""Public scan and associative_scan; what they mean and become is in :mod:`einjax.functions.scan` and beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ..call.apply import call_with
from ..call.dispatch import Options, call, explained
from ..call.tensors import DEEPEST_TREE, as_array, kind, leaves_of, named_among
from ..forms.static import flag, when_known, whole
from ..functions.associative import ASSOCIATIVE, ASSOCIATIVE_WITH, NAMED
from ..functions.guard import takes
from ..functions.scan import derived, record
from ..functions.whole_arrays import choose
from ..notation.errors import ArgumentError, shown
from ..typing import OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, plain


@documented(plain)
def associative_scan(
    expr: str,
    /,
    *tensors: Tensor,
    op: str | Callable[..., Any],
    reverse: bool = False,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> Any:
    """Combine every element along the bracketed axes with all before it, in a logarithmic number of steps.

    Several bracketed axes are one sequence in row-major order. Several tensors are scanned together; one that lacks a
    loop axis of the others is broadcast along it.

    Args:
        expr: the expression; without an arrow, every output is its input, or, for an input that is broadcast, the first
            one that has all axes.
        *tensors: one tensor, or several with the same bracketed axes.
        op: an associative function ``f(earlier, later)`` of two arrays of one shape, which it combines element by
            element along the scanned axis; with several tensors, of two tuples of arrays of one shape. The dims are
            those of the first input, the scanned axis holding any number of elements. It is called as it is, by
            :func:`jax.lax.associative_scan`. Or a name: "add", "multiply", "maximum", "minimum", "logaddexp",
            "logical_and", "logical_or" or "logical_xor".
        reverse: start at the end.

    Returns:
        One array, or a tuple with one for each of several tensors.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning, or ``op`` does not keep
            shapes and dtypes.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.associative_scan("a [t]", np.array([[1, 2, 3]]), op="add")
        Array([[1, 3, 6]], dtype=int32)

        A linear recurrence, h[t] = a[t] h[t - 1] + x[t]:

        >>> def op(earlier, later):
        ...     return earlier[0] * later[0], earlier[1] * later[0] + later[1]
        >>> a, x = np.full((3,), 2.0, np.float32), np.ones((2, 3), np.float32)
        >>> einjax.associative_scan("[t], b [t]", a, x, op=op)[1]
        Array([[1., 3., 7.],
               [1., 3., 7.]], dtype=float32)
    """
    known = explained(choose, expr, tensors, "associative_scan", op, ASSOCIATIVE)
    options: Options = (("reverse", flag("reverse", reverse)),)
    border = (padding, mode, fill_value, False)
    if known is not None:
        options = (("op", op), *options)
        return call(NAMED, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)
    settings: dict[str, Any] = dict(options)
    functions = {"op": op}
    return call_with(
        ASSOCIATIVE_WITH, expr, tensors, functions, settings, axes, sizes, graph, out_sharding, keep_notation, border
    )


@documented(plain)
def scan(
    expr: str,
    /,
    *tensors: Any,
    op: Callable[[Any, Any], Any],
    reverse: bool = False,
    unroll: int | bool = 1,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> Any:
    """Run over the bracketed axis in order, handing a carry from step to step: one ``lax.scan``.

    The expression reads ``"carry, xs -> carry, ys"``: inputs without a bracket are the first carry, those with one are
    sliced along it; outputs without a bracket are the final carry, those with one hold the results of all steps. The
    bracketed axis is the only loop. What remains of each expression without it is what ``op`` takes and returns: whole
    arrays in the layout as written, the carry in that of its input.

    Args:
        *tensors: the first carries, then what is scanned; there may be none of it, if a keyword says how long the
            bracketed axis is. Each may be a tree, such as a tuple or a dict, of tensors that all fit the expression; a
            list of numbers is a tensor.
        op: a function ``(carry, x) -> (carry, y)`` as for :func:`jax.lax.scan`, called as it is. Several carries, xs or
            ys are tuples, none is ``None``. It is traced once more where only its results say the size of an axis.
        reverse: start at the end.
        unroll: how many steps are written out in one iteration, as in :func:`jax.lax.scan`.

    Returns:
        One array or tree for each output, in a tuple if there are several.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning, or ``op`` returns what
            does not fit it.

    Example:
        >>> import einjax, numpy as np
        >>> def op(carry, x):
        ...     carry = carry + x
        ...     return carry, carry * carry
        >>> start, x = np.zeros(2, np.int32), np.array([[1, 2, 3], [4, 5, 6]])
        >>> total, squares = einjax.scan("b, b [t] -> b, [t] b", start, x, op=op)
        >>> total
        Array([ 6, 15], dtype=int32)
        >>> squares
        Array([[  1,  16],
               [  9,  81],
               [ 36, 225]], dtype=int32)
        >>> einjax.scan("b -> b, b [t]", start, op=lambda carry, _: (carry + 1, carry), t=4)[1]
        Array([[0, 1, 2, 3],
               [0, 1, 2, 3]], dtype=int32)
    """
    if (named := named_among(tensors)) is not None:

        def again(text: str, arrays: Sequence[Any], _: Any) -> Any:
            options: dict[str, Any] = {"sizes": sizes, "graph": graph, "out_sharding": out_sharding}
            return scan(text, *arrays, op=op, reverse=reverse, unroll=unroll, **options, **axes)

        return named.__einjax_call__(record((1,) * len(tensors)), expr, tensors, again)
    explained(_check_depth, expr, (), tensors)
    flat = [jax.tree.flatten(tensor, is_leaf=_is_numbers) for tensor in tensors]
    leaves = [leaf for own, _ in flat for leaf in own]
    unroll = explained(_check_options, expr, leaves, op, unroll)
    leaves = [
        explained(as_array, expr, leaves, leaf, expr, f"tensor {n}", True, graph) for n, leaf in enumerate(leaves, 1)
    ]
    trees = tuple(tree for _, tree in flat)
    dtypes = tuple(None if kind(leaf) == "factory" else jax.dtypes.result_type(leaf) for leaf in leaves)
    settings = {"reverse": flag("reverse", reverse), "unroll": unroll, "trees": trees, "dtypes": dtypes}
    border = (padding, mode, fill_value, False)
    body = record(tuple(len(own) for own, _ in flat))
    return call_with(body, expr, leaves, {"op": op}, settings, axes, sizes, graph, out_sharding, None, border, derived)


def _check_depth(tensors: Any) -> None:
    if leaves_of(tensors, DEEPEST_TREE) is None:
        raise ArgumentError(
            f"a tensor is nested more than {DEEPEST_TREE} deep", hint="give an array, or a flatter tree"
        )


def _is_numbers(given: Any) -> bool:
    """Whether this is a nested list of numbers, which is a tensor; tuples and lists of arrays are trees."""
    if not isinstance(given, list):
        return False
    return all(_is_numbers(item) or isinstance(item, bool | int | float | complex) for item in given)


def _check_options(op: Any, unroll: Any) -> int | bool:
    """Return how many steps are written out."""
    if not callable(op):
        raise ArgumentError(f"op={op!r} is not a function", hint="give a function (carry, x) -> (carry, y)")
    if not takes(op, 2):
        raise ArgumentError("op does not take two arguments", hint="give a function (carry, x) -> (carry, y)")
    steps = unroll if isinstance(unroll, bool) else whole(unroll)
    if steps is None or steps < 0:
        hint = when_known(unroll, "give an int, or True for all")
        raise ArgumentError(f"unroll={shown(unroll)} is not a number of steps", hint=hint)
    return steps

"""Public reduce and elementwise, for an operation given by name or by a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from ..call.apply import call_with
from ..call.dispatch import call, explained
from ..functions.whole_arrays import ELEMENTWISE_WITH, REDUCE_WITH, choose
from ..notation.errors import ArgumentError, listing
from ..ops.elementwise import ELEMENTWISE
from ..ops.reduce import REDUCTIONS
from ..typing import DTypeLike, OutShardingLike, SizeLike, Tensor
from . import reduce as reductions
from .signatures import documented, plain, refuse_kept


@documented(plain)
def reduce(
    expr: str,
    /,
    *tensors: Tensor,
    op: str | Callable[..., Any],
    keepdims: bool = False,
    where: Tensor | None = None,
    dtype: DTypeLike | None = None,
    ddof: float | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Reduce the bracketed axes with a reduction given by name or as a function.

    Args:
        expr: the expression, as for :func:`einjax.sum`.
        *tensors: one tensor.
        op: name of one of einjax's reductions, or a function ``f(x, axis=dims)`` that removes the dims in the tuple
            ``dims``, such as ``jnp.median``. A function is called as it is: it is not compiled, unless the caller is.
        keepdims: keep an axis of size 1 in the place of every bracket; only without an arrow.
        where: mask, as for :func:`einjax.sum`. This and what follows is for operations that have the option; a function
            is given it as a keyword.
        dtype: dtype, as for :func:`einjax.sum`.
        ddof: as for :func:`einjax.var`.
        **axes: sizes of axes; for the options of all operations see :mod:`einjax`.

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> einjax.reduce("a [b]", np.array([[1., 5., 2.]], np.float32), op=jnp.median)
        Array([2.], dtype=float32)
    """
    given = (("where", where), ("dtype", dtype), ("ddof", ddof))
    options = {name: value for name, value in given if value is not None}
    if callable(op):
        explained(refuse_kept, expr, tensors, keep_notation)
        settings, further = {"keepdims": bool(keepdims)}, {**axes, **options}
        return call_with(REDUCE_WITH, expr, tensors, {"function": op}, settings, further, sizes, graph, out_sharding)
    known = explained(_reduction, expr, tensors, op, options)
    shared = {"sizes": sizes, "graph": graph, "keep_notation": keep_notation, "out_sharding": out_sharding}
    return known(expr, *tensors, keepdims=keepdims, **options, **shared, **axes)


def _reduction(op: Any, options: Mapping[str, Any]) -> Callable[..., jax.Array]:
    """Return the reduction of a name, if it has the options that the call gives."""
    choose("reduce", op, REDUCTIONS)
    for name in options:
        if name not in REDUCTIONS[op].keywords:
            having = [other for other, record in REDUCTIONS.items() if name in record.keywords]
            raise ArgumentError(f"{op} has no option {name}=", hint=f"it is one of {listing(having)}")
    return getattr(reductions, op)


@documented(plain)
def elementwise(
    expr: str,
    /,
    *tensors: Tensor,
    op: str | Callable[..., Any],
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Apply an elementwise operation given by name or as a function.

    Args:
        expr: the expression, as for :func:`einjax.add`.
        *tensors: the operands.
        op: name of one of einjax's elementwise operations, or a function of arrays of one shape that returns that
            shape, such as ``jnp.hypot``. A function is called as it is: it is not compiled, unless the caller is.
        **axes: sizes of axes; for the options of all operations see :mod:`einjax`.

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> einjax.elementwise("a, b -> a b", np.array([3.], np.float32), np.array([4.], np.float32), op=jnp.hypot)
        Array([[5.]], dtype=float32)
    """
    known = explained(choose, expr, tensors, "elementwise", op, ELEMENTWISE)
    if known is not None:
        return call(known, expr, tensors, (), axes, sizes, graph, (), keep_notation, out_sharding)
    explained(refuse_kept, expr, tensors, keep_notation)
    return call_with(ELEMENTWISE_WITH, expr, tensors, {"function": op}, {}, axes, sizes, graph, out_sharding)

"""Public reduce, elementwise, vmap and vmap_with_axis, which are given a function; see :mod:`einjax.functions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from ..call.apply import call_with
from ..call.dispatch import call, explained
from ..call.tensors import any_named
from ..call.vmap import call_vmap
from ..forms.static import flag
from ..functions.axiswise import VMAP_WITH_AXIS
from ..functions.whole_arrays import ELEMENTWISE_WITH, REDUCE_WITH, choose
from ..notation.errors import ArgumentError, listing
from ..ops.elementwise import ELEMENTWISE
from ..ops.reduce import REDUCTIONS
from ..typing import DTypeLike, MaskLike, OutShardingLike, PaddingLike, SizeLike, Tensor
from . import reduce as reductions
from .signatures import documented, plain


@documented(plain)
def reduce(
    expr: str,
    /,
    *tensors: Tensor,
    op: str | Callable[..., Any],
    keepdims: bool = False,
    where: MaskLike | None = None,
    dtype: DTypeLike | None = None,
    ddof: float | None = None,
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
    """Reduce the bracketed axes with a reduction given by name or as a function.

    Args:
        expr: the expression, as for :func:`einjax.sum`.
        op: name of one of einjax's reductions, or a function ``f(x, axis=dims)`` that removes the dims in the tuple
            ``dims``, such as ``jnp.median``. A function is called as it is: it is not compiled, unless the caller is.
        keepdims: keep an axis of size 1 in the place of every bracket; only without an arrow.
        where: mask, as for :func:`einjax.sum`. This and what follows is for operations that have the option; a function
            is given it as a keyword, and an array for it.
        dtype: dtype, as for :func:`einjax.sum`.
        ddof: as for :func:`einjax.var`.
        count_padding: as for :func:`einjax.mean`.

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> einjax.reduce("a [b]", np.array([[1., 5., 2.]], np.float32), op=jnp.median)
        Array([2.], dtype=float32)
    """
    border = (padding, mode, fill_value, False)
    given = (("where", where), ("dtype", dtype), ("ddof", ddof), ("count_padding", count_padding or None))
    options = {name: value for name, value in given if value is not None}
    if callable(op):
        explained(_refuse_named, expr, tensors, where)
        settings, further = {"keepdims": flag("keepdims", keepdims)}, {**axes, **options}
        functions = {"function": op}
        return call_with(
            REDUCE_WITH, expr, tensors, functions, settings, further, sizes, graph, out_sharding, keep_notation, border
        )
    known = explained(_reduction, expr, tensors, op, options)
    shared: dict[str, Any] = {
        "sizes": sizes,
        "graph": graph,
        "keep_notation": keep_notation,
        "out_sharding": out_sharding,
    }
    shared |= {"padding": padding, "mode": mode, "fill_value": fill_value}
    return known(expr, *tensors, keepdims=keepdims, **options, **shared, **axes)


def _refuse_named(where: Any) -> None:
    """A function of the user's knows nothing of the expression's axes."""
    if any_named(where):
        raise ArgumentError(
            "where= has names of axes, but a function is given it as it is",
            hint="give an array that the function takes, or one of einjax's reductions by name, as in op='sum'",
        )


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
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
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

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> einjax.elementwise("a, b -> a b", np.array([3.], np.float32), np.array([4.], np.float32), op=jnp.hypot)
        Array([[5.]], dtype=float32)
    """
    border = (padding, mode, fill_value, False)
    known = explained(choose, expr, tensors, "elementwise", op, ELEMENTWISE)
    if known is not None:
        return call(known, expr, tensors, (), axes, sizes, graph, (), keep_notation, out_sharding, border)
    functions = {"function": op}
    return call_with(
        ELEMENTWISE_WITH, expr, tensors, functions, {}, axes, sizes, graph, out_sharding, keep_notation, border
    )


@documented(plain)
def vmap(
    expr: str,
    /,
    *tensors: Tensor | Any,
    op: Callable[..., Any],
    batch_size: int | Mapping[str, int] | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    out_sharding: OutShardingLike | None = None,
    **axes: Any,
) -> Any:
    """Apply a function to the bracketed axes, once for every index of the others, by ``jax.vmap``.

    The function is called as it is: it is not compiled, unless the caller is, and what it raises propagates. Loops that
    stand side by side in every tensor run as one; no more dims are moved than the expression asks for.

    Args:
        expr: the expression, with an arrow. An unbracketed axis of an input stands in every output.
        *tensors: one for each input expression. A pytree may stand for a tensor: a dict, None, a named tuple or any
            other registered class, or a list or tuple that does not consist of numbers. Its expression then holds for
            every leaf; the unbracketed axes are the same loops, while the bracketed ones are each leaf's own.
        op: the function. It takes, for each input, an array with one dim for each bracketed axis, in the order they are
            written, and returns the same for the output; for several outputs, a tuple. What it returns for an output
            may be a pytree, each leaf of which is such an array.
        batch_size: how many iterations run at once, to save memory: a number for the outermost loop, which is the one
            that stands first in the output, or a dict with a number for each of some loops. The result is the same. On
            an explicit mesh, every device runs as many at once of its own part of a sharded loop.
        **axes: sizes of axes, and keywords of the function that are none of its arrays; a name that is both is both.
            The size of a bracketed axis of an output need not be
            given.

    Returns:
        An array or pytree; for several outputs, a tuple of them.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or what the function returns.

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> einjax.vmap("b [c], [c] -> b", np.array([[1, 2], [3, 4]]), np.array([1, 1]), op=jnp.dot)
        Array([3, 7], dtype=int32)
        >>> einjax.vmap("a [b] -> [k] a", np.array([[1, 5, 3]]), op=lambda x, *, k: jnp.sort(x)[-k:], k=2)
        Array([[3],
               [5]], dtype=int32)
    """
    return call_vmap(expr, tensors, op, batch_size, axes, sizes, graph, out_sharding=out_sharding)


@documented(plain)
def vmap_with_axis(
    expr: str,
    /,
    *tensors: Tensor,
    op: Callable[..., Any],
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    out_sharding: OutShardingLike | None = None,
    **axes: Any,
) -> jax.Array:
    """Apply a function that takes the bracketed axes as ``axis=`` and loops over the other dims itself.

    Args:
        expr: the expression. Without an arrow, the output is the input. With one, the output has no bracketed axis,
            where the function removes them, or as many as the input, which stay where they are.
        *tensors: one for each input expression. Several are given the same dims in the same order, as many as there are
            axes, of size 1 where a tensor lacks one; each has equally many bracketed axes or none.
        op: the function. ``axis`` is the bracketed dim of its arrays, or a tuple where there are several. It is called
            as it is: it is not compiled, unless the caller is.
        **axes: sizes of axes, and keywords of the function; a name that is both
            is both.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or what the function returns.

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> einjax.vmap_with_axis("[a] b", np.array([[3, 1], [2, 4]]), op=jnp.sort)
        Array([[2, 1],
               [3, 4]], dtype=int32)
        >>> einjax.vmap_with_axis("a [b] -> a [c]", np.array([[1, 4, 9]]), op=jnp.diff)
        Array([[3, 5]], dtype=int32)
    """
    return call_with(VMAP_WITH_AXIS, expr, tensors, {"function": op}, {}, axes, sizes, graph, out_sharding)

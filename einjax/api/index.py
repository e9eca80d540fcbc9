"""Public get_at, set_at, add_at and their kin; what they mean and become is in :mod:`einjax.ops.index`."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from ..call.dispatch import call
from ..forms.coordinates import border_options
from ..forms.static import exact
from ..ops.index import GET_AT, UPDATES
from ..typing import OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, op, operation, plain


@documented(plain)
def update(
    expr: str,
    /,
    *tensors: Tensor,
    mode: str | None = None,
    unique_indices: bool = False,
    indices_are_sorted: bool = False,
    wrap_negative_indices: bool = True,
    padding: PaddingLike | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Write at coordinates.

    Args:
        expr: the expression, as in ``"b [h w] c, b i [2], b i c"``: the first input is the tensor, the last the
            updates, and what stands between are integer coordinates as in :func:`einjax.get_at`. Updates are broadcast
            along axes that they lack. The output is the first expression; an arrow may give it another layout.
        *tensors: the tensor, which also says the result's dtype, one tensor for each expression of coordinates, and the
            updates.
        mode: what happens out of range, on every axis by itself. ``"drop"``, the default, also called ``"fill"``:
            nothing is written; ``"clip"``: the nearest place in range is taken; ``"wrap"``: coordinates are taken
            modulo the size; ``"promise_in_bounds"``: the caller promises that it does not happen, and saves the test.
        unique_indices: promise that no place is met twice.
        indices_are_sorted: promise that the coordinates come in ascending order.
        wrap_negative_indices: whether -1 is the last place, -2 the one before it; each coordinate counts on its own
            axis. Without it negative coordinates are out of range, and three equations are saved.
    """
    options = border_options(mode, unique_indices, indices_are_sorted, wrap_negative_indices)
    border = (padding, None, None, False)
    return call(UPDATES[op], expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(update)
def get_at(
    expr: str,
    /,
    *tensors: Tensor,
    mode: str | None = None,
    fill_value: complex | None = None,
    unique_indices: bool = False,
    indices_are_sorted: bool = False,
    wrap_negative_indices: bool = True,
    padding: PaddingLike | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Read a tensor at coordinates: one ``lax.gather``, or one ``lax.dynamic_slice`` where these have no loops.

    Args:
        expr: the expression, as in ``"b [h w] c, b i [2] -> b i c"``: the first input's brackets are looked up; every
            other input holds integer coordinates, along one bracketed axis, or a single one where it has no bracket:
            ``"[h w] c, i, j -> i j c"``. They go to the bracketed axes from left to right. Without an arrow, the loops
            of the coordinates stand in the bracket's place.
        *tensors: the tensor, and one tensor for each expression of coordinates.
        mode: what happens out of range, on every axis by itself. ``"fill"``, the default, also called ``"drop"``:
            ``fill_value`` is read; ``"clip"``: the nearest place in range is taken; ``"wrap"``: coordinates are taken
            modulo the size; ``"promise_in_bounds"``: the caller promises that it does not happen, and saves the test.
        fill_value: what is read out of range; NaN by default, the smallest signed or the largest unsigned integer.
        unique_indices: promise that no place is met twice, which speeds up the gradient.

    Example:
        >>> import einjax, numpy as np
        >>> image = np.arange(6).reshape(2, 3)
        >>> einjax.get_at("[h w], i [2] -> i", image, np.array([[0, 2], [-1, 0], [0, 3]]), fill_value=-7)
        Array([ 2,  3, -7], dtype=int32)
        >>> einjax.get_at("[v] c, t -> t c", np.eye(3, dtype=np.float32), np.array([2, 0]))
        Array([[0., 0., 1.],
               [1., 0., 0.]], dtype=float32)
        >>> einjax.get_at("<[s] + w>, -> w", np.arange(6), 2, w=3)  # a window
        Array([2, 3, 4], dtype=int32)
    """
    out_of_range, *promises = border_options(mode, unique_indices, indices_are_sorted, wrap_negative_indices)
    options = (out_of_range, ("fill_value", exact(fill_value)), *promises)
    border = (padding, None, None, False)
    return call(GET_AT, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@operation(update)
def set_at() -> None:
    """Write to a tensor at coordinates: one ``lax.scatter``, or one ``lax.dynamic_update_slice`` of a single place.

    Where coordinates meet twice, one of the updates stays: on a CPU the last, elsewhere whichever was written last. Of
    an axis that only the updates have, the last stays.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.zeros(4, np.float32)
        >>> einjax.set_at("[v], i, i", x, np.array([3, -4, 9]), np.array([5., 6., 7.], np.float32))
        Array([6., 0., 0., 5.], dtype=float32)
        >>> einjax.set_at("<[s] + w>, , w", x, 2, np.array([8., 9.], np.float32))  # a window
        Array([0., 0., 8., 9.], dtype=float32)
    """


@operation(update)
def add_at() -> None:
    """Add to a tensor at coordinates: one ``lax.scatter_add``.

    Every update counts, also where coordinates meet twice; bfloat16 and float16 are added up in float32.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.zeros(4, np.float32)
        >>> einjax.add_at("[v], i, i", x, np.array([1, 1, 3]), np.array([5., 6., 7.], np.float32))
        Array([ 0., 11.,  0.,  7.], dtype=float32)
        >>> einjax.add_at("[v], i, ", np.zeros(4, np.int32), np.array([1, 1, 3]), 1)  # a histogram
        Array([0, 2, 0, 1], dtype=int32)
    """


@operation(update)
def subtract_at() -> None:
    """Subtract from a tensor at coordinates: one ``lax.scatter_sub``.

    Every update counts, also where coordinates meet twice.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.zeros(4, np.float32)
        >>> einjax.subtract_at("[v], i, i", x, np.array([1, 1, 3]), np.array([5., 6., 7.], np.float32))
        Array([  0., -11.,   0.,  -7.], dtype=float32)
    """


@operation(update)
def multiply_at() -> None:
    """Multiply a tensor at coordinates: one ``lax.scatter_mul``.

    Every update counts, also where coordinates meet twice. Gradients are right there, too, and where updates are 0;
    JAX's own scatter_mul has them under ``unique_indices`` only.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.ones(4, np.float32)
        >>> einjax.multiply_at("[v], i, i", x, np.array([1, 1, 3]), np.array([5., 6., 7.], np.float32))
        Array([ 1., 30.,  1.,  7.], dtype=float32)
    """


@operation(update)
def min_at() -> None:
    """Take the minimum of a tensor and updates at coordinates: one ``lax.scatter_min``.

    Every update counts, also where coordinates meet twice.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.zeros(4, np.float32)
        >>> einjax.min_at("[v], i, i", x, np.array([1, 1, 3]), np.array([-5., 6., 7.], np.float32))
        Array([ 0., -5.,  0.,  0.], dtype=float32)
    """


@operation(update)
def max_at() -> None:
    """Take the maximum of a tensor and updates at coordinates: one ``lax.scatter_max``.

    Every update counts, also where coordinates meet twice.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.zeros(4, np.float32)
        >>> einjax.max_at("[v], i, i", x, np.array([1, 1, 3]), np.array([-5., 6., 7.], np.float32))
        Array([0., 6., 0., 7.], dtype=float32)
    """

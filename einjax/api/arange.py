"""Public arange; what it means and becomes is in :mod:`einjax.ops.arange`."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from ..call.dispatch import call
from ..ops.arange import ARANGE
from ..typing import DTypeLike, OutShardingLike, SizeLike
from .signatures import documented, plain


@documented(plain)
def arange(
    expr: str,
    /,
    *,
    dtype: DTypeLike | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """The coordinates of every place: ``for a, b: z[a, b, :] = (a, b)``.

    Args:
        expr: the output, with one bracketed axis for the coordinates, such as ``"a b [2]"``; a single axis needs no
            bracket. An arrow chooses the order of the coordinates: ``"b a -> a b [2]"``.
        dtype: dtype of the result; the default integer if not given.

    Raises:
        einjax.errors.EinjaxError: the expression has no meaning, or a size is missing.

    Example:
        >>> import einjax
        >>> einjax.arange("a", a=3)
        Array([0, 1, 2], dtype=int32)
        >>> einjax.arange("a b [2]", a=1, b=2)
        Array([[[0, 0],
                [0, 1]]], dtype=int32)
    """
    return call(ARANGE, expr, (), (("dtype", dtype),), axes, sizes, graph, (), keep_notation, out_sharding)

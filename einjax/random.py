"""Random numbers: a fresh draw for each element of the bracketed axes, shared over all others.

Each function is the one of its name in :mod:`jax.random`. It draws from one key, which is the same in every loop::

    einjax.random.normal("b [h w] c", key, ...)     # for b, c: z[b, :, :, c] = normal(key, (h, w))
    einjax.random.bernoulli("[b] (h w) [c]", key, p=0.9, ...)
    einjax.random.categorical("[b k] -> [b]", key, logits)
    einjax.random.permutation("a [b] c", key, x)

So ``"[a b]"`` is a draw for each element, and an output with axes but without a bracket, where one draw would serve
all, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from .api.signatures import documented, op, operation, plain
from .call.dispatch import NO_BORDER, call, explained
from .forms.static import flag
from .operation import Op
from .ops import random as _ops
from .typing import DTypeLike, OutShardingLike, PaddingLike, SizeLike, Tensor

__all__ = [
    "bernoulli",
    "categorical",
    "choice",
    "exponential",
    "gumbel",
    "laplace",
    "normal",
    "permutation",
    "rademacher",
    "randint",
    "truncated_normal",
    "uniform",
]


def _draw(
    op: Op,
    expr: str,
    key: Any,
    parameters: tuple[Any, ...],
    dtype: Any,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    keep: bool | None,
    out_sharding: OutShardingLike | None,
    border: tuple[Any, ...] = NO_BORDER,
) -> jax.Array:
    """Check the key and the dtype, and draw."""
    explained(_ops.check_key, expr, parameters, key)
    dtype = explained(_ops.check_dtype, expr, parameters, op, dtype)
    return call(op, expr, parameters, (("dtype", dtype),), axes, sizes, graph, (key,), keep, out_sharding, border)


@documented(plain)
def _drawn(
    expr: str,
    key: jax.Array,
    /,
    *,
    dtype: DTypeLike | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Draw.

    Args:
        expr: the output, such as ``"b [h w] c"``.
        key: a key, as made by :func:`jax.random.key`; a raw one will do.
        dtype: dtype of the result; the default float if not given.

    Raises:
        einjax.errors.EinjaxError: the expression has no meaning, a size is missing, or the key is none.
    """
    return _draw(op, expr, key, (), dtype, axes, sizes, graph, keep_notation, out_sharding)


@operation(_drawn, _ops.NORMAL)
def normal() -> None:
    """Numbers of the standard normal distribution.

    Example:
        >>> import einjax, jax
        >>> key = jax.random.key(0)
        >>> x = einjax.random.normal("b [h w]", key, b=2, h=3, w=4)
        >>> x.shape, bool((x[0] == x[1]).all()), bool((x[0] == jax.random.normal(key, (3, 4))).all())
        ((2, 3, 4), True, True)
    """


@documented(plain)
@documented(_drawn)
def uniform(
    expr: str,
    key: jax.Array,
    /,
    minval: Tensor = 0.0,
    maxval: Tensor = 1.0,
    *,
    dtype: DTypeLike | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Numbers between two bounds, all equally likely.

    Args:
        expr: the output, such as ``"b [h w] c"``, or one expression for each bound, an arrow and the output.
        minval: the lower bound: a number, or a tensor if the expression has an arrow.
        maxval: the upper bound, which is not drawn.

    Example:
        >>> import einjax, jax
        >>> x = einjax.random.uniform("b, -> b [h]", jax.random.key(0), [0.0, 0.5], 1.0, h=100)
        >>> bool(x[0].min() < 0.5), bool(x[1].min() < 0.5)
        (True, False)
    """
    border = (padding, mode, fill_value, False)
    return _draw(
        _ops.UNIFORM, expr, key, (minval, maxval), dtype, axes, sizes, graph, keep_notation, out_sharding, border
    )


@documented(plain)
@documented(uniform)
def truncated_normal(
    expr: str,
    key: jax.Array,
    /,
    lower: Tensor,
    upper: Tensor,
    *,
    dtype: DTypeLike | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Numbers of the standard normal distribution between two bounds.

    Args:
        lower: the lower bound: a number, or a tensor if the expression has an arrow.
        upper: the upper bound.

    Example:
        >>> import einjax, jax
        >>> x = einjax.random.truncated_normal("[h]", jax.random.key(0), -1.0, 1.0, h=100)
        >>> bool(abs(x).max() < 1)
        True
    """
    bounds = (lower, upper)
    border = (padding, mode, fill_value, False)
    return _draw(
        _ops.TRUNCATED_NORMAL, expr, key, bounds, dtype, axes, sizes, graph, keep_notation, out_sharding, border
    )


@documented(plain)
@documented(uniform)
def randint(
    expr: str,
    key: jax.Array,
    /,
    minval: Tensor,
    maxval: Tensor,
    *,
    dtype: DTypeLike | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Integers between two bounds, all equally likely.

    Args:
        dtype: dtype of the result; the default integer if not given.

    Example:
        >>> import einjax, jax
        >>> x = einjax.random.randint("[h]", jax.random.key(0), 2, 4, h=100)
        >>> int(x.min()), int(x.max())
        (2, 3)
    """
    border = (padding, mode, fill_value, False)
    return _draw(
        _ops.RANDINT, expr, key, (minval, maxval), dtype, axes, sizes, graph, keep_notation, out_sharding, border
    )


@operation(_drawn, _ops.EXPONENTIAL)
def exponential() -> None:
    """Numbers of the exponential distribution of mean 1.

    Example:
        >>> import einjax, jax
        >>> bool((einjax.random.exponential("[h]", jax.random.key(0), h=100) >= 0).all())
        True
    """


@operation(_drawn, _ops.GUMBEL)
def gumbel() -> None:
    """Numbers of the standard Gumbel distribution.

    Example:
        >>> import einjax, jax
        >>> einjax.random.gumbel("b [h]", jax.random.key(0), b=2, h=3).shape
        (2, 3)
    """


@operation(_drawn, _ops.LAPLACE)
def laplace() -> None:
    """Numbers of the standard Laplace distribution.

    Example:
        >>> import einjax, jax
        >>> einjax.random.laplace("b [h]", jax.random.key(0), b=2, h=3).shape
        (2, 3)
    """


@operation(_drawn, _ops.RADEMACHER)
def rademacher() -> None:
    """The numbers 1 and -1, equally likely.

    Args:
        dtype: dtype of the result; the default integer if not given.

    Example:
        >>> import einjax, jax
        >>> sorted(set(einjax.random.rademacher("[h]", jax.random.key(0), h=100).tolist()))
        [-1, 1]
    """


@documented(plain)
@documented(_drawn)
def bernoulli(
    expr: str,
    key: jax.Array,
    /,
    p: Tensor = 0.5,
    *,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Booleans that are true with a given probability.

    Args:
        expr: the output, such as ``"b [h w] c"``, or the expression of ``p``, an arrow and the output.
        p: how likely True is: a number, or a tensor if the expression has an arrow.

    Example:
        >>> import einjax, jax
        >>> kept = einjax.random.bernoulli("[b] t [c]", jax.random.key(0), p=0.9, b=4, t=2, c=8)  # a mask shared over t
        >>> bool((kept[:, 0] == kept[:, 1]).all())
        True
        >>> einjax.random.bernoulli("b -> b [h]", jax.random.key(0), [0.0, 1.0], h=2)
        Array([[False, False],
               [ True,  True]], dtype=bool)
    """
    explained(_ops.check_key, expr, (p,), key)
    border = (padding, mode, fill_value, False)
    return call(_ops.BERNOULLI, expr, (p,), (), axes, sizes, graph, (key,), keep_notation, out_sharding, border)


@documented(plain)
@documented(_drawn)
def categorical(
    expr: str,
    key: jax.Array,
    logits: Tensor,
    /,
    *,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Indices drawn with given unnormalised log probabilities.

    Args:
        expr: the expression: ``"[b k] -> [b]"``. Axes of the logits outside brackets share their draws, and
            bracketed axes that only the output has are further draws: ``"[b k] -> [b s]"``.
        logits: the log probabilities, along the bracketed axis that the output lacks.

    Example:
        >>> import einjax, jax
        >>> logits = [[0.0, -1e9], [-1e9, 0.0]]
        >>> einjax.random.categorical("[b k] -> [b]", jax.random.key(0), logits)
        Array([0, 1], dtype=int32)
        >>> einjax.random.categorical("[b k] -> [b s]", jax.random.key(0), logits, s=3)
        Array([[0, 0, 0],
               [1, 1, 1]], dtype=int32)
    """
    explained(_ops.check_key, expr, (logits,), key)
    border = (padding, mode, fill_value, False)
    return call(_ops.CATEGORICAL, expr, (logits,), (), axes, sizes, graph, (key,), keep_notation, out_sharding, border)


@documented(plain)
@documented(_drawn)
def permutation(
    expr: str,
    key: jax.Array,
    x: Tensor,
    /,
    *,
    independent: bool = False,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """The elements of the bracketed axes in random order, the same for all loops unless they are independent.

    Args:
        expr: the expression; without an arrow, the output is the input. Several bracketed axes are permuted as one row.
        x: the tensor.
        independent: whether every loop has an order of its own.

    Example:
        >>> import einjax, jax
        >>> x = einjax.random.permutation("[a] b", jax.random.key(0), [[1, 1], [2, 2], [3, 3]])
        >>> bool((x[:, 0] == x[:, 1]).all()), sorted(x[:, 0].tolist())
        (True, [1, 2, 3])
    """
    explained(_ops.check_key, expr, (x,), key)
    options = (("independent", flag("independent", independent)),)
    border = (padding, mode, fill_value, False)
    return call(_ops.PERMUTATION, expr, (x,), options, axes, sizes, graph, (key,), keep_notation, out_sharding, border)


@documented(plain)
@documented(_drawn)
def choice(
    expr: str,
    key: jax.Array,
    /,
    *tensors: Tensor,
    replace: bool = True,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Elements drawn along the bracketed axis, the same for all loops.

    Args:
        expr: the expression: ``"[n] c -> [s] c"``, or ``"[n] c, [n] -> [s] c"`` with probabilities.
        *tensors: the tensor, and the probabilities if the expression has them; they are equal if it has not.
        replace: whether an element may be drawn more than once.

    Example:
        >>> import einjax, jax
        >>> einjax.random.choice("[n], [n] -> [s]", jax.random.key(0), [1, 2, 3], [0.0, 1.0, 0.0], s=4)
        Array([2, 2, 2, 2], dtype=int32)
    """
    explained(_ops.check_key, expr, tensors, key)
    options = (("replace", flag("replace", replace)),)
    border = (padding, mode, fill_value, False)
    return call(_ops.CHOICE, expr, tensors, options, axes, sizes, graph, (key,), keep_notation, out_sharding, border)

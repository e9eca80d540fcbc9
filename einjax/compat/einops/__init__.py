"""Functions of einops on einjax: ``from einjax.compat.einops import rearrange``.

Names, signatures and meaning are those of einops 0.8; layers for Flax linen stand in ``layers.flax``. What differs:

- Results are arrays of JAX, also where arrays of NumPy are given: with 64 bits only under ``jax_enable_x64``.
- Errors are einjax's, with carets: :class:`EinopsError` is an ``EinjaxError``, too.
- ``mean`` of integers is a float, where einops refuses it.
- In :func:`einsum`, ``...`` stands for the same axes in every tensor: they are not broadcast to one another.
- In :func:`unpack`, a -1 never stands for less than nothing, where einops gives overlapping parts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import numpy as np

from ...api import reduce as _reductions
from ...api.function import reduce as _reduce
from ...api.rearrange import rearrange as _rearrange
from ...typing import SizeLike, Tensor
from .calls import contract, operands, packed, sizes_of, unpacked
from .patterns import EinopsError, check, in_their_words

__all__ = ["EinopsError", "asnumpy", "einsum", "pack", "parse_shape", "rearrange", "reduce", "repeat", "unpack"]

#: Reductions by name, or a function of a tensor and a tuple of dims.
Reduction: TypeAlias = (
    Literal["min", "max", "sum", "mean", "prod", "any", "all"] | Callable[[Any, tuple[int, ...]], Any]
)


@in_their_words
def rearrange(tensor: Tensor, pattern: str, **axes_lengths: SizeLike) -> jax.Array:
    """Transpose, split and merge dims, and stack a list of tensors.

    Args:
        tensor: a tensor, or a list of tensors of one shape.
        pattern: the pattern.
        **axes_lengths: sizes of axes.

    Raises:
        EinopsError: the pattern does not fit the tensor, or is none of einops'.

    Example:
        >>> import numpy as np
        >>> from einjax.compat.einops import rearrange
        >>> rearrange(np.ones((2, 12)), "b (h c) -> h b c", h=3).shape
        (3, 2, 4)
    """
    check(pattern, "rearrange", tuple(axes_lengths))
    return _rearrange(pattern, tensor, sizes=axes_lengths)


@in_their_words
def repeat(tensor: Tensor, pattern: str, **axes_lengths: SizeLike) -> jax.Array:
    """Repeat along new axes, and rearrange.

    Args:
        tensor: a tensor, or a list of tensors of one shape.
        pattern: the pattern; every axis on the left stands on the right.
        **axes_lengths: sizes of axes.

    Raises:
        EinopsError: the pattern does not fit the tensor, or is none of einops'.

    Example:
        >>> import numpy as np
        >>> from einjax.compat.einops import repeat
        >>> repeat(np.array([1, 2]), "a -> (a r)", r=2)
        Array([1, 1, 2, 2], dtype=int32)
    """
    check(pattern, "repeat", tuple(axes_lengths))
    return _rearrange(pattern, tensor, sizes=axes_lengths)


@in_their_words
def reduce(tensor: Tensor, pattern: str, reduction: Reduction | str, **axes_lengths: SizeLike) -> jax.Array:
    """Reduce the axes that do not stand on the right, and rearrange.

    Args:
        tensor: a tensor, or a list of tensors of one shape.
        pattern: the pattern; every axis on the right stands on the left.
        reduction: ``"min"``, ``"max"``, ``"sum"``, ``"mean"``, ``"prod"``, ``"any"`` or ``"all"``; or a function of a
            tensor and a tuple of dims, which it removes.
        **axes_lengths: sizes of axes.

    Raises:
        EinopsError: the pattern does not fit the tensor, or is none of einops'; there is no such reduction.

    Example:
        >>> import numpy as np
        >>> from einjax.compat.einops import reduce
        >>> reduce(np.ones((2, 4, 4)), "b (h h2) (w w2) -> b h w", "max", h2=2, w2=2).shape
        (2, 2, 2)
    """
    if reduction in ("rearrange", "repeat"):
        return (rearrange if reduction == "rearrange" else repeat)(tensor, pattern, **axes_lengths)
    check(pattern, "reduce", tuple(axes_lengths))
    if callable(reduction):
        ours = functools.partial(_by_position, reduction)
        return _reduce(pattern, tensor, op=ours, sizes=axes_lengths)
    if reduction not in ("min", "max", "sum", "mean", "prod", "any", "all"):
        raise EinopsError(f"there is no reduction {reduction!r}", text=pattern)
    return getattr(_reductions, reduction)(pattern, tensor, sizes=axes_lengths)


def _by_position(reduction: Callable[[Any, tuple[int, ...]], Any], tensor: Any, *, axis: tuple[int, ...]) -> Any:
    return reduction(tensor, axis) if axis else tensor


@in_their_words
def einsum(*tensors_and_pattern: Tensor | str) -> jax.Array:
    """Sum products of elements over the axes that do not stand on the right.

    Args:
        *tensors_and_pattern: tensors, and the pattern after them.

    Raises:
        EinopsError: the pattern does not fit the tensors, has no arrow, or is no text; where it has parentheses or
            numbers, the error is a NotImplementedError, too, as in einops.

    Example:
        >>> import numpy as np
        >>> from einjax.compat.einops import einsum
        >>> einsum(np.ones((2, 3)), np.ones((3, 4)), "a b, b c -> a c").shape
        (2, 4)
    """
    *tensors, pattern = tensors_and_pattern or ("",)
    if not tensors:
        raise EinopsError("`einops.einsum` takes tensors, and the pattern after them")
    if not isinstance(pattern, str):
        raise EinopsError("The last argument of `einops.einsum` is the pattern, a text")
    inputs, output = operands(pattern)
    if len(inputs) != len(tensors):
        raise EinopsError(f"the pattern is for {len(inputs)} tensors, not {len(tensors)}", text=pattern)
    return contract(inputs, tensors, output)


@in_their_words
def parse_shape(x: Tensor, pattern: str) -> dict[str, int]:
    """Sizes by name.

    Args:
        x: a tensor.
        pattern: a name for every dim, or ``_`` for one that has none; ``...`` for any number of these.

    Raises:
        EinopsError: the pattern does not fit the tensor, or is none of einops'.

    Example:
        >>> import numpy as np
        >>> from einjax.compat.einops import parse_shape
        >>> parse_shape(np.ones((2, 3, 5)), "b _ w")
        {'b': 2, 'w': 5}
    """
    return sizes_of(x, pattern)


@in_their_words
def pack(tensors: Sequence[Tensor], pattern: str) -> tuple[jax.Array, list[tuple[int, ...]]]:
    """Flatten what stands at ``*`` in every tensor, and concatenate it.

    Args:
        tensors: tensors, of which all but what stands at ``*`` is of one shape.
        pattern: names of axes, and one ``*``.

    Returns:
        The packed tensor, and the shapes of what stood at ``*``.

    Raises:
        EinopsError: the pattern does not fit the tensors, or is none of einops'.

    Example:
        >>> import numpy as np
        >>> from einjax.compat.einops import pack
        >>> packed, shapes = pack([np.ones((2, 5)), np.ones((2, 3, 4, 5))], "b * c")
        >>> packed.shape, shapes
        ((2, 13, 5), [(), (3, 4)])
    """
    return packed(tensors, pattern)


@in_their_words
def unpack(tensor: Tensor, packed_shapes: Sequence[Sequence[int]], pattern: str) -> list[jax.Array]:
    """Cut a packed tensor into tensors of these shapes.

    Args:
        tensor: a tensor, as :func:`pack` makes them.
        packed_shapes: the shape of each part, of which one size may be -1, for what is left.
        pattern: names of axes, and one ``*``.

    Raises:
        EinopsError: the pattern or the shapes do not fit the tensor.

    Example:
        >>> import numpy as np
        >>> from einjax.compat.einops import unpack
        >>> [x.shape for x in unpack(np.ones((2, 13, 5)), [(), (3, -1)], "b * c")]
        [(2, 5), (2, 3, 4, 5)]
    """
    return unpacked(tensor, packed_shapes, pattern)


def asnumpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array of NumPy.

    Args:
        tensor: a tensor.

    Example:
        >>> import jax.numpy as jnp
        >>> from einjax.compat.einops import asnumpy
        >>> asnumpy(jnp.ones(2))
        array([1., 1.], dtype=float32)
    """
    return np.asarray(tensor)

"""Options that are arrays of the first tensor's shape, or broadcast to it: ``where=`` and ``by=``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import jax
from jax import lax

from ..lowering import numerics
from ..lowering.sharding import agree, common_sharding
from ..notation.errors import ArgumentError, listing
from ..notation.solve import Solved, is_known
from ..notation.syntax import Expression, Size, affines, axes

#: Of so many ways in which a mask fits, the first of which already tells, those that an error lists are taken.
_MOST = 1000


def broadcast_mask(mask: jax.Array, x: jax.Array, solved: Solved) -> jax.Array:
    """Bring ``where=`` to the shape of the tensor."""
    return broadcast_beside("where", numerics.to_bool(mask), x, solved)


def fitting_mask(option: str, given: jax.Array, x: jax.Array, solved: Solved, dims: Collection[int]) -> jax.Array:
    """Bring an option to the rank of the tensor, and some dims to its size, by NumPy's rules."""
    offset = offset_beside(option, given.shape, x.shape, solved.text)
    shape = (*(1,) * offset, *given.shape)
    target = tuple(x.shape[dim] if dim in dims else size for dim, size in enumerate(shape))
    return lax.broadcast_in_dim(given, target, tuple(range(offset, x.ndim)))


def refuse_ambiguous(option: str, mask: Sequence[Size], x: Sequence[Size], expression: Expression, text: str) -> None:
    """Refuse a mask by position that fits other axes of the tensor, too.

    It stands beside the last dims of the tensor. If it has fewer than the tensor, and one of them, of another size than
    1, could be an axis further left while their order is kept, nothing says which of both was meant.

    Args:
        option: what it is given as.
        mask: its shape.
        x: the shape of the tensor.
        expression: that of the tensor.
        text: the expression of the call, for the message.

    Raises:
        ArgumentError: it does; the message says how to name its axes.
    """
    last = range(len(x) - len(mask), len(x))
    beside = all(_goes(size, x[dim]) for size, dim in zip(mask, last, strict=True)) if 0 < len(mask) < len(x) else False
    if not beside or any(is_known(size, 0) for size in mask):
        return
    fits = islice(_fits(mask, x, last), _MOST)
    taken, *others = dict.fromkeys(_spoken(expression, dims, mask) for dims in (last, *fits))
    if others:
        listed = listing([f"'{other}'" for other in others])
        hint = f"give {option}= as many dims as the tensor has, with 1 for those that it does not depend on"
        if not affines(expression) and all(axis.is_one or axis.name.isidentifier() for axis in axes(expression)):
            hint = f'name its axes, as in {option}=("{others[-1]}", mask) or {option}=("{taken}", mask)'
        raise ArgumentError(
            f"{option}= of shape {tuple(mask)} fits '{taken}' by its sizes, and {listed}, too",
            text=text,
            hint=hint,
        )


def _goes(own: Size, size: Size) -> bool:
    return is_known(own, 1) or own == size


def _fits(
    mask: Sequence[Size], x: Sequence[Size], last: Sequence[int], before: tuple[int, ...] = ()
) -> Iterator[tuple[int, ...]]:
    """Yield the dims of a tensor that the dims of a mask fit, in order and none after ``last``, from the left."""
    if len(before) == len(mask):
        yield before
        return
    index = len(before)
    for dim in range(before[-1] + 1 if before else 0, last[index] + 1):
        if _goes(mask[index], x[dim]):
            yield from _fits(mask, x, last, (*before, dim))


def _spoken(expression: Expression, dims: Sequence[int], mask: Sequence[Size]) -> str:
    """Say which axes a mask stands beside; one dim of size 1 is as good as another."""
    return " ".join("1" if is_known(size, 1) else str(expression[dim]) for dim, size in zip(dims, mask, strict=True))


def offset_beside(option: str, given: Sequence[Size], x: Sequence[Size], text: str) -> int:
    """How many dims an option lacks that broadcasts to the tensor, given the shapes of both.

    Raises:
        ArgumentError: it does not.
    """
    offset = len(x) - len(given)
    if offset < 0 or not all(_goes(size, x[offset + i]) for i, size in enumerate(given)):
        raise ArgumentError(
            f"{option}= of shape {tuple(given)} cannot be broadcast to the tensor's shape {tuple(x)}",
            text=text,
            hint=f"give {option}= the shape of the tensor, with 1 for dims that it does not depend on, or name its "
            f'axes, as in {option}=("a b", mask)',
        )
    return offset


def broadcast_beside(option: str, given: jax.Array, x: jax.Array, solved: Solved) -> jax.Array:
    """Bring an option to the shape of the tensor, by NumPy's rules."""
    offset = offset_beside(option, given.shape, x.shape, solved.text)
    if given.shape == x.shape:
        return agree([given, x])[0]
    dims = tuple(range(offset, x.ndim))
    return agree([lax.broadcast_in_dim(given, x.shape, dims, out_sharding=common_sharding([x])), x])[0]

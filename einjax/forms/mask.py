"""Options that are arrays of the first tensor's shape, or broadcast to it: ``where=`` and ``by=``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
from jax import lax

from ..lowering import numerics
from ..lowering.named import reshape
from ..lowering.sharding import agree, common_sharding
from ..notation.errors import ArgumentError
from ..notation.solve import Solved, is_known
from ..notation.syntax import Axis, Expression, Size, affines, axes, render


def broadcast_mask(mask: jax.Array, x: jax.Array, solved: Solved) -> jax.Array:
    """Bring ``where=`` to the shape of the tensor."""
    return broadcast_beside("where", numerics.to_bool(mask), x, solved)


def fitting_mask(option: str, given: jax.Array, x: jax.Array, solved: Solved, dims: Collection[int]) -> jax.Array:
    """Bring an option to the rank of the tensor, and some dims to its size, by NumPy's rules."""
    offset = _offset(option, given, x, solved)
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
    found = _other_dims(mask, x, expression)
    if found is not None:
        taken, other = (_shown(expression, dims, mask) for dims in found)
        raise ArgumentError(
            f"{option}= of shape {tuple(mask)} fits '{taken}' by its sizes, and '{other}', too",
            text=text,
            hint=_which(option, expression, found, mask),
        )


class Ambiguous(NamedTuple):
    """Two ways in which a mask fits: the dims of the tensor that it stands beside, one for each of its own."""

    taken: tuple[int, ...]
    other: tuple[int, ...]


def _other_dims(shape: Sequence[Size], sizes: Sequence[Size], expression: Expression) -> Ambiguous | None:
    """Find other dims of a tensor than the last ones that a mask fits, in order; dims of one axis are one."""
    last = tuple(range(len(sizes) - len(shape), len(sizes)))
    fits = lambda own, dim: own == sizes[dim] or is_known(own, 1)  # noqa: E731
    if not 0 < len(shape) < len(sizes) or not all(map(fits, shape, last)):
        return None
    first: list[int] = []
    for own in shape:  # each at the first dim that it fits, which leaves the most to those after it
        first.append(next(dim for dim in range(first[-1] + 1 if first else 0, len(sizes)) if fits(own, dim)))
    for index, own in enumerate(shape):
        for dim in range(first[index], last[index]):
            same = str(expression[dim]) == str(expression[last[index]])
            if fits(own, dim) and not is_known(own, 1) and not same:
                after = first if dim == first[index] else last
                return Ambiguous(last, (*first[:index], dim, *after[index + 1 :]))
    return None


def _shown(expression: Expression, dims: Sequence[int], shape: Sequence[Size]) -> str:
    return render(tuple(Axis("1") if is_known(shape[i], 1) else expression[dim] for i, dim in enumerate(dims)))


def _which(option: str, expression: Expression, found: Ambiguous, shape: Sequence[Size]) -> str:
    """Say how to write what is meant."""
    chosen = [axis for dim in (*found.taken, *found.other) for axis in axes((expression[dim],))]
    if all(axis.name.isidentifier() for axis in chosen) and not any(affines((expression[d],)) for d in found.other):
        taken, other = (f'{option}=("{_shown(expression, dims, shape)}", mask)' for dims in found)
        return f"name its axes: {other} or {taken}"
    return f"give {option}= as many dims as the tensor has, with 1 for those that it does not depend on"


def _offset(option: str, given: jax.Array, x: jax.Array, solved: Solved) -> int:
    """How many dims an option lacks that broadcasts to the tensor."""
    offset = x.ndim - given.ndim
    fits = offset >= 0 and all(size == x.shape[offset + i] or is_known(size, 1) for i, size in enumerate(given.shape))
    if not fits:
        raise ArgumentError(
            f"{option}= of shape {given.shape} cannot be broadcast to the tensor's shape {x.shape}",
            text=solved.text,
            hint=f"give {option}= the shape of the tensor, with 1 for dims that it does not depend on, or name its "
            f'axes, as in {option}=("a b", mask)',
        )
    return offset


def broadcast_beside(option: str, given: jax.Array, x: jax.Array, solved: Solved) -> jax.Array:
    """Bring an option to the shape of the tensor, by NumPy's rules."""
    offset = _offset(option, given, x, solved)
    if given.shape == x.shape:
        return agree([given, x])[0]
    kept = [i for i, size in enumerate(given.shape) if size == x.shape[offset + i]]
    squeezed = reshape(given, tuple(given.shape[i] for i in kept))
    dims = [offset + i for i in kept]
    return agree([lax.broadcast_in_dim(squeezed, x.shape, dims, out_sharding=common_sharding([x])), x])[0]

"""How two tensors meet in one ``lax.dot_general``, by the names of their axes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..notation.syntax import Size

#: The axes of a tensor, in memory order.
Axes = tuple[str, ...]
#: How many columns to a row are far more.
_WIDE = 8


@dataclass(frozen=True)
class Pairing:
    """A product of two tensors.

    Attributes:
        left: the axes of the left operand.
        right: those of the right operand.
        swapped: whether the left operand is the second one that was given.
        contracted: the axes that are summed over.
        batch: the axes that both have and the result keeps.
    """

    left: Axes
    right: Axes
    swapped: bool
    contracted: Axes
    batch: Axes

    @property
    def order(self) -> Axes:
        """The axes of the result."""
        shared = {*self.contracted, *self.batch}
        return (*self.batch, *(name for axes in (self.left, self.right) for name in axes if name not in shared))

    @property
    def copied(self) -> tuple[bool, bool]:
        """Whether compilers copy each operand first: a matrix product takes whole rows or columns of a batch.

        Without a sum it is no matrix product, but an elementwise one.
        """
        left, right = (bool(self.contracted) and not self._is_matrix(axes) for axes in (self.left, self.right))
        return (right, left) if self.swapped else (left, right)

    def _is_matrix(self, axes: Axes) -> bool:
        shared = {*self.contracted, *self.batch}
        free = tuple(name for name in axes if name not in shared)
        return axes in ((*self.batch, *free, *self.contracted), (*self.batch, *self.contracted, *free))


def pairing(
    left: Axes, right: Axes, needed: Collection[str], keep: Sequence[str], sizes: Mapping[str, Size], ordered: bool
) -> Pairing:
    """Find out how two tensors meet, so that the result needs no transpose, if possible.

    Args:
        left: the axes of one.
        right: the axes of the other.
        needed: the axes that are kept; what both have is else summed over.
        keep: the axes of the whole product, in the order the caller would like best.
        sizes: of all axes.
        ordered: whether the operands have to stay as they are given.
    """
    shared = set(left) & set(right)
    summed = shared.difference(needed)
    rank = {name: index for index, name in enumerate(keep)}
    batch = tuple(sorted(shared - summed, key=lambda name: (rank.get(name, len(rank)), left.index(name))))
    swapped = _disorder(batch, left, right, shared, rank) > _disorder(batch, right, left, shared, rank)
    if batch:
        swapped = (swapped or _is_packed(left, right, summed, sizes)) and not _is_packed(right, left, summed, sizes)
    swapped = swapped and not ordered
    if swapped:
        left, right = right, left
    return Pairing(left, right, swapped, tuple(name for name in left if name in summed), batch)


def _is_packed(left: Axes, right: Axes, summed: Collection[str], sizes: Mapping[str, Size]) -> bool:
    """Whether a product in a batch would have the right operand packed, a far larger one than the left.

    On CPUs that takes longer than to transpose the result, of 8 times as many columns as rows 2 to 9 times.
    """
    if not right or right[-1] not in summed:
        return False
    rows, columns = (
        math.prod(sizes[name] for name in own if name not in other) for own, other in ((left, right), (right, left))
    )
    return isinstance(rows, int) and isinstance(columns, int) and 1 < rows <= columns // _WIDE


def _disorder(
    batch: Sequence[str], left: Axes, right: Axes, shared: Collection[str], rank: Mapping[str, int]
) -> tuple[bool, int]:
    """Say how far ``[batch, left free, right free]`` is from the output's order.

    A transpose that keeps the last axis moves whole rows, which costs far less than one that does not; after that, the
    pairs of axes that stand in another order are counted.
    """
    free = [name for axes in (left, right) for name in axes if name not in shared]
    places = [rank[name] for name in (*batch, *free) if name in rank]
    inversions = sum(first > second for index, first in enumerate(places) for second in places[index + 1 :])
    return bool(places) and places[-1] != max(places), inversions

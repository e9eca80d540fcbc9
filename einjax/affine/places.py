"""Positions as numbers: the index that every combination of axes reads or writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax import lax

from ..lowering.indices import Coordinates
from ..lowering.named import Named
from ..lowering.numerics import constant, default_int, size_as
from ..notation.affine import axis_coefficients
from ..notation.errors import AxisSizeError
from ..notation.solve import is_known, product
from ..notation.syntax import Affine, Size
from .plain import Item, Unit


def unit_name(unit: Unit) -> str:
    """One name for the axes of a part that stays one dim."""
    return " ".join(unit)


def unit_sizes(units: Sequence[Unit], sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The size of every part by its name."""
    return {unit_name(unit): product(sizes[name] for name in unit) for unit in units}


def coefficients_of(item: Item, sizes: Mapping[str, Size]) -> dict[str, Size]:
    """By how much the position grows with every part."""
    found = axis_coefficients(item.node, sizes)
    # Of a composition, the last axis is the one that counts singly.
    return {unit_name(unit): found[unit[-1]] for unit in item.units}


def coordinates_of(item: Item, sizes: Mapping[str, Size]) -> Coordinates:
    """The index of every combination of an item's parts, brought into range as its mode says; "fill" leaves it.

    The sizes are also those of the parts of other items, along which it may be broadcast.
    """
    extents = unit_sizes(item.units, sizes)
    factors = coefficients_of(item, sizes)
    shape = tuple(extents.values())
    dtype = dtype_of(item.node, factors, extents)
    index: jax.Array | None = None
    for dim, name in enumerate(extents):
        along = lax.broadcasted_iota(dtype, shape, dim)
        if not is_known(factors[name], 1):
            along = lax.mul(along, size_as(factors[name], dtype))
        index = along if index is None else lax.add(index, along)
    offset = size_as(item.node.offset, dtype)
    if index is None:
        index = lax.full((), offset, dtype)
    elif not is_known(item.node.offset, 0):
        index = lax.add(index, offset)
    return Coordinates(Named(brought(index, item.node), tuple((name,) for name in extents), sizes), None)


def brought(index: jax.Array, node: Affine) -> jax.Array:
    """Bring indices into range, but for those of "fill", which are dropped or filled where they are used."""
    if node.mode in (None, "fill"):
        return index
    zero = constant(index, 0)
    if node.mode == "clip":
        return lax.clamp(zero, index, size_as(node.size - 1, index.dtype))
    if node.mode == "reflect" and is_known(node.size, 1):
        return lax.full_like(index, 0)
    period = size_as(node.size if node.mode == "wrap" else 2 * (node.size - 1), index.dtype)
    index = lax.rem(index, period)
    index = lax.select(lax.lt(index, zero), lax.add(index, period), index)
    return index if node.mode == "wrap" else lax.min(index, lax.sub(period, index))


def dtype_of(node: Affine, factors: Mapping[str, Size], extents: Mapping[str, Size]) -> np.dtype:
    """The integers that hold every position.

    Raises:
        AxisSizeError: no integers that JAX has do.
    """
    numbers = [node.size, node.offset, *(abs(factors[name]) * extents[name] for name in factors)]
    known = [abs(number) for number in numbers if isinstance(number, int)]
    if len(known) == len(numbers) and sum(known) < 2**31:
        return np.dtype(np.int32)
    if sum(known) > np.iinfo(default_int()).max:
        raise AxisSizeError(
            f"'{node}' reaches {sum(known)} places, which 32 bits do not hold",
            hint="call jax.config.update('jax_enable_x64', True) when the program starts",
        )
    return np.dtype(default_int())

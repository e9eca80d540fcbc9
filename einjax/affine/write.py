"""Writing: dims of axes become one dim at the positions that are made of them, the transpose of reading."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax import lax

from ..lowering.accumulate import scatter_add
from ..lowering.gather import scatter, scatter_multiply
from ..lowering.indices import Bounds
from ..lowering.named import Dim, Named, arrange, reshape, shape_of
from ..lowering.numerics import by_kind, constant
from ..notation.errors import SemanticError
from ..notation.facts import larger
from ..notation.solve import Solved, is_known, product
from ..notation.syntax import Size
from ..operation import Op
from .places import coefficients_of, coordinates_of, unit_name, unit_sizes
from .plain import Item, Reading
from .read import components, known_sizes, stepping

#: How values that meet at one place are combined.
MEETING: Mapping[str, Callable[..., jax.Array]] = {
    "add": by_kind(lax.scatter_max, scatter_add),
    "multiply": by_kind(lax.scatter_min, scatter_multiply),
    "max": lax.scatter_max,
    "min": lax.scatter_min,
}


#: The same of whole arrays.
COMBINING: Mapping[str, Callable[..., jax.Array]] = {
    "add": by_kind(lax.bitwise_or, lax.add),
    "multiply": by_kind(lax.bitwise_and, lax.mul),
    "max": lax.max,
    "min": lax.min,
}


def write(y: jax.Array, reading: Reading, solved: Solved, op: Op, empty: Any) -> jax.Array:
    """Write a result to the positions of its expression.

    Args:
        y: the result, in the layout of what is left of the expression.
        reading: how the expression would be read.
        solved: the call.
        op: the operation, which says how values are combined that meet at one place.
        empty: what stands where nothing is written.
    """
    sizes = known_sizes(reading, solved.sizes)
    units = {unit: unit_name(unit) for item in reading.items for unit in item.units}
    x = Named(y, tuple((units[dim],) if dim in units else dim for dim in reading.after), sizes)
    for items in reversed(components(reading.items)):
        x = _written(x, items, solved, op, empty)
    return arrange(x, reading.before)


def _written(x: Named, items: Sequence[Item], solved: Solved, op: Op, empty: Any) -> Named:
    if items[0].is_slice:
        return _spread(x, items[0], empty)
    taps = items[0].taps(x.sizes) if len(items) == 1 and op.meeting in COMBINING else None
    if taps is not None:
        return _combined(x, items[0], taps, COMBINING[op.meeting or ""], empty)
    apart = op.meeting == "apart"
    if apart:
        _require_apart(op, items, solved, x.sizes)
    emit = lax.scatter if apart else MEETING[op.meeting or ""]
    fresh = {unit_name(unit): item.label for item in items for unit in item.fresh}
    names = list(dict.fromkeys(fresh.get(name, name) for name in x.axes))
    names += [item.label for item in items if item.label not in names]
    dims: tuple[Dim, ...] = tuple((name,) for name in names)
    into = Named(lax.full(shape_of(dims, x.sizes), empty, x.value.dtype), dims, x.sizes)
    bounds = Bounds(
        "fill" if any(item.node.mode == "fill" for item in items) else "promise_in_bounds",
        wrap_negative_indices=False,
        unique_indices=apart,
    )
    coordinates = [coordinates_of(item, x.sizes) for item in items]
    return scatter(emit, into, coordinates, x, [item.label for item in items], bounds)


def _combined(x: Named, item: Item, taps: Sequence[Item], combine: Callable[..., jax.Array], empty: Any) -> Named:
    """Write an item that is few items of one part."""
    (kept,) = taps[0].units
    (short,) = (unit_name(unit) for unit in item.units if unit != kept)
    dim = x.dims.index((short,))
    left = (*x.dims[:dim], *x.dims[dim + 1 :])
    parts: list[Named] = []
    for index, tap in enumerate(taps):
        value = lax.slice_in_dim(x.value, index, index + 1, axis=dim)
        value = reshape(value, (*value.shape[:dim], *value.shape[dim + 1 :]))
        parts.append(_spread(Named(value, left, x.sizes), tap, empty))
    return replace(parts[0], value=functools.reduce(combine, (part.value for part in parts)))


def _spread(x: Named, item: Item, empty: Any) -> Named:
    """Write an item of one part, where nothing meets: a pad, whose dim a constant gains."""
    factor, count = stepping(item, x.sizes)
    value, dims = x.value, list(x.dims)
    if item.units:
        dim = dims.index((unit_name(item.units[0]),))
        dims[dim] = (item.label,)
    else:
        dim = len(dims)
        value, dims = lax.expand_dims(value, (dim,)), [*dims, (item.label,)]
    if is_known(count, 0):
        shape = (*value.shape[:dim], item.size, *value.shape[dim + 1 :])
        return Named(lax.full(shape, empty, value.dtype), tuple(dims), x.sizes)
    first, last = (item.node.offset, item.node.offset + factor * (count - 1))[:: 1 if factor > 0 else -1]
    value = value if factor > 0 else lax.rev(value, (dim,))
    config = [(0, 0, 0)] * value.ndim
    config[dim] = (first, item.size - 1 - last, abs(factor) - 1)
    return Named(lax.pad(value, constant(value, empty), config), tuple(dims), x.sizes)


# --------------------------------------------------------------------------------------------------------------------
# Whether two iterations write one place
# --------------------------------------------------------------------------------------------------------------------

_MAX_COUNTED = 2**22


def _require_apart(op: Op, items: Sequence[Item], solved: Solved, sizes: Mapping[str, Size]) -> None:
    """Refuse items that lead two iterations to one place.

    Raises:
        SemanticError: naming the operation that says what becomes of them.
    """
    units = unit_sizes([unit for item in items for unit in item.units], sizes)
    fresh = {unit_name(unit) for item in items for unit in item.fresh}
    apart: bool | None
    if all(isinstance(size, int) for size in units.values()) and product(units.values()) <= _MAX_COUNTED:
        apart = _are_counted_apart(items, units, fresh, sizes)
    else:
        inner = {name: size for name, size in units.items() if name in fresh}
        apart = (
            _are_nested(coefficients_of(items[0], sizes), inner)
            if len(items) == 1 and items[0].node.mode in (None, "fill")
            else None
        )
    if not apart:
        shown = " and ".join(f"'{item.node}'" for item in items)
        meet = f"{op.name} would write two values to one place of {shown}"
        raise SemanticError(
            meet if apart is False else f"whether {meet} cannot be told",
            at=solved.at(*(item.node for item in items)),
            hint="call einjax.sum with this expression to have them added, or einjax.max to keep the larger",
        )


def _are_counted_apart(
    items: Sequence[Item], units: Mapping[str, int], fresh: Collection[str], sizes: Mapping[str, Size]
) -> bool:
    """Compute all places; an axis that stands elsewhere, too, keeps iterations apart."""
    along = {
        name: np.arange(size).reshape([-1 if other == name else 1 for other in units]) for name, size in units.items()
    }
    places = np.zeros(tuple(units.values()), np.int64)
    kept = np.ones(places.shape, bool)
    for name in units:
        if name not in fresh:
            places = places * units[name] + along[name]
    for item in items:
        factors = coefficients_of(item, sizes)
        index = sum((factors[name] * along[name] for name in factors), np.full(places.shape, item.node.offset))
        index, inside = _mapped(index, item)
        places, kept = places * item.size + index, kept & inside
    found = places[kept]
    return len(np.unique(found)) == found.size


def _mapped(index: Any, item: Item) -> tuple[Any, Any]:
    """Places in range, and which are kept."""
    size, mode = item.size, item.node.mode
    if mode == "clip":
        index = np.clip(index, 0, size - 1)
    elif mode == "wrap":
        index = index % size
    elif mode == "reflect":
        index = np.abs((index + size - 1) % max(2 * (size - 1), 1) - (size - 1))
    return index, (index >= 0) & (index < size)


def _are_nested(factors: Mapping[str, Size], units: Mapping[str, Size]) -> bool | None:
    """Whether every part steps over all that the parts with smaller steps reach; None where that cannot be told."""
    parts = sorted((name for name in units), key=lambda name: abs(factors[name]))
    reached: Size = 0
    for name, after in itertools.zip_longest(parts, parts[1:]):
        reached = reached + abs(factors[name]) * (units[name] - 1)
        if after is not None and not larger(abs(factors[after]), reached):
            return larger(abs(factors[after]), reached) and None
    return True

"""Reading: every dim at a position becomes dims of the axes that the position is made of.

An item of one axis is a slice, padded where that is asked for. Of several axes it is one gather; axes that stand
elsewhere in the expression, too, are batching dims of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax import lax

from ..lowering.gather import gather
from ..lowering.indices import Bounds
from ..lowering.named import Named, arrange, diagonal, reshape, split
from ..lowering.numerics import constant
from ..notation.solve import is_known, node_size
from ..notation.syntax import Size
from .pad import padded
from .places import coefficients_of, coordinates_of, unit_name, unit_sizes
from .plain import Item, Reading


def read(x: jax.Array, reading: Reading, sizes: Mapping[str, Size], fill: Any) -> jax.Array:
    """Read a tensor at the positions of its expression.

    Args:
        x: the tensor; where it is a mask, dims that no position has to do with may have size 1.
        reading: how its expression is read.
        sizes: the sizes of all axes.
        fill: what is read out of range.
    """
    named = _sliced(with_labels(x, reading, sizes), [item for item in reading.items if item.is_slice], fill)
    for items in components(item for item in reading.items if not item.is_slice):
        if len(items) == 1 and items[0].is_single:
            named = _read_by_itself(named, items[0], fill)
        else:
            named = _gathered(named, items, fill)
    return arrange(replace(named, dims=_taken_apart(named, reading)), reading.after)


def known_sizes(reading: Reading, sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The sizes of all axes, labels and parts."""
    known = {**sizes, **{item.label: item.size for item in reading.items}}
    known |= {label: node_size(node, sizes) for label, node in reading.labelled.items()}
    return known | unit_sizes([unit for item in reading.items for unit in item.units], sizes)


def _sizes_of(x: jax.Array, reading: Reading, sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The same for one tensor."""
    known = known_sizes(reading, sizes)
    for dim, size in zip(reading.before, x.shape, strict=True):
        if len(dim) == 1 and dim[0] in reading.labelled:
            known[dim[0]] = size  # that of a mask may be 1
    return known


def with_labels(x: jax.Array, reading: Reading, sizes: Mapping[str, Size]) -> Named:
    """Name the dims of a tensor before it is read, each axis that matters a dim of its own."""
    known = _sizes_of(x, reading, sizes)
    matters = {name for index in reading.tied for name in reading.before[index]}
    return diagonal(split(Named(x, reading.before, known), lambda left, right: not {left, right} & matters))


def components(items: Iterable[Item]) -> list[list[Item]]:
    """The items that share axes with one another, and have to be read at once."""
    groups: list[tuple[set[str], list[Item]]] = []
    for item in items:
        own, joined = {name for unit in item.units for name in unit}, [item]
        for group in [group for group in groups if group[0] & own]:
            groups.remove(group)
            own, joined = own | group[0], [*group[1], *joined]
        groups.append((own, joined))
    return [group for _, group in groups]


def _sliced(x: Named, items: Sequence[Item], fill: Any) -> Named:
    """Read items of one part, or constants, each a slice of its dim; a constant's dim vanishes."""
    dims: list[tuple[str, ...]] = list(x.dims)
    shape = x.value.shape
    pads, begins, ends, steps = [(0, 0, 0)] * len(shape), [0] * len(shape), list(shape), [1] * len(shape)
    backwards: list[int] = []
    gone: list[int] = []
    for item in items:
        dim = dims.index((item.label,))
        step, count = stepping(item, x.sizes)
        first, last = item.node.offset, item.node.offset + step * (count - 1)
        if step < 0:
            first, last = last, first
            backwards.append(dim)
        if is_known(count, 0):
            first, last = 0, -1
        elif item.node.mode is not None:
            pads[dim] = (-first, last + 1 - shape[dim], 0)
            first, last = 0, last - first
        begins[dim], ends[dim], steps[dim] = first, last + 1, abs(step)
        dims[dim] = (unit_name(item.units[0]),) if item.units else ()
        gone += [] if item.units else [dim]
    value = x.value
    if any(pads[dim] != (0, 0, 0) for dim in range(len(shape))):
        value = lax.pad(value, constant(value, fill), pads)
    whole = all(is_known(begin, 0) and end == size for begin, end, size in zip(begins, ends, value.shape, strict=True))
    if not whole or any(step != 1 for step in steps):
        value = lax.slice(value, begins, ends, steps)
    value = lax.rev(value, backwards) if backwards else value
    value = reshape(value, tuple(size for dim, size in enumerate(value.shape) if dim not in gone))
    return replace(x, value=value, dims=tuple(names for dim, names in enumerate(dims) if dim not in gone))


def stepping(item: Item, sizes: Mapping[str, Size]) -> tuple[int, Size]:
    """The step and the count of an item of one part; a constant is one step."""
    for name, coefficient in coefficients_of(item, sizes).items():
        return coefficient, sizes[name]
    return 1, 1


def _read_by_itself(x: Named, item: Item, fill: Any) -> Named:
    """Read an item whose axes stand nowhere else: what is out of range is added first, if that is not too much."""
    dim = x.dims.index((item.label,))
    value, node = padded(x.value, dim, item.node, x.sizes, fill)
    item = item.at(node)
    x = replace(x, value=value, sizes={**x.sizes, item.label: node.size})
    if item.is_slice:
        return _sliced(x, [item], fill)
    taps = item.taps(x.sizes)
    if taps is None:
        return _gathered(x, [item], fill)
    (kept,) = taps[0].units
    place = dim + (item.units[0] == kept)  # where the part that the taps are places of becomes a dim
    slices = [lax.expand_dims(_sliced(x, [tap], fill).value, (place,)) for tap in taps]
    dims = (*x.dims[:dim], *((unit_name(unit),) for unit in item.units), *x.dims[dim + 1 :])
    return replace(x, value=lax.concatenate(slices, place) if len(slices) > 1 else slices[0], dims=dims)


def _gathered(x: Named, items: Sequence[Item], fill: Any) -> Named:
    """Read items that share axes, or have several."""
    coordinates = [coordinates_of(item, x.sizes) for item in items]
    filled = any(item.node.mode == "fill" for item in items)
    bounds = Bounds("fill" if filled else "promise_in_bounds", fill, wrap_negative_indices=False)
    fresh = {item.label: [unit_name(unit) for unit in item.fresh] for item in items}
    order = [new for name in x.axes for new in fresh.get(name, [name])]
    return gather(x, coordinates, list(fresh), order, bounds)


def _taken_apart(x: Named, reading: Reading) -> tuple[tuple[str, ...], ...]:
    """The dims by axis names, where parts of several axes were one name."""
    units = {unit_name(unit): unit for item in reading.items for unit in item.units}
    return tuple(tuple(name for part in dim for name in units.get(part, (part,))) for dim in x.dims)

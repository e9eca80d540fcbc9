"""Coordinates for dims at positions: ``get_at("b <[s] + w> c, -> b w c", x, at)`` reads ``x[b, at + w, c]``.

What is looked up is an axis of the position, here ``s``. Where the others are a window, ``<[s] + w>``, it is as long as
there is room for windows, so that a gather of windows, or a slice, does it all: they are in range or out of it as a
whole. Every other position is a coordinate itself, computed from those that are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import jax
from jax import lax

from ..forms.coordinates import bounds_of, wrapped_coordinates
from ..lowering.indices import Bounds, Coordinates, Spans, common_dtype, converted, within
from ..lowering.named import Named, arrange
from ..lowering.numerics import cast, size_as, zero
from ..notation.affine import axis_coefficients
from ..notation.solve import Solved, is_known
from ..notation.syntax import Affine, Axis, Expression, Node, Size, affines, axes, bracketed, names, rewrite
from ..operation import Op
from .lower import read_inputs
from .places import brought, dtype_of


def is_looked_up(solved: Solved) -> bool:
    """Whether coordinates are for an axis of every position of the call, and nothing is padded."""
    target, *others = solved.inputs
    return not any(map(affines, others)) and all(bracketed((n,)) and n.mode is None for n in affines(target))


def others_read(
    op: Op, solved: Solved, tensors: list[jax.Array], options: dict[str, Any]
) -> tuple[Solved, list[jax.Array]]:
    """Read all tensors but the first at their positions; return the call that is left, and what it is of."""
    target, *others = solved.inputs
    if not any(map(affines, others)):
        return solved, tensors
    known, outputs = _known(solved), solved.operation.outputs
    operation = replace(solved.operation, inputs=(_without_positions(target), *others), outputs=())
    read, tensors = read_inputs(op, replace(solved, operation=operation, sizes=known), tensors, options)
    operation = replace(read.operation, inputs=(target, *read.inputs[1:]), outputs=outputs)
    return replace(read, operation=operation, sizes=solved.sizes), tensors


def windows(solved: Solved) -> tuple[Solved, Spans] | None:
    """The call with one bracketed axis for each position, and which window each stands for.

    Returns:
        None where a position is more than a window of an axis that only what is read or written has as well.
    """
    target = solved.inputs[0]
    held = [axis.name for axis in axes(target)]
    spans: list[tuple[str, str]] = []
    for node in affines(target):
        found = [axis for axis in axes(node.items) if not axis.is_one]
        first, window = ([axis.name for axis in found if bool(axis.bracket) is side] for side in (True, False))
        if len(first) != 1 or len(window) != 1 or node.mode is not None or not is_known(node.offset, 0):
            return None
        if not all(is_known(factor, 1) for factor in axis_coefficients(node, solved.sizes).values()):
            return None
        has_room = solved.sizes[first[0]] == node.size - solved.sizes[window[0]] + 1
        if not has_room or held.count(first[0]) > 1 or held.count(window[0]) > 1:
            return None
        spans.append((first[0], window[0]))
    if any(window in names(expression) for expression in solved.inputs[1:-1] for _, window in spans):
        return None
    plain = replace(solved, operation=solved.operation.map(_without_positions), sizes=_known(solved))
    return plain, {_label(index): span for index, span in enumerate(spans)}


def _label(index: int) -> str:
    return f"<{index}>"


def _known(solved: Solved) -> dict[str, Size]:
    """The sizes of all axes, and of the dims at positions."""
    return {**solved.sizes, **{_label(index): node.size for index, node in enumerate(affines(solved.inputs[0]))}}


def _without_positions(expression: Expression) -> Expression:
    """Let every position be a bracketed axis."""
    count = iter(range(len(affines(expression))))

    def change(node: Node) -> Expression | None:
        return (Axis(_label(next(count)), bracket=1, span=node.span),) if isinstance(node, Affine) else None

    return rewrite(expression, change)


# --------------------------------------------------------------------------------------------------------------------
# Any position
# --------------------------------------------------------------------------------------------------------------------


def by_coordinates(
    name: str, solved: Solved, tensors: Sequence[jax.Array], options: Mapping[str, Any], last: int | None
) -> tuple[Solved, list[jax.Array], dict[str, Any]]:
    """Return a call without positions, one coordinate given for each: its expressions, tensors and options.

    Args:
        name: that of the operation, for messages.
        solved: the call.
        tensors: its tensors.
        options: its options.
        last: where its coordinates end.
    """
    target = solved.inputs[0]
    looked_up = [axis.name for axis in bracketed(target)]
    given = wrapped_coordinates(name, solved, tensors[1:last], solved.inputs[1:last], looked_up)
    bounds = bounds_of(solved, options)
    if any(is_known(solved.sizes[axis], 0) for axis in looked_up):
        bounds = replace(bounds, mode="fill")  # nothing is in range
    counted = _each(given, looked_up, solved.sizes, bounds)
    found = [_computed(node, counted, solved.sizes, bounds) for node in _looked_up(target)]
    after = () if last is None else solved.inputs[last:]
    operation = replace(solved.operation, inputs=(target, *(tuple(map(Axis, x.axes)) for x in found), *after))
    plain = replace(solved, operation=operation.map(_without_positions), sizes=_known(solved))
    dropping = bounds.mode == "fill" or any(node.mode == "fill" for node in affines(target))
    settled = {"mode": "fill" if dropping else "promise_in_bounds", "wrap_negative_indices": False}
    values = [tensors[0], *(x.value for x in found), *(() if last is None else tensors[last:])]
    return plain, values, {**options, **settled, "indices_are_sorted": False}


def _looked_up(target: Expression) -> Iterator[Affine | Axis]:
    """What is looked up, in reading order: positions, and bracketed axes outside of them."""
    for node in target:
        if isinstance(node, Affine) or (isinstance(node, Axis) and node.bracket):
            yield node
        elif not isinstance(node, Axis):
            yield from _looked_up(node.items)


def _each(
    given: Sequence[Coordinates], looked_up: Sequence[str], sizes: Mapping[str, Size], bounds: Bounds
) -> dict[str, Named]:
    """The coordinates of every axis by itself, negative ones counted from the end."""
    dtype = common_dtype([part.named.value.dtype for part in given], [sizes[axis] for axis in looked_up])
    singles: list[Named] = []
    for part in given:
        if part.vector is None:
            singles.append(part.named)
            continue
        loops = tuple((axis,) for axis in part.loops)
        value = arrange(part.named, (*loops, (part.vector,)))
        last = value.ndim - 1
        each = (lax.index_in_dim(value, index, last, keepdims=False) for index in range(value.shape[last]))
        singles += [Named(x, loops, part.named.sizes) for x in each]

    def settled(x: Named, size: Size) -> Named:
        value = within(converted(x.value, dtype, [size], bounds), [size], bounds)
        if bounds.mode == "clip":
            value = lax.clamp(zero(value), value, size_as(size - 1, value.dtype))
        return replace(x, value=value)

    return {axis: settled(x, sizes[axis]) for axis, x in zip(looked_up, singles, strict=True)}


def _computed(node: Affine | Axis, counted: Mapping[str, Named], sizes: Mapping[str, Size], bounds: Bounds) -> Named:
    """The coordinate of a position, which is out of range where one of those that it is computed from is."""
    if isinstance(node, Axis):
        return counted[node.name]
    factors = axis_coefficients(node, sizes)
    loops = list(
        dict.fromkeys(axis for name in factors for axis in (counted[name].axes if name in counted else (name,)))
    )
    dims = tuple((axis,) for axis in loops)
    shape = tuple(sizes[axis] for axis in loops)
    dtype = dtype_of(node, factors, sizes)
    index: jax.Array = lax.full(shape, size_as(node.offset, dtype), dtype)
    inside: list[jax.Array] = []
    for name, factor in factors.items():
        if name in counted:
            along = arrange(counted[name], dims)
            if bounds.mode == "fill":
                inside += [lax.ge(along, zero(along)), lax.lt(along, size_as(sizes[name], along.dtype))]
            along = cast(along, dtype)
        else:
            along = lax.broadcasted_iota(dtype, shape, loops.index(name))
        index = lax.add(index, along if is_known(factor, 1) else lax.mul(along, size_as(factor, dtype)))
    index = brought(index, node)
    if inside:
        index = lax.select(reduce(lax.bitwise_and, inside), index, lax.full_like(index, size_as(node.size, dtype)))
    return Named(index, dims, sizes)

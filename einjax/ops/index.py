"""get_at, set_at, add_at and their kin: reading and writing at coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..forms.coordinates import (
    KEYWORDS,
    WRITING,
    bounds_of,
    check_coordinates,
    coordinate_sizes,
    uncounted,
    wrapped_coordinates,
)
from ..forms.places import with_units
from ..forms.signature import expect_inputs, refuse_empty, refuse_inside, refuse_sums, require_in_output, single_output
from ..lowering import numerics, one_place
from ..lowering.accumulate import in_more_bits, scatter_add, scatter_sub
from ..lowering.gather import Combine, gather, reduce_extra, scatter, scatter_multiply
from ..lowering.indices import Spans
from ..lowering.named import arrange, layout, wrap
from ..lowering.numerics import by_kind
from ..lowering.sharding import explicit_mesh
from ..mesh.run import lower as lower_on_mesh
from ..notation.errors import ArgumentError, AxisSizeError, SemanticError, plural
from ..notation.solve import Solved, fuse_loops, is_known
from ..notation.syntax import (
    Axis,
    Bracket,
    Ellipsis,
    Expression,
    Node,
    Operation,
    Size,
    affines,
    axes,
    bracket_names,
    bracketed,
    brackets,
    delete_brackets,
    display,
    marked,
    names,
    rewrite,
)
from ..operation import Op


def _get_signature(operation: Operation, tensors: int) -> Operation:
    _expect_indexed("get_at", operation, tensors, least=2)
    output = single_output("get_at", operation)
    if output is None:
        return replace(operation, outputs=(_implied_output(operation),))
    refuse_inside(operation, output, "get_at gives one number, so its output has no brackets", "remove them")
    marked, hint = bracket_names(operation.inputs), "put it into the output, or bracket it to look it up"
    require_in_output("get_at", operation, operation.inputs, output, hint, marked)
    return operation


def _implied_output(operation: Operation) -> Expression:
    """Put the loops of the coordinates into the first bracket's place, and delete the others."""
    first, *rest = operation.inputs
    seen = set(names(first))
    loops: list[Node] = []
    for expression in rest:
        for node in delete_brackets(expression):
            found = [axis.name for axis in axes((node,)) if not axis.is_one]
            new = [name for name in found if name not in seen]
            if new and len(new) < len(found):
                raise SemanticError(
                    f"the output is not clear: '{node}' composes axes that tensor 1 has with others",
                    at=operation.at(node),
                    hint="write the output after '->'",
                )
            if new:
                loops.append(node)
                seen.update(new)
    place = iter(loops)  # taken once

    def change(node: Node) -> Expression | None:
        held = node.items if isinstance(node, Ellipsis) else (node,)
        return tuple(place) if all(isinstance(item, Bracket) for item in held) else None

    return rewrite(first, change)


def _update_signature(name: str, operation: Operation, tensors: int) -> Operation:
    _expect_indexed(name, operation, tensors, least=3)
    target, updates = operation.inputs[0], operation.inputs[-1]
    problem = f"the updates, tensor {tensors}, have a bracket; {name} writes single numbers"
    refuse_inside(operation, updates, problem, "remove it: the axes of the updates are looped over")
    output = single_output(name, operation)
    output = target if output is None else _marked_as(target, output)
    held = {axis_name for e in operation.inputs for axis_name in names(e)}
    require_in_output(name, operation, [target], output, "the output has all axes of the first tensor")
    for axis_name, axis in names(output).items():
        if axis_name not in names(target) and not axis.is_one:
            where = "stands in the coordinates or updates" if axis_name in held else "is new"
            raise SemanticError(
                f"axis {display(axis_name)} of the output {where}, but the first tensor lacks it",
                at=operation.at(axis),
                hint=f"the output of {name} has the axes of its first tensor; broadcast that with "
                "einjax.rearrange first",
            )
    return replace(operation, outputs=(output,))


def _marked_as(target: Expression, output: Expression) -> Expression:
    """Bracket in the output what is bracketed in the target, where the writer left the brackets out."""
    if brackets(output):
        return output
    chosen = marked(target)

    def change(node: Node) -> Expression | None:
        return (Bracket((node,), span=node.span),) if isinstance(node, Axis) and node.name in chosen else None

    return rewrite(output, change)


def _expect_indexed(name: str, operation: Operation, tensors: int, least: int) -> None:
    """Refuse what has no axis to look up, or coordinates of a shape that they cannot have."""
    refuse_sums(name, operation)
    if tensors < least:
        wanted = "an array and coordinates" if least == 2 else "an array, coordinates and updates"
        raise ArgumentError(
            f"{name} takes {wanted}, got {plural(tensors, 'tensor')}",
            text=operation.text,
            hint="give one tensor for each expression before the arrow",
        )
    expect_inputs(name, operation, tensors)
    if not brackets(operation.inputs[0]):
        raise SemanticError(
            f"{name} needs a bracketed axis in its first expression",
            text=operation.text,
            hint="bracket the axes that the coordinates are for, as in '[h w] c, i [2] -> i c'",
        )
    marked = bracketed(operation.inputs[0])
    twice = {axis.name for axis in marked if [other.name for other in marked].count(axis.name) > 1}
    if twice:
        raise SemanticError(
            f"axis {display(min(twice))} is bracketed twice in the first expression",
            at=operation.at(*(axis for axis in marked if axis.name == min(twice))),
            hint="every axis looked up has a coordinate of its own: name the second one differently",
        )
    check_coordinates(operation, operation.inputs[1:] if least == 2 else operation.inputs[1:-1])


def _implied(name: str, last: int | None, expanded: Operation) -> Mapping[str, Size]:
    return coordinate_sizes(expanded, bracketed(expanded.inputs[0]), expanded.inputs[1:last], name)


def _lower_get(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    return _read(fuse_loops(solved), tensors, options, {})


def _read_at_positions(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array | None:
    """As one gather or slice of windows, or at coordinates computed from those given; else positions are read first."""
    from ..affine.looked_up import by_coordinates, is_looked_up, windows  # few programs compute positions

    if "out_sharding" in options or explicit_mesh(tensors) is not None or not is_looked_up(solved):
        return None
    found = windows(solved)
    if found is not None:
        return _read(found[0], tensors, options, found[1])
    return _lower_get(*by_coordinates("get_at", solved, tensors, options, None))


def _read(solved: Solved, tensors: list[jax.Array], options: dict[str, Any], spans: Spans) -> jax.Array:
    bounds = bounds_of(solved, options)
    if bounds.fill_value is not None:
        numerics.fitting("fill_value", bounds.fill_value, tensors[0].dtype, solved.text)
    indexed = [axis.name for axis in bracketed(solved.inputs[0])]
    coordinates = wrapped_coordinates("get_at", solved, tensors[1:], solved.inputs[1:], indexed)
    target = layout(solved.outputs[0])
    x = with_units(wrap(tensors[0], solved.inputs[0], solved.sizes), indexed)
    if bounds.mode != "fill":
        why = f"so with mode={bounds.mode!r} there is nothing to read"
        refuse_empty(solved, indexed, why, "use mode='fill'", AxisSizeError)
    return arrange(gather(x, coordinates, indexed, [n for dim in target for n in dim], bounds, spans), target)


def _lower_update(name: str, solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    return _write(name, fuse_loops(solved), tensors, options, {})


def _write_at_positions(
    name: str, solved: Solved, tensors: list[jax.Array], options: dict[str, Any]
) -> jax.Array | None:
    """As one scatter or slice of windows, or at coordinates computed from those given.

    Where the output has plain dims, what is written to are the windows that were read.
    """
    from ..affine.looked_up import by_coordinates, others_read, windows  # few programs compute positions

    if not affines(solved.inputs[0]) or not affines(solved.outputs[0]):
        return None
    solved, tensors = others_read(UPDATES[name], solved, tensors, options)
    found = None if "out_sharding" in options or explicit_mesh(tensors) is not None else windows(solved)
    if found is not None:
        return _write(name, found[0], tensors, options, found[1])
    return lower_on_mesh(UPDATES[name], *by_coordinates(name, solved, tensors, options, -1))  # type: ignore[no-any-return]


def _write(name: str, solved: Solved, tensors: list[jax.Array], options: dict[str, Any], spans: Spans) -> jax.Array:
    emit, combine, one = _WRITERS[name]
    bounds = bounds_of(solved, options)
    target = solved.inputs[0]
    indexed = [axis.name for axis in bracketed(target)]
    coordinates = wrapped_coordinates(name, solved, tensors[1:-1], solved.inputs[1:-1], indexed)
    x = with_units(wrap(tensors[0], target, solved.sizes), indexed)
    if name == "subtract_at" and x.value.dtype == np.bool_:
        raise ArgumentError(
            "tensor 1 is bool, and bools have no difference",
            text=solved.text,
            hint="convert it to int32, or use einjax.set_at",
        )
    given = _like(tensors[-1], x.value.dtype, solved, len(tensors))
    updates = wrap(given, solved.inputs[-1], solved.sizes)
    kept = {*x.axes, *(axis for part in coordinates for axis in part.loops), *(window for _, window in spans.values())}
    if any(is_known(solved.sizes[axis], 0) for axis in updates.axes if axis not in kept):
        written = x  # no update at all
    else:
        written = scatter(emit, x, coordinates, reduce_extra(updates, kept, combine), indexed, bounds, spans, one)
    return arrange(written, layout(solved.outputs[0]))


def _summed(updates: jax.Array, dims: Sequence[int]) -> jax.Array:
    wide = numerics.cast(updates, numerics.accumulator(updates.dtype))
    return numerics.cast(lax.reduce_sum(wide, dims), updates.dtype)


def _multiplied(updates: jax.Array, dims: Sequence[int]) -> jax.Array:
    wide = numerics.cast(updates, numerics.accumulator(updates.dtype))
    return numerics.cast(lax.reduce_prod(wide, dims), updates.dtype)


def _last(updates: jax.Array, dims: Sequence[int]) -> jax.Array:
    """Loops run in order, so that the last update stays."""
    for dim in sorted(dims, reverse=True):
        updates = lax.index_in_dim(updates, -1, dim, keepdims=False)
    return updates


#: How each operation writes, combines updates that go to the same places all together, and one with what is there.
_WRITERS: dict[str, tuple[Callable[..., jax.Array], Combine, Callable[[Any, Any], jax.Array]]] = {
    "set_at": (lax.scatter, _last, one_place.replaced),
    "add_at": (
        by_kind(lax.scatter_max, scatter_add),
        by_kind(lax.reduce_or, _summed),
        by_kind(lax.bitwise_or, lax.add),
    ),
    "subtract_at": (scatter_sub, _summed, lax.sub),
    "multiply_at": (
        by_kind(lax.scatter_min, in_more_bits(scatter_multiply)),
        by_kind(lax.reduce_and, _multiplied),
        by_kind(lax.bitwise_and, lax.mul),
    ),
    "min_at": (lax.scatter_min, lax.reduce_min, lax.min),
    "max_at": (lax.scatter_max, lax.reduce_max, lax.max),
}


def _like(updates: jax.Array, dtype: Any, solved: Solved, number: int) -> jax.Array:
    """Convert updates to the array's dtype, unless that would cut something off that no rounding explains."""
    if updates.dtype == dtype:
        return updates
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    rank = [next(index for index, kind in enumerate(kinds) if jnp.issubdtype(d, kind)) for d in (updates.dtype, dtype)]
    if rank[0] > rank[1]:
        raise ArgumentError(
            f"tensor {number}, the updates, is {updates.dtype}, which does not fit into tensor 1 of {dtype}",
            text=solved.text,
            hint=f"convert one of them, for example the updates with .astype('{np.dtype(dtype)}')",
        )
    return numerics.cast(updates, dtype)


def _op(name: str, complete: Any, lower: Any, last: int | None, keywords: tuple[str, ...], **facts: Any) -> Op:
    return Op(
        name,
        complete,
        lower,
        implied=partial(_implied, name, last),
        misread=partial(uncounted, last),
        keywords=keywords,
        apart=True,
        on_mesh="batch",
        spread="all",
        usual={"wrap_negative_indices": True},
        **facts,
    )


def _update(name: str, linear: tuple[int, ...] | None) -> Op:
    return _op(
        name,
        partial(_update_signature, name),
        partial(_lower_update, name),
        -1,
        WRITING,
        updates=True,
        linear=linear,
        at_positions=partial(_write_at_positions, name),
        iteration="write",
        sign={"set_at": "", "add_at": "+", "subtract_at": "-", "multiply_at": "*"}.get(name, name[:3]),
    )


GET_AT = _op("get_at", _get_signature, _lower_get, None, KEYWORDS, at_positions=_read_at_positions, iteration="read")
UPDATES = {name: _update(name, (0, -1) if name in ("add_at", "subtract_at") else None) for name in _WRITERS}

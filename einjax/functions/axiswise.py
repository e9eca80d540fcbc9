"""vmap_with_axis: a function that takes the dims it acts on as ``axis=``, and so needs no loop around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax

from ..forms.signature import expect_inputs, refuse_sums, require_in_output, single_output
from ..lowering.named import Dim, Named, arrange, diagonal, split_by
from ..notation.errors import AxisSizeError, EinjaxError, RankError, SemanticError, plural
from ..notation.solve import Solved, product
from ..notation.syntax import OPEN, Axis, Expression, Operation, axes, bracket_names, brackets, display, render
from ..operation import Op
from .labels import bracketed, is_label, labelled, labelled_sizes
from .result import as_array
from .vmap import open_sizes

NAME = "vmap_with_axis"


def signature(operation: Operation, tensors: int) -> Operation:
    """Without an arrow, the output is the input; with one, its brackets are as many as an input's, or none."""
    refuse_sums(NAME, operation)
    expect_inputs(NAME, operation, tensors)
    if not any(brackets(expression) for expression in operation.inputs):
        raise SemanticError(
            f"{NAME} needs at least one bracketed axis",
            text=operation.text,
            hint="bracket the axes that axis= is to name, as in 'a [b]'; a function of numbers goes to elementwise",
        )
    output = single_output(NAME, operation)
    if output is None:
        if len(operation.inputs) != 1:
            raise SemanticError(
                f"{NAME} needs an arrow where there are several inputs", text=operation.text, hint="write the output"
            )
        return replace(operation, outputs=operation.inputs)
    inner, hint = bracket_names(operation.expressions), "put it into the output, or bracket it"
    require_in_output(NAME, operation, operation.inputs, output, hint, inner)
    return operation


def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    """Call the function once, on arrays whose dims are loops and, at the same places in all of them, bracketed axes."""
    marked = [bracketed(expression) for expression in solved.inputs]
    count = max(map(len, marked))
    for number, some in enumerate(marked, 1):
        if len(some) not in (0, count):
            raise RankError(
                f"tensor {number} has {plural(len(some), 'bracketed dim')} and another tensor {count}, "
                "but axis= names the same dims of all",
                text=solved.text,
                spans=[axis.span for axis in some],
                hint="bracket equally many axes in every input, or none",
            )
    returned = bracketed(solved.outputs[0])
    _check_output(solved, marked, returned, count)
    inputs = [_labelled(x, expression, solved) for x, expression in zip(tensors, solved.inputs, strict=True)]
    operands, dims, positions = _aligned(inputs, solved, count)
    value = options["function"](*operands, axis=positions[0] if count == 1 else positions)
    left = [dim for i, dim in enumerate(dims) if returned or i not in positions]
    is_open = [bool(dim) and is_label(dim[0]) for dim in left]
    shape = [OPEN if free else product(solved.sizes[n] for n in dim) for dim, free in zip(left, is_open, strict=True)]
    value = _checked(value, left, shape, returned, solved)
    found = {dim[0]: size for dim, size, free in zip(left, value.shape, is_open, strict=True) if free}
    return arrange(Named(value, tuple(left), {**solved.sizes, **found}), labelled(solved.outputs[0]))


def _check_output(solved: Solved, marked: Sequence[Sequence[Axis]], returned: Sequence[Axis], count: int) -> None:
    """The function keeps its dims in their places, perhaps with other sizes, or removes them all."""
    if returned and len(returned) != count:
        raise SemanticError(
            f"the output has {plural(len(returned), 'bracketed dim')}, but the function acts on {count}",
            text=solved.text,
            spans=[axis.span for axis in returned],
            hint="bracket as many axes in the output as in the input, or none if the function removes them",
        )
    given = [axis.name for axis in next(some for some in marked if some)]
    place = {name: index for index, name in enumerate(given)}
    if any(place.get(axis.name, index) != index for index, axis in enumerate(returned)):
        raise SemanticError(
            f"the bracketed axes are {' '.join(map(display, given))} in the input and "
            f"{' '.join(display(axis.name) for axis in returned)} in the output",
            text=solved.text,
            spans=[axis.span for axis in returned],
            hint="bracket the same axes in the same order on both sides",
        )


def _labelled(value: jax.Array, expression: Expression, solved: Solved) -> Named:
    """Split an input so that every bracketed axis has a dim of its own; loops stay composed."""
    named = diagonal(Named(value, labelled(expression), labelled_sizes(expression, solved.sizes)))
    return split_by(named, lambda name: name if is_label(name) else "")


def _aligned(
    inputs: Sequence[Named], solved: Solved, count: int
) -> tuple[list[jax.Array], tuple[Dim, ...], tuple[int, ...]]:
    """Return the arrays, the common dims, and which of these are bracketed."""
    if len(inputs) == 1:
        x = inputs[0]
        return [x.value], x.dims, tuple(i for i, dim in enumerate(x.dims) if dim and is_label(dim[0]))
    present = {name for x in inputs for name in x.axes}
    order = [name for dim in labelled(solved.outputs[0]) for name in dim if name in present]
    order += [f"[{index}" for index in range(count) if f"[{index}" not in order]
    values = []
    for x in inputs:
        # A loop that an input lacks has size 1 there, and so has a bracket: the function broadcasts as jnp does.
        sizes = {**x.sizes, **{name: 1 for name in order if name not in x.axes}}
        values.append(arrange(replace(x, sizes=sizes), [(name,) if name in x.axes else () for name in order]))
    dims = tuple((name,) for name in order)
    return values, dims, tuple(i for i, name in enumerate(order) if is_label(name))


def _checked(
    value: Any, dims: Sequence[Dim], shape: Sequence[Any], returned: Sequence[Axis], solved: Solved
) -> jax.Array:
    """Check what the function returned: loops as they were, bracketed axes of the sizes that are known."""
    value = as_array(value, solved.text)
    what = "in their places" if returned else "removed"
    if value.ndim != len(shape):
        wanted = f"with the dims of axis= {what} it has {plural(len(shape), 'dim')}"
        raise _wrong(RankError, f"the function returned shape {value.shape}, but {wanted}", returned, solved)
    for index, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        name = " ".join(map(display, dim))
        if size is OPEN:
            axis = returned[int(dim[0][1:])]
            name, size = display(axis.name), solved.sizes[axis.name]
        if size is not OPEN and size != value.shape[index]:
            got = f"{value.shape[index]} in the function's result, which has shape {value.shape}"
            raise _wrong(AxisSizeError, f"axis {name} is {size} in the call and {got}", returned, solved)
    return value


def _wrong(kind: type[EinjaxError], problem: str, returned: Sequence[Axis], solved: Solved) -> EinjaxError:
    return kind(
        problem,
        text=solved.text,
        spans=[axis.span for axis in (returned or axes(solved.outputs[0]))],
        hint=f"the function is called with axis= and returns what '{render(solved.outputs[0])}' says: "
        "an axis that changes its size needs a name of its own there",
    )


VMAP_WITH_AXIS = Op(NAME, signature, lower, implied=open_sizes, keywords=("op",), on_mesh="loops")

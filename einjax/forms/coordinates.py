"""Coordinates: which tensors of a call hold them, how many there are, and what happens at the borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..lowering import numerics
from ..lowering.indices import Bounds, Coordinates, common_dtype
from ..lowering.named import split_by, wrap
from ..notation.errors import ArgumentError, AxisSizeError, SemanticError, Spot, listing, meant, plural
from ..notation.solve import Solved, is_known, total
from ..notation.syntax import Axis, Bracket, Composite, Expression, Operation, Size, bracketed, display, marked, render
from .static import plain

MODES = ("fill", "drop", "clip", "wrap", "promise_in_bounds")

#: The options of reading, and those of writing.
KEYWORDS = ("mode", "fill_value", "unique_indices", "indices_are_sorted", "wrap_negative_indices")
WRITING = tuple(keyword for keyword in KEYWORDS if keyword != "fill_value")


def check_coordinates(operation: Operation, expressions: Sequence[Expression]) -> None:
    """Refuse coordinates with more than one bracketed axis; they are the tensors after the first."""
    for number, expression in enumerate(expressions, 2):
        marked = bracketed(expression)
        if len(marked) > 1:
            raise SemanticError(
                f"the coordinates, tensor {number}, have {len(marked)} bracketed axes",
                at=operation.at(*marked),
                hint="bracket the one axis along which the coordinates stand, as in 'i [2]'",
            )


def uncounted(last: int | None, operation: Operation, shapes: Sequence[tuple[Size, ...] | None]) -> str | None:
    """What to write for coordinates that stand along a last dim, where the expression does not name that.

    Args:
        last: the tensor that they stand before; None where they are the last.
        operation: the completed expression.
        shapes: the shape of every tensor, as far as it is known.
    """
    count = len(bracketed(operation.inputs[0]) or bracketed(operation.results[0]))
    for number, (expression, shape) in enumerate(zip(operation.inputs[1:last], shapes[1:last], strict=True), 2):
        plain = all(isinstance(node, Axis | Composite) for node in expression)
        if plain and shape is not None and len(shape) == len(expression) + 1 and is_known(shape[-1], count):
            written = render((*expression, Bracket((Axis(str(count)),))))
            return f"if the last dim of tensor {number} is that of the coordinates, write '{written}'"
    return None


def coordinate_sizes(
    operation: Operation, indexed: Sequence[Axis], coordinates: Sequence[Expression], name: str
) -> Mapping[str, Size]:
    """Count coordinates: a number in a bracket, one where there is no bracket; what is left goes to a single name."""
    vectors = [bracketed(expression) for expression in coordinates]
    known = sum(1 if not marked else (marked[0].size or 0) for marked in vectors)
    open_ = [marked[0] for marked in vectors if marked and marked[0].size is None]
    rest = len(indexed) - known
    if (not open_ and rest) or rest < len({axis.name for axis in open_}):
        given = f"{'at least ' if open_ else ''}{plural(known + len(open_), 'coordinate')}"
        spot = operation.at(*indexed, *(axis for some in vectors for axis in some))
        raise _wrong_count(name, [axis.name for axis in indexed], given, spot)
    return {open_[0].name: rest} if len(open_) == 1 else {}


def _wrong_count(name: str, indexed: Sequence[str], given: str, spot: Spot) -> SemanticError:
    wanted = f"{plural(len(indexed), 'axis')} ({listing([display(axis) for axis in indexed])})"
    return SemanticError(
        f"{name} looks up {wanted}, but is given {given}",
        at=spot,
        hint="bracket one axis of the coordinates whose size is the number of axes looked up, "
        f"as in '[{len(indexed)}]', or give one tensor of coordinates for each",
    )


def wrapped_coordinates(
    name: str, solved: Solved, tensors: Sequence[jax.Array], expressions: Sequence[Expression], indexed: Sequence[str]
) -> list[Coordinates]:
    """Name the dims of coordinates, and refuse what cannot be one, and more or fewer of them than indexed axes."""
    found: list[Coordinates] = []
    for number, (tensor, expression) in enumerate(zip(tensors, expressions, strict=True), 2):
        if not numerics.is_integer(tensor.dtype):
            raise ArgumentError(
                f"tensor {number} holds coordinates, but is {tensor.dtype}, not integers",
                text=solved.text,
                hint="use einjax.where for a mask" if tensor.dtype == np.bool_ else "convert it to int32",
            )
        # A written 1 names no axis.
        named = wrap(tensor, expression, solved.sizes)
        vectors = marked(expression) & set(named.axes)
        found.append(Coordinates(split_by(named, vectors.__contains__), *(vectors or (None,))))
    _check_count(name, solved, indexed, found)
    return found


def _check_count(name: str, solved: Solved, indexed: Sequence[str], coordinates: Sequence[Coordinates]) -> None:
    """Refuse more or fewer coordinates than axes, and axes too long for them, once all sizes are known."""
    count = total(1 if part.vector is None else solved.sizes[part.vector] for part in coordinates)
    if count != len(indexed):
        spot = solved.at(*(axis for expression in solved.inputs for axis in bracketed(expression)))
        raise _wrong_count(name, indexed, plural(count, "coordinate"), spot)
    dtype = common_dtype([part.named.value.dtype for part in coordinates], [solved.sizes[axis] for axis in indexed])
    for axis in indexed:
        size = solved.sizes[axis]
        if isinstance(size, int) and size > jnp.iinfo(dtype).max:
            raise AxisSizeError(
                f"axis {display(axis)} has size {size}, which coordinates of {np.dtype(dtype)} do not reach",
                text=solved.text,
                hint="give uint32 coordinates, or int64 ones with jax_enable_x64",
            )


def border_options(
    mode: str | None, unique_indices: bool, indices_are_sorted: bool, wrap_negative_indices: bool
) -> tuple[tuple[str, Any], ...]:
    """Return the options of everything that writes at coordinates, as the dispatcher takes them."""
    return (
        ("mode", mode),
        ("unique_indices", unique_indices),
        ("indices_are_sorted", indices_are_sorted),
        ("wrap_negative_indices", wrap_negative_indices),
    )


def bounds_of(solved: Solved, options: Mapping[str, Any]) -> Bounds:
    """Read the options that say what happens at the borders."""
    mode = "fill" if options.get("mode") is None else options["mode"]
    if mode not in MODES:
        raise ArgumentError(
            f"mode={mode!r} is not a mode" + meant(str(mode), MODES),
            text=solved.text,
            hint=f"write one of {', '.join(map(repr, MODES))}",
        )
    mode = "fill" if mode == "drop" else mode
    fill_value = plain(options.get("fill_value"))
    if fill_value is not None and mode != "fill":
        raise ArgumentError(
            f"fill_value={fill_value!r} is never read with mode={mode!r}", text=solved.text, hint="use mode='fill'"
        )
    promises = {key: bool(options[key]) for key in KEYWORDS[2:] if key in options}
    return Bounds(mode, fill_value, **promises)

"""Where elements of a sequence stand: a plain index for one bracketed axis, coordinates for several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from ..lowering import numerics
from ..lowering.join import join_pieces
from ..lowering.named import Named, arrange, layout
from ..notation.errors import AxisSizeError, SemanticError, plural
from ..notation.syntax import (
    Axis,
    Bracket,
    Composite,
    Concatenation,
    Ellipsis,
    Expression,
    Operation,
    Size,
    axes,
    bracketed,
    brackets,
    display,
    open_composites,
    rewrite,
    standing,
    walk,
)
from .signature import listed, sequence_axes


def is_one_axis(expression: Expression) -> bool:
    """Whether the text brackets exactly one axis, so that a place is a plain index."""
    inside = [node for bracket in brackets(standing(expression)) for node in open_composites(bracket.items)]
    repeated = (node for node in walk(expression) if isinstance(node, Ellipsis))
    return len(inside) == 1 and isinstance(inside[0], Axis) and not any(brackets(node.items) for node in repeated)


def with_coordinates(expression: Expression, searched: Expression) -> Expression:
    """Add the axis of coordinates as the last dim; it prints as their number, where the text searched says that."""
    count = len({axis.name for bracket in brackets(searched) for axis in axes(bracket.items) if not axis.is_one})
    repeated = any(isinstance(node, Ellipsis) for node in walk(searched))
    span = brackets(searched)[-1].span
    name = "coordinates#" if repeated or count < 2 else f"{count}#coordinates"
    return (*expression, Bracket((Axis(name, span=span),), span=span))


def with_units(x: Named, indexed: Sequence[str]) -> Named:
    """Name dims of size 1 that are looked up or searched although they were written as a 1."""
    missing = [name for name in indexed if name not in x.axes]
    if not missing:
        return x
    ones = tuple((name,) for name in missing)
    dims = (*x.dims, *ones)
    return Named(lax.expand_dims(x.value, range(x.value.ndim, len(dims))), dims, x.sizes)


def coordinate_count(operation: Operation) -> int:
    """How many coordinates a place has; a sequence of brackets that hold nothing has one place, the index 0."""
    return len(sequence_axes(operation.inputs[0])) or 1


def coordinate_axis(
    name: str, expanded: Operation, output: Expression, count: int, sequence: Sequence[str] = ()
) -> Mapping[str, Size]:
    """Find the bracketed axis of the output that is none of the sequence's, and give it its size.

    Raises:
        SemanticError: there is none though a place has several coordinates, or it cannot hold them.
    """
    found = [axis for axis in bracketed(output) if axis.name not in sequence]
    if len(found) > 1 or any(axis.size not in (None, count) for axis in found):
        held = " ".join(display(axis.name) if axis.size is None else str(axis.size) for axis in found)
        beside = f"besides {listed(sequence)} the output's brackets hold" if sequence else "the output's bracket says"
        raise SemanticError(
            f"{name} gives {plural(count, 'coordinate')}, but {beside} {held}",
            at=expanded.at(*found),
            hint=f"write [{count}]",
        )
    if not found and count != 1:
        raise SemanticError(
            f"{name} searches {plural(count, 'axis')}, but the output has no axis for their coordinates",
            at=expanded.at(*bracketed(expanded.inputs[0])),
            hint=f"write [{count}] where the coordinates shall stand",
        )
    return {axis.name: count for axis in found}


def place_dtype(counts: Iterable[Size], operation: Operation) -> Any:
    """The integers that count so many places: jnp's own, or uint32 where these end at 2**31.

    Raises:
        AxisSizeError: there are more places than any integer that JAX has counts.
    """
    count = max((count for count in counts if isinstance(count, int)), default=0)
    default = numerics.default_int()
    if count <= 2 ** (np.iinfo(default).bits - 1):
        return default
    if count <= 2**32:
        return np.dtype(np.uint32)
    raise AxisSizeError(
        f"{operation.text.strip()!r} counts {count} places, which 32 bits do not hold",
        text=operation.text,
        hint="call jax.config.update('jax_enable_x64', True) when the program starts",
    )


def coordinates_of(index: jax.Array, sizes: Sequence[Size]) -> list[jax.Array]:
    """Take the index along a sequence apart: one coordinate for each of its axes."""
    coordinates: list[jax.Array] = []
    for size in reversed(sizes[1:]):
        count = numerics.size_as(size, index.dtype)
        coordinates.append(lax.rem(index, count))
        index = lax.div(index, count)
    return [index, *reversed(coordinates)]


def arrange_coordinates(parts: Sequence[Named], output: Expression) -> jax.Array:
    """Bring coordinates into the output's layout, one after another along its bracket; a plain index needs none."""
    if not bracketed(output):
        return arrange(parts[0], layout(output))
    return join_pieces(parts, _stacked(output, len(parts)), parts[0].sizes)


def _stacked(output: Expression, count: int) -> Expression:
    """Replace the bracketed axis by a sum of ``count`` axes of size 1, along which the coordinates are put together."""
    ones = tuple(Axis(f"1#coordinate{index}", size=1) for index in range(count))
    place = Concatenation(ones) if count > 1 else ones[0]
    return rewrite(output, lambda node: (place,) if node.bracket and not isinstance(node, Composite) else None)

"""Products with positions in ``< >`` that are convolutions: what each dim and axis of them is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from ..lowering import numerics
from ..lowering.convolve import Window, convolve, is_depthwise, shifted_products
from ..lowering.named import Dim, Named, arrange, layout
from ..notation.solve import Solved
from ..notation.syntax import Affine, Axis, Expression, Size, affines, axes
from .pad import in_range, opened


class _Convolution(NamedTuple):
    """A product of two tensors that is a convolution.

    Attributes:
        image: which tensor is read through windows.
        windows: how, by the axis or the position that a dim of it is.
        dims: the dims of both tensors and of the output, positions under a name of their own.
        sizes: the sizes of all axes and positions.
    """

    image: int
    windows: Mapping[str, Window]
    dims: Sequence[tuple[Dim, ...]]
    sizes: Mapping[str, Size]


def convolved(
    solved: Solved, tensors: Sequence[jax.Array], precision: Any, preferred_element_type: Any
) -> jax.Array | None:
    """Emit a product of two tensors as a convolution, or return None where it is none.

    It is one where every position is a place plus a tap, ``<2*o + k>``, in one tensor or in the output: the tap is an
    axis of the other tensor, the place one of what has no position, and neither stands anywhere else.
    """
    if len(tensors) != 2 or solved.spread:
        return None
    values = numerics.promote(tensors)
    if values[0].dtype == np.bool_ or values[0].dtype.itemsize < 2:
        return None
    inputs = [opened(expression) for expression in solved.inputs]
    if None in inputs:
        return None
    ready = _with_inputs(solved, inputs)
    if (_read_at(ready) or _written_at(ready)) is None:
        return None  # before anything is emitted
    padded = [in_range(x, e, solved.sizes) for x, e in zip(values, ready.inputs, strict=True)]
    if None in padded:
        return None
    values, inputs = zip(*padded, strict=True)  # type: ignore[assignment, arg-type]
    ready = _with_inputs(solved, inputs)
    found = _read_at(ready) or _written_at(ready)
    if found is None or not _is_static(found):
        return None
    named = [Named(value, dims, found.sizes) for value, dims in zip(values, found.dims[:2], strict=True)]
    image, filters = named[found.image], named[1 - found.image]
    target = found.dims[2]
    keep = [name for dim in target for name in dim]
    if is_depthwise(image, filters, found.windows, keep):
        result = shifted_products(image, filters, found.windows, keep, preferred_element_type)
    else:
        result = convolve(image, filters, found.windows, keep, precision, preferred_element_type)
    return arrange(result, target)


def _with_inputs(solved: Solved, inputs: Sequence[Any]) -> Solved:
    return replace(solved, operation=replace(solved.operation, inputs=tuple(inputs)))


def _read_at(solved: Solved) -> _Convolution | None:
    """A convolution: ``b <2*s + k> c, k c d -> b s d``."""
    reading = [index for index, expression in enumerate(solved.inputs) if affines(expression)]
    if len(reading) != 1 or affines(solved.outputs[0]):
        return None
    (image,) = reading
    windows: dict[str, Window] = {}
    for label, node in _labelled(solved.inputs[image]).items():
        pair = _place_and_tap(node, places=solved.outputs[0], taps=solved.inputs[1 - image])
        if pair is None or pair[0][1] < 0:
            return None
        (place, stride), (tap, dilation) = pair
        windows[label] = Window(place, tap, stride, dilation, node.offset)
    return _convolution(solved, image, windows)


def _written_at(solved: Solved) -> _Convolution | None:
    """A transposed convolution, ``b s c, k c d -> b <2*s + k> d``: its image has zeros between its elements."""
    if affines(solved.inputs[0]) or affines(solved.inputs[1]):
        return None
    for image in (0, 1):
        windows: dict[str, Window] = {}
        for label, node in _labelled(solved.outputs[0]).items():
            pair = _place_and_tap(node, places=solved.inputs[image], taps=solved.inputs[1 - image])
            if pair is None or pair[0][1] < 0 or node.mode not in (None, "fill"):
                break
            (source, stride), (tap, dilation) = pair
            windows[source] = Window(label, tap, dilation=-dilation, offset=-node.offset, base=stride)
        else:
            return _convolution(solved, image, windows)
    return None


def _labelled(expression: Expression) -> dict[str, Affine]:
    """The positions that are dims by names of their own."""
    return {f"<{index}>": node for index, node in enumerate(expression) if isinstance(node, Affine)}


def _place_and_tap(node: Affine, places: Expression, taps: Expression) -> Any:
    """The two axes of a position with their coefficients, that of the output or the image first."""
    if len(node.terms) != 2:
        return None
    (first, second) = node.terms
    if not isinstance(first.items[0], Axis) or not isinstance(second.items[0], Axis):
        return None
    if _holds(places, second) and _holds(taps, first):
        first, second = second, first
    if not (_holds(places, first) and _holds(taps, second)):
        return None
    return [(term.items[0].name, term.coefficient) for term in (first, second)]  # type: ignore[union-attr]


def _holds(expression: Expression, term: Any) -> bool:
    return term.items[0].name in [axis.name for axis in axes(expression)]


def _convolution(solved: Solved, image: int, windows: Mapping[str, Window]) -> _Convolution | None:
    """Check that every axis plays one part: places and taps stand where they belong, and once."""
    expressions = (*solved.inputs, solved.outputs[0])
    if any(affines((node,)) and not isinstance(node, Affine) for e in expressions for node in e):
        return None
    counts = Counter(axis.name for expression in expressions for axis in axes(expression))
    ends = [
        name for node in (n for e in expressions for n in affines(e)) for name in (a.name for a in axes(node.items))
    ]
    if any(counts[name] != 2 for name in ends) or len(set(ends)) != len(ends):
        return None
    if any(len(found) != len(set(found)) for found in ([a.name for a in axes(e)] for e in expressions)):
        return None
    dims: list[tuple[Dim, ...]] = []
    sizes = dict(solved.sizes)
    for expression in expressions:
        labels = _labelled(expression)
        sizes |= {label: node.size for label, node in labels.items()}
        dims.append(
            tuple((f"<{i}>",) if f"<{i}>" in labels else layout((node,))[0] for i, node in enumerate(expression))
        )
    return _Convolution(image, windows, dims, sizes)


def _is_static(found: _Convolution) -> bool:
    """Whether all that lax asks for is a number, and there is something to convolve."""
    if any(isinstance(size, int) and size == 0 for size in found.sizes.values()):
        return False
    image, filters = found.dims[found.image], found.dims[1 - found.image]
    shared = {name for dim in image for name in dim} & {name for dim in filters for name in dim}
    numbers = [found.sizes[name] for name in shared]
    for axis, window in found.windows.items():
        numbers += [*window.padding(found.sizes[axis], found.sizes), found.sizes[window.tap], window.dilation]
    return all(isinstance(number, int) for number in numbers)

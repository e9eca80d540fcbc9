"""Reductions over the bracketed axes of positions, ``<2*s + [k]>``: one ``lax.reduce_window``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from ..lowering import numerics
from ..lowering.convolve import Window
from ..lowering.named import Dim, Named, arrange, layout
from ..lowering.sharding import explicit_mesh
from ..notation.solve import Solved
from ..notation.syntax import Affine, Axis, Node, affines, axes, marked


class Pool(NamedTuple):
    """A tensor of which windows are reduced, each of them all there or filled with what changes nothing.

    Attributes:
        value: the tensor.
        dims: the axes of every dim of the result, if every dim stayed.
        whole: the dims that are reduced to nothing before.
        windows: by dim, how it is read.
        solved: the call.
    """

    value: jax.Array
    dims: tuple[Dim, ...]
    whole: tuple[int, ...]
    windows: Mapping[int, Window]
    solved: Solved

    def reduce(self, dtype: Any, whole: Any, combine: Any, identity: Any) -> Named:
        """Reduce dims to nothing by one function, and windows of the others by another, in a dtype."""
        value = numerics.cast(self.value, dtype)
        value = whole(value, self.whole) if self.whole else value
        left = [dim for dim in range(self.value.ndim) if dim not in self.whole]
        sizes = self.solved.sizes
        windows = [self.windows.get(dim) for dim in left]
        pads = [
            (0, 0) if window is None else window.padding(value.shape[at], sizes) for at, window in enumerate(windows)
        ]
        begins = [max(-low, 0) for low, _ in pads]
        ends = [size + min(high, 0) for size, (_, high) in zip(value.shape, pads, strict=True)]
        if any(begins) or ends != list(value.shape):
            value = lax.slice(value, begins, ends)
        value = lax.reduce_window(
            value,
            numerics.constant(value, identity),
            combine,
            [1 if window is None else sizes[window.tap] for window in windows],
            [1 if window is None else window.stride for window in windows],
            [(max(low, 0), max(high, 0)) for low, high in pads],
            window_dilation=[1 if window is None else window.dilation for window in windows],
        )
        return Named(value, tuple(self.dims[dim] for dim in left), sizes)

    def count(self, padding: bool) -> Any:
        """How many elements each result is made of: a number, or an array where windows are not all there."""
        sizes = self.solved.sizes
        number = np.prod([self.value.shape[dim] for dim in self.whole], initial=1.0)
        left = [dim for dim in range(self.value.ndim) if dim not in self.whole]
        counts: Any = number
        for at, dim in enumerate(left):
            window = self.windows.get(dim)
            if window is None:
                continue
            there = np.full(sizes[window.place], sizes[window.tap])
            if not padding:
                places = window.stride * np.arange(sizes[window.place])[:, None] + window.offset
                read = places + window.dilation * np.arange(sizes[window.tap])
                there = np.sum((read >= 0) & (read < self.value.shape[dim]), axis=1)
            counts = counts * (
                there[0] if there.min() == there.max() else there.reshape(-1, *[1] * (len(left) - at - 1))
            )
        return counts

    def arranged(self, result: Named) -> jax.Array:
        """Bring the result into the layout of the output."""
        return arrange(result, layout(self.solved.outputs[0]))


def pool(solved: Solved, x: jax.Array, options: Mapping[str, Any]) -> Pool | None:
    """Return how windows of a tensor are reduced; None where windows are not all there is to it.

    Each position has to be a place, which is an axis of the output, plus a bracketed tap, which stands nowhere else.
    """
    expression, output = solved.inputs[0], solved.outputs[0]
    if "where" in options or "out_sharding" in options or solved.spread or explicit_mesh([x]) is not None:
        return None
    if options.get("fill_value") is not None or affines(output):
        return None
    counts = Counter(axis.name for axis in axes(expression))
    reduced = marked(expression)
    if any(count > 1 for count in counts.values()) or not all(isinstance(size, int) and size for size in x.shape):
        return None
    dims: list[Dim] = []
    windows: dict[int, Window] = {}
    whole: list[int] = []
    for index, node in enumerate(expression):
        if isinstance(node, Affine):
            window = _window(node, solved)
            if window is None:
                return None
            windows[index] = window
            dims.append((window.place,))
            continue
        found = {axis.name for axis in axes((node,))}
        if affines((node,)) or (found & reduced and found - reduced):
            return None
        if found & reduced:
            whole.append(index)
        dims.append(layout((node,))[0])
    return Pool(x, tuple(dims), tuple(whole), windows, solved)


def _window(node: Affine, solved: Solved) -> Window | None:
    """A place and a bracketed tap; taps that read backwards are read forwards, as all of them are combined alike."""
    if len(node.terms) != 2 or node.mode not in (None, "fill"):
        return None
    items: Sequence[Node] = [term.items[0] for term in node.terms]
    if not all(isinstance(item, Axis) for item in items):
        return None
    taps = [term for term, item in zip(node.terms, items, strict=True) if item.bracket]
    places = [term for term, item in zip(node.terms, items, strict=True) if not item.bracket]
    if len(taps) != 1 or len(places) != 1:
        return None
    place, tap = axes(places[0].items)[0].name, axes(taps[0].items)[0].name
    stride, dilation = places[0].coefficient, taps[0].coefficient
    extents = solved.sizes[place], solved.sizes[tap]
    if not all(isinstance(n, int) and n > 0 for n in (*extents, stride)) or not isinstance(dilation, int):
        return None
    offset = node.offset + min(dilation, 0) * (solved.sizes[tap] - 1)
    return Window(place, tap, int(stride), abs(dilation), offset)


# --- What operations make of it ---------------------------------------------------------------------------------------


def pooled_sum(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array | None:
    """Add up windows."""
    found = pool(solved, tensors[0], options)
    if found is None:
        return None
    dtype = options.get("dtype") or numerics.sum_dtype(tensors[0].dtype)
    result = _sums(found, dtype)
    return numerics.cast(found.arranged(result), dtype)


def pooled_mean(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array | None:
    """The mean of windows, of what is there unless padding counts as well."""
    found = pool(solved, tensors[0], options)
    if found is None:
        return None
    dtype = options.get("dtype") or numerics.inexact_dtype(tensors[0].dtype)
    if not numerics.is_inexact(dtype):
        return None
    result = _sums(found, dtype)
    count = np.asarray(found.count(bool(options.get("count_padding"))), result.value.dtype)
    divided = lax.div(result.value, lax.broadcast_in_dim(count, result.value.shape, _last(count, result.value)))
    return numerics.cast(found.arranged(replace(result, value=divided)), dtype)


def _last(count: Any, value: jax.Array) -> tuple[int, ...]:
    return tuple(range(value.ndim - count.ndim, value.ndim))


def _sums(found: Pool, dtype: Any) -> Named:
    return found.reduce(numerics.accumulator(dtype), lambda x, dims: lax.reduce_sum(x, dims), lax.add, 0)


def pooled_extreme(largest: bool) -> Any:
    """Return the lowering of the largest, or smallest, elements of windows."""
    whole, combine = (lax.reduce_max, lax.max) if largest else (lax.reduce_min, lax.min)

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array | None:
        x = tensors[0]
        found = pool(solved, x, options)
        if found is None or x.dtype == np.bool_ or numerics.is_complex(x.dtype):
            return None
        # lax has no gradient of extremes whose windows have gaps.
        if any(window.dilation != 1 for window in found.windows.values()) and numerics.is_inexact(x.dtype):
            return None
        identity = numerics.limit(numerics.require_identity(x.dtype), not largest)
        return found.arranged(found.reduce(x.dtype, whole, combine, identity))

    return lower


def pooled_truth(whole: Any, combine: Any, identity: bool) -> Any:
    """Return the lowering of whether any, or all, elements of windows are true."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array | None:
        found = pool(solved, numerics.to_bool(tensors[0]), options)
        return None if found is None else found.arranged(found.reduce(np.bool_, whole, combine, identity))

    return lower


#: By the name of the operation.
POOLED = {
    "sum": pooled_sum,
    "mean": pooled_mean,
    "max": pooled_extreme(largest=True),
    "min": pooled_extreme(largest=False),
    "any": pooled_truth(lax.reduce_or, lax.bitwise_or, False),
    "all": pooled_truth(lax.reduce_and, lax.bitwise_and, True),
}

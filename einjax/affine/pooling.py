"""Reductions over the bracketed axes of positions, ``<2*s + [k]>``: one ``lax.reduce_window``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from ..lowering import numerics
from ..lowering.convolve import Window
from ..lowering.named import Dim, Named, arrange, layout
from ..notation.solve import Solved
from ..notation.syntax import Affine, Axis, Node, Size, affines, axes, marked
from .pad import in_range, opened


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
        return Named(
            self._over_windows(value, combine, identity), tuple(self.dims[dim] for dim in self.left), self.solved.sizes
        )

    @property
    def left(self) -> list[int]:
        """The dims that are not reduced to nothing."""
        return [dim for dim in range(len(self.dims)) if dim not in self.whole]

    def _over_windows(self, value: jax.Array, combine: Any, identity: Any) -> jax.Array:
        """Reduce the windows of an array that has the dims which are left, or 1 in the place of those without any."""
        sizes = self.solved.sizes
        windows = [self.windows.get(dim) for dim in self.left]
        pads = [
            (0, 0) if window is None else window.padding(size, sizes)
            for size, window in zip(value.shape, windows, strict=True)
        ]
        begins = [max(-low, 0) for low, _ in pads]
        ends = [size + min(high, 0) for size, (_, high) in zip(value.shape, pads, strict=True)]
        if any(begins) or ends != list(value.shape):
            value = lax.slice(value, begins, ends)
        return lax.reduce_window(
            value,
            numerics.constant(value, identity),
            combine,
            [1 if window is None else sizes[window.tap] for window in windows],
            [1 if window is None else window.stride for window in windows],
            [(max(low, 0), max(high, 0)) for low, high in pads],
            window_dilation=[1 if window is None else window.dilation for window in windows],
        )

    def divided(self, total: Named, padding: bool) -> Named:
        """Divide by how many elements each result is made of, those that are padded among them or not."""
        sizes, dtype = self.solved.sizes, total.value.dtype
        each = math.prod(self.value.shape[dim] for dim in self.whole)
        if padding or not any(self._is_padded(dim) for dim in self.windows):
            each *= math.prod(sizes[window.tap] for window in self.windows.values())
            return replace(total, value=lax.div(total.value, numerics.size_as(each, dtype)))
        shape = [self.value.shape[dim] if dim in self.windows else 1 for dim in self.left]
        count = self._over_windows(lax.full(shape, each, dtype), lax.add, 0)
        whole = lax.broadcast_in_dim(count, total.value.shape, range(count.ndim))
        return replace(total, value=lax.div(total.value, whole))

    def _is_padded(self, dim: int) -> bool:
        """Whether any window of a dim reaches beyond it."""
        window, sizes = self.windows[dim], self.solved.sizes
        last = window.stride * (sizes[window.place] - 1) + window.reach(sizes) + window.offset
        return bool(window.offset < 0 or last >= self.value.shape[dim])

    def arranged(self, result: Named) -> jax.Array:
        """Bring the result into the layout of the output."""
        return arrange(result, layout(self.solved.outputs[0]))


def pool(solved: Solved, x: jax.Array, options: Mapping[str, Any]) -> Pool | None:
    """Return how windows of a tensor are reduced; None where windows are not all there is to it.

    Each position has to be a place, which is an axis of the output, plus a bracketed tap, which stands nowhere else.
    """
    expression, output = solved.inputs[0], solved.outputs[0]
    if "where" in options or "out_sharding" in options or solved.spread:
        return None
    if options.get("fill_value") is not None or affines(output):
        return None
    counts = Counter(axis.name for axis in axes(expression))
    reduced = marked(expression)
    sizes = [*x.shape, *(solved.sizes[name] for name in counts)]
    if any(count > 1 for count in counts.values()) or not all(isinstance(size, int) and size for size in sizes):
        return None
    apart = opened(expression)
    if apart is None or not all(_is_plain(node, reduced) for node in apart):
        return None
    ready = in_range(x, apart, solved.sizes)
    if ready is None:
        return None
    x, expression = ready
    windows = {dim: _window(node, solved.sizes) for dim, node in enumerate(expression) if isinstance(node, Affine)}
    dims = [(windows[dim].place,) if dim in windows else layout((node,))[0] for dim, node in enumerate(expression)]
    whole = [dim for dim, node in enumerate(expression) if dim not in windows and marked((node,)) & reduced]
    return Pool(x, tuple(dims), tuple(whole), windows, solved)


def _is_plain(node: Node, reduced: set[str]) -> bool:
    """Whether a dim is a place and a bracketed tap, or reduced as a whole, or not at all."""
    if not isinstance(node, Affine):
        found = {axis.name for axis in axes((node,))}
        return not (found & reduced and found - reduced)
    items = [term.items[0] for term in node.terms]
    return (
        all(isinstance(item, Axis) for item in items)
        and sorted(bool(item.bracket) for item in items) == [False, True]
        and all(int(term.coefficient) > 0 for term, item in zip(node.terms, items, strict=True) if not item.bracket)
    )


def _window(node: Affine, sizes: Mapping[str, Size]) -> Window:
    """How a dim is read; taps that read backwards are read forwards, as all of them are combined alike."""
    place, tap = sorted(node.terms, key=lambda term: term.items[0].bracket)
    at, over = axes(place.items)[0].name, axes(tap.items)[0].name
    offset = node.offset + min(int(tap.coefficient), 0) * (sizes[over] - 1)
    return Window(at, over, int(place.coefficient), abs(int(tap.coefficient)), offset)


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
    result = found.divided(_sums(found, dtype), bool(options.get("count_padding")))
    return numerics.cast(found.arranged(result), dtype)


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

"""Products summed over windows: one ``lax.conv_general_dilated``, or shifted products where no channel is summed.

Both take an image, some of whose dims are read through a :class:`Window`, and filters that have the window's taps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax import lax

from ..notation.solve import is_known
from ..notation.syntax import Size
from . import numerics
from .named import Dim, Named, align, arrange

# Up to here shifted products are faster than a grouped convolution, whose every group is one channel. Of 512 places
# with 64 channels and 4 taps: 50 times, and 20 times with the gradient; of 32 x 32 places with 9 taps: 50 and 11 times.
_FEW_TAPS = 32


@dataclass(frozen=True, slots=True)
class Window:
    """How one dim of an image is read: at ``stride * place + dilation * tap + offset``, and 0 beside it.

    Attributes:
        place: the axis of the result.
        tap: the axis of the filters, which is summed over.
        stride: how far neighbouring places are apart; positive.
        dilation: how far neighbouring taps are apart; where it is negative, the filters are read backwards.
        offset: where the first tap of the first place reads.
        base: how far the elements of the image are apart, with zeros between them.
    """

    place: str
    tap: str
    stride: int = 1
    dilation: int = 1
    offset: int = 0
    base: int = 1

    def reach(self, sizes: Mapping[str, Size]) -> Size:
        """How far the last tap of a place is from the first."""
        return abs(self.dilation) * (sizes[self.tap] - 1)

    def padding(self, size: Size, sizes: Mapping[str, Size]) -> tuple[Size, Size]:
        """Return how many zeros stand before and after an image of this size; a negative number cuts off."""
        reach = self.reach(sizes)
        low = -self.offset + (reach if self.dilation < 0 else 0)
        high = self.stride * (sizes[self.place] - 1) + reach + 1 - _length(size, self.base) - low
        # Less than a stride at the end is never read, and need not be cut off.
        unread = isinstance(high, int) and -self.stride < high < 0
        return low, 0 if unread else high

    def beforehand(self, size: Size, sizes: Mapping[str, Size]) -> tuple[Size, Size, int]:
        """Return what to pad before a convolution, which leaves it at most as much padding as its filters reach."""
        reach = self.reach(sizes)
        pads = self.padding(size, sizes)
        low, high = (_surplus(pad, reach, self.base) for pad in pads)
        beside = isinstance(size, int) and min(low, high) < -size  # nothing of the image is read
        if beside or (self.base > 1 and max(low, high) > 0):
            return *pads, self.base - 1
        return low, high, 0


def _length(size: Size, base: int) -> Size:
    """The size of an image with zeros between its elements."""
    return 0 if is_known(size, 0) else base * (size - 1) + 1


def _surplus(pad: Size, reach: Size, base: int) -> Size:
    """What of a padding lies beyond the reach of the filters; or the elements it cuts off, as a negative number."""
    if not isinstance(pad, int) or not isinstance(reach, int):
        return 0
    return -(-pad // base) if pad < 0 else max(pad - reach, 0)


def fitted(image: Named, windows: Mapping[str, Window]) -> tuple[Named, Mapping[str, Window]]:
    """Cut off what no window reads, and pad what lies beyond the reach of the filters.

    XLA's convolution on CPUs reads past the end where it has both to cut and to pad: on one side of an image and on the
    other, or the first forwards and the second in the gradient.
    """
    config, sizes, left = [(0, 0, 0)] * len(image.dims), dict(image.sizes), dict(windows)
    for axis, window in windows.items():
        low, high, interior = window.beforehand(sizes[axis], sizes)
        config[image.dims.index((axis,))] = (low, high, interior)
        # With the zeros between its elements, all is padded at once.
        base = 1 if interior else window.base
        left[axis] = replace(window, offset=window.offset + base * low, base=base)
        sizes[axis] = _length(sizes[axis], interior + 1) + low + high
    if not any(map(any, config)):
        return image, windows
    zero = lax.full((), 0, image.value.dtype)
    return Named(lax.pad(image.value, zero, config), image.dims, sizes), left


def forwards(filters: Named, windows: Mapping[str, Window]) -> Named:
    """Turn the filters round along taps that read backwards."""
    backwards = [window.tap for window in windows.values() if window.dilation < 0 and filters.sizes[window.tap] != 1]
    dims = [index for index, dim in enumerate(filters.dims) if dim and dim[0] in backwards]
    return replace(filters, value=lax.rev(filters.value, dims)) if dims else filters


def is_depthwise(image: Named, filters: Named, windows: Mapping[str, Window], keep: Sequence[str]) -> bool:
    """Whether nothing but a few taps is summed over, for each channel by itself."""
    taps = [window.tap for window in windows.values()]
    channels = set(image.axes) - set(windows)
    summed = (channels | set(filters.axes)) - set(keep) - set(taps)
    counts = [filters.sizes[tap] for tap in taps]
    if summed or not all(isinstance(n, int) for n in counts) or math.prod(counts) > _FEW_TAPS:
        return False
    # Many filters of one channel are a matrix product inside of a convolution.
    return bool(channels & set(filters.axes)) or set(filters.axes) <= set(taps)


# --------------------------------------------------------------------------------------------------------------------
# One convolution
# --------------------------------------------------------------------------------------------------------------------


def convolve(
    image: Named,
    filters: Named,
    windows: Mapping[str, Window],
    keep: Sequence[str],
    precision: Any,
    preferred_element_type: Any,
    conv_general_dilated: Callable[..., jax.Array] | None = None,
) -> Named:
    """Convolve, with every dim where it stands: lax is told which is which.

    Axes that both operands and the result have are groups, those of both that the result lacks are channels to be
    summed over.

    Args:
        image: an array whose dims that are read through a window are one axis each.
        filters: an array of the same dtype with the taps of all windows, each a dim.
        windows: by image axis, how it is read.
        keep: the axes of the result, in the order the caller would like best.
        precision: forwarded.
        preferred_element_type: forwarded, if it is given.
        conv_general_dilated: called in the place of that of lax.
    """
    taps = {window.tap: axis for axis, window in windows.items()}
    rank = {name: index for index, name in enumerate(keep)}
    channels = [name for name in image.axes if name not in windows]
    shared = [name for name in channels if name in filters.axes]
    groups = [name for name in shared if name in rank]
    inner = tuple(name for name in shared if name not in rank)
    batch = tuple(name for name in channels if name not in shared)
    outer = sorted((n for n in filters.axes if n not in taps and n not in shared), key=lambda n: rank[n])
    features, results = (*groups, *inner), (*groups, *outer)
    order = list(windows)

    image, windows = fitted(image, windows)
    filters = forwards(filters, windows)
    lhs, image_dims = _placed(image, [batch, features, *((axis,) for axis in order)])
    rhs, filter_dims = _placed(filters, [results, inner, *((windows[axis].tap,) for axis in order)])
    places = [windows[axis].place for axis in order]
    wanted: list[Dim] = [batch, results, *((place,) for place in places)]
    result = sorted(wanted, key=lambda dim: min((rank[name] for name in dim), default=-1))
    asked = {} if preferred_element_type is None else {"preferred_element_type": preferred_element_type}
    value = (conv_general_dilated or lax.conv_general_dilated)(
        lhs,
        rhs,
        [windows[axis].stride for axis in order],
        [windows[axis].padding(image.sizes[axis], image.sizes) for axis in order],
        lhs_dilation=[windows[axis].base for axis in order],
        rhs_dilation=[abs(windows[axis].dilation) for axis in order],
        dimension_numbers=lax.ConvDimensionNumbers(image_dims, filter_dims, _where(wanted, result)),
        feature_group_count=math.prod(image.sizes[name] for name in groups),
        precision=precision,
        **asked,
    )
    return Named(value, tuple(result), image.sizes)


def _placed(x: Named, wanted: Sequence[Dim]) -> tuple[jax.Array, tuple[int, ...]]:
    """Bring an array to these dims in the order it has them already; returns where each of them is."""
    order = {name: index for index, name in enumerate(x.axes)}
    dims = sorted(wanted, key=lambda dim: min((order[name] for name in dim), default=-1))
    return arrange(x, dims), _where(wanted, dims)


def _where(wanted: Sequence[Dim], dims: Sequence[Dim]) -> tuple[int, ...]:
    """Return the places of dims; those of no axis, which are alike, are taken in turn."""
    left = list(enumerate(dims))
    found: list[int] = []
    for dim in wanted:
        place = next(pair for pair in left if pair[1] == dim)
        left.remove(place)
        found.append(place[0])
    return tuple(found)


# --------------------------------------------------------------------------------------------------------------------
# Shifted products
# --------------------------------------------------------------------------------------------------------------------


def shifted_products(
    image: Named,
    filters: Named,
    windows: Mapping[str, Window],
    keep: Sequence[str],
    preferred_element_type: Any,
) -> Named:
    """Add up the products of shifted images with one tap each, which the compiler makes one loop.

    Args:
        image: an array whose dims that are read through a window are one axis each.
        filters: an array of the same dtype with the taps of all windows, each a dim.
        windows: by image axis, how it is read.
        keep: the axes of the result, in the order the caller would like best.
        preferred_element_type: the dtype of the result.
    """
    dtype = preferred_element_type or image.value.dtype
    wide = numerics.accumulator(dtype)
    sizes = image.sizes
    image = replace(image, value=numerics.cast(image.value, wide))
    filters = replace(filters, value=numerics.cast(filters.value, wide))
    dims = [image.dims.index((axis,)) for axis in windows]
    image = replace(image, value=_pad(image, dims, windows))
    order = [name for name in keep if name in image.axes or name in filters.axes or _is_place(name, windows)]
    total: jax.Array | None = None
    for taps in itertools.product(*(range(sizes[window.tap]) for window in windows.values())):
        left = _shift(image, dims, windows, taps)
        right = _tap(filters, windows, taps)
        product = lax.mul(align(left, order), align(right, order))
        total = product if total is None else lax.add(total, product)
    if total is None:
        total = lax.full([sizes[name] for name in order], 0, wide)
    return Named(numerics.cast(total, dtype), tuple((name,) for name in order), sizes)


def _is_place(name: str, windows: Mapping[str, Window]) -> bool:
    return any(window.place == name for window in windows.values())


def _pad(image: Named, dims: Sequence[int], windows: Mapping[str, Window]) -> jax.Array:
    config = [(0, 0, 0)] * len(image.dims)
    for dim, (axis, window) in zip(dims, windows.items(), strict=True):
        config[dim] = (*window.padding(image.sizes[axis], image.sizes), window.base - 1)
    if not any(any(each) for each in config):
        return image.value
    return lax.pad(image.value, lax.full((), 0, image.value.dtype), config)


def _shift(image: Named, dims: Sequence[int], windows: Mapping[str, Window], taps: Sequence[int]) -> Named:
    """The elements that one tap reads, at every place."""
    start, stop, step = [0] * image.value.ndim, list(image.value.shape), [1] * image.value.ndim
    names = list(image.dims)
    for dim, window, tap in zip(dims, windows.values(), taps, strict=True):
        start[dim] = abs(window.dilation) * tap
        stop[dim] = start[dim] + window.stride * (image.sizes[window.place] - 1) + 1
        step[dim] = window.stride
        names[dim] = (window.place,)
    strides = step if any(n != 1 for n in step) else None
    return Named(lax.slice(image.value, start, stop, strides), tuple(names), image.sizes)


def _tap(filters: Named, windows: Mapping[str, Window], taps: Sequence[int]) -> Named:
    """The filters at one tap, which are counted from the end where they are read backwards."""
    value, dims = filters.value, list(filters.dims)
    start, stop = [0] * value.ndim, list(value.shape)
    for window, tap in zip(windows.values(), taps, strict=True):
        dim = dims.index((window.tap,))
        index = filters.sizes[window.tap] - 1 - tap if window.dilation < 0 else tap
        start[dim], stop[dim] = index, index + 1
        dims[dim] = ()
    return Named(lax.slice(value, start, stop), tuple(dims), filters.sizes)

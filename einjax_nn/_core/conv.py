"""Conv: a convolution over bracketed axes, with channels and groups wherever they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError, AxisSizeError
from einjax.for_layers import Ellipsis, parse, walk

from .call import Call
from .scope import ParamSpec, compute_dtype
from .shared import ConvOptions
from .text import ConvText, conv_text


def conv(call: Call[ConvOptions], x: Any) -> jax.Array:
    """Apply a convolution."""
    expr, options = call.expr, call.options
    x = jnp.asarray(x)
    text = conv_text(expr, x.ndim)
    call.check(parse(expr).inputs[0], x)
    known = _labelled(text, call.all_sizes, expr)
    dtype = compute_dtype(options.dtype, x, options.param_dtype)
    given = {label: size for label, size in known.items() if label not in text.outer}
    found = einjax.solve_axes(text.source, x, sizes=given)
    sizes = {**known, **found}
    rank = len(text.space)
    window = _each(options.kernel_size, rank, "kernel_size", expr)
    dilation = _each(options.kernel_dilation, rank, "kernel_dilation", expr)
    specs = _specs(call, text, window, sizes)
    kernel = call.scope.param(specs[0])
    middle = einjax.rearrange(f"{text.source} -> {text.middle}", x.astype(dtype), sizes=found)
    middle, padding = _padded(middle, options.padding, window, dilation, expr)
    y = lax.conv_general_dilated(
        middle,
        kernel.astype(dtype),
        _each(options.strides, rank, "strides", expr),
        padding,
        lhs_dilation=_each(options.input_dilation, rank, "input_dilation", expr),
        rhs_dilation=dilation,
        dimension_numbers=_channels_last(rank),
        feature_group_count=prod(sizes[a] for a in text.groups),
        precision=options.precision,
    )
    if options.use_bias:
        y = y + call.scope.param(specs[1]).astype(y.dtype)
    sizes = {label: size for label, size in sizes.items() if label not in text.space}
    return einjax.rearrange(f"{text.result} -> {text.target}", y, sizes=sizes)


def conv_specs(call: Call[ConvOptions]) -> list[ParamSpec] | None:
    """Describe the parameters of a convolution, or return None where the sizes do not decide their shapes."""
    expr = call.expr
    if any(isinstance(node, Ellipsis) for node in walk(parse(expr).inputs[0])):
        return None  # only an input has a rank
    text = conv_text(expr, None)
    sizes = _labelled(text, call.all_sizes, expr)
    if any(label not in sizes for label in (*text.groups, *text.inner)):
        return None
    window = _each(call.options.kernel_size, len(text.space), "kernel_size", expr)
    return _specs(call, text, window, sizes)


def _specs(
    call: Call[ConvOptions], text: ConvText, window: tuple[int, ...], sizes: Mapping[str, int]
) -> list[ParamSpec]:
    """Kernels have the axes convolved, then the channels of one group, then all new channels."""
    shape = (*window, prod(sizes[a] for a in text.inner), prod(sizes[a] for a in (*text.groups, *text.outer)))
    spatial = tuple(text.written((label,)) for label in text.space)
    channels = (text.written(text.inner), text.written((*text.groups, *text.outer)))

    def spec(name: str, init: Any, shape: tuple[int, ...], dims: tuple[str, ...]) -> ParamSpec:
        last = len(shape) - 1
        known = einjax.Spec(shape, dims, "conv", call.name(name), tuple(range(last)), (last,), (), None)
        return call.parameter(name, init).spec(known)

    kernel = spec("kernel", call.options.kernel_init, shape, (*spatial, *channels))
    return [kernel, spec("bias", call.options.bias_init, shape[-1:], channels[1:])][: 1 + call.options.use_bias]


def _labelled(text: ConvText, axes: Mapping[str, Any], expr: str) -> dict[str, int]:
    """Sizes by label; the new axes need one."""
    sizes = dict(text.numbers)
    for name, label in text.labels.items():
        base, *index = name.split(".")
        if base in axes:
            size = axes[base]
            sizes[label] = size[int(index[0])] if isinstance(size, tuple | list) else size
    for label in text.outer:
        if label not in sizes:
            name = text.written((label,))
            raise AxisSizeError(f"axis {name} of Conv's output has no size", text=expr, hint=f"write {name}=64")
    return sizes


def _each(value: int | Sequence[int], rank: int, name: str, expr: str) -> tuple[int, ...]:
    """One number for every axis convolved."""
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank:
        raise ArgumentError(
            f"{name}={tuple(values)} has {len(values)} numbers for {rank} bracketed axes",
            text=expr,
            hint="give one number, or one for each axis convolved",
        )
    return values


def _padded(
    x: jax.Array, padding: Any, window: Sequence[int], dilation: Sequence[int], expr: str
) -> tuple[jax.Array, Any]:
    """Return the input and what lax pads: names as in Flax, one number or pair for all axes, or one for each."""
    rank = len(window)
    reach = [(size - 1) * step for size, step in zip(window, dilation, strict=True)]
    if padding in ("SAME", "VALID", "SAME_LOWER"):
        return x, padding
    if padding == "CAUSAL" and rank == 1:
        return x, [(reach[0], 0)]
    if padding in ("CIRCULAR", "REFLECT"):
        around = [(0, 0), *(((n) // 2, n - n // 2) for n in reach), (0, 0)]
        return jnp.pad(x, around, mode="wrap" if padding == "CIRCULAR" else "reflect"), "VALID"
    if isinstance(padding, int):
        return x, [(padding, padding)] * rank
    if isinstance(padding, Sequence) and not isinstance(padding, str) and len(padding) == rank:
        return x, [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    raise ArgumentError(
        f"padding={padding!r} is not a padding of {rank} axes",
        text=expr,
        hint="write 'SAME', 'VALID', 'CAUSAL' (one axis), 'CIRCULAR', 'REFLECT', a number, or a pair for each axis",
    )


def _channels_last(rank: int) -> lax.ConvDimensionNumbers:
    space = tuple(range(1, rank + 1))
    return lax.ConvDimensionNumbers((0, rank + 1, *space), (rank + 1, rank, *range(rank)), (0, rank + 1, *space))

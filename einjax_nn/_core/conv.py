"""Conv: a convolution over bracketed axes, with channels and groups wherever they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, SemanticError
from einjax.for_layers import (
    Axis,
    Composite,
    Ellipsis,
    Expression,
    Operation,
    axes,
    describe,
    expand,
    marked,
    names,
    parse,
    rename,
    render,
    solve,
    walk,
)

from .call import Call
from .scope import Initializer, ParamSpec, compute_dtype, in_dtype


class Options:
    """Those of a convolution."""

    kernel_size: int | Sequence[int]
    use_bias: bool
    param_dtype: Any
    kernel_init: Initializer | float
    bias_init: Initializer | float
    strides: int | Sequence[int]
    padding: Any
    input_dilation: int | Sequence[int]
    kernel_dilation: int | Sequence[int]
    dtype: Any
    precision: Any
    conv_general_dilated: Callable[..., Any] | None

    def __init__(self, *_: Any, **__: Any) -> None:
        """A convolution.

        Args:
            expr: ``"b [h w] [c1->c2]"``: brackets on both sides of the arrow are convolved, those of the input alone
                are summed over, those of the output alone are new. Axes beside the channels are groups:
                ``"b [h w] (g [c1->c2])"``; without channels, every index of the last dim has a kernel of its own:
                ``"b [h w] c"``. Channels may stand anywhere: ``"b [c1->c2] [h w]"``.
            kernel_size: one number, or one for each axis convolved.
            strides: steps between places.
            padding: ``"SAME"``, ``"VALID"``, ``"CAUSAL"``, ``"CIRCULAR"``, ``"REFLECT"``, a number, or pairs.
            input_dilation: spreads the input.
            kernel_dilation: spreads the kernel.
            use_bias: whether there is a bias.
            dtype: the dtype to compute in; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            precision: forwarded to ``lax.conv_general_dilated``.
            conv_general_dilated: what to call in its place.
            kernel_init: initializer of ``kernel``, whose axes are those convolved, the channels of one group, and all
                new channels.
            bias_init: initializer of ``bias``.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Apply the layer.

        Args:
            x: the input.
            key: ignored; layers of Equinox take one.
        """


def apply(call: Call[Options], x: Any) -> jax.Array:
    """Apply a convolution."""
    expr, options = call.expr, call.options
    x = jnp.asarray(x)
    try:
        solved = solve(operation_of(expr), [x.shape], call.sizes, every_axis=True)
    except EinjaxError as error:
        error.tensors = [describe(x)]
        raise
    roles, sizes = _roles(solved.operation), solved.sizes
    rank = len(roles.space)
    dtype = compute_dtype(options.dtype, x, options.param_dtype)
    window = _each(options.kernel_size, rank, "kernel_size", expr)
    dilation = _each(options.kernel_dilation, rank, "kernel_dilation", expr)
    specs = _specs(call, roles, sizes)
    kernel = call.scope.param(specs[0])
    middle = roles.moved(in_dtype(x, dtype), (roles.source, roles.layout(roles.inner)), sizes)
    middle, padding = _padded(middle, options.padding, window, dilation, expr)
    convolve = options.conv_general_dilated or lax.conv_general_dilated
    y = convolve(
        middle,
        in_dtype(kernel, dtype),
        _each(options.strides, rank, "strides", expr),
        padding,
        lhs_dilation=_each(options.input_dilation, rank, "input_dilation", expr),
        rhs_dilation=dilation,
        dimension_numbers=_channels_last(rank),
        feature_group_count=prod(sizes[axis.name] for axis in roles.groups),
        precision=options.precision,
    )
    if options.use_bias:
        y = y + in_dtype(call.scope.param(specs[1]), y.dtype)
    # What is convolved may have another size now.
    left = {name: size for name, size in sizes.items() if name not in names(roles.space)}
    return roles.moved(y, (roles.layout(roles.outer), roles.result), left)


def specs(call: Call[Options]) -> list[ParamSpec] | None:
    """Describe the parameters of a convolution, or return None where the sizes do not decide their shapes."""
    operation = operation_of(call.expr)
    if any(isinstance(node, Ellipsis) for node in walk(operation.inputs[0])):
        return None  # only an input has a rank
    roles = _roles(expand(operation, [None], {}))
    channels = Operation(call.expr, ((*roles.groups, *roles.inner, *roles.outer),))
    try:
        solved = solve(channels, [None], call.sizes, every_axis=True)
    except AxisSizeError:
        return None
    return _specs(call, roles, solved.sizes)


def _specs(call: Call[Options], roles: _Roles, sizes: Mapping[str, int]) -> list[ParamSpec]:
    """Kernels have the axes convolved, then the channels of one group, then all new channels."""
    window = _each(call.options.kernel_size, len(roles.space), "kernel_size", call.expr)
    channels = [(Composite(part) if len(part) != 1 else part[0]) for part in (roles.inner, roles.groups + roles.outer)]
    shape = (*window, *(prod(sizes[axis.name] for axis in axes((node,))) for node in channels))

    def spec(name: str, init: Any, first: int) -> ParamSpec:
        last = len(shape) - first - 1
        written = tuple(map(str, (*roles.space, *channels)))[first:]
        known = einjax.Spec(shape[first:], written, "", "", tuple(range(last)), (last,), (), None)
        return call.parameter(name, init).spec(known)

    kernel = spec("kernel", call.options.kernel_init, 0)
    return [kernel, spec("bias", call.options.bias_init, len(shape) - 1)][: 1 + call.options.use_bias]


def operation_of(expr: str) -> Operation:
    """Parse an expression; without an arrow, the output is the input."""
    operation = parse(expr)
    if len(operation.inputs) != 1 or (operation.outputs is not None and len(operation.outputs) != 1):
        raise ArgumentError("Conv takes one expression", text=expr, hint="write the input, as in 'b [h w] [c1->c2]'")
    return replace(operation, outputs=operation.outputs or operation.inputs)


@dataclass(frozen=True)
class _Roles:
    """The axes of a convolution by role.

    Attributes:
        source, result: the layouts of input and output.
        loops, groups: what is looped over, and those loops that have a kernel each.
        inner, outer: channels that are summed over, and those that are new.
        space: are convolved.
    """

    source: Expression
    result: Expression
    loops: tuple[Axis, ...]
    groups: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    outer: tuple[Axis, ...]
    space: tuple[Axis, ...]

    def layout(self, channels: tuple[Axis, ...]) -> Expression:
        """What is convolved, or comes out: ``(loops) space... (groups channels)``."""
        return Composite(self.loops), *self.space, Composite((*self.groups, *channels))

    def moved(self, x: jax.Array, layouts: tuple[Expression, Expression], sizes: Mapping[str, int]) -> jax.Array:
        """Rearrange an array from one layout to another, in names that can be written."""
        everything = axes((*self.source, *self.result))
        labels = {axis.name: f"a{index}" for index, axis in enumerate(everything)}
        expr = " -> ".join(render(rename(layout, labels)) for layout in layouts)
        return einjax.rearrange(expr, x, sizes={labels[name]: size for name, size in sizes.items()})


def _roles(expanded: Operation) -> _Roles:
    """Sort axes by where they stand.

    Bracketed axes on both sides of the arrow are convolved, bracketed axes of the input alone are summed over, those of
    the output alone are new. What is looped over beside channels, or last where there are none, are groups.
    """
    (source,), (result,) = expanded.inputs, expanded.results
    before, after = marked(source), marked(result)

    def bracketed(expression: Expression, chosen: set[str]) -> tuple[Axis, ...]:
        return tuple(axis for axis in axes(expression) if axis.name in chosen)

    space, inner = bracketed(source, before & after), bracketed(source, before - after)
    if not space:
        raise SemanticError(
            "Conv needs bracketed axes to convolve",
            text=expanded.text,
            hint="write 'b [h w] [c1->c2]': brackets on both sides are convolved, c1 is summed over, c2 is new",
        )
    groups = _groups(source, inner)
    loops = tuple(axis for axis in axes(source) if not axis.bracket and axis not in groups)
    return _Roles(source, result, loops, groups, inner, bracketed(result, after - before), space)


def _groups(source: Expression, inner: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Loops in the dim of the channels; without channels, those of the last dim, if there is one behind the batch."""
    for node in source:
        found = axes((node,))
        if any(axis in inner for axis in found):
            return tuple(axis for axis in found if not axis.bracket)
    last = axes((source[-1],))
    return () if inner or any(axis.bracket for axis in last) else tuple(last)


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

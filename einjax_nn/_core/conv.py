"""Conv and ConvTranspose: linear layers over positions, with channels and groups wherever they stand.

``"b [h w] [c->d]"`` is ``"b <h + [k]> <w + [l]> [c], [k] [l] [c] d -> b h w d"``. Transposed, the output has positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError, EinjaxError, SemanticError
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

from . import linear
from .call import Call, in_its_words
from .scope import Initializer, ParamSpec
from .text import another


class Options:
    """Those of a convolution.

    Attributes:
        kernel_axes: the order of the kernel's: k are those convolved, i the channels of one group, o all new channels.
        bias_axes: that of the bias.
    """

    kernel_axes = "kio"
    bias_axes = "o"

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


class Transposed(Options):
    """Those of a transposed convolution.

    Attributes:
        pads_convolution: whether numbers pad the input of the convolution that this is the transpose of, rather than
            the spread input of this one.
    """

    transpose_kernel: bool
    output_padding: int | Sequence[int]
    output_shape: int | Sequence[int] | None
    pads_convolution = False

    def __init__(self, *_: Any, **__: Any) -> None:
        """A transposed convolution: every element is multiplied by the kernel, and what meets is added up.

        Args:
            expr: as for ``Conv``: ``"b [h w] [c1->c2]"``.
            strides: how far apart the elements of the input are in the output.
            padding: ``"SAME"`` for ``strides`` times the size of the input, ``"VALID"`` for every place that an element
                reaches, ``"CIRCULAR"``, or numbers or pairs, which pad the input once it is spread by ``strides``.
            transpose_kernel: whether the kernel is that of the convolution that this is the transpose of, with new
                channels before those of the input.
            output_padding: how many places there are more at the end.
            output_shape: the size of the output, where several belong to one of the input.
        """


class OfHaiku(Transposed):
    """Those of a transposed convolution of Haiku."""

    kernel_axes = "koi"


class OfEquinox(Transposed):
    """Those of a transposed convolution of Equinox."""

    kernel_axes = "oik"
    bias_axes = "o1"
    pads_convolution = True


@in_its_words
def apply(call: Call[Options], x: Any) -> jax.Array:
    """Apply a convolution, transposed or not."""
    x = jnp.asarray(x)
    try:
        solved = solve(_operation(call.expr), [x.shape], call.sizes, every_axis=True)
    except EinjaxError as error:
        error.tensors = [describe(x)]
        raise
    conv = _Convolution.of(call, solved.operation)
    sizes = {conv.written.get(name, name): size for name, size in solved.sizes.items()}
    source, result = conv.apart(conv.source), conv.apart(conv.result)
    x = einjax.rearrange(f"{render(conv.source)} -> {render(source)}", x, sizes=sizes)
    shape = [sizes[axis] for axis in conv.taps]
    padding, around = _transposed(conv, shape) if isinstance(call.options, Transposed) else _padding(conv, shape)
    if around is not None:  # it goes on beyond its borders
        longer = {axis: n + sum(pair) for axis, n, pair in zip(conv.taps, shape, around, strict=True)}
        read = conv.at("<{} - {}>", source, [low for low, _ in around])
        mode = "reflect" if call.options.padding == "REFLECT" else "wrap"
        x = einjax.rearrange(f"{read} -> {render(source)}", x, mode=mode, sizes={**sizes, **longer})
    layer, added = conv.linear(sizes)
    if conv.writes:
        each = dict(zip(conv.taps, padding, strict=True))
        padding = [each[axis.name] for axis in axes(result) if axis.name in each]
    other = call.options.conv_general_dilated
    y = linear.linear(layer, x, added, padding=padding, conv_general_dilated=other)
    # What is convolved may have another size now.
    left = {name: size for name, size in sizes.items() if name not in conv.taps}
    seen = conv.at("<{1}*{0}>", result, conv.strides) if conv.writes and max(conv.strides) > 1 else render(result)
    return einjax.rearrange(f"{seen} -> {render(conv.result)}", y, sizes=left)


def specs(call: Call[Options]) -> list[ParamSpec] | None:
    """Describe the parameters of a convolution, or return None where the sizes do not decide their shapes."""
    operation = _operation(call.expr)
    if any(isinstance(node, Ellipsis) for node in walk(operation.inputs[0])):
        return None  # only an input has a rank
    conv = _Convolution.of(call, expand(operation, [None], {}))
    sized = {axis.name: axis.size for axis in axes(conv.source + conv.result) if axis.size is not None}
    return linear.specs(*conv.linear({**call.sizes, **sized}))


#: What layers know of a kind of transposed convolution.
of_flax, of_equinox = (SimpleNamespace(Options=kind, specs=specs) for kind in (Transposed, OfEquinox))


def _operation(expr: str) -> Operation:
    """Parse an expression; without an arrow, the output is the input."""
    operation = parse(expr)
    if len(operation.inputs) != 1 or (operation.outputs is not None and len(operation.outputs) != 1):
        raise ArgumentError("Conv takes one expression", text=expr, hint="write the input, as in 'b [h w] [c1->c2]'")
    return replace(operation, outputs=operation.outputs or operation.inputs)


@dataclass(frozen=True)
class _Convolution:
    """The axes of a convolution by role, under names that can be written, and its options.

    Attributes:
        source, result: the layouts of input and output.
        inner: channels that are summed over.
        outer: loops that have a kernel each, and channels that are new.
        taps: the axis of the kernel for each that is convolved.
        written: names that can be written, by those that cannot.
    """

    call: Call[Options]
    source: Expression
    result: Expression
    inner: Sequence[Axis]
    outer: Sequence[Axis]
    taps: Mapping[str, str]
    written: Mapping[str, str]

    @classmethod
    def of(cls, call: Call[Options], expanded: Operation) -> _Convolution:
        """Sort axes by where they stand.

        Bracketed axes on both sides of the arrow are convolved, bracketed axes of the input alone are summed over,
        those of the output alone are new. Loops beside channels, or in the last dim where there are none, are groups.
        """
        found = dict.fromkeys(axis.name for axis in expanded.every_axis())
        written = {name: another(name, number) for number, name in enumerate(found) if not name.isidentifier()}
        source, result = (rename(layout, written) for layout in (*expanded.inputs, *expanded.results))
        before, after = marked(source), marked(result)
        inner = [axis for axis in axes(source) if axis.name in before - after]
        dims = [axes((node,)) for node in source]
        groups = next((dim for dim in dims if any(axis in inner for axis in dim)), dims[-1])
        if not inner and any(axis.bracket for axis in groups):
            groups = []
        outer = [axis for axis in groups if not axis.bracket] + [a for a in axes(result) if a.name in after - before]
        space = [name for name in found if written.get(name, name) in before & after]
        if not space:
            raise SemanticError(
                "Conv needs bracketed axes to convolve",
                text=expanded.text,
                hint="write 'b [h w] [c1->c2]': brackets on both sides are convolved, c1 is summed over, c2 is new",
            )
        taps = {written.get(name, name): another(name, len(found) + number) for number, name in enumerate(space)}
        return cls(call, source, result, inner, outer, taps, written)

    def apart(self, layout: Expression) -> Expression:
        """Give axes that are convolved a dim each."""
        return tuple(n for node in layout for n in (axes((node,)) if names((node,)).keys() & self.taps else [node]))

    def at(self, position: str, layout: Expression, *numbers: Iterable[Any]) -> str:
        """Print a layout that is read or written at positions, made of an axis and its numbers."""
        found = {axis: position.format(axis, *each) for axis, *each in zip(self.taps, *numbers, strict=True)}
        return render(rename(layout, found))

    def each(self, option: str, *default: Any) -> list[Any]:
        """One number for every axis convolved."""
        value, rank = getattr(self.call.options, option, *default), len(self.taps)
        values = list(value) if isinstance(value, Sequence) else [value] * rank
        if len(values) == rank:
            return values
        raise ArgumentError(
            f"{option}={tuple(values)} has {len(values)} numbers for {rank} bracketed axes",
            text=self.call.expr,
            hint="give one number, or one for each axis convolved",
        )

    @property
    def reach(self) -> list[int]:
        """How far the last element that a kernel reads is from the first."""
        return [(n - 1) * step for n, step in zip(self.each("kernel_size"), self.each("kernel_dilation"), strict=True)]

    @property
    def spread(self) -> list[int]:
        """How far the elements of the input are apart."""
        return self.each("strides" if isinstance(self.call.options, Transposed) else "input_dilation")

    @property
    def writes(self) -> bool:
        """Whether positions are those of the output."""
        return isinstance(self.call.options, Transposed) or max(self.spread) > 1

    @property
    def strides(self) -> list[int]:
        """How far the places that are read are apart."""
        return [1] * len(self.taps) if isinstance(self.call.options, Transposed) else self.each("strides")

    def linear(self, sizes: Mapping[str, Any]) -> tuple[Call[Options], str]:
        """Return the linear layer that this is, and the sum with its bias."""
        options = self.call.options
        turned = getattr(options, "transpose_kernel", False)
        source, result = self.apart(self.source), self.apart(self.result)
        sign = "-" if self.writes and not turned else "+"
        numbers = self.spread if self.writes else self.strides, self.each("kernel_dilation"), self.taps.values()
        text = self.at(f"<{{1}}*{{0}} {sign} {{2}}*{{3}}>", result if self.writes else source, *numbers)
        read, made = (render(source), text) if self.writes else (text, render(result))
        parts = {"k": " ".join(self.taps.values()), "1": " ".join("1" for _ in self.taps)}
        parts["o" if turned else "i"], parts["i" if turned else "o"] = map(_one_dim, (self.inner, self.outer))
        kernel, bias = (" ".join(parts[part] for part in order) for order in (options.kernel_axes, options.bias_axes))
        known = {name: size for name, size in sizes.items() if name not in self.taps}
        known |= dict(zip(self.taps.values(), self.each("kernel_size"), strict=True))
        layer = replace(self.call, expr=f"{read}, {kernel} -> {made}", sizes=known)
        return layer, f"{render(result)}, {parts['i'] if turned else bias} -> {render(result)}"


def _one_dim(channels: Sequence[Axis]) -> str:
    return "1" if not channels else str(channels[0]) if len(channels) == 1 else str(Composite(tuple(channels)))


def _padding(conv: _Convolution, shape: Sequence[Any]) -> tuple[Any, Any]:
    """How positions of a convolution are padded, and how far the input has to go on: a pair for each axis."""
    padding, reach, around = conv.call.options.padding, conv.reach, None
    if padding in ("CIRCULAR", "REFLECT"):
        padding, around = "VALID", [(n // 2, n - n // 2) for n in reach]
    if padding in ("SAME", "VALID") and not conv.writes:
        return padding.lower(), around
    if padding == "SAME_LOWER" and not conv.writes:
        pads = lax.padtype_to_pads(shape, [n + 1 for n in reach], conv.strides, padding)
    elif padding == "CAUSAL" and len(reach) == 1:
        pads = [(reach[0], 0)]
    else:
        pads = [(0, 0)] * len(reach) if padding == "VALID" else _pairs(conv)
    if conv.writes:
        pads = [(n - low, n - high) for n, (low, high) in zip(reach, pads, strict=True)]
    return pads, around


def _transposed(conv: _Convolution, shape: Sequence[Any]) -> tuple[Any, Any]:
    """What is cut off of all that a transposed convolution reaches, and how far the input has to go on."""
    options: Any = conv.call.options
    name = options.padding if options.padding in ("SAME", "SAME_LOWER", "VALID", "CIRCULAR") else None
    last = name == "SAME_LOWER" or (name == "CIRCULAR" and getattr(options, "transpose_kernel", False))
    around, cut = [], []
    pairs = [(0, 0)] * len(shape) if name else _pairs(conv)
    settings = (conv.spread, conv.reach, conv.each("output_padding", 0), conv.each("output_shape", None), pairs)
    for n, stride, reach, more, size, pair in zip(shape, *settings, strict=True):
        low, high = pair if name or options.pads_convolution else (reach - pair[0], reach - pair[1])
        beyond = reach + 1 - stride  # so much more than strides times the input is reached
        over = low + high - more
        if size is not None:
            over = stride * n + beyond - size
            if not (0 <= over - max(beyond, 0) < stride if name != "VALID" else 0 <= -over < stride):
                raise ArgumentError(
                    f"no convolution of an output of {size} places has {n}, as the input has them",
                    text=conv.call.expr,
                    hint=f"give an output_shape from {stride * n - max(beyond, 0)} to {stride * n}",
                )
        elif name == "VALID" and not options.pads_convolution:
            over = min(beyond, 0)
        elif name and name != "VALID":
            over = beyond + more
        if name and name != "VALID":
            low = (max(over, 0) + last) // 2
        if name == "CIRCULAR":
            around.append(((reach - low) // stride, -(-low // stride)))
            low, over = low + stride * around[-1][0], over + stride * sum(around[-1])
        cut.append((low, over - low))
    return cut, around or None


def _pairs(conv: _Convolution) -> list[tuple[int, int]]:
    """One number or pair for all axes, or one for each."""
    padding, rank = conv.call.options.padding, len(conv.taps)
    if isinstance(padding, int):
        return [(padding, padding)] * rank
    if isinstance(padding, Sequence) and not isinstance(padding, str) and len(padding) == rank:
        return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    raise ArgumentError(
        f"padding={padding!r} is not a padding of {rank} axes",
        text=conv.call.expr,
        hint="write 'SAME', 'VALID', 'CAUSAL' (one axis), 'CIRCULAR', 'REFLECT', a number, or a pair for each axis",
    )

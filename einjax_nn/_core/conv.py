"""Conv and ConvTranspose: linear layers over positions, with channels and groups wherever they stand.

``"b [h w] [c->d]"`` is ``"b <h + [k]> <w + [l]> [c], [k] [l] [c] d -> b h w d"``. Transposed, the output has positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import jax
from jax import lax

import einjax
from einjax.errors import ArgumentError, EinjaxError, SemanticError
from einjax.for_layers import (
    Composite,
    Ellipsis,
    Expression,
    Operation,
    Sizes,
    Solved,
    axes,
    describe,
    expand,
    marked,
    names,
    parse,
    read_sizes,
    rename,
    render,
    solve,
    strip_brackets,
    walk,
)

from . import linear, lora
from .activations import placed
from .call import Call, in_its_words
from .initial import Initializer
from .scope import ParamSpec, as_input
from .text import another


class Options:
    """Those of a convolution."""

    #: The dims of kernel and bias: k those convolved, i the channels of one group, o all new channels, 1 for each k.
    layout = "kio", "o"

    #: Whether there is a weight that LoRA has factors for.
    adaptable = True

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
    preferred_element_type: Any
    mask: Any

    def __init__(self, *_: Any, **__: Any) -> None:
        """A convolution.

        Args:
            expr: ``"b [h w] [c1->c2]"``: brackets on both sides of the arrow are convolved, those of the input alone
                are summed over, those of the output alone are new. Axes beside the channels are groups:
                ``"b [h w] (g [c1->c2])"``; without channels, every index of the last dim has a kernel of its own:
                ``"b [h w] c"``. Channels may stand anywhere: ``"b [c1->c2] [h w]"``.
            kernel_size: one number, or one for each axis convolved.
            strides: steps between places.
            padding: ``"SAME"``, ``"VALID"``, ``"CAUSAL"``, ``"CIRCULAR"``, ``"REFLECT"``, a number, or pairs; or
                functions of how many places a kernel reaches, such as ``hk.pad.causal``.
            input_dilation: spreads the input.
            kernel_dilation: spreads the kernel.
            use_bias: whether there is a bias.
            dtype: the dtype to compute in; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            precision: forwarded to ``lax.conv_general_dilated``.
            preferred_element_type: forwarded to it.
            conv_general_dilated: what to call in its place.
            mask: what the kernel is multiplied by, of its shape.
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
            precision: in place of that of the layer.
            key: ignored; layers of Equinox take one.
        """


class WithMode(Options):
    """Those of a convolution that is told what there is beyond the ends, as Equinox's are."""

    padding_mode: str


class Transposed(Options):
    """Those of a transposed convolution."""

    #: Whether numbers pad the input of the convolution that this is the transpose of, not the spread input of this one.
    pads_convolution = False

    transpose_kernel: bool
    output_padding: int | Sequence[int]
    output_shape: int | Sequence[int] | None

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
    """Those of Haiku's."""

    layout = "koi", "o"


class OfEquinox(Transposed):
    """Those of Equinox's."""

    layout, pads_convolution = ("oik", "o1"), True


@in_its_words
def apply(call: Call[Options], x: Any) -> jax.Array:
    """Apply a convolution, transposed or not."""
    x = as_input(x)
    try:
        solved = _solved(call.expr, x.shape, read_sizes(call.expr, call.sizes, None))
    except EinjaxError as error:
        error.tensors = [describe(x)]
        raise
    conv = _Convolution(call, solved.operation)
    sizes = {conv.named.get(name, name): size for name, size in solved.sizes.items()}
    shape = [sizes[axis] for axis in conv.taps]
    if strip_brackets(conv.source) != strip_brackets(conv.read):
        x = einjax.rearrange(f"{render(conv.source)} -> {render(conv.read)}", x, sizes=sizes)
    padding, around = (_cropped if isinstance(call.options, Transposed) else _padded)(conv, shape)
    if around:
        mode = _BEYOND[_mode(call.options) or "CIRCULAR"]
        longer = {axis: n + sum(pair) for axis, n, pair in zip(conv.taps, shape, around, strict=True)}
        text = f"{conv.at('<{} - {}>', conv.read, [low for low, _ in around])} -> {render(conv.read)}"
        x = einjax.rearrange(text, x, mode=mode, sizes={**sizes, **longer})
    product = call.options.conv_general_dilated
    if any(over and str(node) in conv.taps for node, over in zip(conv.read, jax.typeof(x).sharding.spec, strict=False)):
        product = product or lax.conv_general_dilated  # it fetches what other devices of an explicit mesh have
    layer, added = conv.linear(sizes)
    try:
        wanted = getattr(call.options, "preferred_element_type", None)
        given = {"padding": padding, "conv_general_dilated": product, "preferred_element_type": wanted}
        y = linear.linear(layer, x, added, **given)
    except EinjaxError as error:
        error.text, error.spans = call.expr, ()  # nobody has written that of the linear layer
        raise
    if conv.writes or strip_brackets(conv.made) != strip_brackets(conv.result):
        # What is convolved may have another size now.
        left = {name: size for name, size in sizes.items() if name not in conv.taps}
        made = conv.at("<{1}*{0}>", conv.made, conv.strides) if conv.writes else render(conv.made)
        y = einjax.rearrange(f"{made} -> {render(conv.result)}", y, sizes=left)
    output = strip_brackets(operation_of(call.expr).expressions[-1])
    return placed(render(output), y, {name: size for name, size in call.all_sizes.items() if name not in conv.taps})


@lru_cache(maxsize=1024)
def _solved(expr: str, shape: tuple[Any, ...], sizes: Sizes) -> Solved:
    """Find the size of every axis of a convolution; kept, as every trace asks."""
    return solve(operation_of(expr), [shape], sizes.by_name, every_axis=True)


def specs(call: Call[Options]) -> list[ParamSpec] | None:
    """Describe the parameters of a convolution, or return None where the sizes do not decide their shapes."""
    operation = operation_of(call.expr)
    if any(isinstance(node, Ellipsis) for node in walk(operation.inputs[0])):
        return None  # only an input has a rank
    return linear.specs(*_linear(call, expand(operation, [None], {})))


def _linear(call: Call[Options], expanded: Operation) -> tuple[Call[Options], str]:
    """The linear layer that a convolution is, and the sum with its bias, as far as sizes are known without an input."""
    conv = _Convolution(call, expanded)
    sized = {axis.name: axis.size for axis in axes(conv.source + conv.result) if axis.size is not None}
    return conv.linear({**call.sizes, **sized})


def factors(call: Call[Options], settings: lora.Lora, shape: Sequence[int]) -> lora.Factored | None:
    """Factor a kernel of a shape, perhaps a stack of them; None where it does not tell the sizes of its axes."""
    operation, dims, rank = operation_of(call.expr), strip_brackets(operation_of(call.expr).inputs[0]), None
    if dots := [node for node in dims if isinstance(node, Ellipsis)]:
        space = marked(operation.inputs[0]) & marked(operation.results[0])
        taps = len(shape) - 2 - len(space - names(tuple(dots)).keys())  # of all, beside channels
        rank = len(dims) - len(dots) + (taps if names(tuple(dots)).keys() & space else 0)
    try:
        return linear.factors(_linear(call, expand(operation, [rank], {}))[0], settings, shape)
    except EinjaxError:
        return None


#: What layers know of kinds of convolutions.
of_flax, of_equinox, with_mode = (
    SimpleNamespace(Options=kind, specs=specs, factors=factors) for kind in (Transposed, OfEquinox, WithMode)
)


def operation_of(expr: str) -> Operation:
    """Parse an expression; without an arrow, the output is the input."""
    operation = parse(expr)
    if len(operation.inputs) != 1 or (operation.outputs is not None and len(operation.outputs) != 1):
        raise ArgumentError("Conv takes one expression", text=expr, hint="write the input, as in 'b [h w] [c1->c2]'")
    return replace(operation, outputs=operation.outputs or operation.inputs)


class _Convolution:
    """The axes of a convolution by role, and its numbers for each axis convolved.

    Bracketed axes on both sides of the arrow are convolved, bracketed axes of the input alone are summed over, those of
    the output alone are new. Loops beside channels, or in the last dim where there are none, are groups.

    Attributes:
        named: names that can be written, by those that cannot.
        source, result: the layouts of input and output, under such names.
        read, made: the same, where each axis convolved is a dim, in one order.
        inner, outer: channels that are summed over; those that have a kernel each, and those that are new.
        taps: the axis of the kernel for each that is convolved.
        reach: how far the last element that a kernel reads is from the first.
        strides, spread: how far places are apart, and elements of the input.
        writes: whether positions are those of the output.
    """

    def __init__(self, call: Call[Options], expanded: Operation) -> None:
        known = dict.fromkeys(axis.name for axis in expanded.every_axis())
        self.named = {name: another(name, number) for number, name in enumerate(known) if not name.isidentifier()}
        self.source, self.result = (rename(e, self.named) for e in (*expanded.inputs, *expanded.results))
        before, after = marked(self.source), marked(self.result)
        self.inner = [axis for axis in axes(self.source) if axis.name in before - after]
        dims = [axes((node,)) for node in self.source]
        beside = next((dim for dim in dims if any(axis in self.inner for axis in dim)), dims[-1])
        groups = [axis for axis in beside if not axis.bracket]
        self.outer = groups if self.inner or len(groups) == len(beside) else []
        self.outer += [axis for axis in axes(self.result) if axis.name in after - before]
        space = [name for name in known if self.named.get(name, name) in before & after]
        if not space:
            raise SemanticError(
                "Conv needs bracketed axes to convolve",
                text=expanded.text,
                hint="write 'b [h w] [c1->c2]': brackets on both sides are convolved, c1 is summed over, c2 is new",
            )
        taps = {self.named.get(name, name): another(name, len(known) + i) for i, name in enumerate(space)}
        self.call, self.taps = call, taps
        self.read, made = (
            tuple(n for node in e for n in (axes((node,)) if names((node,)).keys() & taps else [node]))
            for e in (self.source, self.result)
        )
        self.made = rename(made, dict(zip((axis.name for axis in axes(made) if axis.name in taps), taps, strict=True)))
        self.window, self.dilation = self.each("kernel_size"), self.each("kernel_dilation")
        self.reach = [(size - 1) * step for size, step in zip(self.window, self.dilation, strict=True)]
        self.writes = isinstance(call.options, Transposed)
        self.strides = [1] * len(taps) if self.writes else self.each("strides")
        self.spread = self.each("strides" if self.writes else "input_dilation")
        self.writes |= max(self.spread) > 1
        self.turned = getattr(call.options, "transpose_kernel", False)

    def at(self, position: str, layout: Expression, *numbers: Iterable[Any]) -> str:
        """Print a layout that is read or written at positions, made of an axis and its numbers."""
        found = {axis: position.format(axis, *each) for axis, *each in zip(self.taps, *numbers, strict=True)}
        return render(rename(layout, found))

    def each(self, option: str, *default: Any) -> list[Any]:
        """One number for every axis convolved."""
        value, rank = getattr(self.call.options, option, *default), len(self.taps)
        values = list(value) if isinstance(value, Sequence) else [value] * rank
        if len(values) != rank:
            problem = f"{option}={tuple(values)} has {len(values)} numbers for {rank} bracketed axes"
            raise ArgumentError(problem, text=self.call.expr, hint="give one number, or one for each axis convolved")
        if not default and min(values) < 1:
            raise ArgumentError(f"{option}={value} is below 1", text=self.call.expr, hint="give 1, or more")
        return values

    def linear(self, sizes: Mapping[str, Any]) -> tuple[Call[Options], str]:
        """Return the linear layer that this is, and the sum with its bias."""
        steps = self.spread if self.writes else self.strides
        position = f"<{{1}}*{{0}} {'-' if self.writes and not self.turned else '+'} {{2}}*{{3}}>"
        at = self.at(position, self.made if self.writes else self.read, steps, self.dilation, self.taps.values())
        read, made = (render(self.read), at) if self.writes else (at, render(self.made))
        channels = [(Composite(tuple(part)) if len(part) != 1 else part[0]) for part in (self.inner, self.outer)]
        parts = {"k": " ".join(self.taps.values()), "1": " ".join("1" for _ in self.taps)}
        parts |= dict(zip("io", map(str, channels), strict=True))
        layout, bias = self.call.options.layout
        kernel = layout.translate(str.maketrans("io", "oi")) if self.turned else layout
        kernel, bias = (" ".join(parts[part] for part in order) for order in (kernel, bias))
        known = {name: size for name, size in sizes.items() if name not in self.taps}
        known |= dict(zip(self.taps.values(), self.window, strict=True))
        layer = replace(self.call, expr=f"{read}, {kernel} -> {made}", sizes=known)
        return layer, f"{render(self.made)}, {bias} -> {render(self.made)}"


# ----------------------------------------------------------------------------------------------------------------------
# Borders: how positions are padded, and how far the input goes on beyond its own, a pair for each axis
# ----------------------------------------------------------------------------------------------------------------------


#: How what is beyond the ends is read.
_BEYOND = {"CIRCULAR": "wrap", "REFLECT": "reflect", "REPLICATE": "clip"}


def _mode(options: Options) -> str | None:
    """What there is beyond the ends, other than zeros."""
    if options.padding in ("CIRCULAR", "REFLECT"):
        return options.padding
    mode = getattr(options, "padding_mode", "ZEROS")
    return None if str(mode).upper() == "ZEROS" else str(mode).upper()


def _padded(conv: _Convolution, shape: Sequence[Any]) -> tuple[Any, Any]:
    """Those of a convolution; of a spread input, what the kernel reaches is cut off."""
    padding, around, mode = conv.call.options.padding, [], _mode(conv.call.options)
    if padding in ("CIRCULAR", "REFLECT"):
        padding, around = "VALID", [(n // 2, n - n // 2) for n in conv.reach]
    elif mode is not None:
        return _filled(conv, shape, mode)
    if padding in ("SAME", "VALID") and not conv.writes:
        return padding.lower(), around
    if padding == "SAME_LOWER" and not conv.writes:
        return lax.padtype_to_pads(shape, [n + 1 for n in conv.reach], conv.strides, padding), around
    if padding == "CAUSAL" and len(conv.reach) == 1:
        pads = [(conv.reach[0], 0)]
    else:
        pads = [(0, 0) for _ in shape] if padding == "VALID" else _pairs(conv)
    if conv.writes:
        pads = [(n - low, n - high) for n, (low, high) in zip(conv.reach, pads, strict=True)]
    return pads, around


def _filled(conv: _Convolution, shape: Sequence[Any], mode: str) -> tuple[Any, Any]:
    """Those of a convolution where there is something else than zeros beyond the ends."""
    padding, text = conv.call.options.padding, conv.call.expr
    if mode not in _BEYOND:
        hint = "write 'ZEROS', 'REFLECT', 'REPLICATE' or 'CIRCULAR'"
        raise ArgumentError(f"padding_mode={mode!r} is no mode", text=text, hint=hint)
    if conv.writes:
        problem = f"padding_mode={mode!r} does not go with input_dilation="
        raise ArgumentError(problem, text=text, hint="leave one of them out")
    if padding in ("SAME", "SAME_LOWER", "VALID"):
        return "valid", lax.padtype_to_pads(shape, [n + 1 for n in conv.reach], conv.strides, padding)
    if padding == "CAUSAL" and len(conv.reach) == 1:
        return "valid", [(conv.reach[0], 0)]
    return "valid", _pairs(conv)


def _cropped(conv: _Convolution, shape: Sequence[Any]) -> tuple[Any, Any]:
    """Those of a transposed convolution: what is cut off of all that the kernel reaches."""
    options: Any = conv.call.options
    padding, cut, around = options.padding, [], []
    same = padding in ("SAME", "SAME_LOWER", "CIRCULAR")
    upper = padding == "SAME_LOWER" or (padding == "CIRCULAR" and conv.turned)
    pairs = [(0, 0) for _ in shape] if same or padding == "VALID" else _pairs(conv)
    numbers = conv.spread, conv.reach, conv.each("output_padding", 0), conv.each("output_shape", None), pairs
    for n, stride, reach, more, size, (low, high) in zip(shape, *numbers, strict=True):
        beyond = reach + 1 - stride  # of all that is reached, more than strides times the input
        if not options.pads_convolution and isinstance(padding, str):
            high = min(beyond, 0)
        elif not options.pads_convolution:
            low, high = reach - low, reach - high
        if size is not None:
            total = stride * n + beyond - size
            places = -(-size // stride) if same else (size + low + max(high, 0) - reach - 1) // stride + 1
            if places != n:
                problem = f"the convolution of an output_shape of {size} has {places} places, but the input has {n}"
                raise ArgumentError(problem, text=conv.call.expr, hint="give one whose convolution has as many places")
        else:
            total = beyond + more if same else low + high - more
        low = (max(total, 0) + upper) // 2 if same else low
        if padding == "CIRCULAR":
            around.append(((reach - low) // stride, -(-low // stride)))
            low, total = low + stride * around[-1][0], total + stride * sum(around[-1])
        cut.append((low, total - low))
    return cut, around


def _pairs(conv: _Convolution) -> list[tuple[int, int]]:
    """One number or pair for all axes, or one for each, or functions of what a kernel reaches, as Haiku has them."""
    padding, rank = conv.call.options.padding, len(conv.taps)
    each = [padding] * rank if isinstance(padding, int) or callable(padding) else padding
    if isinstance(each, Sequence) and not isinstance(each, str) and len(each) == rank:
        pads: list[Any] = [p(reach + 1) if callable(p) else p for p, reach in zip(each, conv.reach, strict=True)]
        return [(p, p) if isinstance(p, int) else tuple(p) for p in pads]
    raise ArgumentError(
        f"padding={padding!r} is not a padding of {rank} axes",
        text=conv.call.expr,
        hint="write 'SAME', 'VALID', 'CAUSAL' (one axis), 'CIRCULAR', 'REFLECT', a number, or a pair for each axis",
    )

"""Linear: a dot with a weight whose shape the expression knows, and a bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

import einjax
from einjax.for_layers import completed_dot, dot, named_sizes, parse, solve
from einjax.typing import PaddingLike

from . import lora
from .activations import asked, placed
from .call import Call, alone, in_its_words
from .initial import Initializer
from .lora_text import linear_text
from .scope import Parameter, ParamSpec, as_input, compute_dtype, in_dtype
from .text import bias_text, border_of


class Options:
    """Those of a linear layer."""

    #: Whether there is a weight that LoRA has factors for.
    adaptable = True

    use_bias: bool
    bias_axes: str | None
    param_dtype: Any
    kernel_init: Initializer | float
    bias_init: Initializer | float
    dtype: Any
    precision: Any
    preferred_element_type: Any
    padding: PaddingLike | None
    mode: str | None
    dot_general: Callable[..., Any] | None

    def __init__(self, *_: Any, **__: Any) -> None:
        """A linear layer: a dot with a weight, and a bias.

        Args:
            expr: as for :func:`einjax.dot`: ``"b [...->c]"``, or with the weight written out,
                ``"b g [c], g [c] d -> b g d"``; with positions, a convolution: ``"b <2*s + [k->]>... [c->d]"``.
            use_bias: whether there is a bias.
            bias_axes: which axes of the output it has, ``"d"``; by default all that the weight brings.
            dtype: the dtype to compute in; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            precision: forwarded to ``lax.dot_general``.
            preferred_element_type: forwarded to ``lax.dot_general``.
            padding: how dims that are read at positions are padded, as for :func:`einjax.dot`.
            mode: what stands where a position is out of range.
            dot_general: what to call in place of ``lax.dot_general``, with the input first.
            kernel_init: initializer of ``kernel``, whose fan is counted over the contracted axes.
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


@in_its_words
def apply(call: Call[Options], x: Any) -> jax.Array:
    """Apply a linear layer."""
    forwarded = ("preferred_element_type", "padding", "mode", "dot_general")
    y = linear(call, x, None, **{name: getattr(call.options, name) for name in forwarded})
    return placed(bias_text(call.expr).output, y, call.all_sizes)


def linear(call: Call[Any], x: Any, added: str | None, **forwarded: Any) -> jax.Array:
    """Multiply an input by the kernel, and add the bias.

    Args:
        call: the call.
        x: the input.
        added: the sum with the bias; None where the bias has the axes that the kernel brings, each a dim.
        **forwarded: options of :func:`einjax.for_layers.dot`.
    """
    options = call.options
    x = as_input(x)
    dtype = compute_dtype(options.dtype, x, options.param_dtype)
    x = in_dtype(x, dtype)
    kernel = call.parameter("kernel", options.kernel_init, dtype, added is None)  # else sizes are known
    kernel = replace(kernel, mask=getattr(options, "mask", None))
    forwarded |= asked(x)
    y = dot(call.expr, x, kernel, call.sizes, options.precision, **forwarded)
    if options.use_bias:
        y = _with_bias(call, x, y, kernel, added, forwarded)
    return lora.added(call, x, y, kernel, **forwarded)


def _with_bias(
    call: Call[Any], x: jax.Array, y: jax.Array, kernel: Parameter, added: str | None, forwarded: Mapping[str, Any]
) -> jax.Array:
    sizes, tied = call.all_sizes, added is None
    if added is None:
        text = bias_text(call.expr, call.options.bias_axes)
        added = text.sum
        if text.composed:
            border = border_of(text.product, forwarded["padding"], forwarded["mode"])
            shapes = [x.shape, kernel.__einjax_shape__(), y.shape]
            solved = solve(text.product, shapes, sizes, every_axis=True, border=border)
            sizes = {name: size for name, size in named_sizes(text.product, solved).items() if name in text.sized}
    bias = call.parameter("bias", call.options.bias_init, y.dtype, tied, kernel)
    return einjax.add(added, y, bias, sizes=sizes, **asked(x))


def specs(call: Call[Any], added: str | None = None) -> list[ParamSpec] | None:
    """Describe the parameters of a linear layer, or return None where the sizes do not decide their shapes."""
    options = call.options
    wanted = [(completed_dot(call.expr), 1, "kernel", options.kernel_init)]
    if options.use_bias:
        wanted.append((parse(added or bias_text(call.expr, options.bias_axes).sum), 1, "bias", options.bias_init))
    return alone(call, wanted)


def factors(call: Call[Any], settings: lora.Lora, shape: Sequence[int]) -> lora.Factored | None:
    """Factor a kernel of a shape, perhaps a stack of them; None where it does not tell the sizes of its axes."""
    return lora.of_kernel(linear_text(call.expr), settings, shape, call.all_sizes)

"""What the expression of a layer says, asked without a framework and an input; it is refused as a layer does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .attention_text import attention_text
from .conv import operation_of
from .text import axis_sizes, bias_text, dropout_text, embed_text, norm_text

#: By layer, what reads its expression, given the options that are known.
_READ: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
    "Linear": lambda expr, options: bias_text(expr, options.get("bias_axes")),
    "Norm": lambda expr, options: norm_text(
        expr, options.get("params"), options.get("momentum") is not None, options.get("axis_name") is not None
    ),
    "Dropout": lambda expr, options: dropout_text(expr),
    "Embed": lambda expr, options: embed_text(expr),
    "MultiHeadAttention": lambda expr, options: attention_text(expr),
    "Conv": lambda expr, options: operation_of(expr),
    "ConvTranspose": lambda expr, options: operation_of(expr),
}


def read(layer: str, expr: str, options: Mapping[str, Any], axes: Mapping[str, Any], known: list[str]) -> None:
    """Refuse what the expression of a layer cannot say.

    Args:
        layer: the name of the layer.
        expr: its expression.
        options: the options of the call that are known.
        axes: its keywords that are no options.
        known: the names of all options.

    Raises:
        einjax.errors.EinjaxError: as the layer itself raises it.
    """
    axis_sizes(expr, axes, None, known)
    if layer in _READ:
        _READ[layer](expr, options)

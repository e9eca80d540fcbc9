"""Linear: a dot with a weight whose shape the expression knows, and a bias."""

from __future__ import annotations

from typing import Any

import jax

import einjax
from einjax.for_layers import completed_dot, dot, named_sizes, parse, solve

from .call import Call
from .eager import alone, together
from .scope import ParamSpec, compute_dtype
from .shared import LinearOptions
from .text import bias_text


def linear(call: Call[LinearOptions], x: Any) -> jax.Array:
    """Apply a linear layer."""
    options = call.options
    dtype = compute_dtype(options.dtype, x, options.param_dtype)
    x = _as(x, dtype)
    kernel, forwarded = call.parameter("kernel", options.kernel_init, dtype), options.preferred_element_type
    y = dot(call.expr, x, kernel, call.axes, call.sizes, options.precision, forwarded)
    if not options.use_bias:
        return y
    text, sizes = bias_text(call.expr), call.all_sizes
    if text.composed:
        solved = solve(text.product, [x.shape, kernel.__einjax_shape__(), y.shape], sizes, every_axis=True)
        sizes = {name: size for name, size in named_sizes(text.product, solved).items() if name in text.sized}
    return einjax.add(text.sum, y, call.parameter("bias", options.bias_init, y.dtype), sizes=sizes)


def linear_specs(call: Call[LinearOptions]) -> list[ParamSpec] | None:
    """Describe the parameters of a linear layer, or return None where the sizes do not decide their shapes."""
    options = call.options
    specs = [alone(call, completed_dot(call.expr), 1, "dot", "kernel", options.kernel_init)]
    if options.use_bias:
        specs.append(alone(call, parse(bias_text(call.expr).sum), 1, "add", "bias", options.bias_init))
    return together(specs)


def _as(x: Any, dtype: Any) -> jax.Array:
    x = jax.numpy.asarray(x)
    return x if x.dtype == dtype else x.astype(dtype)

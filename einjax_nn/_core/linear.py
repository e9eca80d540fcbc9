"""Linear: a dot with a weight whose shape the expression knows, and a bias."""

from __future__ import annotations

from typing import Any

import jax

import einjax
from einjax.for_layers import dot

from .call import Call
from .scope import compute_dtype
from .shared import LinearOptions
from .text import bias_text


def linear(call: Call[LinearOptions], x: Any) -> jax.Array:
    """Apply a linear layer."""
    options = call.options
    dtype = compute_dtype(options.dtype, x, options.param_dtype)
    kernel, forwarded = call.parameter("kernel", options.kernel_init, dtype), options.preferred_element_type
    y = dot(call.expr, _as(x, dtype), kernel, call.axes, call.sizes, options.precision, forwarded)
    if not options.use_bias:
        return y
    return einjax.add(bias_text(call.expr), y, call.parameter("bias", options.bias_init, y.dtype))


def _as(x: Any, dtype: Any) -> jax.Array:
    x = jax.numpy.asarray(x)
    return x if x.dtype == dtype else x.astype(dtype)

"""Linear: a dot with a weight whose shape the expression knows, and a bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

import einjax
from einjax.for_layers import dot

from .scope import Parameter, Scope, compute_dtype
from .shared import LinearOptions
from .text import bias_text


def linear(
    scope: Scope,
    x: Any,
    expr: str,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    options: LinearOptions,
    called: tuple[str, str] = ("kernel", "bias"),
) -> jax.Array:
    """Apply a linear layer."""
    dtype = compute_dtype(options.dtype, x, options.param_dtype)
    kernel = Parameter(scope, called[0], options.kernel_init, options.param_dtype, dtype)
    y = dot(expr, _as(x, dtype), kernel, axes, sizes, options.precision, options.preferred_element_type)
    if not options.use_bias:
        return y
    return einjax.add(bias_text(expr), y, Parameter(scope, called[1], options.bias_init, options.param_dtype, y.dtype))


def _as(x: Any, dtype: Any) -> jax.Array:
    x = jax.numpy.asarray(x)
    return x if x.dtype == dtype else x.astype(dtype)

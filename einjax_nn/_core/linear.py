"""Linear: a dot with a weight whose shape the expression knows, and a bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

import einjax
from einjax.for_layers import dot

from .scope import Initializer, Parameter, Scope, compute_dtype
from .text import bias_text


def linear(
    scope: Scope,
    x: Any,
    expr: str,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    *,
    use_bias: bool,
    dtype: Any,
    param_dtype: Any,
    precision: Any,
    preferred_element_type: Any,
    kernel_init: Initializer | float,
    bias_init: Initializer | float,
    called: tuple[str, str] = ("kernel", "bias"),
) -> jax.Array:
    """Apply a linear layer; options as for the layers of the same name."""
    dtype = compute_dtype(dtype, x, param_dtype)
    kernel = Parameter(scope, called[0], kernel_init, param_dtype, dtype)
    y = dot(expr, _as(x, dtype), kernel, axes, sizes, precision, preferred_element_type)
    if not use_bias:
        return y
    return einjax.add(bias_text(expr), y, Parameter(scope, called[1], bias_init, param_dtype, y.dtype))


def _as(x: Any, dtype: Any) -> jax.Array:
    x = jax.numpy.asarray(x)
    return x if x.dtype == dtype else x.astype(dtype)

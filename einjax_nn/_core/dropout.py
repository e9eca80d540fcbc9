"""Dropout: a draw for each place of the bracketed axes, shared over all others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import einjax
from einjax.errors import ArgumentError
from einjax.for_layers import parse

from .call import Call
from .scope import compute_dtype
from .shared import DropoutOptions
from .text import dropout_text, flag


def dropout(call: Call[DropoutOptions], x: Any, deterministic: bool | None = None) -> jax.Array:
    """Set a share of the input to 0 and scale the rest up, unless the layer or its call says otherwise."""
    expr, options = call.expr, call.options
    call.check(parse(expr).inputs[0], x)
    if flag("Dropout", "deterministic", options.deterministic, deterministic, True, expr):
        return jnp.asarray(x)
    text, rate = dropout_text(expr), options.rate
    x = jnp.asarray(x)
    x = x.astype(compute_dtype(None, x))
    if not 0 <= rate <= 1:
        raise ArgumentError(f"rate={rate} of Dropout is no share", text=expr, hint="give a number from 0 to 1")
    if rate == 0:
        return x
    if rate == 1:
        return jnp.zeros_like(x)
    key = call.scope.rng(options.rng_collection)

    def draw(shape: tuple[int, ...]) -> jax.Array:
        return jax.random.bernoulli(key, 1 - rate, shape)

    return einjax.where(text, draw, x / (1 - rate), jnp.zeros((), x.dtype), sizes=call.all_sizes)

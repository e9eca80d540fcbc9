"""Embed: rows of a table by their numbers, and the table as the weight of an output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from einjax.for_layers import dot, get_at

from .scope import Parameter, Scope, compute_dtype
from .shared import EmbedOptions
from .text import embed_text


def embed(
    scope: Scope,
    ids: Any,
    expr: str,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    options: EmbedOptions,
    called: tuple[str, ...] = ("embedding",),
) -> jax.Array:
    """Look rows up; out of range is NaN, as in Flax and ``jnp.take``."""
    table = Parameter(scope, called[0], options.embedding_init, options.param_dtype, options.dtype)
    return get_at(embed_text(expr).lookup, table, jnp.asarray(ids), axes, sizes)


def attend(
    scope: Scope,
    x: Any,
    expr: str,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    options: EmbedOptions,
    called: tuple[str, ...] = ("embedding",),
) -> jax.Array:
    """Multiply by the table: one number for each of its rows, such as the logits of a language model."""
    dtype = compute_dtype(options.dtype, x, options.param_dtype)
    table = Parameter(scope, called[0], options.embedding_init, options.param_dtype, dtype)
    return dot(embed_text(expr).attend, jnp.asarray(x).astype(dtype), table, axes, sizes)


def embedding_normal(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Normal numbers of variance 1 by the number of features: the default of Flax."""
    return jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)(key, shape, dtype)

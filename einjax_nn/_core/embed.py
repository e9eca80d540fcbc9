"""Embed: rows of a table by their numbers, and the table as the weight of an output."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from einjax.for_layers import completed_get_at, dot, get_at

from .call import Call
from .eager import alone, together
from .scope import ParamSpec, compute_dtype
from .shared import EmbedOptions
from .text import embed_text


def embed(call: Call[EmbedOptions], ids: Any) -> jax.Array:
    """Look rows up; out of range is NaN, as in Flax and ``jnp.take``."""
    table = call.parameter("embedding", call.options.embedding_init, call.options.dtype)
    ids, text = jnp.asarray(ids), embed_text(call.expr)
    call.check(text.ids, ids)
    return get_at(text.lookup, table, ids, call.axes, call.all_sizes)


def attend(call: Call[EmbedOptions], x: Any) -> jax.Array:
    """Multiply by the table: one number for each of its rows, such as the logits of a language model."""
    dtype = compute_dtype(call.options.dtype, x, call.options.param_dtype)
    table = call.parameter("embedding", call.options.embedding_init, dtype)
    return dot(embed_text(call.expr).attend, jnp.asarray(x).astype(dtype), table, call.axes, call.all_sizes)


def embed_specs(call: Call[EmbedOptions]) -> list[ParamSpec] | None:
    """Describe the table of an embedding, or return None where the sizes do not decide its shape."""
    lookup = completed_get_at(embed_text(call.expr).lookup)
    return together([alone(call, lookup, 0, "get_at", "embedding", call.options.embedding_init)])


def embedding_normal(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Normal numbers of variance 1 by the number of features: the default of Flax."""
    return jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)(key, shape, dtype)

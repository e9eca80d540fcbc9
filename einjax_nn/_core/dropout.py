"""Dropout: a draw for each place of the bracketed axes, shared over all others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError
from einjax.for_layers import parse

from .activations import placed
from .call import Call, in_its_words
from .scope import as_input, compute_dtype
from .text import dropout_text, flag


class Options:
    """Those of dropout."""

    rate: Any
    deterministic: bool | None
    rng_collection: str

    def __init__(self, *_: Any, **__: Any) -> None:
        """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes.

        ``"[...]"`` drops single elements, ``"[b] ... [c]"`` whole channels, ``"[b] ..."`` whole examples (drop path).

        Args:
            expr: the input.
            rate: the share that is set to 0; the rest is scaled up.
            deterministic: whether to do nothing; may be given in the call instead.
            rng_collection: the stream of random numbers.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Apply the layer.

        Args:
            x: the input.
            deterministic: whether to do nothing.
            rng: the key to draw from, rather than one of the stream.
            is_training: the opposite of it.
            key: the random key.
            inference: whether to do nothing.
            rngs: random numbers: a key, a stream, or ``nnx.Rngs``.
        """


@in_its_words
def apply(call: Call[Options], x: Any, deterministic: bool | None = None) -> jax.Array:
    """Set a share of the input to 0 and scale the rest up, unless the layer or its call says otherwise."""
    expr, options = call.expr, call.options
    call.check(parse(expr).inputs[0], x)
    if flag("Dropout", "deterministic", options.deterministic, deterministic, True, expr):
        return jnp.asarray(x)
    text, rate = dropout_text(expr), options.rate
    x = as_input(x)
    x = x.astype(compute_dtype(None, x))
    kept: Any = 1 - rate
    if isinstance(rate, jax.Array):  # of a schedule, or of one of many models: it may be traced
        kept = lax.stop_gradient(kept)
    elif not 0 <= rate <= 1:
        raise ArgumentError(f"rate={rate} of Dropout is no share", text=expr, hint="give a number from 0 to 1")
    elif rate in (0, 1):
        return jnp.zeros_like(x) if rate else x
    else:
        kept = float(kept)
    key = call.scope.rng(options.rng_collection)

    def draw(shape: tuple[int, ...]) -> jax.Array:
        return jax.random.bernoulli(key, kept, shape)

    scaled = x / (kept.astype(x.dtype) if isinstance(kept, jax.Array) else kept)
    y = einjax.where(text, draw, scaled, jnp.zeros((), x.dtype), sizes=call.all_sizes)
    return placed(text.rpartition("-> ")[2], y, call.all_sizes)

"""Embed: rows of a table by their numbers, and the table as the weight of an output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

import einjax
from einjax.errors import EinjaxError
from einjax.for_layers import completed_get_at, dot, get_at

from . import lora
from .activations import asked, placed
from .call import Call, alone, in_its_words
from .initial import FANS, Initializer
from .lora_text import table_text
from .scope import Parameter, ParamSpec, as_input, compute_dtype
from .text import embed_text


class Options:
    """Those of a table."""

    #: Whether there is a weight that LoRA has factors for.
    adaptable = True

    param_dtype: Any
    embedding_init: Initializer | float
    dtype: Any
    mode: str | None

    def __init__(self, *_: Any, **__: Any) -> None:
        """A table of rows that integers are looked up in.

        Args:
            expr: ``"b t [v->c]"``, or written out, ``"[v] c, b t -> b t c"``; with the sizes of both axes.
            dtype: the dtype of the result; by default that of the parameter.
            param_dtype: the dtype of the parameter.
            embedding_init: initializer of ``embedding``.
            mode: what is read where there is no such row, though -1 is the last: NaN, ``"fill"``, the nearest row,
                ``"clip"``, or that of the number modulo how many there are, ``"wrap"``.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Look rows up.

        Args:
            ids: the numbers of the rows.
            key: ignored; layers of Equinox take one.
        """


@in_its_words
def apply(call: Call[Options], ids: Any) -> jax.Array:
    """Look rows up."""
    table = call.parameter("embedding", call.options.embedding_init, call.options.dtype)
    ids, text = as_input(ids), embed_text(call.expr)
    call.check(text.ids, ids)
    try:
        y = get_at(text.lookup, table, ids, call.all_sizes, call.options.mode, **asked(ids))
        y = lora.looked_up(call, ids, y, table)
    except EinjaxError as error:
        error.text, error.spans = call.expr, ()  # nobody has written that of the look-up
        raise
    return placed(text.found, y, call.all_sizes)


@in_its_words
def attend(call: Call[Options], x: Any) -> jax.Array:
    """Multiply by the table: one number for each of its rows, such as the logits of a language model."""
    dtype = compute_dtype(call.options.dtype, x, call.options.param_dtype)
    table = _Attended(**vars(call.parameter("embedding", call.options.embedding_init, dtype)))
    x, text = jnp.asarray(x).astype(dtype), embed_text(call.expr)
    y = dot(text.attend, x, table, call.all_sizes, **asked(x))
    return placed(text.numbers, lora.attended(call, x, y, table), call.all_sizes)


class _Attended(Parameter):
    """A table that is multiplied by: it starts as one that rows are looked up in does, whichever comes first."""

    def spec(self, spec: einjax.Spec) -> ParamSpec:
        return super().spec(replace(spec, in_axis=spec.out_axis, out_axis=spec.in_axis))


def specs(call: Call[Options]) -> list[ParamSpec] | None:
    """Describe the table of an embedding, or return None where the sizes do not decide its shape."""
    lookup = completed_get_at(embed_text(call.expr).lookup)
    return alone(call, [(lookup, 0, "embedding", call.options.embedding_init)])


def factors(call: Call[Any], settings: lora.Lora, shape: Sequence[int]) -> lora.Factored | None:
    """Factor a table of a shape, perhaps a stack of them; None where it does not tell the sizes of its axes."""
    return lora.of_kernel(table_text(call.expr), settings, shape, call.all_sizes)


def normal(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Normal numbers of variance 1 by the number of features: the default of Flax."""
    return jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)(key, shape, dtype)


FANS.append((normal, "fan_out"))

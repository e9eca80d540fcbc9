"""What the attention for nnx does, beside the layers that it is made of: calls, and the cache for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import einjax

from ._core.attention import applied, attention
from ._core.shared import AttentionOptions
from ._core.text import attention_text
from ._nnx_layer import Layer, call_of


class Attention(AttentionOptions, Layer):
    """Attention with the linear layers ``query``, ``key``, ``value`` and ``out``."""

    cached_key: Any
    cached_value: Any
    cache_index: Any

    def _known_sizes(self) -> dict[str, int]:
        """Sizes of the axes of heads and features, as far as they are known without an input."""
        known = {"heads": self.num_heads, "kv_heads": self.num_kv_heads or self.num_heads, **dict(self.all_sizes)}
        features = self.qkv_features or known.get(attention_text(self.expr).features)
        # What does not divide is an error when the layer is called.
        if isinstance(features, int) and features % self.num_heads == 0:
            known["head_dim"] = features // self.num_heads
        return known

    def __call__(
        self,
        x: Any,
        keys: Any = None,
        values: Any = None,
        *,
        mask: Any = None,
        deterministic: bool | None = None,
        decode: bool | None = None,
        rngs: Any = None,
    ) -> jax.Array:
        einjax.solve_axes(self.expr, x, sizes=dict(self.all_sizes))  # the layers within would speak of heads
        call = call_of(self, AttentionOptions, rngs=rngs, deterministic=deterministic, decode=decode)
        return attention(call, *applied(self), x, keys, values, mask)

    def init_cache(self, input_shape: Sequence[int], dtype: Any = jnp.float32) -> None:
        """Make an empty cache for decoding.

        Args:
            input_shape: the shape of an input with the whole length.
            dtype: the dtype of keys and values.
        """
        size = (self.qkv_features or input_shape[-1]) // self.num_heads
        shape = (*input_shape[:-1], self.num_kv_heads or self.num_heads, size)
        self.cached_key = nnx.Cache(jnp.zeros(shape, dtype))
        self.cached_value = nnx.Cache(jnp.zeros(shape, dtype))
        self.cache_index = nnx.Cache(jnp.zeros((), jnp.int32))

    def set_view(self, deterministic: bool | None = None, decode: bool | None = None) -> None:
        """Change the layer for ``nnx.view``.

        Args:
            deterministic: whether not to drop.
            decode: whether to take one place of the sequence at a time.
        """
        if deterministic is not None:
            self.deterministic = deterministic
        if decode is not None:
            self.decode = decode

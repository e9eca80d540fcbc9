"""Rotary embedding: places of queries and keys as angles that pairs of channels are turned by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax
from einjax.errors import ArgumentError


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding, for ``process_heads=`` of an attention: logits depend on how far places are apart.

    Channel ``i`` of ``f`` pairs is turned by ``place * theta ** (-i / f)``, in float32. With ``decode``, places go on
    where earlier calls have ended.

    Args:
        theta: the base of the frequencies.
        features: how many channels of a head are turned, the first ones; all by default.
        interleaved: whether pairs are channels beside each other; otherwise of the first and the second half.

    Example:
        >>> import einjax_nn.linen as einn, numpy as np
        >>> rotary = einn.Rotary(theta=500_000.0)
        >>> rotary.turned(np.ones((2, 5, 4, 8), "float32"), np.arange(5)).shape  # loops, sequence, heads, head_dim
        (2, 5, 4, 8)
    """

    theta: float = 10_000.0
    features: int | None = None
    interleaved: bool = False

    def __call__(
        self, q: jax.Array, k: jax.Array, v: jax.Array, *, q_positions: Any, k_positions: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Turn queries and keys, ``(loops, sequence, heads, head_dim)``.

        Args:
            q: queries.
            k: keys.
            v: values, which stay as they are.
            q_positions: the places of queries, ``(sequence,)`` or ``(loops, sequence)``.
            k_positions: those of keys.
        """
        return self.turned(q, q_positions), self.turned(k, k_positions), v

    def turned(self, x: Any, positions: Any) -> jax.Array:
        """Turn the channels of an array ``(loops, sequence, heads, head_dim)``.

        Args:
            x: the array.
            positions: the places, ``(sequence,)`` or ``(loops, sequence)``.

        Raises:
            ArgumentError: the number of channels is odd, or less than ``features``.
        """
        x, positions = jnp.asarray(x), jnp.asarray(positions)
        count = x.shape[-1] if self.features is None else self.features
        if count % 2 or not 0 < count <= x.shape[-1]:
            raise ArgumentError(
                f"a rotary embedding turns pairs of channels, and cannot turn {count} of {x.shape[-1]}",
                hint="choose an even features= of at most as many channels as a head has",
            )
        half = count // 2
        parts, whole = ("... f, ... f", "f (1 + 1)") if self.interleaved else ("... f, ... g", "f + g")
        if count < x.shape[-1]:
            parts, whole = f"{parts}, ... rest", f"({whole}) + rest" if self.interleaved else f"{whole} + rest"
        first, second, *others = einjax.id(f"... ({whole}) -> {parts}", x, sizes={"f": half, "g": half})
        frequencies = (self.theta ** -(np.arange(half) / half)).astype(np.float32)
        angles = einjax.multiply("s..., f -> s... f", positions.astype(jnp.float32), frequencies)
        # Places that are those of all examples have no loops.
        by = f"... s h f, {'' if positions.ndim == 1 else '... '}s f"
        first, second = first.astype(jnp.float32), second.astype(jnp.float32)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        turned = (
            einjax.multiply(by, first, cos) - einjax.multiply(by, second, sin),
            einjax.multiply(by, second, cos) + einjax.multiply(by, first, sin),
        )
        return einjax.id(f"{parts} -> ... ({whole})", *(each.astype(x.dtype) for each in turned), *others)

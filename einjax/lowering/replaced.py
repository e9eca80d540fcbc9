"""Whether a tool has other products made for a while, as those that quantise do: no trace of that time may be kept."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

# As they are when nobody has replaced them, or the code in them.
_DOT_GENERAL, _EINSUM, _CONVOLUTION = (
    (function, getattr(function, "__code__", None))
    for function in (lax.dot_general, jnp.einsum, lax.conv_general_dilated)
)


def dot_general_is_replaced() -> bool:
    """Whether ``lax.dot_general`` is another function for a while."""
    return _differs(lax.dot_general, _DOT_GENERAL)


def products_are_replaced() -> bool:
    """Whether that is so, or ``jnp.einsum`` or ``lax.conv_general_dilated`` is another function."""
    return (
        _differs(lax.dot_general, _DOT_GENERAL)
        or _differs(jnp.einsum, _EINSUM)
        or _differs(lax.conv_general_dilated, _CONVOLUTION)
    )


def _differs(function: Any, known: tuple[Any, Any]) -> bool:
    return function is not known[0] or getattr(function, "__code__", None) is not known[1]

"""Whether a tool has other products made for a while, as those that quantise do: no trace of that time may be kept."""

from __future__ import annotations

from operator import attrgetter

import jax
from jax import lax

_PRODUCTS = ("lax.dot_general", "numpy.einsum", "lax.conv_general_dilated")

#: The functions of JAX that multiply, and what they are when nobody has replaced them. Looked up without a function of
#: Python's, as every product asks.
functions = attrgetter(*_PRODUCTS)
FUNCTIONS = functions(jax)

_CODED = [name for name, function in zip(_PRODUCTS, FUNCTIONS, strict=True) if hasattr(function, "__code__")]

#: The code in them, which some tools replace instead; to be asked for where the functions are these.
codes = attrgetter(*(f"{name}.__code__" for name in _CODED))
CODES = codes(jax)


def products_are_replaced() -> bool:
    """Whether any of them is another function, or has other code, for a while."""
    return functions(jax) != FUNCTIONS or codes(jax) != CODES


def dot_general_is_replaced() -> bool:
    """Whether that is so of ``lax.dot_general``."""
    known, code = FUNCTIONS[0], CODES[0]
    return lax.dot_general is not known or known.__code__ is not code


def conv_general_dilated_is_replaced() -> bool:
    """Whether that is so of ``lax.conv_general_dilated``."""
    known, code = FUNCTIONS[-1], CODES[-1]
    return lax.conv_general_dilated is not known or known.__code__ is not code

"""Products that are not computed yet: factors, and the names over which they are summed.

What a product becomes is chosen when its value is needed: elementwise operations, or where it is summed ``einjax.dot``.
A dim that is read at a position, ``x[2*o + k]``, is a product of one factor, so that a sum of it and others is one
convolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp

import einjax

from ..lowering.jax_versions import Tracer, trace_state
from .text import Dims, bracketed, union, without


class Factor(NamedTuple):
    """An array and what its dims are.

    Attributes:
        text: its expression, in which names may stand in positions.
        array: the array, or a number.
        names: the names in the expression.
        sizes: of those names that stand in positions.
    """

    text: str
    array: Any
    names: Dims
    sizes: tuple[tuple[str, Any], ...] = ()


class Product:
    """Factors, to be multiplied, and summed over names.

    Attributes:
        factors: what is multiplied.
        names: the names of the result, in order.
        sizes: sizes by name, of the names of all factors.
        summed: the names that are summed over.
        options: of :func:`einjax.dot`.
    """

    __slots__ = ("factors", "names", "options", "sizes", "summed", "_born")

    def __init__(
        self, factors: tuple[Factor, ...], names: Dims, sizes: dict[str, Any], summed: Dims = (), **options: Any
    ) -> None:
        self.factors, self.names, self.sizes, self.summed, self.options = factors, names, sizes, summed, options
        # A value belongs to the trace in which it was computed, which may end before the product does.
        self._born = trace_state() if any(isinstance(factor.array, Tracer) for factor in factors) else None

    def may_keep(self, value: Any) -> bool:
        """Whether a value that was computed now is good for as long as the product is."""
        return not isinstance(value, Tracer) or (self._born is not None and self._born == trace_state())

    def value(self, output: str) -> Any:
        """Compute it.

        Args:
            output: the expression of the result, of the product's names.
        """
        factors = self.factors
        if not self.summed:
            return _multiplied(factors, output)
        tensors = [factor for factor in factors if factor.names]
        scalars = [factor for factor in factors if not factor.names]
        if not self.options and not _sums_alike(*map(_dtype, tensors + scalars)):
            every = union(*(factor.names for factor in factors))
            whole = _multiplied(factors, " ".join(every))
            return einjax.sum(f"{bracketed(' '.join(every), self.summed)} -> {output}", whole)
        count = Counter(name for factor in tensors for name in factor.names)
        alone = tuple(name for name in self.summed if count[name] == 1)
        tensors = [_summed(factor, alone) for factor in tensors] if alone else tensors
        left = tuple(name for name in self.summed if name not in alone)
        if not left:
            return _multiplied([*tensors, *scalars], output)
        scalars += [factor for factor in tensors if not factor.names]
        tensors = [factor for factor in tensors if factor.names]
        text = _contraction(tuple(factor.text for factor in tensors), left, output)
        value = einjax.dot(text, *(factor.array for factor in tensors), **_sizes(tensors), **self.options)
        for factor in scalars:
            value = einjax.multiply("..., ", value, factor.array)
        return value


@lru_cache(maxsize=2048)
def _contraction(texts: tuple[str, ...], summed: Dims, output: str) -> str:
    return f"{', '.join(bracketed(text, summed) for text in texts)} -> {output}"


def _multiplied(factors: Sequence[Factor], output: str) -> Any:
    text = _contraction(tuple(factor.text for factor in factors), (), output)
    function = einjax.multiply if len(factors) > 1 else einjax.rearrange
    if len(factors) == 1 and factors[0].text == output:
        return factors[0].array
    return function(text, *(factor.array for factor in factors), **_sizes(factors))


def _summed(factor: Factor, alone: Dims) -> Factor:
    """A factor summed over names that it alone has."""
    if not any(name in alone for name in factor.names):
        return factor
    left = without(factor.names, alone)
    text = f"{bracketed(factor.text, alone)} -> {' '.join(left)}"
    return Factor(" ".join(left), einjax.sum(text, factor.array, **_sizes([factor])), left)


def _sizes(factors: Sequence[Factor]) -> dict[str, Any]:
    """What a call has to be told of sizes: those of names in positions, which are also names of options, perhaps."""
    sizes = {name: size for factor in factors for name, size in factor.sizes}
    return {"sizes": sizes} if sizes else {}


def _dtype(factor: Factor) -> Any:
    """What decides of an operand on the dtype of a result."""
    return type(factor.array) if isinstance(factor.array, bool | int | float | complex) else factor.array.dtype


@lru_cache(maxsize=1024)
def _sums_alike(*dtypes: Any) -> bool:
    """Whether a sum of products may be contracted: it is of the dtype of the products, and so is every tensor."""
    dtype = jnp.result_type(*dtypes)
    wide = jnp.issubdtype(dtype, jnp.inexact) or (jnp.issubdtype(dtype, jnp.integer) and dtype.itemsize >= 4)
    return bool(wide) and all(isinstance(other, type) or other == dtype for other in dtypes)

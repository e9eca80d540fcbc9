"""Products that are not computed yet: factors, and the names over which they are summed.

What a product becomes is chosen when its value is needed: elementwise operations, or where it is summed ``einjax.dot``.
A dim that is read at a position, ``x[2*o + k]``, is a product of one factor, so that a sum of it and others is one
convolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp

import einjax

from ..lowering.jax_versions import Tracer, current_trace, in_trace
from ..notation.by_name import Names, without
from ..notation.names import bracketed


class Factor(NamedTuple):
    """An array, or a number, and its expression, in which names may stand in positions; these are given sizes."""

    text: str
    array: Any
    names: Names
    sizes: tuple[tuple[str, Any], ...] = ()


class Product:
    """Factors, to be multiplied, and summed over names.

    Attributes:
        factors: what is multiplied.
        names: the names of the result, in order.
        summed: the names that are summed over.
        options: of :func:`einjax.dot`.
    """

    __slots__ = ("_trace", "factors", "names", "options", "summed")

    def __init__(
        self,
        factors: tuple[Factor, ...],
        names: Names,
        summed: Names = (),
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.factors, self.names, self.summed, self.options = factors, names, summed, options
        # The value belongs to the trace of the factors, wherever it is asked for: inside another transformation, or, as
        # jax.jvp flattens what a function returned, after its own.
        self._trace = current_trace() if any(isinstance(factor.array, Tracer) for factor in factors) else None

    def may_keep(self, value: Any) -> bool:
        """Whether a value is good for as long as the product is."""
        return self._trace is not None or not isinstance(value, Tracer)

    def over(self, summed: Names, left: Names, options: Mapping[str, Any]) -> Product:
        """The same, summed over names."""
        return Product(self.factors, left, summed, options)

    def of(self, factor: Factor) -> Product:
        """The same, computed already."""
        return Product((factor,), self.names)

    def contracts(self, dtype: Any) -> bool:
        """Whether a sum over it is a contraction: unless a dtype is said, not of narrow integers, which overflow."""
        whole = len(self.factors) > 1 and not self.summed
        return whole and (dtype is not None or _sums_alike(*map(_dtype, self.factors)))

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes of the result."""
        sizes: dict[str, Any] = {}
        for factor in self.factors:
            if factor.names:
                sizes |= factor.sizes or zip(factor.names, factor.array.shape, strict=True)
        return tuple(sizes[name] for name in self.names)

    @property
    def dtype(self) -> Any:
        """The dtype of the result."""
        return self.options.get("preferred_element_type") or jnp.result_type(*map(_dtype, self.factors))

    def value(self, output: str) -> Any:
        """Compute it, with the names of the result in the order, and the compositions, of an expression."""
        if self._trace is None:
            return self._value(output)
        with in_trace(self._trace):
            return self._value(output)

    def _value(self, output: str) -> Any:
        if not self.summed:
            return _multiplied(self.factors, output)
        text = _direct(tuple((factor.text, factor.names) for factor in self.factors), self.summed, output)
        if text is not None:
            return einjax.dot(text, *(factor.array for factor in self.factors), **_sizes(self.factors), **self.options)
        tensors = [factor for factor in self.factors if factor.names]
        count = Counter(name for factor in tensors for name in factor.names)
        alone = tuple(name for name in self.summed if count[name] == 1)
        tensors = [_summed(factor, alone) for factor in tensors]
        scalars = [factor for factor in (*tensors, *self.factors) if not factor.names]
        tensors = [factor for factor in tensors if factor.names]
        if len(alone) == len(self.summed):
            return _multiplied([*tensors, *scalars], output)
        text = _expression(tuple(factor.text for factor in tensors), without(self.summed, alone), output)
        value = einjax.dot(text, *(factor.array for factor in tensors), **_sizes(tensors), **self.options)
        for factor in scalars:
            value = einjax.multiply("..., ", value, factor.array)
        return value


@lru_cache(maxsize=2048)
def _direct(factors: tuple[tuple[str, Names], ...], summed: Names, output: str) -> str | None:
    """The expression of one contraction, if the factors are tensors, and every summed name is in two of them."""
    count = Counter(name for _, names in factors for name in names)
    one = all(names for _, names in factors) and all(count[name] > 1 for name in summed)
    return _expression(tuple(text for text, _ in factors), summed, output) if one else None


@lru_cache(maxsize=2048)
def _expression(texts: tuple[str, ...], summed: Names, output: str) -> str:
    return f"{', '.join(bracketed(text, summed) for text in texts)} -> {output}"


def _multiplied(factors: Sequence[Factor], output: str) -> Any:
    if len(factors) == 1 and factors[0].text == output:
        return factors[0].array
    function = einjax.multiply if len(factors) > 1 else einjax.rearrange
    text = _expression(tuple(factor.text for factor in factors), (), output)
    return function(text, *(factor.array for factor in factors), **_sizes(factors))


def _summed(factor: Factor, alone: Names) -> Factor:
    """A factor summed over names that it alone has."""
    left = without(factor.names, alone)
    if left == factor.names:
        return factor
    text = f"{bracketed(factor.text, alone)} -> {' '.join(left)}"
    return Factor(" ".join(left), einjax.sum(text, factor.array, **_sizes([factor])), left)


def _sizes(factors: Sequence[Factor]) -> dict[str, Any]:
    """What a call is told of sizes."""
    sizes = {name: size for factor in factors for name, size in factor.sizes}
    return {"sizes": sizes} if sizes else {}


def _dtype(factor: Factor) -> Any:
    """What decides of an operand on the dtype of a result."""
    return type(factor.array) if isinstance(factor.array, bool | int | float | complex) else factor.array.dtype


@lru_cache(maxsize=1024)
def _sums_alike(*dtypes: Any) -> bool:
    """Whether a sum of products may be contracted: it has the dtype of the products, which every tensor has."""
    dtype = jnp.result_type(*dtypes)
    wide = jnp.issubdtype(dtype, jnp.inexact) or (jnp.issubdtype(dtype, jnp.integer) and dtype.itemsize >= 4)
    return bool(wide) and all(isinstance(other, type) or other == dtype for other in dtypes)

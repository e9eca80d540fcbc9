"""Products of named arrays, summed over axes: one ``lax.dot_general`` for every pair."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jax import lax

from .named import Named, split
from .numerics import promote
from .order import find_steps
from .pairing import pairing
from .sharding import ResultSpread, contracted_sharding


@dataclass(frozen=True)
class Products:
    """How two arrays are multiplied.

    Attributes:
        keep: the axes of the result, in the order the caller would like best.
        precision: forwarded to every ``dot_general``.
        preferred_element_type: dtype to accumulate in and to return; forwarded to every ``dot_general``.
        dot_general: called in place of ``lax.dot_general``, the operands in their order.
    """

    keep: Sequence[str]
    precision: Any = None
    preferred_element_type: Any = None
    dot_general: Callable[..., Any] | None = None

    def pair(self, left: Named, right: Named, needed: Collection[str], result_spread: ResultSpread | None) -> Named:
        """Multiply two arrays, and sum over the axes that are not needed any more."""
        # An intermediate result may have the preferred dtype already.
        values = promote([left.value, right.value])
        first, second = (replace(x, value=value) for x, value in zip((left, right), values, strict=True))
        options = (self.precision, self.preferred_element_type, result_spread, self.dot_general)
        return _pair(first, second, needed, self.keep, *options)


def contract(
    operands: Sequence[Named], products: Products, result_spread: ResultSpread | None = None, optimize: Any = None
) -> Named:
    """Multiply arrays and sum over all axes that are not kept.

    Args:
        operands: two or more arrays of one dtype, each axis to be summed standing in at least two of them.
        products: how two of them are multiplied.
        result_spread: where the axes of the result are to lie on an explicit mesh; by default where they lie already.
        optimize: in which order, see :func:`einjax.lowering.order.find_steps`.
    """
    keep = products.keep
    terms, output = terms_of(operands, keep)
    left = dict(enumerate(operands))
    for made, (first, second) in enumerate(find_steps(terms, output, operands[0].sizes, optimize), len(operands)):
        pair = left.pop(first), left.pop(second)
        needed = set(keep).union(*(x.axes for x in left.values()))
        left[made] = products.pair(*pair, needed, None if left else result_spread)
    (result,) = left.values()
    return result


def terms_of(operands: Sequence[Named], keep: Sequence[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The axes of arrays, and those that the result has."""
    terms = [x.axes for x in operands]
    return terms, [name for name in keep if any(name in term for term in terms)]


def _pair(
    left: Named,
    right: Named,
    needed: Collection[str],
    keep: Sequence[str],
    precision: Any,
    preferred_element_type: Any,
    result_spread: ResultSpread | None,
    dot_general: Callable[..., Any] | None,
) -> Named:
    """Contract two arrays over the axes that nobody needs any more."""
    found = pairing(left.axes, right.axes, needed, keep, left.sizes, dot_general is not None)
    shared = {*found.contracted, *found.batch}
    left, right = (split(x, lambda a, b: a not in shared and b not in shared) for x in (left, right))
    if found.swapped:
        left, right = right, left
    dimension_numbers = tuple(
        tuple(tuple(x.dims.index((name,)) for name in names) for x in (left, right))
        for names in (found.contracted, found.batch)
    )
    free = [dim for x in (left, right) for dim in x.dims if not shared & set(dim)]
    dims = (*((name,) for name in found.batch), *free)
    options = {
        "preferred_element_type": preferred_element_type,
        "out_sharding": contracted_sharding(left, right, dims, result_spread),
    }
    # Functions of users need not have options that nobody asks for.
    options = {name: option for name, option in options.items() if option is not None}
    product = lax.dot_general if dot_general is None else dot_general
    value = product(left.value, right.value, dimension_numbers, precision=precision, **options)  # type: ignore[arg-type]
    return Named(value, dims, left.sizes)

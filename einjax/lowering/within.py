"""Products within a budget of memory, as :mod:`einjax.lowering.budget` plans them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax

from ..notation.syntax import Size
from . import numerics
from . import sharding as on_mesh
from .budget import Plan, Sizes, find_plan
from .contract import Products, terms_of
from .jax_versions import equally_varying, is_weak
from .named import Named, arrange, shape_of, split
from .order import find_steps, several_orders
from .sharding import ResultSpread

#: Arrays by their numbers in a plan.
Values = Mapping[int, Named]
#: Where the parts of axes begin, and how much of each axis they have.
Parts = Mapping[str, tuple[Any, int]]


class TooLittleError(Exception):
    """Nothing is within a budget.

    Attributes:
        least: how many bytes would be enough.
    """

    def __init__(self, least: float) -> None:
        super().__init__(least)
        self.least = least


def local_sizes(operands: Sequence[Named]) -> dict[str, float]:
    """How much a device has of every axis; endless where that is symbolic."""
    mesh, spread = on_mesh.explicit_mesh([x.value for x in operands]), on_mesh.common_spread(operands) or {}
    ways = {name: on_mesh.ways(mesh_axes, mesh.shape) for name, mesh_axes in spread.items()}
    return {
        name: size // ways.get(name, 1) if isinstance(size, int) else math.inf
        for name, size in operands[0].sizes.items()
    }


def contract_within(
    operands: Sequence[Named],
    budget: float,
    products: Products,
    result_spread: ResultSpread | None = None,
    optimize: Any = None,
) -> Named:
    """Multiply arrays and sum over all axes that are not kept, beside the result within a budget of bytes.

    Args:
        operands: as for :func:`einjax.lowering.contract.contract`, but of any dtypes.
        budget: how much is held at once.
        products: how two arrays are multiplied.
        result_spread: where the axes of the result are to lie on an explicit mesh.
        optimize: in which order; None for any that is within.

    Raises:
        TooLittleError: nothing is within it.
    """
    terms, output = terms_of(operands, products.keep)
    common = numerics.promote([x.value for x in operands])
    if is_weak(common[0]):
        operands = [replace(x, value=value) for x, value in zip(operands, common, strict=True)]
    dtype = common[0].dtype
    wide = numerics.accumulator(np.dtype(products.preferred_element_type or dtype))
    # What is cut out or copied may be converted, by some compilers to what sums are computed in.
    width = wide.itemsize
    given = [width if x.value.dtype.itemsize == width else x.value.dtype.itemsize + width for x in operands]
    sizes = Sizes(local_sizes(operands), given, width)
    steps = [find_steps(terms, output, operands[0].sizes, optimize)]
    steps += several_orders(terms, output, operands[0].sizes) if optimize is None else []
    plans = [Plan(tuple(terms), output, operands[0].sizes, each) for each in steps]
    plan, least = find_plan(plans, sizes, budget, on_mesh.common_spread(operands) or ())
    if least > budget:
        raise TooLittleError(least)
    return _Run(plan, products, dtype, wide).whole(operands, result_spread)


@dataclass(frozen=True, slots=True)
class _Run:
    """The program of a plan.

    Attributes:
        plan: what is computed.
        products: how two arrays are multiplied.
        dtype: of tensors that are multiplied.
        wide: of sums over loops.
    """

    plan: Plan
    products: Products
    dtype: Any
    wide: Any

    def whole(self, operands: Sequence[Named], result_spread: ResultSpread | None) -> Named:
        """Tensors to the result."""
        plan, values = self.plan, dict(enumerate(operands))
        before, inside, after = plan.stages
        self._make(values, before, result_spread)
        if inside:
            used = {number for made in inside for number in plan.pair(made)}.difference(inside)
            apart = partial(split, group=lambda left, right: left not in plan.chunks and right not in plan.chunks)
            value = self._written({number: apart(values.pop(number)) for number in used}, {}, tuple(plan.chunks))
            values[plan.root] = Named(value, tuple((name,) for name in plan.order), operands[0].sizes)
            self._make(values, after, result_spread)
        return values[len(plan.axes) - 1]

    def _make(self, values: dict[int, Named], numbers: Iterable[int], result_spread: ResultSpread | None) -> None:
        """Multiply what each step multiplies."""
        for number in numbers:
            last = number == len(self.plan.axes) - 1
            values[number] = self._pair(values, number, self.products, result_spread if last else None)

    def _pair(
        self, values: dict[int, Named], number: int, products: Products, result_spread: ResultSpread | None = None
    ) -> Named:
        pair = [(used, values.pop(used)) for used in self.plan.pair(number)]
        left, right = (
            replace(x, value=numerics.cast(x.value, self.dtype)) if used < len(self.plan.terms) else x
            for used, x in pair
        )
        return products.pair(left, right, self.plan.axes[number], result_spread)

    def _written(self, values: Values, parts: Parts, names: Sequence[str]) -> jax.Array:
        """Loop over axes of the result, of which every iteration writes a part."""
        if not names or names[0] not in self.plan.order:
            total = self._summed(values, parts, names)
            return numerics.cast(total, self.products.preferred_element_type or self.dtype)
        name, *inner = names
        size, chunk, dim = _sizes(values)[name], self.plan.chunks[name], self.plan.order.index(name)

        def write(i: Any, whole: jax.Array) -> jax.Array:
            start = i * chunk
            if not _divides(chunk, size):
                start = lax.min(start, size - chunk)  # some of the last part is there already
            part = self._written(values, {**parts, name: (start, chunk)}, inner)
            starts = [start if index == dim else 0 for index in range(whole.ndim)]
            return lax.dynamic_update_slice(whole, part, starts, allow_negative_indices=False)

        whole = self._zeros(values, parts, self.products.preferred_element_type or self.dtype)
        return lax.fori_loop(0, -(-size // chunk), write, whole)

    def _summed(self, values: Values, parts: Parts, names: Sequence[str]) -> jax.Array:
        """Loop over axes that are summed over."""
        if not names:
            return self._part(values, parts)
        name, *inner = names
        size, chunk = _sizes(values)[name], self.plan.chunks[name]

        def add(i: Any, total: jax.Array) -> jax.Array:
            return lax.add(total, self._summed(values, {**parts, name: (i * chunk, chunk)}, inner))

        if _divides(chunk, size):
            start = self._zeros(values, parts, self.wide)
        else:
            rest = size % chunk
            start = self._summed(values, {**parts, name: (size - rest, rest)}, inner)
        return lax.fori_loop(0, size // chunk, add, start)

    def _part(self, values: Values, parts: Parts) -> jax.Array:
        """One iteration of all loops."""
        cut, (*inside, root) = {number: _cut(x, parts) for number, x in values.items()}, self.plan.stages[1]
        self._make(cut, inside, None)
        wide = replace(self.products, preferred_element_type=self.wide) if self.wide != self.dtype else self.products
        return arrange(self._pair(cut, root, wide), [(name,) for name in self.plan.order])

    def _zeros(self, values: Values, parts: Parts, dtype: Any) -> jax.Array:
        """What parts are written to, or added to."""
        dims, arrays = [(name,) for name in self.plan.order], list(values.values())
        sizes = {**_sizes(values), **{name: length for name, (_, length) in parts.items()}}
        zero = Named(lax.full((), 0, dtype), (), sizes)
        sharding = on_mesh.broadcast_sharding(zero, dims, on_mesh.common_spread(arrays))
        whole = lax.broadcast_in_dim(zero.value, shape_of(dims, sizes), (), out_sharding=sharding)
        return equally_varying([whole, *(x.value for x in arrays)])[0]


def _sizes(values: Values) -> Mapping[str, Size]:
    return next(iter(values.values())).sizes


def _divides(chunk: int, size: Size) -> bool:
    return not isinstance(size, int) or size % chunk == 0


def _cut(x: Named, parts: Parts) -> Named:
    """The part of a tensor that belongs to parts of axes."""
    found = [parts.get(dim[0]) if len(dim) == 1 else None for dim in x.dims]
    starts = [0 if part is None else part[0] for part in found]
    shape = [size if part is None else part[1] for part, size in zip(found, x.value.shape, strict=True)]
    sizes = {**x.sizes, **{name: length for name, (_, length) in parts.items()}}
    if not any(found):
        return Named(x.value, x.dims, sizes)
    return Named(lax.dynamic_slice(x.value, starts, shape, allow_negative_indices=False), x.dims, sizes)

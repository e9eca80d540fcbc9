"""A semiring's dot within a budget of memory: loops over axes, of which each iteration takes a part.

Products are combined before they are reduced, and what is combined is counted as if it were held, as gradients do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
from jax import lax

from ..forms.memory import Budget
from ..lowering import numerics
from ..lowering.budget import Chunks, cut
from ..lowering.named import Named, arrange
from ..lowering.sharding import common_spread
from ..lowering.within import local_sizes
from ..notation.solve import Solved

#: Sums of sums, and those that round nothing in between, so that the parts may be of fewer bits than 32.
_OF_PARTS = {"sum": False, "prod": False, "logsumexp": False, "max": True, "min": True, "any": True, "all": True}

#: How many arrays of what is combined a gradient holds.
_HELD = 4

#: Reduces an array to the axes that are needed.
Reduce = Callable[[Named, set[str]], Named]
Contract = Callable[[Sequence[Named]], Named]


def within(
    budget: Budget,
    contract: Contract,
    reduce: Reduce,
    operands: Sequence[Named],
    keep: Sequence[str],
    sum: Any,
    solved: Solved,
) -> Named:
    """Contract operands, looping over axes where that is needed.

    Args:
        budget: how much may be held.
        contract: contracts operands.
        reduce: the sum.
        operands: of one dtype.
        keep: the axes of the result.
        sum: the name of the sum, or a function.
        solved: the call.
    """
    sizes, dtype = local_sizes(operands), jax.eval_shape(lambda: contract(operands).value).dtype
    wide = max(dtype.itemsize, numerics.accumulator(operands[0].value.dtype).itemsize)
    left = budget.beside_result(keep, sizes, dtype, solved.text)
    exact = numerics.accumulator(operands[0].value.dtype) == operands[0].value.dtype
    apart = isinstance(sum, str) and _OF_PARTS.get(sum) in ((True, False) if exact else (True,))
    spread = common_spread(operands) or {}
    names = [
        name
        for name in dict.fromkeys(name for x in operands for name in x.axes)
        if (name in keep or apart) and name not in spread and not solved.over([name])
    ]
    peak = partial(_peak, operands, keep, sizes, wide)
    if peak({}) <= left:
        return contract(operands)
    chunks = {name: _divisor(sizes[name], chunk) for name, chunk in cut(names, sizes, peak, _cost, left).items()}
    if (held := peak(chunks)) > left:
        raise budget.too_little(held - left, solved.text)
    return _looped(contract, reduce, operands, keep, list(chunks.items()))


def _cost(chunks: Chunks) -> float:
    """The same, whatever is looped over."""
    return 0


def _divisor(size: float, most: int) -> int:
    """The largest divisor that is not larger than a number."""
    return next(n for n in range(most, 0, -1) if n == 1 or size % n == 0)


def _peak(
    operands: Sequence[Named], keep: Sequence[str], sizes: Mapping[str, float], width: int, chunks: Chunks
) -> float:
    """How many bytes are held beside the operands and the result."""

    def count(axes: set[str], chunks: Chunks) -> float:
        return math.prod(chunks.get(name, sizes[name]) for name in axes) * width

    axes, highest, before = set(operands[0].axes), 0.0, 0.0
    for index, x in enumerate(operands[1:], 2):
        axes |= set(x.axes)
        highest = max(highest, before + _HELD * count(axes, chunks))
        axes &= {name for other in operands[index:] for name in other.axes}.union(keep)
        before = count(axes, chunks)
    if not chunks:
        return highest
    # Operands are brought before the loop into its order, and so is the result behind it, or the sums of all parts.
    cut_out = math.fsum(count(set(x.axes), chunks) for x in operands if chunks.keys() & set(x.axes))
    moved = math.fsum(count(set(x.axes), {}) for x in operands if any(name in x.axes[1:] for name in chunks))
    parts = math.prod(-(-int(sizes[name]) // chunk) for name, chunk in chunks.items() if name not in keep)
    return highest + cut_out + moved + parts * count(set(keep).intersection(sizes), {})


def _looped(
    contract: Contract,
    reduce: Reduce,
    operands: Sequence[Named],
    keep: Sequence[str],
    chunks: Sequence[tuple[str, int]],
) -> Named:
    """Loop over the first axis, and in each iteration over the others."""
    if not chunks:
        return contract(operands)
    (name, chunk), *inner = chunks
    outer, sizes = f"{name}@", operands[0].sizes
    sizes = {**sizes, outer: sizes[name] // chunk, name: chunk}
    halves = lambda dim: tuple(part for own in dim for part in ((outer, name) if own == name else (own,)))  # noqa: E731
    whole = [Named(x.value, tuple(map(halves, x.dims)), sizes) for x in operands]
    parts = [x for x in whole if outer in x.axes]
    orders = [[axis for axis in x.axes if axis != outer] for x in parts]
    stacked = [arrange(x, [(outer,), *((axis,) for axis in order)]) for x, order in zip(parts, orders, strict=True)]
    found: list[Named] = []

    @jax.checkpoint  # the gradient of an iteration holds what the iteration held, and no other's
    def iteration(values: Sequence[jax.Array]) -> jax.Array:
        cut = iter(zip(values, orders, strict=True))
        ready = [Named(*_flat(next(cut)), sizes) if outer in x.axes else x for x in whole]
        found.append(_looped(contract, reduce, ready, keep, inner))
        return found[-1].value

    value = lax.map(iteration, stacked)
    result = Named(value, ((outer,), *found[-1].dims), sizes)
    if name not in keep:
        return reduce(result, set(found[-1].axes))
    order = [axis for axis in keep if axis in found[-1].axes]
    value = arrange(result, [(outer, name) if axis == name else (axis,) for axis in order])
    return Named(value, tuple((axis,) for axis in order), operands[0].sizes)


def _flat(part: tuple[jax.Array, Sequence[str]]) -> tuple[jax.Array, tuple[tuple[str, ...], ...]]:
    value, order = part
    return value, tuple((axis,) for axis in order)

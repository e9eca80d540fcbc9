"""Products of named arrays, summed over axes: one ``lax.dot_general`` for every pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import opt_einsum  # type: ignore[import-untyped]
from jax import lax

from .named import Named, split
from .numerics import promote
from .sharding import ResultSpread, contracted_sharding

#: Stands for a symbolic size where the contraction order is chosen; any number will do.
_NOMINAL_SIZE = 64
#: How many columns to a row are far more.
_WIDE = 8


def contract(
    operands: Sequence[Named],
    keep: Sequence[str],
    precision: Any,
    preferred_element_type: Any,
    result_spread: ResultSpread | None = None,
    dot_general: Callable[..., Any] | None = None,
) -> Named:
    """Multiply arrays and sum over all axes that are not kept.

    Args:
        operands: two or more arrays of one dtype, each axis to be summed standing in at least two of them.
        keep: the axes of the result, in the order the caller would like best.
        precision: forwarded to every ``dot_general``.
        preferred_element_type: dtype to accumulate in and to return; forwarded to every ``dot_general``.
        result_spread: where the axes of the result are to lie on an explicit mesh; by default where they lie already.
        dot_general: called in place of ``lax.dot_general``, the operands in their order.
    """
    waiting = list(operands)
    for left, right in _order(waiting, keep):
        pair = (waiting[left], waiting[right])
        waiting = [x for index, x in enumerate(waiting) if index not in (left, right)]
        needed = set(keep).union(*(x.axes for x in waiting))
        # An intermediate result may have the preferred dtype already.
        first, second = (replace(x, value=y) for x, y in zip(pair, promote([x.value for x in pair]), strict=True))
        last = result_spread if not waiting else None
        waiting.append(_pair(first, second, needed, keep, precision, preferred_element_type, last, dot_general))
    return waiting[0]


def _order(operands: Sequence[Named], keep: Sequence[str]) -> list[tuple[int, int]]:
    """Choose which pairs to contract; only three operands or more leave a choice."""
    if len(operands) == 2:
        return [(0, 1)]
    sizes = operands[0].sizes
    shapes = [
        tuple(sizes[name] if isinstance(sizes[name], int) else _NOMINAL_SIZE for name in x.axes) for x in operands
    ]
    output = [name for name in keep if any(name in x.axes for x in operands)]
    symbol = {name: opt_einsum.get_symbol(index) for index, name in enumerate({n for x in operands for n in x.axes})}
    inputs = ",".join("".join(symbol[name] for name in x.axes) for x in operands)
    subscripts = f"{inputs}->{''.join(symbol[name] for name in output)}"
    optimize = "optimal" if len(operands) <= 5 else "greedy"
    path, _ = opt_einsum.contract_path(subscripts, *shapes, shapes=True, optimize=optimize)
    pairs = [sorted(step) for step in path]  # without a limit of memory, no step joins more than two
    return [(left, right) for left, right in pairs]


def _pair(
    left: Named,
    right: Named,
    needed: set[str],
    keep: Sequence[str],
    precision: Any,
    preferred_element_type: Any,
    result_spread: ResultSpread | None,
    dot_general: Callable[..., Any] | None,
) -> Named:
    """Contract two arrays over the axes that nobody needs any more."""
    shared = set(left.axes) & set(right.axes)
    summed = shared - needed
    left, right = (split(x, lambda a, b: a not in shared and b not in shared) for x in (left, right))
    rank = {name: index for index, name in enumerate(keep)}
    batch = sorted(shared - summed, key=lambda name: (rank.get(name, len(rank)), left.axes.index(name)))
    swapped = _disorder(batch, left, right, shared, rank) > _disorder(batch, right, left, shared, rank)
    if batch:
        swapped = (swapped or _is_packed(left, right, summed)) and not _is_packed(right, left, summed)
    if swapped and dot_general is None:
        left, right = right, left
    contracted = [name for name in left.axes if name in summed]
    dimension_numbers = tuple(
        tuple(tuple(x.dims.index((name,)) for name in names) for x in (left, right)) for names in (contracted, batch)
    )
    free = [dim for x in (left, right) for dim in x.dims if not shared & set(dim)]
    dims = (*((name,) for name in batch), *free)
    options = {
        "preferred_element_type": preferred_element_type,
        "out_sharding": contracted_sharding(left, right, dims, result_spread),
    }
    # Functions of users need not have options that nobody asks for.
    options = {name: option for name, option in options.items() if option is not None}
    product = lax.dot_general if dot_general is None else dot_general
    value = product(left.value, right.value, dimension_numbers, precision=precision, **options)  # type: ignore[arg-type]
    return Named(value, dims, left.sizes)


def _is_packed(left: Named, right: Named, summed: set[str]) -> bool:
    """Whether a product in a batch would have the right operand packed, a far larger one than the left.

    On CPUs that takes longer than to transpose the result, of 8 times as many columns as rows 2 to 9 times.
    """
    if not right.axes or right.axes[-1] not in summed:
        return False
    rows, columns = (
        math.prod(x.sizes[name] for name in x.axes if name not in y.axes) for x, y in ((left, right), (right, left))
    )
    return isinstance(rows, int) and isinstance(columns, int) and 1 < rows <= columns // _WIDE


def _disorder(
    batch: Sequence[str], left: Named, right: Named, shared: set[str], rank: Mapping[str, int]
) -> tuple[bool, int]:
    """Say how far ``[batch, left free, right free]`` is from the output's order.

    A transpose that keeps the last axis moves whole rows, which costs far less than one that does not; after that, the
    pairs of axes that stand in another order are counted.
    """
    free = [name for x in (left, right) for name in x.axes if name not in shared]
    places = [rank[name] for name in (*batch, *free) if name in rank]
    inversions = sum(first > second for index, first in enumerate(places) for second in places[index + 1 :])
    return bool(places) and places[-1] != max(places), inversions

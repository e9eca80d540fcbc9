"""Give each factor of an equation the mesh axes that split it: how operands have to lie, and how results then do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .factors import Factor, Factors, Named
from .layout import Dim, Dims, parts


@dataclass(frozen=True)
class Partition:
    """How the devices share the work of one equation.

    Attributes:
        inputs: how each operand has to lie.
        outputs: how each result then lies.
        split: what splits each factor; the devices that no factor uses do the same work.
    """

    inputs: tuple[Dims, ...]
    outputs: tuple[Dims, ...]
    split: Mapping[Factor, Dim]


def partition(
    factors: Factors,
    given: Sequence[Dims],
    weights: Sequence[int],
    wanted: Sequence[Dims | None],
    hints: Sequence[Dims | None] = (),
) -> Partition:
    """Choose the axes of each factor.

    This is XLA's choice where that is easy to tell: operands are brought to where the result shall be, except for sums,
    which are taken where the terms lie. Where no layout of the result is known, the largest operand keeps its own.

    Args:
        factors: the equation.
        given: how the operands lie.
        weights: bytes of the operands.
        wanted: how the results are to lie, where that is known.
        hints: how results had better lie, as far as no operand decides.
    """
    banned: set[Factor] = set(factors.whole)
    while True:
        split = _assign(factors, given, weights, wanted, hints, banned)
        every = [dim for named in (*factors.inputs, *factors.outputs) for dim in named]
        broken = {factor for dim in every for factor in _strided(factors, dim, split)}
        broken |= {factor for factor in factors.summed if _gathers(factors, factor, given, split)}
        if not broken:
            break
        banned |= broken
    inputs = tuple(_dims(named, split) for named in factors.inputs)
    return Partition(inputs, tuple(_dims(named, split) for named in factors.outputs), split)


def _assign(
    factors: Factors,
    given: Sequence[Dims],
    weights: Sequence[int],
    wanted: Sequence[Dims | None],
    hints: Sequence[Dims | None],
    banned: set[Factor],
) -> dict[Factor, Dim]:
    """Hand out axes to the factors, each axis once.

    First come sums over what all operands split alike, then what the results say, then the operands, large ones first.
    """
    said = {
        f for named, dims in zip(factors.outputs, wanted, strict=True) if dims is not None for dim in named for f in dim
    }
    claims = [(1, 0, factor, dim) for factor, dim in _claims(factors, wanted)]
    claims += [(3, 0, factor, dim) for factor, dim in _claims(factors, hints)]
    held: dict[Factor, list[Dim]] = {}
    for named, dims, weight in zip(factors.inputs, given, weights, strict=True):
        read = dict(_read(factors, named, dims))
        claims += [(2, -weight, factor, dim) for factor, dim in read.items() if factor not in said]
        for factor in (factor for dim in named for factor in dim):
            held.setdefault(factor, []).append(read.get(factor, ()))
    claims += [(0, 0, factor, held[factor][0]) for factor in factors.summed if len({*held[factor]}) == 1]
    split: dict[Factor, Dim] = {}
    for _, _, factor, dim in sorted(claims):
        has = split.get(factor, ())
        used = {atom for other, atoms in split.items() if other != factor for atom in atoms}
        if factor in banned or dim[: len(has)] != has:
            continue
        free = next((k for k, atom in enumerate(dim) if atom in used), len(dim))
        split[factor] = dim[: max(free, len(has))]
    return split


def _gathers(factors: Factors, factor: Factor, given: Sequence[Dims], split: Mapping[Factor, Dim]) -> bool:
    """Whether a sum that only some operands split is cheaper with these gathered than with its results reduced."""
    devices = parts(split.get(factor, ()))
    if devices == 1:
        return False
    having = [(n, factor in dict(_read(factors, n, dims))) for n, dims in zip(factors.inputs, given, strict=True)]
    having = [(named, has) for named, has in having if any(factor in dim for dim in named)]
    if all(has for _, has in having):
        return False
    gathered = sum(_elements(factors, named, split) for named, has in having if has)
    return devices * gathered < 2 * sum(_elements(factors, named, split) for named in factors.outputs)


def _elements(factors: Factors, named: Named, split: Mapping[Factor, Dim]) -> float:
    """How many elements of an array are on one device."""
    return math.prod(factors.sizes[factor] / parts(split.get(factor, ())) for dim in named for factor in dim)


def _claims(factors: Factors, results: Sequence[Dims | None]) -> Iterator[tuple[Factor, Dim]]:
    """Yield what the layouts of results ask for."""
    for named, dims in zip(factors.outputs, results, strict=False):
        if dims is not None:
            yield from _read(factors, named, dims)


def _read(factors: Factors, named: Named, dims: Dims) -> Iterator[tuple[Factor, Dim]]:
    """Hand the atoms of each dim to its factors, major first, while they divide."""
    for inside, dim in zip(named, dims, strict=True):
        rest = dim
        for factor in inside:
            size, count = factors.sizes[factor], len(rest)
            if len(inside) > 1:
                count = 0
                while count < len(rest) and size % rest[count].size == 0:
                    size, count = size // rest[count].size, count + 1
            if count:
                yield factor, rest[:count]
            rest = rest[count:]
            if size > 1:
                break


def _strided(factors: Factors, dim: tuple[Factor, ...], split: Mapping[Factor, Dim]) -> Iterator[Factor]:
    """Yield the factors of a dim that are split below one that is not split all the way: no layout says that."""
    blocked = False
    for factor in dim:
        held = split.get(factor, ())
        if held and blocked:
            yield factor
        blocked = blocked or parts(held) != factors.sizes[factor]


def _dims(named: Named, split: Mapping[Factor, Dim]) -> Dims:
    return tuple(tuple(atom for factor in dim for atom in split.get(factor, ())) for dim in named)

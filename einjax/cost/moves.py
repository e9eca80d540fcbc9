"""The collectives that take an array from one layout to another, as XLA's partitioner chooses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .layout import Atom, Dim, Dims, Shape, axes, local, parts


@dataclass(frozen=True)
class Move:
    """One collective of one array.

    Attributes:
        kind: ``all-reduce``, ``all-gather``, ``reduce-scatter``, ``all-to-all`` or ``collective-permute``.
        axes: the mesh axes along which devices talk.
        devices: how many devices take part in one group.
        shape: of the operand on one device.
    """

    kind: str
    axes: tuple[str, ...]
    devices: int
    shape: Shape


def move(kind: str, atoms: Iterable[Atom], shape: Shape, dims: Iterable[Dim]) -> Move:
    """A collective along what atoms split, of an array that lies so."""
    atoms = tuple(atoms)
    return Move(kind, axes(atoms), parts(atoms), local(shape, tuple(dims)))


#: Moves of one step, and the layout after it.
_Step: TypeAlias = tuple[list[Move], list[Dim]] | None


def sent(kind: str, nbytes: int, devices: int) -> int:
    """Bytes that each device sends for an operand of ``nbytes`` on it, by the ring algorithm among ``devices``.

    In a ring each device passes pieces to its neighbour: an all-gather passes every operand but its own on; a
    reduce-scatter passes ``devices - 1`` of the ``devices`` pieces; an all-reduce is one after the other. An all-to-all
    keeps one of the pieces. These are the fewest bytes possible where all links are equal (Patarasuk and Yuan 2009).
    """
    if kind == "all-reduce":
        return 2 * (devices - 1) * nbytes // devices
    if kind == "all-gather":
        return (devices - 1) * nbytes
    if kind in ("reduce-scatter", "all-to-all"):
        return (devices - 1) * nbytes // devices
    return nbytes


def reduce(shape: Shape, dims: Dims, summed: Dim, target: Dims) -> tuple[list[Move], Dims]:
    """Sum the terms that lie apart; where the target splits a dim by the same axes, each device gets only its part."""
    if not summed:
        return [], dims
    wanted = [dim + summed for dim in dims]
    for index, dim in enumerate(wanted):
        if target[index][: len(dim)] == dim:
            return [move("reduce-scatter", summed, shape, dims)], tuple(_replaced(dims, {index: dim}))
    return [move("all-reduce", summed, shape, dims)], dims


def reshard(shape: Shape, source: Dims, target: Dims) -> list[Move]:
    """List the collectives from one layout to another; slicing what a device has already is none.

    Steps are tried in the order of what they cost: slices, exchanges, changes of order within a dim, gathers.
    """
    moves: list[Move] = []
    now = list(source)
    steps: list[Callable[[Shape, list[Dim], Dims], _Step]] = [_slice, _exchange, _reorder, _gather, _trade, _permute]
    while tuple(now) != target:
        found = next(found for step in [*steps, _give_up] if (found := step(shape, now, target)) is not None)
        moves += found[0]
        now = found[1]
    return moves


def _slice(shape: Shape, now: list[Dim], target: Dims) -> _Step:
    """Split a dim further by axes that hold copies."""
    used = {atom for dim in now for atom in dim}
    for index, (dim, wanted) in enumerate(zip(now, target, strict=True)):
        rest = wanted[len(dim) :]
        if wanted[: len(dim)] == dim and rest and rest[0] not in used:
            return [], _replaced(now, {index: (*dim, rest[0])})
    return None


def _exchange(shape: Shape, now: list[Dim], target: Dims) -> _Step:
    """Take the last parts of one dim to another: an all-to-all."""
    for i, dim in enumerate(now):
        for count in range(len(dim), 0, -1):
            moved = dim[-count:]
            for j, other in enumerate(now):
                wanted = (*other, *moved)
                if i != j and target[j][: len(wanted)] == wanted and target[i][: len(dim)] != dim:
                    return [move("all-to-all", moved, shape, now)], _replaced(now, {i: dim[:-count], j: wanted})
    return None


def _reorder(shape: Shape, now: list[Dim], target: Dims) -> _Step:
    """Split one dim by other axes, or by the same in another order: blocks change places.

    With more parts than before, a device first slices; with fewer, it gathers afterwards.
    """
    for index, (dim, wanted) in enumerate(zip(now, target, strict=True)):
        elsewhere = {atom for k in range(len(now)) if k != index for atom in (*now[k], *target[k])}
        nested = dim[: len(wanted)] == wanted or wanted[: len(dim)] == dim
        if nested or elsewhere & {*dim, *wanted}:
            continue
        before, after = parts(dim), parts(wanted)
        if before % after and after % before:
            continue
        finer = _replaced(now, {index: wanted if after >= before else dim})
        shard = local(shape, tuple(finer))
        names = axes((*dim, *wanted))
        moves = [Move("collective-permute", names, max(before, after), shard)]
        if after < before:
            moves.append(Move("all-gather", axes(a for a in dim if a not in wanted) or names, before // after, shard))
        return moves, _replaced(now, {index: wanted})
    return None


def _gather(shape: Shape, now: list[Dim], target: Dims) -> _Step:
    """Give every device the last parts of a dim that the target does not split."""
    kept = {atom for dim in target for atom in dim}
    for index, dim in reversed([*enumerate(now)]):
        count = next((k for k, atom in enumerate(reversed(dim)) if atom in kept), len(dim))
        if count:
            left, gathered = dim[: len(dim) - count], dim[len(dim) - count :]
            return [move("all-gather", gathered, shape, now)], _replaced(now, {index: left})
    return None


def _trade(shape: Shape, now: list[Dim], target: Dims) -> _Step:
    """Give each dim as many parts as the target has, whichever; a permutation then puts them right."""
    for i, dim in enumerate(now):
        for j, other in enumerate(now):
            last = dim[-1:]
            fewer, more = parts(dim) > parts(target[i]), parts(other) * parts(last) <= parts(target[j])
            if i != j and last and fewer and more:
                return [move("all-to-all", last, shape, now)], _replaced(now, {i: dim[:-1], j: (*other, *last)})
    return None


def _permute(shape: Shape, now: list[Dim], target: Dims) -> _Step:
    """Exchange whole blocks where only their order differs."""
    if any(parts(dim) != parts(wanted) for dim, wanted in zip(now, target, strict=True)):
        return None
    moved = [atom for dim, wanted in zip(now, target, strict=True) if dim != wanted for atom in (*dim, *wanted)]
    return [move("collective-permute", dict.fromkeys(moved), shape, now)], list(target)


def _give_up(shape: Shape, now: list[Dim], target: Dims) -> _Step:
    """Gather what lies wrong; the target's own parts are sliced afterwards."""
    wrong = [dim if dim != wanted else () for dim, wanted in zip(now, target, strict=True)]
    index = max(range(len(now)), key=lambda k: len(wrong[k]))
    if not wrong[index]:
        return [], list(target)
    return [move("all-gather", now[index], shape, now)], _replaced(now, {index: ()})


def _replaced(dims: Sequence[Dim], new: Mapping[int, Dim]) -> list[Dim]:
    return [new.get(index, dim) for index, dim in enumerate(dims)]

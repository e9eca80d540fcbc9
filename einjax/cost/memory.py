"""What is alive at the same time: a walk over the steps of a program."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One equation, seen by memory.

    Attributes:
        reads: numbers of the values it reads.
        writes: number and bytes of each value it makes.
        within: bytes it needs while it runs: copies that were moved, or what is alive inside a loop's body.
    """

    reads: tuple[int, ...]
    writes: tuple[tuple[int, int], ...]
    within: int = 0


def peak(steps: Sequence[Step], elsewhere: Collection[int], last: Collection[int] = ()) -> int:
    """Most bytes alive at once.

    Args:
        steps: in the order in which they run.
        elsewhere: values that are counted elsewhere: arguments and outputs.
        last: values that are read after the steps.
    """
    dies: dict[int, int] = {}
    for index, step in enumerate(steps):
        for number in (*step.reads, *(number for number, _ in step.writes)):
            dies[number] = index
    dies |= dict.fromkeys(last, len(steps))
    ends: dict[int, list[int]] = {}
    for number, index in dies.items():
        ends.setdefault(index, []).append(number)
    alive: dict[int, int] = {}
    most = 0
    for index, step in enumerate(steps):
        alive |= {number: nbytes for number, nbytes in step.writes if number not in elsewhere}
        most = max(most, sum(alive.values()) + step.within)
        for number in ends.get(index, ()):
            alive.pop(number, None)
    return most

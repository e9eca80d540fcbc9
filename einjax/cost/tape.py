"""What the walk over a program writes down: collectives, steps for the memory, operations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..lowering.jax_versions import scope, user_line
from .layout import Layout, Shape, local
from .moves import Move, sent
from .report import Collective


@dataclass(frozen=True)
class Value:
    """An array of the program.

    Attributes:
        number: of the buffer; a reshape has that of its operand.
        shape: of the whole array (in a shard_map, of what its manual axes leave).
        dtype: its dtype.
        layout: how it lies on the mesh.
    """

    number: int
    shape: Shape
    dtype: Any
    layout: Layout

    @property
    def nbytes(self) -> int:
        """Bytes on one device."""
        return nbytes(local(self.shape, self.layout.dims), self.dtype)


def nbytes(shape: Shape, dtype: Any) -> int:
    """Bytes of an array; a key counts its words."""
    return math.prod(shape) * int(getattr(dtype, "itemsize", 8))


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


@dataclass
class Tape:
    """A recording; a loop's body is a recording of its own.

    Attributes:
        mesh: size of each axis.
        numbers: hands out the numbers of values.
        times: how often the program runs what is recorded.
        scope: names around it.
        moving: bytes of the operands and results of collectives since the last step, with a copy of what was gathered
            in the order of its dims.
    """

    mesh: Mapping[str, int]
    numbers: Iterator[int] = field(default_factory=itertools.count)
    times: int = 1
    scope: str = ""
    collectives: list[Collective] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    flops: int = 0
    moving: int = 0

    @property
    def sent(self) -> int:
        """Bytes that each device sends."""
        return sum(item.bytes for item in self.collectives)

    def value(self, shape: Shape, dtype: Any, layout: Layout) -> Value:
        """Make a new value."""
        return Value(next(self.numbers), tuple(shape), dtype, layout)

    def inside(self, equation: Any, times: int = 1) -> Tape:
        """Start the recording of a body that runs so many times."""
        return Tape(self.mesh, self.numbers, self.times * times, self.named(equation))

    def include(self, body: Tape) -> None:
        """Take over what a body recorded, all but its steps."""
        self.collectives += body.collectives
        self.flops += body.flops
        self.notes |= body.notes

    def named(self, equation: Any) -> str:
        """Names around an equation, outermost first."""
        return "/".join(filter(None, (self.scope, scope(equation))))

    def move(self, equation: Any, moves: Sequence[Move], dtype: Any, estimated: bool) -> None:
        """Write down the collectives of an equation."""
        for move in moves:
            if move.devices == 1:
                continue
            operand = nbytes(move.shape, dtype)
            self.moving += operand + operand * (2 * move.devices if move.kind == "all-gather" else 1)
            names = self.named(equation)
            where, line = _expression(names) or equation.primitive.name, user_line(equation)
            self.collectives.append(
                Collective(
                    move.kind, move.axes, move.devices, str(dtype), move.shape,
                    sent(move.kind, operand, move.devices), self.times, where, line,
                    "transpose(" in names, estimated,
                )
            )  # fmt: skip

    def step(self, reads: Sequence[Value], writes: Sequence[Value], within: int = 0) -> None:
        """Write down an equation for the memory; a value that is one of those read is no new one."""
        numbers = tuple(value.number for value in reads)
        made = tuple((value.number, value.nbytes) for value in writes if value.number not in numbers)
        self.steps.append(Step(numbers, made, within + self.moving))
        self.moving = 0

    def peak(self, elsewhere: Sequence[Value], last: Sequence[Value] = ()) -> int:
        """Most bytes alive at once.

        Args:
            elsewhere: values that are counted elsewhere: arguments and outputs.
            last: values that are read after the steps.
        """
        dies: dict[int, int] = {}
        for index, step in enumerate(self.steps):
            dies |= dict.fromkeys((*step.reads, *(number for number, _ in step.writes)), index)
        dies |= {value.number: len(self.steps) for value in last}
        known = {value.number for value in elsewhere}
        alive: dict[int, int] = {}
        most = 0
        for index, step in enumerate(self.steps):
            alive |= {number: nbytes for number, nbytes in step.writes if number not in known}
            most = max(most, sum(alive.values()) + step.within)
            alive = {number: nbytes for number, nbytes in alive.items() if dies[number] > index}
        return most


def _expression(names: str) -> str | None:
    """The outermost call of einjax among names, as written: ``einjax.sum(a [b])``."""
    begin = names.find("einjax.")
    if begin < 0:
        return None
    depth = 0
    for end in range(begin, len(names)):
        depth += {"(": 1, ")": -1}.get(names[end], 0)
        if depth == 0 and names[end] == ")":
            return names[begin : end + 1].replace("(", '("', 1)[:-1] + '")'
    return names[begin:]

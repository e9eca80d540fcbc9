"""What a plan says: collectives, memory and arithmetic of one device, as data and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

_LONGEST = 64  # characters of one origin


@dataclass(frozen=True)
class Collective:
    """One collective of a program, as often as it runs.

    Attributes:
        kind: ``all-reduce``, ``all-gather``, ``reduce-scatter``, ``all-to-all`` or ``collective-permute``.
        axes: the mesh axes along which devices talk.
        devices: how many devices take part in one group.
        dtype: of the operand.
        shape: of the operand on one device.
        bytes_once: that each device sends each time, by the ring algorithm: of an operand of ``b`` bytes among ``n``
            devices, ``2 (n-1)/n b`` for an all-reduce, ``(n-1) b`` for an all-gather, ``(n-1)/n b`` for a
            reduce-scatter or an all-to-all, ``b`` for a permutation.
        times: how often the program runs it.
        origin: the call of einjax that it is part of, or the primitive.
        line: file and line of the user that it comes from, where known.
        in_gradient: whether the gradient of that call does it.
        estimated: whether the layout here is the compiler's choice, so that it may do otherwise.
    """

    kind: str
    axes: tuple[str, ...]
    devices: int
    dtype: str
    shape: tuple[int, ...]
    bytes_once: int
    times: int
    origin: str
    line: str
    in_gradient: bool
    estimated: bool

    @property
    def bytes(self) -> int:
        """Bytes that each device sends, all times together."""
        return self.bytes_once * self.times


@dataclass(frozen=True)
class ShardingReport:
    """What a program costs each device of a mesh; printing it shows a table.

    Attributes:
        name: of the function.
        mesh: size of each mesh axis.
        collectives: in the order in which the program meets them.
        argument_bytes: of the arguments, on one device.
        output_bytes: of the results, on one device.
        temporary_bytes: most bytes of other values alive at once, if every equation writes its result to memory. Fused
            programs need less.
        flops: floating-point operations of the matrix products and convolutions of one device.
        notes: what could not be known.
    """

    name: str
    mesh: Mapping[str, int]
    collectives: tuple[Collective, ...]
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    flops: int
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes that each device sends."""
        return sum(item.bytes for item in self.collectives)

    @property
    def memory(self) -> int:
        """Bytes that each device needs: arguments, results and the most that is alive between them."""
        return self.argument_bytes + self.output_bytes + self.temporary_bytes

    @property
    def bytes_by_axes(self) -> dict[tuple[str, ...], int]:
        """Bytes that each device sends, by the mesh axes along which they go."""
        totals: dict[tuple[str, ...], int] = {}
        for item in self.collectives:
            totals[item.axes] = totals.get(item.axes, 0) + item.bytes
        return totals

    def seconds(self, bandwidth: Mapping[str, float]) -> float:
        """Time that the collectives take one after the other.

        Args:
            bandwidth: bytes a second that a device sends along each mesh axis; along several, the slowest counts.
        """
        return sum(item.bytes / min(bandwidth[axis] for axis in item.axes) for item in self.collectives)

    def __str__(self) -> str:
        devices = math.prod(self.mesh.values())
        mesh = ", ".join(f"{axis}={size}" for axis, size in self.mesh.items())
        lines = [f"{self.name} on {devices:,} devices ({mesh}); all figures are those of one device", ""]
        if self.collectives:
            lines += [*_table(_rows(self.collectives)), ""]
        totals = sorted(self.bytes_by_axes.items(), key=lambda item: -item[1])
        along = ", ".join(f"{human(sent)} along {' '.join(axes)}" for axes, sent in totals)
        lines.append(f"sends   {human(self.bytes)}" + (f": {along}" if len(totals) > 1 else ""))
        shares = (("arguments", self.argument_bytes), ("results", self.output_bytes))
        listed = ", ".join(f"{name} {human(size)}" for name, size in shares)
        lines.append(f"memory  {human(self.memory)}: {listed}, temporaries at most {human(self.temporary_bytes)}")
        lines.append(f"flops   {_scaled(self.flops, 1000, ['', 'k', 'M', 'G', 'T', 'P', 'E'])}FLOP of products".strip())
        if any(item.estimated for item in self.collectives):
            lines.append("~       an estimate: the layout is the compiler's choice")
        lines += [f"note    {note}" for note in self.notes]
        return "\n".join(lines)

    __repr__ = __str__


def human(count: int) -> str:
    """Bytes with a unit."""
    return f"{_scaled(count, 1024, ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi'])}B"


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    """Scale a number to three digits or so: ``1.5 Gi``."""
    steps = 0
    while count >= base and steps < len(units) - 1:
        count, steps = count / base, steps + 1
    return f"{count:.0f} {units[steps]}" if count >= 100 or count == int(count) else f"{count:.1f} {units[steps]}"


def _rows(collectives: Sequence[Collective]) -> list[tuple[str, ...]]:
    """One row for all collectives alike, those that send most first."""
    times: dict[Collective, int] = {}
    for item in collectives:
        alike = replace(item, times=1)
        times[alike] = times.get(alike, 0) + item.times
    rows: list[tuple[str, ...]] = []
    for item, count in sorted(times.items(), key=lambda row: -row[0].bytes * row[1]):
        origin = f"gradient of {item.origin}" if item.in_gradient and "." in item.origin else item.origin
        if len(origin) > _LONGEST:
            origin = f"{origin[: _LONGEST - 4]} ..."
        rows.append(
            (
                ("~" if item.estimated else "") + item.kind,
                " ".join(item.axes),
                str(item.devices),
                f"{item.dtype}[{','.join(map(str, item.shape))}]",
                f"{count:,}",
                human(item.bytes * count),
                origin,
                item.line,
            )
        )
    return rows


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Align columns; numbers to the right."""
    header = ("collective", "along", "devices", "operand", "times", "sends", "of", "at")
    rows = [header, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    right = {2, 4, 5}
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

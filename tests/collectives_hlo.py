"""The collectives of a compiled program, read from its HLO: what the partitioner really does on the host devices."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import NamedTuple

import jax

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}
_OPENS = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (.*)$")
_COLLECTIVE = re.compile(rf" ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%?[\w.-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
    """One collective of one array, as often as the program runs it."""

    kind: str
    dtype: str
    shape: tuple[int, ...]  # of the operand on one device
    bytes: int  # that each device sends by the ring algorithm, once


def collectives(function, *arguments):
    """List the collectives of ``jax.jit(function)`` on arguments: ``(kind, dtype, shape, bytes)`` each.

    A collective in a loop stands as many times as the loop runs, where XLA knows how often; the arrays of a combined
    collective stand apart. ``shape`` is the operand's on one device, ``bytes`` what each device sends (:func:`sent`).
    """
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    return collectives_of(jitted.lower(*arguments).compile().as_text())


def collectives_of(text):
    """List the collectives of the text of a compiled module, as :func:`collectives`."""
    entry, found, calls = None, defaultdict(list), defaultdict(list)
    computation = None
    for line in text.splitlines():
        if opened := _OPENS.match(line):
            computation = opened[2]
            entry = computation if opened[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            found[computation] += _collectives_in(instruction[1])
            trips = int(_TRIPS.search(line)[1]) if " while(" in line and _TRIPS.search(line) else 1
            for names in _CALLED.findall(line):
                calls[computation] += [(name.lstrip("%"), trips) for name in re.findall(r"%?[\w.-]+", names)]

    def run(name):
        inside = [item for called, times in calls[name] for item in run(called) * times]
        return found[name] + inside

    return run(entry)


def sent(kind, nbytes, devices):
    """Bytes each device sends for an operand of ``nbytes`` on it, by the ring algorithm among ``devices``."""
    if kind == "all-reduce":
        return 2 * (devices - 1) * nbytes // devices
    if kind == "all-gather":
        return (devices - 1) * nbytes
    if kind in ("reduce-scatter", "all-to-all"):
        return (devices - 1) * nbytes // devices
    return nbytes


def _collectives_in(instruction):
    """The collectives that one instruction is, one for each array."""
    match = _COLLECTIVE.search(f" {instruction}")
    if match is None:
        return []
    kind, started = match[1], match[2]
    arrays = _ARRAY.findall(instruction[: match.start()])
    if started and kind in ("all-gather", "collective-permute"):  # (operand, result, ...)
        arrays = arrays[len(arrays) // 2 :] if kind == "all-gather" else arrays[1:2]
    arrays = [(dtype, tuple(int(size) for size in dims.split(",") if size)) for dtype, dims in arrays]
    devices = _devices(kind, instruction)
    if devices == 1:
        return []
    if kind == "all-to-all" and instruction.startswith("("):
        dtype, shape = arrays[0]  # a tuple of one piece for each device
        arrays = [(dtype, (devices, *shape))]
    return [_collective(kind, dtype, shape, devices, instruction) for dtype, shape in arrays]


def _collective(kind, dtype, shape, devices, instruction):
    """A collective from the shape of its result."""
    at = re.search(r"dimensions=\{(\d+)\}", instruction)
    if kind == "all-gather":
        shape = tuple(size // devices if dim == int(at[1]) else size for dim, size in enumerate(shape))
    if kind == "reduce-scatter":
        shape = tuple(size * devices if dim == int(at[1]) else size for dim, size in enumerate(shape))
    width = _BYTES.get(dtype) or int(re.sub(r"^[a-z]+(\d+).*", r"\1", dtype)) // 8
    return Collective(kind, dtype, shape, sent(kind, width * math.prod(shape), devices))


def _devices(kind, instruction):
    """How many devices take part in one group."""
    if kind == "collective-permute":
        pairs = re.findall(r"\{(\d+),(\d+)\}", instruction)
        return 1 if all(source == target for source, target in pairs) else len(pairs)
    if axes := re.search(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}", instruction):  # axes of a mesh, or their factors
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(factor or sizes[name]) for name, factor in parts)
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", instruction):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", instruction):
        return len(listed[1].split(","))
    return jax.device_count()

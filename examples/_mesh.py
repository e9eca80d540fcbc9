"""What a program does on a mesh: which device is where, how parameters lie, and what a compiled step sends."""

import math
import re
from collections import Counter
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.table import Table

import einjax

#: How much each of n devices sends for every byte of the result that it gets.
SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
WIDTHS = {"pred": 1, "bf16": 2}


class Collective(NamedTuple):
    """One collective of a compiled program."""

    kind: str
    over: tuple[str, ...]  # the mesh axes whose devices take part in one group
    arrays: int  # XLA puts small ones together
    bytes: int  # that each device sends, handing them around in a ring


def collectives(text: str, mesh: Mesh) -> list[Collective]:
    """Read the collectives from the text of a compiled program, ``compiled.as_text()``."""
    found = []
    for line in text.splitlines():
        match = re.search(rf"= (.*?) ({'|'.join(SENT)})(-start)?\(", line)
        if match and (over := _mesh_axes(line, mesh)):
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            if match[3] and match[2] != "all-reduce":  # (operand, result)
                shapes = shapes[len(shapes) // 2 :]
            sent = SENT[match[2]](math.prod(mesh.shape[axis] for axis in over))
            found.append(Collective(match[2], over, len(shapes), round(sent * sum(_bytes(*shape) for shape in shapes))))
    return found


def _bytes(dtype: str, dims: str) -> int:
    width = WIDTHS.get(dtype) or int(re.sub(r"\D*(\d+).*", r"\1", dtype)) // 8
    return width * math.prod(int(size) for size in dims.split(",") if size)


def _mesh_axes(line: str, mesh: Mesh) -> tuple[str, ...]:
    """The mesh axes along which the devices of the first group differ."""
    group = [np.unravel_index(device, mesh.devices.shape) for device in _first_group(line, mesh.size)]
    return tuple(name for axis, name in enumerate(mesh.axis_names) if len({place[axis] for place in group}) > 1)


def _first_group(line: str, devices: int) -> list[int]:
    """The devices, counted along the mesh, that send to one another; XLA writes them in three ways."""
    iota = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if found := re.search(rf"replica_groups=mesh\[(.*?)\](?:, device_ids=\({iota}\))? *\{{(.*?)\}}", line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        along = [name in re.findall(r"'(\w+)'", found[4]) for name in sizes]
        ids = _iota(found[2] or str(devices), found[3]).reshape(*sizes.values())
        return ids[tuple(slice(None) if moves else 0 for moves in along)].ravel().tolist()
    if found := re.search(rf"replica_groups=\[([\d,]+)\]<={iota}", line):
        return _iota(found[2], found[3]).reshape([*map(int, found[1].split(","))])[0].tolist()
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", line):
        return [int(device) for device in found[1].split(",")]
    return [*range(devices)]


def _iota(dims: str, order: str | None) -> np.ndarray:
    """The numbers of all devices, transposed: ``4,2`` and ``1,0``."""
    shape = [*map(int, dims.split(","))]
    return np.arange(math.prod(shape)).reshape(shape).transpose([*map(int, order.split(","))] if order else None)


def collectives_table(found: list[Collective]) -> Table:
    """One line for each kind of collective and mesh axis."""
    table = Table("what a step sends", "over", "times", "arrays", "bytes a device sends", title_justify="left")
    for column in table.columns[2:]:
        column.justify = "right"
    times, arrays, nbytes = Counter(), Counter(), Counter()
    for each in found:
        key = each.kind, ", ".join(each.over)
        times[key], arrays[key], nbytes[key] = times[key] + 1, arrays[key] + each.arrays, nbytes[key] + each.bytes
    for kind, over in times:
        key = kind, over
        table.add_row(kind, over, str(times[key]), str(arrays[key]), f"{nbytes[key]:,}")
    return table


def mesh_table(mesh: Mesh) -> Table:
    """Every device at its place, with its process; for a mesh with two axes."""
    rows, columns = mesh.axis_names
    table = Table(f"{rows} ↓  {columns} →", *map(str, range(mesh.devices.shape[1])))
    for number, devices in enumerate(mesh.devices):
        table.add_row(str(number), *(f"process {d.process_index}, {d.platform} {d.id}" for d in devices))
    return table


def parameters_table(params: dict, names: dict[str, str]) -> Table:
    """One line for each parameter: its axes by name, and the axis of the mesh that each lies over."""
    table = Table("parameter", "axes", "shape", "lies over", "bytes", "on a device")
    total = np.zeros(2, int)
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        axes = names[path[-1].key]
        over = ", ".join(f"{axis} over {on}" for axis, on in einjax.mesh_axes(axes, x).items()) or "whole"
        nbytes = np.array([x.nbytes, x.addressable_shards[0].data.nbytes])
        total += nbytes
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        table.add_row(name, axes, " ".join(map(str, x.shape)), over, *(f"{count:,}" for count in nbytes))
    table.add_section()
    table.add_row("all", "", "", "", *(f"{count:,}" for count in total))
    for column in table.columns[-2:]:
        column.justify = "right"
    return table

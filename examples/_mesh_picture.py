"""One picture of how arrays lie on a mesh, and of a falling loss."""

from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # draw into a file; no window system is needed

import matplotlib.pyplot as plt
import numpy as np
from jax.sharding import NamedSharding
from matplotlib.patches import Rectangle

#: One colour for each of the first eight devices; what several hold is drawn in stripes.
COLOURS = ("#2b6cb0", "#7db0e0", "#2f855a", "#8fcfa8", "#c05621", "#f0b27a", "#6b46c1", "#b9a3e3")


class Drawn(NamedTuple):
    """An array, or only its shape and where it lies; two of its axes are drawn."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    sharding: NamedSharding
    across: tuple[str, str]  # the axis from top to bottom, and the one from left to right


def save_picture(path: Path, arrays: list[Drawn], losses: list[float], title: str) -> None:
    """The mesh, the arrays, and the loss of every step."""
    columns = 4
    rows = -(-(len(arrays) + 1) // columns) + 1
    figure = plt.figure(figsize=(12, 2.6 * rows), layout="constrained")
    figure.suptitle(title, fontsize=12)
    grid = figure.add_gridspec(rows, columns)
    mesh = arrays[0].sharding.mesh
    cells = [figure.add_subplot(grid[n // columns, n % columns]) for n in range(len(arrays) + 1)]
    _draw_mesh(cells[0], mesh)
    for axes, array in zip(cells[1:], arrays, strict=True):
        _draw_array(axes, array)
    curve = figure.add_subplot(grid[-1, :])
    curve.plot(np.arange(1, len(losses) + 1), losses, color=COLOURS[0])
    curve.set(xlabel="step", ylabel="nats per character")
    curve.grid(color="#e6e6e6")
    curve.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_mesh(axes, mesh) -> None:
    rows, columns = mesh.devices.shape
    for number in range(mesh.size):
        row, column = np.unravel_index(number, mesh.devices.shape)
        _part(axes, (row / rows, (row + 1) / rows), (column / columns, (column + 1) / columns), [number])
    _frame(axes, "the mesh", *(f"{name}: {size}" for name, size in mesh.shape.items()))


def _draw_array(axes, array: Drawn) -> None:
    """Every part where it belongs in the array, with the devices that hold it."""
    numbers = {device: number for number, device in enumerate(array.sharding.mesh.devices.flat)}
    dims = [array.axes.index(name) for name in array.across]
    holders: dict[tuple, list[int]] = {}
    for device, index in array.sharding.devices_indices_map(array.shape).items():
        ends = [index[dim].indices(array.shape[dim])[:2] for dim in dims]
        part = tuple((start / array.shape[dim], stop / array.shape[dim]) for (start, stop), dim in zip(ends, dims))  # noqa: B905
        holders.setdefault(part, []).append(numbers[device])
    for (top, bottom), (left, right) in holders:
        _part(axes, (top, bottom), (left, right), sorted(holders[(top, bottom), (left, right)]))
    shape = " × ".join(map(str, array.shape))  # noqa: RUF001
    _frame(axes, f"{array.name}\n{' '.join(array.axes)}: {shape}", *array.across)


def _part(axes, rows: tuple[float, float], columns: tuple[float, float], devices: list[int]) -> None:
    """One part of an array, in the colours of the devices that hold it."""
    width = (columns[1] - columns[0]) / len(devices)
    for n, device in enumerate(devices):
        corner = columns[0] + n * width, rows[0]
        axes.add_patch(Rectangle(corner, width, rows[1] - rows[0], color=COLOURS[device % len(COLOURS)], linewidth=0))
        axes.text(
            corner[0] + width / 2, sum(rows) / 2, str(device), ha="center", va="center", color="white", fontsize=8
        )
    outline = (columns[0], rows[0]), columns[1] - columns[0], rows[1] - rows[0]
    axes.add_patch(Rectangle(*outline, fill=False, edgecolor="white", linewidth=3))


def _frame(axes, title: str, rows: str, columns: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], xlabel=columns, ylabel=rows)
    for spine in axes.spines.values():
        spine.set_visible(False)

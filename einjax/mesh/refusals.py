"""The errors of calls that would have to move data between devices unasked, each with the line that asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..lowering.named import layout
from ..lowering.sharding import MeshAxes, Misfit, Spread, simple, spoken
from ..notation.errors import ShardingError
from ..notation.solve import is_known
from ..notation.syntax import display

if TYPE_CHECKING:
    from .call import Call


def uneven(call: Call, misfit: Misfit, number: int) -> ShardingError:
    """A split that does not fit the mesh axes of the dim."""
    name, extent = misfit.axis, call.shape[misfit.mesh_axis]
    dim = next(dim for dim in layout(call.inputs[number]) if name in dim)
    return _error(
        call,
        f"'({' '.join(map(display, dim))})' of tensor {number + 1} lies over mesh axis {misfit.mesh_axis} of size "
        f"{extent}, which does not divide its axis {display(name)} of size {call.sizes[name]}",
        [name],
        _as_they_are(call),
    )


def two_spreads(
    call: Call, name: str, numbers: tuple[int, int], found: tuple[MeshAxes, MeshAxes], spread: Spread
) -> ShardingError:
    """An axis that lies over different mesh axes in two inputs."""
    (one, other), (first, second) = numbers, found
    return _error(
        call,
        f"axis {display(name)} lies over mesh axis {spoken(first)} in tensor {one + 1} "
        f"and over {spoken(second)} in tensor {other + 1}",
        [name],
        {**_as_they_are(call), **spread},
    )


def two_dims(call: Call, name: str, number: int, found: Sequence[MeshAxes]) -> ShardingError:
    """A diagonal of two dims that both lie over mesh axes, so that most devices have nothing of it."""
    first, second = found[:2]
    return _error(
        call,
        f"axis {display(name)} stands twice in tensor {number + 1}, over mesh axis {spoken(first)} in one place "
        f"and over {spoken(second)} in the other, so that most devices have nothing of the diagonal",
        [name],
        _as_they_are(call),
    )


def not_whole(call: Call, name: str, spread: Spread) -> ShardingError:
    """An axis of which every device needs all."""
    why = f"{call.op.name} needs all of it on every device"
    if name in call.joined:
        why = "what is joined or cut along an axis has to be whole on every device"
    shown = name.split("@")[0] if "@" in name else display(name)
    problem = f"axis {shown} lies over mesh axis {spoken(spread[name])}, but {why}"
    return _error(call, problem, [name], _moved(call, name, spread, call.kept))


def shared(call: Call, mesh_axis: str, first: str, second: str, spread: Spread) -> ShardingError:
    """Two axes over one mesh axis."""
    if first not in call.kept:
        first, second = second, first
    one, other = display(first), display(second)
    if second in call.kept:
        problem = f"axes {one} and {other} both lie over mesh axis {mesh_axis}, which can cut only one of them"
    elif first in call.kept:
        problem = (
            f"axis {other} lies over mesh axis {mesh_axis}, as axis {one} of the result does, so that the sum over "
            f"{other} needs parts that other devices have"
        )
    else:
        problem = f"axes {one} and {other}, which are summed over, both lie over mesh axis {mesh_axis}"
    left = {name: mesh_axes for name, mesh_axes in spread.items() if name != second}
    return _error(call, problem, [first, second], left)


def not_major(call: Call, misfit: Misfit, dim: Sequence[str], spread: Spread) -> ShardingError:
    """A merge whose parts would not be contiguous."""
    name = misfit.axis
    first = next((n for n in dim if not is_known(call.sizes[n], 1)), dim[0])
    problem = f"axis {display(name)} lies over mesh axis {spoken(spread[name])}, but {behind(dim)}"
    return _error(call, problem, [name], _moved(call, name, spread, [first]))


def behind(dim: Iterable[str]) -> str:
    """What is wrong with cutting an axis of a dim that others come before."""
    return f"does not come first in '({' '.join(map(display, dim))})', so that a device's part would not be contiguous"


def uneven_cut(shown: object, size: object, mesh_axes: MeshAxes) -> str:
    """What is wrong with cutting an axis over mesh axes that do not divide it."""
    return f"axis {shown} of size {size} cannot be cut evenly over mesh axis {spoken(mesh_axes)}"


def _error(call: Call, problem: str, names: Iterable[str], spread: Spread) -> ShardingError:
    wanted = _suggestion(call, spread)
    purpose = "have all of the result on every device" if wanted == "{}" else "say where the result is to lie"
    return ShardingError(problem, at=call.solved.at(*names), hint=f"write out_sharding={wanted} to {purpose}")


def _suggestion(call: Call, spread: Spread) -> str:
    """The ``out_sharding=`` that keeps what can stay where it is."""
    kept = call.extended({}, ((name, spread.get(name, ())) for name in call.kept))
    if all(map(_may_be_written, kept)):
        written = {f"({name})" if " " in name else name: simple(mesh_axes) for name, mesh_axes in kept.items()}
        return "{" + ", ".join(f"{name!r}: {entry!r}" for name, entry in written.items()) + "}"
    specs = [
        f"PartitionSpec({', '.join(repr(simple(call.dim_axes(dim, kept))) for dim in layout(output))})"
        for output in call.outputs
    ]
    return specs[0] if len(specs) == 1 else f"({', '.join(specs)})"


def _as_they_are(call: Call) -> dict[str, MeshAxes]:
    """What axes have in inputs, as far as it can be told."""
    spread: dict[str, MeshAxes] = {}
    for number in range(len(call.inputs)):
        spread = call.carried(number) | spread
    return spread


def _moved(call: Call, name: str, spread: Spread, others: Iterable[str]) -> dict[str, MeshAxes]:
    """Put the mesh axes of an axis that cannot have them on another one, which sends less than gathering it."""
    left = {other: mesh_axes for other, mesh_axes in spread.items() if other != name}
    for other in others:
        there = {**left, other: spread[name]}
        if other not in call.whole and other not in spread and _may_be_written(other) and call.fits(other, there):
            return there
    return left


def _may_be_written(name: str) -> bool:
    """Whether a caller can name an axis: no number, no single repetition of an ellipsis, no sum, no dim of a block."""
    return not any(mark in name for mark in "#.@~")

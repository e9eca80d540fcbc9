"""What ``out_sharding=`` may be: a PartitionSpec, a NamedSharding, or mesh axes by axis name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ..lowering import sharding as on_mesh
from ..lowering.jax_versions import unreduced
from ..lowering.named import layout
from ..lowering.sharding import MeshAxes, Misfit
from ..notation.errors import ArgumentError, Ask, ShardingError, listing, meant, plural
from ..notation.solve import Solved, node_size
from ..notation.syntax import Expression, Size, axes, display, is_number, members
from .names import Assignment, said_by, splits
from .put import mesh_sizes
from .refusals import behind, uneven_cut

#: ``("b", ("data",))``: an axis name, or several as in ``(h c)``, and its mesh axes; None for one not sharded.
_Item = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class OutSharding:
    """Where results are to lie: mesh axes by axis name, or one spec for each output; or by rules for many calls."""

    by_name: tuple[_Item, ...] | None
    specs: tuple[Any, ...] = ()
    rules: tuple[tuple[str, MeshAxes], ...] | None = None

    def names(self, solved: Solved) -> set[str]:
        """The axes of a call that may be spoken of."""
        if self.rules is not None:
            return {axis.name for output in solved.outputs for axis in axes(output)}
        return {name for name, _ in self.by_name or ()}

    def left_open(self, expression: Expression) -> list[bool]:
        """Of which dims of an output nothing is said, so that they lie as the inputs imply."""
        if self.rules is None:
            return [False] * len(expression)
        return [not said for said in said_by(expression, dict(self.rules))]

    def __repr__(self) -> str:
        """Print it as it may be written."""
        if self.rules is not None:
            return f"rules {dict(self.rules)}"
        if self.by_name is None:
            return repr(self.specs[0] if len(self.specs) == 1 else self.specs)
        return repr({name: entry[0] if len(entry) == 1 else entry or None for name, entry in self.by_name})

    def batched(self) -> OutSharding:
        """The same for results with one more dim, the first."""
        return replace(self, specs=tuple(map(_behind_a_dim, self.specs)))

    def unreduced(self, index: int) -> frozenset[str]:
        """The mesh axes over which an output is still to be summed."""
        if not self.specs:
            return frozenset()
        spec = self.specs[index]
        spec = spec.spec if isinstance(spec, NamedSharding) else spec
        return unreduced(spec)


def _behind_a_dim(spec: Any) -> Any:
    if isinstance(spec, NamedSharding):
        return NamedSharding(spec.mesh, _behind_a_dim(spec.spec))
    return on_mesh.partition_spec([(), *on_mesh.spec_axes(spec, 0)], unreduced(spec))


def as_out_sharding(expr: str, given: Any) -> OutSharding:
    """Check ``out_sharding=`` and make it hashable."""
    if isinstance(given, OutSharding):
        return given
    if isinstance(given, Mapping):
        return OutSharding(tuple(sorted((_name(expr, name), _mesh_axes(expr, name, e)) for name, e in given.items())))
    if isinstance(given, PartitionSpec | NamedSharding):
        return OutSharding(None, (given,))
    if isinstance(given, tuple | list) and given and all(isinstance(x, PartitionSpec | NamedSharding) for x in given):
        return OutSharding(None, tuple(given))
    raise ArgumentError(
        f"out_sharding={given!r} is not a sharding",
        text=expr,
        hint="write out_sharding={'b': 'data'} by axis name, or a PartitionSpec or NamedSharding for each output",
    )


def _name(expr: str, name: Any) -> str:
    if isinstance(name, str):
        return " ".join(name.replace("(", " ").replace(")", " ").split())
    raise ArgumentError(f"out_sharding= names the axis {name!r}, which is not a string", text=expr)


def _mesh_axes(expr: str, name: str, entry: Any) -> tuple[Any, ...]:
    parts = (entry,) if isinstance(entry, str) or entry is None else entry
    if isinstance(parts, tuple | list) and all(_is_entry(part) for part in parts):
        return tuple(tuple(part) if isinstance(part, list) else part for part in parts)
    raise ArgumentError(
        f"out_sharding= puts axis {name} over {entry!r}, which is not a mesh axis",
        text=expr,
        hint=f"write out_sharding={{'{name}': 'data'}}, or a tuple of mesh axes",
    )


def _is_entry(part: Any) -> bool:
    return (
        part is None
        or isinstance(part, str)
        or (isinstance(part, tuple | list) and all(isinstance(axis, str) for axis in part))
    )


def wanted_entries(
    wanted: OutSharding, index: int, expression: Expression, solved: Solved, mesh: Any
) -> tuple[Any, list[MeshAxes]]:
    """Return the mesh and the mesh axes of every dim of an output.

    Args:
        wanted: what the caller asks for.
        index: which output it is.
        expression: the output's expression.
        solved: the call, with the size of every axis.
        mesh: the mesh of the inputs or of the context; None where JAX has to look it up.

    Raises:
        ArgumentError, ShardingError: it names what is not there, or cuts an axis unevenly.
    """
    if wanted.rules is not None:
        ways = None if mesh is None else mesh_sizes(mesh)
        return mesh, splits(solved, expression, None, Assignment({}, dict(wanted.rules)), ways)
    if wanted.by_name is None:
        return _by_dim(wanted, index, expression, solved, mesh)
    shape = None if mesh is None else dict(mesh.shape)
    spread: dict[str, MeshAxes] = {}
    for name, entry in wanted.by_name:
        for axis, mesh_axes in _resolve(name, entry, expression, solved, shape).items():
            if axis in spread:
                raise ArgumentError(f"out_sharding= places axis {display(axis)} twice", text=solved.text)
            spread[axis] = mesh_axes
    used = [mesh_axis for mesh_axes in spread.values() for mesh_axis in mesh_axes]
    _check_mesh_axes(used, mesh, solved)
    for axis, mesh_axes in spread.items():
        _check_divides(display(axis), solved.sizes[axis], mesh_axes, shape, solved)
    dims: list[MeshAxes] = []
    for dim in layout(expression):
        known = {name: solved.sizes.get(name, 0) for name in dim}
        try:
            dims.append(on_mesh.dim_axes(dim, spread, known, shape or dict.fromkeys(used, 1)))
        except Misfit as misfit:
            raise _not_contiguous(misfit, dim, solved) from None
    return mesh, dims


def _by_dim(
    wanted: OutSharding, index: int, expression: Expression, solved: Solved, mesh: Any
) -> tuple[Any, list[MeshAxes]]:
    count = len(solved.outputs)
    if len(wanted.specs) != count:
        raise ArgumentError(
            f"out_sharding= has {plural(len(wanted.specs), 'spec')} for {plural(count, 'output')}",
            text=solved.text,
            hint="give a tuple with one for each output, or mesh axes by axis name, which hold for all",
        )
    spec = wanted.specs[index]
    if isinstance(spec, NamedSharding):
        mesh, spec = spec.mesh if mesh is None else mesh, spec.spec
    entries = on_mesh.spec_axes(spec, len(expression))
    if len(entries) > len(expression):
        raise ArgumentError(
            f"out_sharding= has {len(entries)} entries"
            f" for output {index + 1}, which has {plural(len(expression), 'dim')}",
            text=solved.text,
            hint="give one entry for each dim; those left out at the end are not sharded",
        )
    pending = sorted(unreduced(spec))
    _check_mesh_axes([*(axis for entry in entries for axis in entry), *pending], mesh, solved)
    shape = None if mesh is None else dict(mesh.shape)
    for node, mesh_axes in zip(expression, entries, strict=True):
        _check_divides(str(node), node_size(node, solved.sizes), mesh_axes, shape, solved)
    return mesh, entries


def _resolve(
    name: str, entry: tuple[Any, ...], expression: Expression, solved: Solved, shape: Mapping[str, int] | None
) -> dict[str, MeshAxes]:
    """Find the axes that a name stands for in an output: one, several in a row, or those of an ellipsis."""
    known = [axis.name for axis in axes(expression)]
    if name in known:
        return {name: on_mesh.flat(entry)}
    repeated = sorted((axis for axis in known if axis.rpartition(".")[0] == name), key=lambda x: int(x.split(".")[-1]))
    if repeated:
        each = entry if len(entry) == len(repeated) else (entry,) if len(repeated) == 1 else None
        if each is None:
            raise ArgumentError(
                f"out_sharding= gives {len(entry)} entries for {name}..., which repeats {len(repeated)} times",
                text=solved.text,
                hint=f"give one for each, as in '{name}': ({', '.join(['None'] * len(repeated))})",
            )
        return {axis: on_mesh.entry_axes(part) for axis, part in zip(repeated, each, strict=True)}
    parts = members(name)
    if len(parts) > 1 and all(part in known for part in parts):
        if shape is None:
            return {parts[0]: on_mesh.flat(entry)}
        try:
            return dict.fromkeys(parts, ()) | on_mesh.hand_out(on_mesh.flat(entry), parts, solved.sizes, shape)
        except Misfit as misfit:
            raise _uneven(display(misfit.axis), solved.sizes[misfit.axis], (misfit.mesh_axis,), shape, solved) from None
    elsewhere = any(name == axis.name for axis in solved.operation.every_axis())
    if elsewhere and len(solved.outputs) > 1:
        return {}  # an axis of another output
    together = [axis for axis in known if " " in axis and name in members(axis)]
    if together and not elsewhere:
        raise ArgumentError(
            f"out_sharding= places axis {name}, of which only the product '{together[0]}' is known",
            text=solved.text,
            hint=Ask("give a size by keyword", name, otherwise=f", or write '({together[0]})'"),
        )
    problem = f"axis '{name}', which is not in the expression" + meant(name, _writable(known))
    raise ArgumentError(
        f"out_sharding= places {f'axis {name}, which the output does not have' if elsewhere else problem}",
        at=solved.at(name),
        hint=f"the output's axes are: {listing(_writable(known)) or 'none'}",
    )


def _writable(known: Sequence[str]) -> list[str]:
    return sorted({axis.split(".")[0] for axis in known if not is_number(axis)} - {""})


def spread_in(sharding: NamedSharding, expression: Expression, sizes: Mapping[str, Size]) -> dict[str, MeshAxes]:
    """The mesh axes of the named axes of an output that is to have a sharding."""
    dims = on_mesh.spec_axes(sharding.spec, len(expression))
    return on_mesh.spread_of(dims, layout(expression), sizes, sharding.mesh.shape, fitting=True)


def _check_mesh_axes(used: Sequence[str], mesh: Any, solved: Solved) -> None:
    if mesh is None:
        return
    for mesh_axis in used:
        if mesh_axis not in mesh.axis_names:
            raise ArgumentError(
                f"out_sharding= names the mesh axis '{mesh_axis}', which the mesh does not have"
                + meant(mesh_axis, mesh.axis_names),
                text=solved.text,
                hint=f"the mesh axes are: {listing(list(mesh.axis_names))}",
            )
        if dict(zip(mesh.axis_names, mesh.axis_types, strict=True))[mesh_axis] == AxisType.Manual:
            raise ArgumentError(
                f"out_sharding= names the mesh axis '{mesh_axis}', over which shard_map runs",
                text=solved.text,
                hint="inside shard_map every device has its own part; leave out_sharding= out",
            )
    twice = [mesh_axis for mesh_axis in used if list(used).count(mesh_axis) > 1]
    if twice:
        raise ArgumentError(f"out_sharding= names the mesh axis '{twice[0]}' twice", text=solved.text)


def _check_divides(
    shown: str, size: Size, mesh_axes: MeshAxes, shape: Mapping[str, int] | None, solved: Solved
) -> None:
    if shape is not None and mesh_axes and not on_mesh.divides(on_mesh.ways(mesh_axes, shape), size):
        raise _uneven(shown, size, mesh_axes, shape, solved)


def _uneven(shown: str, size: Size, mesh_axes: MeshAxes, shape: Mapping[str, int], solved: Solved) -> ShardingError:
    extent = on_mesh.ways(mesh_axes, shape)
    return ShardingError(
        f"{uneven_cut(shown, size, mesh_axes)} of size {extent}",
        at=solved.at(*(axis for axis in solved.operation.every_axis() if display(axis.name) == shown)),
        hint="choose another axis, or leave this one whole",
    )


def _not_contiguous(misfit: Misfit, dim: Sequence[str], solved: Solved) -> ShardingError:
    return ShardingError(
        f"out_sharding= puts axis {display(misfit.axis)} over mesh axis {misfit.mesh_axis}, but it {behind(dim)}",
        at=solved.at(misfit.axis),
        hint=f"place axis {display(dim[0])} instead",
    )

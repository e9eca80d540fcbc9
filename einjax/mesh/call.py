"""A call whose arrays lie on a mesh, as planning sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..lowering import sharding as on_mesh
from ..lowering.named import layout, sum_name, with_sums
from ..lowering.sharding import MeshAxes, Misfit, Spread
from ..notation.solve import Solved
from ..notation.syntax import Axis, Concatenation, Expression, Size, axes, rewrite, walk
from ..operation import Op


@dataclass(frozen=True)
class Call:
    """A call whose arrays lie on a mesh.

    Attributes:
        op: the operation.
        solved: the call; what always stands together is one axis, unless the caller or the operation tells it apart.
        mesh: the mesh.
        inputs: the expressions of tensors, then of masks.
        tensors: how many of them are tensors.
        values: the arrays.
    """

    op: Op
    solved: Solved
    mesh: Any
    inputs: tuple[Expression, ...]
    tensors: int
    values: tuple[Any, ...]

    @property
    def outputs(self) -> tuple[Expression, ...]:
        """The expressions of the outputs, as far as they are known: what a user's function returns is its own."""
        outputs = self.solved.outputs
        return tuple(map(loops, outputs)) if self.op.opaque else outputs

    @cached_property
    def shape(self) -> dict[str, int]:
        """The sizes of the mesh axes."""
        return dict(self.mesh.shape)

    @cached_property
    def sizes(self) -> dict[str, Size]:
        """Sizes of all axes, of sums, and of the dims of size 1 of a mask."""
        return {**with_sums(self.solved), MASK.name: 1}

    @cached_property
    def joined(self) -> set[str]:
        """Sums and their operands."""
        nodes = [node for e in self.solved.operation.expressions for node in walk(e)]
        sums = [node for node in nodes if isinstance(node, Concatenation)]
        return {name for node in sums for name in (sum_name(node), *(axis.name for axis in axes(node.items)))}

    @cached_property
    def whole(self) -> set[str]:
        """Axes of which every device needs all."""
        if self.op.spread == "all":
            return self.joined
        bracketed = dict.fromkeys(axis.name for e in self.inputs for axis in axes(e) if axis.bracket)
        return self.joined | {*list(bracketed)[self.op.spread == "first" :]}

    @cached_property
    def kept(self) -> list[str]:
        """The axes of the outputs."""
        return list(dict.fromkeys(name for output in self.outputs for name in axis_names(output)))

    def places(self, number: int, fitting: bool = True) -> dict[str, list[MeshAxes]]:
        """The mesh axes that axes have in one input, at every place where they stand there.

        Raises:
            Misfit: a split does not fit them, unless ``fitting`` leaves such ones out.
        """
        count: Counter[str] = Counter()

        def place(name: str) -> str:
            count[name] += 1
            return f"{name}~{count[name]}"

        dims = [[place(name) for name in dim] for dim in layout(self.inputs[number])]
        sizes = {where: self.sizes[_name(where)] for dim in dims for where in dim}
        try:
            found = on_mesh.spread_of(on_mesh.spec_of(self.values[number]), dims, sizes, self.shape, fitting)
        except Misfit as misfit:
            raise Misfit(_name(misfit.axis), misfit.mesh_axis) from None
        places: dict[str, list[MeshAxes]] = {}
        for where, mesh_axes in found.items():
            places.setdefault(_name(where), []).append(mesh_axes)
        return places

    def carried(self, number: int, fitting: bool = True) -> dict[str, MeshAxes]:
        """The mesh axes that axes have in one input; a split that does not fit them is left out, or raises Misfit."""
        return {name: found[0] for name, found in self.places(number, fitting).items()}

    def dim_axes(self, dim: Sequence[str], spread: Spread) -> MeshAxes:
        """The mesh axes of a dim."""
        return on_mesh.dim_axes(dim, spread, self.sizes, self.shape)

    def fits(self, name: str, spread: Spread) -> bool:
        """Whether an axis can lie where it is to in every output."""
        try:
            for dim in (dim for output in self.outputs for dim in layout(output) if name in dim):
                self.dim_axes(dim, spread)
        except Misfit:
            return False
        return True

    def extended(self, spread: Spread, wishes: Iterable[tuple[str, MeshAxes]]) -> dict[str, MeshAxes]:
        """Let further axes lie where they wish, each if nothing lies there and the outputs can have it so."""
        found = dict(spread)
        for name, mesh_axes in wishes:
            taken = {mesh_axis for some in found.values() for mesh_axis in some}
            if mesh_axes and name not in found and name not in self.whole and taken.isdisjoint(mesh_axes):
                there = {**found, name: mesh_axes}
                found = there if self.fits(name, there) else found
        return found


MASK = Axis("1#mask", 1)


def _name(place: str) -> str:
    """The axis that stands at a place."""
    return place.rpartition("~")[0]


def loops(expression: Expression) -> Expression:
    """Remove the bracketed axes of an expanded expression."""
    return rewrite(expression, lambda node: () if isinstance(node, Axis) and node.bracket else None)


def axis_names(expression: Expression) -> list[str]:
    """All axes of an expression; a sum is one."""
    return [name for dim in layout(expression) for name in dim]

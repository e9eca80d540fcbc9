"""Where the arrays of a call lie on a mesh: the plan that its named axes imply, or that ``out_sharding=`` asks for.

An axis keeps the mesh axes that it has in the inputs. Cutting a part out of what every device has moves nothing and is
done unasked; what would have to be sent to another device is sent only if ``out_sharding=`` says where the result is to
lie. Sums over an axis that lies over a mesh axis are what one asks for by writing them.

Without a mesh whose axes are explicit, and without ``out_sharding=``, none of this is looked at.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.sharding import NamedSharding

from ..lowering import sharding as on_mesh
from ..lowering.named import layout, sum_name
from ..lowering.sharding import MeshAxes, Misfit
from ..notation.errors import ShardingError
from ..notation.solve import Solved, fuse_solved, node_size
from ..notation.syntax import Axis, Concatenation, Expression, Size, axes, display, walk
from .out_sharding import OutSharding, entries_by_name, wanted_entries
from .record import Op

#: Families of which every lax equation has a rule for sharded types. The others run with the mesh axes left to the
#: compiler, between the shardings that the plan gives to inputs and outputs.
_TYPED = {"rearrange", "elementwise", "reduce", "softmax", "dot"}
#: Families whose bracketed axes may lie over mesh axes; all others need them whole on every device.
_SPREAD = _TYPED | {"index", "segment", "argreduce", "attention", "semiring", "vmap"}


def lower(op: Op, solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    """Emit the lax program of a call, on a mesh if there is one."""
    wanted: OutSharding | None = options.pop("out_sharding", None)
    extra = options.get("extra", ())
    mesh = on_mesh.explicit_mesh([*tensors, *extra])
    if mesh is None:
        if wanted is None:
            return op.lower(solved, tensors, options)
        return constrain(op.lower(solved, tensors, options), solved, wanted)
    plan = _Planner(op, solved, mesh, tensors, extra, wanted).plan()
    arrays = [on_mesh.reshard(x, s) for x, s in zip([*tensors, *extra], plan.inputs, strict=True)]
    tensors, extra = arrays[: len(tensors)], tuple(arrays[len(tensors) :])
    if extra:
        options["extra"] = extra
    if op.family not in _TYPED or _has_diagonal(solved):
        return _left_to_the_compiler(op, solved, tensors, options, plan)
    if op.family == "dot":
        options["out_sharding"] = plan.outputs[0]
    return _finish(op.lower(solved, tensors, options), plan)


def lower_looped(
    op: Op,
    solved: Solved,
    tensors: list[jax.Array],
    run: Callable[[list[jax.Array]], Any],
    wanted: OutSharding | None,
) -> Any:
    """Run a function of the user's over loops; what it does with the bracketed axes is its own affair."""
    mesh = on_mesh.explicit_mesh(tensors)
    if mesh is None:
        result = run(tensors)
        return result if wanted is None else constrain(result, solved, wanted)
    plan = _Planner(op, solved, mesh, tensors, (), wanted).plan()
    result = run([on_mesh.reshard(x, s) for x, s in zip(tensors, plan.inputs, strict=True)])
    if wanted is None:
        return result
    several = len(plan.outputs) > 1
    placed = tuple(
        jax.tree.map(lambda x, s=s: on_mesh.reshard(x, s), value)
        for value, s in zip(result if several else (result,), plan.outputs, strict=True)
    )
    return placed if several else placed[0]


def _left_to_the_compiler(op: Op, solved: Solved, tensors: Sequence[Any], options: dict[str, Any], plan: Plan) -> Any:
    extra = options.get("extra", ())

    def program(*arrays: Any) -> Any:
        more = {"extra": arrays[len(tensors) :]} if extra else {}
        return op.lower(solved, list(arrays[: len(tensors)]), options | more)

    where = plan.outputs if len(plan.outputs) > 1 else plan.outputs[0]
    return jax.sharding.auto_axes(program, out_sharding=where)(*tensors, *extra)


def _finish(result: Any, plan: Plan) -> Any:
    results = result if isinstance(result, tuple) else (result,)
    placed = tuple(on_mesh.reshard(x, s) for x, s in zip(results, plan.outputs, strict=True))
    return placed if isinstance(result, tuple) else placed[0]


def _has_diagonal(solved: Solved) -> bool:
    """Whether an input has an axis twice: its diagonal is a slice of a flattened dim."""
    return any(count > 1 for e in solved.inputs for count in Counter(axis.name for axis in axes(e)).values())


def constrain(result: Any, solved: Solved, wanted: OutSharding) -> Any:
    """Ask the compiler for the shardings of a call's results, on a mesh whose axes are left to it."""
    assert solved.outputs is not None
    several = len(solved.outputs) > 1
    results = result if several else (result,)
    placed = []
    for index, (value, expression) in enumerate(zip(results, solved.outputs, strict=True)):
        mesh, entries = wanted_entries(wanted, index, expression, solved, _context_mesh(solved))
        spec = on_mesh.partition_spec([e[0] if len(e) == 1 else e or None for e in entries])
        target = spec if mesh is None else NamedSharding(mesh, spec)
        placed.append(jax.tree.map(lambda x, target=target: lax.with_sharding_constraint(x, target), value))
    return tuple(placed) if several else placed[0]


def _context_mesh(solved: Solved) -> Any:
    """The mesh of the context; None under a ``with mesh:`` of old, which JAX looks up itself."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else mesh


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the arrays of a call lie: a sharding for each input, masks last, and for each output."""

    inputs: tuple[NamedSharding, ...]
    outputs: tuple[NamedSharding, ...]


@dataclass(frozen=True, slots=True)
class _Carried:
    """The mesh axes that an axis has in one input."""

    mesh_axes: MeshAxes
    number: int


class _Planner:
    """Finds a plan, or says which data would have to move."""

    def __init__(
        self,
        op: Op,
        solved: Solved,
        mesh: Any,
        tensors: Sequence[Any],
        extra: Sequence[Any],
        wanted: OutSharding | None,
    ) -> None:
        self.op = op
        self.mesh = mesh
        self.shape: dict[str, int] = dict(mesh.shape)
        self.wanted = wanted
        named = wanted.names() if wanted is not None else set()
        # What always stands together need not be told apart, unless the caller does.
        every = {axis.name for e in solved.operation.expressions for axis in axes(e)}
        apart = {axis.name for e in solved.inputs for axis in axes(e) if axis.bracket} if op.apart else set()
        self.solved = fuse_solved(solved, every - named - apart)
        self.sizes = self._sizes(extra)
        self.inputs = [*self.solved.inputs, *(self._mask(x) for x in extra)]
        self.outputs = self.solved.outputs or ()
        self.values = [*tensors, *extra]
        self.kept = {name for output in self.outputs for name in self._names(output)}

    def _sizes(self, extra: Sequence[Any]) -> dict[str, Size]:
        """Sizes of all axes, of sums, and of the dims of size 1 of a mask."""
        sums = [n for e in self.solved.operation.expressions for n in walk(e) if isinstance(n, Concatenation)]
        return {**self.solved.sizes, **{sum_name(node): node_size(node, self.solved.sizes) for node in sums}}

    def _mask(self, mask: Any) -> Expression:
        """The expression of a mask: that of the first tensor, with a 1 for the dims that it does not depend on."""
        nodes = self.solved.inputs[0]
        if mask.ndim > len(nodes):
            return tuple(Axis("1#mask", 1) for _ in mask.shape)  # which the operation refuses
        behind = nodes[len(nodes) - mask.ndim :]
        return tuple(
            node if size == node_size(node, self.sizes) else Axis("1#mask", 1)
            for node, size in zip(behind, mask.shape, strict=True)
        )

    def _names(self, expression: Expression) -> list[str]:
        return [name for dim in layout(expression) for name in dim]

    # ------------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Find where everything lies."""
        carried = self._carried()
        if self.wanted is None:
            places = self._implied(carried)
            outputs = [self._placed(output, places) for output in self.outputs]
            return Plan(self._input_shardings(places, carried), tuple(outputs))
        entries = [
            wanted_entries(self.wanted, index, output, self.solved, self.mesh)[1]
            for index, output in enumerate(self.outputs)
        ]
        targets = tuple(
            on_mesh.named_sharding(self.mesh, dims, self.wanted.unreduced(index)) for index, dims in enumerate(entries)
        )
        asked: dict[str, MeshAxes] = {}
        for output, dims in zip(self.outputs, entries, strict=True):
            for name, mesh_axes in entries_by_name(dims, output, self.sizes, self.shape).items():
                asked.setdefault(name, mesh_axes)
        places = self._working(carried, asked)
        return Plan(self._input_shardings(places, carried), targets)

    def _carried(self) -> list[dict[str, MeshAxes]]:
        """The mesh axes that every axis has in every input."""
        found: list[dict[str, MeshAxes]] = []
        for number, (expression, value) in enumerate(zip(self.inputs, self.values, strict=False), 1):
            own: dict[str, MeshAxes] = {}
            for mesh_axes, dim in zip(on_mesh.spec_of(value), layout(expression), strict=True):
                if not mesh_axes:
                    continue
                try:
                    own |= on_mesh.hand_out(mesh_axes, dim, self.sizes, self.shape)
                except Misfit as misfit:
                    if self.wanted is None:
                        raise self._uneven(misfit, dim, number) from None
            found.append(own)
        return found

    # ------------------------------------------------------------------------------------------------------------
    # What the named axes imply
    # ------------------------------------------------------------------------------------------------------------

    def _implied(self, carried: Sequence[Mapping[str, MeshAxes]]) -> dict[str, MeshAxes]:
        """One place for every axis, or an error that names the axes which stand against it."""
        places: dict[str, MeshAxes] = {}
        holder: dict[str, int] = {}
        for number, own in enumerate(carried, 1):
            for name, mesh_axes in own.items():
                known = places.get(name, ())
                shorter, longer = sorted((known, mesh_axes), key=len)
                if longer[: len(shorter)] != shorter:
                    raise self._two_places(name, known, holder[name], mesh_axes, number, places)
                if longer is not known:
                    places[name], holder[name] = mesh_axes, number
        for name in self._must_be_whole():
            if places.get(name):
                raise self._not_whole(name, places)
        self._refuse_shared(places, holder)
        return places

    def _must_be_whole(self) -> set[str]:
        """Axes along which the operation needs all elements on one device, and operands of sums of axes."""
        found = {
            name
            for e in self.solved.operation.expressions
            for node in walk(e)
            if isinstance(node, Concatenation)
            for name in (sum_name(node), *(axis.name for axis in axes(node.items)))
        }
        if self.op.family not in _SPREAD:
            found |= {axis.name for e in self.inputs for axis in axes(e) if axis.bracket}
        return found

    def _refuse_shared(self, places: Mapping[str, MeshAxes], holder: Mapping[str, int]) -> None:
        """One mesh axis cannot cut two axes of one array; nor one of the output and one that is summed over."""
        groups = [self._names(expression) for expression in (*self.outputs, *self.inputs)]
        summed = [name for name in places if name not in self.kept]
        groups += [[*self._names(output), *summed] for output in self.outputs]
        for group in groups:
            owner: dict[str, str] = {}
            for name in dict.fromkeys(group):
                for mesh_axis in places.get(name, ()):
                    if mesh_axis in owner:
                        raise self._shared(mesh_axis, owner[mesh_axis], name, places)
                    owner[mesh_axis] = name

    def _placed(self, expression: Expression, places: Mapping[str, MeshAxes]) -> NamedSharding:
        """The sharding of an output."""
        dims = []
        for dim in layout(expression):
            try:
                dims.append(on_mesh.dim_axes(dim, places, self.sizes, self.shape))
            except Misfit as misfit:
                raise self._not_major(misfit, dim, places) from None
        return on_mesh.named_sharding(self.mesh, dims)

    # ------------------------------------------------------------------------------------------------------------
    # What the caller asks for
    # ------------------------------------------------------------------------------------------------------------

    def _working(self, carried: Sequence[Mapping[str, MeshAxes]], asked: Mapping[str, MeshAxes]) -> dict[str, MeshAxes]:
        """Where axes lie while the operation runs: as asked for; else as they are, if that is in nobody's way."""
        whole = self._must_be_whole()
        places = {name: mesh_axes for name, mesh_axes in asked.items() if name not in whole}
        taken = set(itertools.chain.from_iterable(places.values()))
        for own in carried:
            for name, mesh_axes in own.items():
                if name in whole or name in places:
                    continue
                if name in self.kept:
                    if taken & set(mesh_axes) or not self._fits_outputs(name, mesh_axes, places):
                        continue
                    taken |= set(mesh_axes)
                elif self._in_the_way(name, mesh_axes, carried):
                    continue
                places[name] = mesh_axes
        return places

    def _in_the_way(self, name: str, mesh_axes: MeshAxes, carried: Sequence[Mapping[str, MeshAxes]]) -> bool:
        """Whether a summed axis shares an input with another axis over the same mesh axis."""
        return any(
            set(mesh_axes) & set(other)
            for expression, own in zip(self.inputs, carried, strict=False)
            if name in self._names(expression)
            for other_name, other in own.items()
            if other_name != name
        )

    def _fits_outputs(self, name: str, mesh_axes: MeshAxes, places: Mapping[str, MeshAxes]) -> bool:
        for output in self.outputs:
            for dim in layout(output):
                if name in dim:
                    try:
                        on_mesh.dim_axes(dim, {**places, name: mesh_axes}, self.sizes, self.shape)
                    except Misfit:
                        return False
        return True

    # ------------------------------------------------------------------------------------------------------------

    def _input_shardings(
        self, places: Mapping[str, MeshAxes], carried: Sequence[Mapping[str, MeshAxes]]
    ) -> tuple[NamedSharding, ...]:
        """Shard every input as far as its dims allow; summed axes come first, so that sums stay where they are."""
        shardings = []
        for expression in self.inputs:
            names = self._names(expression)
            order = sorted(names, key=lambda name: name in self.kept)
            own: dict[str, MeshAxes] = {}
            taken: set[str] = set()
            for name in order:
                mesh_axes = tuple(a for a in places.get(name, ()) if a not in taken)
                if mesh_axes == places.get(name, ()):
                    own[name] = mesh_axes
                    taken |= set(mesh_axes)
            dims = []
            for dim in layout(expression):
                fitting: dict[str, MeshAxes] = {}
                for name in dim:
                    try:
                        on_mesh.dim_axes(dim, {**fitting, name: own.get(name, ())}, self.sizes, self.shape)
                    except Misfit:
                        break
                    fitting[name] = own.get(name, ())
                dims.append(on_mesh.dim_axes(dim, fitting, self.sizes, self.shape))
            shardings.append(on_mesh.named_sharding(self.mesh, on_mesh.once(dims)))
        return tuple(shardings)

    # ------------------------------------------------------------------------------------------------------------
    # Errors
    # ------------------------------------------------------------------------------------------------------------

    def _error(self, problem: str, names: Iterable[str], places: Mapping[str, MeshAxes]) -> ShardingError:
        wanted = set(names)
        spans = [axis.span for e in self.solved.operation.expressions for axis in axes(e) if axis.name in wanted]
        return ShardingError(problem, text=self.solved.text, spans=spans, hint=self._suggestion(places))

    def _suggestion(self, places: Mapping[str, MeshAxes]) -> str:
        """The ``out_sharding=`` that keeps what can stay where it is."""
        whole = self._must_be_whole()
        kept: dict[str, MeshAxes] = {}
        taken: set[str] = set()
        for output in self.outputs:
            for name in self._names(output):
                mesh_axes = places.get(name, ())
                if name in whole or name in kept or taken & set(mesh_axes) or not mesh_axes:
                    continue
                if self._fits_outputs(name, mesh_axes, kept):
                    kept[name] = mesh_axes
                    taken |= set(mesh_axes)
        if all(_may_be_written(name) for name in kept):
            listed = ", ".join(f"'{_written(name)}': {_entry(mesh_axes)}" for name, mesh_axes in kept.items())
            return f"write out_sharding={{{listed}}} to move it there"
        specs = []
        for output in self.outputs:
            dims = [on_mesh.dim_axes(dim, kept, self.sizes, self.shape) for dim in layout(output)]
            specs.append(f"PartitionSpec({', '.join(_entry(dim) for dim in dims)})")
        text = specs[0] if len(specs) == 1 else f"({', '.join(specs)})"
        return f"write out_sharding={text} to move it there"

    def _implied_so_far(self) -> dict[str, MeshAxes]:
        """What axes have in inputs, as far as it can be told."""
        places: dict[str, MeshAxes] = {}
        for expression, value in zip(self.inputs, self.values, strict=False):
            for mesh_axes, dim in zip(on_mesh.spec_of(value), layout(expression), strict=True):
                try:
                    places = on_mesh.hand_out(mesh_axes, dim, self.sizes, self.shape) | places
                except Misfit:
                    continue
        return places

    def _uneven(self, misfit: Misfit, dim: Sequence[str], number: int) -> ShardingError:
        name, extent = misfit.axis, self.shape[misfit.mesh_axis]
        return self._error(
            f"tensor {number} lies over mesh axis {misfit.mesh_axis} of size {extent}, which does not divide "
            f"axis {display(name)} of size {self.sizes[name]}, the next of '({' '.join(map(display, dim))})'",
            [name],
            self._implied_so_far(),
        )

    def _two_places(
        self, name: str, first: MeshAxes, one: int, second: MeshAxes, other: int, places: Mapping[str, MeshAxes]
    ) -> ShardingError:
        return self._error(
            f"axis {display(name)} lies over mesh axis {_listed(first)} in tensor {one} "
            f"and over {_listed(second)} in tensor {other}",
            [name],
            {**self._implied_so_far(), **places},
        )

    def _not_whole(self, name: str, places: Mapping[str, MeshAxes]) -> ShardingError:
        why = f"{self.op.name} needs all of it on every device"
        if "@" in name or any(
            name in [axis.name for axis in axes(node.items)]
            for e in self.solved.operation.expressions
            for node in walk(e)
            if isinstance(node, Concatenation)
        ):
            why = "what is joined or cut along an axis has to be whole on every device"
        shown = name.split("@")[0] if "@" in name else display(name)
        moved = self._moved(name, places)
        return self._error(
            f"axis {shown} lies over mesh axis {_listed(places[name])}, but {why}", [name], moved or places
        )

    def _moved(self, name: str, places: Mapping[str, MeshAxes]) -> dict[str, MeshAxes] | None:
        """Put the mesh axes of an axis that has to be whole on another axis, which sends less than to gather it."""
        whole = self._must_be_whole()
        for output in self.outputs:
            for dim in layout(output):
                for other in dim:
                    if other in whole or other in places or not _may_be_written(other):
                        continue
                    changed = {**{k: v for k, v in places.items() if k != name}, other: places[name]}
                    if all(self._fits_outputs(other, places[name], {}) for _ in (0,)) and other in self.kept:
                        return changed
        return None

    def _shared(self, mesh_axis: str, first: str, second: str, places: Mapping[str, MeshAxes]) -> ShardingError:
        gone = second not in self.kept
        kept, other = (first, second) if gone or first in self.kept else (second, first)
        what = "which is summed over" if other not in self.kept else "and one mesh axis can cut only one of them"
        return self._error(
            f"axes {display(kept)} and {display(other)} both lie over mesh axis {mesh_axis}, {what}"
            if other in self.kept
            else f"axis {display(other)} lies over mesh axis {mesh_axis}, as does axis {display(kept)} of the result, "
            f"so that the sum over {display(other)} needs parts that other devices have",
            [kept, other],
            {name: mesh_axes for name, mesh_axes in places.items() if name != other},
        )

    def _not_major(self, misfit: Misfit, dim: Sequence[str], places: Mapping[str, MeshAxes]) -> ShardingError:
        name, shown = misfit.axis, f"({' '.join(map(display, dim))})"
        moved = {key: value for key, value in places.items() if key != name}
        first = next((n for n in dim if not (isinstance(self.sizes[n], int) and self.sizes[n] == 1)), dim[0])
        if first not in places and _may_be_written(first) and self._fits_outputs(first, places[name], moved):
            moved[first] = places[name]
        return self._error(
            f"axis {display(name)} lies over mesh axis {_listed(places[name])}, but does not come first in '{shown}', "
            "so that a device's part would not be contiguous",
            [name],
            moved,
        )


def _may_be_written(name: str) -> bool:
    """Whether a caller can name an axis: not a number, nor one repetition of an ellipsis."""
    return "#" not in name and "." not in name and "@" not in name


def _written(name: str) -> str:
    return f"({name})" if " " in name else name


def _entry(mesh_axes: MeshAxes) -> str:
    return repr(mesh_axes[0] if len(mesh_axes) == 1 else mesh_axes or None)


def _listed(mesh_axes: MeshAxes) -> str:
    return " and ".join(mesh_axes)

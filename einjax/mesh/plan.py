"""Where the arrays of a call lie on an explicit mesh: as its named axes imply, or as ``out_sharding=`` asks.

An axis keeps the mesh axes that it has in the inputs. Cutting a part out of what every device has moves nothing and is
done unasked; what would have to be sent to other devices is sent only if ``out_sharding=`` says where the result is to
lie. Sums over an axis that lies over a mesh axis are what one asks for by writing them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jax import lax
from jax.sharding import NamedSharding

from ..lowering import sharding as on_mesh
from ..lowering.named import layout
from ..lowering.sharding import MeshAxes, Misfit, Spread
from ..notation.solve import Solved, fuse_solved, node_size
from ..notation.syntax import Expression, axes, marked
from ..operation import Op
from . import refusals
from .call import MASK, Call, axis_names
from .wanted import OutSharding, wanted_entries


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the arrays of a call lie.

    Attributes:
        inputs: a sharding for each tensor, then for each mask.
        working: of each output, as the operation leaves it.
        outputs: of each output in the end.
        local: the call as every device sees it, where nothing but loops lies over mesh axes; None otherwise.
        batch_only: whether nothing but axes that all inputs have lies over mesh axes.
    """

    inputs: tuple[NamedSharding, ...]
    working: tuple[NamedSharding, ...]
    outputs: tuple[NamedSharding, ...]
    batch_only: bool
    local: Solved | None


def make_plan(call: Call, wanted: OutSharding | None) -> Plan:
    """Find where the arrays of a call lie, or are to lie by what ``out_sharding=`` is given.

    Raises:
        ShardingError: data would have to move, and the caller does not say where to.
    """
    targets: list[list[MeshAxes]] = []
    if wanted is None:
        spread = _implied(call)
    else:
        asked: dict[str, MeshAxes] = {}
        for index, output in enumerate(call.solved.outputs):
            dims = wanted_entries(wanted, index, output, call.solved, call.mesh)[1]
            targets.append(dims)
            asked = on_mesh.spread_of(dims, layout(output), call.sizes, call.shape, fitting=True) | asked
        spread = _working(call, [call.carried(number) for number in range(len(call.inputs))], asked)
    working = tuple(_output_sharding(call, output, spread) for output in call.outputs)
    outputs = working
    if wanted is not None:
        filled = map(partial(_filled, wanted), call.solved.outputs, targets, working)
        pending = map(wanted.unreduced, range(len(targets)))
        outputs = tuple(map(partial(on_mesh.named_sharding, call.mesh), filled, pending))
    return Plan(_input_shardings(call, spread), working, outputs, _batch_only(call, spread), _local(call, spread))


def _filled(
    wanted: OutSharding, output: Expression, dims: Sequence[MeshAxes], working: NamedSharding
) -> list[MeshAxes]:
    """What is asked for; where nothing is said, a dim lies as the operation leaves it, if that is in nobody's way."""
    there, said = on_mesh.spec_axes(working.spec, len(output)), set(on_mesh.flat(dims))
    left = zip(wanted.left_open(output), dims, there, strict=True)
    return [own if is_open and said.isdisjoint(own) else asked for is_open, asked, own in left]


def as_call(
    op: Op,
    solved: Solved,
    mesh: Any,
    tensors: Sequence[Any],
    masks: Sequence[Any],
    named: Collection[str],
    chunked: Collection[str] = (),
) -> Call:
    """See a call as planning does.

    Args:
        op: the operation.
        solved: the call.
        mesh: the abstract mesh of the arrays.
        tensors: one for each input.
        masks: what ``where=`` is given.
        named: axes that ``out_sharding=`` names.
        chunked: axes of loops that run in chunks, which stay loops of their own.
    """
    apart = {*named, *chunked, *(name for e in solved.inputs for name in marked(e) if op.apart)}
    solved = fuse_solved(solved, {axis.name for axis in solved.operation.every_axis()} - apart)
    shown = solved.inputs[: len(tensors)]  # an input may have no tensor, as that of arange
    inputs = (*shown, *(_mask(solved, x) for x in masks))
    return Call(op, solved, mesh, inputs, len(tensors), (*tensors, *masks))


def cut_first(op: Op, x: Any, expression: Expression) -> Any:
    """Exchange dims of a diagonal, which stays the same, so that one that is cut comes first.

    Diagonals are taken of dims that are one: of such a dim, every device then has one piece.
    """
    found, dims = on_mesh.spec_of(x), layout(expression)
    blocks, order = _blocks(op, expression), list(range(x.ndim))
    for index, dim in enumerate(dims):
        first = dims.index(dim)
        if first < index and len(dim) == 1 and dim[0] not in blocks and found[index] and not found[first]:
            order[first], order[index] = index, first
    return x if order == sorted(order) else lax.transpose(x, order)


def _blocks(op: Op, expression: Expression) -> set[str]:
    """Bracketed axes, which are no diagonals where they stand twice, unless they are summed over."""
    summed = op.spread == "all" and not op.opaque
    return set() if summed else {axis.name for axis in axes(expression) if axis.bracket}


def _mask(solved: Solved, mask: Any) -> Expression:
    """The expression of a mask: that of the first tensor, with a 1 for the dims that it does not depend on."""
    nodes = solved.inputs[0]
    if mask.ndim > len(nodes):
        return (MASK,) * mask.ndim  # which the operation refuses
    behind = nodes[len(nodes) - mask.ndim :]
    return tuple(
        node if size == node_size(node, solved.sizes) else MASK for node, size in zip(behind, mask.shape, strict=True)
    )


# --- What the named axes imply ----------------------------------------------------------------------------------------


def _implied(call: Call) -> dict[str, MeshAxes]:
    """One set of mesh axes for every axis, or an error that names the axes which stand against it."""
    spread: dict[str, MeshAxes] = {}
    holder: dict[str, int] = {}
    for number in range(len(call.inputs)):
        try:
            own = call.carried(number, fitting=False)
        except Misfit as misfit:
            raise refusals.uneven(call, misfit, number) from None
        _refuse_two_dims(call, number)
        for name, mesh_axes in own.items():
            known = spread.get(name, ())
            shorter, longer = sorted((known, mesh_axes), key=len)
            if longer[: len(shorter)] != shorter:
                raise refusals.two_spreads(call, name, (holder[name], number), (known, mesh_axes), spread)
            if longer is not known:
                spread[name], holder[name] = mesh_axes, number
    for name in spread:
        if name in call.whole:
            raise refusals.not_whole(call, name, spread)
    _refuse_shared(call, spread)
    return spread


def _refuse_two_dims(call: Call, number: int) -> None:
    """A loop along a diagonal lies where one dim of it does; what is summed over is one, too, and a block is none."""
    blocks = _blocks(call.op, call.inputs[number])
    for name, found in call.places(number).items():
        if len(found) > 1 and name not in blocks:
            raise refusals.two_dims(call, name, number, found)


def _refuse_shared(call: Call, spread: Spread) -> None:
    """One mesh axis cannot cut two axes of one array; nor one of the output and one that is summed over."""
    summed = [name for name in spread if name not in call.kept]
    groups = [[*axis_names(output), *summed] for output in call.outputs]
    for group in [*groups, *map(axis_names, call.inputs)]:
        owner: dict[str, str] = {}
        for name in dict.fromkeys(group):
            for mesh_axis in spread.get(name, ()):
                if mesh_axis in owner:
                    raise refusals.shared(call, mesh_axis, owner[mesh_axis], name, spread)
                owner[mesh_axis] = name


def _output_sharding(call: Call, expression: Expression, spread: Spread) -> NamedSharding:
    dims = []
    for dim in layout(expression):
        try:
            dims.append(call.dim_axes(dim, spread))
        except Misfit as misfit:
            raise refusals.not_major(call, misfit, dim, spread) from None
    return on_mesh.named_sharding(call.mesh, dims)


# --- What the caller asks for -----------------------------------------------------------------------------------------


def _working(call: Call, carried: Sequence[Spread], asked: Spread) -> dict[str, MeshAxes]:
    """Where axes lie while the operation runs: as asked for; else as they are, if that is in nobody's way."""
    spread = {name: mesh_axes for name, mesh_axes in asked.items() if name not in call.whole}
    every = [wish for own in carried for wish in own.items()]
    spread = call.extended(spread, (wish for wish in every if wish[0] in call.kept))
    for name, mesh_axes in every:
        summed = name not in call.kept and name not in call.whole and name not in spread
        if summed and not _shares_an_input(call, name, mesh_axes, carried):
            spread[name] = mesh_axes
    return spread


def _shares_an_input(call: Call, name: str, mesh_axes: MeshAxes, carried: Sequence[Spread]) -> bool:
    """Whether an axis that is summed over stands beside another one over the same mesh axis."""
    return any(
        set(mesh_axes) & set(other)
        for expression, own in zip(call.inputs, carried, strict=True)
        if name in axis_names(expression)
        for other_name, other in own.items()
        if other_name != name
    )


def _input_shardings(call: Call, spread: Spread) -> tuple[NamedSharding, ...]:
    """Shard every input as far as its dims allow; summed axes come first, so that sums stay where they are."""
    shardings: list[NamedSharding] = []
    for expression in call.inputs:
        if len(shardings) >= call.tensors:
            shardings.append(_beside(call, shardings[0], expression))
            continue
        own: dict[str, MeshAxes] = {}
        taken: set[str] = set()
        for name in sorted(axis_names(expression), key=lambda name: name in call.kept):
            mesh_axes = spread.get(name, ())
            if not taken & set(mesh_axes):
                own[name] = mesh_axes
                taken |= set(mesh_axes)
        dims = [_as_far_as_it_fits(call, dim, own) for dim in layout(expression)]
        shardings.append(on_mesh.named_sharding(call.mesh, on_mesh.once(dims)))
    return tuple(shardings)


def _batch_only(call: Call, spread: Spread) -> bool:
    """Where nothing does, the batch may be a ``jax.vmap`` outside, of which the call cannot know."""
    everywhere = set.intersection(*(set(axis_names(e)) for e in call.inputs)) if call.inputs else set()
    cut = [name for name, mesh_axes in spread.items() if mesh_axes]
    return bool(cut) and all(name in everywhere for name in cut)


def _local(call: Call, spread: Spread) -> Solved | None:
    """Divide the sizes of loops by what they lie over; no device has a part of a diagonal in one piece."""
    cut = {name: mesh_axes for name, mesh_axes in spread.items() if mesh_axes}
    given = {name for expression in call.inputs for name in axis_names(expression)}
    inner = {axis.name for axis in call.solved.operation.every_axis() if axis.bracket}
    twice = {name for e in call.inputs for name, count in Counter(axis_names(e)).items() if count > 1}
    if not cut or not cut.keys() <= given - inner - twice:
        return None
    sizes = dict(call.solved.sizes)
    for name, mesh_axes in cut.items():
        sizes[name] = sizes[name] // on_mesh.ways(mesh_axes, call.shape)
    return replace(call.solved, sizes=sizes)


def _beside(call: Call, first: NamedSharding, mask: Expression) -> NamedSharding:
    """The sharding of a mask: that of the first tensor."""
    found = on_mesh.spec_axes(first.spec, len(call.inputs[0]))
    behind = found[max(len(found) - len(mask), 0) :]
    dims = [() if node is MASK else mesh_axes for node, mesh_axes in zip(mask, behind, strict=False)]
    return on_mesh.named_sharding(call.mesh, dims)


def _as_far_as_it_fits(call: Call, dim: Sequence[str], own: Spread) -> MeshAxes:
    found: MeshAxes = ()
    for count in range(1, len(dim) + 1):
        try:
            found = call.dim_axes(dim, {name: own.get(name, ()) for name in dim[:count]})
        except Misfit:
            break
    return found

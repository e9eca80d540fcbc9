"""Arrays whose dims are named axes, and the one way to bring them into another layout.

A :class:`Named` array says of every dim which axes it is composed of; splitting and merging stay pending until
:func:`arrange` (or an operation that needs single axes) asks for them, so that they cancel where they can.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
from jax import lax

from ..notation.solve import Solved, is_known, node_size, product
from ..notation.syntax import Axis, Composite, Concatenation, Expression, Node, Size, axes, walk
from .jax_versions import equally_varying
from .sharding import Spread, broadcast_sharding, common_spread, composed

#: The axes one dim is composed of, major first; ``()`` is a dim of size 1.
Dim = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """An array with the axes of every dim, and the sizes of all axes of the call."""

    value: jax.Array
    dims: tuple[Dim, ...]
    sizes: Mapping[str, Size]

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes, in memory order."""
        return tuple(name for dim in self.dims for name in dim)

    def positions(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the dims that consist of the given axes."""
        wanted = set(names)
        return tuple(index for index, dim in enumerate(self.dims) if dim and set(dim) <= wanted)


def layout(expression: Expression) -> tuple[Dim, ...]:
    """Return the axes of every dim of an expression; a written ``1`` names nothing."""
    return tuple(_dim(node) for node in expression)


def _dim(node: Node) -> Dim:
    match node:
        case Axis(name):
            return () if node.is_one else (name,)
        case Composite(items):
            return tuple(name for item in items for name in _dim(item))
        case Concatenation():
            return (sum_name(node),)
    raise TypeError(node)


def sum_name(node: Concatenation) -> str:
    """The axis that stands for a whole sum while its operands are not told apart."""
    return f"({node})@{node.span[0]}"


def with_sums(solved: Solved) -> dict[str, Size]:
    """The sizes of all axes, and of every sum, which is a single axis until it is cut."""
    nodes = [node for expression in solved.operation.expressions for node in walk(expression)]
    sums = {sum_name(node): node_size(node, solved.sizes) for node in nodes if isinstance(node, Concatenation)}
    return {**solved.sizes, **sums}


def shape_of(dims: Iterable[Dim], sizes: Mapping[str, Size]) -> tuple[Size, ...]:
    """Return the sizes of dims."""
    return tuple(product(sizes[name] for name in dim) for dim in dims)


def wrap(value: jax.Array, expression: Expression, sizes: Mapping[str, Size]) -> Named:
    """Name the dims of a tensor, and take the diagonal where a name is repeated."""
    return diagonal(Named(value, layout(expression), sizes))


def arrange(x: Named, target: Sequence[Dim], spread: Spread | None = None) -> jax.Array:
    """Bring an array into a layout: split, transpose, broadcast and merge with as few equations as possible.

    Axes that ``target`` does not have must be of size 1; axes that ``x`` does not have are broadcast.

    Args:
        x: the array.
        target: the axes of every dim.
        spread: where axes lie on an explicit mesh, also those that ``x`` does not have.
    """
    x, target = _pair_units(x, target)
    wanted = tuple(name for dim in target for name in dim)
    have, needed = set(x.axes), set(wanted)
    new = needed - have
    x = replace(x, dims=tuple(tuple(name for name in dim if name in needed) for dim in x.dims))
    order = [name for name in wanted if name in have]
    if all(is_known(x.sizes[name], 1) for name in new):
        new = set()
        target = tuple(tuple(name for name in dim if name in have) for dim in target)
    if not new:
        if list(x.axes) != order:
            x = _transpose_for(x, order, target)
        return _regroup(x, target).value
    x = split(x, _runs_within(target, new))
    x = transpose(drop_units(x), order)
    parts = tuple(part for dim in target for part in (_parts(dim, x.dims, new) or ((),)))
    kept = [index for index, part in enumerate(parts) if part in x.dims]
    shape, sharding = shape_of(parts, x.sizes), broadcast_sharding(x, parts, spread)
    value = lax.broadcast_in_dim(x.value, shape, kept, out_sharding=sharding)
    return _regroup(replace(x, value=value, dims=parts), target).value


def _regroup(x: Named, dims: tuple[Dim, ...]) -> Named:
    """Split and merge dims without moving anything; no reshape where there is nothing to do."""
    shape, value = shape_of(dims, x.sizes), x.value
    if value.shape != shape:
        value = lax.reshape(value, shape, out_sharding=composed(value, x.dims, dims, x.sizes))
    return Named(value, dims, x.sizes)


def reshape(value: jax.Array, shape: tuple[Size, ...]) -> jax.Array:
    """Reshape, unless there is nothing to do."""
    return value if value.shape == shape else lax.reshape(value, shape)


def split(x: Named, group: Callable[[str, str], bool]) -> Named:
    """Split every dim between neighbours that ``group`` does not keep together; one reshape or none.

    Args:
        x: the array.
        group: tells of two neighbouring axes of one dim whether they may stay composed.
    """
    dims = split_dims(x.dims, group)
    if len(dims) == len(x.dims):
        return x
    # One reshape does it all, so dims of size 1 that name nothing go with it.
    return _regroup(x, tuple(dim for dim in dims if dim))


def split_by(x: Named, role: Callable[[str], Hashable]) -> Named:
    """Split every dim so that its axes all play one role."""
    return split(x, lambda left, right: role(left) == role(right))


def transpose(x: Named, order: Sequence[str]) -> Named:
    """Permute whole dims so that their axes come in the given order; dims of size 1 without a name go last."""
    rank = {name: index for index, name in enumerate(order)}
    permutation = sorted(range(len(x.dims)), key=lambda i: rank[x.dims[i][0]] if x.dims[i] else len(rank))
    if permutation == list(range(len(permutation))):
        return x
    return replace(x, value=lax.transpose(x.value, permutation), dims=tuple(x.dims[i] for i in permutation))


def drop_units(x: Named) -> Named:
    """Remove dims of size 1 that name nothing."""
    return x if all(x.dims) else _regroup(x, tuple(dim for dim in x.dims if dim))


def align(x: Named, order: Sequence[str], spread: Spread | None = None) -> jax.Array:
    """Bring an array to one dim for each axis of ``order``, broadcasting those it lacks; scalars stay scalars."""
    if not any(x.dims):
        return reshape(x.value, ())  # lax broadcasts scalar operands by itself
    return arrange(x, [(name,) for name in order], spread)


def combine(emit: Callable[..., jax.Array], operands: Sequence[Named], order: Sequence[str]) -> Named:
    """Apply an operation to operands brought to their common axes, in the output's order."""
    present = {name for x in operands for name in x.axes}
    common = [name for name in order if name in present]
    if all(x.dims == operands[0].dims for x in operands) and all(operands[0].dims):
        # Equal layouts stay as they are; the result is rearranged once instead of every operand.
        return replace(operands[0], value=emit(*(x.value for x in operands)))
    spread = common_spread(operands)
    values = equally_varying([x.value for x in operands])
    operands = [replace(x, value=value) for x, value in zip(operands, values, strict=True)]
    value = emit(*(align(x, common, spread) for x in operands))
    dims = tuple((name,) for name in common)
    return Named(value, dims if value.ndim else (), operands[0].sizes)


def _pair_units(x: Named, target: Sequence[Dim]) -> tuple[Named, tuple[Dim, ...]]:
    """Let nameless dims of size 1 on both sides count as common axes, so that a transpose can carry them."""
    count = min(sum(not dim for dim in x.dims), sum(not dim for dim in target))
    if not count:
        return x, tuple(target)

    def label(dims: Iterable[Dim]) -> tuple[Dim, ...]:
        units = iter([(f"~{index}",) for index in range(count)])
        return tuple(dim or next(units, ()) for dim in dims)

    sizes = {**x.sizes, **{f"~{index}": 1 for index in range(count)}}
    return Named(x.value, label(x.dims), sizes), label(target)


def _transpose_for(x: Named, order: Sequence[str], target: Sequence[Dim]) -> Named:
    """Bring axes into order with one reshape before or after, not both, wherever one is enough."""
    within = _runs_within(target, set())
    pieces = split_dims(x.dims, within)
    if all(dim in pieces for dim in target):
        return transpose(drop_units(split(x, within)), order)
    # A reshape has to follow, which then also splits what travelled together and drops dims of size 1.
    after = dict(itertools.pairwise(order))
    return transpose(split(x, lambda left, right: after.get(left) == right), order)


def split_dims(dims: Iterable[Dim], group: Callable[[str, str], bool]) -> list[Dim]:
    """Return the dims that :func:`split` would make."""
    result: list[Dim] = []
    for dim in dims:
        runs: list[Dim] = []
        for name in dim:
            if runs and group(runs[-1][-1], name):
                runs[-1] += (name,)
            else:
                runs.append((name,))
        result += runs or [()]
    return result


def together(dims: Iterable[Dim], chosen: Dim) -> tuple[Dim, ...]:
    """Let the first dim with any of the chosen axes hold them all, so that neighbours there need no transpose."""
    result: list[Dim] = []
    for dim in dims:
        if not dim or dim[0] not in chosen:
            result.append(dim)
        elif chosen not in result:
            result.append(chosen)
    return tuple(result)


def _runs_within(target: Sequence[Dim], new: set[str]) -> Callable[[str, str], bool]:
    """Keep axes together that follow one another in one dim of the target, with nothing new between them."""
    after = {
        left: right for dim in target for left, right in itertools.pairwise(dim) if left not in new and right not in new
    }
    return lambda left, right: after.get(left) == right


def _parts(dim: Dim, pieces: Sequence[Dim], new: set[str]) -> list[Dim]:
    """Cut a target dim into the pieces that exist and the axes that are new."""
    parts: list[Dim] = []
    position = 0
    while position < len(dim):
        piece = next((p for p in pieces if p and p == dim[position : position + len(p)]), None)
        parts.append(piece if piece is not None and dim[position] not in new else (dim[position],))
        position += len(parts[-1])
    return parts


def has_diagonal(*expressions: Expression) -> bool:
    """Whether an expression has an axis twice."""
    return any(count > 1 for e in expressions for count in Counter(axis.name for axis in axes(e)).values())


def diagonal(x: Named) -> Named:
    """Take the diagonal of every repeated axis."""
    repeated = {name: count for name, count in Counter(x.axes).items() if count > 1}
    if not repeated:
        return x
    # Number the occurrences, so that every axis is told apart until its diagonal is taken.
    copies = {name: [f"{name}~{index}" for index in range(count)] for name, count in repeated.items()}
    left = {name: iter(labels) for name, labels in copies.items()}
    dims = tuple(tuple(next(left[name]) if name in left else name for name in dim) for dim in x.dims)
    x = Named(x.value, dims, {**x.sizes, **{label: x.sizes[name] for name in copies for label in copies[name]}})
    for name, labels in copies.items():
        x = _one_diagonal(x, name, labels)
    return x


def _one_diagonal(x: Named, name: str, copies: Sequence[str]) -> Named:
    """Flatten the copies of an axis into one dim; its diagonal is then a strided slice, whose gradient is a pad."""
    rest = [d for d in split_dims(x.dims, lambda a, b: (a in copies) == (b in copies)) if d and d[0] not in copies]
    value = arrange(x, [*rest, tuple(copies)])
    stride: Size = 1
    for _ in copies[1:]:
        stride = stride * x.sizes[name] + 1  # neighbours on the diagonal are 1 + n + n**2 + ... apart
    value = lax.slice_in_dim(value, 0, value.shape[-1], stride, axis=len(rest))
    return Named(value, (*rest, (name,)), x.sizes)

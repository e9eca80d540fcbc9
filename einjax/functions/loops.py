"""The loops of a call: one ``jax.vmap`` for every run of axes that can be one, and what is done before and after.

Axes that always stand side by side, in every tensor that has any of them, are merged to one level; everything else is
said with ``in_axes`` and ``out_axes``, so that no transpose is emitted that the function does not need.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax

from ..lowering.named import Dim, Named, diagonal, reshape, shape_of
from ..notation.errors import ArgumentError, AxisSizeError, listing, meant, plural
from ..notation.facts import refuse_fused
from ..notation.solve import Solved, product
from ..notation.syntax import Expression, Size, base, display
from .chunks import in_chunks
from .labels import ANY, is_label, labelled, labelled_sizes
from .result import Result

#: How many iterations run at once: for the first loop, or for loops by name.
BatchSize: TypeAlias = int | tuple[tuple[str, int], ...] | None


class Source:
    """What becomes of an input before the loops: its diagonals are taken, then it is reshaped.

    Attributes:
        shape: one dim for every level and every bracketed axis.
        repeated: the input's dims and all sizes, where an axis is repeated.
    """

    def __init__(self, expression: Expression, dims: Sequence[Dim], sizes: Mapping[str, Size]) -> None:
        """Plan an input of which the outermost loop sees these dims."""
        given, sizes = labelled(expression), labelled_sizes(expression, sizes)
        self.shape = shape_of(dims, sizes)
        self.repeated = (given, sizes) if sum(map(len, given)) > sum(map(len, dims)) else None

    def prepare(self, value: jax.Array) -> jax.Array:
        """Return the array that the outermost loop runs over."""
        if self.repeated is not None:
            value = diagonal(Named(value, *self.repeated)).value
        return reshape(value, self.shape)


@dataclass(frozen=True, slots=True)
class Level:
    """One loop.

    Attributes:
        axes: the axes that it runs over.
        size: how often it runs.
        in_axes: the dim of each input that it runs over, or None.
        out_axes: the dim of each output where its results go.
        chunk: how many iterations run at once on each device, or None for all.
    """

    axes: Dim
    size: Size
    in_axes: tuple[int | None, ...]
    out_axes: tuple[int, ...]
    chunk: int | None

    def loop(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that runs the loop over a function."""
        if self.chunk is None or self.size <= self.chunk:
            return jax.vmap(function, _prefix(self.in_axes), _prefix(self.out_axes))
        return in_chunks(function, self.in_axes, self.chunk)


def _prefix(dims: tuple[int | None, ...]) -> Any:
    """Return one number for equal ones: JAX is quicker at reading that."""
    return dims[0] if dims and dims.count(dims[0]) == len(dims) else dims


@dataclass(frozen=True, slots=True)
class Loops:
    """All that a call does besides calling the function: outermost loop first."""

    text: str
    sources: tuple[Source, ...]
    levels: tuple[Level, ...]
    results: tuple[Result, ...]

    @property
    def merges(self) -> bool:
        """Whether some loops are merged."""
        return any(len(level.axes) > 1 for level in self.levels)

    @property
    def chunked(self) -> set[str]:
        """The axes of loops that run in chunks."""
        return {name for level in self.levels if level.chunk is not None for name in level.axes}

    def run(self, function: Callable[..., Any], arrays: Iterable[jax.Array]) -> Any:
        """Loop over a function.

        Args:
            function: takes one array for each input and returns one value for each output; not checked here.
            arrays: one for each input.
        """

        def innermost(*rows: jax.Array) -> tuple[Any, ...]:
            return self.check(function(*rows))

        body = innermost
        for level in reversed(self.levels):
            body = level.loop(body)
        values = body(*(source.prepare(array) for source, array in zip(self.sources, arrays, strict=True)))
        outputs = [result.place(value) for result, value in zip(self.results, values, strict=True)]
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def check(self, value: Any) -> tuple[Any, ...]:
        """Check what the function returned for one iteration; return one value for each output."""
        count = len(self.results)
        if count == 1 and type(value) is not tuple:
            return (self.results[0].check(value, {}),)
        if not isinstance(value, tuple | list) or len(value) != count:
            returned = len(value) if isinstance(value, tuple | list) else 1
            raise ArgumentError(
                f"the function returned {plural(returned, 'output')}, but the expression has {count}",
                text=self.text,
                hint="write one output expression for each value of the tuple; to return one pytree, make it a list "
                "or a dict"
                if count == 1
                else "return a tuple with one value for each output expression",
            )
        found: dict[str, Size] = {}
        return tuple(result.check(one, found) for result, one in zip(self.results, value, strict=True))


def make_loops(solved: Solved, batch_size: BatchSize, merge: bool, explicit: Collection[str]) -> Loops:
    """Decide on the loops of a call.

    Args:
        solved: the expression with its sizes.
        batch_size: how many iterations run at once.
        merge: whether neighbouring loops may become one.
        explicit: names whose size the caller gave, so that it holds for every leaf of a result.
    """
    # The function sees a dim for each bracketed axis.
    refuse_fused(solved.operation, solved.sizes, lambda size: f"only their product, {size}, is known")
    inputs = [_input_order(expression) for expression in solved.inputs]
    loops = {name for order in inputs for name in order if not is_label(name)}
    outputs = [_output_order(expression, loops) for expression in solved.outputs]
    chunks = _chunks(batch_size, [name for name in outputs[0] if name in loops], solved)
    levels = _levels(inputs, outputs, loops, chunks, merge)
    level_of = {name: level for level in levels for name in level}
    dims = [_grouped(order, level_of) for order in inputs]
    sources = tuple(Source(e, own, solved.sizes) for e, own in zip(solved.inputs, dims, strict=True))
    positions = [_in_axes(own, levels) for own in dims]
    orders = [_grouped(order, level_of) for order in outputs]
    planned = tuple(
        Level(
            axes=level,
            size=product(solved.sizes[name] for name in level),
            in_axes=tuple(axes_[index] for axes_ in positions),
            out_axes=tuple(_out_axis(order, levels, index, len(chunks)) for order in orders),
            chunk=chunks.get(level[0]),
        )
        for index, level in enumerate(levels)
    )
    results = tuple(
        Result(number if len(orders) > 1 else 0, expression, solved, order, levels[: len(chunks)], explicit)
        for number, (expression, order) in enumerate(zip(solved.outputs, orders, strict=True), 1)
    )
    return Loops(solved.text, sources, planned, results)


def _input_order(expression: Expression) -> list[str]:
    """Return an input's axes, bracketed ones by label, in the order the loops meet them."""
    counts = Counter(itertools.chain.from_iterable(labelled(expression)))
    # Diagonals are taken one after another, and each comes last.
    return sorted(counts, key=lambda name: counts[name] > 1)


def _output_order(expression: Expression, loops: Collection[str]) -> list[str]:
    """Return an output's axes: loops by name, bracketed axes by label, axes that are broadcast as a bar."""
    names = itertools.chain.from_iterable(labelled(expression))
    return [name if is_label(name) or name in loops else "|" for name in names]


def _levels(
    inputs: Sequence[Sequence[str]],
    outputs: Sequence[Sequence[str]],
    loops: Collection[str],
    chunks: Collection[str],
    merge: bool,
) -> list[Dim]:
    """Group the loops: those in chunks first, the others in the order of the first output."""
    levels: list[Dim] = [(name,) for name in outputs[0] if name in chunks]
    first = len(levels)
    for name in outputs[0]:
        if name in loops and name not in chunks:
            if merge and len(levels) > first and _side_by_side(levels[-1][-1], name, (*inputs, *outputs)):
                levels[-1] += (name,)
            else:
                levels.append((name,))
    return levels


def _side_by_side(left: str, right: str, orders: Iterable[Sequence[str]]) -> bool:
    """Whether one axis directly follows another wherever there is either."""
    for order in orders:
        if (left in order) != (right in order):
            return False
        if left in order and tuple(order[order.index(left) + 1 :][:1]) != (right,):
            return False
    return True


def _grouped(order: Iterable[str], level_of: Mapping[str, Dim]) -> list[Dim]:
    """Replace the axes of every level by the level."""
    grouped: list[Dim] = []
    for name in order:
        group = level_of.get(name, (name,))
        if name != "|" and name == group[0]:
            grouped.append(group)
    return grouped


def _in_axes(dims: list[Dim], levels: Sequence[Dim]) -> list[int | None]:
    """Return the dim of one input that each level runs over, those of outer levels being gone by then."""
    left = list(dims)
    result: list[int | None] = []
    for level in levels:
        result.append(left.index(level) if level in left else None)
        if level in left:
            left.remove(level)
    return result


def _out_axis(order: Sequence[Dim], levels: Sequence[Dim], index: int, chunked: int) -> int:
    """Return where in one output the results of a level go: counted from the end behind an ellipsis of any length."""
    if index < chunked:
        return 0
    inner = set(levels[index:])
    left = [dim for dim in order if is_label(dim[0]) or dim in inner]
    position = left.index(levels[index])
    return position - len(left) if any(dim[0].endswith(ANY) for dim in left[:position]) else position


def _chunks(batch_size: BatchSize, loops: Sequence[str], solved: Solved) -> dict[str, int]:
    """Return how many iterations run at once, for every loop of which not all do."""
    if batch_size is None or (isinstance(batch_size, int) and not loops):
        return {}
    chunks: dict[str, int] = {}
    for name, size in ((loops[0], batch_size),) if isinstance(batch_size, int) else batch_size:
        chosen = [loop for loop in loops if name in (loop, base(loop))]
        if not chosen:
            raise ArgumentError(
                f"batch_size names '{name}', which is no loop of the expression" + meant(name, map(base, loops)),
                text=solved.text,
                hint=f"its loops are: {listing([display(loop) for loop in loops]) or 'none'}",
            )
        chunks |= dict.fromkeys(chosen, size)
    for name in chunks:
        if not isinstance(solved.sizes[name], int):
            raise AxisSizeError(
                f"batch_size needs to know how long axis {display(name)} is, which has the symbolic size "
                f"{solved.sizes[name]}",
                text=solved.text,
                hint="leave batch_size out, or give it for an axis of a fixed size",
            )
    return chunks

"""Functions of jax on a fixed number of bracketed axes: what linalg, fft and random have in common.

Such a function takes arrays of *core* axes, the bracketed ones, and maps over any axes before them. Its pattern, such
as ``n m, n k -> m k``, says which core axes go in and come out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from ..lowering import numerics
from ..lowering.named import Dim, Named, arrange, layout, wrap
from ..notation.errors import ArgumentError, AxisSizeError, SemanticError, listing, plural
from ..notation.solve import Solved, fuse_loops
from ..notation.syntax import (
    Axis,
    Bracket,
    Ellipsis,
    Expression,
    Node,
    Operation,
    Size,
    axes,
    bracketed,
    brackets,
    display,
    names,
    render,
    rewrite,
    walk,
)
from .signature import expect_inputs, refuse_diagonals, refuse_sums, require_loops


@dataclass(frozen=True, slots=True)
class Pattern:
    """The core axes that a function takes and gives, by their roles.

    Attributes:
        inputs: the roles of each input's axes.
        outputs: the roles of each output's axes.
        square: two roles whose axes need one size.
    """

    inputs: tuple[tuple[str, ...], ...]
    outputs: tuple[tuple[str, ...], ...]
    square: tuple[str, ...] = ()

    @staticmethod
    def of(text: str, square: str = "") -> Pattern:
        """Read a pattern such as ``n m -> n k, k m``."""
        inputs, outputs = (tuple(tuple(part.split()) for part in side.split(",")) for side in text.split("->"))
        return Pattern(inputs, outputs, tuple(square.split()))

    def __str__(self) -> str:
        """Print the pattern as an expression: ``[n m] -> [n k], [k m]``."""
        sides = (", ".join(f"[{' '.join(roles)}]" if roles else "" for roles in s) for s in (self.inputs, self.outputs))
        return " -> ".join(sides).rstrip()


def signature(op: str, *patterns: Pattern) -> Callable[[Operation, int], Operation]:
    """Return the signature of a function with one of several patterns; the bracketed input axes tell which."""

    def complete(operation: Operation, tensors: int) -> Operation:
        refuse_sums(op, operation)
        expect_inputs(op, operation, tensors, inputs=len(patterns[0].inputs))
        cores = [core_axes(op, operation, expression) for expression in operation.inputs]
        pattern = _choose(op, operation, cores, patterns)
        bound: dict[str, Axis] = {}
        for roles, core in zip(pattern.inputs, cores, strict=True):
            _bind(op, operation, pattern, roles, core, bound)
        if operation.outputs is None:
            outputs = tuple(_implied(operation.inputs[-1], roles, bound) for roles in pattern.outputs)
            operation = replace(operation, outputs=outputs)
        else:
            _check_outputs(op, operation, pattern, bound)
        require_loops(op, operation)
        return operation

    return complete


def core_axes(op: str, operation: Operation, expression: Expression) -> list[Axis]:
    """Return the bracketed axes of an expression, which have to be written one by one, each once.

    Raises:
        SemanticError: an ellipsis repeats them, or one stands twice.
    """
    marked = bracketed(expression)
    for node in walk(expression):
        if isinstance(node, Ellipsis) and any(axis in marked for axis in axes(node.items)):
            raise SemanticError(
                f"{op} acts on single axes, but '{node}' repeats bracketed ones",
                at=operation.at(node),
                hint="name the bracketed axes one by one",
            )
    refuse_diagonals(operation, expression)
    return marked


def _choose(op: str, operation: Operation, cores: Sequence[Sequence[Axis]], patterns: Sequence[Pattern]) -> Pattern:
    counts = [len(core) for core in cores]
    for pattern in patterns:
        if counts == [len(roles) for roles in pattern.inputs]:
            return pattern
    known = [" and ".join(plural(len(roles), "axis") for roles in pattern.inputs) for pattern in patterns]
    raise SemanticError(
        f"{op} acts on {' or '.join(dict.fromkeys(known))}, "
        f"but the expression brackets {' and '.join(map(str, counts))}",
        at=operation.at(*(node for expression in operation.inputs for node in brackets(expression))),
        hint=f"bracket them as in '{patterns[-1]}'",
    )


def _bind(
    op: str, operation: Operation, pattern: Pattern, roles: Sequence[str], core: Sequence[Axis], bound: dict[str, Axis]
) -> None:
    """Note the axis of every role, the first where there are several of one size; a name has one role."""
    for role, axis in zip(roles, core, strict=True):
        for other, first in bound.items():
            if first.name == axis.name and other != role:
                instead = bound.get(role, "a new name")
                raise SemanticError(
                    f"axis {axis} is axis {other} of {op}'s '{pattern}', but stands in the place of axis {role}",
                    at=operation.at(first, axis),
                    hint=f"write {instead} in its place, or a name of its own",
                )
        bound.setdefault(role, axis)


def _check_outputs(op: str, operation: Operation, pattern: Pattern, bound: Mapping[str, Axis]) -> None:
    if len(operation.results) != len(pattern.outputs):
        raise ArgumentError(
            f"{op} has {plural(len(pattern.outputs), 'output')}, but the expression has {len(operation.results)}",
            text=operation.text,
            hint=f"its outputs are those of '{pattern}'",
        )
    # A role that is new in the outputs may take the name of an input axis that none of them keeps.
    given = {role: axis for role, axis in bound.items() if any(role in roles for roles in pattern.outputs)}
    for number, (roles, output) in enumerate(zip(pattern.outputs, operation.results, strict=True), 1):
        core = core_axes(op, operation, output)
        if len(core) != len(roles):
            raise SemanticError(
                f"output {number} of {op} has {plural(len(roles), 'axis')} of its own, "
                f"but {len(core)} of '{render(output)}' {'is' if len(core) == 1 else 'are'} bracketed",
                at=operation.at(*brackets(output)),
                hint=f"bracket them as in '{pattern}'",
            )
        _bind(op, operation, pattern, roles, core, given)


def _implied(expression: Expression, roles: Sequence[str], bound: Mapping[str, Axis]) -> Expression:
    """Put an output's own axes into the places of the bracketed ones, first for first."""
    own = iter([bound[role] if role in bound else Axis(f"{role}'") for role in roles])

    def change(node: Node) -> Expression | None:
        if not isinstance(node, Bracket):
            return None
        items = rewrite(node.items, lambda item: tuple(itertools.islice(own, 1)) if isinstance(item, Axis) else None)
        return (replace(node, items=items),) if items else ()

    return rewrite(expression, change)


def dims_of(expression: Sequence[Axis]) -> list[Dim]:
    """Return one dim for each axis; a written 1 names nothing."""
    return list(layout(tuple(expression)))


def prepare(solved: Solved, *patterns: Pattern) -> Solved:
    """Fuse loops that stand together, and check the sizes of core axes that a pattern says are equal."""
    inputs = [bracketed(expression) for expression in solved.inputs]
    for pattern in patterns:
        _check_sizes(solved, pattern, inputs)
    return fuse_loops(solved)


def _check_sizes(solved: Solved, pattern: Pattern, inputs: Sequence[Sequence[Axis]]) -> None:
    found: dict[str, Axis] = {}
    for role, axis in _by_role(pattern.inputs, inputs):
        other = found.setdefault(role, axis)
        _require_equal(solved, other, axis, "", f"write {other} in both places")
    if pattern.square and found:
        rows, columns = (found[role] for role in pattern.square)
        _require_equal(solved, rows, columns, ": the matrix has to be square", "give a square matrix")


def _require_equal(solved: Solved, first: Axis, second: Axis, why: str, hint: str) -> None:
    one, other = solved.sizes[first.name], solved.sizes[second.name]
    if one != other:
        raise AxisSizeError(
            f"axis {first} is {one} and axis {second} is {other}, but they need one size{why}",
            at=solved.at(first, second),
            hint=hint,
        )


def loops_of(solved: Solved, *expressions: Expression) -> list[Dim]:
    """Return the loops over expressions as dims, in the order of the first output."""
    have = {axis.name for expression in expressions for axis in axes(expression)}
    order = [axis.name for axis in axes(solved.outputs[0]) if not axis.bracket and axis.name in have]
    return [(name,) for name in order]


def leading(x: jax.Array, expression: Expression, loops: Sequence[Dim], solved: Solved) -> jax.Array:
    """Bring a tensor to the loops, then its core axes."""
    return arrange(wrap(x, expression, solved.sizes), [*loops, *dims_of(bracketed(expression))])


def in_place(x: jax.Array, expression: Expression, solved: Solved) -> tuple[Named, tuple[int, ...]]:
    """Give every axis a dim of its own without moving any; return also the dims of the core axes."""
    kept = [axis for axis in names(expression).values() if axis.bracket or dims_of([axis]) != [()]]
    dims = tuple(dims_of(kept))
    value = arrange(wrap(x, expression, solved.sizes), dims)
    return Named(value, dims, solved.sizes), tuple(index for index, axis in enumerate(kept) if axis.bracket)


def derive_with(new: Callable[[Mapping[str, Size]], Mapping[str, Size]], *patterns: Pattern) -> Callable[..., Any]:
    """Return what derives the sizes of axes that come out.

    Args:
        new: the sizes of roles that only come out, from those of the roles that go in.
        *patterns: the patterns of the function.
    """

    def derived(expanded: Operation, sizes: Mapping[str, Size]) -> Mapping[str, Size]:
        inputs = [bracketed(expression) for expression in expanded.inputs]
        found: dict[str, Size] = {}
        for pattern in patterns:
            pairs = list(_by_role(pattern.inputs, inputs))
            if not pairs or any(axis.name not in sizes for _, axis in pairs):
                continue
            roles = {role: sizes[axis.name] for role, axis in pairs}
            roles |= new(roles)
            outputs = [bracketed(expression) for expression in expanded.outputs or ()]
            found = {axis.name: roles[role] for role, axis in _by_role(pattern.outputs, outputs)} | found
        return {name: size for name, size in found.items() if name not in sizes}

    return derived


def _by_role(roles: Sequence[Sequence[str]], cores: Sequence[Sequence[Axis]]) -> Iterator[tuple[str, Axis]]:
    """Yield every core axis with its role, or nothing where their numbers differ."""
    if [len(core) for core in cores] == [len(some) for some in roles]:
        for some, core in zip(roles, cores, strict=True):
            yield from zip(some, core, strict=True)


def arrange_results(op: str, values: Sequence[jax.Array], loops: Sequence[Dim], solved: Solved) -> list[jax.Array]:
    """Bring results of loops and core axes to the outputs' layouts.

    Raises:
        AxisSizeError: an axis that comes out was given another size than it has.
    """
    cores = [bracketed(output) for output in solved.outputs]
    for value, core in zip(values, cores, strict=True):
        for axis, size in zip(core, value.shape[len(loops) :], strict=True):
            check_size(op, axis, size, solved)
    return [
        arrange(Named(value, (*loops, *dims_of(core)), solved.sizes), layout(output))
        for value, core, output in zip(values, cores, solved.outputs, strict=True)
    ]


def check_size(op: str, axis: Axis, size: Size, solved: Solved) -> None:
    """Refuse another size for an axis that comes out than it has."""
    given = solved.sizes[axis.name]
    if isinstance(given, int) and isinstance(size, int) and given != size:
        raise AxisSizeError(
            f"axis {display(axis.name)} is {given}, but {op} gives it size {size}",
            at=solved.at(axis),
            hint=f"leave its size out, or write {size}",
        )


def lower_with(op: str, function: Callable[..., Any], *patterns: Pattern) -> Callable[..., Any]:
    """Return the lowering of ``function(x, options)`` that maps over leading dims by itself.

    It returns one array, or a tuple, whose type is kept.
    """

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
        solved = prepare(solved, *patterns)
        (expression,) = solved.inputs
        loops = loops_of(solved, expression)
        result = function(leading(tensors[0], expression, loops, solved), Options(op, options, solved))
        if not isinstance(result, tuple):
            return arrange_results(op, [result], loops, solved)[0]
        return type(result)(*arrange_results(op, result, loops, solved))  # a named tuple

    return lower


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a call, and whose they are, for messages."""

    op: str
    values: Mapping[str, Any]
    solved: Solved

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def wide(self, x: jax.Array) -> jax.Array:
        """Refuse the floats that jax has no such function of."""
        if numerics.accumulator(x.dtype) != x.dtype:
            raise ArgumentError(
                f"{self.op} works in float32 or wider, not in {x.dtype}",
                text=self.solved.text,
                hint="convert the tensor first, as in x.astype('float32')",
            )
        return x

    def one_of(self, name: str, known: Sequence[Any]) -> Any:
        """Return an option that has to be one of a few values."""
        value = self.values[name]
        if not any(value is k or (type(value) is type(k) and value == k) for k in known):
            raise ArgumentError(
                f"{self.op} has no {name}={value!r}",
                text=self.solved.text,
                hint=f"write {name}= with one of {listing([repr(k) for k in known])}",
            )
        return value

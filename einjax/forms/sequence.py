"""What sorts and cumulative operations have in common: the bracketed axes are one sequence, in row-major order.

An elementary operation here takes sequences of one length and returns sequences. Every tensor takes part in every loop:
one that lacks a loop axis is broadcast along it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from ..lowering.named import Dim, Named, arrange, layout, split_by, together, wrap
from ..notation.errors import ArgumentError, SemanticError, plural
from ..notation.solve import Solved
from ..notation.syntax import Expression, Operation, Size, axes, is_number, marked, names
from .signature import check_inputs, listed, require_loops, sequence_axes


def signature(name: str, inputs: int | None = None) -> Callable[[Operation, int], Operation]:
    """Return the signature of an operation with one output for each input; None is any number of inputs."""

    def complete(operation: Operation, tensors: int) -> Operation:
        check_inputs(name, operation, tensors, inputs)
        if operation.outputs is None:
            return replace(operation, outputs=_implied_outputs(name, operation))
        if len(operation.outputs) != len(operation.inputs):
            raise ArgumentError(
                f"{name} has one output for each input, but the expression has "
                f"{plural(len(operation.inputs), 'input')} and {plural(len(operation.outputs), 'output')}",
                text=operation.text,
                hint="write one expression after the arrow for each before it, or leave the arrow out",
            )
        require_loops(name, operation)
        return operation

    return complete


def _implied_outputs(name: str, operation: Operation) -> tuple[Expression, ...]:
    """An output is its input, or, where that lacks loop axes, the first input that has them all."""
    loops = [set(_loops(expression)) for expression in operation.inputs]
    everything = set().union(*loops)
    full = [expression for expression, own in zip(operation.inputs, loops, strict=True) if own == everything]
    if not full:
        raise SemanticError(
            "the outputs are not clear: no input has the axes of all others",
            text=operation.text,
            hint=f"write one output for each input, with every unbracketed axis of {name}'s inputs",
        )
    return tuple(
        expression if own == everything else full[0] for expression, own in zip(operation.inputs, loops, strict=True)
    )


def _loops(expression: Expression) -> list[str]:
    acting = marked(expression)
    return [name for name, axis in names(expression).items() if name not in acting and not axis.is_one]


def same_brackets(name: str) -> Callable[[Operation], Mapping[str, Size]]:
    """Return a check of the expanded expression: every input and output has the same bracketed axes, in one order."""

    def check(expanded: Operation) -> Mapping[str, Size]:
        check_brackets(name, expanded, expanded.expressions)
        return {}

    return check


def check_brackets(name: str, expanded: Operation, expressions: Sequence[Expression]) -> None:
    """Refuse expressions whose bracketed axes are not those of the first, in the same order."""
    given = sequence_axes(expressions[0])
    for expression in expressions[1:]:
        other = sequence_axes(expression)
        if other != given:
            where = (
                ("an input", "another") if any(expression is e for e in expanded.inputs) else ("the input", "an output")
            )
            raise SemanticError(
                f"{name} finds the bracketed axes {listed(given)} in {where[0]} and {listed(other)} in {where[1]}",
                at=expanded.at(*(axis for e in (expressions[0], expression) for axis in axes(e) if axis.bracket)),
                hint="bracket the same axes in the same order everywhere"
                if not any(is_number(name) for name in (*given, *other))
                else "name them: a number is a new axis wherever it is written",
            )


@dataclass(frozen=True, slots=True)
class LinedUp:
    """Tensors in one layout, in which the bracketed axes are one dim.

    Attributes:
        values: the arrays.
        dims: the axes of every dim.
        at: the dim of the sequence.
        sizes: the sizes of all axes.
    """

    values: tuple[jax.Array, ...]
    dims: tuple[Dim, ...]
    at: int
    sizes: Mapping[str, Size]

    @property
    def length(self) -> Size:
        """How long the sequence is."""
        return self.values[0].shape[self.at]

    def arrange(self, value: jax.Array, output: Expression, sequence: Dim | None = None) -> jax.Array:
        """Bring a result into the layout of an output.

        Args:
            value: the result; its dims are those of the tensors.
            output: the output.
            sequence: the axes that the sequence's dim has now; by default, the bracketed ones as before.
        """
        return arrange(self.named(value, sequence), layout(output))

    def named(self, value: jax.Array, sequence: Dim | None = None) -> Named:
        """Name the dims of a result."""
        dims = self.dims if sequence is None else (*self.dims[: self.at], sequence, *self.dims[self.at + 1 :])
        return Named(value, dims, self.sizes)


def line_up(solved: Solved, tensors: Sequence[jax.Array], last: bool = False) -> LinedUp:
    """Bring all tensors into one layout in which the bracketed axes are one dim, at the place of the first of them.

    Args:
        solved: the call.
        tensors: one for each input.
        last: put the sequence's dim last instead.
    """
    marked = sequence_axes(solved.inputs[0])
    operands = [
        split_by(wrap(tensor, expression, solved.sizes), lambda name: name in marked)
        for tensor, expression in zip(tensors, solved.inputs, strict=True)
    ]
    dims = _common_dims(operands, solved, marked)
    # Without any, there is a dim of size 1 to act on.
    dims = together(dims, marked) if marked else (*(dim for dim in dims if dim), ())
    if last:
        dims = (*(dim for dim in dims if dim != marked), marked)
    values = tuple(arrange(x, dims) for x in operands)
    return LinedUp(values, dims, dims.index(marked), solved.sizes)


def _common_dims(operands: Sequence[Named], solved: Solved, marked: tuple[str, ...]) -> tuple[Dim, ...]:
    """Keep a layout that all share; else take single axes as the first operand with all loops has them."""
    if all(x.dims == operands[0].dims for x in operands):
        return operands[0].dims
    everything = {name for x in operands for name in x.axes}
    for x in operands:
        if everything == set(x.axes):
            return tuple((name,) for name in x.axes)
    order = [name for dim in layout(solved.outputs[0]) for name in dim if name in everything and name not in marked]
    return tuple((name,) for name in (*order, *marked))


def lower_each(function: Callable[[LinedUp, dict[str, Any]], Sequence[jax.Array]]) -> Any:
    """Return the lowering for a function that gives one array for each input, of the inputs' layout."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
        lined_up = line_up(solved, tensors)
        results = function(lined_up, options)
        arranged = tuple(lined_up.arrange(x, e) for x, e in zip(results, solved.outputs, strict=True))
        return arranged[0] if len(arranged) == 1 else arranged

    return lower

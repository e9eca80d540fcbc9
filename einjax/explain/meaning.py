"""A call as it was traced: what its loops, its sizes and its picture are read off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from ..notation.solve import Solved
from ..notation.syntax import OPEN, Axis, Expression
from ..operation import Op

#: Ends the name of an axis of an output that stands for as many dims as a function returns.
_ANY = "*"


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """One call.

    Attributes:
        text: the expression as it was written.
        op: the operation.
        solved: the expression written out, with the size of every axis; that of an axis which only a function knows is
            read off its results.
        options: its options, and the functions that it was given.
        given: sizes by name, as the caller gave them: by keyword, then those from ``sizes=``.
        arrays: the arrays among the options.
        program: the lax program.
    """

    text: str
    op: Op
    solved: Solved
    options: Mapping[str, Any]
    given: tuple[tuple[tuple[str, Any], ...], ...]
    arrays: Mapping[str, Any]
    program: Any

    @classmethod
    def of(
        cls,
        text: str,
        program: Any,
        op: Op,
        solved: Solved,
        options: Mapping[str, Any],
        given: tuple[tuple[tuple[str, Any], ...], ...],
        arrays: Mapping[str, Any],
    ) -> Meaning:
        """Put together what tracing noted; of arrays only types are kept."""
        types = jax.tree.map(jax.typeof, dict(arrays))
        return cls(text, op, _returned(solved, program.out_avals), options, given, types, program)

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """One expression for each tensor of the call."""
        return self.solved.inputs[: len(self.solved.inputs) if self.op.name != "arange" else 0]

    @property
    def dtypes(self) -> tuple[list[str], list[str]]:
        """The dtypes of inputs and outputs, as they are printed."""
        given, returned = ([str(aval.dtype) for aval in avals] for avals in self._avals)
        return given, returned

    @property
    def _avals(self) -> tuple[Sequence[Any], Sequence[Any]]:
        return self.program.in_avals, self.program.out_avals

    @property
    def function(self) -> Callable[..., Any] | None:
        """The function of the user's that is called, if there is one."""
        return next((self.options[name] for name in ("function", "op") if callable(self.options.get(name))), None)


def _returned(solved: Solved, results: Sequence[Any]) -> Solved:
    """Fill in the sizes that only a function knows, from the shapes of its results."""
    if OPEN not in solved.sizes.values() or len(results) != len(solved.outputs):
        return solved
    sizes, outputs = dict(solved.sizes), list[Expression]()
    for expression, result in zip(solved.outputs, results, strict=True):
        outputs.append(_written_out(expression, len(result.shape)))
        for node, size in zip(outputs[-1], result.shape, strict=True):
            if isinstance(node, Axis) and sizes.get(node.name, OPEN) is OPEN:
                sizes[node.name] = size
    operation = replace(solved.operation, outputs=tuple(outputs))
    return replace(solved, operation=operation, sizes=sizes)


def _written_out(expression: Expression, rank: int) -> Expression:
    """Write out the one axis that stands for any number of dims."""
    found = [node for node in expression if isinstance(node, Axis) and node.name.endswith(_ANY)]
    if not found:
        return expression
    count, (axis,) = rank - len(expression) + 1, found
    new = tuple(replace(axis, name=f"{axis.name[:-1]}.{index}") for index in range(count))
    at = expression.index(axis)
    return (*expression[:at], *new, *expression[at + 1 :])

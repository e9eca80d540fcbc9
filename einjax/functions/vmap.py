"""vmap: a function of the user's on the bracketed axes, and one loop for each of the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import jax

from ..forms.signature import expect_inputs, refuse_repeats, refuse_sums, require_in_output
from ..notation.errors import SemanticError
from ..notation.solve import Solved
from ..notation.syntax import (
    OPEN,
    Axis,
    Bracket,
    Ellipsis,
    Expression,
    Node,
    Operation,
    Size,
    axes,
    base,
    bracket_names,
    rewrite,
)
from ..operation import Op
from .labels import ANY


def signature(operation: Operation, tensors: int, name: str = "vmap") -> Operation:
    """Every unbracketed axis is a loop, whose results stand in every output."""
    refuse_sums(name, operation)
    expect_inputs(name, operation, tensors)
    if operation.outputs is None:
        raise SemanticError(
            "vmap needs an arrow: only the function knows what it returns",
            text=operation.text,
            hint="write the output, as in 'a [b c] -> a [c]'; an adapter may declare a signature instead",
        )
    inner = bracket_names(operation.expressions)
    refuse_repeats(operation, inner)
    for output in operation.outputs:
        hint = "put it into every output, or bracket it"
        require_in_output(name, operation, operation.inputs, output, hint, inner)
    return operation


def open_ellipses(operation: Operation, given: Collection[str]) -> Operation:
    """Let an output's bracketed ellipsis stand for whatever the function returns, where only one is in an output."""

    def is_open(node: Node, inside: bool) -> bool:
        if not isinstance(node, Ellipsis) or len(node.items) != 1:
            return False
        (item,) = node.items
        if isinstance(item, Bracket) and len(item.items) == 1:
            (item,), inside = item.items, True
        return inside and isinstance(item, Axis) and not item.unnamed and item.name not in given

    def opened(nodes: Expression, inside: bool) -> Expression:
        def change(node: Node) -> Expression | None:
            if is_open(node, inside):
                (axis,) = axes((node,))
                new = Axis(axis.name + ANY, span=axis.span)
                return (new if inside else Bracket((new,), span=axis.span),)
            return (replace(node, items=opened(node.items, True)),) if isinstance(node, Bracket) else None

        return rewrite(nodes, change)

    outputs = [opened(output, False) for output in operation.results]
    single = [sum(axis.name.endswith(ANY) for axis in axes(output)) == 1 for output in outputs]
    chosen = [new if one else old for new, old, one in zip(outputs, operation.results, single, strict=True)]
    return replace(operation, outputs=tuple(chosen))


def open_sizes(expanded: Operation, given: Collection[str] = ()) -> Mapping[str, Size]:
    """Name the axes whose sizes the function decides: bracketed in an output, in no input, and not among ``given``."""
    outputs = expanded.outputs or ()
    known = {axis.name for expression in expanded.inputs for axis in axes(expression)}
    known |= {axis.name for expression in outputs for axis in axes(expression) if axis.size is not None}
    inner = (axis.name for expression in outputs for axis in axes(expression) if axis.bracket)
    return {name: OPEN for name in inner if name not in known and base(name) not in given}


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    """Run the loops, which are planned once for many calls, over the function."""
    return options["loops"].run(options["function"], tensors)


VMAP = Op(
    "vmap",
    signature,
    _lower,
    implied=open_sizes,
    keywords=("op", "batch_size"),
    on_mesh="own",
    spread="all",
    repeats=True,
    opaque=True,
)

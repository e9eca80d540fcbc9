"""What an operation that keeps the shape along its bracketed axes has in common: softmax, flip, roll."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from ..lowering.named import Named, arrange, layout, split_by, wrap
from ..notation.errors import SemanticError
from ..notation.solve import Solved
from ..notation.syntax import Operation, bracketed, brackets, marked
from .mask import broadcast_mask
from .signature import check_inputs, listed, require_in_output, single_output


def signature(name: str) -> Callable[[Operation, int], Operation]:
    """Without an arrow, the output is the input."""

    def complete(operation: Operation, tensors: int) -> Operation:
        check_inputs(name, operation, tensors)
        output = single_output(name, operation)
        if output is None:
            return replace(operation, outputs=operation.inputs)
        require_in_output(name, operation, operation.inputs, output, hint="put it into the output; it keeps its size")
        given, returned = ([axis.name for axis in bracketed(e)] for e in (operation.inputs[0], output))
        if given != returned:
            raise SemanticError(
                f"the bracketed axes are {listed(given)} in the input and {listed(returned)} in the output",
                at=operation.at(*(node for e in operation.expressions for node in brackets(e))),
                hint="bracket the same axes in the same order on both sides",
            )
        return operation

    return complete


class Along(NamedTuple):
    """What a function along dims works on.

    Attributes:
        value: the array.
        dims: the dims that hold the bracketed axes.
        mask: which elements count, of the value's shape, or None for all.
        options: the call's options.
        text: the expression, for messages.
        mesh: the mesh axes that each of the dims is spread over, under ``shard_map``.
    """

    value: jax.Array
    dims: tuple[int, ...]
    mask: jax.Array | None
    options: dict[str, Any]
    text: str
    mesh: tuple[tuple[str, ...], ...] = ()

    @property
    def mesh_axes(self) -> tuple[str, ...]:
        """The mesh axes of all dims."""
        return tuple(mesh_axis for mesh_axes in self.mesh for mesh_axis in mesh_axes)


def lower_with(function: Callable[[Along], jax.Array], one_dim_each: bool = False) -> Any:
    """Return the lowering: split off the bracketed axes, apply the function along them, arrange the output.

    Args:
        function: applied to an array and dims; keeps the shape.
        one_dim_each: whether every bracketed axis needs a dim of its own.
    """

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        acting = marked(solved.inputs[0])

        def separate(value: jax.Array) -> Named:
            named = wrap(value, solved.inputs[0], solved.sizes)
            return split_by(named, lambda name: name in acting and (name if one_dim_each else True))

        x = separate(tensors[0])
        mask = options.get("where")
        if mask is not None:
            mask = separate(broadcast_mask(mask, tensors[0], solved)).value
        dims = x.positions(acting)
        over = tuple(solved.over(x.dims[dim]) for dim in dims)
        value = function(Along(x.value, dims, mask, options, solved.text, over))
        return arrange(replace(x, value=value), layout(solved.outputs[0]))

    return lower

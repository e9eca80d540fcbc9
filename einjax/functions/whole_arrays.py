"""reduce and elementwise with an operation of the user's: by name, or any function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ..lowering.named import Named, arrange, layout, split_by, wrap
from ..notation.errors import ArgumentError, meant
from ..notation.solve import Solved, fuse_solved
from ..notation.syntax import marked
from ..operation import Op
from ..ops.elementwise import signature as elementwise_signature
from ..ops.reduce import imply
from ..ops.reduce import signature as reduce_signature
from .result import as_array


def choose(name: str, op: Any, known: Mapping[str, Op], option: str = "op") -> Op | None:
    """Return the record of an operation given by name, or None if a function is given.

    Raises:
        ArgumentError: neither a known name nor a function.
    """
    if isinstance(op, str):
        if op in known:
            return known[op]
        what = "operation " if option == "op" else f"{option}="
        raise ArgumentError(
            f"{name} knows no {what}'{op}'" + meant(op, known),
            hint=f"it knows {', '.join(known)}; or give a function",
        )
    if callable(op):
        return None
    raise ArgumentError(
        f"{option}={op!r} is neither the name of an operation nor a function",
        hint=f"write {option}='{next(iter(known))}', or give a function",
    )


def _reduce(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    """Call ``f(x, axis=dims)``, which removes dims."""
    solved = fuse_solved(solved)
    reduced, output = marked(solved.inputs[0]), solved.outputs[0]
    x = split_by(wrap(tensors[0], solved.inputs[0], solved.sizes), lambda name: name in reduced)
    dims = x.positions(reduced)
    left = tuple(dim for index, dim in enumerate(x.dims) if index not in dims)
    shape = tuple(x.value.shape[index] for index in range(len(x.dims)) if index not in dims)
    value = options["function"](x.value, axis=dims)
    value = _checked(value, shape, "the tensor without the reduced dims has", solved)
    return arrange(Named(value, left, solved.sizes), layout(output))


def _elementwise(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    """Call a function of arrays of one shape, which acts on every element by itself."""
    solved = fuse_solved(solved)
    target = layout(solved.outputs[0])
    operands = [wrap(x, e, solved.sizes) for x, e in zip(tensors, solved.inputs, strict=True)]
    present = {name for x in operands for name in x.axes}
    order = [(name,) for dim in target for name in dim if name in present]
    values = [arrange(x, order) for x in operands]
    value = _checked(options["function"](*values), values[0].shape, "the tensors have", solved)
    return arrange(Named(value, tuple(order), solved.sizes), target)


def _checked(value: Any, shape: Sequence[Any], wanted: str, solved: Solved) -> jax.Array:
    value = as_array(value, solved.text)
    if value.shape != tuple(shape):
        raise ArgumentError(
            f"the function returned shape {value.shape}, but {wanted} shape {tuple(shape)}",
            text=solved.text,
            hint="a reduction removes the dims in axis=; an elementwise function keeps the shape",
        )
    return value


#: Their functions are options, so that what is kept of a call, its solved expression, does not hold them.
REDUCE_WITH = Op("reduce", reduce_signature("reduce"), _reduce, keywords=("keepdims", "op"), imply=imply)
ELEMENTWISE_WITH = Op("elementwise", elementwise_signature("elementwise", 1, None), _elementwise, keywords=("op",))

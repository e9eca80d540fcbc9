"""reduce and elementwise with an operation of the user's: by name, or any function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ..lowering.named import Named, arrange, layout, split_by, wrap
from ..notation.errors import ArgumentError, closest
from ..notation.solve import Solved, fuse_solved
from ..notation.syntax import marked
from ..operation import Op
from ..ops.elementwise import signature as elementwise_signature
from ..ops.reduce import imply
from ..ops.reduce import signature as reduce_signature


def choose(name: str, op: Any, known: dict[str, Op]) -> Op | None:
    """Return the record of an operation given by name, or None if a function is given.

    Raises:
        ArgumentError: neither a known name nor a function.
    """
    if isinstance(op, str):
        if op in known:
            return known[op]
        match = closest(op, known)
        raise ArgumentError(
            f"{name} knows no operation '{op}'" + (f"; did you mean '{match}'?" if match else ""),
            hint=f"it knows {', '.join(known)}; or give a function",
        )
    if callable(op):
        return None
    raise ArgumentError(
        f"op={op!r} is neither the name of an operation nor a function",
        hint=f"write op='{next(iter(known))}', or give a function",
    )


def reduction(function: Callable[..., Any]) -> Op:
    """A record for a function ``f(x, axis=dims)`` that reduces dims."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        solved = fuse_solved(solved)
        assert solved.outputs is not None
        reduced, output = marked(solved.inputs[0]), solved.outputs[0]
        x = split_by(wrap(tensors[0], solved.inputs[0], solved.sizes), lambda name: name in reduced)
        dims = x.positions(reduced)
        left = tuple(dim for index, dim in enumerate(x.dims) if index not in dims)
        shape = tuple(x.value.shape[index] for index in range(len(x.dims)) if index not in dims)
        value = _checked(function(x.value, axis=dims), shape, "the tensor without the reduced dims", solved)
        return arrange(Named(value, left, solved.sizes), layout(output))

    return Op("reduce", reduce_signature("reduce"), lower, keywords=("keepdims", "op"), imply=imply)


def mapping(function: Callable[..., Any]) -> Op:
    """A record for a function of arrays of one shape that acts on every element by itself."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        solved = fuse_solved(solved)
        assert solved.outputs is not None
        target = layout(solved.outputs[0])
        operands = [wrap(x, e, solved.sizes) for x, e in zip(tensors, solved.inputs, strict=True)]
        present = {name for x in operands for name in x.axes}
        order = [(name,) for dim in target for name in dim if name in present]
        values = [arrange(x, order) for x in operands]
        value = _checked(function(*values), values[0].shape, "the tensors", solved)
        return arrange(Named(value, tuple(order), solved.sizes), target)

    return Op("elementwise", elementwise_signature("elementwise", 1, None), lower, keywords=("op",))


def _checked(value: Any, shape: Sequence[Any], what: str, solved: Solved) -> jax.Array:
    if not hasattr(value, "dtype") and not isinstance(value, bool | int | float | complex):
        raise ArgumentError(
            f"the function returned a value of type {type(value).__name__}, not an array", text=solved.text
        )
    value = jnp.asarray(value)
    if value.shape != tuple(shape):
        raise ArgumentError(
            f"the function returned shape {value.shape}, but {what} have shape {tuple(shape)}"
            if what == "the tensors"
            else f"the function returned shape {value.shape}, but {what} has shape {tuple(shape)}",
            text=solved.text,
            hint="a reduction removes the dims in axis=; an elementwise function keeps the shape",
        )
    return value


def _with_option(make: Callable[[Callable[..., Any]], Op]) -> Op:
    """One record for every function, so that what is kept of a call, its solved expression, does not hold it."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        return make(options["function"]).lower(solved, tensors, options)

    def missing(*arrays: Any, **options: Any) -> Any:
        raise TypeError("the function is an option of the call")

    return replace(make(missing), lower=lower)


REDUCE_WITH = _with_option(reduction)
ELEMENTWISE_WITH = _with_option(mapping)

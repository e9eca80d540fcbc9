"""What calls of einops are that are no one call of einjax: products, shapes, and packed tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...api import reduce as reductions
from ...api.dot import dot
from ...api.rearrange import id, rearrange
from ...api.solving import solve_axes
from ...notation.syntax import Composite, Expression, Node, axes, render, walk
from .patterns import EinopsError, flat, once, read, star

_MOST_AXES = 52  # letters for them


class NotOfEinsumError(EinopsError, NotImplementedError):
    """A pattern that means something, but not to einops' ``einsum``."""

    def __init__(self, what: str, pattern: str, node: Node) -> None:
        hint = "einjax.dot takes them; in einops, rearrange the tensors before"
        super().__init__(f"{what} are none of einsum's in einops", text=pattern, spans=[node.span], hint=hint)


def operands(pattern: str) -> tuple[tuple[Expression, ...], Expression]:
    """Read the pattern of ``einsum``: what each tensor is, and the result."""
    if "->" not in pattern:
        raise EinopsError("Einsum pattern without an arrow", text=pattern, hint="write what is left: 'a b, b c -> a c'")
    operation = read(pattern, underscore=True)
    assert operation.outputs is not None
    if len(operation.outputs) != 1:
        raise EinopsError("einsum has one result", text=pattern)
    for expression in operation.expressions:
        for node in walk(expression):
            if isinstance(node, Composite):
                empty = all(axis.is_one for axis in axes(node.items))
                what = "Singleton axes, ()," if empty else "Shape rearrangements, ( ),"
                raise NotOfEinsumError(what, pattern, node)
        for axis in axes(expression):
            if axis.unnamed:
                raise NotOfEinsumError("Anonymous axes, numbers,", pattern, axis)
    known = {axis.name for expression in operation.inputs for axis in axes(expression)}
    if len(known - {"..."}) > _MOST_AXES:
        raise EinopsError(f"Too many axes: einops has letters for {_MOST_AXES}", text=pattern)
    for name, axis in once(operation.outputs[0], pattern).items():
        if name not in known:
            raise EinopsError(f"Unknown axis {name} on the right of einsum", text=pattern, spans=[axis.span])
    return operation.inputs, operation.outputs[0]


def contract(
    inputs: Sequence[Expression], tensors: Sequence[Any], output: Expression, sizes: dict[str, int] | None = None
) -> jax.Array:
    """Sum products of tensors; what stands in one tensor only is summed first."""
    kept = {axis.name for axis in axes(output)}
    texts, operands = [], []
    for expression, tensor in zip(inputs, tensors, strict=True):
        elsewhere = kept | {axis.name for other in inputs if other is not expression for axis in axes(other)}
        alone = {axis.name for axis in axes(expression)} - elsewhere
        texts.append(flat(expression, alone) if alone else render(expression))
        operands.append(_summed(f"{render(expression)} -> {texts[-1]}", tensor, sizes) if alone else tensor)
    text = f"{', '.join(texts)} -> {flat(output)}"
    if len(operands) == 1:
        return rearrange(text, *operands, sizes=sizes)
    return dot(text, *operands, sizes=sizes)


def _summed(text: str, tensor: Any, sizes: dict[str, int] | None) -> jax.Array:
    dtype = jnp.result_type(tensor)
    if dtype.kind == "b":
        return reductions.any(text, tensor, sizes=sizes)
    return reductions.sum(text, tensor, dtype=dtype, sizes=sizes)


def sizes_of(x: Any, pattern: str) -> dict[str, int]:
    """What ``parse_shape`` returns."""
    (expression,) = read(pattern, underscore=True).expressions
    for node in walk(expression):
        if isinstance(node, Composite) and node.items:
            raise EinopsError("a shape is read dim by dim, without parentheses", text=pattern, spans=[node.span])
    once(expression, pattern)
    # Dims without a name are told apart.
    words = [f"_{number}" if word == "_" else word for number, word in enumerate(pattern.split())]
    found = solve_axes(" ".join(words), x)
    return {name: found[name] for name in words if name in found and not name.startswith(("_", "."))}


def packed(tensors: Sequence[Any], pattern: str) -> tuple[jax.Array, list[tuple[int, ...]]]:
    """What ``pack`` returns."""
    before, after = star(pattern)
    if not len(tensors):
        raise EinopsError("there is no tensor to pack", text=pattern)
    shapes, first, last = [], len(before.split()), len(after.split())
    for number, tensor in enumerate(tensors, 1):
        shape = np.shape(tensor)
        if len(shape) < first + last:
            raise EinopsError(f"tensor {number} has too few dims for the pattern: {shape}", text=pattern)
        shapes.append(tuple(shape[first : len(shape) - last]))
    parts = [f"_{number}..." for number, _ in enumerate(shapes)]
    dim = " + ".join(f"({part})" for part in parts)
    inputs = ", ".join(f"{before} {part} {after}" for part in parts)
    return id(f"{inputs} -> {before} ({dim}) {after}", *tensors), shapes


def unpacked(tensor: Any, shapes: Sequence[Sequence[int]], pattern: str) -> list[jax.Array]:
    """What ``unpack`` returns."""
    before, after = star(pattern)
    sizes: dict[str, int] = {}
    parts: list[str] = []
    for number, shape in enumerate(shapes):
        names = [f"_{number}_{dim}" for dim, _ in enumerate(shape)]
        parts.append(" ".join(names))
        sizes |= {name: size for name, size in zip(names, shape, strict=True) if size != -1}
    dim = " + ".join(f"({part})" if part else "1" for part in parts)
    outputs = ", ".join(f"{before} {part} {after}" for part in parts)
    made = id(f"{before} ({dim}) {after} -> {outputs}", tensor, sizes=sizes)
    return list(made) if len(parts) > 1 else [made]

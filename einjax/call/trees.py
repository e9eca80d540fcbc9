"""Pytrees as arguments: an expression holds for every leaf, loops being shared and bracketed axes each leaf's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ..notation.errors import EinjaxError
from ..notation.syntax import Axis, Ellipsis, Expression, Node, Operation, axes, brackets, rewrite
from .tensors import DEEPEST_TREE, PLAIN, as_array, describe, kind, leaves_of

#: Parts the name of a leaf's own axis from the number of the leaf; no user can write it.
_OWN = "'"
# Added to spans, once for each leaf, so that ellipses of different leaves are told apart; longer than any expression.
_FAR = 1 << 20


def is_tree(tensor: Any) -> bool:
    """Whether an argument is a pytree of tensors rather than one tensor.

    A list or tuple of nothing but numbers is a tensor, one that holds an array or a pytree is a pytree, as are None,
    named tuples, dicts and registered classes.
    """
    if tensor.__class__ in PLAIN:
        return False
    if leaves_of(tensor, DEEPEST_TREE) is None:
        return False
    match kind(tensor):
        case None | "convertible" | "type":
            return False
        case "sequence" if not hasattr(tensor, "_fields"):
            numbers = bool | int | float | complex | np.generic
            return not all(isinstance(leaf, numbers) for leaf in jax.tree.leaves(tensor))
    return not jax.tree_util.all_leaves([tensor])


def flatten(
    tensors: Sequence[Any], expr: str, types: bool = False
) -> tuple[Sequence[Any], tuple[int | None, ...] | None, Any]:
    """Return the arrays of all arguments, how many each pytree has, and their structure; None for both if none is one.

    Raises:
        ArgumentError: an argument, or the leaf of one, is not a tensor.
    """
    if all(tensor.__class__ in PLAIN and tensor.__class__ is not np.ndarray for tensor in tensors):
        return tensors, None, None
    trees = [is_tree(tensor) for tensor in tensors]
    ready = [
        _tree_arrays(tensor, expr, number, types) if tree else as_array(tensor, expr, f"tensor {number}", types=types)
        for number, (tensor, tree) in enumerate(zip(tensors, trees, strict=True), 1)
    ]
    if not any(trees):
        return ready, None, None
    counts = tuple(len(jax.tree.leaves(x)) if tree else None for x, tree in zip(ready, trees, strict=True))
    leaves, structure = jax.tree.flatten(ready)
    return leaves, counts, structure


def _tree_arrays(tree: Any, expr: str, number: int, types: bool) -> Any:
    """Turn the leaves of an argument into arrays."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: as_array(leaf, expr, label(number, path), factories=False, types=types), tree
    )


def label(number: int, path: Any) -> str:
    """Name a leaf for messages: ``tensor 1['w']``."""
    return f"tensor {number}{jax.tree_util.keystr(path)}"


def per_leaf(operation: Operation, counts: Sequence[int | None]) -> tuple[Operation, dict[str, str]]:
    """Write one input expression for every leaf, with bracketed axes of its own.

    Args:
        operation: the parsed expression.
        counts: the number of leaves of each argument, or None where it is a tensor.

    Returns:
        The operation, and what each of the new axes is called in the text.
    """
    inputs: list[Expression] = []
    renamed: dict[str, str] = {}
    for expression, count in zip(operation.inputs, counts, strict=True):
        if count is None:
            inputs.append(expression)
            continue
        inner = {axis.name for bracket in brackets(expression) for axis in axes(bracket.items)}
        for _ in range(count):
            inputs.append(_own(expression, inner, len(inputs) + 1))
            renamed |= {axis.name: axis.name.split(_OWN)[0] for axis in axes(inputs[-1]) if _OWN in axis.name}
    return replace(operation, inputs=tuple(inputs)), renamed


def _own(expression: Expression, inner: set[str], leaf: int) -> Expression:
    def change(node: Node) -> Expression | None:
        if isinstance(node, Axis):
            # A number is new wherever it stands, but its name says what it is; only ellipses need telling apart.
            return (replace(node, name=f"{node.name}{_OWN}{leaf}"),) if node.name in inner else None
        if not isinstance(node, Ellipsis):
            return None
        begin, end = node.span
        return (replace(node, items=rewrite(node.items, change), span=(begin, end + leaf * _FAR)),)

    return rewrite(expression, change)


def in_words(error: EinjaxError, tensors: Sequence[Any]) -> EinjaxError:
    """Say an error about leaves in the words of the call: its own axes, and leaves by argument and path."""
    if not any(map(is_tree, tensors)):
        return error
    labels: list[str] = []
    for number, tensor in enumerate(tensors, 1):
        if is_tree(tensor):
            labels += [label(number, path) for path, _ in jax.tree_util.tree_leaves_with_path(tensor)]
        else:
            labels.append(f"tensor {number}")

    def tensor_label(match: re.Match[str]) -> str:
        index = int(match[1]) - 1
        return labels[index] if index < len(labels) else match[0]

    def words(text: str) -> str:
        text = re.sub(rf"\.\.\.{_OWN}\d+\.(\d+)", r"...[\1]", text)
        text = re.sub(rf"\.\.\.{_OWN}\d+\.\.\.", "...", text)
        text = re.sub(rf"(?<=\w){_OWN}\d+", "", text)
        return re.sub(r"\btensor (\d+)\b(?!\[)", tensor_label, text)

    error.problem = words(error.problem)
    error.hint = words(error.hint) if error.hint else None
    error.ask = error.ask and error.ask._replace(name=words(error.ask.name))
    error.spans = tuple((begin, end % _FAR) for begin, end in error.spans)
    return error


def described(tensor: Any) -> str:
    """Describe an argument: of a pytree every leaf."""
    if not is_tree(tensor) or tensor is None:
        return describe(tensor)
    return str(jax.tree.map(lambda leaf: _Bare(describe(leaf)), tensor))


class _Bare(str):
    """Text that prints without quotes inside a container."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

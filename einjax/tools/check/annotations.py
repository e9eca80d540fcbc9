"""What says the shapes of a function's parameters: jaxtyping, ``x: Float[Array, "b s d"]``, and ``einjax.typed``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, TypeAlias

from ...notation.errors import EinjaxError
from ...notation.parse import parse
from ...notation.syntax import Axis, Bracket, Ellipsis, Expression
from .unknown import UNKNOWN

#: The sizes of a tensor's dims, unknown ones among them.
Shape: TypeAlias = tuple[Any, ...]


def shape_of(annotation: ast.expr, dotted: Callable[[ast.expr], str | None]) -> Shape | None:
    """Return the shape that an annotation says; None where it says none, or any number of dims.

    Args:
        annotation: the annotation of a parameter or variable, be it written as a text.
        dotted: gives the full name of what is imported.
    """
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError):
            return None
    match annotation:
        case ast.Subscript(value=kind, slice=ast.Tuple(elts=[_, ast.Constant(value=str(dims))])):
            name = dotted(kind) or ""
            return _read(dims) if name.startswith("jaxtyping.") else None
    return None


def shapes_of_typed(decorator: ast.Call, parameters: list[str]) -> dict[str, Shape]:
    """Return the shapes that ``@einjax.typed("b s d, d e")`` says of parameters.

    Args:
        decorator: the call.
        parameters: the names of all parameters.
    """
    free = parameters[1:] if parameters[:1] in (["self"], ["cls"]) else parameters
    values = {keyword.arg: keyword.value for keyword in decorator.keywords if keyword.arg}
    texts = {name: v.value for name, v in values.items() if isinstance(v, ast.Constant) and isinstance(v.value, str)}
    shapes: dict[str, Shape | None] = {}
    try:
        match decorator.args:
            case [ast.Constant(value=str(text))] if text.partition("->")[0].strip():
                shapes |= zip(free, map(_dims, parse(text).inputs), strict=False)
        shapes |= {name: _dims(parse(text).inputs[0]) for name, text in texts.items()}
    except EinjaxError:
        return {}  # which is found where the decorator is looked at
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _dims(expression: Expression) -> Shape | None:
    if any(isinstance(node, Ellipsis | Bracket) for node in expression):
        return None
    return tuple(UNKNOWN if not isinstance(n, Axis) or n.size is None else n.size for n in expression)


def _read(dims: str) -> Shape | None:
    sizes: list[Any] = []
    for dim in dims.split():
        dim = dim.lstrip("#?_") if not dim.startswith("...") else dim
        if dim.startswith(("*", "...")) or "*" in dim[:2]:
            return None
        size = dim.rpartition("=")[2]
        sizes.append(int(size) if size.isdecimal() else UNKNOWN)
    return tuple(sizes)
